"""Started as root, the server serves every user, and as that user in every respect."""

from __future__ import annotations

import os
import pwd
import subprocess

import pytest

from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Served, terminal_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can serve other users")
OTHERS = [name for name in ("nobody", "daemon", "games") if any(name == entry.pw_name for entry in pwd.getpwall())]


def log_in(server: Served, user: str, command: str, *, terminal: bool = False) -> subprocess.CompletedProcess[str]:
    line, env = OpenSsh().command(server, "-o", f"User={user}", terminal=terminal)
    return subprocess.run([*line, command], env=env, capture_output=True, text=True, timeout=SECONDS, check=False)


@needs_root
@pytest.mark.parametrize("user", OTHERS)
def test_another_user(start: Serve, user: str) -> None:
    server = start(shell="/bin/sh")  # theirs lets nobody in
    entry = pwd.getpwnam(user)
    command = (
        "id -ru; id -u; id -rg; id -g; id -G; grep CapEff /proc/self/status; echo $USER $LOGNAME $HOME $SHELL; pwd"
    )
    done = log_in(server, user, command)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[:4] == [str(entry.pw_uid)] * 2 + [str(entry.pw_gid)] * 2
    assert set(map(int, lines[4].split())) == set(os.getgrouplist(user, entry.pw_gid))
    assert lines[5].split() == ["CapEff:", "0" * 16]
    assert lines[6] == f"{user} {user} {entry.pw_dir} /bin/sh"
    assert lines[7] == (entry.pw_dir if os.path.isdir(entry.pw_dir) else "/")


@needs_root
@pytest.mark.parametrize("user", OTHERS)
def test_another_user_owns_the_terminal(start: Serve, user: str) -> None:
    server = start(shell="/bin/sh")
    assert log_in(server, user, "echo >/dev/tty ok", terminal=True).stdout == "ok\n"
    said = terminal_of(lambda: log_in(server, user, "stat -c '%U %G %a' $(tty)", terminal=True).stdout)
    assert said == f"{user} tty 620"


@needs_root
def test_another_user_cannot_read_what_is_roots(start: Serve) -> None:
    server = start(shell="/bin/sh")
    done = log_in(server, OTHERS[0], f"cat '{server.folder}/state/'*; cat /proc/{server.process.pid}/environ")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Permission denied" in done.stderr


@needs_root
@pytest.mark.parametrize("user", OTHERS)
def test_a_login_shell_that_refuses(start: Serve, user: str) -> None:
    shell = pwd.getpwnam(user).pw_shell
    if not shell.endswith("nologin"):
        pytest.skip(f"{user} has {shell}")
    done = log_in(start(), user, "id")
    assert (done.returncode, done.stdout) == (1, "This account is currently not available.\n")


@needs_root
def test_a_shell_that_does_not_exist(start: Serve) -> None:
    server = start(shell="/nonexistent/shell")
    done = log_in(server, OTHERS[0], "id")
    assert (done.returncode, done.stdout) == (255, ""), "as in sshd, whoever has no shell does not get in at all"
    assert "Permission denied" in done.stderr
    assert server.logs("the user's shell is not there, or cannot be run")


def test_a_user_who_does_not_exist_and_one_without_the_key_look_alike(start: Serve) -> None:
    server = start(authorized="%h/keys")
    known, unknown = (log_in(server, user, "id") for user in (server.user, "no-such-user-here"))
    assert known.returncode == unknown.returncode == 255
    assert known.stderr.replace(server.user, "X") == unknown.stderr.replace("no-such-user-here", "X")
    assert "Permission denied" in known.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may serve others")
@pytest.mark.parametrize("user", ["root", *OTHERS])
def test_without_root_nobody_else(server: Served, user: str) -> None:
    if user == server.user:
        pytest.skip(f"{user} runs the server")
    assert log_in(server, user, "id").returncode == 255
