"""What the engine tells its owner, in order, in the past tense. Events carry no wire messages."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from dunnart.keys.rights import EVERYTHING, Rights
from dunnart.records import dataclass

if TYPE_CHECKING:
    from dunnart.keys.public import PublicKey
    from dunnart.protocol.negotiation import Negotiated


@dataclass(frozen=True, slots=True)
class VersionReceived:
    """The peer's version line came, without CR LF."""

    version: bytes


@dataclass(frozen=True, slots=True)
class KeysExchanged:
    """A key exchange ended; `first` for the one that opened the connection."""

    algorithms: Negotiated
    first: bool


@dataclass(frozen=True, slots=True)
class AuthFailed:
    """An authentication request was refused. `detail` and `unknown_user` are for the log, never for the peer."""

    user: str
    method: str
    detail: str = ""
    unknown_user: bool = False


@dataclass(frozen=True, slots=True)
class AuthPartial:
    """One method of a chain succeeded; more are needed."""

    user: str
    method: str


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The user is in.

    Attributes:
        user: the name that was authenticated.
        method: the last method of the chain.
        detail: the key's type and fingerprint, for the log.
        grants: what each `Allow` of the chain carried, in order.
        key: the public key that the last method proved, or None.
        rights: what every `Allow` of the chain lets the login do.
    """

    user: str
    method: str
    detail: str
    grants: tuple[object, ...]
    key: PublicKey | None = None
    rights: Rights = EVERYTHING


@dataclass(frozen=True, slots=True)
class BannerReceived:
    """The server sent a banner (client)."""

    text: str


@dataclass(frozen=True, slots=True)
class AuthRefused:
    """No credential is left that the server would take (client)."""

    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """A channel is open: one that we asked for, or one that a question granted."""

    channel: int
    channel_type: str


@dataclass(frozen=True, slots=True)
class ChannelDenied:
    """A limit kept the peer from opening a channel; no question was asked."""

    channel_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class ChannelRefused:
    """The peer refused a channel that we asked for."""

    channel: int
    reason_code: int
    description: str


@dataclass(slots=True)
class DataReceived:
    """Data came on a channel. The views are valid until the engine receives again.

    Attributes:
        channel: our number of the channel.
        chunks: the data, a view for each packet.
        stream: 0 for data, 1 for stderr (RFC 4254 §5.2).
    """

    channel: int
    chunks: list[memoryview]
    stream: int = 0

    @property
    def data(self) -> bytes:
        """All chunks as one copy."""
        return b"".join(self.chunks)


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """The peer granted window on a channel that had none left, so more can be sent."""

    channel: int


@dataclass(frozen=True, slots=True)
class EofReceived:
    """The peer will send no more data on a channel."""

    channel: int


@dataclass(frozen=True, slots=True)
class CloseReceived:
    """The peer has closed a channel whose answer is held back (`Engine.hold_close`): only requests go out on it."""

    channel: int


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The channel is gone; its number is free."""

    channel: int


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """The peer answered our channel or global (`channel` None) request."""

    channel: int | None
    success: bool
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class SendingResumed:
    """A key exchange ended, so channels may send again."""


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """The connection is over; nothing follows.

    Attributes:
        error: what went wrong, or None for an orderly end.
        by_peer: the peer ended it.
        reason_code: as in RFC 4253 §11.1, 0 if none was sent.
        stage: how far the connection had come, as `Stage.name`.
    """

    error: Exception | None
    by_peer: bool
    reason_code: int
    text: str
    stage: str = field(default="CONNECTION")


Event = (
    VersionReceived | KeysExchanged | AuthFailed | AuthPartial | LoggedIn | BannerReceived | AuthRefused
    | ChannelOpened | ChannelDenied | ChannelRefused | DataReceived | WindowOpened | EofReceived | CloseReceived
    | ChannelClosed | RequestAnswered | SendingResumed | ConnectionEnded
)  # fmt: skip
