"""What Dropbear's flags become; that the real program takes and refuses the same: tests/interop/test_dropbear.py."""

from __future__ import annotations

import grp
import re
from pathlib import Path

import pytest

from dunnart.daemon import dropbear_flags
from dunnart.daemon.dropbear_flags import DropbearFlags, WrongFlag
from dunnart.daemon.loading import load
from dunnart.daemon.uses import uses
from dunnart.errors import ConfigError

ENVIRONMENT = {"A": "1", "LANG": "de_CH.UTF-8", "HOME": "/", "SSH_X": "2", "no name": "3"}


@pytest.fixture(autouse=True)
def _host_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropbear_flags, "FOLDER", str(tmp_path))
    for kind in ("rsa", "ed25519", "dss"):
        (tmp_path / f"dropbear_{kind}_host_key").touch()


def translated(line: str, *, root: bool = True) -> DropbearFlags:
    found = dropbear_flags.translate(line.split(), root=root, environment=ENVIRONMENT)
    load(None, found.options)  # no option is unknown, no value impossible
    return found


def test_the_defaults_are_dropbears(tmp_path: Path) -> None:
    found = translated("")
    assert (found.notes, found.names_keys, found.makes_keys) == ([], False, False)
    options = dict(found.options)
    pid_file = options.pop("pid_file", None)
    assert pid_file in {None, "/var/run/dropbear.pid", "/run/dropbear.pid"}
    assert options == {
        "listen": ["*:22"], "background": True, "log_to": "syslog", "log_level": "info",
        "host_key": [f"{tmp_path}/dropbear_{kind}_host_key" for kind in ("ed25519", "rsa")],
        "authorized_keys": ["%h/.ssh/authorized_keys"], "authenticators": ["authorized-keys", "shadow"],
        "password": "off", "account": "listed-shell", "permit_root_login": "yes", "permit_empty_passwords": False,
        "accept_env": [], "set_env": {"LANG": "de_CH.UTF-8"},
        "print_motd": True, "print_last_log": False, "permit_user_rc": False,
        "forwards": ["tcp", "unix", "agent"], "limits": {"max_auth_tries": 10},
    }  # fmt: skip


def test_each_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "banner").write_text("hello\n")
    group = grp.getgrgid(0).gr_name
    cases: list[tuple[str, dict[str, object]]] = [
        ("-b banner", {"banner": f"{tmp_path}/banner"}),
        ("-r one -rtwo", {"host_key": [f"{tmp_path}/one", f"{tmp_path}/two"]}),
        ("-F", {"background": False}),
        ("-e", {"set_env": {"A": "1", "LANG": "de_CH.UTF-8"}}),
        ("-E", {"log_to": "stderr"}),
        ("-v", {"log_level": "debug"}),
        ("-m", {"print_motd": False}),
        ("-w", {"permit_root_login": "no"}),
        ("-g", {"permit_root_login": "prohibit-password"}),
        ("-gw", {"permit_root_login": "no"}),
        ("-s", {"authenticators": ["authorized-keys"]}),
        ("-B", {"permit_empty_passwords": True}),
        ("-t", {"methods": ["publickey,password", "password,publickey"]}),
        ("-T 3", {"limits": {"max_auth_tries": 3}}),
        (f"-G {group}", {"allow_groups": [group]}),
        ("-D /etc/k%", {"authorized_keys": ["/etc/k%%/authorized_keys"]}),
        ("-D ~/keys", {"authorized_keys": ["%h/keys/authorized_keys"]}),
        ("-c uptime", {"force_command": "uptime", "forwards": ["tcp", "agent"]}),
        ("-a", {"plugin": {"tcpip-forward": {"gateway_ports": "client"}}}),
        ("-p 2222 -p127.0.0.1:23 -p [::1]:24 -p ::1:25 -p :26 -p ssh", {"listen": [
            "*:2222", "127.0.0.1:23", "[::1]:24", "[::1]:25", "*:26", "*:22"]}),
        ("-l lo -p 23 -p 127.0.0.1:24 -p [::1]:25", {"listen": ["*%lo:23", "127.0.0.1%lo:24", "[::1%lo]:25"]}),
        ("-P pid", {"pid_file": f"{tmp_path}/pid"}),
        ("-W 100000", {"limits": {"max_auth_tries": 10, "window_bytes": 100_000, "channel_packet_bytes": 32768}}),
        ("-W 24576", {"limits": {"max_auth_tries": 10, "window_bytes": 24576, "channel_packet_bytes": 24576}}),
        ("-K 5 -I6 -M 7", {"limits": {
            "max_auth_tries": 10, "keepalive_seconds": 5, "idle_seconds": 6, "connection_seconds": 7}}),
        ("-z -u", {"forwards": ["tcp", "unix", "agent"]}),
        ("-FEs", {"background": False, "log_to": "stderr", "authenticators": ["authorized-keys"]}),
    ]  # fmt: skip
    for line, expected in cases:
        options = translated(line).options
        assert {name: options.get(name) for name in expected} == expected, line


def test_inetd() -> None:
    options = translated("-i -g -p 23").options
    assert (options["inetd"], options["permit_root_login"]) == (True, "prohibit-password")
    assert not {"listen", "background", "pid_file"} & options.keys()


def test_directions_of_forwarding() -> None:
    to_hosts = {"direct-tcpip", "direct-streamlocal@openssh.com"}
    from_clients = {
        "tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com",
        "cancel-streamlocal-forward@openssh.com",
    }  # fmt: skip
    for line, served in [
        ("", to_hosts | from_clients), ("-j", from_clients), ("-k", to_hosts), ("-jk", set()),
        ("-kc x", {"direct-tcpip"}), ("-jc x", {"tcpip-forward", "cancel-tcpip-forward"}),
    ]:  # fmt: skip
        found = uses(load(None, translated(line).options))
        assert {use.entry for use in found if use.option in {"channel_types", "global_requests"}} == served, line
    assert "plugin" not in translated("-ak").options  # nothing uses it


def test_only_root_checks_passwords() -> None:
    assert translated("-g", root=False).options["authenticators"] == ["authorized-keys"]
    with pytest.raises(ConfigError, match="-t: only root can check"):
        translated("-t", root=False)


def test_what_dropbear_only_warns_of(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * 2051)
    for line, note in [
        ("-b /nowhere/banner", "-b: '/nowhere/banner' cannot be read: No such file"),
        (f"-b {tmp_path}/long", "-b: the banner is too large"),
        ("-W 0", "-W: bad window '0', using 2097152"), ("-W x", "-W: bad window 'x'"),
        ("-W 99999999", "-W: bad window '99999999', using 10485760"),
        ("-p 1 -p 2 -p 2 " * 4, "-p: only the first 10"),
    ]:  # fmt: skip
        found = translated(line)
        assert [each[: len(note)] for each in found.notes] == [note]
        assert "banner" not in found.options


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    for line, said in [
        ("x", "invalid argument: 'x'"), ("-", "invalid argument: '-'"), ("-F -p", "-p: missing argument"),
        ("-y", "invalid option -y"), ("-F9", "invalid option -9"), ("-A x", "-A: "),
        ("-p 22:", "-p: '22:' has no port"), ("-p [::1", "-p: bad address"), ("-p [::1]x", "-p: bad address"),
        ("-p [::1]", "has no port"), ("-p a:b", "has no port"), ("-p 99999", "-p: '99999' has no port of 1 to 65535"),
        ("-T x", "-T: bad maxauthtries 'x'"), ("-K -1", "-K: bad keepalive '-1'"), ("-I 1s", "-I: bad idle_timeout"),
        ("-M 99999999999", "-M: bad max_duration"), ("-t -s", "-t and -s are incompatible"),
        ("-tB", "-t and -B are incompatible"), ("-G no-such-group", "-G: there is no group 'no-such-group'"),
        ("-r a " * 7, "-r: too many host keys"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=re.escape(said)) as caught:
            translated(line)
        assert isinstance(caught.value, WrongFlag) == ("option" in said)
    with pytest.raises(ConfigError, match="-D: "):
        dropbear_flags.translate(["-D", ""], root=True, environment={})
    for each in tmp_path.iterdir():
        each.unlink()
    with pytest.raises(ConfigError, match=r"no host keys in .*; -R makes them"):
        translated("")
    assert translated("-R -r one").options["host_key"] == []
