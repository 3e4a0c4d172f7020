"""What files in memory are made of: nodes, which have names in directories, and the room that they take."""

from __future__ import annotations

import errno
import os
import stat
import time

ENTRY_BYTES = 512
"""What a name and the node behind it are counted at."""
_PAGE_BYTES = 32 * 1024
_LARGEST_FILE_BYTES = (1 << 63) - 1


class Space:
    """The room that all files share.

    Args:
        largest: how many bytes there are.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.free = largest

    def take(self, size: int) -> None:
        """Use some; all or nothing.

        Raises:
            OSError: there is not so much left.
        """
        if size > self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.free -= size

    def give(self, size: int) -> None:
        """Give some back."""
        self.free += size


class Node:
    """A file of any kind.

    Args:
        number: of the node.
        mode: type and permissions.
    """

    __slots__ = ("atime", "ctime", "gid", "mode", "mtime", "nlink", "number", "opened", "uid")

    def __init__(self, number: int, mode: int) -> None:
        self.number = number
        self.mode = mode
        self.uid = os.getuid() if hasattr(os, "getuid") else 0
        self.gid = os.getgid() if hasattr(os, "getgid") else 0
        self.atime = self.mtime = self.ctime = time.time()
        self.nlink = 0
        self.opened = 0

    @property
    def size(self) -> int:
        """In bytes."""
        return 0

    def status(self, device: int) -> os.stat_result:
        """What `os.stat` would say."""
        times = (self.atime, self.mtime, self.ctime)
        return os.stat_result((
            self.mode, self.number, device, self.nlink, self.uid, self.gid, self.size, *map(int, times), *times
        ))  # fmt: skip

    def clear(self, space: Space) -> None:
        """Give the room back that the content took."""


class Directory(Node):
    """A directory; the root is its own parent."""

    __slots__ = ("entries", "parent")

    def __init__(self, number: int, mode: int) -> None:
        super().__init__(number, mode)
        self.entries: dict[bytes, Node] = {}
        self.parent = self

    @property
    def size(self) -> int:
        """What its entries are counted at."""
        return ENTRY_BYTES * len(self.entries)


class Link(Node):
    """A symbolic link."""

    __slots__ = ("target",)

    def __init__(self, number: int, target: bytes) -> None:
        super().__init__(number, stat.S_IFLNK | 0o777)
        self.target = target

    @property
    def size(self) -> int:
        """Of its text."""
        return len(self.target)

    def clear(self, space: Space) -> None:
        """Give the text's room back."""
        space.give(len(self.target))


class Regular(Node):
    """A file with content: pages as far as they were written, so that holes take nothing."""

    __slots__ = ("_pages", "_size")

    def __init__(self, number: int, mode: int) -> None:
        super().__init__(number, mode)
        self._pages: dict[int, bytearray] = {}
        self._size = 0

    @property
    def size(self) -> int:
        """In bytes, holes included."""
        return self._size

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer; gives how much there was."""
        if offset > _LARGEST_FILE_BYTES:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        count = max(0, min(len(buffer), self._size - offset))
        at = 0
        while at < count:
            number, begin = divmod(offset + at, _PAGE_BYTES)
            size = min(count - at, _PAGE_BYTES - begin)
            found = memoryview(self._pages.get(number, b""))[begin : begin + size]
            buffer[at : at + len(found)] = found
            if len(found) < size:
                buffer[at + len(found) : at + size] = bytes(size - len(found))
            at += size
        return count

    def write(self, data: memoryview, offset: int, space: Space) -> None:
        """Take a copy of all of `data`, or nothing."""
        end = offset + len(data)
        if not data:
            return
        if end > _LARGEST_FILE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        pieces = []
        at = growth = 0
        while at < len(data):
            number, begin = divmod(offset + at, _PAGE_BYTES)
            size = min(len(data) - at, _PAGE_BYTES - begin)
            growth += max(0, begin + size - len(self._pages.get(number, b"")))
            pieces.append((number, begin, at, size))
            at += size
        space.take(growth)
        for number, begin, at, size in pieces:
            page = self._pages.setdefault(number, bytearray())
            if len(page) < begin:
                page.extend(bytes(begin - len(page)))
            page[begin : begin + size] = data[at : at + size]
        self._size = max(self._size, end)
        self.mtime = self.ctime = time.time()

    def resize(self, size: int, space: Space) -> None:
        """Cut it, or let it end with a hole."""
        if size > _LARGEST_FILE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if size < self._size:
            last, begin = divmod(size, _PAGE_BYTES)
            for number in [number for number in self._pages if number > last or (number == last and not begin)]:
                space.give(len(self._pages.pop(number)))
            page = self._pages.get(last, bytearray())
            if len(page) > begin:
                space.give(len(page) - begin)
                del page[begin:]
        self._size = size
        self.mtime = self.ctime = time.time()

    def clear(self, space: Space) -> None:
        """Give the room back that the pages took."""
        space.give(sum(map(len, self._pages.values())))
        self._pages.clear()
