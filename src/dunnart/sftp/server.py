"""The server's side of SFTP version 3 (draft-ietf-secsh-filexfer-02), without its I/O: bytes in, answers out.

    length │ type │ id │ …        one packet, one answer, in the order of the requests

Bytes are read into `room` in any chunking; `received` does what complete requests ask of the file system, and lays out
the answers. It stops when 256 KiB of `answers` wait (THREATS R22), and `go_on` goes on when they were `taken`. What a
client does wrong that leaves no doubt about where packets begin is answered with a status; the rest raises
`DecodeError`, which ends the session.

Two buffers last as long as the session: files are written from the one and read into the other. Memory that is new for
each packet would cost more time, in page faults, than all the rest.
"""

from __future__ import annotations  # noqa: I001 - a table of numbers below, not a column

import contextlib
import errno
import os
import struct
import time
from typing import TYPE_CHECKING, ClassVar, NoReturn

from dunnart.errors import DecodeError, LimitExceeded
from dunnart.sftp.attributes import Attributes, encode_status, group_name, long_name, user_name
from dunnart.sftp.files import OpenMode
from dunnart.sftp.messages import (
    ATTRS, BAD_MESSAGE, CLOSE, COPY_DATA, DATA, DATA_BYTES, EOF, EXPAND_PATH, EXTENDED, EXTENDED_ANSWER, EXTENSIONS,
    FAILURE, FSETSTAT, FSTAT, FSTATVFS, FSYNC, HANDLE, HARDLINK, HOME_DIRECTORY, INIT, KIB, LIMITS, LSETSTAT, LSTAT,
    MKDIR, NAME, OK, OPEN, OPENDIR, OP_UNSUPPORTED, PACKET_BYTES, POSIX_RENAME, READ, READDIR, READLINK, REALPATH,
    REMOVE, RENAME, REQUESTS, RMDIR, SETSTAT, STAT, STATUS, STATUS_OF_ERROR, STATVFS, SYMLINK, USERS_GROUPS_BY_ID,
    VERSION, VERSION_ANSWER, WRITE,
)  # fmt: skip
from dunnart.wire.encoding import Reader, string, uint32, uint64

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from dunnart.sftp.files import File, FileSystem

HANDLES = 1000
"""How many files and directories a session may have open."""
ANSWER_BYTES = 256 * KIB
_LISTING_BYTES = 32 * KIB
_COPY_BYTES = 256 * KIB
_COPIES_PER_LOOK = 64
_TEXT_CHARACTERS = 1024
_LOOKUPS = 4096
"""How many users and groups one request may ask for: each may cost a question to a directory service, and all names
fit into one answer (LOGIN_NAME_MAX is at most 256 bytes, names are rarely longer than 32)."""
_LENGTH = 4
_INPUT_BYTES = 1024 * KIB

_TEXTS = {OK: b"Success", EOF: b"End of file", OP_UNSUPPORTED: b"Operation unsupported"}

_SIZE = struct.Struct(">I")
_HEADER = struct.Struct(">IB")
_STATUS = struct.Struct(">III")
_NO_LANGUAGE = string(b"")
_DATA_HEADER = struct.Struct(">IBII")


class SftpServer:
    """One SFTP session.

    Args:
        files: what is served.
        requests: what a client may ask for, by the names that OpenSSH's `sftp-server -Q requests` lists; None: all.
        refused: told the name of each request that it may not.
        link_first: SYMLINK names the link before its target, as the draft has it; else after it, as OpenSSH and most
            clients have it (OpenSSH PROTOCOL §4.1).
        gone: says whether nobody waits for answers any more; asked while one takes long.
        crowded: says whether no more may be opened now, however little this session has open.

    Raises:
        ValueError: there is no request of such a name.
    """

    def __init__(
        self, files: FileSystem, *, requests: Collection[str] | None = None,
        refused: Callable[[str], None] | None = None, link_first: bool = False,
        gone: Callable[[], bool] = lambda: False, crowded: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._files = files
        self._link_first = link_first
        self._gone = gone
        self._crowded = crowded
        self._refused = refused
        self._denied = {} if requests is None else _denied(requests)
        self._reads = READ not in self._denied
        self._input = memoryview(bytearray(_INPUT_BYTES))
        self._start = self._end = 0  # what was received and not done yet
        self._output = memoryview(bytearray(ANSWER_BYTES + PACKET_BYTES + _LENGTH))
        self._answered = 0
        self._begun = False
        self._handles: dict[bytes, File | _Listing] = {}
        self._incomplete: set[bytes] = set()
        self._next_handle = 0

    def close(self) -> None:
        """Let go of what the client left open: such uploads are unfinished."""
        for opened in self._handles.values():
            with contextlib.suppress(OSError):  # nobody is left to be told
                if isinstance(opened, _Listing):
                    opened.close()
                else:
                    opened.abandon()
        self._handles.clear()

    # Packets.

    def room(self) -> memoryview:
        """Give where the next bytes go, from its start on. Never empty when the answers were taken and all is done."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start and len(self._input) - self._end < PACKET_BYTES:
            rest = self._end - self._start
            self._input[:rest] = self._input[self._start : self._end]
            self._start, self._end = 0, rest
        return self._input[self._end :]

    def received(self, count: int) -> bool:
        """There are so many bytes more: do what they ask for, as `go_on` does.

        Returns:
            Whether there may be more to do once `answers` were `taken`: then `go_on` until it says that there is not.

        Raises:
            DecodeError: they are no SFTP.
            LimitExceeded: a packet is too large.
        """
        self._end += count
        return self.go_on()

    def go_on(self) -> bool:
        """Do what was received and not done yet, until too many answers wait; whether there may be more to do."""
        received, start, end = self._input, self._start, self._end
        while end - start >= _LENGTH:
            begin = start + _LENGTH
            size = _SIZE.unpack_from(received, start)[0]
            if not 1 <= size <= PACKET_BYTES:
                raise LimitExceeded(f"an SFTP packet of {size} bytes")
            start = begin + size
            if start > end:
                break
            if self._answered >= ANSWER_BYTES:
                return True
            self._start = start
            self._packet(received[begin:start])
        return False

    @property
    def answers(self) -> memoryview:
        """What is to be sent, until it is `taken`."""
        return self._output[: self._answered]

    def taken(self) -> None:
        """The answers were sent."""
        self._answered = 0

    def _packet(self, packet: memoryview) -> None:
        kind = packet[0]
        if not self._begun:
            if kind != INIT:
                raise DecodeError(f"SFTP begins with message {kind}")
            self._begin(Reader(packet, 1))
            return
        reader = Reader(packet, 1)
        if kind == READ and self._reads:
            self._read(reader)
            return
        number = reader.uint32()
        try:
            handler = self._requests.get(kind)
            if kind in self._denied:
                self._refuse(kind)
            elif handler is None:
                self._status(number, OP_UNSUPPORTED)
            else:
                handler(self, number, reader)
        except DecodeError:
            self._status(number, BAD_MESSAGE, b"Bad message")
        except OSError as error:
            self._failed(number, error)
        except OverflowError:  # a size, an offset or an owner that the system has no room for
            self._failed(number, OSError(errno.EFBIG, os.strerror(errno.EFBIG)))

    def _begin(self, reader: Reader) -> None:
        if reader.uint32() < VERSION:
            raise DecodeError("an SFTP version before 3")
        self._begun = True
        extensions = b"".join(
            string(name) + string(version) for name, version in EXTENSIONS if name not in self._denied
        )
        self._send(VERSION_ANSWER, uint32(VERSION) + extensions)

    def _refuse(self, kind: int | bytes) -> NoReturn:
        if self._refused is not None:
            self._refused(self._denied[kind])
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # Answers.

    def _send(self, kind: int, body: bytes) -> None:
        if len(body) >= PACKET_BYTES:
            raise OSError(errno.E2BIG, "the answer would be too long")
        end = self._answered + _HEADER.size + len(body)
        self._output[self._answered : end] = _HEADER.pack(1 + len(body), kind) + body
        self._answered = end

    def _status(self, number: int, status: int, text: bytes = b"") -> None:
        text = text or _TEXTS.get(status, b"")
        self._send(STATUS, _STATUS.pack(number, status, len(text)) + text + _NO_LANGUAGE)

    def _failed(self, number: int, error: OSError) -> None:
        status = STATUS_OF_ERROR.get(error.errno or 0, FAILURE)
        self._status(number, status, (error.strerror or str(error))[:_TEXT_CHARACTERS].encode(errors="replace"))

    def _new_handle(self, number: int, opened: File | _Listing) -> None:
        self._next_handle += 1
        handle = uint32(self._next_handle)
        self._handles[handle] = opened
        self._send(HANDLE, uint32(number) + string(handle))

    def _check_handles(self) -> None:
        if len(self._handles) >= HANDLES or self._crowded():
            raise OSError(errno.EMFILE, "too many handles are open already")

    def _attributes(self, number: int, status: os.stat_result) -> None:
        self._send(ATTRS, uint32(number) + encode_status(status))

    def _names(self, number: int, entries: list[tuple[bytes, bytes, bytes]]) -> None:
        listed = b"".join(string(name) + string(long) + attributes for name, long, attributes in entries)
        self._send(NAME, uint32(number) + uint32(len(entries)) + listed)

    def _name(self, number: int, name: bytes) -> None:
        self._names(number, [(name, name, uint32(0))])

    # Handles.

    def _file(self, handle: bytes) -> File:
        found = self._handles.get(handle)
        if found is None or isinstance(found, _Listing):
            raise OSError(errno.EBADF, "no such file handle")
        return found

    def _open(self, number: int, reader: Reader) -> None:
        path, flags, attributes = reader.string(), reader.uint32(), Attributes.decode(reader)
        reader.end()
        self._check_handles()
        self._new_handle(number, self._files.open(path, OpenMode.of(flags), attributes))

    def _open_directory(self, number: int, reader: Reader) -> None:
        path = reader.string()
        reader.end()
        self._check_handles()
        self._new_handle(number, _Listing(self._files.scan(path)))

    def _close(self, number: int, reader: Reader) -> None:
        handle = reader.string()
        reader.end()
        opened = self._handles.pop(handle, None)
        if opened is None:
            raise OSError(errno.EBADF, "no such handle")
        if handle in self._incomplete and not isinstance(opened, _Listing):
            self._incomplete.discard(handle)
            opened.abandon()
            raise OSError(errno.EIO, "a write failed before: the file is not complete")
        opened.close()
        self._status(number, OK)

    def _read(self, reader: Reader) -> None:
        number = reader.uint32()
        try:
            handle, offset, count = reader.string(), reader.uint64(), min(reader.uint32(), DATA_BYTES)
            reader.end()
            begin = self._answered + _DATA_HEADER.size
            got = self._file(handle).read_into(self._output[begin : begin + count], offset)
        except DecodeError:
            self._status(number, BAD_MESSAGE, b"Bad message")
            return
        except (OSError, OverflowError) as error:
            self._failed(number, error if isinstance(error, OSError) else OSError(errno.EINVAL, "no such offset"))
            return
        if not got and count:
            self._status(number, EOF)
            return
        _DATA_HEADER.pack_into(self._output, self._answered, 9 + got, DATA, number, got)
        self._answered = begin + got

    def _write(self, number: int, reader: Reader) -> None:
        # What comes after the data is skipped: Go's sftp, and so rclone, sends all of its buffer with the last piece.
        handle, offset, data = reader.string(), reader.uint64(), reader.view()
        self._write_to(handle, data, offset)
        self._status(number, OK)

    def _write_to(self, handle: bytes, data: memoryview, offset: int) -> None:
        """Write; a file that a write failed for is abandoned when it is closed, lest half of it gets its name."""
        file = self._file(handle)
        try:
            file.write(data, offset)
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", 0) != errno.EBADF:  # one that is open to be read only
                self._incomplete.add(handle)
            raise

    def _stat_handle(self, number: int, reader: Reader) -> None:
        handle = reader.string()
        reader.end()
        self._attributes(number, self._file(handle).stat())

    def _set_handle(self, number: int, reader: Reader) -> None:
        handle, attributes = reader.string(), Attributes.decode(reader)
        reader.end()
        self._file(handle).set(attributes)
        self._status(number, OK)

    def _read_directory(self, number: int, reader: Reader) -> None:
        handle = reader.string()
        reader.end()
        listing = self._handles.get(handle)
        if not isinstance(listing, _Listing):
            raise OSError(errno.EBADF, "no such directory handle")
        entries = listing.some()
        if entries:
            self._names(number, entries)
        else:
            self._status(number, EOF)

    # Paths.

    def _stat(self, number: int, reader: Reader, *, follow: bool = True) -> None:
        path = reader.string()
        reader.end()
        self._attributes(number, self._files.stat(path, follow=follow))

    def _lstat(self, number: int, reader: Reader) -> None:
        self._stat(number, reader, follow=False)

    def _set(self, number: int, reader: Reader, *, follow: bool = True) -> None:
        path, attributes = reader.string(), Attributes.decode(reader)
        reader.end()
        self._files.set(path, attributes, follow=follow)
        self._status(number, OK)

    def _remove(self, number: int, reader: Reader) -> None:
        path = reader.string()
        reader.end()
        self._files.remove(path)
        self._status(number, OK)

    def _make_directory(self, number: int, reader: Reader) -> None:
        path, attributes = reader.string(), Attributes.decode(reader)
        reader.end()
        self._files.make_directory(path, attributes)
        self._status(number, OK)

    def _remove_directory(self, number: int, reader: Reader) -> None:
        path = reader.string()
        reader.end()
        self._files.remove_directory(path)
        self._status(number, OK)

    def _real_path(self, number: int, reader: Reader) -> None:
        path = reader.string()
        reader.end()
        self._name(number, self._files.real_path(path or b"."))

    def _rename(self, number: int, reader: Reader, *, replace: bool = False) -> None:
        old, new = reader.string(), reader.string()
        reader.end()
        self._files.rename(old, new, replace=replace)
        self._status(number, OK)

    def _read_link(self, number: int, reader: Reader) -> None:
        path = reader.string()
        reader.end()
        self._name(number, self._files.read_link(path))

    def _symlink(self, number: int, reader: Reader) -> None:
        target, path = reader.string(), reader.string()
        reader.end()
        if self._link_first:
            target, path = path, target
        self._files.make_link(target, path, symbolic=True)
        self._status(number, OK)

    # Extensions.

    def _extended(self, number: int, reader: Reader) -> None:
        name = reader.string()
        handler = self._extensions.get(name)
        if name in self._denied:
            self._refuse(name)
        elif handler is None:
            self._status(number, OP_UNSUPPORTED)
        else:
            handler(self, number, reader)

    def _posix_rename(self, number: int, reader: Reader) -> None:
        self._rename(number, reader, replace=True)

    def _hard_link(self, number: int, reader: Reader) -> None:
        old, new = reader.string(), reader.string()
        reader.end()
        self._files.make_link(old, new, symbolic=False)
        self._status(number, OK)

    def _statvfs(self, number: int, reader: Reader) -> None:
        path = reader.string()
        reader.end()
        self._file_system(number, self._files.statvfs(path))

    def _statvfs_handle(self, number: int, reader: Reader) -> None:
        handle = reader.string()
        reader.end()
        self._file_system(number, self._file(handle).statvfs())

    def _file_system(self, number: int, found: os.statvfs_result) -> None:
        flags = (1 if found.f_flag & os.ST_RDONLY else 0) | (2 if found.f_flag & os.ST_NOSUID else 0)
        numbers = (found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_files,
                   found.f_ffree, found.f_favail, found.f_fsid & (1 << 64) - 1, flags, found.f_namemax)  # fmt: skip
        self._send(EXTENDED_ANSWER, uint32(number) + b"".join(map(uint64, numbers)))

    def _sync(self, number: int, reader: Reader) -> None:
        handle = reader.string()
        reader.end()
        self._file(handle).sync()
        self._status(number, OK)

    def _set_link(self, number: int, reader: Reader) -> None:
        self._set(number, reader, follow=False)

    def _limits(self, number: int, reader: Reader) -> None:
        reader.end()
        numbers = (PACKET_BYTES, DATA_BYTES, DATA_BYTES, HANDLES)
        self._send(EXTENDED_ANSWER, uint32(number) + b"".join(map(uint64, numbers)))

    def _expand_path(self, number: int, reader: Reader) -> None:
        path = reader.string()
        reader.end()
        if path.startswith(b"~"):
            user, slash, rest = path[1:].partition(b"/")
            path = self._files.home(user.decode(errors="replace")) + slash + rest
        self._name(number, self._files.real_path(path or b"."))

    def _home(self, number: int, reader: Reader) -> None:
        user = reader.string()
        reader.end()
        self._name(number, self._files.home(user.decode(errors="replace")))

    def _copy(self, number: int, reader: Reader) -> None:
        source, start, length = reader.string(), reader.uint64(), reader.uint64()
        target, offset = reader.string(), reader.uint64()
        reader.end()
        read, write = self._file(source), self._file(target)
        one, other = read.stat(), write.stat()
        if read is write or (one.st_ino and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)):
            raise OSError(errno.EINVAL, "a file cannot be copied into itself")
        buffer = memoryview(bytearray(_COPY_BYTES))
        left, pieces = length or 1 << 64, 0
        while left:
            if pieces % _COPIES_PER_LOOK == 0 and self._gone():  # holes alone can keep us busy for weeks
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            pieces += 1
            got = read.read_into(buffer[: min(left, _COPY_BYTES)], start)
            if not got:
                break
            self._write_to(target, buffer[:got], offset)
            start, offset, left = start + got, offset + got, left - got
        self._status(number, OK)

    def _names_of_numbers(self, number: int, reader: Reader) -> None:
        users, groups = reader.string(), reader.string()
        reader.end()
        if len(users) + len(groups) > 4 * _LOOKUPS:
            raise OSError(errno.E2BIG, f"more than {_LOOKUPS} names at once")
        body = string(_looked_up(users, user_name)) + string(_looked_up(groups, group_name))
        self._send(EXTENDED_ANSWER, uint32(number) + body)

    _requests: ClassVar[dict[int, Callable[[SftpServer, int, Reader], None]]] = {
        OPEN: _open, CLOSE: _close, WRITE: _write, LSTAT: _lstat, FSTAT: _stat_handle, SETSTAT: _set,
        FSETSTAT: _set_handle, OPENDIR: _open_directory, READDIR: _read_directory, REMOVE: _remove,
        MKDIR: _make_directory, RMDIR: _remove_directory, REALPATH: _real_path, STAT: _stat, RENAME: _rename,
        READLINK: _read_link, SYMLINK: _symlink, EXTENDED: _extended,
    }  # fmt: skip
    _extensions: ClassVar[dict[bytes, Callable[[SftpServer, int, Reader], None]]] = {
        POSIX_RENAME: _posix_rename, STATVFS: _statvfs, FSTATVFS: _statvfs_handle, HARDLINK: _hard_link, FSYNC: _sync,
        LSETSTAT: _set_link, LIMITS: _limits, EXPAND_PATH: _expand_path, COPY_DATA: _copy, HOME_DIRECTORY: _home,
        USERS_GROUPS_BY_ID: _names_of_numbers,
    }  # fmt: skip


class _Listing:
    """An open directory: its entries are taken as they are asked for, so that its size does not matter."""

    def __init__(self, entries: Iterator[tuple[bytes, os.stat_result]]) -> None:
        self._entries = entries
        self._now = time.time()

    def some(self) -> list[tuple[bytes, bytes, bytes]]:
        """Name, long name and attributes of the next entries; none at the end."""
        found, size = [], 0
        for name, status in self._entries:
            found.append((name, long_name(name, status, self._now), encode_status(status)))
            size += 2 * len(name) + 100
            if size >= _LISTING_BYTES:
                break
        return found

    def close(self) -> None:
        """Let go of it."""
        close = getattr(self._entries, "close", None)  # a generator has one
        if close is not None:
            close()


def _denied(requests: Collection[str]) -> dict[int | bytes, str]:
    for name in requests:
        if name not in REQUESTS:
            raise ValueError(f"{name!r} is no request of SFTP")
    return {kind: name for name, kind in REQUESTS.items() if name not in requests}


def _looked_up(numbers: bytes, name: Callable[[int], str]) -> bytes:
    if len(numbers) % 4:
        raise DecodeError("numbers of 4 bytes are wanted")
    found = (int.from_bytes(numbers[at : at + 4], "big") for at in range(0, len(numbers), 4))
    return b"".join(string(b"" if (text := name(each)) == str(each) else text.encode()) for each in found)
