"""A line of sshd_config: its keyword and arguments, and the values that arguments stand for."""

from __future__ import annotations

import re
import socket

_BLANKS = " \t\r\n"
_LARGEST = (1 << 31) - 1
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Refused(ValueError):
    """What is wrong with a line. sshd stops at some lines, and goes on to the next at others; `at_once` says which."""

    def __init__(self, message: str, *, at_once: bool = True) -> None:
        super().__init__(message)
        self.at_once = at_once


_LINE = re.compile(
    r'[ \t\r\n]*=?[ \t\r\n]*(?:"([^"]*)"|([^ \t\r\n="]*))[ \t\r\n]*=?[ \t\r\n]*(.*)', re.DOTALL
)  # fmt: skip


def keyword_and_rest(line: str) -> tuple[str, str]:
    """Split a line: blanks, or one = with or without them, stand behind the keyword. "" for a line without one.

    Before the keyword there may be an = too, and quotes around it.
    """
    found = _LINE.match(line.rstrip(_BLANKS + "\f"))
    assert found is not None
    name = found[1] or found[2] or ""
    return ("", "") if name.startswith("#") else (name, found[3])


def words(text: str) -> list[str]:
    """Split what stands behind a keyword: either quotes hold blanks together, a word that begins with # ends it all.

    A backslash stands before a quote, a backslash, or a blank outside quotes; before anything else it is itself.

    Raises:
        Refused: a quote is not closed.
    """
    found: list[str] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        if text[at] == "#":
            break
        word, quote = "", ""
        while at < len(text):
            character, following = text[at], text[at + 1 : at + 2]
            if character == "\\" and following and (following in "'\"\\" or (not quote and following == " ")):
                word += following
                at += 1
            elif not quote and character in " \t":
                break
            elif not quote and character in "\"'":
                quote = character
            elif character == quote:
                quote = ""
            else:
                word += character
            at += 1
        if quote:
            raise Refused("invalid quotes", at_once=False)
        found.append(word)
    return found


def joined(arguments: list[str]) -> str:
    """Write words so that `words` gives them again."""
    written = []
    for each in arguments:
        escaped = re.sub(r"([\\'\"])", r"\\\1", each)
        written.append(f'"{escaped}"' if " " in each or "\t" in each else escaped)
    return " ".join(written)


def seconds(text: str) -> float:
    """Read a time: numbers with s, m, h, d or w behind them, or nothing for seconds; only seconds have decimals.

    Raises:
        Refused: it is none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw]?)", text, re.IGNORECASE)
    total, seen = 0.0, 0
    for number, unit in parts:
        factor = _UNITS[unit.lower()]
        seen += factor == 1
        if seen > 1 or ("." in number and factor > 1):
            raise Refused("invalid time value.")
        total += float(number) * factor
    if not parts or "".join(number + unit for number, unit in parts) != text or total > _LARGEST:
        raise Refused("invalid time value.")
    return total


def number(text: str, what: str) -> int:
    """Read a whole number.

    Raises:
        Refused: it is none.
    """
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise Refused(f"{what} integer value invalid.")
    value = int(text)
    if not 0 <= value <= _LARGEST:
        raise Refused(f"{what} integer value too {'small' if value < 0 else 'large'}.")
    return value


def port(text: str) -> int:
    """Read a port, or a service's name; 0 to 65535, and -1 for what is neither."""
    if re.fullmatch(r"[0-9]+", text):
        return int(text) if int(text) < 65536 else -1
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        return -1


def scaled(text: str) -> int:
    """Read a number of bytes, with K, M or G behind it or not.

    Raises:
        Refused: it is none.
    """
    found = re.fullmatch(r"(\d+)([KMGT]?)", text, re.IGNORECASE)
    if found is None:
        raise Refused(f"Bad number {text!r}: Invalid argument")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[found[2].lower()]


def host_and_port(text: str) -> tuple[str, str | None]:
    """Split HOST:PORT, [HOST]:PORT or HOST; the brackets are left out, and the port may be missing.

    Raises:
        Refused: a bracket is not closed, or something else stands behind it.
    """
    found = re.fullmatch(r"\[([^]]*)\](?:[:/](.*))?", text) if text.startswith("[") else re.fullmatch(
        r"([^:/]*)(?:[:/](.*))?", text
    )  # fmt: skip
    if found is None:
        raise Refused("bad address:port usage")
    return found[1], found[2]


def expanded(path: str) -> str:
    """Put a home in the place of a ~ before a path; the server's user's, or that of the user named there."""
    import os

    if not path.startswith("~"):
        return path
    found = os.path.expanduser(path)
    if found == path:
        raise Refused(f"no such user: {path.partition('/')[0]}")
    return found


def absolute(path: str) -> str:
    """Make a file's name an absolute one, as seen from where the server was started; none stays what it is."""
    import os

    return "none" if path.lower() == "none" else os.path.join(os.getcwd(), expanded(path))
