"""sshd_config as our TOML: match tables that mean for each login what the Match blocks do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dunnart.daemon.config import OPTIONS
from dunnart.daemon.loading import with_matches
from dunnart.daemon.matching import Match
from dunnart.daemon.sshd_config.configuration import Block, configuration, this_machine, together
from dunnart.daemon.sshd_config.reading import Directives, Unusable
from dunnart.errors import ConfigError
from dunnart.protocol.limits import OF_USERS

if TYPE_CHECKING:
    from dunnart.daemon.config import ServeConfig

CONFIGURATION = "/etc/ssh/sshd_config"
_MOST_TOGETHER = 4096
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
        if each.strangers:
            raise Unusable([f"{each.place}: match tables have no invalid-user"])
        if each.further:
            raise Unusable([f"{each.place}: a match table asks for each criterion once; write the block as one line"])
    tables: list[tuple[Match, frozenset[int]]] = [
        (Match(each.criteria, each.options), frozenset({number})) for number, each in enumerate(blocks)
    ]
    base = replace(config, combined=None, match=())
    refused: list[frozenset[int]] = []
    for count, found in enumerate(together(blocks, len(blocks))):
        if count > _MOST_TOGETHER:
            raise Unusable(["too many blocks fit the same logins; `dunnart sshd` reads the file as it is"])
        numbers = frozenset(map(blocks.index, found))
        if any(each <= numbers for each in refused):
            continue
        criteria, places = _both(found), " and ".join(each.place for each in found)
        try:
            wanted = with_matches(config, list(found))
        except Unusable as error:
            if criteria is None:
                raise Unusable(
                    [f"{places}: match tables cannot refuse the logins that fit all of it: {error}"]
                ) from error
            tables.insert(0, (Match(criteria, {"deny_users": ("*",)}), numbers))
            refused.append(numbers)
            continue
        if not _differing(base, tables, numbers, wanted):
            continue
        if criteria is not None:  # a table for those logins, before the others
            names = {name for table, of in tables if of <= numbers for name in table.options}
            options = {name: getattr(wanted, name) for name in OPTIONS if name in names}
            if "limits" in names:
                options["limits"] = {entry: getattr(wanted.limits, entry) for entry in OF_USERS}
            tables.insert(0, (Match(criteria, options), numbers))
        if differing := _differing(base, tables, numbers, wanted):
            what = ", ".join(differing)
            why = f"match tables cannot say which {what} logins have that fit all of it"
            raise Unusable([f"{places}: {why}; `dunnart sshd` reads the file as it is"])
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
