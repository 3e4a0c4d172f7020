"""Channels used against us (THREATS R8, R19-R21, R24).

ssh2 (npm) issue 1505: a window was checked for exactly zero only. CVE-2026-39827, CVE-2026-39830 (Go): refused channels
and answers nobody asked for were kept. russh GHSA-cqjc-rmpq-xprq: more than 130 terminal modes. CVE-2026-23943
(Erlang/OTP): inflate without bounds, before the login.
"""

from __future__ import annotations

import tracemalloc
import zlib
from dataclasses import replace

import pytest

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import DecodeError, FlowControlError, IntegrityError, LimitExceeded
from dunnart.protocol.events import DataReceived
from dunnart.protocol.limits import KIB, MIB, Limits
from dunnart.protocol.questions import (
    Allow,
    AuthQuestion,
    ChannelOpenQuestion,
    ChannelRequestQuestion,
    CredentialQuestion,
    Prompt,
)
from dunnart.protocol.requests import PtyRequest, decode_modes
from dunnart.testing.pair import Pair
from dunnart.wire.encoding import text, uint32
from dunnart.wire.messages import (
    ChannelData,
    ChannelExtendedData,
    ChannelOpen,
    ChannelOpenFailure,
    ChannelRequest,
    ChannelSuccess,
    Ignore,
    InteractiveData,
    RequestSuccess,
    UserauthInfoResponse,
    UserauthRequest,
)
from tests.alone import alone

FAST = replace(PROFILES["default"], kex=("curve25519-sha256",))
ZLIB = replace(FAST, compression=("zlib@openssh.com",))
SMALL = Limits(window_bytes=10 * KIB, channel_packet_bytes=KIB)


def session(**options: object) -> Pair:
    made = Pair(**({"algorithms": FAST} | options)).run()  # type: ignore[arg-type]
    made.session()
    made.client.puppet = True
    return made


@pytest.mark.parametrize("extended", [False, True])
def test_data_beyond_the_window(extended: bool) -> None:
    made = session(limits=SMALL)
    made.server.consume = False
    for _ in range(10):
        made.client.send(ChannelExtendedData(0, 1, bytes(KIB)) if extended else ChannelData(0, bytes(KIB)))
    made.run()
    if not extended:  # a server reads no stderr and has given the window back
        assert made.server.ended is None
        made.client.send(ChannelData(0, b"x"))
        made.run()
        assert isinstance(made.server.ended and made.server.ended.error, FlowControlError)
        assert len(made.server.data(0)) == 10 * KIB
    else:
        made.client.send(*[ChannelData(0, bytes(KIB))] * 11)
        made.run()
        assert isinstance(made.server.ended and made.server.ended.error, FlowControlError)


def test_one_byte_into_half_a_window() -> None:
    """Not only an empty window is checked."""
    made = session(limits=SMALL)
    made.server.consume = False
    made.client.send(*[ChannelData(0, bytes(1000))] * 10, ChannelData(0, bytes(241)))
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, FlowControlError)


def test_no_window_without_a_consumer() -> None:
    made = session(limits=SMALL)
    made.server.consume = False
    made.client.send(*[ChannelData(0, bytes(KIB))] * 10)
    made.run()
    assert 93 not in made.client.numbers
    made.server.engine.consumed(0, 10 * KIB)
    made.run()
    assert made.client.numbers.count(93) == 1


def test_maximum_packet_of_zero() -> None:
    made = session()
    made.client.send(ChannelOpen("session", 5, 1000, 0))
    made.run()
    assert [message.recipient for message in made.client.got(ChannelOpenFailure)] == [5]


@alone
def test_refused_channels_leave_nothing_behind() -> None:
    made = session(limits=Limits(sessions=1))
    connection = made.server.engine._connection
    assert connection is not None
    made.server.answers[ChannelOpenQuestion] = False
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for _ in range(20):
            made.client.send(*[ChannelOpen("direct-tcpip", n, 1000, 1000, bytes(1000)) for n in range(50)])
            made.run()
            made.server.payloads.clear()
            made.server.questions.clear()
            made.client.payloads.clear()
        grown = sum(item.size_diff for item in tracemalloc.take_snapshot().compare_to(before, "filename"))
    finally:
        tracemalloc.stop()
    assert len(connection._channels) == 1
    assert made.server.engine.waiting == {}
    assert grown < 512 * KIB


def test_answers_nobody_asked_for_are_not_kept() -> None:
    made = session()
    for _ in range(10):
        made.client.send(*[ChannelSuccess(0), RequestSuccess(b"x" * 1000)] * 100)
        made.run()
    assert made.server.ended is None
    connection = made.server.engine._connection
    assert connection is not None
    assert connection._global_expected == []
    assert connection.channel(0).expected == 0


@pytest.mark.parametrize(
    "modes", [b"\x01" * 700, b"".join(bytes([n]) + uint32(1) for n in range(1, 160)), b"\xff" * 1000, b""]
)
def test_terminal_modes_of_any_kind(modes: bytes) -> None:
    made = session()
    body = PtyRequest("xterm", 2**32 - 1, 0, 0, 0, modes).encode()
    made.client.send(ChannelRequest(0, "pty-req", want_reply=True, data=body))
    made.run()
    assert made.server.ended is None
    request = made.server.asked(ChannelRequestQuestion)[-1].request
    try:
        found = decode_modes(request.modes)
    except DecodeError:
        return
    assert len(found) <= 159


@pytest.mark.parametrize(
    "body", [text("xterm") + bytes(16) + uint32(2**32 - 1), text("xterm") + bytes(16), b"", uint32(2**31) + b"x"]
)
def test_lying_lengths_in_requests(body: bytes) -> None:
    made = session()
    made.client.send(ChannelRequest(0, "pty-req", want_reply=True, data=body))
    made.run()
    assert made.server.ended is None
    assert made.server.asked(ChannelRequestQuestion) == []
    assert made.client.numbers[-1] == 100


def test_lying_count_of_responses() -> None:
    """Russh CVE-2026-42189: the count was believed."""
    made = Pair(
        algorithms=FAST,
        auth_methods=(("keyboard-interactive",),),
        server_answers={AuthQuestion: Prompt((("?", True),))},
        client_answers={CredentialQuestion: ...},
    ).run()
    made.client.puppet = True
    data = InteractiveData(b"", "").encode()
    made.client.send(UserauthRequest("alice", "ssh-connection", "keyboard-interactive", data))
    made.run()
    made.client.send(UserauthInfoResponse(2**32 - 1, b""))
    made.run()
    assert made.server.ended is None
    assert made.server.engine.auth_failures == 1


# Compression.


@alone
def test_compression_bomb() -> None:
    made = session(algorithms=ZLIB)
    tracemalloc.start()
    try:
        made.client.send(Ignore(bytes(20 * MIB)))
        made.client.engine.outbound.compressor = None
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        made.run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(made.server.ended and made.server.ended.error, LimitExceeded)
    assert peak - before < 4 * MIB


@pytest.mark.parametrize("size", [256 * KIB, 256 * KIB + 1])
def test_inflated_size_is_exact(size: int) -> None:
    made = session(algorithms=ZLIB)
    made.client.send(b"\2" + bytes(size - 1))
    made.run()
    assert (made.server.ended is None) is (size == 256 * KIB)


@pytest.mark.parametrize(
    "payload",
    [zlib.compress(b""), b"\0", b"not zlib", zlib.compress(b"\2")[:-6], zlib.compress(b"\2"), zlib.compress(b"")[:2]],
)
def test_payloads_that_inflate_to_nothing_or_not_at_all(payload: bytes) -> None:
    made = session(algorithms=ZLIB)
    opener = made.server.engine.inbound.decompressor
    assert opener is not None
    opener._stream = zlib.decompressobj()  # as if it were the first packet
    made.client.engine.outbound.compressor = None
    made.client.send(payload)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, IntegrityError)


def test_nothing_is_inflated_before_the_login() -> None:
    made = Pair(algorithms=ZLIB, server_answers={AuthQuestion: ...}).run()
    assert made.server.engine.inbound.decompressor is None
    assert made.server.engine.outbound.compressor is None
    assert PROFILES["default"].compression == ("none", "zlib@openssh.com")
    (question,) = made.server.asked(AuthQuestion)
    made.server.engine.answer(question.token, Allow())
    made.run()
    assert made.server.engine.inbound.decompressor is not None
    here, there = made.session()
    made.transfer(made.client, here, b"x" * 10_000)
    assert b"".join(event.data for event in made.server.of(DataReceived)) == b"x" * 10_000
    assert there == 0
