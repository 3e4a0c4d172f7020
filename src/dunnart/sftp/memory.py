"""Files in memory, with a POSIX file system's semantics: nothing touches a disk, and everything ends with the process.

All sessions that share one `MemoryFiles` see the same files; one lock orders what they do. Modes and owners are kept
but grant and refuse nothing: whoever may log in may do everything.
"""

# ruff: noqa: SLF001 - an open file is a part of its file system

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, NoReturn

from dunnart.records import dataclass
from dunnart.sftp.attributes import Attributes
from dunnart.sftp.memory_nodes import ENTRY_BYTES, Directory, Link, Node, Regular, Space
from dunnart.sftp.paths import LINKS, NAME_BYTES, absolute, oserror, parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dunnart.sftp.files import OpenMode

_PERMISSIONS = 0o7777
_UNCHANGED = 0xFFFFFFFF
"""An owner's number that means: leave it (chown(2))."""
_BLOCK_BYTES = 4096
_devices = count(1)


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a path leads: `node` is None where nothing has that name yet."""

    directory: Directory
    name: bytes
    node: Node | None

    @property
    def named(self) -> bool:
        """Whether its last part is a name, not "." or ".."."""
        return self.name not in {b".", b".."}


class MemoryFiles:
    """A `FileSystem` in memory.

    Args:
        contents: the files to begin with, by absolute path; their directories are made.
        largest_bytes: what all of it may take, names and directories at 512 bytes each included; beyond it clients are
            told "No space left on device".
        umask: permissions that what is made does not get.
        start: where relative paths begin.
    """

    def __init__(
        self, contents: Mapping[str, bytes] | None = None, *, largest_bytes: int = 256 << 20, umask: int = 0o022,
        start: str = "/",
    ) -> None:  # fmt: skip
        self._lock = threading.RLock()
        self._space = Space(largest_bytes)
        self._umask = umask
        self._start = os.fsencode(start)
        self._device = next(_devices)
        self._numbers = count(1)
        self._root = Directory(next(self._numbers), stat.S_IFDIR | 0o777 & ~umask)
        self._root.nlink = 2
        for path, data in (contents or {}).items():
            self._put(os.fsencode(path), data)
        self._directories(self._start)

    def contents(self) -> dict[str, bytes]:
        """A copy of all regular files, by absolute path."""
        found: dict[str, bytes] = {}
        with self._lock:
            waiting: list[tuple[bytes, Directory]] = [(b"", self._root)]
            while waiting:
                above, directory = waiting.pop()
                for name, node in directory.entries.items():
                    path = above + b"/" + name
                    if isinstance(node, Directory):
                        waiting.append((path, node))
                    elif isinstance(node, Regular):
                        data = bytearray(node.size)
                        node.read_into(memoryview(data), 0)
                        found[os.fsdecode(path)] = bytes(data)
        return found

    def _put(self, path: bytes, data: bytes) -> None:
        directory, _, name = path.rpartition(b"/")
        if not path.startswith(b"/") or not name:
            raise ValueError(f"{os.fsdecode(path)!r} is not the absolute path of a file")
        self._directories(directory)
        found = self._walk(path, follow=False)
        if found.node is not None:
            raise ValueError(f"{os.fsdecode(path)!r} stands twice, as a file and a directory")
        node = Regular(next(self._numbers), stat.S_IFREG | 0o666 & ~self._umask)
        self._add(found, node)
        node.write(memoryview(data), 0, self._space)

    def _directories(self, path: bytes) -> None:
        made = b""
        for part in reversed(parts(path)):
            made += b"/" + part
            if self._walk(made, follow=True).node is None:
                self.make_directory(made, Attributes())

    # Paths.

    def _walk(self, path: bytes, *, follow: bool, bare: bool = False) -> _Found:
        """Find where a path leads; its last part need not exist. `bare`: without regard to slashes at its end."""
        path = absolute(path, self._start)
        left = parts(path.rstrip(b"/") if bare else path)
        here: Node = self._root
        name, links = b".", 0
        while left:
            if not isinstance(here, Directory):
                raise oserror(errno.ENOTDIR, path)
            name = left.pop()
            if name in {b".", b".."}:
                here = here.parent if name == b".." else here
                continue
            if len(name) > NAME_BYTES:
                raise oserror(errno.ENAMETOOLONG, path)
            node = here.entries.get(name)
            if isinstance(node, Link) and (left or follow):
                links += 1
                if links > LINKS:
                    raise oserror(errno.ELOOP, path)
                if node.target.startswith(b"/"):
                    here = self._root
                name = b"."
                left += parts(node.target)
            elif not left:
                return _Found(here, name, node)
            elif node is None:
                raise oserror(errno.ENOENT, path)
            else:
                here = node
        if not isinstance(here, Directory):
            raise oserror(errno.ENOTDIR, path)
        return _Found(here, name, here)

    def _existing(self, path: bytes, *, follow: bool) -> Node:
        node = self._walk(path, follow=follow).node
        if node is None:
            raise oserror(errno.ENOENT, path)
        return node

    def _add(self, found: _Found, node: Node, size: int = 0) -> None:
        """Give a node a name; the room for it, and `size` more, is taken."""
        self._space.take(ENTRY_BYTES + size)
        now = time.time()
        node.nlink += 1
        if isinstance(node, Directory):
            node.parent = found.directory
            node.nlink += 1
            found.directory.nlink += 1
        found.directory.entries[found.name] = node
        found.directory.mtime = found.directory.ctime = now
        node.ctime = now

    def _drop(self, directory: Directory, name: bytes) -> None:
        """Take a name away, and what it was the last name of."""
        node = directory.entries.pop(name)
        now = time.time()
        directory.mtime = directory.ctime = node.ctime = now
        self._space.give(ENTRY_BYTES)
        node.nlink -= 1
        if isinstance(node, Directory):
            node.nlink -= 1
            directory.nlink -= 1
        self._release(node)

    def _release(self, node: Node) -> None:
        if node.nlink == 0 and not node.opened:
            node.clear(self._space)

    # Files.

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> MemoryFile:
        """Open a file."""
        with self._lock:
            exclusive = mode.create and mode.exclusive
            if mode.create and path.endswith(b"/"):
                self._walk(path, follow=False, bare=True)  # what is wrong before its last part comes first
                raise oserror(errno.EISDIR, path)
            found = self._walk(path, follow=not exclusive)
            node = found.node
            if node is None:
                if not mode.create:
                    raise oserror(errno.ENOENT, path)
                node = Regular(next(self._numbers), stat.S_IFREG | self._permissions(attributes, 0o666))
                self._add(found, node)
            elif exclusive:
                raise oserror(errno.EEXIST, path)
            elif isinstance(node, Directory) and (mode.create or mode.write or mode.truncate):
                raise oserror(errno.EISDIR, path)
            elif mode.truncate and isinstance(node, Regular):
                node.resize(0, self._space)
            node.opened += 1
            return MemoryFile(self, node, mode)

    def _permissions(self, attributes: Attributes, default: int) -> int:
        return (default if attributes.mode is None else attributes.mode & _PERMISSIONS) & ~self._umask

    def scan(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        """List a directory as it is now; what vanishes meanwhile is left out."""
        with self._lock:
            directory = self._existing(path, follow=True)
            if not isinstance(directory, Directory):
                raise oserror(errno.ENOTDIR, path)
            return self._entries(directory, list(directory.entries))

    def _entries(self, directory: Directory, names: list[bytes]) -> Iterator[tuple[bytes, os.stat_result]]:
        yield b".", directory.status(self._device)
        yield b"..", directory.parent.status(self._device)
        for name in names:
            node = directory.entries.get(name)
            if node is not None:
                yield name, node.status(self._device)

    def stat(self, path: bytes, *, follow: bool) -> os.stat_result:
        """What is known of a file, or of the symbolic link itself."""
        with self._lock:
            return self._existing(path, follow=follow).status(self._device)

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Change what the attributes name, of a file or of the symbolic link itself."""
        with self._lock:
            if attributes.size is not None and not follow:
                raise oserror(errno.EINVAL, path)  # a link's size is that of its text
            self._set(self._existing(path, follow=follow), attributes)

    def _set(self, node: Node, attributes: Attributes) -> None:
        if attributes.size is not None:
            if not isinstance(node, Regular):
                _fail(errno.EISDIR)
            node.resize(attributes.size, self._space)
        if attributes.mode is not None:
            if isinstance(node, Link):
                _fail(errno.EOPNOTSUPP)
            node.mode = stat.S_IFMT(node.mode) | attributes.mode & _PERMISSIONS
        if attributes.atime is not None and attributes.mtime is not None:
            node.atime, node.mtime = attributes.atime, attributes.mtime
        if attributes.uid is not None and attributes.gid is not None:
            node.uid = node.uid if attributes.uid == _UNCHANGED else attributes.uid
            node.gid = node.gid if attributes.gid == _UNCHANGED else attributes.gid
        node.ctime = time.time()

    def remove(self, path: bytes) -> None:
        """Remove a file, not a directory."""
        with self._lock:
            found = self._walk(path, follow=False, bare=True)
            if found.node is None:
                raise oserror(errno.ENOENT, path)
            if isinstance(found.node, Directory):
                raise oserror(errno.EISDIR, path)
            if path.endswith(b"/"):
                raise oserror(errno.ENOTDIR, path)
            self._drop(found.directory, found.name)

    def make_directory(self, path: bytes, attributes: Attributes) -> None:
        """Make a directory."""
        with self._lock:
            found = self._walk(path, follow=False, bare=True)
            if found.node is not None:
                raise oserror(errno.EEXIST, path)
            self._add(found, Directory(next(self._numbers), stat.S_IFDIR | self._permissions(attributes, 0o777)))

    def remove_directory(self, path: bytes) -> None:
        """Remove an empty directory."""
        with self._lock:
            found = self._walk(path, follow=False, bare=True)
            node = found.node
            if node is None:
                raise oserror(errno.ENOENT, path)
            if not isinstance(node, Directory):
                raise oserror(errno.ENOTDIR, path)
            if not found.named:
                busy = node is self._root and not path.rstrip(b"/")
                number = errno.EBUSY if busy else errno.ENOTEMPTY if found.name == b".." else errno.EINVAL
                raise oserror(number, path)
            if node.entries:
                raise oserror(errno.ENOTEMPTY, path)
            self._drop(found.directory, found.name)

    def real_path(self, path: bytes) -> bytes:
        """The absolute path without symbolic links, "." and ".."; its last part need not exist."""
        with self._lock:
            found = self._walk(path, follow=True)
            way = [found.name] if found.named else []
            directory = found.directory
            while directory is not self._root:
                above = directory.parent
                way.append(next((name for name, node in above.entries.items() if node is directory), b"(removed)"))
                directory = above
            return b"/" + b"/".join(reversed(way))

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename a file or directory; unless `replace` it fails where the new name exists."""
        with self._lock:
            source, target = self._walk(old, follow=False, bare=True), self._walk(new, follow=False, bare=True)
            self._check_rename(source, target, old, new, replace=replace)
            node = source.node
            if node is target.node or node is None:  # two names of one file: nothing is to be done (POSIX)
                return
            if target.node is not None:
                self._drop(target.directory, target.name)
            self._space.give(ENTRY_BYTES)  # where nothing is left a rename works all the same
            self._add(target, node)
            source.directory.entries.pop(source.name)
            source.directory.mtime = source.directory.ctime = time.time()
            node.nlink -= 1
            if isinstance(node, Directory):
                node.nlink -= 1
                source.directory.nlink -= 1

    def _check_rename(self, source: _Found, target: _Found, old: bytes, new: bytes, *, replace: bool) -> None:
        node = source.node
        if not source.named or not target.named:
            raise oserror(errno.EBUSY, new if source.named else old)
        if node is None:
            raise oserror(errno.ENOENT, old)
        if target.node is not None and not replace:
            raise oserror(errno.EEXIST, new)
        if isinstance(node, Directory):
            if self._is_inside(target.directory, node):
                raise oserror(errno.EINVAL, new)
        elif old.endswith(b"/") or new.endswith(b"/"):
            raise oserror(errno.ENOTDIR, old)
        if target.node is None or target.node is node:
            return
        if self._is_inside(source.directory, target.node):
            raise oserror(errno.ENOTEMPTY, new)
        if isinstance(node, Directory) and not isinstance(target.node, Directory):
            raise oserror(errno.ENOTDIR, new)
        if isinstance(target.node, Directory):
            if not isinstance(node, Directory):
                raise oserror(errno.EISDIR, new)
            if target.node.entries:
                raise oserror(errno.ENOTEMPTY, new)

    def _is_inside(self, directory: Directory, node: Node) -> bool:
        while directory is not node and directory is not self._root:
            directory = directory.parent
        return directory is node

    def read_link(self, path: bytes) -> bytes:
        """Where a symbolic link points."""
        with self._lock:
            node = self._existing(path, follow=False)
            if not isinstance(node, Link):
                raise oserror(errno.EINVAL, path)
            return node.target

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> None:
        """Make a link at `path` to `target`."""
        with self._lock:
            if not target:
                raise oserror(errno.ENOENT, target)
            absolute(target, self._start)
            node = Link(next(self._numbers), target) if symbolic else self._existing(target, follow=False)
            found = self._walk(path, follow=False)
            if found.node is not None:
                raise oserror(errno.EEXIST, path)
            if isinstance(node, Directory):
                raise oserror(errno.EPERM, target)
            self._add(found, node, node.size if symbolic else 0)

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """The room that there is, in blocks of 4 KiB."""
        with self._lock:
            self._existing(path, follow=True)
            return self._statvfs()

    def _statvfs(self) -> os.statvfs_result:
        free = self._space.free
        blocks, entries = self._space.largest // _BLOCK_BYTES, self._space.largest // ENTRY_BYTES
        free_blocks, free_entries = free // _BLOCK_BYTES, free // ENTRY_BYTES
        return os.statvfs_result((
            _BLOCK_BYTES, _BLOCK_BYTES, blocks, free_blocks, free_blocks, entries, free_entries, free_entries, 0,
            NAME_BYTES, self._device,
        ))  # fmt: skip

    def home(self, user: str) -> bytes:
        """Where sessions start, whoever it is."""
        return self._start


class MemoryFile:
    """A `File` of `MemoryFiles`."""

    def __init__(self, files: MemoryFiles, node: Node, mode: OpenMode) -> None:
        self._files = files
        self._node = node
        self._mode = mode
        self._open = True

    def _regular(self, *, permitted: bool) -> Regular:
        if not self._open or not permitted:
            _fail(errno.EBADF)
        if not isinstance(self._node, Regular):
            _fail(errno.EISDIR)
        return self._node

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from `offset` on."""
        with self._files._lock:
            return self._regular(permitted=self._mode.read or not self._mode.write).read_into(buffer, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`, or nothing."""
        with self._files._lock:
            node = self._regular(permitted=self._mode.write)
            node.write(data, node.size if self._mode.append else offset, self._files._space)

    def stat(self) -> os.stat_result:
        """What is known of it."""
        with self._files._lock:
            return self._node.status(self._files._device)

    def set(self, attributes: Attributes) -> None:
        """Change what the attributes name."""
        with self._files._lock:
            if attributes.size is not None and not self._mode.write:
                _fail(errno.EINVAL)  # as ftruncate(2) has it
            self._files._set(self._node, attributes)

    def sync(self) -> None:
        """Do nothing: memory is all there is."""

    def statvfs(self) -> os.statvfs_result:
        """The room that there is."""
        with self._files._lock:
            return self._files._statvfs()

    def close(self) -> None:
        """Let go of it."""
        with self._files._lock:
            if self._open:
                self._open = False
                self._node.opened -= 1
                self._files._release(self._node)

    def abandon(self) -> None:
        """Let go of it: what was written stays."""
        self.close()


def _fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))
