"""Connections for file transfers: by dunnart's client, by an ssh program, or to a server's program on this machine."""

from __future__ import annotations

import os
import shlex
from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from dunnart.client.program import Program
from dunnart.errors import ConfigError
from dunnart.records import dataclass
from dunnart.tools.ssh.configuration import quoted

if TYPE_CHECKING:
    from dunnart.client.scp import CommandStream
    from dunnart.client.sftp import ByteStream
    from dunnart.tools.ssh.route import Route
    from dunnart.tools.transfer.destinations import Host
    from dunnart.tools.transfer.foreground import Foreground


@dataclass
class ConnectionOptions:
    """What the command line says about connections.

    Attributes:
        program: an ssh program, which gets what it understands itself; empty: dunnart's client.
        direct: the command line of an SFTP server's program that is to be spoken to over pipes.
        subsystem: the subsystem for SFTP, or the path of a program at the host.
        port: of hosts that name none; None: 22, or what the ssh program thinks.
        family: of addresses: any, inet or inet6.
        identities: the files of private keys.
        options: those of -o, each a name and a value.
        passed: flags for the ssh program alone.
        file: the configuration file to read in the place of the user's and the system's; "none" for none.
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
    file: str | None = None
    jump: str = ""
    compress: bool = False
    batch: bool = False
    verbose: int = 0
    quiet: bool = False
    kilobits: int = 0


class HostConnection(Protocol):
    """What leads to a host."""

    async def sftp(self) -> ByteStream:
        """Begin SFTP there."""

    async def session(self, command: bytes, *, stderr: str = "drop") -> CommandStream:
        """Run a command there."""

    async def close(self) -> None:
        """Let go of it."""


async def connect(options: ConnectionOptions, host: Host | None, front: Foreground) -> HostConnection:
    """Connect to a host; with `direct` to no host, but to the program.

    Args:
        options: the command line's.
        host: the host; None with `direct` only.
        front: where the person is who may be asked for a password.

    Raises:
        ConfigError: an option is wrong, or is not for this kind of connection.
        DunnartError: the host cannot be reached, or lets nobody in.
    """
    connection: HostConnection
    if options.direct:
        connection = _LocalServer(shlex.split(options.direct))
    elif host is None:
        raise ConfigError("a host is missing")
    elif options.program:
        connection = _SshProgram(options, host)
    else:
        connection = await _Client.connect(options, host, front)
    if options.kilobits:
        from dunnart.tools.transfer.rate_limit import RateLimited

        connection = RateLimited(connection, options.kilobits)
    return connection


class _LocalServer:
    """A server's program on this machine."""

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


class _SshProgram:
    """An ssh program, started anew for each session."""

    def __init__(self, options: ConnectionOptions, host: Host) -> None:
        line: list[str | bytes] = [options.program, "-x", "-oPermitLocalCommand=no", "-oClearAllForwardings=yes"]
        line += ["-oRemoteCommand=none", "-oRequestTTY=no", *options.passed]
        line += [] if options.file is None else ["-F", options.file]
        line += [f"-o{name}={value}" for name, value in options.options]
        line += [part for path in options.identities for part in ("-i", path)]
        line += ["-J", options.jump] if options.jump else []
        line += ["-C"] * options.compress + ["-v"] * options.verbose + ["-q"] * options.quiet
        line += {"any": [], "inet": ["-4"], "inet6": ["-6"]}[options.family]
        line += ["-oBatchMode=yes"] * options.batch
        port = host.port or options.port
        line += ["-p", str(port)] if port else []
        line += ["-l", host.user] if host.user else []
        self._line = line
        self._host = host.name
        self._subsystem = options.subsystem

    async def sftp(self) -> ByteStream:
        flag = [] if "/" in self._subsystem else ["-s"]
        return await _start([*self._line, *flag, "--", self._host, self._subsystem])

    async def session(self, command: bytes, *, stderr: str = "drop") -> CommandStream:
        return await _start([*self._line, "--", self._host, command])

    async def close(self) -> None:
        """Each ends with its session."""


class _Client:
    """A connection of dunnart's own, perhaps through others."""

    def __init__(self, route: Route, subsystem: str) -> None:
        self._route = route
        self._connection = route.connection
        self._subsystem = subsystem

    @classmethod
    async def connect(cls, options: ConnectionOptions, host: Host, front: Foreground) -> _Client:
        from dunnart.tools.ssh.reading import hop_options, read_options
        from dunnart.tools.ssh.route import connect

        if options.passed:
            raise ConfigError(f"{options.passed[0][:2]} is for an ssh program: say -S ssh")
        given = given_options(options)
        ports = [("Port", str(options.port))] if options.port else []
        jumps = [("ProxyJump", options.jump)] if options.jump else []
        found = read_options(host, [*ports, *jumps, *given], options.file)
        return cls(await connect(found, front, hop_options(given, options.file)), options.subsystem)

    async def sftp(self) -> ByteStream:
        if "/" in self._subsystem:
            return await self._connection.session(self._subsystem, stderr="drop")
        return await self._connection.session(subsystem=self._subsystem)

    async def session(self, command: bytes, *, stderr: str = "drop") -> CommandStream:
        return await self._connection.session(command, stderr="drop")

    async def close(self) -> None:
        await self._route.close()


def given_options(options: ConnectionOptions) -> list[tuple[str, str]]:
    """What the command line says about connections, as options of ssh_config."""
    found = [("IdentityFile", quoted(path)) for path in options.identities]
    found += [("Compression", "yes")] * options.compress + [("BatchMode", "yes")] * options.batch
    found += [("LogLevel", "quiet")] * options.quiet
    found += [("AddressFamily", options.family)] if options.family != "any" else []
    return found + options.options
