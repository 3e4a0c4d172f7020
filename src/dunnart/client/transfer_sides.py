"""The two kinds of sides that a transfer has: files here, and files at a server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from dunnart.client.paths import to_bytes
from dunnart.client.sftp_file import WriteBehind, read_ahead
from dunnart.errors import DunnartError
from dunnart.sftp.attributes import Attributes
from dunnart.sftp.files import OpenMode

if TYPE_CHECKING:
    from dunnart.client.sftp import Sftp
    from dunnart.client.transfers import Reading, Writing

T = TypeVar("T")

_READ_BYTES = 1024 * 1024
_SETTLE_SECONDS = 5.0
"""How long a transfer that has failed waits for what the server makes of the rest."""


class RemoteSide:
    """Files at a server."""

    separator = b"/"

    def __init__(self, sftp: Sftp) -> None:
        self._sftp = sftp
        self.files: object = sftp

    async def attributes(self, path: bytes, *, follow: bool) -> Attributes:
        """What is known of a file, or of the symbolic link itself."""
        return await (self._sftp.stat(path) if follow else self._sftp.lstat(path))

    async def identity(self, path: bytes) -> object:
        """The path without links."""
        try:
            return await self._sftp.realpath(path)
        except OSError:
            return None

    async def names(self, path: bytes) -> list[tuple[bytes, Attributes]]:
        """List a directory."""
        return [(to_bytes(entry.name), entry.attributes) for entry in await self._sftp.entries(path)]

    async def make_directory(self, path: bytes, mode: int) -> None:
        """Make a directory."""
        await self._sftp.mkdir(path, mode)

    async def set(self, path: bytes, attributes: Attributes) -> None:
        """Change what the attributes name."""
        await self._sftp.set(path, attributes)

    async def read(self, path: bytes, known: Attributes) -> Reading:
        """Open a file to read it."""
        sftp = self._sftp
        handle = await sftp.result(sftp.core.open(path, OpenMode(read=True)))
        return _RemoteReading(sftp, handle, path, known)

    async def write(self, path: bytes, mode: int, *, resume: bool) -> Writing:
        """Open a file to write it, anew or on behind what is there."""
        sftp = self._sftp
        wanted = OpenMode(write=True, create=True, truncate=not resume)
        handle = await sftp.result(sftp.core.open(path, wanted, Attributes(mode=mode | 0o200)))
        try:
            size = (await sftp.result(sftp.core.stat_handle(handle, path))).size or 0 if resume else 0
        except BaseException:
            with contextlib.suppress(DunnartError):  # the session is over, and all handles with it
                sftp.submit(sftp.core.close(handle, path))
            raise
        return _RemoteWriting(sftp, handle, path, size)


class _RemoteReading:
    def __init__(self, sftp: Sftp, handle: bytes, path: bytes, attributes: Attributes) -> None:
        self._sftp = sftp
        self._handle = handle
        self._path = path
        self.attributes = attributes

    def chunks(self, offset: int) -> AsyncGenerator[bytes, None]:
        return read_ahead(self._sftp, self._handle, self._path, offset, expected=self.attributes.size or 0)

    async def close(self) -> None:
        if not self._sftp.closed:
            self._sftp.submit(self._sftp.core.close(self._handle, self._path))  # nothing is lost, whatever it says


class _RemoteWriting:
    def __init__(self, sftp: Sftp, handle: bytes, path: bytes, size: int) -> None:
        self._sftp = sftp
        self._handle = handle
        self._path = path
        self._behind = WriteBehind(sftp, handle, path, size)
        self.size = size

    async def write(self, data: bytes) -> None:
        offset = self.size
        self.size += len(data)  # some of it is there, even if the rest fails
        await self._behind.write(offset, memoryview(data))

    async def finish(self, attributes: Attributes, *, sync: bool) -> None:
        sftp, core = self._sftp, self._sftp.core
        try:
            await self._behind.finish()
        except BaseException:
            await self.abandon()
            raise
        try:
            answers = []
            if attributes != Attributes():
                answers.append(sftp.submit(core.set_handle(self._handle, attributes, self._path)))
            if sync:
                answers.append(sftp.submit(core.sync(self._handle, self._path)))
        finally:
            answers.append(sftp.submit(core.close(self._handle, self._path)))
        for answer in answers:
            await answer

    async def abandon(self) -> None:
        # Behind a write that failed others may have worked, and would pass for whole when the file is resumed.
        with contextlib.suppress(DunnartError, TimeoutError):  # the session is over, or the server says nothing
            async with asyncio.timeout(_SETTLE_SECONDS):
                await self._behind.settle()
                core, answers = self._sftp.core, []
                if self._behind.sure < self.size:
                    whole = Attributes(size=self._behind.sure)
                    answers.append(self._sftp.submit(core.set_handle(self._handle, whole, self._path)))
                answers.append(self._sftp.submit(core.close(self._handle, self._path)))
                await asyncio.gather(*answers, return_exceptions=True)


class LocalSide:
    """Files here; every call that may block is made in a thread. Errors name paths as text."""

    separator = os.fsencode(os.sep)
    files: object = os

    async def attributes(self, path: bytes, *, follow: bool) -> Attributes:
        """What is known of a file, or of the symbolic link itself."""
        return Attributes.of(await asyncio.to_thread(os.stat, os.fsdecode(path), follow_symlinks=follow))

    async def identity(self, path: bytes) -> object:
        """The device and the number there."""
        try:
            status = await asyncio.to_thread(os.stat, os.fsdecode(path))
        except OSError:
            return None
        return status.st_dev, status.st_ino

    async def names(self, path: bytes) -> list[tuple[bytes, Attributes]]:
        """List a directory."""

        def scan() -> list[tuple[bytes, Attributes]]:
            found = []
            with os.scandir(os.fsdecode(path)) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # gone since
                        found.append((os.fsencode(entry.name), Attributes.of(entry.stat(follow_symlinks=False))))
            return found

        return await asyncio.to_thread(scan)

    async def make_directory(self, path: bytes, mode: int) -> None:
        """Make a directory."""
        await asyncio.to_thread(os.mkdir, os.fsdecode(path), mode)

    async def set(self, path: bytes, attributes: Attributes) -> None:
        """Change what the attributes name."""

        def change() -> None:
            if attributes.mode is not None:
                os.chmod(os.fsdecode(path), attributes.mode)
            if attributes.atime is not None and attributes.mtime is not None:
                os.utime(os.fsdecode(path), (attributes.atime, attributes.mtime))

        await asyncio.to_thread(change)

    async def read(self, path: bytes, known: Attributes) -> Reading:
        """Open a file to read it."""

        def begin() -> tuple[int, os.stat_result]:
            fd = os.open(os.fsdecode(path), os.O_RDONLY | _NONBLOCK | _BINARY)
            return fd, os.fstat(fd)

        return _LocalReading(*await _opened(begin))

    async def write(self, path: bytes, mode: int, *, resume: bool) -> Writing:
        """Open a file to write it, anew or on behind what is there."""

        def begin() -> tuple[int, int]:
            truncate = 0 if resume else os.O_TRUNC
            fd = os.open(os.fsdecode(path), os.O_WRONLY | os.O_CREAT | truncate | _BINARY, mode | 0o200)
            return fd, os.fstat(fd).st_size if resume else 0

        return _LocalWriting(*await _opened(begin), os.fsdecode(path))


async def _opened(begin: Callable[[], tuple[int, T]]) -> tuple[int, T]:
    """Open in a thread; what is open when nobody waits any more is closed."""
    opening = asyncio.ensure_future(asyncio.to_thread(begin))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_opened)
        raise


def _close_opened(opening: asyncio.Future[tuple[int, Any]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result()[0])


_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a FIFO without a writer must not hold us up
_BINARY = getattr(os, "O_BINARY", 0)  # or Windows changes the ends of lines


class _LocalReading:
    def __init__(self, fd: int, status: os.stat_result) -> None:
        self._fd = fd
        self._regular = stat.S_ISREG(status.st_mode)
        self._thread: asyncio.Future[bytes] | None = None
        self.attributes = Attributes.of(status)

    async def chunks(self, offset: int) -> AsyncGenerator[bytes, None]:
        if not self._regular:
            raise OSError(errno.EINVAL, "is not a regular file")
        while data := await self._in_thread(offset):
            yield data
            offset += len(data)

    async def _in_thread(self, offset: int) -> bytes:
        self._thread = asyncio.ensure_future(asyncio.to_thread(self._some, offset))
        return await asyncio.shield(self._thread)

    def _some(self, offset: int) -> bytes:
        os.lseek(self._fd, offset, os.SEEK_SET)
        return os.read(self._fd, _READ_BYTES)

    async def close(self) -> None:
        if self._thread is None or self._thread.done():
            os.close(self._fd)
        else:  # nobody waits for it any more, but it may still read, and would read what gets this number next
            self._thread.add_done_callback(lambda _: os.close(self._fd))


class _LocalWriting:
    """Collects what comes, so that a thread has something to do when it is asked."""

    def __init__(self, fd: int, size: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._thread: asyncio.Future[int] | None = None
        self.size = size

    async def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= _READ_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._thread = asyncio.ensure_future(asyncio.to_thread(self._write, waiting, self.size))
        self.size = await asyncio.shield(self._thread)

    def _write(self, waiting: list[bytes], offset: int) -> int:
        os.lseek(self._fd, offset, os.SEEK_SET)
        for data in waiting:
            view = memoryview(data)
            while view:
                written = os.write(self._fd, view)
                view = view[written:]
                offset += written
        return offset

    async def finish(self, attributes: Attributes, *, sync: bool) -> None:
        def end(waiting: list[bytes]) -> None:
            try:
                self._write(waiting, self.size)
                if sync:
                    os.fsync(self._fd)
            finally:
                os.close(self._fd)
            if attributes.mode is not None:
                os.chmod(self._path, attributes.mode)
            if attributes.atime is not None and attributes.mtime is not None:
                os.utime(self._path, (attributes.atime, attributes.mtime))

        await asyncio.shield(asyncio.to_thread(end, self._waiting))

    async def abandon(self) -> None:
        """What has come is written: all of it is in order."""
        try:
            if self._thread is not None:
                self.size = await self._thread  # it may still run
        except OSError:  # as the disk is full, what waits need not be tried
            self._waiting = []
        with contextlib.suppress(OSError):  # what went wrong first is what counts
            await self.finish(Attributes(), sync=False)
