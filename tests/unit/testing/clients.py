"""Real clients of a server of `dunnart.testing`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import asyncssh
import paramiko

from dunnart.testing.ssh_server import SshServer

SECONDS = 45.0
"""How long a client may take before it counts as hanging."""
Ssh = Callable[..., "subprocess.CompletedProcess[bytes]"]

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its thread reports each lost connection


@contextlib.contextmanager
def by_paramiko(server: SshServer, **arguments: Any) -> Iterator[Any]:
    """A paramiko client that is logged in."""
    with paramiko.SSHClient() as client:
        client.load_host_keys(server.known_hosts)
        login = {"username": server.user, "key_filename": server.key_path, "timeout": SECONDS} | arguments
        client.connect(server.host, server.port, allow_agent=False, look_for_keys=False, **login)
        yield client


def output_by_paramiko(client: Any, command: str) -> bytes:
    """What a command writes."""
    stdin, stdout, stderr = client.exec_command(command, timeout=SECONDS)
    with stdin, stdout, stderr:
        output: bytes = stdout.read()
        return output


def by_asyncssh(server: SshServer, command: str, **arguments: Any) -> Any:
    """Run a command by asyncssh, on an event loop of its own."""

    async def run() -> Any:
        login: dict[str, Any] = {"username": server.user, "client_keys": [server.key_path]} | arguments
        async with (
            asyncio.timeout(SECONDS),
            asyncssh.connect(
                server.host, server.port, known_hosts=server.known_hosts, config=None, agent_path=None, **login
            ) as connection,
        ):
            return await connection.run(command, encoding=None)

    return asyncio.run(run())


@contextlib.contextmanager
def dialled(server: SshServer) -> Iterator[socket.socket]:
    """A plain connection."""
    with socket.create_connection((server.host, server.port), SECONDS) as sock:
        yield sock


def received(sock: socket.socket) -> bytes:
    """All that comes until the end."""
    data = b""
    while more := sock.recv(65536):
        data += more
    return data
