"""The line discipline: cut anywhere, fed anything, and against a model that knows a text and a place in it only."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dunnart.line_editor import EndOfInput, Event, History, Line, LineEditor
from tests.unit.line_editor.emulator import Emulator, picture

LIMIT = 60
NAMES = ("show", "shutdown", "sessions", "漢字", "漢語", "dir/")

FRAGMENTS = st.sampled_from(
    [
        *(bytes([code]) for code in range(32)),
        *(
            b"\x1b[A",
            b"\x1b[B",
            b"\x1b[C",
            b"\x1b[D",
            b"\x1bOH",
            b"\x1b[4~",
            b"\x1b[3~",
            b"\x1b[1;5D",
            b"\x1bOc",
            b"\x7f",
        ),
        *(
            b"\x1bb",
            b"\x1bf",
            b"\x1bd",
            b"\x1b\x7f",
            b"\x1b\x1b[D",
            b"\x1b[[A",
            b"\x1b[M",
            b"\x1b]0;t\x07",
            b"\x1bP",
            b"\x1b\\",
        ),
        *(b"\x1b[200~", b"\x1b[201~", b"\r\n", b"\r\0", b"\r", b"\n", b"\x1b", b"\x1b[", b"1;5", b"\t\t", b"\x12s"),
        *(b"\xff", b"\xe6\xbc", b"\xa2", b"\xc3", b"\xc2\x9b", b"\xf0\x9f\x98"),
        *(text.encode() for text in ("s", "sh", "show ", "a b-c_d", "漢字", "😀", "e\u0301", "x" * 25)),
    ],
)
INPUT = st.lists(FRAGMENTS, max_size=40).map(b"".join)


def names(line: str, cursor: int) -> list[str]:
    word = line[:cursor].rpartition(" ")[2]
    return [name for name in NAMES if name.startswith(word)]


def converse(pieces: list[bytes], echo: bool, term: str) -> tuple[list[Event], Emulator]:
    """Feed the pieces, prompting whenever a line ends; returns the events and the screen."""
    screen = Emulator(20)
    history = History(["show sessions", "shutdown", "漢字 show"])
    editor = LineEditor(columns=20, term=term, history=history, complete=names, limit=LIMIT)
    events: list[Event] = []

    def note(event: Event | None) -> None:
        while event is not None:
            events.append(event)
            event = editor.prompt("> ", echo=echo)
        screen.feed(editor.output())

    note(editor.prompt("> ", echo=echo))
    for piece in pieces:
        note(editor.feed(piece))
    return events, screen


@st.composite
def cut(draw: st.DrawFn) -> list[bytes]:
    data = draw(INPUT)
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(cut(), st.booleans())
def test_any_chunking_gives_the_same_events_and_the_same_screen(pieces: list[bytes], echo: bool) -> None:
    whole = b"".join(pieces)
    events, screen = converse([whole], echo, "xterm")
    for other in (pieces, [whole[n : n + 1] for n in range(len(whole))]):
        other_events, other_screen = converse(other, echo, "xterm")
        assert other_events == events
        assert (other_screen.rows, other_screen.place) == (screen.rows, screen.place)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(cut())
def test_any_chunking_gives_the_same_events_on_a_dumb_terminal(pieces: list[bytes]) -> None:
    """And the same last row: what was taken back over the end of a row may stay to be seen above."""
    events, screen = converse([b"".join(pieces)], True, "dumb")
    other_events, other_screen = converse(pieces, True, "dumb")
    assert other_events == events
    assert other_screen.rows[-1:] == screen.rows[-1:]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.one_of(INPUT, st.binary(max_size=300)), max_size=30),
    st.sampled_from(["xterm", "dumb"]),
    st.booleans(),
    st.integers(0, 30),
)
def test_nothing_raises_and_nothing_grows(pieces: list[bytes], term: str, utf8: bool, columns: int) -> None:
    editor = LineEditor(columns=columns, rows=5, term=term, utf8=utf8, complete=names, limit=LIMIT)
    editor.prompt("> ")
    for number, piece in enumerate(pieces):
        before = len(editor._ahead)
        event = editor.feed(piece)
        if event is not None:
            assert not editor.editing
            if isinstance(event, Line):
                assert len(event.text) <= LIMIT
                assert "\x1b" not in event.text
                assert event.text.replace("\t", " ").isprintable() or not event.text.isascii()
            if number % 3:
                editor.prompt("> ", echo=number % 4 != 1)
        if number % 5 == 4:
            editor.resize(number * 7 % 31, number % 9)
        if number % 7 == 6:
            editor.print("news")
        assert len(editor._ahead) - editor._position <= before + len(piece) + 3  # of a character
        assert len(editor._buffer.text) <= LIMIT
        assert len(editor._buffer.killed) <= LIMIT
        assert len(editor._keys._parameters) <= 32
        assert len(editor._display._cells) <= 31 * 24 + LIMIT * 9
        editor.output()
        assert editor.output() == b""
    editor.cancel()
    editor.take_rest()
    editor.feed(b"\x1b[201~\r")
    editor.prompt()
    assert editor.feed_eof() in {EndOfInput(), None}


LETTERS = st.text(st.sampled_from("ab _-é漢😀"), min_size=1, max_size=12)


class Editing(RuleBasedStateMachine):
    """Keys on one side, on the other what they mean to someone who sees a line and a cursor."""

    @initialize(columns=st.integers(5, 40), prompt=st.sampled_from(["", "> ", "漢> "]))
    def begin(self, columns: int, prompt: str) -> None:
        self.columns = columns
        self.prompt = prompt
        self.screen = Emulator(columns)
        self.editor = LineEditor(columns=columns, limit=LIMIT)
        self.above: list[str] = []
        self.text, self.cursor, self.killed, self.killing = "", 0, "", False
        assert self.editor.prompt(prompt) is None

    def press(self, keys: bytes | str) -> None:
        assert self.editor.feed(keys if isinstance(keys, bytes) else keys.encode()) is None
        self.killing = False

    def word_before(self, spaced: bool) -> int:
        place = self.cursor
        while place and not self.in_word(self.text[place - 1], spaced):
            place -= 1
        while place and self.in_word(self.text[place - 1], spaced):
            place -= 1
        return place

    def word_after(self) -> int:
        place = self.cursor
        while place < len(self.text) and not self.in_word(self.text[place], False):
            place += 1
        while place < len(self.text) and self.in_word(self.text[place], False):
            place += 1
        return place

    @staticmethod
    def in_word(char: str, spaced: bool) -> bool:
        return char != " " if spaced else char not in " _-"

    def kill(self, keys: bytes, start: int, end: int) -> None:
        killing, gone = self.killing, self.text[start:end]
        self.press(keys)
        if gone:
            kept = self.killed if killing else ""
            self.killed = gone + kept if start < self.cursor else kept + gone
        self.text = self.text[:start] + self.text[end:]
        self.cursor = start
        self.killing = True

    def insert(self, text: str) -> None:
        text = text[: LIMIT - len(self.text)]
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)

    @rule(text=LETTERS)
    def type(self, text: str) -> None:
        self.press(text)
        self.insert(text)

    @rule(text=LETTERS)
    def paste(self, text: str) -> None:
        self.press(f"\x1b[200~\x04{text}\x1b[A\x1b[201~")
        self.insert(text)

    @rule(key=st.sampled_from([b"\x1b[D", b"\x1bOD", b"\x02"]), times=st.integers(1, 20))
    def left(self, key: bytes, times: int) -> None:
        self.press(key * times)
        self.cursor = max(0, self.cursor - times)

    @rule(key=st.sampled_from([b"\x1b[C", b"\x1bOC", b"\x06"]), times=st.integers(1, 20))
    def right(self, key: bytes, times: int) -> None:
        self.press(key * times)
        self.cursor = min(len(self.text), self.cursor + times)

    @rule(key=st.sampled_from([b"\x01", b"\x1b[1~"]))
    def home(self, key: bytes) -> None:
        self.press(key)
        self.cursor = 0

    @rule(key=st.sampled_from([b"\x05", b"\x1b[F"]))
    def end(self, key: bytes) -> None:
        self.press(key)
        self.cursor = len(self.text)

    @rule()
    def word_left(self) -> None:
        self.press(b"\x1bb")
        self.cursor = self.word_before(spaced=False)

    @rule()
    def word_right(self) -> None:
        self.press(b"\x1bf")
        self.cursor = self.word_after()

    @rule(times=st.integers(1, 20))
    def backspace(self, times: int) -> None:
        self.press(b"\x7f" * times)
        start = max(0, self.cursor - times)
        self.text = self.text[:start] + self.text[self.cursor :]
        self.cursor = start

    @rule(times=st.integers(1, 20))
    def delete(self, times: int) -> None:
        self.press(b"\x1b[3~" * times)
        self.text = self.text[: self.cursor] + self.text[self.cursor + times :]

    @rule()
    def kill_to_end(self) -> None:
        self.kill(b"\x0b", self.cursor, len(self.text))

    @rule()
    def kill_to_start(self) -> None:
        self.kill(b"\x15", 0, self.cursor)

    @rule()
    def kill_word(self) -> None:
        self.kill(b"\x1bd", self.cursor, self.word_after())

    @rule()
    def kill_word_back(self) -> None:
        self.kill(b"\x1b\x7f", self.word_before(spaced=False), self.cursor)

    @rule()
    def kill_space_back(self) -> None:
        self.kill(b"\x17", self.word_before(spaced=True), self.cursor)

    @rule()
    def yank(self) -> None:
        self.press(b"\x19")
        self.insert(self.killed)

    @rule()
    def transpose(self) -> None:
        self.press(b"\x14")
        if self.cursor and len(self.text) > 1:
            place = min(self.cursor, len(self.text) - 1)
            letters = list(self.text)
            letters[place - 1 : place + 1] = letters[place - 1 : place + 1][::-1]
            self.text, self.cursor = "".join(letters), place + 1

    @rule()
    def clear(self) -> None:
        self.press(b"\x0c")
        self.above = []

    @rule(text=st.sampled_from(["news", "two\nrows\n"]))
    def print(self, text: str) -> None:
        self.editor.print(text)
        self.above += text.splitlines()

    @rule(columns=st.integers(5, 40))
    def resize(self, columns: int) -> None:
        self.look()
        self.columns = columns
        self.screen.rewrap(columns)
        self.editor.resize(columns)

    @rule()
    def enter(self) -> None:
        if self.text.strip():  # so that a row without anything is no question
            event = self.editor.feed(b"\r")
            assert event == Line(self.text)
            self.above += picture(self.prompt, self.text, 0, self.columns)[0]
            assert self.editor.prompt(self.prompt) is None
            self.text, self.cursor, self.killing = "", 0, False

    def look(self) -> None:
        self.screen.feed(self.editor.output())

    @invariant()
    def the_screen_shows_the_line(self) -> None:
        if not hasattr(self, "editor"):
            return
        self.look()
        rows, (row, column) = picture(self.prompt, self.text, self.cursor, self.columns)
        shown = self.screen.rows
        top = self.screen.cursor.y - row
        assert shown[top:] == rows
        assert self.screen.cursor.x == column
        # What stands above may have been broken anew meanwhile, so only its text is compared, and not its blanks.
        above = "".join(shown[:top]).replace(" ", "")
        assert above == "".join(self.above).replace(" ", "")


TestEditing = Editing.TestCase
TestEditing.settings = settings(max_examples=40, stateful_step_count=30)
