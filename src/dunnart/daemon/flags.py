"""The flags of `dunnart serve` and `dunnart config`, made from the options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import NoReturn

from dunnart.daemon.config import OPTIONS, ServeConfig
from dunnart.daemon.options import Word, declared_default, scalar
from dunnart.daemon.source import flag_of
from dunnart.errors import ConfigError


def _formatter(prog: str) -> argparse.HelpFormatter:
    # Asked for the terminal's width, argparse loads shutil and with it every compression library, at each start.
    return argparse.HelpFormatter(prog, width=100)


_SHORT = {"inetd": ("-i",)}
"""Short flags, as sshd's and Dropbear's."""
_ALONE = {"exit_on_idle": "60"}
"""What a flag says without a value."""


class Parser(argparse.ArgumentParser):
    """Raises `ConfigError` where argparse would print its usage and end the program."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line."""
        raise ConfigError(f"{message}; {self.prog} --help lists the flags")


def parser(program: str, description: str, own: str = "") -> argparse.ArgumentParser:
    """Make the parser: `--config` and a flag for every option. It raises `ConfigError`.

    Args:
        program: the command.
        description: what it does.
        own: flags that it has beside those, as the first line of the help shows them.
    """
    usage = f"{program} {own} [--config FILE] [FLAG ...]".replace("  ", " ")
    made = Parser(prog=program, usage=usage, description=description, allow_abbrev=False, formatter_class=_formatter)
    made.add_argument("--config", metavar="FILE", help="TOML file with options; flags override it.")
    for name, declared in OPTIONS.items():
        text = declared.help.replace("%", "%%")
        flag = flag_of(name)
        if declared.shape == "switch":
            made.add_argument(*_SHORT.get(name, ()), flag, action=argparse.BooleanOptionalAction, help=text)
        elif name in _ALONE:
            made.add_argument(flag, metavar=declared.value, nargs="?", const=_ALONE[name], help=text)
        elif declared.shape == "one" and name != "log_level":
            made.add_argument(flag, metavar=declared.value, help=text)
        else:
            made.add_argument(flag, metavar=declared.value, action="append", help=f"{text} May be repeated.")
    return made


def parse(arguments: Sequence[str], made: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict[str, object]]:
    """Read the command line into argparse's namespace and the values of the options given, by their names.

    Raises:
        ConfigError: a flag is unknown or malformed.
    """
    found = made.parse_args(arguments)
    given = {name: value for name, value in vars(found).items() if name in OPTIONS and value is not None}
    # --log-level takes `auth=debug` too.
    levels: list[str] = given.pop("log_level", [])
    for level in levels:
        if "=" in level:
            given.setdefault("log_levels", []).append(level)
        else:
            given["log_level"] = level
    values: dict[str, object] = {}
    for each in fields(ServeConfig):
        if each.name not in given:
            continue
        value = given[each.name]
        shape = OPTIONS[each.name].shape
        if shape == "table":
            values[each.name] = {
                key.replace("-", "_"): scalar(entry) for key, entry in (_entry(each.name, item) for item in value)
            }
        elif shape == "names":
            values[each.name] = dict(_entry(each.name, item) for item in value)
        elif shape == "tables":
            values[each.name] = _tables(each.name, value)
        else:
            values[each.name] = scalar(value) if isinstance(declared_default(each), int) else value
    return found, values


def _entry(name: str, item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise ConfigError(f"{item!r} is not of the form {OPTIONS[name].value}", key=flag_of(name))
    return key, value


def _tables(name: str, items: Sequence[str]) -> dict[str, dict[str, object]]:
    """Read PLUGIN.NAME=VALUE and PLUGIN.NAME.KEY=VALUE; the same name several times makes a list."""
    tables: dict[str, dict[str, object]] = {}
    for item in items:
        path, value = _entry(name, item)
        # A plug-in's name may be module:attr, with dots in the module.
        parts = re.fullmatch(r"((?:[^:=]+:)?[^.:]+)\.([^.]+)(?:\.(.+))?", path)
        if parts is None:
            raise ConfigError(f"{item!r} is not of the form {OPTIONS[name].value}", key=flag_of(name))
        table = tables.setdefault(parts[1], {})
        key = parts[2].replace("-", "_")
        before = table.get(key)
        if parts[3] is not None:
            table[key] = {**before, parts[3]: value} if isinstance(before, dict) else {parts[3]: value}
        elif isinstance(before, list):
            before.append(Word(value))
        else:
            table[key] = Word(value) if before is None else [before, Word(value)]
    return tables
