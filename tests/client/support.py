"""A server in this process that the client of this project connects to."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dunnart
from dunnart.client import Connecting, connect
from dunnart.keys import KnownHosts

KEY = dunnart.PrivateKey.generate("ed25519")
HOST_KEY = dunnart.PrivateKey.generate("ed25519")
USER = "alice"
KIB = 1024
MIB = 1024 * KIB


async def program(session: dunnart.Session) -> int:
    """What the server runs: a few commands that tests need."""
    name, _, rest = (session.command or session.subsystem or "cat").partition(" ")
    if name == "echo":
        await session.write(rest)
    elif name == "both":
        await session.write("out")
        await session.stderr.write("err")
    elif name == "down":
        await session.write(noise(int(rest)))
    elif name == "up":
        digest = hashlib.sha256()
        while data := await session.read():
            digest.update(data)
        await session.write(digest.hexdigest())
    elif name == "exit":
        return int(rest)
    elif name == "deaf":
        await session.write("deaf")
        await asyncio.Event().wait()
    elif name == "terminal":
        await session.write(repr(session.terminal and (session.terminal.term, session.terminal.columns)))
    else:
        while data := await session.read():
            await session.write(data)
    return 0


_NOISE = os.urandom(MIB + 7)


def noise(size: int) -> bytes:
    """So many bytes that nothing compresses, and that do not line up with packets."""
    return (_NOISE * (size // len(_NOISE) + 1))[:size]


class Running:
    """A server, and how to connect to it."""

    def __init__(self, server: dunnart.Server) -> None:
        self.server = server
        self.port: int = server.addresses[0].port
        self.known = KnownHosts(f"[127.0.0.1]:{self.port} {HOST_KEY.public.line()}\n")

    def connect(self, **options: Any) -> Connecting:
        """Connect with what it knows."""
        defaults: dict[str, Any] = {"user": USER, "keys": [KEY], "agent": False, "known_hosts": self.known}
        return connect("127.0.0.1", self.port, **(defaults | options))


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Running]:
    """Run a server that lets KEY in."""
    options.setdefault("authenticators", [dunnart.PublicKeys(KEY.public.line())])
    options.setdefault("subsystems", {"cat": program})
    options.setdefault("host_keys", [HOST_KEY])
    server = dunnart.Server(program, exec=program, listen="127.0.0.1:0", **options)
    async with server:
        yield Running(server)
