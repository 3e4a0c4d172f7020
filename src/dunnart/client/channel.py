"""A channel's bytes, both ways, for coroutines.

Received data is copied once, out of the engine's buffer, and the window opens again as it is read. Data to send goes
straight into packets, as fast as window, key exchange and socket let it through; there is no queue in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from dunnart.client.closing import Closing
from dunnart.errors import ChannelError, DunnartError, LocalProtocolError

if TYPE_CHECKING:
    import socket

    from dunnart.client.connection import Connection
    from dunnart.protocol.requests import ChannelRequest
    from dunnart.runtime.bridge import Bridge

READ_BYTES = 256 * 1024
_JOIN_BYTES = 32 * 1024  # smaller pieces are joined: to hand out each of them would cost more
_STDERR = 1

StderrUse = Literal["read", "join", "drop"]


class Bell:
    """Wakes all who wait."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next ring."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # it has rung
                self._waiting.remove(future)
            raise

    def ring(self) -> None:
        """Wake them."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)


class Incoming:
    """One stream of received data: a channel's own, or its stderr.

    Args:
        channel: what it belongs to.
    """

    __slots__ = ("_bell", "_channel", "_chunks", "_size")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._chunks: deque[bytes | memoryview] = deque()
        self._size = 0
        self._bell = Bell()

    async def read(self, limit: int = READ_BYTES) -> bytes:
        """What the server sends, as it comes: 1 to `limit` bytes, or b"" after the end.

        Raises:
            ConnectionClosed: the connection broke before the end came.
        """
        if limit < 1:
            raise ValueError("limit must be at least 1")
        while not self._size:
            if self._channel.ended:
                return b""
            self._channel.check_connection()
            await self._bell.wait()
        data = self._take(limit)
        self._channel.consumed(len(data))
        return data

    async def read_exactly(self, count: int) -> bytes:
        """Read so many bytes, or none: what was there is still to be read when this fails or is cancelled.

        Raises:
            EOFError: the end comes before.
            ConnectionClosed: the connection broke before.
        """
        parts: list[bytes] = []
        missing = count
        try:
            while missing and (part := await self.read(missing)):
                parts.append(part)
                missing -= len(part)
        except BaseException:
            self._put_back(parts)
            raise
        if missing:
            self._put_back(parts)
            raise EOFError(f"the stream ended {missing} bytes before {count} were there")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_all(self) -> bytes:
        """Read to the end, however much that is."""
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    def _take(self, limit: int) -> bytes:
        chunks = self._chunks
        first = chunks[0]
        if len(first) > limit:
            view = memoryview(first)
            chunks[0] = view[limit:]
            self._size -= limit
            return bytes(view[:limit])
        parts = [chunks.popleft()]
        total = len(first)
        if total < _JOIN_BYTES:
            while chunks and total + len(chunks[0]) <= limit:
                part = chunks.popleft()
                parts.append(part)
                total += len(part)
        self._size -= total
        return bytes(first) if len(parts) == 1 else b"".join(parts)

    def _put_back(self, parts: list[bytes]) -> None:
        size = sum(map(len, parts))
        if size:
            self._chunks.extendleft(reversed(parts))
            self._size += size
            self._channel.consumed(-size)
            self._bell.ring()

    def put(self, chunks: list[memoryview]) -> None:
        """Take what has come."""
        data = b"".join(chunks)
        self._chunks.append(data)
        self._size += len(data)
        self._bell.ring()

    def take_all(self) -> bytes:
        """Take what waits, though nobody has it yet: the window stays shut by as much."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        return data

    def wake(self) -> None:
        """The stream or the connection has ended."""
        self._bell.ring()


class Channel(Closing):
    """A channel to the server: reads, writes, and their ends.

    Use it as an asynchronous context manager, or close it.

    Args:
        connection: whose channel it is.
        number: the engine's number for it.
        stderr: what becomes of data on the second stream: it is read, joined with the first one, or dropped.
    """

    def __init__(self, connection: Connection, number: int, stderr: StderrUse = "drop") -> None:
        self._connection = connection
        self._number = number
        self._incoming = Incoming(self)
        self._errors = Incoming(self) if stderr == "read" else None
        self._joins = stderr == "join"
        self._room = Bell()
        self._turn = asyncio.Lock()
        self._eof_received = False
        self._eof_sent = False
        self._refuses_input = False
        self._answers: deque[asyncio.Future[bool]] = deque()
        self._closed = False
        self._bridge: Bridge | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone.add_done_callback(_fetched)
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the server has granted the channel, or refused it."""
        self.opened.add_done_callback(_fetched)

    # Data.

    async def read(self, limit: int = READ_BYTES) -> bytes:
        """What the server sends, as it comes: 1 to `limit` bytes, or b"" after the end.

        Raises:
            ConnectionClosed: the connection broke before the end came.
        """
        return await self._incoming.read(limit)

    async def read_exactly(self, count: int) -> bytes:
        """Read so many bytes, or none: what was there is still to be read when this fails or is cancelled.

        Raises:
            EOFError: the end comes before.
            ConnectionClosed: the connection broke before.
        """
        return await self._incoming.read_exactly(count)

    async def read_all(self) -> bytes:
        """Read to the end, however much that is."""
        return await self._incoming.read_all()

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`, as fast as the server takes it. What several tasks write stays together.

        When it is cancelled a part of the data may have been sent.

        Raises:
            ChannelError: the server takes no more: it has closed the channel, or its program has closed its input.
            ConnectionClosed: the connection is gone.
            LocalProtocolError: `write_eof` came before.
        """
        view = memoryview(data).cast("B")
        async with self._turn:
            while view:
                self._check_writable()
                sent = self._connection.send(self._number, view)
                view = view[sent:]
                if not sent:
                    await self._room.wait()
                elif view:
                    await asyncio.sleep(0)  # the others have their turn

    async def write_eof(self) -> None:
        """Say that no more data follows; reading goes on.

        Raises:
            ConnectionClosed: the connection is gone.
        """
        async with self._turn:
            self.check_connection()
            self._eof_sent = True
            if not self._closed:
                with contextlib.suppress(LocalProtocolError):  # the server has just closed it
                    self._connection.pump.now().send_eof(self._number)
                self._connection.pump.tick()

    def _check_writable(self) -> None:
        self.check_connection()
        if self._closed:
            raise ChannelError("the channel is closed")
        if self._eof_sent:
            raise LocalProtocolError("nothing can be written after write_eof")
        if self._refuses_input:
            raise ChannelError("the program at the server reads no more")

    def join(self, sock: socket.socket) -> None:
        """Let a socket have the channel: bytes go both ways by themselves, until both ways have ended.

        `read`, `write` and `write_eof` must not be used any more; `wait_closed` tells when all is over.

        Args:
            sock: a connected stream socket, which now belongs to the channel.

        Raises:
            ConnectionClosed: the connection is gone; the socket is closed.
        """
        from dunnart.runtime.bridge import Bridge
        from dunnart.runtime.streams import Streams

        if self._connection.closed:
            sock.close()
            self.check_connection()
        if self._closed:  # a server may close it together with the first and last that it has to say
            self._connection.spawn(_deliver(sock, self._incoming.take_all()))
            return
        loop = asyncio.get_running_loop()
        streams = Streams.of_socket(sock, joined=True)
        self._bridge = bridge = Bridge(self._connection.pump, loop, self._number, streams, _Nobody())
        if waiting := self._incoming.take_all():
            bridge.receive([memoryview(waiting)])
        if self._eof_received:
            bridge.receive_eof()
        self._connection.pump.tick()

    # The end.

    async def close(self) -> None:
        """Close the channel. What has been received and not read can still be read. Does nothing the second time."""
        self.abandon()

    def abandon(self) -> None:
        """Close it without waiting for anything."""
        if self._closed:
            return
        self._closed = True
        if self.opened.done():
            self._connection.close_channel(self._number)
        if self._bridge is not None:
            self._bridge.close()
        self._wake()

    async def wait_closed(self) -> None:
        """Wait until the server has closed it too.

        Raises:
            ConnectionClosed: the connection broke before.
        """
        await asyncio.shield(self._gone)

    # What the connection tells and is told.

    @property
    def number(self) -> int:
        """The engine's number for it."""
        return self._number

    @property
    def abandoned(self) -> bool:
        """It is to be closed, or is."""
        return self._closed

    @property
    def ended(self) -> bool:
        """No more data comes."""
        return self._eof_received or self._closed

    def check_connection(self) -> None:
        """Raise ConnectionClosed if the connection is gone."""
        self._connection.check()

    def consumed(self, count: int) -> None:
        """The reader took so many bytes; less than 0: it put them back."""
        self._connection.consumed(self._number, count)

    async def ask(self, request: ChannelRequest) -> bool:
        """Send a request, and wait for the answer.

        Raises:
            ChannelError: the channel is closed.
            ConnectionClosed: the connection is gone.
        """
        return await self.send_request(request)

    def send_request(self, request: ChannelRequest) -> asyncio.Future[bool]:
        """Send a request that wants an answer, which comes later."""
        self.tell(request, want_reply=True)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_fetched)
        self._answers.append(answer)
        return answer

    def tell(self, request: ChannelRequest, *, want_reply: bool = False) -> None:
        """Send a request."""
        self.check_connection()
        try:
            self._connection.pump.now().request(self._number, request, want_reply=want_reply)
        except LocalProtocolError as error:
            raise ChannelError("the channel is closed") from error
        self._connection.pump.tick()

    def received(self, chunks: list[memoryview], stream: int) -> None:
        """Data came. The views are valid during the call only."""
        if self._closed or (stream == _STDERR and self._errors is None and not self._joins):
            self._connection.pump.engine.consumed(self._number, sum(map(len, chunks)))
        elif stream == _STDERR and self._errors is not None:
            self._errors.put(chunks)
        elif self._bridge is not None:
            self._bridge.receive(chunks)
        else:
            self._incoming.put(chunks)

    def received_eof(self) -> None:
        """The server sends no more."""
        self._eof_received = True
        if self._bridge is not None:
            self._bridge.receive_eof()
        self._wake()

    def received_request(self, request: ChannelRequest) -> bool:
        """The server asks or tells something; whether it is understood."""
        from dunnart.protocol.requests import EndOfWrite

        if not isinstance(request, EndOfWrite):
            return False
        self._refuses_input = True
        self._room.ring()
        return True

    def answered(self, *, success: bool) -> None:
        """The server answers the oldest request."""
        if self._answers:
            answer = self._answers.popleft()
            if not answer.done():
                answer.set_result(success)

    def received_close(self) -> None:
        """The server has closed the channel, and whoever has joined it decides when we do."""
        assert self._bridge is not None
        self._bridge.receive_close()

    def resume(self) -> None:
        """Data may flow again."""
        if self._bridge is not None:
            self._bridge.resume()
        self._room.ring()

    def lost(self, error: DunnartError | None) -> None:
        """The channel is gone, with the connection if there is an error."""
        self._closed = self._closed or error is None
        if self._bridge is not None:
            self._bridge.close()
        failure = error or ChannelError("the channel is closed")
        waiting: tuple[asyncio.Future[Any], ...] = (self.opened, *self._answers)
        for answer in waiting:
            if not answer.done():
                answer.set_exception(failure)
        self._answers.clear()
        if not self._gone.done():
            if error is None:
                self._gone.set_result(None)
            else:
                self._gone.set_exception(error)
        self._wake()

    def _wake(self) -> None:
        self._incoming.wake()
        if self._errors is not None:
            self._errors.wake()
        self._room.ring()


class _Nobody:
    """Whoever holds the other end of a joined socket hears of the channel's end from the socket."""

    def requested(self, _request: ChannelRequest) -> bool:
        return False

    def hung_up(self) -> None:
        pass


async def _deliver(sock: socket.socket, data: bytes) -> None:
    with sock, contextlib.suppress(OSError):
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        await asyncio.get_running_loop().sock_sendall(sock, data)


def _fetched(future: asyncio.Future[Any]) -> None:
    """Nobody has to wait for it."""
    if not future.cancelled():
        future.exception()
