"""Opening files where others than the reader decide what is there."""

from __future__ import annotations

import errno
import os
import stat

_PATH = getattr(os, "O_PATH", 0)  # Linux
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)


def open_regular(path: str, home: os.stat_result | None = None) -> tuple[int, os.stat_result]:
    """Open a regular file to read it; gives its descriptor too.

    Nothing else is opened: that may set something off, as a tape's or a watchdog's device does, and a FIFO lets its
    writer go on.

    Args:
        path: the file; symbolic links are followed.
        home: the folder's whose owner must be able to read it, too: he can have put a link to one of the system's
            there. None: no such check.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    known = os.open(path, _PATH | os.O_CLOEXEC) if _PATH else -1
    try:
        found = os.fstat(known) if _PATH else os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if home is not None and not _readable(found, home):
            raise OSError(errno.EACCES, "the home's owner cannot read it", path)
        return os.open(f"/proc/self/fd/{known}" if _PATH else path, _READ), found
    finally:
        if _PATH:
            os.close(known)


def _readable(found: os.stat_result, home: os.stat_result) -> bool:
    """Whether a home's owner can read a file, as far as both tell."""
    by_group = found.st_gid == home.st_gid and found.st_mode & stat.S_IRGRP
    return home.st_uid in (0, found.st_uid) or bool(by_group or found.st_mode & stat.S_IROTH)
