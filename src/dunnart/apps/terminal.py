"""A visitor's terminal, as a framework wants it that draws full screens: keys in, drawings out, and a size.

The framework runs on the application's event loop among other visitors', so that nothing here waits for a client in
any other place than the visitor's own tasks:

    reads the session  ► Screen.received      not while the client takes no output, or the application lags behind
    reads its requests ► Screen.resized       many changes of size in a row are one
    writes the session ◄ VisitorTerminal.write, whose queue is bounded

With more than 64 KiB in that queue the terminal is *congested*: the screen should draw nothing until it is relieved,
and then draw what is true by then. So a slow client gets fewer pictures, and not old ones.

The client chooses what it sends and how large its terminal is; others must not pay for it. So the size is bounded, as
applications spend time on each cell, and so is a paste, which the frameworks gather before they make something of it.
"""

from __future__ import annotations

import asyncio
import codecs
import socket
from typing import TYPE_CHECKING, Protocol

from dunnart.errors import ConnectionClosed
from dunnart.protocol.requests import SignalRequest, WindowChange

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from dunnart.server.applications import AsyncHandler
    from dunnart.server.session import Session

_MOST_COLUMNS = 640
_MOST_ROWS = 240
_READ_BYTES = 512
_WRITE_BYTES = 64 * 1024
_SOCKET_BYTES = 32 * 1024
_HIGH_WATER_BYTES = 64 * 1024
_MOST_BYTES = 8 << 20
_LARGEST_PASTE = 1 << 20
_PASTE_START = "\x1b[200~"
_PASTE_END = "\x1b[201~"
_RESIZE_SECONDS = 0.03

# What $TERM says of colours; of the first prefix that fits. Terminals that are not listed are taken to have 16.
_COLOUR_BITS = {
    "xterm-kitty": 24, "xterm-ghostty": 24, "alacritty": 24, "foot": 24, "wezterm": 24, "contour": 24, "iterm": 24,
    "xterm": 8, "screen": 8, "tmux": 8, "rxvt": 8, "konsole": 8, "vte": 8, "putty": 8, "st-": 8, "gnome": 8,
    "vt": 1, "dumb": 1,
}  # fmt: skip


class Screen(Protocol):
    """The framework's side of a terminal. An exception in a method ends the session."""

    def received(self, text: str) -> None:
        """Take what was typed."""

    def forget(self) -> None:
        """Begin anew with parsing: a paste that was begun became too large, and is dropped."""

    def input_ended(self) -> None:
        """Nothing will be typed any more, or the client wants the application to end."""

    def resized(self) -> None:
        """The terminal has another size."""

    def congested(self) -> None:
        """Draw nothing for now."""

    def relieved(self) -> None:
        """Draw again."""

    async def caught_up(self) -> None:
        """Wait until the application has time for more input."""


def has_screen(session: Session) -> bool:
    """Whether the client has a terminal that can be drawn on."""
    return session.terminal is not None and session.terminal.term not in ("", "dumb", "unknown")


def colour_bits(session: Session) -> int:
    """How many bits of colour the client's terminal shows: 1, 4, 8 or 24.

    It is told by its $TERM, and by $COLORTERM and $NO_COLOR where the client sends them and `accept_env` lets them in.
    """
    assert session.terminal is not None
    if session.environment.get("NO_COLOR"):
        return 1
    term = session.terminal.term.lower()
    if session.environment.get("COLORTERM", "").lower() in ("truecolor", "24bit") or term.endswith("-direct"):
        return 24
    found = next((bits for prefix, bits in _COLOUR_BITS.items() if term.startswith(prefix)), 4)
    return max(found, 8) if term.endswith("256color") else found


async def without_screen(session: Session) -> int:
    """Tell the user of a session without a fitting terminal what to do."""
    if session.terminal is None:
        text = "this application needs a terminal: connect with ssh -t"
    else:
        text = f"this application cannot be shown on a terminal of type {session.terminal.term}"
    await session.stderr.write(f"{text}\n")
    return 1


def refusing(without_terminal: AsyncHandler | None) -> AsyncHandler:
    """The handler for sessions without a fitting terminal."""
    return without_screen if without_terminal is None else without_terminal


class Pastes:
    """Follows bracketed pastes through what is typed, in pieces of any size.

    Args:
        forget: called when one becomes larger than a megabyte.
    """

    def __init__(self, forget: Callable[[], None]) -> None:
        self._forget = forget
        self._tail = ""
        self._size: int | None = None
        self._dropping = False

    def without_large(self, text: str) -> str:
        """What is typed, but for the rest of a paste that is too large."""
        seen = self._tail + text
        if self._dropping:
            _, end, text = seen.partition(_PASTE_END)
            if not end:
                self._tail = seen[1 - len(_PASTE_END) :]
                return ""
            self._dropping, self._size, seen = False, None, text
        ended = seen.rfind(_PASTE_END)
        if ended >= 0:
            self._size = None
        if self._size is not None:
            self._size += len(text)
        elif (began := seen.find(_PASTE_START, ended + 1)) >= 0:
            self._size = len(seen) - began
        self._tail = seen[1 - len(_PASTE_END) :]
        if self._size is not None and self._size > _LARGEST_PASTE:
            self._dropping = True
            self._forget()
            return ""
        return text


class VisitorTerminal:
    """A session's terminal. To be entered by the task that serves the session, which owns it.

    When that is left without having been cancelled, all that was written is sent.

    Attributes:
        session: whose terminal it is.
        colour_bits: how many bits of colour it shows: 1, 4, 8 or 24.
        input_ended: nothing more comes from the client.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.colour_bits = colour_bits(session)
        self.input_ended = False
        self._screen: Screen | None = None
        self._attached = asyncio.Event()
        self._backlog = bytearray()
        self._wake = asyncio.Event()
        self._relieved = asyncio.Event()
        self._relieved.set()
        self._leaving = False
        self._gone = False
        self._error: Exception | None = None
        self._owner: asyncio.Task[object] | None = None
        self._listeners: list[asyncio.Task[None]] = []
        self._sender: asyncio.Task[None] | None = None
        self._size = self.size
        self._resizing: asyncio.TimerHandle | None = None

    # For the framework's side.

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows: the client's, at most 640 by 240, and 80 by 24 if it does not say."""
        terminal = self.session.terminal
        if terminal is None:
            return 80, 24
        return min(terminal.columns or 80, _MOST_COLUMNS), min(terminal.rows or 24, _MOST_ROWS)

    def attach(self, screen: Screen) -> None:
        """From now on this takes what is typed."""
        self._screen = screen
        self._attached.set()

    def write(self, text: str) -> None:
        """Queue something to be sent. Once the client has gone it is dropped.

        Raises:
            BufferError: 8 MiB wait already.
        """
        if self._gone:
            return
        self._backlog += text.encode(errors="replace")
        if len(self._backlog) > _MOST_BYTES:
            self._backlog.clear()
            raise BufferError("8 MiB wait already for the client to take them")
        self._wake.set()
        if len(self._backlog) > _HIGH_WATER_BYTES and self._relieved.is_set():
            self._relieved.clear()
            if self._screen is not None:
                self._screen.congested()

    @property
    def is_congested(self) -> bool:
        """The client does not take what was written."""
        return not self._relieved.is_set()

    def fail(self, error: Exception) -> None:
        """End the session with this error: cancel the task that serves it, which then raises it."""
        if self._error is None:
            self._error = error
            assert self._owner is not None
            self._owner.cancel()

    # For the task that serves the session.

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        # What the kernel holds is drawn already, and cannot be left out any more.
        self.session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        loop = asyncio.get_running_loop()
        self._listeners = [loop.create_task(self._receive()), loop.create_task(self._listen())]
        self._sender = loop.create_task(self._send())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._owner is not None
        assert self._sender is not None
        tasks = [*self._listeners, self._sender]
        try:
            for task in self._listeners:
                task.cancel()
            await asyncio.gather(*self._listeners, return_exceptions=True)
            if self._error is not None:
                self._owner.uncancel()
            if self._owner.cancelling():  # the framework may have kept it to itself
                self._sender.cancel()
            self._leaving = True
            self._wake.set()
            await asyncio.gather(self._sender, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
            if self._resizing is not None:
                self._resizing.cancel()
        if self._error is not None:
            raise self._error

    # Its own tasks.

    async def _receive(self) -> None:
        await self._attached.wait()
        screen = self._screen
        assert screen is not None
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        pastes = Pastes(screen.forget)
        try:
            while data := await self.session.read(_READ_BYTES):
                screen.received(pastes.without_large(decode(data)))
                await self._relieved.wait()
                await screen.caught_up()
                await asyncio.sleep(0)  # others come between, however much is typed
            self.input_ended = True
            screen.input_ended()
        except Exception as error:  # noqa: BLE001 - it ends this session
            self.fail(error)

    async def _listen(self) -> None:
        await self._attached.wait()
        screen = self._screen
        assert screen is not None
        try:
            async for request in self.session.requests():
                if isinstance(request, WindowChange):
                    if self._resizing is None:
                        self._resizing = asyncio.get_running_loop().call_later(_RESIZE_SECONDS, self._resize)
                elif isinstance(request, SignalRequest):
                    if request.signal == "INT":
                        screen.received("\x03")
                    elif request.signal in ("HUP", "TERM"):
                        screen.input_ended()
        except Exception as error:  # noqa: BLE001 - it ends this session
            self.fail(error)

    def _resize(self) -> None:
        self._resizing = None
        if self._size == self.size:
            return
        self._size = self.size
        assert self._screen is not None
        try:
            self._screen.resized()
        except Exception as error:  # noqa: BLE001 - it ends this session
            self.fail(error)

    async def _send(self) -> None:
        try:
            while self._backlog or not self._leaving:
                await self._wake.wait()
                self._wake.clear()
                while self._backlog:
                    data = bytes(self._backlog[:_WRITE_BYTES])
                    del self._backlog[:_WRITE_BYTES]
                    await self.session.write(data)
                self._relieve()
        except ConnectionClosed:
            self._gone = True
            self._backlog.clear()
            self._relieve()
        except Exception as error:  # noqa: BLE001 - it ends this session
            self.fail(error)

    def _relieve(self) -> None:
        if not self._relieved.is_set():
            self._relieved.set()
            if self._screen is not None and not self._leaving:
                self._screen.relieved()
