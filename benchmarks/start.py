"""How long inetd's client waits: from the start of a server that gets one connection to its version line, and on."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_STARTS = 20
_QUICK_STARTS = 5
_KEXINIT = 20


def start(bench: Bench) -> None:
    """Milliseconds from the start by inetd to the version line, and to the first message of the key exchange.

    Each start is a sample; the median of them is the figure. Who cannot be started so is left out.
    """
    commands = {peer.name: command for peer in bench.peers if (command := peer.inetd_command(bench.identity))}
    for _ in range(_QUICK_STARTS if bench.quick else _STARTS):
        for name, command in tuple(commands.items()):
            try:
                identified, offered = _start(command)
            except (OSError, RuntimeError) as error:
                bench.skip(f"{name}, start: {error!r}")
                del commands[name]
                continue
            bench.add("start.version line.ms", name, 1000 * identified)
            bench.add("start.key exchange.ms", name, 1000 * offered)


def _start(command: list[str]) -> tuple[float, float]:
    """Start a server; gives the seconds until its version line was there, and until its KEXINIT was."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(60)
        ours.sendall(b"SSH-2.0-start\r\n")  # which sshd waits for before its KEXINIT
        began = time.perf_counter()
        with theirs:
            server = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL, close_fds=True
            )
        try:
            received = b""
            identified = 0.0
            while len(received) < received.find(b"\n") + 7 or b"\n" not in received:
                data = ours.recv(4096)
                if not data:
                    raise RuntimeError(f"{command[0]} ended before its key exchange")
                received += data
                if not identified and b"\n" in received:
                    identified = time.perf_counter() - began
            offered = time.perf_counter() - began
            if received[received.find(b"\n") + 6] != _KEXINIT:
                raise RuntimeError(f"{command[0]} begins with something else than its KEXINIT")
            return identified, offered
        finally:
            ours.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)
            server.kill()
            server.wait()
