"""Refuses everything that changes something."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NoReturn

from dunnart.sftp.layers.base import Layer, LayerFile

if TYPE_CHECKING:
    from dunnart.sftp.attributes import Attributes
    from dunnart.sftp.files import File, OpenMode

_FLAG = 8
"""Where `os.statvfs_result` has its flags."""


def _refuse(path: bytes | None = None) -> NoReturn:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def _marked(found: os.statvfs_result) -> os.statvfs_result:
    fields = (*found[:_FLAG], found.f_flag | os.ST_RDONLY, *found[_FLAG + 1 :], found.f_fsid)
    return os.statvfs_result(fields)


class ReadOnly(Layer):
    """Files that may be read and listed: anything else is refused with "Read-only file system".

    Args:
        files: what it wraps.
    """

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
        """Open a file to read it."""
        if mode.write or mode.create or mode.truncate or mode.append:
            _refuse(path)
        return _ReadOnlyFile(super().open(path, mode, attributes))

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Refuse."""
        _refuse(path)

    def remove(self, path: bytes) -> None:
        """Refuse."""
        _refuse(path)

    def make_directory(self, path: bytes, attributes: Attributes) -> None:
        """Refuse."""
        _refuse(path)

    def remove_directory(self, path: bytes) -> None:
        """Refuse."""
        _refuse(path)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Refuse."""
        _refuse(old)

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> None:
        """Refuse."""
        _refuse(path)

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """The same, and that it is read-only."""
        return _marked(super().statvfs(path))


class _ReadOnlyFile(LayerFile):
    def write(self, data: memoryview, offset: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # as for any file that is open to read

    def set(self, attributes: Attributes) -> None:
        _refuse()  # an owner could do that with a file that is open to read

    def statvfs(self) -> os.statvfs_result:
        return _marked(super().statvfs())
