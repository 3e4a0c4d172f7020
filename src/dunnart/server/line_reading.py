"""Lines read at the terminal of a session: what `Session` and `BlockingSession` share, and the latter's stdin."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from typing import TYPE_CHECKING

from dunnart.errors import Interrupted
from dunnart.line_editor import Interrupted as Dropped
from dunnart.line_editor import Line, LineEditor

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

    from dunnart.line_editor import Complete, Event
    from dunnart.server.raw import Facts

_READ_BYTES = 64 * 1024
_LOCALE = ("LC_ALL", "LC_CTYPE", "LANG")


def editor_for(session: Facts, complete: Complete | None = None) -> LineEditor:
    """Make the line editor for a session's terminal."""
    terminal = session.terminal
    assert terminal is not None
    locale = next(filter(None, map(session.environment.get, _LOCALE)), "")
    return LineEditor(
        columns=terminal.columns, rows=terminal.rows, term=terminal.term, utf8="8859" not in locale, complete=complete
    )


class TypedInput(io.RawIOBase):
    """A file of the lines that are typed at a terminal; each read gives one, once it is edited.

    Control-D is the end of the file, after which more may be read; control-C raises `Interrupted`.

    Args:
        session: whose terminal it is.
        sock: leads to it.
        flush: called before a line is read, to have what was written before it on the screen.

    Attributes:
        prompt: shown before the next line.
        echo: whether what is typed is shown.
        editor: edits the lines.
    """

    def __init__(self, session: Facts, sock: socket.socket, flush: Callable[[], None]) -> None:
        self.prompt = ""
        self.echo = True
        self.editor = editor_for(session)
        self._session = session
        self._sock = sock
        self._flush = flush
        self._ready = b""
        self._lock = threading.Lock()  # of the editor: a new size comes in another thread

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read a line, or what is left of one."""
        view = memoryview(buffer).cast("B")
        if not self._ready:
            self._ready = self._line()
        data, self._ready = self._ready[: len(view)], self._ready[len(view) :]
        view[: len(data)] = data
        return len(data)

    def take(self, limit: int) -> bytes:
        """Give bytes as they come, unedited, what was typed ahead first; b"" at the end."""
        self._ready += self.editor.take_rest()
        if not self._ready:
            return self._receive(limit)
        data, self._ready = self._ready[:limit], self._ready[limit:]
        return data

    def resize(self) -> None:
        """The terminal has another size. From any thread; does not block."""
        if self._lock.acquire(blocking=False):  # else the line is about to be shown anyway
            try:
                self._fit()
                output = self.editor.output()
                if output:
                    with contextlib.suppress(OSError):
                        self._sock.send(output, socket.MSG_DONTWAIT)
            finally:
                self._lock.release()

    def _fit(self) -> None:
        terminal = self._session.terminal
        if terminal is not None:
            self.editor.resize(terminal.columns, terminal.rows)

    def _line(self) -> bytes:
        self._flush()
        event = self._advance(lambda: self.editor.prompt(self.prompt, echo=self.echo))
        while event is None:
            data = self._receive(_READ_BYTES)
            event = self._advance(self._feeding(data))
        if isinstance(event, Dropped):
            raise Interrupted("control-C")
        return f"{event.text}\n".encode(errors="replace") if isinstance(event, Line) else b""

    def _feeding(self, data: bytes) -> Callable[[], Event | None]:
        return lambda: self.editor.feed(data) if data else self.editor.feed_eof()

    def _advance(self, step: Callable[[], Event | None]) -> Event | None:
        with self._lock:
            self._fit()
            event = step()
            self._sock.sendall(self.editor.output())
        return event

    def _receive(self, limit: int) -> bytes:
        try:
            return self._sock.recv(limit)
        except OSError:
            return b""
