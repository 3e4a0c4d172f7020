"""The lines that were entered before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from dunnart.line_editor.buffer import clean

_MOST_CHARACTERS = 128 * 1024
"""All lines together: a search looks at them for every key."""


class History:
    """Lines entered before, the newest last. It may be shared by editors, one after the other or at once.

    Args:
        lines: what is in it already.
        limit: how many are kept. Very long ones make them fewer.
    """

    __slots__ = ("_lines", "_size", "limit")

    def __init__(self, lines: Iterable[str] = (), *, limit: int = 1000) -> None:
        self.limit = limit
        self._lines: deque[str] = deque()
        self._size = 0
        for line in lines:
            self.add(line)

    def add(self, line: str) -> None:
        """Add a line, unless it is blank or the same as the last one."""
        line = clean(line)
        if not line.strip() or (self._lines and self._lines[-1] == line):
            return
        self._lines.append(line)
        self._size += len(line)
        while len(self._lines) > self.limit or self._size > _MOST_CHARACTERS:
            self._size -= len(self._lines.popleft())

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._lines))

    def __len__(self) -> int:
        return len(self._lines)
