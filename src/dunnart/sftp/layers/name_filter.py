"""Refuses files by their names and sizes: what may be uploaded."""

from __future__ import annotations

import errno
import stat
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from dunnart.sftp.layers.base import Layer, LayerFile, last_part
from dunnart.sftp.paths import NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dunnart.sftp.attributes import Attributes
    from dunnart.sftp.files import File, FileSystem, OpenMode


class NameFilter(Layer):
    """Files whose new names, and sizes, must be allowed; directories may have any name.

    A name is judged where a file is opened to be created, renamed or linked; with a symbolic link, the name that it
    leads to as well. Patterns are those of `fnmatch`, upper and lower case alike. What is there already stays, and may
    be read and changed.

    Args:
        files: what it wraps.
        allow: patterns, of which a name must match one; none: every name may be.
        deny: patterns, of which a name must match none.
        largest_file_bytes: no file may become larger; None: without limit.
    """

    def __init__(
        self, files: FileSystem, *, allow: Sequence[str] = (), deny: Sequence[str] = (),
        largest_file_bytes: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(files)
        self._allow = tuple(pattern.lower() for pattern in allow)
        self._deny = tuple(pattern.lower() for pattern in deny)
        self._largest = largest_file_bytes

    def _check_name(self, path: bytes) -> None:
        part = last_part(path)
        name = part.decode(errors="surrogateescape").lower()
        allowed = not self._allow or any(fnmatchcase(name, pattern) for pattern in self._allow)
        if not allowed or any(fnmatchcase(name, pattern) for pattern in self._deny):
            shown = part[:NAME_BYTES].decode(errors="replace")
            raise OSError(errno.EACCES, f"a file may not be named {shown!r} here", path)

    def _check_size(self, size: int) -> None:
        if self._largest is not None and size > self._largest:
            raise OSError(errno.EFBIG, f"a file may have at most {self._largest} bytes here")

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
        """Open a file; one that is to be created needs a name that is allowed."""
        if mode.create:
            self._check_name(path)
            if not mode.exclusive and self._is_link(path):
                path = super().real_path(path)  # there is nothing left to follow when it is opened
                self._check_name(path)
        file = super().open(path, mode, attributes)
        return file if self._largest is None else _LimitedFile(file, self._check_size, append=mode.append)

    def _is_link(self, path: bytes) -> bool:
        try:
            return stat.S_ISLNK(super().stat(path, follow=False).st_mode)
        except OSError:  # it does not exist yet, or opening it will fail as well
            return False

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Change what the attributes name."""
        if attributes.size is not None:
            self._check_size(attributes.size)
        super().set(path, attributes, follow=follow)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename a directory to any name, everything else to one that is allowed."""
        if not stat.S_ISDIR(super().stat(old, follow=False).st_mode):
            self._check_name(new)
        super().rename(old, new, replace=replace)

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> None:
        """Make a link whose name is allowed."""
        self._check_name(path)
        super().make_link(target, path, symbolic=symbolic)


class _LimitedFile(LayerFile):
    def __init__(self, file: File, check: Callable[[int], None], *, append: bool) -> None:
        super().__init__(file)
        self._check = check
        self._append = append

    def write(self, data: memoryview, offset: int) -> None:
        self._check((self.stat().st_size if self._append else offset) + len(data))
        super().write(data, offset)

    def set(self, attributes: Attributes) -> None:
        if attributes.size is not None:
            self._check(attributes.size)
        super().set(attributes)
