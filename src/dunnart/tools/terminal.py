"""How text from elsewhere is shown on a terminal: with nothing in it that a terminal would obey."""

from __future__ import annotations


def shown(text: str | bytes) -> str:
    r"""The text on one line; what does not print is escaped, as `\n`, `\x1b`, `\u202e`, and bytes that are no UTF-8."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no UTF-8 (PEP 383)
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def failure(error: OSError) -> str:
    """What an OSError says, with the path that it names: `/etc/x: Permission denied`."""
    said = shown(error.strerror or str(error))
    path = error.filename
    return said if path is None else f"{shown(path) if isinstance(path, str | bytes) else path}: {said}"
