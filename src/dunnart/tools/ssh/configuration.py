"""ssh_config: what its files and the command line say about one host (ssh_config(5)).

Of several values the first counts, wherever it stands: options of the command line, then the user's file, then the
system's. `Host` and `Match` say for whom the lines below them are. A keyword that ssh does not have ends the start,
with file and line.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from dunnart.errors import ConfigError
from dunnart.keys.patterns import matches
from dunnart.tools.ssh.keywords import COLLECTED, LINES, NEGLIGIBLE, REFUSED, SAME, SEVERAL, UNUSED, USED

USER_FILE = "~/.ssh/config"
SYSTEM_FILE = "/etc/ssh/ssh_config"
_DEEPEST = 16
_LARGEST = 16 << 20


class Setting(NamedTuple):
    """A value: its words, and the file and line that it stands in, "" and 0 for the command line."""

    words: tuple[str, ...]
    path: str
    line: int


class _Place(NamedTuple):
    path: str
    line: int

    def error(self, message: str, key: str | None = None) -> ConfigError:
        return ConfigError(message, path=self.path or None, line=self.line or None, key=key)


class Configuration:
    """What is said about a host.

    Args:
        host: its name, as it was given.
        local_user: who runs this.

    Attributes:
        notes: what was left out, for whoever wants to know.
    """

    def __init__(self, host: str, local_user: str) -> None:
        self.host = host
        self.local_user = local_user
        self.notes: list[str] = []
        self._found: dict[str, list[Setting]] = {}
        self._ignored: list[str] = []
        self._final = False
        self._asks_final = False

    def settings(self, name: str) -> list[Setting]:
        """All values of a keyword, in lower case; more than one only of those that are collected."""
        return self._found.get(name, [])

    def take(self, name: str, value: str) -> None:
        """Take an option of the command line.

        Raises:
            ConfigError: it cannot be.
        """
        self._take(name.lower(), value, _Place("", 0))

    def read(self, file: str | None) -> None:
        """Read files.

        Args:
            file: one that is to be read alone, "none" for none; None for the user's and the system's, if they exist.

        Raises:
            ConfigError: a file cannot be used; says where.
        """
        if file == "none":
            return
        self._read_all(file)
        if self._asks_final:  # ssh reads all again, and what was found stays
            self._final = True
            self._read_all(file)

    def _read_all(self, file: str | None) -> None:
        if file is not None:
            self._read(os.path.expanduser(file), wanted=True)
            return
        self._read(os.path.expanduser(USER_FILE), checked=True)
        self._read(SYSTEM_FILE, folder=os.path.dirname(SYSTEM_FILE))

    def _read(
        self, path: str, *, folder: str = "~/.ssh", checked: bool = False, wanted: bool = False, active: bool = True,
        depth: int = 0,
    ) -> None:  # fmt: skip
        if depth > _DEEPEST:
            raise ConfigError(f"is included more than {_DEEPEST} deep", path=path)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as opened:
                if checked:
                    _check_owner(os.fstat(opened.fileno()), path)
                text = opened.read(_LARGEST)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if wanted:
                raise ConfigError(f"cannot be read: {error.strerror}", path=path) from error
            return
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", path=path) from error
        outside = active  # an included file's blocks are inside the one that includes it
        for number, line in enumerate(text.split("\n"), 1):
            place = _Place(path, number)
            name, value = keyword(line)
            if not name or name.startswith("#"):
                continue
            name = name.lower()
            if name == "host":
                active = outside and self._is_host(_words(value, place), place)
            elif name == "match":
                active = self._is_match(_words(value, place), place) and outside
            elif name == "include":
                for each in _included(_words(value, place), place, os.path.expanduser(folder)):
                    self._read(each, folder=folder, checked=checked, active=active, depth=depth + 1)
            elif active:
                self._take(name, value, place)
            else:
                self._known(name, place)

    # Blocks.

    def _is_host(self, patterns: list[str], place: _Place) -> bool:
        if not patterns:
            raise place.error("a pattern is missing", "Host")
        found = False
        for pattern in patterns:
            if matches(pattern.removeprefix("!").lower(), self.host.lower()):
                if pattern.startswith("!"):
                    return False
                found = True
        return found

    def _is_match(self, words: list[str], place: _Place) -> bool:
        if not words:
            raise place.error("a criterion is missing", "Match")
        found = True
        waiting = words[::-1]
        while waiting:
            word, equals, value = waiting.pop().partition("=")
            criterion = word.removeprefix("!").lower()
            if criterion in {"all", "final", "canonical"}:
                self._asks_final |= criterion == "final"
                fits = criterion == "all" or (criterion == "final" and self._final)
            else:
                if not equals:
                    if not waiting:
                        raise place.error(f"{criterion} of what?", "Match")
                    value = waiting.pop()
                fits = self._fits(criterion, value, place) if found or criterion != "exec" else False
            found = found and fits != word.startswith("!")
        return found

    def _fits(self, criterion: str, value: str, place: _Place) -> bool:
        if criterion == "host":
            return listed(value.lower(), self.hostname.lower())
        if criterion == "originalhost":
            return listed(value.lower(), self.host.lower())
        if criterion == "user":
            return listed(value, self._text("user") or self.local_user)
        if criterion == "localuser":
            return listed(value, self.local_user)
        if criterion == "exec":
            return self._exec(value)
        known = "all, final, host, originalhost, user, localuser, exec"
        raise place.error(f"{criterion!r} is not known here; there are {known}", "Match")

    def _exec(self, command: str) -> bool:
        import subprocess

        from dunnart.tools.ssh.options import Options

        line = Options(self).expanded(command)
        shell = os.environ.get("SHELL") or "/bin/sh"
        return subprocess.run([shell, "-c", line], stdin=subprocess.DEVNULL, check=False).returncode == 0

    @property
    def hostname(self) -> str:
        """The host's real name, as far as is known by now."""
        return (self._text("hostname") or "%h").replace("%%", "\0").replace("%h", self.host).replace("\0", "%")

    def _text(self, name: str) -> str:
        found = self.settings(name)
        return found[0].words[0] if found else ""

    # Values.

    def _known(self, name: str, place: _Place) -> str:
        """The keyword's present name, "" if it is to be ignored."""
        name = SAME.get(name, name)
        if name in USED or name in UNUSED or name in REFUSED or name == "ignoreunknown":
            return name
        if any(listed(patterns, name) for patterns in self._ignored):
            return ""
        raise place.error("there is no such keyword; IgnoreUnknown makes it none", name)

    def _take(self, name: str, value: str, place: _Place) -> None:
        name = self._known(name, place)
        if not name:
            return
        words = (value.strip(),) if name in LINES else tuple(_words(value, place))
        if not words or not words[0]:
            raise place.error("its value is missing", name)
        if len(words) > 1 and name not in SEVERAL:
            raise place.error(f"{' '.join(words[1:])!r} is too much", name)
        if name == "ignoreunknown":
            self._ignored.append(words[0].lower())
        elif name in UNUSED:
            if words[0].lower() not in NEGLIGIBLE:
                where = f"{place.path}:{place.line}: " if place.path else ""
                self.notes.append(f"{where}{name} has no meaning here and is ignored")
        elif name in REFUSED:
            if words[0].lower() not in REFUSED[name]:
                raise place.error("this cannot be had here", name)
        elif name in COLLECTED or not (
            self._found.get(name) or {"proxyjump": "proxycommand", "proxycommand": "proxyjump"}.get(name) in self._found
        ):
            setting = Setting(words, *place)
            found = self._found.setdefault(name, [])
            if setting not in found:  # read again for Match final, or the same key twice
                found.append(setting)


def keyword(line: str) -> tuple[str, str]:
    """Cut a line, or an option, into its keyword and the rest: `Port 22`, `Port=22`, `Port = 22`."""
    line = line.strip()
    end = next((at for at, character in enumerate(line) if character in " \t="), len(line))
    rest = line[end:].lstrip(" \t")
    return line[:end], rest.removeprefix("=").lstrip(" \t")


def option(text: str) -> tuple[str, str]:
    """Cut the value of -o into name and value.

    Raises:
        ConfigError: one of them is missing.
    """
    name, value = keyword(text)
    if not name or not value:
        raise ConfigError(f"-o wants Name=value, not {text!r}")
    return name, value


def quoted(text: str) -> str:
    """A word as ssh_config has it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def listed(patterns: str, name: str) -> bool:
    """Whether a name is among patterns with commas between them, of which one with ! forbids."""
    found = False
    for pattern in patterns.split(","):
        if matches(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _words(text: str, place: _Place) -> list[str]:
    """Cut a value into words: quotes keep blanks together, a backslash quotes, # begins a comment."""
    found: list[str] = []
    word: list[str] | None = None
    quote = ""
    at = 0
    while at < len(text):
        character = text[at]
        following = text[at + 1 : at + 2]
        if character == "\\" and following and (following in "\"'\\" or (following == " " and not quote)):
            word = [*(word or []), following]
            at += 1
        elif quote:
            quote = "" if character == quote else quote
            if quote:
                assert word is not None
                word.append(character)
        elif character in "\"'":
            quote, word = character, word or []
        elif character in " \t":
            if word is not None:
                found.append("".join(word))
            word = None
        elif character == "#" and word is None:
            break
        else:
            word = word or []
            word.append(character)
        at += 1
    if quote:
        raise place.error(f"the quote that begins with {quote} does not end")
    if word is not None:
        found.append("".join(word))
    return found


def _included(patterns: list[str], place: _Place, folder: str) -> list[str]:
    import glob

    if not patterns:
        raise place.error("a file is missing", "Include")
    paths = (os.path.join(folder, os.path.expanduser(pattern)) for pattern in patterns)
    return [each for path in paths for each in sorted(glob.glob(path))]


def _check_owner(status: os.stat_result, path: str) -> None:
    if stat.S_ISREG(status.st_mode) and (status.st_uid not in {0, os.getuid()} or status.st_mode & 0o022):
        raise ConfigError("must be yours, and nobody else's to write (chmod go-w)", path=path)
