"""What the server writes about its peers: whole lines, nothing of theirs raw, nothing secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from functools import partial

import pytest

from dunnart.protocol.events import AuthRefused
from dunnart.protocol.requests import EnvironmentRequest, ExecRequest, SubsystemRequest
from dunnart.runtime.admission import Admission, StartupLimit
from dunnart.runtime.logs import JsonFormatter, TextFormatter
from dunnart.server import Attempt, AuthReply, Deny
from tests.runtime.driver import PASSWORD, USER, Client, Serving, eventually, serving

EVIL = "\x1b[2J\r\nAccepted password for root from 192.0.2.1 port 1 ssh2\n\x9b31m\u202e\0"


@pytest.fixture(params=[TextFormatter, JsonFormatter])
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """All that the server logs, debug lines included, in one of the two forms."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param())
    logger = logging.getLogger("dunnart")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


async def _raw(server: Serving, data: bytes) -> None:
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(data)
    await reader.read()
    writer.close()


async def test_nothing_of_a_peer_is_written_raw(written: io.StringIO) -> None:
    async with serving() as server:
        for data in (b"SSH-2.0-" + EVIL.encode(), EVIL.encode(), b"\xff\xfe\n", b"SSH-1.5-old\r\n", b"x" * 300):
            await _raw(server, data)
        stranger = server.begin(password="a secret guess")
        object.__setattr__(stranger.engine.config, "user", "bob" + EVIL)
        await stranger.until(lambda: any(isinstance(event, AuthRefused) for event in stranger.events))
        stranger.engine.disconnect("bye" + EVIL)
        stranger.move()
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, EnvironmentRequest("LD_" + EVIL.strip("\0"), EVIL))
        assert not await client.ask(channel, SubsystemRequest("sftp" + EVIL))
        assert await client.ask(channel, ExecRequest(("true; :" + EVIL.strip("\0")).encode() + b"\xff"))
        await client.until(lambda: channel.closed)
        client.engine.disconnect("bye" + EVIL, 2)
        client.move()
        await eventually(lambda: server.server.connections == 0)
    text = written.getvalue()
    lines = text.split("\n")
    assert lines.pop() == ""
    assert len(lines) >= 12
    for line in lines:
        assert line.isprintable(), line
        assert len(line) < 1000
    assert sum("Accepted password for" in line and "192.0.2.1 port 1 " not in line for line in lines) == 1
    assert PASSWORD not in text
    assert "a secret guess" not in text


async def test_json_lines_say_whose_they_are(written: io.StringIO) -> None:
    async with serving() as server:
        client = await server.login()
        await client.run("true")
        client.close()
        await eventually(lambda: server.server.connections == 0)
    lines = written.getvalue().splitlines()
    if not lines[0].startswith("{"):
        assert all("/1 " in line for line in lines)  # the connection's number
        return
    found = [json.loads(line) for line in lines]
    assert {line["connection"] for line in found} == {1}
    address, port = client.engine.config.user, found[-1]["peer"].rpartition(":")[2]
    assert all(line["peer"] == f"127.0.0.1:{port}" for line in found)
    assert found[-1]["user"] == address
    assert all({"time", "level", "part", "message"} <= line.keys() for line in found)


async def test_each_end_is_one_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as server:
        for _ in range(3):
            client = await server.login()
            client.close()
        await eventually(lambda: server.server.connections == 0)
    ends = [message for message in caplog.messages if message.startswith("Connection closed by user")]
    assert len(ends) == 3


class _Nobody:
    method = "password"

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        return Deny("no such user here", unknown_user=True)


def _was_refused(client: Client) -> bool:
    return any(isinstance(event, AuthRefused) for event in client.events)


async def test_unknown_users_are_named_so_and_penalised(caplog: pytest.LogCaptureFixture) -> None:
    """As sshd does, for fail2ban's filter and PerSourcePenalties; the client sees no difference (THREATS R15, R18)."""
    caplog.set_level(logging.INFO, "dunnart")
    admission = Admission(startups=StartupLimit(), per_source=0, random=lambda: 0.5)
    async with serving(authenticators=(_Nobody(),), admission=admission) as server:
        for says in (True, False):
            stranger = server.begin(password="a secret guess")
            await stranger.until(partial(_was_refused, stranger))
            if says:
                stranger.engine.disconnect("bye")
                stranger.move()
            else:
                stranger.close()
            await eventually(lambda: server.server.connections == 0)
    assert any(line.startswith(f"Invalid user {USER} from 127.0.0.1 port ") for line in caplog.messages)
    assert any(line.startswith(f"Failed password for invalid user {USER} from") for line in caplog.messages)
    assert any(line.startswith(f"Connection closed by invalid user {USER} 127.0.0.1 port ") for line in caplog.messages)
    assert admission.counters["penalty_invalid_user"] == 2
