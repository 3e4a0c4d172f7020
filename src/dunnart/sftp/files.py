"""What a file system must be able to do to be served; `dunnart.sftp.local` is the system's own.

All calls may block; they are made in a thread or process of their own, one at a time for each session. Paths are bytes,
absolute or relative to where the session starts, with "/" between their parts, as the client sent them. What goes wrong
is an OSError, whose errno becomes SFTP's status.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from dunnart.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dunnart.sftp.attributes import Attributes

_BITS = (1, 2, 4, 8, 16, 32)  # SSH_FXF_READ, _WRITE, _APPEND, _CREAT, _TRUNC, _EXCL


@dataclass(frozen=True, slots=True)
class OpenMode:
    """How a file is to be opened (draft-ietf-secsh-filexfer-02 §6.3)."""

    read: bool = False
    write: bool = False
    append: bool = False
    create: bool = False
    truncate: bool = False
    exclusive: bool = False

    @classmethod
    @lru_cache(1 << len(_BITS))
    def of(cls, pflags: int) -> OpenMode:
        """What SFTP's pflags mean."""
        return cls(*(bool(pflags & bit) for bit in _BITS))

    @property
    def pflags(self) -> int:
        """The same as SFTP's pflags."""
        said = (self.read, self.write, self.append, self.create, self.truncate, self.exclusive)
        return sum(bit for bit, is_set in zip(_BITS, said, strict=True) if is_set)

    @property
    def flags(self) -> int:
        """The same for `os.open`."""
        access = os.O_RDWR if self.read and self.write else os.O_WRONLY if self.write else os.O_RDONLY
        return (
            access
            | os.O_APPEND * self.append
            | os.O_CREAT * self.create
            | os.O_TRUNC * self.truncate
            | os.O_EXCL * self.exclusive
        )


class File(Protocol):
    """An open file."""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from `offset` on; gives how many bytes there were, 0 at the end."""

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`; at the end if the file was opened to append."""

    def stat(self) -> os.stat_result:
        """What is known of it."""

    def set(self, attributes: Attributes) -> None:
        """Change what the attributes name."""

    def sync(self) -> None:
        """See that it is on the disk."""

    def statvfs(self) -> os.statvfs_result:
        """What is known of the file system that it is on."""

    def close(self) -> None:
        """Let go of it. An error means that what was written may be lost."""

    def abandon(self) -> None:
        """Let go of it unfinished: the client has gone, or the upload failed. What was staged is discarded."""


class FileSystem(Protocol):
    """Files and directories."""

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
        """Open a file; one that is created gets the attributes' permissions."""

    def scan(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        """List a directory, "." and ".." included."""

    def stat(self, path: bytes, *, follow: bool) -> os.stat_result:
        """What is known of a file, or of the symbolic link itself."""

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Change what the attributes name, of a file or of the symbolic link itself."""

    def remove(self, path: bytes) -> None:
        """Remove a file, not a directory."""

    def make_directory(self, path: bytes, attributes: Attributes) -> None:
        """Make a directory."""

    def remove_directory(self, path: bytes) -> None:
        """Remove an empty directory."""

    def real_path(self, path: bytes) -> bytes:
        """The absolute path without symbolic links, "." and ".."; its last part need not exist."""

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename a file or directory; unless `replace` it fails where the new name exists."""

    def read_link(self, path: bytes) -> bytes:
        """Where a symbolic link points."""

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> None:
        """Make a link at `path` to `target`."""

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """What is known of the file system that a file is on."""

    def home(self, user: str) -> bytes:
        """A user's home; of whoever is logged in if `user` is empty."""
