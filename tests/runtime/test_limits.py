"""Time limits, admission and refusals, on real sockets with short times."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest

from dunnart.protocol.events import AuthRefused
from dunnart.protocol.limits import Limits
from dunnart.protocol.questions import CredentialQuestion
from dunnart.protocol.requests import ExecRequest
from dunnart.runtime.admission import Admission, Penalties, StartupLimit
from dunnart.server.connection import ServerConnection
from tests.runtime.driver import KIB, Client, Serving, eventually, serving


async def end_of(server: Serving, first: bytes = b"") -> bytes:
    """All that comes on a plain connection until the server closes it."""
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(first)
    data = await reader.read()
    writer.close()
    await writer.wait_closed()
    return data


def admission(**options: object) -> Admission:
    """One that drops nobody by chance."""
    return Admission(**({"startups": StartupLimit(), "per_source": 0, "random": lambda: 0.999} | options))  # type: ignore[arg-type]


class Gone:
    """A socket whose peer is gone, as sending finds out."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, _: object) -> int:
        raise BrokenPipeError

    sendmsg = send


async def test_nobody_waits_for_a_version_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(limits=Limits(identification_seconds=0.2)) as server:
        assert (await end_of(server)).startswith(b"SSH-2.0-dunnart")
        assert server.server.connections == 0
        assert server.server.counters["disconnect_LoginTimeout"] == 1
        assert any(message.startswith("Timeout before authentication") for message in caplog.messages)


async def test_the_login_grace_is_renewed_by_nothing() -> None:
    async with serving(limits=Limits(login_grace_seconds=1.5)) as server:
        client = server.begin(answers={CredentialQuestion: None})  # it has nothing to log in with
        await client.until(lambda: any(isinstance(event, AuthRefused) for event in client.events))
        while not client.eof:
            client.engine.outbound.send(b"\x02\0\0\0\0")  # IGNORE
            client.move()
            await asyncio.sleep(0.02)
        assert client.ended is not None
        assert client.ended.text == "timeout before authentication"


async def test_after_the_login_there_is_no_grace_to_exceed() -> None:
    async with serving(limits=Limits(login_grace_seconds=1.5, identification_seconds=1.5)) as server:
        client = await server.login()
        assert (await client.run("sleep 2.6; echo done")).out == b"done\n"


async def test_an_idle_connection_ends() -> None:
    async with serving(limits=Limits(idle_seconds=1.0)) as server:
        client = await server.login()
        await client.until(lambda: client.ended is not None)
        assert client.ended is not None
        assert (client.ended.reason_code, client.ended.text) == (11, "idle timeout")


async def test_a_busy_connection_does_not() -> None:
    async with serving(limits=Limits(idle_seconds=1.6)) as server:
        client = await server.login()
        channel = await client.run("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.4; done")
        assert channel.out == b"1\n2\n3\n4\n5\n6\n7\n8\n"


async def test_a_silent_peer_is_asked_for_a_sign_of_life_and_given_up() -> None:
    async with serving(limits=Limits(keepalive_seconds=0.2, keepalive_count_max=2)) as server:
        answering = await server.login()
        silent = await server.login()
        silent.pause()
        await eventually(lambda: server.server.connections == 1)
        assert server.server.counters["disconnect_IdleTimeout"] == 1
        assert (await answering.run("echo alive")).out == b"alive\n"


async def test_a_key_exchange_that_nobody_answers_has_an_end() -> None:
    """THREATS R4. The server begins it in the middle of a download, and nothing comes back."""
    limits = Limits(rekey_bytes=64 * KIB, rekey_deadline_seconds=0.2)
    async with serving(limits=limits) as server:
        client = await server.login(limits=Limits(window_bytes=1 << 30))
        channel = await client.session()
        client.request(channel, ExecRequest(b"head -c 1000000 /dev/zero; sleep 1000"))
        client.pause()
        await eventually(lambda: server.server.connections == 0)
        assert server.server.counters["disconnect_NegotiationError"] == 1


async def test_sessions_beyond_the_limit_are_refused_and_nothing_else() -> None:
    async with serving(limits=Limits(sessions=3)) as server:
        client = await server.login()
        channels = [await client.session() for _ in range(4)]
        assert [channel.opened for channel in channels] == [True, True, True, False]
        client.close_channel(channels[0])
        await client.until(lambda: channels[0].closed)
        assert (await client.run("echo again")).out == b"again\n"


async def test_who_is_not_admitted_is_closed_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(admission=admission(startups=StartupLimit(2, 100, 2))) as server:
        waiting = [socket.create_connection(server.address) for _ in range(2)]
        await eventually(lambda: server.server.connections == 2)
        assert await end_of(server) == b""
        assert server.server.counters["refused_startups"] == 1
        lines = [message for message in caplog.messages if message.startswith("drop connection")]
        assert len(lines) == 1
        assert "127.0.0.1" in lines[0]
        for sock in waiting:
            sock.close()
        await eventually(lambda: server.server.connections == 0)
        assert (await server.login()).ended is None


async def test_logins_free_their_place() -> None:
    chosen = admission(startups=StartupLimit(1, 100, 1), per_source=1)
    async with serving(admission=chosen) as server:
        for _ in range(4):
            await server.login()
        assert chosen.waiting == 0
        assert chosen.counters["logged_in"] == 4


@pytest.mark.parametrize("how", ["close", "reset", "garbage", "shut in the middle", "reset while answered"])
async def test_every_end_before_a_login_frees_its_place(how: str) -> None:
    chosen = admission(penalties=Penalties(enabled=False))
    async with serving(admission=chosen) as server:
        for number in range(1, 21):
            if how == "garbage":
                await end_of(server, b"GET / HTTP/1.1\r\n\r\n")
                continue
            client = server.begin()
            client.pause()
            await eventually(lambda number=number: server.server.counters["connections"] == number)  # type: ignore[misc]
            if how == "reset while answered":
                # Our answer meets a socket that is gone: the send fails, not the receive.
                server.connections[0].pump._sock = Gone(server.connections[0].pump._sock)
                client.resume()
            elif how == "shut in the middle":
                client.sock.shutdown(socket.SHUT_WR)
            elif how == "reset":
                client.reset()
            else:
                client.close()
            await eventually(lambda: server.server.connections == 0)
            client.close()
        await eventually(lambda: server.server.connections == 0)
        assert chosen.waiting == 0
        assert chosen.counters["admitted"] == 20


async def test_sources_that_fail_are_refused_for_a_while() -> None:
    penalties = Penalties(auth_failure_seconds=100.0, min_seconds=150.0)
    async with serving(admission=admission(penalties=penalties)) as server:
        for _ in range(2):
            client = server.begin(password="wrong")
            await client.until(lambda client=client: len(client.events) > 3)  # type: ignore[misc]
            await eventually(lambda: server.server.counters["auth_failures"])
            server.server.counters["auth_failures"] = 0
            client.close()
            await eventually(lambda: server.server.connections == 0)
        assert await end_of(server) == b""
        assert server.server.counters["refused_penalty"] == 1


async def test_a_fault_in_the_read_that_ends_the_connection_hides_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = admission()
    async with serving(admission=chosen) as server:

        def fail(self: ServerConnection, event: object) -> None:
            raise ZeroDivisionError("a fault")

        name = next(kind for kind in ServerConnection._handlers if kind.__name__ == "VersionReceived")
        monkeypatch.setitem(ServerConnection._handlers, name, fail)
        await end_of(server, b"SSH-2.0-test\r\n" + b"\xff" * 64)
        assert server.server.counters["failures"] == 1
        assert (chosen.waiting, server.server.connections) == (0, 0)


async def test_the_server_goes_on_after_a_fault_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever raises in an event's handler ends its connection and no other, and gives its place back."""
    chosen = admission()
    async with serving(admission=chosen) as server:
        other = await server.login()
        before = server.server.counters["failures"]

        def fail(self: ServerConnection, event: object) -> None:
            raise ZeroDivisionError("a fault")

        name = next(kind for kind in ServerConnection._handlers if kind.__name__ == "KeysExchanged")
        monkeypatch.setitem(ServerConnection._handlers, name, fail)
        client: Client = server.begin()
        await client.until(lambda: client.ended is not None)
        assert client.ended is not None
        assert client.ended.text == "internal error"
        await eventually(lambda: server.server.connections == 1)
        assert server.server.counters["failures"] == before + 1
        assert chosen.counters["penalty_crash"] == 1
        assert chosen.waiting == 0
        assert any("a fault" in message for message in caplog.messages)
        assert (await other.run("echo fine")).out == b"fine\n"
