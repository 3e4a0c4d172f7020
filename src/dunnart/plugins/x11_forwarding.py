"""X11 forwarding, `ssh -X`: a display in $DISPLAY that is the client's (RFC 4254 §6.3).

Each session has a display of its own on the loopback addresses. The cookie that programs must show is the one that came
with the request: the client knows it, and puts the right one in its place. It stands in a file of the session's own, in
$XAUTHORITY; ~/.Xauthority is left alone, and no program has to be run for it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dunnart.errors import DecodeError, LimitExceeded
from dunnart.plugins import os_account
from dunnart.plugins.private_folder import PrivateFolder
from dunnart.records import dataclass
from dunnart.server.interfaces import Forward, SessionRequest
from dunnart.server.plugins import Context, plugin
from dunnart.wire.encoding import Reader, text, uint32

if TYPE_CHECKING:
    from dunnart.plugins.os_account import Account

_FIRST_PORT = 6000
_MOST_DISPLAYS = 1000
_MOST_SCREENS = 400
_BACKLOG = 16
_PROTOCOL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_PROTOCOL_CHARACTERS = 64
_COOKIE_BYTES = 256
_LOCAL, _WILD = 256, 65535  # families in Xauthority files: this host's, any host's
_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@dataclass(frozen=True)
class Options:
    """Which displays.

    Attributes:
        display_offset: the number of the first.
    """

    display_offset: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.display_offset < _MOST_DISPLAYS:
            raise ValueError(f"display_offset must be 0 to {_MOST_DISPLAYS - 1}")


@dataclass(frozen=True)
class Wanted:
    """A display that a client offers: for one connection or many, and what programs must show there."""

    once: bool
    protocol: str
    cookie: bytes
    screen: int


@plugin(Options)
class X11Forwarding:
    """The session request "x11-req". Who may have it is for the policies to say."""

    def __init__(self, context: Context[Options]) -> None:
        self._offset = context.options.display_offset
        self._log = context.logger

    async def prepare(self, request: SessionRequest) -> Mapping[str, str] | None:
        """Give the session a display."""
        number = request.connection.id
        try:
            wanted = read_request(request.data)
        except DecodeError as error:
            self._log.info("connection %d asks for a display wrongly: %s", number, error)
            return None
        if not await request.client.allows(Forward(request.connection, "x11")):
            return None
        try:
            return self._listen(request, wanted)
        except (OSError, LimitExceeded) as error:
            self._log.warning("connection %d cannot forward a display: %s", number, error)
            return None

    def _listen(self, request: SessionRequest, wanted: Wanted) -> Mapping[str, str]:
        account = os_account.to_act_as(request.connection.user, request.connection.grants)
        display, sockets = _bind(self._offset)
        folder: PrivateFolder | None = None
        try:
            folder = _with_cookie(account, display, wanted)
        finally:
            if folder is None:
                for sock in sockets:
                    sock.close()
        try:
            listener = request.client.listen(sockets, "x11", _describe, f"display {display}", once=wanted.once)
        except LimitExceeded:
            folder.remove()
            raise
        request.session.on_end(listener.close)
        request.session.on_end(folder.remove)
        return {"DISPLAY": f"localhost:{display}.{wanted.screen}", "XAUTHORITY": f"{folder.path}/Xauthority"}


def read_request(data: bytes) -> Wanted:
    """Read what a client wants, or raise DecodeError."""
    reader = Reader(data)
    once, protocol, cookie, screen = reader.boolean(), reader.text(), reader.text(), reader.uint32()
    reader.end()
    try:
        wanted = Wanted(once, protocol, bytes.fromhex(cookie), screen)
    except ValueError as error:
        raise DecodeError("the cookie is not hexadecimal") from error
    if not 0 < len(wanted.protocol) <= _PROTOCOL_CHARACTERS or not _PROTOCOL.issuperset(wanted.protocol):
        raise DecodeError("no name of an authentication protocol")
    if not 0 < len(wanted.cookie) <= _COOKIE_BYTES or wanted.screen > _MOST_SCREENS:
        raise DecodeError("no cookie, or no screen")
    return wanted


def _bind(offset: int) -> tuple[int, list[socket.socket]]:
    """Listen on the ports of the first display that nobody has."""
    for display in range(offset, _MOST_DISPLAYS):
        sockets: list[socket.socket] = []
        try:
            for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                try:
                    sockets.append(_listener(family, address, _FIRST_PORT + display))
                except OSError as error:
                    if error.errno not in _NO_SUCH_FAMILY:
                        raise
        except OSError as error:
            for sock in sockets:
                sock.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            if sockets:
                return display, sockets
    raise OSError(errno.EADDRINUSE, "no display is free")


def _listener(family: int, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _with_cookie(account: Account | None, display: int, wanted: Wanted) -> PrivateFolder:
    """Make a folder with the file that programs find the cookie in."""
    folder = PrivateFolder(account)
    try:
        path = folder.add("Xauthority")
        host = socket.gethostname().encode()
        entries = (_entry(_LOCAL, host, display, wanted), _entry(_WILD, b"", display, wanted))
        with open(path, "xb") as file:
            file.write(b"".join(entries))
        folder.give()
    except BaseException:
        folder.remove()
        raise
    return folder


def _entry(family: int, address: bytes, display: int, wanted: Wanted) -> bytes:
    fields = (address, str(display).encode(), wanted.protocol.encode(), wanted.cookie)
    return family.to_bytes(2, "big") + b"".join(len(each).to_bytes(2, "big") + each for each in fields)


def _describe(peer: tuple[Any, ...]) -> tuple[bytes, str]:
    return text(peer[0]) + uint32(peer[1]), f"the client's display from {peer[0]} port {peer[1]}"
