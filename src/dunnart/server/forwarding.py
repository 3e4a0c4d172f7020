"""What plug-ins that forward get from the server: tunnels, channels towards the client, listeners in its name.

    plug-in ── asked by ──► ClientLink.listen ──► Listener: accepts ─┐
                                                                     ▼
    client ◄── forwarded-tcpip, x11, … ◄── ClientLink.open ◄── Tunnel of the accepted socket

All of it is used on the application's event loop. Connections are accepted, and tunnels' bytes moved, by loops that no
application can hold.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dunnart.errors import LimitExceeded
from dunnart.protocol.questions import Refusal
from dunnart.runtime.logs import clean, report
from dunnart.runtime.streams import is_scarce
from dunnart.server.applications import as_application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dunnart.runtime.process import Call, Command
    from dunnart.server.applications import Handler
    from dunnart.server.facts import ConnectionFacts
    from dunnart.server.host import Host
    from dunnart.server.interfaces import Forward

_LOG = logging.getLogger("dunnart.forward")
_MOST_WAITING = 64


class ConnectionControl(Protocol):
    """What the application's side does to a connection, on the protocol's event loop or from another process."""

    @property
    def gone(self) -> bool:
        """The connection is over."""

    def open_channel(self, channel_type: str, data: bytes, opening: Opening) -> None:
        """Ask the client for a channel; `HostLink.settled` says what came of it."""


class Tunnel:
    """A connected stream socket that leads elsewhere, for a channel to be joined with; it is the tunnel's from now on.

    Each direction ends by itself, and the channel with the last of them.

    Args:
        sock: the socket.
        detail: what is at its other end, for the log, audit and status.
    """

    def __init__(self, sock: socket.socket, detail: str = "") -> None:
        self._sock: socket.socket | None = sock
        self.detail = detail.encode(errors="backslashreplace").decode()  # a path may be no UTF-8

    @property
    def scarce(self) -> bool:
        """Whether its socket is one too many, so that it should be refused."""
        return self._sock is not None and is_scarce(self._sock.fileno())

    def detach(self) -> socket.socket:
        """Give the socket away, once. For the server."""
        sock, self._sock = self._sock, None
        assert sock is not None
        return sock

    def __del__(self) -> None:  # the channel was refused, or the client left before it was open
        if self._sock is not None:
            self._sock.close()


class Opening(NamedTuple):
    """A channel that may be opened.

    Attributes:
        number: `SessionFacts.opening`.
        detail: `SessionFacts.detail`.
        tunnel: joins it; None: the host serves it.
    """

    number: int
    detail: str = ""
    tunnel: Tunnel | None = None


class Scope:
    """Something that ends: a connection, or a session of it.

    Attributes:
        facts: the connection.
        host: what runs applications; not for them.
    """

    def __init__(self, host: Host, facts: ConnectionFacts) -> None:
        self.host = host
        self._ends: list[Callable[[], None]] | None = []
        self.facts = facts

    @property
    def ended(self) -> bool:
        """It is over."""
        return self._ends is None

    def on_end(self, function: Callable[[], None]) -> None:
        """Have a function called once it has ended; at once if it has."""
        if self._ends is None:
            self._call(function)
        else:
            self._ends.append(function)

    def end(self) -> None:
        """It has ended. For the server."""
        ends, self._ends = self._ends or [], None
        for function in ends:
            self._call(function)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            function()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - others wait to be told as well
            self.host.failed(self.facts, error)


class ClientLink(Scope):
    """The client of a connection, for plug-ins that do more than answer it.

    Attributes:
        facts: the connection.
        listeners: those that listen for it now.
    """

    def __init__(self, host: Host, facts: ConnectionFacts, control: ConnectionControl) -> None:
        super().__init__(host, facts)
        self.control = control
        self.listeners: set[Listener] = set()

    async def allows(self, forward: Forward) -> bool:
        """Ask the login's grants and the server's forwarding policies; without any they refuse."""
        return await self.host.allows(forward)

    async def open(self, channel_type: str, data: bytes, handler: Handler | Tunnel) -> Refusal | None:
        """Ask the client for a channel.

        Args:
            channel_type: as "forwarded-tcpip".
            data: what the type defines beside the window.
            handler: serves the channel, as what a `ChannelType` gives.

        Returns:
            The client's refusal, or None: the channel is open.

        Raises:
            ConfigError: the handler is none.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Refusal | None] = loop.create_future()

        def settled(refusal: Refusal | None) -> None:
            if not answer.done():
                answer.set_result(refusal)

        host = self.host
        served = handler if isinstance(handler, Tunnel) else as_application(handler, channel_type)
        host.call(host.want, self, channel_type, data, served, lambda refusal: host.call_app(settled, refusal))
        return await answer

    def listen(
        self, sockets: Iterable[socket.socket], channel_type: str, describe: Callable[[Any], tuple[bytes, str]],
        detail: str, *, once: bool = False,
    ) -> Listener:  # fmt: skip
        """Accept connections and have the client serve them by channels, until it has gone or the listener is closed.

        Args:
            sockets: stream sockets that listen; the listener closes them.
            channel_type: of the channels, as "forwarded-tcpip".
            describe: gives the channel's data, and the tunnel's `detail`, for what `accept` said of the peer's address.
            detail: where it listens, for the log and audit.
            once: close it after the first connection.

        Raises:
            LimitExceeded: the connection has as many listeners as `Limits.listeners` allows; the sockets are closed.
        """
        listener = Listener(self, tuple(sockets), channel_type, describe, detail, once=once)
        if self.ended or len(self.listeners) >= self.host.config.limits.listeners:
            listener.close()
            raise LimitExceeded(f"{len(self.listeners)} listeners are open already")
        listener.start()
        return listener

    async def start(self, program: Command | Call) -> None:
        """Start a program that serves no session. It gets no input, its output goes nowhere; nobody hears of its end.

        Raises:
            OSError: it cannot be started.
        """
        answer: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()

        def started(error: OSError | None) -> None:
            if not answer.done():
                answer.set_result(error)

        self.host.call(self.host.start_beside, program, started)
        error = await answer
        if error is not None:
            raise error

    def end(self) -> None:
        """The connection is over."""
        for listener in tuple(self.listeners):
            listener.close()
        super().end()

    def note(self, kind: str, **details: str) -> None:
        """Have something recorded by the audit sinks."""
        self.host.note(self.facts, kind, **details)


class Listener:
    """Accepts connections for one client; made by `ClientLink.listen`.

    While 64 of them wait for the client's answer no more are accepted.

    Attributes:
        on_close: called once when it is closed.
    """

    def __init__(
        self, client: ClientLink, sockets: tuple[socket.socket, ...], channel_type: str,
        describe: Callable[[Any], tuple[bytes, str]], detail: str, *, once: bool,
    ) -> None:  # fmt: skip
        self._client = client
        self._sockets = sockets
        self._channel_type = channel_type
        self._describe = describe
        self._detail = detail.encode(errors="backslashreplace").decode()
        self._once = once
        self._waiting = 0
        self._accepts = False
        self.on_close: Callable[[], None] = lambda: None
        self.closed = False

    def start(self) -> None:
        """Begin to accept."""
        client = self._client
        for sock in self._sockets:
            sock.setblocking(False)  # noqa: FBT003 - the name says it
        client.listeners.add(self)
        report(_LOG, logging.INFO, client.facts, "listens for %s: %s", self._channel_type, clean(self._detail))
        client.note("listen-begin", what=self._channel_type, detail=self._detail)
        client.host.call(self._resume)

    def close(self) -> None:
        """Accept no more. Connections that were accepted go on."""
        if self.closed:
            return
        self.closed = True
        client = self._client
        client.host.call(self._shut)
        if self in client.listeners:
            client.listeners.discard(self)
            report(_LOG, logging.INFO, client.facts, "listens no more for %s: %s", self._channel_type,
                   clean(self._detail))  # fmt: skip
            client.note("listen-end", what=self._channel_type, detail=self._detail)
        self.on_close()

    # On the loop that serves the protocol, or speaks with what does: the application may hold its own.

    def _resume(self) -> None:
        if not self._accepts and not self.closed:
            self._accepts = True
            for sock in self._sockets:
                self._client.host.loop.add_reader(sock, self._accept, sock)

    def _pause(self) -> None:
        if self._accepts:
            self._accepts = False
            for sock in self._sockets:
                self._client.host.loop.remove_reader(sock)

    def _shut(self) -> None:
        self._pause()
        for sock in self._sockets:
            sock.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, name = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError as error:
            report(_LOG, logging.WARNING, self._client.facts, "cannot accept a connection: %s", error.strerror)
            self._pause()
            host = self._client.host
            host.loop.call_later(host.config.retry_seconds, self._resume)
            return
        if self._once:
            self._pause()
            self._client.host.call_app(self.close)
        try:
            self._serve(sock, name)
        except Exception as error:  # noqa: BLE001 - one connection's fault is not the others'
            sock.close()
            self._client.host.failed(self._client.facts, error)

    def _serve(self, sock: socket.socket, name: Any) -> None:  # noqa: ANN401 - what accept says of an address
        if is_scarce(sock.fileno()):
            sock.close()
            report(_LOG, logging.WARNING, self._client.facts, "descriptors are short: a connection is not forwarded")
            return
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data, detail = self._describe(name)
        self._waiting += 1
        if self._waiting >= _MOST_WAITING:
            self._pause()
        host = self._client.host
        host.want(self._client, self._channel_type, data, Tunnel(sock, detail), self._settled)

    def _settled(self, refusal: Refusal | None) -> None:
        self._waiting -= 1
        if refusal is not None:
            report(_LOG, logging.INFO, self._client.facts, "the client refused a channel for %s: %s",
                   clean(self._detail), clean(refusal.description))  # fmt: skip
        if not self._once:
            self._resume()


def gone() -> Refusal:
    """The answer of a client that is not there any more."""
    return Refusal(Refusal.CONNECT_FAILED, "the client has gone")
