"""The numbers of SFTP version 3 (draft-ietf-secsh-filexfer-02 §3, §7), OpenSSH's extensions, and how large packets are.

Both sides take them from here.
"""

from __future__ import annotations

import errno
import os

VERSION = 3

INIT, VERSION_ANSWER = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(3, 13)
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(13, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_ANSWER = 200, 201

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE, OP_UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8

STATUS_OF_ERROR = {
    errno.ENOENT: NO_SUCH_FILE, errno.ENOTDIR: NO_SUCH_FILE, errno.EBADF: NO_SUCH_FILE, errno.ELOOP: NO_SUCH_FILE,
    errno.EPERM: PERMISSION_DENIED, errno.EACCES: PERMISSION_DENIED, errno.EROFS: PERMISSION_DENIED,
    errno.EINVAL: BAD_MESSAGE, errno.ENAMETOOLONG: BAD_MESSAGE, errno.ENOSYS: OP_UNSUPPORTED,
    errno.EOPNOTSUPP: OP_UNSUPPORTED,
}  # fmt: skip
"""What a server answers for an error; FAILURE for every other one."""

ERROR_OF_STATUS = {
    NO_SUCH_FILE: errno.ENOENT, PERMISSION_DENIED: errno.EACCES, FAILURE: errno.EIO, BAD_MESSAGE: errno.EINVAL,
    6: errno.ENOTCONN, 7: errno.ECONNRESET, OP_UNSUPPORTED: errno.EOPNOTSUPP,
    # Of later versions, which some servers send to everybody.
    9: errno.EBADF, 10: errno.ENOENT, 11: errno.EEXIST, 12: errno.EROFS, 13: errno.ENODEV, 14: errno.ENOSPC,
    15: errno.EDQUOT, 18: errno.ENOTEMPTY, 19: errno.ENOTDIR, 20: errno.EINVAL, 21: errno.ELOOP, 24: errno.EISDIR,
}  # fmt: skip
"""What a client makes of a status; EIO of one that is not here."""

ERROR_OF_TEXT = {
    os.strerror(number): number
    for number in (
        errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENOSPC, errno.EDQUOT, errno.EFBIG,
        errno.EROFS, errno.EPERM, errno.ELOOP, errno.EBADF, errno.EXDEV, errno.EMFILE, errno.ENAMETOOLONG, errno.EBUSY,
    )
}  # fmt: skip
"""Version 3 has a number for few errors, but many servers send the system's own text, which says more."""

KIB = 1024
PACKET_BYTES = 256 * KIB + KIB
"""The largest packet that is taken (THREATS R22)."""
DATA_BYTES = 255 * KIB
"""The most that one READ gives or one WRITE takes."""

_LINK_FIRST = ("AsyncSSH_", "libssh_", "libssh-", "WinSCP_")

POSIX_RENAME, STATVFS, FSTATVFS = b"posix-rename@openssh.com", b"statvfs@openssh.com", b"fstatvfs@openssh.com"
HARDLINK, FSYNC, LSETSTAT = b"hardlink@openssh.com", b"fsync@openssh.com", b"lsetstat@openssh.com"
LIMITS, EXPAND_PATH, COPY_DATA = b"limits@openssh.com", b"expand-path@openssh.com", b"copy-data"
HOME_DIRECTORY, USERS_GROUPS_BY_ID = b"home-directory", b"users-groups-by-id@openssh.com"

EXTENSIONS: tuple[tuple[bytes, bytes], ...] = (
    (POSIX_RENAME, b"1"), (STATVFS, b"2"), (FSTATVFS, b"2"), (HARDLINK, b"1"), (FSYNC, b"1"), (LSETSTAT, b"1"),
    (LIMITS, b"1"), (EXPAND_PATH, b"1"), (COPY_DATA, b"1"), (HOME_DIRECTORY, b"1"), (USERS_GROUPS_BY_ID, b"1"),
)  # fmt: skip
"""OpenSSH PROTOCOL §4.3-4.12, and their versions."""

REQUESTS: dict[str, int | bytes] = {
    "open": OPEN, "close": CLOSE, "read": READ, "write": WRITE, "lstat": LSTAT, "fstat": FSTAT, "setstat": SETSTAT,
    "fsetstat": FSETSTAT, "opendir": OPENDIR, "readdir": READDIR, "remove": REMOVE, "mkdir": MKDIR, "rmdir": RMDIR,
    "realpath": REALPATH, "stat": STAT, "rename": RENAME, "readlink": READLINK, "symlink": SYMLINK,
    "posix-rename": POSIX_RENAME, "statvfs": STATVFS, "fstatvfs": FSTATVFS, "hardlink": HARDLINK, "fsync": FSYNC,
    "lsetstat": LSETSTAT, "limits": LIMITS, "expand-path": EXPAND_PATH, "copy-data": COPY_DATA,
    "home-directory": HOME_DIRECTORY, "users-groups-by-id": USERS_GROUPS_BY_ID,
}  # fmt: skip
"""The requests by the names that sftp-server(8) has for them, in the order of its -Q."""
WRITING = frozenset((
    "write", "setstat", "fsetstat", "remove", "mkdir", "rmdir", "rename", "symlink", "posix-rename", "hardlink",
    "fsync", "lsetstat", "copy-data",
))  # fmt: skip
"""Those that nobody needs who only reads."""


def sends_link_first(client: str) -> bool:
    """Whether SYMLINK's arguments come in the draft's order, the link before its target.

    OpenSSH has them the other way round, and so most clients do. Some look for OpenSSH's name in the server's version,
    which they do not find in ours.

    Args:
        client: the version line of the SSH client.
    """
    return client.partition("SSH-2.0-")[2].startswith(_LINK_FIRST)
