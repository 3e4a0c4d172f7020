"""The key source `sql`: lines of authorized_keys from a database, through any DB-API 2.0 module (PEP 249)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import field
from importlib import import_module
from typing import Any

from dunnart.errors import ConfigError
from dunnart.plugins.looking_up import LookingUp
from dunnart.records import dataclass
from dunnart.server.plugins import Context, plugin

_MOST_LINES = 10_000
_NUMBERS = ("port", "timeout", "connect_timeout")


@dataclass(frozen=True)
class Options:
    """Which database, and what is asked of it.

    Attributes:
        query: gives a user's lines in the first column; the user's name is its one parameter, written as the module
            wants it: ?, %s, :1, :user or %(user)s.
        module: the module's name: sqlite3, psycopg, pymysql, …
        connect: the arguments of its function connect.
        seconds: how long an answer may take.
        cache_seconds: how long an answer counts; so long a key that was withdrawn still lets in.
    """

    query: str
    module: str = "sqlite3"
    connect: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 5.0
    cache_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.cache_seconds < 0:
            raise ValueError("seconds must be more than 0, cache_seconds not less")


@plugin(Options)
class SqlKeys:
    """Knows the keys that a database has for a user."""

    def __init__(self, context: Context[Options]) -> None:
        self._options = options = context.options
        try:
            self._module: Any = import_module(options.module)
        except ImportError as error:
            raise ConfigError(f"{options.module!r} cannot be imported: {error}", key="module") from error
        if not callable(getattr(self._module, "connect", None)) or not hasattr(self._module, "paramstyle"):
            raise ConfigError(f"{options.module!r} is no DB-API 2.0 module", key="module")
        self._arguments: dict[str, str | int] = {
            name: int(value) if name in _NUMBERS and value.isdecimal() else value
            for name, value in options.connect.items()
        }
        self._looking_up = LookingUp(self._ask, options.seconds, options.cache_seconds)

    async def keys(self, user: str, address: str) -> Sequence[str]:
        """Ask the database, or remember."""
        return await self._looking_up.keys(user, address)

    def _ask(self, user: str) -> Sequence[str]:
        named = ":user" in self._options.query or "%(user)s" in self._options.query
        with closing(self._module.connect(**self._arguments)) as database, closing(database.cursor()) as cursor:
            cursor.execute(self._options.query, {"user": user} if named else (user,))
            rows = cursor.fetchmany(_MOST_LINES + 1)
        if len(rows) > _MOST_LINES:
            raise ValueError(f"the query gives more than {_MOST_LINES} lines")
        return [_line(row[0]) for row in rows if row[0] is not None]


def _line(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if not isinstance(value, str):
        raise TypeError(f"the query's first column holds a {type(value).__name__}, which is no line")
    return value
