"""A configuration's plug-ins are made with their own options, and every fault says where it stands."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dunnart.daemon.config import ServeConfig
from dunnart.daemon.flags import parse, parser
from dunnart.daemon.loading import load
from dunnart.daemon.plugins import NamedAuthenticator, make
from dunnart.daemon.uses import uses
from dunnart.daemon.ways_in import this_user
from dunnart.errors import ConfigError, PluginError
from dunnart.keys.private import PrivateKey
from dunnart.plugins import os_account
from dunnart.plugins.os_account import Account
from dunnart.protocol.questions import Allow, AuthReply, Deny, NoneCredential, PasswordCredential, PublicKeyCredential
from dunnart.server import Attempt, Authenticator
from tests.plugins.packages import Site

KEY = PrivateKey.generate("ed25519").public
ACME = """\
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dunnart.errors import ConfigError
from dunnart.server import Allow
from dunnart.server.plugins import Context, plugin

made = []

@dataclass(frozen=True)
class Options:
    word: str = "none"
    number: int = 1
    share: float = 0.5
    loud: bool = False
    files: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("number must not be negative")
        if self.word == "crash":
            raise RuntimeError("what a word")

@plugin(Options)
class Everything:
    method = "password"

    def __init__(self, context: Context[Options]) -> None:
        if context.options.word == "unusable":
            raise ConfigError("nobody says that", key="word")
        self.context = context
        made.append(self)

    async def __call__(self, session):
        return 5

    async def authenticate(self, attempt):
        return Allow()

    async def open(self, opening): ...
    async def answer(self, request): ...
    async def allows(self, forward): ...
    def record(self, event): ...
    async def prepare(self, request): ...

@dataclass(frozen=True)
class Needy:
    file: str

@plugin(Needy)
def needy(context): return Everything(Context(context.name, Options(), context.logger))

def plain(context): return Everything(Context(context.name, Options(), context.logger))

def layer(context): return lambda following: following

@dataclass
class Odd:
    when: complex = 0j

@plugin(Odd)
def odd(context): ...

@dataclass
class Reserved:
    log_level: str = ""

@plugin(Reserved)
def reserved(context): ...
"""


@pytest.fixture
def acme(site: Site) -> Iterator[Any]:
    """A package with the plug-in `everything`, which is one of each kind."""
    groups = (
        "authenticators", "shells", "execs", "subsystems", "channel_types", "global_requests", "session_requests",
        "forwarding_policies", "audit_sinks",
    )  # fmt: skip
    site.add("acme", ACME, {f"dunnart.{group}": {"everything": "acme:Everything"} for group in groups})
    import acme  # type: ignore[import-not-found] # the test's

    yield acme
    for name in ("everything", "acme:plain"):
        logging.getLogger(f"dunnart.plugin.{name}").setLevel(logging.NOTSET)


def configured(*arguments: str, file: Path | None = None, text: str = "") -> ServeConfig:
    if file is not None:
        file.write_text(text)
        arguments = ("--config", str(file), *arguments)
    found, values = parse(arguments, parser("dunnart serve", ""))
    return load(found.config, values)


def test_the_default_is_keys_in_files_and_the_system(tmp_path: Path) -> None:
    plugins = make(ServeConfig(), "me", None)
    assert [each.method for each in plugins.authenticators] == ["publickey"]
    assert plugins.shell is not None
    assert plugins.exec is not None
    assert plugins.subsystems.keys() == {"sftp"}
    assert (plugins.middleware, plugins.audit) == ((), ())
    assert len(plugins.forwarding) == 1
    assert "direct-tcpip" in plugins.channel_types
    nothing = make(configured("--forwards", "off"), "me", None)
    assert (nothing.channel_types, nothing.global_requests, nothing.session_requests) == ({}, {}, {})
    assert nothing.forwarding == ()
    assert [each.method for each in make(ServeConfig(), "me", "secret").authenticators] == ["publickey", "password"]
    off = make(configured("--shell", "off", "--exec=", "--methods", "password"), "me", "secret")
    assert (off.shell, off.exec) == (None, None)
    assert [each.method for each in off.authenticators] == ["password"]


async def test_the_daemons_options_are_those_of_its_plug_ins(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY.line() + "\n")
    config = configured("--authorized-keys", str(tmp_path / "keys"), "--no-strict-modes")
    by_key, by_password = make(config, "alice", "secret").authenticators
    assert isinstance(await ask(by_key, this_user().name, PublicKeyCredential(KEY, "ssh-ed25519", signed=True)), Allow)
    assert isinstance(await ask(by_password, "alice", PasswordCredential("secret")), Allow)
    assert isinstance(await ask(by_password, "alice", PasswordCredential("other")), Deny)


async def ask(authenticator: Authenticator, user: str, credential: Any) -> AuthReply:
    return await authenticator.authenticate(Attempt(user, credential, "192.0.2.1"))


def test_options_come_from_the_file_and_from_flags_in_their_own_types(acme: Any, tmp_path: Path) -> None:
    config = configured(
        "--shell", "everything", "--plugin", "everything.number=7", "--plugin", "everything.word=8",
        "--plugin", "everything.files=9", "--plugin", "everything.files=10", "--plugin", "everything.names.a=11",
        "--plugin", "everything.loud=true",
        file=tmp_path / "c.toml", text='[plugin.everything]\nnumber = 3\nshare = 2\nnames = { b = "c" }\n',
    )  # fmt: skip
    make(config, "me", None)
    [made] = acme.made
    assert made.context.options == acme.Options("8", 7, 2, True, ("9", "10"), {"a": "11", "b": "c"})
    one = configured("--shell", "everything", "--plugin", "everything.files=9", "--plugin", "everything.share=1e1")
    make(one, "me", None)
    assert acme.made[1].context.options == acme.Options(files=("9",), share=10)


def test_the_level_asked_for_is_the_loggers(acme: Any) -> None:
    options = ("--shell", "everything", "--exec", "acme:plain", "--log-level", "warning")
    make(configured(*options, "--plugin", "everything.log_level=debug"), "me", None)
    shell, commands = acme.made
    assert (shell.context.name, shell.context.log_level) == ("everything", "debug")
    assert shell.context.logger.name == "dunnart.plugin.everything"
    assert shell.context.logger.level == logging.DEBUG
    assert (commands.context.name, commands.context.logger.level) == ("acme:plain", logging.NOTSET)
    make(configured(*options), "me", None)
    assert acme.made[2].context.log_level == "warning"
    assert acme.made[2].context.logger.level == logging.NOTSET


@pytest.mark.parametrize("lines", ['subsystem = { sftp = "off" }\n', '[subsystem]\nsftp = ""\nmine = "mine"\n'])
def test_sftp_is_switched_off_by_its_name_alone(tmp_path: Path, lines: str) -> None:
    config = configured(text=lines, file=tmp_path / "c.toml")
    assert [use.plugin for use in uses(config) if use.option == "subsystem"] == ["mine"] * ("mine" in lines)
    assert load(None, {"subsystem": {"other": "x"}}).subsystem == {"sftp": "sftp", "other": "x"}
    assert configured("--subsystem", "sftp=off").subsystem == {"sftp": "off"}


def test_each_is_made_once_however_often_it_is_named(acme: Any) -> None:
    config = configured(
        "--subsystem", "a=everything", "--subsystem", "b=everything", "--channel-types", "x@y=everything",
        "--global-requests", "z@y=everything", "--session-requests", "r=everything",
        "--forwards", "off", "--forwarding", "everything", "--audit", "everything",
        "--middleware", "acme:layer", "--authenticators", "everything",
    )  # fmt: skip
    plugins = make(config, "me", None)
    assert len(acme.made) == 7
    assert list(plugins.session_requests) == ["r"]
    assert plugins.subsystems.keys() == {"sftp", "a", "b"}
    assert (list(plugins.channel_types), list(plugins.global_requests)) == (["x@y"], ["z@y"])
    assert [len(each) for each in (plugins.forwarding, plugins.audit, plugins.middleware)] == [1, 1, 1]
    assert [each.method for each in plugins.authenticators] == ["password"]


TABLE = 'shell = "everything"\n[plugin.everything]\n'


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ('shell = "evrything"', 1, "shell", "evrything: no installed package has a shell of this name; did"),
        ('\n[subsystem]\nx = "acme:no"', 3, "subsystem.x", "acme:no: acme:no cannot be imported: AttributeError"),
        ('audit = ["acme:layer"]', 1, "audit", "which is not an audit sink: it has no method record"),
        (TABLE + "\nnumbr = 1", 4, "plugin.everything.numbr", "mean number?"),
        (TABLE + "number = 1.5", 3, "plugin.everything.number", "not a whole number"),
        (TABLE + "number = -1", 3, "plugin.everything.number", "not be negative"),
        (TABLE + "word = 1", 3, "plugin.everything.word", "1 is not a string"),
        (TABLE + 'word = ["a"]', 3, "plugin.everything.word", "is not a string"),
        (TABLE + 'files = "a"', 3, "plugin.everything.files", "not a list of strings"),
        (TABLE + 'names = "a"', 3, "plugin.everything.names", "not a table of strings"),
        ('shell = "everything"\n[plugin.everything.names]\na = "b"\n[plugin.everything]\nloud = "yes"', 5,
         "plugin.everything.loud", "'yes' is not true or false"),
        (TABLE + 'word = "crash"', 2, "plugin.everything", "RuntimeError: what a word"),
        (TABLE + 'word = "unusable"', 3, "plugin.everything.word", "nobody says that"),
        ('shell = "acme:needy"', None, "plugin.acme:needy.file", "must be given"),
        ('shell = "acme:plain"\n[plugin."acme:plain"]\nx = 1', 3, "plugin.acme:plain.x", "the plug-in has no options"),
        ('shell = "acme:odd"', 1, "shell", "the option when is of type <class 'complex'>"),
        ('shell = "acme:reserved"', 1, "shell", "has an option log_level, which every plug-in has anyway"),
    ],
)  # fmt: skip
def test_errors_name_file_line_and_key(
    acme: Any, tmp_path: Path, text: str, line: int | None, key: str, message: str
) -> None:
    file = tmp_path / "c.toml"
    config = configured(file=file, text=text)
    with pytest.raises(ConfigError) as caught:
        make(config, "me", None)
    error = caught.value
    assert (error.path, error.line, error.key) == (str(file), line, key)
    assert message in str(error)
    assert "\n" not in str(error)


def test_two_plug_ins_of_one_name_share_a_table(acme: Any, site: Site) -> None:
    source = """\
from dataclasses import dataclass
from dunnart.server.plugins import plugin

@dataclass
class A:
    one: int = 0
    both: int = 0

@dataclass
class B:
    two: int = 0
    both: int = 0

@plugin(A)
class Shell:
    def __init__(self, context): made.append(context.options)
    def begin(self, session): ...

@plugin(B)
class Exec(Shell): ...
made = []
"""
    site.add("pair", source, {"dunnart.shells": {"pair": "pair:Shell"}, "dunnart.execs": {"pair": "pair:Exec"}})
    options = ("--shell", "pair", "--exec", "pair", "--plugin", "pair.one=1", "--plugin", "pair.two=2",
               "--plugin", "pair.both=3")  # fmt: skip
    make(configured(*options), "me", None)
    import pair  # type: ignore[import-not-found] # the test's

    assert pair.made == [pair.A(1, 3), pair.B(2, 3)]
    with pytest.raises(ConfigError, match=r"--plugin pair\.three: there is no such option"):
        make(configured(*options, "--plugin", "pair.three=3"), "me", None)


# While the server runs.


class Fixed:
    """Answers the same to everybody."""

    def __init__(self, reply: object, method: str = "password") -> None:
        self.reply = reply
        self.method = method

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply  # type: ignore[return-value] # what is wrong with it is the test


ATTEMPT = Attempt("alice", NoneCredential(), "192.0.2.1")


@pytest.mark.parametrize("reply", [RuntimeError("boom"), True, None])
async def test_a_failure_says_whose_it_is(reply: object) -> None:
    authenticator = NamedAuthenticator("acme", Fixed(reply), root=True)
    with pytest.raises(PluginError, match=r"^acme: ") as caught:
        await authenticator.authenticate(ATTEMPT)
    assert ("RuntimeError: boom" if isinstance(reply, Exception) else repr(reply)) in str(caught.value)


@pytest.mark.parametrize(
    ("permit", "method", "allowed"),
    [
        ("yes", "password", True),
        ("prohibit-password", "password", False),
        ("prohibit-password", "keyboard-interactive", False),
        ("prohibit-password", "none", False),
        ("prohibit-password", "publickey", True),
        ("no", "publickey", False),
    ],
)
async def test_root_gets_in_only_as_permitted(
    site: Site, monkeypatch: pytest.MonkeyPatch, permit: str, method: str, allowed: bool
) -> None:
    accounts = {"toor": Account("toor", 0, 0, "/", "/bin/sh"), "alice": Account("alice", 5, 5, "/", "/bin/sh")}
    monkeypatch.setattr(os_account, "find", accounts.get)
    site.add("letsin", f"""\
from dunnart.server import Allow

class Always:
    method = {method!r}

    def __init__(self, context): ...

    async def authenticate(self, attempt):
        return Allow()
""", {})  # fmt: skip
    config = configured("--authenticators", "letsin:Always", "--permit-root-login", permit)
    [authenticator] = make(config, "me", None).authenticators
    for user in ("root", "toor"):
        reply = await ask(authenticator, user, NoneCredential())
        assert isinstance(reply, Allow if allowed else Deny)
    for user in ("alice", "nobody that there is"):
        assert isinstance(await ask(authenticator, user, NoneCredential()), Allow)


async def test_key_sources_are_asked_after_the_files(site: Site, tmp_path: Path) -> None:
    other, third = PrivateKey.generate("ed25519").public, PrivateKey.generate("ed25519").public
    (tmp_path / "keys").write_text(KEY.line() + "\n")
    site.add("directory", f"""\
from dunnart.keys import PublicKey

class Directory:
    def __init__(self, context): ...

    async def keys(self, user, address):
        return [PublicKey.parse_line({other.line()!r})[0]] if user != "root" or address else []
""", {"dunnart.key_sources": {"directory": "directory:Directory"}})  # fmt: skip
    files = ("--authorized-keys", str(tmp_path / "keys"), "--no-strict-modes", "--permit-root-login", "yes")
    [authenticator] = make(configured("--key-sources", "directory", *files), "me", None).authenticators
    replies = [await ask(authenticator, this_user().name, PublicKeyCredential(key, "ssh-ed25519", signed=True))
               for key in (KEY, other, third)]  # fmt: skip
    assert [type(reply) for reply in replies] == [Allow, Allow, Deny]
