"""An open file at an SFTP server, and the one way in which many reads or writes are outstanding at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from typing import TYPE_CHECKING

from dunnart.client.closing import Closing
from dunnart.sftp.attributes import Attributes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from dunnart.client.sftp import Sftp


async def read_ahead(
    sftp: Sftp, handle: bytes, path: bytes, offset: int = 0, *, count: int | None = None, expected: int | None = None
) -> AsyncGenerator[bytes, None]:
    """Read a file from `offset` on, in order, with many requests outstanding.

    Args:
        sftp: the session.
        handle: the server's name for the open file.
        path: the file, as errors name it.
        offset: where to begin.
        count: how many bytes at most; None: to the end.
        expected: how large the file is believed to be: behind that one piece at a time is asked for. None: it has all
            that is wanted.
    """
    window: deque[tuple[int, int, asyncio.Future[bytes]]] = deque()
    end = None if count is None else offset + count
    believed = expected if expected is not None else end or 0
    room = sftp.window_bytes
    try:
        while True:
            # After the session's end, what came before it is still good.
            lost = sftp.closed and window
            while not lost and (end is None or offset < end) and len(window) < sftp.requests and room > 0:
                size = sftp.read_bytes if end is None else min(sftp.read_bytes, end - offset)
                if offset < believed:
                    size = min(size, believed - offset)
                elif window and window[-1][0] >= believed:
                    break
                window.append((offset, size, sftp.submit(sftp.core.read(handle, offset, size, path))))
                offset += size
                room -= size
            if not window:
                return
            start, size, future = window[0]
            data = await future
            window.popleft()
            room += size
            if not data:
                return
            yield data
            if len(data) < size:  # some servers give less than they could
                start, size = start + len(data), size - len(data)
                window.appendleft((start, size, sftp.submit(sftp.core.read(handle, start, size, path))))
                room -= size
    finally:
        for _, _, future in window:
            future.cancel()


class WriteBehind:
    """Writes to a file with many requests outstanding.

    Args:
        sftp: the session.
        handle: the server's name for the open file.
        path: the file, as errors name it.
        sure: how many bytes of the file were written before, in order.

    Attributes:
        sure: up to where everything was written, if the first write began where the file was sure before.
    """

    def __init__(self, sftp: Sftp, handle: bytes, path: bytes, sure: int = 0) -> None:
        self._sftp = sftp
        self._handle = handle
        self._path = path
        self._window: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._room = sftp.window_bytes
        self._failed = False
        self.sure = sure

    async def write(self, offset: int, data: memoryview) -> None:
        """Write, sooner or later; raises what an earlier write came to."""
        sftp = self._sftp
        while data:
            while self._window and (len(self._window) >= sftp.requests or self._room <= 0):
                await self._oldest()
            piece = data[: sftp.write_bytes]
            request = sftp.core.write(self._handle, offset, piece, self._path)
            self._window.append((len(piece), sftp.submit(request)))
            self._room -= len(piece)
            offset += len(piece)
            data = data[len(piece) :]

    async def _oldest(self) -> None:
        size, future = self._window.popleft()
        self._room += size
        try:
            await future
        except BaseException:  # or cancelled: nobody knows what came of it
            self._failed = True
            raise
        if not self._failed:
            self.sure += size

    async def finish(self) -> None:
        """Wait for all answers; raises what a write came to."""
        while self._window:
            await self._oldest()

    async def settle(self) -> None:
        """Wait for all answers, whatever they are; `sure` tells."""
        while self._window:
            with contextlib.suppress(OSError):
                await self._oldest()


class SftpFile(Closing):
    """An open file; made by `Sftp.open`. Use it as an asynchronous context manager, or close it.

    `read`, `write` and `seek` share a position, as those of Python's files do; one task at a time may use them.
    `read_at` and `write_at` leave it alone, and any number of tasks may use those at once.

    Attributes:
        handle: the server's name for it.
    """

    def __init__(self, sftp: Sftp, handle: bytes, path: bytes) -> None:
        self._sftp = sftp
        self._path = path
        self._position = 0
        self._closed = False
        self.handle = handle

    async def read(self, count: int = -1) -> bytes:
        """`count` bytes, fewer at the end of the file; all that is left if negative. Reads ahead.

        What is left has no end if the server does not want it to: say a number to one that is not trusted.
        """
        data = await self.read_at(self._position, count)
        self._position += len(data)
        return data

    async def read_at(self, offset: int, count: int = -1) -> bytes:
        """The same from `offset` on."""
        expected = None if 0 <= count <= self._sftp.read_bytes else (await self.stat()).size or 0
        parts = [
            data
            async for data in read_ahead(
                self._sftp, self.handle, self._path, offset, count=None if count < 0 else count, expected=expected
            )
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of `data`, with many requests outstanding; gives how much that was."""
        written = await self.write_at(self._position, data)
        self._position += written
        return written

    async def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """The same at `offset`; a file that was opened to append takes it at its end."""
        view = memoryview(data).cast("B")
        behind = WriteBehind(self._sftp, self.handle, self._path)
        try:
            await behind.write(offset, view)
            await behind.finish()
        except OSError:
            await behind.settle()
            raise
        return len(view)

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, from the start, from where it is, or from the end; gives the new one."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += (await self.stat()).size or 0
        if offset < 0:
            raise ValueError("the position would be before the file's start")
        self._position = offset
        return offset

    def tell(self) -> int:
        """The position."""
        return self._position

    async def stat(self) -> Attributes:
        """What is known of it."""
        return await self._sftp.result(self._sftp.core.stat_handle(self.handle, self._path))

    async def set(self, attributes: Attributes) -> None:
        """Change what the attributes name."""
        await self._sftp.result(self._sftp.core.set_handle(self.handle, attributes, self._path))

    async def truncate(self, size: int) -> None:
        """Make it so long."""
        await self.set(Attributes(size=size))

    async def sync(self) -> None:
        """See that it is on the server's disk; needs fsync@openssh.com."""
        await self._sftp.result(self._sftp.core.sync(self.handle, self._path))

    async def close(self) -> None:
        """Close it. An error means that what was written may be lost. Does nothing the second time."""
        if not self._closed:
            self._closed = True
            await self._sftp.result(self._sftp.core.close(self.handle, self._path))
