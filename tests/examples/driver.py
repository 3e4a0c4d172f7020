"""Runs an example as a user would, and real clients against it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 45.0


def program(name: str) -> str:
    """Find a program: a missing one is a skip on a laptop and a failure where CI=1."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is missing")
        pytest.skip(f"{name} is missing")
    return found


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


class HeldPort:
    """A port that nobody else gets: bound, not listening, and so free for one who says SO_REUSEADDR."""

    def __init__(self) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("127.0.0.1", 0))
        self.number: int = self._sock.getsockname()[1]

    def close(self) -> None:
        """Let go of it."""
        self._sock.close()

    @property
    def answers(self) -> bool:
        """Whether something listens there."""
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.number)) == 0


class Example:
    """A running example."""

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.ports = [HeldPort()]
        self.port = self.ports[0].number
        self._log = folder / "log"
        self._talks: list[Talk] = []
        words = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--port", str(self.port), *arguments]
        path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)
        until(self._ready, "the example listens")

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log
        return self.ports[0].answers

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def stop(self) -> None:
        """End it as a service manager does, and see that it ends well."""
        self.process.terminate()
        try:
            status = self.process.wait(SECONDS)
        finally:
            self.process.kill()
            for port in self.ports:
                port.close()
            for talk in self._talks:
                talk.end()
        assert status in {0, -signal.SIGTERM}, self.log  # uvicorn ends by the signal, once all is closed
        assert "Traceback" not in self.log, self.log

    @property
    def _identity(self) -> list[str]:
        key = self.folder / "key"
        return ["-i", str(key)] if key.exists() else []

    def ssh(self, *words: str, user: str = "ann", options: tuple[str, ...] = ()) -> list[str]:
        """Give the command line of OpenSSH's client; `words` go behind the host."""
        return [
            program("ssh"), "-F", "none", "-p", str(self.port), "-l", user,
            "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            "-o", "LogLevel=ERROR", "-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes",
            *self._identity, *options, "127.0.0.1", *words,
        ]  # fmt: skip

    def talk(self, user: str) -> Talk:
        """Begin a session without a terminal."""
        self._talks.append(Talk(self.ssh(user=user, options=("-T", "-o", "BatchMode=yes"))))
        return self._talks[-1]

    def run(self, *words: str, stdin: str = "", user: str = "ann") -> subprocess.CompletedProcess[str]:
        """Run a command over ssh to its end."""
        command = self.ssh(*words, user=user, options=("-T", "-o", "BatchMode=yes"))
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False)


class Tmux:
    """A terminal of 80 by 24 in which a command runs."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        folder.mkdir()
        # A socket's path must be short.
        self._base = [program("tmux"), "-f", "/dev/null", "-S", os.path.relpath(folder / "s")]
        # tmux does not always learn how a command ended: let a shell tell.
        shown = f'{shlex.join(command)}; echo "[ended: $?]"; read -r line'
        self("new-session", "-d", "-x", "80", "-y", "24", shown)

    def __call__(self, *words: str) -> str:
        done = subprocess.run([*self._base, *words], capture_output=True, text=True, timeout=SECONDS, check=True)
        return done.stdout

    def type(self, *keys: str) -> None:
        """Press keys; text, or names like "Enter" and "C-d"."""
        self("send-keys", *keys)

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self("capture-pane", "-p").splitlines()]

    def shows(self, line: str) -> None:
        """Wait until a line stands on the screen."""
        try:
            until(lambda: line in self.lines, f"the screen shows {line!r}")
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.lines])) from None

    def close(self) -> None:
        """End it and what runs in it."""
        self("kill-server")

    @property
    def ended(self) -> int | None:
        """The command's exit status, once it has ended."""
        found = [line for line in self.lines if line.startswith("[ended: ")]
        return int(found[-1].strip("[]").split()[1]) if found else None


class Talk:
    """A client without a terminal, whose lines go to and fro."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Give the next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def end(self) -> int:
        """Say nothing more, and give the exit status."""
        if self._process.returncode is None:
            try:
                self._process.communicate(timeout=SECONDS)
            finally:
                self._process.kill()
                self._process.wait()
        return self._process.returncode


Start = Callable[..., Example]
Terminal = Callable[[list[str]], Tmux]
