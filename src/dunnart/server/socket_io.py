"""Reads and writes non-blocking sockets for coroutines; nothing is lost when they are cancelled, nobody is forgotten.

asyncio's `sock_recv` reads before the task goes on: cancelled in between, it has read for nobody. And a socket that is
closed while a task waits for it leaves that task waiting, and its number watched, which the next socket has.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class SocketIO:
    """The waits at some sockets, of one event loop: of each socket one to read and one to write at a time."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def receive(self, sock: socket.socket, limit: int) -> bytes:
        """Read what is there, 1 to `limit` bytes; b"" at the end. Raises OSError."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return sock.recv(limit)
            except (BlockingIOError, InterruptedError):
                pass
            try:
                await self._ready(sock, loop.add_reader, loop.remove_reader)
            except NotImplementedError:  # the proactor of Windows
                return await loop.sock_recv(sock, limit)

    async def send_all(self, sock: socket.socket, data: bytes) -> None:
        """Write all of it. Raises OSError."""
        loop = asyncio.get_running_loop()
        rest = memoryview(data)
        while rest:
            with contextlib.suppress(BlockingIOError, InterruptedError):
                rest = rest[sock.send(rest) :]
            if not rest:
                return
            try:
                await self._ready(sock, loop.add_writer, loop.remove_writer)
            except NotImplementedError:  # the proactor of Windows
                await loop.sock_sendall(sock, rest)
                return

    async def _ready(self, sock: socket.socket, add: Callable[..., object], remove: Callable[..., object]) -> None:
        future = asyncio.get_running_loop().create_future()
        add(sock, _settle, future)
        self._waiting.append(future)
        try:
            await future
        finally:
            self._waiting.remove(future)
            if sock.fileno() >= 0:
                remove(sock)

    def forget(self, sock: socket.socket) -> None:
        """Watch a socket no more: it is about to be closed."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(RuntimeError):  # it is a transport's; also NotImplementedError, the proactor's
            loop.remove_reader(sock)
            loop.remove_writer(sock)

    def wake(self) -> None:
        """Have those who wait see that their sockets are closed."""
        for future in self._waiting:
            _settle(future)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
