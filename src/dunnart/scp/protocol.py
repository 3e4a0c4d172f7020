"""SCP over two blocking functions: source (`-f`) and sink (`-t`), of which a server is one and its client the other.

    record, a line                 answered by
    C<mode> <size> <name>          0; then size bytes and 0, answered by 0 again
    D<mode> 0 <name>               0; a directory begins
    E                              0; it ends
    T<mtime> 0 <atime> 0           0; times of what comes next

0 is a zero byte. In its place 1 and a line tell of an error that lets the rest go on, 2 and a line end everything.
There is no specification; OpenSSH's scp and what the others send is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NoReturn

from dunnart.errors import DecodeError
from dunnart.sftp.attributes import Attributes
from dunnart.sftp.files import OpenMode

if TYPE_CHECKING:
    from dunnart.scp.command import ScpCommand
    from dunnart.scp.places import Places
    from dunnart.sftp.files import File, FileSystem

Read = Callable[[int], bytes]
"""Gives 1 to so many bytes, b"" at the end."""
Write = Callable[[bytes | memoryview], None]
Log = Callable[[str], None]

_LINE_BYTES = 8192
_CHUNK_BYTES = 256 * 1024
_DEPTH = 100
_LARGEST = (1 << 63) - 1
_PERMISSIONS = 0o7777
_TAKEN_PERMISSIONS = 0o777  # no setuid from a peer
_WILD = frozenset(b"*?[")


class _Ended(Exception):
    """The peer has ended the transfer."""


class Watch:
    """What a client wants to know of a transfer, and has a say in; a server wants nothing.

    Attributes:
        expands: whether wildcards in a source's paths are expanded; a client's shell has done that.
    """

    expands = True

    def told(self, text: str) -> None:
        """Something went wrong at the peer, or the peer was told so."""

    def wanted(self, name: bytes) -> bool:
        """Whether a sink takes this into its target."""
        return True

    def moved(self, name: bytes, done: int, size: int) -> None:
        """`done` of `size` bytes of a file have been copied."""

    def finished(self, name: bytes) -> None:
        """All of a file has been copied."""


def serve(
    command: ScpCommand, places: Places, read: Read, write: Write, log: Log = lambda _: None,
    watch: Watch = Watch(),  # noqa: B008 - it has no state
) -> int:  # fmt: skip
    """Do what the command asks for.

    Args:
        command: what it is.
        places: what is served.
        read: from the peer.
        write: all of the bytes, to the peer.
        log: gets a line for each record.
        watch: what a client wants.

    Returns:
        The exit status: 0, or 1 when something went wrong, which the peer was told.
    """
    peer = _Peer(read, write, log, watch)
    try:
        if command.sink:
            _Sink(command, places, peer).run()
        else:
            _Source(command, places, peer).run()
    except _Ended:
        return 1
    except DecodeError as error:
        peer.fatal(str(error))
        return 1
    return 1 if peer.failed else 0


class _Peer:
    """The other side: records and answers."""

    def __init__(self, read: Read, write: Write, log: Log, watch: Watch) -> None:
        self._read = read
        self.write = write
        self.log = log
        self.watch = watch
        self.failed = False
        self._ahead = b""

    def some(self, limit: int) -> bytes:
        """1 to `limit` bytes.

        Raises:
            _Ended: there are no more.
        """
        if self._ahead:
            data, self._ahead = self._ahead[:limit], self._ahead[limit:]
        else:
            data = self._read(limit)
        if not data:
            raise _Ended
        return data

    def line(self, first: bytes = b"") -> bytes:
        """A line without its end, of which `first` was read already."""
        line = first
        while b"\n" not in line:
            if len(line) > _LINE_BYTES:
                raise DecodeError("a record of more than 8 KiB")
            line += self.some(_LINE_BYTES)
        line, _, rest = line.partition(b"\n")
        self._ahead = rest + self._ahead
        return line

    def answer(self) -> bool:
        """The peer's answer: whether it goes on with what was announced."""
        kind = self.some(1)
        if kind == b"\0":
            return True
        self.complained(self.line())
        if kind == b"\1":
            return False
        raise _Ended

    def complained(self, line: bytes) -> None:
        """The peer tells of an error."""
        text = line.lstrip(b"\1\2").decode(errors="replace")
        self.log(f"peer: {text}")
        self.failed = True
        self.watch.told(text)

    def ok(self) -> None:
        """Tell the peer to go on."""
        self.write(b"\0")

    def warn(self, text: str) -> None:
        """Tell the peer of an error that lets the rest go on."""
        self._tell(b"\1", text)

    def fatal(self, text: str) -> None:
        """Tell the peer of an error that ends everything."""
        self._tell(b"\2", text)

    def _tell(self, kind: bytes, text: str) -> None:
        self.failed = True
        self.log(f"error: {text}")
        self.watch.told(text)
        line = "".join(character if character.isprintable() else "?" for character in text)
        self.write(kind + f"scp: {line}\n".encode(errors="replace"))

    def oserror(self, path: bytes, error: OSError) -> None:
        """Tell the peer what could not be done with a file."""
        self.warn(f"{path.decode(errors='replace')}: {error.strerror or error}")


class _Source:
    def __init__(self, command: ScpCommand, places: Places, peer: _Peer) -> None:
        self._command = command
        self._places = places
        self._peer = peer

    def run(self) -> None:
        if not self._peer.answer():
            raise _Ended
        for path in self._command.paths:
            try:
                files, place = self._places.find(path)
                drive = self._places.bare_drive(path)  # clients compare the name with what they asked for
                for found in _expanded(files, place) if self._peer.watch.expands else [place]:
                    self._send(files, found, drive + _base(found), 0)
            except OSError as error:
                self._peer.oserror(path, error)

    def _send(self, files: FileSystem, path: bytes, name: bytes, depth: int) -> None:
        peer = self._peer
        try:
            status = files.stat(path, follow=True)
            if stat.S_ISDIR(status.st_mode):
                if not self._command.recursive:
                    peer.warn(f"{path.decode(errors='replace')}: not a regular file; -r copies directories")
                elif depth >= _DEPTH:
                    peer.warn(f"{path.decode(errors='replace')}: too many levels of directories")
                else:
                    self._send_directory(files, path, name, status, depth)
            elif stat.S_ISREG(status.st_mode):
                self._send_file(files.open(path, OpenMode(read=True), Attributes()), name, status)
            else:
                peer.warn(f"{path.decode(errors='replace')}: not a regular file")
        except OSError as error:
            if isinstance(error, BrokenPipeError | ConnectionError):
                raise
            peer.oserror(path, error)

    def _announce(self, kind: str, name: bytes, size: int, status: os.stat_result) -> bool:
        peer = self._peer
        if self._command.preserve:
            times = f"T{max(0, int(status.st_mtime))} 0 {max(0, int(status.st_atime))} 0"
            peer.log(times)
            peer.write(times.encode() + b"\n")
            if not peer.answer():
                return False
        shown = name.replace(b"\n", b"\\^J")
        record = f"{kind}{status.st_mode & _PERMISSIONS:04o} {size} ".encode() + shown
        peer.log(record.decode(errors="replace"))
        peer.write(record + b"\n")
        return peer.answer()

    def _send_file(self, file: File, name: bytes, status: os.stat_result) -> None:
        peer = self._peer
        try:
            if not self._announce("C", name, status.st_size, status):
                file.close()
                return
            buffer = memoryview(bytearray(_CHUNK_BYTES))
            offset, error = 0, None
            while offset < status.st_size:
                chunk = buffer[: min(_CHUNK_BYTES, status.st_size - offset)]
                try:
                    got = 0 if error else file.read_into(chunk, offset)
                    if not got:
                        error = error or OSError(errno.EIO, "the file has become shorter")
                except OSError as failure:
                    got, error = 0, failure
                if not got:  # so much was announced, and so much must come
                    chunk[:] = bytes(len(chunk))
                    got = len(chunk)
                peer.write(chunk[:got])
                offset += got
                peer.watch.moved(name, offset, status.st_size)
        except BaseException:
            with contextlib.suppress(OSError):
                file.abandon()
            raise
        try:
            file.close()
        except OSError as failure:  # the peer waits for one answer in any case
            error = error or failure
        if error is None:
            peer.ok()
        else:
            peer.oserror(name, error)
        if peer.answer() and error is None:
            peer.watch.finished(name)

    def _send_directory(self, files: FileSystem, path: bytes, name: bytes, status: os.stat_result, depth: int) -> None:
        peer = self._peer
        names = [entry for entry, _ in files.scan(path) if entry not in {b".", b".."}]
        if not self._announce("D", name, 0, status):
            return
        for entry in sorted(names):
            self._send(files, path.rstrip(b"/") + b"/" + entry, entry, depth + 1)
        peer.write(b"E\n")
        peer.answer()


class _Sink:
    def __init__(self, command: ScpCommand, places: Places, peer: _Peer) -> None:
        self._command = command
        self._peer = peer
        self._target = command.paths[0]
        self._places = places
        self._times: tuple[int, int] | None = None

    def run(self) -> None:
        peer = self._peer
        try:
            files, target = self._places.find(self._target)
            folder = _is_directory(files, target)
            if self._command.directory and not folder:
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        except OSError as error:
            self._refuse(error)
        peer.ok()
        self._receive(files, target, folder=folder, depth=0)

    def _refuse(self, error: OSError) -> NoReturn:
        self._peer.fatal(f"{self._target.decode(errors='replace')}: {error.strerror or error}")
        raise _Ended

    def _receive(self, files: FileSystem, target: bytes, *, folder: bool, depth: int) -> None:
        """Take records until the directory, or everything, ends."""
        peer = self._peer
        while True:
            try:
                kind = peer.some(1)
            except _Ended:
                if depth:
                    raise
                return
            line = peer.line(kind)
            peer.log(line.decode(errors="replace"))
            if kind in {b"\1", b"\2"}:
                peer.complained(line)
                if kind == b"\2":
                    raise _Ended
            elif kind == b"E" and line == b"E" and depth:
                peer.ok()
                return
            elif kind == b"T":
                self._times = _times(line)
                peer.ok()
            elif kind in {b"C", b"D"}:
                mode, size, name = _record(line)
                if not depth and not peer.watch.wanted(name):
                    raise DecodeError(f"a record for {name.decode(errors='replace')!r}, which was not asked for")
                path = target.rstrip(b"/") + b"/" + name if folder or depth else target
                times, self._times = self._times, None
                if kind == b"C":
                    self._take_file(files, path, mode, size, times)
                else:
                    self._take_directory(files, path, mode, times, depth)
            else:
                raise DecodeError("no record of SCP")

    def _take_directory(
        self, files: FileSystem, path: bytes, mode: int, times: tuple[int, int] | None, depth: int
    ) -> None:
        if not self._command.recursive:
            raise DecodeError("a directory, which was not asked for")
        if depth >= _DEPTH:
            raise DecodeError("too many levels of directories")
        peer = self._peer
        preserve = self._command.preserve
        try:
            if not _is_directory(files, path):
                # Its owner must be able to put something in.
                files.make_directory(path, Attributes(mode=mode | 0o700))
        except OSError as error:
            peer.oserror(path, error)
            return
        peer.ok()
        self._receive(files, path, folder=True, depth=depth + 1)
        try:
            made = Attributes(mode=mode if preserve else None)
            if times is not None:
                made.mtime, made.atime = times
            if preserve or times:
                files.set(path, made, follow=False)
        except OSError as error:
            peer.failed = True
            text = f"{path.decode(errors='replace')}: {error.strerror or error}"
            peer.log(text)
            peer.watch.told(text)

    def _take_file(self, files: FileSystem, path: bytes, mode: int, size: int, times: tuple[int, int] | None) -> None:
        peer = self._peer
        try:
            if _is_directory(files, path):
                raise IsADirectoryError(errno.EISDIR, "Is a directory")
            file = files.open(path, OpenMode(write=True, create=True, truncate=True), Attributes(mode=mode))
        except OSError as error:
            peer.oserror(path, error)
            return
        peer.ok()
        try:
            failure = self._fill(file, path, size, times, mode)
            complete = peer.answer() and failure is None
        except BaseException:
            with contextlib.suppress(OSError):
                file.abandon()
            raise
        try:
            if complete:
                file.close()
            else:
                file.abandon()
        except OSError as error:
            failure = failure or error
        if failure is not None:
            peer.oserror(path, failure)
            return
        peer.ok()
        if complete:
            peer.watch.finished(path)

    def _fill(self, file: File, path: bytes, size: int, times: tuple[int, int] | None, mode: int) -> OSError | None:
        """Take a file's bytes, all of them whatever happens, and then its times and mode."""
        failure: OSError | None = None
        offset = 0
        while offset < size:
            data = self._peer.some(min(_CHUNK_BYTES, size - offset))
            if failure is None:
                try:
                    file.write(memoryview(data), offset)
                except OSError as error:
                    failure = error
            offset += len(data)
            self._peer.watch.moved(path, offset, size)
        made = Attributes(mode=mode if self._command.preserve else None)
        if times is not None:
            made.mtime, made.atime = times
        try:
            if failure is None and made != Attributes():
                file.set(made)
        except OSError as error:
            return error
        return failure


def _record(line: bytes) -> tuple[int, int, bytes]:
    """Read `C0644 12 name`: mode, size, name."""
    mode, _, rest = line[1:].partition(b" ")
    size, _, name = rest.partition(b" ")
    octal = len(mode) == 4 and all(digit in b"01234567" for digit in mode)
    if not octal or not size.isdigit() or len(size) > 19 or int(size) > _LARGEST:
        raise DecodeError("a record with an impossible mode or size")
    # THREATS §6: a name is one part of a path, and no more.
    if not name or name in {b".", b".."} or b"/" in name or b"\0" in name:
        raise DecodeError("a record with an impossible name")
    return int(mode, 8) & _TAKEN_PERMISSIONS, int(size), name


def _times(line: bytes) -> tuple[int, int]:
    """Read `T1183828267 0 1183828267 0`: mtime, atime."""
    parts = line[1:].split(b" ")
    if len(parts) != 4 or not all(part.isdigit() and len(part) <= 18 for part in parts):
        raise DecodeError("a record with impossible times")
    return int(parts[0]), int(parts[2])


def _is_directory(files: FileSystem, path: bytes) -> bool:
    try:
        return stat.S_ISDIR(files.stat(path, follow=True).st_mode)
    except FileNotFoundError:
        return False


def _base(path: bytes) -> bytes:
    """The name that a client gets for a path."""
    name = path.rstrip(b"/").rpartition(b"/")[2]
    return b"." if name in {b"", b".", b".."} else name


def _expanded(files: FileSystem, path: bytes) -> list[bytes]:
    """Expand `*`, `?` and `[…]` in a path's last part, as a shell would have; without a match it stays as it is."""
    folder, slash, pattern = path.rpartition(b"/")
    if not _WILD & set(pattern) or _exists(files, path):
        return [path]
    hidden = pattern.startswith(b".")
    text = pattern.decode("latin-1")
    names = [name for name, _ in files.scan(folder + slash or b".") if name not in {b".", b".."}]
    found = [
        folder + slash + name
        for name in names
        if (hidden or not name.startswith(b".")) and fnmatchcase(name.decode("latin-1"), text)
    ]
    return sorted(found) or [path]


def _exists(files: FileSystem, path: bytes) -> bool:
    try:
        files.stat(path, follow=False)
    except OSError:
        return False
    return True
