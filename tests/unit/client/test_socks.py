"""The server's side of SOCKS: every way to ask, in pieces of any size."""

from __future__ import annotations

import pytest

from dunnart.client.socks import SocksServer
from dunnart.errors import DecodeError

FOUR = b"\4\1\0\x50\x7f\0\0\1user\0"
FOUR_A = b"\4\1\1\xbb\0\0\0\x09\0example.org\0"
FIVE = b"\5\2\2\0"


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("asked", "answered", "wanted", "granted"),
    [
        (FOUR, b"", ("127.0.0.1", 80), b"\0\x5a" + bytes(6)),
        (FOUR_A, b"", ("example.org", 443), b"\0\x5a" + bytes(6)),
        (FIVE + b"\5\1\0\1\x0a\0\0\1\0\x16", b"\5\0", ("10.0.0.1", 22), b"\5\0\0\1" + bytes(6)),
        (FIVE + b"\5\1\0\3\x03abc\0\x16", b"\5\0", ("abc", 22), b"\5\0\0\1" + bytes(6)),
        (FIVE + b"\5\1\0\4" + bytes(15) + b"\1\0\x16", b"\5\0", ("::1", 22), b"\5\0\0\1" + bytes(6)),
    ],
)
def test_what_is_asked_for(size: int, asked: bytes, answered: bytes, wanted: tuple[str, int], granted: bytes) -> None:
    server = SocksServer()
    sent = b""
    whole = asked + b"behind"
    for at in range(0, len(whole), size):
        sent += server.receive(whole[at : at + size])
    assert (sent, server.wanted, server.rest) == (answered, wanted, b"behind")
    assert server.granted() == granted
    assert server.refused()[:2] == (b"\5\5" if answered else b"\0\x5b")


@pytest.mark.parametrize(
    "asked",
    [b"GET / HTTP/1.1", b"\4\2\0\x50\x7f\0\0\1\0", FIVE + b"\5\3\0\1\x7f\0\0\1\0\1", b"\5\1\2",
     FIVE + b"\5\1\0\2\0\0\0", b"\4\1\0\1\x7f\0\0\1" + b"x" * 2000, FIVE + b"\5\1\0\3\1\n\0\1",
     b"\4\1\0\1\0\0\0\1\0a b\0"],
)  # fmt: skip
def test_what_is_not_served(asked: bytes) -> None:
    with pytest.raises(DecodeError):
        SocksServer().receive(asked)
