"""Writes a configuration: as TOML, and as the table in the documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from dunnart.daemon.config import OPTIONS, ServeConfig
from dunnart.daemon.options import Word, declared_default, scalar
from dunnart.daemon.source import flag_of


def to_toml(config: ServeConfig, *, changed: bool = False) -> str:
    """Write a configuration as a TOML file that gives the same one when it is read.

    Args:
        config: what is written.
        changed: leave out what is as it is by default.
    """
    lines, tables = [], []
    default = ServeConfig()
    for name, declared in OPTIONS.items():
        value = getattr(config, name)
        if changed and value == getattr(default, name):
            continue
        if declared.tabular:
            entries = _entries(value)
            if changed:
                usual = _entries(getattr(default, name))
                entries = {key: each for key, each in entries.items() if key not in usual or usual[key] != each}
            if declared.shape != "tables" or not entries:
                tables.append(f"\n[{name}]")
            if declared.shape == "tables":
                for inner, values in entries.items():
                    tables.append(f"\n[{name}.{_toml_key(inner)}]")
                    tables += [f"{_toml_key(entry)} = {toml(each)}" for entry, each in values.items()]
            else:
                tables += [f"{_toml_key(entry)} = {toml(each)}" for entry, each in entries.items()]
        else:
            lines.append(f"{name} = {toml(value)}")
    for match in config.match:
        tables.append("\n[[match]]")
        tables += [f"{name} = {toml(value or True)}" for name, value in match.criteria.items()]
        tables += [f"{name} = {toml(value)}" for name, value in match.options.items() if name != "plugin"]
        plugins = match.options.get("plugin", {})
        assert isinstance(plugins, Mapping)
        for inner, values in plugins.items():
            tables.append(f"\n[match.plugin.{_toml_key(inner)}]")
            tables += [f"{_toml_key(entry)} = {toml(each)}" for entry, each in values.items()]
    return "\n".join([*lines, *tables, ""])


def _entries(value: object) -> Mapping[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    assert isinstance(value, Mapping)
    return value


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml(name)


def toml(value: object) -> str:
    """Write a value as TOML has it."""
    if isinstance(value, Word):  # of a type that is known when the plug-in is loaded
        value = scalar(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"[{', '.join(toml(str(each)) if isinstance(each, Word) else toml(each) for each in value)}]"
    if isinstance(value, Mapping):
        entries = ((key, each if isinstance(each, int | float) else str(each)) for key, each in value.items())
        return f"{{ {', '.join(f'{_toml_key(key)} = {toml(each)}' for key, each in entries)} }}"
    return '"' + "".join(map(_toml_character, str(value))) + '"'


def _toml_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    code = ord(character)
    return character if character.isprintable() else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def option_table() -> str:
    """Give the options as a Markdown table: name, flag, default, what it does."""
    rows = ["| option | flag | default | |", "|---|---|---|---|"]
    for each in fields(ServeConfig):
        if each.name not in OPTIONS:
            continue
        declared = OPTIONS[each.name]
        flag = f"{flag_of(each.name)} {declared.value}".strip()
        default = declared_default(each)
        shown = "" if declared.tabular else f"`{toml(default)}`"
        rows.append(f"| `{each.name}` | `{flag}` | {shown} | {declared.help} |".replace("a,b*", "a,b\\*"))
    return "\n".join(rows) + "\n"
