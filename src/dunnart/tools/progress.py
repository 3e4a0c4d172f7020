"""One line on the terminal that shows how far a transfer is."""

from __future__ import annotations

import os
import shutil
import sys
import time

from dunnart.client.transfers import TransferWatch
from dunnart.tools.shown import shown

_SECONDS = 0.2  # between two looks
_UNITS = "KMGTPE"


class Progress(TransferWatch):
    """Shows a bar for the file that is being copied, if standard output is our terminal; else nothing.

    Args:
        quiet: show nothing in any case.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.visible = not quiet and _is_ours()
        self._path: str | None = None
        self._began = self._looked = 0.0
        self._first = self._done = 0
        self._size: int | None = None

    def moved(self, path: str, done: int, size: int | None) -> None:
        """Show it, a few times a second."""
        if not self.visible:
            return
        now = time.monotonic()
        if path != self._path:
            self._path, self._began, self._first, self._looked = path, now, done, 0.0
        self._done, self._size = done, size
        if now - self._looked >= _SECONDS:
            self._looked = now
            self._draw(now)

    def finished(self, path: str) -> None:
        """Leave the last state, and go to the next line."""
        self._end(self._done)

    def interrupted(self) -> None:
        """Likewise, of a file that is not whole."""
        self._end(self._done)

    def _end(self, done: int) -> None:
        if self.visible and self._path is not None:
            self._done = done
            self._draw(time.monotonic())
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._path = None

    def _draw(self, now: float) -> None:
        seconds = max(now - self._began, 0.001)
        rate = (self._done - self._first) / seconds
        percent = "" if not self._size else f"{min(100, self._done * 100 // self._size):3d}%"
        left = (self._size or 0) - self._done
        clock = _clock(left / rate) + " left" if left > 0 and rate > 0 else _clock(seconds)
        tail = f" {percent:>4} {size(self._done):>7} {size(int(rate)):>7}/s {clock:>10}"
        room = max(10, shutil.get_terminal_size().columns - 1 - len(tail))
        name = shown((self._path or "").rstrip("/").rpartition("/")[2])
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
