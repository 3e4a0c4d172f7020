"""What the values of single options must be: functions from a text to the value, for `dunnart.daemon.config`.

They raise ValueError, whose text completes "OPTION: ".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from dunnart.daemon.options import BadValue, named, text
from dunnart.errors import ConfigError, KeyFormatError
from dunnart.keys.key_options import permit
from dunnart.runtime.logs import FACILITIES, LEVELS

METHODS = ("publickey", "password", "keyboard-interactive", "gssapi-with-mic", "gssapi-keyex")
OFF = "off"
NONE = "none"
LOG_LEVEL = "log_level"
"""The one option that every plug-in has."""


def chain(value: str) -> str:
    """A chain of methods."""
    methods = value.split(",")
    for name in methods:
        if name not in METHODS:
            raise ValueError(f"{name!r} is none of {', '.join(METHODS)}")
    if len(set(methods)) < len(methods):
        raise ValueError(f"{value!r} names a method twice")
    return value


def user_file(value: str) -> str:
    """The name of a file, for each user."""
    if not value:
        raise ValueError("the name of the file is empty")
    unknown = re.search(r"%(?!%|[huU])", value.replace("%%", ""))
    if unknown:
        raise ValueError(f"{value!r} holds a % before something else than h, u, U or %")
    return value


def principals_file(value: str) -> str:
    """The same, or nothing."""
    return user_file(value) if value else value


def keys_command(value: str, tokens: str = "") -> str:
    """A command, with the tokens of authorized_keys_command and further ones."""
    from dunnart.plugins.keys_command import TOKENS, parse_command

    try:
        if value:
            parse_command(value, TOKENS + tokens)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("command: ")) from error
    return value


def principals_command(value: str) -> str:
    """A command, with the tokens of authorized_principals_command."""
    return keys_command(value, "TFKis")


def socket_path(value: str) -> str:
    """An absolute path, "auto" or "off"."""
    if not value or value in {"auto", OFF}:
        return value or OFF
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is no absolute path")
    return value


def log_place(value: str) -> str:
    """Where the log goes."""
    place, colon, facility = value.partition(":")
    if place == "syslog" and colon and facility not in FACILITIES:
        raise ValueError(f"{facility!r} is none of {', '.join(FACILITIES)}")
    if value not in {"auto", "stderr", "journald"} and place != "syslog" and not value.startswith("/"):
        raise ValueError(f"{value!r} is none of auto, stderr, syslog, journald, and no absolute path")
    return value


def variable_pattern(value: str) -> str:
    """A pattern of variables' names."""
    if not re.fullmatch(r"[A-Za-z_*?][A-Za-z0-9_*?]*", value):
        raise ValueError(f"{value!r} is no variable's name; * and ? may stand in it")
    return value


def permitted(name: str) -> Callable[[str], str]:
    """A reader of places that may be forwarded, as the option `name` of authorized_keys has them, or "none"."""

    def read(value: str) -> str:
        try:
            if value != NONE:
                permit(name, value)
        except KeyFormatError as error:
            raise ValueError(str(error).removeprefix(f"{name} ")) from error
        return value

    return read


def variables(value: object) -> Mapping[str, str]:
    """A table of variables."""
    found = named(text)(value)
    for name in found:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise BadValue(f"{name!r} is no variable's name", name)
    return found


def plugin_name(value: str) -> str:
    """A plug-in's name, or module:attr."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", value):
        raise ValueError(f"{value!r} is neither a plug-in's name nor module:attr")
    return value


def plugin_or_off(value: str) -> str:
    """The same, or "off"."""
    return plugin_name(value) if value else OFF


def plugin_tables(value: object) -> Mapping[str, Mapping[str, object]]:
    """Read the tables of plug-ins. What their options are is known when the plug-ins are loaded."""
    if not isinstance(value, Mapping):
        raise BadValue("a table is wanted")
    tables: dict[str, dict[str, object]] = {}
    for name, entries in value.items():
        if not isinstance(entries, Mapping):
            raise BadValue("a table of the plug-in's options is wanted", str(name))
        tables[str(name)] = {key: _plugin_value(f"{name}.{key}", key, each) for key, each in entries.items()}
    return tables


def _plugin_value(entry: str, key: object, value: object) -> object:
    if key == LOG_LEVEL and value not in LEVELS:
        raise BadValue(f"{value!r} is none of {', '.join(LEVELS)}", entry)
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if isinstance(value, Mapping) and all(isinstance(each, str) for each in value.values()):
        return dict(value)
    if isinstance(value, str | int | float):
        return value
    raise BadValue("plug-ins take strings, numbers, true or false, and lists and tables of strings", entry)
