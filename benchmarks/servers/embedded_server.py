"""dunnart embedded in a program: `python -m benchmarks.servers.embedded_server PORT HOST_KEY AUTHORIZED_KEYS WHERE`.

The program's handlers run in its threads: `echo` gives back what it reads, `burn` computes in Python, `block` waits for
ten seconds. Every other command is the system's.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import dunnart
from dunnart.plugins.os_process import OsExec
from dunnart.server.applications import as_application

BURN_SECONDS = 60  # an end, should nobody stop it


def _echo(session: dunnart.BlockingSession) -> None:
    session.stdout.write("ready")
    session.stdout.flush()
    while data := session.stdin.buffer.read1(1024):  # type: ignore[attr-defined] # a BufferedReader
        session.stdout.buffer.write(data)
        session.stdout.buffer.flush()


def _burn(session: dunnart.BlockingSession) -> None:
    end = time.monotonic() + BURN_SECONDS
    while time.monotonic() < end and not session.closed:
        sum(number * number for number in range(10_000))


def _block(_session: dunnart.BlockingSession) -> None:
    time.sleep(10)


class Exec:
    """Serves commands."""

    def __init__(self) -> None:
        handlers = {"echo": _echo, "burn": _burn, "block": _block}
        self._applications = {name: as_application(handler, name) for name, handler in handlers.items()}

    def begin(self, session: dunnart.RawSession) -> bool:
        """Hand a session to its handler or program."""
        return self._applications.get(session.command or "", OsExec()).begin(session)


def main(port: str, host_key: str, authorized_keys: str, placement: str) -> None:
    """Serve until SIGTERM."""
    server = dunnart.Server(
        exec=Exec(),
        host_keys=[host_key],
        authenticators=[dunnart.PublicKeys(Path(authorized_keys).read_text("utf-8"))],
        listen=f"127.0.0.1:{port}",
        placement="process" if placement == "process" else "thread",
        admission=None,
    )
    server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
