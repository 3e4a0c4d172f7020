"""`dunnart plugins`: what is installed, what the configuration uses and for what, and what is broken."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from dunnart.daemon.plugins import load, registry
from dunnart.daemon.uses import uses
from dunnart.errors import PluginError
from dunnart.records import dataclass
from dunnart.server.plugins import GROUPS, Found, ambiguous

if TYPE_CHECKING:
    from dunnart.daemon.config import ServeConfig
    from dunnart.daemon.uses import Use
    from dunnart.server.plugins import Registry


@dataclass(frozen=True, slots=True)
class Row:
    """One plug-in of the list. The names are those of the JSON.

    Attributes:
        group: the entry-point group.
        name: as it is named in the configuration.
        target: its factory, "module:attr"; "" if nobody knows.
        distribution: the package that brings it, "" for one that was named as module:attr.
        version: that package's.
        file: its module's, "" if it could not be imported.
        options: the names of its options.
        enabled: the options that name it, as "shell" or "subsystem.sftp".
        broken: why it cannot be used, or None.
    """

    group: str
    name: str
    target: str
    distribution: str
    version: str
    file: str
    options: tuple[str, ...]
    enabled: tuple[str, ...]
    broken: str | None


def rows(config: ServeConfig) -> list[Row]:
    """Look at everything that is installed, and at what the configuration names beside it. Imports all of it."""
    known = registry()
    named = uses(config)
    found = known.all()
    listed = {(each.group, each.name) for each in found}
    found += {
        (use.group, use.plugin): Found(use.group, use.plugin, use.plugin if ":" in use.plugin else "")
        for use in named
        if (use.group, use.plugin) not in listed
    }.values()
    order = list(GROUPS)
    return [_row(known, each, found, named) for each in sorted(found, key=lambda each: order.index(each.group))]


def _row(known: Registry, found: Found, others: Iterable[Found], named: Iterable[Use]) -> Row:
    enabled = tuple(
        use.option if use.entry is None else f"{use.option}.{use.entry}"
        for use in named
        if (use.group, use.plugin) == (found.group, found.name)
    )
    file, names = "", tuple[str, ...]()
    broken: str | None = None
    same = [each for each in others if (each.group, each.name) == (found.group, found.name)]
    if len(same) > 1:
        hidden = any(each.distribution == "dunnart" for each in same)
        if not hidden:
            broken = ambiguous(same)
        elif found.distribution != "dunnart":
            broken, enabled = "the name is a built-in plug-in's; write module:attr to use this one", ()
    if broken is None:
        try:
            loaded = load(known, found if found.target else known.find(GROUPS[found.group], found.name))
        except PluginError as error:
            broken = str(error).removeprefix(f"{error.plugin}: ").removeprefix(f"{found.origin} ")
        else:
            names = tuple(sorted(loaded.names))
            file = getattr(sys.modules[found.target.partition(":")[0]], "__file__", None) or ""
    return Row(found.group, found.name, found.target, found.distribution, found.version, file, names, enabled, broken)


def _shown(use: str) -> str:
    """Shorten what names a plug-in: the requests and channels of one are many, and have long names."""
    option = use.partition(".")[0]
    return use if option == "subsystem" else option


def run(config: ServeConfig, *, as_json: bool) -> int:
    """Print the list; give the exit status, 0."""
    found = rows(config)
    if as_json:
        import json

        print(json.dumps([asdict(each) for each in found], indent=2))
        return 0
    table = [("GROUP", "NAME", "USED BY", "FROM")]
    table += [
        (
            each.group.removeprefix("dunnart."), each.name, ", ".join(dict.fromkeys(map(_shown, each.enabled))) or "-",
            Found(each.group, each.name, each.target or "?", each.distribution, each.version).origin
            + (f"  BROKEN: {each.broken}" if each.broken else ""),
        )
        for each in found
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    for row in table:
        print(*(text.ljust(width) for text, width in zip(row[:3], widths, strict=True)), row[3], sep="  ")
    return 0
