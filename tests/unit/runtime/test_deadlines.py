"""The coarse timer that all connections of a loop share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from dunnart.runtime.deadlines import Deadlines

TICK = 0.5


class Handle:
    """A timer of the loop below."""

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.3
        self.timers: list[Handle] = []
        self.calls = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Handle:
        self.timers.append(Handle(when, call))
        return self.timers[-1]

    @property
    def waiting(self) -> list[Handle]:
        return [timer for timer in self.timers if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while due := [timer for timer in self.waiting if timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            self.calls += 1
            timer.call()
        self.now = end


class Timed:
    """Notes when it was due."""

    def __init__(self, then: Callable[[float], None] | None = None) -> None:
        self.seen: list[float] = []
        self._then = then

    def due(self, now: float) -> None:
        self.seen.append(now)
        if self._then is not None:
            self._then(now)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def deadlines(loop: Loop) -> Deadlines:
    return Deadlines(cast("asyncio.AbstractEventLoop", loop))


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.2, 0.5, 0.7, 1.0, 3.14, 3600.0])
def test_a_deadline_comes_half_a_second_late_at_most(loop: Loop, deadlines: Deadlines, seconds: float) -> None:
    timed = Timed()
    deadline = loop.now + seconds
    deadlines.set(timed, deadline)
    loop.advance(2 * seconds + 2)
    (now,) = timed.seen
    assert deadline <= now <= deadline + TICK
    assert loop.waiting == []


def test_waiting_costs_no_wake_ups(loop: Loop, deadlines: Deadlines) -> None:
    deadlines.set(Timed(), loop.now + 3600)
    loop.advance(3599)
    assert loop.calls == 0


def test_an_earlier_one_comes_first(loop: Loop, deadlines: Deadlines) -> None:
    late, early = Timed(), Timed()
    deadlines.set(late, loop.now + 10)
    deadlines.set(early, loop.now + 1)
    loop.advance(2)
    assert (len(early.seen), len(late.seen)) == (1, 0)
    loop.advance(9)
    assert len(late.seen) == 1


def test_a_cancelled_one_never_comes(loop: Loop, deadlines: Deadlines) -> None:
    one, other = Timed(), Timed()
    bucket = deadlines.set(one, loop.now + 1)
    assert deadlines.set(other, loop.now + 1) == bucket
    deadlines.cancel(one, bucket)
    deadlines.cancel(one, bucket)
    loop.advance(3)
    assert (one.seen, len(other.seen)) == ([], 1)


def test_one_may_cancel_the_next(loop: Loop, deadlines: Deadlines) -> None:
    made: list[Timed] = []
    buckets: list[int] = []

    def cancel_the_others(_: float) -> None:
        for timed in made:
            deadlines.cancel(timed, buckets[0])

    made += [Timed(cancel_the_others) for _ in range(3)]
    buckets += [deadlines.set(timed, loop.now + 1) for timed in made]
    loop.advance(3)
    assert sum(len(timed.seen) for timed in made) == 1
    assert loop.waiting == []


def test_whatever_one_raises_the_others_come(loop: Loop, deadlines: Deadlines) -> None:
    def fail(_: float) -> None:
        raise ZeroDivisionError

    made = [Timed(fail), Timed(fail), Timed()]
    later = Timed()
    for timed in made:
        deadlines.set(timed, loop.now + 1)
    deadlines.set(later, loop.now + 2)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            loop.advance(1.5)
    loop.advance(3)
    assert [len(timed.seen) for timed in (*made, later)] == [1, 1, 1, 1]


def test_a_deadline_in_the_past_comes_once_and_soon(loop: Loop, deadlines: Deadlines) -> None:
    def once_more(now: float) -> None:
        if len(again.seen) < 3:
            deadlines.set(again, now - 10)

    again = Timed(once_more)
    deadlines.set(again, loop.now - 10)
    loop.advance(0.5)
    assert len(again.seen) == 1
    loop.advance(5)
    assert len(again.seen) == 3
