"""Match tables: which logins they fit, what they change, and what is wrong with them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from dunnart.daemon import matching, plugins
from dunnart.daemon.config import OPTIONS, ServeConfig
from dunnart.daemon.loading import effective, load
from dunnart.daemon.matching import CRITERIA, MAY_MATCH, Login, Match, criterion, refusal
from dunnart.daemon.options import BadValue
from dunnart.daemon.writing import to_toml
from dunnart.errors import ConfigError
from dunnart.plugins import os_account, shadow
from dunnart.protocol.limits import Limits
from dunnart.server import (
    Address,
    Allow,
    Attempt,
    AuthReply,
    Candidate,
    GssapiKeyExchange,
    GssapiStep,
    PasswordCredential,
    Rights,
)


def read(tmp_path: Path, text: str) -> ServeConfig:
    path = tmp_path / "dunnart.toml"
    path.write_text(text)
    return load(str(path))


def fits(login: Login, **criteria: Any) -> bool:
    return Match({name: criterion(name, value) for name, value in criteria.items()}, {}).fits(login)


ANN = Login("ann", "192.0.2.7", "2001:db8::1", 2222, ("users", "staff"))


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({"all": True}, True),
        ({"user": "ann"}, True),
        ({"user": "a*,!ann"}, False),
        ({"user": ["b??", "a??"]}, True),
        ({"user": "!bob"}, False),  # as in sshd: what only forbids fits nobody
        ({"user": "*,!bob"}, True),
        ({"user": "Ann"}, False),
        ({"group": "staff"}, True),
        ({"group": "st*,!users"}, False),
        ({"group": "wheel"}, False),
        ({"address": "192.0.2.0/24"}, True),
        ({"address": ["192.0.2.0/24", "!192.0.2.7"]}, False),
        ({"address": "192.0.*"}, True),
        ({"address": "2001:db8::/32"}, False),
        ({"local_address": "2001:db8::/32"}, True),
        ({"local_port": 2222}, True),
        ({"local_port": [22, 2200]}, False),
        ({"local_port": "22,2222"}, True),
        ({"user": "ann", "group": "staff", "address": "192.0.2.7"}, True),
        ({"user": "ann", "group": "wheel"}, False),
    ],
)
def test_criteria(criteria: dict[str, Any], expected: bool) -> None:
    assert fits(ANN, **criteria) is expected


def test_of_a_unix_socket_and_of_a_user_without_groups_little_is_known() -> None:
    unknown = Login("ann")
    assert not fits(unknown, address="0.0.0.0/0,::/0,*")
    assert not fits(unknown, group="*")
    assert fits(unknown, user="*")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("all", False, "true"),
        ("user", "", "empty"),
        ("user", ["!"], "empty"),
        ("user", [], "empty"),
        ("user", 7, "no string"),
        ("user", "ann, ben", "a blank in ' ben'"),
        ("user", "ann ben", "a blank"),
        ("user", ["*", "! ann"], "a blank"),
        ("group", "x, staff", "a blank"),
        ("address", "gate.example.com", "not looked up"),
        ("address", "192.0.2.0/33", "bits"),
        ("address", "192.0.2.1/24", "beyond its prefix"),
        ("local_port", 0, "no port"),
        ("local_port", "ssh", "no port"),
        ("local_port", True, "no string"),
    ],
)
def test_what_is_no_criterion(name: str, value: object, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        criterion(name, value)


TEXT = """\
methods = ["publickey"]
permit_root_login = "no"
authorized_keys = ["/keys/%u"]
forwards = ["tcp", "agent"]

[subsystem]
report = "status"

[plugin.sftp]
root = "/srv"
umask = "022"

[[match]]
user = "ann"
methods = ["publickey,password"]
[match.plugin.sftp]
root = "/srv/ann"

[[match]]
group = ["staff", "!guests"]
methods = ["password"]
force_command = "id"
forwards = ["off"]

[match.subsystem]
sftp = "off"

[[match]]
all = true
permit_tty = false
force_command = "true"
"""


def test_the_first_table_that_fits_counts_and_the_rest_is_as_outside(tmp_path: Path) -> None:
    config = read(tmp_path, TEXT)
    assert (config.methods, config.permit_tty, config.force_command) == (("publickey",), True, "")
    ann = effective(config, ANN)
    assert ann.methods == ("publickey,password",)
    assert ann.plugin == {"sftp": {"root": "/srv/ann", "umask": "022"}}
    assert (ann.force_command, ann.permit_tty, ann.forwards) == ("id", False, ("off",))
    assert ann.subsystem == {"sftp": "off", "report": "status"}
    assert (ann.authorized_keys, ann.permit_root_login) == (("/keys/%u",), "no")
    bob = effective(config, Login("bob"))
    assert (bob.methods, bob.force_command, bob.permit_tty) == (("publickey",), "true", False)
    assert bob.plugin == config.plugin
    assert bob.subsystem == {"sftp": "sftp", "report": "status"}
    assert ann.match == bob.match == ()


def test_limits_of_a_login(tmp_path: Path) -> None:
    text = "[limits]\nsessions = 5\n[[match]]\nuser = 'a*'\nlimits = { max_auth_tries = 2, idle_seconds = 1.5 }\n"
    text += "[[match]]\nuser = '*b'\n[match.limits]\nmax_auth_tries = 3\nkeepalive_seconds = 7\n"
    config = read(tmp_path, text)
    (tmp_path / "again").mkdir()
    again = read(tmp_path / "again", to_toml(config))
    made = plugins.make(config, "ann", None)
    assert made.terms_for is not None
    for user, limits in {
        "c": Limits(sessions=5),
        "ac": Limits(sessions=5, max_auth_tries=2, idle_seconds=1.5),
        "cb": Limits(sessions=5, max_auth_tries=3, keepalive_seconds=7),
        "ab": Limits(sessions=5, max_auth_tries=2, idle_seconds=1.5, keepalive_seconds=7),
    }.items():
        assert effective(config, Login(user)).limits == effective(again, Login(user)).limits == limits
        candidate = Candidate(user, Address("192.0.2.1", 9), Address("192.0.2.2", 22), 1)
        assert made.terms_for(candidate) == (("publickey",), None if user == "c" else limits)


def test_what_is_printed_gives_the_same_again(tmp_path: Path) -> None:
    config = read(tmp_path, TEXT)
    (tmp_path / "again").mkdir()
    again = read(tmp_path / "again", to_toml(config))
    assert again == config
    assert len(again.match) == 3


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[[match]]\nuser = 'a'\nport = 3\n", 3, "match.1.port: there is no such option"),
        ("[[match]]\nuser = 'a'\n[[match]]\nuser='b'\nlisten = ['x']\n", 5, "match.2.listen: this option concerns no"),
        ("[[match]]\nusers = 'a'\n", 2, "did you mean user"),
        ("[[match]]\nhost = 'a'\n", 2, "use address"),
        ("[[match]]\nmethods = ['password']\n", 1, "says not which logins"),
        ("[[match]]\nuser = 'a'\n[[match]]\nmethods = ['password']\n", 3, "says not which logins"),
        ("[[match]]\nuser = 'a'\npermit_tty = 'no'\n", 3, "neither true nor false"),
        ("[[match]]\nuser = 'a'\nmethods = ['pasword']\n", 3, "none of publickey"),
        ("[[match]]\nuser = 'a'\n\n[match.subsystem]\nsftp = 'a b'\n", 5, "neither a plug-in"),
        ("[[match]]\nuser = 'a'\n[match.plugin.nobody]\nx = 1\n", 3, "uses a plug-in of this name"),
        ("audit = ['log']\n[[match]]\nuser = 'a'\n[match.plugin.log]\nfile = '/x'\n", 4, "uses a plug-in of this name"),
        ("[[match]]\nuser = 'a'\nlimits.channels = 1\n", 3, "limits.channels: this one is the same for all"),
        ("[[match]]\nuser = 'a'\n[match.limits]\nsesions = 1\n", 4, "did you mean sessions"),
        ("match = 3\n", 1, "write [[match]]"),
        ("permit_open = ['x']\n", 1, "HOST:PORT"),
        ("allow_users = ['a@b.example.com']\n", 1, "not looked up"),
        ("allow_users = ['!a']\n", 1, "deny_users"),
        ("deny_users = ['ann ben']\n", 1, "not one user"),
        ("deny_users = ['ann,ben']\n", 1, "not one user"),
        ("deny_groups = ['a,b']\n", 1, "not one group"),
        ("deny_groups = ['@staff']\n", 1, "left out here"),
        ("deny_groups = ['']\n", 1, "no pattern"),
        ("[set_env]\nA-B = 'c'\n", 2, "no variable's name"),
    ],
)
def test_errors_say_where(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert caught.value.line == line
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[[match]]\nuser = 'a'\nshell = 'nothing-like-it'\n", 3, "nothing-like-it"),
        ("[[match]]\nuser = 'a'\n[match.plugin.sftp]\nrott = '/'\n", 4, "did you mean root"),
        ("[[match]]\nuser = 'a'\n[match.plugin.sftp]\nroot = 3\n", 4, "not a string"),
    ],
)
def test_errors_of_plugins_say_where(tmp_path: Path, text: str, line: int, message: str) -> None:
    config = read(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        plugins.make(config, "ann", None)
    assert caught.value.line == line
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[plugin.sftp]\ndigest = true\n", ["plugin.sftp.digest does nothing"]),
        ("[plugin.sftp]\nevents = 'changes'\n", ["plugin.sftp.events does nothing"]),
        ("[plugin.sftp]\nevents = 'off'\ndigest = false\n", []),
        ("[plugin.scp]\ndigest = true\n[[match]]\nuser = 'a'\n", ["plugin.scp.digest does nothing"]),
        ("audit = ['log']\n[plugin.sftp]\ndigest = true\n", []),
    ],
)
def test_events_of_files_that_nobody_hears_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, told: list[str]
) -> None:
    plugins.make(read(tmp_path, f"exec = 'scp'\nsubsystem.sftp = 'sftp'\n{text}"), "ann", None)
    assert [message.partition(",")[0] for message in caplog.messages] == told


def test_a_chain_that_a_table_s_logins_cannot_go_is_told_at_the_start(tmp_path: Path) -> None:
    config = read(tmp_path, "password = 'off'\n[[match]]\nuser = 'a'\nmethods = ['keyboard-interactive']\n")
    with pytest.raises(ConfigError, match=r":4: match\.1\.methods: .*no authenticator is there for keyboard-int"):
        plugins.make(config, "ann", None)


def test_two_authenticators_of_one_method_are_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "passwords").touch(0o600)
    text = "[[match]]\nuser = 'a'\nauthenticators = ['password-file', 'one-time-password']\n"
    text += f"[match.plugin.password-file]\nfile = '{tmp_path}/passwords'\n"
    with pytest.raises(ConfigError, match=r":3: match\.1\.authenticators: there are two for password"):
        plugins.make(read(tmp_path, text), "ann", "word of this run")


def test_names_are_options_and_criteria_are_none() -> None:
    assert set(MAY_MATCH) <= set(OPTIONS)
    assert not set(CRITERIA) & set(OPTIONS)


@pytest.mark.parametrize(
    ("lists", "allowed"),
    [
        ({}, True),
        ({"allow_users": ("ann",)}, True),
        ({"allow_users": ("bob", "a*@192.0.2.0/24")}, True),
        ({"allow_users": ("ann@198.51.100.0/24",)}, False),
        ({"allow_users": ("bob",)}, False),
        ({"allow_users": ("ann",), "deny_users": ("*@192.0.2.7",)}, False),
        ({"deny_users": ("bob",)}, True),
        ({"allow_groups": ("staff",)}, True),
        ({"allow_groups": ("wheel",)}, False),
        ({"allow_groups": ("staff",), "deny_groups": ("us*",)}, False),
        ({"allow_users": ("ann",), "allow_groups": ("wheel",)}, False),
    ],
)
def test_lists_of_users_and_groups(lists: dict[str, Any], allowed: bool) -> None:
    assert (refusal(ANN, **lists) == "") is allowed


def test_a_user_without_groups_is_in_no_list_of_them() -> None:
    assert refusal(Login("x"), allow_groups=("*",)) != ""
    assert refusal(Login("x"), deny_groups=("*",)) == ""


def test_groups_are_those_of_the_system() -> None:
    import grp
    import os
    import pwd

    own = pwd.getpwuid(os.geteuid())
    assert grp.getgrgid(own.pw_gid).gr_name in matching.groups_of(own.pw_name)
    assert matching.groups_of("nobody/of that") == ()


def test_principals_of_a_table_need_an_authority(tmp_path: Path) -> None:
    text = "[[match]]\nuser = 'a'\nauthorized_principals_file = '%h/principals'\n"
    with pytest.raises(ConfigError, match=r":3: .*names no authority"):
        read(tmp_path, text)
    assert read(tmp_path, f"trusted_user_ca_keys = ['/ca']\n{text}").match


class _Easy:
    """Lets everybody in."""

    method = "password"
    reply = Allow()

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        return self.reply


@pytest.mark.parametrize(("empty", "password", "allowed"), [(False, "", False), (False, "x", True), (True, "", True)])
def test_empty_passwords(empty: bool, password: str, allowed: bool) -> None:
    named = plugins.NamedAuthenticator("easy", _Easy(), root=True, empty=empty)
    reply = asyncio.run(named.authenticate(Attempt("ann", PasswordCredential(password), "")))
    assert isinstance(reply, Allow) is allowed


@pytest.mark.parametrize(
    ("user", "command", "allowed"), [("root", None, False), ("root", b"id", True), ("ann", None, True)]
)
def test_root_only_for_a_command_of_the_keys(user: str, command: bytes | None, allowed: bool) -> None:
    inner = _Easy()
    inner.reply = Allow(rights=Rights(command=command))
    named = plugins.NamedAuthenticator("easy", inner, root=True, forced=True)
    reply = asyncio.run(named.authenticate(Attempt(user, PasswordCredential("x"), "")))
    assert isinstance(reply, Allow) is allowed


class _Recording:
    """Allows everything, and keeps what it was asked about."""

    method = "password"

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        self.asked.append(attempt.credential)
        return Allow()


def test_the_password_of_who_may_not_log_in_goes_nowhere() -> None:
    """It could be tried out, or be changed, where the answer alone is no."""
    inner = _Recording()
    named = plugins.NamedAuthenticator("easy", inner, root=False)
    for user in ("root", "ann"):
        reply = asyncio.run(named.authenticate(Attempt(user, PasswordCredential("right"), "")))
        assert isinstance(reply, Allow) is (user == "ann")
    assert PasswordCredential("right") != inner.asked[0]
    assert PasswordCredential("right") == inner.asked[1]


def test_an_account_that_the_system_has_closed_stays_so_by_every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    expires = {"ann": 1, "ben": -1, "joe": 10**6}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os_account, "find", lambda name: os_account.Account(name, 9, 9, "/", "/bin/sh"))
    monkeypatch.setattr(shadow, "entry_of", lambda name: shadow.Entry("x", 1, -1, expires[name]))
    named = plugins.NamedAuthenticator("easy", _Easy(), root=True)
    for user, allowed in (("ann", False), ("ben", True), ("joe", True)):
        reply = asyncio.run(named.authenticate(Attempt(user, PasswordCredential("x"), "")))
        assert isinstance(reply, Allow) is allowed


@pytest.mark.parametrize(
    ("methods", "allowed"),
    [("", False), ("'keyboard-interactive'", False), ("'publickey', 'keyboard-interactive'", False),
     ("'publickey,keyboard-interactive'", True)],
)  # fmt: skip
def test_a_second_factor_is_none_by_itself(tmp_path: Path, methods: str, allowed: bool) -> None:
    pytest.importorskip("pyotp")
    config = read(tmp_path, f"authenticators = ['authorized-keys', 'totp']\nmethods = [{methods}]\n")
    if allowed:
        assert plugins.make(config, "ann", None).authenticators
    else:
        with pytest.raises(ConfigError, match=r":1: authenticators: totp is a second factor: write methods"):
            plugins.make(config, "ann", None)


EXCHANGING = """\
from dunnart.server import GssapiKeyExchange, GssapiStep, Deny

class Exchanging:
    method = "gssapi-keyex"
    def __init__(self, context): pass
    async def authenticate(self, attempt):
        return GssapiStep(b"token") if isinstance(attempt.credential, GssapiKeyExchange) else Deny()
"""


def test_keys_are_exchanged_before_there_is_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exchanging_keys.py").write_text(EXCHANGING)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "authenticators = ['exchanging_keys:Exchanging']\n[[match]]\nuser = 'ann'\nshell = 'off'\n"
    (asked,) = plugins.make(read(tmp_path, text), "ann", None).authenticators
    reply = asyncio.run(asked.authenticate(Attempt("", GssapiKeyExchange(b"", first=True), "192.0.2.1")))
    assert reply == GssapiStep(b"token")


def test_who_has_no_shell_does_not_log_in_by_any_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    shells = {"ann": "/bin/sh", "ben": "/nonexistent", "joe": str(tmp_path), "sue": str(tmp_path / "text")}
    monkeypatch.setattr(os_account, "find", lambda name: os_account.Account(name, 9, 9, "/", shells[name]))
    monkeypatch.setattr(shadow, "entry_of", lambda _: shadow.Entry("x", 1, -1, -1))
    for shell in (True, False):
        named = plugins.NamedAuthenticator("easy", _Easy(), root=True, shell=shell)
        for user in shells:
            reply = asyncio.run(named.authenticate(Attempt(user, PasswordCredential("x"), "")))
            assert isinstance(reply, Allow) is (not shell or user == "ann")
