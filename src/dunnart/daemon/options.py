"""What an option is, and the readers that turn a value from a file or flag into the option's own type.

A reader takes what TOML gives (str, int, float, bool, list, dict) and raises `BadValue`, whose text completes
"OPTION: ". Flags give the same values, see `dunnart.daemon.flags`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dunnart.records import dataclass

T = TypeVar("T")
Reader = Callable[[object], T]
Shape = Literal["one", "list", "table", "names", "tables", "switch"]


class Word(str):
    """A value from the command line whose type is not known yet: that of the option which it is for decides."""

    __slots__ = ()


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
        shape: `one` value, a `list` of values, a `table` of named values, `names`: a table whose names are free, or
            `tables`: a table of such ones; or a `switch`, which is on or off.
        value: what a value looks like, for the help.
        help: one sentence.
    """

    read: Reader[Any]  # the field's annotation says which type
    shape: Shape
    value: str
    help: str

    @property
    def tabular(self) -> bool:
        """Whether its values have names."""
        return self.shape in {"table", "names", "tables"}


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


def table_option(
    default: T, read: Reader[T], value: str, text: str, shape: Literal["table", "names", "tables"] = "table"
) -> T:
    """Declare a field that holds a table of named values."""
    declared: T = field(
        default_factory=lambda: default,
        metadata={"option": Option(read, shape, value, text)},
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


def at_least(least: int, most: float = math.inf, why: str = "") -> Reader[int]:
    """Make a reader of a number of things of which there are some; `why` there cannot be more than `most`."""

    def read(value: object) -> int:
        number = count(value)
        if number < least:
            raise BadValue(f"{value!r} is less than {least}")
        if number > most:
            raise BadValue(f"{value!r} is more than {most}; {why}")
        return number

    return read


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
    """Make a reader of a table whose names, types and bounds are those of a dataclass.

    Args:
        kind: the dataclass. Its fields' types are str, int, float, bool, tuple[str, ...] or Mapping[str, str]; of a
            ValueError that it raises the first word is looked at, which should be a field's name.

    Raises:
        TypeError: a field is of another type.
    """
    types = field_types(kind)
    needed = [each.name for each in fields(kind)  # type: ignore[arg-type] # a dataclass
              if each.default is MISSING and each.default_factory is MISSING]  # fmt: skip

    def read(value: object) -> T:
        if not isinstance(value, Mapping):
            raise BadValue("a table is wanted")
        values = {}
        for name, entry in value.items():
            if name not in types:
                raise BadValue(unknown_name(str(name), types), str(name))
            values[name] = _typed(str(name), entry, types[name])
        for name in needed:
            if name not in values:
                raise BadValue("must be given", name)
        try:
            return kind(**values)
        except ValueError as error:
            first = str(error).split(" ", 1)[0]  # the message begins with a field's name
            raise BadValue(str(error), first if first in value else next(iter(value), None)) from error

    return read


def field_types(kind: Callable[..., object]) -> dict[str, str]:
    """Give the types of a dataclass's fields: str, int, float, bool, strings (a tuple) or table (of strings).

    Raises:
        TypeError: a field is of another type.
    """
    found = {}
    for each in fields(kind):  # type: ignore[arg-type] # a dataclass
        if not each.init:
            continue
        if each.type in _SPELLED:  # the others take long
            found[each.name] = _SPELLED[each.type]
            continue
        hint = get_type_hints(kind)[each.name]
        kind_name = _KINDS.get((get_origin(hint) or hint, get_args(hint)))
        if kind_name is None:
            raise TypeError(f"the option {each.name} is of type {hint!r}, which no configuration gives")
        found[each.name] = kind_name
    return found


_KINDS: dict[tuple[object, tuple[object, ...]], str] = {
    (str, ()): "str", (int, ()): "int", (float, ()): "float", (bool, ()): "bool",
    (tuple, (str, ...)): "strings", (Mapping, (str, str)): "table", (dict, (str, str)): "table",
}  # fmt: skip
_SPELLED: dict[object, str] = {
    "str": "str", "int": "int", "float": "float", "bool": "bool", "tuple[str, ...]": "strings",
    "Mapping[str, str]": "table", "dict[str, str]": "table",
}  # fmt: skip
_WANTED = {
    "str": "a string", "int": "a whole number", "float": "a number", "bool": "true or false",
    "strings": "a list of strings", "table": "a table of strings",
}  # fmt: skip


def _typed(name: str, value: object, kind: str) -> object:
    """Give a value the type that a dataclass annotates, or raise `BadValue`."""
    if kind == "strings":
        items = [value] if isinstance(value, Word) else value
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            return tuple(str(item) for item in items)
    elif kind == "table":
        if isinstance(value, Mapping) and all(isinstance(item, str) for item in (*value.keys(), *value.values())):
            return {str(key): str(item) for key, item in value.items()}
    elif kind == "str":
        if isinstance(value, str):
            return str(value)
    else:
        value = scalar(value) if isinstance(value, Word) else value
        if isinstance(value, bool):
            good = kind == "bool"
        elif kind == "int":
            good = isinstance(value, int)
        else:
            good = kind == "float" and isinstance(value, int | float) and -math.inf < value < math.inf
        if good:
            return value
    raise BadValue(f"{value!r} is not {_WANTED[kind]}", name)


def scalar(value: object) -> object:
    """Give a word of the command line the type that it seems to have."""
    if value in {"true", "false"}:
        return value == "true"
    for convert in (int, float):
        try:
            return convert(str(value))
        except ValueError:
            continue
    return value


def named(read: Reader[T]) -> Reader[Mapping[str, T]]:
    """Make a reader of a table with free names, as SSH names things; `read` takes one value."""

    def read_table(value: object) -> Mapping[str, T]:
        if not isinstance(value, Mapping):
            raise BadValue("a table is wanted")
        found = {}
        for name, entry in value.items():
            # RFC 4251 §6: printable US-ASCII without comma and space, at most 64 characters.
            if not re.fullmatch(r"[!-+\--~]{1,64}", str(name)):
                raise BadValue(f"{name!r} is no name: 1 to 64 printable ASCII characters, no comma", str(name))
            try:
                found[str(name)] = read(entry)
            except BadValue as error:
                raise BadValue(str(error), str(name)) from error
        return found

    return read_table


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
