"""Protocol processes that end when nobody is there, and are started for who comes."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from dunnart.runtime.admission import Admission, Outcome, Penalties, StartupLimit
from dunnart.runtime.listeners import listens
from dunnart.server.config import _random
from dunnart.server.processes import separation
from dunnart.server.processes.placement import InProcesses
from dunnart.server.processes.process import ProtocolProcess
from dunnart.server.processes.separation import Separation
from tests.runtime.driver import descriptors, eventually, exists
from tests.runtime.test_placements import Placed, placed

IDLE_SECONDS = 0.3


def unconfined() -> Separation:
    """How processes are made that need no root."""
    return Separation("dunnart.server.processes.worker:main", (), IDLE_SECONDS)


def at_rest(server: Placed) -> bool:
    return not any(server.workers())


def placement(server: Placed) -> InProcesses:
    found = server.server._placement
    assert isinstance(found, InProcesses)
    return found


async def comes_and_goes(server: Placed) -> None:
    client = await server.login()
    channel = await client.run("echo here; cat", b"!")
    assert channel.out == b"here\n!"
    client.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_processes_end_when_nobody_is_there_and_come_back(workers: int) -> None:
    async with placed(("process", workers), separation=unconfined()) as server:
        seen: set[int] = set()
        for _ in range(2):
            first = server.workers()
            assert all(first)
            assert not seen & set(first)
            seen.update(first)
            await comes_and_goes(server)
            await eventually(lambda: at_rest(server))
            assert not any(map(exists, first))
            assert [each.role for each in (await server.server.status()).processes] == ["server"]
            assert await server.server.sessions() == ()
            await comes_and_goes(server)
            assert sorted(map(exists, server.workers())) == [True] * workers
        found = await server.server.status()
        assert (found.logins, found.counters["connections"]) == (4, 4)
        assert found.bytes_received > 4000


async def test_who_stays_keeps_them_and_numbers_go_on() -> None:
    async with placed(("process", 1), separation=unconfined()) as server:
        await eventually(lambda: at_rest(server))
        client = await server.login()
        (number,) = [each.id for each in await server.server.sessions()]
        (worker,) = server.workers()
        await asyncio.sleep(3 * IDLE_SECONDS)
        assert server.workers() == [worker]
        assert (await client.run("echo still")).out == b"still\n"
        client.close()
        await eventually(lambda: at_rest(server))
        await server.login()
        (later,) = [each.id for each in await server.server.sessions()]
        assert later > number


async def test_what_somebody_did_is_remembered() -> None:
    penalties = Penalties(no_auth_seconds=3)
    admission = Admission(startups=StartupLimit(), per_source=100, random=_random, penalties=penalties)
    async with placed(("process", 1), separation=unconfined(), admission=admission) as server:
        client = server.begin()
        await client.until(lambda: client.engine.peer_version)
        (worker,) = server.workers()
        client.close()  # without trying to log in
        await asyncio.sleep(2 * IDLE_SECONDS)
        assert server.workers() == [worker]
        await eventually(lambda: at_rest(server))


async def test_it_can_be_closed_drained_and_replaced_at_rest() -> None:
    before = descriptors()
    async with placed(("process", 1), separation=unconfined()) as server:
        await eventually(lambda: at_rest(server))
        await server.server.replace(server.server.config)
        await comes_and_goes(server)
        await eventually(lambda: at_rest(server))
        await server.server.drain(5)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.address[1])
    assert descriptors() <= before


async def test_one_that_is_lost_comes_back_before_any_rest(caplog: pytest.LogCaptureFixture) -> None:
    async with placed(("process", 1), separation=unconfined()) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        await eventually(lambda: server.workers() not in ([worker], [0]))
        await eventually(lambda: at_rest(server))
        assert "ended unexpectedly" in caplog.text
        await comes_and_goes(server)


async def test_one_that_is_lost_while_they_go_to_rest_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dunnart.server.processes.placement._RESTART_SECONDS", 0.1)
    called = ProtocolProcess.call

    async def call(self: ProtocolProcess, name: str, *arguments: object) -> Any:
        if name == "rest" and self.index:
            os.kill(self.pid, signal.SIGKILL)
        return await called(self, name, *arguments)

    monkeypatch.setattr(ProtocolProcess, "call", call)
    async with placed(("process", 2), separation=unconfined()) as server:
        await eventually(lambda: at_rest(server))
        await asyncio.sleep(0.5)
        assert at_rest(server)
        await comes_and_goes(server)


async def test_one_that_answers_late_rests_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dunnart.server.processes.resting._ANSWER_SECONDS", 0.1)
    called = ProtocolProcess.call
    asked = asyncio.Event()
    made = unconfined()

    async def call(self: ProtocolProcess, name: str, *arguments: object) -> Any:
        if name == "rest":
            made.idle_seconds = 1000  # it is not asked a second time
            os.kill(self.pid, signal.SIGSTOP)
            asked.set()
        return await called(self, name, *arguments)

    monkeypatch.setattr(ProtocolProcess, "call", call)
    async with placed(("process", 1), separation=made) as server:
        (worker,) = server.workers()
        await asked.wait()
        await asyncio.sleep(0.3)
        os.kill(worker, signal.SIGCONT)
        await eventually(lambda: at_rest(server))
        async with asyncio.timeout(20):
            await comes_and_goes(server)


async def test_sockets_that_listen_no_more_are_listened_on_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    again = InProcesses.listen_again
    in_use = [OSError(errno.EADDRINUSE, "somebody else listens there")]

    def listen_again(self: InProcesses) -> None:
        if in_use:
            raise in_use.pop()
        again(self)

    made = unconfined()
    async with placed(("process", 1), separation=made) as server:
        await eventually(lambda: at_rest(server))
        made.idle_seconds = 1000
        (listener,) = placement(server)._listeners
        monkeypatch.setattr(InProcesses, "listen_again", listen_again)
        listener.shutdown(socket.SHUT_RDWR)  # as somebody could who was given a copy
        await eventually(lambda: "somebody else listens there" in caplog.text)
        await eventually(lambda: listens(listener) and not at_rest(server))
        server.address = listener.getsockname()  # a port that nobody has named is another one then
        await comes_and_goes(server)


async def test_no_lie_of_a_process_that_rests_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    called = ProtocolProcess.call

    async def call(self: ProtocolProcess, name: str, *arguments: object) -> Any:
        found = await called(self, name, *arguments)
        if name == "rest":
            found["sums"]["connections"] = 3
            found["counters"] |= {f"x{each}": 1 for each in range(1000)}
        return found

    monkeypatch.setattr(ProtocolProcess, "call", call)
    async with placed(("process", 1), separation=unconfined()) as server:
        for _ in range(2):
            await comes_and_goes(server)
            await eventually(lambda: at_rest(server))
        found = await server.server.status()
        assert (found.connections, found.counters["connections"]) == (0, 2)
        assert len(found.counters) < 200


async def test_a_start_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with placed(("process", 1), separation=unconfined()) as server:
        await eventually(lambda: at_rest(server))
        with monkeypatch.context() as patched:
            patched.setattr("dunnart.runtime.executed._BOOT", "raise SystemExit(1)")
            client = server.begin()
            await eventually(lambda: "cannot be started" in caplog.text)
        await client.until(lambda: client.engine.peer_version)  # who has come has waited for it
        client.close()


async def test_who_comes_is_let_in_by_none_that_is_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one process cannot be started, the others must not accept connections only to close them."""
    monkeypatch.setattr("dunnart.server.processes.resting._RETRY_SECONDS", 0.05)
    start, started = Separation.start, 0

    def starts(self: Separation) -> Any:
        nonlocal started
        started += 1
        if started in {2, 4}:
            raise OSError(errno.EMFILE, "none is left")
        return start(self)

    async with placed(("process", 2), separation=unconfined()) as server:
        await eventually(lambda: at_rest(server))
        monkeypatch.setattr(Separation, "start", starts)
        client = await server.login()
        assert (started, (await client.run("echo in")).out) == (6, b"in\n")
        client.close()


async def test_a_program_that_was_changed_does_not_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "separation.py"
    program.touch()
    monkeypatch.setattr(separation, "__file__", str(program))
    made = unconfined()
    made.begin(1)
    async with placed(("process", 1), separation=made) as server:
        (worker,) = server.workers()
        os.utime(program, (1, 1))
        await asyncio.sleep(3 * IDLE_SECONDS)
        assert server.workers() == [worker]
        made._code = separation._code()
        await eventually(lambda: at_rest(server))
        assert "changed on disk" not in caplog.text
        os.utime(program, (2, 2))
        await comes_and_goes(server)
        assert "changed on disk" in caplog.text


def test_a_part_of_the_program_or_the_interpreter_can_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("separation.py", "frames.py", "python"):
        (tmp_path / name).touch()
    monkeypatch.setattr(separation, "__file__", str(tmp_path / "separation.py"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for name in ("frames.py", "python"):
        made = unconfined()
        assert not made.outdated()
        os.utime(tmp_path / name, (1, 1))
        assert made.outdated()
    made = unconfined()
    (tmp_path / "python").unlink()
    assert made.outdated()


async def test_without_separation_they_stay() -> None:
    async with placed(("process", 1)) as server:
        await asyncio.sleep(2 * IDLE_SECONDS)
        assert not at_rest(server)
        assert placement(server)._resting is None


def test_admission_remembers_who_waits_and_who_is_penalised() -> None:
    admission = Admission(startups=StartupLimit(), per_source=100, random=_random)
    assert not admission.remembers(0)
    admission.admit("192.0.2.1", 0)
    assert admission.remembers(0)
    seconds = 5.0
    admission.closed("192.0.2.1", Outcome.AUTH_FAILURE, 0)
    assert admission.remembers(seconds)
    assert not admission.remembers(seconds + 0.1)
