"""`dunnart scp`: copies files to, from and between servers. Flags are OpenSSH's; the protocol is SFTP, with -O SCP."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from dunnart.client.paths import to_bytes
from dunnart.client.transfer_sides import LocalSide, RemoteSide
from dunnart.client.transfers import Transfer, is_directory
from dunnart.errors import ConfigError, LimitExceeded
from dunnart.tools.terminal import shown
from dunnart.tools.transfer import flags
from dunnart.tools.transfer.destinations import Host, Place, place

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from dunnart.client.sftp import Sftp
    from dunnart.client.transfers import Side
    from dunnart.tools.transfer.connections import HostConnection
    from dunnart.tools.transfer.flags import TransferFlags
    from dunnart.tools.transfer.foreground import Foreground

USAGE = """\
usage: dunnart scp [-346BCOpqrTv] [-c cipher] [-D server_command] [-F ssh_config] [-i key] [-J jump]
                   [-l kbit/s] [-o option] [-P port] [-S program] source ... target

A source or target is a path here, [user@]host:[path] or scp://[user@]host[:port][/path]. A path here with a colon in it
begins with ./ or /.

  -3      between two hosts through here (always so)   -P  the port
  -4, -6  one kind of address only                     -p  keep times and modes
  -B      ask nothing                                  -q  show no progress
  -C      compress                                     -r  directories too
  -D      speak to a server's program here             -S  an ssh program to connect with, such as ssh
  -i      a private key                                -T  with -O: take files whatever their names
  -l      at most so many kbit/s                       -v  tell what goes on
  -O      the protocol SCP in the place of SFTP        -c, -F: for the ssh program
  -J      go through another host
  -o      an option of ssh_config; of dunnart's client: see the documentation
"""


def run(arguments: Sequence[str]) -> int:
    """Run; gives the exit status: 0, 1 if something could not be copied, 255 if there is no way to a server."""
    return flags.run("scp", USAGE, "346BCc:D:F:i:J:l:Oo:P:pqrS:Tv", arguments, _places, _copy)


def _places(given: TransferFlags) -> list[Place]:
    if len(given.rest) < 2:
        raise ConfigError("a source and a target are wanted")
    if given.connection.direct and "O" in given:
        raise ConfigError("-D is for SFTP, and not for -O")
    return [place(text) for text in given.rest]


def _copy(front: Foreground, given: TransferFlags, places: list[Place]) -> int:
    copying = _Copying(front, given)
    try:
        copying.all(places[:-1], places[-1])
    finally:
        copying.close()
    return 1 if copying.progress.failures else 0


class _Copying:
    """The copies of one command line, and the connections that they need.

    Attributes:
        progress: shows them, and counts what could not be copied.
    """

    def __init__(self, front: Foreground, given: TransferFlags) -> None:
        from dunnart.tools.transfer.progress import Progress

        self._front = front
        self._flags = given
        self._connections: dict[Host | None, HostConnection] = {}
        self._sessions: dict[Host | None, Sftp] = {}
        self.progress = Progress(quiet="q" in given, prefix="dunnart scp: ")

    def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            self._front.call(session.close())
        for connection in self._connections.values():
            self._front.call(connection.close())

    def all(self, sources: Sequence[Place], target: Place) -> None:
        """Copy."""
        if "O" in self._flags and any(each.host for each in (*sources, target)):
            self._by_scp(sources, target)
            return
        host = self._host(target)
        there = target.path if host is None else self._expanded(host, target.path)
        if len(sources) > 1 and not self._is_directory(self._side(host), there):
            raise NotADirectoryError(errno.ENOTDIR, "is no directory", there)
        for source in sources:
            self._one(source, host, there)

    def _host(self, where: Place) -> Host | None:
        # With -D there is one server, whatever the host is called.
        return Host("") if where.host is not None and self._flags.connection.direct else where.host

    def _one(self, source: Place, target: Host | None, there: str) -> None:
        host = self._host(source)
        paths = [source.path]
        try:
            if host is not None:
                path = self._expanded(host, source.path)
                paths = self._front.call(self._sftp(host).glob(path)) or [path]
            if len(paths) > 1 and not self._is_directory(self._side(target), there):
                raise NotADirectoryError(errno.ENOTDIR, "is no directory", there)
        except OSError as error:
            self.progress.failed("", error)
            return
        for path in paths:
            transfer = Transfer(
                self._side(host), self._side(target), recursive="r" in self._flags, preserve="p" in self._flags,
                follow_links=True, watch=self.progress,
            )  # fmt: skip
            self._try(path, transfer.run(to_bytes(path), to_bytes(there)))

    def _try(self, path: str, work: Coroutine[Any, Any, None], *, summed_up: bool = False) -> None:
        """Do it; `summed_up`: its error only repeats what was told of single files, if anything was."""
        before = self.progress.failures
        try:
            self._front.call(work)
        except OSError as error:
            if not summed_up or self.progress.failures == before:
                self.progress.failed(path, error)
        except LimitExceeded as error:
            if any(session.closed for session in self._sessions.values()):
                raise
            self.progress.failed(path, OSError(errno.ELOOP, str(error)))
        finally:
            self.progress.interrupted()

    # Connections.

    def _connection(self, host: Host | None) -> HostConnection:
        from dunnart.tools.transfer.connections import connect

        if host not in self._connections:
            self._connections[host] = self._front.call(connect(self._flags.connection, host, self._front))
        return self._connections[host]

    def _sftp(self, host: Host) -> Sftp:
        from dunnart.client.sftp import Sftp

        if host not in self._sessions:
            stream = self._front.call(self._connection(host).sftp())
            self._sessions[host] = self._front.call(Sftp.begin(stream))
        return self._sessions[host]

    def _side(self, host: Host | None) -> Side:
        return LocalSide() if host is None else RemoteSide(self._sftp(host))

    def _is_directory(self, side: Side, path: str) -> bool:
        return self._front.call(is_directory(side, to_bytes(path)))

    def _expanded(self, host: Host, path: str) -> str:
        return self._front.call(self._sftp(host).expand(path)) if path.startswith("~") else path

    # SCP.

    def _by_scp(self, sources: Sequence[Place], target: Place) -> None:
        from dunnart.client import scp

        given = self._flags
        how = {"recursive": "r" in given, "preserve": "p" in given, "shell": True}
        here = [source.path for source in sources if source.host is None]
        log = _log if given.connection.verbose else lambda _: None
        if target.host is None:
            if len(sources) > 1 and not os.path.isdir(target.path):
                raise NotADirectoryError(errno.ENOTDIR, "is no directory", target.path)
            for source in sources:
                if source.host is None:
                    self._one(source, None, target.path)
                    continue
                connection = self._connection(source.host)
                strict = "T" not in given
                work = scp.get(
                    connection, [source.path], target.path, strict=strict, watch=self.progress, log=log, **how
                )
                self._try(source.path, work, summed_up=True)
            return
        directory = len(sources) > 1
        if here:
            there = self._connection(target.host)
            work = scp.put(there, here, target.path, directory=directory, watch=self.progress, log=log, **how)
            self._try(here[0], work, summed_up=True)
        for source in sources:
            if source.host is not None:
                one, other = self._connection(source.host), self._connection(target.host)
                work = scp.relay(one, source.path, other, target.path, directory=directory, **how)
                self._try(source.path, work)


def _log(line: str) -> None:
    print(shown(line), file=sys.stderr)
