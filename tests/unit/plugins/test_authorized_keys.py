"""Public keys from files named by patterns."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from dunnart.keys.private import PrivateKey
from dunnart.plugins import os_account
from dunnart.plugins.authorized_keys import AuthorizedKeysFiles
from dunnart.plugins.os_account import Account
from dunnart.protocol.questions import Allow, Deny, NoneCredential, PublicKeyCredential
from dunnart.server import Attempt, Rights

KEY = PrivateKey.generate("ed25519").public
OTHER = PrivateKey.generate("ed25519").public


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of alice, who is everybody that there is."""
    account = Account("alice", 1234, 1234, str(tmp_path), "/bin/sh")
    monkeypatch.setattr(os_account, "find", lambda name: account if name == "alice" else None)
    return tmp_path


async def ask(files: AuthorizedKeysFiles, user: str = "alice", key: object = KEY) -> bool:
    credential = PublicKeyCredential(key, "ssh-ed25519", signed=True)  # type: ignore[arg-type]
    reply = await files.authenticate(Attempt(user, credential, "192.0.2.1"))
    assert isinstance(reply, Allow | Deny)
    return isinstance(reply, Allow)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (".ssh/authorized_keys", ".ssh/authorized_keys"),
        ("%h/keys", "keys"),
        ("%h/%u.%U", "alice.1234"),
        ("100%%/%u", "100%/alice"),
        ("%%%u%%", "%alice%"),
    ],
)
async def test_patterns(home: Path, pattern: str, path: str) -> None:
    (home / path).parent.mkdir(exist_ok=True)
    (home / path).write_text(KEY.line() + "\n")
    files = AuthorizedKeysFiles((pattern,), strict_modes=False)
    assert await ask(files)
    assert not await ask(files, key=OTHER)
    assert not await ask(files, user="bob")


async def test_any_of_the_files_will_do_and_changes_are_seen(home: Path) -> None:
    files = AuthorizedKeysFiles(("one", "two"), strict_modes=False)
    assert not await ask(files)
    (home / "two").write_text(KEY.line() + "\n")
    assert await ask(files)
    (home / "two").write_text(OTHER.line() + " instead\n")
    assert not await ask(files)
    (home / "two").unlink()
    assert not await ask(files, key=OTHER)


async def test_strict_modes_refuse_files_that_others_write(home: Path) -> None:
    (home / "keys").write_text(KEY.line() + "\n")
    (home / "keys").chmod(0o666)
    assert await ask(AuthorizedKeysFiles(("keys",), strict_modes=False))
    assert not await ask(AuthorizedKeysFiles(("keys",)))


async def test_another_credential_is_none(home: Path) -> None:
    files = AuthorizedKeysFiles(("keys",), strict_modes=False)
    assert isinstance(await files.authenticate(Attempt("alice", NoneCredential(), "")), Deny)


async def test_root_may_be_kept_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = os_account.find("alice")
    assert account is not None
    monkeypatch.setattr(os_account, "find", lambda _: replace(account, uid=0))
    (home / "keys").write_text(KEY.line() + "\n")
    assert await ask(AuthorizedKeysFiles(("keys",), strict_modes=False))
    assert not await ask(AuthorizedKeysFiles(("keys",), strict_modes=False, root=False))


async def test_a_refused_line_is_told_once(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    (home / "keys").write_text(f'no-such-option="\x1b[31m" {KEY.line()}\n{OTHER.line()}\n')
    files = AuthorizedKeysFiles(("keys",), strict_modes=False)
    for _ in range(3):
        assert not await ask(files)
        assert await ask(files, key=OTHER)
    (message,) = caplog.messages
    assert ":1: this line lets nobody in" in message
    assert message.isprintable()


async def reply_of(files: AuthorizedKeysFiles, address: str = "192.0.2.1") -> Allow | Deny:
    credential = PublicKeyCredential(KEY, "ssh-ed25519", signed=True)
    reply = await files.authenticate(Attempt("alice", credential, address))
    assert isinstance(reply, Allow | Deny)
    return reply


async def test_options_of_the_line_go_with_the_login(home: Path) -> None:
    files = AuthorizedKeysFiles(("keys",), strict_modes=False, variables=("GIT_*",))
    (home / "keys").write_text(f'restrict,pty,command="x",environment="GIT_USER=a",verify-required {KEY.line()}\n')
    reply = await reply_of(files)
    assert isinstance(reply, Allow)
    assert reply.grant == os_account.find("alice")
    assert (reply.touch, reply.verify) == (True, True)
    assert reply.rights is not None
    assert (reply.rights.command, reply.rights.environment) == (b"x", (("GIT_USER", "a"),))
    assert (reply.rights.pty, reply.rights.agent_forwarding) == (True, False)
    (home / "keys").write_text(f"no-touch-required {KEY.line()}\n")
    assert await reply_of(files) == Allow(os_account.find("alice"), touch=False)
    (home / "keys").write_text(f'environment="LD_PRELOAD=x" {KEY.line()}\n')
    assert isinstance(await reply_of(files), Deny)


async def test_the_line_that_lets_in_is_in_the_log(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "dunnart.auth")
    (home / "keys").write_text(f"\n{KEY.line()}\n")
    await reply_of(AuthorizedKeysFiles(("keys",), strict_modes=False))
    assert caplog.messages == [f"connection 0: {home}/keys:2 lets the key in"]


async def test_conditions_are_asked_file_by_file(home: Path) -> None:
    files = AuthorizedKeysFiles(("one", "two"), strict_modes=False)
    (home / "one").write_text(f'from="198.51.100.0/24" {KEY.line()}\nexpiry-time="20200101Z" {KEY.line()}\n')
    denied = await reply_of(files)
    assert isinstance(denied, Deny)
    assert '192.0.2.1 is not among its from="198.51.100.0/24"' in denied.detail
    assert "one:2: it expired at 2020-01-01 00:00:00 UTC" in denied.detail
    (home / "two").write_text(f"no-pty {KEY.line()}\n")
    assert await reply_of(files) == Allow(os_account.find("alice"), Rights(pty=False))
    assert await reply_of(files, "198.51.100.9") == Allow(os_account.find("alice"))


async def test_a_line_that_is_not_understood_is_the_end_of_its_key(home: Path) -> None:
    files = AuthorizedKeysFiles(("one", "two"), strict_modes=False)
    (home / "one").write_text(f'tunnel="0",command="x" {KEY.line()}\n')
    (home / "two").write_text(f"{KEY.line()}\n{OTHER.line()}\n")
    denied = await reply_of(files)
    assert isinstance(denied, Deny)
    assert denied.final
    assert await ask(files, key=OTHER)
