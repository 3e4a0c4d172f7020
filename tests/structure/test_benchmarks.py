"""The benchmarks' arithmetic: what they publish stands on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ssh2", reason="ssh2-python is not installed")

from benchmarks import processes, report
from benchmarks.bench import Bench
from benchmarks.clients import Identity, OpenSsh

ROOT = Path(__file__).parents[2]
BURN = "import time\nwhile time.process_time() < 0.4: pass"


def bench(samples: dict[str, dict[str, list[float]]]) -> Bench:
    identity = Identity("", "", "", "", "")
    return Bench([], identity, OpenSsh("ssh", identity), quick=True, rounds=2, samples=samples)


def supervised(script: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.supervisor", "sh", "-c", script, "sh", sys.executable, BURN]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "script",
    [
        '"$1" -c "$2"; echo done; read -r _',  # waited for by the server
        '(sh -c \'"$1" -c "$2"; echo done\' sh "$1" "$2" &); read -r _',  # left behind, inherited by the supervisor
    ],
    ids=["child", "orphan"],
)
def test_what_ended_processes_used_is_counted(script: str) -> None:
    programs = frozenset({os.path.realpath("/bin/sh")})
    with supervised(script) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"done\n"
        deadline = time.monotonic() + 40
        while processes.cpu_seconds(server.pid, programs) < 0.3 and time.monotonic() < deadline:
            os.sched_yield()  # the orphan has said so and is about to end
        used = processes.cpu_seconds(server.pid, programs)
        names = {processes.executable(process.pid) for process in processes.server_processes(server.pid, programs)}
        server.communicate(b"\n")
    assert 0.3 <= used < 3
    assert names == programs


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_executed_programs_are_not_the_server() -> None:
    with supervised("sleep 30 & echo $!; wait") as server:
        assert server.stdout is not None
        command = int(server.stdout.readline())
        program = os.path.realpath(shutil.which("sleep") or "")
        deadline = time.monotonic() + 40
        while processes.executable(command) != program and time.monotonic() < deadline:
            os.sched_yield()  # forked, not yet executed
        programs = frozenset({os.path.realpath("/bin/sh")})
        everything = {process.pid for process in processes.family(server.pid)}
        ours = {process.pid for process in processes.server_processes(server.pid, programs)}
        os.kill(command, signal.SIGTERM)
        server.communicate()
    assert command in everything
    assert ours == everything - {command, server.pid}


def test_times_of_bash_and_dash_are_understood() -> None:
    assert processes.own_use("0m0.001s 0m0.002s\n1m0.100s 0m2.000s\n") == pytest.approx(62.103)
    assert processes.own_use("noise\n0m0.000000s 0m0.010000s\n0m0.030000s 0m0.430000s\n") == pytest.approx(0.47)


def test_targets_compare_round_by_round() -> None:
    metric = "bulk.aes128-gcm.down.CPU-s/GB"
    kept = report.targets(bench({metric: {"dunnart": [0.5, 1.0, 0.6], "sshd": [1.0, 2.0, 1.0]}}))
    missed = report.targets(bench({metric: {"dunnart": [0.8, 0.8], "sshd": [1.0, 1.0]}}))
    assert [row.split("|")[4:7] for row in kept] == [[" 0.500 ", " ≤ 0.7 x sshd ", " pass "]]
    assert [row.split("|")[4:7] for row in missed] == [[" 0.800 ", " ≤ 0.7 x sshd ", " **MISS** "]]


def test_absolute_targets_need_no_sshd() -> None:
    rows = report.targets(bench({"memory.each session.KiB": {"dunnart": [17.0]}, "login.CPU-ms": {"dunnart": [1.0]}}))
    assert [row.split("|")[2:7] for row in rows] == [[" 17 ", " - ", " - ", " ≤ 16 ", " **MISS** "]]


def test_every_target_has_its_bound() -> None:
    assert len({target.metric for target in report.TARGETS}) == len(report.TARGETS)
    assert [target for target in report.TARGETS if (target.most is None) == (target.least is None)] == []
