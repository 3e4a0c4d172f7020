"""prompt_toolkit for visitors: each has an `AppSession` of his own, with his keys, his screen and his colours.

    async def interact(session: dunnart.Session) -> None:
        name = await PromptSession("Your name: ").prompt_async()
        print_formatted_text(f"Hello {name}")

    server = dunnart.Server(prompt_toolkit_handler(interact), ...)

prompt_toolkit takes input and output from a context variable, and so serves many visitors in one process. In some
places, though, an application assumes that the process is its own: it takes over SIGINT, SIGWINCH, the event loop's
exception handler and `breakpoint()`, reads $TERM, and gives back later what it found, in which two applications that
overlap get into each other's way. In the context of a visitor, and only there, this module keeps it from that.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, ClassVar, TextIO, TypeVar, cast

try:
    from prompt_toolkit.application import Application, application
    from prompt_toolkit.application.current import create_app_session
    from prompt_toolkit.data_structures import Size
    from prompt_toolkit.input import Input, vt100_parser
    from prompt_toolkit.input.typeahead import clear_typeahead
    from prompt_toolkit.keys import Keys
    from prompt_toolkit.output import ColorDepth
    from prompt_toolkit.output.vt100 import Vt100_Output
    from prompt_toolkit.shortcuts import PromptSession
    from prompt_toolkit.utils import is_dumb_terminal
except ImportError as error:
    raise ImportError(f'prompt_toolkit cannot be loaded: pip install "dunnart[prompt-toolkit]" ({error})') from error

from dunnart.apps.terminal import VisitorTerminal, has_screen, refusing

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyPress

    from dunnart.server.applications import AsyncHandler
    from dunnart.server.session import Session

_T = TypeVar("_T")
_DEPTHS = {
    1: ColorDepth.DEPTH_1_BIT, 4: ColorDepth.DEPTH_4_BIT, 8: ColorDepth.DEPTH_8_BIT, 24: ColorDepth.DEPTH_24_BIT,
}  # fmt: skip
_PLACES: dict[Keys | str, re.Pattern[str]] = {
    Keys.Vt100MouseEvent: re.compile(r"\x1b\[<?\d{1,5};(?P<column>\d{1,5});(?P<row>\d{1,5})[Mm]"),
    Keys.CPRResponse: re.compile(r"\x1b\[(?P<row>\d{1,5});(?P<column>\d{1,5})R"),
}
_INTERRUPTED = 130  # as a shell says it of a program that control-C has ended
_PIECE = 64
_LARGEST_PIECE = 512
_KEYS_AHEAD = 4096
_CACHED_PREFIXES = 10_000


def prompt_toolkit_handler(interact: AsyncHandler, *, without_terminal: AsyncHandler | None = None) -> AsyncHandler:
    """Make a handler of a coroutine function that uses prompt_toolkit.

    In it prompt_toolkit's coroutines and functions work on the visitor's terminal, and those that block the event loop
    or run in a thread do not. Control-C and control-D raise KeyboardInterrupt and EOFError there as ever; if they are
    not caught the session ends, with status 130 or 0. Of the session's own methods only the facts and `exit` are to be
    used: prompt_toolkit reads and writes it.

    Args:
        interact: gets the session; what it returns is the exit status, None stands for 0.
        without_terminal: serves the sessions without a terminal, or with a "dumb" one; by default they are told on
            stderr to use ssh -t, and get status 1.
    """
    otherwise = refusing(without_terminal)

    async def serve(session: Session) -> int | None:
        if not has_screen(session):
            return await otherwise(session)
        async with VisitorTerminal(session) as terminal:
            with _visiting(terminal):
                try:
                    return await interact(session)
                except KeyboardInterrupt:  # must not reach the event loop, which it would end
                    return _INTERRUPTED
                except SystemExit as error:  # likewise
                    return error.code if isinstance(error.code, int) else int(error.code is not None)
                except EOFError:
                    return 1 if terminal.input_ended else 0

    return serve


@contextmanager
def _visiting(terminal: VisitorTerminal) -> Iterator[None]:
    visit = _Visit(terminal)
    terminal.attach(visit)
    output = Vt100_Output(
        cast("TextIO", _Stdout(terminal)),
        visit.size,
        term=visit.term,
        default_color_depth=_DEPTHS[terminal.colour_bits],
    )
    token = _VISIT.set(visit)
    try:
        with create_app_session(input=visit.keys, output=output):
            yield
    finally:
        _VISIT.reset(token)
        visit.keys.release()


class _Stdout(io.TextIOBase):
    """The file that `Vt100_Output` writes to."""

    encoding = "utf-8"

    def __init__(self, terminal: VisitorTerminal) -> None:
        self._terminal = terminal

    def write(self, text: str) -> int:
        self._terminal.write(text.replace("\r\n", "\n").replace("\n", "\r\n"))
        return len(text)

    def isatty(self) -> bool:
        return not self._terminal.session.closed


class _Keys(Input):
    """What the visitor types. Applications attach to it one after the other, or one in front of another.

    Args:
        size: the terminal's.
        failed: called with what an application's key bindings raise.

    Attributes:
        room: set unless thousands of keys wait to be read.
    """

    # Numbers are used again, for prompt_toolkit keeps an entry for each that there ever was.
    _free: ClassVar[list[int]] = []
    _used: ClassVar[int] = 0

    def __init__(self, size: Callable[[], Size], failed: Callable[[Exception], None]) -> None:
        if not self._free:
            _Keys._used += 1
            self._free.append(self._used)
        self._number = self._free.pop()
        self._size = size
        self._failed = failed
        self._keys: list[KeyPress] = []
        self.room = asyncio.Event()
        self.room.set()
        self._readers: list[Callable[[], None] | None] = []
        self._parser = vt100_parser.Vt100Parser(self._parsed)
        self._piece = _PIECE
        self._silent = 0
        self._closed = False

    def _parsed(self, key: KeyPress) -> None:
        place = _PLACES.get(key.key)
        if place is not None:
            # prompt_toolkit believes what a terminal says of places, and trips over what it cannot say.
            found, size = place.fullmatch(key.data), self._size()
            if found is None:
                return
            row, column = int(found["row"]), int(found["column"])
            if not (1 <= row <= size.rows and 1 <= column <= size.columns):
                return
        self._keys.append(key)

    def release(self) -> None:
        """The visitor has left."""
        clear_typeahead(self)
        self._free.append(self._number)

    # From the terminal.

    def feed(self, text: str) -> None:
        """Parse what was typed, and have it read."""
        place = 0
        while place < len(text):
            known, piece = len(self._keys), text[place : place + self._piece]
            self._parser.feed(piece)
            place += len(piece)
            self._silent += len(piece)
            if self._silent >= _PIECE and len(self._keys) == known:
                # Either it gathers a paste, or an escape sequence longer than any: each of that one's beginnings is
                # remembered for ever, and by all visitors together.
                self._parser.flush()
                self._piece = min(2 * self._piece, _LARGEST_PIECE)
            if len(self._keys) > known:
                self._piece, self._silent = _PIECE, 0
        prefixes = vt100_parser._IS_PREFIX_OF_LONGER_MATCH_CACHE  # noqa: SLF001
        if len(prefixes) > _CACHED_PREFIXES:
            prefixes.clear()
        if len(self._keys) > _KEYS_AHEAD:
            self.room.clear()
        self._notify()

    def forget(self) -> None:
        """Begin anew with parsing."""
        self._parser.reset()

    def close(self) -> None:
        """Nothing more will be typed."""
        self._closed = True
        self._notify()

    def _notify(self) -> None:
        reader = self._readers[-1] if self._readers else None
        if reader is not None and (self._keys or self._closed):
            try:
                reader()
            except Exception as error:  # noqa: BLE001 - it ends this session
                self._failed(error)

    # For prompt_toolkit.

    def attach(self, input_ready_callback: Callable[[], None]) -> AbstractContextManager[None]:
        """While in the context, this is called when there are keys."""
        return self._with_reader(input_ready_callback)

    def detach(self) -> AbstractContextManager[None]:
        """While in the context, nothing is."""
        return self._with_reader(None)

    @contextmanager
    def _with_reader(self, reader: Callable[[], None] | None) -> Iterator[None]:
        self._readers.append(reader)
        asyncio.get_running_loop().call_soon(self._notify)
        try:
            yield
        finally:
            self._readers.remove(reader)
            asyncio.get_running_loop().call_soon(self._notify)

    def read_keys(self) -> list[KeyPress]:
        """Take the keys."""
        keys, self._keys = self._keys, []
        self.room.set()
        return keys

    def flush_keys(self) -> list[KeyPress]:
        """Take the keys, and an escape that nothing has followed."""
        self._parser.flush()
        return self.read_keys()

    @property
    def closed(self) -> bool:
        """Nothing more will be typed, and all was read."""
        return self._closed and not self._keys

    def raw_mode(self) -> AbstractContextManager[None]:
        """There is no tty that would have modes."""
        return nullcontext()

    cooked_mode = raw_mode

    def typeahead_hash(self) -> str:
        """What no other visitor's input has at the same time."""
        return f"dunnart-{self._number}"

    def fileno(self) -> int:
        """There is no descriptor: what wants one are programs that would run on the server's terminal."""
        raise io.UnsupportedOperation("a visitor's input has no descriptor")


class _Visit:
    """One visitor: the screen of his terminal, and what his applications must not do to the process."""

    def __init__(self, terminal: VisitorTerminal) -> None:
        assert terminal.session.terminal is not None
        self.term = terminal.session.terminal.term
        self.keys = _Keys(self.size, terminal.fail)
        self._terminal = terminal
        self._running: list[Application[Any]] = []
        self._resize: list[Callable[[], None]] = []

    def size(self) -> Size:
        """The terminal's."""
        columns, rows = self._terminal.size
        return Size(rows=rows, columns=columns)

    # As the screen.

    def received(self, text: str) -> None:
        """Feed the applications."""
        self.keys.feed(text)

    def forget(self) -> None:
        """Begin anew with parsing."""
        self.keys.forget()

    def input_ended(self) -> None:
        """Have the prompts raise EOFError."""
        self.keys.close()

    def resized(self) -> None:
        """Have the foremost application draw itself anew."""
        if self._resize:
            self._resize[-1]()

    def congested(self) -> None:
        """Applications look at it before they draw."""

    def relieved(self) -> None:
        """Draw what was left out."""
        for app in self._running:
            app.invalidate()

    async def caught_up(self) -> None:
        """Wait until an application reads the keys that there are."""
        await self.keys.room.wait()

    # For applications.

    @contextmanager
    def on_resize(self, handler: Callable[[], None]) -> Iterator[None]:
        """In the place of a handler of SIGWINCH."""
        self._resize.append(handler)
        try:
            yield
        finally:
            self._resize.remove(handler)

    @contextmanager
    def running(self, app: Application[Any]) -> Iterator[None]:
        """Have this application draw when the terminal takes it, and its failures end the session."""
        terminal, redraw, finished = self._terminal, app._redraw, app._on_background_task_done  # noqa: SLF001

        def draw(render_as_done: bool = False) -> None:  # noqa: FBT001, FBT002 - as the method that it replaces
            if terminal.is_congested and not render_as_done:
                return
            try:
                redraw(render_as_done)
            except Exception as error:  # noqa: BLE001 - it ends this session
                terminal.fail(error)

        def background_task_done(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception):
                terminal.fail(error)
            elif error is None:
                finished(task)

        own: dict[str, object] = {
            "_redraw": draw, "_on_background_task_done": background_task_done, "_enable_breakpointhook": nullcontext,
        }  # fmt: skip
        vars(app).update(own)
        self._running.append(app)
        try:
            yield
        finally:
            self._running.remove(app)
            for name in own:
                vars(app).pop(name, None)


_VISIT: ContextVar[_Visit | None] = ContextVar("visit", default=None)


def _tame() -> None:
    """Have prompt_toolkit leave the process alone while it serves a visitor."""
    run_async, on_winch = Application.run_async, application.attach_winch_signal_handler

    async def run_for_visitor(
        self: Application[_T],
        pre_run: Callable[[], None] | None = None,
        set_exception_handler: bool = True,  # noqa: FBT001, FBT002 - as the method that it replaces
        handle_sigint: bool = True,  # noqa: FBT001, FBT002
        slow_callback_duration: float = 0.5,
    ) -> _T:
        visit = _VISIT.get()
        if visit is None:
            return await run_async(self, pre_run, set_exception_handler, handle_sigint, slow_callback_duration)
        with visit.running(self):
            duration = asyncio.get_running_loop().slow_callback_duration
            return await run_async(
                self, pre_run, set_exception_handler=False, handle_sigint=False, slow_callback_duration=duration
            )

    def on_resize(handler: Callable[[], None]) -> AbstractContextManager[None]:
        visit = _VISIT.get()
        return on_winch(handler) if visit is None else visit.on_resize(handler)

    def is_dumb(term: str | None = None) -> bool:
        visit = _VISIT.get()
        return is_dumb_terminal(visit.term if visit is not None and term is None else term)

    update_wrapper(run_for_visitor, run_async)
    Application.run_async = run_for_visitor  # type: ignore[method-assign]
    application.attach_winch_signal_handler = on_resize  # type: ignore[assignment]
    # The package has a function of this module's name.
    vars(sys.modules[PromptSession.__module__])["is_dumb_terminal"] = is_dumb


_tame()
