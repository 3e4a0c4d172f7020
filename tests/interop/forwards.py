"""What forwarded connections lead to in these tests, and a look at what a server has open."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.interop.support import SECONDS, Served, eventually

MIB = 1 << 20


@dataclass
class Echo:
    """Gives back what it reads, and says bye after the end.

    Attributes:
        address: where it listens: host and port, or a path.
        connections: how many it has had.
    """

    address: Any
    connections: int = 0
    peers: list[Any] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.address[1])


@contextlib.contextmanager
def echoing(path: Path | None = None) -> Iterator[Echo]:
    """Run an echo server in threads, on TCP or on a unix socket."""
    listener = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
    listener.bind(("127.0.0.1", 0) if path is None else str(path))
    listener.listen(256)
    echo = Echo(listener.getsockname())

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(SECONDS)
            while data := sock.recv(1 << 16):
                sock.sendall(data)
            sock.sendall(b"bye")

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            echo.connections += 1
            if path is not None:
                echo.peers.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield echo
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(SECONDS)


def dial(address: Any) -> socket.socket:
    """Connect, as soon as somebody listens."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    made: list[socket.socket] = []

    def connected() -> bool:
        sock = socket.socket(family)
        sock.settimeout(SECONDS)
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            return False
        made.append(sock)
        return True

    assert eventually(connected), f"nobody listens on {address}"
    return made[0]


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send data and the end, and read to the end, both at once; closes the socket."""
    received = bytearray()

    def read() -> None:
        while part := sock.recv(1 << 16):
            received.extend(part)

    with sock:
        reader = threading.Thread(target=read)
        reader.start()
        with contextlib.suppress(BrokenPipeError):  # what leads nowhere may be closed before
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        reader.join(SECONDS)
        assert not reader.is_alive()
    return bytes(received)


def open_descriptors(server: Served) -> int:
    """How many descriptors the server's process has."""
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))
