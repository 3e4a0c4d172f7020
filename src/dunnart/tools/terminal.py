"""The terminal of a person: what is shown there holds nothing that a terminal would obey; questions are asked there."""

from __future__ import annotations

import os
import sys


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


def ask(question: str, *, hidden: bool) -> str | None:
    """Ask on the terminal; None if nobody can answer."""
    force = os.environ.get("SSH_ASKPASS_REQUIRE") == "force"
    if not force and _has_terminal():
        try:
            return _read_hidden(question) if hidden else _read(question)
        except EOFError:
            return None
    program = os.environ.get("SSH_ASKPASS")
    if not program or not hidden:
        return None
    import subprocess

    done = subprocess.run([program, question], stdout=subprocess.PIPE, check=False)
    return done.stdout.decode(errors="surrogateescape").rstrip("\r\n") if done.returncode == 0 else None


def _has_terminal() -> bool:
    if os.name == "nt":
        return sys.stdin.isatty()
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


def _read_hidden(question: str) -> str:
    import getpass

    return getpass.getpass(question)


def _read(question: str) -> str:
    if os.name == "nt":
        return input(question)
    with open("/dev/tty", "r+b", buffering=0) as terminal:
        terminal.write(question.encode(errors="replace"))
        line = b""
        while not line.endswith(b"\n"):
            data = terminal.read(1)
            if not data:
                raise EOFError
            line += data
    return line.decode(errors="replace").rstrip("\n")
