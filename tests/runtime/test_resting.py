"""Protocol processes that end when nobody is there, and are started for who comes."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from dunnart.runtime.admission import Admission, Outcome, Penalties, StartupLimit
from dunnart.server.config import _random
from dunnart.server.processes import separation
from dunnart.server.processes.placement import InProcesses
from dunnart.server.processes.resting import _counted
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


async def test_without_separation_they_stay() -> None:
    async with placed(("process", 1)) as server:
        await asyncio.sleep(2 * IDLE_SECONDS)
        assert not at_rest(server)
        assert placement(server)._resting is None


@pytest.mark.parametrize("said", [None, [], 5, {}, {"sums": []}, {"sums": {"a": "b", "c": None, "d": 1.5, "e": True}}])
def test_a_process_that_says_nothing_of_sense_has_counted_nothing(said: object) -> None:
    assert _counted(said, "sums") == {}


def test_admission_remembers_who_waits_and_who_is_penalised() -> None:
    admission = Admission(startups=StartupLimit(), per_source=100, random=_random)
    assert not admission.remembers(0)
    admission.admit("192.0.2.1", 0)
    assert admission.remembers(0)
    seconds = 5.0
    admission.closed("192.0.2.1", Outcome.AUTH_FAILURE, 0)
    assert admission.remembers(seconds)
    assert not admission.remembers(seconds + 0.1)
