"""Pairs of sockets that are TCP connections over the loopback interface, and what copies between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterable
from typing import Self

from dunnart.errors import ConfigError

LOOPBACK = "127.0.0.1"
_COPY_BYTES = 64 * 1024


class LoopbackPort:
    """Makes pairs of sockets that are TCP connections over a port of the loopback interface."""

    def __init__(self, port: int, name: str) -> None:
        self._lock = threading.Lock()
        try:
            self._listener = socket.create_server((LOOPBACK, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {LOOPBACK}:{port}: {error.strerror}", key=name) from error
        self._listener.settimeout(10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Make one: ours and the application's."""
        with self._lock:
            ours = socket.create_connection(self._listener.getsockname(), 10.0)
            try:
                while True:
                    theirs, peer = self._listener.accept()
                    if peer == ours.getsockname():
                        return ours, theirs
                    theirs.close()  # a stranger
            except BaseException:
                ours.close()
                raise


async def copy(source: socket.socket, target: socket.socket) -> None:
    """Copy to the end. That, or a target that takes no more, is passed on to the other side."""
    loop = asyncio.get_running_loop()
    for sock in (source, target):
        sock.setblocking(False)  # noqa: FBT003 - the name says it
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(source, _COPY_BYTES):
            await loop.sock_sendall(target, data)
    for sock, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            sock.shutdown(how)


def close_after(tasks: Iterable[asyncio.Task[None]], socks: Iterable[socket.socket]) -> None:
    """Close sockets once all the tasks are done."""

    def ended(_: object) -> None:
        if all(task.done() for task in tasks):
            for sock in socks:
                sock.close()

    for task in tasks:
        task.add_done_callback(ended)
