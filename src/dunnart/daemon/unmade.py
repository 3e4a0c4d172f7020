"""Files and folders that the start makes, for a check that makes none: could they be made?"""

from __future__ import annotations

import errno
import os
import stat
import sys


def is_missing(path: str) -> bool:
    """Tell whether there is nothing of this name, a symbolic link to nowhere included.

    Raises:
        OSError: that cannot be found out; what is above it is no folder.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    return False


def could_make_folder(path: str) -> None:
    """See that a folder that is missing could be made, with those above it that are missing too.

    Raises:
        OSError: not so, as making it would say.
    """
    above = os.path.abspath(path)
    while is_missing(above):
        above = os.path.dirname(above)
    could_make_in(above)


def could_make_in(folder: str) -> None:
    """See that a file could be made in a folder.

    Raises:
        OSError: not so, as making it would say.
    """
    if not stat.S_ISDIR(os.stat(folder).st_mode):
        number = errno.ENOTDIR
    elif not os.access(folder, os.W_OK | os.X_OK):
        number = errno.EROFS if sys.platform != "win32" and os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
    else:
        return
    raise OSError(number, os.strerror(number))
