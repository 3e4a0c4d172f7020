r"""Keys, found in what a terminal sends: control characters and escape sequences.

Terminals disagree on most keys, and nobody asks them: all spellings of a key that xterm, rxvt, PuTTY, the Linux and
BSD consoles, st and screen or tmux use are known at once, in cursor and in application mode. They do not collide.
A sequence that is not known is swallowed whole, so that none of it ends up as text in the line.

                    ┌────────────────── any control character: acts as ever ────────────┐
    GROUND ── ESC ──► ESCAPE ── [ ──► CSI ── final byte ──► a key, or nothing ──► GROUND ◄┘
                        ├── O ──► SS3 ── final byte ──► a key, or nothing
                        ├── P ] X ^ _ ──► STRING, until ESC \ or BEL
                        └── else: the letter with Alt held down
    CSI M and CSI [ ──► SKIP: old mouse reports, the Linux console's F1 to F5

There is no clock here: the Escape key alone is the beginning of a sequence, and what is typed next has Alt on it.
"""

from __future__ import annotations

import re
from enum import Enum, auto

TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")
"""What is text when no sequence has begun. C1 controls are none: a terminal might obey them."""

_LONGEST_PARAMETERS = 32
_ESCAPE = "\x1b"
_BACKSPACES = "\x7f\b"


class Key(Enum):
    """What a key is for."""

    ENTER = auto()
    TABULATOR = auto()  # pasted: it is text
    INTERRUPT = auto()
    DELETE_OR_END = auto()
    ABORT = auto()
    LEFT = auto()
    RIGHT = auto()
    WORD_LEFT = auto()
    WORD_RIGHT = auto()
    HOME = auto()
    END = auto()
    UP = auto()
    DOWN = auto()
    BACKSPACE = auto()
    DELETE = auto()
    KILL_TO_END = auto()
    KILL_TO_START = auto()
    KILL_WORD = auto()
    KILL_WORD_BACK = auto()
    KILL_SPACE_BACK = auto()
    YANK = auto()
    TRANSPOSE = auto()
    CLEAR = auto()
    COMPLETE = auto()
    SEARCH = auto()


_CONTROL = {
    "\x01": Key.HOME,
    "\x02": Key.LEFT,
    "\x03": Key.INTERRUPT,
    "\x04": Key.DELETE_OR_END,
    "\x05": Key.END,
    "\x06": Key.RIGHT,
    "\x07": Key.ABORT,
    "\x08": Key.BACKSPACE,
    "\x09": Key.COMPLETE,
    "\x0a": Key.ENTER,
    "\x0b": Key.KILL_TO_END,
    "\x0c": Key.CLEAR,
    "\x0d": Key.ENTER,
    "\x0e": Key.DOWN,
    "\x10": Key.UP,
    "\x12": Key.SEARCH,
    "\x14": Key.TRANSPOSE,
    "\x15": Key.KILL_TO_START,
    "\x17": Key.KILL_SPACE_BACK,
    "\x19": Key.YANK,
    "\x7f": Key.BACKSPACE,
}
_PASTED = {"\n": Key.ENTER, "\r": Key.ENTER, "\t": Key.TABULATOR}
_ALT = {"b": Key.WORD_LEFT, "f": Key.WORD_RIGHT, "d": Key.KILL_WORD}
_ARROWS = {"A": Key.UP, "B": Key.DOWN, "C": Key.RIGHT, "D": Key.LEFT, "H": Key.HOME, "F": Key.END}
_PLAIN_CSI = {  # only without parameters: with them they are other keys, or reports
    "P": Key.DELETE,  # st
    "a": Key.UP,  # rxvt with Shift
    "b": Key.DOWN,
    "c": Key.RIGHT,
    "d": Key.LEFT,
}
_NUMBERED = {
    "1": Key.HOME,
    "3": Key.DELETE,
    "4": Key.END,
    "7": Key.HOME,  # rxvt
    "8": Key.END,
}
_SS3 = _ARROWS | {
    "M": Key.ENTER,  # the keypad's
    "w": Key.END,  # PuTTY in its rxvt mode
    "a": Key.UP,  # rxvt with Control
    "b": Key.DOWN,
    "c": Key.WORD_RIGHT,
    "d": Key.WORD_LEFT,
}
_WITH_CONTROL = {Key.LEFT: Key.WORD_LEFT, Key.RIGHT: Key.WORD_RIGHT, Key.DELETE: Key.KILL_WORD}


class _State(Enum):
    GROUND = auto()
    ESCAPE = auto()
    CSI = auto()
    SS3 = auto()
    STRING = auto()
    SKIP = auto()


_INTRODUCERS = {"[": _State.CSI, "O": _State.SS3} | dict.fromkeys("P]X^_", _State.STRING)
_C1_INTRODUCERS = {"\x9b": _State.CSI, "\x8f": _State.SS3} | dict.fromkeys("\x90\x9d\x98\x9e\x9f", _State.STRING)


class KeyDecoder:
    """Finds keys, a character at a time; what it keeps is bounded.

    Attributes:
        pasting: between the marks of a bracketed paste. Only text, tabulators and line ends come out of one.
    """

    __slots__ = ("_meta", "_parameters", "_skip", "_state", "pasting")

    def __init__(self) -> None:
        self.pasting = False
        self._state = _State.GROUND
        self._parameters = ""
        self._meta = False
        self._skip = 0

    @property
    def idle(self) -> bool:
        """No sequence has begun: what matches `TEXT` is text, everything else is to be pushed."""
        return self._state is _State.GROUND

    def push(self, char: str) -> Key | None:
        """Take a character that is no text; returns the key that it completes."""
        state = self._state
        if char == _ESCAPE:
            self._meta = state is _State.ESCAPE  # ESC ESC [ D: an arrow with Alt
            self._begin(_State.ESCAPE)
            return None
        if char < " " or char == "\x7f":
            self._state = _State.GROUND
            return self._control(char, state)
        if state is _State.ESCAPE:
            return self._escape(char)
        if state is _State.CSI:
            return self._csi(char)
        if state is _State.SS3:
            return self._ss3(char)
        if state is _State.SKIP:
            self._skip -= 1
            if not self._skip:
                self._state = _State.GROUND
        elif state is _State.GROUND and char in _C1_INTRODUCERS:
            self._meta = False
            self._begin(_C1_INTRODUCERS[char])
        elif char == "\x9c":
            self._state = _State.GROUND
        return None

    def _begin(self, state: _State) -> None:
        self._state = state
        self._parameters = ""

    def _control(self, char: str, state: _State) -> Key | None:
        if self.pasting:
            return _PASTED.get(char)
        if state is _State.ESCAPE and char in _BACKSPACES:
            return Key.KILL_WORD_BACK
        if state is _State.STRING and char == "\a":
            return None
        return _CONTROL.get(char)

    def _escape(self, char: str) -> Key | None:
        if char in _INTRODUCERS:
            self._begin(_INTRODUCERS[char])
            return None
        self._state = _State.GROUND
        return None if self.pasting else _ALT.get(char.lower())

    def _csi(self, char: str) -> Key | None:
        # rxvt ends Shift with a number by "$", which the standard has as an intermediate byte.
        if " " <= char <= "?" and not (char == "$" and self._parameters.isdecimal()):
            if len(self._parameters) < _LONGEST_PARAMETERS:
                self._parameters += char
            return None
        self._state = _State.GROUND
        parameters = self._parameters
        if not parameters and char in "[M":
            self._state = _State.SKIP
            self._skip = 1 if char == "[" else 3
            return None
        number, _, modifier = parameters.partition(";")
        if char == "~" and number in {"200", "201"}:
            self.pasting = number == "200"
            return None
        if self.pasting:
            return None
        if char in "~$^@":
            return self._modified(_NUMBERED.get(number), modifier, control=char in "^@")
        if not parameters and char in _PLAIN_CSI:
            return _PLAIN_CSI[char]
        if number in {"", "1"}:
            return self._modified(_ARROWS.get(char), modifier)
        return None

    def _ss3(self, char: str) -> Key | None:
        if char in "0123456789;":
            if len(self._parameters) < _LONGEST_PARAMETERS:
                self._parameters += char
            return None
        self._state = _State.GROUND
        if self.pasting:
            return None
        return self._modified(_SS3.get(char), self._parameters.rpartition(";")[2])

    def _modified(self, key: Key | None, modifier: str, *, control: bool = False) -> Key | None:
        """Apply xterm's modifier, 1 + Shift 1 + Alt 2 + Control 4; Alt does here what Control does."""
        if key is None:
            return None
        if modifier.isdecimal():
            control = control or bool((int(modifier) - 1) & 6)
        return _WITH_CONTROL.get(key, key) if control or self._meta else key
