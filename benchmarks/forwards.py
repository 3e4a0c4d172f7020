"""TCP forwarding with OpenSSH's client: bulk through -L and -R each way, and many short connections."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks.clients import TIMEOUT_SECONDS, ClientError
from benchmarks.processes import GB, KIB, MIB, family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.peers import Running

_CHUNK = bytes(MIB)
_AT_ONCE = 8


class _Destination:
    """Accepts connections, each of which says what is to be done: send so much, or take everything."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            size = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
            while size > 0:
                connection.sendall(memoryview(_CHUNK)[: min(size, MIB)])
                size -= MIB
            _drain(connection)  # closed only then: the other side knows that all has arrived

    def close(self) -> None:
        """Accept no more."""
        self._listener.close()


def _drain(connection: socket.socket) -> int:
    buffer, total = bytearray(MIB), 0
    while count := connection.recv_into(buffer):
        total += count
    return total


@contextlib.contextmanager
def _forward(bench: Bench, server: Running, kind: str, destination: int, *options: str) -> Iterator[int]:
    """Let OpenSSH's client forward; gives the port that leads to the destination."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    flags = ("-N", "-o", "ExitOnForwardFailure=yes", f"-{kind}", f"127.0.0.1:{port}:127.0.0.1:{destination}", *options)
    command = bench.ssh.arguments(server.port, "", *flags)[:-1]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as client:
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(ConnectionRefusedError), _connect(port, 0) as probe:
                    probe.shutdown(socket.SHUT_WR)
                    _drain(probe)
                    break
                if client.poll() is not None or time.monotonic() > deadline:
                    raise ClientError(f"ssh -{kind} does not forward")
                time.sleep(0.05)
            yield port
        finally:
            client.terminate()


def _connect(port: int, wanted: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
    connection.sendall(wanted.to_bytes(8, "big"))
    return connection


def forwards(bench: Bench) -> None:
    """MB/s and server CPU-s per GB through -L and -R, down and up; connections a second, and what they leave behind."""
    destination = _Destination()
    try:
        with bench.servers() as servers:
            for kind in ("L", "R"):
                _bulk(bench, servers, kind, destination.port)
                _connections(bench, servers, kind, destination.port)
    finally:
        destination.close()


def _bulk(bench: Bench, servers: list[Running], kind: str, destination: int) -> None:
    size = (256 if bench.quick else 1024) * MIB
    for direction in ("down", "up"):

        def transfer(server: Running) -> None:
            with _forward(bench, server, kind, destination) as port:
                before, start = server.cpu_seconds(), time.monotonic()
                # What -L brings down comes from beyond the server; -R is the other way round.
                with _connect(port, size if direction == "down" else 0) as connection:  # noqa: B023 - called in this turn
                    if direction == "up":  # noqa: B023
                        for _ in range(size // MIB):
                            connection.sendall(_CHUNK)
                    connection.shutdown(socket.SHUT_WR)
                    received = _drain(connection)
                seconds = time.monotonic() - start
                cpu = server.cpu_seconds() - before
            if direction == "down" and received != size:  # noqa: B023
                raise ClientError(f"{received} of {size} bytes came")
            bench.add(f"forward.-{kind} {direction}.MB/s", server.name, size / 1e6 / seconds)  # noqa: B023
            bench.add(f"forward.-{kind} {direction}.CPU-s/GB", server.name, cpu / (size / GB))  # noqa: B023

        bench.take_turns(f"-{kind}, {direction}", servers, transfer)


def _connections(bench: Bench, servers: list[Running], kind: str, destination: int) -> None:
    count = 200 if bench.quick else 1000

    def connect(server: Running) -> None:
        with _forward(bench, server, kind, destination) as port:
            for _ in range(50):  # what is made on first use is there
                _once(port)
            descriptors, bytes_before, before = _descriptors(server), server.pss_bytes(), server.cpu_seconds()
            start = time.monotonic()
            for _ in range(count):
                _once(port)
            bench.add(f"forward.-{kind} connections.per second", server.name, count / (time.monotonic() - start))
            bench.add(f"forward.-{kind} connections.CPU-ms", server.name,
                      (server.cpu_seconds() - before) / count * 1000)  # fmt: skip
            start = time.monotonic()
            with ThreadPoolExecutor(_AT_ONCE) as callers:
                for done in [callers.submit(_once, port) for _ in range(count)]:
                    done.result()
            bench.add(f"forward.-{kind} connections.per second, {_AT_ONCE} at once", server.name,
                      count / (time.monotonic() - start))  # fmt: skip
            time.sleep(0.5)
            bench.add(f"forward.-{kind} connections.descriptors left", server.name, _descriptors(server) - descriptors)
            bench.add(f"forward.-{kind} connections.KiB left", server.name, (server.pss_bytes() - bytes_before) / KIB)

    bench.take_turns(f"-{kind}, {count} connections", servers, connect)


def _once(port: int) -> None:
    with _connect(port, 0) as connection:
        connection.shutdown(socket.SHUT_WR)
        _drain(connection)


def _descriptors(server: Running) -> int:
    total = 0
    for process in family(server.pid)[1:]:
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{process.pid}/fd"))
    return total
