"""Lines come out as they were typed, and the screen shows them. Looked at on a terminal, not in bytes."""

from __future__ import annotations

import unicodedata

import pytest
from wcwidth import wcwidth

from dunnart.line_editor import EndOfInput, Event, History, Interrupted, Line, LineEditor, width
from tests.unit.line_editor.emulator import Emulator, picture

LEFT, RIGHT, UP, DOWN = b"\x1b[D", b"\x1b[C", b"\x1b[A", b"\x1b[B"
HOME, END, DELETE = b"\x1b[H", b"\x1b[F", b"\x1b[3~"


class Typist:
    """Types at a terminal, and prompts again whenever a line ends."""

    def __init__(self, prompt: str = "> ", columns: int = 80, echo: bool = True, **options: object) -> None:
        self.screen = Emulator(columns)
        self.editor = LineEditor(columns=columns, **options)  # type: ignore[arg-type]
        self.text, self.echo = prompt, echo
        self.events: list[Event] = []
        self.prompt()

    def prompt(self) -> None:
        event = self.editor.prompt(self.text, echo=self.echo)
        while event is not None:
            self.events.append(event)
            event = self.editor.prompt(self.text, echo=self.echo)
        self.look()

    def look(self) -> None:
        self.screen.feed(self.editor.output())

    def type(self, *pieces: bytes | str) -> Typist:
        for piece in pieces:
            event = self.editor.feed(piece if isinstance(piece, bytes) else piece.encode())
            self.look()
            if event is not None:
                self.events.append(event)
                self.prompt()
        return self

    @property
    def line(self) -> tuple[str, int]:
        """The last row that is shown, and the cursor's column in it."""
        row, column = self.screen.place
        rows = self.screen.rows
        assert row == len(rows) - 1
        return rows[row], column


@pytest.fixture
def typist() -> Typist:
    return Typist()


# Line ends and endings.


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\r\0", b"\x1bOM"])
@pytest.mark.parametrize("split", [False, True])
def test_any_line_end_is_one(end: bytes, split: bool) -> None:
    typist = Typist()
    data = b"one" + end + b"two" + end + end + b"x"
    typist.type(*([data[n : n + 1] for n in range(len(data))] if split else [data]))
    assert typist.events == [Line("one"), Line("two"), Line("")]
    assert typist.screen.rows == ["> one", "> two", ">", "> x"]


def test_one_prompt_gives_one_line_and_the_rest_waits() -> None:
    editor = LineEditor()
    assert editor.prompt() is None
    assert editor.feed(b"one\rtwo\rthr") == Line("one")
    assert not editor.editing
    assert editor.feed(b"ee") is None
    assert editor.prompt() == Line("two")
    assert editor.prompt() is None
    assert editor.feed(b"\r") == Line("three")


def test_prompting_twice_is_a_misuse(typist: Typist) -> None:
    with pytest.raises(RuntimeError, match="being edited"):
        typist.editor.prompt()


def test_interrupt_drops_the_line(typist: Typist) -> None:
    typist.type("rm -rf", LEFT, b"\x03", "ok\r")
    assert typist.events == [Interrupted(), Line("ok")]
    assert typist.screen.rows == ["> rm -rf^C", "> ok", ">"]


def test_control_d_ends_an_empty_line_only(typist: Typist) -> None:
    typist.type("ab", LEFT, b"\x04")
    assert typist.events == []
    assert typist.line == ("> a", 3)
    typist.type(b"\x7f\x04")
    assert typist.events == [EndOfInput()]


def test_the_end_of_what_the_client_sends() -> None:
    editor = LineEditor()
    editor.prompt()
    editor.feed(b"one\rlast\xc3")
    assert editor.feed_eof() is None
    assert editor.prompt() == Line("last\ufffd")
    assert editor.prompt() == EndOfInput()
    assert editor.prompt() == EndOfInput()


# Raw reads.


def test_the_rest_can_be_had_as_it_came() -> None:
    editor = LineEditor()
    editor.prompt()
    assert editor.feed(b"raw\r\n\xff\x1b[A\xe6\xbc") == Line("raw")
    assert editor.take_rest() == b"\xff\x1b[A\xe6\xbc"
    assert editor.take_rest() == b""
    assert editor.prompt() is None
    assert editor.feed(b"\xa2\r") == Line("\ufffd")


@pytest.mark.parametrize("end", [b"\r", b"\r\n", b"\r\0", b"\n"])
def test_the_rest_begins_behind_the_line_end(end: bytes) -> None:
    editor = LineEditor()
    editor.prompt()
    assert editor.feed(b"raw" + end + b"\n") == Line("raw")
    assert editor.take_rest() == (b"" if end == b"\r" else b"\n")


def test_raw_reads_end_a_paste() -> None:
    editor = LineEditor()
    editor.prompt()
    assert editor.feed(b"\x1b[200~raw\r...") == Line("raw")
    assert editor.take_rest() == b"..."
    editor.prompt()
    assert editor.feed(b"x\x03") == Interrupted()


def test_what_is_typed_ahead_is_bounded() -> None:
    editor = LineEditor()
    screen = Emulator()
    for _ in range(300):
        assert editor.feed(b"x" * 1000) is None
    screen.feed(editor.output())
    assert screen.bells == 1
    assert len(editor.take_rest()) == 65536


# Passwords.


def test_without_echo_nothing_shows() -> None:
    typist = Typist("Password: ", echo=False, complete=lambda _line, _cursor: ["secrets"])
    typist.type("sekrit", LEFT, b"\x7f", b"i\t\t", "!", END, b"\x17", "no", b"\x15", "pass", UP, b"\x12\x19")
    assert typist.screen.rows == ["Password:"]
    assert typist.screen.place == (0, 10)
    typist.type("\r")
    assert typist.events == [Line("pass")]
    assert typist.screen.rows == ["Password:", "Password:"]
    typist.echo = True
    typist.type(b"\x03", b"\x19", UP)  # neither killed nor remembered
    assert typist.line == ("Password:", 10)


def test_a_password_typed_ahead_does_not_show() -> None:
    editor, screen = LineEditor(), Emulator()
    editor.prompt("login: ")
    assert editor.feed(b"ann\rpass") == Line("ann")
    editor.prompt("password: ", echo=False)
    assert editor.feed(b"word\r") == Line("password")
    screen.feed(editor.output())
    assert screen.rows == ["login: ann", "password:"]


def test_an_interrupted_password_shows_no_mark() -> None:
    typist = Typist("Password: ", echo=False).type("abc\x03")
    assert typist.events == [Interrupted()]
    assert typist.screen.rows == ["Password:", "Password:"]


# Keys.


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        # what each terminal calls them: xterm, application mode, Linux and PuTTY, rxvt
        *(
            (HOMES + b"X", "Xfoo bar")
            for HOMES in (b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"\x1b[7~", b"\x1b[1;2H", b"\x01")
        ),
        *(
            (b"\x01" + ENDS + b"X", "foo barX")
            for ENDS in (b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"\x1b[8~", b"\x1bOw", b"\x05")
        ),
        *((LEFTS + b"X", "foo baXr") for LEFTS in (b"\x1b[D", b"\x1bOD", b"\x1b[1;2D", b"\x1b[d", b"\x02")),
        *((b"\x01" + RIGHTS + b"X", "fXoo bar") for RIGHTS in (b"\x1b[C", b"\x1bOC", b"\x1b[1;2C", b"\x1b[c", b"\x06")),
        *((b"\x01" + DELETES, "oo bar") for DELETES in (b"\x1b[3~", b"\x1b[P", b"\x1b[3$", b"\x04")),
        *((BACKS, "foo ba") for BACKS in (b"\x7f", b"\x08")),
        *(
            (WORDS + b"X", "foo Xbar")
            for WORDS in (b"\x1bb", b"\x1b[1;5D", b"\x1b[1;3D", b"\x1bO5D", b"\x1bOd", b"\x1b\x1b[D", b"\x1b\x1bOD")
        ),
        *(
            (b"\x01" + WORDS + b"X", "fooX bar")
            for WORDS in (b"\x1bf", b"\x1bF", b"\x1b[1;5C", b"\x1b[1;3C", b"\x1bO5C", b"\x1bOc", b"\x1b\x1b[C")
        ),
        *((b"\x01" + WORDS, " bar") for WORDS in (b"\x1bd", b"\x1b[3;5~", b"\x1b[3^")),
        *((WORDS, "foo ") for WORDS in (b"\x1b\x7f", b"\x1b\x08", b"\x17")),
        (b"\x0b", "foo bar"),
        (b"\x1bb\x0b", "foo "),
        (b"\x15", ""),
        (b"\x1bb\x15", "bar"),
        (b"\x14", "foo bra"),
        (b"\x01\x14", "foo bar"),
        (b"\x1bb\x14", "foob ar"),
        (b"\x15\x19\x19", "foo barfoo bar"),
        (b"\x17\x17\x19", "foo bar"),  # kills in a row are one
        (b"\x17x\x17\x19", "foo x"),
        (b"\x1bb\x0b\x15\x19", "foo bar"),
        (" \u0301b\x17".encode(), "foo bar"),  # the space has a mark, and goes with it
        (b"/a-b\x17", "foo "),
        (b"/a-b\x1b\x7f", "foo bar/a-"),
    ],
)
def test_keys(keys: bytes, expected: str) -> None:
    typist = Typist().type("foo bar", keys)
    assert typist.screen.rows == [f"> {expected}".rstrip()]
    assert typist.type("\r").events == [Line(expected)]


@pytest.mark.parametrize(
    "sequence",
    [
        *(
            b"\x1b[15~",
            b"\x1bOP",
            b"\x1b[[A",
            b"\x1b[1;5P",
            b"\x1b[2~",
            b"\x1b[5~",
            b"\x1b[200$",
            b"\x1b[?1;2c",
            b"\x1b[24;80R",
        ),
        *(
            b"\x1b[I",
            b"\x1b[O",
            b"\x1b[M !!",
            b"\x1b[<0;10;10M",
            b"\x1b[99;5u",
            b"\x1b[Z",
            b"\x1b[?2026;1$y",
            b"\x1bx",
            b"\x1b.",
        ),
        *(b"\x1bP1+r544e\x1b\\", b"\x1b]11;rgb:0000/0000/0000\x07", b"\x1b]11;rgb:0/0/0\x1b\\", b"\x1b_Gi=1;OK\x1b\\"),
        *(b"\xc2\x9b15~", b"\xc2\x9d0;t\xc2\x9c", b"\xc2\x85", b"\x1b[" + b"1;" * 500 + b"m", b"\0", b"\x1a", b"\x1c"),
        "\x1b漢".encode(),
        "\x1b[漢".encode(),
    ],
)
def test_what_is_not_known_is_swallowed_whole(sequence: bytes) -> None:
    typist = Typist().type("a", sequence, "b")
    assert typist.line == ("> ab", 4)
    assert typist.screen.bells == 0
    assert typist.type(*(sequence[n : n + 1] for n in range(len(sequence))), "\r").events == [Line("ab")]


def test_alt_ends_with_its_key(typist: Typist) -> None:
    typist.type("foo bar", b"\x1b\x1b[C\xc2\x9bD", "X\r")
    assert typist.events == [Line("foo baXr")]


@pytest.mark.parametrize(
    "begun", [b"\x1b", b"\x1b[", b"\x1b[1;", b"\x1bO", b"\x1bP", b"\x1b]0;t", b"\x1b[M", b"\x1b[["]
)
def test_control_keys_work_within_anything(begun: bytes) -> None:
    assert Typist().type("a", begun, "\r").events == [Line("a")]
    assert Typist().type("a", begun, b"\x03").events == [Interrupted()]


# Text.


def test_characters_may_come_in_pieces(typist: Typist) -> None:
    typist.type(b"\xe6", b"\xbc", b"\xa2\xf0\x9f", b"\x98\x80")
    assert typist.line == ("> 漢😀", 6)


def test_bytes_that_are_no_text_are_shown_as_such(typist: Typist) -> None:
    typist.type(b"a\xffb\xe6\xbcc\xed\xa0\x80\r")
    (event,) = typist.events
    assert isinstance(event, Line)
    assert event.text.replace("\ufffd", "") == "abc"
    assert event.text.startswith("a\ufffdb\ufffd")
    assert typist.screen.rows[0] == f"> {event.text}"


def test_a_terminal_without_utf8() -> None:
    editor = LineEditor(utf8=False)
    editor.prompt("\xbf\u6f22? ")
    assert editor.feed("\xe9t\xe9".encode("latin-1") + LEFT) is None
    output = editor.output()
    assert b"\xbf?? \xe9t\xe9" in output
    assert output.endswith(b"\x1b[1D")
    assert editor.feed(b"\x9bD!\r") == Line("\xe9!t\xe9")


def test_wide_and_combined_characters_are_one_each(typist: Typist) -> None:
    typist.type("漢e\u0301字", LEFT)
    assert typist.line == ("> 漢é字", 5)
    typist.type(LEFT)
    assert typist.line == ("> 漢é字", 4)
    typist.type(RIGHT, b"\x7f")
    assert typist.line == ("> 漢字", 4)
    typist.type(b"\x02\x04")
    assert typist.line == ("> 字", 2)
    typist.type("\r")
    assert typist.events == [Line("字")]


def test_widths_are_those_of_the_wcwidth_package() -> None:
    """But for what terminals disagree on (spacing marks, the halves of flags), and symbols widened in Unicode 16."""
    disputed = {"Cn", "Mc", "Cf", "Zl", "Zp", "Co"}
    known = [
        char
        for char in map(chr, (*range(0x20, 0x7F), *range(0xA0, 0xD800), *range(0xE000, 0x20000)))
        if unicodedata.category(char) not in disputed and not "\U0001f1e6" <= char <= "\U0001f1ff"
    ]
    assert len(known) > 60_000
    different = [char for char in known if width(char) != wcwidth(char)]
    widened = [char for char in different if unicodedata.category(char) in {"So", "No"} and width(char) == 1]
    assert len(widened) < 200
    assert set(different) - set(widened) <= {"\u3164", "\uffa0"}  # Hangul fillers


def test_many_marks_on_one_character_are_no_trap(typist: Typist) -> None:
    typist.type("a" + "\u0301" * 4000 + "b")
    typist.type(*[LEFT] * 400)
    typist.type("X\r")
    assert isinstance(typist.events[0], Line)
    assert typist.events[0].text.startswith("X")


def test_a_line_has_a_limit() -> None:
    typist = Typist(limit=10)
    typist.type("123456789")
    assert typist.screen.bells == 0
    typist.type("0ab", HOME, "x")
    assert typist.screen.bells == 2
    assert typist.screen.rows == ["> 1234567890"]
    typist.type(b"\x15\x19\x19\r")
    assert typist.events == [Line("1234567890")]


# Rows.


@pytest.mark.parametrize(
    "text", ["x" * 18, "x" * 17, "x" * 19, "x" * 38, "漢" * 9, "漢" * 20, "a" + "漢" * 30, "abc" * 40]
)
def test_long_lines_go_over_rows(text: str) -> None:
    typist = Typist(columns=20)
    for char in text:
        typist.type(char)
    whole = len(text)
    assert (typist.screen.rows, typist.screen.place) == picture("> ", text, whole, 20)
    for cursor in range(whole - 1, -1, -1):
        typist.type(LEFT)
        assert (typist.screen.rows, typist.screen.place) == picture("> ", text, cursor, 20)
    typist.type("+")
    assert (typist.screen.rows, typist.screen.place) == picture("> ", "+" + text, 1, 20)
    typist.type(b"\x05")
    for cursor in range(whole, 0, -1):
        typist.type(b"\x7f")
        assert (typist.screen.rows, typist.screen.place) == picture("> ", ("+" + text)[:cursor], cursor, 20)


def test_a_line_that_fills_its_row_leaves_no_blank_one() -> None:
    typist = Typist(columns=10).type("12345678\r", "next")
    assert typist.screen.rows == ["> 12345678", "> next"]
    typist.type(b"\x15", "12345678\x03")
    assert typist.screen.rows == ["> 12345678", "> 12345678", "^C", ">"]


def test_a_line_higher_than_the_screen_shows_the_part_with_the_cursor() -> None:
    screen = Emulator(10, 5)
    editor = LineEditor(columns=10, rows=5)
    editor.prompt("> ")
    text = "".join(f"{n:04}-" for n in range(40))
    editor.feed(text.encode())
    screen.feed(editor.output())
    assert screen.rows == ["5-0036-003", "7-0038-003", "9-"]
    for _ in range(len(text)):
        editor.feed(LEFT)
        screen.feed(editor.output())
    assert screen.rows[0] == "> 0000-000"
    assert screen.place == (0, 2)
    editor.feed(b"!")
    screen.feed(editor.output())
    assert screen.rows[0] == "> !0000-00"
    assert screen.place == (0, 3)


def test_a_prompt_may_have_colours_and_rows() -> None:
    typist = Typist("Hello\nthere\n\x1b[1;32mann\x1b[0m@\x1b[7mhost\x1b[m$ ", columns=14)
    typist.type("abc")
    assert typist.screen.rows == ["Hello", "there", "ann@host$ abc"]
    line = typist.screen.buffer[2]
    assert [line[n].bold for n in range(5)] == [True, True, True, False, False]
    assert [line[n].reverse for n in range(3, 10)] == [False, True, True, True, True, False, False]
    assert not line[11].reverse
    typist.type("d", LEFT, LEFT)
    assert typist.screen.place == (2, 12)


def test_control_characters_of_the_application_are_not_obeyed() -> None:
    typist = Typist(
        "a\x1b[2J\x07\x9b\u2028b> ", history=History(["x\x1b[Hy\x7f\x85z"]), complete=lambda *_: ["w\x1b[Hv"]
    )
    typist.type(UP)
    assert typist.screen.rows == ["a\ufffd[2J\ufffd\ufffd\ufffdb> x[Hyz"]
    typist.type(b"\x15\t")
    assert typist.screen.rows == ["a\ufffd[2J\ufffd\ufffd\ufffdb> w[Hv"]


def test_text_before_the_prompt_may_stand_in_its_row() -> None:
    typist = Typist("")
    typist.screen = Emulator()
    typist.screen.feed(b"Name: ")
    typist.type("anm", LEFT, "n", END, b"\x7f", "e", b"\x02\x02\x0b", "na", b"\x02\x04a\r")
    assert typist.events == [Line("anna")]
    assert typist.screen.rows[0] == "Name: anna"


def test_control_l_clears_the_screen(typist: Typist) -> None:
    typist.type("one\r", "two", LEFT, b"\x0c")
    assert (typist.screen.rows, typist.screen.place) == (["> two"], (0, 4))
    typist.type(b"\x0c\r")
    assert typist.screen.rows == ["> two", ">"]


# Other things on the screen.


def test_printing_while_a_line_is_edited() -> None:
    typist = Typist(columns=20)
    text = "a line of more than twenty characters"
    typist.type(text, LEFT, LEFT)
    typist.editor.print("bob: hello\n")
    typist.editor.print("eve: hi\nthere")
    typist.look()
    rows, place = picture("> ", text, len(text) - 2, 20)
    assert typist.screen.rows == ["bob: hello", "eve: hi", "there", *rows]
    assert typist.screen.place == (place[0] + 3, place[1])


def test_printing_between_lines() -> None:
    editor, screen = LineEditor(), Emulator()
    editor.print("no ")
    editor.print("line\nyet")
    editor.print("\r\n")
    screen.feed(editor.output())
    assert (screen.rows, screen.place) == (["no line", "yet"], (2, 0))


@pytest.mark.parametrize("columns", [5, 7, 10, 19, 20, 21, 37, 80, 200])
@pytest.mark.parametrize("cursor", [0, 3, 18, 40])
def test_another_width(columns: int, cursor: int) -> None:
    typist = Typist(columns=20)
    text = "漢" * 9 + "a line of a few words, more than a row"
    typist.type("up\r" + text, b"\x01", b"\x06" * cursor)
    typist.screen.rewrap(columns)
    typist.editor.resize(columns)
    typist.look()
    rows, place = picture("> ", text, cursor, columns)
    assert typist.screen.rows == ["> up", *rows]
    assert typist.screen.place == (place[0] + 1, place[1])
    typist.type("\r")
    assert typist.screen.rows == ["> up", *rows, ">"]


def test_another_width_of_a_terminal_that_leaves_lines_as_they_are() -> None:
    typist = Typist(columns=20).type("a line of three rows on twenty columns, and two on thirty", b"\x01")
    typist.screen.resize(columns=30)
    typist.editor.resize(30)
    typist.look()
    assert typist.screen.rows == ["> a line of three rows on twen", "ty columns, and two on thirty"]
    assert typist.screen.place == (0, 2)


def test_resizing_between_lines_changes_nothing_on_the_screen() -> None:
    editor = LineEditor()
    editor.resize(40, 10)
    assert editor.output() == b""


def test_giving_a_line_up() -> None:
    typist = Typist(columns=10)
    typist.type("one\r", "a long line that is given up")
    typist.editor.cancel()
    assert not typist.editor.editing
    typist.prompt()
    typist.type("new\r")
    assert typist.events == [Line("one"), Line("new")]
    assert typist.screen.rows == ["> one", "> new", ">"]


# History.


def test_going_back_and_forth_keeps_the_draft(typist: Typist) -> None:
    typist.type("one\rtwo\r", "dra", UP)
    assert typist.line == ("> two", 5)
    assert typist.type(b"\x10").line == ("> one", 5)
    assert typist.type(UP).line == ("> one", 5)
    assert typist.screen.bells == 1
    assert typist.type(DOWN, b"\x0e").line == ("> dra", 5)
    assert typist.type(DOWN).line == ("> dra", 5)
    assert typist.screen.bells == 2
    typist.type("ft", UP, DOWN)
    assert typist.line == ("> draft", 7)
    assert typist.type(UP, "!\r").events[-1] == Line("two!")
    assert list(typist.editor.history) == ["one", "two", "two!"]


def test_history_keeps_no_blank_and_no_repeated_lines() -> None:
    history = History(["a", "a", "", "  ", "b", "a"], limit=3)
    assert list(history) == ["a", "b", "a"]
    history.add("c")
    assert list(history) == ["b", "a", "c"]
    for n in range(1000):
        history.add(f"{n}" * 30_000)
    assert sum(map(len, history)) <= 128 * 1024
    assert len(History(map(str, range(5000)))) == 1000


def test_searching_back() -> None:
    typist = Typist(history=History(["git log", "make", "git push", "ls"]))
    typist.type("draft", b"\x12", "gi")
    assert typist.line == ("(search 'gi') git push", 14)
    typist.type(b"\x12")
    assert typist.line == ("(search 'gi') git log", 14)
    typist.type(b"\x12")
    assert typist.line == ("(failed search 'gi') git log", 21)
    assert typist.screen.bells == 1
    typist.type(b"\x07")
    assert typist.line == ("> draft", 7)
    typist.type(b"\x12", "push", b"\x7f\x7f\x7f\x7f\x7f")
    assert typist.line == ("(search '') draft", 17)
    typist.type("make\r")
    assert typist.events == [Line("make")]
    typist.type(b"\x12", "pus", HOME, "x", UP)
    assert typist.line == ("> make", 6)
    typist.type(b"\x12", "log", b"\x03")
    assert typist.events == [Line("make"), Interrupted()]


def test_a_search_goes_on_from_where_it_is() -> None:
    typist = Typist(history=History(["make all", "git", "make it", "ls", "make it", "make"]))
    typist.type(b"\x12", "mak", b"\x12")
    assert typist.line == ("(search 'mak') make it", 15)
    typist.type("e")
    assert typist.line == ("(search 'make') make it", 16)
    typist.type(b"\x12")  # not the same once more
    assert typist.line == ("(search 'make') make all", 16)
    typist.type("x")
    assert typist.line == ("(failed search 'makex') make all", 24)
    typist.type(b"\x7f")
    assert typist.line == ("(search 'make') make", 16)
    typist.type("\r")
    assert typist.events == [Line("make")]


# Completion.


def words(line: str, cursor: int) -> list[str]:
    word = line[:cursor].rpartition(" ")[2]
    return [name for name in ("sessions", "session", "set", "status", "漢字", "漢語", "dir/") if name.startswith(word)]


def test_completion() -> None:
    typist = Typist(complete=words)
    assert typist.type("st\t").line == ("> status", 9)
    typist.type("x\t")
    assert typist.screen.bells == 1
    assert typist.type(b"\x7f", "d\t").line == ("> status dir/", 13)
    assert typist.type(b"\x15", "ses\t").line == ("> session", 9)
    assert typist.type(b"\x15", "s foo", b"\x01\x06t\t").line == ("> status foo", 8)
    assert typist.type("\r").events == [Line("status foo")]


def test_the_second_tab_lists() -> None:
    typist = Typist(columns=24, complete=words)
    typist.type("do s", LEFT, RIGHT, "\t")
    assert typist.screen.rows == ["> do s"]
    typist.type("\t")
    assert typist.screen.rows == ["> do s", "sessions  set", "session   status", "> do s"]
    assert typist.screen.place == (3, 6)
    assert typist.type("e", LEFT, "\t").line == ("> do se", 6)
    typist.type(b"\x15", b"\x05\x15", "\t\t")
    assert typist.screen.rows[-5:] == ["sessions  漢字", "session   漢語", "set       dir/", "status", ">"]


def test_long_lists_are_cut() -> None:
    typist = Typist(complete=lambda *_: [f"{n:03}" + "x" * 400 for n in range(1000)])
    typist.type("\t\t")
    assert typist.screen.rows[-2:] == ["... and 900 more", ">"]


def test_completion_has_the_line_limit() -> None:
    typist = Typist(complete=lambda *_: ["x" * 100], limit=20)
    typist.type("abc\t\t\r")
    assert typist.events == [Line("abc")]


def test_an_application_that_fails_leaves_the_line_as_it_was() -> None:
    def fail(_line: str, _cursor: int) -> list[str]:
        raise LookupError("mine")

    typist = Typist(complete=fail)
    with pytest.raises(LookupError, match="mine"):
        typist.type("abc\td")
    typist.type("\r")
    assert typist.events == [Line("abcd")]


# Pasting.


def test_pasting() -> None:
    typist = Typist(complete=words)
    assert typist.screen.bracketing
    typist.type(b"\x1b[200~one\r\ntw", b"o\nst\tx\x03\x04\x15\x1b[A\x1bb\x7f\x1b[20", b"1~y")
    assert typist.events == [Line("one"), Line("two")]
    assert typist.screen.rows == ["> one", "> two", "> st    xy"]
    typist.type("\r")
    assert typist.events[-1] == Line("st\txy")


def test_pastes_are_marked_only_while_a_line_is_edited() -> None:
    editor, screen = LineEditor(), Emulator()
    assert not screen.bracketing
    for data in (b"\r", b"\x03", b"\x04"):
        editor.prompt()
        screen.feed(editor.output())
        assert screen.bracketing
        assert editor.feed(data) is not None
        screen.feed(editor.output())
        assert not screen.bracketing
    editor.prompt()
    editor.cancel()
    screen.feed(editor.output())
    assert not screen.bracketing


# Dumb terminals.


def test_a_dumb_terminal_gets_text_and_backspaces() -> None:
    editor = LineEditor(term="dumb", columns=20, history=History(["older"]), complete=words)
    editor.prompt("> ")
    editor.feed(b"hello wrld\x1b[D\x01\x7f\x7f\x7forld" + UP + DOWN + b"\x17\x0c\x12st\t")
    output = editor.output()
    assert b"\x1b" not in output
    screen = Emulator(20)
    screen.feed(output)
    assert screen.rows == ["> hello status"]
    editor.feed(b"now it goes on")
    screen.feed(editor.output())
    assert screen.rows == ["> hello status now i", "t goes on"]
    editor.feed(b"\x17" * 4)
    screen.feed(editor.output())
    assert screen.rows[-1] == "> hello status"
    editor.print("news")
    editor.resize(30)
    assert editor.feed(b"!\r") == Line("hello status !")
    output = editor.output()
    assert b"\x1b" not in output
    screen.feed(output)
    assert screen.rows[-2:] == ["news", "> hello status !"]
    assert screen.place[1] == 0


# Hostile clients.


@pytest.mark.parametrize(
    "data",
    [b"\t", b"x\x7f\t\t", b"\x0c", b"\x07", b"\x12a", b"a\x7f\x0c", b"\x01\x05", b"\x1b[A", b"\x19", b"a\x17\x19"],
)
def test_a_little_input_makes_little_output(data: bytes) -> None:
    editor = LineEditor(complete=lambda *_: [f"{n:03}" + "x" * 400 for n in range(1000)])
    editor.prompt("> ")
    editor.feed(b"\x1b[200~" + b"y" * 4096 + b"\x1b[201~")
    editor.feed(data * (65536 // len(data)))
    assert len(editor.output()) < 256 * 1024


def test_numbers_in_sequences_may_have_any_length() -> None:
    editor = LineEditor()
    editor.prompt()
    editor.feed(b"ab\x1b[1;" + b"5" * 100_000)
    assert len(editor._keys._parameters) <= 32
    editor.feed(b"D\x1bO" + b"5" * 100_000)
    assert len(editor._keys._parameters) <= 32
    assert editor.feed(b"D\r") == Line("ab")


def test_the_terminal_may_have_any_size() -> None:
    for columns, rows in ((0, 0), (1, 1), (2, 2), (2**32 - 1, 2**32 - 1)):
        editor = LineEditor(columns=columns, rows=rows)
        editor.prompt("> ")
        editor.resize(1, 1)
        editor.feed("漢字\tabc".encode() * 10 + b"\x1b[200~\t")
        editor.resize(columns, rows)
        assert editor.output()
        assert isinstance(editor.feed(b"\r"), Line)
