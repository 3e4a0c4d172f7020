"""Flow control of one channel, RFC 4254 §5.2, and nothing else."""

from __future__ import annotations

from dunnart.errors import FlowControlError, LocalProtocolError

_LARGEST_WINDOW = 0xFFFFFFFF


class ReceiveWindow:
    """How much the peer may send us. It opens again as the consumer takes the bytes (THREATS R20).

    Args:
        size: bytes granted at first, and at most.
    """

    __slots__ = ("_consumed", "available", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.available = size
        self._consumed = 0

    def receive(self, count: int) -> None:
        """The peer sent `count` bytes; FlowControlError if it was not granted them."""
        if count > self.available:
            raise FlowControlError(f"{count} bytes sent into a window of {self.available}")
        self.available -= count

    def consume(self, count: int) -> int:
        """The consumer took `count` bytes; returns how many to grant in a WINDOW_ADJUST now, or 0.

        Grants are held until half the window is used up, so that bulk costs few of them. A `count` below 0 is for what
        the consumer puts back: what has been granted for it already is missing from later grants.

        Raises:
            LocalProtocolError: more is said to be taken than was received.
        """
        if count > self.size - self.available - self._consumed:
            raise LocalProtocolError(f"{count} bytes consumed that were not received")
        self._consumed += count
        if self._consumed * 2 < self.size:
            return 0
        granted = self._consumed
        self._consumed = 0
        self.available += granted
        return granted


class SendWindow:
    """How much we may send."""

    __slots__ = ("available",)

    def __init__(self, size: int) -> None:
        self.available = size

    def grant(self, count: int) -> None:
        """The peer granted `count` more bytes; FlowControlError beyond 2^32 - 1."""
        self.available += count
        if self.available > _LARGEST_WINDOW:
            raise FlowControlError("window grown beyond 2^32 - 1")
