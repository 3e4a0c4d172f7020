"""Every bound that dunnart puts on a peer, in one place (THREATS R4-R24)."""

from __future__ import annotations

from dunnart.records import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
OF_USERS = (
    "max_auth_tries", "sessions", "idle_seconds", "connection_seconds", "keepalive_seconds", "keepalive_count_max",
    "rekey_seconds", "rekey_bytes", "rekey_packets",
)  # fmt: skip
"""The limits that can be a user's own: what nobody but the engine looks at, from when a user is named."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may use. Every field can be set in the `[limits]` table of the configuration.

    Raises:
        ValueError: a value is out of its range; the message names the field.
    """

    identification_seconds: float = 5.0
    """How long the peer may take for its version line, once connected."""
    login_grace_seconds: float = 60.0
    """From accept to a successful login; nothing renews it. 0: no limit."""
    max_auth_tries: int = 6
    """Failed authentication requests of any method before the connection ends."""
    auth_delay_seconds: float = 0.0
    """The least time an authenticator's refusal takes; never under 5 ms."""
    password_bytes: int = 1024
    """Longer passwords fail unhashed."""
    packet_bytes: int = 256 * KIB
    """Largest packet (length field) after login."""
    packet_bytes_before_login: int = 35_000
    """Largest packet (length field) before login."""
    kexinit_bytes: int = 32 * KIB
    """Largest KEXINIT."""
    names_per_list: int = 200
    """Most algorithm names in one list of a KEXINIT."""
    rekey_seconds: float = 3600.0
    """Exchange keys anew after this time. 0: never by time."""
    rekey_bytes: int = GIB
    """Exchange keys anew after this many bytes in either direction. 0: only the cipher's own bound (RFC 4344)."""
    rekey_packets: int = 1 << 31
    """Exchange keys anew after this many packets in either direction; at most 2^31 (RFC 4344 §3.1)."""
    rekey_deadline_seconds: float = 60.0
    """A key exchange that takes longer ends the connection."""
    queued_reply_bytes: int = 64 * KIB
    """Replies held back while keys are exchanged; more ends the connection."""
    window_bytes: int = 2 * MIB
    """Receive window of a channel."""
    channel_packet_bytes: int = 32 * KIB
    """Largest channel data packet we accept."""
    output_bytes: int = 256 * KIB
    """Unsent bytes at which no more output of programs is read."""
    sessions: int = 10
    """Session channels open at once on one connection."""
    channels: int = 1000
    """Channels of every type open at once on one connection."""
    forwarded_connections: int = 1000
    """Channels beside sessions open at once on one connection: forwarded connections, of either direction."""
    listeners: int = 100
    """Addresses, ports and unix sockets that one connection has the server listen on."""
    environment_variables: int = 64
    """Variables of one session."""
    environment_bytes: int = 4 * KIB
    """Name and value of one variable."""
    command_bytes: int = 192 * KIB
    """An exec request's command."""
    pty_modes_bytes: int = KIB
    """Encoded terminal modes of a pty request."""
    pending_requests: int = 1000
    """Channel or global requests that wait for an answer, those that came in the same read included."""
    idle_seconds: float = 0.0
    """End a connection on which no channel data moved for so long. 0: never."""
    connection_seconds: float = 0.0
    """End a connection this long after it came, whatever it does. 0: never."""
    keepalive_seconds: float = 0.0
    """Ask a silent peer for a sign of life after so long. 0: never."""
    keepalive_count_max: int = 3
    """Unanswered signs of life in a row before the connection ends."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if not 1 <= self.rekey_packets <= 1 << 31:
            raise ValueError("rekey_packets must be 1 to 2147483648")
        if not KIB <= self.channel_packet_bytes <= self.packet_bytes - KIB:
            raise ValueError("channel_packet_bytes must be 1024 to packet_bytes - 1024")
        if not 4 * KIB <= self.packet_bytes_before_login <= self.packet_bytes <= 256 * KIB:
            raise ValueError("packet_bytes_before_login and packet_bytes must be 4096 to 262144, in this order")
        if self.window_bytes < self.channel_packet_bytes:
            raise ValueError("window_bytes must be at least channel_packet_bytes")
