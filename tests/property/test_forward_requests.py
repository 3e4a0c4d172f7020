"""Whatever a client sends with a request to forward is read, or refused with an error of ours."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import DecodeError
from dunnart.plugins import direct_streamlocal, direct_tcpip, tcpip_forward, x11_forwarding
from dunnart.wire.encoding import boolean, string, text, uint32

NUMBERS = st.integers(0, 2**32 - 1) | st.integers(0, 70_000)
TEXTS = st.text(max_size=20).map(text) | st.binary(max_size=20).map(string)
ADDRESSES = st.tuples(TEXTS, NUMBERS.map(uint32)).map(b"".join)
TAILS = st.just(b"") | st.binary(max_size=3)


@pytest.mark.parametrize(
    "read",
    [
        direct_tcpip.read_destination,
        direct_streamlocal.read_destination,
        tcpip_forward.read_address,
        x11_forwarding.read_request,
    ],
)
@given(data=st.binary(max_size=200) | st.lists(TEXTS | NUMBERS.map(uint32), max_size=6).map(b"".join))
def test_anything(read: object, data: bytes) -> None:
    assert callable(read)
    with contextlib.suppress(DecodeError):
        read(data)


@given(host=st.text(max_size=20), port=st.integers(0, 70_000), tail=TAILS)
def test_addresses_to_listen_on(host: str, port: int, tail: bytes) -> None:
    data = text(host) + uint32(port) + tail
    if tail or port > 65535 or "\0" in host:
        with pytest.raises(DecodeError):
            tcpip_forward.read_address(data)
    else:
        assert tcpip_forward.read_address(data) == (host, port)


@given(
    once=st.booleans(), protocol=st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True), cookie=st.binary(min_size=1),
    screen=st.integers(0, 400),
)  # fmt: skip
def test_displays(once: bool, protocol: str, cookie: bytes, screen: int) -> None:
    wanted = x11_forwarding.read_request(boolean(once) + text(protocol) + text(cookie.hex()) + uint32(screen))
    assert (wanted.once, wanted.protocol, wanted.cookie, wanted.screen) == (once, protocol, cookie, screen)
