"""What a login may do is enforced wherever the protocol runs, and whatever the handlers are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Any

import pytest

from dunnart.protocol.events import AuthRefused
from dunnart.protocol.questions import CredentialQuestion, InteractiveCredential, PasswordCredential, PromptQuestion
from dunnart.protocol.requests import (
    ExecRequest,
    PtyRequest,
    ShellRequest,
    SubsystemRequest,
)
from dunnart.server import (
    Address,
    Allow,
    Attempt,
    AuthReply,
    ConnectionFacts,
    Forward,
    Prompt,
    Rights,
    ServerConfig,
    Session,
)
from dunnart.server.host import Host
from tests.runtime.driver import HOST_KEY, PASSWORD, Client
from tests.runtime.test_placements import both_sides, placed

PTY = PtyRequest("xterm", 80, 24, 0, 0, b"")


class Granting:
    """Lets everybody in with these rights."""

    def __init__(self, rights: Rights | None, method: str = "password") -> None:
        self.method = method
        self._rights = rights

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        if isinstance(attempt.credential, InteractiveCredential) and attempt.credential.responses is None:
            return Prompt((("?", False),))
        return Allow("a grant", self._rights)


class Travelling(Granting):
    """Promises that it grants nothing."""

    travels = True


def granting(rights: Rights | None) -> dict[str, Any]:
    return {"authenticators": [Granting(rights)]}


async def start(client: Client, request: Any, *, pty: bool = False) -> tuple[bool, bytes, int | None]:
    """Run a session to its end; gives whether it was begun, its output and its status."""
    channel = await client.session()
    if pty:
        assert await client.ask(channel, PTY)
    if not await client.ask(channel, request):
        return False, bytes(channel.out + channel.err), None
    client.send_eof(channel)
    await client.until(lambda: channel.closed)
    return True, bytes(channel.out + channel.err), channel.status


@both_sides
async def test_a_forced_command_runs_whatever_is_asked_for(
    where: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dunnart")
    rights = Rights(command=b'echo "forced: ${SSH_ORIGINAL_COMMAND-none}"')
    async with placed(where, **granting(rights), accept_env=["*"], subsystems={"sftp": _shown}) as server:
        client = await server.login()
        assert (await start(client, ExecRequest(b"rm -rf \xff"))) == (True, b"forced: rm -rf \xff\n", 0)
        assert (await start(client, ShellRequest())) == (True, b"forced: none\n", 0)
        assert (await start(client, SubsystemRequest("sftp"))) == (True, b"forced: internal-sftp\n", 0)
        assert (await start(client, SubsystemRequest("other"))) == (True, b"forced: other\n", 0)
        assert (await start(client, ExecRequest(b"x"), pty=True))[1] == b"forced: x\r\n"
    assert any("forced to echo" in message for message in caplog.messages)


async def _shown(session: Session) -> None:
    await session.write(f"{session.kind} {session.command} {session.subsystem} {session.environment}")


@both_sides
async def test_handlers_of_programs_get_the_forced_command(where: tuple[str, int]) -> None:
    async with placed(where, _shown, **granting(Rights(command=b"report"))) as server:
        _, shown, _ = await start(await server.login(), ShellRequest())
    assert shown == b"exec report None {}"


@both_sides
async def test_the_forced_command_internal_sftp_is_the_subsystem(where: tuple[str, int]) -> None:
    for command in (b"internal-sftp", b"sftp"):
        async with placed(where, subsystems={"sftp": _shown}, **granting(Rights(command=command))) as server:
            client = await server.login()
            assert (await start(client, SubsystemRequest("sftp"))) == (True, b"subsystem None sftp {}", 0)
            assert (await start(client, SubsystemRequest("other")))[1] == b"subsystem None sftp {}"
            for request in (ExecRequest(b"id"), ShellRequest()):
                assert (await start(client, request)) == (True, b"this login is for SFTP only\r\n", 1)
    async with placed(where, subsystems={"sftp": _shown}, **granting(Rights(command=b"internal-sftp -R"))) as server:
        begun, shown, status = await start(await server.login(), SubsystemRequest("sftp"))
        assert (begun, status) == (True, 1)
        assert b"arguments" in shown


@both_sides
async def test_no_terminal(where: tuple[str, int]) -> None:
    async with placed(where, **granting(Rights(pty=False))) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, PTY)
        assert await client.ask(channel, ExecRequest(b"tty; exit 7"))  # the session goes on without, as in sshd
        await client.until(lambda: channel.closed)
        assert (bytes(channel.out), channel.status) == (b"not a tty\n", 7)
    async with placed(where, **granting(Rights())) as server:
        assert await start(await server.login(), ExecRequest(b"true"), pty=True) == (True, b"", 0)


@both_sides
async def test_no_sessions(where: tuple[str, int]) -> None:
    async with placed(where, **granting(Rights(sessions=False))) as server:
        client = await server.login()
        for request in (ShellRequest(), ExecRequest(b"id"), SubsystemRequest("sftp")):
            assert await start(client, request) == (False, b"", None)


@both_sides
async def test_variables(where: tuple[str, int]) -> None:
    rights = Rights(environment=(("WHO", "me you"), ("PATH", "/bin:/usr/bin:/mine"), ("SSH_CONNECTION", "lie")))
    async with placed(where, **granting(rights)) as server:
        command = b'echo "$WHO|$PATH|${SSH_CONNECTION%% *}"'
        _, shown, _ = await start(await server.login(), ExecRequest(command))
    assert shown == b"me you|/bin:/usr/bin:/mine|127.0.0.1\n"


@both_sides
async def test_rights_that_have_expired_let_nobody_in(where: tuple[str, int], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dunnart")
    async with placed(where, **granting(Rights(expires=time.time() - 1))) as server:
        client = server.begin()
        await client.until(lambda: any(isinstance(event, AuthRefused) for event in client.events))
    assert any("has expired" in message for message in caplog.messages)
    async with placed(where, **granting(Rights(expires=time.time() + 100))) as server:
        await server.login()


def _two_methods() -> dict[Any, Any]:
    tries = iter([PasswordCredential(PASSWORD), InteractiveCredential("", None)])
    return {CredentialQuestion: lambda _: next(tries, None), PromptQuestion: ("x",)}


@both_sides
async def test_a_chain_may_do_what_each_method_allows(where: tuple[str, int]) -> None:
    chain = {
        "authenticators": [
            Granting(Rights(pty=False)),
            Granting(Rights(command=b"echo forced"), "keyboard-interactive"),
        ],
        "methods": ["password,keyboard-interactive"],
    }
    async with placed(where, **chain) as server:
        client = await server.login(answers=_two_methods())
        channel = await client.session()
        assert not await client.ask(channel, PTY)
        assert (await start(client, ShellRequest())) == (True, b"forced\n", 0)


@both_sides
async def test_two_forced_commands_get_nobody_anything(
    where: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dunnart")
    chain = {
        "authenticators": [Granting(Rights(command=b"a")), Granting(Rights(command=b"b"), "keyboard-interactive")],
        "methods": ["password,keyboard-interactive"],
    }
    async with placed(where, **chain) as server:
        client = server.begin(answers=_two_methods())
        await client.until(lambda: any(isinstance(event, AuthRefused) for event in client.events))
    assert any("two different commands are forced" in message for message in caplog.messages)


class _Everything:
    async def allows(self, forward: Forward) -> bool:
        return True


async def test_forwards_need_the_rights_beside_the_policies() -> None:
    loop = asyncio.get_running_loop()
    config = ServerConfig(_shown, host_keys=[HOST_KEY], authenticators=[Granting(None)], forwarding=[_Everything()])
    host = Host(config, loop, loop, Counter())

    async def allowed(rights: Rights, kind: Any) -> bool:
        facts = ConnectionFacts(1, "user", Address("192.0.2.1", 1), Address("192.0.2.2", 22), rights=rights)
        return await host.allows(Forward(facts, kind, "db", 5432, "/path"))

    kinds = ("connect", "listen", "connect-unix", "listen-unix", "agent", "x11")
    assert [kind for kind in kinds if not await allowed(Rights(), kind)] == []
    assert [kind for kind in kinds if await allowed(Rights.nothing(), kind)] == []
    assert await allowed(Rights(permit_open=(("db", 5432),)), "connect")
    assert not await allowed(Rights(permit_open=(("db", 5433),)), "connect")
    assert host.counters["refused_forwards"] == len(kinds) + 1
    await host.close()


async def test_what_travels_cannot_take_anything_away(caplog: pytest.LogCaptureFixture) -> None:
    """Its rights would be known where it decided, and nowhere else."""
    async with placed(("process", 1), authenticators=[Travelling(Rights(pty=False))]) as server:
        client = server.begin()
        await client.until(lambda: any(isinstance(event, AuthRefused) for event in client.events))
    assert any("an authenticator that travels" in message for message in caplog.messages)
    async with placed(("process", 1), authenticators=[Travelling(None)]) as server:
        await server.login()


def test_rights_are_no_grant() -> None:
    with pytest.raises(TypeError, match="second"):
        Allow(Rights(pty=False))
    with pytest.raises(TypeError, match="rights"):
        Allow(None, "restrict")  # type: ignore[arg-type]
