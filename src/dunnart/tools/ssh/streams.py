"""Our own stdin, stdout and stderr on a loop. Others share them, so their flags are left alone.

Reading waits until there is something to read. Writing goes to a description of our own where the system gives us one,
which can be made non-blocking; else little enough is written at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
import sys

_READ_BYTES = 64 * 1024
_SAFE_BYTES = 4096  # a pipe that can be written to takes as much (POSIX PIPE_BUF)


class Input:
    """A descriptor to read from."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def read(self) -> bytes:
        """What there is, b"" at the end."""
        while True:
            await self._readable()
            try:
                return os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:  # the terminal is gone
                return b""

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(self._fd, _tell, ready)
        except (PermissionError, ValueError):  # a file, which always is
            return
        try:
            await ready
        finally:
            loop.remove_reader(self._fd)


class Output:
    """A descriptor to write to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._own = -1
        mode = os.fstat(fd).st_mode
        self._waits = not stat.S_ISREG(mode)
        if sys.platform == "linux" and (stat.S_ISFIFO(mode) or os.isatty(fd)):
            with contextlib.suppress(OSError):
                self._own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)

    async def write(self, data: bytes) -> None:
        """Write all.

        Raises:
            OSError: nobody reads it any more.
        """
        view = memoryview(data)
        while view:
            try:
                count = self._write(view)
            except BlockingIOError:
                count = 0
            if not count:
                await self._writable()
            view = view[count:]

    def _write(self, view: memoryview) -> int:
        if self._own >= 0:
            return os.write(self._own, view)
        if not self._waits:
            return os.write(self._fd, view)
        ready = select.select((), (self._fd,), (), 0)[1]
        return os.write(self._fd, view[:_SAFE_BYTES]) if ready else 0

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        fd = self._own if self._own >= 0 else self._fd
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_writer(fd, _tell, ready)
        except (PermissionError, ValueError):
            return
        try:
            await ready
        finally:
            loop.remove_writer(fd)

    def close(self) -> None:
        """Close what is ours."""
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
