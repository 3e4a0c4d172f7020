from __future__ import annotations

import pytest

from dunnart.errors import FlowControlError, LocalProtocolError
from dunnart.protocol.windows import ReceiveWindow, SendWindow


def test_grants_are_held_until_half_the_window_is_used() -> None:
    window = ReceiveWindow(100)
    window.receive(100)
    assert window.consume(49) == 0
    assert window.available == 0
    assert window.consume(1) == 50
    assert window.available == 50
    assert window.consume(50) == 50
    assert window.available == 100


def test_what_is_put_back_is_missing_from_later_grants() -> None:
    window = ReceiveWindow(100)
    window.receive(60)
    assert window.consume(60) == 60
    assert window.consume(-60) == 0
    window.receive(100)
    assert window.consume(109) == 0
    assert window.consume(51) == 100
    with pytest.raises(LocalProtocolError):
        window.consume(1)


def test_nothing_beyond_the_window() -> None:
    window = ReceiveWindow(10)
    window.receive(10)
    with pytest.raises(FlowControlError, match="1 bytes sent into a window of 0"):
        window.receive(1)


def test_consumer_cannot_take_more_than_came() -> None:
    window = ReceiveWindow(10)
    window.receive(4)
    with pytest.raises(LocalProtocolError):
        window.consume(5)
    assert window.consume(4) == 0


def test_send_window_is_bounded() -> None:
    window = SendWindow(0)
    window.grant(2**32 - 1)
    with pytest.raises(FlowControlError):
        window.grant(1)
