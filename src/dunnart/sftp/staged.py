"""Files of a store that are open: to read as they are, to write in a local spool, from where they are put when closed.

What is in a `StagedFile` while it is open:

    0            covered                 size
    │ in the spool │ still in the store    │      `covered` grows with what is written one after the other
    │ in the spool                         │      once something else is asked for, the rest is fetched
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import time
from typing import TYPE_CHECKING, NoReturn

from dunnart.sftp.store import MIB, Info, oserror, status_of, store_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dunnart.sftp.attributes import Attributes
    from dunnart.sftp.store import Store


def refuse_statvfs() -> NoReturn:
    """No store says how much room it has.

    Raises:
        OSError: always.
    """
    raise oserror(errno.EOPNOTSUPP)


class StoredFile:
    """A file of a store that is open to read: as it was when it was opened.

    Args:
        store: where it is.
        place: where there.
        info: what the store says of it.
    """

    def __init__(self, store: Store, place: str, info: Info) -> None:
        self._status = status_of(info)
        self._size = info.get("size")
        self._read_only = store.read_only
        self._file = store.open(place)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from `offset` on."""
        if isinstance(self._size, int) and offset >= self._size:
            return 0
        with store_errors():
            if isinstance(self._file, io.BytesIO):  # one object for all who read it, so its position is nobody's
                some = self._file.getbuffer()[offset : offset + len(buffer)]
                buffer[: len(some)] = some
                return len(some)
            if self._file.tell() != offset:
                self._file.seek(offset)
            got = 0
            while got < len(buffer):
                data = self._file.read(len(buffer) - got)
                if not data:
                    break
                buffer[got : got + len(data)] = data
                got += len(data)
            return got

    def write(self, data: memoryview, offset: int) -> None:
        """Refuse: it is open to read."""
        raise oserror(errno.EBADF)

    def stat(self) -> os.stat_result:
        """What is known of it."""
        return self._status

    def set(self, attributes: Attributes) -> None:
        """Change nothing: what a store keeps is content."""
        if self._read_only:
            raise oserror(errno.EROFS)
        if attributes.size is not None:
            raise oserror(errno.EINVAL, "the file is open to read")

    def sync(self) -> None:
        """Do nothing: it is in the store."""

    def statvfs(self) -> os.statvfs_result:
        """Refuse: nobody knows."""
        refuse_statvfs()

    def close(self) -> None:
        """Let go of it."""
        with store_errors():
            self._file.close()

    def abandon(self) -> None:
        """Let go of it."""
        with contextlib.suppress(OSError):
            self.close()


class StagedFile:
    """A file of a store that is open to write.

    Args:
        store: where it will be put.
        place: where there.
        size: of what the store has there and the client did not truncate, in bytes.
        changed: what is staged differs from what the store has already, because it is new or truncated.
        readable: the client may read it.
        writable: the client may write to it.
        append: all that is written goes to the end.
        create: it must be new when it is put, too.
        spool_bytes: how large it may become.
        ended: is told when it was closed or abandoned.
    """

    def __init__(
        self, store: Store, place: str, *, size: int, changed: bool, readable: bool, writable: bool, append: bool,
        create: bool, spool_bytes: int, ended: Callable[[StagedFile], None],
    ) -> None:  # fmt: skip
        import tempfile

        self.place = place
        self._store = store
        self._size = size
        self._covered = 0
        self._changed = changed
        self._readable = readable
        self._writable = writable
        self._append = append
        self._create = create
        self._spool_bytes = spool_bytes
        self._ended = ended
        self._unlinked = False
        self._failure: OSError | None = None
        self._time = time.time()
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - close and abandon end it
        self._fd = self._spool.fileno()

    # What is staged.

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from `offset` on."""
        if not self._readable:
            raise oserror(errno.EBADF)
        if offset >= self._size:
            return 0
        self._fetch()
        return os.preadv(self._fd, [buffer], offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        if not self._writable:
            raise oserror(errno.EBADF)
        with self._remembered():
            if self._append:
                offset = self._size
            if offset > self._covered:
                self._fetch()
            self._check_room(offset + len(data))
            self._changed = True
            self._time = time.time()
            self._write(data, offset)
            if data:
                self._covered = max(self._covered, offset + len(data))
                self._size = max(self._size, self._covered)

    def _write(self, data: memoryview, offset: int) -> None:
        while data:
            count = os.pwrite(self._fd, data, offset)
            data, offset = data[count:], offset + count

    def _resize(self, size: int) -> None:
        with self._remembered():
            self._check_room(size)
            if size > self._size:
                self._fetch()
            if size > self._size or size < self._covered:
                os.ftruncate(self._fd, size)
                self._covered = size
            self._changed = self._changed or size != self._size
            self._size = size

    def _fetch(self) -> None:
        """Fetch what is in the store only."""
        if self._covered >= self._size:
            return
        file = StoredFile(self._store, self.place, {"size": self._size})
        try:
            buffer = memoryview(bytearray(min(MIB, self._size - self._covered)))
            while self._covered < self._size:
                got = file.read_into(buffer[: min(len(buffer), self._size - self._covered)], self._covered)
                if not got:
                    raise oserror(errno.EIO, "the file has become shorter in the store")
                self._write(buffer[:got], self._covered)
                self._covered += got
        finally:
            file.abandon()

    def _check_room(self, size: int) -> None:
        if size > self._spool_bytes:
            raise oserror(errno.EFBIG, f"a file may have at most {self._spool_bytes} bytes here")

    @contextlib.contextmanager
    def _remembered(self) -> Iterator[None]:
        """Around changes: what failed is not put, whatever the client makes of the error."""
        try:
            yield
        except OSError as error:
            self._failure = self._failure or error
            raise

    # The file.

    def stat(self) -> os.stat_result:
        """What is known of it."""
        return status_of({"type": "file", "size": self._size, "mtime": self._time})

    def set(self, attributes: Attributes) -> None:
        """Change the size; a store keeps neither modes nor owners nor times that a client chooses."""
        if attributes.size is not None:
            if not self._writable:
                raise oserror(errno.EINVAL, "the file is open to read")
            self._resize(attributes.size)

    def sync(self) -> None:
        """Put it as it is: the client asks that what it wrote be kept."""
        if self._failure is not None:
            raise oserror(self._failure.errno or errno.EIO, self._failure.strerror or "")
        if self._changed and not self._unlinked:
            self._fetch()
            self._store.put(self.place, self._fd, self._size, create=self._create)
            self._changed = self._create = False

    def statvfs(self) -> os.statvfs_result:
        """Refuse: nobody knows."""
        refuse_statvfs()

    def unlink(self) -> None:
        """Its name was removed: it will not be put."""
        self._unlinked = True

    def close(self) -> None:
        """Put it into the store, if it was changed."""
        try:
            self.sync()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Discard what was staged."""
        self._spool.close()
        self._ended(self)
