"""Reads sshd_config: files and what they include, into directives that know under which Match lines they stand."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import field

from dunnart.daemon.sshd_config import lexer
from dunnart.daemon.sshd_config.conditions import Condition, condition
from dunnart.daemon.sshd_config.keywords import ALIASES, DEPRECATED, IN_MATCH_TOO, KEYWORDS, SILENT
from dunnart.daemon.sshd_config.lexer import Refused
from dunnart.daemon.sshd_config.readers import Line, Value
from dunnart.errors import ConfigError
from dunnart.records import dataclass

FOLDER = "/etc/ssh"
COMMAND_LINE = "command-line"
_DEEPEST = 16
_LARGEST_FILE = 1 << 20


class Unusable(ConfigError):
    """A configuration that sshd would not start with.

    Attributes:
        messages: what is wrong, each as sshd writes it.
        status: the exit status.
    """

    def __init__(self, messages: Sequence[str], status: int = 255) -> None:
        super().__init__("\n".join(messages))
        self.messages = tuple(messages)
        self.status = status


@dataclass(frozen=True, slots=True)
class Directive:
    """A line that sets a keyword.

    Attributes:
        keyword: in small letters, as it is called today.
        value: what is behind it.
        file, line: where it stands; line 0 is the command line.
        conditions: the Match lines under which it stands; several where a file is included in a block.
    """

    keyword: str
    value: Value
    file: str
    line: int
    conditions: tuple[Condition, ...] = ()


@dataclass(slots=True)
class Directives:
    """All directives in the order in which they count, and what is to be said about the others."""

    found: list[Directive] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ports_are_known: bool = False
    """Ports were given by a flag; those in files do not count."""

    def add_flag(self, keyword: str, text: str, *, first: bool = False) -> None:
        """Add what a flag of sshd's says in the place of a line, perhaps before all others.

        Raises:
            Unusable: it has no such value.
        """
        try:
            self._add(keyword, text, COMMAND_LINE, 0, ())
            if first:
                self.found.insert(0, self.found.pop())
        except Refused as error:
            raise Unusable([str(error)], 1) from error

    def add_option(self, text: str) -> None:
        """Add what -o of sshd takes.

        Raises:
            Unusable: it is no directive.
        """
        name, rest = lexer.keyword_and_rest(text)
        if name.lower() in {"match", "include"}:
            raise Unusable([f"{name} directive not supported as a command-line option"])
        try:
            if name:
                self._add(name, _there(name, rest), COMMAND_LINE, 0, ())
        except Refused as error:
            status = 255 if error.at_once else 1
            raise Unusable([f"{COMMAND_LINE} line 0: {error}"], status) from error

    def add_file(self, path: str, outer: tuple[Condition, ...] = (), depth: int = 0) -> None:
        """Add what a file says, and those that it includes.

        Raises:
            Unusable: something cannot be read, or says what sshd does not know.
        """
        if depth > _DEEPEST:
            raise Unusable(["Too many recursive configuration includes"])
        wrong = []
        inner: tuple[Condition, ...] = ()
        for number, text in enumerate(_lines(path), 1):
            name, rest = lexer.keyword_and_rest(text)
            try:
                if not name:
                    continue
                _there(name, rest)
                if name.lower() == "match":
                    inner = (condition(rest, path, number),)
                elif name.lower() == "include":
                    self._include(lexer.words(rest), (*outer, *inner), depth)
                else:
                    self._add(name, rest, path, number, (*outer, *inner))
            except Refused as error:
                wrong.append(f"{path} line {number}: {error}")
                if error.at_once:
                    raise Unusable(wrong) from error
        if wrong:
            raise Unusable([*wrong, f"{path}: terminating, {len(wrong)} bad configuration options"])

    def _include(self, patterns: Sequence[str], conditions: tuple[Condition, ...], depth: int) -> None:
        if not patterns:
            raise Refused("Include missing filename argument")
        for pattern in patterns:
            if not pattern:
                raise Refused("keyword Include empty argument", at_once=False)
            whole = lexer.expanded(pattern) if pattern[0] in "/~" else os.path.join(FOLDER, pattern)
            for path in sorted(glob.glob(whole)):
                self.add_file(path, conditions, depth + 1)

    def _add(self, name: str, rest: str, file: str, line: int, conditions: tuple[Condition, ...]) -> None:
        key = ALIASES.get(name.lower(), name.lower())
        # In a block that fits everybody sshd takes any keyword, when it reads the file for the first time.
        in_match = not all(each.always for each in conditions)
        keyword = KEYWORDS.get(key)
        if keyword is None and key not in DEPRECATED | SILENT:
            raise Refused(f"Bad configuration option: {name}", at_once=False)
        if in_match and not (key in IN_MATCH_TOO if keyword is None else keyword.match):
            raise Refused(f"Directive '{name}' is not allowed within a Match block")
        words = Line(name, rest)
        if keyword is None:
            if key in DEPRECATED:
                self.notes.append(f"{file} line {line}: Deprecated option {name}")
            return
        value = keyword.read(words)
        words.end()
        if key == "port" and self.ports_are_known:
            return
        self.found.append(Directive(key, value, file, line, conditions))


def _there(name: str, rest: str) -> str:
    """Give what stands behind a keyword, if anything does."""
    if not rest:
        raise Refused(f'no argument after keyword "{name}"', at_once=False)
    return rest


def _lines(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except IsADirectoryError:  # as sshd, which finds nothing in it
        return []
    except OSError as error:
        raise Unusable([f"{path}: {error.strerror}"], 1) from error
    if len(data) > _LARGEST_FILE:
        raise Unusable([f"{path}: a configuration file has at most 1 MiB"])
    return data.decode("utf-8", "surrogateescape").split("\n")
