"""The terminal while a session has it: raw, so that every key goes to the server, and put right again in any case."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import threading
import tty
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dunnart.client.session import Terminal

_INPUT = 0


class Screen:
    """Our terminal.

    Attributes:
        raw: whether it is.
    """

    def __init__(self) -> None:
        self._before: list[Any] | None = None
        self.raw = False

    def enter(self) -> None:
        """Make it raw, if there is one."""
        if self.raw or not os.isatty(_INPUT):
            return
        self._before = termios.tcgetattr(_INPUT)
        self.raw = True
        tty.setraw(_INPUT, termios.TCSADRAIN)

    def leave(self) -> None:
        """Put it right."""
        if self.raw and self._before is not None:
            self.raw = False
            with contextlib.suppress(termios.error):  # it is gone
                termios.tcsetattr(_INPUT, termios.TCSADRAIN, self._before)

    def suspend(self) -> None:
        """Stop this process as control-Z does; returns when it goes on."""
        self.leave()
        # To this very thread, which so goes no further before it is stopped: the shell sets the terminal meanwhile.
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)
        self.enter()

    def say(self, text: str) -> None:
        """Tell the person something that does not come from the server."""
        end = "\r\n" if self.raw else "\n"
        print(*text.splitlines(), sep=end, end=end, file=sys.stderr, flush=True)


def terminal() -> Terminal:
    """What the session's terminal is to be like: as ours."""
    from dunnart.client.session import Terminal
    from dunnart.runtime.terminal import modes_of

    columns, rows, width, height = size()
    modes: dict[int, int] = {}
    if os.isatty(_INPUT):
        modes = modes_of(_INPUT)
    return Terminal(os.environ.get("TERM", ""), columns, rows, width, height, modes)


def size() -> tuple[int, int, int, int]:
    """Columns, rows, and both in pixels; zeros if nobody knows."""
    import fcntl
    import struct

    for fd in (0, 1, 2):
        try:
            rows, columns, width, height = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
        except OSError:
            continue
        return columns, rows, width, height
    return 0, 0, 0, 0
