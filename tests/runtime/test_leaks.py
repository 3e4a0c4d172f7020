"""What is left when clients are gone and when the server is: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dunnart.errors import ConnectionClosed
from dunnart.protocol.events import LoggedIn
from dunnart.protocol.limits import Limits
from dunnart.protocol.requests import ExecRequest, ExitStatus, PtyRequest, ShellRequest
from dunnart.server import RawSession, Session
from dunnart.server.applications import as_application
from tests.runtime.driver import (
    KIB,
    MIB,
    SECONDS,
    Beginning,
    Client,
    Clients,
    Running,
    alive,
    descriptors,
    eventually,
    exists,
    serving,
)

KINDS = (
    "ServerConnection", "ServerChannel", "RawSession", "Session", "Bridge", "Program", "Pump", "Terminal", "Popen",
    "Task",
)  # fmt: skip


@pytest.fixture
def silent(caplog: pytest.LogCaptureFixture) -> None:
    """No log: pytest keeps a test's records, and each knows its connection."""
    caplog.set_level(logging.CRITICAL, "dunnart")


def objects() -> Counter[str]:
    """How many objects there are of the kinds that a connection is made of."""
    gc.collect()
    return Counter(name for item in gc.get_objects() if (name := type(item).__name__) in KINDS)


def children() -> set[str]:
    """The processes that this one has to wait for, zombies included; other tests may have some that stay."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


async def _comes_and_goes(client: Client, number: int) -> None:
    """A connection with a session, ended in one of many ways."""
    channel = await client.session()
    if number % 3 == 0:
        assert await client.ask(channel, PtyRequest("vt100", 80, 24, 0, 0, b""))
    command = (b"true", b"cat", b"yes", b"stream", b"head -c 10 /dev/zero; cat >/dev/null")[number % 5]
    assert await client.ask(channel, ExecRequest(command))
    channel.keep = False
    if number % 2:
        client.send(channel, bytes(KIB))
    if number % 7 == 0:
        client.close_channel(channel)
    if number % 4 == 0:
        client.reset()
    elif number % 4 == 1:
        client.engine.disconnect("bye")
        client.move()
        client.close()
    else:
        client.close()


@pytest.mark.usefixtures("silent")
async def test_two_hundred_connections_leave_nothing() -> None:
    async def stream(session: Session) -> None:
        while data := await session.read():
            await session.write(data)

    def either(session: RawSession) -> bool:
        return (as_application(stream, "") if session.command == "stream" else Running()).begin(session)

    async with serving(exec=Beginning(either)) as server:

        async def one(number: int) -> None:
            if number % 10 == 9:  # gone before the login
                client = server.begin()
                await asyncio.sleep(0)
                client.reset()
            else:
                client = await server.login()
                await _comes_and_goes(client, number)
            server.clients.remove(client)

        async def round_of(count: int, start: int) -> None:
            await asyncio.gather(*(one(start + number) for number in range(count)))
            await eventually(lambda: server.server.connections == 0 and server.programs == 0)

        await round_of(10, 0)  # what is made once is made
        mine = children()

        def there() -> Counter[str]:
            deadlines = len(server.server.context.deadlines._buckets)
            return objects() + Counter(descriptors=descriptors(), tasks=len(asyncio.all_tasks()), deadlines=deadlines)

        before = there()
        for start in range(0, 200, 20):
            await round_of(20, start)
        end = time.monotonic() + SECONDS / 2
        while (more := there() - before) and time.monotonic() < end:  # noqa: ASYNC110 - as in eventually
            await asyncio.sleep(0.05)
        assert not more
        assert children() <= mine
        assert server.server.counters["failures"] == 0


@pytest.mark.usefixtures("silent")
async def test_a_hundred_sessions_of_one_connection_leave_nothing() -> None:
    async with serving() as server:
        client = await server.login()
        await client.run("true")
        client.channels.clear()
        await eventually(lambda: server.programs == 0 and server.connections[0].sessions == 0)
        before = objects(), descriptors()
        for _ in range(100):
            await client.run("exec head -c 1 >/dev/null", b"xx")
        client.channels.clear()
        await eventually(lambda: server.programs == 0 and server.connections[0].sessions == 0)
        after = objects(), descriptors()
        assert after[0] <= before[0]
        assert after[1] <= before[1]


async def test_closing_the_server_tells_clients_and_programs() -> None:
    async with serving() as server:
        clients = [await server.login() for _ in range(3)]
        pids = []
        for client in clients:
            for terminal in (False, True):
                channel = await client.session()
                if terminal:
                    assert await client.ask(channel, PtyRequest("vt100", 80, 24, 0, 0, b""))
                assert await client.ask(channel, ExecRequest(b"echo $$; exec sleep 1000"))
                await client.until(lambda channel=channel: channel.out.endswith(b"\n"))  # type: ignore[misc]
                pids.append(int(channel.out))
        before = descriptors()
        await server.close("going home")
        assert not any(map(exists, pids))
        assert server.programs == 0
        assert descriptors() < before - 12
        for client in clients:
            await client.until(lambda client=client: client.ended is not None)  # type: ignore[misc]
            assert client.ended is not None
            assert (client.ended.by_peer, client.ended.reason_code, client.ended.text) == (True, 11, "going home")


async def test_closing_the_server_waits_for_nobody_for_ever() -> None:
    """Neither for a client that does not read, nor for a program that ignores SIGHUP."""
    async with serving() as server:
        client = await server.login()
        channel = await client.exec("trap '' HUP; echo $$; while :; do sleep 0.05; done")
        await client.until(lambda: channel.out.endswith(b"\n"))
        stuck = await server.login(limits=Limits(window_bytes=1 << 30), receive_bytes=8 * KIB)
        flood = await stuck.session()
        stuck.request(flood, ExecRequest(b"yes"))
        stuck.pause()
        await eventually(lambda: server.connections[1].pump.congested)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await server.close(seconds=1.0)
        assert loop.time() - began < 15.0
        assert server.server.connections == 0
        pid = int(channel.out)
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: server.programs == 0)
        assert not exists(pid)


async def test_closing_a_server_that_never_had_a_client() -> None:
    before = descriptors()
    async with serving() as server:
        assert server.server.connections == 0
    assert descriptors() <= before
    await server.close()  # once more does no harm
    assert descriptors() <= before


async def test_a_program_ends_while_the_last_bytes_to_its_client_are_stuck() -> None:
    """The engine is done, the socket not yet: what ends meanwhile finds no channel and must not mind."""
    async with serving() as server:
        client = await server.login(limits=Limits(window_bytes=1 << 30), receive_bytes=8 * KIB)
        channel = await client.session()
        client.request(channel, ExecRequest(b"yes & yes >&2 & wait"))
        client.pause()
        connection = server.connections[0]
        await eventually(lambda: connection.pump.congested)
        bridge = connection._channels[0]._bridge
        connection.disconnect("enough")
        assert connection.pump._closing
        assert not connection.pump.closed
        bridge.end(ExitStatus(0))
        bridge._read_stdout()
        bridge._read_stderr()
        bridge.receive([memoryview(bytes(MIB))])
        bridge.receive_eof()
        connection.uncongested()
        assert not connection.pump.closed
        await eventually(lambda: server.server.connections == 0 and server.programs == 0)


async def test_a_stream_outlives_its_connection() -> None:
    sessions: list[Session] = []

    def keep(session: RawSession) -> bool:
        sessions.append(Session(session))
        return bool(sessions[0].socket)

    async with serving(exec=Beginning(keep)) as server:
        client = await server.login()
        await client.exec("x")
        connection = server.connections[0]
        client.reset()
        await eventually(lambda: server.server.connections == 0)
        assert await sessions[0].read() == b""
        with pytest.raises(ConnectionClosed):
            await sessions[0].write(b"x")
        sessions[0].exit(0)
        sessions[0].raw.release()
        assert connection.pump.local_address == ("", 0)


async def test_a_session_that_is_gone_can_be_served_no_more() -> None:
    sessions: list[RawSession] = []

    def later(session: RawSession) -> bool:
        sessions.append(session)
        return True

    async with serving(exec=Beginning(later)) as server:
        client = await server.login()
        channel = await client.exec("sleep 1000")
        client.close_channel(channel)
        await client.until(lambda: channel.closed)
        before = descriptors()
        with pytest.raises(ConnectionClosed):
            Running().begin(sessions[0])
        with pytest.raises(ConnectionClosed):
            sessions[0].socket()
        assert descriptors() <= before
        assert server.programs == 0


async def test_an_application_that_fails_after_it_began_leaves_no_program(caplog: pytest.LogCaptureFixture) -> None:

    def failing(session: RawSession) -> bool:
        Running().begin(session)
        raise ZeroDivisionError("an application's own fault")

    def refusing(session: RawSession) -> bool:
        Running().begin(session)
        return False

    async with serving(shell=Beginning(failing), exec=Beginning(refusing)) as server:
        client = await server.login()
        for request in (ShellRequest(), ExecRequest(b"sleep 1000")):
            channel = await client.session()
            client.request(channel, request, want_reply=True)
            await client.until(lambda channel=channel: channel.closed)  # type: ignore[misc]
            assert (channel.answers, channel.status, bytes(channel.out)) == ([False], 1, b"")
        await eventually(lambda: server.programs == 0)
        assert server.server.counters["failures"] == 1
        assert any("an application's own fault" in message for message in caplog.messages)
        assert server.server.connections == 1


# Descriptors run out.


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("free", range(9))
async def test_spawning_with_few_descriptors_leaves_nothing(terminal: bool, free: int) -> None:
    """Whichever of the descriptors that a program needs is the one too many."""
    async with serving() as server:
        client = await server.login()
        await client.run("true")
        await eventually(lambda: server.programs == 0 and server.connections[0].sessions == 0)
        channel = await client.session()
        if terminal:
            assert await client.ask(channel, PtyRequest("vt100", 80, 24, 0, 0, b""))
        before = descriptors()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        fillers = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + free, limits[1]))
        try:
            fillers = _fill(free)
            done = await client.ask(channel, ExecRequest(b"echo started"))
            if done:
                await client.until(lambda: channel.closed)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in fillers:
                os.close(fd)
        if done:
            assert (channel.out.strip(), channel.status) == (b"started", 0)
        await eventually(lambda: server.programs == 0)
        await eventually(lambda: descriptors() <= before)
        assert (await client.run("echo again")).out == b"again\n"


def _fill(free: int) -> list[int]:
    """Open descriptors until just so many are left."""
    fillers: list[int] = []
    try:
        while True:
            fillers.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE  # noqa: PT017 - the filling ends so
    for _ in range(free):
        if fillers:
            os.close(fillers.pop())
    return fillers


async def test_without_pidfds_a_thread_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: int) -> int:
        raise OSError(errno.EMFILE, "no")

    monkeypatch.setattr(os, "pidfd_open", none)
    async with serving() as server:
        client = await server.login()
        channel = await client.run("echo hi; exit 3")
        assert (channel.out, channel.status) == (b"hi\n", 3)
        await eventually(lambda: server.programs == 0)


SERVER = """
import asyncio, resource, sys
from tests.runtime.driver import serving

async def main():
    async with serving() as server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        print(server.address[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


async def test_a_server_without_descriptors_refuses_at_once_and_recovers() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    port = int(await process.stdout.readline())
    server = Clients(("127.0.0.1", port))
    old = await server.login()
    channel = await old.exec("cat")
    streams: list[Any] = []
    refused = 0
    for _ in range(100):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        streams.append(writer)
        try:
            line = await reader.readline()
        except ConnectionResetError:
            line = b""
        if not line:
            refused += 1
            if refused == 3:
                break
    assert refused == 3
    assert 30 < len(streams) < 64
    old.send(channel, b"still here")
    await old.until(lambda: channel.out == b"still here")
    other = await old.session()
    assert not await old.ask(other, ExecRequest(b"true"))
    for writer in streams:
        writer.close()
    for writer in streams:
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()
    # The descriptors are free as soon as the server has read the ends.
    while True:
        new = server.begin()
        with contextlib.suppress(AssertionError):  # closed at once
            await new.until(lambda: any(isinstance(event, LoggedIn) for event in server.clients[-1].events))
            break
    assert (await new.run("echo recovered")).out == b"recovered\n"
    for client in server.clients:
        client.close()
    process.stdin.close()
    assert await process.wait() == 0
    errors = (await process.stderr.read()).decode()
    assert "Traceback" not in errors
