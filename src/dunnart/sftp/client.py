"""The client's side of SFTP version 3 (draft-ietf-secsh-filexfer-02) without its I/O: requests in, answers out.

    SftpClient() ── INIT ──► VERSION ──► begun ──► any number of requests, answered in any order

Each request gives a `Request`; its packet stands in `to_send`. `receive` takes bytes in any chunking and gives the
requests that they answered, with their results: what was asked for, or the OSError that the server's status means.

A server that does what SFTP does not allow raises `DecodeError` or `LimitExceeded`, which end the session: an answer
to nothing, of the wrong kind or of the wrong length, more data than was asked for, a name in a directory that is no
name (THREATS §6). How much it can make us hold is bounded by one packet and by what we asked for.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from dunnart.errors import DecodeError, LimitExceeded, LocalProtocolError
from dunnart.records import dataclass
from dunnart.sftp import messages
from dunnart.sftp.attributes import Attributes
from dunnart.sftp.messages import DATA_BYTES, EXTENSIONS, KIB, PACKET_BYTES
from dunnart.wire.encoding import Reader, string, uint32, uint64

if TYPE_CHECKING:
    from dunnart.sftp.files import OpenMode

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

_HEADER = struct.Struct(">IBI")
_LENGTH = 4
_HANDLE_BYTES = 256
_NAME_BYTES = 4096
_NUMBERS = 1 << 32
_DATA_WITHOUT_LIMITS = 32 * KIB  # what every server must take (draft §3)
_KNOWN = dict(EXTENSIONS)
_NOTHING = Attributes()


@dataclass(frozen=True, slots=True)
class Name:
    """What a directory's listing says of a file.

    Attributes:
        name: one part of a path.
        long_name: a line as `ls -l` would have it, in the server's words.
        attributes: of the file, or of the symbolic link itself.
    """

    name: bytes
    long_name: bytes
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class FileSystemStatus:
    """What is known of a file system (OpenSSH PROTOCOL §4.4); sizes of blocks in bytes."""

    block_bytes: int
    fragment_bytes: int
    blocks: int
    free_blocks: int
    available_blocks: int
    files: int
    free_files: int
    available_files: int
    identity: int
    flags: int
    name_bytes: int


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What the server takes (OpenSSH PROTOCOL §4.8); 0 for handles: it does not say."""

    packet_bytes: int = PACKET_BYTES
    read_bytes: int = _DATA_WITHOUT_LIMITS
    write_bytes: int = _DATA_WITHOUT_LIMITS
    handles: int = 0


class Request(Generic[R_co]):
    """A request that waits for its answer; its type says what the result is.

    Attributes:
        number: what the answer is matched by.
        path: what it is about, for errors.
    """

    __slots__ = ("at_end", "decode", "kind", "number", "path")

    def __init__(
        self, number: int, kind: int, decode: Callable[[Reader], R_co] | None, path: bytes, at_end: R_co | None
    ) -> None:
        self.number = number
        self.path = path
        self.kind = kind
        self.decode = decode
        self.at_end = at_end


class SftpClient:
    """One SFTP session.

    Attributes:
        to_send: packets for the server, in order; whoever sends them clears the list.
        begun: whether the server has said its version. No request may be made before.
        extensions: those that both sides know, at first none.
    """

    def __init__(self) -> None:
        self.to_send: list[bytes] = [uint32(5) + bytes((messages.INIT,)) + uint32(messages.VERSION)]
        self.begun = False
        self.extensions: frozenset[bytes] = frozenset()
        self._rest = bytearray()
        self._waiting: dict[int, Request[object]] = {}
        self._next = 0
        self._failed = False

    @property
    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return len(self._waiting)

    # Answers.

    def receive(self, data: bytes | memoryview) -> list[tuple[Request[object], object]]:
        """Take bytes; give the requests that they answered, each with its result or an OSError.

        Raises:
            DecodeError: they are no answers to what was asked. The session is over.
            LimitExceeded: a packet is too large. Likewise.
        """
        if self._failed:
            raise DecodeError("the server sent what is no SFTP before")
        self._rest += data
        answered: list[tuple[Request[object], object]] = []
        view = memoryview(self._rest)
        position, end = 0, len(view)
        try:
            while end - position >= _LENGTH:
                size = int.from_bytes(view[position : position + _LENGTH], "big")
                if not 1 <= size <= PACKET_BYTES:
                    raise LimitExceeded(f"the server sent an SFTP packet of {size} bytes")  # noqa: TRY301 - see below
                position += _LENGTH
                if end - position < size:
                    position -= _LENGTH
                    break
                answer = self._packet(view[position : position + size])
                position += size
                if answer is not None:
                    answered.append(answer)
        except (DecodeError, LimitExceeded):
            self._failed = True
            raise
        view.release()
        del self._rest[:position]
        return answered

    def _packet(self, packet: memoryview) -> tuple[Request[object], object] | None:
        kind, reader = packet[0], Reader(packet, 1)
        if not self.begun:
            if kind != messages.VERSION_ANSWER:
                raise DecodeError(f"the server begins SFTP with message {kind}")
            self._begin(reader)
            return None
        number = reader.uint32()
        request = self._waiting.pop(number, None)
        if request is None:
            raise DecodeError(f"the server answered request {number}, which does not wait")
        if kind == messages.STATUS:
            return request, _status(request, reader)
        if kind != request.kind or request.decode is None:
            raise DecodeError(f"the server answered with message {kind} where {request.kind} was due")
        result = request.decode(reader)
        reader.end()
        return request, result

    def _begin(self, reader: Reader) -> None:
        version = reader.uint32()
        if version != messages.VERSION:
            raise DecodeError(f"the server speaks version {version} of SFTP; {messages.VERSION} is wanted")
        found = set()
        while reader.remaining:
            name, value = reader.string(), reader.string()
            if _KNOWN.get(name) == value:
                found.add(name)
        self.extensions = frozenset(found)
        self.begun = True

    # Requests.

    def _ask(
        self, kind: int, body: bytes, expected: int = messages.STATUS, decode: Callable[[Reader], T] | None = None,
        path: bytes = b"", at_end: T | None = None, data: bytes | memoryview = b"",
    ) -> Request[T]:  # fmt: skip
        if not self.begun:
            raise LocalProtocolError("the server has not said its version yet")
        size = 5 + len(body) + len(data)
        if size > PACKET_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), _shown(path[:_NAME_BYTES]))
        while self._next in self._waiting:
            self._next = (self._next + 1) % _NUMBERS
        number = self._next
        self._next = (number + 1) % _NUMBERS
        request = Request(number, expected, decode, path, at_end)
        self._waiting[number] = request
        self.to_send.append(b"".join((_HEADER.pack(size, kind, number), body, data)))
        return request

    def _extended(
        self, name: bytes, body: bytes, expected: int = messages.STATUS, decode: Callable[[Reader], T] | None = None,
        path: bytes = b"",
    ) -> Request[T]:  # fmt: skip
        if name not in self.extensions:
            text = f"The server has no {name.decode()}"
            raise OSError(errno.EOPNOTSUPP, text, _shown(path))
        return self._ask(messages.EXTENDED, string(name) + body, expected, decode, path)

    # Open files.

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes = _NOTHING) -> Request[bytes]:
        """Open a file: gives its handle."""
        body = string(path) + uint32(mode.pflags) + attributes.encode()
        return self._ask(messages.OPEN, body, messages.HANDLE, _handle, path)

    def close(self, handle: bytes, path: bytes = b"") -> Request[None]:
        """Close a file or directory."""
        return self._ask(messages.CLOSE, string(handle), path=path)

    def read(self, handle: bytes, offset: int, count: int, path: bytes = b"") -> Request[bytes]:
        """Read at most `count` bytes, 1 to 255 KiB: gives some of them, or b"" at the end of the file."""
        if not 1 <= count <= DATA_BYTES:
            raise LocalProtocolError(f"{count} bytes cannot be read at once, but 1 to {DATA_BYTES}")

        def decode(reader: Reader) -> bytes:
            data = reader.view()
            if not 1 <= len(data) <= count:
                raise DecodeError(f"the server sent {len(data)} bytes where {count} were asked for")
            return bytes(data)

        body = string(handle) + uint64(offset) + uint32(count)
        return self._ask(messages.READ, body, messages.DATA, decode, path, b"")

    def write(self, handle: bytes, offset: int, data: bytes | memoryview, path: bytes = b"") -> Request[None]:
        """Write at most 255 KiB."""
        if len(data) > DATA_BYTES:
            raise LocalProtocolError(f"{len(data)} bytes cannot be written at once, but {DATA_BYTES}")
        head = string(handle) + uint64(offset) + uint32(len(data))
        return self._ask(messages.WRITE, head, path=path, data=data)

    def stat_handle(self, handle: bytes, path: bytes = b"") -> Request[Attributes]:
        """What is known of an open file."""
        return self._ask(messages.FSTAT, string(handle), messages.ATTRS, Attributes.decode, path)

    def set_handle(self, handle: bytes, attributes: Attributes, path: bytes = b"") -> Request[None]:
        """Change what the attributes name, of an open file."""
        return self._ask(messages.FSETSTAT, string(handle) + attributes.encode(), path=path)

    def sync(self, handle: bytes, path: bytes = b"") -> Request[None]:
        """See that an open file is on the disk (fsync@openssh.com)."""
        return self._extended(messages.FSYNC, string(handle), path=path)

    def copy(
        self, source: bytes, offset: int, count: int, target: bytes, target_offset: int, path: bytes = b""
    ) -> Request[None]:
        """Copy from one open file to another on the server (copy-data); a `count` of 0 is up to the end."""
        body = string(source) + uint64(offset) + uint64(count) + string(target) + uint64(target_offset)
        return self._extended(messages.COPY_DATA, body, path=path)

    # Directories.

    def open_directory(self, path: bytes) -> Request[bytes]:
        """Open a directory: gives its handle."""
        return self._ask(messages.OPENDIR, string(path), messages.HANDLE, _handle, path)

    def read_directory(self, handle: bytes, path: bytes = b"") -> Request[tuple[Name, ...]]:
        """Give some more of an open directory's names, "." and ".." mostly included; none at its end."""
        return self._ask(messages.READDIR, string(handle), messages.NAME, _names, path, ())

    # Paths.

    def stat(self, path: bytes, *, follow: bool = True) -> Request[Attributes]:
        """What is known of a file, or of the symbolic link itself."""
        kind = messages.STAT if follow else messages.LSTAT
        return self._ask(kind, string(path), messages.ATTRS, Attributes.decode, path)

    def set(self, path: bytes, attributes: Attributes, *, follow: bool = True) -> Request[None]:
        """Change what the attributes name; of the symbolic link itself by lsetstat@openssh.com."""
        body = string(path) + attributes.encode()
        if follow:
            return self._ask(messages.SETSTAT, body, path=path)
        return self._extended(messages.LSETSTAT, body, path=path)

    def remove(self, path: bytes) -> Request[None]:
        """Remove a file."""
        return self._ask(messages.REMOVE, string(path), path=path)

    def make_directory(self, path: bytes, attributes: Attributes = _NOTHING) -> Request[None]:
        """Make a directory."""
        return self._ask(messages.MKDIR, string(path) + attributes.encode(), path=path)

    def remove_directory(self, path: bytes) -> Request[None]:
        """Remove an empty directory."""
        return self._ask(messages.RMDIR, string(path), path=path)

    def rename(self, old: bytes, new: bytes, *, replace: bool = False) -> Request[None]:
        """Rename; with `replace`, by posix-rename@openssh.com, over what has the new name."""
        body = string(old) + string(new)
        if replace:
            return self._extended(messages.POSIX_RENAME, body, path=old)
        return self._ask(messages.RENAME, body, path=old)

    def read_link(self, path: bytes) -> Request[bytes]:
        """Where a symbolic link points."""
        return self._ask(messages.READLINK, string(path), messages.NAME, _one_name, path)

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> Request[None]:
        """Make a link at `path` to `target`; a hard one by hardlink@openssh.com."""
        body = string(target) + string(path)
        if symbolic:  # the target first, as OpenSSH has it, whatever the draft says (OpenSSH PROTOCOL §4.1)
            return self._ask(messages.SYMLINK, body, path=path)
        return self._extended(messages.HARDLINK, body, path=path)

    def real_path(self, path: bytes) -> Request[bytes]:
        """The absolute path."""
        return self._ask(messages.REALPATH, string(path), messages.NAME, _one_name, path)

    def expand_path(self, path: bytes) -> Request[bytes]:
        """The absolute path of one that may begin with `~` or `~user` (expand-path@openssh.com)."""
        return self._extended(messages.EXPAND_PATH, string(path), messages.NAME, _one_name, path)

    def statvfs(self, path: bytes) -> Request[FileSystemStatus]:
        """What is known of a file's file system (statvfs@openssh.com)."""
        return self._extended(messages.STATVFS, string(path), messages.EXTENDED_ANSWER, _file_system, path)

    def limits(self) -> Request[ServerLimits]:
        """What the server takes (limits@openssh.com)."""
        return self._extended(messages.LIMITS, b"", messages.EXTENDED_ANSWER, _limits)

    def names_of_numbers(
        self, users: tuple[int, ...], groups: tuple[int, ...]
    ) -> Request[tuple[tuple[str, ...], tuple[str, ...]]]:
        """The names of users and groups, "" for each that has none (users-groups-by-id@openssh.com)."""

        def decode(reader: Reader) -> tuple[tuple[str, ...], tuple[str, ...]]:
            return _some_names(reader, len(users)), _some_names(reader, len(groups))

        body = string(b"".join(map(uint32, users))) + string(b"".join(map(uint32, groups)))
        return self._extended(messages.USERS_GROUPS_BY_ID, body, messages.EXTENDED_ANSWER, decode)


# What answers hold.


def _status(request: Request[object], reader: Reader) -> object:
    status = reader.uint32()
    # Text and language are missing in what very old servers send.
    text = reader.string().decode(errors="replace") if reader.remaining else ""
    if status == messages.OK:
        if request.decode is not None:
            raise DecodeError(f"the server answered with a status where message {request.kind} was due")
        return None
    if status == messages.EOF and request.at_end is not None:
        return request.at_end
    number = messages.ERROR_OF_TEXT.get(text) if status == messages.FAILURE else None
    number = number or messages.ERROR_OF_STATUS.get(status, errno.EIO)
    return OSError(number, text or os.strerror(number), _shown(request.path))


def _shown(path: bytes) -> str | None:
    """Give a path as people know it, for an error; one that is no UTF-8 keeps its bytes (PEP 383)."""
    return path.decode("utf-8", "surrogateescape") or None


def _handle(reader: Reader) -> bytes:
    handle = reader.string()
    if len(handle) > _HANDLE_BYTES:
        raise DecodeError(f"the server sent a handle of {len(handle)} bytes")
    return handle


def _names(reader: Reader) -> tuple[Name, ...]:
    found = []
    # The first short read ends a count that lies (THREATS R8).
    for _ in range(reader.uint32()):
        name, long_name, attributes = reader.string(), reader.string(), Attributes.decode(reader)
        if not name or len(name) > _NAME_BYTES or b"/" in name or b"\0" in name:
            _refuse_name(name)
        found.append(Name(name, long_name, attributes))
    return tuple(found)


def _refuse_name(name: bytes) -> NoReturn:
    raise DecodeError(f"the server lists {name[:200]!r} in a directory, which is no name")


def _one_name(reader: Reader) -> bytes:
    count = reader.uint32()
    if count != 1:
        raise DecodeError(f"the server sent {count} names where one was due")
    name = reader.string()
    reader.string()
    Attributes.decode(reader)
    if b"\0" in name:
        _refuse_name(name)
    return name


def _file_system(reader: Reader) -> FileSystemStatus:
    return FileSystemStatus(*(reader.uint64() for _ in range(11)))


def _limits(reader: Reader) -> ServerLimits:
    packet, read, write, handles = (reader.uint64() for _ in range(4))
    # Which no server means literally: "no limit" is 0, and so little could not be worked with.
    packet = min(packet or PACKET_BYTES, PACKET_BYTES)
    least = 512
    return ServerLimits(
        max(packet, least),
        max(min(read or packet - KIB, DATA_BYTES), least),
        max(min(write or packet - KIB, DATA_BYTES), least),
        handles,
    )


def _some_names(reader: Reader, count: int) -> tuple[str, ...]:
    listed = Reader(reader.string())
    names = tuple(listed.string().decode(errors="replace") for _ in range(count))
    listed.end()
    return names
