"""Clients and handlers that mean harm, or are broken: the others go on, and nothing grows without bound."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from dunnart.protocol.requests import (
    ExecRequest,
    PtyRequest,
    ShellRequest,
    SignalRequest,
    SubsystemRequest,
    WindowChange,
)
from dunnart.runtime.pool import ThreadPool
from dunnart.server import (
    Address,
    AllowAnyone,
    BlockingSession,
    RawSession,
    ServerConfig,
    Session,
    SessionEvents,
)
from dunnart.server.applications import CoroutineApplication
from dunnart.server.event_objects import EventSession
from dunnart.server.facts import ConnectionFacts, SessionFacts, Terminal
from dunnart.server.host import Host
from dunnart.server.interfaces import AuditEvent
from tests.runtime.driver import HOST_KEY, KIB, Beginning, eventually, exists
from tests.runtime.test_placements import placed

PLACEMENTS = [("loop", 1), ("thread", 1), ("process", 1)]
every_placement = pytest.mark.parametrize("where", PLACEMENTS, ids=lambda where: where[0])
THREADS = 2


async def leaving(session: Session) -> None:
    sys.exit(3)


def leaving_thread(session: BlockingSession) -> None:
    sys.exit(3)


class LeavingEvents(SessionEvents):
    def opened(self, session: EventSession) -> None:
        sys.exit(3)


def leaving_raw(session: RawSession) -> bool:
    session.socket().close()
    sys.exit(3)


LEAVING = {"async": leaving, "thread": leaving_thread, "events": LeavingEvents, "raw": Beginning(leaving_raw)}


@every_placement
@pytest.mark.parametrize("kind", LEAVING)
async def test_sys_exit_ends_its_session_and_nothing_else(where: tuple[str, int], kind: str) -> None:
    handler: Any = LEAVING[kind]

    async def on(session: Session) -> int:
        return 5

    def on_thread(session: BlockingSession) -> int:
        return 6

    async with placed(
        where, shell=on, exec=handler, subsystems={"thread": on_thread}, application_threads=THREADS
    ) as server:
        client = await server.login()
        for _ in range(2 * THREADS):
            channel = await client.session()
            client.request(channel, ExecRequest(b"x"), want_reply=True)
            await client.until(lambda channel=channel: channel.closed)  # type: ignore[misc]
            assert channel.status == 1
        for request, status in ((ShellRequest(), 5), (SubsystemRequest("thread"), 6)):
            channel = await client.session()
            assert await client.ask(channel, request)
            await client.until(lambda channel=channel: channel.closed)  # type: ignore[misc]
            assert channel.status == status
        assert server.server.counters["failures"] == 2 * THREADS


@every_placement
async def test_a_status_that_is_none_is_its_handler_s_fault(where: tuple[str, int]) -> None:
    async def handler(session: Session) -> None:
        session.exit(-1)

    class Events(SessionEvents):
        def opened(self, session: EventSession) -> None:
            session.exit(1 << 32)

    async with placed(where, shell=handler, exec=Events) as server:
        client = await server.login()
        for request in (ShellRequest(), ExecRequest(b"x")):
            channel = await client.session()
            assert await client.ask(channel, request)
            await client.until(lambda channel=channel: channel.closed)  # type: ignore[misc]
            assert channel.status == 1
        assert server.server.counters["failures"] == 2


@every_placement
async def test_hooks_that_fail_fail_alone(where: tuple[str, int]) -> None:
    socks = []

    def failing(*_: object) -> bool:
        raise ZeroDivisionError("a hook's own fault")

    def begin(session: RawSession) -> bool:
        session.on_request = session.on_close = failing  # type: ignore[assignment]
        socks.append(session.socket())
        return True

    async with placed(where, shell=Beginning(begin), exec=Beginning(begin)) as server:
        client = await server.login()
        first = await client.exec("x")
        client.request(first, SignalRequest("INT"))
        second = await client.exec("y")
        assert not second.closed
        client.reset()
        await eventually(lambda: server.server.connections == 0)
        await eventually(lambda: server.server.counters["failures"] == 3)
        other = await server.login()
        assert not (await other.exec("z")).closed
    for sock in socks:
        sock.close()


@pytest.mark.parametrize("where", [("process", 1)], ids=["process"])
async def test_a_long_command_of_control_characters_is_one_client_s_business(where: tuple[str, int]) -> None:
    """Escaped in JSON, for the audit sinks, it is longer than a frame once was, and ended all connections."""
    events: list[AuditEvent] = []

    async def handler(session: Session) -> int:
        return len(session.command or "") // KIB

    class Sink:
        def record(self, event: AuditEvent) -> None:
            events.append(event)

    async with placed(where, handler, audit=[Sink()]) as server:
        client = await server.login()
        assert (await client.run(b"\1" * (190 * KIB))).status == 190
        assert (await client.run(b"x")).status == 0
        assert "worker_restarts" not in server.server.counters
    assert [event.kind for event in events].count("session-begin") == 2


async def test_a_protocol_process_without_descriptors_refuses_the_session_and_goes_on() -> None:
    async def handler(session: Session) -> int:
        await session.write(b">")  # its socket is there
        await session.write(await session.read())
        return 4

    async with placed(("process", 1), handler) as server:
        client = await server.login()
        before = await client.exec("before")
        await client.until(lambda: before.out == b">")
        (pid,) = server.workers()
        used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        free = next(number for number in range(len(used) + 1) if number not in used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
        refused = await client.exec("refused")
        client.send(refused, b"x")
        await client.until(lambda: refused.closed)
        assert (refused.status, bytes(refused.err)) == (75, b"the server is out of descriptors\r\n")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        client.send(before, b"y")
        await client.until(lambda: before.closed)
        assert (before.status, bytes(before.out)) == (4, b">y")
        assert (await client.run("after", b"z")).out == b">z"


# Floods of requests, while nobody looks at them.


class Floods:
    """A coroutine's session on an application's loop that runs only when the test says so."""

    def __init__(self, handler: Any) -> None:
        self.app_loop = asyncio.new_event_loop()
        self.loop = asyncio.new_event_loop()
        config = ServerConfig(handler, host_keys=[HOST_KEY], authenticators=[AllowAnyone()])
        self.host = Host(config, self.loop, self.app_loop, Counter())
        whose = ConnectionFacts(1, "u", Address("h", 1), Address("h", 2), "none", None, ())
        facts = SessionFacts(whose, 0, "shell", terminal=Terminal.of(PtyRequest("xterm", 80, 24, 0, 0, b"")))
        control = SimpleNamespace(attach=lambda streams: streams.close(), end=lambda *_: None)
        self.raw = RawSession(self.host, facts, control)
        CoroutineApplication(handler).begin(self.raw)

    def run(self, turns: int = 3) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.app_loop.run_until_complete(turn())

    def close(self) -> None:
        self.app_loop.run_until_complete(self.host.close())
        self.app_loop.close()
        self.loop.close()


def test_requests_wait_in_no_queue_without_bound() -> None:
    got: list[object] = []

    async def handler(session: Session) -> None:
        async for request in session.requests():
            got.append(request)  # noqa: PERF401 - one by one

    flood = Floods(handler)
    flood.run()
    for number in range(1000):
        flood.raw.requested(WindowChange(number, 1, 0, 0))
    assert len(flood.app_loop._ready) < 10  # type: ignore[attr-defined]
    flood.run()
    assert got == [WindowChange(number, 1, 0, 0) for number in range(936, 1000)]
    flood.raw.requested(SignalRequest("INT"))
    flood.run()
    assert got[-1] == SignalRequest("INT")
    flood.close()


def test_a_terminal_s_sizes_that_nobody_can_show_start_no_tasks() -> None:
    most = 0

    async def handler(session: Session) -> None:
        nonlocal most
        session.editor.prompt("$ ")
        session.editor.output()
        async with session._turn:  # as while the client takes nothing
            for number in range(1000):
                session._note(WindowChange(80 + number % 9, 24, 0, 0))
                most = max(most, len(session.raw.host._tasks))
            assert len(session.editor.output()) < KIB
        await asyncio.Event().wait()

    flood = Floods(handler)
    flood.run()
    assert 0 < most < 5
    flood.close()


# Broken handlers, impatient operators.


def test_a_job_that_fails_costs_the_pool_no_thread() -> None:
    pool = ThreadPool("test", 1, 4)
    done = threading.Event()
    for _ in range(3):
        assert pool.submit(lambda: sys.exit(1))
    assert pool.submit(done.set)
    assert done.wait(10)
    pool.close()


async def test_a_handler_that_heeds_no_cancelling_does_not_stop_close(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dunnart.server.host._END_SECONDS", 0.05)
    go, began = asyncio.Event(), asyncio.Event()

    async def handler(session: Session) -> None:
        began.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    async with placed(("loop", 1), handler) as server:
        client = await server.login()
        await client.exec("x")
        await began.wait()
        (task,) = (each for each in asyncio.all_tasks() if "_serve" in repr(each.get_coro()))
        await server.server.close(seconds=0)
        assert "1 handlers do not end although they are cancelled" in caplog.text
        go.set()
        await asyncio.wait([task])


async def test_a_protocol_process_that_is_stopped_does_not_stop_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dunnart.server.processes.process._END_SECONDS", 0.1)
    monkeypatch.setattr("dunnart.server.processes.placement._END_SECONDS", 0.1)
    async with placed(("process", 1)) as server:
        (pid,) = server.workers()
        os.kill(pid, signal.SIGSTOP)
        await server.server.close(seconds=0)
        assert not exists(pid)


async def test_a_protocol_process_that_is_stopped_does_not_stop_the_operator(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dunnart.server.processes.placement._ANSWER_SECONDS", 2.0)  # the other one has to be in time
    monkeypatch.setattr("dunnart.server.processes.process._END_SECONDS", 0.1)
    monkeypatch.setattr("dunnart.server.processes.placement._END_SECONDS", 0.1)
    async with placed(("process", 2)) as server:
        first, second = server.workers()
        os.kill(second, signal.SIGSTOP)
        status = await server.server.status()
        assert {each.pid: each.answers for each in status.processes} == {os.getpid(): True, first: True, second: False}
        monkeypatch.setattr("dunnart.server.processes.placement._ANSWER_SECONDS", 0.1)
        assert await server.server.sessions() == ()
        assert not await server.server.kill(1)
        assert f"protocol process 1 ({second}) does not answer: status" in caplog.text
        await server.server.drain(0)  # as it closes, with the stopped one
        assert not exists(second)


async def test_a_process_that_cannot_be_started_again_is_tried_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dunnart")
    monkeypatch.setattr("dunnart.server.processes.placement._RESTART_SECONDS", 0.01)
    start, failures = subprocess.Popen, iter(range(2))

    def popen(*arguments: Any, **options: Any) -> Any:
        if next(failures, None) is not None:
            raise BlockingIOError("no process is left")
        return start(*arguments, **options)

    async with placed(("process", 1)) as server:
        (pid,) = server.workers()
        monkeypatch.setattr("subprocess.Popen", popen)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: caplog.text.count("cannot be started") == 2)
        await eventually(lambda: server.workers() != [pid])
        client = await server.login()
        assert (await client.run("echo on")).out == b"on\n"
