"""SCP as a client: files to and from a server that has no SFTP, by the command `scp` there.

The server's shell splits the command, so paths are quoted, unless `shell` leaves them to it: then `~`, `*` and whatever
else it has mean what they mean there. For everything else `Sftp` is better.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shlex
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, Protocol

from dunnart.client.paths import Path, to_bytes, to_text
from dunnart.client.transfers import TransferWatch
from dunnart.errors import ChannelError
from dunnart.scp.command import ScpCommand
from dunnart.scp.places import Places
from dunnart.scp.protocol import Watch, serve
from dunnart.sftp.local import LocalFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_READ_BYTES = 256 * 1024
_BRACES = re.compile(rb"\{([^{}]*,[^{}]*)\}")


class CommandStream(Protocol):
    """A running command's stdin and stdout."""

    async def read(self, limit: int) -> bytes:
        """1 to `limit` bytes, b"" at the end."""

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it."""

    async def write_eof(self) -> None:
        """Say that no more follows."""

    async def wait(self) -> object:
        """Wait for its end: its exit status, or what has one as `status`."""

    async def close(self) -> None:
        """End it."""


class Commands(Protocol):
    """What can run commands at a server, as a `Connection` can."""

    async def session(self, command: bytes, *, stderr: Literal["drop"]) -> CommandStream:
        """Start one."""


async def get(
    connection: Commands, sources: Sequence[str | bytes], target: Path, *, recursive: bool = False,
    preserve: bool = False, shell: bool = False, strict: bool = True, watch: TransferWatch | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> None:  # fmt: skip
    """Copy files from a server to here.

    Args:
        connection: leads to the server.
        sources: the server's files.
        target: the new file, or a directory; it must be one if there are several sources.
        recursive: directories too.
        preserve: keep times and permissions.
        shell: leave the sources to the server's shell, unquoted.
        strict: take nothing from the server whose name was not asked for; switched off, the server may write any file
            into a target that is a directory.
        watch: is told of progress and failures.
        log: gets a line for each record.

    Raises:
        OSError: not everything could be copied.
        DunnartError: the connection broke, or the server refused the command.
    """
    command = ScpCommand((os.fsencode(target),), sink=True, recursive=recursive, preserve=preserve,
                         directory=len(sources) > 1)  # fmt: skip
    asked = [to_bytes(source) for source in sources]
    said = _Watch(watch, asked if strict else None)
    await _run(connection, _line("f", command, asked, shell=shell), command, said, log)
    if not said.records:
        raise OSError(errno.EIO, "the server has sent nothing; is there an scp?")


async def put(
    connection: Commands, sources: Sequence[Path], target: str | bytes, *, recursive: bool = False,
    preserve: bool = False, shell: bool = False, directory: bool = False, watch: TransferWatch | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> None:  # fmt: skip
    """Copy files from here to a server; the arguments are those of `get`.

    With `directory` the target must be one, also for a single source.
    """
    command = ScpCommand(tuple(map(os.fsencode, sources)), sink=False, recursive=recursive, preserve=preserve,
                         directory=directory or len(sources) > 1)  # fmt: skip
    line = _line("t", command, [to_bytes(target)], shell=shell)
    await _run(connection, line, command, _Watch(watch, None), log)


async def relay(
    source: Commands, path: str | bytes, target: Commands, target_path: str | bytes, *, recursive: bool = False,
    preserve: bool = False, shell: bool = False, directory: bool = False,
) -> None:  # fmt: skip
    """Copy from one server to another: both run scp, and their words go through here.

    Raises:
        OSError: not everything could be copied.
        DunnartError: a connection broke, or a server refused the command.
    """
    flags = ScpCommand((b".",), sink=True, recursive=recursive, preserve=preserve, directory=directory)
    one = await source.session(_line("f", flags, [to_bytes(path)], shell=shell), stderr="drop")
    try:
        other = await target.session(_line("t", flags, [to_bytes(target_path)], shell=shell), stderr="drop")
        try:
            await _joined(one, other)
            ends = [await one.wait(), await other.wait()]
        finally:
            await other.close()
    finally:
        await one.close()
    # An `Exit` of a session, or the status of a program.
    if any(getattr(end, "status", end) != 0 for end in ends):
        raise OSError(errno.EIO, "not everything was copied")


async def _joined(one: CommandStream, other: CommandStream) -> None:
    pumps = [asyncio.create_task(_pump(one, other)), asyncio.create_task(_pump(other, one))]
    try:
        await asyncio.gather(*pumps)
    finally:
        for pump in pumps:
            pump.cancel()


async def _pump(source: CommandStream, target: CommandStream) -> None:
    while data := await source.read(_READ_BYTES):
        await target.write(data)
    await target.write_eof()


def _line(side: str, command: ScpCommand, paths: Sequence[bytes], *, shell: bool) -> bytes:
    flags = "r" * command.recursive + "p" * command.preserve + "d" * command.directory
    words = [f"scp -{flags}{side}".encode()]
    if any(path.startswith(b"-") for path in paths):
        words.append(b"--")
    # Byte for byte, for names need not be UTF-8.
    words += paths if shell else [shlex.quote(path.decode("latin-1")).encode("latin-1") for path in paths]
    return b" ".join(words)


async def _run(
    connection: Commands, line: bytes, command: ScpCommand, watch: _Watch, log: Callable[[str], None]
) -> None:
    loop = asyncio.get_running_loop()
    stream = await connection.session(line, stderr="drop")

    def read(limit: int) -> bytes:
        return asyncio.run_coroutine_threadsafe(stream.read(limit), loop).result()

    def write(data: bytes | memoryview) -> None:
        asyncio.run_coroutine_threadsafe(stream.write(data), loop).result()

    files = Places(LocalFiles(start=os.getcwd()))
    work = asyncio.ensure_future(asyncio.to_thread(serve, command, files, read, write, log, watch))
    try:
        try:
            status = await asyncio.shield(work)
        except ChannelError:  # the other side has ended while we still wrote
            status = 1
        await stream.write_eof()
        while await stream.read(_READ_BYTES):  # its end is waited for
            pass
        end = await stream.wait()
        if getattr(end, "status", end) != 0:  # killed, say, between two files
            status = status or 1
    finally:
        await stream.close()  # which ends the thread, if it still waits
        await asyncio.gather(work, return_exceptions=True)
    if status:
        raise OSError(errno.EIO, watch.last or "the server has ended the transfer")


class _Watch(Watch):
    """Stands between the protocol, in its thread, and who wants to know."""

    expands = False

    def __init__(self, watch: TransferWatch | None, asked: Sequence[bytes] | None) -> None:
        self._watch = watch or TransferWatch()
        self._patterns: list[bytes] | None = None
        if asked is not None:
            names = [re.split(rb"[/\\]", path.rstrip(b"/"))[-1] for path in asked]
            self._patterns = names + [pattern for name in names for pattern in _alternatives(name)]
        self.records = 0
        self.last = ""

    def told(self, text: str) -> None:
        self.records += 1
        self.last = text
        self._watch.failed("", OSError(errno.EIO, text))

    def wanted(self, name: bytes) -> bool:
        self.records += 1
        if self._patterns is None:
            return True
        # As no shell's pattern does, none of ours stands for a hidden file: the server could send a .bashrc for a *.
        hidden = name.startswith(b".")
        return any(
            name == pattern or _matches(name, pattern)
            for pattern in self._patterns
            if pattern.startswith(b".") or not hidden
        )

    def moved(self, name: bytes, done: int, size: int) -> None:
        self._watch.moved(to_text(name), done, size)

    def finished(self, name: bytes) -> None:
        self._watch.finished(to_text(name))


def _matches(name: bytes, pattern: bytes) -> bool:
    return fnmatchcase(name.decode("latin-1"), pattern.decode("latin-1"))


def _alternatives(pattern: bytes) -> list[bytes]:
    """The patterns that one with braces stands for, as a shell has it."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    return [
        each
        for choice in found[1].split(b",")
        for each in _alternatives(pattern[: found.start()] + choice + pattern[found.end() :])
    ]
