"""A session for coroutines: read, write, lines, requests, exit."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import TYPE_CHECKING

from dunnart.errors import ConnectionClosed, Interrupted
from dunnart.protocol.requests import WindowChange
from dunnart.server.raw import Facts
from dunnart.server.socket_io import SocketIO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dunnart.line_editor import Complete, Event, LineEditor
    from dunnart.protocol.requests import BreakRequest, ChannelRequest, SignalRequest
    from dunnart.server.raw import RawSession
    from dunnart.server.server import Server

_READ_BYTES = 64 * 1024
_LINE_BYTES = 64 * 1024
_CHARACTER_BYTES = 4
_KEPT_REQUESTS = 64


class Session(Facts):
    """A session on the application's event loop. Only the facts may be used from elsewhere.

    A handler that returns ends it with status 0, or with the number that it returns; one that raises ends it with
    status 1, and the exception is logged. When the client goes away the handler is cancelled.

    Attributes:
        stderr: has `write` as the session itself.
        raw: the same session at the lowest level.
        complete: what `readline` asks at a terminal, when the Tab key is pressed, what a word may become.
    """

    __slots__ = (
        "_closed", "_editor", "_event", "_handed_on", "_io", "_lines", "_requests", "_resizing", "_sending", "_sock",
        "_wake", "complete", "raw", "stderr",
    )  # fmt: skip

    def __init__(self, raw: RawSession) -> None:
        super().__init__(raw.facts)
        self.raw = raw
        self._sock: socket.socket | None = None
        self._io = SocketIO()
        self._lines = bytearray()
        self._event: Event | None = None  # what a `readline` that was cancelled had no time to give
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests: deque[ChannelRequest] = deque(maxlen=_KEPT_REQUESTS)
        self._wake: asyncio.Future[None] | None = None
        self._editor: LineEditor | None = None
        self._sending: asyncio.Lock | None = None
        self._resizing = False
        self._handed_on = False
        self.complete: Complete | None = None
        self.stderr = Stderr(self)

    @property
    def server(self) -> Server:
        """The server that the session belongs to."""
        return self.raw.server

    # Data.

    async def read(self, limit: int = _READ_BYTES) -> bytes:
        """What the client sends, as it comes: 1 to `limit` bytes, or b"" after the end."""
        if self._editor is not None:
            self._lines += self._editor.take_rest()
        if not self._lines:
            return await self._receive(limit)
        data = bytes(self._lines[:limit])
        del self._lines[:limit]
        return data

    async def _receive(self, limit: int = _READ_BYTES) -> bytes:
        try:
            return await self._io.receive(self.socket, limit)
        except (ConnectionClosed, OSError):
            return b""

    async def write(self, data: bytes | str) -> None:
        r"""Send all of `data`, as fast as the client takes it.

        Several tasks may write: what each of them writes stays together. While a line is read at a terminal, text is
        shown above that line.

        Args:
            data: bytes go out as they are. Text is UTF-8, and to a terminal its "\n" goes out as "\r\n", for there
                is no tty in between that would do so.

        Raises:
            ConnectionClosed: the client has gone, or the session has ended.
        """
        if isinstance(data, str) and self._editor is not None and self._editor.editing:
            self._editor.print(data)
            await self._show(self._editor)
        else:
            await self._send(self.socket, data)

    async def _send(self, sock: socket.socket, data: bytes | str) -> None:
        if isinstance(data, str):
            data = (data.replace("\n", "\r\n") if self.terminal is not None else data).encode(errors="surrogateescape")
        async with self._turn:
            if self._editor is not None:
                await self._send_now(self.socket, self._editor.output())
            await self._send_now(sock, data)

    async def _show(self, editor: LineEditor) -> None:
        async with self._turn:
            await self._send_now(self.socket, editor.output())

    @property
    def _turn(self) -> asyncio.Lock:
        if self._sending is None:
            self._sending = asyncio.Lock()  # an event loop watches a socket for one writer
        return self._sending

    async def _send_now(self, sock: socket.socket, data: bytes) -> None:
        if self.raw.ended:
            raise ConnectionClosed("the session has ended")
        try:
            await self._io.send_all(sock, data)
        except OSError as error:
            raise ConnectionClosed("the client has gone") from error

    async def readline(self, prompt: str = "", *, echo: bool = True) -> str:
        """The next line, without its end, after writing `prompt`. At a terminal the user can edit it.

        Args:
            prompt: what the user is to see before the line.
            echo: show what is typed at a terminal, and remember it.

        Raises:
            EOFError: there are no more, or the user has pressed control-D.
            Interrupted: the user has pressed control-C.
            ConnectionClosed: the client has gone, or the session has ended.
        """
        if self.terminal is not None:
            return await self._edit(prompt, echo=echo)
        if prompt:
            await self.write(prompt)
        lines = self._lines
        while (end := lines.find(b"\n")) < 0 and len(lines) <= _LINE_BYTES + 1 and (data := await self._receive()):
            lines += data
        if end < 0 and not lines:
            raise EOFError
        line = lines[:end].removesuffix(b"\r") if end >= 0 else _piece(lines)
        del lines[: end + 1 if end >= 0 else len(line)]
        return line.decode(errors="replace")

    async def _edit(self, prompt: str, *, echo: bool) -> str:
        """Have a line edited at the client's terminal."""
        from dunnart.line_editor import Interrupted as Dropped
        from dunnart.line_editor import Line

        editor = self.editor
        if self._lines:  # typed ahead, while somebody read bytes
            editor.feed(bytes(self._lines))
            self._lines.clear()
        event, self._event = self._event, None
        try:
            event = event or editor.prompt(prompt, echo=echo)
            while event is None:
                await self._show(editor)
                data = await self._receive()
                event = editor.feed(data) if data else editor.feed_eof()
            await self._show(editor)
        except BaseException:
            # Cancelled, as by a timeout: the line goes from the screen.
            if event is None:
                editor.cancel()
            elif echo:  # it was entered already: for the next who asks
                self._event = event
            self._redraw(editor)
            raise
        if isinstance(event, Line):
            return event.text
        raise Interrupted("control-C") if isinstance(event, Dropped) else EOFError

    @property
    def editor(self) -> LineEditor:
        """What `readline` reads lines with at a terminal; has their history. To be exchanged between lines only."""
        if self._editor is None:
            from dunnart.server.line_reading import editor_for

            self._editor = editor_for(self, lambda line, cursor: self.complete(line, cursor) if self.complete else ())
        return self._editor

    @editor.setter
    def editor(self, editor: LineEditor) -> None:
        if self._editor is not None:
            self._lines += self._editor.take_rest()
        self._editor = editor

    def _redraw(self, editor: LineEditor) -> None:
        """Show the line soon; nobody waits for it."""

        async def show() -> None:
            with contextlib.suppress(ConnectionClosed):
                await self._show(editor)

        if not self.raw.ended:
            self.raw.host.spawn(show(), self.facts.connection)

    async def _resize(self) -> None:
        """Show the line at the terminal's new size, once what is on its way has gone: a client may not read at all."""
        async with self._turn:
            self._resizing = False
            editor, terminal = self._editor, self.terminal
            if editor is not None and terminal is not None:
                editor.resize(terminal.columns, terminal.rows)
                with contextlib.suppress(ConnectionClosed):
                    await self._send_now(self.socket, editor.output())

    async def __aiter__(self) -> AsyncIterator[str]:
        """All lines, without their ends. Control-C at a terminal drops the line, control-D is the end."""
        while True:
            try:
                yield await self.readline()
            except Interrupted:
                continue
            except EOFError:
                return

    @property
    def socket(self) -> socket.socket:
        """The local socket that the data comes from and goes to, non-blocking."""
        if self._sock is None:
            self._sock = self.raw.socket()
            self._sock.setblocking(False)  # noqa: FBT003 - the name says it
        return self._sock

    # The rest.

    async def requests(self) -> AsyncIterator[WindowChange | SignalRequest | BreakRequest]:
        """New window sizes, signals and breaks, as they come; for one reader. The last 64 are kept for it."""
        while True:
            while self._requests:
                yield self._requests.popleft()  # type: ignore[misc] # there are no others
            if self._closed.done():
                return
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    def exit(self, status: int = 0) -> None:
        """End the session with an exit status; what was written before still goes out."""
        self.raw.exit(status)

    @property
    def closed(self) -> bool:
        """The client has gone, or has taken all after the end."""
        return self._closed.done()

    async def wait_closed(self) -> None:
        """Wait until it is closed."""
        await asyncio.shield(self._closed)

    # From whoever runs it, on the application's loop.

    def _note(self, request: ChannelRequest) -> None:
        """The client asks for something."""
        if self._editor is not None and isinstance(request, WindowChange) and not self._resizing and not self.raw.ended:
            self._resizing = True
            self.raw.host.spawn(self._resize(), self.facts.connection)
        self._requests.append(request)
        self._awake()

    def _release(self) -> None:
        """The handler is done: close its sockets, unless what it has handed the session on to still uses them."""
        if self._handed_on:
            return
        for sock in (self._sock, self.stderr.sock):
            if sock is not None and sock.fileno() >= 0:
                self._io.forget(sock)
        self.raw.release()
        self._io.wake()

    def _close(self) -> None:
        """The channel is gone."""
        if not self._closed.done():
            self._closed.set_result(None)
        self._awake()

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Stderr:
    """A session's stderr."""

    __slots__ = ("_session", "sock")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.sock: socket.socket | None = None

    async def write(self, data: bytes | str) -> None:
        """Send all of `data` to the client's stderr; as `Session.write`."""
        session = self._session
        if self.sock is None:
            assert session.socket is not None  # the first socket comes first
            self.sock = session.raw.stderr_socket()
            self.sock.setblocking(False)  # noqa: FBT003 - the name says it
        await session._send(self.sock, data)  # noqa: SLF001


def _piece(line: bytearray) -> bytearray:
    """Take as much of a line as may be read at once; a character of UTF-8 stays whole."""
    end = _LINE_BYTES
    while end < len(line) and line[end] & 0xC0 == 0x80 and end > _LINE_BYTES - _CHARACTER_BYTES:
        end -= 1
    return line[:end]
