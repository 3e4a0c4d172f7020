"""Unix sockets that the server listens on for the client, `ssh -R /path:…` (OpenSSH PROTOCOL §2.4)."""

from __future__ import annotations

from functools import partial

from dunnart.errors import DecodeError, LimitExceeded
from dunnart.plugins import unix_sockets
from dunnart.records import dataclass
from dunnart.runtime.logs import clean
from dunnart.server.interfaces import ConnectionRequest, Forward, Listener
from dunnart.server.plugins import Context, plugin
from dunnart.wire.encoding import Reader, string

_CANCEL = "cancel-streamlocal-forward@openssh.com"


@dataclass(frozen=True)
class Options:
    """How it listens.

    Attributes:
        mask: the permissions that nobody gets on the sockets, in octal digits, as sshd's StreamLocalBindMask.
        replace: remove a socket that is there already, as sshd's StreamLocalBindUnlink; else the client is refused.
    """

    mask: str = "0177"
    replace: bool = False

    def __post_init__(self) -> None:
        if not (self.mask.isdecimal() and set(self.mask) <= set("01234567") and int(self.mask, 8) <= 0o777):
            raise ValueError(f"mask is {self.mask!r}, which is none of 000 to 777 in octal digits")


@plugin(Options)
class StreamlocalForward:
    """The requests to listen on unix sockets, with the user's rights. Where is for the policies to say."""

    def __init__(self, context: Context[Options]) -> None:
        self._mask = int(context.options.mask, 8)
        self._replace = context.options.replace
        self._log = context.logger
        self._listening: dict[int, dict[str, Listener]] = {}

    async def answer(self, request: ConnectionRequest) -> bool:
        """Listen, or listen no more."""
        try:
            reader = Reader(request.data)
            path = unix_sockets.read_path(reader)
            reader.end()
        except DecodeError:
            return False
        number = request.connection.id
        if request.name == _CANCEL:
            listener = self._listening.get(number, {}).pop(path, None)
            if listener is not None:
                listener.close()
            return listener is not None
        return await self._listen(request, path)

    async def _listen(self, request: ConnectionRequest, path: str) -> bool:
        number, client = request.connection.id, request.client
        if not await client.allows(Forward(request.connection, "listen-unix", path=path)):
            return False
        if path in self._listening.get(number, {}):
            return False
        try:
            sock, remove = await unix_sockets.listen(client, path, self._mask, replace=self._replace)
        except (OSError, TimeoutError) as error:
            self._log.info("connection %d cannot listen on '%s': %s", number, clean(path), error)
            return False
        try:
            listener = client.listen((sock,), "forwarded-streamlocal@openssh.com", partial(_describe, path), path)
        except LimitExceeded as error:
            remove()
            self._log.info("connection %d cannot listen on '%s': %s", number, clean(path), error)
            return False
        listener.on_close = remove
        if number not in self._listening:
            self._listening[number] = {}
            client.on_end(lambda: self._forget(number))
        self._listening[number][path] = listener
        return True

    def _forget(self, connection: int) -> None:
        del self._listening[connection]


def _describe(path: str, _peer: object) -> tuple[bytes, str]:
    return string(path.encode(errors="surrogateescape")) + string(b""), path
