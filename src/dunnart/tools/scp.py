"""`dunnart scp`: copies files to, from and between servers. Flags are OpenSSH's; the protocol is SFTP, with -O SCP."""

from __future__ import annotations

import errno
import getopt
import os
import sys
from typing import TYPE_CHECKING

from dunnart.client.transfer_sides import LocalSide, RemoteSide
from dunnart.client.transfers import Transfer
from dunnart.errors import ConfigError, DunnartError, LimitExceeded
from dunnart.tools.destinations import Host, Place, place
from dunnart.tools.flags import TransferFlags
from dunnart.tools.shown import failure, shown

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from dunnart.client.sftp import Sftp
    from dunnart.client.transfers import Side
    from dunnart.tools.foreground import Foreground
    from dunnart.tools.progress import Progress
    from dunnart.tools.ways import Way

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
    from dunnart.tools.foreground import Foreground

    if "--help" in arguments or "-h" in arguments:
        print(USAGE, end="")
        return 0
    try:
        flags = TransferFlags(arguments, "346BCc:D:F:i:J:l:Oo:P:pqrS:Tv")
        places = _places(flags)
    except (ConfigError, getopt.GetoptError) as error:
        print(f"dunnart scp: {error}; dunnart scp --help tells more", file=sys.stderr)
        return 1
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # what a terminal cannot show
    with Foreground() as front:
        copying = _Copying(front, flags)
        try:
            copying.all(places[:-1], places[-1])
        except DunnartError as error:
            print(f"dunnart scp: {shown(str(error))}", file=sys.stderr)
            return 255
        except OSError as error:
            copying.failed("", error)
        finally:
            copying.close()
        return 1 if copying.failures else 0


def _places(flags: TransferFlags) -> list[Place]:
    if len(flags.rest) < 2:
        raise ConfigError("a source and a target are wanted")
    if flags.wishes.direct and "O" in flags:
        raise ConfigError("-D is for SFTP, and not for -O")
    return [place(text) for text in flags.rest]


class _Copying:
    """The copies of one command line, and the connections that they need."""

    def __init__(self, front: Foreground, flags: TransferFlags) -> None:
        from dunnart.tools.progress import Progress

        self._front = front
        self._flags = flags
        self._ways: dict[Host | None, Way] = {}
        self._sessions: dict[Host | None, Sftp] = {}
        self._watch: Progress = Progress(quiet="q" in flags)
        self._watch.failed = self.failed  # type: ignore[method-assign] # each is told, and the rest goes on
        self._watch.skipped = lambda path, why: self._complain(f"{shown(path)} {why}: left out")  # type: ignore[method-assign]
        self.failures = 0

    def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            self._front.call(session.close())
        for way in self._ways.values():
            self._front.call(way.close())

    def failed(self, path: str, error: OSError) -> None:
        """Tell of something that could not be copied."""
        self.failures += 1
        if not path:
            self._complain(failure(error))
        else:
            self._complain(f"{shown(path)}: {shown(error.strerror or str(error))}")

    def _complain(self, text: str) -> None:
        self._watch.interrupted()
        sys.stdout.flush()
        print(f"dunnart scp: {text.removeprefix('scp: ')}", file=sys.stderr, flush=True)

    def all(self, sources: Sequence[Place], target: Place) -> None:
        """Copy."""
        if "O" in self._flags and any(each.host for each in (*sources, target)):
            self._by_scp(sources, target)
            return
        host = self._host(target)
        there = target.path if host is None else self._expanded(host, target.path)
        if len(sources) > 1 and not self._is_directory(host, there):
            raise NotADirectoryError(20, "is no directory", there)
        for source in sources:
            self._one(source, host, there)

    def _host(self, where: Place) -> Host | None:
        # With -D there is one server, whatever the host is called.
        return Host("") if where.host is not None and self._flags.wishes.direct else where.host

    def _one(self, source: Place, target: Host | None, there: str) -> None:
        host = self._host(source)
        paths = [source.path]
        try:
            if host is not None:
                path = self._expanded(host, source.path)
                paths = self._front.call(self._sftp(host).glob(path)) or [path]
            if len(paths) > 1 and not self._is_directory(target, there):
                raise NotADirectoryError(20, "is no directory", there)
        except OSError as error:
            self.failed("", error)
            return
        for path in paths:
            transfer = Transfer(
                self._side(host), self._side(target), recursive="r" in self._flags, preserve="p" in self._flags,
                follow_links=True, watch=self._watch,
            )  # fmt: skip
            self._try(path, transfer.run(_bytes(path), _bytes(there)))

    def _try(self, path: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            self._front.call(work)
        except OSError as error:
            self.failed(path, error)
        except LimitExceeded as error:
            if any(session.closed for session in self._sessions.values()):
                raise
            self.failed(path, OSError(errno.ELOOP, str(error)))
        finally:
            self._watch.interrupted()

    # Connections.

    def _way(self, host: Host | None) -> Way:
        from dunnart.tools.ways import open_way

        if host not in self._ways:
            self._ways[host] = self._front.call(open_way(self._flags.wishes, host, self._front))
        return self._ways[host]

    def _sftp(self, host: Host) -> Sftp:
        from dunnart.client.sftp import Sftp

        async def begin(way: Way) -> Sftp:
            return await Sftp.begin(await way.sftp())

        if host not in self._sessions:
            self._sessions[host] = self._front.call(begin(self._way(host)))
        return self._sessions[host]

    def _side(self, host: Host | None) -> Side:
        return LocalSide() if host is None else RemoteSide(self._sftp(host))

    def _is_directory(self, host: Host | None, path: str) -> bool:
        if host is None:
            return os.path.isdir(path)
        try:
            return self._front.call(self._sftp(host).stat(path)).is_directory
        except FileNotFoundError:
            return False

    def _expanded(self, host: Host, path: str) -> str:
        return self._front.call(self._sftp(host).expand(path)) if path.startswith("~") else path

    # SCP.

    def _by_scp(self, sources: Sequence[Place], target: Place) -> None:
        from dunnart.client import scp

        flags = self._flags
        how = {"recursive": "r" in flags, "preserve": "p" in flags, "shell": True}
        here = [source.path for source in sources if source.host is None]
        log = _log if flags.wishes.verbose else lambda _: None
        if target.host is None:
            if len(sources) > 1 and not os.path.isdir(target.path):
                raise NotADirectoryError(20, "is no directory", target.path)
            for source in sources:
                if source.host is None:
                    self._one(source, None, target.path)
                    continue
                way = self._way(source.host)
                strict = "T" not in flags
                work = scp.get(way, [source.path], target.path, strict=strict, watch=self._watch, log=log, **how)
                self._try(source.path, work)
            return
        if here:
            work = scp.put(self._way(target.host), here, target.path, watch=self._watch, log=log, **how)
            self._try(here[0], work)
        for source in sources:
            if source.host is not None:
                one, other = self._way(source.host), self._way(target.host)
                directory = len(sources) > 1
                work = scp.relay(one, source.path, other, target.path, directory=directory, **how)
                self._try(source.path, work)


def _log(line: str) -> None:
    print(shown(line), file=sys.stderr)


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
