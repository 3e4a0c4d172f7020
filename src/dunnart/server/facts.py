"""What is known of a connection and of a session: plain values that may travel to other threads and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple

from dunnart.keys.rights import EVERYTHING, Rights
from dunnart.protocol.requests import PtyRequest, WindowChange, clamp_side, decode_modes, encode_modes
from dunnart.records import dataclass

if TYPE_CHECKING:
    from dunnart.keys.public import PublicKey
    from dunnart.protocol.limits import Limits

_NO_VARIABLES: Mapping[str, str] = {}


class UserTerms(NamedTuple):
    """What holds for who wants to log in.

    Attributes:
        methods: chains of methods ("publickey,password"), each enough to log in; none: this user cannot.
        limits: bounds on the connection, of which these count: `max_auth_tries`, `sessions`, `idle_seconds`,
            `connection_seconds`, and what begins with `keepalive_` and, but for its deadline, with `rekey_`. None: the
            server's.
    """

    methods: Sequence[str] = ()
    limits: Limits | None = None


class Address(NamedTuple):
    """An IP address and port; ("", 0) for a unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.host:
            return "UNKNOWN"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Candidate(NamedTuple):
    """Somebody who wants to log in, and has proved nothing yet.

    Attributes:
        user: the name given.
        peer: the client's address; `local` is the one that it reached.
        connection: the connection's number.
    """

    user: str
    peer: Address
    local: Address
    connection: int


NOWHERE = Address("", 0)


@dataclass(frozen=True, slots=True)
class Terminal:
    """The client's terminal.

    Attributes:
        term: its type, as in $TERM.
        columns: its width in characters, 1 to 10,000, or 0 if the client does not say; `rows` likewise its height.
        width_pixels: its width in pixels, 0 if unknown; `height_pixels` likewise.
        modes: what the client set (RFC 4254 §8), opcode → value.
    """

    term: str
    columns: int
    rows: int
    width_pixels: int = 0
    height_pixels: int = 0
    modes: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, request: PtyRequest) -> Terminal:
        """What a pty request asks for."""
        return cls(request.term, 0, 0, modes=decode_modes(request.modes)).resized(request)

    def request(self) -> PtyRequest:
        """The pty request that `of` makes this of."""
        return PtyRequest(
            self.term, self.columns, self.rows, self.width_pixels, self.height_pixels, encode_modes(dict(self.modes))
        )

    def resized(self, change: WindowChange | PtyRequest) -> Terminal:
        """The same with another size; 0 leaves a side as it is (RFC 4254 §6.2)."""
        return Terminal(
            self.term, clamp_side(change.columns) if change.columns else self.columns,
            clamp_side(change.rows) if change.rows else self.rows,
            change.width_pixels, change.height_pixels, self.modes,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """A connection that a user has logged in on.

    Attributes:
        id: a number that no other connection of this server has.
        user: who logged in.
        peer: the client's address; `local` is the one that it reached.
        method: the last method of the login, as RFC 4252 names it.
        key: the public key that the user proved to have, or None.
        grants: what the authenticators granted.
        client_version: the client's version line, "SSH-2.0-OpenSSH_10.0", without what cannot be printed.
        rights: what the login may do beyond the server's configuration, by all that its authenticators allowed.
    """

    id: int
    user: str
    peer: Address
    local: Address
    method: str = "none"
    key: PublicKey | None = None
    grants: tuple[object, ...] = ()
    client_version: str = ""
    rights: Rights = EVERYTHING


class Asked(NamedTuple):
    """Something that a client asks for and a plug-in decides: a channel, a request of the connection or of a session.

    Attributes:
        connection: whose client it is.
        name: the channel's type, or the request's name.
        data: what came with it.
        channel: the session's number, for a request of one.
    """

    connection: ConnectionFacts
    name: str
    data: bytes
    channel: int = 0


@dataclass(slots=True)
class SessionFacts:
    """A session and what the client wants of it.

    Attributes:
        connection: whose session it is.
        channel: its number on that connection.
        kind: "shell", "exec" or "subsystem"; for a channel that is no session its type.
        command: what is to be executed, for "exec".
        subsystem: its name, for "subsystem".
        environment: the variables that the client set and may set.
        terminal: the client's terminal, if it wants one; kept up to date.
        opening: for a channel that is no session, the number under which the host knows what serves it.
        detail: what it is about, for records: where a forwarding leads.
    """

    connection: ConnectionFacts
    channel: int
    kind: str
    command: bytes | None = None
    subsystem: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: _NO_VARIABLES)
    terminal: Terminal | None = None
    opening: int = 0
    detail: str = ""
