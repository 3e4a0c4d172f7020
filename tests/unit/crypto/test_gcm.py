"""aes*-gcm@openssh.com: the nonce's counter and the associated data."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from dunnart.crypto.gcm import GcmOpener, GcmSealer
from dunnart.errors import IntegrityError


def expected(key: bytes, nonce: bytes, packet: bytes) -> bytes:
    """Seal with the streaming interface, which shares no code with the one-shot AEAD."""
    context = Cipher(AES(key), GCM(nonce)).encryptor()
    context.authenticate_additional_data(packet[:4])
    body = context.update(packet[4:]) + context.finalize()
    return packet[:4] + body + context.tag


@pytest.mark.parametrize("key_bytes", [16, 32])
@pytest.mark.parametrize(
    "counters",
    [(0, 1, 2), (0xFF, 0x100, 0x101), (0xFFFFFFFFFFFFFFFE, 0xFFFFFFFFFFFFFFFF, 0, 1)],
    ids=["from zero", "carry", "wraps without touching the fixed part"],
)
def test_nonce_counts_packets_whatever_their_sequence_number(key_bytes: int, counters: tuple[int, ...]) -> None:
    key = bytes(range(key_bytes))
    iv = b"\xff\xff\xff\xff" + counters[0].to_bytes(8, "big")
    sealer, opener = GcmSealer(key, iv), GcmOpener(key, iv)
    for counter in counters:
        plain = b"\0\0\0\x20" + bytes(range(32))
        packet = bytearray(plain + bytes(16))
        sealer.seal(memoryview(packet), 77)
        assert packet == expected(key, iv[:4] + counter.to_bytes(8, "big"), plain)
        assert opener.packet_length(memoryview(packet)[:4], 77) == 32
        opener.open(memoryview(packet), 77)
        assert packet[:-16] == plain


def test_the_length_is_authenticated() -> None:
    packet = bytearray(expected(bytes(16), bytes(12), b"\0\0\0\x10" + bytes(16)))
    packet[3] = 0x20
    with pytest.raises(IntegrityError):
        GcmOpener(bytes(16), bytes(12)).open(memoryview(packet), 0)
