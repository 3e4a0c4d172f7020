"""The server's configuration: one field an option, one name in file, flag, API and documentation.

Flags, the TOML reader, `dunnart config` and the table in the documentation are all made from `ServeConfig`'s fields.
"""

# ruff: noqa: RUF009 - option() and its like are dataclasses.field(), as ruff cannot see
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dunnart.daemon.matching import CRITERIA, MAY_MATCH, Login, Match, a_group, criterion, left_out, who
from dunnart.daemon.options import (
    BadValue,
    Word,
    at_least,
    choice,
    converted,
    count,
    declared_default,
    declared_option,
    list_option,
    named,
    numbers,
    option,
    path,
    scalar,
    switch,
    table,
    table_option,
    text,
    unknown_name,
    words,
)
from dunnart.errors import ConfigError, KeyFormatError
from dunnart.keys.key_options import permit
from dunnart.protocol.limits import Limits
from dunnart.runtime.admission import Network, Penalties, SourceBits, StartupLimit
from dunnart.runtime.listeners import ListenAddress, listen_address
from dunnart.runtime.logs import LEVELS, PARTS

if TYPE_CHECKING:
    from dunnart.crypto.profiles import Algorithms

METHODS = ("publickey", "password", "keyboard-interactive")
OFF = "off"
NONE = "none"
_SUBSYSTEMS = {"sftp": "sftp"}
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


def _principals_file(value: str) -> str:
    return _user_file(value) if value else value


def _keys_command(value: str, tokens: str = "") -> str:
    from dunnart.plugins.keys_command import TOKENS, parse_command

    try:
        if value:
            parse_command(value, TOKENS + tokens)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("command: ")) from error
    return value


def _principals_command(value: str) -> str:
    return _keys_command(value, "TFKis")


def _socket(value: str) -> str:
    if not value or value in {"auto", OFF}:
        return value or OFF
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is no absolute path")
    return value


def _variable_pattern(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_*?][A-Za-z0-9_*?]*", value):
        raise ValueError(f"{value!r} is no variable's name; * and ? may stand in it")
    return value


def _permit(name: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        try:
            if value != NONE:
                permit(name, value)
        except KeyFormatError as error:
            raise ValueError(str(error).removeprefix(f"{name} ")) from error
        return value

    return read


def _variables(value: object) -> Mapping[str, str]:
    found = named(text)(value)
    for name in found:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise BadValue(f"{name!r} is no variable's name", name)
    return found


def _plugin(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", value):
        raise ValueError(f"{value!r} is neither a plug-in's name nor module:attr")
    return value


def _plugin_or_off(value: str) -> str:
    return _plugin(value) if value else OFF


def _plugin_tables(value: object) -> Mapping[str, Mapping[str, object]]:
    """Read the tables of plug-ins. What their options are is known when the plug-ins are loaded."""
    if not isinstance(value, Mapping):
        raise BadValue("a table is wanted")
    tables: dict[str, dict[str, object]] = {}
    for name, entries in value.items():
        if not isinstance(entries, Mapping):
            raise BadValue("a table of the plug-in's options is wanted", str(name))
        tables[str(name)] = {key: _plugin_value(f"{name}.{key}", key, each) for key, each in entries.items()}
    return tables


def _plugin_value(entry: str, key: object, value: object) -> object:
    if key == LOG_LEVEL and value not in LEVELS:
        raise BadValue(f"{value!r} is none of {', '.join(LEVELS)}", entry)
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if isinstance(value, Mapping) and all(isinstance(each, str) for each in value.values()):
        return dict(value)
    if isinstance(value, str | int | float):
        return value
    raise BadValue("plug-ins take strings, numbers, true or false, and lists and tables of strings", entry)


LOG_LEVEL = "log_level"
"""The one option that every plug-in has."""
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
    host_certificate: tuple[str, ...] = list_option(
        (), path, "FILE", "Certificates of host keys, for clients that know their authority.",
    )  # fmt: skip
    host_key_types: tuple[str, ...] = list_option(
        ("ed25519",), choice("ed25519", "rsa", "ecdsa"), "TYPE",
        "The types of the host keys in the state folder: ed25519, rsa, ecdsa. Not used with host_key.",
    )  # fmt: skip
    state_folder: str = option(
        "", text, "FOLDER",
        "Where host keys are kept. Empty: /var/lib/dunnart as root, else $XDG_STATE_HOME/dunnart or its like.",
    )  # fmt: skip
    control_socket: str = option(
        "auto", converted(_socket), "FILE",
        "The unix socket that `dunnart status` speaks to. auto: control.sock in the state folder; off: none.",
    )  # fmt: skip
    authorized_keys: tuple[str, ...] = list_option(
        ("%h/.ssh/authorized_keys",), converted(_user_file), "FILE",
        "Files with the keys that a user may log in with; %h is the user's home, %u the name, %U the number.",
    )  # fmt: skip
    authorized_keys_command: str = option(
        "", converted(_keys_command), "COMMAND",
        "A program, by its absolute path, that prints more such lines; it is asked when the files do not let a key in. "
        "In its arguments %u is the user's name, %U the number, %h the home, %k, %t and %f are the key, its type and "
        "its fingerprint.",
    )  # fmt: skip
    authorized_keys_command_user: str = option(
        "", text, "USER", "The user as whom authorized_keys_command runs; it must be given with it.",
    )  # fmt: skip
    trusted_user_ca_keys: tuple[str, ...] = list_option(
        (), path, "FILE",
        "Files with the keys of authorities whose certificates let in the users that they name.",
    )  # fmt: skip
    authorized_principals_file: str = option(
        "", converted(_principals_file), "FILE",
        "The file with the principals whose certificates may be a user, by trusted_user_ca_keys; %h, %u and %U as in "
        "authorized_keys. Empty: certificates must name the user.",
    )  # fmt: skip
    authorized_principals_command: str = option(
        "", converted(_principals_command), "COMMAND",
        "A program, as authorized_keys_command, that prints more such principals; in its arguments %T, %K and %F are "
        "the authority's key as %t, %k and %f are the certificate, %i and %s its key id and serial number.",
    )  # fmt: skip
    authorized_principals_command_user: str = option(
        "", text, "USER", "The user as whom authorized_principals_command runs; it must be given with it.",
    )  # fmt: skip
    revoked_keys: tuple[str, ...] = list_option(
        (), path, "FILE",
        "Files with revoked keys: key revocation lists, as `dunnart keygen -k` makes them, or public keys. One that "
        "cannot be used lets no key in.",
    )  # fmt: skip
    permit_user_environment: tuple[str, ...] = list_option(
        (), converted(_variable_pattern), "PATTERN",
        "Variables that environment= in authorized_keys may set; a line that sets others lets nobody in.",
    )  # fmt: skip
    strict_modes: bool = option(
        True, switch, "", "Refuse authorized keys in files or folders that others can write.", "switch",  # noqa: FBT003
    )  # fmt: skip
    methods: tuple[str, ...] = list_option(
        (), converted(_chain), "METHOD[,METHOD]",
        "Chains of publickey, password and keyboard-interactive; going through one logs in. None: any that is set up.",
    )  # fmt: skip
    password: str = option(
        "auto", choice("auto", "one-time", "off"), "KIND",
        "auto: a password for this run, printed at the start, where there is no other way in; one-time: always such "
        "a one; off: none.",
    )  # fmt: skip
    authenticators: tuple[str, ...] = list_option(
        (), converted(_plugin), "PLUGIN",
        "Plug-ins that let users in, one a method. None: authorized-keys, and one-time-password as the option password "
        "has it.",
    )  # fmt: skip
    key_sources: tuple[str, ...] = list_option(
        (), converted(_plugin), "PLUGIN", "Plug-ins that know more keys, asked after the files in authorized_keys.",
    )  # fmt: skip
    permit_empty_passwords: bool = option(
        False, switch, "", "An empty password may be right.", "switch",  # noqa: FBT003
    )  # fmt: skip
    permit_root_login: str = option(
        "prohibit-password", choice("yes", "prohibit-password", "no"), "HOW",
        "yes, prohibit-password (by key, or by the password printed at the start) or no.",
    )  # fmt: skip
    allow_users: tuple[str, ...] = list_option(
        (), converted(who), "USER[@ADDRESS]",
        "Who may log in, and from where: patterns of names, behind an @ one of addresses. None: everybody.",
    )  # fmt: skip
    deny_users: tuple[str, ...] = list_option(
        (), converted(who), "USER[@ADDRESS]", "Who may not, written as in allow_users; it comes first.",
    )  # fmt: skip
    allow_groups: tuple[str, ...] = list_option(
        (), converted(a_group), "GROUP", "Only users with a group that fits one of these patterns may log in.",
    )  # fmt: skip
    deny_groups: tuple[str, ...] = list_option(
        (), converted(a_group), "GROUP", "Users with such a group may not.",
    )  # fmt: skip
    accept_env: tuple[str, ...] = list_option(
        ("LANG", "LC_*", "COLORTERM", "NO_COLOR"), converted(_variable_pattern), "PATTERN",
        "Environment variables that a client may set; * and ? may stand in them.",
    )  # fmt: skip
    set_env: Mapping[str, str] = table_option(
        {}, _variables, "NAME=VALUE", "Environment variables of sessions, whatever the client or a key sets.", "names",
    )  # fmt: skip
    permit_tty: bool = option(True, switch, "", "Sessions may have terminals.", "switch")  # noqa: FBT003
    force_command: str = option(
        "", text, "COMMAND",
        "What sessions run, whatever the client or a key asks for; that is in $SSH_ORIGINAL_COMMAND. internal-sftp "
        "stands for the subsystem sftp.",
    )  # fmt: skip
    shell: str = option("os", converted(_plugin_or_off), "PLUGIN", "The plug-in that serves shells; off: none does.")
    exec: str = option("os", converted(_plugin_or_off), "PLUGIN", "The plug-in that runs commands; off: none does.")
    subsystem: Mapping[str, str] = table_option(
        _SUBSYSTEMS, lambda value: {**_SUBSYSTEMS, **named(converted(_plugin_or_off))(value)}, "NAME=PLUGIN",
        "The plug-ins that serve subsystems, by the subsystem's name. sftp is served by sftp; sftp=off: by none.",
        "names",
    )  # fmt: skip
    middleware: tuple[str, ...] = list_option(
        (), converted(_plugin), "PLUGIN", "Plug-ins put around everything that serves sessions, the first outermost.",
    )  # fmt: skip
    channel_types: Mapping[str, str] = table_option(
        {}, named(converted(_plugin)), "TYPE=PLUGIN", "The plug-ins that serve channels that are no sessions, by type.",
        "names",
    )  # fmt: skip
    global_requests: Mapping[str, str] = table_option(
        {}, named(converted(_plugin)), "NAME=PLUGIN", "The plug-ins that answer global requests, by their names.",
        "names",
    )  # fmt: skip
    session_requests: Mapping[str, str] = table_option(
        {}, named(converted(_plugin)), "NAME=PLUGIN",
        "The plug-ins that answer requests of sessions that have not begun, by their names.", "names",
    )  # fmt: skip
    forwards: tuple[str, ...] = list_option(
        ("tcp", "unix", "agent"), choice("tcp", "unix", "agent", "x11", OFF), "KIND",
        "What clients may have forwarded: tcp and unix sockets (ssh -L, -R, -D, -J, -W), agent (-A), x11 (-X, -Y); "
        "off: nothing.",
    )  # fmt: skip
    forwarding: tuple[str, ...] = list_option(
        ("allow-list",), converted(_plugin), "PLUGIN",
        "Plug-ins that decide what may be forwarded; all must allow it, and without any nothing is.",
    )  # fmt: skip
    permit_open: tuple[str, ...] = list_option(
        (), converted(_permit("permitopen")), "HOST:PORT",
        "Where TCP may be forwarded to; * stands for any host or port; none: nowhere. None: anywhere.",
    )  # fmt: skip
    permit_listen: tuple[str, ...] = list_option(
        (), converted(_permit("permitlisten")), "[HOST:]PORT",
        "Where clients may have TCP listened for; written as in permit_open, and * and ? may stand in hosts.",
    )  # fmt: skip
    audit: tuple[str, ...] = list_option(
        (), converted(_plugin), "PLUGIN", "Plug-ins that keep a record of logins and sessions.",
    )  # fmt: skip
    plugin: Mapping[str, Mapping[str, object]] = table_option(
        {}, _plugin_tables, "PLUGIN.NAME=VALUE",
        "The plug-ins' own options, a table [plugin.PLUGIN] for each; log_level is one that all have.", "tables",
    )  # fmt: skip
    profile: str = option(
        "default", choice("default", "strict", "fips", "legacy"), "PROFILE",
        "Which algorithms are offered; the options from kex to compression edit its lists.",
    )  # fmt: skip
    kex: str = option("", text, "LIST", f"Key exchange methods: {_EDIT}.")
    host_key_algorithms: str = option("", text, "LIST", "Signature algorithms of host keys, written as in kex.")
    user_key_algorithms: str = option("", text, "LIST", "Signature algorithms of users' keys, written as in kex.")
    ca_signature_algorithms: str = option(
        "", text, "LIST", "Signature algorithms of authorities on users' certificates, written as in kex.",
    )  # fmt: skip
    ciphers: str = option("", text, "LIST", "Ciphers, written as in kex.")
    macs: str = option("", text, "LIST", "MACs, written as in kex.")
    compression: str = option("", text, "LIST", "Compression methods, written as in kex.")
    max_startups: StartupLimit = option(
        StartupLimit(), numbers("BEGIN:RATE:FULL", StartupLimit), "BEGIN:RATE:FULL",
        "Connections without a login: from BEGIN on RATE % of new ones are refused, rising to all at FULL.",
    )  # fmt: skip
    workers: int = option(
        1, at_least(1), "COUNT",
        "Processes that serve the protocol. With one it is served by the main process itself, which is smallest.",
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
    match: tuple[Match, ...] = ()
    """The tables [[match]]: options for some logins."""
    source: Source = field(default_factory=lambda: Source(), repr=False, compare=False)  # noqa: PLW0108 - defined below
    """Where the values come from, for errors that show up later."""

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
            ca_signature=edited("ca_signature", "ca_signature_algorithms"),
        )


OPTIONS = {each.name: declared_option(each) for each in fields(ServeConfig) if each.metadata}
"""Every option by its name, in the order of the documentation."""


def flag_of(name: str) -> str:
    """Give an option's flag."""
    return "--" + name.replace("_", "-")


class Use(NamedTuple):
    """An option, or an entry of its table, that names a plug-in."""

    group: str
    plugin: str
    option: str
    entry: str | None = None


GROUPS = {
    "authenticators": "dunnart.authenticators", "key_sources": "dunnart.key_sources", "shell": "dunnart.shells",
    "exec": "dunnart.execs", "subsystem": "dunnart.subsystems", "middleware": "dunnart.middleware",
    "channel_types": "dunnart.channel_types", "global_requests": "dunnart.global_requests",
    "session_requests": "dunnart.session_requests", "forwarding": "dunnart.forwarding_policies",
    "audit": "dunnart.audit_sinks",
}  # fmt: skip
"""The options that name plug-ins, and the entry-point groups that those stand in."""
AUTHORIZED_KEYS = "authorized-keys"
ONE_TIME_PASSWORD = "one-time-password"  # noqa: S105 - a plug-in's name
_FORWARDS: dict[str, dict[str, dict[str, str]]] = {
    "tcp": {
        "channel_types": {"direct-tcpip": "direct-tcpip"},
        "global_requests": {"tcpip-forward": "tcpip-forward", "cancel-tcpip-forward": "tcpip-forward"},
    },
    "unix": {
        "channel_types": {"direct-streamlocal@openssh.com": "direct-streamlocal"},
        "global_requests": {
            "streamlocal-forward@openssh.com": "streamlocal-forward",
            "cancel-streamlocal-forward@openssh.com": "streamlocal-forward",
        },
    },
    "agent": {"session_requests": {"auth-agent-req@openssh.com": "agent-forwarding"}},
    "x11": {"session_requests": {"x11-req": "x11-forwarding"}},
}
"""What the kinds of `forwards` stand for; an entry that the configuration has itself comes first."""


def uses(config: ServeConfig) -> list[Use]:
    """Give what the configuration names plug-ins for, in the order of the options."""
    found: list[Use] = []
    for option_name, group in GROUPS.items():
        value = getattr(config, option_name)
        if option_name == "forwarding" and not _forwards_anything(config):
            continue
        if isinstance(value, Mapping):
            for kind in _kinds_forwarded(config):
                value = {**_FORWARDS[kind].get(option_name, {}), **value}
            found += [Use(group, name, option_name, entry) for entry, name in value.items() if name != OFF]
        elif isinstance(value, tuple):
            found += [Use(group, name, option_name) for name in value]
        elif value != OFF:
            found.append(Use(group, value, option_name))
    return [*_default_authenticators(config), *found]


def _forwards_anything(config: ServeConfig) -> bool:
    return bool(_kinds_forwarded(config) or config.channel_types or config.global_requests or config.session_requests)


def _kinds_forwarded(config: ServeConfig) -> tuple[str, ...]:
    return () if OFF in config.forwards else config.forwards


def _default_authenticators(config: ServeConfig) -> list[Use]:
    """Give those that no option names."""
    group = GROUPS["authenticators"]
    wanted = {method for chain in config.methods for method in chain.split(",")}
    found = []
    if not config.authenticators and (not wanted or "publickey" in wanted):
        found.append(Use(group, AUTHORIZED_KEYS, "authorized_keys"))
    if ONE_TIME_PASSWORD not in config.authenticators and (
        config.password == "one-time" or (config.password == "auto" and not config.authenticators)  # noqa: S105
    ):
        found.append(Use(group, ONE_TIME_PASSWORD, "password"))
    return found


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
    config = ServeConfig(**values, source=source)
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
                read = OPTIONS[name].read(value)
                options[name] = {key: read[key] for key in value} if isinstance(value, Mapping) else read
        except BadValue as error:
            inner = "" if error.entry is None else f".{error.entry}"
            raise source.error(str(error), "match", f"{entry}{inner}", flag=False) from error
    if not criteria:
        message = f"says not which logins it is for: {', '.join(CRITERIA)}; all = true is for all"
        raise source.error(message, "match", str(number), flag=False)
    return Match(criteria, options)


def effective(config: ServeConfig, login: Login) -> ServeConfig:
    """Give the configuration that a login has."""
    return with_matches(config, [each for each in config.match if each.fits(login)])


def with_matches(config: ServeConfig, fitting: list[Match]) -> ServeConfig:
    """Give the configuration with these match tables applied, the first on top."""
    values: dict[str, Any] = {}
    for match in reversed(fitting):
        for name, value in match.options.items():
            values[name] = _merged(values.get(name, getattr(config, name)), value)
    source = config.source
    if len(fitting) == 1:
        source = source.of_match(config.match.index(fitting[0]) + 1, fitting[0])
    return replace(config, match=(), source=source, **values)


def _merged(below: object, above: object) -> object:
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
    of_logins = {use.plugin for use in all_uses if use.option in {*MAY_MATCH, "password"}}
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


class Source:
    """Where a configuration comes from: a file's values and the lines they stand on, and the flags.

    Args:
        path: the file, if any.
        flags: values by the option's name.

    Raises:
        ConfigError: the file cannot be read, or is no TOML.
    """

    def __init__(self, path: str | None = None, flags: Mapping[str, object] | None = None) -> None:
        self.path = path
        self.flags = flags or {}
        self.values: dict[str, object] = {}
        self._text = ""
        self._match: tuple[int, Match] | None = None
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

    def of_match(self, number: int, match: Match) -> Source:
        """Give the same for the configuration with one match table, which stands there as that number."""
        from copy import copy

        made = copy(self)
        made._match = (number, match)  # noqa: SLF001 - its own kind
        return made

    def error(self, message: str, name: str, entry: str | None = None, *, flag: bool | None = None) -> ConfigError:
        """Make the error for an option, which says where that stands.

        Args:
            message: what is wrong.
            name: the option's.
            entry: the name in its table, if it has one; with a dot for a table in the table.
            flag: whether it came from a flag; None: to be found out.
        """
        if self._match is not None and name in self._match[1].options:
            name, entry, flag = "match", f"{self._match[0]}.{name}" + ("" if entry is None else f".{entry}"), False
        if self.path is None or (self._is_flag(name, entry) if flag is None else flag):
            return ConfigError(message, key=flag_of(name) if entry is None else f"{flag_of(name)} {entry}")
        key = name if entry is None else f"{name}.{entry}"
        key = key if key.isprintable() else repr(key)
        return ConfigError(message, path=self.path, line=self._line(name, entry), key=key)

    def _is_flag(self, name: str, entry: str | None) -> bool:
        value = self.flags.get(name)
        if not isinstance(value, Mapping) or entry is None:
            return value is not None
        table, _, key = entry.rpartition(".")
        inner = value.get(table)
        return entry in value or (isinstance(inner, Mapping) and key in inner)

    def _line(self, key: str, entry: str | None) -> int | None:
        """Find the line of an option, or of an entry in its table, as nearly as a look at the lines allows."""
        wanted = [key if entry is None else f"{key}.{entry}"]
        wanted += [wanted[0].rpartition(".")[0]] if entry is not None and "." in entry else []
        wanted.append(key)
        section = ""
        lines: dict[str, int] = {}
        matches = 0
        for number, line in enumerate(self._text.splitlines(), 1):
            header = re.match(r"\s*\[+([^\]#]+)\]", line)
            name = re.match(r"\s*([A-Za-z0-9_.\"' :@-]+?)\s*=", line)
            if header:
                section = re.sub(r"[\"'\s]", "", header[1])
                matches += section == "match"
                section = found = re.sub(r"^match(?=\.|$)", f"match.{matches}", section)
            elif name:
                found = re.sub(r"[\"'\s]", "", name[1])
                found = f"{section}.{found}" if section else found
            else:
                continue
            lines.setdefault(found, number)
            for prefix in wanted:
                if found.startswith(f"{prefix}."):
                    lines.setdefault(prefix, number)
        return next((lines[each] for each in wanted if each in lines), None)


def _read_option(name: str, value: object, source: Source, *, flag: bool) -> Any:  # noqa: ANN401 - the field's type
    if name not in OPTIONS:
        from dunnart.daemon.sshd_words import our_word

        raise source.error(our_word(name) or unknown_name(name, OPTIONS), name, flag=flag)
    try:
        return OPTIONS[name].read(value)
    except BadValue as error:
        raise source.error(str(error), name, error.entry, flag=flag) from error


def to_toml(config: ServeConfig) -> str:
    """Write a configuration as a TOML file that gives the same one when it is read."""
    lines, tables = [], []
    for name, declared in OPTIONS.items():
        value = getattr(config, name)
        if declared.tabular:
            entries = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
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
        return f"{{ {', '.join(f'{_toml_key(key)} = {toml(str(each))}' for key, each in value.items())} }}"
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
