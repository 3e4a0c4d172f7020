"""Work and memory that a peer can ask for without end (THREATS R4, R5, R6, R10, R18).

CVE-2016-8858: KEXINIT after KEXINIT, 384 MiB. CVE-2025-26466: PINGs while keys are exchanged, queued for ever.
CVE-2025-22869: an exchange that is never finished while everything is kept. CVE-2026-55199: EXT_INFO that counts to
2^32.
Erlang/OTP PR 10162: lists of algorithms without end. CVE-2024-6387: what a timeout does must be next to nothing.
"""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import pytest

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import DecodeError, LimitExceeded, NegotiationError, UnexpectedMessage
from dunnart.protocol.engine import LoginTimeout
from dunnart.protocol.events import ConnectionEnded
from dunnart.protocol.limits import KIB, MIB
from dunnart.protocol.phases import Kex
from dunnart.protocol.questions import AuthQuestion, Question, SignQuestion
from dunnart.testing.pair import Pair, kexinit, plain_packet, plain_payloads
from dunnart.wire.encoding import string, uint32
from dunnart.wire.messages import Disconnect, ExtInfo, Ignore, Ping
from tests.alone import alone

FAST = replace(PROFILES["default"], kex=("curve25519-sha256",))
OFFER = kexinit(FAST)


def test_kexinit_flood_before_keys() -> None:
    made = Pair(algorithms=FAST)
    made.server.engine.data_to_send()
    made.server.engine.receive(b"SSH-2.0-x\r\n" + plain_packet(OFFER) * 1000, made.now)
    made.server.sweep()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)
    assert made.server.numbers == [20, 20]  # the second one was the last that was looked at


def test_kexinit_flood_after_the_login() -> None:
    made = Pair(algorithms=FAST).run()
    made.client.puppet = True
    made.client.send(OFFER, OFFER)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)


def test_newkeys_out_of_turn() -> None:
    made = Pair(algorithms=FAST).run()
    made.client.send(b"\x15")
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)


@pytest.mark.parametrize("kex", [Kex.EXCHANGE, Kex.BUSY])
def test_ping_flood_after_the_peers_kexinit(kex: Kex) -> None:
    made = Pair(algorithms=FAST).run()
    if kex is Kex.BUSY:
        made.server.answers[SignQuestion] = ...
        made.client.engine.rekey()
        made.run()
    made.client.puppet = True
    if kex is Kex.EXCHANGE:
        made.client.engine.rekey()
    made.run()
    assert made.server.engine.kex is kex
    made.client.send(Ping(b"x" * 1000))
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)


@alone
def test_ping_flood_while_our_kexinit_is_unanswered() -> None:
    made = Pair(algorithms=FAST).run()
    made.server.engine.rekey()
    made.server.engine.data_to_send()
    made.client.puppet = True
    tracemalloc.start()
    try:
        for _ in range(100):
            made.client.send(*[Ping(b"x" * 1000)] * 10)
            made.carry(made.client, made.server)
            made.server.payloads.clear()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    made.server.sweep()
    assert isinstance(made.server.ended and made.server.ended.error, LimitExceeded)
    assert peak < 2 * MIB


def test_exchange_that_never_ends() -> None:
    made = Pair(algorithms=FAST).run()
    made.client.engine.rekey()
    made.client.puppet = True
    made.run()
    for _ in range(7):
        made.client.send(Ignore(b""))
        made.advance(10)
    assert isinstance(made.server.ended and made.server.ended.error, NegotiationError)


@pytest.mark.parametrize("count", [1, 1000, 2**31, 2**32 - 1])
def test_ext_info_that_lies_about_its_count(count: int) -> None:
    made = Pair(algorithms=FAST)
    made.client.engine._transport._greeted = True
    made.run()
    made.client.puppet = True
    made.client.send(ExtInfo(count, b""))
    began = time.process_time()
    made.run()
    assert time.process_time() - began < 5  # a loop to the peer's count would take minutes
    assert isinstance(made.server.ended and made.server.ended.error, DecodeError)


def test_ext_info_again_and_again() -> None:
    made = Pair(algorithms=FAST)
    made.client.engine._transport._greeted = True
    made.run()
    made.client.puppet = True
    made.client.send(*[ExtInfo(0, b"")] * 2)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)


def test_ext_info_of_unknown_extensions_is_not_kept() -> None:
    made = Pair(algorithms=FAST)
    made.client.engine._transport._greeted = True
    made.run()
    made.client.puppet = True
    made.client.send(ExtInfo(1000, b"".join(string(b"%d@x" % n) + string(b"y") for n in range(1000))))
    made.run()
    assert made.server.ended is None
    assert made.server.engine.extensions == {}


@pytest.mark.parametrize(
    "names", [("x" * 31 * KIB,), tuple(f"n{n}" for n in range(201)), tuple("a" for _ in range(16_000))]
)
def test_huge_lists_of_algorithms(names: tuple[str, ...]) -> None:
    made = Pair(algorithms=FAST)
    made.server.engine.data_to_send()
    offer = replace(OFFER, kex=(*FAST.kex, *names), languages_to_client=("y" * 1000,))
    made.server.engine.receive(b"SSH-2.0-x\r\n" + plain_packet(offer), made.now)
    made.server.sweep()
    assert isinstance(made.server.ended and made.server.ended.error, LimitExceeded)


@pytest.mark.parametrize("length", [35_001, 262_145, 2**31, 2**32 - 1, 0, 1, 5, 13])
def test_announced_length_is_checked_before_anything_is_kept(length: int) -> None:
    """CVE-2024-43410 (russh): memory was set aside for whatever length was announced (THREATS R7)."""
    made = Pair(algorithms=FAST)
    made.server.engine.data_to_send()
    made.server.engine.receive(b"SSH-2.0-x\r\n" + uint32(length), made.now)
    made.server.sweep()
    assert made.server.ended is not None
    assert made.server.ended.reason_code == 5


def test_packets_are_larger_only_after_the_login() -> None:
    for login, fine in ((False, False), (True, True)):
        made = Pair(algorithms=FAST, server_answers={} if login else {AuthQuestion: ...}).run()
        made.client.puppet = True
        made.client.send(Ignore(bytes(200 * KIB)))
        made.run()
        assert (made.server.ended is None) is fine


def test_version_line_without_end() -> None:
    made = Pair()
    made.server.engine.data_to_send()
    for _ in range(1000):
        made.server.engine.receive(b"S" * 100, made.now)
    made.server.sweep()
    assert isinstance(made.server.ended and made.server.ended.error, LimitExceeded)
    assert len(made.server.of(ConnectionEnded)) == 1


@pytest.mark.parametrize("trickle", [True, False])
def test_login_grace_only_closes(trickle: bool) -> None:
    """The timeout asks no question and makes one goodbye, whatever was under way (regreSSHion)."""
    made = Pair(algorithms=FAST, server_answers={SignQuestion: ..., AuthQuestion: ...}).run()
    made.client.puppet = True
    questions = len(made.server.questions)
    if trickle:
        packet = plain_packet(Ignore(bytes(30_000)))
        for second in range(59):
            made.server.engine.receive(packet[second : second + 1], 1000.0 + second)
    made.server.engine.data_to_send()
    made.server.engine.handle_timeout(1060.0)
    batch = made.server.engine.events()
    assert not any(isinstance(item, Question) for item in batch)
    assert len(made.server.questions) == questions
    assert [type(event.error) for event in batch if isinstance(event, ConnectionEnded)] == [LoginTimeout]
    (payload,) = plain_payloads(b"".join(made.server.engine.data_to_send()))
    assert Disconnect.decode(payload).description == b"timeout before authentication"
    made.server.engine.handle_timeout(1061.0)
    assert made.server.engine.events() == []
