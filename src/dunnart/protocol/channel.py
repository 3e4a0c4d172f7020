"""One channel, RFC 4254 §5: its numbers, windows, half-closes and the answers it owes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dunnart.protocol.windows import ReceiveWindow, SendWindow

if TYPE_CHECKING:
    from collections.abc import Callable

_DATA_HEADER = struct.Struct(">BI")
_EXTENDED_HEADER = struct.Struct(">BII")


class Channel:
    """What both ends have said of a channel.

    Attributes:
        number: ours.
        remote: the peer's number, -1 until it is known.
        packet_bytes: how much data goes into one packet: what the peer takes, and no more than we put into one.
        answers: replies to the peer's requests, in order: None while a question is open. `wanted` ones only are sent.
        expected: how many of our own requests wait for the peer's answer.
        holds_close: the peer's CLOSE is answered when we have said all, not at once.
        asked_for: we have opened it, so the peer has to answer; else it has, and we do.
        starved: data waits for window; WindowOpened is emitted only then.
    """

    __slots__ = (
        "answers", "asked_for", "channel_type", "close_received", "close_sent", "data_header", "eof_received",
        "eof_sent", "expected", "holds_close", "number", "packet_bytes", "receive_window", "remote",
        "send_window", "starved",
    )  # fmt: skip

    def __init__(self, number: int, channel_type: str, window_bytes: int) -> None:
        self.number = number
        self.channel_type = channel_type
        self.receive_window = ReceiveWindow(window_bytes)
        self.send_window = SendWindow(0)
        self.remote = -1
        self.packet_bytes = 0
        self.data_header = b""
        self.eof_sent = self.eof_received = False
        self.close_sent = self.close_received = False
        self.answers: list[Answer] | None = None
        self.expected = 0
        self.holds_close = False
        self.asked_for = False
        self.starved = False

    def connect(self, remote: int, window: int, packet_bytes: int) -> None:
        """The peer's number and bounds are known: the channel can send."""
        self.remote = remote
        self.send_window.grant(window)
        self.packet_bytes = packet_bytes
        self.data_header = _DATA_HEADER.pack(94, remote)

    def header(self, stream: int) -> bytes:
        """What stands before the data's length in a packet of this stream."""
        return _EXTENDED_HEADER.pack(95, self.remote, stream) if stream else self.data_header

    @property
    def sendable(self) -> bool:
        """Data may be sent, window permitting."""
        return not (self.eof_sent or self.close_sent or self.close_received or self.remote < 0)


class Answer:
    """The answer owed to one request; `send` puts it on the wire."""

    __slots__ = ("send", "success")

    def __init__(self, send: Callable[[bool | bytes], None]) -> None:
        self.send = send
        self.success: bool | bytes | None = None


def settle(answers: list[Answer]) -> None:
    """Send the answers that are there, up to the first that is not: requests are answered in their order."""
    while answers and answers[0].success is not None:
        answer = answers.pop(0)
        assert answer.success is not None
        answer.send(answer.success)
