"""The way to a host: straight, through other hosts, or through a program."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

from dunnart.errors import ConfigError
from dunnart.tools.ssh.arguments import client_arguments
from dunnart.tools.transfer.destinations import jump

if TYPE_CHECKING:
    import socket
    import subprocess
    from collections.abc import Callable

    from dunnart.client.connection import Connection
    from dunnart.tools.ssh.options import Options
    from dunnart.tools.transfer.destinations import Host
    from dunnart.tools.transfer.foreground import Foreground

    HopOptions = Callable[[Host, str], Options]
    """Gives the options for a host on the way, and the hosts before it as ProxyJump has them, "" for what files say."""

_MOST_HOPS = 16
_END_SECONDS = 2.0


class Route:
    """Connections, each through the one before it; made by `connect`.

    Attributes:
        connection: the one to the host.
    """

    def __init__(self) -> None:
        self._connections: list[Connection] = []
        self._programs: list[subprocess.Popen[bytes]] = []

    @property
    def connection(self) -> Connection:
        """The one to the host."""
        return self._connections[-1]

    async def close(self) -> None:
        """Close all, the nearest at last."""
        for connection in reversed(self._connections):
            await connection.close()
        for program in self._programs:
            await asyncio.to_thread(_end, program)

    async def extend(
        self, options: Options, front: Foreground, hop: HopOptions, change: Callable[[dict[str, Any]], dict[str, Any]],
        depth: int = 0,
    ) -> None:  # fmt: skip
        """Go on to a host, from where its own options say."""
        if depth > _MOST_HOPS:
            raise ConfigError(f"the way to {options.host} leads through more than {_MOST_HOPS} hosts", key="proxyjump")
        arguments = change(client_arguments(options, front))
        jumps = options.text("proxyjump", "none")
        command = options.text("proxycommand", "none")
        if jumps.lower() != "none":
            before, _, last = jumps.rpartition(",")
            host = jump(last)
            through = hop(host, before)
            # `Host *` with a ProxyJump names the jump host too.
            if before or not _same(through, options) or host.user not in {"", options.user}:
                await self.extend(through, front, hop, change, depth + 1)
                arguments["through"] = self.connection
        elif command.lower() != "none":
            arguments["sock"] = self._start(options.expanded(command))
        from dunnart.client import connect as connect_to

        self._connections.append(await connect_to(**arguments))

    def _start(self, command: str) -> socket.socket:
        import socket
        import subprocess

        ours, theirs = socket.socketpair()
        shell = os.environ.get("SHELL") or "/bin/sh"
        with theirs:
            try:
                self._programs.append(
                    subprocess.Popen([shell, "-c", f"exec {command}"], stdin=theirs.fileno(), stdout=theirs.fileno())
                )
            except OSError as error:
                ours.close()
                raise ConfigError(f"{shell} cannot be started: {error.strerror}", key="proxycommand") from error
        return ours


def _same(one: Options, other: Options) -> bool:
    return (one.host.lower(), one.port) == (other.host.lower(), other.port)


def _end(program: subprocess.Popen[bytes]) -> None:
    from subprocess import TimeoutExpired

    program.send_signal(signal.SIGHUP)
    try:
        program.wait(_END_SECONDS)
    except TimeoutExpired:
        program.kill()
        program.wait()


async def connect(
    options: Options, front: Foreground, hop: HopOptions,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda arguments: arguments,
) -> Route:  # fmt: skip
    """Connect to a host.

    Args:
        options: for the host.
        front: where the person is who may be asked for a password.
        hop: gives the options for hosts on the way.
        change: what is to be made of the arguments of each connection.

    Raises:
        ConfigError: an option is wrong.
        DunnartError: a host cannot be reached, or lets nobody in.
    """
    route = Route()
    try:
        await route.extend(options, front, hop, change)
    except BaseException:
        await route.close()
        raise
    return route
