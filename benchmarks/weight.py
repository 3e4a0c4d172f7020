"""What a server weighs with people on it: each session is a login shell on a pty, as on the machine of an operator.

Without shells only the server's own programs count (see `processes`); with them, all that it has started.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import statistics
import subprocess
import time
from typing import TYPE_CHECKING

from ssh2.exceptions import SSH2Error

from benchmarks.bench import tell
from benchmarks.clients import ClientError, Login
from benchmarks.peers import START_SECONDS, Running
from benchmarks.processes import KIB, family, weigh

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.peers import Peer
    from benchmarks.processes import Weight

_OURS = "dunnart"
_IDLE_SECONDS = 80
"""Long enough that who does something when nobody comes for a minute has done it."""


def weight(bench: Bench) -> None:
    """RSS, PSS, private memory and VSZ of all processes, by sessions, without shells and with; how fast it starts."""
    counts = (0, 1, 10) if bench.quick else (0, 1, 10, 50, 200)
    for number in range(1 if bench.quick else min(bench.rounds, 3)):
        tell(f"weight, round {number + 1}")
        for peer in bench.peers:
            try:
                _start(bench, peer)
                with Running(peer, bench.identity) as server:
                    _fill(bench, server, counts, first=number == 0)
            except (RuntimeError, OSError, ClientError, SSH2Error) as error:
                bench.skip(f"{peer.name}, weight: {error!r}")
    _break_even(bench)


def _start(bench: Bench, peer: Peer) -> None:
    """Time it from its start to its version line."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.monotonic()
    with subprocess.Popen(
        peer.command(bench.identity, port), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            while time.monotonic() < start + START_SECONDS and process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as reached:
                    if reached.recv(4) == b"SSH-":
                        bench.add("weight.start.ms", peer.name, (time.monotonic() - start) * 1000)
                        return
                time.sleep(0.002)
            raise RuntimeError("does not listen")
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def _fill(bench: Bench, server: Running, counts: tuple[int, ...], *, first: bool) -> None:
    held: list[tuple[Login, object]] = []
    try:
        for count in counts:
            while len(held) < count:
                login = Login(bench.identity, server.port)
                held.append((login, login.typist("echo ready; exec $SHELL -i")))
            own = _steady(server)
            everything = weigh([process.pid for process in family(server.pid)[1:]])
            _add(bench, server.name, f"{count} sessions", own)
            _add(bench, server.name, f"{count} sessions with shells", everything)
            if count == 0 and first and not bench.quick:
                time.sleep(_IDLE_SECONDS)
                _add(bench, server.name, "nobody for a minute", _steady(server))
    finally:
        for login, _ in held:
            login.close()
        held.clear()
        gc.collect()


def _add(bench: Bench, name: str, when: str, found: Weight) -> None:
    for kind, value in zip(found._fields, found, strict=True):
        bench.add(f"weight.{when}.{kind} MB", name, value / 1e6)


def _steady(server: Running) -> Weight:
    """Wait until two readings agree."""
    before = server.weight()
    for _ in range(40):
        time.sleep(0.25)
        now = server.weight()
        if abs(now.pss - before.pss) <= max(4 * KIB, now.pss // 1000):
            return now
        before = now
    return before


def _break_even(bench: Bench) -> None:
    """From how many sessions on ours weighs less than a peer, by the straight line through each one's figures."""
    lines = {}
    for peer in bench.peers:
        points = {}
        for metric, samples in bench.samples.items():
            words = metric.split(".")
            if (
                words[0] == "weight"
                and words[-1] == "pss MB"
                and words[1].endswith(" sessions")
                and peer.name in samples
            ):
                points[int(words[1].split()[0])] = statistics.median(samples[peer.name])
        if len(points) > 1:
            lines[peer.name] = points[0], (points[max(points)] - points[1]) / (max(points) - 1)
            bench.add("weight.each session.KiB", peer.name, lines[peer.name][1] * 1e6 / KIB)
    base, each = lines.get(_OURS, (0.0, 0.0))
    for name, (theirs, slope) in lines.items():
        if name != _OURS and slope > each > 0:
            bench.add("weight.dunnart is lighter from.sessions", name, max(0.0, (base - theirs) / (slope - each)))
