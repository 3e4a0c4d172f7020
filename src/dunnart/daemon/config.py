"""The server's configuration: one field an option, one name in file, flag, API and documentation.

Flags, the TOML reader, `dunnart config` and the table in the documentation are all made from `ServeConfig`'s fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from typing import TYPE_CHECKING

from dunnart.daemon.matching import Match, a_group, who
from dunnart.daemon.options import (
    at_least,
    choice,
    converted,
    count,
    declared_option,
    list_option,
    named,
    numbers,
    option,
    path,
    switch,
    table,
    table_option,
    text,
    words,
)
from dunnart.daemon.source import Source
from dunnart.daemon.values import (
    OFF,
    chain,
    keys_command,
    log_place,
    permitted,
    plugin_name,
    plugin_or_off,
    plugin_tables,
    principals_command,
    principals_file,
    socket_path,
    user_file,
    variable_pattern,
    variables,
)
from dunnart.protocol.limits import Limits
from dunnart.records import dataclass
from dunnart.runtime.admission import Network, Penalties, SourceBits, StartupLimit
from dunnart.runtime.listeners import ListenAddress, listen_address
from dunnart.runtime.logs import LEVELS, PARTS

if TYPE_CHECKING:
    from dunnart.crypto.profiles import Algorithms

_SUBSYSTEMS = {"sftp": "sftp"}
_MOST_WORKERS = 256  # a slip of the finger is not to take all the memory
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
        "auto", converted(socket_path), "FILE",
        "The unix socket that `dunnart status` speaks to. auto: control.sock in the state folder; off: none.",
    )  # fmt: skip
    authorized_keys: tuple[str, ...] = list_option(
        ("%h/.ssh/authorized_keys",), converted(user_file), "FILE",
        "Files with the keys that a user may log in with; %h is the user's home, %u the name, %U the number.",
    )  # fmt: skip
    authorized_keys_command: str = option(
        "", converted(keys_command), "COMMAND",
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
        "", converted(principals_file), "FILE",
        "The file with the principals whose certificates may be a user, by trusted_user_ca_keys; %h, %u and %U as in "
        "authorized_keys. Empty: certificates must name the user.",
    )  # fmt: skip
    authorized_principals_command: str = option(
        "", converted(principals_command), "COMMAND",
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
    required_rsa_size: int = option(
        2048, at_least(2048), "BITS", "How large RSA keys must be at least, of hosts and of users.",
    )  # fmt: skip
    permit_user_environment: tuple[str, ...] = list_option(
        (), converted(variable_pattern), "PATTERN",
        "Variables that ~/.ssh/environment and environment= in authorized_keys may set; a line of the latter that sets "
        "others lets nobody in.",
    )  # fmt: skip
    strict_modes: bool = option(
        True, switch, "", "Refuse authorized keys in files or folders that others can write.", "switch",  # noqa: FBT003
    )  # fmt: skip
    methods: tuple[str, ...] = list_option(
        (), converted(chain), "METHOD[,METHOD]",
        "Chains of publickey, password and keyboard-interactive; going through one logs in. None: any that is set up.",
    )  # fmt: skip
    password: str = option(
        "auto", choice("auto", "one-time", "off"), "KIND",
        "auto: a password for this run, printed at the start, where there is no other way in; one-time: always such "
        "a one; off: none.",
    )  # fmt: skip
    authenticators: tuple[str, ...] = list_option(
        (), converted(plugin_name), "PLUGIN",
        "Plug-ins that let users in, one a method. None: authorized-keys, and one-time-password as the option password "
        "has it.",
    )  # fmt: skip
    account: str = option(
        OFF, converted(plugin_or_off), "PLUGIN",
        "The plug-in that has the last word on every login, whatever its method. pam: PAM does, and opens its session, "
        "as with sshd's UsePAM; shadow: who is locked there stays out, as without it; off: none.",
    )  # fmt: skip
    key_sources: tuple[str, ...] = list_option(
        (), converted(plugin_name), "PLUGIN", "Plug-ins that know more keys, asked after the files in authorized_keys.",
    )  # fmt: skip
    permit_empty_passwords: bool = option(
        False, switch, "", "An empty password may be right.", "switch",  # noqa: FBT003
    )  # fmt: skip
    permit_root_login: str = option(
        "prohibit-password", choice("yes", "prohibit-password", "forced-commands-only", "no"), "HOW",
        "yes, prohibit-password (by key, or by the password printed at the start), forced-commands-only (by a key that "
        "has a command=) or no.",
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
        ("LANG", "LC_*", "COLORTERM", "NO_COLOR"), converted(variable_pattern), "PATTERN",
        "Environment variables that a client may set; * and ? may stand in them.",
    )  # fmt: skip
    set_env: Mapping[str, str] = table_option(
        {}, variables, "NAME=VALUE", "Environment variables of sessions, whatever the client or a key sets.", "names",
    )  # fmt: skip
    banner: str = option("", text, "FILE", "A text file that clients are shown before they log in; empty: none.")
    permit_user_rc: bool = option(
        True, switch, "", "~/.ssh/rc is run before what a session runs; else /etc/ssh/sshrc.", "switch",  # noqa: FBT003
    )  # fmt: skip
    print_motd: bool = option(
        True, switch, "", "Shells on terminals show /etc/motd, unless there is a ~/.hushlogin.", "switch",  # noqa: FBT003
    )  # fmt: skip
    print_last_log: bool = option(
        True, switch, "", "They show when and from where the user was here last, too.", "switch",  # noqa: FBT003
    )  # fmt: skip
    permit_tty: bool = option(True, switch, "", "Sessions may have terminals.", "switch")  # noqa: FBT003
    force_command: str = option(
        "", text, "COMMAND",
        "What sessions run, whatever the client or a key asks for; that is in $SSH_ORIGINAL_COMMAND. internal-sftp "
        "stands for the subsystem sftp.",
    )  # fmt: skip
    shell: str = option("os", converted(plugin_or_off), "PLUGIN", "The plug-in that serves shells; off: none does.")
    exec: str = option("os", converted(plugin_or_off), "PLUGIN", "The plug-in that runs commands; off: none does.")
    subsystem: Mapping[str, str] = table_option(
        _SUBSYSTEMS, lambda value: {**_SUBSYSTEMS, **named(converted(plugin_or_off))(value)}, "NAME=PLUGIN",
        "The plug-ins that serve subsystems, by the subsystem's name. sftp is served by sftp; sftp=off: by none.",
        "names",
    )  # fmt: skip
    middleware: tuple[str, ...] = list_option(
        (), converted(plugin_name), "PLUGIN",
        "Plug-ins put around everything that serves sessions, the first outermost.",
    )  # fmt: skip
    channel_types: Mapping[str, str] = table_option(
        {}, named(converted(plugin_name)), "TYPE=PLUGIN",
        "The plug-ins that serve channels that are no sessions, by type.", "names",
    )  # fmt: skip
    global_requests: Mapping[str, str] = table_option(
        {}, named(converted(plugin_name)), "NAME=PLUGIN", "The plug-ins that answer global requests, by their names.",
        "names",
    )  # fmt: skip
    session_requests: Mapping[str, str] = table_option(
        {}, named(converted(plugin_name)), "NAME=PLUGIN",
        "The plug-ins that answer requests of sessions that have not begun, by their names.", "names",
    )  # fmt: skip
    forwards: tuple[str, ...] = list_option(
        ("tcp", "unix", "agent"), choice("tcp", "unix", "agent", "x11", OFF), "KIND",
        "What clients may have forwarded: tcp and unix sockets (ssh -L, -R, -D, -J, -W), agent (-A), x11 (-X, -Y); "
        "off: nothing.",
    )  # fmt: skip
    forwarding: tuple[str, ...] = list_option(
        ("allow-list",), converted(plugin_name), "PLUGIN",
        "Plug-ins that decide what may be forwarded; all must allow it, and without any nothing is.",
    )  # fmt: skip
    permit_open: tuple[str, ...] = list_option(
        (), converted(permitted("permitopen")), "HOST:PORT",
        "Where TCP may be forwarded to; * stands for any host or port; none: nowhere. None: anywhere.",
    )  # fmt: skip
    permit_listen: tuple[str, ...] = list_option(
        (), converted(permitted("permitlisten")), "[HOST:]PORT",
        "Where clients may have TCP listened for; written as in permit_open, and * and ? may stand in hosts.",
    )  # fmt: skip
    audit: tuple[str, ...] = list_option(
        (), converted(plugin_name), "PLUGIN", "Plug-ins that keep a record of logins and sessions.",
    )  # fmt: skip
    plugin: Mapping[str, Mapping[str, object]] = table_option(
        {}, plugin_tables, "PLUGIN.NAME=VALUE",
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
        1, at_least(1, _MOST_WORKERS, "one for each processor is all that they can use"), "COUNT",
        "Processes that serve the protocol, at most 256. With one it is served by the main process itself, but not "
        "as root.",
    )  # fmt: skip
    unprivileged_user: str = option(
        "", text, "USER",
        "As root: the user that the processes which meet the network run as, who should own nothing. Empty: the first "
        "of dunnart, sshd and nobody that there is.",
    )  # fmt: skip
    empty_folder: str = option(
        "/run/dunnart/empty", path, "FOLDER",
        "As root: the empty folder that those processes are locked in; it is made when missing.",
    )  # fmt: skip
    sandbox: bool = option(
        True, switch, "",  # noqa: FBT003
        "As root: confine those processes by chroot, rlimits, no_new_privs, Landlock and seccomp, as far as the kernel "
        "has them.", "switch",
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
    log_format: str = option(
        "text", choice("text", "json"), "FORMAT", "text or json lines; not for syslog and journald."
    )
    log_to: str = option(
        "auto", converted(log_place), "WHERE",
        "stderr, syslog or syslog:FACILITY, journald, or a file by its absolute path. auto: syslog with inetd or "
        "background, or stderr.",
    )  # fmt: skip
    inetd: bool = option(
        False, switch, "",  # noqa: FBT003
        "Serve what inetd or its like hands over on standard input: one connection, or what comes to a listening "
        "socket. Then listen is not used.", "switch",
    )  # fmt: skip
    background: bool = option(
        False, switch, "", "Go into the background; the command ends once the server listens.", "switch",  # noqa: FBT003
    )  # fmt: skip
    pid_file: str = option("", text, "FILE", "Where to write the process's number; empty: nowhere.")
    exit_on_idle: int = option(
        0, count, "SECONDS",
        "End when there has been no connection for so long; 0: never, but 60 with a listening socket from inetd.",
    )  # fmt: skip
    rest_on_idle: int = option(
        60, count, "SECONDS",
        "As root, end the processes that meet the network when there has been no connection for so long; the next one "
        "has them started, and waits for that. 0: they stay.",
    )  # fmt: skip
    match: tuple[Match, ...] = ()
    """The tables [[match]]: options for some logins."""
    combined: Callable[[Sequence[Match]], Mapping[str, object]] | None = field(default=None, repr=False, compare=False)
    """Gives the options of logins that fit several of `match`, where that is not for the tables to say; see
    `dunnart.daemon.sshd_config`."""
    source: Source = field(default_factory=Source, repr=False, compare=False)
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
