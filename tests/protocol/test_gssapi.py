"""gssapi-with-mic (RFC 4462 §3) on the wire, with a mechanism that is made up: tokens are words, a MIC is a prefix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dunnart.protocol.events import AuthFailed, LoggedIn
from dunnart.protocol.phases import Stage
from dunnart.protocol.questions import (
    Allow,
    AuthQuestion,
    CredentialQuestion,
    Deny,
    GssapiCredential,
    GssapiStep,
    PasswordCredential,
)
from dunnart.testing.pair import PASSWORD, Pair
from dunnart.wire.encoding import byte, string, text, uint32
from dunnart.wire.messages import (
    GssapiData,
    PasswordData,
    UserauthFailure,
    UserauthGssapiErrtok,
    UserauthGssapiExchangeComplete,
    UserauthGssapiMic,
    UserauthGssapiResponse,
    UserauthGssapiToken,
    UserauthRequest,
    UserauthSuccess,
)

METHOD = "gssapi-with-mic"
MECHANISM = b"\6\3abc"
Decide = Callable[[AuthQuestion], Any]


def decide(question: AuthQuestion) -> Allow | Deny | GssapiStep:
    """Two tokens each way, the second of ours empty."""
    credential = question.credential
    if isinstance(credential, PasswordCredential):
        return Deny("wrong")
    assert isinstance(credential, GssapiCredential)
    if credential.mic is not None:
        return Allow("ticket") if credential.mic == b"MIC" + credential.signed else Deny("a wrong MIC")
    if credential.token is None:
        return GssapiStep(MECHANISM) if MECHANISM in credential.mechanisms else Deny("no such mechanism")
    return {b"one": GssapiStep(b"first"), b"two": GssapiStep(b"")}.get(credential.token, Deny("a wrong token"))


def pair(answer: Decide = decide, **options: Any) -> Pair:
    made = Pair(
        auth_methods=((METHOD,), ("password",)), client_answers={CredentialQuestion: ...},
        server_answers={AuthQuestion: answer}, **options,
    ).run()  # fmt: skip
    made.client.puppet = True
    return made


def begin(made: Pair, *mechanisms: bytes) -> None:
    data = GssapiData(len(mechanisms), b"".join(map(string, mechanisms)))
    made.client.send(UserauthRequest("alice", "ssh-connection", METHOD, data.encode()))
    made.run()


def signed(made: Pair, user: str = "alice") -> bytes:
    """RFC 4462 §3.5."""
    session = string(made.client.engine.session_id)
    return session + byte(50) + text(user) + text("ssh-connection") + text(METHOD)


def mic(made: Pair, user: str = "alice") -> UserauthGssapiMic:
    return UserauthGssapiMic(b"MIC" + signed(made, user))


def failed(made: Pair) -> list[str]:
    return [event.detail for event in made.server.of(AuthFailed)]


def refusals(made: Pair) -> int:
    return len(made.client.got(UserauthFailure)) - 1  # the first tells the methods


def test_a_login() -> None:
    made = pair()
    begin(made, b"\6\1x", MECHANISM)
    assert made.client.got(UserauthGssapiResponse) == [UserauthGssapiResponse(MECHANISM)]
    for token in (b"one", b"two"):
        made.client.send(UserauthGssapiToken(token))
        made.run()
    assert made.client.got(UserauthGssapiToken) == [UserauthGssapiToken(b"first")]
    made.client.send(mic(made))
    made.run()
    assert made.client.got(UserauthSuccess) == [UserauthSuccess()]
    assert made.server.of(LoggedIn) == [LoggedIn("alice", METHOD, "", ("ticket",))]
    assert failed(made) == []


@pytest.mark.parametrize("other", [b"", b"MIC", b"MIC of something else"])
def test_a_wrong_mic(other: bytes) -> None:
    made = pair()
    begin(made, MECHANISM)
    made.client.send(UserauthGssapiMic(other))
    made.run()
    assert failed(made) == ["a wrong MIC"]
    assert made.client.got(UserauthFailure)[-1].methods == (METHOD, "password")
    assert made.server.engine.stage is Stage.AUTH


def test_a_mic_for_another_user() -> None:
    made = pair()
    begin(made, MECHANISM)
    made.client.send(mic(made, "bob"))
    made.run()
    assert failed(made) == ["a wrong MIC"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (UserauthGssapiToken(b"three"), "a wrong token"),
        (UserauthGssapiExchangeComplete(), "the mechanism does not protect integrity"),
    ],
)
def test_what_ends_an_exchange(message: Any, reason: str) -> None:
    made = pair()
    begin(made, MECHANISM)
    made.client.send(message)
    made.run()
    assert failed(made) == [reason]
    assert refusals(made) == 1
    begin(made, MECHANISM)
    assert made.server.engine.stage is Stage.GSSAPI


def test_no_mechanism_of_the_servers() -> None:
    made = pair()
    begin(made, b"\6\1x")
    assert failed(made) == ["no such mechanism"]
    assert made.server.engine.stage is Stage.AUTH


@pytest.mark.parametrize("data", [b"", uint32(1), uint32(2**32 - 1), uint32(0) + b"x", uint32(2) + string(MECHANISM)])
def test_malformed_mechanisms_are_failures(data: bytes) -> None:
    made = pair()
    made.client.send(UserauthRequest("alice", "ssh-connection", METHOD, data))
    made.run()
    assert len(failed(made)) == 1
    assert made.server.ended is None


@pytest.mark.parametrize("number", [61, 66])
def test_malformed_messages_are_failures(number: int) -> None:
    made = pair()
    begin(made, MECHANISM)
    made.client.engine.send(bytes((number,)) + uint32(9) + b"short")
    made.run()
    assert len(failed(made)) == 1
    assert made.server.engine.stage is Stage.AUTH


def test_a_mechanism_that_fails_at_the_client_gets_no_answer() -> None:
    """RFC 4462 §3.9; it counts all the same."""
    made = pair()
    begin(made, MECHANISM)
    made.client.send(UserauthGssapiErrtok(b"broken"))
    made.run()
    assert failed(made) == ["the client's mechanism failed"]
    assert refusals(made) == 0
    data = PasswordData(change=False, password=PASSWORD).encode()
    made.client.send(UserauthRequest("alice", "ssh-connection", "password", data))
    made.run()
    assert refusals(made) == 1


def test_the_mic_may_follow_the_last_token_at_once() -> None:
    made = pair()
    begin(made, MECHANISM)
    made.client.send(UserauthGssapiToken(b"two"))
    made.client.send(mic(made))
    made.run()
    assert len(made.server.of(LoggedIn)) == 1


@pytest.mark.parametrize(("answer", "enters"), [(GssapiStep(b""), True), (Deny("a wrong token"), False)])
def test_what_comes_while_a_token_is_looked_at_waits(answer: object, enters: bool) -> None:
    made = pair()
    begin(made, MECHANISM)
    made.server.answers[AuthQuestion] = ...
    made.client.send(UserauthGssapiToken(b"two"))
    made.client.send(mic(made))
    made.run()
    question = made.server.asked(AuthQuestion)[-1]
    assert isinstance(question.credential, GssapiCredential)
    assert question.credential.token == b"two"
    made.server.answers[AuthQuestion] = decide
    made.server.engine.answer(question.token, answer)
    made.run()
    assert bool(made.server.of(LoggedIn)) is enters
    assert made.server.ended is None
    assert failed(made) == ([] if enters else ["a wrong token"])


@pytest.mark.parametrize("step", ["mechanisms", "token"])
def test_nothing_but_a_mic_lets_in(step: str) -> None:
    made = pair(lambda _: GssapiStep(MECHANISM))
    if step == "token":
        begin(made, MECHANISM)
    made.server.answers[AuthQuestion] = Allow()
    if step == "mechanisms":
        begin(made, MECHANISM)
    else:
        made.client.send(UserauthGssapiToken(b"one"))
        made.run()
    assert made.server.of(LoggedIn) == []
    assert failed(made) == ["allowed before the proof"]


def test_a_mic_is_no_step() -> None:
    made = pair()
    begin(made, MECHANISM)
    made.server.answers[AuthQuestion] = GssapiStep(b"more")
    made.client.send(mic(made))
    made.run()
    assert failed(made) == ["no answer"]


def test_a_new_request_abandons_the_exchange() -> None:
    made = pair()
    begin(made, MECHANISM)
    data = PasswordData(change=False, password="wrong").encode()
    made.client.send(UserauthRequest("alice", "ssh-connection", "password", data))
    made.run()
    assert made.server.engine.stage is Stage.AUTH
    made.client.send(mic(made))
    made.run()
    assert made.server.ended is not None
    assert made.server.of(LoggedIn) == []
