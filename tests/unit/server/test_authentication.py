"""Authenticators: what they answer, how they fail, how long a refusal takes, what becomes of those at work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

import pytest

from dunnart.errors import ConfigError
from dunnart.keys.private import PrivateKey
from dunnart.protocol.events import AuthRefused, LoggedIn
from dunnart.protocol.limits import Limits
from dunnart.protocol.questions import (
    Allow,
    AuthReply,
    CredentialQuestion,
    Deny,
    InteractiveCredential,
    PasswordCredential,
    Prompt,
    PromptQuestion,
    PublicKeyCredential,
    SignQuestion,
)
from dunnart.server import AllowAnyone, Attempt, PasswordCallback, Session
from dunnart.server.config import ServerConfig
from tests.runtime.driver import PASSWORD, USER, Client, Serving, eventually, right_password, serving
from tests.unit.server import api
from tests.unit.server.api import every_placement


class Deciding:
    """An authenticator made of a coroutine function."""

    def __init__(self, method: str, decide: Callable[[Attempt], Awaitable[Any]]) -> None:
        self.method = method
        self._decide = decide

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        return cast("AuthReply", await self._decide(attempt))


def trying(*credentials: object) -> dict[Any, Any]:
    """Answers of a client that tries these, one after the other."""
    rest = iter(credentials)
    return {CredentialQuestion: lambda _question: next(rest, None)}


async def outcome(server: Serving, **options: Any) -> tuple[Client, bool]:
    """Whether the login succeeded, or was refused for good."""
    client = server.begin(**options)
    await client.until(lambda: any(isinstance(event, LoggedIn | AuthRefused) for event in client.events))
    return client, any(isinstance(event, LoggedIn) for event in client.events)


async def test_the_right_password_and_nothing_else() -> None:
    async with serving() as server:
        assert (await outcome(server))[1]
        assert not (await outcome(server, password="wrong"))[1]
        assert server.server.counters["logins"] == 1
        assert server.server.counters["auth_failures"] == 1


async def test_anyone_only_where_it_is_said() -> None:
    async with serving(authenticators=(AllowAnyone(),)) as server:
        client, done = await outcome(server, answers=trying())
        assert done
        assert (await client.run("echo in")).out == b"in\n"


@pytest.mark.parametrize("reply", [None, True, "yes", Prompt((("?", False),)), PASSWORD])
async def test_only_allow_lets_in(reply: object) -> None:
    async def decide(_: Attempt) -> object:
        return reply

    async with serving(authenticators=(Deciding("password", decide),)) as server:
        assert not (await outcome(server))[1]


async def _raise(_: Attempt) -> AuthReply:
    raise ZeroDivisionError("an authenticator's own fault")


async def _cancelled(_: Attempt) -> AuthReply:
    raise asyncio.CancelledError


@pytest.mark.parametrize("decide", [_raise, _cancelled])
async def test_a_failing_authenticator_denies_and_is_logged(
    decide: Callable[[Attempt], Awaitable[AuthReply]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(authenticators=(Deciding("password", decide),)) as server:
        client, done = await outcome(server)
        assert not done
        assert server.server.counters["failures"] == 1
        assert any(message.startswith("failed: ") for message in caplog.messages)
        assert server.server.counters["failures"] == 1
        assert client.ended is None
        assert PASSWORD not in caplog.text


@pytest.mark.parametrize("reply", [Deny(), None])
async def test_every_refusal_takes_its_time(reply: object) -> None:
    """THREATS R15: a floor of 5 ms, or what is configured."""

    async def decide(_: Attempt) -> object:
        return reply

    async def elapsed(**options: Any) -> float:
        async with serving(authenticators=(Deciding("password", decide),), **options) as server:
            client = server.begin(answers=trying())
            await client.until(lambda: any(isinstance(event, AuthRefused) for event in client.events))
            again = server.begin()
            loop = asyncio.get_running_loop()
            began = 0.0

            def password(_question: object) -> PasswordCredential | None:
                nonlocal began
                if began:
                    return None
                began = loop.time()
                return PasswordCredential("wrong")

            again.answers[CredentialQuestion] = password
            await again.until(lambda: any(isinstance(event, AuthRefused) for event in again.events))
            return loop.time() - began

    assert await elapsed() >= 0.005
    assert await elapsed(limits=Limits(auth_delay_seconds=0.1)) >= 0.1


async def test_an_unknown_user_is_asked_about_like_a_known_one() -> None:
    asked: list[str] = []

    async def check(user: str, password: str) -> bool:
        asked.append(user)
        return False

    async with serving(authenticators=(PasswordCallback(check),)) as server:
        texts = []
        for user in (USER, "nobody-of-that-name"):
            client = server.begin()
            object.__setattr__(client.engine.config, "user", user)
            telling = (AuthRefused, CredentialQuestion)
            events = client.events
            await client.until(lambda events=events: any(isinstance(e, AuthRefused) for e in events))  # type: ignore[misc]
            texts.append([repr(event) for event in client.events if isinstance(event, telling)])
        assert asked == [USER, "nobody-of-that-name"]
        assert texts[0] == texts[1]


async def test_a_slow_authenticator_holds_nobody_else_up() -> None:
    release = asyncio.Event()

    async def check(user: str, password: str) -> bool:
        if password == "slow":
            await release.wait()
        return await right_password(user, PASSWORD)

    async with serving(authenticators=(PasswordCallback(check),)) as server:
        slow = server.begin(password="slow")
        await slow.until(lambda: any(isinstance(event, CredentialQuestion) for event in slow.events))
        assert (await outcome(server))[1]
        assert not any(isinstance(event, LoggedIn) for event in slow.events)
        release.set()
        await slow.until(lambda: any(isinstance(event, LoggedIn) for event in slow.events))


async def test_a_hanging_authenticator_ends_with_the_login_grace(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cancelled: list[bool] = []

    async def check(user: str, password: str) -> bool:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return True

    limits = Limits(login_grace_seconds=1.5)
    async with serving(authenticators=(PasswordCallback(check),), limits=limits) as server:
        client = server.begin()
        await client.until(lambda: client.ended is not None)
        assert client.ended is not None
        assert (client.ended.reason_code, client.ended.text) == (11, "timeout before authentication")
        await eventually(lambda: cancelled)
        assert server.server.connections == 0
        assert any(message.startswith("Timeout before authentication") for message in caplog.messages)


async def test_an_authenticator_is_cancelled_when_its_client_vanishes() -> None:
    state: list[str] = []

    async def check(user: str, password: str) -> bool:
        state.append("asked")
        try:
            await asyncio.Event().wait()
        finally:
            state.append("cancelled")
        return True

    async with serving(authenticators=(PasswordCallback(check),)) as server:
        for vanish in (Client.reset, Client.close):
            client = server.begin()
            await eventually(lambda: state[-1:] == ["asked"])
            vanish(client)
            await eventually(lambda: state[-1:] == ["cancelled"])
        assert server.server.connections == 0
        assert server.server.counters["failures"] == 0


async def test_an_authenticator_that_heeds_no_cancellation_answers_into_the_void() -> None:
    release = asyncio.Event()
    answered: list[bool] = []

    async def check(user: str, password: str) -> bool:
        try:
            await release.wait()
        except asyncio.CancelledError:
            answered.append(True)
        return True

    async with serving(authenticators=(PasswordCallback(check),)) as server:
        client = server.begin()
        await client.until(lambda: any(isinstance(event, CredentialQuestion) for event in client.events))
        await eventually(lambda: server.connections[0]._tasks)
        client.reset()
        await eventually(lambda: answered)
        assert server.server.connections == 0
        assert server.server.counters["logins"] == 0


async def test_a_chain_needs_all_of_it_in_order() -> None:
    key = PrivateKey.generate("ed25519")

    async def by_key(attempt: Attempt) -> AuthReply:
        credential = attempt.credential
        assert isinstance(credential, PublicKeyCredential)
        return Allow("key") if credential.key == key.public else Deny()

    async def by_password(attempt: Attempt) -> AuthReply:
        credential = attempt.credential
        return Allow("password") if credential == PasswordCredential(PASSWORD) else Deny()

    grants: list[tuple[object, ...]] = []

    async def tell(session: Session) -> None:
        grants.append(session.grants)

    both = (Deciding("publickey", by_key), Deciding("password", by_password))
    signing = {SignQuestion: lambda question: key.sign(question.algorithm, question.data)}
    public = PublicKeyCredential(key.public, "ssh-ed25519", signed=True)
    password = PasswordCredential(PASSWORD)
    async with serving(authenticators=both, methods=("publickey,password",), exec=tell) as server:
        assert not (await outcome(server, answers=trying(password) | signing))[1]
        assert not (await outcome(server, answers=trying(public, public) | signing))[1]
        client, done = await outcome(server, answers=trying(public, password) | signing)
        assert done
        await client.run("x")
        assert grants == [("key", "password")]


async def test_interactive_rounds_are_counted() -> None:
    seen: list[tuple[int, tuple[str, ...] | None]] = []

    async def decide(attempt: Attempt) -> AuthReply:
        assert isinstance(attempt.credential, InteractiveCredential)
        seen.append((attempt.rounds, attempt.credential.responses))
        if attempt.rounds < 2:
            return Prompt(((f"question {attempt.rounds}: ", False), ("again: ", True)), "name", "instruction")
        return Allow()

    answers = trying(InteractiveCredential("", None)) | {PromptQuestion: ("one", "two")}
    async with serving(authenticators=(Deciding("keyboard-interactive", decide),)) as server:
        client, done = await outcome(server, answers=answers)
        assert done
        assert seen == [(0, None), (1, ("one", "two")), (2, ("one", "two"))]
        asked = [event.prompt for event in client.events if isinstance(event, PromptQuestion)]
        assert asked[1].prompts == (("question 1: ", False), ("again: ", True))


async def test_a_new_attempt_begins_at_round_zero() -> None:
    rounds: list[int] = []

    async def decide(attempt: Attempt) -> AuthReply:
        rounds.append(attempt.rounds)
        return Prompt((("?", False),)) if attempt.rounds == 0 else Deny()

    credential = InteractiveCredential("", None)
    async with serving(authenticators=(Deciding("keyboard-interactive", decide),)) as server:
        assert not (await outcome(server, answers=trying(credential, credential) | {PromptQuestion: ("x",)}))[1]
        assert rounds == [0, 1, 0, 1]


async def test_too_many_failures_end_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wrong = [PasswordCredential(f"wrong {number}") for number in range(9)]
    async with serving(limits=Limits(max_auth_tries=3)) as server:
        client = server.begin(answers=trying(*wrong))
        await client.until(lambda: client.ended is not None)
        assert client.ended is not None
        assert client.ended.reason_code == 14
        await eventually(lambda: server.server.connections == 0)
        assert server.server.counters["auth_failures"] == 3
        assert sum(message.startswith("Failed password for ") for message in caplog.messages) == 3
        assert any(message.startswith("maximum authentication attempts exceeded") for message in caplog.messages)


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
async def test_a_host_key_that_does_not_sign_ends_only_its_connections(
    kind: Literal["rsa", "ed25519"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow keys sign in a thread, quick ones on the loop."""
    key = PrivateKey.generate(kind)
    broken = [True]
    sign = type(key).sign

    def fail(self: PrivateKey, algorithm: str, data: bytes) -> bytes:
        if broken[0]:
            raise ZeroDivisionError("a key's own fault")
        return sign(self, algorithm, data)

    monkeypatch.setattr(type(key), "sign", fail)
    async with serving(host_keys=(key,)) as server:
        client = server.begin()
        await client.until(lambda: client.ended is not None)
        await eventually(lambda: server.server.connections == 0)
        assert server.server.counters["failures"] >= 1
        broken[0] = False
        assert (await outcome(server))[1]


class Leaving:
    """Lets nobody in, and notes whose connection is gone."""

    method = "password"

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.gone: list[int] = []
        self.told = asyncio.Event()

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        self.asked.append(attempt.connection)
        return Allow() if attempt.credential == PasswordCredential(PASSWORD) else Deny()

    def ended(self, connection: int) -> None:
        self.gone.append(connection)
        self.told.set()
        raise ZeroDivisionError("an authenticator's own fault")


@every_placement
@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
async def test_an_authenticator_is_told_once_when_a_connection_is_gone(
    placement: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    leaving = Leaving()
    async with api.serving(placement, authenticators=[leaving]) as server:
        client = server.begin(answers=trying(PasswordCredential(password)))
        await client.until(lambda: any(isinstance(event, LoggedIn | AuthRefused) for event in client.events))
        assert not leaving.told.is_set()
        client.close()
        await asyncio.wait_for(leaving.told.wait(), 10)
    assert leaving.gone == leaving.asked[-1:]
    assert "an authenticator failed as connection" in caplog.text


def test_gssapi_keyex_needs_a_method_that_it_can_be_had_with() -> None:
    host_key = PrivateKey.generate("ed25519")

    async def decide(_: Attempt) -> AuthReply:
        return Deny()

    by_kerberos = Deciding("gssapi-keyex", decide)
    made = ServerConfig(host_keys=[host_key], authenticators=[by_kerberos]).engine_config().algorithms.kex
    assert made[0].startswith("gss-curve25519-sha256-")
    without = ServerConfig(host_keys=[host_key], authenticators=[Deciding("password", decide)])
    assert not any(name.startswith("gss-") for name in without.engine_config().algorithms.kex)
    with pytest.raises(ConfigError, match="gssapi-keyex can be had with none of the methods"):
        ServerConfig(host_keys=[host_key], authenticators=[by_kerberos], algorithms="strict")
