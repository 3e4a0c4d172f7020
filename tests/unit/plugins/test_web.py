"""Requests to web servers: half an answer is none."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dunnart.plugins.web import Web

Answer = Callable[[socket.socket], object]


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    """Give the address of a server that answers one request so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                sock.recv(1 << 16)
                answer(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
        thread.join()


def with_length(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")


def in_pieces(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")


def without_end(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not threading.Event().wait(0.02):
        sock.sendall(b"1")


@pytest.mark.parametrize(
    ("answer", "seconds", "reason"),
    [
        (with_length, 30.0, "5 bytes too early"),
        (in_pieces, 30.0, "does not speak HTTP"),
        (without_end, 0.5, "not answered within 0.5 s"),
    ],
)
def test_half_an_answer_is_none(answer: Answer, seconds: float, reason: str) -> None:
    with served(answer) as url, pytest.raises(OSError, match=reason):
        Web(seconds, plain=True).fetch(url)


def test_an_answer_may_end_with_the_connection() -> None:
    with served(lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n12345")) as url:
        assert Web(30.0, plain=True).fetch(url) == (200, b"12345")
