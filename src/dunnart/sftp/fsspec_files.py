"""Any store that fsspec reaches as a `FileSystem`: memory, archives, S3 and its like.

    files = FsspecFiles.from_url("s3://bucket/prefix")

A file appears in the store when its client closes it, as a whole: until then it is staged in a local spool. Stores
differ from disks, and this is what clients see of it:

- Modes, owners and times are made up where the store has none. Setting them is taken and has no effect: clients such as
  `scp -p` and rclone set them after each upload, and would call it failed. Links and free space are refused.
- Object stores have no directories. One that was made is kept as "name/" in S3, in other stores by this object, until
  something is in it; and it stays when the last of its files is removed.
- What an object store cannot rename is copied and removed, a directory file by file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any, Self

from dunnart.sftp.attributes import Attributes
from dunnart.sftp.files import File, OpenMode
from dunnart.sftp.paths import absolute
from dunnart.sftp.staged import StagedFile, StoredFile, refuse_statvfs
from dunnart.sftp.store import DIRECTORY, Info, Store, is_directory, oserror, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsspec import AbstractFileSystem

_SPOOL_BYTES = 64 << 30
_FOLDER = (b"/", b"/.")
_URL_SIGNS = frozenset("?#\\")


class FsspecFiles:
    """The `FileSystem` of a store.

    Of fsspec's own local file system, symbolic links are followed wherever they lead: `LocalFiles` serves folders.

    Args:
        filesystem: fsspec's object; not one that is `asynchronous`.
        root: what the client sees as "/", a path in the store.
        start: where relative paths begin, as the client sees it.
        spool_bytes: how large a file may become that is staged; it needs so much room where Python's `tempfile` has its
            files.

    Raises:
        ValueError: the file system is asynchronous.
    """

    def __init__(
        self, filesystem: AbstractFileSystem, root: str = "", *, start: str = "/", spool_bytes: int = _SPOOL_BYTES
    ) -> None:
        if getattr(filesystem, "asynchronous", False):
            raise ValueError(f"{filesystem!r} is asynchronous: make it without asynchronous=True")
        while filesystem.protocol == "dir":  # it moves files by pattern; what it wraps need not
            root = f"{filesystem.path}/{root}" if root else filesystem.path
            filesystem = filesystem.fs
        self._store = Store(filesystem)
        self._base = filesystem._strip_protocol(root).rstrip("/") if root else ""  # noqa: SLF001 - fsspec has no other
        self._top: str = self._base or self._store.root_marker
        self._start = os.fsencode(start)
        self._spool_bytes = spool_bytes
        self._directories: set[str] = set()
        self._staged: dict[str, StagedFile] = {}

    @classmethod
    def from_url(
        cls, url: str, *, start: str = "/", spool_bytes: int = _SPOOL_BYTES,
        **storage_options: Any,  # noqa: ANN401 - each store has its own
    ) -> Self:  # fmt: skip
        """Reach a store by its URL.

        Args:
            url: as fsspec has it, such as "s3://bucket/prefix" or "zip://::/srv/archive.zip".
            start: where relative paths begin, as the client sees it.
            spool_bytes: how large a file may become that is staged.
            storage_options: what fsspec's class for this kind of store takes.

        Raises:
            ImportError: fsspec, or what it needs for this kind of store, is not installed.
            ValueError: fsspec knows no such kind of store.
        """
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise ImportError(f"{url} needs fsspec: pip install 'dunnart[fsspec]'") from error
        filesystem, root = url_to_fs(url, **storage_options)
        return cls(filesystem, root, start=start, spool_bytes=spool_bytes)

    # Paths. They are text alone: nothing in a store leads elsewhere.

    def _parts(self, path: bytes) -> list[str]:
        parts: list[str] = []
        whole = absolute(path, self._start)
        for part in whole.decode("utf-8", "surrogateescape").split("/"):
            if part == "..":
                del parts[-1:]
            elif part not in {"", "."}:
                self._check_name(part)
                parts.append(part)
        return parts

    def _check_name(self, name: str) -> None:
        """Refuse what the store would take for something else than a name."""
        if self._store.marks and "?versionId=" in name:
            raise oserror(errno.EINVAL)
        if "://" in self._base:  # each path becomes a URL, which somebody may decode and resolve
            from urllib.parse import unquote

            decoded = unquote(name)
            if _URL_SIGNS & set(name) or decoded in {".", ".."} or "/" in decoded or "\\" in decoded:
                raise oserror(errno.EINVAL)

    def _place(self, path: bytes) -> str:
        """Where a path leads in the store."""
        parts = "/".join(self._parts(path))
        if not parts:
            return self._top
        return f"{self._base}/{parts}" if self._base or self._top == "/" else parts

    def _parent(self, place: str) -> str:
        return place.rpartition("/")[0] or self._top

    def _info(self, place: str) -> Info:
        try:
            return self._store.info(place)
        except FileNotFoundError:
            if place == self._top or place in self._directories:
                return DIRECTORY
            raise

    def _found(self, path: bytes) -> tuple[str, Info]:
        """What is at a path, and where that is; a slash at its end asks for a directory."""
        place = self._place(path)
        info = self._info(place)
        if path.endswith(_FOLDER) and not is_directory(info):
            raise oserror(errno.ENOTDIR)
        return place, info

    def _check_writable(self) -> None:
        if self._store.read_only:
            raise oserror(errno.EROFS)

    def _check_parent(self, place: str) -> None:
        """See that there is a directory for something new: an object store would not ask."""
        parent = self._parent(place)
        if parent != self._top and not is_directory(self._info(parent)):
            raise oserror(errno.ENOTDIR)

    # Files.

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
        """Open a file; one that is created appears when it is closed."""
        place = self._place(path)
        if mode.write or mode.create or mode.truncate:
            self._check_writable()
        info: Info | None
        try:
            _, info = self._found(path)
        except FileNotFoundError:
            if not mode.create:
                raise
            if path.endswith(_FOLDER):
                raise oserror(errno.EISDIR) from None
            self._check_parent(place)
            info = None
        if info is not None:
            if mode.create and mode.exclusive:
                raise oserror(errno.EEXIST)
            if is_directory(info):
                raise oserror(errno.EISDIR)
            if info.get("type") != "file":
                raise oserror(errno.EOPNOTSUPP, "no regular file")
            if not mode.write and not mode.truncate:
                return StoredFile(self._store, place, info)
        elif mode.exclusive and place in self._staged:
            raise oserror(errno.EEXIST)
        kept = None if mode.truncate else info
        staged = StagedFile(
            self._store, place, size=int(kept["size"] or 0) if kept else 0, changed=kept is None,
            readable=mode.read or not mode.write, writable=mode.write, append=mode.append,
            create=mode.create and mode.exclusive, spool_bytes=self._spool_bytes, ended=self._ended,
        )  # fmt: skip
        self._staged[place] = staged
        return staged

    def _ended(self, staged: StagedFile) -> None:
        if self._staged.get(staged.place) is staged:
            del self._staged[staged.place]

    def stat(self, path: bytes, *, follow: bool) -> os.stat_result:
        """What is known of a file; of one that is being uploaded here, too: some clients look at once."""
        try:
            return status_of(self._found(path)[1])
        except FileNotFoundError:
            staged = self._staged.get(self._place(path))
            if staged is None:
                raise
            return staged.stat()

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Change the size; a store keeps neither modes nor owners nor times that a client chooses."""
        self._check_writable()
        if attributes.size is None:
            self.stat(path, follow=follow)
            return
        if not follow:
            raise oserror(errno.EINVAL)
        staged = self._staged.get(self._place(path))
        if staged is not None:
            staged.set(attributes)
            return
        file = self.open(path, OpenMode(write=True), Attributes())
        try:
            file.set(attributes)
        except BaseException:
            file.abandon()
            raise
        file.close()

    def remove(self, path: bytes) -> None:
        """Remove a file, not a directory."""
        self._check_writable()
        place = self._place(path)
        staged = self._staged.pop(place, None)
        if staged is not None:
            staged.unlink()
        try:
            if is_directory(self._found(path)[1]):
                raise oserror(errno.EISDIR)
            self._store.remove(place)
        except FileNotFoundError:
            if staged is None:
                raise
            return
        self._keep(self._parent(place))

    # Directories.

    def scan(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        """List a directory; the store gives it as a whole, so it is in memory meanwhile."""
        place, here = self._found(path)
        if not is_directory(here):
            raise oserror(errno.ENOTDIR)
        return self._listed(status_of(here), self._entries(place))

    def _listed(self, here: os.stat_result, entries: dict[str, Info]) -> Iterator[tuple[bytes, os.stat_result]]:
        yield b".", here
        yield b"..", here
        for name, info in entries.items():
            found = info
            if info.get("islink"):  # fsspec's local file system says what it leads to if it is asked by name
                try:
                    found = self._store.info(info["name"])
                except OSError:
                    continue
            yield name.encode("utf-8", "surrogateescape"), status_of(found)

    def _entries(self, place: str) -> dict[str, Info]:
        """What is in a directory, by name; the first of two that have the same, which `info` finds, too."""
        try:
            listed = self._store.list(place)
        except FileNotFoundError:
            if place not in self._directories and not self._is_empty_root(place):
                raise
            listed = []
        found: dict[str, Info] = {}
        for info in listed:
            whole = info["name"].rstrip("/")
            name = whole.rpartition("/")[2]
            # A directory's own sign is no entry; what no path leads to is not shown.
            if whole.strip("/") != place.strip("/") and name not in {"", ".", ".."} and "\0" not in name:
                found.setdefault(name, info)
        for each in tuple(self._directories):
            if self._parent(each) == place and each != place:
                found.setdefault(each.rpartition("/")[2], DIRECTORY)
        return found

    def _is_empty_root(self, place: str) -> bool:
        """Whether it is the root, a prefix without files in a bucket that there is."""
        bucket, slash, _ = place.partition("/")
        return place == self._top and bool(bucket and slash) and is_directory(self._store.info(bucket))

    def make_directory(self, path: bytes, attributes: Attributes) -> None:
        """Make a directory."""
        self._check_writable()
        place = self._place(path)
        with contextlib.suppress(FileNotFoundError):
            self._info(place)
            raise oserror(errno.EEXIST)
        self._check_parent(place)
        self._make_directory(place)

    def _make_directory(self, place: str) -> None:
        self._store.make_directory(place)
        try:
            self._store.info(place)
        except FileNotFoundError:  # the store has none
            if self._store.marks:
                self._store.mark(place)
            else:
                self._directories.add(place)

    def remove_directory(self, path: bytes) -> None:
        """Remove an empty directory."""
        self._check_writable()
        place = self._place(path)
        if place == self._top:
            raise oserror(errno.EBUSY)
        if not is_directory(self._info(place)):
            raise oserror(errno.ENOTDIR)
        self._remove_directory(place)
        self._keep(self._parent(place))

    def _remove_directory(self, place: str) -> None:
        if self._entries(place):
            raise oserror(errno.ENOTEMPTY)
        self._directories.discard(place)
        with contextlib.suppress(FileNotFoundError):  # only this object knew of it
            self._store.remove_directory(place)

    def _keep(self, place: str) -> None:
        """A directory stays when the last that was in it is gone."""
        if place == self._top:
            return
        try:
            self._store.info(place)
        except FileNotFoundError:
            if self._store.marks:
                self._store.mark(place)
            else:
                self._directories.add(place)

    def real_path(self, path: bytes) -> bytes:
        """The absolute path without "." and ".."; nothing of it need exist."""
        return b"/" + "/".join(self._parts(path)).encode("utf-8", "surrogateescape")

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename a file or directory; unless `replace` it fails where the new name exists."""
        self._check_writable()
        source, target = self._place(old), self._place(new)
        if self._top in {source, target} or source in self._staged:
            raise oserror(errno.EBUSY)
        directory = is_directory(self._found(old)[1])
        if directory and target.startswith(f"{source}/"):
            raise oserror(errno.EINVAL)
        try:
            there = self._info(target)
        except FileNotFoundError:
            if new.endswith(_FOLDER) and not directory:
                raise oserror(errno.ENOTDIR) from None
            self._check_parent(target)
        else:
            if not replace:
                raise oserror(errno.EEXIST)
            if source == target:
                return
            if is_directory(there) != directory:
                raise oserror(errno.ENOTDIR if directory else errno.EISDIR)
            if directory:
                self._remove_directory(target)
        if self._store.renames:
            self._store.move(source, target)
        else:
            self._move(source, target, directory=directory)
        self._keep(self._parent(source))

    def _move(self, source: str, target: str, *, directory: bool) -> None:
        """Copy everything, then remove it; if a copy fails, all is as before."""
        folders, files = [source] * directory, [source] * (not directory)
        for folder in folders:  # which grows meanwhile
            for name, info in self._entries(folder).items():
                (folders if is_directory(info) else files).append(f"{folder}/{name}")
        copied: list[str] = []
        try:
            for folder in folders:
                self._make_directory(target + folder[len(source) :])
            for file in files:
                copied.append(target + file[len(source) :])
                self._store.copy(file, copied[-1])
        except BaseException:
            for file in copied:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    self._store.remove(file)
            for folder in reversed(folders):
                with contextlib.suppress(OSError):
                    self._remove_directory(target + folder[len(source) :])
            raise
        for file in files:
            self._store.remove(file)
        for folder in reversed(folders):
            with contextlib.suppress(FileNotFoundError):  # it went with its last file
                self._remove_directory(folder)

    # What no store has.

    def read_link(self, path: bytes) -> bytes:
        """Refuse: there are no links."""
        raise oserror(errno.EOPNOTSUPP)

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> None:
        """Refuse: there are no links."""
        self._check_writable()
        raise oserror(errno.EOPNOTSUPP)

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """Refuse: nobody knows how much room there is."""
        refuse_statvfs()

    def home(self, user: str) -> bytes:
        """Everybody's is where the session starts."""
        return self._start
