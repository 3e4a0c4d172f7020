"""Channels to unix sockets that the server connects to, `ssh -L port:/path` (OpenSSH PROTOCOL §2.4)."""

from __future__ import annotations

from dunnart.errors import DecodeError
from dunnart.plugins import unix_sockets
from dunnart.records import dataclass
from dunnart.runtime.logs import clean
from dunnart.server.interfaces import ChannelOpening, Forward, Refusal, Tunnel
from dunnart.server.plugins import Context, plugin
from dunnart.wire.encoding import Reader


@dataclass(frozen=True)
class Options:
    """How it connects.

    Attributes:
        connect_seconds: how long it may take.
    """

    connect_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.connect_seconds <= 0:
            raise ValueError("connect_seconds must be more than 0")


@plugin(Options)
class DirectStreamlocal:
    """The channel type of unix sockets to connect to, with the user's rights. Where is for the policies to say."""

    def __init__(self, context: Context[Options]) -> None:
        self._seconds = context.options.connect_seconds
        self._log = context.logger

    async def open(self, opening: ChannelOpening) -> Tunnel | Refusal:
        """Connect, and join the channel with the connection."""
        try:
            path = read_destination(opening.data)
        except DecodeError as error:
            return Refusal(Refusal.ADMINISTRATIVELY_PROHIBITED, str(error))
        number = opening.connection.id
        if not await opening.client.allows(Forward(opening.connection, "connect-unix", path=path)):
            return Refusal(Refusal.ADMINISTRATIVELY_PROHIBITED, "forwarding there is not allowed")
        try:
            sock = await unix_sockets.connect(opening.client, path, self._seconds)
        except (OSError, TimeoutError) as error:
            self._log.info("connection %d cannot be forwarded to '%s': %s", number, clean(path), error)
            return Refusal(Refusal.CONNECT_FAILED, "connect failed")
        return Tunnel(sock, path)


def read_destination(data: bytes) -> str:
    """Read the path to connect to, or raise DecodeError."""
    reader = Reader(data)
    path = unix_sockets.read_path(reader)
    reader.string()
    reader.uint32()
    reader.end()
    return path
