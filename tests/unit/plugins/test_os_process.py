"""The shell, commands, and the environment of a login."""

from __future__ import annotations

import logging
import os
import shutil
from typing import Any

import pytest

from dunnart.plugins import os_account, os_process
from dunnart.plugins.os_account import Account
from dunnart.protocol.requests import EnvironmentRequest, ExecRequest, PtyRequest, ShellRequest
from tests.runtime.driver import USER, Client, serving

BUILT_IN: dict[str, Any] = {"exec": os_process.OsExec(), "shell": os_process.OsShell()}


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> list[Account]:
    """Whom the system is said to know: a list, so that a test can change it."""
    found = [Account(USER, os.geteuid(), os.getegid(), "/nonexistent", "/bin/sh")]
    monkeypatch.setattr(os_account, "find", lambda name: found[0] if found and name == USER else None)
    return found


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
        assert not await client.ask(channel, ShellRequest())
        assert server.server.connections == 1


@pytest.mark.parametrize("reason", ["no shell", "too long"])
async def test_what_cannot_be_started_is_a_warning_and_a_refusal(
    account: list[Account], caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    caplog.set_level(logging.WARNING)
    if reason == "no shell":
        account[0] = Account(USER, os.geteuid(), os.getegid(), "/", "/nonexistent/shell")
    async with serving(**BUILT_IN) as server:
        client = await server.login()
        channel = await client.session()
        command = b"true" if reason == "no shell" else b": " + b"x" * 150_000
        assert not await client.ask(channel, ExecRequest(command))
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
