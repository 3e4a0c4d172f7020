"""A terminal to look at: pyte's, with a bell that counts and lines that are broken anew when the width changes."""

from __future__ import annotations

import unicodedata

import pyte
from pyte.screens import Char
from wcwidth import wcwidth


class Emulator(pyte.Screen):
    """A terminal. By default it is so high that nothing scrolls away."""

    def __init__(self, columns: int = 80, lines: int = 400) -> None:
        self.bells = 0
        self.joined: set[int] = set()  # rows whose line goes on in the next row
        self.drawing = False
        super().__init__(columns, lines)
        self.stream = pyte.ByteStream(self)

    def feed(self, data: bytes) -> None:
        self.stream.feed(data)

    # What pyte lacks.

    def bell(self, *args: object) -> None:
        self.bells += 1

    def draw(self, data: str) -> None:
        self.drawing = True
        for char in data:  # one by one: pyte drops what follows a character that it does not show
            if wcwidth(char) > 0 or unicodedata.combining(char):
                super().draw(char)
        self.drawing = False

    def linefeed(self) -> None:
        (self.joined.add if self.drawing else self.joined.discard)(self.cursor.y)
        super().linefeed()

    def index(self) -> None:
        if self.cursor.y == self.lines - 1:
            self.joined = {row - 1 for row in self.joined if row}
        super().index()

    def erase_in_display(self, how: int = 0, *args: object, **kwargs: object) -> None:
        self.joined = {row for row in self.joined if row < self.cursor.y and how == 0}
        super().erase_in_display(how)

    def rewrap(self, columns: int) -> None:
        """Take another width as most terminals do: a line that was broken by the old one is broken anew."""
        lines: list[list[Char]] = [[]]
        where = (0, 0)
        last = max([self.cursor.y, *(row for row, line in self.buffer.items() if line)])
        for row in range(last + 1):
            line = self.buffer[row]
            if row == self.cursor.y:
                where = (len(lines) - 1, len(lines[-1]) + min(self.cursor.x, self.columns - 1))
            size = self.columns if row in self.joined else max(line, default=-1) + 1
            cells = [line[column] for column in range(size)]
            while row not in self.joined and cells and cells[-1] == self.default_char:
                cells.pop()
            lines[-1] += cells
            if row not in self.joined:
                lines.append([])
        self.buffer.clear()
        self.joined.clear()
        self.columns = columns
        row = 0
        for number, cells in enumerate(lines):
            column = 0
            for place in range(max(len(cells), where[1] + 1 if number == where[0] else 0)):
                cell = cells[place] if place < len(cells) else None
                wide = place + 1 < len(cells) and cells[place + 1].data == ""
                if column + 1 + wide > columns:
                    self.joined.add(row)
                    row, column = row + 1, 0
                if (number, place) == where:
                    self.cursor.y, self.cursor.x = row, column
                if cell is not None:
                    self.buffer[row][column] = cell
                column += 1
            row += 1

    # What is there.

    @property
    def rows(self) -> list[str]:
        """The text on it, without blanks at the ends of rows and blank rows at its end."""
        found = []
        for row in range(self.lines):
            line = self.buffer[row]
            text = "".join(line[column].data for column in range(self.columns))
            found.append(unicodedata.normalize("NFC", text).rstrip(" "))
        while found and not found[-1]:
            found.pop()
        return found

    @property
    def place(self) -> tuple[int, int]:
        """The cursor's row and column."""
        return self.cursor.y, self.cursor.x

    @property
    def bracketing(self) -> bool:
        """It marks what is pasted."""
        return 2004 << 5 in self.mode


def picture(prompt: str, text: str, cursor: int, columns: int) -> tuple[list[str], tuple[int, int]]:
    """Say how a line looks on a screen of its own, and where the cursor is: simply, character by character."""
    rows, used = [""], 0
    place = (0, 0)
    for index, char in enumerate(prompt + text + "\0"):
        size = 1 if char == "\0" else wcwidth(char)
        if used + size > columns:
            rows.append("")
            used = 0
        if index == len(prompt) + cursor:
            place = (len(rows) - 1, used)
        if char != "\0":
            rows[-1] += char
            used += size
    shown = [unicodedata.normalize("NFC", row).rstrip(" ") for row in rows]
    while shown and not shown[-1]:
        shown.pop()
    return shown, place
