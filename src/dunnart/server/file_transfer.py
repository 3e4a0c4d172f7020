"""File transfer for servers in a program: what serves the subsystem "sftp", and the commands of `scp -O`.

    files = LocalFiles("/srv/share")
    Server(subsystems={"sftp": SftpHandler(files)}, exec=ScpHandler(files), …)

Clients reach what the file system has, with the rights of the program. Each session has a thread of the application
pool to itself.
"""

from __future__ import annotations

import inspect
import logging
import os
from typing import TYPE_CHECKING, cast

from dunnart.errors import ConfigError, DunnartError
from dunnart.runtime.logs import clean, report
from dunnart.server.applications import ThreadApplication

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from dunnart.server.raw import RawSession
    from dunnart.sftp.files import FileSystem

    Files = FileSystem | Callable[[RawSession], FileSystem]

_LOG = logging.getLogger("dunnart.session")
_GAPS = 16


class SftpHandler(ThreadApplication):
    """Serves the subsystem "sftp".

    Args:
        files: what clients see: a file system for all sessions, which many threads then use at once; or a function of
            the session that gives its own, and may block.
        requests: what clients may ask for, by the names that `dunnart sftp-server -Q requests` lists; None: all.

    Raises:
        ConfigError: that is neither a file system nor a function that gives one, or there is no such request.
    """

    def __init__(self, files: Files, *, requests: Collection[str] | None = None) -> None:
        self._files = _Source(files, "files")
        self._requests = None if requests is None else _known(requests)

    def serve(self, session: RawSession) -> int:
        """Serve a session until its client has no more requests."""
        from dunnart.sftp.messages import sends_link_first
        from dunnart.sftp.streams import serve

        files = self._files.of(session)
        if files is None:
            return 1
        link_first = sends_link_first(session.facts.connection.client_version)
        descriptor = session.socket().fileno()
        try:
            serve(files, descriptor, descriptor, requests=self._requests, link_first=link_first, crowded=_crowded)
        except DunnartError as error:
            _refused(session, f"sftp: {error}")
            return 1
        return 0


class ScpHandler(ThreadApplication):
    r"""Serves the commands that `scp -O` and older clients send, and refuses every other command.

    Args:
        files: what clients see, as for `SftpHandler`; None: nothing but the drives.
        drives: by the letter that paths like `C:\\file` begin with.

    Raises:
        ConfigError: one of them is neither a file system nor a function that gives one, or a letter is none.
    """

    def __init__(self, files: Files | None, drives: Mapping[str, Files] | None = None) -> None:
        self._files = None if files is None else _Source(files, "files")
        self._drives = {letter: _Source(each, "drives") for letter, each in (drives or {}).items()}
        for letter in self._drives:
            if not (len(letter) == 1 and letter.isascii() and letter.isalpha()):
                raise ConfigError(f"{letter!r} is no letter", key="drives")
        if self._files is None and not self._drives:
            raise ConfigError("there is nothing to serve: no file system and no drive", key="files")

    def serve(self, session: RawSession) -> int:
        """Serve one transfer."""
        from dunnart.scp import Places, ScpCommand, serve

        try:
            command = ScpCommand.parse(session.facts.command or b"")
        except ValueError as error:
            _refused(session, f"scp: {error}")
            return 1
        files = None if self._files is None else self._files.of(session)
        drives = {letter: source.of(session) for letter, source in self._drives.items()}
        if (files is None and self._files is not None) or None in drives.values():
            return 1
        places = Places(files, cast("dict[str, FileSystem]", drives))
        sock = session.socket()
        return serve(command, places, sock.recv, sock.sendall)


class _Source:
    """A file system, or a function that gives one."""

    def __init__(self, files: Files, name: str) -> None:
        if not _is_files(files) and (not callable(files) or isinstance(files, type)
                                     or inspect.iscoroutinefunction(files)):  # fmt: skip
            raise ConfigError(f"{files!r} is no file system, and no def function(session) that gives one", key=name)
        self._files = files

    def of(self, session: RawSession) -> FileSystem | None:
        """Give a session's file system; None: there is none, which its user was told."""
        if _is_files(self._files):
            return cast("FileSystem", self._files)
        assert callable(self._files)
        try:
            found = self._files(session)
            if not _is_files(found):
                raise TypeError(f"{self._files!r} gave {found!r}, which is no file system")  # noqa: TRY301 - as any other fault of the function
        except Exception as error:  # noqa: BLE001 - the function's fault ends its session alone
            session.host.failed(session.facts.connection, error)
            session.refuse("the server has no files for you", 1)
            return None
        return found


def _crowded() -> bool:
    """Whether the program has few descriptors left: its server needs some to accept connections."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free: list[int] = []  # the lowest ones: they say how many are taken, but for gaps between those
    try:
        free.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        while len(free) < _GAPS:
            free.append(os.dup(free[0]))
    except OSError:
        return True
    finally:
        for each in free:
            os.close(each)
    return most != resource.RLIM_INFINITY and free[-1] >= most * 3 // 4


def _known(requests: Collection[str]) -> frozenset[str]:
    from dunnart.sftp.messages import REQUESTS

    for name in requests:
        if name not in REQUESTS:
            raise ConfigError(f"{name!r} is no request of SFTP", key="requests")
    return frozenset(requests)


def _is_files(value: object) -> bool:
    return not isinstance(value, type) and callable(getattr(value, "real_path", None))


def _refused(session: RawSession, reason: str) -> None:
    """Tell the user and the log why a client gets nothing."""
    report(_LOG, logging.INFO, session.facts.connection, "session %d: %s", session.channel, clean(reason))
    session.refuse(reason, 1)
