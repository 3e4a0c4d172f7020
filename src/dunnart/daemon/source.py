"""Where a configuration comes from, so that what is wrong with it can be told with file, line and option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from dunnart.daemon.matching import Match

_LARGEST_FILE = 1 << 20


def flag_of(name: str) -> str:
    """Give an option's flag."""
    return "--" + name.replace("_", "-")


class Source:
    """Where a configuration comes from: a file's values and the lines they stand on, and the flags.

    Args:
        path: the file, if any.
        flags: values by the option's name.

    Raises:
        ConfigError: the file cannot be read, or is no TOML.
    """

    def __init__(self, path: str | None = None, flags: Mapping[str, object] | None = None) -> None:
        self.path = path
        self.flags = flags or {}
        self.values: dict[str, object] = {}
        self._text = ""
        self._match: tuple[int, Match] | None = None
        if path is None:
            return
        import tomllib

        try:
            with open(path, "rb") as file:
                data = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", path=path) from error
        if len(data) > _LARGEST_FILE:
            raise ConfigError("a configuration file has at most 1 MiB", path=path)
        try:
            self._text = data.decode().replace("\r\n", "\n")
            self.values = tomllib.loads(self._text)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError("is not UTF-8", path=path, line=line) from error
        except tomllib.TOMLDecodeError as error:
            at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
            line = self._text.count("\n") + 1 if at is None or at[1] is None else int(at[1])
            message = str(error) if at is None else str(error)[: at.start()]
            raise ConfigError(f"is no TOML: {message}", path=path, line=line) from error

    def of_match(self, number: int, match: Match) -> Source:
        """Give the same for the configuration with one match table, which stands there as that number."""
        from copy import copy

        made = copy(self)
        made._match = (number, match)  # noqa: SLF001 - its own kind
        return made

    def error(self, message: str, name: str, entry: str | None = None, *, flag: bool | None = None) -> ConfigError:
        """Make the error for an option, which says where that stands.

        Args:
            message: what is wrong.
            name: the option's.
            entry: the name in its table, if it has one; with a dot for a table in the table.
            flag: whether it came from a flag; None: to be found out.
        """
        if self._match is not None and name in self._match[1].options:
            name, entry, flag = "match", f"{self._match[0]}.{name}" + ("" if entry is None else f".{entry}"), False
        if self.path is None or (self._is_flag(name, entry) if flag is None else flag):
            return ConfigError(message, key=flag_of(name) if entry is None else f"{flag_of(name)} {entry}")
        key = name if entry is None else f"{name}.{entry}"
        key = key if key.isprintable() else repr(key)
        return ConfigError(message, path=self.path, line=self._line(name, entry), key=key)

    def _is_flag(self, name: str, entry: str | None) -> bool:
        value = self.flags.get(name)
        if not isinstance(value, Mapping) or entry is None:
            return value is not None
        table, _, key = entry.rpartition(".")
        inner = value.get(table)
        return entry in value or (isinstance(inner, Mapping) and key in inner)

    def _line(self, key: str, entry: str | None) -> int | None:
        """Find the line of an option, or of an entry in its table, as nearly as a look at the lines allows."""
        wanted = [key if entry is None else f"{key}.{entry}"]
        wanted += [wanted[0].rpartition(".")[0]] if entry is not None and "." in entry else []
        wanted.append(key)
        section = ""
        lines: dict[str, int] = {}
        matches = 0
        for number, line in enumerate(self._text.splitlines(), 1):
            header = re.match(r"\s*\[+([^\]#]+)\]", line)
            name = re.match(r"\s*([A-Za-z0-9_.\"' :@-]+?)\s*=", line)
            if header:
                section = re.sub(r"[\"'\s]", "", header[1])
                matches += section == "match"
                section = found = re.sub(r"^match(?=\.|$)", f"match.{matches}", section)
            elif name:
                found = re.sub(r"[\"'\s]", "", name[1])
                found = f"{section}.{found}" if section else found
            else:
                continue
            lines.setdefault(found, number)
            for prefix in wanted:
                if found.startswith(f"{prefix}."):
                    lines.setdefault(prefix, number)
        return next((lines[each] for each in wanted if each in lines), None)
