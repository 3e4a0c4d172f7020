"""Each user has chains of methods of their own, wherever the protocol runs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from dunnart.errors import ConfigError
from dunnart.protocol.events import AuthRefused, LoggedIn
from dunnart.protocol.limits import Limits
from dunnart.protocol.questions import CredentialQuestion, InteractiveCredential, PasswordCredential, PromptQuestion
from dunnart.server import Candidate, ServerConfig, UserTerms, login
from tests.runtime.driver import HOST_KEY, PASSWORD, USER, Client, eventually
from tests.runtime.test_placements import every_placement, placed
from tests.runtime.test_rights import Granting


def first_password_then_prompts(question: CredentialQuestion) -> InteractiveCredential | PasswordCredential | None:
    if "password" in question.methods:
        return PasswordCredential(PASSWORD)
    return InteractiveCredential("", None) if question.partial else None


ANSWERS = {CredentialQuestion: first_password_then_prompts, PromptQuestion: ("",)}


async def tried(client: Client) -> bool:
    """Whether the login succeeded, once that is known."""
    await client.until(lambda: any(isinstance(event, LoggedIn | AuthRefused) for event in client.events))
    return any(isinstance(event, LoggedIn) for event in client.events)


@every_placement
async def test_the_application_says_how_a_user_may_log_in(where: tuple[str, int]) -> None:
    asked: list[Candidate] = []

    def terms(candidate: Candidate) -> UserTerms:
        asked.append(candidate)
        return UserTerms(["password,keyboard-interactive" if len(asked) == 1 else "keyboard-interactive"])

    authenticators = [Granting(None), Granting(None, "keyboard-interactive")]
    async with placed(where, authenticators=authenticators, terms_for=terms) as server:
        assert await tried(server.begin(answers=ANSWERS))
        assert not await tried(server.begin(answers=ANSWERS))
        assert [each.user for each in asked] == [USER, USER]
        assert (asked[0].peer.host, asked[0].local) == ("127.0.0.1", server.address)
        assert asked[0].connection != asked[1].connection


@every_placement
async def test_what_is_no_chain_lets_nobody_in(where: tuple[str, int], caplog: pytest.LogCaptureFixture) -> None:
    chains: list[Any] = [["publickey"], [7], None, "password", ["password,password"]]
    limits: Any = 3
    answers: list[object] = [*map(UserTerms, chains), ["password"], None, UserTerms(["password"], limits)]

    async def terms(_: Candidate) -> object:
        return answers[0]

    async with placed(where, authenticators=[Granting(None)], terms_for=terms) as server:
        while answers:
            caplog.clear()
            assert not await tried(server.begin(answers=ANSWERS))
            await eventually(lambda: "failed" in caplog.text)
            del answers[0]


@every_placement
async def test_each_user_has_limits(where: tuple[str, int]) -> None:
    rekeying = [Limits(rekey_bytes=4096), Limits(rekey_seconds=0.1), Limits(rekey_packets=9)]
    given = [Limits(max_auth_tries=1), Limits(sessions=1), Limits(sessions=2, channels=1), *rekeying,
             Limits(idle_seconds=0.1)]  # fmt: skip

    async def terms(_: Candidate) -> UserTerms:
        return UserTerms(["password"], given[0])

    async with placed(where, terms_for=terms) as server:
        client = server.begin(password="wrong")
        await eventually(lambda: client.eof)
        assert client.ended is not None
        assert client.ended.reason_code == 14
        for sessions in (1, 2):
            del given[0]
            client = await server.login()
            assert [(await client.session()).opened for _ in range(3)].count(True) == sessions
        for _ in rekeying:
            del given[0]
            client = await server.login()
            await client.run("cat", bytes(8192))
            await client.until(partial(getattr, client.engine, "rekeys"))
        del given[0]
        client = await server.login()
        await eventually(lambda: client.eof)


def test_what_is_no_function_is_told() -> None:
    with pytest.raises(ConfigError, match="no function terms_for"):
        ServerConfig(host_keys=[HOST_KEY], authenticators=[Granting(None)], terms_for=UserTerms())  # type: ignore[arg-type]


async def test_how_long_it_took_to_find_out_is_not_seen() -> None:
    """Groups are looked up only for users who exist (THREATS R15)."""
    assert login._FAILURE_SECONDS == 0.005
    async with placed(
        ("loop", 1), authenticators=[Granting(None)], terms_for=lambda _: UserTerms(["password"])
    ) as server:
        slept: list[float] = []
        sleep = asyncio.sleep

        async def noted(seconds: float, result: object = None) -> object:
            slept.append(seconds)
            return await sleep(min(seconds, 0.1), result)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dunnart.server.login.asyncio.sleep", noted)
            patch.setattr("dunnart.server.login._FAILURE_SECONDS", 40.0)  # a busy machine uses up less
            assert await tried(server.begin(answers=ANSWERS))
    assert any(1.0 < seconds <= 40.0 for seconds in slept)
