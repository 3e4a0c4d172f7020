"""A session channel as the protocol sees it: what came for it, and the bridge to what serves it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from dunnart.errors import LocalProtocolError
from dunnart.protocol.requests import ExitSignal, ExitStatus, PtyRequest, SignalRequest, WindowChange
from dunnart.runtime.bridge import Bridge
from dunnart.runtime.streams import Counterpart
from dunnart.server.facts import Terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dunnart.protocol.questions import ChannelRequestQuestion
    from dunnart.protocol.requests import BreakRequest
    from dunnart.runtime.streams import Streams
    from dunnart.server.connection import ServerConnection
    from dunnart.server.facts import SessionFacts

_UNLESS_GONE = contextlib.suppress(LocalProtocolError)  # the client has just closed it
_STDERR = 1


class ChannelControl(Protocol):
    """What serves a session does this to its channel, on the protocol's event loop or from another process."""

    def attach(self, streams: Streams) -> None:
        """Join the channel with descriptors, once; the channel owns them from now on."""

    def add_stderr(self, fd: int) -> None:
        """Join the channel's stderr with a descriptor."""

    def end(self, how: ExitStatus | ExitSignal, text: str = "") -> None:
        """Close the channel once all output is sent, saying how the session ended; `text` goes to stderr."""


class Serving(Counterpart, Protocol):
    """What serves a channel, here or in another process; `facts` are what it was asked for."""

    facts: SessionFacts


class ServerChannel:
    """One session channel.

    Attributes:
        number: the channel's number on its connection.
        terminal: the client's, if it wants one.
        counterpart: what serves it, or is about to.
        since: when it was opened, on the event loop's clock.
        waiting: requests that came while a plug-in was asked about one; None: none is.
        prepared: a plug-in was.
    """

    __slots__ = (
        "_bridge", "_closed", "_connection", "_early", "_eof", "_variables", "counterpart", "number",
        "prepared", "since", "terminal", "waiting",
    )  # fmt: skip

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self._connection = connection
        self._bridge: Bridge | None = None
        self._early: bytearray | None = None
        self._eof = False
        self._closed = False
        self._variables: dict[str, str] | None = None
        self.number = number
        self.since = connection.loop.time()
        self.terminal: Terminal | None = None
        self.counterpart: Serving | None = None
        self.waiting: list[ChannelRequestQuestion] | None = None
        self.prepared = False

    # Before it begins.

    @property
    def variables(self) -> Mapping[str, str]:
        """The variables that the client has set."""
        return self._variables or {}

    def set_variable(self, name: str, value: str) -> None:
        """The client sets a variable, which was checked."""
        if self._variables is None:
            self._variables = {}
        self._variables[name] = value

    def set_terminal(self, request: PtyRequest) -> None:
        """The client wants a terminal, which was checked."""
        self.terminal = Terminal.of(request)

    # From what serves it.

    def attach(self, streams: Streams) -> None:
        """Join the channel with descriptors; what came before goes to them now. If it is gone, so are they."""
        if self._closed or self._bridge is not None or self.counterpart is None:
            streams.close()
            return
        connection = self._connection
        self._bridge = bridge = Bridge(connection.pump, connection.loop, self.number, streams, self.counterpart)
        early, self._early = self._early, None
        if early:
            bridge.receive([memoryview(early)])
        if self._eof:
            bridge.receive_eof()
        connection.pump.tick()

    def add_stderr(self, fd: int) -> None:
        """Join the channel's stderr with a descriptor."""
        if self._bridge is None:
            import os

            os.close(fd)
        else:
            self._bridge.add_stderr(fd)

    def end(self, how: ExitStatus | ExitSignal, text: str = "") -> None:
        """Close the channel once all output is sent."""
        if self._closed:
            return
        pump = self._connection.pump
        with _UNLESS_GONE:
            if text:
                pump.now().send_data(self.number, text.encode(errors="replace"), _STDERR)
            if self._bridge is not None:
                self._bridge.end(how)
            else:
                pump.engine.request(self.number, how)
                pump.engine.send_eof(self.number)
                pump.engine.close_channel(self.number)
        pump.tick()

    def fail(self) -> None:
        """What should serve it refused or failed: what it began ends with status 1; else another may be asked for."""
        if self._bridge is None:
            counterpart, self.counterpart = self.counterpart, None
            if counterpart is not None:
                counterpart.hung_up()
            return
        engine = self._connection.pump.engine
        with _UNLESS_GONE:
            engine.request(self.number, ExitStatus(1))
            engine.close_channel(self.number)
        self.close()

    # From the connection.

    def receive(self, chunks: list[memoryview]) -> None:
        """Data came for it."""
        if self._bridge is not None:
            self._bridge.receive(chunks)
        else:
            # The window bounds it: nothing is consumed before something serves the session.
            if self._early is None:
                self._early = bytearray()
            for chunk in chunks:
                self._early += chunk

    def receive_eof(self) -> None:
        """No more data comes."""
        self._eof = True
        if self._bridge is not None:
            self._bridge.receive_eof()

    def resume(self) -> None:
        """The channel may take data again."""
        if self._bridge is not None:
            self._bridge.resume()

    def requested(self, request: WindowChange | SignalRequest | BreakRequest) -> bool:
        """The client's window has another size, or it sends a signal or a break."""
        if isinstance(request, WindowChange) and self.terminal is not None:
            self.terminal = self.terminal.resized(request)
        if self._bridge is not None:
            return self._bridge.requested(request)
        return self.counterpart is not None and self.counterpart.requested(request)

    def say(self, text: str) -> None:
        """Show a line at the client's terminal, as far as the window allows.

        Raises:
            LocalProtocolError: the channel is about to go.
        """
        self._connection.pump.now().send_data(self.number, f"\r\n{text}\r\n".encode(errors="replace"), _STDERR)
        self._connection.pump.tick()

    @property
    def moved_bytes(self) -> tuple[int, int]:
        """How many bytes of data have come, and have gone out."""
        return (0, 0) if self._bridge is None else (self._bridge.bytes_received, self._bridge.bytes_sent)

    def end_output(self) -> bool:
        """The client takes no more output (OpenSSH PROTOCOL §2.1)."""
        if self._bridge is not None:
            self._bridge.end_output()
        return True

    def receive_close(self) -> None:
        """The client has closed the channel, and what serves it decides when we do."""
        if self._bridge is not None:
            self._bridge.receive_close()

    def close(self) -> None:
        """The channel is gone, or what should serve it failed."""
        self._closed = True
        self._early = None
        if self._bridge is not None:
            self._bridge.close()
        elif self.counterpart is not None:
            self.counterpart.hung_up()
