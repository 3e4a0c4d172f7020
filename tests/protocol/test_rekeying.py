from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import LimitExceeded, NegotiationError, UnexpectedMessage
from dunnart.protocol.events import ChannelOpened, DataReceived, LoggedIn, SendingResumed
from dunnart.protocol.limits import KIB, MIB, Limits
from dunnart.protocol.phases import Kex, Stage
from dunnart.protocol.questions import (
    AuthQuestion,
    ChannelRequestQuestion,
    GlobalRequestQuestion,
    HostKeyQuestion,
    SignQuestion,
)
from dunnart.protocol.requests import ExecRequest, UnknownGlobalRequest
from dunnart.testing.pair import Pair
from dunnart.wire.messages import ChannelData, ChannelWindowAdjust, GlobalRequest, Ignore, KexInit, NewKeys, Ping, Pong

FAST = replace(PROFILES["default"], kex=("curve25519-sha256",))
BULK = bytes(range(256)) * (4 * KIB)


def both_ways(made: Pair, up: bytes = BULK, down: bytes = BULK[::-1]) -> None:
    """Bulk in both directions at once, each engine sending whenever it may."""
    here, there = made.session()
    left = {made.client: (here, memoryview(up)), made.server: (there, memoryview(down))}
    for _ in range(100_000):
        for side, (channel, view) in left.items():
            sent = side.engine.send_data(channel, view[: 50 * KIB])
            left[side] = (channel, view[sent:])
        made.run()
        assert made.server.ended is None, made.server.ended
        if not any(view for _, view in left.values()):
            break
    assert made.server.data(there) == up
    assert made.client.data(here) == down


@pytest.mark.parametrize("cipher", ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes128-ctr"])
@pytest.mark.parametrize(("client", "server"), [(True, False), (False, True), (True, True)])
def test_rekeying_by_bytes_during_bulk_both_ways(client: bool, server: bool, cipher: str) -> None:
    often, never = Limits(rekey_bytes=100 * KIB), Limits(rekey_bytes=0)
    made = Pair(
        algorithms=replace(FAST, ciphers=(cipher,)),
        limits=often if server else never,
        client_limits=often if client else never,
    ).run()
    both_ways(made)
    assert made.server.engine.rekeys == made.client.engine.rekeys >= 8


@pytest.mark.parametrize(("up", "down"), [(BULK, b""), (b"", BULK), (BULK, BULK)])
@pytest.mark.parametrize("limits", [Limits(rekey_packets=20, rekey_bytes=0), Limits(rekey_bytes=400 * KIB)])
def test_rekeying_by_packets_or_bytes_of_either_direction(limits: Limits, up: bytes, down: bytes) -> None:
    made = Pair(algorithms=FAST, limits=limits, client_limits=Limits(rekey_bytes=0)).run()
    both_ways(made, up, down)
    assert made.server.engine.rekeys == made.client.engine.rekeys >= 1


def test_never_by_bytes_still_heeds_the_cipher() -> None:
    """RFC 4344 §3.2: a 64-bit block cipher is worn out after 512 KiB."""
    chosen = replace(PROFILES["legacy"], kex=FAST.kex, ciphers=("3des-cbc",))
    made = Pair(algorithms=chosen, limits=Limits(rekey_bytes=0)).run()
    both_ways(made, BULK, b"")
    assert made.server.engine.rekeys >= 1


def test_no_rekeying_without_need() -> None:
    made = Pair(algorithms=FAST, limits=Limits(rekey_bytes=0)).run()
    both_ways(made)
    assert made.server.engine.rekeys == 0


@pytest.mark.parametrize("side", ["client", "server"])
def test_rekeying_by_time(side: str) -> None:
    limits = {"client": Limits(rekey_seconds=0), "server": Limits(rekey_seconds=0)} | {side: Limits(rekey_seconds=10)}
    made = Pair(algorithms=FAST, limits=limits["server"], client_limits=limits["client"]).run()
    assert getattr(made, side).engine.next_deadline() == made.now + 10
    made.advance(9.9)
    assert made.server.engine.rekeys == 0
    for count in (1, 2, 3):
        made.advance(10)
        assert made.server.engine.rekeys == made.client.engine.rekeys == count
        assert getattr(made, side).engine.next_deadline() == made.now + 10


def test_rekeying_by_time_is_seen_when_data_comes_late() -> None:
    made = Pair(algorithms=FAST, limits=Limits(rekey_seconds=10), client_limits=Limits(rekey_seconds=0)).run()
    made.now += 11
    made.client.send(Ignore(b""))
    made.run()
    assert made.server.engine.rekeys == 1


@pytest.mark.parametrize("chunk", [None, 7, 1000])
@pytest.mark.parametrize("starters", ["c", "s", "cs", "sc"])
@pytest.mark.parametrize("compression", ["none", "zlib@openssh.com", "zlib"])
def test_storms(starters: str, chunk: int | None, compression: str) -> None:
    chosen = replace(PROFILES["legacy"], kex=FAST.kex, compression=(compression,))
    made = Pair(algorithms=chosen, chunk=chunk).run()
    here, there = made.session()
    for number in range(25):
        for starter in starters:
            (made.client if starter == "c" else made.server).engine.rekey()
        made.transfer(made.client, here, b"up%d" % number).transfer(made.server, there, b"down%d" % number)
    assert made.server.engine.rekeys == made.client.engine.rekeys == 25
    assert made.server.data(there) == b"".join(b"up%d" % number for number in range(25))
    assert made.client.data(here) == b"".join(b"down%d" % number for number in range(25))


def test_data_under_way_is_delivered() -> None:
    """What the peer sent before our KEXINIT reached it still counts."""
    made = Pair(algorithms=FAST).run()
    here, there = made.session()
    made.server.engine.rekey()
    assert made.server.engine.kex is Kex.OFFERED
    assert made.client.engine.send_data(here, b"crossing") == 8
    made.run()
    assert made.server.data(there) == b"crossing"
    assert made.server.engine.rekeys == 1


def test_no_data_is_sent_while_keys_are_exchanged() -> None:
    made = Pair(algorithms=FAST).run()
    here, there = made.session()
    made.client.answers[HostKeyQuestion] = ...
    made.server.engine.rekey()
    assert made.server.engine.may_send(there) is False
    assert made.server.engine.send_data(there, b"early") == 0
    assert made.server.engine.data_slots(there) == []
    made.server.engine.send_eof(there)
    made.run()
    numbers = made.client.numbers[made.client.numbers.index(20, 5) :]
    assert numbers == [20, 31, 21, 96]
    assert made.server.of(SendingResumed)
    assert made.client.data(here) == b""


def test_session_id_stays_and_keys_change() -> None:
    made = Pair(algorithms=FAST).run()
    session_id, sealer = made.server.engine.session_id, made.server.engine.outbound.sealer
    made.client.engine.rekey()
    made.run()
    assert made.server.engine.session_id == made.client.engine.session_id == session_id
    assert made.server.engine.outbound.sealer is not sealer
    first, second = made.server.asked(SignQuestion)
    assert first.data == session_id != second.data


def test_known_host_key_is_not_asked_for_again() -> None:
    made = Pair(algorithms=FAST).run()
    made.client.engine.rekey()
    made.run()
    assert len(made.client.asked(HostKeyQuestion)) == 1


def test_rekey_during_an_exchange_does_nothing() -> None:
    made = Pair(algorithms=FAST).run()
    for _ in range(5):
        made.client.engine.rekey()
    made.run()
    assert made.server.engine.rekeys == 1
    assert len(made.server.got(KexInit)) == 2


def test_no_exchange_begins_while_a_new_host_key_is_looked_at() -> None:
    """The server's NEWKEYS is in, ours waits for the answer: a KEXINIT between them would be sealed with old keys."""
    made = Pair(algorithms=FAST).run()
    made.client.answers[HostKeyQuestion] = ...
    made.client.engine.server_key = b"another"
    made.server.engine.rekey()
    made.run()
    assert made.client.engine.kex is Kex.IDLE
    made.client.engine.rekey()
    assert made.client.engine.has_data_to_send is False
    made.client.engine.answer(made.client.asked(HostKeyQuestion)[-1].token, True)
    made.run()
    both_ways(made)
    assert made.server.engine.rekeys == 1


def peer_offers(made: Pair) -> None:
    """Bring the server to where the client, a puppet from now on, has sent its KEXINIT and nothing more."""
    made.client.engine.rekey()
    made.client.puppet = True
    made.run()
    assert made.server.engine.kex is Kex.EXCHANGE


@pytest.mark.parametrize(
    "message",
    [
        ChannelData(0, b"x"),
        ChannelWindowAdjust(0, 1),
        Ping(b""),
        GlobalRequest("x", want_reply=True),
        NewKeys(),
        b"\x14",
    ],
)
def test_peer_sends_nothing_else_after_its_kexinit(message: Any) -> None:
    made = Pair(algorithms=FAST).run()
    made.session()
    peer_offers(made)
    made.client.send(message)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)


def test_ignore_is_allowed_while_keys_are_exchanged_anew() -> None:
    made = Pair(algorithms=FAST).run()
    peer_offers(made)
    made.client.send(Ignore(b"x"))
    made.run()
    assert made.server.ended is None


@pytest.mark.parametrize("who", ["client", "server"])
def test_exchange_that_takes_too_long(who: str) -> None:
    made = Pair(algorithms=FAST, limits=Limits(rekey_deadline_seconds=60)).run()
    if who == "client":
        made.server.puppet = True
        made.client.engine.rekey()
        side = made.client
    else:
        peer_offers(made)
        side = made.server
    assert side.engine.next_deadline() == made.now + 60
    made.advance(59)
    assert side.ended is None
    made.advance(1)
    assert isinstance(side.ended and side.ended.error, NegotiationError)


def test_replies_held_back_are_bounded() -> None:
    made = Pair(algorithms=FAST).run()
    made.server.engine.rekey()
    made.server.engine.data_to_send()  # the client never hears of it
    made.client.send(*[Ping(b"x" * 1000)] * 70)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, LimitExceeded)


def test_replies_held_back_are_sent_afterwards() -> None:
    made = Pair(algorithms=FAST).run()
    made.server.engine.rekey()
    offer = b"".join(made.server.engine.data_to_send())
    made.client.send(*[Ping(b"%d" % number) for number in range(10)])
    made.run()
    assert 193 not in made.client.numbers
    made.client.engine.receive(offer, made.now)
    made.run()
    assert made.client.got(Pong) == [Pong(b"%d" % number) for number in range(10)]


def test_own_commands_are_held_back_whatever_their_size() -> None:
    made = Pair(algorithms=FAST).run()
    here, _ = made.session()
    made.client.engine.rekey()
    command = b"x" * 180 * KIB
    made.client.engine.request(here, ExecRequest(command), want_reply=True)
    assert made.client.engine.open_channel("session") == 1
    made.run()
    assert made.server.ended is None
    assert made.server.asked(ChannelRequestQuestion)[-1].request == ExecRequest(command)
    assert len(made.server.of(ChannelOpened)) == 2


def test_no_exchange_before_the_login() -> None:
    """One exchange a connection before login: work for nothing is not to be had twice (THREATS §3)."""
    made = Pair(algorithms=FAST, limits=Limits(rekey_packets=1), client_answers={}).run()
    assert made.server.of(LoggedIn)
    before = made.server.numbers.index(50)
    assert 20 not in made.server.numbers[1:before]


def test_client_in_authentication_follows_a_server_that_rekeys() -> None:
    made = Pair(algorithms=FAST, server_answers={AuthQuestion: ...}).run()
    assert made.client.engine.stage is Stage.AUTH
    made.server.engine._transport.rekey()
    made.run()
    assert [number for number in made.server.numbers if number in (20, 30)] == [20, 30, 20]
    # Our own server lets no client begin an exchange before its login, not even in answer.
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)


def test_question_of_before_may_be_answered_in_between() -> None:
    made = Pair(algorithms=FAST, server_answers={GlobalRequestQuestion: ...}).run()
    made.client.engine.request_global(UnknownGlobalRequest("x@example.com", b""), want_reply=True)
    made.run()
    (question,) = made.server.asked(GlobalRequestQuestion)
    made.server.engine.rekey()
    made.server.engine.answer(question.token, b"data")
    made.run()
    assert made.client.payloads[-1] == b"\x51data"
    assert made.client.numbers[-2] == 21


def test_more_than_one_buffer_at_once() -> None:
    """A single receive() of more than the shared buffer holds keeps every view valid."""
    made = Pair(algorithms=FAST, limits=Limits(window_bytes=4 * MIB)).run()
    here, there = made.session()
    blocks = [bytes([number]) * (30 * KIB) for number in range(40)]
    for block in blocks:
        assert made.client.engine.send_data(here, block) == len(block)
    data = b"".join(made.client.engine.data_to_send())
    made.server.engine.receive(data, made.now)
    events = [event for event in made.server.engine.events() if isinstance(event, DataReceived)]
    assert b"".join(event.data for event in events) == b"".join(blocks)
    assert {event.channel for event in events} == {there}
