"""The text of a line and the place in it: what editing keys do, and nothing of how it is shown.

The cursor never stands inside a character: one with combining marks on it moves, and goes, as a whole.
"""

from __future__ import annotations

import re
import unicodedata

# Words are what is neither space nor punctuation; marks belong to the letters of any script.
_BETWEEN = r"\s!-/:-@\[-`{-~\u2010-\u2027\u2030-\u205e\u3000-\u3003\u3008-\u301f"
_WORD = re.compile(f"[^{_BETWEEN}]+")
_WORD_REVERSED = re.compile(f"[{_BETWEEN}]*[^{_BETWEEN}]+")
_SPACED_REVERSED = re.compile(r"\s*\S+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]+")
_NOT_ENCODED = re.compile(r"[\ud800-\udfff]")
_HANGUL_LATER = frozenset(map(chr, (*range(0x1160, 0x1200), *range(0xD7B0, 0xD800))))  # joined to the syllable before
_MOST_MARKS = 16
"""So many marks belong to a character at most, so that one step in a line of nothing else is no long walk."""


def width(char: str) -> int:
    """Count the columns that a character takes on a terminal: 0, 1 or 2.

    By the Unicode tables of this Python. The `wcwidth` package has newer ones, and is not needed for that: terminals
    disagree with each other on new characters anyway, and in more than one of a sequence (joined emoji, flags).
    """
    if " " <= char < "\x7f":
        return 1
    if char == "\xad":  # the soft hyphen is shown
        return 1
    if unicodedata.category(char) in {"Mn", "Me", "Cf"} or char in _HANGUL_LATER:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clean(text: str) -> str:
    """Take away what cannot stand in a line: control characters but the tabulator. Lone surrogates become U+FFFD."""
    if text.isascii() and text.isprintable():
        return text
    return _NOT_ENCODED.sub("\ufffd", _FORBIDDEN.sub("", text))


class LineBuffer:
    """A line being edited.

    Every operation returns False if there was nothing to do.

    Args:
        limit: characters at most.

    Attributes:
        text: the line.
        cursor: the index in it where the next character goes.
        killed: what the last kills took away, for `yank`.
        killing: the operation before was a kill: the next one adds to `killed`.
        secret: what is taken away now is not kept.
    """

    __slots__ = ("cursor", "killed", "killing", "limit", "secret", "text")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.text = ""
        self.cursor = 0
        self.killed = ""
        self.killing = False
        self.secret = False

    def set(self, text: str, cursor: int | None = None) -> None:
        """Replace the line; the cursor goes to its end."""
        self.text = clean(text)[: self.limit]
        self.cursor = len(self.text) if cursor is None else min(cursor, len(self.text))

    def insert(self, text: str) -> bool:
        """Put text in at the cursor; False if not all of it has room."""
        text = clean(text)
        fits = text[: max(0, self.limit - len(self.text))]
        self.text = self.text[: self.cursor] + fits + self.text[self.cursor :]
        self.cursor += len(fits)
        return len(fits) == len(text)

    def replace(self, start: int, text: str) -> bool:
        """Replace what stands between `start` and the cursor; False, and nothing is done, if there is no room."""
        text = clean(text)
        if len(self.text) - (self.cursor - start) + len(text) > self.limit:
            return False
        self.text = self.text[:start] + text + self.text[self.cursor :]
        self.cursor = start + len(text)
        return True

    # Places.

    def _before(self, index: int) -> int:
        """Find where the character before `index` begins."""
        start = index - 1
        lowest = max(0, start - _MOST_MARKS)
        while start > lowest and width(self.text[start]) == 0:
            start -= 1
        return max(start, 0)

    def _after(self, index: int) -> int:
        """Find where the character at `index` ends."""
        end = index + 1
        highest = min(len(self.text), end + _MOST_MARKS)
        while end < highest and width(self.text[end]) == 0:
            end += 1
        return min(end, len(self.text))

    def _word_before(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text[: self.cursor][::-1])
        return self._before(self.cursor - found.end() + 1) if found else 0

    def _word_after(self) -> int:
        found = _WORD.search(self.text, self.cursor)
        return self._after(found.end() - 1) if found else len(self.text)

    # Movements.

    def _move(self, index: int) -> bool:
        moved = index != self.cursor
        self.cursor = index
        return moved

    def left(self) -> bool:
        """Go a character back."""
        return self._move(self._before(self.cursor))

    def right(self) -> bool:
        """Go a character on."""
        return self._move(self._after(self.cursor))

    def home(self) -> bool:
        """Go to the beginning."""
        self.cursor = 0
        return True

    def end(self) -> bool:
        """Go to the end."""
        self.cursor = len(self.text)
        return True

    def word_left(self) -> bool:
        """Go to the beginning of this word, or of the one before."""
        return self._move(self._word_before(_WORD_REVERSED))

    def word_right(self) -> bool:
        """Go to the end of this word, or of the next one."""
        return self._move(self._word_after())

    # Changes.

    def _cut(self, start: int, end: int) -> str:
        gone = self.text[start:end]
        self.text = self.text[:start] + self.text[end:]
        self.cursor = start
        return gone

    def _kill(self, start: int, end: int) -> bool:
        backwards = start < self.cursor
        gone = self._cut(start, end)
        if gone and not self.secret:
            kept = self.killed if self.killing else ""
            self.killed = (gone + kept if backwards else kept + gone)[: self.limit]
        return bool(gone)

    def backspace(self) -> bool:
        """Take away the character before the cursor."""
        return bool(self._cut(self._before(self.cursor), self.cursor))

    def delete(self) -> bool:
        """Take away the character at the cursor."""
        return bool(self._cut(self.cursor, self._after(self.cursor)))

    def kill_to_end(self) -> bool:
        """Kill what follows the cursor."""
        return self._kill(self.cursor, len(self.text))

    def kill_to_start(self) -> bool:
        """Kill what stands before the cursor."""
        return self._kill(0, self.cursor)

    def kill_word(self) -> bool:
        """Kill to the end of this word, or of the next one."""
        return self._kill(self.cursor, self._word_after())

    def kill_word_back(self) -> bool:
        """Kill to the beginning of this word, or of the one before."""
        return self._kill(self._word_before(_WORD_REVERSED), self.cursor)

    def kill_space_back(self) -> bool:
        """Kill back to the space before this word, or before the one before."""
        return self._kill(self._word_before(_SPACED_REVERSED), self.cursor)

    def yank(self) -> bool:
        """Put in again what was killed last."""
        return bool(self.killed) and not self.secret and self.insert(self.killed)

    def transpose(self) -> bool:
        """Exchange the characters on both sides of the cursor; at the end, the last two."""
        end = self._after(self.cursor)
        middle = self.cursor if self.cursor < len(self.text) else self._before(end)
        start = self._before(middle)
        if start == middle:
            return False
        self.text = self.text[:start] + self.text[middle:end] + self.text[start:middle] + self.text[end:]
        self.cursor = end
        return True
