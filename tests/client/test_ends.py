"""How things end: half-closes, exit signals, cancelled calls, dead servers; nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

import dunnart
from dunnart.client import CLIENT_LIMITS, Exit, connect
from dunnart.client.loops import _contexts
from dunnart.crypto.profiles import PROFILES
from dunnart.errors import ChannelError, ConnectionClosed, LocalProtocolError
from dunnart.keys import KnownHosts
from dunnart.plugins.allow_list import AllowList
from dunnart.plugins.allow_list import Options as Allowed
from dunnart.plugins.direct_tcpip import DirectTcpip, Options
from dunnart.protocol.events import ChannelOpened
from dunnart.protocol.questions import ChannelOpenQuestion
from dunnart.runtime import bridge
from dunnart.server.connection import ServerConnection
from dunnart.server.plugins import Context
from tests.client.support import KEY, KIB, MIB, noise, serving
from tests.runtime.driver import HOST_KEY, descriptors, eventually
from tests.runtime.driver import USER as ME
from tests.runtime.driver import serving as running_programs

LOG = logging.getLogger("dunnart.plugin.test")
FORWARDING: dict[str, Any] = {
    "channel_types": {"direct-tcpip": DirectTcpip(Context("direct-tcpip", Options(2.0), LOG))},
    "forwarding": [AllowList(Context("allow-list", Allowed(("connect *:*",)), LOG))],
}
PROGRAMS: dict[str, Any] = {"authenticators": (dunnart.PublicKeys(KEY.public.line()),)}


def to(address: tuple[str, int], **options: Any) -> Any:
    """Connect to a server that runs real programs."""
    known = KnownHosts(f"127.0.0.1 {HOST_KEY.public.line()}")
    defaults: dict[str, Any] = {"user": ME, "keys": [KEY], "agent": False, "known_hosts": known}
    return connect(*address, **(defaults | options))


async def test_signals_and_statuses_of_real_programs() -> None:
    async with running_programs(**PROGRAMS) as server, to(server.address) as connection:
        assert (await connection.run("exit 3")).exit == Exit(3)
        done = await connection.run("kill -TERM $$")
        assert (done.exit.signal, done.status) == ("TERM", None)
        session = await connection.session("echo up; exec sleep 60")
        assert await session.read(2) == b"up"
        await session.send_signal("KILL")
        assert (await session.wait()).signal == "KILL"


async def test_half_close() -> None:
    async with running_programs(**PROGRAMS) as server, to(server.address) as connection:
        session = await connection.session("cat; echo the end")
        await session.write(b"one ")
        await session.write_eof()
        with pytest.raises(LocalProtocolError, match="after write_eof"):
            await session.write(b"more")
        await session.write_eof()
        assert await session.read_all() == b"one the end\n"
        assert (await session.wait()).status == 0
        with pytest.raises(ChannelError, match="is closed"):
            await session.write(b"more")


async def test_a_program_that_reads_nothing() -> None:
    async with running_programs(**PROGRAMS) as server, to(server.address) as connection:
        done = await connection.run("exec <&-; echo done", noise(8 * MIB))
        assert (done.stdout, done.status) == (b"done\n", 0)


async def test_stderr_joined_dropped_and_read() -> None:
    async with running_programs(**PROGRAMS) as server, to(server.address) as connection:
        command = "head -c 5000000 /dev/zero >&2; echo out"
        async with await connection.session(command, stderr="drop") as session:
            assert await session.read_all() == b"out\n"
        async with await connection.session(command, stderr="join") as session:
            data = await session.read_all()
            assert (data.count(0), data.replace(b"\0", b"")) == (5_000_000, b"out\n")
        done = await connection.run(command)
        assert (len(done.stderr), done.stdout) == (5_000_000, b"out\n")


@pytest.mark.parametrize("cipher", ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr"])
async def test_keys_are_exchanged_during_bulk_both_ways(cipher: str) -> None:
    data = noise(24 * MIB)
    limits = replace(CLIENT_LIMITS, rekey_bytes=MIB)
    algorithms = replace(PROFILES["default"], ciphers=(cipher,))
    async with serving() as server, server.connect(limits=limits, algorithms=algorithms) as connection:
        done = await connection.run("cat", data)
        assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
        assert connection.pump.engine.rekeys > 20


async def test_64_mib_each_way_by_real_programs() -> None:
    data = noise(64 * MIB)
    digest = hashlib.sha256(data).hexdigest().encode()
    async with running_programs(**PROGRAMS) as server, to(server.address) as connection:
        assert (await connection.run("sha256sum", data)).stdout[:64] == digest
        async with await connection.session("cat") as session:
            writing = asyncio.ensure_future(session.write(data))
            found = hashlib.sha256()
            count = 0
            while count < len(data):
                part = await session.read(100_000)
                assert 0 < len(part) <= 100_000
                found.update(part)
                count += len(part)
            await writing
            assert found.hexdigest().encode() == digest


async def test_a_writer_waits_for_its_reader() -> None:
    """Backpressure: no more is sent than the server's window, and the window opens as its program reads."""
    async with serving() as server, server.connect() as connection:
        session = await connection.session("deaf")
        assert await session.read_exactly(4) == b"deaf"
        writing = asyncio.ensure_future(session.write(noise(64 * MIB)))
        before = -1
        while connection.pump.bytes_sent != before:  # until it is stuck
            before = connection.pump.bytes_sent
            await asyncio.sleep(0.2)
        assert before < 16 * MIB
        assert not writing.done()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert (await connection.run("echo on")).stdout == b"on"


async def test_what_is_not_read_is_not_sent() -> None:
    async with serving() as server, server.connect() as connection:
        session = await connection.session(f"down {32 * MIB}")
        before = -1
        while connection.pump.bytes_received != before:
            before = connection.pump.bytes_received
            await asyncio.sleep(0.2)
        assert before < 3 * MIB  # the window, and what packets cost
        assert await session.read_all() == noise(32 * MIB)


async def test_a_cancelled_read_loses_nothing() -> None:
    async with serving() as server, server.connect() as connection:
        session = await connection.session(subsystem="cat")
        for word in (b"one", b"two", b"three"):
            reading = asyncio.ensure_future(session.read())
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await session.write(word)
            assert await session.read_exactly(len(word)) == word


async def test_a_number_of_bytes_is_read_or_none() -> None:
    async with serving() as server, server.connect() as connection:
        session = await connection.session(f"down {3 * MIB}")
        with pytest.raises(EOFError, match="5 bytes before"):
            await session.read_exactly(3 * MIB + 5)
        assert await session.read_exactly(7) + await session.read_all() == noise(3 * MIB)
        session = await connection.session(subsystem="cat")
        for _ in range(3):
            before = connection.pump.bytes_received
            reading = asyncio.ensure_future(session.read_exactly(3 * MIB + 8))
            await session.write(noise(MIB))
            await eventually(lambda before=before: connection.pump.bytes_received >= before + MIB)  # type: ignore[misc]
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        await session.write(noise(8))
        await session.write_eof()
        assert await session.read_exactly(3 * MIB + 8) == 3 * noise(MIB) + noise(8)
        assert await session.read() == b""


async def test_an_opening_that_is_cancelled_closes_the_channel() -> None:
    async with serving() as server, server.connect() as connection:
        for turns in range(12):
            opening = asyncio.ensure_future(connection.session(subsystem="cat"))
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await opening).close()
            await eventually(lambda: not connection._channels)  # or more may be open than a server lets
        assert (await connection.run("echo on")).stdout == b"on"


async def test_a_run_that_is_cancelled_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "CLOSE_WAITS_SECONDS", 0.1)
    async with serving() as server, server.connect() as connection:
        tasks = asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connection.run("deaf", noise(8 * MIB))
        await eventually(lambda: not connection._channels)
        await eventually(lambda: asyncio.all_tasks() <= tasks)
        assert (await connection.run("echo on")).stdout == b"on"


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_login_that_is_cancelled_leaves_nothing(steps: int) -> None:
    async with serving() as server:
        before = descriptors()
        tasks = asyncio.all_tasks()
        connecting = asyncio.ensure_future(server.connect().connect())
        for _ in range(steps):
            await asyncio.sleep(0)
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await connecting).close()
        assert _contexts == {}
        await eventually(lambda: descriptors() <= before)
        await eventually(lambda: asyncio.all_tasks() <= tasks)


async def test_closing_leaves_nothing() -> None:
    async with running_programs(**PROGRAMS) as server:
        async with to(server.address):  # what is made once is made
            pass
        await eventually(lambda: not server.connections)
        before = descriptors()
        tasks = asyncio.all_tasks()
        async with to(server.address) as connection:
            session = await connection.session("cat")
            await session.write(b"word")
        assert connection.closed
        assert _contexts == {}
        await eventually(lambda: descriptors() <= before)
        await eventually(lambda: asyncio.all_tasks() <= tasks)
        uses = (session.read_all(), session.write(b"x"), session.wait(), connection.run("cat"), session.write_eof())
        found: list[object] = [*await asyncio.gather(*uses, return_exceptions=True)]
        assert [type(each) for each in found] == [ConnectionClosed] * 5
        await connection.close()
        await session.close()


async def test_a_transport_that_breaks_ends_everything() -> None:
    async with serving() as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        connection = await server.connect(sock=sock)
        session = await connection.session("deaf")
        waiting = [
            asyncio.ensure_future(each)
            for each in (session.read_exactly(5), session.wait(), connection.run("deaf"),
                         session.write(noise(64 * MIB)), session.stderr.read(), connection.session("cat"))
        ]  # fmt: skip
        await asyncio.sleep(0)
        sock.shutdown(socket.SHUT_RDWR)
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in found] == [ConnectionClosed] * len(waiting)
        with pytest.raises(ConnectionClosed):
            await connection.session("true")
        await connection.close()


async def test_a_request_that_finds_the_transport_broken_is_not_waited_for() -> None:
    async with serving() as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        connection = await server.connect(sock=sock)
        session = await connection.session("deaf")
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(session.send_break(), 20)
        await connection.close()


async def test_a_silent_peer_is_noticed() -> None:
    limits = replace(CLIENT_LIMITS, keepalive_seconds=0.1, keepalive_count_max=2)
    async with running_programs(**PROGRAMS) as server, to(server.address, limits=limits) as connection:
        asyncio.get_running_loop().remove_reader(server.connections[0].pump._fd)
        session = asyncio.ensure_future(connection.session("cat"))
        with pytest.raises(ConnectionClosed, match="2 keepalives without an answer"):
            await session


async def test_the_servers_word_is_told() -> None:
    async with serving() as server:
        connection = await server.connect()
        await server.server.close()
        await connection.wait_closed()
        with pytest.raises(ConnectionClosed, match=r"the server ended the connection: .*shutting down"):
            await connection.run("echo")


async def test_a_socket_that_is_there_is_used() -> None:
    async with serving() as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        async with server.connect(sock=sock) as connection:
            assert (await connection.run("echo here")).stdout == b"here"
        assert sock.fileno() == -1


async def test_forwarded_streams() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"<" + await reader.read() + b">")
        writer.close()

    target = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    async with target, serving(**FORWARDING) as server, server.connect() as connection:
        async with await connection.open_direct("127.0.0.1", port) as channel:
            await channel.write(b"there")
            await channel.write_eof()
            assert await channel.read_all() == b"<there>"
        with pytest.raises(ChannelError, match="connect failed"):
            await connection.open_direct("127.0.0.1", 1)
    async with serving() as server, server.connect() as connection:
        with pytest.raises(ChannelError):
            await connection.open_direct("127.0.0.1", port)


@asynccontextmanager
async def answering() -> AsyncIterator[int]:
    """A TCP server that sends back what it has read, once that has ended."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write(await reader.read())
        writer.close()

    target = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with target:
        yield target.sockets[0].getsockname()[1]


async def test_a_socket_that_has_a_channel() -> None:
    data = noise(5 * MIB)
    async with answering() as port, serving(**FORWARDING) as server, server.connect() as connection:
        before = descriptors()
        channel = await connection.open_direct("127.0.0.1", port)
        assert await channel.read(2) == b"he"
        ours, theirs = socket.socketpair()
        channel.join(theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == b"llo" + data
        writer.close()
        await writer.wait_closed()
        await channel.wait_closed()
        await eventually(lambda: descriptors() <= before)


@pytest.mark.parametrize("breaks", ["socket", "channel", "connection"])
async def test_a_socket_that_has_a_channel_ends_with_it(breaks: str) -> None:
    async with answering() as port, serving(**FORWARDING) as server, server.connect() as connection:
        channel = await connection.open_direct("127.0.0.1", port)
        ours, theirs = socket.socketpair()
        channel.join(theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        assert await reader.readexactly(5) == b"hello"
        if breaks == "socket":
            writer.close()
            await channel.wait_closed()
        else:
            await (channel if breaks == "channel" else connection).close()
            assert await reader.read() == b""
            writer.close()
        await writer.wait_closed()
        assert theirs.fileno() == -1


async def test_a_channel_that_is_closed_at_once_is_heard_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server opens it, says all and closes it, before anybody here has been told that it is open."""

    def all_at_once(self: ServerConnection, question: ChannelOpenQuestion) -> None:
        engine = self.pump.engine
        engine.answer(question.token, True)
        assert engine._connection is not None
        number = max(engine._connection._channels)
        engine.send_data(number, b"all")
        engine.send_eof(number)
        engine.close_channel(number)

    monkeypatch.setitem(ServerConnection._handlers, ChannelOpenQuestion, all_at_once)
    monkeypatch.setitem(ServerConnection._handlers, ChannelOpened, lambda _self, _event: None)
    async with serving(**FORWARDING) as server, server.connect() as connection:
        listener = await connection.forward_local(("127.0.0.1", 0), ("there", 13))
        reader, writer = await asyncio.open_connection(*listener.address)
        assert await reader.read() == b"all"
        writer.close()
        await writer.wait_closed()


async def test_through_another_server() -> None:
    async with serving() as inner, serving(**FORWARDING) as outer, outer.connect() as first:
        async with inner.connect(through=first) as second:
            assert (await second.run("cat", noise(4 * MIB))).stdout == noise(4 * MIB)
        await eventually(lambda: not first._channels)
        second = await inner.connect(through=first)
        reading = asyncio.ensure_future(second.run("deaf"))
        await asyncio.sleep(0.05)
        await first.close()
        with pytest.raises(ConnectionClosed):
            await reading
    async with serving() as inner, serving() as outer, outer.connect() as first:
        with pytest.raises(ChannelError):
            await inner.connect(through=first)


async def test_without_descriptors_for_a_way_through_no_channel_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with serving() as inner, serving(**FORWARDING) as outer, outer.connect() as first:
        monkeypatch.setattr(socket, "socketpair", none_left)
        with pytest.raises(ConnectionClosed, match="Too many open files"):
            await inner.connect(through=first)
        monkeypatch.undo()
        await asyncio.wait_for(first.wait_idle(), 20)


async def test_reading_in_pieces() -> None:
    async with serving() as server, server.connect() as connection:
        session = await connection.session(f"down {300 * KIB}")
        whole = b""
        for limit in (1, 7, 1000, 70_000, 5):
            whole += await session.read_exactly(limit)
        assert whole + await session.read_all() == noise(300 * KIB)
        with pytest.raises(EOFError, match="3 bytes before 3"):
            await session.read_exactly(3)
        with pytest.raises(ValueError, match="at least 1"):
            await session.read(0)
