"""The system's own files, as this process may use them; all, or those below a root that nothing leads out of.

Below a root each part of a path is opened from the one before, symbolic links are read and followed by us, and ".."
goes back to what was opened before. So no name, link or rename at the wrong moment leads outside (THREATS R23): there
is never a path that the system would resolve from its own root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import weakref
from collections.abc import Iterator
from typing import Self

from dunnart.records import dataclass
from dunnart.sftp.attributes import Attributes
from dunnart.sftp.files import File, OpenMode
from dunnart.sftp.paths import LINKS, absolute, oserror, parts

_DEPTH = 256
"""How deep below a root: each folder on the way costs a descriptor while a path is walked."""
_PERMISSIONS = 0o7777
_DEFAULT_FILE, _DEFAULT_DIRECTORY = 0o666, 0o777
_OPENING = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_HERE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC if hasattr(os, "O_PATH") else os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Place:
    """Where a path leads: a name in an open directory, or a path for the system itself."""

    name: bytes
    directory: int | None = None

    def __enter__(self) -> Self:
        return self

    def is_directory(self) -> bool:
        """Whether there is a directory of that name, not a link to one."""
        return stat.S_ISDIR(os.stat(self.name, dir_fd=self.directory, follow_symlinks=False).st_mode)

    def __exit__(self, *_: object) -> None:
        if self.directory is not None:
            os.close(self.directory)


class LocalFiles:
    """The `FileSystem` of this system.

    Args:
        root: the folder that the client sees as "/"; None: the system's own root.
        start: where relative paths begin, as the client sees it.
    """

    def __init__(self, root: str | None = None, *, start: str = "/") -> None:
        self._root = None if root is None else os.open(root, _HERE | os.O_DIRECTORY)
        if self._root is not None:
            weakref.finalize(self, os.close, self._root)
        self._start = os.fsencode(start)

    # Paths.

    def _place(self, path: bytes, *, follow: bool, bare: bool = False) -> _Place:
        """Find where a path leads; its last part need not exist. `bare`: without regard to slashes at its end."""
        path = absolute(path, self._start)
        if self._root is None:
            return _Place(path)
        directory, name, _ = self._walk(self._root, path.rstrip(b"/") if bare else path, follow=follow)
        return _Place(name, directory)

    def _walk(self, root: int, path: bytes, *, follow: bool) -> tuple[int, bytes, list[bytes]]:
        """Walk down from a root: gives the open directory, the last part, and the way there."""
        opened = [os.dup(root)]
        way: list[bytes] = []
        left = parts(path)
        links = 0
        try:
            while left:
                part = left.pop()
                if part == b".":
                    continue
                if part == b"..":
                    if way:
                        way.pop()
                        os.close(opened.pop())
                    continue
                last = not left
                if last and not follow:
                    return self._found(opened, part, [*way, part])
                try:
                    target = os.readlink(part, dir_fd=opened[-1])
                except OSError as error:
                    if error.errno not in {errno.EINVAL, errno.ENOENT}:
                        raise
                    if last:  # no link, or nothing there
                        return self._found(opened, part, [*way, part])
                    opened.append(self._below(opened, part))
                    way.append(part)
                    continue
                links += 1
                if links > LINKS:
                    raise oserror(errno.ELOOP, path)  # noqa: TRY301 - what is open is closed below
                if target.startswith(b"/"):
                    for fd in opened[1:]:
                        os.close(fd)
                    del opened[1:], way[:]
                left += parts(target)
            return self._found(opened, b".", way)
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise

    @staticmethod
    def _below(opened: list[int], part: bytes) -> int:
        if len(opened) > _DEPTH:
            raise oserror(errno.ENAMETOOLONG, part)
        return os.open(part, _HERE | os.O_DIRECTORY, dir_fd=opened[-1])

    @staticmethod
    def _found(opened: list[int], name: bytes, way: list[bytes]) -> tuple[int, bytes, list[bytes]]:
        directory = opened.pop()
        for fd in opened:
            os.close(fd)
        opened.clear()
        return directory, name, way

    # Files.

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
        """Open a file; nothing that would block, as a FIFO without a writer, holds us up."""
        permissions = _DEFAULT_FILE if attributes.mode is None else attributes.mode & _PERMISSIONS
        flags = mode.flags | _OPENING
        if self._root is None:
            return LocalFile(os.open(absolute(path, self._start), flags, permissions), append=mode.append)
        follow = not (mode.create and mode.exclusive)
        new_directory = mode.create and path.endswith(b"/")
        with self._place(path, follow=follow, bare=new_directory) as place:
            if new_directory:
                raise oserror(errno.EISDIR, path)
            fd = os.open(place.name, flags | os.O_NOFOLLOW, permissions, dir_fd=place.directory)
        return LocalFile(fd, append=mode.append)

    def scan(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        """List a directory; what vanishes meanwhile, or may not be looked at, is left out."""
        with self._place(path, follow=True) as place:
            if place.directory is None:
                fd = os.open(place.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            else:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
                fd = os.open(place.name, flags, dir_fd=place.directory)
        entries = self._entries(fd)
        next(entries)  # a generator that never began would not close the folder when it is closed
        return entries

    def _entries(self, fd: int) -> Iterator[tuple[bytes, os.stat_result]]:
        try:
            here = os.fstat(fd)
            yield b"", here
            yield b".", here
            yield b"..", self._above(fd, here)
            with os.scandir(fd) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        yield os.fsencode(entry.name), entry.stat(follow_symlinks=False)
        finally:
            os.close(fd)

    def _above(self, fd: int, here: os.stat_result) -> os.stat_result:
        """What is known of the directory above an open one; above the root there is the root."""
        if self._root is not None and os.path.samestat(here, os.fstat(self._root)):
            return here
        try:
            return os.stat("..", dir_fd=fd)
        except OSError:  # a directory that may be listed, and not gone into
            return here

    def stat(self, path: bytes, *, follow: bool) -> os.stat_result:
        """What is known of a file, or of the symbolic link itself."""
        with self._place(path, follow=follow) as place:
            if place.directory is None:
                return os.stat(place.name, follow_symlinks=follow)
            return os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Change what the attributes name, of a file or of the symbolic link itself."""
        with self._place(path, follow=follow) as place:
            inside = place.directory is not None
            if attributes.size is not None:
                if not follow:
                    raise oserror(errno.EINVAL, path)  # a link's size is that of its text
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW * inside
                fd = os.open(place.name, flags, dir_fd=place.directory)
                try:
                    os.ftruncate(fd, attributes.size)
                finally:
                    os.close(fd)
            through = follow and not inside
            if attributes.mode is not None:
                self._change_mode(place, attributes.mode & _PERMISSIONS, follow=through)
            if attributes.atime is not None and attributes.mtime is not None:
                times = (attributes.atime, attributes.mtime)
                os.utime(place.name, times, dir_fd=place.directory, follow_symlinks=through)
            if attributes.uid is not None and attributes.gid is not None:
                os.chown(place.name, attributes.uid, attributes.gid, dir_fd=place.directory, follow_symlinks=through)

    @staticmethod
    def _change_mode(place: _Place, mode: int, *, follow: bool) -> None:
        if follow:
            os.chmod(place.name, mode)
            return
        # Linux changes no mode by a name without following it: by what was opened it does.
        fd = os.open(place.name, _HERE, dir_fd=place.directory)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise oserror(errno.EOPNOTSUPP, place.name)
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)

    def remove(self, path: bytes) -> None:
        """Remove a file, not a directory."""
        with self._place(path, follow=False, bare=True) as place:
            if place.directory is not None and path.endswith(b"/"):
                raise oserror(errno.EISDIR if place.is_directory() else errno.ENOTDIR, path)
            os.unlink(place.name, dir_fd=place.directory)

    def make_directory(self, path: bytes, attributes: Attributes) -> None:
        """Make a directory."""
        mode = _DEFAULT_DIRECTORY if attributes.mode is None else attributes.mode & _PERMISSIONS
        with self._place(path, follow=False, bare=True) as place:
            os.mkdir(place.name, mode, dir_fd=place.directory)

    def remove_directory(self, path: bytes) -> None:
        """Remove an empty directory."""
        with self._place(path, follow=False, bare=True) as place:
            os.rmdir(place.name, dir_fd=place.directory)

    def real_path(self, path: bytes) -> bytes:
        """The absolute path without symbolic links, "." and ".."; its last part need not exist."""
        path = absolute(path, self._start)
        root = os.open("/", _HERE | os.O_DIRECTORY) if self._root is None else self._root
        try:
            directory, _, way = self._walk(root, path, follow=True)
        finally:
            if self._root is None:
                os.close(root)
        os.close(directory)
        return b"/" + b"/".join(way)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename; without `replace` by a link and its removal, which cannot overwrite, where that is possible."""
        with (
            self._place(old, follow=False, bare=True) as source,
            self._place(new, follow=False, bare=True) as target,
        ):
            slashes = old.endswith(b"/") or new.endswith(b"/")
            if source.directory is not None and slashes and not source.is_directory():
                raise oserror(errno.ENOTDIR, old)
            if not replace:
                status = os.stat(source.name, dir_fd=source.directory, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    try:
                        os.link(source.name, target.name, src_dir_fd=source.directory, dst_dir_fd=target.directory,
                                follow_symlinks=False)  # fmt: skip
                    except OSError as error:
                        if error.errno not in {errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOSYS}:
                            raise
                    else:
                        try:
                            os.unlink(source.name, dir_fd=source.directory)
                        except OSError:  # or the file would have both names
                            os.unlink(target.name, dir_fd=target.directory)
                            raise
                        return
                with contextlib.suppress(FileNotFoundError):
                    os.stat(target.name, dir_fd=target.directory, follow_symlinks=False)
                    raise oserror(errno.EEXIST, new)
            os.rename(source.name, target.name, src_dir_fd=source.directory, dst_dir_fd=target.directory)

    def read_link(self, path: bytes) -> bytes:
        """Where a symbolic link points."""
        with self._place(path, follow=False) as place:
            return os.readlink(place.name, dir_fd=place.directory)

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> None:
        """Make a link at `path` to `target`."""
        if symbolic:
            if b"\0" in target:
                raise oserror(errno.EINVAL, target)
            with self._place(path, follow=False) as place:
                os.symlink(target, place.name, dir_fd=place.directory)
            return
        with self._place(target, follow=False) as source, self._place(path, follow=False) as place:
            os.link(source.name, place.name, src_dir_fd=source.directory, dst_dir_fd=place.directory,
                    follow_symlinks=False)  # fmt: skip

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """What is known of the file system that a file is on."""
        with self._place(path, follow=True) as place:
            if place.directory is None:
                return os.statvfs(place.name)
            fd = os.open(place.name, _HERE, dir_fd=place.directory)
            try:
                return os.statvfs(fd)
            finally:
                os.close(fd)

    def home(self, user: str) -> bytes:
        """A user's home; below a root everybody's is where the session starts."""
        import pwd

        if not user or self._root is not None:
            return self._start
        try:
            return os.fsencode(pwd.getpwnam(user).pw_dir)
        except (KeyError, ValueError):  # nobody, or no name at all
            raise oserror(errno.ENOENT, user.encode(errors="replace")) from None


class LocalFile:
    """A `File` of this system."""

    def __init__(self, fd: int, *, append: bool) -> None:
        self._fd = fd
        self._append = append

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from `offset` on."""
        return os.preadv(self._fd, [buffer], offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        while data:
            count = os.write(self._fd, data) if self._append else os.pwrite(self._fd, data, offset)
            if count == len(data):
                return
            data = data[count:]
            offset += count

    def stat(self) -> os.stat_result:
        """What is known of it."""
        return os.fstat(self._fd)

    def set(self, attributes: Attributes) -> None:
        """Change what the attributes name: an owner may do that with a file that is open to read, too."""
        if attributes.size is not None:
            os.ftruncate(self._fd, attributes.size)
        if attributes.mode is not None:
            os.fchmod(self._fd, attributes.mode & _PERMISSIONS)
        if attributes.atime is not None and attributes.mtime is not None:
            os.utime(self._fd, (attributes.atime, attributes.mtime))
        if attributes.uid is not None and attributes.gid is not None:
            os.fchown(self._fd, attributes.uid, attributes.gid)

    def sync(self) -> None:
        """See that it is on the disk."""
        os.fsync(self._fd)

    def statvfs(self) -> os.statvfs_result:
        """What is known of the file system that it is on."""
        return os.fstatvfs(self._fd)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def abandon(self) -> None:
        """Let go of it: what was written stays."""
        self.close()
