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

    __slots__ = ("_buckets", "_loop", "_timer")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, set[Timed]] = {}
        self._timer: TimerHandle | None = None

    def set(self, timed: Timed, deadline: float) -> int:
        """Register a deadline in the loop's time; returns the bucket, to be given to `cancel`."""
        bucket = int(deadline / _TICK_SECONDS) + 1
        self._buckets.setdefault(bucket, set()).add(timed)
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK_SECONDS, self._tick)
        return bucket

    def cancel(self, timed: Timed, bucket: int) -> None:
        """Forget a registration."""
        waiting = self._buckets.get(bucket)
        if waiting is not None:
            waiting.discard(timed)
            if not waiting:
                del self._buckets[bucket]

    def _tick(self) -> None:
        now = self._loop.time()
        current = int(now / _TICK_SECONDS)
        for bucket in [bucket for bucket in self._buckets if bucket <= current]:
            for timed in self._buckets.pop(bucket, ()):
                timed.due(now)
        self._timer = self._loop.call_later(_TICK_SECONDS, self._tick) if self._buckets else None
