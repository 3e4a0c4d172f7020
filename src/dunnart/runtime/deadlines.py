"""One coarse timer for all connections of an event loop, so that an idle one holds no timer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle

_TICK_SECONDS = 0.5


class Timed(Protocol):
    """Something with a deadline."""

    def due(self, now: float) -> None:
        """The deadline has passed, by at most a tick."""


class Deadlines:
    """Calls `due` on those whose time has come, half a second late at most.

    Args:
        loop: the event loop whose clock counts.
    """

    __slots__ = ("_buckets", "_loop", "_next", "_timer")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, set[Timed]] = {}
        self._next = 0
        self._timer: TimerHandle | None = None

    def set(self, timed: Timed, deadline: float) -> int:
        """Register a deadline in the loop's time; returns the bucket, to be given to `cancel`."""
        bucket = int(max(deadline, self._loop.time()) / _TICK_SECONDS) + 1
        self._buckets.setdefault(bucket, set()).add(timed)
        if self._timer is None or bucket < self._next:
            self._arm(bucket)
        return bucket

    def cancel(self, timed: Timed, bucket: int) -> None:
        """Forget a registration. The timer stays: it finds nothing to do when it comes."""
        waiting = self._buckets.get(bucket)
        if waiting is not None:
            waiting.discard(timed)
            if not waiting:
                del self._buckets[bucket]

    def _arm(self, bucket: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = bucket
        self._timer = self._loop.call_at(bucket * _TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        current = int(now / _TICK_SECONDS)
        try:
            for bucket in sorted(bucket for bucket in self._buckets if bucket <= current):
                waiting = self._buckets.get(bucket)
                while waiting:
                    timed = waiting.pop()
                    if not waiting:
                        del self._buckets[bucket]
                    timed.due(now)
        finally:  # whatever one of them raised, the others' time comes
            if self._buckets:
                self._arm(min(self._buckets))
