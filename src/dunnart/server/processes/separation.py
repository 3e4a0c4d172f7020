"""Protocol processes that are kept apart from the application's: forked before it has keys, and confined.

    monitor ──fork──► worker-to-be      no key is read yet, and nothing started
       │ reads keys, makes plug-ins     │ waits
       └──────── order, listeners ────► │ is confined, and serves

They share what neither changes. One that is lost is forked by the fork server (`dunnart.runtime.fork_server`), which
holds no keys either and is there only while it is needed: what would fork them from the first to the last would cost
as much memory as a worker.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections import deque
from contextlib import suppress
from dataclasses import field
from importlib import import_module
from typing import TYPE_CHECKING

from dunnart.records import dataclass
from dunnart.runtime.process import Call, Spawned

if TYPE_CHECKING:
    from dunnart.runtime.fork_server import ForkServer
    from dunnart.runtime.process import Child

PRELOADED = (
    "dunnart.server.processes.worker", "dunnart.server.processes.placement", "dunnart.server.operations",
    "dunnart.server.forwarded", "dunnart.runtime.fork_server", "dunnart.runtime.terminal", "dunnart.keys.certificate",
    "dunnart.keys.parts",
    "cryptography.hazmat.backends.openssl.backend", "concurrent.futures.thread", "ctypes", "fcntl",
    "resource", "termios", "traceback",
)  # fmt: skip
"""What a protocol process loads sooner or later, whatever is configured."""
_LINK = 3


class _Forked:
    """A child that was forked by hand, for `Spawned`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self) -> int:
        """Wait for its end, and reap it."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


@dataclass(slots=True)
class Separation:
    """How a server has its protocol processes made.

    Attributes:
        target: "module:function" that confines such a process, and runs it: its link is descriptor 3.
        arguments: what the function gets, as a list.
    """

    target: str
    arguments: tuple[str, ...]
    _waiting: deque[tuple[_Forked, socket.socket]] = field(default_factory=deque, repr=False)

    @classmethod
    def begin(cls, target: str, arguments: tuple[str, ...], count: int) -> Separation:
        """Fork so many processes off this one, which should have one thread and no secret yet."""
        made = cls(target, arguments)
        module, _, name = target.partition(":")
        for each in (*PRELOADED, module):
            import_module(each)
        run = getattr(import_module(module), name)
        gc.collect(1)  # what is old is hardly ever garbage, and takes long
        gc.freeze()  # the collector would touch, and so copy, what is shared
        for _ in range(count):
            sys.stdout.flush()
            sys.stderr.flush()
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                status = 1
                with suppress(BaseException):  # nothing of it may return into what the monitor does next
                    _take(theirs)
                    status = run([*arguments])
                os._exit(status)
            theirs.close()
            made._waiting.append((_Forked(pid), ours))
        return made

    def close(self) -> None:
        """Let those go that still wait: nothing is to be served."""
        while self._waiting:
            self._waiting.popleft()[1].close()

    def start(self, forks: ForkServer) -> tuple[Child, socket.socket]:
        """Give a protocol process, one that waits already or a new one, and what leads to it. Raises OSError."""
        if self._waiting:
            process, ours = self._waiting.popleft()
            return Spawned(process), ours
        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            call = Call(self.target, self.arguments, {}, "/", passed=(theirs.fileno(),), preload=PRELOADED)
            return forks.start(call, (null, null, null)), ours
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(null)
            theirs.close()


def _take(link: socket.socket) -> None:
    """Keep nothing that was the monitor's but what is loaded, and the link."""
    logging.shutdown()  # a log's file that were closed later would by then have given its number to something else
    logging.getLogger().handlers.clear()
    os.setsid()
    os.chdir("/")
    number = os.dup(link.fileno()) if link.fileno() == _LINK else link.fileno()
    null = os.open(os.devnull, os.O_RDWR)
    for each in range(_LINK):
        os.dup2(null, each)
    os.dup2(number, _LINK)
    link.detach()
    os.closerange(_LINK + 1, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
