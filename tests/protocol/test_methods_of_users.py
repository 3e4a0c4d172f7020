"""Each user has chains of methods of their own: they are asked for once, and nothing goes on without them."""

from __future__ import annotations

from typing import Any

import pytest

from dunnart.protocol.events import AuthFailed, AuthPartial, LoggedIn
from dunnart.protocol.questions import Allow, AuthQuestion, InteractiveCredential, MethodsQuestion, PasswordCredential
from dunnart.testing.pair import PASSWORD, Pair, one_after_another
from dunnart.wire.encoding import boolean, text
from dunnart.wire.messages import UserauthFailure, UserauthRequest, UserauthSuccess

CHAINS = {"alice": (("password",),), "bob": (("password", "keyboard-interactive"),)}


def asked(answer: Any, user: str = "alice", *credentials: Any, **more: Any) -> Pair:
    from dunnart.protocol.questions import CredentialQuestion

    tried = one_after_another(*(credentials or (PasswordCredential(PASSWORD),)))
    answers = {MethodsQuestion: answer, AuthQuestion: Allow()}
    return Pair(server_answers=answers, client_answers={CredentialQuestion: tried}, user=user, **more).run()


def test_the_chains_are_asked_for_once_for_each_user() -> None:
    made = asked(lambda question: CHAINS[question.user])
    assert [question.user for question in made.server.asked(MethodsQuestion)] == ["alice"]
    assert [event.user for event in made.server.of(LoggedIn)] == ["alice"]


def test_the_chain_of_one_user_is_not_that_of_another() -> None:
    interactive = InteractiveCredential("", None)
    made = asked(lambda question: CHAINS[question.user], "bob", PasswordCredential(PASSWORD), interactive)
    assert made.server.of(AuthPartial) == [AuthPartial("bob", "password")]
    assert made.client.got(UserauthFailure)[-1] == UserauthFailure(("keyboard-interactive",), partial_success=True)
    assert made.server.of(LoggedIn)[0].method == "keyboard-interactive"


@pytest.mark.parametrize("answer", [(), None, "password", [("password",)], TimeoutError()])
def test_without_chains_nobody_gets_in(answer: Any) -> None:
    made = asked(lambda _: answer)
    assert made.server.of(LoggedIn) == []
    assert made.server.asked(AuthQuestion) == []
    assert made.client.got(UserauthFailure)[-1].methods == ()


def test_the_server_s_chains_are_not_what_counts() -> None:
    made = asked((("publickey",),), auth_methods=(("password",),))
    assert made.server.of(LoggedIn) == []
    assert made.server.asked(AuthQuestion) == []
    assert made.client.got(UserauthFailure)[-1].methods == ("publickey",)


def test_another_user_is_asked_about_anew_and_starts_from_nothing() -> None:
    made = asked(lambda question: CHAINS[question.user], "bob")  # stands half way
    assert len(made.server.of(AuthPartial)) == 1
    data = boolean(value=False) + text(PASSWORD)
    for user in ("alice", "bob"):
        made.client.send(UserauthRequest(user, "ssh-connection", "keyboard-interactive", text("") + text("")))
        made.run()
    assert [question.user for question in made.server.asked(MethodsQuestion)] == ["bob", "alice", "bob"]
    assert made.server.of(LoggedIn) == []
    made.client.send(UserauthRequest("alice", "ssh-connection", "password", data))
    made.run()
    assert [event.user for event in made.server.of(LoggedIn)] == ["alice"]


def test_requests_wait_for_the_chains() -> None:
    made = asked(None, "carol")
    held: list[MethodsQuestion] = []

    def hold(question: MethodsQuestion) -> Any:
        held.append(question)
        return ...

    made.server.answers[MethodsQuestion] = hold
    data = boolean(value=False) + text(PASSWORD)
    for _ in range(2):
        made.client.send(UserauthRequest("alice", "ssh-connection", "password", data))
    made.run()
    assert len(held) == 1
    assert made.server.asked(AuthQuestion) == []
    made.server.engine.answer(held[0].token, CHAINS["alice"])
    made.run()
    assert len(made.server.of(LoggedIn)) == 1
    assert len(made.client.got(UserauthSuccess)) == 1


@pytest.mark.parametrize("user", ["al\0ice", "x" * 256])
def test_impossible_users_are_not_asked_about(user: str) -> None:
    made = asked(CHAINS["alice"], user)
    assert made.server.asked(MethodsQuestion) == []
    assert made.server.of(AuthFailed)[-1].detail == "impossible user name"
