"""The client: connections to SSH servers for asyncio programs.

    from dunnart.client import connect

    async with connect("example.org", user="alice") as connection:
        done = await connection.run("uname -a")
        print(done.status, done.stdout.decode())

`dunnart.client.blocking` is the same for programs without an event loop.
"""

from __future__ import annotations

from dunnart.client.agent import Agent
from dunnart.client.channel import Channel, Incoming
from dunnart.client.connecting import CLIENT_LIMITS, Connecting, connect
from dunnart.client.connection import Connection
from dunnart.client.forwarding import Endpoint, Listener
from dunnart.client.host_keys import TrustAnyHostKey, UnknownHost
from dunnart.client.session import Completed, Exit, Session, Terminal
from dunnart.keys.agent import AgentIdentity

__all__ = [  # noqa: RUF022 - in the order that a test wants of every package
    "Agent",
    "AgentIdentity",
    "CLIENT_LIMITS",
    "Channel",
    "Completed",
    "Connecting",
    "Connection",
    "Endpoint",
    "Exit",
    "Incoming",
    "Listener",
    "Session",
    "Terminal",
    "TrustAnyHostKey",
    "UnknownHost",
    "connect",
]
