"""A server through its public face, in each placement, and its clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dunnart.protocol.requests import ExecRequest, ShellRequest, SubsystemRequest
from dunnart.server import PasswordCallback, Server
from tests.runtime.driver import HOST_KEY, Channel, Client, Clients, right_password

every_placement = pytest.mark.parametrize("placement", ["loop", "thread", "process"])
"""One process is what matters here; what only several of them share has tests in tests/runtime/test_placements.py."""


class Api(Clients):
    """A running server, and its clients."""

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", server.port))
        self.server = server


@asynccontextmanager
async def serving(placement: Any, handler: Any = None, **options: Any) -> AsyncIterator[Api]:
    """Run a server with these arguments; the others let in who knows the password."""
    options.setdefault("authenticators", [PasswordCallback(right_password)])
    options.setdefault("admission", None)
    server = Server(handler, host_keys=[HOST_KEY], listen="127.0.0.1:0", placement=placement, **options)
    async with server:
        running = Api(server)
        try:
            yield running
        finally:
            for client in running.clients:
                client.close()


async def begin(client: Client, *requests: Any, command: str | None = None, subsystem: str = "") -> Channel:
    """Open a session, send some requests, and begin what is wanted: a shell if nothing else is named."""
    channel = await client.session()
    last: Any = ShellRequest()
    if command is not None:
        last = ExecRequest(command.encode())
    elif subsystem:
        last = SubsystemRequest(subsystem)
    for request in (*requests, last):
        assert await client.ask(channel, request), request
    return channel


async def ended(client: Client, channel: Channel) -> int | None:
    """Wait until the channel is closed, and give its status."""
    await client.until(lambda: channel.closed)
    return channel.status


async def flood(client: Client, channel: Channel, most: int) -> int:
    """Send until the window is shut, at most so many bytes; gives how many went out."""
    sent = 0
    piece = bytes(32 * 1024)
    while sent < most:
        taken = client.send(channel, piece)
        sent += taken
        if not taken:
            return sent
        await client.until(lambda: not client.unsent)
    return sent
