"""The loop that calls who reads at once: what its users see is what asyncio's show them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from dunnart.runtime.event_loop import new_event_loop


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with closing(new_event_loop()) as made:
        yield made


@pytest.fixture
def pipe() -> Iterator[Callable[[], tuple[int, int]]]:
    """Make pipes, and close them in the end."""
    opened: list[int] = []

    def make() -> tuple[int, int]:
        reader, writer = os.pipe()
        opened.extend((reader, writer))
        return reader, writer

    yield make
    for fd in opened:
        os.close(fd)


Pipes = Callable[[], tuple[int, int]]


def turns(loop: asyncio.AbstractEventLoop, count: int = 3) -> None:
    """Let the loop go round."""

    async def wait() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    loop.run_until_complete(wait())


def test_one_that_is_ready_is_called_until_it_has_read(loop: asyncio.AbstractEventLoop, pipe: Pipes) -> None:
    reader, writer = pipe()
    got: list[bytes] = []
    loop.add_reader(reader, lambda: got.append(os.read(reader, 1)))
    os.write(writer, b"ab")
    turns(loop)
    assert got == [b"a", b"b"]
    assert loop.remove_reader(reader)
    assert not loop.remove_reader(reader)
    os.write(writer, b"c")
    turns(loop)
    assert got == [b"a", b"b"]


def test_several_that_are_ready(loop: asyncio.AbstractEventLoop, pipe: Pipes) -> None:
    pipes = [pipe() for _ in range(4)]
    got: list[bytes] = []
    for reader, writer in pipes:
        loop.add_reader(reader, lambda fd=reader: got.append(os.read(fd, 9)))  # type: ignore[misc]
        os.write(writer, str(reader).encode())
    turns(loop)
    assert sorted(got) == sorted(str(reader).encode() for reader, _ in pipes)


def test_who_comes_after_with_arguments_is_called_with_them(loop: asyncio.AbstractEventLoop, pipe: Pipes) -> None:
    reader, writer = pipe()
    called: list[str] = []
    loop.add_reader(reader, called.append, "before")
    loop.add_reader(reader, lambda: called.append("between"))
    loop.add_reader(reader, called.append, "after")
    os.write(writer, b"a")
    turns(loop, 2)
    assert set(called) == {"after"}


def test_timers_and_calls_from_threads_have_their_turn_beside_one_that_is_always_ready(
    loop: asyncio.AbstractEventLoop, pipe: Pipes
) -> None:
    reader, writer = pipe()
    loop.add_reader(reader, lambda: None)
    os.write(writer, b"never read")

    async def wait() -> None:
        await asyncio.wait_for(asyncio.gather(asyncio.sleep(0.01), asyncio.to_thread(os.getpid)), 30)

    loop.run_until_complete(wait())


Schedule = Callable[[asyncio.AbstractEventLoop, Callable[[], object]], object]


@pytest.mark.parametrize(
    "schedule",
    [
        lambda loop, call: loop.call_soon(call),
        lambda loop, call: loop.call_later(0.01, call),
        lambda loop, call: asyncio.ensure_future(asyncio.to_thread(call), loop=loop),
    ],
    ids=["soon", "later", "by a thread"],
)
def test_what_a_reader_schedules_has_its_turn_though_there_is_always_more_to_read(
    loop: asyncio.AbstractEventLoop, pipe: Pipes, schedule: Schedule
) -> None:
    reader, writer = pipe()
    done = loop.create_future()
    kept: list[object] = []

    def read() -> None:
        if not kept:
            kept.append(schedule(loop, lambda: loop.call_soon_threadsafe(done.set_result, None)))

    loop.add_reader(reader, read)
    loop.call_later(20, lambda: None)
    os.write(writer, b"never read")
    loop.run_until_complete(asyncio.wait_for(done, 10))


def test_a_reader_can_stop_the_loop(loop: asyncio.AbstractEventLoop, pipe: Pipes) -> None:
    reader, writer = pipe()
    read = 0

    def stop() -> None:
        nonlocal read
        read += 1
        loop.stop()
        assert read == 1

    loop.add_reader(reader, stop)
    os.write(writer, b"never read")
    loop.run_forever()
    assert read == 1


def test_what_a_reader_raises_is_told_and_ends_nothing(loop: asyncio.AbstractEventLoop, pipe: Pipes) -> None:
    reader, writer = pipe()
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))

    def fail() -> None:
        os.read(reader, 1)
        raise ValueError("of the reader")

    loop.add_reader(reader, fail)
    os.write(writer, b"ab")
    turns(loop)
    assert [str(context["exception"]) for context in told] == ["of the reader"] * 2


def test_a_peer_that_is_gone_is_told(loop: asyncio.AbstractEventLoop) -> None:
    reader, writer = os.pipe()
    ended = loop.create_future()

    def read() -> None:
        loop.remove_reader(reader)
        ended.set_result(os.read(reader, 1))

    loop.add_reader(reader, read)
    os.close(writer)
    try:
        assert loop.run_until_complete(asyncio.wait_for(ended, 30)) == b""
    finally:
        os.close(reader)


def test_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    new_event_loop().close()
    assert len(os.listdir("/proc/self/fd")) == before
