"""A `ServeConfig` of sshd's directives, with match tables of the Match blocks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dunnart.daemon.config import OPTIONS, ServeConfig
from dunnart.daemon.loading import checked
from dunnart.daemon.matching import MAY_MATCH, Match, criterion
from dunnart.daemon.options import BadValue
from dunnart.daemon.source import Source
from dunnart.daemon.sshd_config.conditions import Condition
from dunnart.daemon.sshd_config.effective import Settings, settings
from dunnart.daemon.sshd_config.keywords import KEYWORDS
from dunnart.daemon.sshd_config.reading import Directive, Unusable
from dunnart.daemon.sshd_config.translate import HOST_KEYS, Machine, Options, options_of
from dunnart.errors import ConfigError
from dunnart.keys.patterns import AddressPatterns

Chain = tuple[Condition, ...]
_CRITERIA = {"user": "user", "group": "group", "address": "address", "localaddress": "local_address",
             "localport": "local_port", "host": "address"}  # fmt: skip
_COSMETIC = frozenset({"log_level", "banner", "print_motd", "print_last_log"})
"""Options that no login has for itself, and that are no reason to stop."""


@dataclass(frozen=True, slots=True)
class Made:
    """The configuration, and what of sshd's does nothing."""

    config: ServeConfig
    notes: tuple[str, ...]


class SshdSource(Source):
    """Where options come from: lines of sshd_config.

    Args:
        options: the translation that they are from.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options

    def of_match(self, number: int, match: Match) -> Source:
        """Give the same for the configuration with one block."""
        return match.source if isinstance(match, Block) else super().of_match(number, match)

    def error(self, message: str, name: str, entry: str | None = None, *, flag: bool | None = None) -> ConfigError:
        """Make the error for an option, which says where its keyword stands."""
        del flag
        keywords = self._options.keywords
        keyword = keywords.get(f"{name}.{entry}") or keywords.get(name)
        if keyword is None:
            return ConfigError(message, key=name if entry is None else f"{name}.{entry}")
        setting = self._options.settings[keyword]
        return Unusable([f"{setting.file} line {setting.line}: {KEYWORDS[keyword].name}: {message}"])


@dataclass(frozen=True, slots=True)
class Block(Match):
    """A Match block, or one in another.

    Attributes:
        chain: its lines.
        source: where its options come from.
    """

    chain: Chain
    source: Source


def this_machine() -> Machine:
    """Look what is here: sshd's host keys, and whether we are root."""
    return Machine([path for path in HOST_KEYS if os.path.exists(path)], os.geteuid() == 0)


def configuration(directives: Sequence[Directive], there: Machine) -> Made:
    """Make the configuration of sshd's directives.

    Raises:
        ConfigError: something in them cannot be had here, or has a value that it cannot have.
    """
    base = options_of(settings(directives), there)
    notes, wrong = dict.fromkeys(base.notes), dict.fromkeys(base.wrong)
    blocks: list[Block] = []
    for chain in dict.fromkeys(each.conditions for each in directives if each.conditions):
        if any(line.always is False for line in chain):
            continue
        made = options_of(_of_login(directives, {chain}), there)
        notes |= dict.fromkeys(made.notes)
        wrong |= dict.fromkeys(made.wrong)
        criteria = _criteria(chain, wrong)
        _check_options(base, made, notes, wrong)
        if not wrong:
            differing = {
                name: value for name, value in made.values.items()
                if name in MAY_MATCH and value != base.values.get(name)
            }  # fmt: skip
            blocks.append(Block(criteria, _read(differing, made), chain, SshdSource(made)))
    if wrong:
        raise Unusable(list(wrong))

    def combined(fitting: Sequence[Match]) -> Mapping[str, object]:
        chains = {each.chain for each in fitting if isinstance(each, Block)}
        made = options_of(_of_login(directives, chains), there)
        return _read({name: made.values.get(name, _default(name)) for name in MAY_MATCH}, made)

    config = ServeConfig(**_read(base.values, base), match=tuple(blocks), combined=combined if blocks else None,
                         source=SshdSource(base))  # fmt: skip
    return Made(checked(config), tuple(notes))


def _of_login(directives: Iterable[Directive], chains: set[Chain]) -> Settings:
    return settings(directives, lambda conditions: conditions in chains)


def _default(name: str) -> object:
    return getattr(ServeConfig(), name)


def _read(values: Mapping[str, object], made: Options) -> dict[str, Any]:
    """Read values as those of a TOML file are read."""
    found = {}
    for name, value in values.items():
        if name not in OPTIONS:
            continue
        if name not in made.values:
            found[name] = value  # a default
            continue
        try:
            found[name] = OPTIONS[name].read(value)
        except BadValue as error:
            raise SshdSource(made).error(str(error), name, error.entry) from error
    return found


def _check_options(base: Options, made: Options, notes: dict[str, None], wrong: dict[str, None]) -> None:
    """See that a block sets only what single logins can have."""
    for name, value in made.values.items():
        before = base.values.get(name)
        if name in MAY_MATCH or value == before:
            continue
        entries = [name]
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            entries = [f"{name}.{key}" for key in value if value[key] != before.get(key)]
        for keyword in dict.fromkeys(made.keywords[entry] for entry in entries):
            setting = made.settings[keyword]
            where = f"{setting.file} line {setting.line}: {KEYWORDS[keyword].name}"
            if name in _COSMETIC:
                notes[f"{where}: ignored: it is the same for all logins"] = None
            elif keyword != "maxsessions" or made.number("maxsessions"):
                wrong[f"{where}: is supported outside Match blocks, not in them"] = None


def _criteria(chain: Chain, wrong: dict[str, None]) -> dict[str, tuple[str, ...]]:
    """Make what a match table asks for of Match lines one within the other."""
    found: dict[str, tuple[str, ...]] = {}
    for line in chain:
        for name, value in line.criteria:
            if name in {"all", "version"}:  # those that are never met have been left out
                continue
            why = _unsupported(name, value)
            option = _CRITERIA.get(name, name)
            if not why and option in found:
                why = f"{name} twice is not supported"
            if why:
                wrong[f"{line.file} line {line.line}: Match {name}: {why}"] = None
                continue
            try:
                found[option] = criterion(option, value)
            except BadValue as error:
                wrong[f"{line.file} line {line.line}: Match {name}: {error}"] = None
    return found or {"all": ()}


def _unsupported(name: str, value: str) -> str:
    if name == "host":
        try:
            plain = not AddressPatterns(value).names and "/" not in value
        except ValueError:
            plain = False
        return "" if plain else "hosts' names are not looked up; use Address"
    if name == "rdomain":
        return "there are no routing domains here"
    if name == "invalid-user":
        return "is not supported"
    return ""
