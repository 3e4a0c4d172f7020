"""What an option is, and the readers that turn a value from a file or flag into the option's own type.

A reader takes what TOML gives (str, int, float, bool, list, dict) and raises `BadValue`, whose text completes
"OPTION: ". Flags give the same values, see `dunnart.daemon.flags`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Reader = Callable[[object], T]


class BadValue(ValueError):
    """A value that an option cannot have; `entry` is the name in the option's table, if it stands in one."""

    def __init__(self, message: str, entry: str | None = None) -> None:
        super().__init__(message)
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Option:
    """What stands in a field's metadata, beside its name and default.

    Args:
        read: checks and converts a value.
        shape: `one` value, a `list` of values, a `table` of named values, or a `switch`, which is on or off.
        value: what a value looks like, for the help.
        help: one sentence.
    """

    read: Reader[Any]  # the field's annotation says which type
    shape: Literal["one", "list", "table", "switch"]
    value: str
    help: str


def option(default: T, read: Reader[T], value: str, text: str, shape: Literal["one", "switch"] = "one") -> T:
    """Declare a field that holds one value."""
    # The type is the default's, as for dataclasses.field itself.
    declared: T = field(default=default, metadata={"option": Option(read, shape, value, text)})
    return declared


def list_option(default: tuple[T, ...], read: Reader[T], value: str, text: str) -> tuple[T, ...]:
    """Declare a field that holds a list; `read` takes one item."""
    declared: tuple[T, ...] = field(
        default=default,
        metadata={"option": Option(_every(read), "list", value, text)},
    )
    return declared


def table_option(default: T, read: Reader[T], value: str, text: str) -> T:
    """Declare a field that holds a table of named values."""
    declared: T = field(
        default_factory=lambda: default,
        metadata={"option": Option(read, "table", value, text)},
    )
    return declared


def declared_option(declared: Field[Any]) -> Option:
    """Give the option of a dataclass field."""
    found: Option = declared.metadata["option"]
    return found


def declared_default(declared: Field[Any]) -> object:
    """Give the default of a dataclass field."""
    if declared.default is not MISSING:
        return declared.default
    assert declared.default_factory is not MISSING
    value: object = declared.default_factory()
    return value


def _every(read: Reader[T]) -> Reader[tuple[T, ...]]:
    def read_list(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise BadValue(f"{value!r} is no list; write [{value!r}]" if isinstance(value, str) else "a list is wanted")
        items = tuple(read(item) for item in value)
        doubled = next((item for index, item in enumerate(items) if item in items[:index]), None)
        if doubled is not None:
            raise BadValue(f"{doubled} stands there twice")
        return items

    return read_list


def text(value: object) -> str:
    """Read a string without control characters."""
    if not isinstance(value, str):
        raise BadValue(f"{value!r} is no string")
    if not value.isprintable():
        raise BadValue(f"{value!r} holds a character that cannot be printed")
    return value


def path(value: object) -> str:
    """Read a file's name, not empty."""
    name = text(value)
    if not name:
        raise BadValue("the name of the file is empty")
    return name


def switch(value: object) -> bool:
    """Read a truth value."""
    if not isinstance(value, bool):
        raise BadValue(f"{value!r} is neither true nor false")
    return value


def count(value: object) -> int:
    """Read a number of things, from 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadValue(f"{value!r} is no whole number from 0")
    return value


def choice(*choices: str) -> Reader[str]:
    """Make a reader of one of several words."""

    def read(value: object) -> str:
        if value not in choices:
            raise BadValue(f"{value!r} is none of {', '.join(choices)}")
        return str(value)

    return read


def converted(convert: Callable[[str], T]) -> Reader[T]:
    """Make a reader from a function that takes a string and raises `ValueError`."""

    def read(value: object) -> T:
        try:
            return convert(text(value))
        except BadValue:
            raise
        except ValueError as error:
            raise BadValue(str(error)) from error

    return read


def numbers(names: str, convert: Callable[..., T]) -> Reader[T]:
    """Make a reader of whole numbers joined by colons, whose names are `names`, joined likewise."""
    wanted = names.count(":") + 1

    def read(value: object) -> T:
        parts = text(value).split(":")
        if len(parts) != wanted or not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
            raise BadValue(f"{value!r} is not of the form {names}")
        try:
            return convert(*map(int, parts))
        except ValueError as error:
            raise BadValue(str(error)) from error

    return read


def table(kind: Callable[..., T]) -> Reader[T]:
    """Make a reader of a table whose names, types and bounds are those of a dataclass of numbers and truth values."""

    def read(value: object) -> T:
        if not isinstance(value, Mapping):
            raise BadValue("a table is wanted")
        types = {each.name: str(each.type) for each in fields(kind)}  # type: ignore[arg-type] # a dataclass
        for name, entry in value.items():
            if name not in types:
                raise BadValue(unknown_name(str(name), types), str(name))
            _check_number(str(name), entry, types[name])
        try:
            return kind(**value)
        except ValueError as error:
            first = str(error).split(" ", 1)[0]  # the message begins with a field's name
            raise BadValue(str(error), first if first in value else next(iter(value), None)) from error

    return read


def _check_number(name: str, value: object, kind: str) -> None:
    """Raise `BadValue` unless a value is of the type that a dataclass annotates."""
    if kind == "bool":
        good, wanted = isinstance(value, bool), "true or false"
    elif kind == "int":
        good, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        wanted = "a number"
    if not good:
        raise BadValue(f"{value!r} is not {wanted}", name)


def words(keys: tuple[str, ...], values: tuple[str, ...]) -> Reader[Mapping[str, str]]:
    """Make a reader of a table that gives some of `keys` one of `values` each."""

    def read(value: object) -> Mapping[str, str]:
        if not isinstance(value, Mapping):
            raise BadValue("a table is wanted")
        for name, entry in value.items():
            if name not in keys:
                raise BadValue(unknown_name(str(name), keys), str(name))
            if entry not in values:
                raise BadValue(f"{entry!r} is none of {', '.join(values)}", str(name))
        return dict(value)

    return read


def unknown_name(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """Say that there is no such name, and which one is near."""
    from difflib import get_close_matches

    # sshd_config's names are these in CamelCase.
    likely = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")
    near = get_close_matches(likely, list(known), n=1, cutoff=0.5)
    return f"there is no such option; did you mean {near[0]}?" if near else "there is no such option"
