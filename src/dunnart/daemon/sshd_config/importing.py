"""sshd_config as our TOML: match tables that mean for each login what the Match blocks do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from dunnart.daemon.config import OPTIONS
from dunnart.daemon.loading import with_matches
from dunnart.daemon.matching import Match
from dunnart.daemon.sshd_config.configuration import Block, configuration, this_machine
from dunnart.daemon.sshd_config.reading import Directives, Unusable
from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from dunnart.daemon.config import ServeConfig

CONFIGURATION = "/etc/ssh/sshd_config"
_MOST_TOGETHER = 3
_EVERYBODY = ("*",)


def imported(arguments: Sequence[str]) -> tuple[ServeConfig, Sequence[str]]:
    """Make the configuration of a file, and say what of it was not taken over and why.

    Args:
        arguments: the file; none: sshd's own.

    Raises:
        ConfigError: something in it cannot be had, or match tables cannot say it.
    """
    if len(arguments) > 1:
        raise ConfigError(f"import sshd_config: one file is read; {arguments[1]!r} is one too many")
    directives = Directives()
    directives.add_file(arguments[0] if arguments else CONFIGURATION)
    made = configuration(directives.found, this_machine())
    return plain(made.config), [*directives.notes, *made.notes]


def plain(config: ServeConfig) -> ServeConfig:
    """Give the same configuration with match tables alone, as a file holds it.

    Raises:
        Unusable: logins that fit several blocks would have something else.
    """
    blocks = [each for each in config.match if isinstance(each, Block)]
    for each in blocks:
        if each.further:
            raise Unusable([f"{_place(each)}: a match table asks for each criterion once; write the block as one line"])
    tables: list[tuple[Match, frozenset[int]]] = [
        (Match(each.criteria, each.options), frozenset({number})) for number, each in enumerate(blocks)
    ]
    base = replace(config, combined=None, match=())
    for together in _together(blocks):
        numbers = frozenset(map(blocks.index, together))
        wanted = with_matches(config, list(together))
        if not _differing(base, tables, numbers, wanted):
            continue
        criteria = _both(together)
        if criteria is not None:  # a table for those logins, before the others
            names = {name for table, of in tables if of <= numbers for name in table.options}
            options = {name: getattr(wanted, name) for name in OPTIONS if name in names}
            tables.insert(0, (Match(criteria, options), numbers))
        if found := _differing(base, tables, numbers, wanted):
            places = " and ".join(map(_place, together))
            what = ", ".join(found)
            raise Unusable([f"{places}: match tables cannot say which {what} logins have that fit all of it"])
    return replace(base, match=tuple(table for table, _ in tables))


def _differing(
    base: ServeConfig, tables: Sequence[tuple[Match, frozenset[int]]], numbers: frozenset[int], wanted: ServeConfig
) -> list[str]:
    """Name the options that the tables give other values to than are wanted."""
    fitting = [table for table, of in tables if of <= numbers]
    found = with_matches(replace(base, match=tuple(fitting)), fitting)
    return [name for name in OPTIONS if getattr(found, name) != getattr(wanted, name)]


def _both(blocks: Sequence[Block]) -> dict[str, tuple[str, ...]] | None:
    """Give criteria that are those of several blocks together; None: two ask for the same in different ways."""
    found: dict[str, tuple[str, ...]] = {}
    for each in blocks:
        for name, value in each.criteria.items():
            if name in found and _EVERYBODY not in {value, found[name]} and value != found[name]:
                return None
            if found.get(name, _EVERYBODY) == _EVERYBODY:
                found[name] = value
    if len(found) > 1:
        found.pop("all", None)
    return found


def _together(blocks: Sequence[Block]) -> Iterator[tuple[Block, ...]]:
    """Give the blocks that a login may fit at once."""
    for count in range(1, _MOST_TOGETHER + 1):
        for found in combinations(blocks, count):
            if not any(_apart(one, other) for one, other in combinations(found, 2)):
                yield found


def _apart(one: Block, other: Block) -> bool:
    """Tell whether no login can fit both: they name other users, or other ports."""
    for name in ("user", "local_port"):
        left, right = (each.criteria.get(name) for each in (one, other))
        if left and right and not set(left) & set(right) and not any("*" in each or "?" in each or "!" in each
                                                                      for each in (*left, *right)):  # fmt: skip
            return True
    return False


def _place(block: Block) -> str:
    line = block.chain[-1]
    return f"{line.file} line {line.line}"
