from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import DecodeError, LimitExceeded, LocalProtocolError, RemoteProtocolError, UnexpectedMessage
from dunnart.keys import PrivateKey
from dunnart.protocol.engine import ConnectionTimeout, Engine, IdleTimeout, LoginTimeout
from dunnart.protocol.events import ConnectionEnded, LoggedIn, RequestAnswered
from dunnart.protocol.limits import Limits
from dunnart.protocol.questions import AuthQuestion, GlobalRequestQuestion, SignQuestion
from dunnart.protocol.requests import (
    GlobalKeepalive,
    HostkeysProve,
    NoMoreSessions,
    ShellRequest,
    UnknownGlobalRequest,
    decode_strings,
    encode_strings,
)
from dunnart.testing.pair import Pair, plain_payloads
from dunnart.wire.encoding import string, text
from dunnart.wire.messages import (
    Debug,
    Disconnect,
    GlobalRequest,
    Ignore,
    Ping,
    Pong,
    RequestFailure,
    RequestSuccess,
    Unimplemented,
)

FAST = replace(PROFILES["default"], kex=("curve25519-sha256",))
OTHER = UnknownGlobalRequest("x@example.com", b"data")


def pair(**options: Any) -> Pair:
    return Pair(algorithms=FAST, **options).run()


# Global requests.


@pytest.mark.parametrize(
    ("reply", "answered"),
    [(True, RequestAnswered(None, True)), (b"port", RequestAnswered(None, True, b"port")),
     (b"", RequestAnswered(None, True)), (False, RequestAnswered(None, False)),
     (None, RequestAnswered(None, False)), (Exception(), RequestAnswered(None, False))],
)  # fmt: skip
def test_global_request_is_asked_and_answered(reply: object, answered: RequestAnswered) -> None:
    made = pair(server_answers={GlobalRequestQuestion: lambda _question: reply})
    made.client.engine.request_global(OTHER, want_reply=True)
    made.run()
    assert [question.request for question in made.server.asked(GlobalRequestQuestion)] == [OTHER]
    assert made.client.of(RequestAnswered) == [answered]


def test_global_request_without_reply() -> None:
    made = pair(server_answers={GlobalRequestQuestion: True})
    made.client.engine.request_global(OTHER)
    made.run()
    assert made.server.asked(GlobalRequestQuestion)
    assert made.client.of(RequestAnswered) == []
    assert 81 not in made.client.numbers


def test_global_answers_keep_their_order() -> None:
    made = pair(server_answers={GlobalRequestQuestion: ...})
    for request in (OTHER, GlobalKeepalive(), OTHER, NoMoreSessions()):
        made.client.engine.request_global(request, want_reply=True)
    made.run()
    first, second = made.server.asked(GlobalRequestQuestion)
    made.server.engine.answer(second.token, b"second")
    made.run()
    assert made.client.of(RequestAnswered) == []
    made.server.engine.answer(first.token, b"first")
    made.run()
    assert [(event.success, event.data) for event in made.client.of(RequestAnswered)] == [
        (True, b"first"), (False, b""), (True, b"second"), (True, b""),
    ]  # fmt: skip


def test_unwanted_global_answers_are_dropped() -> None:
    made = pair()
    made.client.send(RequestFailure(), RequestSuccess(b"x"))
    made.run()
    assert made.server.ended is None
    assert made.server.of(RequestAnswered) == []


def test_pending_global_requests_are_bounded() -> None:
    made = pair(server_answers={GlobalRequestQuestion: ...}, limits=Limits(pending_requests=64))
    for _ in range(65):
        made.client.engine.request_global(OTHER)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, LimitExceeded)


def test_no_more_sessions() -> None:
    made = pair()
    made.session()
    made.client.engine.request_global(NoMoreSessions(), want_reply=True)
    made.client.engine.open_channel("direct-tcpip")
    made.run()
    assert made.client.of(RequestAnswered) == [RequestAnswered(None, success=True)]
    assert made.server.ended is None
    made.client.engine.open_channel("session")
    made.run()
    assert type(made.server.ended and made.server.ended.error) is RemoteProtocolError


def test_a_server_s_no_more_sessions_means_nothing() -> None:
    made = pair(client_answers={GlobalRequestQuestion: True})
    made.server.engine.request_global(NoMoreSessions(), want_reply=True)
    made.run()
    assert made.server.of(RequestAnswered) == [RequestAnswered(None, success=False)]


# hostkeys-00 and hostkeys-prove-00, OpenSSH PROTOCOL §2.5.

HOST_KEYS = (PrivateKey.generate("ed25519"), PrivateKey.generate("ecdsa"), PrivateKey.generate("rsa", 2048))


def test_server_announces_its_host_keys_after_the_login() -> None:
    made = pair(host_keys=HOST_KEYS)
    (question,) = made.client.asked(GlobalRequestQuestion)
    assert question.request.wire_name == "hostkeys-00@openssh.com"
    assert decode_strings(question.request.data) == [key.public.blob for key in HOST_KEYS]
    assert made.client.numbers.index(52) < made.client.numbers.index(80)


def test_server_proves_its_host_keys() -> None:
    made = pair(host_keys=HOST_KEYS)
    wanted = [HOST_KEYS[2], HOST_KEYS[1]]
    blobs = [key.public.blob for key in wanted]
    made.client.engine.request_global(HostkeysProve(encode_strings(blobs)), want_reply=True)
    made.run()
    (event,) = made.client.of(RequestAnswered)
    assert event.success
    signatures = decode_strings(event.data)
    for key, algorithm, signature in zip(wanted, ("rsa-sha2-512", "ecdsa-sha2-nistp256"), signatures, strict=True):
        data = text("hostkeys-prove-00@openssh.com") + string(made.client.engine.session_id) + string(key.public.blob)
        key.public.verify(algorithm, signature, data)


@pytest.mark.parametrize(
    "keys",
    [b"", b"\0\0\0\5abc", string(b"x"), string(PrivateKey.generate("ed25519").public.blob),
     encode_strings([key.public.blob for key in HOST_KEYS] * 2)],
)  # fmt: skip
def test_server_proves_nothing_else(keys: bytes) -> None:
    made = pair(host_keys=HOST_KEYS)
    signed = len(made.server.asked(SignQuestion))
    made.client.engine.request_global(HostkeysProve(keys), want_reply=True)
    made.run()
    assert made.client.of(RequestAnswered) == [RequestAnswered(None, success=False)]
    assert len(made.server.asked(SignQuestion)) == signed
    assert made.server.ended is None


def test_no_proof_without_signature() -> None:
    made = pair(host_keys=HOST_KEYS)
    made.server.answers[SignQuestion] = None
    made.client.engine.request_global(HostkeysProve(string(HOST_KEYS[0].public.blob)), want_reply=True)
    made.run()
    assert made.client.of(RequestAnswered) == [RequestAnswered(None, success=False)]


# PING, IGNORE, DEBUG, UNIMPLEMENTED.


def test_ping_is_answered() -> None:
    made = pair()
    made.client.send(Ping(b"12345"), Ping(b""))
    made.server.send(Ping(b"back"))
    made.run()
    assert made.client.got(Pong) == [Pong(b"12345"), Pong(b"")]
    assert made.server.got(Pong) == [Pong(b"back")]


def test_ping_is_answered_while_authentication_runs() -> None:
    made = pair(server_answers={AuthQuestion: ...})
    made.client.puppet = True
    made.client.send(Ping(b"x"))
    made.run()
    assert made.client.got(Pong) == [Pong(b"x")]


@pytest.mark.parametrize("payload", [b"\xc0", b"\xc0\0\0\0\5x", b"\xc0" + string(b"x") + b"y", b"\xc1"])
def test_malformed_pings(payload: bytes) -> None:
    made = pair()
    made.client.send(payload)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, DecodeError)


def test_ignored_messages_need_no_form() -> None:
    made = pair()
    before = len(made.client.payloads)
    made.client.send(Ignore(b"x"), Debug(b"y"), b"\2", b"\4", b"\3", Unimplemented(5))
    made.run()
    assert made.server.ended is None
    assert len(made.client.payloads) == before


@pytest.mark.parametrize("number", [0, 8, 19, 22, 29, 54, 62, 79, 83, 89, 101, 191, 194, 255])
@pytest.mark.parametrize("before", [0, 3])
def test_unknown_message_is_answered_with_its_sequence_number(number: int, before: int) -> None:
    made = pair()
    made.client.send(*[Ignore(b"")] * before, bytes([number]), Ignore(b""))
    wanted = made.client.engine.outbound.sequence - 2
    made.run()
    assert made.client.got(Unimplemented) == [Unimplemented(wanted)]
    assert made.server.ended is None
    assert made.client.ended is None
    assert 3 not in made.server.numbers


def test_unknown_message_at_the_wrap_of_the_sequence_number() -> None:
    made = pair()
    made.client.engine.outbound.sequence = made.server.engine.inbound.sequence = 2**32 - 1
    made.client.send(b"\xff", b"\xff")
    made.run()
    assert made.client.got(Unimplemented) == [Unimplemented(2**32 - 1), Unimplemented(0)]


@pytest.mark.parametrize("number", [5, 6, 7, 21, 30, 31, 34, 51, 52, 53, 60, 61])
def test_known_message_out_of_place_ends_the_connection(number: int) -> None:
    made = pair()
    made.client.send(bytes([number]))
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)
    assert made.client.ended is not None
    assert (made.client.ended.reason_code, made.client.ended.text) == (2, "unexpected message")


# Time.


def test_login_grace_is_not_renewed() -> None:
    made = Pair(algorithms=FAST, limits=Limits(login_grace_seconds=60), server_answers={AuthQuestion: ...}).run()
    made.client.puppet = True
    for _ in range(59):
        made.client.send(Ignore(b""))
        made.advance(1)
    assert made.server.ended is None
    assert made.server.engine.next_deadline() == 1060.0
    made.advance(1)
    assert isinstance(made.server.ended and made.server.ended.error, LoginTimeout)
    assert made.client.got(Disconnect)[0].description == b"timeout before authentication"


def test_login_within_the_grace_stays() -> None:
    made = pair(limits=Limits(login_grace_seconds=60, rekey_seconds=0))
    assert made.server.engine.next_deadline() is None
    made.advance(1000)
    assert made.server.ended is None


@pytest.mark.parametrize("sent", [b"", b"SSH-2.0-slow"])
def test_version_line_has_its_own_deadline(sent: bytes) -> None:
    made = Pair(limits=Limits(identification_seconds=5))
    made.server.engine.data_to_send()
    made.server.engine.receive(sent, made.now + 4.9)
    assert made.server.engine.next_deadline() == 1005.0
    made.server.engine.handle_timeout(1004.9)
    assert not made.server.engine.ended
    made.server.engine.handle_timeout(1005.0)
    made.server.sweep()
    assert isinstance(made.server.ended and made.server.ended.error, LoginTimeout)
    assert made.server.engine.data_to_send() == []
    assert made.server.engine.next_deadline() is None


def test_no_grace_at_all() -> None:
    made = Pair(limits=Limits(login_grace_seconds=0), server_answers={AuthQuestion: ...}).run()
    assert made.server.engine.next_deadline() is None


def test_a_connection_ends_when_its_time_is_over_whatever_it_does() -> None:
    made = pair(limits=Limits(connection_seconds=100, rekey_seconds=0), client_limits=Limits(rekey_seconds=0))
    here, _ = made.session()
    made.advance(99)
    made.transfer(made.client, here, b"x")
    assert made.server.ended is None
    made.advance(1)
    assert isinstance(made.server.ended and made.server.ended.error, ConnectionTimeout)


def test_idle_connection_ends_and_only_channel_data_counts() -> None:
    made = pair(limits=Limits(idle_seconds=100, rekey_seconds=0), client_limits=Limits(rekey_seconds=0))
    here, there = made.session()
    made.advance(99)
    made.transfer(made.client, here, b"x")
    made.advance(99)
    made.transfer(made.server, there, b"x")
    made.advance(99)
    made.client.send(Ignore(b""), Ping(b""))
    made.client.engine.request_global(GlobalKeepalive(), want_reply=True)
    made.run()
    assert made.server.ended is None
    made.advance(1)
    assert isinstance(made.server.ended and made.server.ended.error, IdleTimeout)


KEEPALIVE = Limits(keepalive_seconds=10, keepalive_count_max=3, rekey_seconds=0)


def test_keepalives_are_answered_for_ever() -> None:
    made = pair(limits=KEEPALIVE, client_limits=Limits(rekey_seconds=0))
    for _ in range(20):
        made.advance(10)
    assert made.server.ended is None
    asked = [message for message in made.client.got(GlobalRequest) if message.name == "keepalive@openssh.com"]
    assert len(asked) == 20
    assert made.server.of(RequestAnswered) == []


def test_silent_peer_is_given_up() -> None:
    made = pair(limits=KEEPALIVE)
    made.client.puppet = True
    for number in range(1, 4):
        made.advance(10)
        asked = [message for message in made.client.got(GlobalRequest) if message.name == "keepalive@openssh.com"]
        assert len(asked) == number
    made.advance(9)
    assert made.server.ended is None
    made.advance(1)
    assert isinstance(made.server.ended and made.server.ended.error, IdleTimeout)


def test_whatever_comes_is_a_sign_of_life() -> None:
    made = pair(limits=KEEPALIVE)
    made.client.puppet = True
    for _ in range(10):
        made.advance(10)
        made.advance(5)
        made.client.send(Ignore(b""))
        made.run()
    assert made.server.ended is None
    asked = [message for message in made.client.got(GlobalRequest) if message.name == "keepalive@openssh.com"]
    assert len(asked) == 10
    made.advance(10)
    made.advance(10)
    made.advance(10)
    assert made.server.ended is None
    made.advance(10)
    assert isinstance(made.server.ended and made.server.ended.error, IdleTimeout)


def test_no_keepalive_while_the_peer_speaks() -> None:
    made = pair(limits=KEEPALIVE)
    for _ in range(20):
        made.advance(9)
        made.client.send(Ignore(b""))
        made.run()
    assert all(message.name != "keepalive@openssh.com" for message in made.client.got(GlobalRequest))


# The end.


def test_disconnect_by_the_application() -> None:
    made = pair()
    made.server.engine.disconnect("going down")
    made.server.engine.disconnect("again")
    made.run()
    assert made.server.of(ConnectionEnded) == [ConnectionEnded(None, False, 11, "going down")]
    assert made.client.of(ConnectionEnded) == [ConnectionEnded(None, True, 11, "going down")]
    assert made.client.got(Disconnect) == [Disconnect(11, b"going down")]


def test_disconnect_while_keys_are_exchanged() -> None:
    made = pair()
    made.server.engine.rekey()
    made.server.engine.disconnect("now")
    made.run()
    assert made.client.ended is not None
    assert made.client.ended.text == "now"


def test_disconnect_that_cannot_be_read_is_one() -> None:
    made = pair()
    made.client.send(b"\1\0")
    made.run()
    assert made.server.of(ConnectionEnded) == [ConnectionEnded(None, True, 0, "")]


def test_disconnect_text_need_not_be_utf8() -> None:
    made = pair()
    made.client.send(Disconnect(3, b"\xff\x1b[1m"))
    made.run()
    assert made.server.ended is not None
    assert made.server.ended.text == "\ufffd\x1b[1m"


@pytest.mark.parametrize("login", [True, False])
def test_end_of_the_stream(login: bool) -> None:
    made = pair() if login else Pair()
    made.server.engine.receive_eof(made.now)
    made.server.engine.receive_eof(made.now)
    made.server.sweep()
    (event,) = made.server.of(ConnectionEnded)
    assert (event.error, event.by_peer, event.stage) == (None, True, "CONNECTION" if login else "FIRST_KEX")


COMMANDS: list[Callable[[Engine], object]] = [
    lambda engine: engine.open_channel("session"),
    lambda engine: engine.send_data(0, b"x"),
    lambda engine: engine.data_slots(0),
    lambda engine: engine.commit_data(0, 0),
    lambda engine: engine.may_send(0),
    lambda engine: engine.send_eof(0),
    lambda engine: engine.close_channel(0),
    lambda engine: engine.request(0, ShellRequest()),
    lambda engine: engine.request_global(OTHER),
    lambda engine: engine.channel(0),
    lambda engine: engine.rekey(),
]


@pytest.mark.parametrize("how", ["disconnect", "peer", "error", "eof", "never logged in"])
def test_commands_when_nobody_is_logged_in(how: str) -> None:
    made = Pair(algorithms=FAST)
    if how != "never logged in":
        made.run().session()
    if how == "disconnect":
        made.server.engine.disconnect()
    elif how == "peer":
        made.client.engine.disconnect()
    elif how == "error":
        made.client.send(b"\x05")
    elif how == "eof":
        made.server.engine.receive_eof(made.now)
    if how != "never logged in":
        made.run()
        assert made.server.ended is not None
    for command in COMMANDS:
        with pytest.raises(LocalProtocolError):
            command(made.server.engine)


def test_nothing_happens_after_the_end() -> None:
    made = pair(server_answers={GlobalRequestQuestion: ...})
    here, there = made.session()
    made.client.engine.request_global(OTHER, want_reply=True)
    made.client.engine.send_data(here, b"x")
    made.server.consume = False
    made.run()
    (question,) = made.server.asked(GlobalRequestQuestion)
    made.server.engine.disconnect()
    made.server.engine.data_to_send()
    made.server.sweep()
    engine = made.server.engine
    engine.answer(question.token, True)
    engine.consumed(there, 1)
    made.client.send(Ping(b"x"))
    engine.receive(b"".join(made.client.engine.data_to_send()), made.now)
    engine.receive_eof(made.now)
    engine.handle_timeout(made.now + 10_000)
    assert engine.next_deadline() is None
    assert engine.events() == []
    assert engine.data_to_send() == []
    assert engine.has_data_to_send is False


def test_nothing_behind_a_disconnect_is_read() -> None:
    made = pair()
    made.client.send(Disconnect(11, b"bye"), b"\x05", GlobalRequest("x", want_reply=True))
    made.run()
    assert made.server.of(ConnectionEnded) == [ConnectionEnded(None, True, 11, "bye")]
    assert 1 not in made.client.numbers


def test_the_goodbye_before_keys_is_in_the_clear() -> None:
    made = Pair()
    made.server.engine.data_to_send()
    made.server.engine.receive(b"SSH-2.0-x\r\n" + bytes([0, 0, 0, 12, 10, 5]) + bytes(10), made.now)
    (payload,) = plain_payloads(b"".join(made.server.engine.data_to_send()))
    assert Disconnect.decode(payload) == Disconnect(2, b"unexpected message")
    assert made.server.of(LoggedIn) == []
