"""The program that knows more keys."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dunnart.errors import ConfigError
from dunnart.keys import PrivateKey, PublicKey
from dunnart.plugins import keys_command, os_account
from dunnart.plugins.authorized_keys import AuthorizedKeysFiles
from dunnart.plugins.keys_command import KeysCommand, filled_in, parse_command
from dunnart.plugins.os_account import Account
from dunnart.server import Address, Allow, Attempt, Deny, PublicKeyCredential, Rights
from tests.runtime.driver import alive, descriptors, eventually

KEY = PrivateKey.generate("ed25519").public
OTHER = PrivateKey.generate("ed25519").public
RUNNER = Account("runner", os.geteuid(), os.getegid(), "/", "/bin/sh")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of alice; programs run as whoever runs the tests."""
    found = {"alice": Account("alice", 1234, 1234, str(tmp_path), "/bin/sh"), "runner": RUNNER}
    monkeypatch.setattr(os_account, "find", found.get)
    monkeypatch.setattr(keys_command, "strict_modes_reason", lambda *_: None)  # /tmp is everybody's
    return tmp_path


def script(home: Path, text: str, arguments: str = "", **options: Any) -> KeysCommand:
    path = home / "command"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return KeysCommand(f"{path} {arguments}", "runner", **options)


def _attempt(user: str, credential: PublicKeyCredential) -> Attempt:
    return Attempt(user, credential, "192.0.2.1", port=9999, local=Address("192.0.2.2", 22))


async def ask(command: KeysCommand, user: str = "alice", key: PublicKey = KEY) -> Allow | Deny:
    files = AuthorizedKeysFiles(("keys",), strict_modes=False, command=command)
    credential = PublicKeyCredential(key, "ssh-ed25519", signed=True)
    reply = await asyncio.wait_for(files.authenticate(_attempt(user, credential)), 30)
    assert isinstance(reply, Allow | Deny)
    return reply


async def test_it_says_who_may_log_in_and_its_options_are_obeyed(home: Path) -> None:
    command = script(home, f"echo '# keys'; echo 'no-pty {KEY.line()}'")
    assert (await ask(command)) == Allow(os_account.find("alice"), Rights(pty=False))
    assert isinstance(await ask(command, key=OTHER), Deny)


async def test_it_is_asked_after_the_files_and_only_if_they_do_not_let_the_key_in(home: Path) -> None:
    command = script(home, f"touch {home}/asked; echo '{KEY.line()}'")
    (home / "keys").write_text(f"{KEY.line()}\n")
    assert (await ask(command)) == Allow(os_account.find("alice"))
    assert not (home / "asked").exists()
    (home / "keys").write_text(f'from="192.0.2.2" {KEY.line()}\n')
    assert isinstance(await ask(command), Allow)  # as in sshd
    assert (home / "asked").exists()
    (home / "keys").write_text(f"unheard-of {KEY.line()}\n")
    (home / "asked").unlink()
    reply = await ask(command)
    assert isinstance(reply, Deny)
    assert "not understood" in reply.detail
    assert not (home / "asked").exists()


async def test_tokens_and_surroundings(home: Path) -> None:
    shown = home / "shown"
    command = script(home, f'for each; do echo "$each"; done > {shown}; env >> {shown}; pwd >> {shown}',
                     "'%u %U' %h %t %k %f 100%% '' %C a%Db")  # fmt: skip
    assert isinstance(await ask(command), Deny)
    lines = shown.read_text().splitlines()
    key_type, blob = KEY.line().split()[:2]
    assert lines[:7] == ["alice 1234", str(home), key_type, blob, KEY.fingerprint(), "100%", ""]
    assert lines[7:9] == ["192.0.2.2 22 192.0.2.1 9999", "ab"]
    assert {"USER=runner", "LOGNAME=runner", "HOME=/"} <= set(lines[9:])
    assert lines[-1] == "/"
    names = {line.partition("=")[0] for line in lines[9:-1]}
    assert names <= {"USER", "LOGNAME", "HOME", "PATH", "PWD", "SHLVL", "_", "OLDPWD"}  # the shell adds some
    await ask(script(home, f'echo "$*" > {shown}'))
    assert shown.read_text() == "alice\n"


@pytest.mark.parametrize("ending", ["exit 1", "kill -9 $$", "false"])
async def test_one_that_fails_lets_nobody_in(home: Path, ending: str, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(await ask(script(home, f"echo '{KEY.line()}'; {ending}")), Deny)
    assert any("has ended with" in message for message in caplog.messages)


async def test_one_that_hangs_is_killed_with_all_that_it_started(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = script(home, f"sleep 1000 & echo $! > {home}/pid; echo '{KEY.line()}'; wait", seconds=2.0)
    assert isinstance(await ask(command), Deny)
    assert any("has not ended within 2 s" in message for message in caplog.messages)
    pid = int((home / "pid").read_text())
    await eventually(lambda: not alive(pid))


async def test_nothing_is_kept_of_one_that_leaves_something_behind(home: Path) -> None:
    await ask(script(home, "true"))
    before = descriptors()
    command = script(home, f"sleep 1000 & echo $! > {home}/pid; echo '{KEY.line()}'", seconds=2.0)
    try:
        assert isinstance(await ask(command), Deny)
        await eventually(lambda: descriptors() <= before)
    finally:
        os.kill(int((home / "pid").read_text()), signal.SIGKILL)


async def test_a_hanging_one_holds_up_no_other_login(home: Path) -> None:
    command = script(home, f"echo x >> {home}/began; sleep 1000", seconds=100.0)
    hanging = [asyncio.create_task(ask(command)) for _ in range(20)]
    await eventually(lambda: (home / "began").exists() and len((home / "began").read_text().split()) == 20)
    (home / "keys").write_text(f"{OTHER.line()}\n")
    files = AuthorizedKeysFiles(("keys",), strict_modes=False)
    credential = PublicKeyCredential(OTHER, "ssh-ed25519", signed=True)
    assert isinstance(await files.authenticate(Attempt("alice", credential, "192.0.2.1")), Allow)
    assert not any(each.done() for each in hanging)
    for each in hanging:
        each.cancel()
    assert {type(reply) for reply in await asyncio.gather(*hanging, return_exceptions=True)} == {asyncio.CancelledError}


async def test_one_that_talks_too_much_lets_nobody_in(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = script(home, f"echo '{KEY.line()}'; exec cat /dev/zero")
    assert isinstance(await ask(command), Deny)
    assert any("more than 1 MiB" in message for message in caplog.messages)


async def test_users_who_do_not_exist_take_as_long(home: Path) -> None:
    ran = home / "ran"
    command = script(home, f"echo x >> {ran}; sleep 0.3")
    await ask(command)
    began = time.monotonic()
    reply = await ask(command, user="nobody-here")
    assert isinstance(reply, Deny)
    assert reply.unknown_user
    assert time.monotonic() - began >= 0.3
    assert ran.read_text() == "x\n"


async def test_a_program_that_others_can_write_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    found = {"alice": Account("alice", 1234, 1234, str(tmp_path), "/bin/sh"), "runner": RUNNER}
    monkeypatch.setattr(os_account, "find", found.get)
    command = script(tmp_path, f"echo '{KEY.line()}'")
    (tmp_path / "command").chmod(0o777)
    assert isinstance(await ask(command), Deny)
    assert any("bad modes: 777" in message for message in caplog.messages)
    assert isinstance(await ask(KeysCommand("/no/such/program", "runner")), Deny)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("", "absolute"),
        ("keys %u", "absolute"),
        ("./keys", "absolute"),
        ("/bin/keys 'open", "quotation"),
        ("/bin/keys %x", "something else than"),
        ("/bin/keys 5%", "something else than"),
        ("/bin/keys %%%", "something else than"),
    ],
)
def test_commands_that_are_none(command: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_command(command)


def test_its_user_must_be_there() -> None:
    with pytest.raises(ConfigError, match="must be given"):
        KeysCommand("/bin/keys", "")
    with pytest.raises(ConfigError, match="no user as whom"):
        KeysCommand("/bin/keys", "no-such-user-here")


def test_filling_in() -> None:
    tokens = {"u": "%h", "h": "/home"}
    assert filled_in("a%u%%u%h%x%", tokens) == "a%h%u/home%x%"
    assert filled_in("", tokens) == ""
    assert filled_in("%%", tokens) == "%"
