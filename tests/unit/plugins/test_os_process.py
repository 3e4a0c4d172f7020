"""The shell, commands, and the environment of a login."""

from __future__ import annotations

import logging
import os
import shutil
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dunnart.plugins import login_records, os_account, os_login, os_process
from dunnart.plugins.os_account import Account
from dunnart.protocol.requests import EnvironmentRequest, ExecRequest, PtyRequest, ShellRequest
from dunnart.server import host
from tests.runtime.driver import SECONDS, USER, Client, eventually, serving

BUILT_IN: dict[str, Any] = {"exec": os_process.OsExec(), "shell": os_process.OsShell()}


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> list[Account]:
    """Whom the system is said to know: a list, so that a test can change it."""
    found = [Account(USER, os.geteuid(), os.getegid(), "/nonexistent", "/bin/sh")]
    monkeypatch.setattr(os_account, "find", lambda name: found[0] if found and name == USER else None)
    return found


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in the place of this system's files."""
    monkeypatch.setattr(os_login, "RECORDS", tuple(str(tmp_path / name) for name in ("utmp", "wtmp", "lastlog")))
    for name in ("NOLOGIN", "MOTD", "SYSTEM_RC"):
        monkeypatch.setattr(os_login, name, str(tmp_path / name.lower()))
    return tmp_path


async def environment(client: Client, *, terminal: bool = False, **variables: str) -> dict[str, str]:
    channel = await client.session()
    for name, value in variables.items():
        await client.ask(channel, EnvironmentRequest(name, value))
    if terminal:
        assert await client.ask(channel, PtyRequest("xterm", 80, 24, 0, 0, b""))
    assert await client.ask(channel, ExecRequest(b"env"))
    await client.until(lambda: channel.closed)
    return dict(line.split("=", 1) for line in channel.out.decode().splitlines())


async def test_the_environment_is_a_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_SERVER", "secret")
    monkeypatch.setenv("TZ", "UTC")
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        address, port = client.sock.getsockname()
        seen = await environment(client)
        for name in ("_", "OLDPWD", "SHLVL"):  # the shell's own
            seen.pop(name, None)
        assert seen.pop("PATH").split(":")[-1].startswith("/")
        assert seen == {
            "USER": USER, "LOGNAME": USER, "HOME": "/nonexistent", "SHELL": "/bin/sh", "MAIL": f"/var/mail/{USER}",
            "PWD": "/", "TZ": "UTC", "SSH_CLIENT": f"{address} {port} {server.address[1]}",
            "SSH_CONNECTION": f"{address} {port} 127.0.0.1 {server.address[1]}",
        }  # fmt: skip


async def test_the_client_replaces_nothing() -> None:
    async with serving(**BUILT_IN, accept_env=("*",)) as server:
        client = await server.login()
        seen = await environment(client, PATH="/evil", HOME="/evil", SSH_CLIENT="evil", EXTRA="fine")
        assert "evil" not in "".join(seen.values())
        assert seen["EXTRA"] == "fine"


async def test_a_terminal_is_named() -> None:
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        seen = await environment(client, terminal=True)
        assert seen["TERM"] == "xterm"
        assert seen["SSH_TTY"].startswith("/dev/")


async def test_a_shell_is_a_login_shell() -> None:
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        channel = await client.session()
        assert await client.ask(channel, ShellRequest())
        client.send(channel, b"echo $0; pwd; exit 4\n")
        await client.until(lambda: channel.closed)
        assert (channel.out, channel.status) == (b"-sh\n/\n", 4)


async def test_a_command_is_bytes() -> None:
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        assert (await client.run(b"printf '%s' '\xff\xe9'")).out == b"\xff\xe9"


async def test_a_user_removed_since_the_login_gets_no_session(account: list[Account]) -> None:
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        account.clear()
        channel = await client.session()
        await client.ask(channel, ShellRequest())
        await client.until(lambda: channel.closed)
        assert channel.status == 1
        assert b"is no user that can be served" in channel.err
        assert server.server.connections == 1


@pytest.mark.parametrize("reason", ["no shell", "too long"])
async def test_what_cannot_be_started_is_a_warning_and_told(
    account: list[Account], caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    caplog.set_level(logging.WARNING)
    if reason == "no shell":
        account[0] = Account(USER, os.geteuid(), os.getegid(), "/", "/nonexistent/shell")
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        channel = await client.session()
        command = b"true" if reason == "no shell" else b": " + b"x" * 150_000
        await client.ask(channel, ExecRequest(command))
        await client.until(lambda: channel.closed)
        assert channel.status == 1
        assert b"cannot be started" in channel.err
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "cannot be started" in caplog.messages[0]
        assert server.server.counters["failures"] == 0


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("id") is None, reason="only root starts programs of others")
async def test_root_becomes_the_user(account: list[Account]) -> None:
    account[0] = Account(USER, 65534, 65534, "/", "/bin/sh")
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        channel = await client.run("id -u; id -g; id -G; cat /proc/self/status | grep CapEff; umask")
        uid, gid, groups, capabilities, _ = channel.out.decode().splitlines()
        assert (uid, gid) == ("65534", "65534")
        assert "0" not in groups.split() or groups == "65534"
        assert int(capabilities.split()[-1], 16) == 0


async def shown(client: Client, command: str = "") -> str:
    """What a terminal shows before a shell's own output, or a command's."""
    channel = await client.session()
    assert await client.ask(channel, PtyRequest("xterm", 80, 24, 0, 0, b""))
    await client.ask(channel, ExecRequest(command.encode()) if command else ShellRequest())
    if not command:
        client.send(channel, b"exit 3\n")
    await client.until(lambda: channel.closed)
    return channel.out.decode()


async def test_what_a_login_is_greeted_with(system: Path, account: list[Account]) -> None:
    home = system / "home"
    home.mkdir()
    account[0] = Account(USER, os.geteuid(), os.getegid(), str(home), "/bin/sh")
    (system / "motd").write_text("Mind the gap.\nAll is well.\n")
    record = struct.pack("=i32s256s", 1_000_000_000, b"pts/7", b"192.0.2.7")
    with (system / "lastlog").open("wb") as file:
        file.seek(os.geteuid() * len(record))
        file.write(record)
    when = time.ctime(1_000_000_000)
    quiet = os_process.OsShell(os_login.Options(print_motd=False, print_last_log=False, record_logins=False))
    async with serving(shell=quiet) as server:
        assert "Mind" not in (first := await shown(await server.login()))
        assert "Last" not in first
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        first = await shown(client)
        if os.uname().machine == "x86_64":
            assert first.startswith(f"Last login: {when} from 192.0.2.7\r\nMind the gap.\r\nAll is well.\r\n")
        assert first.count("Mind the gap.\r\nAll is well.\r\n") == 1
        assert await shown(client, "echo only this") == "only this\r\n"
        # Whether there is something behind a link is not told: root could see it where the user cannot.
        (home / ".hushlogin").symlink_to(system / "nothing")
        assert "gap" not in await shown(client)


async def test_nologin_keeps_others_out(system: Path, account: list[Account]) -> None:
    (system / "nologin").write_text("Down until noon.\nSorry.\n")
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        if os.geteuid() == 0:
            assert (await client.run("echo root may")).out == b"root may\n"
        account[0] = Account(USER, os.geteuid() or 65534, os.getegid() or 65534, "/", "/bin/sh")
        channel = await client.run("echo in")
        assert (channel.out, channel.err, channel.status) == (b"", b"Down until noon.\nSorry.\r\n", 254)


async def test_files_of_the_users_own(system: Path, account: list[Account]) -> None:
    folder = system / "home/.ssh"
    folder.mkdir(parents=True)
    account[0] = Account(USER, os.geteuid(), os.getegid(), str(folder.parent), "/bin/sh")
    (folder / "rc").write_text("read proto cookie; echo rc $proto $cookie in $PWD with $COLOUR\n")
    (folder / "environment").write_text("# of mine\n COLOUR=blue\nHOME=/evil\nSSH_CLIENT=evil\nnonsense\nX=1\n")
    (system / "system_rc").write_text("echo the system\n")
    options = os_login.Options(user_environment=("C*", "SSH_*"))
    async with serving(exec=os_process.OsExec(options), shell=os_process.OsShell(options)) as server:
        client = await server.login()
        channel = await client.run("echo $COLOUR $HOME ${SSH_CLIENT%% *} $X; trap; kill -PIPE $$; echo alive")
        ours = folder.parent
        assert channel.out.decode() == f"rc in {ours} with blue\nblue {ours} {client.sock.getsockname()[0]}\n"
        assert channel.signal == "PIPE"
        assert "-sh" in await shown(client, "echo $0; test -t 0 && exec 3</dev/tty && echo -sh")
    async with serving(exec=os_process.OsExec(os_login.Options(permit_user_rc=False))) as server:
        assert (await (await server.login()).run("echo $COLOUR")).out == b"the system\n\n"


async def test_a_home_that_does_not_answer_keeps_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, look, waiting = threading.Event(), os_login.look, [True]

    def slow(account: Account, options: os_login.Options, **asked: bool) -> os_login.Found:
        if waiting:
            waiting.pop()
            answers.wait()
        return look(account, options, **asked)

    monkeypatch.setattr(os_login, "look", slow)
    try:
        async with serving(**BUILT_IN, callback_seconds=3.0) as server:
            client = await server.login()
            stuck = await client.exec("echo stuck")
            assert (await client.run("echo other")).out == b"other\n"
            assert not stuck.closed
            await client.until(lambda: stuck.closed)
            assert (stuck.out, stuck.status) == (b"", 75)
            assert b"does not answer" in stuck.err
    finally:
        answers.set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root serves others, and records logins")
async def test_a_login_is_recorded_where_something_runs_before(system: Path, account: list[Account]) -> None:
    (system / "utmp").touch()
    (system / "system_rc").write_text("echo only for who may read it\n")
    account[0] = Account(USER, 65534, 65534, "/", "/bin/sh")
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        channel = await client.session()
        assert await client.ask(channel, PtyRequest("xterm", 80, 24, 0, 0, b""))
        await client.ask(channel, ExecRequest(b"echo $$ $SSH_TTY; read x"))
        await client.until(lambda: channel.out.count(b"\n"))
        pid, tty = bytes(channel.out).split()
        record = (system / "utmp").read_bytes()
        assert record[:2] == b"\7\0"
        assert int.from_bytes(record[4:8], sys.byteorder) == int(pid)
        assert record[8:40].rstrip(b"\0") == tty.removeprefix(b"/dev/")
        assert os.stat(tty).st_uid == 65534
        client.send(channel, b"\n")
        await client.until(lambda: channel.closed)
        await eventually(lambda: (system / "utmp").read_bytes()[:2] == b"\10\0")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root serves others, and records logins")
async def test_no_login_waits_for_records_that_somebody_keeps_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_CALLBACK_THREADS", 1)
    waits, goes_on = threading.Event(), threading.Event()

    def begin(*_: object) -> None:
        waits.set()
        goes_on.wait(SECONDS)

    monkeypatch.setattr(login_records, "begin", begin)
    try:
        async with serving(**BUILT_IN) as server:
            client = await server.login()
            channel = await client.session()
            assert await client.ask(channel, PtyRequest("xterm", 80, 24, 0, 0, b""))
            await client.ask(channel, ExecRequest(b"read x"))
            await eventually(waits.is_set)
            assert (await client.run("echo other")).out == b"other\n"
            goes_on.set()
    finally:
        goes_on.set()
