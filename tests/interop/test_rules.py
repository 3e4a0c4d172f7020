"""Match tables, lists of users and chains, as OpenSSH's client meets them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Served


def run(
    server: Served, *options: str, command: str = "echo in", key: str | None = "ed25519", terminal: bool = False
) -> subprocess.CompletedProcess[str]:
    line, env = OpenSsh().command(server, *options, key=key, terminal=terminal)
    env |= {"LC_ONE": "1", "LC_TWO": "2"}
    return subprocess.run([*line, command], env=env, capture_output=True, text=True, timeout=SECONDS, check=False)


def configured(start: Serve, tmp_path: Path, text: str, *flags: str) -> Served:
    path = tmp_path / "dunnart.toml"
    path.write_text(text)
    return start("--config", str(path), *flags)


CHAIN = ("-o", "PubkeyAuthentication=yes", "-o", "PreferredAuthentications=publickey,password", "-o", "BatchMode=no")


def both(server: Served) -> tuple[str, ...]:
    return (*CHAIN, "-o", f"IdentityFile={server.keys.path('ed25519')}")


@pytest.mark.parametrize("workers", [1, 2])
def test_one_table_for_logins_from_here(start: Serve, tmp_path: Path, workers: int) -> None:
    text = """\
        methods = ["publickey"]
        accept_env = ["LC_ONE"]
        [[match]]
        address = "198.51.100.0/24"
        force_command = "echo elsewhere"
        [[match]]
        address = ["127.0.0.0/8", "::1"]
        user = "*,!nobody"
        permit_tty = false
        accept_env = ["LC_TWO"]
        forwards = ["unix"]
        [match.set_env]
        PLACE = "here"
        """
    server = configured(start, tmp_path, text, "--workers", str(workers))
    sent = ("-o", "SendEnv=LC_ONE LC_TWO")
    done = run(server, *sent, command='echo "$PLACE ${LC_ONE-none} ${LC_TWO-none}"')
    assert done.stdout == "here none 2\n", done.stderr
    assert "PTY allocation request failed" in run(server, terminal=True).stderr
    refused = run(server, "-W", f"127.0.0.1:{server.port}", command="")
    assert (refused.returncode, refused.stdout) == (255, "")
    assert server.logs("may not have forwarded: connect")


def test_a_chain_for_some(start: Serve, tmp_path: Path) -> None:
    text = '[[match]]\nuser = "{}"\nmethods = ["publickey,password"]\n'
    mine = configured(start, tmp_path, text.format(os.environ.get("USER_OF_TESTS", "*")), "--password", "one-time")
    assert run(mine, *both(mine), key=None).stdout == "in\n"
    alone = run(mine)
    assert (alone.returncode, alone.stdout) == (255, "")
    assert "Permission denied (password)" in alone.stderr
    assert "Permission denied (publickey)" in run(mine, key=None).stderr
    others = configured(start, tmp_path, text.format("nobody-at-all"), "--password", "one-time")
    assert run(others).stdout == "in\n"


def test_a_forced_command_comes_before_a_key_s(start: Serve, tmp_path: Path) -> None:
    server = configured(start, tmp_path, 'force_command = "echo forced: $SSH_ORIGINAL_COMMAND"\n')
    assert run(server, command="id").stdout == "forced: id\n"
    keys = tmp_path / "with_command"
    keys.write_text(f'command="echo of the key" {Path(server.keys.path("ed25519") + ".pub").read_text()}')
    path = tmp_path / "dunnart.toml"
    forced = start("--config", str(path), authorized=str(keys))
    assert run(forced, command="id").stdout == "forced: id\n"
    path.write_text("[[match]]\nuser = 'nobody-at-all'\nforce_command = 'id'\n")
    own = start("--config", str(path), authorized=str(keys))
    assert run(own, command="id").stdout == "of the key\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('allow_users = ["somebody-else"]\n', "not listed in allow_users"),
        ('allow_users = ["*@198.51.100.0/24"]\n', "not listed in allow_users"),
        ('deny_users = ["*@127.0.0.1"]\n', "listed in deny_users"),
        ('[[match]]\nall = true\ndeny_groups = ["*"]\n', "listed in deny_groups"),
        ('allow_groups = ["no-such-group"]\n', "listed in allow_groups"),
    ],
)
def test_who_is_not_listed_is_refused_and_the_log_says_why(
    start: Serve, tmp_path: Path, text: str, reason: str
) -> None:
    server = configured(start, tmp_path, text)
    done = run(server)
    assert (done.returncode, done.stdout) == (255, "")
    assert "Permission denied (publickey)" in done.stderr
    assert server.logs(reason)
    assert reason not in done.stderr


def test_who_is_listed_gets_in(start: Serve, tmp_path: Path) -> None:
    server = configured(start, tmp_path, 'allow_users = ["*@127.0.0.0/8"]\nallow_groups = ["*"]\n')
    assert run(server).stdout == "in\n"
