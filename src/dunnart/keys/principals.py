"""authorized_principals files: whose certificates may log in as a user (sshd_config(5), AuthorizedPrincipalsFile).

A line holds a principal, and before it options as an authorized_keys line has them. The first line that names one of a
certificate's principals counts; one that is not understood lets nobody in (THREATS R16).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from dunnart.errors import KeyFormatError
from dunnart.keys.authorized_keys import LINE_BYTES_MAX, parse_options
from dunnart.keys.key_options import NO_OPTIONS, KeyOptions, understand
from dunnart.records import dataclass

_BLANK = " \t\r"


@dataclass(frozen=True, slots=True)
class Principal:
    """One line.

    Attributes:
        name: the principal.
        terms: what the options before it mean.
        line: its number, from 1.
        reason: why it lets nobody in; "" if it does.
    """

    name: str
    terms: KeyOptions
    line: int
    reason: str = ""


class AuthorizedPrincipals:
    """The lines of one file.

    Attributes:
        source: the file's name, for logs.
        entries: the lines, in order.
        refused: number and reason of each line that lets nobody in; number 0 stands for the whole file.
    """

    __slots__ = ("entries", "refused", "source")

    def __init__(self, source: str, entries: tuple[Principal, ...], refused: tuple[tuple[int, str], ...]) -> None:
        self.source = source
        self.entries = entries
        self.refused = refused

    def find(self, names: Container[str]) -> Principal | None:
        """Give the first line for one of several principals."""
        return next((entry for entry in self.entries if entry.name in names), None)


def parse_principals(text: bytes | str, source: str, *, variables: Iterable[str] = ()) -> AuthorizedPrincipals:
    """Read the text of an authorized_principals file. Never raises for what stands in it.

    Args:
        text: the lines.
        source: its name for logs.
        variables: patterns of the names that the option environment may set.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    variables = tuple(variables)
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        said = line.partition("#")[0].strip(_BLANK)  # sshd ends a line there even within quotes
        if said:
            entries.append(_parse_line(said, number, variables))
    refused = tuple((entry.line, entry.reason) for entry in entries if entry.reason)
    return AuthorizedPrincipals(source, tuple(entries), refused)


def _parse_line(line: str, number: int, variables: tuple[str, ...]) -> Principal:
    name = re.split("[ \t]", line)[-1]
    try:
        return Principal(name, _terms(line, name, variables), number)
    except KeyFormatError as error:
        return Principal(name, NO_OPTIONS, number, str(error))


def _terms(line: str, name: str, variables: tuple[str, ...]) -> KeyOptions:
    if len(line) > LINE_BYTES_MAX:
        raise KeyFormatError(f"the line is longer than {LINE_BYTES_MAX} bytes")
    if "\0" in line:
        raise KeyFormatError("the line holds a NUL")
    if name == line:
        return NO_OPTIONS
    options, rest = parse_options(line)
    if rest != name:
        raise KeyFormatError("options and one principal are wanted")
    terms = understand(options, variables)
    if terms.authority:
        raise KeyFormatError("cert-authority is for authorized_keys")
    return terms
