"""Escapes: what a person types to the client itself, a ~ at the beginning of a line and a character behind it."""

from __future__ import annotations

from enum import Enum

_LINE_ENDS = b"\r\n"


class Escape(Enum):
    """What an escape is for, by its character."""

    DISCONNECT = b"."
    SUSPEND = b"\x1a"
    LIST = b"#"
    BREAK = b"B"
    REKEY = b"R"
    HELP = b"?"


class Escapes:
    """Finds escapes in what is typed.

    Args:
        character: the one that begins them.
    """

    def __init__(self, character: bytes = b"~") -> None:
        self._character = character
        self._begins = True  # a line does
        self._escaped = False

    def receive(self, data: bytes) -> list[bytes | Escape]:
        """Take what was typed, in pieces of any size; gives what is to be sent, and the escapes between it."""
        found: list[bytes | Escape] = []
        kept = bytearray()
        for number in data:
            typed = bytes((number,))
            if self._escaped:
                self._escaped = False
                if typed == self._character:
                    kept += typed
                    self._begins = False
                    continue
                meant = next((escape for escape in Escape if escape.value == typed), None)
                if meant is not None:
                    if kept:
                        found.append(bytes(kept))
                        kept.clear()
                    found.append(meant)
                    self._begins = True
                    continue
                kept += self._character
            elif self._begins and typed == self._character:
                self._escaped = True
                continue
            kept += typed
            self._begins = typed in _LINE_ENDS
        if kept:
            found.append(bytes(kept))
        return found


def help_text(character: str) -> str:
    """What the escape for help shows."""
    rows = {
        ".": "end the connection", "^Z": "suspend dunnart", "#": "list what is open", "B": "send a break",
        "R": "exchange keys anew", "?": "this", character: "the character itself",
    }  # fmt: skip
    lines = [f" {character}{name:<3} {what}" for name, what in rows.items()]
    return "\n".join(["Escapes, each at the beginning of a line:", *lines])


def escape_character(text: str) -> str | None:
    """Read a value of EscapeChar: a character, ^ and a letter, or `none`; None for none.

    Raises:
        ValueError: it is neither.
    """
    if text.lower() == "none":
        return None
    if len(text) == 2 and text[0] == "^" and text[1].isascii() and text[1].isalpha():
        return chr(ord(text[1]) & 31)
    if len(text) == 1 and text.isascii():
        return text
    raise ValueError(f"{text!r} is no character, ^X or none")
