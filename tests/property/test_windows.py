"""Windows as a machine: two ends of one channel direction, with anything in between."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dunnart.errors import FlowControlError, LocalProtocolError
from dunnart.protocol.windows import ReceiveWindow, SendWindow

COUNTS = st.integers(0, 5000)


class Windows(RuleBasedStateMachine):
    """A sender and a receiver; `flying` bytes and `granted` ones are on the wire."""

    @initialize(size=st.integers(1, 4000))
    def connect(self, size: int) -> None:
        self.size = size
        self.receiver = ReceiveWindow(size)
        self.sender = SendWindow(size)
        self.flying = 0
        self.granted = 0
        self.unread = 0

    @rule(count=COUNTS)
    def send(self, count: int) -> None:
        count = min(count, self.sender.available)
        self.sender.available -= count
        self.flying += count

    @rule(count=COUNTS)
    def arrive(self, count: int) -> None:
        count = min(count, self.flying)
        self.receiver.receive(count)  # what an honest sender sends is always fine
        self.flying -= count
        self.unread += count

    @rule(count=COUNTS)
    def read(self, count: int) -> None:
        count = min(count, self.unread)
        self.granted += self.receiver.consume(count)
        self.unread -= count

    @rule()
    def adjust(self) -> None:
        self.sender.grant(self.granted)
        self.granted = 0

    @rule(more=st.integers(1, 10**10))
    def cheat(self, more: int) -> None:
        before = self.receiver.available
        with pytest.raises(FlowControlError):
            self.receiver.receive(before + more)
        assert self.receiver.available == before

    @rule(more=st.integers(1, 10**10))
    def misuse(self, more: int) -> None:
        before = self.receiver.available
        with pytest.raises(LocalProtocolError):
            self.receiver.consume(self.unread + more)
        assert self.receiver.available == before

    @precondition(lambda self: self.unread == 0 and self.flying == 0)
    @rule()
    def sender_is_never_stuck(self) -> None:
        """All was read: more than half the window can be sent, whatever was held back."""
        assert self.sender.available + self.granted > self.size // 2 or self.size == 1

    @invariant()
    def nothing_is_lost(self) -> None:
        held = self.receiver._consumed
        assert self.sender.available + self.flying + self.granted == self.receiver.available
        assert self.receiver.available + self.unread + held == self.size
        assert 0 <= self.receiver.available <= self.size
        assert held * 2 < self.size or held == 0


TestWindows = Windows.TestCase


def test_send_window_ends_at_32_bits() -> None:
    window = SendWindow(2**32 - 2)
    window.grant(1)
    with pytest.raises(FlowControlError):
        window.grant(1)
