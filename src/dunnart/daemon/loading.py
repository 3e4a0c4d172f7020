"""Reads a configuration from a file and flags, and says which one a login has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dunnart.daemon.config import OPTIONS, ServeConfig
from dunnart.daemon.matching import CRITERIA, MAY_MATCH, Login, Match, criterion, left_out
from dunnart.daemon.options import BadValue, unknown_name
from dunnart.daemon.source import Source
from dunnart.daemon.uses import GROUPS, uses
from dunnart.daemon.values import OFF
from dunnart.errors import ConfigError
from dunnart.protocol.limits import OF_USERS, Limits


def load(path: str | None = None, flags: Mapping[str, object] | None = None) -> ServeConfig:
    """Read the configuration file, if any, and put the flags over it; entries of a table one by one.

    Args:
        path: a TOML file.
        flags: values by the option's name, as `dunnart.daemon.options` describes them.

    Raises:
        ConfigError: the file cannot be read, or an option is unknown or has a value it cannot have.
    """
    source = Source(path, flags or {})
    tables = source.values.pop("match", ())
    values = {name: _read_option(name, value, source, flag=False) for name, value in source.values.items()}
    values["match"] = _read_matches(tables, source)
    for name, value in source.flags.items():
        # The flags by themselves first, so that what is wrong with them is not looked for in the file.
        values[name] = _read_option(name, value, source, flag=True)
        if OPTIONS[name].tabular:
            values[name] = _read_option(name, _merged(source.values.get(name, {}), value), source, flag=True)
    return checked(ServeConfig(**values, source=source))


def checked(config: ServeConfig) -> ServeConfig:
    """See that the options go together; give the same.

    Raises:
        ConfigError: they do not.
    """
    source = config.source
    try:
        config.algorithms()
    except ConfigError as error:
        key = error.key or ""
        raise source.error(str(error).removeprefix(f"{key}: "), key) from error
    _check_tables(config)
    if OFF in config.forwards and len(config.forwards) > 1:
        raise source.error("off stands alone: leave it out, or all others", "forwards")
    for variant in (config, *(with_matches(config, [match]) for match in config.match)):
        _check_principals(variant)
        _check_commands(variant)
    return config


def _read_matches(tables: object, source: Source) -> tuple[Match, ...]:
    if not isinstance(tables, list | tuple) or not all(isinstance(each, Mapping) for each in tables):
        raise source.error("tables are wanted: write [[match]]", "match", flag=False)
    return tuple(_read_match(number, each, source) for number, each in enumerate(tables, 1))


def _read_match(number: int, table: Mapping[str, object], source: Source) -> Match:
    criteria: dict[str, tuple[str, ...]] = {}
    options: dict[str, object] = {}
    for name, value in table.items():
        entry = f"{number}.{name}"
        if name in OPTIONS and name not in MAY_MATCH:
            message = "this option concerns no login: it cannot stand in a match table"
            raise source.error(message, "match", entry, flag=False)
        if name not in CRITERIA + MAY_MATCH:
            message = left_out(name) or unknown_name(name, CRITERIA + MAY_MATCH)
            raise source.error(message, "match", entry, flag=False)
        try:
            if name in CRITERIA:
                criteria[name] = criterion(name, value)
            else:
                options[name] = _read_entries(name, value) if isinstance(value, Mapping) else OPTIONS[name].read(value)
        except BadValue as error:
            inner = "" if error.entry is None else f".{error.entry}"
            raise source.error(str(error), "match", f"{entry}{inner}", flag=False) from error
    if not criteria:
        message = f"says not which logins it is for: {', '.join(CRITERIA)}; all = true is for all"
        raise source.error(message, "match", str(number), flag=False)
    return Match(criteria, options)


def _read_entries(name: str, value: Mapping[str, object]) -> Mapping[str, object]:
    """Read the entries of a table that stand in a match table."""
    read = OPTIONS[name].read(value)
    if name != "limits":
        return {key: read[key] for key in value}
    for key in value:
        if key not in OF_USERS:
            raise BadValue("this one is the same for all logins", key)
    return {key: getattr(read, key) for key in value}


def effective(config: ServeConfig, login: Login) -> ServeConfig:
    """Give the configuration that a login has."""
    return with_matches(config, [each for each in config.match if each.fits(login)])


def with_matches(config: ServeConfig, fitting: list[Match]) -> ServeConfig:
    """Give the configuration with these match tables applied, the first on top."""
    values: dict[str, Any] = {}
    if config.combined is not None:
        values |= config.combined(fitting) if fitting else {}
    else:
        for match in reversed(fitting):
            for name, value in match.options.items():
                values[name] = _merged(values.get(name, getattr(config, name)), value)
    source = config.source
    if len(fitting) == 1:
        source = source.of_match(config.match.index(fitting[0]) + 1, fitting[0])
    return replace(config, match=(), combined=None, source=source, **values)


def _merged(below: object, above: object) -> object:
    if isinstance(below, Limits) and isinstance(above, Mapping):
        return replace(below, **above)
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{name: _merged(below.get(name), value) for name, value in above.items()}}


def _check_principals(config: ServeConfig) -> None:
    """See that lists of principals are for some authority's certificates."""
    for name in ("authorized_principals_file", "authorized_principals_command"):
        if getattr(config, name) and not config.trusted_user_ca_keys:
            raise config.source.error(
                "says whose certificates to take, but trusted_user_ca_keys names no authority", name
            )


def _check_commands(config: ServeConfig) -> None:
    """See that programs have users as whom they run, as sshd wants it."""
    for name in ("authorized_keys_command", "authorized_principals_command"):
        if getattr(config, name) and not getattr(config, f"{name}_user"):
            raise config.source.error(f"wants {name}_user: the user as whom it runs", name)


def _check_tables(config: ServeConfig) -> None:
    """See that every table of options is some plug-in's."""
    all_uses = [*uses(config), *(use for match in config.match for use in uses(with_matches(config, [match])))]
    used = {use.plugin for use in all_uses}
    forwards = {"channel_types", "global_requests", "session_requests"}
    of_logins = {use.plugin for use in all_uses if use.option in {*MAY_MATCH, "password", *forwards}}
    for number, match in enumerate(config.match, 1):
        tables = match.options.get("plugin", {})
        assert isinstance(tables, Mapping)
        for name in tables:
            if name not in of_logins:
                message = "no option that may stand in a match table uses a plug-in of this name"
                raise config.source.error(message, "match", f"{number}.plugin.{name}")
    for name in config.plugin:
        if name not in used:
            from difflib import get_close_matches

            from dunnart.plugins import BUILT_IN

            near = get_close_matches(name, sorted(used), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            if places := [option for option, group in GROUPS.items() if name in BUILT_IN.get(group, {})]:
                hint = f"; it comes with dunnart, for {', '.join(places)}"
            raise config.source.error(f"no option uses a plug-in of this name{hint}", "plugin", name)


def _read_option(name: str, value: object, source: Source, *, flag: bool) -> Any:  # noqa: ANN401 - the field's type
    if name not in OPTIONS:
        from dunnart.daemon.sshd_words import our_word

        raise source.error(our_word(name) or unknown_name(name, OPTIONS), name, flag=flag)
    try:
        return OPTIONS[name].read(value)
    except BadValue as error:
        raise source.error(str(error), name, error.entry, flag=flag) from error
