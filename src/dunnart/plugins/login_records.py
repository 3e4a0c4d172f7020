"""Who is logged in, and who was: the files utmp, wtmp and lastlog, as sshd and login(1) keep them on Linux.

Files that are not there are not made, but for lastlog, as sshd has it. A record's place in utmp is that of its `ut_id`,
as pututline(3) finds it. All of this blocks: it is for threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_INIT_PROCESS, _LOGIN_PROCESS, _USER_PROCESS, _DEAD_PROCESS = 5, 6, 7, 8
_WITH_PLACE = frozenset((_INIT_PROCESS, _LOGIN_PROCESS, _USER_PROCESS, _DEAD_PROCESS))
_ID_BYTES = 4
_LOCK_SECONDS = 5.0  # whoever may read utmp may lock it, and must not keep others out for ever
_THREADS = threading.Lock()  # locks of files are a process's, not a thread's

# bits/utmp.h: type, pid, line, id, user, host, exit (2), session, time (2), address. glibc has 32 bits for session and
# time on most 64-bit machines too, for the sake of programs of 32 bits.
_HEAD = "=hxxi32s4s32s256shh"
_SHORT = (struct.Struct(f"{_HEAD}iii16s20x"), struct.Struct("=i32s256s"))
_LONG = (struct.Struct(f"{_HEAD}qqq16s24x"), struct.Struct("=q32s256s"))
_FORMATS = dict.fromkeys(("x86_64", "i386", "i686", "armv7l", "ppc64le", "riscv64"), _SHORT) | {"aarch64": _LONG}
if os.uname().sysname != "Linux":
    _FORMATS = {}


class Login(NamedTuple):
    """A login on a terminal.

    Attributes:
        line: the terminal's path.
        pid: the number of its first process.
        user: the login name; `uid` is the user's number.
        host: the client's address, "" if there is none.
    """

    line: str
    pid: int
    user: str
    uid: int
    host: str


class Files(NamedTuple):
    """Where the records are kept."""

    utmp: str
    wtmp: str
    lastlog: str


class LastLogin(NamedTuple):
    """When a user was here last, in seconds since 1970, and from where."""

    time: int
    host: str


def begin(login: Login, files: Files) -> None:
    """Record that a login begins.

    Raises:
        OSError: a file could not be written. The others were.
    """
    record = _record(login, _USER_PROCESS)
    if record is not None:
        with _All() as each:
            each(_put, files.utmp, record)
            each(_append, files.wtmp, record)
            each(_note_last, files.lastlog, login)


def end(login: Login, files: Files) -> None:
    """Record that a login has ended.

    Raises:
        OSError: a file could not be written. The others were.
    """
    record = _record(login._replace(user="", host=""), _DEAD_PROCESS)
    if record is not None:
        with _All() as each:
            each(_put, files.utmp, record)
            each(_append, files.wtmp, record)


def failed(login: Login, path: str) -> None:
    """Record a login that has failed, in btmp, if that is there and nobody's but root's.

    Raises:
        OSError: it could not be written, or others may read it, who might see passwords.
    """
    record = _record(login, _LOGIN_PROCESS)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    if found.st_uid != os.geteuid() or found.st_mode & 0o017:
        raise PermissionError(1, "is not its owner's alone", path)
    if record is not None:
        _append(path, record)


def last_login(uid: int, path: str) -> LastLogin | None:
    """Read in lastlog when a user was here last; None if that is not known."""
    form = _FORMATS.get(os.uname().machine)
    if form is None:
        return None
    layout = form[1]
    with contextlib.suppress(OSError), open(path, "rb") as file:
        data = os.pread(file.fileno(), layout.size, uid * layout.size)
        if len(data) == layout.size:
            when, _, host = layout.unpack(data)
            return LastLogin(when, host.rstrip(b"\0").decode(errors="replace")) if when else None
    return None


class _All:
    """Does several things, and raises the first error after the last."""

    def __init__(self) -> None:
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, function: object, *arguments: object) -> None:
        assert callable(function)
        try:
            function(*arguments)
        except OSError as error:
            self._error = self._error or error

    def __exit__(self, *_: object) -> None:
        if self._error is not None:
            raise self._error


def _record(login: Login, kind: int) -> bytes | None:
    form = _FORMATS.get(os.uname().machine)
    if form is None:
        return None
    line = _stripped(login.line)
    name = line[-_ID_BYTES:] if kind != _LOGIN_PROCESS else b""
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return form[0].pack(
        kind, login.pid, line, name, login.user.encode(errors="replace"), login.host.encode(), 0, 0, 0, seconds,
        microseconds, _packed(login.host),
    )  # fmt: skip


def _stripped(line: str) -> bytes:
    return os.fsencode(line.removeprefix("/dev/"))


def _packed(host: str) -> bytes:
    """Give an address as utmp has it: 4 or 16 bytes; none for a host that is no address."""
    from ipaddress import IPv6Address, ip_address

    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return b""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).packed


@contextlib.contextmanager
def _locked(path: str) -> Iterator[int]:
    """Open a file and keep others out of it; FileNotFoundError if there is none."""
    with _THREADS:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError(0, "somebody keeps it locked", path) from None
                    time.sleep(0.02)
            yield fd
        finally:
            os.close(fd)


def _put(path: str, record: bytes) -> None:
    """Write a record in the place of the one with its id, or at the end."""
    size = len(record)
    with contextlib.suppress(FileNotFoundError), _locked(path) as fd:
        place = os.fstat(fd).st_size // size * size
        for offset in range(0, place, size):
            if _same_place(os.pread(fd, size, offset), record):
                place = offset
                break
        _write(fd, record, place)


def _same_place(found: bytes, record: bytes) -> bool:
    return int.from_bytes(found[:2], "little") in _WITH_PLACE and found[40:44] == record[40:44]


def _append(path: str, record: bytes) -> None:
    size = len(record)
    with contextlib.suppress(FileNotFoundError), _locked(path) as fd:
        _write(fd, record, os.fstat(fd).st_size // size * size)  # over half a record, should there be one


def _write(fd: int, record: bytes, place: int) -> None:
    """Write all of a record or nothing: half of one would make nonsense of those that follow."""
    if os.pwrite(fd, record, place) < len(record):
        os.ftruncate(fd, place)
        raise OSError(28, "there is no room for a record")


def _note_last(path: str, login: Login) -> None:
    layout = _FORMATS[os.uname().machine][1]
    record = layout.pack(int(time.time()), _stripped(login.line), login.host.encode())
    with contextlib.suppress(FileNotFoundError):  # its folder
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(fd, record, login.uid * layout.size)
        finally:
            os.close(fd)
