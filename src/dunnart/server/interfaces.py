"""What a plug-in can be: an interface of one method for each part of the server that can be replaced or added to.

An object with the right method will do; nothing needs to be inherited. Unless its interface says otherwise a method
runs on the application's event loop, must not block it, and may raise: that fails the one login, channel or request it
was asked about, and is logged in one line (`log_levels` = debug adds the traceback). No answer within the server's
`callback_seconds` counts as a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal, Protocol

from dunnart.keys.public import PublicKey
from dunnart.protocol.questions import Allow, Deny, Refusal
from dunnart.records import dataclass
from dunnart.server.applications import AsyncHandler, Handler, Middleware
from dunnart.server.authentication import Attempt, Authenticator
from dunnart.server.facts import Address, ConnectionFacts
from dunnart.server.forwarding import ClientLink, Listener, Scope, Tunnel
from dunnart.server.raw import Application

__all__ = [
    "AccountCheck",
    "Application",
    "AsyncHandler",
    "AuditEvent",
    "AuditSink",
    "Authenticator",
    "ChannelOpening",
    "ChannelType",
    "ClientLink",
    "ConnectionRequest",
    "Forward",
    "ForwardingPolicy",
    "GlobalRequestHandler",
    "Handler",
    "KeySource",
    "Listener",
    "Middleware",
    "Refusal",
    "Scope",
    "SessionRequest",
    "SessionRequestHandler",
    "Tunnel",
]


class AccountCheck(Protocol):
    """Has the last word on every login, whatever its method: may this user in, here and now?

    One with a method `ended(connection)` is told when a connection is gone for which it has been asked.
    """

    async def admit(self, attempt: Attempt, allowed: Allow) -> Allow | Deny:
        """Decide on a user who has proved who he is.

        Args:
            attempt: the last request of the login.
            allowed: what its authenticator has allowed, which is to be given back, with more of a grant or fewer
                rights perhaps.
        """


class KeySource(Protocol):
    """Knows which keys may log in. The publickey method asks it after the files that `authorized_keys` names."""

    async def keys(self, user: str, address: str) -> Sequence[PublicKey | str]:
        """Give the keys that may log in as a user.

        Args:
            user: the name given; nothing is known of it yet.
            address: the peer's IP address, "" for a unix socket.

        Returns:
            The keys, or lines as in an authorized_keys file, whose options are obeyed; the first line that fits
            counts. None for a user who does not exist.
        """


@dataclass(frozen=True, slots=True)
class Forward:
    """A forwarding that a client asks for.

    Attributes:
        connection: whose client it is: who is logged in, from where, with which grants.
        kind: "connect": the server shall connect to `host` and `port`, as for `ssh -L`; "listen": it shall listen
            there, as for `ssh -R`; "connect-unix", "listen-unix": the same for the unix socket `path`; "agent", "x11":
            programs of a session shall reach the client's agent, or display.
        host: a name or address, as the client wrote it; "" to listen on stands for all.
        port: 0 to 65535; 0 lets the system choose where to listen.
        path: a file's name.
        address: for "connect" the IP address that would be connected to, which `host` is or stands for; for "listen"
            the one that would be listened on, if the client chooses it. A host with several is asked about for each.
    """

    connection: ConnectionFacts
    kind: Literal["connect", "listen", "connect-unix", "listen-unix", "agent", "x11"]
    host: str = ""
    port: int = 0
    path: str = ""
    address: str = ""

    @property
    def user(self) -> str:
        """Who is logged in."""
        return self.connection.user

    def __str__(self) -> str:
        if self.kind.endswith("-unix"):
            return f"{self.kind} {self.path!r}"
        return f"{self.kind} {self.host!r} port {self.port}" if self.kind in {"connect", "listen"} else self.kind


@dataclass(frozen=True, slots=True)
class ChannelOpening:
    """A client wants to open a channel that is no session (RFC 4254 §5.1).

    Attributes:
        connection: whose it is.
        channel_type: its type, as "direct-tcpip" or "name@example.org".
        data: what the type defines beside the window, as it came.
        client: tells what it may have forwarded.
    """

    connection: ConnectionFacts
    channel_type: str
    data: bytes
    client: ClientLink = field(repr=False, compare=False)


class ChannelType(Protocol):
    """Serves channels of one type beside "session"."""

    async def open(self, opening: ChannelOpening) -> Handler | Tunnel | Refusal:
        """Decide on a channel.

        Returns:
            What serves it, as it would serve a session: `kind` is the channel's type, and there are no command,
            environment or terminal. Or a `Tunnel`, which joins it with a connected socket. Or a `Refusal`, whose reason
            and text the client gets.
        """


@dataclass(frozen=True, slots=True)
class ConnectionRequest:
    """A client asks something of the connection: a global request (RFC 4254 §4).

    Attributes:
        connection: whose it is.
        name: the request's name, as "name@example.org".
        data: what came with it.
        client: for what goes on after the answer: listening for the client, opening channels towards it.
    """

    connection: ConnectionFacts
    name: str
    data: bytes
    client: ClientLink = field(repr=False, compare=False)


class GlobalRequestHandler(Protocol):
    """Answers global requests of one name."""

    async def answer(self, request: ConnectionRequest) -> bool | bytes:
        """Do what was asked.

        Returns:
            True, or bytes for the client, when it was done; False when not. A client that wants no answer gets none.
        """


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A client asks something of a session that has not begun: a channel request that the server does not know.

    Attributes:
        connection: whose it is.
        channel: the session's number on it.
        name: the request's name, as "x11-req".
        data: what came with it.
        session: ends with the session's channel, whether or not it ever begins.
        client: as in `ConnectionRequest`.
    """

    connection: ConnectionFacts
    channel: int
    name: str
    data: bytes
    session: Scope = field(repr=False, compare=False)
    client: ClientLink = field(repr=False, compare=False)


class SessionRequestHandler(Protocol):
    """Answers requests of one name that come for a session before it begins."""

    async def prepare(self, request: SessionRequest) -> Mapping[str, str] | None:
        """Do what was asked. The session begins after the answer, however long that takes.

        Returns:
            Variables for the session's environment, perhaps none; or None: it was not done.
        """


class ForwardingPolicy(Protocol):
    """Decides what may be forwarded.

    Where there are several, all must allow it. So must every grant of the login that is a policy as well: what an
    authenticator granted with `Allow(grant)`, and that has this method.
    """

    async def allows(self, forward: Forward) -> bool:
        """Tell whether a forwarding may be; what is not True refuses it."""


Details = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that somebody may want to prove later.

    Attributes:
        time: when, in seconds since 1970 (UTC).
        kind: what happened: "login", "login-failed", "session-begin", "session-end", "forward", …; with files what a
            `dunnart.sftp.FileEvent` calls it: "uploaded", "removed", …; there may be more in the future.
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
