"""What coroutines read and write at sockets when they are cancelled, and when the sockets are closed under them."""

from __future__ import annotations

import asyncio
import socket

import pytest

from dunnart.server.socket_io import SocketIO
from tests.runtime.driver import eventually


def pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets that are joined, without waiting."""
    ends = socket.socketpair()
    for each in ends:
        each.setblocking(False)
    return ends


async def waiting(io: SocketIO, task: asyncio.Task[object]) -> None:
    await eventually(lambda: bool(io._waiting) or task.done())
    assert not task.done()


async def test_what_comes_in_the_turn_of_a_time_out_is_for_the_next_who_reads() -> None:
    io = SocketIO()
    ours, theirs = pair()
    with ours, theirs:
        task: asyncio.Task[object] = asyncio.create_task(io.receive(ours, 9))
        await waiting(io, task)
        theirs.send(b"key")
        asyncio.get_running_loop().call_later(0, task.cancel)  # timers have their turn after what can be read
        await asyncio.wait([task])
        assert task.cancelled()
        assert await io.receive(ours, 9) == b"key"


@pytest.mark.parametrize("writes", [False, True])
async def test_who_waits_for_a_socket_that_is_closed_is_told_and_the_next_one_has_its_number(*, writes: bool) -> None:
    io = SocketIO()
    ours, theirs = pair()
    task: asyncio.Task[object] = asyncio.create_task(
        io.send_all(ours, bytes(8 << 20)) if writes else io.receive(ours, 9)
    )
    await waiting(io, task)
    number = ours.fileno()
    io.forget(ours)
    ours.close()
    io.wake()
    with pytest.raises(OSError, match="Bad file descriptor"):
        await task
    theirs.close()
    again, other = pair()
    with again, other:
        assert again.fileno() == number
        reading = asyncio.create_task(SocketIO().receive(again, 9))
        await asyncio.sleep(0)
        other.send(b"for the second")
        assert await asyncio.wait_for(reading, 20) == b"for the s"


async def test_all_is_sent_however_slowly_it_is_read() -> None:
    io = SocketIO()
    ours, theirs = pair()
    data = bytes(range(256)) * 20_000
    got = bytearray()

    async def read() -> None:
        while piece := await io.receive(theirs, 70_000):
            got.extend(piece)

    with theirs:
        with ours:
            reading = asyncio.create_task(read())
            await io.send_all(ours, data)
        await reading
    assert got == data
