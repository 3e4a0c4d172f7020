"""The configuration: one name everywhere, and errors that say where."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.crypto.profiles import PROFILES
from dunnart.daemon.config import OPTIONS, ServeConfig
from dunnart.daemon.flags import parse, parser
from dunnart.daemon.loading import load
from dunnart.daemon.options import BadValue, declared_default, field_types
from dunnart.daemon.source import flag_of
from dunnart.daemon.sshd_words import OUR_WORDS
from dunnart.daemon.writing import option_table, to_toml
from dunnart.errors import ConfigError
from dunnart.protocol.limits import Limits
from dunnart.runtime.admission import Network, Penalties, SourceBits, StartupLimit
from dunnart.runtime.listeners import ListenAddress, listen_address

FULL = """\
listen = ["0.0.0.0:22", "[::1]:2222", "unix:/run/a \\"b\\".sock", "*:0"]
host_key = ["/etc/ssh/key"]
host_key_types = ["rsa", "ecdsa"]
state_folder = "/srv/state"
control_socket = "/run/dunnart.sock"
authorized_keys = ["/etc/keys/%u", "%h/k%%"]
strict_modes = false
authorized_keys_command = "/usr/bin/keys %u"
authorized_keys_command_user = "nobody"
permit_user_environment = ["GIT_*"]
methods = ["publickey", "publickey,password"]
password = "off"
unprivileged_user = "nobody"
empty_folder = "/srv/empty"
sandbox = false
account = "pam"
authenticators = ["authorized-keys", "acme_pam:Pam"]
key_sources = ["directory"]
trusted_user_ca_keys = ["/etc/ssh/ca.pub"]
authorized_principals_file = "%h/principals"
authorized_principals_command = "/bin/principals %i %T"
authorized_principals_command_user = "nobody"
revoked_keys = ["/etc/ssh/revoked"]
required_rsa_size = 3072
ca_signature_algorithms = "-rsa*"
host_certificate = ["/etc/ssh/host-cert.pub"]
permit_root_login = "no"
allow_users = ["a*@192.0.2.0/24"]
deny_users = ["b"]
allow_groups = ["staff"]
deny_groups = ["guests"]
permit_tty = false
permit_user_rc = false
print_motd = false
print_last_log = false
permit_empty_passwords = true
force_command = "id"
permit_open = ["*:80", "[::1]:*"]
permit_listen = ["8080"]
accept_env = ["LANG", "A?"]
banner = "/etc/issue.net"
shell = "greeter"
exec = "off"
middleware = ["recorder"]
forwards = ["off"]
forwarding = ["none-at-night"]
audit = ["log"]
profile = "strict"
kex = "+ecdh-sha2-nistp256"
ciphers = "-*ctr"
macs = "hmac-sha2-512"
compression = "none"
host_key_algorithms = "^rsa-sha2-256"
user_key_algorithms = "-rsa*"
max_startups = "10:30:100"
max_startups_per_source = 7
workers = 2
source_bits = "24:48"
penalty_exempt = ["192.0.2.0/24", "::1"]
log_level = "debug"
log_format = "json"
log_to = "/var/log/dunnart.log"
inetd = true
background = true
pid_file = "/run/dunnart.pid"
exit_on_idle = 90
rest_on_idle = 30

[penalties]
enabled = false
crash_seconds = 7

[limits]
sessions = 3
idle_seconds = 1.5

[log_levels]
auth = "debug"

[subsystem]
sftp = "files"

[set_env]
PLACE = "here"

[channel_types]
"echo@example.org" = "echo"
direct-tcpip = "tunnels"

[global_requests]
"ping@example.org" = "echo"

[session_requests]
"x@example.org" = "echo"

[plugin.greeter]
greeting = "hello\\n\\"you\\" \\u007f"
words = ["one", "2"]
log_level = "debug"

[plugin."acme_pam:Pam"]
service = "sshd"
"""


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "dunnart.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def from_flags(*arguments: str) -> ServeConfig:
    found, values = parse(arguments, parser("dunnart serve", ""))
    return load(found.config, values)


def test_defaults() -> None:
    config = load()
    assert config == ServeConfig()
    assert config.listen == (ListenAddress("127.0.0.1", 2222),)
    assert config.authorized_keys == ("%h/.ssh/authorized_keys",)
    assert config.algorithms() == PROFILES["default"]
    assert config.limits == Limits()


def test_every_option_is_read(tmp_path: Path) -> None:
    config = load(written(tmp_path, FULL))
    unread = [each.name for each in fields(config) if getattr(config, each.name) == declared_default(each)]
    assert unread == ["match", "combined"]
    assert {each.name for each in fields(config)} == OPTIONS.keys() | {"match", "combined", "source"}
    assert config.listen == (
        ListenAddress("0.0.0.0", 22), ListenAddress("::1", 2222), ListenAddress("", 0, '/run/a "b".sock'),
        ListenAddress("", 0),
    )  # fmt: skip
    assert config.max_startups == StartupLimit(10, 30, 100)
    assert config.source_bits == SourceBits(24, 48)
    assert config.penalties == Penalties(enabled=False, crash_seconds=7)
    assert config.penalty_exempt == (Network("192.0.2.0/24"), Network("::1"))
    assert config.limits == Limits(sessions=3, idle_seconds=1.5)
    algorithms = config.algorithms()
    assert algorithms.kex == ("mlkem768x25519-sha256", "ecdh-sha2-nistp256")
    assert not any(name.endswith("ctr") for name in algorithms.ciphers)
    assert algorithms.macs == ("hmac-sha2-512",)
    assert algorithms.host_key[0] == "rsa-sha2-256"
    assert not any(name.startswith("rsa") for name in algorithms.user_key)
    assert algorithms.compression == ("none",)
    assert config.channel_types == {"echo@example.org": "echo", "direct-tcpip": "tunnels"}
    assert config.plugin == {
        "greeter": {"greeting": 'hello\n"you" \x7f', "words": ("one", "2"), "log_level": "debug"},
        "acme_pam:Pam": {"service": "sshd"},
    }


@pytest.mark.parametrize("text", ["", FULL])
def test_what_is_printed_gives_the_same_again(tmp_path: Path, text: str) -> None:
    config = load(written(tmp_path, text))
    printed = to_toml(config)
    assert set(tomllib.loads(printed)) == set(OPTIONS)
    assert load(written(tmp_path, printed)) == config


def entries(table: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, entry in table.items():
        if isinstance(entry, dict):
            yield from ((f"{key}.{inner}", value) for inner, value in entries(entry))
        elif isinstance(entry, list):
            yield from ((key, value) for value in entry)
        else:
            yield key, entry


def test_flags_say_the_same_as_the_file(tmp_path: Path) -> None:
    flags: list[str] = []
    for name, value in tomllib.loads(FULL).items():
        if isinstance(value, bool):
            flags.append(flag_of(name) if value else f"--no-{flag_of(name)[2:]}")
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                for key, entry in entries(item):
                    flags += [flag_of(name), f"{key}={json.dumps(entry) if not isinstance(entry, str) else entry}"]
            else:
                flags.append(f"{flag_of(name)}={item}")
    assert from_flags(*flags) == load(written(tmp_path, FULL))


def test_flags_override_the_file_and_entries_of_tables_one_by_one(tmp_path: Path) -> None:
    config = from_flags(
        "--config", written(tmp_path, FULL), "--listen", "127.0.0.1:1", "--listen", "127.0.0.1:2",
        "--strict-modes", "--limits", "channels=20", "--limits=idle-seconds=0", "--log-level", "warning",
        "--log-level", "session=error",
    )  # fmt: skip
    assert config.listen == (ListenAddress("127.0.0.1", 1), ListenAddress("127.0.0.1", 2))
    assert config.strict_modes is True
    assert config.limits == Limits(sessions=3, channels=20, idle_seconds=0)
    assert config.log_level == "warning"
    assert config.log_levels == {"auth": "debug", "session": "error"}
    assert config.permit_root_login == "no"


def test_flags_and_file_give_a_plugins_options_together(tmp_path: Path) -> None:
    file = written(tmp_path, FULL)
    config = from_flags(
        "--config", file, "--plugin", "greeter.words=x", "--plugin", "acme_pam:Pam.users.ada=yes",
        "--plugin=acme_pam:Pam.count=5", "--subsystem", "x=files",
    )  # fmt: skip
    assert config.plugin["greeter"]["words"] == "x"
    assert config.plugin["greeter"]["log_level"] == "debug"
    assert config.plugin["acme_pam:Pam"] == {"service": "sshd", "users": {"ada": "yes"}, "count": "5"}
    assert config.subsystem == {"sftp": "files", "x": "files"}
    # What shows up when the plug-ins are loaded is still looked for in the right place.
    assert str(config.source.error("?", "plugin", "greeter.words")) == "--plugin greeter.words: ?"
    line = FULL.splitlines().index("[plugin.greeter]") + 2
    assert str(config.source.error("?", "plugin", "greeter.greeting")) == f"{file}:{line}: plugin.greeter.greeting: ?"
    assert str(config.source.error("?", "plugin", "greeter.more")) == f"{file}:{line - 1}: plugin.greeter.more: ?"
    assert str(config.source.error("?", "subsystem", "x")) == "--subsystem x: ?"
    assert str(config.source.error("?", "shell")).endswith(": shell: ?")
    assert tomllib.loads(to_toml(config))["plugin"]["acme_pam:Pam"]["count"] == 5


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ('\nlisten = ["127.0.0.1"]', 2, "listen", "does not end in a port"),
        ('listen = "127.0.0.1:22"', 1, "listen", "is no list; write"),
        ('authorized_keys_command = "keys %u"', 1, "authorized_keys_command", "absolute path"),
        ('authorized_keys_command = "/bin/keys %x"', 1, "authorized_keys_command", "%x"),
        ('authorized_keys_command = "/bin/keys"', 1, "authorized_keys_command", "wants authorized_keys_command_user"),
        ('permit_user_environment = ["A-B"]', 1, "permit_user_environment", "no variable's name"),
        ('listen = ["a:1", "a:1"]', 1, "listen", "a:1 stands there twice"),
        ("listen = [22]", 1, "listen", "22 is no string"),
        ('\n\nPermitRootLogin = "no"', 3, "PermitRootLogin", "did you mean permit_root_login?"),
        ('log-level = "info"', 1, "log-level", "did you mean log_level?"),
        ('GatewayPorts = "yes"', 1, "GatewayPorts", "sshd's GatewayPorts is plugin.tcpip-forward.gateway_ports here"),
        ("allow_tcp_forwarding = false", 1, "allow_tcp_forwarding", 'is forwards, whose entry "tcp" it is here'),
        ("zzzzzz = 1", 1, "zzzzzz", "there is no such option"),
        ('"a\\nb" = 1', None, r"'a\nb'", "there is no such option"),
        ("[sevrer]\nx = 1", 1, "sevrer", "there is no such option"),
        ("[limits]\nsessions = 1\nsesions = 2", 3, "limits.sesions", "did you mean sessions?"),
        ("[limits]\n\nsessions = -1", 3, "limits.sessions", "must not be negative"),
        ("[limits]\nsessions = 1.5", 2, "limits.sessions", "1.5 is not a whole number"),
        ("[limits]\nsessions = true", 2, "limits.sessions", "True is not a whole number"),
        ("[limits]\nidle_seconds = nan", 2, "limits.idle_seconds", "nan is not a number"),
        ('[limits]\nidle_seconds = "1"', 2, "limits.idle_seconds", "'1' is not a number"),
        ("limits.sessions = -1", 1, "limits.sessions", "must not be negative"),
        ("a = 1\nlimits = 3", 1, "a", "no such option"),
        ("limits = 3", 1, "limits", "a table is wanted"),
        ("[limits]\nwindow_bytes = 1", 2, "limits.window_bytes", "at least channel_packet_bytes"),
        ("[penalties]\nenabled = 1", 2, "penalties.enabled", "1 is not true or false"),
        ("[penalties]\nsources = 0", 2, "penalties.sources", "at least 1"),
        ('[log_levels]\nauth = "loud"', 2, "log_levels.auth", "'loud' is none of error"),
        ('[log_levels]\nauht = "debug"', 2, "log_levels.auht", "did you mean auth?"),
        ("strict_modes = 1", 1, "strict_modes", "neither true nor false"),
        ('max_startups = "10:30"', 1, "max_startups", "not of the form BEGIN:RATE:FULL"),
        ('max_startups = "10:30:5"', 1, "max_startups", "begin must be 1 to full"),
        ("workers = 0", 1, "workers", "0 is less than 1"),
        ("workers = 257", 1, "workers", "257 is more than 256; one for each processor is all that they can use"),
        ("max_startups_per_source = -1", 1, "max_startups_per_source", "no whole number from 0"),
        ('source_bits = "33:64"', 1, "source_bits", "at most 32"),
        ('penalty_exempt = ["192.0.2.1/24"]', 1, "penalty_exempt", "beyond its prefix"),
        ('methods = ["publickey,pam"]', 1, "methods", "'pam' is none of"),
        ('methods = ["password,password"]', 1, "methods", "names a method twice"),
        ('password = "yes"', 1, "password", "'yes' is none of auto"),
        ("password = true", 1, "password", "True is none of auto"),
        ('authorized_keys = ["/keys/%n"]', 1, "authorized_keys", "holds a % before"),
        ('authorized_keys = ["/keys/%"]', 1, "authorized_keys", "holds a % before"),
        ('accept_env = ["A=B"]', 1, "accept_env", "no variable's name"),
        ('host_key = [""]', 1, "host_key", "empty"),
        ('host_key_types = ["dsa"]', 1, "host_key_types", "'dsa' is none of"),
        ('state_folder = "a\\nb"', 1, "state_folder", "cannot be printed"),
        ('profile = "lax"', 1, "profile", "'lax' is none of"),
        ('\nkex = "+rot13"', 2, "kex", "unknown algorithm 'rot13'"),
        ('ciphers = "-*"', 1, "ciphers", "leaves no algorithm"),
        ('authenticators = ["a b"]', 1, "authenticators", "neither a plug-in's name nor module:attr"),
        ('shell = "a:"', 1, "shell", "neither a plug-in's name nor module:attr"),
        ("shell = true", 1, "shell", "True is no string"),
        ("audit = 3", 1, "audit", "a list is wanted"),
        ('subsystem = "sftp"', 1, "subsystem", "a table is wanted"),
        ("[subsystem]\n\nx = 3", 3, "subsystem.x", "3 is no string"),
        ('[channel_types]\n"a b" = "x"', 1, "channel_types.a b", "'a b' is no name"),
        ('plugin = "x"', 1, "plugin", "a table is wanted"),
        ("[plugin]\nos = 1", 2, "plugin.os", "a table of the plug-in's options is wanted"),
        ('[plugin.os]\n\nlog_level = "loud"', 3, "plugin.os.log_level", "'loud' is none of error"),
        ("[plugin.os]\na = [1]", 2, "plugin.os.a", "plug-ins take strings, numbers"),
        ("[plugin.os]\na = 1979-05-27", 2, "plugin.os.a", "plug-ins take strings, numbers"),
        ("[plugin.so]\n\na = 1", 1, "plugin.so", "no option uses a plug-in of this name; did you mean os?"),
        ('forwards = ["tcp", "off"]', 1, "forwards", "off stands alone"),
        ("[plugin.scp]\nroot = 'x'", 1, "plugin.scp", "it comes with dunnart, for exec"),
        ('audit = ["a:b"]\n[plugin."a:c"]', 2, "plugin.a:c", "did you mean a:b?"),
        ('shell = "off"\nexec = ""\n[plugin.os]\n', 3, "plugin.os", "no option uses a plug-in of this name"),
        ('listen = ["a:1"', 1, None, "is no TOML"),
        ("listen = []\nx ==", 2, None, "is no TOML"),
        (b"# \xff", 1, None, "is not UTF-8"),
        (b"\n" * (1 << 20) + b"#", None, None, "at most 1 MiB"),
    ],
)
def test_errors_name_file_line_and_key(
    tmp_path: Path, text: str | bytes, line: int | None, key: str | None, message: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert (caught.value.path, caught.value.line, caught.value.key) == (path, line, key)
    where = path if line is None else f"{path}:{line}"
    assert str(caught.value).startswith(where + (f": {key}: " if key else ": "))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file"):
        load(str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listen", "22"], "--listen: '22' does not end in a port"),
        (["--limits", "sessions"], "--limits: 'sessions' is not of the form NAME=VALUE"),
        (["--limits", "sessions=x"], "--limits sessions: 'x' is not a whole number"),
        (["--limits", "sesions=1"], "--limits sesions: there is no such option; did you mean sessions?"),
        (["--max-startups-per-source", "many"], "--max-startups-per-source: 'many' is no whole number"),
        (["--log-level", "loud"], "--log-level: 'loud' is none of"),
        (["--log-level", "auth=loud"], "--log-levels auth: 'loud' is none of"),
        (["--ciphers", "rot13"], "--ciphers: unknown algorithm 'rot13'"),
        (["--plugin", "os=1"], "--plugin: 'os=1' is not of the form PLUGIN.NAME=VALUE"),
        (["--plugin", "os.a"], "--plugin: 'os.a' is not of the form PLUGIN.NAME=VALUE"),
        (["--plugin", "so.a=1"], "--plugin so: no option uses a plug-in of this name; did you mean os?"),
        (["--plugin", "os.log_level=loud"], "--plugin os.log_level: 'loud' is none of"),
        (["--subsystem", "sftp"], "--subsystem: 'sftp' is not of the form NAME=PLUGIN"),
        (["--lis", "127.0.0.1:1"], "unrecognized arguments: --lis"),
        (["--listen"], "expected one argument"),
    ],
)
def test_errors_name_the_flag(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_flags("--config", written(tmp_path, 'ciphers = "+aes128-cbc"'), *flags)
    assert message in str(caught.value)
    assert caught.value.path is None
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "22", ":22", "a", "a:", "a:b", "a:-1", "a:65536", "a:²", "::1:22", "[::1]", "[x]:22", "[127.0.0.1]:22",
        "a b:22", "-a:22", "*%:22", "%eth0:22", "*%e/0:22", "unix:", "unix:x", "unix:/" + "x" * 107,
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        listen_address(text)


@given(st.integers(0, 65535), st.sampled_from(["127.0.0.1", "::", "fe80::1%eth0", "example", "%eth0", "::%lo", ""]))
def test_addresses_are_read_as_they_are_shown(port: int, host: str) -> None:
    address = ListenAddress(host, port)
    assert listen_address(str(address)) == address


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_readers_raise_nothing_else(value: object) -> None:
    refused = 0
    for declared in OPTIONS.values():
        for each in (value, {"sessions": value}, {"auth": value}, {str(value): value}, [value], {"a": {"b": value}}):
            try:
                declared.read(each)
            except BadValue:
                refused += 1
    assert refused > len(OPTIONS)  # one value cannot be right for all


def test_the_table_for_the_documentation_has_each_option_once() -> None:
    lines = option_table().splitlines()
    assert len(lines) == len(OPTIONS) + 2
    for name, line in zip(OPTIONS, lines[2:], strict=True):
        assert line.startswith(f"| `{name}` | `{flag_of(name)}")
        assert line.count(" | ") == 3
    assert '| `listen` | `--listen ADDR:PORT` | `["127.0.0.1:2222"]` |' in lines[2]


def test_our_words_for_those_of_sshd_exist() -> None:
    for word, ours in OUR_WORDS.items():
        for name in re.findall(r"limits\.(\w+)", ours):
            assert name in field_types(Limits), word
        first = re.match(r"\w+", ours)
        assert first is not None
        assert first[0] in OPTIONS, word
