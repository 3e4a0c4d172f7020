"""Messages that have no place before the login, or in a server at all (THREATS R1, R2).

CVE-2025-32433 (Erlang/OTP) and CVE-2018-7750 (paramiko): channel messages before authentication were obeyed.
CVE-2018-10933 (libssh) and CVE-2018-1000805 (paramiko): a client said USERAUTH_SUCCESS and was in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import UnexpectedMessage
from dunnart.protocol.events import ChannelOpened, LoggedIn
from dunnart.protocol.questions import (
    AuthQuestion,
    ChannelOpenQuestion,
    ChannelRequestQuestion,
    CredentialQuestion,
    GlobalRequestQuestion,
    HostKeyQuestion,
)
from dunnart.testing.pair import Pair
from dunnart.wire.encoding import text
from dunnart.wire.messages import (
    ChannelData,
    ChannelOpen,
    ChannelRequest,
    GlobalRequest,
    KexExchangeReply,
    ServiceAccept,
    UserauthBanner,
    UserauthFailure,
    UserauthPkOk,
    UserauthSuccess,
)

FAST = replace(PROFILES["default"], kex=("curve25519-sha256",))
CONNECTION_MESSAGES: list[Any] = [
    ChannelOpen("session", 0, 1 << 20, 1 << 15),
    ChannelRequest(0, "exec", want_reply=True, data=text("id")),
    ChannelData(0, b"id\n"),
    GlobalRequest("tcpip-forward", want_reply=True),
    *(bytes([number]) for number in range(80, 128)),
]
PLACES = ["first exchange", "before newkeys", "after newkeys", "service", "authentication", "undecided"]


def before_login(place: str) -> Pair:
    made = Pair(algorithms=FAST, client_answers={CredentialQuestion: ...})
    if place == "first exchange":
        made.carry(made.client, made.server)
    elif place == "before newkeys":
        made.client.answers[HostKeyQuestion] = ...
        made.run()
    elif place in ("after newkeys", "service"):
        made.client.engine._transport._greeted = True
        made.run()
        if place == "service":
            made.client.send(b"\2")
            made.run()
    else:
        made.server.answers[AuthQuestion] = ...
        if place == "undecided":
            made.client.answers.pop(CredentialQuestion)
            made = Pair(algorithms=FAST, server_answers={AuthQuestion: ...})
        made.run()
    made.client.puppet = True
    return made


def refused(made: Pair) -> None:
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)
    assert made.server.of(LoggedIn) == made.server.of(ChannelOpened) == []
    for kind in (ChannelOpenQuestion, ChannelRequestQuestion, GlobalRequestQuestion):
        assert made.server.asked(kind) == []


@pytest.mark.parametrize("place", PLACES)
def test_channel_messages_before_the_login(place: str) -> None:
    for message in CONNECTION_MESSAGES:
        made = before_login(place)
        made.client.send(message)
        made.run()
        refused(made)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "message",
    [UserauthSuccess(), UserauthFailure(("none",), partial_success=True), UserauthBanner("x"),
     UserauthPkOk("ssh-ed25519", b""), ServiceAccept("ssh-connection"), KexExchangeReply(b"", b"", b"")],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
def test_a_client_that_speaks_as_the_server(place: str, message: Any) -> None:
    made = before_login(place)
    made.client.send(message)
    made.run()
    refused(made)


@pytest.mark.parametrize("message", [UserauthSuccess(), ServiceAccept("ssh-userauth"), UserauthBanner("x")])
def test_after_the_login_a_server_s_messages_end_the_connection(message: Any) -> None:
    made = Pair(algorithms=FAST).run()
    made.client.send(message)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)


def test_a_server_that_was_never_trusted_cannot_log_its_client_in() -> None:
    made = Pair(algorithms=FAST, client_answers={HostKeyQuestion: ...}).run()
    made.server.send(ServiceAccept("ssh-userauth"), UserauthSuccess())
    made.run()
    assert isinstance(made.client.ended and made.client.ended.error, UnexpectedMessage)
    assert made.client.of(LoggedIn) == []
