from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import DecodeError, FlowControlError, LimitExceeded, LocalProtocolError, RemoteProtocolError
from dunnart.protocol.connection import PROHIBITED, RESOURCE_SHORTAGE
from dunnart.protocol.events import (
    ChannelClosed,
    ChannelOpened,
    ChannelRefused,
    DataReceived,
    EofReceived,
    RequestAnswered,
    WindowOpened,
)
from dunnart.protocol.limits import KIB, MIB, Limits
from dunnart.protocol.questions import ChannelOpenQuestion, ChannelRequestQuestion, Refusal
from dunnart.protocol.requests import (
    BreakRequest,
    EndOfWrite,
    EnvironmentRequest,
    ExecRequest,
    ExitSignal,
    ExitStatus,
    Keepalive,
    PtyRequest,
    SessionOpen,
    ShellRequest,
    SignalRequest,
    SubsystemRequest,
    UnknownOpen,
    UnknownRequest,
    WindowChange,
)
from dunnart.testing.pair import Pair
from dunnart.wire.encoding import uint32
from dunnart.wire.messages import (
    ChannelClose,
    ChannelData,
    ChannelEof,
    ChannelExtendedData,
    ChannelFailure,
    ChannelOpen,
    ChannelOpenConfirmation,
    ChannelOpenFailure,
    ChannelRequest,
    ChannelSuccess,
    ChannelWindowAdjust,
)

FAST = replace(PROFILES["default"], kex=("curve25519-sha256",))
ZLIB = replace(FAST, compression=("zlib@openssh.com",))
SMALL = Limits(window_bytes=10_000, channel_packet_bytes=KIB)


def opened(**options: Any) -> tuple[Pair, int, int]:
    made = Pair(algorithms=options.pop("algorithms", FAST), **options).run()
    return made, *made.session()


# Opening.


def test_session_opens_on_both_sides() -> None:
    made, here, there = opened()
    assert made.client.of(ChannelOpened) == [ChannelOpened(here, "session")]
    assert made.server.of(ChannelOpened) == [ChannelOpened(there, "session")]
    assert [question.request for question in made.server.asked(ChannelOpenQuestion)] == [SessionOpen()]
    (message,) = made.server.got(ChannelOpen)
    assert (message.window, message.packet) == (2 * MIB, 32 * KIB)


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        (Refusal(2, "no route to host"), ChannelRefused(0, 2, "no route to host")),
        (False, ChannelRefused(0, PROHIBITED, "administratively prohibited")),
        (None, ChannelRefused(0, PROHIBITED, "administratively prohibited")),
        (1, ChannelRefused(0, PROHIBITED, "administratively prohibited")),
        (Exception("failed"), ChannelRefused(0, PROHIBITED, "administratively prohibited")),
    ],
)
def test_refused_channel_leaves_nothing(reply: object, refused: ChannelRefused) -> None:
    made = Pair(algorithms=FAST, server_answers={ChannelOpenQuestion: lambda _question: reply}).run()
    made.client.engine.open_channel("session")
    made.run()
    assert made.client.of(ChannelRefused) == [refused]
    assert made.server.of(ChannelOpened) == []
    for side in (made.client, made.server):
        with pytest.raises(LocalProtocolError):
            side.engine.channel(0)


def test_other_types_come_with_their_data() -> None:
    made = Pair(algorithms=FAST).run()
    made.client.engine.open_channel("direct-tcpip", b"where to")
    made.server.engine.open_channel("forwarded-tcpip", b"from")
    made.client.answers[ChannelOpenQuestion] = True
    made.run()
    assert [question.request for question in made.server.asked(ChannelOpenQuestion)] == [
        UnknownOpen("direct-tcpip", b"where to")
    ]
    assert [question.request for question in made.client.asked(ChannelOpenQuestion)] == [
        UnknownOpen("forwarded-tcpip", b"from")
    ]
    assert len(made.client.of(ChannelOpened)) == len(made.server.of(ChannelOpened)) == 2


def test_client_offers_no_sessions() -> None:
    """RFC 4254 §6.1."""
    made = Pair(algorithms=FAST).run()
    made.server.engine.open_channel("session")
    made.run()
    assert made.server.of(ChannelRefused) == [ChannelRefused(0, PROHIBITED, "a client offers no sessions")]
    assert made.client.asked(ChannelOpenQuestion) == []


def test_open_with_rubbish_in_it_or_no_packet_size_is_refused() -> None:
    made = Pair(algorithms=FAST).run()
    made.client.puppet = True
    made.client.send(ChannelOpen("session", 7, 1000, 1000, b"x"), ChannelOpen("session", 8, 1000, 0))
    made.run()
    assert [(m.recipient, m.reason_code) for m in made.client.got(ChannelOpenFailure)] == [(7, 1), (8, 1)]
    assert made.server.asked(ChannelOpenQuestion) == []


def test_sessions_are_limited() -> None:
    made = Pair(algorithms=FAST, limits=Limits(sessions=2), client_limits=Limits()).run()
    for _ in range(3):
        made.client.engine.open_channel("session")
    made.client.engine.open_channel("direct-tcpip")
    made.run()
    assert made.client.of(ChannelRefused) == [ChannelRefused(2, RESOURCE_SHORTAGE, "too many channels")]
    assert len(made.server.of(ChannelOpened)) == 3
    made.client.engine.close_channel(0)
    made.run()
    made.client.engine.open_channel("session")
    made.run()
    assert len(made.server.of(ChannelOpened)) == 4


def test_unanswered_opens_count() -> None:
    made = Pair(algorithms=FAST, limits=Limits(channels=5), client_limits=Limits()).run()
    made.server.answers[ChannelOpenQuestion] = ...
    for _ in range(8):
        made.client.engine.open_channel("x")
    made.run()
    assert len(made.server.asked(ChannelOpenQuestion)) == 5
    assert len(made.client.of(ChannelRefused)) == 3


@pytest.mark.parametrize("answer", [ChannelOpenFailure(0, PROHIBITED, b""), ChannelOpenConfirmation(0, 7, 1000, 1000)])
def test_nobody_answers_what_it_has_asked_for_itself(answer: Any) -> None:
    """Else an opening that is under way would not count, or open with the peer's own word."""
    made = Pair(algorithms=FAST, server_answers={ChannelOpenQuestion: ...}).run()
    made.client.puppet = True
    made.client.send(ChannelOpen("session", 7, 1000, 1000), answer)
    made.run()
    assert made.server.ended is not None
    assert type(made.server.ended.error) is RemoteProtocolError
    assert str(made.server.ended.error) == "channel 0 was not asked for"
    assert made.server.of(ChannelOpened) == made.server.of(ChannelRefused) == []


def test_own_channels_are_limited() -> None:
    made = Pair(algorithms=FAST, limits=Limits(channels=2)).run()
    made.client.engine.open_channel("x")
    made.client.engine.open_channel("x")
    with pytest.raises(LocalProtocolError):
        made.client.engine.open_channel("x")


def test_thousand_channels_and_their_numbers() -> None:
    made = Pair(algorithms=FAST, limits=Limits(channels=1000)).run()
    numbers = [made.client.engine.open_channel("direct-tcpip") for _ in range(1000)]
    made.run()
    assert numbers == list(range(1000))
    assert len(made.server.of(ChannelOpened)) == 1000
    for number in numbers:
        assert made.client.engine.send_data(number, b"%d" % number)
    made.run()
    for number in numbers:
        there = made.client.engine.channel(number).remote
        assert made.server.data(there) == b"%d" % number
    for number in numbers[::3]:
        made.client.engine.close_channel(number)
    made.run()
    again = [made.client.engine.open_channel("direct-tcpip") for _ in numbers[::3]]
    assert not set(again) & set(numbers)
    assert len(made.server.of(ChannelOpened)) == 1000


def test_numbers_are_not_used_again() -> None:
    """An owner that still has to hear of a channel's end must not take the next one for it."""
    made, here, there = opened()
    made.client.engine.close_channel(here)
    second, _ = made.client.engine.open_channel("session"), made.run()
    third, _ = made.session()
    assert len({here, second, third}) == 3
    assert made.client.of(ChannelClosed) == [ChannelClosed(here)]
    assert made.server.of(ChannelClosed) == [ChannelClosed(there)]


# Data.


@pytest.mark.parametrize("algorithms", [FAST, ZLIB])
@pytest.mark.parametrize("size", [0, 1, 5, 1023, 1024, 1025, 32 * KIB, 32 * KIB + 1, 300 * KIB, 3 * MIB])
def test_data_of_any_size_both_ways(size: int, algorithms: Any) -> None:
    made, here, there = opened(algorithms=algorithms)
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    made.transfer(made.client, here, data).transfer(made.server, there, data)
    assert made.server.data(there) == made.client.data(here) == data


def test_stderr_goes_to_the_client_only() -> None:
    made, here, there = opened()
    assert made.server.engine.send_data(there, b"complaint", stream=1) == 9
    assert made.client.engine.send_data(here, b"ignored", stream=1) == 7
    made.run()
    assert made.client.data(here, stream=1) == b"complaint"
    assert made.client.data(here) == b""
    assert made.server.of(DataReceived) == []
    assert made.server.ended is None


def test_unknown_streams_are_dropped_and_their_window_given_back() -> None:
    made, here, there = opened(limits=SMALL)
    for _ in range(30):
        made.server.send(ChannelExtendedData(here, 2, b"x" * 1000))
        made.run()
    assert made.client.of(DataReceived) == []
    assert made.client.ended is None
    assert len(made.server.got(ChannelWindowAdjust)) >= 3
    assert there == 0


def test_streams_and_channels_keep_their_order() -> None:
    made, here, there = opened()
    other, other_there = made.session()
    sends = [(there, 0, b"a"), (there, 1, b"b"), (there, 1, b"c"), (other_there, 0, b"d"), (there, 0, b"e")]
    for channel, stream, data in sends:
        made.server.engine.send_data(channel, data, stream)
    made.run()
    seen = [(event.channel, event.stream, event.data) for event in made.client.of(DataReceived)]
    assert seen == [(here, 0, b"a"), (here, 1, b"b"), (here, 1, b"c"), (other, 0, b"d"), (here, 0, b"e")]


def test_data_slots_are_what_send_data_is() -> None:
    made, here, there = opened()
    for size in (1, 100, 32 * KIB, 200 * KIB):
        slots = made.server.engine.data_slots(there, limit=size)
        assert sum(map(len, slots)) == size
        for number, slot in enumerate(slots):
            slot[:] = bytes([number + 1]) * len(slot)
        expected = b"".join(bytes(slot) for slot in slots)
        used = size - size // 3
        made.server.engine.commit_data(there, used)
        made.client.seen.clear()
        made.run()
        assert made.client.data(here) == expected[:used]


def test_slots_fill_a_run_and_no_more() -> None:
    made, _, there = opened()
    slots = made.server.engine.data_slots(there)
    assert [len(slot) for slot in slots] == [32 * KIB] * 8


@pytest.mark.parametrize("packet", [1, 2, 100, 1 << 31])
def test_peers_maximum_packet_is_kept_to(packet: int) -> None:
    made = Pair(algorithms=FAST).run()
    made.client.puppet = True
    made.client.send(ChannelOpen("session", 0, 100_000, packet))
    made.run()
    data = bytes(range(256)) * 100
    sent = 0
    while sent < 2000:
        sent += made.server.engine.send_data(0, data[sent:2000])
    made.run()
    messages = made.client.got(ChannelData)
    assert b"".join(message.data for message in messages) == data[:2000]
    assert max(len(message.data) for message in messages) == min(packet, 2000)


# Windows.


def test_window_ends_and_opens_again() -> None:
    made, here, there = opened(limits=SMALL)
    made.server.consume = False
    data = bytes(range(250)) * 100
    assert made.client.engine.send_data(here, data) == 10_000
    assert made.client.engine.may_send(here) is False
    assert made.client.engine.send_data(here, data) == 0
    assert made.client.engine.data_slots(here) == []
    made.run()
    assert made.server.data(there) == data[:10_000]
    made.server.engine.consumed(there, 4_999)
    made.run()
    assert made.client.of(WindowOpened) == []  # adjusts are held until half the window is used up
    made.server.engine.consumed(there, 1)
    made.run()
    assert made.client.of(WindowOpened) == [WindowOpened(here)]
    assert made.client.engine.may_send(here)
    assert made.client.engine.send_data(here, data[10_000:]) == 5_000


def test_both_streams_share_one_window() -> None:
    made, _, there = opened(limits=SMALL)
    made.client.consume = False
    assert made.server.engine.send_data(there, b"x" * 6000) == 6000
    assert made.server.engine.send_data(there, b"y" * 6000, stream=1) == 4000


def test_more_consumed_than_received_is_the_owners_mistake() -> None:
    made, here, there = opened()
    made.server.consume = False
    made.client.engine.send_data(here, b"12345")
    made.run()
    with pytest.raises(LocalProtocolError):
        made.server.engine.consumed(there, 6)
    made.server.engine.consumed(there, 5)
    with pytest.raises(LocalProtocolError):
        made.server.engine.consumed(there, 1)


def test_no_window_is_granted_to_a_peer_that_is_done() -> None:
    made, here, there = opened(limits=SMALL)
    made.server.consume = False
    made.client.engine.send_data(here, b"x" * 9000)
    made.client.engine.send_eof(here)
    made.run()
    made.server.engine.consumed(there, 9000)
    made.run()
    assert made.client.of(WindowOpened) == []


def test_window_of_the_largest_size() -> None:
    made = Pair(algorithms=FAST).run()
    made.client.send(ChannelOpen("session", 0, 2**32 - 1, KIB))
    made.client.puppet = True
    made.run()
    assert made.server.engine.may_send(0)
    made.client.send(ChannelWindowAdjust(0, 1))
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, FlowControlError)


# Half-closes and the end.


def test_half_closes_both_ways() -> None:
    made, here, there = opened()
    made.client.engine.send_data(here, b"question")
    made.client.engine.send_eof(here)
    made.client.engine.send_eof(here)
    made.run()
    assert made.server.of(EofReceived) == [EofReceived(there)]
    assert made.client.engine.may_send(here) is False
    assert made.client.engine.send_data(here, b"more") == 0
    made.transfer(made.server, there, b"answer")
    made.server.engine.send_eof(there)
    made.run()
    assert made.client.data(here) == b"answer"
    assert made.client.of(EofReceived) == [EofReceived(here)]
    assert made.server.numbers.count(96) == 1
    assert made.client.of(ChannelClosed) == []
    made.server.engine.close_channel(there)
    made.run()
    assert made.client.of(ChannelClosed) == [ChannelClosed(here)]
    assert made.server.of(ChannelClosed) == [ChannelClosed(there)]


def test_data_before_eof_and_close_is_delivered_first() -> None:
    made, here, there = opened()
    made.server.engine.send_data(there, b"last words")
    made.server.engine.request(there, ExitStatus(3))
    made.server.engine.send_eof(there)
    made.server.engine.close_channel(there)
    made.run()
    assert [type(event) for event in made.client.seen[-3:]] == [DataReceived, EofReceived, ChannelClosed]
    assert made.client.data(here) == b"last words"
    assert [question.request for question in made.client.asked(ChannelRequestQuestion)] == [ExitStatus(3)]


def test_both_close_at_once() -> None:
    made, here, there = opened()
    made.client.engine.close_channel(here)
    made.server.engine.close_channel(there)
    made.server.engine.close_channel(there)
    made.run()
    assert made.client.of(ChannelClosed) == [ChannelClosed(here)]
    assert made.server.of(ChannelClosed) == [ChannelClosed(there)]
    assert made.client.ended is None
    assert made.server.ended is None
    assert made.server.numbers.count(97) == made.client.numbers.count(97) == 1


@pytest.mark.parametrize(
    "message",
    [ChannelData(0, b"late"), ChannelExtendedData(0, 1, b"late"), ChannelWindowAdjust(0, 5), ChannelEof(0),
     ChannelRequest(0, "shell", want_reply=True), ChannelSuccess(0), ChannelFailure(0)],
)  # fmt: skip
def test_what_crosses_our_close_is_dropped(message: Any) -> None:
    made, _, there = opened()
    asked = len(made.server.questions)
    made.server.engine.close_channel(there)
    made.client.send(message)
    made.run()
    assert made.server.ended is None
    assert made.server.of(DataReceived) == []
    assert len(made.server.questions) == asked
    assert made.server.of(ChannelClosed) == [ChannelClosed(there)]
    assert made.client.numbers[-1] == 97


def test_a_window_may_still_be_opened_once_a_channel_is_closed() -> None:
    """As paramiko does, whose reader is a thread of its own; nothing else may come then."""
    made, _, there = opened()
    made.server.engine.close_channel(there)
    made.run()
    assert made.server.of(ChannelClosed) == [ChannelClosed(there)]
    made.client.send(ChannelWindowAdjust(there, 5))
    made.run()
    assert made.server.ended is None
    made.client.send(ChannelData(there, b"x"))
    made.run()
    assert made.server.ended is not None


def test_data_after_eof_is_dropped() -> None:
    made, here, there = opened(limits=SMALL)
    made.client.engine.send_eof(here)
    made.client.send(ChannelData(there, b"late"))
    made.run()
    assert made.server.of(DataReceived) == []
    assert made.server.ended is None


@pytest.mark.parametrize(
    "message",
    [ChannelData(7, b"x"), ChannelExtendedData(7, 1, b"x"), ChannelWindowAdjust(7, 5), ChannelEof(7), ChannelClose(7),
     ChannelRequest(7, "shell", want_reply=True), ChannelSuccess(7), ChannelFailure(7),
     ChannelOpenConfirmation(7, 0, 0, 1), ChannelOpenFailure(7, 1, b""), ChannelOpenConfirmation(0, 0, 0, 1),
     ChannelOpenFailure(0, 1, b""), ChannelData(2**32 - 1, b"x")],
)  # fmt: skip
def test_channels_that_are_not_there(message: Any) -> None:
    made, _, there = opened()
    assert there == 0
    made.client.send(message)
    made.run()
    assert made.server.ended is not None
    assert type(made.server.ended.error) is RemoteProtocolError
    assert made.server.ended.reason_code == 2


def test_channel_that_waits_for_its_grant_takes_nothing() -> None:
    made = Pair(algorithms=FAST, server_answers={ChannelOpenQuestion: ...}).run()
    made.client.engine.open_channel("session")
    made.client.send(ChannelData(0, b"x"))
    made.run()
    assert made.server.ended is not None


def test_closing_twice_ends_the_connection() -> None:
    made, _, there = opened()
    made.server.engine.close_channel(there)
    made.client.puppet = True
    made.client.send(ChannelClose(there), ChannelClose(there))
    made.run()
    assert made.server.ended is not None


@pytest.mark.parametrize(
    "payload",
    [b"\x5e", b"\x5e" + bytes(7), b"\x5e" + bytes(4) + uint32(5) + b"four", b"\x5e" + bytes(4) + uint32(1) + b"two",
     b"\x5f" + bytes(11), b"\x5f" + bytes(4) + uint32(1) + uint32(9) + b"four", b"\x5d" + bytes(7), b"\x5d" + bytes(9),
     b"\x60" + bytes(3), b"\x61" + bytes(5), b"\x62" + bytes(4), b"\x63", b"\x5a", b"\x50", b"\x52x",
     ],
)  # fmt: skip
def test_malformed_messages(payload: bytes) -> None:
    made, _, there = opened()
    assert there == 0
    made.client.send(payload)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, DecodeError)


@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize(("size", "fine"), [(1024, True), (1025, False)])
def test_data_beyond_the_maximum_packet(size: int, fine: bool, stream: int) -> None:
    made, here, there = opened(limits=SMALL)
    # One that fits goes before it, for the second of a row takes a shorter way.
    first = ChannelExtendedData(here, 1, b"x") if stream else ChannelData(here, b"x")
    made.server.send(first, replace(first, data=bytes(size)))
    made.run()
    assert (made.client.ended is None) is fine
    assert there == 0
    if not fine:
        assert isinstance(made.client.ended and made.client.ended.error, FlowControlError)


# Requests.

REQUESTS = [
    PtyRequest("xterm", 80, 24, 640, 480, b"\x80\0\0\x96\0\0"),
    WindowChange(132, 50, 0, 0),
    EnvironmentRequest("LANG", "de_DE.UTF-8"),
    ShellRequest(),
    ExecRequest(b"ls \xff"),
    SubsystemRequest("sftp"),
    SignalRequest("TERM"),
    BreakRequest(500),
    EndOfWrite(),
    UnknownRequest("x@example.com", b"data"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: str(request.name))
@pytest.mark.parametrize("reply", [True, False])
def test_every_request_arrives_and_is_answered(request_: Any, reply: bool) -> None:
    made, here, there = opened(server_answers={ChannelRequestQuestion: reply})
    made.client.engine.request(here, request_, want_reply=True)
    made.run()
    assert [(q.channel, q.request) for q in made.server.asked(ChannelRequestQuestion)] == [(there, request_)]
    assert made.client.of(RequestAnswered) == [RequestAnswered(here, reply)]


@pytest.mark.parametrize("request_", [ExitStatus(255), ExitSignal("KILL", True, "killed"), EndOfWrite()])
def test_what_a_server_tells(request_: Any) -> None:
    made, here, there = opened(client_answers={ChannelRequestQuestion: True})
    made.server.engine.request(there, request_)
    made.run()
    assert [(q.channel, q.request) for q in made.client.asked(ChannelRequestQuestion)] == [(here, request_)]
    assert made.server.of(RequestAnswered) == []


@pytest.mark.parametrize(
    "message",
    [ChannelRequest(0, "exec", want_reply=True),
     ChannelRequest(0, "shell", want_reply=True, data=b"x"),
     ChannelRequest(0, "env", want_reply=True, data=uint32(1) + b"\xff" + uint32(0)),
     ChannelRequest(0, "keepalive@openssh.com", want_reply=True)],
)  # fmt: skip
def test_requests_that_are_not_understood_fail(message: ChannelRequest) -> None:
    made, here, _ = opened()
    made.client.send(message)
    made.client.engine.channel(here).expected += 1
    made.run()
    assert made.server.asked(ChannelRequestQuestion) == []
    assert made.client.of(RequestAnswered) == [RequestAnswered(here, success=False)]


def test_a_client_is_asked_for_nothing_unknown() -> None:
    made, _, there = opened()
    made.server.engine.request(there, UnknownRequest("x@example.com", b"data"), want_reply=True)
    made.run()
    assert made.client.asked(ChannelRequestQuestion) == []
    assert made.server.of(RequestAnswered) == [RequestAnswered(there, success=False)]


def test_answers_go_out_in_the_order_of_the_requests() -> None:
    made, here, _ = opened(server_answers={ChannelRequestQuestion: ...})
    for request in (ShellRequest(), UnknownRequest("x", b""), ExecRequest(b""), Keepalive(), SubsystemRequest("")):
        made.client.engine.request(here, request, want_reply=True)
    made.client.engine.request(here, SignalRequest("INT"), want_reply=False)
    made.client.engine.request(here, BreakRequest(1), want_reply=True)
    made.run()
    shell, unknown, execute, subsystem, signal, break_ = made.server.asked(ChannelRequestQuestion)
    made.server.engine.answer(unknown.token, False)
    assert made.client.of(RequestAnswered) == []
    for question, reply in ((break_, False), (execute, True), (signal, True)):
        made.server.engine.answer(question.token, reply)
        made.run()
        assert made.client.of(RequestAnswered) == []
    made.server.engine.answer(shell.token, True)
    made.run()
    assert [event.success for event in made.client.of(RequestAnswered)] == [True, False, True, False]
    made.server.engine.answer(subsystem.token, Exception("failed"))
    made.run()
    assert [event.success for event in made.client.of(RequestAnswered)] == [True, False, True, False, False, False]


def test_channels_do_not_wait_for_each_other() -> None:
    made, here, _ = opened(server_answers={ChannelRequestQuestion: ...})
    other, _ = made.session()
    made.client.engine.request(here, ShellRequest(), want_reply=True)
    made.client.engine.request(other, ShellRequest(), want_reply=True)
    made.run()
    made.server.engine.answer(made.server.asked(ChannelRequestQuestion)[1].token, True)
    made.run()
    assert made.client.of(RequestAnswered) == [RequestAnswered(other, success=True)]


def test_answer_after_the_channel_is_gone_says_nothing() -> None:
    made, here, _ = opened(server_answers={ChannelRequestQuestion: ...})
    made.client.engine.request(here, ShellRequest(), want_reply=True)
    made.client.engine.close_channel(here)
    made.run()
    made.session()
    before = len(made.client.payloads)
    made.server.engine.answer(made.server.asked(ChannelRequestQuestion)[0].token, True)
    made.run()
    assert len(made.client.payloads) == before


def test_unwanted_answers_are_dropped() -> None:
    made, here, _ = opened()
    made.server.send(ChannelSuccess(here), ChannelFailure(here))
    made.run()
    assert made.client.of(RequestAnswered) == []
    assert made.client.ended is None
    made.client.engine.request(here, ShellRequest(), want_reply=True)
    made.run()
    assert made.client.of(RequestAnswered) == [RequestAnswered(here, success=True)]


@pytest.mark.parametrize("want_reply", [True, False])
def test_pending_requests_are_bounded(want_reply: bool) -> None:
    made, here, _ = opened(server_answers={ChannelRequestQuestion: ...}, limits=Limits(pending_requests=64))
    for _ in range(64):
        made.client.engine.request(here, SignalRequest("INT"), want_reply=want_reply)
    made.run()
    assert made.server.ended is None
    made.client.engine.request(here, SignalRequest("INT"), want_reply=want_reply)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, LimitExceeded)


# Misuse by the owner.


def test_commands_on_channels_that_are_not_there() -> None:
    made = Pair(algorithms=FAST).run()
    engine = made.client.engine
    commands: list[Any] = [
        lambda: engine.send_data(3, b""), lambda: engine.data_slots(3), lambda: engine.commit_data(3, 0),
        lambda: engine.send_eof(3), lambda: engine.close_channel(3), lambda: engine.request(3, ShellRequest()),
        lambda: engine.may_send(3), lambda: engine.channel(3),
    ]  # fmt: skip
    for command in commands:
        with pytest.raises(LocalProtocolError):
            command()
    engine.consumed(3, 5)  # a late consumer is no mistake
    assert made.run().server.ended is None


def test_channel_that_is_not_open_yet() -> None:
    made = Pair(algorithms=FAST, server_answers={ChannelOpenQuestion: ...}).run()
    engine = made.client.engine
    number = engine.open_channel("session")
    assert engine.send_data(number, b"x") == 0
    assert engine.may_send(number) is False
    engine.send_eof(number)
    with pytest.raises(LocalProtocolError):
        engine.request(number, ShellRequest())
    with pytest.raises(LocalProtocolError):
        engine.close_channel(number)
    made.run()
    assert made.server.numbers[-1] == 90
    made.server.engine.answer(made.server.asked(ChannelOpenQuestion)[0].token, True)
    made.run()
    assert engine.send_data(number, b"x") == 1


def test_request_on_a_closed_channel() -> None:
    made, here, _ = opened()
    made.client.engine.close_channel(here)
    with pytest.raises(LocalProtocolError):
        made.client.engine.request(here, ShellRequest())
    assert made.client.engine.send_data(here, b"x") == 0
