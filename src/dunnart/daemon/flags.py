"""The flags of `dunnart serve` and `dunnart config`, made from the options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import NoReturn

from dunnart.daemon.config import OPTIONS, ServeConfig, flag_of
from dunnart.daemon.options import declared_default
from dunnart.errors import ConfigError


def _formatter(prog: str) -> argparse.HelpFormatter:
    # Asked for the terminal's width, argparse loads shutil and with it every compression library, at each start.
    return argparse.HelpFormatter(prog, width=100)


class _Parser(argparse.ArgumentParser):
    """Raises `ConfigError` where argparse would print its usage and end the program."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {self.prog} --help lists the flags")


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """Make the parser: `--config` and a flag for every option. It raises `ConfigError`."""
    made = _Parser(prog=program, description=description, allow_abbrev=False, formatter_class=_formatter)
    made.add_argument("--config", metavar="FILE", help="TOML file with options; flags override it.")
    for each in fields(ServeConfig):
        declared = OPTIONS[each.name]
        text = declared.help.replace("%", "%%")
        flag = flag_of(each.name)
        if declared.shape == "switch":
            made.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        elif declared.shape == "one" and each.name != "log_level":
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
        if OPTIONS[each.name].shape == "table":
            values[each.name] = dict(_entry(each.name, item) for item in value)
        else:
            values[each.name] = _scalar(value) if isinstance(declared_default(each), int) else value
    return found, values


def _entry(name: str, item: str) -> tuple[str, object]:
    key, equals, value = item.partition("=")
    if not equals:
        raise ConfigError(f"{item!r} is not of the form {OPTIONS[name].value}", key=flag_of(name))
    return key.replace("-", "_"), _scalar(value)


def _scalar(value: object) -> object:
    """Give a word of the command line the type it would have in a file."""
    if value in {"true", "false"}:
        return value == "true"
    for convert in (int, float):
        try:
            return convert(str(value))
        except ValueError:
            continue
    return value
