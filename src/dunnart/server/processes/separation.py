"""Protocol processes that are kept apart from the application's: executed, and confined.

    monitor ──exec──► worker       an interpreter of its own: nothing of the monitor's memory is in it
       └── order, listeners ────►  is confined, and serves

They need not be there while nobody is: `dunnart.server.processes.resting`.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from dataclasses import field
from typing import TYPE_CHECKING

from dunnart.records import dataclass
from dunnart.runtime.executed import executed

if TYPE_CHECKING:
    import socket

    from dunnart.runtime.process import Spawned


def _code() -> tuple[int, ...]:
    """What tells one installed program, and interpreter, from the next; it is not read for that.

    An update may change a few files only: those here are what two processes have to agree about.
    """
    folder = os.path.dirname(__file__)
    try:
        names = sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".py"))
        found = [os.stat(name) for name in (sys.executable, *names)]
    except OSError:  # it is just being changed, or in an archive
        return ()
    return tuple(number for each in found for number in (each.st_ino, each.st_mtime_ns))


@dataclass(slots=True)
class Separation:
    """How a server has its protocol processes made.

    Attributes:
        target: "module:function" that confines such a process, and runs it: it gets the descriptor of its link.
        arguments: what the function gets beside, of what JSON has.
        idle_seconds: they end when there has been no connection for so long; 0: never.
    """

    target: str
    arguments: tuple[object, ...]
    idle_seconds: float = 0.0
    _waiting: deque[tuple[Spawned, socket.socket]] = field(default_factory=deque, repr=False)
    _code: tuple[int, ...] = field(default_factory=_code, repr=False)

    def begin(self, count: int) -> None:
        """Start so many processes already, which load what they need while this one prepares. Raises OSError."""
        for _ in range(count):
            self._waiting.append(self._executed())

    def close(self) -> None:
        """Let those go that still wait: nothing is to be served."""
        while self._waiting:
            self._waiting.popleft()[1].close()

    def start(self) -> tuple[Spawned, socket.socket]:
        """Give a protocol process, one that waits already or a new one, and what leads to it. Raises OSError."""
        return self._waiting.popleft() if self._waiting else self._executed()

    def outdated(self) -> bool:
        """The program was changed on disk: a process that is started now may not go with this one."""
        return _code() != self._code

    def _executed(self) -> tuple[Spawned, socket.socket]:
        return protocol_process(self.target, *self.arguments, alone=True)


def protocol_process(target: str, *arguments: object, alone: bool = False) -> tuple[Spawned, socket.socket]:
    """Start a protocol process; `target`, `arguments` and `alone` are those of `executed`. Raises OSError."""
    # asyncio can do without ssl, and it is 4.5 MB.
    return executed("dunnart-worker", target, *arguments, alone=alone, without=("ssl",))
