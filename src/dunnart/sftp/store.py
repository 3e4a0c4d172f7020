"""A store that fsspec reaches, in this system's terms: what goes wrong is an OSError, what is known a `stat_result`.

Stores raise what they like: OSErrors without a number, errors of the network, of libraries that are not known here.
`Store` is the one boundary where all of it is converted. What a client sees is the number's text and, if that says
nothing, the error's class: addresses and names of the store stay here.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsspec import AbstractFileSystem

Info = dict[str, Any]
"""What fsspec says of a file: `name`, `type`, `size`, and what else the store has."""
DIRECTORY: Info = {"type": "directory", "size": 0}

MIB = 1 << 20
_READ_AHEAD_BYTES = 4 * MIB
_ONE_PIECE_BYTES = 4 * MIB
_PART_BYTES = 8 * MIB
_PARTS = 9000
"""S3 takes 10,000 parts of a file."""
_PARTS_AT_ONCE = 4
_FILE_MODE, _DIRECTORY_MODE = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
_TIMES = ("mtime", "LastModified", "last_modified", "modified", "updated", "created", "date_time")
"""Where stores say when a file was last changed, the best first."""

_CLASSES = (
    (FileNotFoundError, errno.ENOENT), (PermissionError, errno.EACCES), (FileExistsError, errno.EEXIST),
    (IsADirectoryError, errno.EISDIR), (NotADirectoryError, errno.ENOTDIR), (TimeoutError, errno.ETIMEDOUT),
    (NotImplementedError, errno.EOPNOTSUPP), (UnicodeError, errno.EILSEQ),
)  # fmt: skip
_ANSWERS = {
    401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 405: errno.EOPNOTSUPP, 410: errno.ENOENT,
    501: errno.EOPNOTSUPP, 507: errno.ENOSPC,
}  # fmt: skip
_CONNECTION = frozenset(
    (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EBADF)
)
"""Of the connection to the store; a client of ours would take them for its own."""


def oserror(number: int, text: str = "") -> OSError:
    """An error for the client: the number, and its own text unless there is a better one."""
    return OSError(number, text or os.strerror(number))


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Around calls of a store: whatever it raises becomes an OSError that a client may see."""
    try:
        yield
    except Exception as error:
        number = _number(error)
        raise oserror(number, f"the store failed: {_named(error)}" if number == errno.EIO else "") from error


def _number(error: Exception) -> int:
    if isinstance(error, io.UnsupportedOperation):  # an OSError too, without a number
        return errno.EOPNOTSUPP
    if isinstance(error, OSError) and isinstance(error.errno, int):
        return errno.EIO if error.errno in _CONNECTION else error.errno
    for kind, number in _CLASSES:
        if isinstance(error, kind):
            return number
    if type(error).__name__ == "NoCredentialsError":  # botocore's
        return errno.EACCES
    return _ANSWERS.get(_http_status(error), errno.EIO)


def _http_status(error: Exception) -> int:
    """The HTTP status that an error tells of, as botocore, aiohttp, gcsfs and azure keep it; 0: none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) else 0
    found = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((status for status in found if isinstance(status, int)), 0)


def _named(error: Exception) -> str:
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    return f"{type(error).__name__} ({code})" if code else type(error).__name__


class Store:
    """An fsspec file system; only calls that take paths as they are, without patterns.

    Args:
        filesystem: fsspec's object.

    Attributes:
        root_marker: what paths begin with; "/" or nothing.
        read_only: it is an archive.
        renames: it can rename, so it is like a disk: a file under construction can be seen. Others are like object
            stores: a file is there when all of it is there.
        marks: it has no directories, but takes "name/" as the sign of one, as S3's own tools make it.
    """

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        from fsspec import AbstractFileSystem
        from fsspec.archive import AbstractArchiveFileSystem

        self._fs = filesystem
        protocol = filesystem.protocol
        self.root_marker: str = filesystem.root_marker
        self.read_only = isinstance(filesystem, AbstractArchiveFileSystem)
        self.renames = type(filesystem).mv is not AbstractFileSystem.mv
        self.marks = "s3" in ((protocol,) if isinstance(protocol, str) else protocol)

    def info(self, place: str) -> Info:
        """What is known of a file or directory."""
        with store_errors():
            self._fs.invalidate_cache(place)  # others change the store, too
            info: Info = self._fs.info(place)
            return info

    def list(self, place: str) -> list[Info]:
        """What is in a directory."""
        with store_errors():
            self._fs.invalidate_cache(place)
            found: list[Info] = self._fs.ls(place, detail=True)
            return found

    def open(self, place: str) -> Any:  # noqa: ANN401 - fsspec has no types
        """Open a file to read; it is fetched in blocks, ahead of what is read."""
        with store_errors():
            return self._fs.open(place, "rb", block_size=_READ_AHEAD_BYTES, cache_type="readahead")

    def put(self, place: str, descriptor: int, size: int, *, create: bool) -> None:
        """Put a local file's content at a place, where it appears as a whole; `create`: only where there is none."""
        with store_errors():
            if not self.renames:
                self._put(place, descriptor, size, create=create)
                return
            beside = f"{place.rpartition('/')[0]}/.{os.urandom(8).hex()}.part"
            try:
                self._put(beside, descriptor, size, create=False)
                if create and self._fs.exists(place):
                    raise FileExistsError  # noqa: TRY301 - what lies beside is removed below
                self._fs.mv(beside, place)
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is the one to tell
                    self._fs.rm_file(beside)
                raise

    def _put(self, place: str, descriptor: int, size: int, *, create: bool) -> None:
        options: dict[str, Any] = {"mode": "create"} if create else {}
        if size <= _ONE_PIECE_BYTES:
            self._fs.pipe_file(place, os.pread(descriptor, size, 0), **options)
            return
        import inspect

        # Each store has a method of its own for large files, and takes a path. Some hold much in memory unless told.
        accepted = inspect.signature(self._fs.put_file).parameters
        if "chunksize" in accepted:
            options["chunksize"] = max(_PART_BYTES, -(-size // _PARTS // MIB) * MIB)
        if "max_concurrency" in accepted:
            options["max_concurrency"] = _PARTS_AT_ONCE
        os.lseek(descriptor, 0, os.SEEK_SET)  # where /dev/fd is a duplicate, the position is ours
        self._fs.put_file(f"/dev/fd/{descriptor}", place, **options)

    def remove(self, place: str) -> None:
        """Remove a file."""
        with store_errors():
            self._fs.rm_file(place)

    def make_directory(self, place: str) -> None:
        """Make a directory; stores that have none do nothing."""
        with store_errors():
            self._fs.mkdir(place, create_parents=False)

    def mark(self, place: str) -> None:
        """Leave the sign of a directory."""
        with store_errors():
            self._fs.pipe_file(f"{place}/", b"")

    def remove_directory(self, place: str) -> None:
        """Remove an empty directory."""
        with store_errors():
            if self.marks and "/" in place:
                self._fs.rm_file(f"{place}/")
            else:
                self._fs.rmdir(place)

    def move(self, old: str, new: str) -> None:
        """Rename a file or directory, if the store `renames`."""
        with store_errors():
            self._fs.mv(old, new)

    def copy(self, old: str, new: str) -> None:
        """Copy a file within the store."""
        with store_errors():
            self._fs.cp_file(old, new)


def is_directory(info: Info) -> bool:
    """Whether it is a directory."""
    return info.get("type") == "directory"


def status_of(info: Info) -> os.stat_result:
    """The same as the system would say it; what the store does not know is made up: 0644 and 0755, this user, 1970."""
    mode = info.get("mode")
    if not isinstance(mode, int) or not stat.S_IFMT(mode):
        mode = _DIRECTORY_MODE if is_directory(info) else _FILE_MODE
    changed = next((found for key in _TIMES if (found := _seconds(info.get(key))) is not None), 0)
    uid, gid, links = info.get("uid"), info.get("gid"), info.get("nlink")
    return os.stat_result((
        mode, 0, 0, links if isinstance(links, int) else 1, uid if isinstance(uid, int) else os.getuid(),
        gid if isinstance(gid, int) else os.getgid(), int(info.get("size") or 0), changed, changed, changed,
    ))  # fmt: skip


def _seconds(value: object) -> int | None:
    """A time as one of the stores has it, in seconds since 1970."""
    if isinstance(value, int | float):
        return int(value)
    if value is None or value == "":
        return None
    from datetime import UTC, datetime

    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, tuple):  # a zip archive's, in local time
            return int(datetime(*value).timestamp())  # noqa: DTZ001 - see above
        if isinstance(value, datetime):
            return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    except (TypeError, ValueError, OverflowError):
        pass
    return None
