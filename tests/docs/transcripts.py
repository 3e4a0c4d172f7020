"""Plays the ```console blocks of the documentation: types what they show typed, and looks for what they show answered.

A line with `$` is a command. Below it stands what the terminal shows; `…` stands for any text. Where a program asks
with `> ` or `? `, what stands behind is typed; `^C` and `^D` are keys. `$?` is the last command's exit status. A line
with `#` tells the reader to do something that the player can do as well: to give the window another size ("80 columns
and 24 rows").
"""

from __future__ import annotations

import os
import pty
import re
import selectors
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyte

SECONDS = 45.0
"""How long a terminal may take to show what is awaited."""
_COLUMNS, _ROWS = 100, 60
_PROMPT = re.compile(r"(.*?[>?] )(.+)")
_KEYS = {"^C": "\x03", "^D": "\x04"}
_NEW_HOST = "Warning: Permanently added"
_RESIZE = re.compile(r"# .*?(\d+) columns and (\d+) rows.*")
_ASKED_BY_SSH = re.compile(r".*'s password:|\(\S+@\S+\) .*:")


@dataclass
class Step:
    """A command and what the terminal shows while it runs."""

    command: str
    shown: list[str] = field(default_factory=list)


def steps(block: str) -> Iterator[Step]:
    """Take a block apart."""
    step: Step | None = None
    for line in block.splitlines():
        if line.startswith("$ "):
            if step is not None:
                yield step
            step = Step(line.removeprefix("$ "))
        elif not _ASKED_BY_SSH.fullmatch(line):  # answered by SSH_ASKPASS, and then not shown
            assert step is not None, f"no command before {line!r}"
            step.shown.append(line)
    if step is not None:
        yield step


class Terminal:
    """A terminal in which a command runs."""

    def __init__(self, command: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._screen = pyte.Screen(_COLUMNS, _ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._fd, theirs = pty.openpty()
        os.set_blocking(self._fd, False)
        termios.tcsetwinsize(theirs, (_ROWS, _COLUMNS))
        self._process = subprocess.Popen(
            # Who leads a session and opens a terminal is told of its size from then on.
            ["/bin/sh", "-c", 'exec <"$0"; eval "$1"', os.ttyname(theirs), command],
            cwd=folder, env=dict(environment), start_new_session=True, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)
        self._open = True

    def close(self) -> None:
        """End what runs still."""
        self._process.kill()
        self._process.wait()
        self._selector.close()
        os.close(self._fd)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size."""
        termios.tcsetwinsize(self._fd, (rows, columns))

    def rows(self) -> list[str]:
        """What can be seen."""
        rows = [row.rstrip() for row in self._screen.display if not row.startswith(_NEW_HOST)]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def show(self, wanted: list[str], *, whole: bool) -> None:
        """Wait until the screen shows these lines, and nothing else if `whole`."""
        deadline = time.monotonic() + SECONDS
        pattern = re.escape("\n".join(wanted).rstrip()).replace("…", ".*")
        match = re.fullmatch if whole else re.match
        while not match(pattern, "\n".join(self.rows())) and self._read(deadline):
            pass
        seen = "\n".join(self.rows())
        assert match(pattern, seen), f"instead of\n{chr(10).join(wanted)}\nthe terminal shows\n{seen}"

    def ended(self) -> int:
        """Wait for the end, and give the exit status."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        """Read what comes next; False if nothing does."""
        if not self._open or not self._selector.select(max(0.0, deadline - time.monotonic())):
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the other side open
            data = b""
        self._open = bool(data)
        self._stream.feed(data)
        return self._open


def play(block: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a block's commands, one after another, and compare."""
    status = 0
    for step in steps(block):
        terminal = Terminal(step.command.replace("$?", str(status)), folder, environment)
        try:
            shown: list[str] = []
            for line in step.shown:
                if resized := _RESIZE.fullmatch(line):
                    terminal.show(shown, whole=True)
                    terminal.resize(int(resized[1]), int(resized[2]))
                    continue
                asked = _PROMPT.fullmatch(line) if step.command.startswith("ssh ") else None
                if asked is None:
                    shown.append(line)
                    continue
                prompt, typed = asked.groups()
                terminal.show([*shown, prompt], whole=False)
                terminal.type(_KEYS.get(typed, f"{typed}\r"))
                shown.append(prompt.rstrip() if typed in _KEYS else line)
            terminal.show(shown, whole=True)
            status = terminal.ended()
            terminal.show(shown, whole=True)
        finally:
            terminal.close()
