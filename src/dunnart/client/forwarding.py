"""What a connection forwards: ports and unix sockets in both directions, and the agent (RFC 4254 §7).

a listener here    accept ──► channel to the server ──► joined with the socket
one at the server  the server opens a channel ──► connect here ──► joined with the socket
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from dunnart.client.channel import Channel
from dunnart.client.closing import Closing
from dunnart.client.dialing import dial, dial_unix
from dunnart.errors import ChannelError, ConfigError, ConnectionClosed, DecodeError, DunnartError
from dunnart.protocol.questions import Refusal
from dunnart.protocol.requests import UnknownOpen
from dunnart.wire.encoding import Reader, string, text, uint32

if TYPE_CHECKING:
    from dunnart.client.connection import Connection
    from dunnart.protocol.questions import ChannelOpenQuestion

Endpoint = tuple[str, int] | str
"""A host and port, or the path of a unix socket."""

_LOG = logging.getLogger("dunnart.client")
_CONNECT_SECONDS = 30.0
_HANDSHAKE_SECONDS = 30.0
_RETRY_SECONDS = 1.0
_READ_BYTES = 4096
_AGENT = "auth-agent@openssh.com"
_TCP, _UNIX = "forwarded-tcpip", "forwarded-streamlocal@openssh.com"

Serve = Callable[[socket.socket, Any], Coroutine[Any, Any, None]]


class Listener(Closing):
    """Listens for connections to forward, here or at the server; made by `Connection.forward_local` and the like.

    It ends with the connection at the latest. Connections that were accepted go on when it is closed.

    Attributes:
        address: where it listens, with the port that was chosen for port 0; or the path of a unix socket.
    """

    def __init__(self, address: Endpoint, end: Callable[[], Awaitable[None]]) -> None:
        self.address = address
        self._end: Callable[[], Awaitable[None]] | None = end

    async def close(self) -> None:
        """Listen no more. Does nothing the second time."""
        end, self._end = self._end, None
        if end is not None:
            await end()


class Forwards:
    """All that one connection forwards; made when the first of it is wanted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._here: set[_Here] = set()
        self._there: dict[Endpoint, Endpoint] = {}
        self._granted: deque[socket.socket] = deque()
        self.agent = ""
        """The socket of the agent that the server may use, if it may."""

    # Listeners here.

    def listen_here(self, listen: Endpoint, serve: Serve) -> Listener:
        """Listen, and have what connects served."""
        sockets = _sockets(listen)
        here = _Here(self._loop, sockets, lambda sock, peer: self._connection.spawn(serve(sock, peer)))
        self._here.add(here)

        async def end() -> None:
            self._here.discard(here)
            here.close()
            if isinstance(listen, str):
                with contextlib.suppress(OSError):
                    os.unlink(listen)

        address = listen if isinstance(listen, str) else (listen[0], sockets[0].getsockname()[1])
        return Listener(address, end)

    async def connect_there(self, to: Endpoint, sock: socket.socket, peer: Any) -> None:  # noqa: ANN401 - accept's
        """Have the server connect, and join both."""
        try:
            channel = await self._channel(to, peer)
        except DunnartError as error:
            _LOG.warning("%s is not forwarded: %s", _shown(to), error)
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        _join(channel, sock)

    async def connect_where_asked(self, sock: socket.socket, peer: Any) -> None:  # noqa: ANN401 - accept's
        """Be a SOCKS server to what has connected."""
        from dunnart.client.socks import SocksServer

        client = SocksServer()
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                while client.wanted is None:
                    data = await self._loop.sock_recv(sock, _READ_BYTES)
                    if not data:  # it has thought better of it
                        sock.close()
                        return
                    await self._loop.sock_sendall(sock, client.receive(data))
            try:
                channel = await self._channel(client.wanted, peer)
            except ChannelError as error:
                _LOG.warning("%s is not forwarded: %s", _shown(client.wanted), error)
                await self._loop.sock_sendall(sock, client.refused())
                sock.close()
                return
            try:
                await self._loop.sock_sendall(sock, client.granted())
                if client.rest:
                    await channel.write(client.rest)
            except BaseException:
                channel.abandon()
                raise
        except (DunnartError, OSError, TimeoutError) as error:
            _LOG.warning("a SOCKS client is not served: %s", error)
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        _join(channel, sock)

    async def _channel(self, to: Endpoint, peer: Any) -> Channel:  # noqa: ANN401 - accept's
        if isinstance(to, str):
            return await self._connection.open_unix(to)
        origin = (peer[0], peer[1]) if isinstance(peer, tuple) else ("127.0.0.1", 0)
        return await self._connection.open_direct(*to, origin=origin)

    # Listeners at the server.

    async def listen_there(self, listen: Endpoint, to: Endpoint) -> Listener:
        """Have the server listen."""
        kind = "streamlocal-forward@openssh.com" if isinstance(listen, str) else "tcpip-forward"
        data = _listen_data(listen)
        chosen = not isinstance(listen, str) and listen[1] == 0
        # What connects at once may come before the answer is handled. If another one has the place, the server says no.
        early = not chosen and listen not in self._there
        if early:
            self._there[listen] = to
        answer = None
        try:
            answer = await self._connection.ask_global(kind, data)
        finally:
            if early and answer is None:
                self._there.pop(listen, None)
        if answer is None:
            raise ChannelError(f"the server does not listen on {_shown(listen)}")
        if chosen:
            listen = (listen[0], _port(answer))
        self._there[listen] = to

        async def end() -> None:
            self._there.pop(listen, None)
            with contextlib.suppress(ConnectionClosed):
                await self._connection.ask_global(f"cancel-{kind}", _listen_data(listen))

        return Listener(listen, end)

    # Channels that the server opens.

    async def answer(self, question: ChannelOpenQuestion) -> None:
        """The server wants a channel: connect, and then say yes."""
        reply: bool | Refusal = True
        try:
            self._granted.append(await self._connected(question.request))
        except ConnectionClosed as error:
            _LOG.warning("what the server forwards is refused: %s", error)
            reply = Refusal(Refusal.CONNECT_FAILED, "connect failed")
        except DunnartError as error:
            _LOG.warning("what the server forwards is refused: %s", error)
            reply = Refusal()
        self._connection.pump.now().answer(question.token, reply)
        self._connection.pump.tick()

    async def _connected(self, request: object) -> socket.socket:
        if isinstance(request, UnknownOpen):
            if request.wire_name == _AGENT and self.agent:
                return await dial_unix(self.agent)
            if request.wire_name in {_TCP, _UNIX}:
                to = self._target(request)
                if to is not None:
                    return await (dial_unix(to) if isinstance(to, str) else dial(*to, _CONNECT_SECONDS))
        raise ChannelError("nobody has asked for it")

    def _target(self, request: UnknownOpen) -> Endpoint | None:
        reader = Reader(request.data)
        if request.wire_name == _UNIX:
            return self._there.get(reader.text())
        listen = reader.text(), reader.uint32()
        if listen in self._there:
            return self._there[listen]
        # A server may call the address by another name than we did.
        same = [to for known, to in self._there.items() if not isinstance(known, str) and known[1] == listen[1]]
        return same[0] if len(same) == 1 else None

    def opened(self, channel: Channel) -> None:
        """A channel that was granted is open: they open in the order of the answers."""
        _join(channel, self._granted.popleft())

    def close(self) -> None:
        """The connection is over."""
        for here in self._here:
            here.close()
        self._here.clear()
        while self._granted:
            self._granted.popleft().close()


class _Here:
    """Sockets that listen here."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sockets: list[socket.socket],
        serve: Callable[[socket.socket, Any], None],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._sockets = sockets
        self._serve = serve
        self._closed = False
        for sock in sockets:
            sock.setblocking(False)  # noqa: FBT003 - the name says it
            loop.add_reader(sock, self._accept, sock)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, peer = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError as error:  # no descriptor is left
            _LOG.warning("cannot accept a connection: %s", error.strerror)
            self._loop.remove_reader(listener)
            self._loop.call_later(_RETRY_SECONDS, self._again, listener)
            return
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._serve(sock, peer)

    def _again(self, listener: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(listener, self._accept, listener)

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()


def direct_unix(path: str) -> bytes:
    """What a CHANNEL_OPEN of "direct-streamlocal@openssh.com" carries (OpenSSH PROTOCOL §2.4)."""
    return text(path) + string(b"") + uint32(0)


def _sockets(listen: Endpoint) -> list[socket.socket]:
    from dunnart.runtime.listeners import ListenAddress
    from dunnart.runtime.listeners import listen as begin

    if isinstance(listen, str):
        return begin(ListenAddress("", 0, listen))
    host, port = listen
    if host != "localhost":
        return begin(ListenAddress("" if host == "*" else host, port))
    found = begin(ListenAddress("127.0.0.1", port))
    with contextlib.suppress(ConfigError):  # a system without IPv6
        found += begin(ListenAddress("::1", found[0].getsockname()[1]))
    return found


def _listen_data(listen: Endpoint) -> bytes:
    if isinstance(listen, str):
        return text(listen)
    return text("" if listen[0] == "*" else listen[0]) + uint32(listen[1])


def _port(answer: bytes) -> int:
    reader = Reader(answer)
    try:
        port = reader.uint32()
        reader.end()
    except DecodeError as error:
        raise ChannelError("the server listens, but does not say on which port") from error
    return port


def _join(channel: Channel, sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionClosed):  # which closes the socket
        channel.join(sock)


def _shown(address: Endpoint) -> str:
    return address if isinstance(address, str) else f"{address[0]} port {address[1]}"
