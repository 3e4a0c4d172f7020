"""A protocol process that strangers have taken over cannot leave out a method of a chain (THREATS R22)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dunnart.server import Allow, Attempt, AuthReply, Candidate, UserTerms
from dunnart.server.processes.frames import AuthAnswered, AuthAsked, Begun, TermsAnswered, TermsAsked
from dunnart.wire.encoding import uint32
from tests.runtime.driver import USER, eventually
from tests.security.test_handover import Fake, asked, opened, session, user_in


class Allowing:
    """Lets everybody in by a method."""

    def __init__(self, method: str) -> None:
        self.method = method

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        return Allow()


def of_users(candidate: Candidate) -> UserTerms:
    return UserTerms(["password,keyboard-interactive" if candidate.user == USER else "keyboard-interactive"])


NOTHING = uint32(0) * 2  # what each of the two methods has granted
WAYS: list[dict[str, Any]] = [{"methods": ["password,keyboard-interactive"]}, {"terms_for": of_users}]


def fake(options: dict[str, Any]) -> Fake:
    made = Fake(authenticators=[Allowing("password"), Allowing("keyboard-interactive")], **options)
    made.process.send(opened())
    return made


def tried(method: str, token: int, user: str = USER) -> AuthAsked:
    return replace(asked(token=token), method=method, user=user, text="")


def terms_asked(user: str = USER, token: int = 3) -> TermsAsked:
    return TermsAsked(token, 1, user, "127.0.0.1", 9, "127.0.0.1", 22)


async def answers(made: Fake, kind: type[Any], count: int) -> None:
    await eventually(lambda: sum(isinstance(frame, kind) for frame in made.frames) == count)


@pytest.mark.parametrize("options", WAYS, ids=lambda options: next(iter(options)))
async def test_all_methods_of_a_chain_let_in(options: dict[str, Any]) -> None:
    made = fake(options)
    if "terms_for" in options:
        made.process.send(terms_asked())
        await answers(made, TermsAnswered, 1)
    for count, method in enumerate(("password", "keyboard-interactive"), 1):
        made.process.send(tried(method, 6 + count))
        await answers(made, AuthAnswered, count)
    made.process.send(replace(user_in(method="keyboard-interactive"), grants=NOTHING))
    made.process.send(session())
    assert await made.answered(Begun) == Begun(1, 0, yes=True)
    await made.close()


@pytest.mark.parametrize("options", WAYS, ids=lambda options: next(iter(options)))
@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
async def test_one_of_them_does_not(options: dict[str, Any], method: str) -> None:
    made = fake(options)
    if "terms_for" in options:
        made.process.send(terms_asked())
        await answers(made, TermsAnswered, 1)
    made.process.send(tried(method, 7))
    await answers(made, AuthAnswered, 1)
    made.process.send(replace(user_in(method=method), grants=NOTHING))
    await eventually(lambda: made.link.closed)
    await made.close()


async def test_who_was_not_asked_about_does_not_get_in() -> None:
    made = fake(WAYS[1])
    for token, method in enumerate(("password", "keyboard-interactive"), 7):
        made.process.send(tried(method, token))
    await answers(made, AuthAnswered, 2)
    made.process.send(replace(user_in(method="keyboard-interactive"), grants=NOTHING))
    await eventually(lambda: made.link.closed)
    await made.close()


async def test_the_chains_of_another_user_do_not_count() -> None:
    made = fake(WAYS[1])
    made.process.send(terms_asked("somebody"))
    await answers(made, TermsAnswered, 1)
    made.process.send(tried("keyboard-interactive", 7))
    await answers(made, AuthAnswered, 1)
    made.process.send(replace(user_in(method="keyboard-interactive"), grants=NOTHING))
    await eventually(lambda: made.link.closed)
    await made.close()


async def test_chains_that_nobody_gives_are_not_asked_for() -> None:
    made = fake(WAYS[0])
    made.process.send(terms_asked())
    await eventually(lambda: made.link.closed)
    await made.close()


async def test_what_the_first_method_granted_cannot_be_left_out() -> None:
    """With it the rights would go that came with it."""
    made = fake(WAYS[0])
    for count, method in enumerate(("password", "keyboard-interactive"), 1):
        made.process.send(tried(method, 6 + count))
        await answers(made, AuthAnswered, count)
    made.process.send(replace(user_in(method="keyboard-interactive"), grants=uint32(0)))
    await eventually(lambda: made.link.closed)
    await made.close()
