"""Textual for visitors: each has an `App` of his own, and all of them run in this process.

    server = dunnart.Server(textual_handler(lambda session: Dashboard(session.user)), ...)

Textual talks to a terminal by a *driver*; the one in here reads and writes the session. Textual also assumes that the
process is its own: an application redirects sys.stdout and sys.stderr, sets the event loop's task factory, opens the
browser, saves files, looks for colours in the environment, and prints tracebacks with all local variables. In the
context of a visitor, and only there, this module keeps it from that.
"""

from __future__ import annotations

import asyncio
import io
import re
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager, ExitStack, nullcontext, redirect_stderr, redirect_stdout
from contextvars import ContextVar, copy_context
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TextIO, TypeVar

try:
    import textual.app
    from rich.color import Color, ColorSystem
    from rich.console import Console
    from textual import constants, events, messages
    from textual._xterm_parser import XTermParser
    from textual.app import App, ScreenStackError
    from textual.driver import Driver
    from textual.filter import Monochrome, NoColor
    from textual.geometry import Size
except ImportError as error:
    raise ImportError(f'Textual cannot be loaded: pip install "dunnart[textual]" ({error})') from error

from dunnart.apps.terminal import VisitorTerminal, has_screen, refusing

if TYPE_CHECKING:
    from textual.message import Message

    from dunnart.server.applications import AsyncHandler
    from dunnart.server.session import Session

_T = TypeVar("_T")
_MakeApp = Callable[["Session"], App[Any]]
_ALL_COLOURS = 24
_MANY_COLOURS = 8
_RENDITION = re.compile(r"\x1b\[[0-9;]*[34]8;(?:5;\d+|2;\d+;\d+;\d+)[0-9;]*m")
_MESSAGES_AHEAD = 1000
_LOOK_SECONDS = 0.05
_SLACK_SECONDS = 0.01
_TERMINAL: ContextVar[VisitorTerminal | None] = ContextVar("terminal", default=None)

# What an application does to the terminal, and how it is undone, in this order. The last but one is the keyboard of
# kitty and others, which tells keys apart that are the same bytes elsewhere.
_MOUSE = "\x1b[?1000h\x1b[?1003h\x1b[?1006h"
_NO_MOUSE = "\x1b[?1006l\x1b[?1003l\x1b[?1000l"
_BEGIN = "\x1b[?1049h\x1b[?25l\x1b[?1004h\x1b[?2004h\x1b[?7l\x1b[>1u\x1b[?2026$p"
_END = "\x1b[<u\x1b[?7h\x1b[?2004l\x1b[?1004l\x1b[?1049l\x1b[?25h"


def textual_handler(
    make: _MakeApp, *, mouse: bool = True, without_terminal: AsyncHandler | None = None
) -> AsyncHandler:
    """Make a handler that runs a Textual application for each visitor.

    The application's return code is the session's exit status, and the message of its `exit` is shown when the screen
    is the visitor's again. If it fails the status is 1, the exception is logged, and the visitor is not shown it.

    Args:
        make: gives a new application for a session.
        mouse: whether the applications get the mouse; without it the visitor's terminal keeps it, to mark text with.
        without_terminal: serves the sessions without a terminal, or with a "dumb" one; by default they are told on
            stderr to use ssh -t, and get status 1.
    """
    otherwise = refusing(without_terminal)

    async def serve(session: Session) -> int | None:
        if not has_screen(session):
            return await otherwise(session)
        async with VisitorTerminal(session) as terminal:
            token = _TERMINAL.set(terminal)
            try:
                return await _run(make(session), terminal, mouse=mouse)
            finally:
                _TERMINAL.reset(token)

    return serve


async def _run(app: App[Any], terminal: VisitorTerminal, *, mouse: bool) -> int:
    if app.is_running:
        raise RuntimeError(f"{app!r} runs already: each visitor needs an application of his own")
    printed = io.StringIO()
    _furnish(app, terminal, printed)
    await _keeping_task_factory(app.run_async(mouse=mouse, size=terminal.size))
    error = app._exception  # noqa: SLF001 - what the exit status 1 stands for
    if error is not None:
        raise error
    terminal.write(_in_colours(terminal, printed.getvalue().replace("\n", "\r\n")))
    return app.return_code or 0


def _furnish(app: App[Any], terminal: VisitorTerminal, printed: TextIO) -> None:
    """Give an application what it has looked for in the server's environment and on the server's terminal."""
    # Styles remember the codes that they were first drawn with, and visitors share styles: see _in_colours.
    console = partial(
        Console, color_system="truecolor", force_terminal=True, legacy_windows=False, safe_box=False,
        highlight=False, no_color=False, width=terminal.size[0], height=terminal.size[1], _environ={},
    )  # fmt: skip
    app.driver_class = SessionDriver
    app.console = console(file=io.StringIO(), markup=True, emoji=False)
    app.error_console = console(file=printed, markup=False)
    app.no_color = terminal.colour_bits == 1
    filters = [each for each in app._filters if not isinstance(each, Monochrome | NoColor)]  # noqa: SLF001
    app._filters = [*filters, Monochrome()] if app.no_color else filters  # noqa: SLF001


def _in_colours(terminal: VisitorTerminal, drawing: str) -> str:
    """The same in colours that the terminal has."""
    bits = terminal.colour_bits
    return drawing if bits == _ALL_COLOURS else _RENDITION.sub(lambda found: _downgraded(found[0], bits), drawing)


@lru_cache(10_000)
def _downgraded(rendition: str, bits: int) -> str:
    """A sequence that sets attributes and colours, with the nearest colours of 256 or 16."""
    system = ColorSystem.EIGHT_BIT if bits == _MANY_COLOURS else ColorSystem.STANDARD
    parts = iter(rendition[2:-1].split(";"))
    codes: list[str] = []
    for part in parts:
        if part not in ("38", "48"):
            codes.append(part)
            continue
        if next(parts) == "5":
            colour = Color.from_ansi(int(next(parts)))
        else:
            colour = Color.from_rgb(int(next(parts)), int(next(parts)), int(next(parts)))
        codes += colour.downgrade(system).get_ansi_codes(part == "38")
    return f"\x1b[{';'.join(codes)}m"


@types.coroutine
def _keeping_task_factory(work: Coroutine[Any, Any, _T]) -> Generator[Any, Any, _T]:
    """Await a coroutine, and undo what its steps do to the event loop's task factory before anything else runs."""
    loop = asyncio.get_running_loop()
    step: Callable[[], Any] = partial(work.send, None)
    while True:
        factory = loop.get_task_factory()
        try:
            awaited = step()
        except StopIteration as end:
            result: _T = end.value
            return result
        finally:
            if loop.get_task_factory() is not factory:
                loop.set_task_factory(factory)
        try:
            step = partial(work.send, (yield awaited))
        except BaseException as error:  # noqa: BLE001 - the coroutine's business
            step = partial(work.throw, error)


class SessionDriver(Driver):
    """A driver for the visitor's terminal of the present context. Everything happens on its event loop."""

    def __init__(
        self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        terminal = _TERMINAL.get()
        assert terminal is not None
        self._terminal = terminal
        self._context = copy_context()
        self._parser = XTermParser()
        self._ticking: asyncio.TimerHandle | None = None
        self._listening = False
        self._held = ExitStack()

    # For Textual.

    def write(self, data: str) -> None:
        """Queue something to be sent."""
        self._terminal.write(_in_colours(self._terminal, data))

    def start_application_mode(self) -> None:
        """Take the terminal."""
        self.write(_BEGIN + (_MOUSE if self._mouse else ""))
        self._send_size()
        self._listening = True
        self._terminal.attach(self)

    def disable_input(self) -> None:
        """Listen no more."""
        self._listening = False
        if self._ticking is not None:
            self._ticking.cancel()

    def stop_application_mode(self) -> None:
        """Give the terminal back."""
        self.disable_input()
        self.write((_NO_MOUSE if self._mouse else "") + _END)

    def send_message(self, message: Message) -> None:
        """Post a message to the application."""
        self._app.post_message(message)

    def open_url(self, url: str, new_tab: bool = True) -> None:  # noqa: FBT001, FBT002 - as its base has it
        """Show the link: the browser that could be opened is the server's."""
        self._app.notify(url, title="Link", markup=False)

    def deliver_binary(
        self,
        binary: BinaryIO | TextIO,
        *,
        delivery_key: str,
        save_path: Path,
        open_method: Literal["browser", "download"] = "download",
        encoding: str | None = None,
        mime_type: str | None = None,
        name: str | None = None,
    ) -> None:
        """Refuse: the disk that it could be saved to is the server's."""
        binary.close()
        refused = PermissionError("nothing is saved on the server")
        self._app.post_message(events.DeliveryFailed(delivery_key, refused, name))

    # For the terminal.

    def received(self, text: str) -> None:
        """Make keys and the like of what was typed."""
        self._context.run(self._feed, text)

    def _feed(self, text: str) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        for character in text:
            try:
                for message in self._parser.feed(character):
                    self._handle(message)
            except (ArithmeticError, ValueError):  # of a sequence with impossible numbers
                self.forget()
        if self._listening:
            delay = constants.ESCAPE_DELAY + _SLACK_SECONDS
            self._ticking = self._loop.call_later(delay, self._tick, context=self._context)

    def _tick(self) -> None:
        """Nothing has followed an escape: it is the key."""
        for message in self._parser.tick():
            self._handle(message)

    def _handle(self, message: Message) -> None:
        if isinstance(message, events.Resize | events.CursorPosition | messages.InBandWindowResize):
            self._parser.mouse_pixels = False  # nobody has asked for such an answer: it is made up
        elif self._listening:
            self.process_message(message)

    def forget(self) -> None:
        """Begin anew with parsing."""
        self._parser = XTermParser()

    def input_ended(self) -> None:
        """End the application: it cannot be told anything any more."""
        self._context.run(self._app.exit, return_code=1)

    def resized(self) -> None:
        """Tell the application."""
        self._context.run(self._send_size)

    def _send_size(self) -> None:
        size = Size(*self._terminal.size)
        self._app.console.size = size
        self._app.error_console.size = size
        self._app.post_message(events.Resize(size, size))

    def congested(self) -> None:
        """Have the application gather what changes, and draw nothing."""
        self._held.enter_context(self._app.batch_update())

    def relieved(self) -> None:
        """Draw it all."""
        self._context.run(self._draw)

    def _draw(self) -> None:
        self._held.close()
        if self._listening:
            self._app.refresh()

    async def caught_up(self) -> None:
        """Wait while more than a thousand messages wait for the application, or the widget that gets the keys."""
        while self._listening and self._context.run(self._longest_queue) > _MESSAGES_AHEAD:  # noqa: ASYNC110 - no event
            await asyncio.sleep(_LOOK_SECONDS)

    def _longest_queue(self) -> int:
        app = self._app
        try:
            pumps = [app, app.screen, app.focused or app]
        except ScreenStackError:
            return 0
        return max(pump.message_queue_size for pump in pumps)


def _unless_visiting(
    redirect: Callable[[_T], AbstractContextManager[_T]],
) -> Callable[[_T], AbstractContextManager[_T]]:
    """Redirect nothing for visitors: their applications would all redirect the same."""
    return lambda target: redirect(target) if _TERMINAL.get() is None else nullcontext(target)


vars(textual.app).update(
    redirect_stdout=_unless_visiting(redirect_stdout), redirect_stderr=_unless_visiting(redirect_stderr)
)
