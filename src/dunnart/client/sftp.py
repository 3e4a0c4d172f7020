"""SFTP for coroutines: files and directories at a server, over any stream of bytes that leads to one.

Paths are `str`, bytes or path objects; relative ones begin where the server starts the session. A name that is no UTF-8
keeps its bytes (PEP 383), so that what a listing gives can always be opened. What the server cannot do is an OSError
with the errno of its status and the server's own text; a server that sends what is no SFTP ends the session with a
DecodeError or LimitExceeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import posixpath
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dunnart.client.closing import Closing
from dunnart.client.paths import Path, to_bytes, to_text
from dunnart.client.sftp_file import SftpFile
from dunnart.errors import ConnectionClosed, LimitExceeded
from dunnart.records import dataclass
from dunnart.sftp import messages
from dunnart.sftp.attributes import Attributes
from dunnart.sftp.client import FileSystemStatus, ServerLimits, SftpClient
from dunnart.sftp.files import OpenMode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Self

    from dunnart.client.transfers import TransferWatch
    from dunnart.sftp.client import Request

T = TypeVar("T")

_READ_BYTES = 256 * 1024
_REQUESTS = 64
_MOST_NAMES = 500_000
_NAME_CHARACTERS = 1024  # what a name and its line may have to count as one
_LARGEST_BYTES = 1 << 30
_DEPTH = 100
_CHUNK_BYTES = 128 * 1024
_WINDOW_BYTES = 4 * 1024 * 1024
_MODES = {
    "r": OpenMode(read=True), "r+": OpenMode(read=True, write=True),
    "w": OpenMode(write=True, create=True, truncate=True),
    "w+": OpenMode(read=True, write=True, create=True, truncate=True),
    "a": OpenMode(write=True, create=True, append=True),
    "a+": OpenMode(read=True, write=True, create=True, append=True),
    "x": OpenMode(write=True, create=True, exclusive=True),
    "x+": OpenMode(read=True, write=True, create=True, exclusive=True),
}  # fmt: skip


class ByteStream(Protocol):
    """What leads to a server: a session of `dunnart.client`, a program's pipes."""

    async def read(self, limit: int) -> bytes:
        """1 to `limit` bytes, b"" at the end."""

    async def write(self, data: bytes) -> None:
        """Send all of it."""

    async def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a directory's listing says of a file.

    Attributes:
        name: its name in the directory.
        long_name: a line as `ls -l` would have it, in the server's words.
        attributes: of the file, or of the symbolic link itself.
    """

    name: str
    long_name: str
    attributes: Attributes


class Sftp(Closing):
    """An SFTP session; made by `Sftp.begin`. Use it as an asynchronous context manager, or close it.

    Attributes:
        limits: what the server takes.
        requests: how many requests one transfer has outstanding.
        read_bytes: how much one request reads; `write_bytes` is how much one writes.
        window_bytes: how much one transfer has outstanding, whatever `requests` says.
    """

    def __init__(self, stream: ByteStream, *, requests: int = _REQUESTS) -> None:
        self._stream = stream
        self._core = SftpClient()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._something = asyncio.Event()
        self._ended: Exception | None = None
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]
        self.requests = max(1, requests)
        self.limits = ServerLimits()
        self.read_bytes = self.write_bytes = self.limits.read_bytes
        self.window_bytes = _WINDOW_BYTES

    @classmethod
    async def begin(cls, stream: ByteStream, *, requests: int = _REQUESTS, chunk_bytes: int = 0) -> Self:
        """Begin a session.

        Args:
            stream: leads to the server, as `await connection.session(subsystem="sftp")` does; closed with the session.
            requests: how many requests one transfer may have outstanding.
            chunk_bytes: how much one request reads or writes; 0: 32 KiB, or up to 128 KiB if the server says that it
                takes as much.

        Raises:
            ConnectionClosed: the server ended the session.
            DecodeError: it speaks no SFTP, or no version 3 of it.
        """
        session = cls(stream, requests=requests)
        try:
            await session._begun
            if messages.LIMITS in session._core.extensions:
                session.limits = await session.result(session._core.limits())
        except BaseException:
            await session.close()
            raise
        wanted = chunk_bytes or _CHUNK_BYTES
        session.read_bytes = min(wanted, session.limits.read_bytes)
        session.write_bytes = min(wanted, session.limits.write_bytes)
        return session

    async def close(self) -> None:
        """End the session; what waits for an answer fails."""
        self._end(ConnectionClosed("the SFTP session was closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stream.close()

    @property
    def closed(self) -> bool:
        """Whether the session is over."""
        return self._ended is not None

    @property
    def extensions(self) -> frozenset[str]:
        """OpenSSH's extensions that the server has."""
        return frozenset(name.decode() for name in self._core.extensions)

    # Requests.

    @property
    def core(self) -> SftpClient:
        """What makes requests; each must be given to `submit` or `result`."""
        if self._ended is not None:
            raise self._ended
        return self._core

    def submit(self, request: Request[T]) -> asyncio.Future[T]:
        """Send a request, and give the future of its result."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._ended is not None:  # since `core` made the request
            future.set_exception(self._ended)
            future.exception()  # whoever is interested will ask again
            return future
        self._waiting[request.number] = future
        self._something.set()
        return future

    async def result(self, request: Request[T]) -> T:
        """Send a request, and wait for its result."""
        future = self.submit(request)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:  # there already
                self._unwanted(request, future.result())
            raise

    async def _send(self) -> None:
        core = self._core
        try:
            while True:
                packets, core.to_send = core.to_send, []
                if packets:
                    await self._stream.write(packets[0] if len(packets) == 1 else b"".join(packets))
                else:
                    self._something.clear()
                    await self._something.wait()
        except Exception as error:  # noqa: BLE001 - a pump: who waits gets it
            self._end(_closed(error))

    async def _receive(self) -> None:
        try:
            while data := await self._stream.read(_READ_BYTES):
                for request, result in self._core.receive(data):
                    self._answered(request, result)
                if self._core.begun and not self._begun.done():
                    self._begun.set_result(None)
            self._end(ConnectionClosed("the server has ended the SFTP session"))
        except Exception as error:  # noqa: BLE001 - a pump: who waits gets it
            self._end(_closed(error))

    def _answered(self, request: Request[object], result: object) -> None:
        future = self._waiting.pop(request.number)
        if future.done():  # nobody waits any more
            self._unwanted(request, result)
        elif isinstance(result, OSError):
            future.set_exception(result)
            future.exception()  # whoever is interested will ask again
        else:
            future.set_result(result)

    def _unwanted(self, request: Request[Any], result: object) -> None:
        """Nobody takes a result: what was opened must not stay open."""
        if request.kind == messages.HANDLE and isinstance(result, bytes) and self._ended is None:
            self.submit(self._core.close(result))

    def _end(self, error: Exception) -> None:
        if self._ended is not None:
            return
        self._ended = error
        waiting, self._waiting = self._waiting, {}
        futures: list[asyncio.Future[Any]] = [self._begun, *waiting.values()]
        for future in futures:
            if not future.done():
                future.set_exception(error)
                future.exception()

    # Files.

    async def open(self, path: Path, mode: str | OpenMode = "r", *, permissions: int | None = None) -> SftpFile:
        """Open a file.

        Args:
            path: the file.
            mode: as for Python's `open`, always binary: "r", "w", "a", "x", each with "+" for both; or an `OpenMode`.
            permissions: of a file that is created, such as 0o600; None: the server's default.
        """
        if isinstance(mode, str):
            found = _MODES.get(mode.replace("b", ""))
            if found is None:
                raise ValueError(f"mode {mode!r} is none of {', '.join(_MODES)}")
            mode = found
        where = to_bytes(path)
        handle = await self.result(self.core.open(where, mode, Attributes(mode=permissions)))
        return SftpFile(self, handle, where)

    async def read_file(self, path: Path, *, largest_bytes: int = _LARGEST_BYTES) -> bytes:
        """All of a file.

        Raises:
            LimitExceeded: there is more of it than `largest_bytes`, by default 1 GiB.
        """
        async with await self.open(path) as file:
            data = await file.read(largest_bytes)
            if len(data) == largest_bytes and await file.read(1):
                raise LimitExceeded(f"the server has more than {largest_bytes} bytes of {path!r}")
            return data

    async def write_file(self, path: Path, data: bytes | bytearray | memoryview) -> None:
        """Write a file anew."""
        async with await self.open(path, "w") as file:
            await file.write(data)

    async def stat(self, path: Path) -> Attributes:
        """What is known of a file."""
        return await self.result(self.core.stat(to_bytes(path)))

    async def lstat(self, path: Path) -> Attributes:
        """What is known of a file, or of the symbolic link itself."""
        return await self.result(self.core.stat(to_bytes(path), follow=False))

    async def exists(self, path: Path) -> bool:
        """Whether there is something of this name."""
        try:
            await self.lstat(path)
        except FileNotFoundError:
            return False
        return True

    async def set(self, path: Path, attributes: Attributes, *, follow: bool = True) -> None:
        """Change what the attributes name; of the symbolic link itself unless `follow`."""
        await self.result(self.core.set(to_bytes(path), attributes, follow=follow))

    async def chmod(self, path: Path, mode: int, *, follow: bool = True) -> None:
        """Change permissions."""
        await self.set(path, Attributes(mode=mode & 0o7777), follow=follow)

    async def chown(self, path: Path, uid: int, gid: int, *, follow: bool = True) -> None:
        """Change owner and group."""
        await self.set(path, Attributes(uid=uid, gid=gid), follow=follow)

    async def utime(self, path: Path, atime: int, mtime: int, *, follow: bool = True) -> None:
        """Change the times of the last access and of the last change, in seconds since 1970."""
        await self.set(path, Attributes(atime=atime, mtime=mtime), follow=follow)

    async def truncate(self, path: Path, size: int) -> None:
        """Make a file so long."""
        await self.set(path, Attributes(size=size))

    async def remove(self, path: Path) -> None:
        """Remove a file."""
        await self.result(self.core.remove(to_bytes(path)))

    async def rename(self, old: Path, new: Path) -> None:
        """Rename; fails where the new name exists."""
        await self.result(self.core.rename(to_bytes(old), to_bytes(new)))

    async def posix_rename(self, old: Path, new: Path) -> None:
        """Rename over what has the new name; needs posix-rename@openssh.com."""
        await self.result(self.core.rename(to_bytes(old), to_bytes(new), replace=True))

    async def symlink(self, target: Path, path: Path) -> None:
        """Make a symbolic link at `path` that says `target`."""
        await self.result(self.core.make_link(to_bytes(target), to_bytes(path), symbolic=True))

    async def link(self, target: Path, path: Path) -> None:
        """Make `path` another name of `target`; needs hardlink@openssh.com."""
        await self.result(self.core.make_link(to_bytes(target), to_bytes(path), symbolic=False))

    async def readlink(self, path: Path) -> str:
        """Where a symbolic link points."""
        return to_text(await self.result(self.core.read_link(to_bytes(path))))

    async def realpath(self, path: Path = ".") -> str:
        """The absolute path without symbolic links; of ".", where the session starts."""
        return to_text(await self.result(self.core.real_path(to_bytes(path))))

    async def expand(self, path: Path) -> str:
        """The absolute path of one that may begin with `~` or `~user`; needs expand-path@openssh.com."""
        return to_text(await self.result(self.core.expand_path(to_bytes(path))))

    async def statvfs(self, path: Path = ".") -> FileSystemStatus:
        """What is known of a file's file system; needs statvfs@openssh.com."""
        return await self.result(self.core.statvfs(to_bytes(path)))

    async def copy(self, source: Path, target: Path) -> None:
        """Copy a file on the server, whose bytes do not come here; needs copy-data."""
        with contextlib.suppress(FileNotFoundError):  # not every server knows the path of what is not there
            if await self.realpath(source) == await self.realpath(target):  # to open it would empty it
                raise OSError(errno.EINVAL, "a file cannot be copied into itself", to_text(to_bytes(target)))
        async with await self.open(source) as original:
            attributes = await original.stat()
            permissions = None if attributes.mode is None else attributes.mode & 0o777
            async with await self.open(target, "w", permissions=permissions) as copied:
                await self.result(self.core.copy(original.handle, 0, 0, copied.handle, 0, to_bytes(target)))

    # Directories.

    async def mkdir(self, path: Path, mode: int | None = None) -> None:
        """Make a directory, with these permissions or the server's default."""
        await self.result(self.core.make_directory(to_bytes(path), Attributes(mode=mode)))

    async def rmdir(self, path: Path) -> None:
        """Remove an empty directory."""
        await self.result(self.core.remove_directory(to_bytes(path)))

    async def scandir(self, path: Path = ".") -> AsyncGenerator[Entry, None]:
        """List a directory without "." and "..", as the names come; as long as the server has any."""
        where = to_bytes(path)
        handle = await self.result(self.core.open_directory(where))
        try:
            while names := await self.result(self.core.read_directory(handle, where)):
                for each in names:
                    if each.name not in {b".", b".."}:
                        yield Entry(to_text(each.name), to_text(each.long_name), each.attributes)
        finally:
            if self._ended is None:
                self.submit(self.core.close(handle, where))  # what it says is nobody's concern

    async def entries(self, path: Path = ".", *, most: int = _MOST_NAMES) -> list[Entry]:
        """List a directory, in order of the names.

        Raises:
            LimitExceeded: there are more than `most`, or so long ones that they take as much room.
        """
        found: list[Entry] = []
        room = most
        async with contextlib.aclosing(self.scandir(path)) as scanned:
            async for entry in scanned:
                room -= 1 + (len(entry.name) + len(entry.long_name)) // _NAME_CHARACTERS
                if room < 0:
                    raise LimitExceeded(f"the server lists more than {most} names in a directory")
                found.append(entry)
        return sorted(found, key=lambda entry: entry.name)

    async def listdir(self, path: Path = ".") -> list[str]:
        """The names in a directory, in order."""
        return [entry.name for entry in await self.entries(path)]

    async def walk(self, top: Path = ".") -> AsyncGenerator[tuple[str, list[Entry], list[Entry]], None]:
        """Visit a directory and those below it: path, directories, all else. Symbolic links are not followed.

        Raises:
            LimitExceeded: it goes deeper than 100 directories.
        """
        left = [(to_text(to_bytes(top)), 0)]
        while left:
            path, depth = left.pop()
            if depth > _DEPTH:
                raise LimitExceeded(f"the server has directories more than {_DEPTH} deep")
            entries = await self.entries(path)
            folders = [entry for entry in entries if entry.attributes.is_directory]
            yield path, folders, [entry for entry in entries if not entry.attributes.is_directory]
            left += [(posixpath.join(path, folder.name), depth + 1) for folder in reversed(folders)]

    async def glob(self, pattern: str) -> list[str]:
        r"""Paths that match a pattern, in order: `*`, `?` and `[…]` within one part each; `\` takes their meaning away.

        Names that begin with a dot match only where the pattern has the dot.
        """
        from dunnart.client.globbing import expand

        return await expand(self, pattern)

    # Transfers.

    async def get(
        self, source: Path, target: str | bytes | os.PathLike[str] = ".", *, recursive: bool = False,
        preserve: bool = False, resume: bool = False, follow_links: bool = False, sync: bool = False,
        watch: TransferWatch | None = None,
    ) -> None:  # fmt: skip
        """Copy a file, or a directory with all that is in it, from the server to here.

        A file is written in place, front to back, so that what there is of it after an interruption can be resumed.

        Args:
            source: the file or directory at the server.
            target: its new path here, or a directory that it gets into.
            recursive: copy directories too.
            preserve: keep times and permissions.
            resume: go on behind what is here already, which must be the beginning of the same file.
            follow_links: copy what symbolic links in a directory point to; else they are skipped.
            sync: see that each file is on the disk.
            watch: is told of progress, of what is skipped, and of failures, after which the rest goes on if it likes.

        Raises:
            OSError: it could not be done.
        """
        from dunnart.client.transfer_sides import LocalSide, RemoteSide
        from dunnart.client.transfers import Transfer

        transfer = Transfer(
            RemoteSide(self), LocalSide(), recursive=recursive, preserve=preserve, resume=resume,
            follow_links=follow_links, sync=sync, watch=watch,
        )  # fmt: skip
        await transfer.run(to_bytes(source), os.fsencode(target))

    async def put(
        self, source: str | bytes | os.PathLike[str], target: Path = ".", *, recursive: bool = False,
        preserve: bool = False, resume: bool = False, follow_links: bool = False, sync: bool = False,
        watch: TransferWatch | None = None,
    ) -> None:  # fmt: skip
        """Copy a file, or a directory with all that is in it, from here to the server; arguments as of `get`."""
        from dunnart.client.transfer_sides import LocalSide, RemoteSide
        from dunnart.client.transfers import Transfer

        transfer = Transfer(
            LocalSide(), RemoteSide(self), recursive=recursive, preserve=preserve, resume=resume,
            follow_links=follow_links, sync=sync, watch=watch,
        )  # fmt: skip
        await transfer.run(os.fsencode(source), to_bytes(target))


def _closed(error: Exception) -> Exception:
    if not isinstance(error, OSError):
        return error
    closed = ConnectionClosed(f"the connection to the SFTP server is gone: {error}")
    closed.__cause__ = error
    return closed
