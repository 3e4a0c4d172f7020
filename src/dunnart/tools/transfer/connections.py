"""The ways that file transfers take to a host: dunnart's client, an ssh program, or a server's program itself."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dunnart.client.program import Program
from dunnart.errors import ConfigError
from dunnart.tools.asking import Asking
from dunnart.tools.destinations import jump

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.client.connection import Connection
    from dunnart.client.scp import CommandStream
    from dunnart.client.sftp import ByteStream
    from dunnart.tools.destinations import Host
    from dunnart.tools.foreground import Foreground

_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
_YES = {"yes": True, "no": False}


@dataclass
class Wishes:
    """What the command line says about connections.

    Attributes:
        program: an ssh program, which gets what it understands itself; empty: dunnart's client.
        direct: the command line of an SFTP server's program that is to be spoken to over pipes.
        subsystem: the subsystem for SFTP, or the path of a program at the host.
        options: those of -o, names in lower case.
        passed: flags for the ssh program alone.
        jump: the hosts to go through, with commas between them.
        kilobits: how much may flow each second, in kbit; 0: all.
    """

    program: str = ""
    direct: str = ""
    subsystem: str = "sftp"
    port: int | None = None
    family: str = "any"
    identities: list[str] = field(default_factory=list)
    options: list[tuple[str, str]] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    jump: str = ""
    compress: bool = False
    batch: bool = False
    verbose: int = 0
    quiet: bool = False
    kilobits: int = 0


class Way(Protocol):
    """An open way to a host."""

    async def sftp(self) -> ByteStream:
        """Begin SFTP there."""

    async def session(self, command: bytes, *, stderr: str = "drop") -> CommandStream:
        """Run a command there."""

    async def close(self) -> None:
        """Let go of it."""


async def open_way(wishes: Wishes, host: Host | None, front: Foreground) -> Way:
    """Open the way to a host; to none with `direct`.

    Raises:
        ConfigError: an option is wrong, or is not for this way.
        DunnartError: there is no way in.
    """
    way: Way
    if wishes.direct:
        way = _Direct(shlex.split(wishes.direct))
    elif host is None:
        raise ConfigError("a host is missing")
    elif wishes.program:
        way = _Ssh(wishes, host)
    else:
        way = await _Client.open(wishes, host, front)
    return _Slow(way, wishes.kilobits) if wishes.kilobits else way


class _Direct:
    """A server's program here."""

    def __init__(self, command: list[str]) -> None:
        self._command = command

    async def sftp(self) -> ByteStream:
        return await _start(self._command)

    async def session(self, command: bytes, *, stderr: str = "drop") -> CommandStream:
        raise ConfigError(f"-D is for SFTP; {command[:20]!r} cannot be run by it")

    async def close(self) -> None:
        """Nothing is left."""


async def _start(command: list[str | bytes] | list[str]) -> Program:
    try:
        return await Program.start(command)
    except OSError as error:
        raise ConfigError(f"{os.fsdecode(command[0])} cannot be started: {error.strerror}") from error


class _Ssh:
    """An ssh program, started anew for each session."""

    def __init__(self, wishes: Wishes, host: Host) -> None:
        line: list[str | bytes] = [wishes.program, "-x", "-oPermitLocalCommand=no", "-oClearAllForwardings=yes"]
        line += ["-oRemoteCommand=none", "-oRequestTTY=no", *wishes.passed]
        line += [f"-o{name}={value}" for name, value in wishes.options]
        line += [part for path in wishes.identities for part in ("-i", path)]
        line += ["-J", wishes.jump] if wishes.jump else []
        line += ["-C"] * wishes.compress + ["-v"] * wishes.verbose + ["-q"] * wishes.quiet
        line += {"any": [], "inet": ["-4"], "inet6": ["-6"]}[wishes.family]
        line += ["-oBatchMode=yes"] * wishes.batch
        port = host.port or wishes.port
        line += ["-p", str(port)] if port else []
        line += ["-l", host.user] if host.user else []
        self._line = line
        self._host = host.name
        self._subsystem = wishes.subsystem

    async def sftp(self) -> ByteStream:
        if "/" in self._subsystem:
            return await _start([*self._line, "--", self._host, self._subsystem])
        return await _start([*self._line, "-s", "--", self._host, self._subsystem])

    async def session(self, command: bytes, *, stderr: str = "drop") -> CommandStream:
        return await _start([*self._line, "--", self._host, command])

    async def close(self) -> None:
        """Each ends with its session."""


class _Client:
    """A connection of dunnart's own, perhaps through others."""

    def __init__(self, connections: list[Connection], subsystem: str) -> None:
        self._connections = connections
        self._connection = connections[-1]
        self._subsystem = subsystem

    @classmethod
    async def open(cls, wishes: Wishes, host: Host, front: Foreground) -> _Client:
        from dunnart.client import connect

        if wishes.passed:
            raise ConfigError(f"{wishes.passed[0][:2]} is for an ssh program: say -S ssh")
        hops = [jump(text) for text in wishes.jump.split(",")] if wishes.jump else []
        opened: list[Connection] = []
        try:
            for each in [*hops, host]:
                options = _ClientOptions(wishes, each, front, hop=each is not host)
                through = opened[-1] if opened else None
                opened.append(await connect(options.name, options.port, through=through, **options.arguments))
        except BaseException:
            await _close(opened)
            raise
        return cls(opened, wishes.subsystem)

    async def sftp(self) -> ByteStream:
        if "/" in self._subsystem:
            return await self._connection.session(self._subsystem, stderr="drop")
        return await self._connection.session(subsystem=self._subsystem)

    async def session(self, command: bytes, *, stderr: str = "drop") -> CommandStream:
        return await self._connection.session(command, stderr="drop")

    async def close(self) -> None:
        await _close(self._connections)


async def _close(connections: list[Connection]) -> None:
    for connection in reversed(connections):
        await connection.close()


class _ClientOptions:
    """What options of ssh_config mean for `dunnart.client.connect`."""

    def __init__(self, wishes: Wishes, host: Host, front: Foreground, *, hop: bool) -> None:
        from dunnart.crypto.profiles import PROFILES

        given: dict[str, list[str]] = {}
        for name, value in wishes.options:
            given.setdefault(name.lower(), []).append(value)
        self._given = given
        self.name = self._one("hostname", host.name)
        port = self._number("port", 22)
        self.port = host.port or wishes.port or port
        if hop:  # those are the last one's
            self.name, self.port = host.name, host.port or 22
        family = self._choice("addressfamily", self._one("addressfamily", "any"), _FAMILIES)
        family = family if wishes.family == "any" else wishes.family
        user = self._one("user", "")
        user = host.user or ("" if hop else user) or _this_user()
        known = self._one("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2").split()
        system = self._one("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2").split()
        strict = self._choice("stricthostkeychecking", self._one("stricthostkeychecking", "ask"),
                              {"yes": 0, "ask": 0, "accept-new": 0, "no": 0, "off": 0})  # fmt: skip
        batch = self._flag("batchmode", default=False) or wishes.batch
        passwords = self._flag("passwordauthentication", default=True) and not batch
        questions = self._flag("kbdinteractiveauthentication", default=True) and not batch
        trust = strict in {"accept-new", "no", "off"}
        asking = Asking(front, user, host.name, remember=known[0] if known else "~/.ssh/known_hosts", trust=trust)
        keys = [*wishes.identities, *given.pop("identityfile", [])]
        agent = self._one("identityagent", "")
        identities_only = self._flag("identitiesonly", default=False)
        algorithms = PROFILES["default"]
        if self._flag("compression", default=False) or wishes.compress:
            from dataclasses import replace

            algorithms = replace(algorithms, compression=("zlib@openssh.com", "none"))
        self.arguments: dict[str, Any] = {
            "user": user,
            "keys": [os.path.expanduser(path) for path in keys] or None,
            "agent": False if agent == "none" or identities_only else agent or True,
            "password": asking.password if passwords else None,
            "prompt": asking.prompt if questions else None,
            "passphrase": None if batch else asking.passphrase,
            "known_hosts": [*known, *system],
            "unknown_host": asking.unknown_host if trust or (strict == "ask" and not batch) else None,
            "algorithms": algorithms,
            "family": _FAMILIES[family],
            "connect_seconds": float(self._number("connecttimeout", 30)),
        }
        if not self._flag("pubkeyauthentication", default=True):
            self.arguments |= {"keys": [], "agent": False}
        for name in ("loglevel", "updatehostkeys", "checkhostip"):  # nothing here depends on them
            given.pop(name, None)
        if given:
            raise ConfigError(f"the option {min(given)!r} is not known here; -S ssh has all of ssh_config's")

    def _one(self, name: str, default: str) -> str:
        return self._given.pop(name, [default])[0]

    def _number(self, name: str, default: int) -> int:
        value = self._one(name, str(default))
        if not value.isdecimal() or len(value) > 5:
            raise ConfigError(f"{value!r} is no number", key=name)
        return int(value)

    def _flag(self, name: str, *, default: bool) -> bool:
        value = self._one(name, "yes" if default else "no")
        return bool(_YES[self._choice(name, value, _YES)])

    @staticmethod
    def _choice(name: str, value: str, choices: dict[str, Any]) -> str:
        if value.lower() not in choices:
            raise ConfigError(f"{value!r} is none of {', '.join(choices)}", key=name)
        return value.lower()


def _this_user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise ConfigError("say who to log in as: this process's user has no name") from error


class _Slow:
    """A way on which only so much flows."""

    def __init__(self, way: Way, kilobits: int) -> None:
        self._way = way
        self._bytes_a_second = kilobits * 1000 / 8
        self._free_at = 0.0

    async def sftp(self) -> ByteStream:
        return _SlowStream(await self._way.sftp(), self.pass_by)

    async def session(self, command: bytes, *, stderr: str = "drop") -> CommandStream:
        return _SlowStream(await self._way.session(command, stderr=stderr), self.pass_by)

    async def close(self) -> None:
        await self._way.close()

    async def pass_by(self, count: int) -> None:
        """So many bytes go by; it takes as long as it must."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + count / self._bytes_a_second
        await asyncio.sleep(self._free_at - now)


class _SlowStream:
    _PIECE = 16 * 1024

    def __init__(self, stream: Any, pass_by: Callable[[int], Any]) -> None:  # noqa: ANN401 - any of the streams
        self._stream = stream
        self._pass_by = pass_by

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - likewise
        return getattr(self._stream, name)

    async def read(self, limit: int) -> bytes:
        data: bytes = await self._stream.read(min(limit, self._PIECE))
        await self._pass_by(len(data))
        return data

    async def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        for at in range(0, len(view), self._PIECE):
            piece = view[at : at + self._PIECE]
            await self._pass_by(len(piece))
            await self._stream.write(piece)

    async def close(self) -> None:
        await self._stream.close()
