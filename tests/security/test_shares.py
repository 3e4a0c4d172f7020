"""Bad public values in the key exchange (THREATS R11): russh GHSA-5xvq-cp9x-6p6r, RFC 8731 §3, RFC 7748 §6.1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dunnart.crypto.dh_groups import GROUP_14
from dunnart.crypto.profiles import PROFILES
from dunnart.errors import NegotiationError
from dunnart.protocol.events import KeysExchanged
from dunnart.testing.pair import Pair, kexinit, plain_packet
from dunnart.wire.encoding import mpint
from dunnart.wire.messages import KexExchangeInit, KexGexRequest

LEGACY = PROFILES["legacy"]
# Points of small order on Curve25519: their result is all zero.
SMALL_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def mpint_body(value: int) -> bytes:
    return mpint(value)[4:]


SHARES = [
    *(("curve25519-sha256", share) for share in (*SMALL_ORDER, b"", b"x" * 31, b"x" * 33)),
    *(("mlkem768x25519-sha256", bytes(size)) for size in (0, 1184, 1215, 1216, 1217)),
    ("mlkem768x25519-sha256", b"\xff" * 1216),
    *(("ecdh-sha2-nistp256", share) for share in (b"", b"\0", b"\2" + bytes(32), b"\4" + bytes(64))),
    ("ecdh-sha2-nistp256", b"\4" + b"\xff" * 64),
    *(
        ("diffie-hellman-group14-sha256", mpint_body(share))
        for share in (0, 1, -1, GROUP_14 - 1, GROUP_14, GROUP_14 + 2, 2**4096)
    ),
    ("diffie-hellman-group14-sha256", b"\0" * 20_000 + b"\5"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kex", "share"), SHARES, ids=lambda value: value[:24] if isinstance(value, str) else value[:4].hex()
)
def test_bad_shares(kex: str, share: bytes) -> None:
    made = Pair(algorithms=replace(LEGACY, kex=(kex,)))
    offer = kexinit(LEGACY, kex=(kex,))
    made.server.engine.receive(b"SSH-2.0-x\r\n" + plain_packet(offer) + plain_packet(KexExchangeInit(share)), made.now)
    while made.server.sweep():
        pass
    assert isinstance(made.server.ended and made.server.ended.error, NegotiationError)
    assert made.server.ended is not None
    assert made.server.ended.reason_code == 3
    assert made.server.engine.session_id == b""
    assert made.server.of(KeysExchanged) == []


@pytest.mark.parametrize(
    ("minimum", "preferred", "maximum"),
    [(0, 0, 0), (1, 1, 1), (1024, 1024, 1024), (512, 1024, 2047), (8193, 9000, 10_000), (4096, 2048, 8192),
     (2048, 8192, 4096), (2**32 - 1, 2**32 - 1, 2**32 - 1)],
)  # fmt: skip
def test_group_exchange_within_bounds_only(minimum: int, preferred: int, maximum: int) -> None:
    kex = "diffie-hellman-group-exchange-sha256"
    made = Pair(algorithms=replace(LEGACY, kex=(kex,)))
    offer = kexinit(LEGACY, kex=(kex,))
    request = KexGexRequest(minimum, preferred, maximum)
    made.server.engine.receive(b"SSH-2.0-x\r\n" + plain_packet(offer) + plain_packet(request), made.now)
    made.server.sweep()
    assert isinstance(made.server.ended and made.server.ended.error, NegotiationError)
