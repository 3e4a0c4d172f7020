"""The command line of Dropbear's server (2026.94) as options of `dunnart serve`.

Little is imported here: where inetd starts the server, the flags are read before the client has its version line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from dunnart.errors import ConfigError

FOLDER = "/etc/dropbear"
"""Where the host keys are that no flag names."""
Kind = Literal["rsa", "ecdsa", "ed25519"]
KINDS: tuple[Kind, ...] = ("ed25519", "ecdsa", "rsa")
"""Their types; what stands in a `dropbear_dss_host_key` no client of today takes."""
PID_FILE = "/var/run/dropbear.pid"

_SWITCHES = frozenset("aBeEFgijkmRstuvwz")
_VALUED = frozenset("bcdDGIKlMpPQrTW")
_AT_ONCE = frozenset("hV")
_MOST_PORTS = 10
_MOST_KEYS = 6
_LARGEST_BANNER = 2050  # bytes; MAX_BANNER_SIZE
_LARGEST_WINDOW = 10 << 20
_LARGEST_PORT = 65535
_LARGEST_NUMBER = (1 << 32) - 1
_TRIES = 10
_OWN_VARIABLES = {"USER", "LOGNAME", "HOME", "SHELL", "PATH", "TERM", "MAIL", "DISPLAY"}
"""What each session has of its own, also with -e."""


class WrongFlag(ConfigError):
    """There is no such flag: Dropbear prints its usage then."""


class DropbearFlags(NamedTuple):
    """What a command line of Dropbear's says.

    Attributes:
        options: the values by the options' names, as `loading.load` takes them.
        notes: what Dropbear warns of and goes on.
        names_keys: -r: host keys are named.
        makes_keys: -R: host keys that are missing in `FOLDER` are to be made there, and named in `host_key`.
    """

    options: Mapping[str, object]
    notes: Sequence[str]
    names_keys: bool
    makes_keys: bool


def pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give each flag, with its value, in the order of the command line.

    Raises:
        ConfigError: an argument is no flag, or a value is missing.
        WrongFlag: there is no such flag.
    """
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-") or argument == "-":
            raise ConfigError(f"invalid argument: {argument!r}")
        for position, flag in enumerate(argument[1:], 2):
            if flag in _SWITCHES | _AT_ONCE:
                yield flag, ""
            elif flag in _VALUED:
                value = argument[position:] or next(rest, None)
                if value is None:
                    raise ConfigError(f"-{flag}: missing argument")
                yield flag, value
                break
            elif flag == "A":
                raise ConfigError("-A: Dropbear's plug-ins cannot be loaded; see dunnart's own authenticators")
            else:
                raise WrongFlag(f"invalid option -{flag}")


def translate(arguments: Sequence[str], *, root: bool, environment: Mapping[str, str]) -> DropbearFlags:
    """Read a command line. The default host keys and the banner are looked for, the group asked of the system.

    Args:
        arguments: without the program's name.
        root: the server will be root, so that others than its own user can log in, by password too.
        environment: what sessions get with -e.

    Raises:
        ConfigError: something in it is wrong; says what.
    """
    given: dict[str, str] = {}
    ports: list[str] = []
    keys: list[str] = []
    for flag, value in pairs(arguments):
        if flag == "p":
            ports.append(value)
        elif flag in "rd":
            keys.append(value)
        else:
            given[flag] = value
    notes: list[str] = []
    if len(keys) > _MOST_KEYS:
        raise ConfigError("-r: too many host keys")
    options = {
        **_starting(given, ports, notes),
        **_logging_in(given, root=root),
        **_in_sessions(given, environment),
        **_forwarding(given),
        **_bounded(given, notes),
        "host_key": _host_keys(keys, makes="R" in given),
    }
    if "b" in given and (banner := _banner(given["b"], notes)):
        options["banner"] = banner
    return DropbearFlags(options, notes, bool(keys), "R" in given)


def _starting(given: Mapping[str, str], ports: Sequence[str], notes: list[str]) -> dict[str, object]:
    options: dict[str, object] = {
        "log_to": "stderr" if "E" in given else "syslog", "log_level": "debug" if "v" in given else "info",
    }  # fmt: skip
    if len(ports) > _MOST_PORTS:
        notes.append(f"-p: only the first {_MOST_PORTS} are listened on")
    listen = [_address(each, given.get("l", "")) for each in ports[:_MOST_PORTS] or ["22"]]
    if "i" in given:
        return options | {"inetd": True}
    path = _at_home(given.get("P", PID_FILE))
    if "P" in given or os.access(os.path.dirname(path), os.W_OK):
        options["pid_file"] = os.path.abspath(path)
    return options | {"listen": [*dict.fromkeys(listen)], "background": "F" not in given}


def _address(value: str, interface: str) -> str:
    """Read a port with or without an address before it, as -p has it."""
    if value.startswith("["):
        host, bracket, rest = value[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ConfigError(f"-p: bad address {value!r}")
        port = rest[1:] if rest else None
    else:
        host, colon, rest = value.rpartition(":")
        port = rest if colon else None
    if port is None:
        host, port = "", value
    if not port.isascii() or not port.isdecimal():
        import socket

        try:
            port = str(socket.getservbyname(port, "tcp"))
        except (OSError, UnicodeError):
            raise ConfigError(f"-p: {value!r} has no port") from None
    if int(port) > _LARGEST_PORT:
        raise ConfigError(f"-p: {value!r} has no port of 1 to {_LARGEST_PORT}")
    host = f"{host}%{interface}" if interface and host else f"*%{interface}" if interface else host or "*"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _logging_in(given: Mapping[str, str], *, root: bool) -> dict[str, object]:
    if "t" in given and ("s" in given or "B" in given):
        raise ConfigError(f"-t and -{'s' if 's' in given else 'B'} are incompatible")
    folder = given.get("D", "~/.ssh")
    if not folder:
        raise ConfigError("-D: the folder's name is empty")
    home = folder.startswith("~/")
    folder = (folder[2:] if home else os.path.abspath(folder)).replace("%", "%%")
    passwords = root and "s" not in given
    options: dict[str, object] = {
        "authorized_keys": [os.path.join("%h" if home else "", folder, "authorized_keys")],
        "authenticators": ["authorized-keys", "shadow"] if passwords else ["authorized-keys"],
        "password": "off",
        "account": "listed-shell",
        "permit_root_login": "no" if "w" in given else "prohibit-password" if "g" in given else "yes",
        "permit_empty_passwords": "B" in given,
    }
    if "t" in given:
        if not passwords:
            raise ConfigError("-t: only root can check the passwords that it asks for")
        options["methods"] = ["publickey,password", "password,publickey"]
    if "G" in given:
        import grp

        try:
            grp.getgrnam(given["G"])
        except KeyError:
            raise ConfigError(f"-G: there is no group {given['G']!r}") from None
        options["allow_groups"] = [given["G"]]
    return options


def _in_sessions(given: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, object]:
    import re

    # What clients say of their language, the last login and ~/.ssh/rc are sshd's ways.
    options: dict[str, object] = {
        "accept_env": [], "print_motd": "m" not in given, "print_last_log": False, "permit_user_rc": False,
    }  # fmt: skip
    if "a" in given and "k" not in given:
        options["plugin"] = {"tcpip-forward": {"gateway_ports": "client"}}
    if "c" in given:
        options["force_command"] = given["c"]
    if "e" in given:
        options["set_env"] = {
            name: value
            for name, value in environment.items()
            if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name not in _OWN_VARIABLES and name[:4] != "SSH_"
        }
    elif language := environment.get("LANG"):
        options["set_env"] = {"LANG": language}
    return options


def _forwarding(given: Mapping[str, str]) -> dict[str, object]:
    from dunnart.daemon.uses import FORWARDS
    from dunnart.daemon.values import OFF

    # Beside a forced command a unix socket could be a way to another one.
    kinds = ("tcp",) if "c" in given else ("tcp", "unix")
    options: dict[str, object] = {"forwards": [*kinds, "agent"]}
    for flag, name in (("j", "channel_types"), ("k", "global_requests")):
        if flag in given:
            options[name] = {entry: OFF for kind in kinds for entry in FORWARDS[kind][name]}
    return options


def _bounded(given: Mapping[str, str], notes: list[str]) -> dict[str, object]:
    from dunnart.protocol.limits import KIB, Limits

    limits: dict[str, object] = {"max_auth_tries": _number(given, "T", "maxauthtries", _TRIES)}
    for flag, what, name in (
        ("K", "keepalive", "keepalive_seconds"), ("I", "idle_timeout", "idle_seconds"),
        ("M", "max_duration", "connection_seconds"),
    ):  # fmt: skip
        if flag in given:
            limits[name] = float(_number(given, flag, what, 0))
    if "W" in given:
        window = int(given["W"]) if given["W"].isascii() and given["W"].isdecimal() else 0
        if 0 < window <= _LARGEST_WINDOW:
            window = max(KIB, window)
        elif window:
            window = _LARGEST_WINDOW
            notes.append(f"-W: bad window {given['W']!r}, using {window}")
        else:
            window = Limits().window_bytes
            notes.append(f"-W: bad window {given['W']!r}, using {window}")
        limits["window_bytes"] = window
        limits["channel_packet_bytes"] = min(window, Limits().channel_packet_bytes)
    return {"limits": limits}


def _number(given: Mapping[str, str], flag: str, what: str, default: int) -> int:
    if flag not in given:
        return default
    value = given[flag]
    if not (value.isascii() and value.isdecimal()) or int(value) > _LARGEST_NUMBER:
        raise ConfigError(f"-{flag}: bad {what} {value!r}")
    return int(value)


def _host_keys(files: Sequence[str], *, makes: bool) -> list[str]:
    """Give the key files: those of -r; else those of `FOLDER` that are there."""
    found = [os.path.abspath(_at_home(file)) for file in files] or [default_host_key(kind) for kind in KINDS]
    if not files or makes:
        found = [path for path in found if os.path.exists(path)]
    if not found and not makes:
        raise ConfigError(f"no host keys in {FOLDER}; -R makes them, and so does dropbearkey")
    return found


def default_host_key(kind: str) -> str:
    """Give the file of a host key that no flag names."""
    return os.path.join(FOLDER, f"dropbear_{kind}_host_key")


def _banner(path: str, notes: list[str]) -> str:
    try:
        size = os.stat(path).st_size
    except OSError as error:
        notes.append(f"-b: {path!r} cannot be read: {error.strerror}")
        return ""
    if size > _LARGEST_BANNER:
        notes.append(f"-b: the banner is too large, {_LARGEST_BANNER} bytes are allowed")
        return ""
    return os.path.abspath(path)


def _at_home(path: str) -> str:
    return os.path.expanduser(path) if path.startswith("~/") else path
