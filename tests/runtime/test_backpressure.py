"""Who does not read is not read for: windows, queues and memory stay bounded, and everything goes on afterwards."""

from __future__ import annotations

import hashlib
import os
import socket
import tracemalloc
from typing import Any

import pytest

from dunnart.protocol.limits import Limits
from dunnart.protocol.requests import ExecRequest, PtyRequest, SignalRequest
from dunnart.server import RawSession, Session
from dunnart.server.applications import as_application
from dunnart.wire.messages import Ping
from tests.alone import alone
from tests.runtime.driver import KIB, MIB, Beginning, Channel, Client, Serving, eventually, serving

WINDOW = 128 * KIB


def bridge(server: Serving, channel: int = 0) -> Any:
    """What stands behind a channel of the first connection."""
    return server.connections[0]._channels[channel]._bridge


async def test_a_program_that_writes_for_ever_waits_for_the_window() -> None:
    async with serving() as server:
        client = await server.login(limits=Limits(window_bytes=WINDOW))
        channel = await client.exec("yes", consume=False)
        await client.until(lambda: channel.received == WINDOW)
        await eventually(lambda: bridge(server)._paused)
        pump = server.connections[0].pump
        assert not pump.congested
        assert (await client.run("echo still here")).out == b"still here\n"
        assert channel.received == WINDOW
        channel.consume = True
        client.engine.consumed(channel.number, WINDOW)
        client.move()
        await client.until(lambda: channel.received > 4 * WINDOW)
        client.close_channel(channel)
        await client.until(lambda: channel.closed)


async def test_stderr_and_stdout_wait_together_and_go_on_together() -> None:
    async with serving() as server:
        client = await server.login(limits=Limits(window_bytes=WINDOW))
        channel = await client.exec("head -c 1000000 /dev/zero >&2 & head -c 1000000 /dev/zero; wait", consume=False)
        await client.until(lambda: channel.received == WINDOW)
        channel.consume = True
        client.engine.consumed(channel.number, WINDOW)
        client.move()
        await client.until(lambda: channel.closed)
        assert (len(channel.out), len(channel.err)) == (1_000_000, 1_000_000)


async def test_a_client_that_does_not_read_its_socket_stops_its_programs() -> None:
    async with serving() as server:
        client = await server.login(limits=Limits(window_bytes=1 << 30), receive_bytes=8 * KIB)
        channel = await client.exec("yes")
        channel.keep = False
        client.pause()
        connection = server.connections[0]
        await eventually(lambda: connection.pump.congested and bridge(server)._paused)
        assert connection.pump._backlog_bytes <= connection.pump.engine.config.limits.output_bytes + 64 * KIB
        sent = connection.pump.bytes_sent
        other = await server.login()
        assert (await other.run("echo others go on")).out == b"others go on\n"
        assert connection.pump.bytes_sent == sent
        before = channel.received
        client.resume()
        await client.until(lambda: channel.received > before + 8 * MIB)


async def test_a_terminal_behind_a_full_socket_goes_on_and_ends() -> None:
    async with serving() as server:
        client = await server.login(limits=Limits(window_bytes=WINDOW))
        channel = await client.session()
        channel.consume = False
        assert await client.ask(channel, PtyRequest("vt100", 80, 24, 0, 0, b""))
        assert await client.ask(channel, ExecRequest(b"head -c 300000 /dev/zero | tr '\\0' x; exit 3"))
        await client.until(lambda: channel.received == WINDOW)
        channel.consume = True
        client.engine.consumed(channel.number, WINDOW)
        client.move()
        await client.until(lambda: channel.closed)
        assert (len(channel.out), channel.status) == (300_000, 3)


async def test_an_upload_waits_for_the_program() -> None:
    limits = Limits(window_bytes=WINDOW)
    async with serving(limits=limits) as server:
        client = await server.login()
        channel = await client.exec("trap go=1 USR1; echo ready; until [ $go ]; do sleep 0.01; done; exec sha256sum")
        await client.until(lambda: channel.out == b"ready\n")  # before the trap is set the signal would end it
        data = os.urandom(24 * WINDOW)
        sent = 0
        while more := client.send(channel, data[sent:]):
            sent += more
            await client.ask(channel, ExecRequest(b"refused, but answered: all before it was handled"))
        pending = bridge(server)._pending
        assert WINDOW <= sent < 12 * WINDOW  # the window, and the megabyte that the pipe holds
        assert WINDOW // 2 < len(pending) <= WINDOW
        assert (await client.run("echo still here")).out == b"still here\n"
        assert await client.ask(channel, SignalRequest("USR1"))
        await client.send_all(channel, data[sent:])
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        assert channel.out.decode() == f"ready\n{hashlib.sha256(data).hexdigest()}  -\n"


@alone
async def test_data_in_single_bytes_costs_no_more_than_bytes() -> None:
    """A window's worth of one-byte packets, for a program that reads nothing, is kept as bytes and not as objects."""
    size = 32 * KIB
    async with serving(limits=Limits(window_bytes=size, channel_packet_bytes=KIB)) as server:
        client = await server.login()
        idle = await client.session()  # no program yet
        stuck = await client.exec("sleep 1000")
        for _ in range(8):
            client.send(stuck, bytes(8 * KIB))  # what the pipe takes
            await client.ask(stuck, ExecRequest(b"refused"))
        pump = server.connections[0].pump
        channels = [pump.engine.channel(number) for number in (0, 1)]
        for channel in channels:
            channel.receive_window.size = channel.receive_window.available = size
        sessions = server.connections[0]._channels
        chunks = [memoryview(b"x") for _ in range(size)]
        tracemalloc.start()
        try:
            for session in (sessions[0], sessions[1]):
                for chunk in chunks:
                    session.receive([chunk])
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert used < 8 * size
        assert idle.opened


async def test_data_before_a_program_waits_for_it() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.session()
        for piece in (b"first ", b"second ", b"third"):
            client.send(channel, piece)
        client.send_eof(channel)
        assert await client.ask(channel, ExecRequest(b"cat"))
        await client.until(lambda: channel.closed)
        assert channel.out == b"first second third"


async def test_a_client_that_never_reads_answers_is_not_read() -> None:
    """THREATS R19: requests that want replies, and nobody takes the replies."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * KIB)
    async with serving(listener) as server:
        client = await server.login(receive_bytes=4 * KIB)
        client.pause()
        connection = server.connections[0]
        pump = connection.pump

        ping = Ping(bytes(KIB)).encode()

        def flood() -> bool:
            for _ in range(50):
                client.engine.outbound.send(ping)
            client.move()
            return not pump._reading

        while not flood():
            await eventually(lambda: not pump._reading or not client.unsent)
        assert not pump._reading
        output = pump.engine.config.limits.output_bytes
        assert output < pump._backlog_bytes < 4 * output
        received = pump.bytes_received
        other = await server.login()
        assert (await other.run("echo others go on")).out == b"others go on\n"
        assert pump.bytes_received == received
        client.resume()
        await client.until(lambda: not client.unsent)
        assert (await client.run("echo and so does it")).out == b"and so does it\n"


async def test_one_stuck_channel_of_four_stops_no_other() -> None:
    async with serving() as server:
        client = await server.login(limits=Limits(window_bytes=WINDOW))
        stuck = await client.exec("yes", consume=False)
        others = [await client.exec("cat") for _ in range(3)]
        await client.until(lambda: stuck.received == WINDOW)
        data = os.urandom(3 * MIB)
        for channel in others:
            await client.send_all(channel, data)
            client.send_eof(channel)
        for channel in others:
            await client.until(lambda channel=channel: channel.closed)  # type: ignore[misc]
            assert channel.out == data
        assert stuck.received == WINDOW


async def test_key_exchanges_interrupt_no_stream() -> None:
    limits = Limits(rekey_bytes=256 * KIB)
    async with serving(limits=limits) as server:
        client = await server.login()
        data = os.urandom(3 * MIB)
        channel = await client.exec("cat")
        await client.send_all(channel, data)
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        assert channel.out == data
        assert server.server.counters["rekeys"] >= 4


# Coroutines.


async def upload(client: Client, channel: Channel, data: bytes) -> None:
    """Send all, and the end."""
    await client.send_all(channel, data)
    client.send_eof(channel)
    await client.until(lambda: channel.closed)


async def test_a_coroutine_echoes() -> None:
    async def echo(session: Session) -> int:
        while data := await session.read():
            await session.write(data)
        await session.stderr.write(b"bye")
        return 6

    async with serving(exec=echo) as server:
        client = await server.login()
        channel = await client.exec("x")
        data = os.urandom(3 * MIB)
        await upload(client, channel, data)
        assert (channel.out, channel.err, channel.status) == (data, b"bye", 6)
        assert "status" in channel.order
        assert channel.order[-2:] == ["eof", "close"]


async def test_a_coroutine_that_writes_waits_for_the_window_and_the_socket() -> None:
    progress = [0]

    async def source(session: Session) -> None:
        for _ in range(64):
            await session.write(bytes(64 * KIB))
            progress[0] += 64 * KIB

    async with serving(exec=source) as server:
        client = await server.login(limits=Limits(window_bytes=WINDOW))
        channel = await client.exec("x", consume=False)
        await client.until(lambda: channel.received == WINDOW)
        assert (await client.session()).opened
        assert progress[0] <= WINDOW + MIB  # what the local socket holds, at most
        channel.consume = True
        client.engine.consumed(channel.number, WINDOW)
        client.move()
        await client.until(lambda: channel.closed)
        assert len(channel.out) == 4 * MIB


async def test_one_huge_write_queues_no_more_than_a_burst() -> None:
    async def source(session: Session) -> None:
        await session.write(bytes(32 * MIB))

    async with serving(exec=source) as server:
        client = await server.login(limits=Limits(window_bytes=1 << 30), receive_bytes=8 * KIB)
        channel = await client.session()
        channel.keep = False
        client.request(channel, ExecRequest(b"x"), want_reply=True)
        client.pause()
        pump = server.connections[0].pump
        await eventually(lambda: pump.congested and bridge(server)._paused)
        assert pump._backlog_bytes < 512 * KIB
        client.resume()
        await client.until(lambda: channel.closed)
        assert channel.received == 32 * MIB


async def test_a_coroutine_that_reads_nothing_shuts_the_window() -> None:
    release: list[Session] = []

    def idle(session: RawSession) -> bool:
        release.append(Session(session))
        return bool(release[0].socket)

    async with serving(exec=Beginning(idle), limits=Limits(window_bytes=WINDOW)) as server:
        client = await server.login()
        channel = await client.exec("x")
        sent = 0
        while count := client.send(channel, bytes(2 * WINDOW)):
            sent += count
            await client.ask(channel, ExecRequest(b"refused"))
        assert WINDOW < sent <= WINDOW + MIB  # what the local socket holds, at most
        data = 0
        while data < sent:
            data += len(await release[0].read())
        await client.until(lambda: client.engine.may_send(channel.number))
        assert client.send(channel, bytes(2 * WINDOW)) > 0
        release[0].raw.release()


@pytest.mark.parametrize("how", ["channel", "reset"])
async def test_a_coroutine_hears_that_its_client_is_gone(how: str) -> None:
    ended: list[str] = []

    async def reader(session: Session) -> None:
        try:
            ended.append(f"read {(await session.read())!r}")
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    async def writer(session: Session) -> None:
        try:
            while True:
                await session.write(bytes(64 * KIB))
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    def either(session: RawSession) -> bool:
        return as_application(reader if session.command == "read" else writer, "").begin(session)

    async with serving(exec=Beginning(either)) as server:
        client = await server.login(limits=Limits(window_bytes=WINDOW))
        channels = [await client.exec("read"), await client.exec("write", consume=False)]
        await client.until(lambda: channels[1].received == WINDOW)
        if how == "channel":
            for channel in channels:
                client.close_channel(channel)
            await eventually(lambda: len(ended) == 2)
            assert set(ended) <= {"ConnectionClosed", "CancelledError", "read b''"}
            assert (await client.session()).opened
        else:
            client.reset()
            await eventually(lambda: len(ended) == 2)
            assert set(ended) <= {"ConnectionClosed", "CancelledError", "read b''"}
            assert server.server.connections == 0
