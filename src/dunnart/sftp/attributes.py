"""File attributes as SFTP version 3 has them (draft-ietf-secsh-filexfer-02 §5)."""

from __future__ import annotations

import os
import stat
import struct
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from dunnart.records import dataclass
from dunnart.wire.encoding import uint32, uint64

if TYPE_CHECKING:
    from dunnart.wire.encoding import Reader

_SIZE, _OWNER, _MODE, _TIMES, _EXTENDED = 1, 2, 4, 8, 0x80000000
_FULL = struct.Struct(">IQIIIII")
_MAX32, _MAX64 = 0xFFFFFFFF, (1 << 64) - 1
_HALF_YEAR_SECONDS = 365 * 24 * 3600 // 2


@dataclass(slots=True)
class Attributes:
    """What is known, or to be set, of a file; None where it is not.

    Attributes:
        size: in bytes.
        uid: the owner's number; `gid` is the group's. Both or none.
        mode: type and permissions, as in `os.stat`.
        atime: of the last access, in seconds since 1970; `mtime` is of the last change. Both or none.
        nlink: how many names the file has; for listings only.
    """

    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    atime: int | None = None
    mtime: int | None = None
    nlink: int = 1

    @classmethod
    def of(cls, status: os.stat_result) -> Attributes:
        """What the system says of a file."""
        return cls(
            status.st_size, status.st_uid, status.st_gid, status.st_mode, int(status.st_atime), int(status.st_mtime),
            status.st_nlink,
        )  # fmt: skip

    @classmethod
    def decode(cls, reader: Reader) -> Attributes:
        """Take attributes; extended ones are skipped."""
        flags = reader.uint32()
        made = cls()
        if flags & _SIZE:
            made.size = reader.uint64()
        if flags & _OWNER:
            made.uid, made.gid = reader.uint32(), reader.uint32()
        if flags & _MODE:
            made.mode = reader.uint32()
        if flags & _TIMES:
            made.atime, made.mtime = reader.uint32(), reader.uint32()
        if flags & _EXTENDED:
            # The first short read ends a count that lies (THREATS R8).
            for _ in range(reader.uint32()):
                reader.string()
                reader.string()
        return made

    @property
    def is_directory(self) -> bool:
        """Whether it is known to be a directory; `is_file` and `is_link` likewise."""
        return stat.S_ISDIR(self.mode or 0)

    @property
    def is_file(self) -> bool:
        """Whether it is known to be a regular file."""
        return stat.S_ISREG(self.mode or 0)

    @property
    def is_link(self) -> bool:
        """Whether it is known to be a symbolic link."""
        return stat.S_ISLNK(self.mode or 0)

    def encode(self) -> bytes:
        """The bytes that `decode` takes."""
        flags, fields = 0, []
        if self.size is not None:
            flags |= _SIZE
            fields.append(uint64(self.size & _MAX64))
        if self.uid is not None and self.gid is not None:
            flags |= _OWNER
            fields += [uint32(self.uid & _MAX32), uint32(self.gid & _MAX32)]
        if self.mode is not None:
            flags |= _MODE
            fields.append(uint32(self.mode))
        if self.atime is not None and self.mtime is not None:
            flags |= _TIMES
            fields += [uint32(self.atime & _MAX32), uint32(self.mtime & _MAX32)]
        return uint32(flags) + b"".join(fields)


def encode_status(status: os.stat_result) -> bytes:
    """The same for what the system says of a file, in one step: directories have many."""
    return _FULL.pack(
        _SIZE | _OWNER | _MODE | _TIMES, status.st_size & _MAX64, status.st_uid & _MAX32, status.st_gid & _MAX32,
        status.st_mode, int(status.st_atime) & _MAX32, int(status.st_mtime) & _MAX32,
    )  # fmt: skip


def long_name(name: bytes, status: os.stat_result, now: float) -> bytes:
    """The line that `ls -l` would print, which clients show as it is."""
    day = _day(int(status.st_mtime), int(now) // 86400)
    head = (
        f"{stat.filemode(status.st_mode)} {status.st_nlink:>4} {user_name(status.st_uid):<8} "
        f"{group_name(status.st_gid):<8} {status.st_size:>8} {day} "
    )
    return head.encode(errors="replace") + name


@lru_cache(1024)
def _day(seconds: int, today: int) -> str:
    try:
        when = time.localtime(seconds)
    except (OverflowError, OSError):  # some file systems keep years that no calendar has
        return f"{seconds:<12}"
    recent = today * 86400 - _HALF_YEAR_SECONDS < seconds <= (today + 1) * 86400
    return time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", when)


@lru_cache(4096)
def user_name(uid: int) -> str:
    """A user's name, or the number where there is none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(4096)
def group_name(gid: int) -> str:
    """A group's name, or the number where there is none."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
