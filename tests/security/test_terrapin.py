"""CVE-2023-48795 (Terrapin): messages are put in before NEWKEYS, and as many dropped after it (THREATS R3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import IntegrityError, UnexpectedMessage
from dunnart.protocol.events import LoggedIn
from dunnart.testing.pair import Pair, Side, plain_packet
from dunnart.wire.messages import Debug, Ignore, Unimplemented

FAST = replace(PROFILES["default"], kex=("curve25519-sha256",))
CIPHERS = ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes128-ctr"]
INJECTED = [Ignore(b""), Debug(b""), Unimplemented(0)]


def packets(data: bytes) -> list[bytes]:
    """Split what a side sends before its NEWKEYS."""
    found = []
    if data.startswith(b"SSH-"):
        end = data.index(b"\n") + 1
        found.append(data[:end])
        data = data[end:]
    while data:
        size = 4 + int.from_bytes(data[:4], "big")
        found.append(data[:size])
        data = data[size:]
    return found


@pytest.mark.parametrize("message", INJECTED, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("victim", ["client", "server"])
def test_messages_put_into_the_handshake_end_it(victim: str, place: int, message: Ignore) -> None:
    """Place 1: between version line and KEXINIT. Place 2: behind KEXINIT."""
    made = Pair(algorithms=FAST)
    source = made.server if victim == "client" else made.client
    first = [True]

    def man_in_the_middle(side: Side, data: bytes) -> bytes:
        if side is not source or not first[0]:
            return data
        first[0] = False
        pieces = packets(data)
        return b"".join((*pieces[:place], plain_packet(message), *pieces[place:]))

    made.tamper = man_in_the_middle
    made.run()
    target: Side = getattr(made, victim)
    assert isinstance(target.ended and target.ended.error, UnexpectedMessage)
    assert not made.server.of(LoggedIn)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_prefix_truncation_is_noticed(cipher: str) -> None:
    """The first sealed packet of the server, its EXT_INFO, is dropped; no injection can make up for it."""
    made = Pair(algorithms=replace(FAST, ciphers=(cipher,)))

    def man_in_the_middle(side: Side, data: bytes) -> bytes:
        if side is made.server and made.server.engine.session_id and not made.client.engine.session_id:
            reply, rest = data[: 4 + int.from_bytes(data[:4], "big")], data[4 + int.from_bytes(data[:4], "big") :]
            newkeys = rest[: 4 + int.from_bytes(rest[:4], "big")]
            assert newkeys[5] == 21
            assert len(rest) > len(newkeys)
            return reply + newkeys
        return data

    made.tamper = man_in_the_middle
    made.run()
    assert isinstance(made.client.ended and made.client.ended.error, IntegrityError)
    assert made.client.engine.extensions == {}
    assert not made.server.of(LoggedIn)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_sequence_numbers_begin_anew_so_counting_tricks_fail(cipher: str) -> None:
    made = Pair(algorithms=replace(FAST, ciphers=(cipher,))).run()
    assert made.server.engine.strict
    assert made.client.engine.strict
    newkeys = made.server.numbers.index(21)
    assert made.server.engine.inbound.sequence == len(made.server.numbers) - newkeys - 1
