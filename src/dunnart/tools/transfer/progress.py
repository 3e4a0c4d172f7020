"""What a person sees of transfers: a line that shows how far a file is, and what went wrong."""

from __future__ import annotations

import os
import shutil
import sys
import time

from dunnart.client.transfers import TransferWatch
from dunnart.records import dataclass
from dunnart.tools.terminal import failure, shown

_SECONDS = 0.2  # between two looks
_UNITS = "KMGTPE"


@dataclass(slots=True)
class _File:
    """How far a file is: since when, from where on, up to where."""

    began: float
    first: int
    done: int
    size: int | None


class Progress(TransferWatch):
    """Shows a line for the file that is being copied, if standard output is our terminal, and tells of failures.

    Args:
        quiet: show no such line in any case.
        prefix: of what is told.

    Attributes:
        visible: whether the line is shown.
        failures: how many files could not be copied.
    """

    def __init__(self, *, quiet: bool = False, prefix: str = "") -> None:
        self.visible = not quiet and _is_ours()
        self.failures = 0
        self._prefix = prefix
        self._files: dict[str, _File] = {}
        self._looked = 0.0
        self._begun = False  # the line

    def moved(self, path: str, done: int, size: int | None) -> None:
        """Show it, a few times a second."""
        if not self.visible:
            return
        now = time.monotonic()
        file = self._files.setdefault(path, _File(now, done, done, size))
        file.done = done
        if now - self._looked >= _SECONDS:
            self._draw(path, file, now)

    def finished(self, path: str) -> None:
        """Leave the last state, and go to the next line."""
        file = self._files.pop(path, None)
        if self.visible and file is not None:
            self._draw(path, file, time.monotonic())
            self.interrupted()

    def failed(self, path: str, error: OSError) -> None:
        """Tell of a file that could not be copied, and let the rest go on."""
        self.failures += 1
        if path:
            self.complain(f"{shown(path)}: {shown(error.strerror or str(error))}")
        else:
            self.complain(failure(error).removeprefix("scp: "))  # the server's program says its name

    def skipped(self, path: str, why: str) -> None:
        """Tell of it."""
        self.complain(f"{shown(path)} {why}: left out")

    def complain(self, text: str) -> None:
        """Print a line to standard error."""
        self.interrupted()
        sys.stdout.flush()
        print(f"{self._prefix}{text}", file=sys.stderr, flush=True)

    def interrupted(self) -> None:
        """Go to the next line, if there is something on this one."""
        if self._begun:
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._begun = False
        self._looked = 0.0

    def _draw(self, path: str, file: _File, now: float) -> None:
        self._looked, self._begun = now, True
        seconds = max(now - file.began, 0.001)
        rate = (file.done - file.first) / seconds
        percent = "" if not file.size else f"{min(100, file.done * 100 // file.size):3d}%"
        left = (file.size or 0) - file.done
        clock = _clock(left / rate) + " left" if left > 0 and rate > 0 else _clock(seconds)
        tail = f" {percent:>4} {size(file.done):>7} {size(int(rate)):>7}/s {clock:>10}"
        room = max(10, shutil.get_terminal_size().columns - 1 - len(tail))
        name = shown(path.rstrip("/").rpartition("/")[2])
        name = name if len(name) <= room else name[: room - 1] + "…"
        sys.stdout.write(f"\r{name:<{room}}{tail}")
        sys.stdout.flush()


def size(count: int) -> str:
    """A number of bytes in at most seven characters."""
    number, unit = float(count), ""
    for each in _UNITS:
        if number < 1000:
            break
        number, unit = number / 1024, each
    return f"{int(number)}B" if not unit else f"{number:.1f}{unit}B"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(min(seconds, 359_999)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def _is_ours() -> bool:
    """Whether standard output is a terminal, and we are in its foreground."""
    if not sys.stdout.isatty():
        return False
    try:
        return os.getpgrp() == os.tcgetpgrp(sys.stdout.fileno())
    except (AttributeError, OSError):  # not our controlling terminal, or a system without such things
        return True
