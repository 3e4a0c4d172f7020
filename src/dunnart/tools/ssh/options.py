"""What a configuration says, as values: numbers, times, choices, paths with their tokens."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NoReturn

from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection

    from dunnart.tools.ssh.configuration import Configuration, Setting

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TIME = re.compile(r"(?:[0-9]{1,9}[smhdw]?)+", re.IGNORECASE)
_YES = {"yes": True, "true": True, "no": False, "false": False}
_TOKEN = re.compile(r"%(.?)|\$\{([^}]*)\}", re.DOTALL)
_LARGEST_PORT = 65535


class Options:
    """The options for one host.

    Each method raises ConfigError, with the file and line, for a value that cannot be.

    Args:
        configuration: what was read.

    Attributes:
        name: the host as it was given.
        host: its real name.
        user: who is to be logged in.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self.name = configuration.host
        self.host = configuration.hostname
        self.user = self.text("user", configuration.local_user)
        self.notes = configuration.notes

    @property
    def port(self) -> int:
        """The host's port."""
        return self.number("port", 22, least=1, largest=_LARGEST_PORT)

    def given(self, name: str) -> bool:
        """Whether there is any value."""
        return bool(self._configuration.settings(name))

    def fail(self, name: str, message: str) -> NoReturn:
        """Raise that the first value is wrong."""
        _fail(self._configuration.settings(name)[0], name, message)

    def text(self, name: str, default: str) -> str:
        """The first word."""
        found = self._configuration.settings(name)
        return found[0].words[0] if found else default

    def words(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """All words of the first value."""
        found = self._configuration.settings(name)
        return found[0].words if found else default

    def all(self, name: str) -> list[tuple[str, ...]]:
        """All words of each value."""
        return [setting.words for setting in self._configuration.settings(name)]

    def number(self, name: str, default: int, *, least: int = 0, largest: int = 1 << 30) -> int:
        """A number."""
        text = self.text(name, str(default))
        if not (text.isascii() and text.isdecimal()) or len(text) > 10 or not least <= int(text) <= largest:
            self.fail(name, f"{text!r} is no number from {least} to {largest}")
        return int(text)

    def seconds(self, name: str, default: int) -> int:
        """A time, such as 90, 1m30s or 2h; `none` is the default."""
        text = self.text(name, "none")
        if text.lower() == "none":
            return default
        return self.time(name, text)

    def time(self, name: str, text: str) -> int:
        """A time that is one word of a value."""
        if not _TIME.fullmatch(text):
            self.fail(name, f"{text!r} is no time such as 90, 1m30s or 2h")
        return sum(int(count) * _UNITS[unit.lower()] for count, unit in re.findall(r"([0-9]+)([a-zA-Z]?)", text))

    def flag(self, name: str, *, default: bool) -> bool:
        """Yes or no."""
        return _YES[self.choice(name, "yes" if default else "no", _YES)]

    def choice(self, name: str, default: str, choices: Collection[str]) -> str:
        """One of the choices, in lower case."""
        value = self.text(name, default).lower()
        if value not in choices:
            self.fail(name, f"{value!r} is none of {', '.join(choices)}")
        return value

    # Tokens.

    def expanded(self, text: str, *, variables: bool = False) -> str:
        """Put values in the place of %h and the like, and of ${NAME} if that is wanted: a shell does it by itself."""
        tokens = self._tokens()

        def value(found: re.Match[str]) -> str:
            if found[2] is not None:
                if not variables:
                    return found[0]
                if found[2] not in os.environ:
                    raise ConfigError(f"{text!r} wants the variable {found[2]}, which is not set")
                return os.environ[found[2]]
            if found[1] not in tokens:
                raise ConfigError(f"%{found[1]} in {text!r} is not known; there are {', '.join(sorted(tokens))}")
            return tokens[found[1]]

        return _TOKEN.sub(value, text)

    def path(self, text: str) -> str:
        """A path, whose ~ and tokens are expanded."""
        return os.path.expanduser(self.expanded(text, variables=True))

    def _tokens(self) -> dict[str, str]:
        from socket import gethostname

        local = gethostname()
        return {
            "%": "%", "h": self.host, "n": self.name, "p": str(self.port), "r": self.user,
            "u": self._configuration.local_user, "d": os.path.expanduser("~"), "l": local, "L": local.partition(".")[0],
            "i": str(os.getuid()), "k": self.text("hostkeyalias", self.name), "j": self.text("proxyjump", ""),
        }  # fmt: skip


def _fail(setting: Setting, name: str, message: str) -> NoReturn:
    raise ConfigError(message, path=setting.path or None, line=setting.line or None, key=name)
