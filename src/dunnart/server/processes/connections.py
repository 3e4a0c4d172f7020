"""The connections of one protocol process, as the application's side knows them, and does something to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunnart.errors import DecodeError
from dunnart.protocol.questions import Refusal
from dunnart.protocol.requests import ExitSignal, ExitStatus
from dunnart.server.processes import frames

if TYPE_CHECKING:
    import asyncio

    from dunnart.runtime.streams import Streams
    from dunnart.server.facts import ConnectionFacts
    from dunnart.server.forwarding import Opening, Tunnel
    from dunnart.server.host import Host
    from dunnart.server.processes.link import Link
    from dunnart.server.processes.verified import Verified
    from dunnart.server.raw import RawSession


class KnownConnection:
    """A connection that the process has spoken of.

    Attributes:
        verified: what was seen of it here.
        deciding: what decides on a login now.
        facts: once a user is in.
        sessions: those that run, by channel.
        openings: channels that may be opened, but are not yet; no tunnels, whose sockets the process has.
        wanted: channels, tunnels too, that the client was asked for.
        prepared: sessions for which requests were answered, with the variables that this gave them.
        gone: it is over.
    """

    __slots__ = ("deciding", "facts", "gone", "openings", "prepared", "sessions", "verified", "wanted")

    def __init__(self, verified: Verified) -> None:
        self.verified = verified
        self.deciding: asyncio.Task[None] | None = None
        self.facts: ConnectionFacts | None = None
        self.sessions: dict[int, RawSession] = {}
        self.openings: set[int] = set()
        self.wanted: set[int] = set()
        self.prepared: dict[int, dict[str, str]] = {}
        self.gone = False

    @property
    def whose(self) -> ConnectionFacts:
        """Who has logged in."""
        if self.facts is None:
            raise DecodeError("nobody has logged in on this connection")
        return self.facts


class ConnectionHandle:
    """A connection in the process, for plug-ins: a `ConnectionControl`."""

    def __init__(self, host: Host, link: Link, number: int, connection: KnownConnection) -> None:
        self._host = host
        self._link = link
        self._number = number
        self._connection = connection

    @property
    def gone(self) -> bool:
        """The connection is over."""
        return self._connection.gone

    def open_channel(self, channel_type: str, data: bytes, opening: Opening) -> None:
        """Ask the client for a channel."""
        number, detail, tunnel = opening
        if len(self._connection.openings | self._connection.wanted) >= self._host.config.limits.channels:
            self._host.settled(self._number, number, Refusal(Refusal.RESOURCE_SHORTAGE, "too many channels"))
            return
        self._connection.wanted.add(number)
        if tunnel is None:
            self._connection.openings.add(number)
        send(
            self._link,
            frames.OpenWanted(self._number, channel_type, number, detail, tunnel is not None, data),
            tunnel,
        )


class ChannelHandle:
    """A channel in the process, for the session that serves it: a `ChannelControl`."""

    def __init__(self, link: Link, key: tuple[int, int]) -> None:
        self._link = link
        self._key = key

    def attach(self, streams: Streams) -> None:
        """Join the channel with descriptors."""
        frame = frames.Attach(*self._key, streams.terminal is not None, streams.typed)
        self._link.send(frame, streams.detach())

    def add_stderr(self, fd: int) -> None:
        """Join the channel's stderr with a descriptor."""
        self._link.send(frames.AddStderr(*self._key), (fd,))

    def end(self, how: ExitStatus | ExitSignal, text: str = "") -> None:
        """Close the channel once all output is sent."""
        status, signal = (how.status, "") if isinstance(how, ExitStatus) else (0, how.signal)
        self._link.send(frames.End(*self._key, status, signal, text))


def send(link: Link, frame: frames.Frame, tunnel: Tunnel | None) -> None:
    """Send a frame, with the socket of a tunnel if there is one, which is given away."""
    link.send(frame, () if tunnel is None else (tunnel.detach().detach(),))
