"""What sshd's settings are here: values of `ServeConfig`'s options, as TOML has them, for one set of settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple

from dunnart.daemon.sshd_config import algorithms
from dunnart.daemon.sshd_config.keywords import KEYWORDS
from dunnart.daemon.sshd_config.readers import NONE
from dunnart.daemon.sshd_config.sftp_arguments import INTERNAL, sftp_options
from dunnart.records import dataclass

if TYPE_CHECKING:
    from dunnart.daemon.sshd_config.effective import Setting, Settings

HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))
"""Those that are used where none is named, if they are there."""
RSA_BITS_MIN = 2048  # dunnart's own
_UNLIMITED = (1 << 31) - 1
_LEVELS = {"SILENT": "error", "FATAL": "error", "ERROR": "error", "INFO": "info", "VERBOSE": "info"}
_DIRECTIONS = {"yes": ("connect", "listen"), "all": ("connect", "listen"), "local": ("connect",), "remote": ("listen",),
               "no": ()}  # fmt: skip
_PENALTIES = {
    "crash": "crash_seconds", "authfail": "auth_failure_seconds", "invaliduser": "invalid_user_seconds",
    "noauth": "no_auth_seconds", "grace-exceeded": "grace_exceeded_seconds", "max": "max_seconds",
    "min": "min_seconds", "max-sources4": "sources", "max-sources6": "sources",
}  # fmt: skip
_METHODS = (
    "gssapiauthentication", "gssapikeyexchange", "kbdinteractiveauthentication", "passwordauthentication",
    "pubkeyauthentication",
)  # fmt: skip
"""What turns methods on and off; the first that a file has is where errors of authenticators are told."""
_SFTP_SERVER = re.compile(r"(/\S*/)?sftp-server")


@dataclass(slots=True)
class Options:
    """Options and their values.

    Attributes:
        values: by the options' names, as a TOML file has them.
        keywords: which keyword each comes from, by the option's name, that of a table's entry with a dot between.
        notes: what does nothing, and why.
        wrong: what cannot be had, and why.
        no_way_in: AuthenticationMethods names no methods that are on.
    """

    settings: Settings
    values: dict[str, object] = field(default_factory=dict)
    keywords: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    no_way_in: bool = False

    def word(self, keyword: str) -> str:
        """Give a keyword's value that is a string."""
        value = self.settings[keyword].value
        assert isinstance(value, str)
        return value

    def number(self, keyword: str) -> int:
        """Give one that is a number."""
        value = self.settings[keyword].value
        assert isinstance(value, int)
        return value

    def list(self, keyword: str) -> tuple[str, ...]:
        """Give one that is a list, without what stands there twice."""
        value = self.settings[keyword].value
        assert isinstance(value, tuple)
        return tuple(dict.fromkeys(value))

    def yes(self, keyword: str) -> bool:
        """Tell whether a keyword's value is yes."""
        return self.settings[keyword].value == "yes"

    def says(self, *keywords: str) -> bool:
        """Tell whether the file has any of these."""
        return any(self.settings[keyword].given for keyword in keywords)

    def put(self, option: str, value: object, keyword: str) -> None:
        """Set an option, or the entry of one that is a table."""
        name, _, entry = option.partition(".")
        self.keywords[option] = self.keywords[name] = keyword
        if not entry:
            self.values[name] = value
            return
        place = self.values.setdefault(name, {})
        while "." in entry:  # a plug-in's table
            name, _, entry = entry.partition(".")
            assert isinstance(place, dict)
            place = place.setdefault(name, {})
        assert isinstance(place, dict)
        place[entry] = value

    def drop(self, plugin: str) -> None:
        """Leave a plug-in's table out."""
        tables = self.values.get("plugin", {})
        assert isinstance(tables, dict)
        tables.pop(plugin, None)

    def refuse(self, keyword: str, why: str) -> None:
        """Say that a keyword's value cannot be had."""
        self.wrong.append(f"{place_of(self.settings[keyword])}: {KEYWORDS[keyword].name}: {why}")

    def note(self, keyword: str, what: str) -> None:
        """Say that it does less."""
        self.notes.append(f"{place_of(self.settings[keyword])}: {KEYWORDS[keyword].name}: {what}")


def place_of(setting: Setting) -> str:
    """Give where something stands, as sshd does."""
    return f"{setting.file} line {setting.line}"


class Machine(NamedTuple):
    """What the same lines mean different things by.

    Attributes:
        host_keys: those that are used where none is named.
        root: the server runs as root, and can check the passwords of the system's users without PAM.
        no_kerberos: why there are no logins by Kerberos; "": there are.
    """

    host_keys: Sequence[str]
    root: bool
    no_kerberos: str = ""


def options_of(settings: Settings, machine: Machine) -> Options:
    """Translate the settings of every keyword."""
    made = Options(settings)
    for name, keyword in KEYWORDS.items():
        setting = settings[name]
        if setting.given and not keyword.mapped and setting.value not in (*keyword.harmless, keyword.default):
            if keyword.refused:
                made.refuse(name, f"{_shown(setting)} is not supported: {keyword.refused}")
            else:
                made.note(name, f"ignored: {keyword.ignored}")
    _keys(made, machine.host_keys)
    _authentication(made, machine)
    for part in (_listening, _people, _sessions, _files, _forwards, _limits, _algorithms, _log):
        part(made)
    return made


def _shown(setting: Setting) -> str:
    return " ".join(setting.value) if isinstance(setting.value, tuple) else str(setting.value)


def listen_addresses(
    settings: Settings, resolve: Callable[[str, int, str], list[tuple[str, int]]]
) -> list[tuple[str, int]]:
    """Give all addresses and ports in sshd's order; host "" stands for every address, `resolve` looks others up."""
    ports, addresses = settings["port"].value, settings["listenaddress"].value
    family = settings["addressfamily"].value
    assert isinstance(ports, tuple)
    assert isinstance(addresses, tuple)
    assert isinstance(family, str)
    found = []
    for each in addresses or (" 0",):
        host, _, port = each.rpartition(" ")
        for number in (int(port),) if port != "0" else map(int, ports):
            found += resolve(host, number, family)
    return found


def resolved(host: str, port: int, family: str) -> list[tuple[str, int]]:
    """Look a host up: all its addresses of a family.

    Raises:
        OSError: it has none.
    """
    import socket

    if not host and family == "any":
        return [("", port)]
    number = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}[family]
    found = socket.getaddrinfo(host or None, port, number, socket.SOCK_STREAM, flags=0 if host else socket.AI_PASSIVE)
    return [(str(address[0]), port) for *_, address in found]


def _listening(made: Options) -> None:
    try:
        found = listen_addresses(made.settings, resolved)
    except OSError as error:
        made.refuse("listenaddress", f"bad addr or host ({error.strerror})")
        return
    shown = [f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}" for host, port in found]
    made.put("listen", list(dict.fromkeys(shown)), "listenaddress" if made.list("listenaddress") else "port")
    if (path := made.word("pidfile")) != NONE:
        made.put("pid_file", path, "pidfile")


def _keys(made: Options, host_keys: Sequence[str]) -> None:
    files = [each for each in made.list("hostkey") or host_keys if each != NONE]
    made.put("host_key", files, "hostkey")
    made.put("host_certificate", [each for each in made.list("hostcertificate") if each != NONE], "hostcertificate")
    files = [] if [each.lower() for each in made.list("authorizedkeysfile")] == [NONE] else [
        each if each.startswith(("/", "%h")) else f"%h/{each}" for each in made.list("authorizedkeysfile")
    ]  # fmt: skip
    made.put("authorized_keys", files, "authorizedkeysfile")
    made.put("revoked_keys", [each for each in made.list("revokedkeys") if each.lower() != NONE], "revokedkeys")
    authority = made.word("trustedusercakeys")
    made.put("trusted_user_ca_keys", [] if authority == NONE else [authority], "trustedusercakeys")
    if authority != NONE and (path := made.word("authorizedprincipalsfile")).lower() != NONE:
        path = path if path.startswith(("/", "%h")) else f"%h/{path}"
        made.put("authorized_principals_file", path, "authorizedprincipalsfile")
    for name, command in (("keys", "authorizedkeyscommand"), ("principals", "authorizedprincipalscommand")):
        if made.word(command) == NONE or (name == "principals" and authority == NONE):
            continue
        if made.word(f"{command}user") == NONE:
            made.refuse(command, f"set without {KEYWORDS[f'{command}user'].name}")
        made.put(f"authorized_{name}_command", made.word(command), command)
        made.put(f"authorized_{name}_command_user", made.word(f"{command}user"), f"{command}user")
    made.put("strict_modes", made.yes("strictmodes"), "strictmodes")
    bits = made.number("requiredrsasize")
    if bits > RSA_BITS_MIN:
        made.put("required_rsa_size", bits, "requiredrsasize")


def _authentication(made: Options, machine: Machine) -> None:
    methods = _methods(made, machine)
    plugins = set(methods.values())
    if not plugins:  # nobody may log in: keys are the method, and there are none
        for option in ("authorized_keys", "trusted_user_ca_keys"):
            made.put(option, [], "pubkeyauthentication")
        for option in ("authorized_keys_command", "authorized_principals_file", "authorized_principals_command"):
            made.values.pop(option, None)
            made.values.pop(f"{option}_user", None)
    said = next((keyword for keyword in _METHODS if made.says(keyword)), "pubkeyauthentication")
    made.put("authenticators", [*methods.values()] or ["authorized-keys"], said)
    made.put("password", "off", "passwordauthentication")
    made.put("permit_empty_passwords", made.yes("permitemptypasswords"), "permitemptypasswords")
    if made.yes("usepam"):
        made.put("account", "pam", "usepam")
        plugins.add("pam")
    elif machine.root:
        made.put("account", "shadow", "usepam")
    for plugin in sorted({"pam", "pam-password"} & plugins):
        if made.word("pamservicename") != "sshd":
            made.put(f"plugin.{plugin}.service", made.word("pamservicename"), "pamservicename")
        if made.yes("permitemptypasswords"):
            made.put(f"plugin.{plugin}.empty_passwords", value=True, keyword="permitemptypasswords")
    for plugin in sorted({"gssapi", "gssapi-keyex"} & plugins):
        made.put(f"plugin.{plugin}.delegation", made.yes("gssapidelegatecredentials"), "gssapidelegatecredentials")
        if not made.yes("gssapistrictacceptorcheck"):
            made.put(f"plugin.{plugin}.acceptor", "", "gssapistrictacceptorcheck")
    _chains(made, set(methods))


def _methods(made: Options, machine: Machine) -> dict[str, str]:
    """Give the plug-ins of the methods that are on."""
    pam = made.yes("usepam")
    password = "pam-password" if pam else "shadow"
    wanted = {
        "publickey": ("pubkeyauthentication", "authorized-keys"),
        "password": ("passwordauthentication", password),
        "keyboard-interactive": ("kbdinteractiveauthentication", "pam"),
        "gssapi-with-mic": ("gssapiauthentication", "gssapi"),
        "gssapi-keyex": ("gssapikeyexchange", "gssapi-keyex"),
    }
    missing = {
        "shadow": "" if machine.root else "only root can check passwords; with UsePAM yes PAM does it",
        "pam": "" if pam else "without PAM there is nothing that asks",
        **dict.fromkeys(("gssapi", "gssapi-keyex"), machine.no_kerberos and f"left out, for {machine.no_kerberos}"),
    }
    found = {}
    for method, (keyword, plugin) in wanted.items():
        if not made.yes(keyword):
            continue
        if why := missing.get(plugin):
            if made.settings[keyword].given:
                made.note(keyword, why)
        else:
            found[method] = plugin
    return found


def _chains(made: Options, methods: set[str]) -> None:
    written = made.list("authenticationmethods")
    if written == ("any",):
        made.put("methods", [], "authenticationmethods")
        return
    chains = []
    for each in written:
        names = each.split(",")
        devices = [name.partition(":")[2] for name in names]
        plain = [name.partition(":")[0] for name in names]
        if not methods.issuperset(plain):
            continue  # sshd leaves out a list with a method that is off
        if any(device not in {"", "pam"} for device in devices):
            made.refuse("authenticationmethods", f"{each}: the only device of keyboard-interactive is pam")
        elif len(set(plain)) < len(plain):
            made.refuse("authenticationmethods", f"{each}: a method twice in a list is not supported")
        elif any(name.startswith("gssapi") for name in plain):
            made.refuse("authenticationmethods", f"{each}: Kerberos cannot stand in a list")
        else:
            chains.append(",".join(plain))
    made.no_way_in = not chains and not made.wrong
    made.put("methods", list(dict.fromkeys(chains)), "authenticationmethods")


def _people(made: Options) -> None:
    made.put("permit_root_login", made.word("permitrootlogin"), "permitrootlogin")
    for keyword, option in (("allowusers", "allow_users"), ("denyusers", "deny_users"),
                            ("allowgroups", "allow_groups"), ("denygroups", "deny_groups")):  # fmt: skip
        made.put(option, list(made.list(keyword)), keyword)
    if made.yes("refuseconnection"):
        made.put("deny_users", ["*"], "refuseconnection")
    made.put("accept_env", list(made.list("acceptenv")), "acceptenv")
    made.put("set_env", dict(each.partition("=")[::2] for each in made.list("setenv")), "setenv")
    allowed = made.word("permituserenvironment")
    patterns = ["*"] if allowed == "yes" else [] if allowed == "no" else allowed.split(",")
    made.put("permit_user_environment", list(dict.fromkeys(patterns)), "permituserenvironment")


def _sessions(made: Options) -> None:
    made.put("permit_tty", made.yes("permittty"), "permittty")
    for keyword, option in (("permituserrc", "permit_user_rc"), ("printmotd", "print_motd"),
                            ("printlastlog", "print_last_log")):  # fmt: skip
        made.put(option, made.yes(keyword), keyword)
    if (banner := made.word("banner")) != NONE:
        made.put("banner", banner, "banner")
    none_at_all = made.number("maxsessions") == 0
    made.put("shell", "off" if none_at_all else "os", "maxsessions")
    made.put("exec", "off" if none_at_all else "os", "maxsessions")


def _files(made: Options) -> None:
    """Subsystems, the forced command, and the folder that is seen as the root."""
    written = made.settings["subsystem"].value
    assert isinstance(written, tuple)
    commands = dict(zip(written[::2], written[1::2], strict=True))
    sftp = commands.pop("sftp", "")
    served: dict[str, str] = {"sftp": "off"}
    keyword = "subsystem"
    command = made.word("forcecommand")
    forced = command.split()[0] == INTERNAL if command != NONE else False
    if forced:
        sftp, keyword = command, "forcecommand"
        command = INTERNAL
    if sftp:
        program, arguments, *_ = (*sftp.split(maxsplit=1), "")
        if program == INTERNAL or _SFTP_SERVER.fullmatch(program):
            served["sftp"] = "sftp"
            try:
                for name, value in sftp_options(arguments).items():
                    made.put(f"plugin.sftp.{name}", value, keyword)
            except ValueError as error:
                made.refuse(keyword, str(error))
        else:
            commands["sftp"] = sftp
    served |= dict.fromkeys(commands, "command")
    if commands:  # names may have dots in them
        made.put("plugin.command.commands", commands, "subsystem")
    if made.number("maxsessions") == 0:
        served = dict.fromkeys(served, "off")
        for plugin in ("sftp", "command"):
            made.drop(plugin)
    made.put("subsystem", served, "subsystem")
    made.put("force_command", "" if command == NONE else command, "forcecommand")
    _root(made, only_files=forced)


def _root(made: Options, *, only_files: bool) -> None:
    root = made.word("chrootdirectory")
    if root.lower() == NONE:
        return
    if not only_files:
        made.refuse("chrootdirectory", "is supported with ForceCommand internal-sftp beside it, for nothing else")
        return
    if made.number("maxsessions"):
        made.put("plugin.sftp.root", root, "chrootdirectory")
        if "plugin.sftp.start" not in made.keywords:  # the home, if that is there, too
            made.put("plugin.sftp.start", "%h", "chrootdirectory")


def _forwards(made: Options) -> None:
    off = made.yes("disableforwarding")
    tcp = () if off else _DIRECTIONS[made.word("allowtcpforwarding")]
    unix = () if off else _DIRECTIONS[made.word("allowstreamlocalforwarding")]
    agent = made.yes("allowagentforwarding") and not off
    x11 = made.yes("x11forwarding") and not off
    kinds = [kind for kind, on in (("tcp", tcp), ("unix", unix), ("agent", agent), ("x11", x11)) if on]
    made.put("forwards", kinds or ["off"], "allowtcpforwarding")
    # What a file says is put even if it is the default: a block may take back what stands outside.
    if made.says("allowtcpforwarding", "allowstreamlocalforwarding", "disableforwarding"):
        rules = [*(f"{each} *:*" for each in tcp), *(f"{each}-unix *" for each in unix), "agent", "x11"]
        made.put("plugin.allow-list.rules", rules, "allowtcpforwarding")
    if made.says("gatewayports"):
        ports = made.word("gatewayports")
        made.put(
            "plugin.tcpip-forward.gateway_ports", "client" if ports == "clientspecified" else ports, "gatewayports"
        )
    if made.says("streamlocalbindmask"):
        made.put("plugin.streamlocal-forward.mask", made.word("streamlocalbindmask"), "streamlocalbindmask")
    if made.says("streamlocalbindunlink"):
        unlink = made.yes("streamlocalbindunlink")
        made.put("plugin.streamlocal-forward.replace", unlink, "streamlocalbindunlink")
    if (offset := made.number("x11displayoffset")) != KEYWORDS["x11displayoffset"].default:
        made.put("plugin.x11-forwarding.display_offset", offset, "x11displayoffset")
    for keyword, option in (("permitopen", "permit_open"), ("permitlisten", "permit_listen")):
        rules = list(made.list(keyword))
        made.put(option, [] if rules == ["any"] else rules, keyword)


def _limits(made: Options) -> None:
    made.put("limits.login_grace_seconds", made.number("logingracetime"), "logingracetime")
    made.put("limits.max_auth_tries", made.number("maxauthtries"), "maxauthtries")
    made.put("limits.sessions", made.number("maxsessions"), "maxsessions")
    made.put("limits.keepalive_seconds", made.number("clientaliveinterval"), "clientaliveinterval")
    # 0: a client that does not answer is left alone.
    made.put("limits.keepalive_count_max", made.number("clientalivecountmax") or _UNLIMITED, "clientalivecountmax")
    size, seconds = map(int, made.word("rekeylimit").split())
    if size:
        made.put("limits.rekey_bytes", size, "rekeylimit")
    if seconds:
        made.put("limits.rekey_seconds", seconds, "rekeylimit")
    made.put("max_startups", made.word("maxstartups"), "maxstartups")
    most = made.settings["persourcemaxstartups"].value
    if most == 0:
        made.refuse("persourcemaxstartups", "0 would let nobody connect; none is for no bound")
    made.put("max_startups_per_source", 0 if most == NONE else most, "persourcemaxstartups")
    made.put("source_bits", made.word("persourcenetblocksize"), "persourcenetblocksize")
    exempt = made.word("persourcepenaltyexemptlist")
    made.put("penalty_exempt", [] if exempt == NONE else exempt.split(","), "persourcepenaltyexemptlist")
    _penalties(made)


def _penalties(made: Options) -> None:
    enabled: bool | None = None
    found: dict[str, float] = {}
    for each in made.settings["persourcepenalties"].value:  # type: ignore[union-attr] # a list
        name, _, value = each.partition(":")
        if each in {"yes", "no"}:
            enabled = each == "yes" if enabled is None else enabled
        elif name.startswith("overflow"):
            if value != "permissive":
                made.refuse("persourcepenalties", f"{each} is not supported: the oldest penalty makes room")
        else:
            enabled = True if enabled is None else enabled
            if name == "refuseconnection":
                made.note("persourcepenalties", f"{each} does nothing: such logins count as failed ones")
            elif _PENALTIES[name] == "sources":
                found["sources"] = min(int(value), found.get("sources", int(value)))
            else:
                from dunnart.daemon.sshd_config.lexer import seconds

                found.setdefault(_PENALTIES[name], seconds(value))
    made.put("penalties", {"enabled": enabled is not False, **found}, "persourcepenalties")


_LISTS = {
    "kexalgorithms": ("kex", "kex"), "ciphers": ("ciphers", "ciphers"), "macs": ("macs", "macs"),
    "hostkeyalgorithms": ("host_key", "host_key_algorithms"),
    "pubkeyacceptedalgorithms": ("user_key", "user_key_algorithms"),
    "casignaturealgorithms": ("ca_signature", "ca_signature_algorithms"),
}  # fmt: skip


def _algorithms(made: Options) -> None:
    for keyword, (what, option) in _LISTS.items():
        if not (written := made.word(keyword)):
            continue
        edited = algorithms.edited(what, written)
        if algorithms.nothing_left(written, edited):
            made.refuse(keyword, f"{written}: dunnart has none of these")
            continue
        if edited.missing:
            made.note(keyword, f"left out, for dunnart does not have them: {','.join(edited.missing)}")
        made.put(option, edited.text, keyword)
    if not made.yes("compression"):
        made.put("compression", "none", "compression")


def _log(made: Options) -> None:
    made.put("log_level", _LEVELS.get(made.word("loglevel"), "debug"), "loglevel")
    facility = made.word("syslogfacility").lower()
    made.put("log_to", "syslog" if facility == "auth" else f"syslog:{facility}", "syslogfacility")


def effective_algorithms(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Give the lists of algorithms that are in effect, by sshd's keywords."""
    from dunnart.crypto.profiles import KNOWN, PROFILES, edit

    found = {}
    for keyword, (what, option) in _LISTS.items():
        default: tuple[str, ...] = getattr(PROFILES["default"], what)
        written = settings[keyword].value
        assert isinstance(written, str)
        text = algorithms.edited(what, written).text if written else ""
        found[keyword] = edit(default, text, getattr(KNOWN, what), option) if text else default
    return found
