"""Paths as clients send them: bytes, with "/" between their parts."""

from __future__ import annotations

import errno
import os

LINKS = 40
"""How many symbolic links one path may lead through."""
PATH_BYTES = 4096
NAME_BYTES = 255


def oserror(number: int, path: bytes) -> OSError:
    """What the system would say of a path."""
    return OSError(number, os.strerror(number), path)


def absolute(path: bytes, start: bytes) -> bytes:
    """Check a path, and begin at `start` where it does not begin at the root.

    Raises:
        OSError: it is too long or has a zero byte.
    """
    if b"\0" in path:
        raise oserror(errno.EINVAL, path)
    if len(path) >= PATH_BYTES:
        raise oserror(errno.ENAMETOOLONG, path)
    return path if path.startswith(b"/") else start + b"/" + path


def parts(path: bytes) -> list[bytes]:
    """Cut a path, its last part first; a slash at its end asks for a directory, as "." does (POSIX XBD §4.16)."""
    found = [part for part in path.split(b"/") if part]
    if found and path.endswith(b"/"):
        found.append(b".")
    return found[::-1]
