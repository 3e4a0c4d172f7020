"""Tells what was done: for audit, hooks and counters."""

# ruff: noqa: SLF001 - an open file is a part of its file system

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from dunnart.records import dataclass
from dunnart.sftp.attributes import Attributes
from dunnart.sftp.files import OpenMode
from dunnart.sftp.layers.base import Layer, LayerFile

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from hashlib import _Hash

    from dunnart.sftp.files import File, FileSystem

ABANDONED = "not complete: the client has gone"
_CHUNK_BYTES = 256 * 1024
_TEXT_CHARACTERS = 512
_AGAIN_BYTES = 4 << 30
"""The largest file that is read again for its hash: with holes one may be of any size for nothing."""


@dataclass(frozen=True, slots=True)
class FileEvent:
    """Something that a client did, or tried.

    Attributes:
        kind: `uploaded`, `downloaded`, `removed`, `renamed`, `made-directory`, `removed-directory`, `linked` or
            `changed`.
        path: what it was done to, absolute; the new link where one was made.
        target: the new name, or where a link leads.
        size: of an uploaded file in bytes; of a download, what was read of it.
        seconds: how long it took; from opening to closing a file.
        sha256: of the whole file, in hex; empty if it was not asked for, is not known, or there was an error.
        error: why it failed; empty if it did not.
    """

    kind: str
    path: bytes
    target: bytes = b""
    size: int = 0
    seconds: float = 0.0
    sha256: str = ""
    error: str = ""


class Observed(Layer):
    """Files of which every change, upload and download is told, those that failed too.

    An upload is told when it is closed, or abandoned; so is a download, also of a file that was changed as well. A file
    that is opened without being read or written is not told.

    Args:
        files: what it wraps.
        tell: is called with a `FileEvent`, in the thread that serves the session; what it raises ends the session.
        digest: hash uploads and downloads. Where data came in order that is done on the way; otherwise an upload of
            up to 4 GiB is read again, and a download has no hash.
    """

    def __init__(self, files: FileSystem, tell: Callable[[FileEvent], None], *, digest: bool = False) -> None:
        super().__init__(files)
        self._tell = tell
        self._digest = digest
        self._opened: set[_ObservedFile] = set()  # those that are hashed and may be changed

    def _absolute(self, path: bytes) -> bytes:
        if not path.startswith(b"/"):
            path = super().home("").rstrip(b"/") + b"/" + path
        return b"/" + b"/".join(part for part in path.split(b"/") if part not in {b"", b"."})

    @contextlib.contextmanager
    def _telling(self, kind: str, path: bytes, target: bytes = b"") -> Iterator[None]:
        began = time.monotonic()
        error = ""
        try:
            yield
        except (OSError, OverflowError) as failure:
            error = reason(failure)
            raise
        finally:
            seconds = time.monotonic() - began
            self._tell(FileEvent(kind, self._absolute(path), target, seconds=seconds, error=error))

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
        """Open a file."""
        absolute = self._absolute(path)
        changes = mode.write or mode.create or mode.truncate
        try:
            file = super().open(path, mode, attributes)
        except OSError as error:
            self._tell(FileEvent("uploaded" if changes else "downloaded", absolute, error=reason(error)))
            raise
        fresh = mode.truncate or (mode.create and mode.exclusive) or (mode.create and not file.stat().st_size)
        observed = _ObservedFile(self, file, absolute, mode, fresh=fresh)
        if changes and self._digest:
            if self._out_of_order(file.stat()):
                observed.out_of_order()
            self._opened.add(observed)
        return observed

    def _out_of_order(self, status: os.stat_result) -> bool:
        """A file is changed otherwise than through one handle: whether there are others, which no longer know all."""
        found = [each for each in self._opened if status.st_ino and _same(each.stat(), status)]
        for each in found:
            each.out_of_order()
        return bool(found)

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Change what the attributes name."""
        with self._telling("changed", path):
            super().set(path, attributes, follow=follow)
            if attributes.size is not None and self._opened:
                self._out_of_order(self.stat(path, follow=follow))

    def remove(self, path: bytes) -> None:
        """Remove a file."""
        with self._telling("removed", path):
            super().remove(path)

    def make_directory(self, path: bytes, attributes: Attributes) -> None:
        """Make a directory."""
        with self._telling("made-directory", path):
            super().make_directory(path, attributes)

    def remove_directory(self, path: bytes) -> None:
        """Remove an empty directory."""
        with self._telling("removed-directory", path):
            super().remove_directory(path)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename a file or directory."""
        with self._telling("renamed", old, self._absolute(new)):
            super().rename(old, new, replace=replace)

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> None:
        """Make a link at `path` to `target`."""
        with self._telling("linked", path, target if symbolic else self._absolute(target)):
            super().make_link(target, path, symbolic=symbolic)


class _ObservedFile(LayerFile):
    """Hashes what passes in order: `_position` says how far that went, -1 that it did not."""

    def __init__(self, files: Observed, file: File, path: bytes, mode: OpenMode, *, fresh: bool) -> None:
        super().__init__(file)
        self._files = files
        self._path = path
        self._append = mode.append
        self._began = time.monotonic()
        self._fresh = self._written = fresh
        self._read = False
        self._read_bytes = 0
        self._error = ""
        self._position = 0
        self._hash: _Hash | None = None
        if files._digest:
            from hashlib import sha256

            self._hash = sha256()

    def out_of_order(self) -> None:
        """What passed is not what is in the file."""
        self._position = -1

    def _passed(self, data: memoryview, offset: int) -> None:
        if offset != self._position:
            self._position = -1
        elif self._hash is not None:
            self._hash.update(data)
        if self._position >= 0:
            self._position += len(data)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except (OSError, OverflowError) as error:
            self._error = self._error or reason(error)
            raise

    def read_into(self, buffer: memoryview, offset: int) -> int:
        self._read = True
        with self._noting():
            count = super().read_into(buffer, offset)
        if count:
            self._read_bytes += count
            if not self._written:
                self._passed(buffer[:count], offset)
        return count

    def write(self, data: memoryview, offset: int) -> None:
        if not self._written:
            self._written, self._position = True, -1  # what stood there before is not known
        with self._noting():
            super().write(data, offset)
        self._passed(data, self._position if self._append else offset)

    def set(self, attributes: Attributes) -> None:
        size = attributes.size
        if size is not None and (not self._written or size < self._position):  # what passed was cut off
            self._written, self._position = True, -1
        if self._written:  # a part of the upload
            super().set(attributes)
            return
        with self._files._telling("changed", self._path):
            super().set(attributes)

    def close(self) -> None:
        status = self._status()
        try:
            super().close()
        except OSError as error:
            self._end(status, self._error or reason(error))
            raise
        self._end(status, self._error)

    def abandon(self) -> None:
        status = self._status()
        try:
            super().abandon()
        finally:
            self._end(status, self._error or ABANDONED)

    def _status(self) -> os.stat_result | None:
        self._files._opened.discard(self)
        try:
            return self.stat()
        except OSError:
            return None

    def _end(self, status: os.stat_result | None, error: str) -> None:
        if not self._written and not self._read:
            return
        seconds = time.monotonic() - self._began
        size = status.st_size if status else 0
        digest = "" if error or self._hash is None or status is None else self._whole(self._hash, status)
        told = [("uploaded", size, digest)] if self._written else [("downloaded", self._read_bytes, digest)]
        if self._written and not self._fresh and self._read_bytes:  # or a byte written would hide all that is read
            told.append(("downloaded", self._read_bytes, ""))
        for kind, count, known in told:
            event = FileEvent(kind, self._path, size=count, seconds=seconds, sha256=known, error=error)
            self._files._tell(event)

    def _whole(self, passed: _Hash, status: os.stat_result) -> str:
        """The hash of all of the file, if it can be known."""
        if self._position == status.st_size:
            return passed.hexdigest()
        if not self._written or status.st_size > _AGAIN_BYTES:
            return ""
        from hashlib import sha256

        made, offset = sha256(), 0
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        try:
            file = self._files._files.open(self._path, OpenMode(read=True), Attributes())
            try:
                if not _same(file.stat(), status):  # it was renamed, and this is another
                    return ""
                while count := file.read_into(buffer, offset):
                    made.update(buffer[:count])
                    offset += count
            finally:
                file.close()
        except OSError:  # it was removed, or may be written but not read
            return ""
        return made.hexdigest()


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def reason(error: Exception) -> str:
    """Say why, briefly and without the path: the event has it."""
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return text[:_TEXT_CHARACTERS]
