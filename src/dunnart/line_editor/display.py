"""A line on a terminal's screen, over as many rows as it needs: what is there, what is to be there, and the difference.

What is shown is a list of *cells*, one for each column: the character with its combining marks, or "" for the second
half of a wide one. A wide character that does not fit into a row's last column is moved to the next row by a space
here, not by the terminal, so that all rows are full and cell `n` stands in row `n // columns`, column `n % columns`.

Rows are joined by the terminal's own wrapping, not by line feeds: terminals that know it can break the line anew when
they get another width. After the last column terminals differ on where the cursor is; so when the cells fill their
last row, a space and a carriage return bring the cursor to the beginning of the next one, and there is no doubt.
"""

from __future__ import annotations

import re

from dunnart.line_editor.buffer import width

_STYLE = re.compile(r"(\x1b\[[0-9;:]*m)")
_TAB_COLUMNS = 8
_FEWEST_COLUMNS = 2  # a wide character
_MOST_COLUMNS = 10_000
_FEWEST_ROWS = 3
_DUMB = frozenset({"", "dumb", "unknown"})


def lay(text: str, columns: int, cells: list[str], cursor: int = 0) -> int:
    """Append text to cells; returns the cell where the cursor stands if it is before `text[cursor]`."""
    if text.isascii() and text.isprintable():
        place = len(cells) + cursor
        cells.extend(text)
        return place
    place = -1
    for index, char in enumerate(text):
        column = len(cells) % columns
        if char == "\t":
            size = min(_TAB_COLUMNS - column % _TAB_COLUMNS, columns - column)
            shown = [" "] * size
        elif (size := width(char)) == 2:
            if column == columns - 1:
                cells.append(" ")
            shown = [char, ""]
        elif char < " " or "\x7f" <= char < "\xa0" or char in "\u2028\u2029":
            shown = ["\ufffd"]  # nothing that a terminal might obey
        else:
            shown = [char]
        if index == cursor:
            place = len(cells)
        if size:
            cells += shown
        elif cells:
            cells[-1 if cells[-1] or len(cells) == 1 else -2] += char
    return len(cells) if place < 0 else place


def lay_prompt(text: str, columns: int, cells: list[str]) -> None:
    """Append a prompt to cells: text in which colours and the like (SGR sequences) may be set."""
    leading = ""
    for number, piece in enumerate(_STYLE.split(text)):
        if number % 2:
            if cells:
                cells[-1] += piece
            else:
                leading += piece
        elif piece:
            lay(piece, columns, cells)
            if leading and cells:
                cells[0] = leading + cells[0]
                leading = ""


class LineDisplay:
    """Shows one line, at the place where the cursor is when it is first shown.

    Args:
        columns: the terminal's width; 0 if it is not known.
        rows: its height; 0 if it is not known. A line that has more rows is shown in part.
        term: the kind of terminal. On a dumb one only backspaces move the cursor, and it stays at the line's end.
        utf8: it shows UTF-8; otherwise ISO 8859-1.
    """

    __slots__ = ("_at", "_cells", "_encoding", "_out", "_stale", "_wiped", "columns", "dumb", "rows")

    def __init__(self, columns: int, rows: int, term: str, *, utf8: bool) -> None:
        self.dumb = term in _DUMB
        self._encoding = "utf-8" if utf8 else "latin-1"
        self._out: list[str] = []
        self._cells: list[str] = []
        self._at = 0
        self._wiped = False  # the screen is to be cleared
        self._stale = False  # something else may stand where the line is to be shown
        self._measure(columns, rows)

    def _measure(self, columns: int, rows: int) -> None:
        self.columns = min(max(columns or 80, _FEWEST_COLUMNS), _MOST_COLUMNS)
        self.rows = max(rows or 24, _FEWEST_ROWS)

    # Output.

    @property
    def waiting(self) -> int:
        """How many characters of output were not taken yet."""
        return sum(map(len, self._out))

    def take(self) -> bytes:
        """Take the output."""
        data = "".join(self._out).encode(self._encoding, "replace")
        self._out.clear()
        return data

    def write(self, text: str) -> None:
        """Send text as it is, but with line ends as terminals want them."""
        self._out.append(text.replace("\r\n", "\n").replace("\n", "\r\n"))

    def control(self, sequence: str) -> None:
        """Send an escape sequence, unless the terminal is dumb."""
        if not self.dumb:
            self._out.append(sequence)

    def bell(self) -> None:
        """Ring; once is enough."""
        if self._out[-1:] != ["\a"]:
            self._out.append("\a")

    # The line.

    def show(self, prompt: str, text: str, cursor: int) -> None:
        """Make the screen show this, with the cursor before `text[cursor]`."""
        if self._encoding != "utf-8":
            prompt, text = (part.encode("latin-1", "replace").decode("latin-1") for part in (prompt, text))
        cells: list[str] = []
        lay_prompt(prompt, self.columns, cells)
        at = lay(text, self.columns, cells, cursor)
        cells, at = self._part(cells, at)
        if self._wiped:
            self._wiped = False
            self.control("\x1b[H\x1b[2J")
            self._cells, self._at = [], 0
        old = self._cells
        same = next((n for n, (a, b) in enumerate(zip(old, cells, strict=False)) if a != b), min(len(old), len(cells)))
        if self.dumb:
            self._draw_dumb(cells, same)
        else:
            self._draw(cells, same)
            self._move(at)
        self._cells = cells

    def _part(self, cells: list[str], at: int) -> tuple[list[str], int]:
        """Choose the rows that are shown. It depends on the cursor's place alone, not on how it came there."""
        if len(cells) // self.columns < self.rows or self.dumb:
            return cells, at
        height = self.rows - 1  # the last one may be needed for the cursor behind a full row
        step = height // 2
        top = max(0, at // self.columns // step - 1) * step
        return cells[top * self.columns : (top + height) * self.columns], at - top * self.columns

    def _draw(self, cells: list[str], same: int) -> None:
        fresh = cells[same:]
        if not fresh and len(cells) == len(self._cells) and not self._stale:
            return
        self._move(same)
        self._out.append("".join(fresh))
        self._at = len(cells)
        if fresh and len(cells) % self.columns == 0:
            self._out.append(" \r")
        if len(cells) < len(self._cells) or self._stale:
            self._out.append("\x1b[J")
        self._stale = False

    def _draw_dumb(self, cells: list[str], same: int) -> None:
        gone = len(self._cells) - same
        if gone and len(self._cells) // self.columns != same // self.columns:  # no way back to a row above
            self._out.append("\r\n" + "".join(cells))
            return
        fresh = "".join(cells[same:])
        left = max(0, len(self._cells) - len(cells))
        self._out.append("\b" * gone + fresh + " " * left + "\b" * left)

    def _move(self, to: int) -> None:
        """Move the cursor. Along a row it moves by the difference: something else may stand before the prompt."""
        row, column = divmod(self._at, self.columns)
        to_row, to_column = divmod(to, self.columns)
        self._out += [
            f"\x1b[{abs(count)}{letters[count > 0]}"
            for count, letters in ((to_row - row, "AB"), (to_column - column, "DC"))
            if count
        ]
        self._at = to

    def wipe(self) -> None:
        """Clear the whole screen the next time that the line is shown."""
        self._wiped = True

    def erase(self) -> None:
        """Take the line from the screen."""
        if self.dumb:
            if self._cells:
                self._out.append("\r\n")
        else:
            for row in reversed(range(len(self._cells) // self.columns + 1)):  # row by row: see `resize`
                self._move(row * self.columns)
                self._out.append("\x1b[K")
        self.forget()

    def finish(self, mark: str = "") -> None:
        """Leave the line on the screen as it is, with a mark behind it, and go to the beginning of the next row."""
        if not self.dumb:
            self._move(len(self._cells))
        full = self._cells and len(self._cells) % self.columns == 0 and not self.dumb
        self._out.append(mark if full and not mark else mark + "\r\n")
        self.forget()

    def forget(self) -> None:
        """Begin anew at the place where the cursor is."""
        self._cells, self._at = [], 0

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size: go to where the line begins now. It is to be shown again at once.

        Most terminals break long lines anew (xterm, PuTTY and the Linux console do not), and that is what is
        reckoned with: on the others, what is left of a line of many rows stays, or some rows above it go.

        Nothing is erased before it is shown again. tmux takes what is erased from the top of the screen to its end
        into its history, and brings it back from there when the screen gets wider.
        """
        self._measure(columns, rows)
        if self.dumb or not self._cells:
            return
        place = 0  # of the cursor, with the gaps that the terminal leaves before wide characters
        for number in range(self._at + 1):
            if self._cells[number + 1 : number + 2] == [""] and place % self.columns == self.columns - 1:
                place += 1
            place += number < self._at
        row = place // self.columns
        self._out.append(f"\x1b[{row}A" * bool(row) + "\r")
        self.forget()
        self._stale = True
