"""Requests of one client that its protocol process must not pass on as they come (THREATS R2).

What a process cannot mean ends it, and with it the connections of all others.
"""

from __future__ import annotations

from typing import Any

import pytest

from dunnart.keys.rights import Rights
from dunnart.protocol.events import AuthRefused, LoggedIn
from dunnart.protocol.limits import Limits
from dunnart.protocol.questions import Allow, CredentialQuestion, InteractiveCredential, PasswordCredential
from dunnart.protocol.requests import HostkeysProve, UnknownRequest
from dunnart.server import Attempt, AuthReply, Session, SessionRequest
from dunnart.server.processes.verified import _SIGNATURES
from dunnart.wire.encoding import string
from tests.runtime.driver import HOST_KEY, PASSWORD
from tests.unit.server.api import begin, ended, serving


async def echo(session: Session) -> None:
    await session.write(await session.read())


async def test_proofs_of_host_keys_without_end() -> None:
    async with serving("process", echo) as server:
        other = await server.login()
        channel = await begin(other)
        client = await server.login()
        for _ in range(3 * _SIGNATURES):
            client.engine.request_global(HostkeysProve(string(HOST_KEY.public.blob)), want_reply=True)
        client.move()
        await client.until(lambda: client.eof or len(client.global_answers) > _SIGNATURES)
        await other.send_all(channel, b"still here")
        assert await ended(other, channel) == 0
        assert (bytes(channel.out), client.eof) == (b"still here", False)


async def test_more_requests_for_a_session_than_there_may_be_channels() -> None:
    class Preparing:
        async def prepare(self, _: SessionRequest) -> dict[str, str]:
            return {}

    requests: dict[str, Any] = {"first@x": Preparing(), "second@x": Preparing()}
    async with serving("process", echo, session_requests=requests, limits=Limits(channels=2)) as server:
        other = await server.login()
        channel = await begin(other)
        client = await server.login()
        one, two = await client.session(), await client.session()
        for each, name in ((one, "first@x"), (two, "first@x"), (one, "second@x")):
            assert await client.ask(each, UnknownRequest(name, b""))
        await other.send_all(channel, b"still here")
        assert await ended(other, channel) == 0


class Forcing:
    """Lets everybody in, and has the command of all be another once `forces`."""

    forces = False

    def __init__(self, method: str, command: bytes) -> None:
        self.method = method
        self._rights = Rights(command=command)

    async def authenticate(self, _: Attempt) -> AuthReply:
        return Allow(None, self._rights if self.forces else None)


def first_password_then_prompts(question: CredentialQuestion) -> Any:
    if "password" in question.methods:
        return PasswordCredential(PASSWORD)
    return InteractiveCredential("", None) if question.partial else None


@pytest.mark.parametrize("placement", ["loop", "process"])
async def test_a_login_with_two_commands_that_wants_a_terminal(placement: str) -> None:
    authenticators = [Forcing("password", b"one"), Forcing("keyboard-interactive", b"two")]
    answers: dict[Any, Any] = {CredentialQuestion: first_password_then_prompts}
    chain = ["password,keyboard-interactive"]
    async with serving(placement, echo, authenticators=authenticators, methods=chain) as server:
        other = await server.login(answers=answers)
        channel = await begin(other)
        for each in authenticators:
            each.forces = True
        client = server.begin(answers=answers)
        await client.until(
            lambda: client.eof or any(isinstance(each, LoggedIn | AuthRefused) for each in client.events)
        )
        assert not any(isinstance(each, LoggedIn) for each in client.events)
        await other.send_all(channel, b"still here")
        assert await ended(other, channel) == 0
