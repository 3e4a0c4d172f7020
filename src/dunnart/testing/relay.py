"""A relay between TCP clients and a server in the same process, which brings about the faults of connections.

    client ◄── TCP ──► Link ◄── socket pair ──► Tap ──► the server's pump

The server sends whole packets with each call, so its end of the pair, the tap, knows where packets end in a stream that
nobody else can read; and what it has sent when its engine reports a stage is what tells the client of that stage.
All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from dunnart.testing.faults import BadMac, Drop, Faults, Hang, Slow, Stage, WireFault

_CHUNK_BYTES = 64 * 1024
_HELD_BYTES = 256 * 1024
_SLICES_PER_SECOND = 20
_LINGER_SECONDS = 1.0
_RETRY_SECONDS = 0.1
_RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 seconds
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux


class Tap(socket.socket):
    """The server's end of a link.

    Attributes:
        reached: the address that the client has connected to.
        end: how many bytes the server has sent so far, or tried to.
        ends: those of the numbers of bytes after which a packet ends that the client has not reached yet.
        marks: how many bytes the client has got when it knows of each stage.
    """

    def __init__(self, fileno: int, reached: Any) -> None:  # noqa: ANN401 - as the socket module has it
        super().__init__(fileno=fileno)
        self.reached = reached
        self.end = 0
        self.ends: deque[int] = deque()
        self.marks: dict[str, int] = {"connect": 0}
        self._sent = 0
        self._stages: list[Stage] = []

    def getsockname(self) -> Any:  # noqa: ANN401 - as the socket module has it
        """The address that the client has connected to."""
        return self.reached

    def send(self, data: Any, flags: int = 0, /) -> int:  # noqa: ANN401 - any buffer
        """Send, and note where the data ends."""
        self._note(len(data))
        sent = super().send(data, flags)
        self._sent += sent
        return sent

    def sendmsg(self, buffers: Iterable[Any], /, *more: Any) -> int:  # noqa: ANN401 - any buffers
        """Send, and note where each buffer ends."""
        pieces = tuple(buffers)
        self._note(*map(len, pieces))
        sent = super().sendmsg(pieces, *more)
        self._sent += sent
        return sent

    def _note(self, *sizes: int) -> None:
        end = self._sent
        for size in sizes:
            end += size
            if end > self.end:
                self.ends.append(end)
                self.end = end
        self.settle()

    def reach(self, stage: Stage) -> None:
        """The server has come to a stage: what it sends next tells the client so."""
        self._stages.append(stage)

    def settle(self) -> None:
        """What tells the client of the stages that the server has come to is sent."""
        for stage in self._stages:
            self.marks.setdefault(stage, self.end)
        self._stages.clear()


class _Pipe:
    """One direction's bytes that are under way."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[float, memoryview]] = deque()
        self.size = 0
        self.ended = False
        self.free_at = 0.0
        """When the next byte may pass, at the speed that there is."""

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def put(self, due: float, data: bytes) -> None:
        """Bytes have come, that may go on at `due`; none are the end."""
        if data:
            self._chunks.append((due, memoryview(data)))
            self.size += len(data)
        else:
            self.ended = True

    @property
    def due(self) -> float:
        """When the first of them may go on."""
        return self._chunks[0][0]

    @property
    def first(self) -> memoryview:
        """The first of them."""
        return self._chunks[0][1]

    def took(self, size: int) -> None:
        """The first `size` bytes have gone on."""
        due, data = self._chunks.popleft()
        if size < len(data):
            self._chunks.appendleft((due, data[size:]))
        self.size -= size


class Link:
    """One client's connection.

    Args:
        client: the accepted socket.
        peer: the client's address.
        faults: what is to go wrong.

    Attributes:
        tap: the server's end.
        delivered: how many bytes have gone to the client.
        flushed: set when the client has got all that it will get.
    """

    def __init__(self, client: socket.socket, peer: Any, faults: Faults) -> None:  # noqa: ANN401 - as the module has it
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._faults = faults
        self._inner, theirs = socket.socketpair()
        self._inner.setblocking(False)  # noqa: FBT003 - the name says it
        self._up = _Pipe()
        self._down = _Pipe()
        self._change = asyncio.Event()
        self._cut: bool | None = None
        self._wrong_end = 0
        self.peer = peer
        self.tap = Tap(theirs.detach(), client.getsockname())
        self.delivered = 0
        self.flushed = asyncio.Event()

    @property
    def marks(self) -> dict[str, int]:
        """How many bytes the client has got when it knows of each stage."""
        return self.tap.marks

    def reach(self, stage: Stage) -> None:
        """The server has come to a stage; what it has to say about that it sends in this turn of the loop."""
        self.tap.reach(stage)
        self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self.tap.settle()  # it had nothing to say
        self.announce()

    def cut(self, *, reset: bool) -> None:
        """End the connection now."""
        self._cut = reset
        self.announce()

    def announce(self) -> None:
        """Something has changed: bytes came, went, may go on; a stage was reached; faults came or went."""
        change, self._change = self._change, asyncio.Event()
        change.set()

    async def _changes(self, seconds: float | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._change.wait()

    async def run(self) -> None:
        """Carry bytes until the connection ends."""
        work = [
            asyncio.create_task(self._fill(self._up, self._client)),
            asyncio.create_task(self._fill(self._down, self._inner)),
            asyncio.create_task(self._carry_up()),
        ]
        try:
            try:
                reset = await self._carry_down()
            finally:
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)
                self._inner.close()
            await self._close(reset=reset)
        finally:
            self._client.close()
            self.flushed.set()

    async def _close(self, *, reset: bool) -> None:
        with contextlib.suppress(OSError, TimeoutError):  # the client may be gone already
            if reset:
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return
            self._client.shutdown(socket.SHUT_WR)
            self.flushed.set()
            async with asyncio.timeout(_LINGER_SECONDS):
                # To close a socket that has unread bytes would reset the connection.
                while await self._loop.sock_recv(self._client, _CHUNK_BYTES):
                    pass

    async def _fill(self, pipe: _Pipe, source: socket.socket) -> None:
        while not pipe.ended:
            while pipe.size >= _HELD_BYTES:
                await self._changes()
            try:
                data = await self._loop.sock_recv(source, _CHUNK_BYTES)
                if source is self._client and _QUICKACK is not None:
                    # A peer under Nagle's rule waits for the acknowledgement before it sends its next small packet.
                    source.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError:
                data = b""
            delay = sum(fault.delay_seconds for fault in self._faults.held(Slow, self))
            pipe.put(self._loop.time() + delay, data)
            self.announce()

    async def _carry_down(self) -> bool:
        """Carry bytes to the client; tell how the connection ends: by a reset?"""
        pipe = self._down
        while True:
            if self._cut is not None:
                return self._cut
            for fault in self._faults.held(Drop, self):
                return fault.reset
            if self._faults.held(Hang, self):
                await self._changes()
            elif pipe:
                size = min([len(pipe.first), *self._until_cut()])
                try:
                    self.delivered += await self._carry(pipe, self._client, size)
                except OSError:
                    return False
                while self.tap.ends and self.tap.ends[0] <= self.delivered:
                    self.tap.ends.popleft()
            elif pipe.ended:
                return False
            else:
                await self._changes()

    def _until_cut(self) -> Iterable[int]:
        """How many bytes the client may get before the faults that come about between two bytes."""
        for fault in self._faults.of(WireFault):
            position = fault.position(self) if isinstance(fault, Drop | Hang) else None
            if position is not None:
                yield position - self.delivered

    async def _carry_up(self) -> None:
        pipe = self._up
        try:
            while True:
                if self._faults.held(Hang, self):
                    await self._changes()
                elif pipe:
                    await self._carry(pipe, self._inner, len(pipe.first))
                elif pipe.ended:
                    self._inner.shutdown(socket.SHUT_WR)
                    return
                else:
                    await self._changes()
        except OSError:  # the server has closed its end
            return

    async def _carry(self, pipe: _Pipe, sink: socket.socket, size: int) -> int:
        """Let some of the first bytes go on, or wait for a change; tell how many have gone."""
        rates = [fault.bytes_per_second for fault in self._faults.held(Slow, self)]
        rate = min((rate for rate in rates if rate is not None), default=None)
        wait = (pipe.due if rate is None else max(pipe.due, pipe.free_at)) - self._loop.time()
        if wait > 0:
            await self._changes(wait)
            return 0
        if rate is not None:
            size = min(size, max(1, int(rate / _SLICES_PER_SECOND)))
        data: memoryview | bytearray = pipe.first[:size]
        wrong = self._wrong_byte(size) if sink is self._client else None
        if wrong is not None:
            data = bytearray(data)
            data[wrong] ^= 1
        try:
            sent = sink.send(data)
        except BlockingIOError:
            self._loop.add_writer(sink, self.announce)
            try:
                await self._changes()
            finally:
                self._loop.remove_writer(sink)
            return 0
        if rate is not None:
            pipe.free_at = max(pipe.free_at, self._loop.time()) + sent / rate
        pipe.took(sent)
        self.announce()
        return sent

    def _wrong_byte(self, size: int) -> int | None:
        """Which of the next `size` bytes to the client is to be wrong: the last of a packet, which is its MAC's."""
        for fault in self._faults.of(BadMac):
            position = fault.position(self)
            end = None if position is None else next((end for end in self.tap.ends if end > position), None)
            if end is not None and end <= self.delivered + size:
                fault.hit_wire(self)  # before the client can tell anybody
                self._wrong_end = end
        wrong = self._wrong_end - 1 - self.delivered
        return wrong if 0 <= wrong < size else None


class Relay:
    """Accepts clients.

    Args:
        listener: where.
        faults: what is to go wrong.
        serve: has the server serve a link's tap.
    """

    def __init__(self, listener: socket.socket, faults: Faults, serve: Callable[[Link], None]) -> None:
        self._listener = listener
        self._listener.setblocking(False)  # noqa: FBT003 - the name says it
        self._faults = faults
        self._serve = serve
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._accepting = asyncio.create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        with self._listener:
            while True:
                try:
                    self._carry(*await loop.sock_accept(self._listener))
                except OSError:  # no descriptors are left
                    await asyncio.sleep(_RETRY_SECONDS)

    def _carry(self, client: socket.socket, peer: Any) -> None:  # noqa: ANN401 - as the socket module has it
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, peer, self._faults)
        except OSError:
            client.close()
            raise
        self._faults.wires.add(link)
        self._links[link] = task = asyncio.create_task(link.run())
        task.add_done_callback(lambda _: self._forget(link))
        self._serve(link)
        self._faults.happened()

    def _forget(self, link: Link) -> None:
        del self._links[link]
        self._faults.wires.discard(link)
        self._faults.happened()

    @property
    def links(self) -> tuple[Link, ...]:
        """The connections that there are."""
        return tuple(self._links)

    async def stop_listening(self) -> None:
        """Accept no more clients."""
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)

    async def close(self, seconds: float) -> None:
        """End every connection; waits at most so long for what the server has sent to go out."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for link in self.links:
                    await link.flushed.wait()
        tasks = tuple(self._links.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
