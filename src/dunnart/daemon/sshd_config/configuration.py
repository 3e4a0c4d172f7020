"""A `ServeConfig` of sshd's directives, with match tables of the Match blocks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dunnart.daemon.config import OPTIONS, ServeConfig
from dunnart.daemon.loading import checked, with_matches
from dunnart.daemon.matching import MAY_MATCH, Login, Match, criterion
from dunnart.daemon.options import BadValue
from dunnart.daemon.source import Source
from dunnart.daemon.sshd_config.conditions import Condition, is_known
from dunnart.daemon.sshd_config.effective import settings
from dunnart.daemon.sshd_config.keywords import KEYWORDS
from dunnart.daemon.sshd_config.reading import Directive, Unusable
from dunnart.daemon.sshd_config.translate import HOST_KEYS, Machine, Options, options_of
from dunnart.daemon.uses import uses
from dunnart.errors import ConfigError
from dunnart.keys.patterns import AddressPatterns
from dunnart.records import dataclass

Chain = tuple[Condition, ...]
_CRITERIA = {"user": "user", "group": "group", "address": "address", "localaddress": "local_address",
             "localport": "local_port", "host": "address"}  # fmt: skip
_KEYTAB, _KRB5 = "/etc/krb5.keytab", "/etc/krb5.conf"
_NO_WAY_IN = "cannot be satisfied by enabled authentication methods"
_COSMETIC = frozenset({"log_level", "banner"})
"""What may stand in a Match block, and no login has for itself."""


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
        further: criteria that have to be met beside `criteria`, where one is asked for twice.
        strangers: it is for users alone whom the system does not know.
    """

    chain: Chain
    source: Source
    further: tuple[Match, ...] = ()
    strangers: bool = False

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.chain[-1].file} line {self.chain[-1].line}"

    def fits(self, login: Login) -> bool:
        """Tell whether a login meets all criteria."""
        if self.strangers and is_known(login.user):
            return False
        return all(each.fits(login) for each in (Match(self.criteria, {}), *self.further))


def this_machine() -> Machine:
    """Look what is here: sshd's host keys, and what this server can do."""
    there = [path for path in HOST_KEYS if os.path.exists(path)]
    return Machine(there, os.geteuid() == 0, _no_kerberos())


def _no_kerberos() -> str:
    """Say why there are no logins by Kerberos, or "". Fedora's sshd_config asks for them on every machine."""
    from importlib.util import find_spec

    if find_spec("gssapi") is None:
        return "it needs dunnart[gssapi]"
    if os.path.exists(_KEYTAB) or "KRB5_KTNAME" in os.environ:
        return ""
    try:
        with open(_KRB5, encoding="utf-8", errors="replace") as file:
            elsewhere = "default_keytab_name" in file.read()
    except OSError:
        elsewhere = False
    return "" if elsewhere else f"there is no {_KEYTAB}"


def configuration(directives: Sequence[Directive], there: Machine) -> Made:
    """Make the configuration of sshd's directives.

    Raises:
        ConfigError: something in them cannot be had here, or has a value that it cannot have.
    """
    base = options_of(settings(directives), there)
    if base.no_way_in:
        base.refuse("authenticationmethods", _NO_WAY_IN)
    notes, wrong = dict.fromkeys(base.notes), dict.fromkeys(base.wrong)
    blocks: list[Block] = []
    for chain in dict.fromkeys(each.conditions for each in directives if each.conditions):
        if any(line.always is False for line in chain):
            continue
        made = _of_logins(directives, {chain}, there)
        notes |= dict.fromkeys((*made.notes, *_notes(base, made)))
        wrong |= dict.fromkeys(made.wrong)
        criteria, *further = _criteria(chain, wrong)
        if not wrong:
            values = {name: each for name, each in made.values.items() if name in MAY_MATCH}
            differing = _said_again(base, made, values) | _differing(base.values, values)
            others = tuple(Match(each, {}) for each in further)
            strangers = any(name == "invalid-user" for line in chain for name, _ in line.criteria)
            options = _read(differing, made)
            if isinstance(limits := differing.get("limits"), Mapping):
                options["limits"] = {entry: getattr(options["limits"], entry) for entry in limits}
            blocks.append(Block(criteria, options, chain, SshdSource(made), others, strangers))
    if wrong:
        raise Unusable(list(wrong))

    def combined(fitting: Sequence[Match]) -> Mapping[str, object]:
        chains = {each.chain for each in fitting if isinstance(each, Block)}
        made = _of_logins(directives, chains, there)
        if made.wrong:  # such logins are refused
            raise Unusable(made.wrong)
        return _read({name: made.values.get(name, _default(name)) for name in MAY_MATCH}, made)

    config = ServeConfig(**_read(base.values, base), match=tuple(blocks), combined=combined if blocks else None,
                         source=SshdSource(base))  # fmt: skip
    variants = [config, *(with_matches(config, [block]) for block in blocks)]
    used = {use.plugin for variant in variants for use in uses(variant)}

    def in_use(tables: object) -> dict[str, Any]:
        assert isinstance(tables, Mapping)
        return {name: table for name, table in tables.items() if name in used}

    for pair in together(blocks, 2):
        try:
            combined(pair)
        except Unusable as error:
            places = " and ".join(each.place for each in pair)
            notes[f"{places}: logins that fit both are refused: {error}"] = None
    match = tuple(
        replace(each, options={**each.options, "plugin": in_use(each.options["plugin"])})
        if "plugin" in each.options else each for each in blocks
    )  # fmt: skip
    return Made(checked(replace(config, plugin=in_use(config.plugin), match=match)), tuple(notes))


def _differing(base: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
    """Give the values that are not the same, of tables the entries."""
    found: dict[str, object] = {}
    for name, value in values.items():
        before = base.get(name)
        if value == before:
            continue
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            found[name] = _differing(before, value)
        else:
            found[name] = value
    return found


def _said_again(base: Options, made: Options, values: Mapping[str, object]) -> dict[str, object]:
    """Give the values that a block gives anew: they come before those of later blocks, be they the same as outside."""
    return {
        name: value for name, value in values.items()
        if not isinstance(value, Mapping) and made.settings[made.keywords[name]] != base.settings[made.keywords[name]]
    }  # fmt: skip


def together(blocks: Sequence[Block], most: int) -> Iterator[tuple[Block, ...]]:
    """Give the blocks that a login may fit at once, up to so many."""
    found: list[tuple[int, ...]] = [()]
    for _ in range(most):
        found = [
            (*each, number)
            for each in found
            for number in range(each[-1] + 1 if each else 0, len(blocks))
            if not any(_apart(blocks[one], blocks[number]) for one in each)
        ]
        if not found:
            return
        yield from (tuple(blocks[number] for number in each) for each in found)


def _apart(one: Block, other: Block) -> bool:
    """Tell whether no login can fit both: they name other users, or other ports."""
    for name in ("user", "local_port"):
        left, right = ({*each.criteria.get(name, ())} for each in (one, other))
        plain = not any(character in each for each in left | right for character in "*?!")
        if left and right and plain and not left & right:
            return True
    return False


def _of_logins(directives: Iterable[Directive], chains: set[Chain], there: Machine) -> Options:
    """Give the options of logins that fit some blocks and no others."""
    made = options_of(settings(directives, lambda conditions: conditions in chains), there)
    if made.no_way_in:  # a block that they may fit as well can turn the methods on
        made.note("authenticationmethods", f"{_NO_WAY_IN}: logins that fit no other block are refused")
        made.put("deny_users", ["*"], "authenticationmethods")
    return made


def _default(name: str) -> object:
    return getattr(ServeConfig(), name)


def _read(values: Mapping[str, object], made: Options) -> dict[str, Any]:
    """Read values as those of a TOML file are read."""
    found = {}
    for name, value in values.items():
        if name not in made.values:
            found[name] = value  # a default
            continue
        try:
            found[name] = OPTIONS[name].read(value)
        except BadValue as error:
            raise SshdSource(made).error(str(error), name, error.entry) from error
    return found


def _notes(base: Options, made: Options) -> Iterator[str]:
    """Tell what a block sets that no login has for itself."""
    for name in _differing(base.values, made.values):
        if name in _COSMETIC:
            setting = made.settings[made.keywords[name]]
            keyword = KEYWORDS[made.keywords[name]].name
            yield f"{setting.file} line {setting.line}: {keyword}: ignored: it is the same for all logins"


def _criteria(chain: Chain, wrong: dict[str, None]) -> list[dict[str, tuple[str, ...]]]:
    """Make what match tables ask for of Match lines one within the other: one, or several that must all be met."""
    found: list[dict[str, tuple[str, ...]]] = [{}]
    for line in chain:
        for name, value in line.criteria:
            if name in {"all", "version", "invalid-user"}:  # those that are never met have been left out
                continue
            option = _CRITERIA.get(name, name)
            why = _unsupported(name, value)
            read: tuple[str, ...] = ()
            try:
                read = () if why else criterion(option, value)
            except BadValue as error:
                why = str(error)
            if why:
                wrong[f"{line.file} line {line.line}: Match {name}: {why}"] = None
                continue
            place = next((each for each in found if option not in each), None)
            if place is None:
                found.append(place := {})
            place[option] = read
    return found if found[0] else [{"all": ()}]


def _unsupported(name: str, value: str) -> str:
    if name == "host":
        try:
            plain = not AddressPatterns(value).names and "/" not in value
        except ValueError:
            plain = False
        return "" if plain else "hosts' names are not looked up; use Address"
    return "there are no routing domains here" if name == "rdomain" else ""
