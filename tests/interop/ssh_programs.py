"""`dunnart ssh` and `dbclient` as programs, with pipes or on a terminal of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from dunnart.daemon.ways_in import this_user
from tests.interop.peers import Peer
from tests.interop.support import SECONDS, environment


@dataclass
class Home:
    """A person's home, and what runs there.

    Attributes:
        folder: the home.
        variables: further ones of the environment.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / ".ssh").mkdir(0o700, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.folder, **self.variables)

    def knows(self, *peers: Peer) -> None:
        """Have the hosts' keys known."""
        lines = "".join(f"[127.0.0.1]:{peer.port} {peer.host_key.line()}\n" for peer in peers)
        (self.folder / ".ssh" / "known_hosts").write_text(lines)

    def config(self, text: str) -> None:
        """Write the configuration."""
        path = self.folder / ".ssh" / "config"
        path.write_text(text)
        path.chmod(0o600)

    def run(
        self, *arguments: str | Path, said: bytes = b"", status: int = 0, command: str = "ssh",
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
        """Run to the end, which has to be `status`."""
        done = subprocess.run(
            line(*arguments, command=command), input=said, env={**self.environment, **(variables or {})},
            capture_output=True, timeout=SECONDS, check=False, start_new_session=True,
        )  # fmt: skip
        assert done.returncode == status, (done.returncode, done.stdout[-2000:], done.stderr[-3000:])
        return done

    @contextlib.contextmanager
    def running(self, *arguments: str | Path, command: str = "ssh") -> Iterator[subprocess.Popen[bytes]]:
        """Run for as long as the block lasts."""
        process = subprocess.Popen(
            line(*arguments, command=command), env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)


def line(*arguments: str | Path, command: str = "ssh") -> list[str]:
    """The command line of one of our programs."""
    return [sys.executable, "-m", "dunnart", command, *map(str, arguments)]


def way(peer: Peer, key: str) -> list[str]:
    """What leads to a server, without reading files."""
    return ["-F", "none", "-i", key, "-p", str(peer.port), "-l", this_user().name, "-o", "BatchMode=yes", "127.0.0.1"]


class Person:
    """Somebody at a terminal of their own, in which a program runs.

    Attributes:
        seen: all that has been shown.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], rows: int = 24, columns: int = 80) -> None:
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.execvpe(command[0], [*command], {**variables})
        self.size(rows, columns)
        self.seen = b""
        self._at = 0
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)

    def size(self, rows: int, columns: int) -> None:
        """Change the terminal's size."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def types(self, text: str) -> None:
        """Type."""
        os.write(self._fd, text.encode())

    def sees(self, text: str) -> str:
        """Wait until a text is shown behind what was seen before; gives all up to it."""
        wanted = text.encode()
        deadline = time.monotonic() + SECONDS
        while (found := self.seen.find(wanted, self._at)) < 0:
            ready = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"no {text!r} in {self.seen[self._at :]!r}"
            assert self._read(), f"the end came before {text!r}: {self.seen[self._at :]!r}"
        end = found + len(wanted)
        shown, self._at = self.seen[self._at : end], end
        return shown.decode(errors="replace")

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # nobody has the terminal any more
            data = b""
        self.seen += data
        return bool(data)

    def leaves(self) -> int:
        """Wait for the program's end; gives its exit status."""
        while self._read():
            pass
        self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status
