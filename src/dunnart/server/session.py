"""A session: what an application sees of one session channel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from dunnart.errors import ConnectionClosed, LocalProtocolError
from dunnart.protocol.requests import ExitStatus, PtyRequest, decode_modes
from dunnart.runtime import process
from dunnart.runtime.bridge import Bridge, ProcessBridge
from dunnart.runtime.logs import report

if TYPE_CHECKING:
    from dunnart.runtime.process import Command
    from dunnart.server.connection import ServerConnection

_LOG = logging.getLogger("dunnart.session")
_STDERR = 1
_BURST_BYTES = 256 * 1024
"""So much is written at a time, and before the other connections have their turn."""


class Application(Protocol):
    """Runs sessions: a shell, a command, a subsystem."""

    def __call__(self, session: Session) -> bool:
        """Begin to serve a session, without blocking. False refuses it; so does an exception, which is logged."""


class Session:
    """One session channel.

    Attributes:
        number: the channel's number on its connection.
        command: what is to be executed, None for a shell or subsystem.
        subsystem: the subsystem's name, None for a shell or command.
        environment: the variables that the client set and may set.
        terminal_request: the pty that the client wants, or None.
        began: an application serves it.
    """

    __slots__ = (
        "_bridge", "_closed", "_connection", "_early", "_eof", "began", "command", "environment", "number", "subsystem",
        "terminal_request",
    )  # fmt: skip

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self._connection = connection
        self._bridge: Bridge | None = None
        self._early: bytearray | None = None
        self._eof = False
        self._closed = False
        self.number = number
        self.command: bytes | None = None
        self.subsystem: str | None = None
        self.environment: dict[str, str] | None = None
        self.terminal_request: PtyRequest | None = None
        self.began = False

    # Facts.

    @property
    def user(self) -> str:
        """Who logged in."""
        return self._connection.user

    @property
    def grants(self) -> tuple[object, ...]:
        """What the authenticators granted."""
        return self._connection.grants

    @property
    def peer_address(self) -> tuple[str, int]:
        """The client's IP address and port; ("", 0) for a unix socket."""
        return self._connection.address, self._connection.port

    @property
    def local_address(self) -> tuple[str, int]:
        """The address and port that the client reached."""
        return self._connection.local_address

    @property
    def connection(self) -> ServerConnection:
        """The connection it is a part of; names it in logs."""
        return self._connection

    # For applications.

    def run(self, command: Command) -> None:
        """Serve the session by a child process, on a pty if the client asked for one.

        Raises:
            OSError: the process could not be started.
            ConnectionClosed: the client has gone meanwhile.
        """
        self._check_free()
        terminal = None
        request = self.terminal_request
        if request is not None:
            from dunnart.runtime.terminal import Terminal

            terminal = Terminal()
            try:
                terminal.resize(request.columns, request.rows, request.width_pixels, request.height_pixels)
                terminal.apply(decode_modes(request.modes))
                if command.user is not None:
                    terminal.give_to(command.user[0], command.user[1])
                command = command.with_variable("SSH_TTY", terminal.name)
                child = process.spawn(command, terminal)
            except BaseException:
                terminal.close()
                raise
        else:
            child = process.spawn(command, None)
        self._connection.server.program_began()
        pump, loop = self._connection.pump, self._connection.loop
        self.attach(ProcessBridge(pump, loop, self.number, child, terminal, self._process_ended))

    def _process_ended(self, returncode: int) -> None:
        self._connection.server.program_ended()
        report(_LOG, logging.INFO, self._connection, "session %d: process ended with %d", self.number, returncode)

    def stream(self) -> SessionStream:
        """Serve the session by coroutines: read, write, exit."""
        made = SessionStream(self)
        self.attach(made)
        return made

    def attach(self, bridge: Bridge) -> None:
        """Put `bridge` behind the channel; what came before it goes to it now.

        Raises:
            ConnectionClosed: the client has gone meanwhile.
        """
        self._check_free()
        self._bridge = bridge
        early, self._early = self._early, None
        if early:
            bridge.receive([memoryview(early)])
        if self._eof:
            bridge.receive_eof()

    def _check_free(self) -> None:
        if self._closed:
            raise ConnectionClosed("the session is closed")
        if self._bridge is not None:
            raise LocalProtocolError("something serves this session already")

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

    def signal(self, name: str) -> bool:
        """The client sends a signal."""
        return self._bridge is not None and self._bridge.signal(name)

    def send_break(self) -> bool:
        """The client sends a break."""
        return isinstance(self._bridge, ProcessBridge) and self._bridge.send_break()

    def end_output(self) -> None:
        """The client takes no more output (OpenSSH PROTOCOL §2.1)."""
        if isinstance(self._bridge, ProcessBridge):
            self._bridge.end_output()

    def resize(self, columns: int, rows: int, width_pixels: int, height_pixels: int) -> None:
        """The client's window has another size."""
        if isinstance(self._bridge, ProcessBridge):
            self._bridge.resize(columns, rows, width_pixels, height_pixels)

    def receive_close(self) -> None:
        """The client has closed the channel, and the process that serves it decides when we do."""
        if isinstance(self._bridge, ProcessBridge):
            self._bridge.receive_close()

    def fail(self) -> None:
        """The application refused or failed: nothing serves the session, and what it began ends with status 1."""
        if self._bridge is not None:
            engine = self._connection.pump.engine
            with contextlib.suppress(LocalProtocolError):  # the client has just closed it
                engine.request(self.number, ExitStatus(1))
                engine.close_channel(self.number)
        self.close()

    def close(self) -> None:
        """The channel is gone, or its application failed."""
        self._closed = True
        self._early = None
        if self._bridge is not None:
            self._bridge.close()


class SessionStream:
    """A session's data as a stream for coroutines."""

    __slots__ = ("_burst", "_closed", "_eof", "_reader", "_received", "_session", "_writers", "task")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._received = bytearray()
        self._burst = 0
        self._eof = False
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self._writers: list[asyncio.Future[None]] = []

    async def read(self) -> bytes:
        """The next data, of any size; b"" at the end."""
        while not self._received and not self._eof:
            self._reader = self._session.connection.loop.create_future()
            await self._reader
        data = bytes(self._received)
        self._received.clear()
        connection = self._session.connection
        if data and not self._closed:
            connection.pump.now().consumed(self._session.number, len(data))
            connection.pump.tick()
        return data

    async def write(self, data: bytes, *, stderr: bool = False) -> None:
        """Send all of `data`, as fast as the peer takes it.

        Raises:
            ConnectionClosed: the channel is gone.
        """
        pump = self._session.connection.pump
        view = memoryview(data)
        while view:
            if self._closed:
                raise ConnectionClosed("the session is closed")
            try:
                taken = 0 if pump.congested else pump.now().send_data(
                    self._session.number, view[:_BURST_BYTES], _STDERR if stderr else 0)  # fmt: skip
            except LocalProtocolError as error:
                raise ConnectionClosed("the session is closed") from error
            pump.tick()
            view = view[taken:]
            self._burst += taken
            if view and not taken:
                future = self._session.connection.loop.create_future()
                self._writers.append(future)
                await future
            elif self._burst >= _BURST_BYTES:
                self._burst = 0
                await asyncio.sleep(0)

    def exit(self, status: int = 0) -> None:
        """End the session with an exit status; nothing can be written after it."""
        if self._closed:
            return
        self._closed = True
        pump = self._session.connection.pump
        with contextlib.suppress(LocalProtocolError):  # the client has just closed it
            pump.engine.request(self._session.number, ExitStatus(status))
            pump.engine.send_eof(self._session.number)
            pump.engine.close_channel(self._session.number)
        pump.tick()

    # As a Bridge.

    def receive(self, chunks: list[memoryview]) -> None:
        """Data came."""
        for chunk in chunks:
            self._received += chunk
        self._wake_reader()

    def receive_eof(self) -> None:
        """No more data comes."""
        self._eof = True
        self._wake_reader()

    def resume(self) -> None:
        """The channel may take data again."""
        writers, self._writers = self._writers, []
        for future in writers:
            if not future.done():
                future.set_result(None)

    def signal(self, name: str) -> bool:
        """Signals are not delivered to streams."""
        return False

    def close(self) -> None:
        """The channel is gone."""
        self._closed = self._eof = True
        if self.task is not None:
            self.task.cancel()
        self._wake_reader()
        self.resume()

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)
