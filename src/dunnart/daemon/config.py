"""The server's configuration: one field an option, one name in file, flag, API and documentation.

Flags, the TOML reader, `dunnart config` and the table in the documentation are all made from `ServeConfig`'s fields.
"""

# ruff: noqa: RUF009 - option() and its like are dataclasses.field(), as ruff cannot see
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from dunnart.daemon.options import (
    BadValue,
    choice,
    converted,
    count,
    declared_default,
    declared_option,
    list_option,
    numbers,
    option,
    path,
    switch,
    table,
    table_option,
    text,
    unknown_name,
    words,
)
from dunnart.errors import ConfigError
from dunnart.protocol.limits import Limits
from dunnart.runtime.admission import Network, Penalties, SourceBits, StartupLimit
from dunnart.runtime.listeners import ListenAddress, listen_address
from dunnart.runtime.logs import LEVELS, PARTS

if TYPE_CHECKING:
    from dunnart.crypto.profiles import Algorithms

METHODS = ("publickey", "password")
_LARGEST_FILE = 1 << 20


def _chain(value: str) -> str:
    methods = value.split(",")
    for name in methods:
        if name not in METHODS:
            raise ValueError(f"{name!r} is none of {', '.join(METHODS)}")
    if len(set(methods)) < len(methods):
        raise ValueError(f"{value!r} names a method twice")
    return value


def _user_file(value: str) -> str:
    if not value:
        raise ValueError("the name of the file is empty")
    unknown = re.search(r"%(?!%|[huU])", value.replace("%%", ""))
    if unknown:
        raise ValueError(f"{value!r} holds a % before something else than h, u, U or %")
    return value


def _variable_pattern(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_*?][A-Za-z0-9_*?]*", value):
        raise ValueError(f"{value!r} is no variable's name; * and ? may stand in it")
    return value


_EDIT = "a,b replaces the profile's list, +a,b adds to it, -a,b* removes from it, ^a,b moves to its front"


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """Everything `dunnart serve` can be told. Every field has a default that works."""

    listen: tuple[ListenAddress, ...] = list_option(
        (ListenAddress("127.0.0.1", 2222),), converted(listen_address), "ADDR:PORT",
        "Where to listen: ADDR:PORT, [IPV6]:PORT, *:PORT or unix:/path.",
    )  # fmt: skip
    host_key: tuple[str, ...] = list_option(
        (), path, "FILE",
        "Private host key files, unencrypted. None: keys of host_key_types in the state folder, made when missing.",
    )  # fmt: skip
    host_key_types: tuple[str, ...] = list_option(
        ("ed25519",), choice("ed25519", "rsa", "ecdsa"), "TYPE",
        "The types of the host keys in the state folder: ed25519, rsa, ecdsa. Not used with host_key.",
    )  # fmt: skip
    state_folder: str = option(
        "", text, "FOLDER",
        "Where host keys are kept. Empty: /var/lib/dunnart as root, else $XDG_STATE_HOME/dunnart or its like.",
    )  # fmt: skip
    authorized_keys: tuple[str, ...] = list_option(
        ("%h/.ssh/authorized_keys",), converted(_user_file), "FILE",
        "Files with the keys that a user may log in with; %h is the user's home, %u the name, %U the number.",
    )  # fmt: skip
    strict_modes: bool = option(
        True, switch, "", "Refuse authorized keys in files or folders that others can write.", "switch",  # noqa: FBT003
    )  # fmt: skip
    methods: tuple[str, ...] = list_option(
        (), converted(_chain), "METHOD[,METHOD]",
        "Chains of publickey and password; going through one logs in. None: any that is set up.",
    )  # fmt: skip
    password: str = option(
        "auto", choice("auto", "one-time", "off"), "KIND",
        "auto: a password for this run, printed at the start, where there is no other way in; one-time: always such "
        "a one; off: none.",
    )  # fmt: skip
    permit_root_login: str = option(
        "prohibit-password", choice("yes", "prohibit-password", "no"), "HOW",
        "yes, prohibit-password (by key, or by the password printed at the start) or no.",
    )  # fmt: skip
    accept_env: tuple[str, ...] = list_option(
        ("LANG", "LC_*"), converted(_variable_pattern), "PATTERN",
        "Environment variables that a client may set; * and ? may stand in them.",
    )  # fmt: skip
    profile: str = option(
        "default", choice("default", "strict", "fips", "legacy"), "PROFILE",
        "Which algorithms are offered; the options from kex to compression edit its lists.",
    )  # fmt: skip
    kex: str = option("", text, "LIST", f"Key exchange methods: {_EDIT}.")
    host_key_algorithms: str = option("", text, "LIST", "Signature algorithms of host keys, written as in kex.")
    user_key_algorithms: str = option("", text, "LIST", "Signature algorithms of users' keys, written as in kex.")
    ciphers: str = option("", text, "LIST", "Ciphers, written as in kex.")
    macs: str = option("", text, "LIST", "MACs, written as in kex.")
    compression: str = option("", text, "LIST", "Compression methods, written as in kex.")
    max_startups: StartupLimit = option(
        StartupLimit(), numbers("BEGIN:RATE:FULL", StartupLimit), "BEGIN:RATE:FULL",
        "Connections without a login: from BEGIN on RATE % of new ones are refused, rising to all at FULL.",
    )  # fmt: skip
    max_startups_per_source: int = option(
        100, count, "COUNT", "Connections without a login from one source; 0: no bound.",
    )  # fmt: skip
    source_bits: SourceBits = option(
        SourceBits(), numbers("IPV4:IPV6", SourceBits), "IPV4:IPV6", "How many bits of an address make a source.",
    )  # fmt: skip
    penalties: Penalties = table_option(
        Penalties(), table(Penalties), "NAME=VALUE", "For how long sources are refused after what they did.",
    )  # fmt: skip
    penalty_exempt: tuple[Network, ...] = list_option(
        (), converted(Network), "NETWORK", "Networks that get no penalties: 192.0.2.0/24.",
    )  # fmt: skip
    limits: Limits = table_option(
        Limits(), table(Limits), "NAME=VALUE", "What one connection may use.",
    )  # fmt: skip
    log_level: str = option("info", choice(*LEVELS), "LEVEL", "error, warning, info or debug.")
    log_levels: Mapping[str, str] = table_option(
        {}, words(PARTS, tuple(LEVELS)), "PART=LEVEL", f"Levels of single parts: {', '.join(PARTS)}.",
    )  # fmt: skip
    log_format: str = option("text", choice("text", "json"), "FORMAT", "text or json lines, on standard error.")

    def algorithms(self) -> Algorithms:
        """Give the profile's lists with the edits done.

        Raises:
            ConfigError: an edit names an unknown algorithm or leaves none.
        """
        from dunnart.crypto.profiles import KNOWN, PROFILES, Algorithms, edit

        base = PROFILES[self.profile]

        def edited(name: str, key: str) -> tuple[str, ...]:
            default: tuple[str, ...] = getattr(base, name)
            specification: str = getattr(self, key)
            return edit(default, specification, getattr(KNOWN, name), key) if specification else default

        return Algorithms(
            kex=edited("kex", "kex"),
            host_key=edited("host_key", "host_key_algorithms"),
            ciphers=edited("ciphers", "ciphers"),
            macs=edited("macs", "macs"),
            compression=edited("compression", "compression"),
            user_key=edited("user_key", "user_key_algorithms"),
            ca_signature=base.ca_signature,
        )


OPTIONS = {each.name: declared_option(each) for each in fields(ServeConfig)}
"""Every option by its name, in the order of the documentation."""


def flag_of(name: str) -> str:
    """Give an option's flag."""
    return "--" + name.replace("_", "-")


def load(path: str | None = None, flags: Mapping[str, object] | None = None) -> ServeConfig:
    """Read the configuration file, if any, and put the flags over it; entries of a table one by one.

    Args:
        path: a TOML file.
        flags: values by the option's name, as `dunnart.daemon.options` describes them.

    Raises:
        ConfigError: the file cannot be read, or an option is unknown or has a value it cannot have.
    """
    source = _File(path)
    values = {name: _read_option(name, value, source) for name, value in source.values.items()}
    for name, value in (flags or {}).items():
        if OPTIONS[name].shape == "table" and isinstance(value, Mapping):
            below = source.values.get(name, {})
            assert isinstance(below, Mapping)
            # The flags by themselves first, so that what is wrong with them is not looked for in the file.
            _read_option(name, value, None)
            values[name] = _read_option(name, {**below, **value}, None)
        else:
            values[name] = _read_option(name, value, None)
    config = ServeConfig(**values)
    try:
        config.algorithms()
    except ConfigError as error:
        key = error.key or ""
        message = str(error).removeprefix(f"{key}: ")
        raise _error(message, key, None, None if key in (flags or {}) else source) from error
    return config


class _File:
    """A configuration file: its values, and the lines they stand on."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.values: dict[str, object] = {}
        self._text = ""
        if path is None:
            return
        import tomllib

        try:
            with open(path, "rb") as file:
                data = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", path=path) from error
        if len(data) > _LARGEST_FILE:
            raise ConfigError("a configuration file has at most 1 MiB", path=path)
        try:
            self._text = data.decode().replace("\r\n", "\n")
            self.values = tomllib.loads(self._text)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError("is not UTF-8", path=path, line=line) from error
        except tomllib.TOMLDecodeError as error:
            at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
            line = self._text.count("\n") + 1 if at is None or at[1] is None else int(at[1])
            message = str(error) if at is None else str(error)[: at.start()]
            raise ConfigError(f"is no TOML: {message}", path=path, line=line) from error

    def line(self, key: str, entry: str | None) -> int | None:
        """Find the line of an option, or of an entry in its table, as nearly as a look at the lines allows."""
        section, nearest = "", None
        for number, line in enumerate(self._text.splitlines(), 1):
            header = re.match(r"\s*\[+([^\]#]+)\]", line)
            name = re.match(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=", line)
            if header:
                section = found = re.sub(r"[\"'\s]", "", header[1])
            elif name:
                found = re.sub(r"[\"'\s]", "", name[1])
                found = f"{section}.{found}" if section else found
            else:
                continue
            if found == (key if entry is None else f"{key}.{entry}"):
                return number
            if nearest is None and (found == key or found.startswith(f"{key}.")):
                nearest = number
        return nearest


def _read_option(name: str, value: object, source: _File | None) -> Any:  # noqa: ANN401 - the field's type
    if name not in OPTIONS:
        raise _error(unknown_name(name, OPTIONS), name, None, source)
    try:
        return OPTIONS[name].read(value)
    except BadValue as error:
        raise _error(str(error), name, error.entry, source) from error


def _error(message: str, name: str, entry: str | None, source: _File | None) -> ConfigError:
    """Make the error for an option in a file, or in a flag if there is none."""
    if source is None or source.path is None:
        return ConfigError(message, key=flag_of(name) if entry is None else f"{flag_of(name)} {entry}")
    key = name if entry is None else f"{name}.{entry}"
    key = key if key.isprintable() else repr(key)
    return ConfigError(message, path=source.path, line=source.line(name, entry), key=key)


def to_toml(config: ServeConfig) -> str:
    """Write a configuration as a TOML file that gives the same one when it is read."""
    lines, tables = [], []
    for name, declared in OPTIONS.items():
        value = getattr(config, name)
        if declared.shape == "table":
            entries = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            tables.append(f"\n[{name}]")
            tables += [f"{entry} = {_toml(each)}" for entry, each in entries.items()]
        else:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join([*lines, *tables, ""])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"[{', '.join(map(_toml, value))}]"
    # Strings here are printable, so backslash and quote are all that TOML wants escaped.
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def option_table() -> str:
    """Give the options as a Markdown table: name, flag, default, what it does."""
    rows = ["| option | flag | default | |", "|---|---|---|---|"]
    for each in fields(ServeConfig):
        declared = declared_option(each)
        flag = f"{flag_of(each.name)} {declared.value}".strip()
        default = declared_default(each)
        shown = "" if declared.shape == "table" else f"`{_toml(default)}`"
        rows.append(f"| `{each.name}` | `{flag}` | {shown} | {declared.help} |".replace("a,b*", "a,b\\*"))
    return "\n".join(rows) + "\n"
