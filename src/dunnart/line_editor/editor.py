"""The line discipline of applications that have no kernel's terminal: bytes typed in, lines out, and an echo to show.

Sans-I/O: `LineEditor` is fed with what the client's terminal sends, gives events, and has output to be sent back.

    event = editor.prompt("> ")
    while event is None:
        send(editor.output())
        event = editor.feed(receive())
    send(editor.output())

One prompt gives one event. What came behind the end of a line is kept, and read by the next prompt as if it were typed
then: so a password typed ahead is not shown, and an application that goes over to reading raw bytes can have the
rest (`take_rest`). However the bytes are cut into pieces, the events are the same, and so is the line on the screen.

Whatever a client sends, nothing raises and nothing grows without bound: lines, sequences, what is typed ahead, what
was killed, the history and a search in it are all limited. The screen is brought up to date once for each piece of
input, not for each key. What an application hands in (prompts, candidates, lines of history) may be of any kind;
control characters in it are not shown, save colours in a prompt.

The keys are those that readline's users have in their fingers.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import ClassVar

from dunnart.line_editor.buffer import LineBuffer, clean, width
from dunnart.line_editor.display import LineDisplay
from dunnart.line_editor.history import History
from dunnart.line_editor.keys import TEXT, Key, KeyDecoder
from dunnart.records import dataclass

Complete = Callable[[str, int], Sequence[str]]
"""Gets the line and the cursor's index in it; returns what the word before the cursor (back to a space) may become."""

_AHEAD = 64 * 1024
_QUERY = 256
_CANDIDATES_SHOWN = 100
_CANDIDATE_SHOWN = 200
_OUTPUT = 64 * 1024
"""With more output than this waiting, candidates are not listed: a few bytes must not make many without end."""
_ASKED = 64
"""So many times the application is asked to complete a word, for one piece of input."""
_PASTE_ON = "\x1b[?2004h"
_PASTE_OFF = "\x1b[?2004l"


@dataclass(frozen=True, slots=True)
class Line:
    """A line was entered; `text` is without its end."""

    text: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Control-C: the line was dropped."""


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """Control-D on an empty line, or the client sends no more."""


Event = Line | Interrupted | EndOfInput


@dataclass(slots=True)
class _Search:
    """A search backwards in the history: what for, where it is, and whether there is nothing more."""

    query: str
    index: int
    found: str
    place: int
    failed: bool = False


class LineEditor:
    """Edits lines on one terminal.

    Args:
        columns: the terminal's width, 0 if it is not known (then 80).
        rows: its height, 0 if it is not known (then 24).
        term: the kind of terminal. "dumb" (also "" and "unknown") gets an echo without movements of the cursor.
        utf8: it speaks UTF-8, otherwise ISO 8859-1.
        history: lines to go back to; a new one if None. What is entered is added to it.
        complete: finds what a word may become, for the Tab key. What it raises, `feed` and `prompt` raise.
        limit: characters in a line at most; the bell rings beyond.
    """

    __slots__ = (
        "_ahead", "_asked", "_buffer", "_complete", "_decoder", "_display", "_draft", "_echo", "_editing", "_encoding",
        "_ended", "_keys", "_last", "_past", "_place", "_position", "_prompt", "_search", "_skip_line_feed", "history",
    )  # fmt: skip

    def __init__(
        self,
        *,
        columns: int = 80,
        rows: int = 24,
        term: str = "xterm",
        utf8: bool = True,
        history: History | None = None,
        complete: Complete | None = None,
        limit: int = 4096,
    ) -> None:
        self.history = History() if history is None else history
        self._complete = complete
        self._encoding = "utf-8" if utf8 else "latin-1"
        self._decoder = codecs.getincrementaldecoder(self._encoding)("surrogateescape")
        self._display = LineDisplay(columns, rows, term, utf8=utf8)
        self._keys = KeyDecoder()
        self._buffer = LineBuffer(limit)
        self._ahead = ""  # decoded, with the bytes that do not decode as surrogates; from _position on it is to be read
        self._position = 0
        self._skip_line_feed = False  # a carriage return ended the line: a line feed or NUL belongs to it
        self._asked = 0
        self._ended = False
        self._editing = False
        self._prompt = ""
        self._echo = True
        self._last: Key | None = None
        self._past: list[str] = []  # the history as it was when this line went back in it
        self._place: int | None = None  # where in it, or None if it did not
        self._draft = ""
        self._search: _Search | None = None

    # For applications.

    @property
    def editing(self) -> bool:
        """A line was begun, and has not ended."""
        return self._editing

    def prompt(self, text: str = "", *, echo: bool = True) -> Event | None:
        """Begin a line.

        What was written before should have ended its line. All rows of the prompt but the last are only written.

        Args:
            text: the prompt; colours (SGR sequences) may be in it.
            echo: show what is typed. Otherwise nothing of it is shown, kept in the history or completed.

        Returns:
            The event, if what was typed ahead brings one already.

        Raises:
            RuntimeError: a line is being edited.
        """
        if self._editing:
            raise RuntimeError("a line is being edited already")
        above, newline, self._prompt = text.replace("\r\n", "\n").rpartition("\n")
        self._display.write(above + newline)
        self._display.control(_PASTE_ON)
        self._echo = echo
        self._buffer.secret = not echo
        self._buffer.set("")
        self._editing = True
        return self._advance()

    def feed(self, data: bytes) -> Event | None:
        """Take bytes from the terminal; returns the event that ends the line, if one does.

        Between lines they are kept for the next prompt, up to 64 Ki characters; the bell rings for what is dropped.
        """
        self._asked = 0
        self._keep(self._decoder.decode(data))
        return self._advance()

    def feed_eof(self) -> Event | None:
        """The terminal sends no more: what there is of a line is the last one."""
        self._keep(self._decoder.decode(b"", final=True))
        self._ended = True
        return self._advance()

    def output(self) -> bytes:
        """Take what is to be sent to the terminal."""
        return self._display.take()

    def resize(self, columns: int, rows: int = 0) -> None:
        """The terminal has another size: show the line anew."""
        self._display.resize(columns, rows)
        if self._editing:
            self._render()

    def print(self, text: str) -> None:
        """Write text, as it is; line feeds go to the beginning of the next row.

        If a line is being edited, the text is shown above it, and a last line feed is added if there is none.
        """
        if not self._editing:
            self._display.write(text)
        elif text:
            self._render()  # nothing is pending then, a cleared screen for one
            self._display.erase()
            self._display.write(text if text.endswith("\n") else text + "\n")
            self._render()

    def cancel(self) -> None:
        """Give the line up without an event, and take it from the screen."""
        if self._editing:
            self._render()
            self._display.erase()
            self._leave()

    def take_rest(self) -> bytes:
        """Take what was typed ahead, as bytes: from here on the application reads for itself."""
        rest = self._ahead[self._position :]
        if self._skip_line_feed and rest[:1] in {"\n", "\0"}:
            rest = rest[1:]
        data = rest.encode(self._encoding, "surrogateescape") + self._decoder.getstate()[0]
        self._decoder.reset()
        self._ahead, self._position, self._skip_line_feed = "", 0, False
        self._keys = KeyDecoder()
        return data

    # Reading.

    def _keep(self, text: str) -> None:
        if text:
            self._ahead = self._ahead[self._position :] + text
            self._position = 0

    def _advance(self) -> Event | None:
        """Read what there is, to the end of the line at most."""
        event = None
        while event is None and self._editing and self._position < len(self._ahead):
            event = self._step()
        if event is None and self._editing and self._ended:
            event = self._finish(Line(self._buffer.text) if self._buffer.text else EndOfInput())
        if self._editing:
            self._render()
        if self._position == len(self._ahead):
            self._ahead, self._position = "", 0
        elif len(self._ahead) - self._position > _AHEAD:
            self._ahead = self._ahead[self._position : self._position + _AHEAD]
            self._position = 0
            self._display.bell()
        return event

    def _step(self) -> Event | None:
        """Read a run of text, or a character that is none."""
        char = self._ahead[self._position]
        if self._skip_line_feed:
            self._skip_line_feed = False
            if char == "\n":  # a NUL does nothing anyway
                self._position += 1
                return None
        if self._keys.idle and (run := TEXT.match(self._ahead, self._position)):
            self._position = run.end()
            self._type(run[0])
            return None
        self._position += 1
        key = self._keys.push(char)
        if key is None:
            return None
        self._skip_line_feed = key is Key.ENTER and char == "\r"
        return self._press(key)

    def _type(self, text: str) -> None:
        self._last = None
        self._buffer.killing = False
        if self._search is not None:
            for char in clean(text):
                self._refine(self._search, char)
        elif not self._buffer.insert(text):
            self._display.bell()

    def _press(self, key: Key) -> Event | None:
        if self._search is not None and self._press_in_search(self._search, key):
            return None
        if key is Key.ENTER:
            return self._finish(Line(self._buffer.text))
        if key is Key.INTERRUPT:
            return self._finish(Interrupted(), "^C" if self._echo else "")
        if key is Key.DELETE_OR_END and not self._buffer.text:
            return self._finish(EndOfInput())
        if (
            (self._display.dumb and key in _NOT_DUMB)
            or (not self._echo and key in _NOT_SECRET)
            or not (_EDITS[key](self._buffer) if key in _EDITS else self._OTHERS[key](self))
        ):
            self._display.bell()
        self._buffer.killing = key in _KILLS
        self._last = key
        return None

    def _finish(self, event: Event, mark: str = "") -> Event:
        self._search = None
        self._buffer.end()
        self._render()
        self._display.finish(mark)
        if isinstance(event, Line) and self._echo:
            self.history.add(event.text)
        self._leave()
        return event

    def _leave(self) -> None:
        self._display.control(_PASTE_OFF)
        self._editing = False
        self._buffer.set("")
        self._buffer.killing = False
        self._search = None
        self._past, self._place, self._draft, self._last = [], None, "", None

    def _render(self) -> None:
        search = self._search
        if search is not None:
            said = "failed search" if search.failed else "search"
            self._display.show(f"({said} '{search.query}') ", search.found, search.place)
        elif self._echo:
            self._display.show(self._prompt, self._buffer.text, self._buffer.cursor)
        else:
            self._display.show(self._prompt, "", 0)

    # Keys that concern more than the line's text. They return False for the bell.

    def _tabulator(self) -> bool:
        return self._buffer.insert("\t")

    def _clear(self) -> bool:
        self._display.wipe()
        return True

    def _abort(self) -> bool:
        return False

    def _remember(self) -> None:
        if self._place is None:
            self._past = list(self.history)
            self._place = len(self._past)
        if self._place == len(self._past):
            self._draft = self._buffer.text

    def _up(self) -> bool:
        self._remember()
        if not self._place:
            return False
        self._place -= 1
        self._buffer.set(self._past[self._place])
        return True

    def _down(self) -> bool:
        if self._place is None or self._place == len(self._past):
            return False
        self._place += 1
        self._buffer.set(self._past[self._place] if self._place < len(self._past) else self._draft)
        return True

    def _begin_search(self) -> bool:
        self._remember()
        self._search = _Search("", len(self._past), self._buffer.text, self._buffer.cursor)
        return True

    def _press_in_search(self, search: _Search, key: Key) -> bool:
        """Do what a key does in a search; False if it ends it, and means what it always means."""
        if key is Key.SEARCH:
            self._look(search, search.index - 1)
        elif key is Key.BACKSPACE:
            search.query = search.query[:-1]
            search.failed = False
            search.index, search.found, search.place = len(self._past), self._buffer.text, self._buffer.cursor
            if search.query:
                self._look(search, len(self._past) - 1)
        elif key is Key.ABORT:
            self._search = None
        elif key is Key.TABULATOR:
            self._refine(search, "\t")
        else:
            self._search = None
            if search.index < len(self._past):
                self._place = search.index
                self._buffer.set(search.found, search.place)
            return False
        return True

    def _refine(self, search: _Search, char: str) -> None:
        if len(search.query) >= _QUERY:
            self._display.bell()
            return
        search.query += char
        self._look(search, min(search.index, len(self._past) - 1))

    def _look(self, search: _Search, start: int) -> None:
        """Find the query at `start` in the history or before. What has failed is not looked for again."""
        if not search.failed and search.query:
            again = search.found if start < search.index < len(self._past) else None
            for index in range(start, -1, -1):
                line = self._past[index]
                if (place := line.rfind(search.query)) >= 0 and line != again:
                    search.index, search.found, search.place = index, line, place
                    return
            search.failed = True
        self._display.bell()

    def _complete_word(self) -> bool:
        if self._complete is None or self._asked == _ASKED:
            return False
        self._asked += 1
        buffer = self._buffer
        before = buffer.text[: buffer.cursor]
        start = len(before) - len(before.split(" ")[-1])
        offered = self._complete(buffer.text, buffer.cursor)
        candidates = list(dict.fromkeys(name for name in map(clean, offered) if name))
        if not candidates:
            return False
        common = _common_prefix(candidates)
        if len(candidates) == 1:
            if not common.endswith("/") and buffer.text[buffer.cursor : buffer.cursor + 1] != " ":
                common += " "
            return buffer.replace(start, common)
        if len(common) > buffer.cursor - start:
            return buffer.replace(start, common) and False  # the bell: it is not all
        if self._last is Key.COMPLETE and self._display.waiting < _OUTPUT:
            self._list(candidates)
            return True
        return False

    def _list(self, candidates: list[str]) -> None:
        """Show candidates below the line, in columns, and the line anew below them."""
        cursor = self._buffer.cursor
        self._buffer.end()
        self._render()
        self._display.finish()
        self._buffer.cursor = cursor
        shown = [name[:_CANDIDATE_SHOWN].replace("\t", " ") for name in candidates[:_CANDIDATES_SHOWN]]
        sizes = [sum(map(width, name)) for name in shown]
        column = max(sizes) + 2
        height = -(-len(shown) // max(1, self._display.columns // column))
        for row in range(height):
            places = range(row, len(shown), height)
            padded = [shown[n] + " " * (column - sizes[n]) for n in places[:-1]]
            self._display.write("".join(padded) + shown[places[-1]] + "\n")
        if len(candidates) > len(shown):
            self._display.write(f"... and {len(candidates) - len(shown)} more\n")

    _OTHERS: ClassVar[dict[Key, Callable[[LineEditor], bool]]] = {
        Key.TABULATOR: _tabulator,
        Key.ABORT: _abort,
        Key.UP: _up,
        Key.DOWN: _down,
        Key.CLEAR: _clear,
        Key.COMPLETE: _complete_word,
        Key.SEARCH: _begin_search,
    }


def _common_prefix(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:same]


_EDITS: dict[Key, Callable[[LineBuffer], bool]] = {
    Key.LEFT: LineBuffer.left,
    Key.RIGHT: LineBuffer.right,
    Key.WORD_LEFT: LineBuffer.word_left,
    Key.WORD_RIGHT: LineBuffer.word_right,
    Key.HOME: LineBuffer.home,
    Key.END: LineBuffer.end,
    Key.BACKSPACE: LineBuffer.backspace,
    Key.DELETE: LineBuffer.delete,
    Key.DELETE_OR_END: LineBuffer.delete,
    Key.KILL_TO_END: LineBuffer.kill_to_end,
    Key.KILL_TO_START: LineBuffer.kill_to_start,
    Key.KILL_WORD: LineBuffer.kill_word,
    Key.KILL_WORD_BACK: LineBuffer.kill_word_back,
    Key.KILL_SPACE_BACK: LineBuffer.kill_space_back,
    Key.YANK: LineBuffer.yank,
    Key.TRANSPOSE: LineBuffer.transpose,
}
_KILLS = frozenset(
    {Key.KILL_TO_END, Key.KILL_TO_START, Key.KILL_WORD, Key.KILL_WORD_BACK, Key.KILL_SPACE_BACK},
)
_NOT_DUMB = frozenset(
    {Key.LEFT, Key.RIGHT, Key.WORD_LEFT, Key.WORD_RIGHT, Key.HOME, Key.CLEAR, Key.SEARCH},
)
_NOT_SECRET = frozenset({Key.UP, Key.DOWN, Key.COMPLETE, Key.SEARCH, Key.YANK})
