"""What the layers have in common: everything is passed on to what they wrap."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from dunnart.sftp.attributes import Attributes
    from dunnart.sftp.files import File, FileSystem, OpenMode


class Layer:
    """A `FileSystem` that passes everything on.

    Args:
        files: what it wraps.
    """

    def __init__(self, files: FileSystem) -> None:
        self._files = files

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
        """Open a file."""
        return self._files.open(path, mode, attributes)

    def scan(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        """List a directory."""
        return self._files.scan(path)

    def stat(self, path: bytes, *, follow: bool) -> os.stat_result:
        """What is known of a file."""
        return self._files.stat(path, follow=follow)

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Change what the attributes name."""
        self._files.set(path, attributes, follow=follow)

    def remove(self, path: bytes) -> None:
        """Remove a file."""
        self._files.remove(path)

    def make_directory(self, path: bytes, attributes: Attributes) -> None:
        """Make a directory."""
        self._files.make_directory(path, attributes)

    def remove_directory(self, path: bytes) -> None:
        """Remove an empty directory."""
        self._files.remove_directory(path)

    def real_path(self, path: bytes) -> bytes:
        """The absolute path without symbolic links."""
        return self._files.real_path(path)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename a file or directory."""
        self._files.rename(old, new, replace=replace)

    def read_link(self, path: bytes) -> bytes:
        """Where a symbolic link points."""
        return self._files.read_link(path)

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> None:
        """Make a link at `path` to `target`."""
        self._files.make_link(target, path, symbolic=symbolic)

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """What is known of the file system that a file is on."""
        return self._files.statvfs(path)

    def home(self, user: str) -> bytes:
        """A user's home."""
        return self._files.home(user)


class LayerFile:
    """A `File` that passes everything on.

    Args:
        file: what it wraps.
    """

    def __init__(self, file: File) -> None:
        self._file = file

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from `offset` on."""
        return self._file.read_into(buffer, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        self._file.write(data, offset)

    def stat(self) -> os.stat_result:
        """What is known of it."""
        return self._file.stat()

    def set(self, attributes: Attributes) -> None:
        """Change what the attributes name."""
        self._file.set(attributes)

    def sync(self) -> None:
        """See that it is on the disk."""
        self._file.sync()

    def statvfs(self) -> os.statvfs_result:
        """What is known of the file system that it is on."""
        return self._file.statvfs()

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def abandon(self) -> None:
        """Let go of it unfinished."""
        self._file.abandon()


def last_part(path: bytes) -> bytes:
    """The name at a path's end, whatever slashes and dots follow it."""
    for part in reversed(path.split(b"/")):
        if part not in {b"", b"."}:
            return part
    return b"."
