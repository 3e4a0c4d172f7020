"""Copies of files and trees between two sides, each of them here or at a server; one walk for all directions."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Protocol

from dunnart.client.paths import to_text
from dunnart.errors import LimitExceeded
from dunnart.sftp.attributes import Attributes

_DEPTH = 100
_PERMISSIONS = 0o777  # no setuid from or for a peer
_SMALL_BYTES = 128 * 1024
_AT_ONCE = 8
_HERE = frozenset((b"", b".", b".."))


class TransferWatch:
    """What is told of a transfer; a subclass overrides what it wants to know. Paths are the source's."""

    def moved(self, path: str, done: int, size: int | None) -> None:
        """`done` of `size` bytes of a file have been copied; `size` is None if nobody knows it."""

    def finished(self, path: str) -> None:
        """A file has been copied."""

    def skipped(self, path: str, why: str) -> None:
        """Something was left out, because it is no regular file."""

    def failed(self, path: str, error: OSError) -> None:
        """A file of a tree could not be copied. Here the error is raised; whoever returns goes on with the rest."""
        raise error


class Reading(Protocol):
    """A file that is being read."""

    attributes: Attributes

    def chunks(self, offset: int) -> AsyncGenerator[bytes, None]:
        """What there is from `offset` on."""

    async def close(self) -> None:
        """Let go of it."""


class Writing(Protocol):
    """A file that is being written, from `size` on."""

    size: int

    async def write(self, data: bytes) -> None:
        """Write behind what is written already."""

    async def finish(self, attributes: Attributes, *, sync: bool) -> None:
        """See that all is written, set the attributes, and let go of it."""

    async def abandon(self) -> None:
        """Let go of it unfinished: it ends where it is certain to be whole."""


class Side(Protocol):
    """Files here or at a server. Paths are bytes."""

    separator: bytes
    files: object
    """The same for two sides that have the same files."""

    async def attributes(self, path: bytes, *, follow: bool) -> Attributes:
        """What is known of a file, or of the symbolic link itself."""

    async def identity(self, path: bytes) -> object:
        """What no other file has; None: there is none, or nobody knows."""

    async def names(self, path: bytes) -> list[tuple[bytes, Attributes]]:
        """List a directory."""

    async def make_directory(self, path: bytes, mode: int) -> None:
        """Make a directory."""

    async def set(self, path: bytes, attributes: Attributes) -> None:
        """Change what the attributes name."""

    async def read(self, path: bytes, known: Attributes) -> Reading:
        """Open a file to read it; `known` is what was heard of it before."""

    async def write(self, path: bytes, mode: int, *, resume: bool) -> Writing:
        """Open a file to write it, anew or on behind what is there."""


async def is_directory(side: Side, path: bytes) -> bool:
    """Whether there is a directory, or a symbolic link to one."""
    try:
        return (await side.attributes(path, follow=True)).is_directory
    except FileNotFoundError:
        return False


class Transfer:
    """A copy from one side to the other; the arguments are those of `Sftp.get`."""

    def __init__(
        self, source: Side, target: Side, *, recursive: bool = False, preserve: bool = False, resume: bool = False,
        follow_links: bool = False, sync: bool = False, watch: TransferWatch | None = None,
    ) -> None:  # fmt: skip
        self._source = source
        self._target = target
        self._recursive = recursive
        self._preserve = preserve
        self._resume = resume
        self._follow_links = follow_links
        self._sync = sync
        self._watch = watch or TransferWatch()

    async def run(self, source: bytes, target: bytes) -> None:
        """Copy a file or directory to a new path, or into a directory that is there."""
        found = await self._source.attributes(source, follow=True)
        if await is_directory(self._target, target):
            name = source.rstrip(self._source.separator).rpartition(self._source.separator)[2]
            if name not in _HERE:
                target = self._below(self._target, target, name)
        if not found.is_directory:
            if found.mode is not None and not found.is_file:
                raise OSError(errno.EINVAL, "is not a regular file", to_text(source))
            await self._file(source, target, found)
        elif self._recursive:
            await self._directory(source, target, found, 0)
        else:
            raise IsADirectoryError(errno.EISDIR, "is a directory; -r (recursive) copies directories", to_text(source))

    async def _same(self, source: bytes, target: bytes) -> bool:
        """Whether the target is the source itself, which opening it would empty."""
        if self._source.files is not self._target.files:
            return False
        one = await self._source.identity(source)
        return one is not None and one == await self._target.identity(target)

    @staticmethod
    def _below(side: Side, path: bytes, name: bytes) -> bytes:
        if name in _HERE or side.separator in name or b"/" in name or (os.altsep and b":" in name):
            raise OSError(errno.EINVAL, "is no name for a file here", to_text(name))
        return (path if path.endswith(side.separator) else path + side.separator) + name

    async def _directory(self, source: bytes, target: bytes, found: Attributes, depth: int) -> None:
        if depth >= _DEPTH:
            raise LimitExceeded(f"directories are more than {_DEPTH} deep; is there a loop?")
        names = await self._source.names(source)
        mode = 0o777 if found.mode is None else found.mode & _PERMISSIONS
        made = not await is_directory(self._target, target)
        if made:
            await self._target.make_directory(target, mode | 0o700)  # or nothing could be put in
        head = source if source.endswith(self._source.separator) else source + self._source.separator
        small = _Several()
        try:
            for name, attributes in sorted(names, key=lambda each: each[0]):
                work = self._entry(head + name, target, name, attributes, depth)
                if attributes.is_file and (attributes.size or 0) <= _SMALL_BYTES:
                    await small.start(work)
                else:
                    await work
            await small.finish()
        except BaseException:
            await small.cancel()
            raise
        await self._set_directory(target, found, mode, made=made)

    async def _set_directory(self, target: bytes, found: Attributes, mode: int, *, made: bool) -> None:
        wanted = Attributes()
        if self._preserve:
            wanted = Attributes(mode=mode, atime=found.atime, mtime=found.mtime)
        elif made and mode & 0o700 != 0o700:
            wanted.mode = mode
        if wanted != Attributes():
            await self._target.set(target, wanted)

    async def _entry(self, source: bytes, folder: bytes, name: bytes, attributes: Attributes, depth: int) -> None:
        try:
            await self._copy_entry(source, self._below(self._target, folder, name), attributes, depth)
        except OSError as error:
            self._watch.failed(to_text(source), error)

    async def _copy_entry(self, source: bytes, target: bytes, attributes: Attributes, depth: int) -> None:
        if attributes.is_link or attributes.mode is None:
            if attributes.is_link and not self._follow_links:
                self._watch.skipped(to_text(source), "is a symbolic link")
                return
            attributes = await self._source.attributes(source, follow=True)
        if attributes.is_directory:
            await self._directory(source, target, attributes, depth + 1)
        elif attributes.is_file:
            await self._file(source, target, attributes)
        else:
            self._watch.skipped(to_text(source), "is not a regular file")

    async def _file(self, source: bytes, target: bytes, known: Attributes) -> None:
        reading = await self._source.read(source, known)
        try:
            await self._copy(reading, source, target)
        finally:
            await reading.close()

    async def _copy(self, reading: Reading, source: bytes, target: bytes) -> None:
        found, shown = reading.attributes, to_text(source)
        if await self._same(source, target):
            raise OSError(errno.EINVAL, "is the same file as the target", shown)
        mode = 0o666 if found.mode is None else found.mode & _PERMISSIONS
        writing = await self._target.write(target, mode, resume=self._resume)
        done = writing.size
        try:
            if found.size is not None and done > found.size:
                text = "cannot be resumed: what there is of it is longer"
                raise OSError(errno.EFBIG, text, shown)  # noqa: TRY301 - what is open is closed below
            self._watch.moved(shown, done, found.size)
            async with contextlib.aclosing(reading.chunks(done)) as chunks:
                async for data in chunks:
                    await writing.write(data)
                    done += len(data)
                    self._watch.moved(shown, done, found.size)
        except BaseException:
            await writing.abandon()
            raise
        wanted = Attributes()
        if self._preserve:
            wanted = Attributes(mode=mode, atime=found.atime, mtime=found.mtime)
            if found.mode is None:  # 0666 would open the file to all, whatever the umask
                wanted.mode = None
        await writing.finish(wanted, sync=self._sync)
        self._watch.finished(shown)


class _Several:
    """Coroutines that run at the same time, a few of them: each small file is little work and much waiting."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start one, when there is room; raises what an earlier one came to."""
        self._tasks.add(asyncio.create_task(work))
        if len(self._tasks) >= _AT_ONCE:
            await self._some()

    async def finish(self) -> None:
        """Wait for all."""
        while self._tasks:
            await self._some()

    async def _some(self) -> None:
        done, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [error for task in done if (error := task.exception()) is not None]
        if errors:
            raise errors[0]

    async def cancel(self) -> None:
        """End them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
