"""Limits what a user may keep: bytes, and names.

What is there is counted by walking it, before something is first added and again when the last look is old, because
others may change it too; in between it is kept up with every change. Bytes are sizes as clients see them: holes
included, so that no file can be filled later for nothing, and the texts of symbolic links. A file with several names
counts once, and one that was removed while it is open counts until it is closed. What is staged for a store counts
beside what it will replace, which frees its room at a later look.
"""

# ruff: noqa: SLF001 - an open file is a part of its file system

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from dunnart.sftp.layers.base import Layer, LayerFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.sftp.attributes import Attributes
    from dunnart.sftp.files import File, FileSystem, OpenMode

_LOOK_SECONDS = 10.0
_SHARE = 10
"""A walk that takes long is repeated after so many times its duration at the earliest."""
_GONE = frozenset((errno.ENOENT, errno.ENOTDIR))


class Quota(Layer):
    """Files that together may not become more than so much.

    Everything below "/" is counted: use it on files that have a root of their own. Sessions in one process that share a
    `Quota` can never exceed it; those that have each their own, as in processes of their own, learn of each other's
    changes within 10 s.

    Args:
        files: what it wraps.
        largest_bytes: what all files may have together; None: without limit.
        most_files: how many names there may be, of files, directories and links; None: without limit.
        clock: gives seconds that only grow.
    """

    def __init__(
        self, files: FileSystem, *, largest_bytes: int | None = None, most_files: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__(files)
        self._largest = largest_bytes
        self._most = most_files
        self._clock = clock
        self._lock = threading.RLock()
        self._bytes = self._names = 0
        self._look_again = -1.0
        self._uncounted = ""
        self._owed = False  # whether a look may find less
        self._opened: set[_CountedFile] = set()

    # Counting.

    def _look(self) -> None:
        began = self._clock()
        self._bytes = self._names = 0
        self._uncounted = ""
        self._owed = False
        seen: set[tuple[int, int]] = set()
        waiting = [b""]
        while waiting:
            path = waiting.pop()
            try:
                self._files.stat(path + b"/.", follow=False)  # or a listing would leave out what it may not look at
                for name, status in self._files.scan(path or b"/"):
                    if name in {b".", b".."}:
                        continue
                    self._names += 1
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(path + b"/" + name)
                    elif (size := _size(status)) and _first(status, seen):
                        self._bytes += size
            except OSError as error:
                if error.errno not in _GONE:  # or one could hide there what one has
                    self._uncounted = f"{os.fsdecode(path)}: {error.strerror}"
        for file in self._opened:
            self._bytes += file.staged_bytes()
            self._names += file.new_names
            status = file.stat()
            if not status.st_nlink and _first(status, seen, always=True):
                self._bytes += status.st_size
        ended = self._clock()
        self._look_again = ended + max(_LOOK_SECONDS, _SHARE * (ended - began))

    def _check(self, more_bytes: int, more_names: int = 0) -> None:
        """See that so much more may be."""
        if more_bytes <= 0 and more_names <= 0:
            return
        fits = self._largest is None or self._bytes + more_bytes <= self._largest
        fits = fits and (self._most is None or self._names + more_names <= self._most)
        if self._clock() >= self._look_again or (self._owed and not fits):
            self._look()
        if self._uncounted:
            _refuse(f"what is used cannot be counted: {self._uncounted}")
        if more_bytes > 0 and self._largest is not None and self._bytes + more_bytes > self._largest:
            _refuse(f"all files together may have {self._largest} bytes, {self._bytes} are used")
        if more_names > 0 and self._most is not None and self._names + more_names > self._most:
            _refuse(f"there may be {self._most} files and directories, and there are {self._names}")

    def _known(self, path: bytes, *, follow: bool) -> os.stat_result | None:
        try:
            return self._files.stat(path, follow=follow)
        except OSError:  # nothing is there; anything else stops the change itself
            return None

    def _freed(self, status: os.stat_result) -> None:
        """A name was taken away: its bytes are free unless the file has another, or is still open."""
        if self._is_staging():
            self._owed = True  # it may be staged, and come back
            return
        self._names -= 1
        if status.st_nlink <= 1 and not self._is_open(status):
            self._bytes -= _size(status)

    def _is_open(self, status: os.stat_result) -> bool:
        return bool(status.st_ino) and any(_same(file.stat(), status) for file in self._opened)

    def _is_staging(self) -> bool:
        return any(file.kept is not None for file in self._opened)

    # What changes something.

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
        """Open a file."""
        if not (mode.write or mode.create or mode.truncate):
            with self._lock:
                return self._counted(super().open(path, mode, attributes), mode)
        with self._lock:
            before = self._known(path, follow=not (mode.create and mode.exclusive))
            if before is None and mode.create:
                self._check(0, 1)
            file = super().open(path, mode, attributes)
            after = file.stat()
            counted = self._counted(file, mode)
            if before is None:
                self._names += 1
            if not after.st_ino:  # of a store
                counted.kept = _size(after)
                counted.new_names = int(before is None)
            elif before is None or mode.truncate:
                self._bytes += _size(after) - (_size(before) if before else 0)
            return counted

    def _counted(self, file: File, mode: OpenMode) -> _CountedFile:
        counted = _CountedFile(self, file, append=mode.append)
        self._opened.add(counted)
        return counted

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Change what the attributes name."""
        if attributes.size is None:
            super().set(path, attributes, follow=follow)
            return
        with self._lock:
            before = self._known(path, follow=follow)
            size = _size(before) if before else 0
            if self._is_staging():  # the size may be of what is staged, and adds up to what is there
                self._check(attributes.size)
                self._bytes, self._owed = self._bytes + attributes.size, True
                super().set(path, attributes, follow=follow)
                return
            self._check(attributes.size - size)
            try:
                super().set(path, attributes, follow=follow)
            finally:
                after = self._known(path, follow=follow)
                self._bytes += (_size(after) if after else 0) - size

    def remove(self, path: bytes) -> None:
        """Remove a file."""
        with self._lock:
            before = self._known(path, follow=False)
            super().remove(path)
            if before is not None:
                self._freed(before)

    def make_directory(self, path: bytes, attributes: Attributes) -> None:
        """Make a directory."""
        with self._lock:
            self._check(0, 1)
            super().make_directory(path, attributes)
            self._names += 1

    def remove_directory(self, path: bytes) -> None:
        """Remove an empty directory."""
        with self._lock:
            super().remove_directory(path)
            self._names -= 1

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename a file or directory; what had the new name frees its room."""
        with self._lock:
            source, target = self._known(old, follow=False), self._known(new, follow=False)
            super().rename(old, new, replace=replace)
            if target is not None and source is not None and self._known(old, follow=False) is None:
                self._freed(target)

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> None:
        """Make a link at `path` to `target`."""
        with self._lock:
            size = len(target) if symbolic else 0
            self._check(size, 1)
            super().make_link(target, path, symbolic=symbolic)
            self._names += 1
            self._bytes += size

    # What is left.

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """The room that there is, no more than the quota leaves."""
        return self._left(super().statvfs(path))

    def _left(self, found: os.statvfs_result) -> os.statvfs_result:
        with self._lock:
            if self._clock() >= self._look_again:
                self._look()
            _, unit, blocks, free, available, files, free_files, available_files, *rest = found
            if self._largest is not None:
                blocks = min(blocks, self._largest // unit)
                left = max(0, self._largest - self._bytes) // unit
                free, available = min(free, left), min(available, left)
            if self._most is not None:
                files = min(files, self._most)
                left = max(0, self._most - self._names)
                free_files, available_files = min(free_files, left), min(available_files, left)
        numbers = (found.f_bsize, unit, blocks, free, available, files, free_files, available_files, *rest)
        return os.statvfs_result((*numbers, found.f_fsid))


class _CountedFile(LayerFile):
    """An open file.

    Attributes:
        kept: of what is staged for a store, how much the store has, and counts there; None if nothing is staged.
        new_names: how many names it will add when the store gets it.
    """

    kept: int | None = None
    new_names = 0

    def __init__(self, quota: Quota, file: File, *, append: bool) -> None:
        super().__init__(file)
        self._quota = quota
        self._append = append

    def staged_bytes(self) -> int:
        """How much the store will have more when it gets this."""
        return 0 if self.kept is None else max(0, _size(self.stat()) - self.kept)

    def _counted(self, status: os.stat_result) -> int:
        return max(_size(status), self.kept or 0)

    def write(self, data: memoryview, offset: int) -> None:
        quota = self._quota
        with quota._lock:
            status = self.stat()
            if not stat.S_ISREG(status.st_mode):
                super().write(data, offset)
                return
            before = self._counted(status)
            start = status.st_size if self._append or not data else offset
            growth = max(0, start + len(data) - before)
            quota._check(growth)
            try:
                super().write(data, offset)
            except OSError:
                growth = self._counted(self.stat()) - before
                raise
            finally:
                quota._bytes += growth

    def set(self, attributes: Attributes) -> None:
        quota = self._quota
        if attributes.size is None:
            super().set(attributes)
            return
        with quota._lock:
            before = self._counted(self.stat())
            quota._check(attributes.size - before)
            try:
                super().set(attributes)
            finally:
                quota._bytes += self._counted(self.stat()) - before

    def sync(self) -> None:
        super().sync()
        if self.kept is not None:  # it is in the store
            with self._quota._lock:
                self.kept, self.new_names, self._quota._owed = _size(self.stat()), 0, True

    def statvfs(self) -> os.statvfs_result:
        return self._quota._left(super().statvfs())

    def close(self) -> None:
        self._end(super().close)

    def abandon(self) -> None:
        self._end(super().abandon)

    def _end(self, close: Callable[[], None]) -> None:
        quota = self._quota
        with quota._lock:
            if self in quota._opened:
                quota._opened.discard(self)
                quota._owed = quota._owed or self.kept is not None
                with contextlib.suppress(OSError):
                    status = self.stat()
                    if not status.st_nlink and not quota._is_open(status):  # it was removed meanwhile
                        quota._bytes -= _size(status)
            close()


def _refuse(text: str) -> NoReturn:
    raise OSError(errno.EDQUOT, f"Disk quota exceeded: {text}")


def _size(status: os.stat_result) -> int:
    return status.st_size if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode) else 0


def _first(status: os.stat_result, seen: set[tuple[int, int]], *, always: bool = False) -> bool:
    """Whether a file is met for the first time; those with one name are not kept, as they are met once."""
    if (status.st_nlink <= 1 and not always) or not status.st_ino:
        return True
    key = status.st_dev, status.st_ino
    new = key not in seen
    seen.add(key)
    return new


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
