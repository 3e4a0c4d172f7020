"""What a server tells of itself, and what an operator does with it, in every placement."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest

from dunnart.errors import ConfigError, LocalProtocolError
from dunnart.protocol.requests import PtyRequest
from dunnart.runtime.logs import PARTS
from dunnart.server import BlockingSession, RawSession, Server, Session, SessionEvents
from dunnart.server.status import ConnectionStatus, ServerStatus, to_json
from tests.runtime.driver import HOST_KEY, KIB, USER, Running, eventually
from tests.unit.server.api import Api, begin, ended, every_placement, serving

XTERM = PtyRequest("xterm", 80, 24, 0, 0, b"")


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("dunnart", *(f"dunnart.{part}" for part in PARTS))]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


async def only(server: Server) -> ConnectionStatus:
    (found,) = await server.sessions()
    return found


async def seen(server: Server, condition: Callable[[tuple[ConnectionStatus, ...]], bool]) -> tuple[Any, ...]:
    """Look until it is so."""
    while not condition(found := await server.sessions()):  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.01)
    return found


@every_placement
async def test_a_server_that_nobody_uses(placement: str) -> None:
    async with serving(placement, Running()) as running:
        status = await running.server.status()
        assert (status.placement, status.workers, status.draining) == (placement, 1, False)
        assert abs(status.started - time.time()) < 30
        assert 0 <= status.uptime_seconds < 30
        assert (status.connections, status.sessions, status.channels, status.programs) == (0, 0, 0, 0)
        assert status.memory_bytes > 1 << 20
        assert status.cpu_seconds > 0
        assert status.threads >= 1
        assert status.application.size == 64
        assert status.processes[0].pid == os.getpid()
        assert [each.role for each in status.processes[1:]] == (["protocol 0"] if placement == "process" else [])
        assert status.algorithms == {}
        assert await running.server.sessions() == ()
    with pytest.raises(LocalProtocolError, match="does not run"):
        await running.server.status()


@every_placement
async def test_a_server_in_use(placement: str) -> None:
    async with serving(placement, Running()) as running:
        server = running.server
        client = await running.login()
        channel = await begin(client, XTERM, command="echo ready; cat")
        await client.until(lambda: b"ready" in channel.out)
        await running.login()
        bad = running.begin(password="wrong")
        await seen(server, lambda found: any(each.user and not each.logged_in for each in found))
        status = await server.status()
        assert (status.connections, status.logged_in, status.sessions, status.channels) == (3, 2, 1, 1)
        assert (status.logins, status.failed_logins, status.programs) == (2, 0, 1)
        assert status.counters["connections"] == 3
        assert status.algorithms["host_key"] == {"ssh-ed25519": 3}
        assert sum(status.algorithms["kex"].values()) == 3
        assert sum(status.algorithms["cipher"].values()) == 3
        assert "mac" not in status.algorithms or sum(status.algorithms["mac"].values()) <= 3
        received, sent = status.bytes_received, status.bytes_sent
        assert received > KIB
        assert sent > KIB
        bad.close()
        client.close()
        await seen(server, lambda found: len(found) == 1)
        status = await server.status()
        assert status.failed_logins == 1
        assert (status.bytes_received, status.bytes_sent) >= (received, sent), "those that ended count"


@every_placement
async def test_a_connection_and_its_channels(placement: str) -> None:
    async with serving(placement, Running()) as running:
        client = await running.login()
        channel = await begin(client, XTERM, command="stty -echo; echo ready; exec cat")
        await client.until(lambda: b"ready" in channel.out)
        silent = await client.session()
        before = await only(running.server)
        client.send(channel, b"12345678\n")
        await client.until(lambda: b"12345678" in channel.out)
        found = await only(running.server)
        assert (found.logged_in, found.user, found.method, found.key) == (True, USER, "password", "")
        host, port = client.sock.getsockname()
        assert (found.peer, found.local) == (f"{host}:{port}", f"127.0.0.1:{running.server.port}")
        assert abs(found.since - time.time()) < 30
        assert found.idle_seconds < 30
        assert found.client.startswith("SSH-2.0-")
        assert found.host_key == "ssh-ed25519"
        assert found.kex
        assert found.cipher_to_server
        assert found.cipher_to_client
        assert found.compression_to_client == "none"
        assert found.bytes_received > before.bytes_received
        assert found.rekeys == 0
        assert [each.number for each in found.channels] == [channel.number, silent.number]
        first, second = found.channels
        assert (first.kind, first.detail) == ("exec", "stty -echo; echo ready; exec cat")
        assert first.terminal == "xterm 80x24"
        assert first.bytes_received == 9
        assert first.bytes_sent == len(channel.out)
        process, pid = first.served_by.split()
        assert process == "process"
        os.kill(int(pid), 0)
        assert (second.kind, second.served_by, second.bytes_received) == ("session", "", 0)
        assert [each.id for each in await running.server.sessions(found.id)] == [found.id]
        assert await running.server.sessions(999) == ()


@every_placement
async def test_what_serves_a_session_has_a_name(placement: str) -> None:
    async def waits(session: Session) -> None:
        await session.read()

    blocked = threading.Event()

    def blocks(session: BlockingSession) -> None:
        blocked.set()
        session.stdin.read()

    class Watches(SessionEvents):
        pass

    class Takes:
        def begin(self, session: RawSession) -> bool:
            self.sock = session.socket()
            return True

    subsystems: dict[str, Any] = {"waits": waits, "blocks": blocks, "watches": Watches, "takes": Takes()}
    async with serving(placement, subsystems=subsystems) as running:
        client = await running.login()
        for name in subsystems:
            await begin(client, subsystem=name)
        await asyncio.to_thread(blocked.wait)
        seen = {each.detail: each.served_by.rpartition(".")[2] for each in (await only(running.server)).channels}
        assert seen == {"waits": "waits", "blocks": "blocks", "watches": "Watches", "takes": "Takes"}
        status = await running.server.status()
        assert (status.sessions, status.application.busy) == (4, 1)
        subsystems["takes"].sock.close()


@every_placement
async def test_what_a_peer_says_is_shown_clean(placement: str) -> None:
    async with serving(placement, Running()) as running:
        client = await running.login()
        channel = await begin(client, command="cat\n\x1b[2J\\" + "x" * 400)
        await client.until(lambda: channel.number in client.channels)
        (shown,) = (await only(running.server)).channels
        assert shown.detail.isprintable()
        assert len(shown.detail) <= 200
        assert shown.detail.startswith("cat\\x0a\\x1b[2J\\\\x")


@every_placement
async def test_all_of_it_becomes_json_and_comes_back(placement: str) -> None:
    async with serving(placement, Running()) as running:
        client = await running.login()
        await begin(client, command="cat")
        found = await only(running.server)
        assert ConnectionStatus.from_json(json.loads(json.dumps(to_json(found)))) == found
        status = await running.server.status()
        assert json.loads(json.dumps(asdict(status)))["logins"] == 1
        assert isinstance(status, ServerStatus)


@every_placement
async def test_kill(placement: str) -> None:
    closed = asyncio.Event()

    async def handler(session: Session) -> None:
        try:
            await session.read()
        finally:
            closed.set()

    async with serving(placement, handler) as running:
        client, other = await running.login(), await running.login()
        await begin(client)
        first, _ = await running.server.sessions()
        assert await running.server.kill(first.id, "go away") is True
        with pytest.raises(AssertionError, match="ended before that"):
            await client.until(lambda: False)
        assert client.ended is not None
        assert client.ended.text == "go away"
        await closed.wait()
        assert await running.server.kill(first.id) is False
        assert not other.eof
        await begin(other)


@every_placement
async def test_kill_ends_one_that_reads_nothing(placement: str) -> None:
    async with serving(placement, Running()) as running:
        client = await running.login(receive_bytes=4096)
        await begin(client, command="cat /dev/zero")
        client.pause()
        found = await only(running.server)
        while True:  # until nothing moves any more
            before, found = found, await only(running.server)
            if before.bytes_sent == found.bytes_sent > 0:
                break
            await asyncio.sleep(0.1)
        assert await running.server.kill(found.id)
        await eventually(lambda: running.server.connections == 0)


@every_placement
async def test_rekey(placement: str) -> None:
    async with serving(placement, Running()) as running:
        client = await running.login()
        channel = await begin(client, command="cat")
        found = await only(running.server)
        assert await running.server.rekey(found.id) is True
        await client.until(lambda: client.engine.rekeys == 1)
        client.send(channel, b"on")
        await client.until(lambda: channel.out == b"on")
        assert (await only(running.server)).rekeys == 1
        assert (await running.server.status()).rekeys == 1
        assert await running.server.rekey(999) is False
        waiting = running.dial()
        _, second = await seen(running.server, lambda found: len(found) == 2)
        assert await running.server.rekey(second.id) is False, "nobody has logged in there"
        waiting.close()


@every_placement
async def test_log_levels(placement: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(placement, Running()) as running:
        await running.server.set_log_level("error")
        assert set(running.server.log_levels.values()) == {"error"}
        await running.login()
        assert not any("Accepted" in record.message for record in caplog.records)
        await running.server.set_log_level("info", "auth")
        assert running.server.log_levels["auth"] == "info"
        assert running.server.log_levels["session"] == "error"
        await running.login()
        await eventually(lambda: any("Accepted password" in record.message for record in caplog.records))
        await running.server.set_log_level("debug")
        assert running.server.log_levels["session"] == "debug"
        assert running.server.log_levels["auth"] == "info", "it has a level of its own"
        logging.getLogger("dunnart.plugin.mine").setLevel(logging.NOTSET)
        await running.server.set_log_level("error", "plugin.mine")
        assert logging.getLogger("dunnart.plugin.mine").level == logging.ERROR
        for level, part, key in [
            ("loud", None, "level"),
            ("info", "everything", "part"),
            ("info", "plugin.no", "part"),
        ]:
            with pytest.raises(ConfigError) as caught:
                await running.server.set_log_level(level, part)
            assert caught.value.key == key


def answers(running: Api) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(running.address) == 0


@every_placement
async def test_drain_waits_for_sessions(placement: str) -> None:
    async with serving(placement, Running()) as running:
        server = running.server
        client = await running.login()
        terminal = await begin(client, XTERM, command="echo ready; read line; echo $line; exit 3")
        await client.until(lambda: b"ready" in terminal.out)
        plain = await begin(client, command="cat")
        draining = asyncio.create_task(server.drain(60, "The end is near."))
        await client.until(lambda: b"The end is near." in terminal.err)
        assert server.draining
        assert (await server.status()).draining
        assert not answers(running)
        assert not plain.err
        client.send(terminal, b"done\n")
        assert await ended(client, terminal) == 3
        assert not draining.done(), "there is another session"
        client.send_eof(plain)
        assert await ended(client, plain) == 0
        await draining
        with pytest.raises(AssertionError, match="ended before that"):
            await client.until(lambda: False)
        await server.wait_closed()
        with pytest.raises(LocalProtocolError):
            await server.drain(1)


@every_placement
async def test_drain_ends_what_is_left(placement: str) -> None:
    async with serving(placement, Running()) as running:
        client = await running.login()
        channel = await begin(client, XTERM, command="echo ready; sleep 1000")
        await client.until(lambda: b"ready" in channel.out)
        first = running.server.begin_drain(0.2)
        assert running.server.begin_drain(60) is first
        await first
        with pytest.raises(AssertionError, match="ended before that"):
            await client.until(lambda: False)
        assert b"The server ends in 0 seconds." in channel.err


@every_placement
async def test_close_while_it_is_drained(placement: str) -> None:
    async with serving(placement, Running()) as running:
        client = await running.login()
        await begin(client, command="sleep 1000")
        draining = running.server.begin_drain(1000)
        await eventually(lambda: running.server.draining)
        await running.server.close()
        await draining


async def test_a_file_that_another_server_has_made_since_is_left_alone(tmp_path: Any) -> None:
    path = tmp_path / "sock"
    old = Server(Running(), host_keys=[HOST_KEY], authenticators=[_Nobody()], listen=f"unix:{path}", placement="loop")
    await old.start()
    await old.drain(0)
    assert not path.exists()
    new = Server(Running(), host_keys=[HOST_KEY], authenticators=[_Nobody()], listen=f"unix:{path}", placement="loop")
    async with new:
        await old.close()
        assert path.exists()


class _Nobody:
    method = "password"

    async def authenticate(self, _: object) -> Any:
        raise NotImplementedError


@every_placement
async def test_sessions_know_their_server(placement: str) -> None:
    seen: list[object] = []

    async def waits(session: Session) -> None:
        seen.append(session.server)
        await session.write(str((await session.server.status()).logins))

    def blocks(session: BlockingSession) -> None:
        seen.append(session.server)

    class Watches(SessionEvents):
        def opened(self, session: Any) -> None:
            seen.append(session.server)
            session.exit()

    class Takes:
        def begin(self, session: RawSession) -> bool:
            seen.append(session.server)
            session.exit()
            return True

    subsystems: dict[str, Any] = {"waits": waits, "blocks": blocks, "watches": Watches, "takes": Takes()}
    async with serving(placement, subsystems=subsystems) as running:
        client = await running.login()
        for name in subsystems:
            channel = await begin(client, subsystem=name)
            assert await ended(client, channel) == 0
            assert channel.out == (b"1" if name == "waits" else b"")
        assert seen == [running.server] * 4


async def test_many_connections_are_looked_at_in_pieces() -> None:
    async with serving("loop", Running()) as running:
        server = running.server
        socks = [running.dial() for _ in range(120)]
        await eventually(lambda: server.connections == 120)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        assert len(await server.sessions()) == 120
        assert turns >= 2
        counting.cancel()
        for sock in socks:
            sock.close()
