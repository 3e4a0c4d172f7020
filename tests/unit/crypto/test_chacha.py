"""chacha20-poly1305@openssh.com, byte for byte against its description, on an implementation of nothing but numbers."""

from __future__ import annotations

import struct

import pytest

from dunnart.crypto.chacha import ChaChaOpener, ChaChaSealer
from dunnart.errors import IntegrityError

KEY = bytes(range(64))


def quarter_round(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for first, second, third, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[first] = (state[first] + state[second]) & 0xFFFFFFFF
        mixed = state[third] ^ state[first]
        state[third] = ((mixed << bits) | (mixed >> (32 - bits))) & 0xFFFFFFFF


def chacha20(key: bytes, sequence: int, counter: int, data: bytes) -> bytes:
    """D. J. Bernstein's original: 64 bits of counter, 64 bits of nonce."""
    out = bytearray()
    for offset in range(0, len(data), 64):
        nonce = sequence.to_bytes(8, "big")
        start = list(
            struct.unpack("<16I", b"expand 32-byte k" + key + (counter + offset // 64).to_bytes(8, "little") + nonce)
        )
        state = list(start)
        for _ in range(10):
            for column in range(4):
                quarter_round(state, column, column + 4, column + 8, column + 12)
            for diagonal in range(4):
                a, b, c, d = (4 * row + (diagonal + row) % 4 for row in range(4))
                quarter_round(state, a, b, c, d)
        block = struct.pack("<16I", *((x + y) & 0xFFFFFFFF for x, y in zip(state, start, strict=True)))
        out += bytes(x ^ y for x, y in zip(data[offset : offset + 64], block, strict=False))
    return bytes(out)


def poly1305(key: bytes, data: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for offset in range(0, len(data), 16):
        total = (total + int.from_bytes(data[offset : offset + 16] + b"\1", "little")) * r % ((1 << 130) - 5)
    return ((total + int.from_bytes(key[16:], "little")) & ((1 << 128) - 1)).to_bytes(16, "little")


def expected(packet: bytes, sequence: int) -> bytes:
    length = chacha20(KEY[32:], sequence, 0, packet[:4])
    body = chacha20(KEY[:32], sequence, 1, packet[4:])
    tag = poly1305(chacha20(KEY[:32], sequence, 0, bytes(32)), length + body)
    return length + body + tag


def test_the_reference_meets_rfc_8439() -> None:
    key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    assert poly1305(key, b"Cryptographic Forum Research Group").hex() == "a8061dc1305136c6c22b8baf0c0127a9"
    # RFC 8439 appendix A.1, test vectors 1 and 2: key, nonce and counter zero, then counter 1.
    assert chacha20(bytes(32), 0, 0, bytes(64)).hex().startswith("76b8e0ada0f13d90405d6ae55386bd28")
    assert chacha20(bytes(32), 0, 1, bytes(64)).hex().startswith("9f07e7be5551387a98ba977c732d080d")


@pytest.mark.parametrize("sequence", [0, 1, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [12, 60, 64, 68, 132, 1028])
def test_packets_are_as_described(sequence: int, size: int) -> None:
    plain = (size - 4).to_bytes(4, "big") + bytes(index & 0xFF for index in range(size - 4))
    packet = bytearray(plain + bytes(16))
    ChaChaSealer(KEY).seal(memoryview(packet), sequence)
    assert packet == expected(plain, sequence)
    opener = ChaChaOpener(KEY)
    assert opener.packet_length(memoryview(packet)[:4], sequence) == size - 4
    opener.open(memoryview(packet), sequence)
    assert packet[4:-16] == plain[4:]


def test_failure_of_one_packet_does_not_decide_over_another() -> None:
    packet = bytearray(expected(b"\0\0\0\x08\4\0\0\0\0\0\0\0", 5))
    opener = ChaChaOpener(KEY)
    with pytest.raises(IntegrityError):
        opener.open(memoryview(bytearray(packet)), 6)
    opener.open(memoryview(packet), 5)
    assert packet[4:12] == b"\4\0\0\0\0\0\0\0"
