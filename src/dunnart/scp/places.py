r"""Where paths of SCP lead: to one file system or, with drives, to that of a Windows-style letter.

With drives configured a path that begins with one letter and a colon names a drive, whichever slashes follow:
`C:\dir\file`, `C:/dir/file` and `C:dir/file` are the same, and backslashes separate parts in such a path only. A file
that really is called `C:` is `./C:`. Without drives nothing of this is special.
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dunnart.sftp.files import FileSystem

_DRIVE = re.compile(rb"([A-Za-z]):(?:[\\/]|(?![\\/]))(.*)", re.DOTALL)


class Places:
    """The file systems that are served.

    Args:
        files: for every path without a drive; None: there is nothing without one.
        drives: by their letter, in any case.
    """

    def __init__(self, files: FileSystem | None, drives: Mapping[str, FileSystem] | None = None) -> None:
        self._files = files
        self._drives = {letter.upper().encode(): files for letter, files in (drives or {}).items()}

    def bare_drive(self, path: bytes) -> bytes:
        """Give `C:` for a path like `C:file`, which has no slash of any kind; else nothing."""
        found = _DRIVE.fullmatch(path) if self._drives else None
        return path[:2] if found is not None and not {0x2F, 0x5C} & set(path) else b""

    def find(self, path: bytes) -> tuple[FileSystem, bytes]:
        """Give the file system that a path leads to, and the path there.

        Raises:
            FileNotFoundError: there is no such drive, or nothing without one.
        """
        found = _DRIVE.fullmatch(path) if self._drives else None
        if found is not None:
            files = self._drives.get(found[1].upper())
            if files is not None:
                return files, b"/" + found[2].replace(b"\\", b"/")
            raise FileNotFoundError(errno.ENOENT, "No such drive", path)
        if self._files is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return self._files, path
