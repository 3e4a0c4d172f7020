"""What a plug-in can be: an interface of one method for each part of the server that can be replaced or added to.

An object with the right method will do; nothing needs to be inherited. Unless its interface says otherwise a method
runs on the application's event loop, must not block it, and may raise: that fails the one login, channel or request it
was asked about, and is logged in one line (`log_levels` = debug adds the traceback). No answer within the server's
`callback_seconds` counts as a refusal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from dunnart.keys.public import PublicKey
from dunnart.protocol.questions import Refusal
from dunnart.server.applications import AsyncHandler, Handler, Middleware
from dunnart.server.authentication import Authenticator
from dunnart.server.facts import Address, ConnectionFacts
from dunnart.server.raw import Application

__all__ = [
    "Application",
    "AsyncHandler",
    "AuditEvent",
    "AuditSink",
    "Authenticator",
    "ChannelOpening",
    "ChannelType",
    "ConnectionRequest",
    "Forward",
    "ForwardingPolicy",
    "GlobalRequestHandler",
    "Handler",
    "KeySource",
    "Middleware",
    "Refusal",
]


class KeySource(Protocol):
    """Knows which keys may log in. The publickey method asks it after the files that `authorized_keys` names."""

    async def keys(self, user: str, address: str) -> Sequence[PublicKey]:
        """Give the keys that may log in as a user.

        Args:
            user: the name given; nothing is known of it yet.
            address: the peer's IP address, "" for a unix socket.

        Returns:
            The keys, in any order; none for a user who does not exist.
        """


@dataclass(frozen=True, slots=True)
class Forward:
    """A forwarding that a client asks for.

    Attributes:
        user: who is logged in.
        address: the client's IP address, "" for a unix socket.
        kind: "local": the server shall connect to `host` and `port`; "remote": it shall listen there; "unix": `path`
            is a socket's, to connect to or to listen on.
        host: a name or address, as the client wrote it.
        port: 0 to 65535; 0 lets the system choose where to listen.
        path: a file's name, for "unix".
    """

    user: str
    address: str
    kind: Literal["local", "remote", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""


async def _refuse(_forward: Forward) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class ChannelOpening:
    """A client wants to open a channel that is no session (RFC 4254 §5.1).

    Attributes:
        connection: whose it is.
        channel_type: its type, as "direct-tcpip" or "name@example.org".
        data: what the type defines beside the window, as it came.
        allows: asks the server's forwarding policies, for types that forward; without any it refuses.
    """

    connection: ConnectionFacts
    channel_type: str
    data: bytes
    allows: Callable[[Forward], Awaitable[bool]] = field(default=_refuse, repr=False, compare=False)


class ChannelType(Protocol):
    """Serves channels of one type beside "session"."""

    async def open(self, opening: ChannelOpening) -> Handler | Refusal:
        """Decide on a channel.

        Returns:
            What serves it, as it would serve a session: `kind` is the channel's type, and there are no command,
            environment or terminal. Or a `Refusal`, whose reason and text the client gets.
        """


@dataclass(frozen=True, slots=True)
class ConnectionRequest:
    """A client asks something of the connection: a global request (RFC 4254 §4).

    Attributes:
        connection: whose it is.
        name: the request's name, as "name@example.org".
        data: what came with it.
    """

    connection: ConnectionFacts
    name: str
    data: bytes


class GlobalRequestHandler(Protocol):
    """Answers global requests of one name."""

    async def answer(self, request: ConnectionRequest) -> bool | bytes:
        """Do what was asked.

        Returns:
            True, or bytes for the client, when it was done; False when not. A client that wants no answer gets none.
        """


class ForwardingPolicy(Protocol):
    """Decides what may be forwarded. Where there are several, all must allow it."""

    async def allows(self, forward: Forward) -> bool:
        """Tell whether a forwarding may be; what is not True refuses it."""


Details = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that somebody may want to prove later.

    Attributes:
        time: when, in seconds since 1970 (UTC).
        kind: what happened: "login", "login-failed", "session-begin", "session-end", "forward", …; there may be more
            in the future.
        connection: the connection's number, as the log shows it.
        user: the name that logged in, or tried to. A peer's word: may hold any character.
        peer: the client's address.
        details: more, by name, as "method" of a login or "command" of a session. May hold peers' words as well.
    """

    time: float
    kind: str
    connection: int
    user: str
    peer: Address
    details: Details = field(default_factory=dict)


class AuditSink(Protocol):
    """Keeps a record of what happens."""

    def record(self, event: AuditEvent) -> None:
        """Take note. Called on the protocol's event loop, so it must return at once."""
