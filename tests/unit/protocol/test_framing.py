from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from dunnart.crypto.ciphers import CIPHERS, MACS
from dunnart.errors import IntegrityError, LimitExceeded
from dunnart.protocol.framing import READ_BYTES, Arena, Inbound, Outbound
from dunnart.wire.encoding import uint32

HEADER = b"\x5e\0\0\0\7"
PROTECTIONS = [(name, mac) for name in CIPHERS for mac in (MACS if not CIPHERS[name].aead else ["-"])]


def ends(cipher: str = "", mac: str = "-") -> tuple[Outbound, Inbound]:
    outbound, inbound = Outbound(Arena(os.urandom)), Inbound(Arena(os.urandom), 256 * 1024)
    if cipher:
        spec, chosen = CIPHERS[cipher], MACS.get(mac)
        keys = (bytes(spec.key_bytes), bytes(spec.iv_bytes), chosen, bytes(chosen.key_bytes) if chosen else b"")
        outbound.start_keys(spec.sealer(*keys), 1 << 30, reset_sequence=True)
        inbound.start_keys(spec.opener(*keys), 1 << 30, reset_sequence=True)
    return outbound, inbound


def taken(outbound: Outbound) -> bytes:
    data = b"".join(outbound.queue)
    outbound.queue.clear()
    return data


def put(inbound: Inbound, data: bytes) -> list[bytes]:
    room = inbound.buffer()
    room[: len(data)] = data
    inbound.received(len(data))
    found = []
    while (payload := inbound.packet()) is not None:
        found.append(bytes(payload))
    inbound.keep()
    return found


@pytest.mark.parametrize(("cipher", "mac"), [("", "-"), *PROTECTIONS])
def test_every_size_and_a_run_of_them(cipher: str, mac: str) -> None:
    outbound, inbound = ends(cipher, mac)
    for size in (1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 255, 1000, 32_768):
        outbound.send(bytes([size & 0xFF]) * size)
        data = taken(outbound)
        assert put(inbound, data) == [bytes([size & 0xFF]) * size]
        slots = outbound.data_slots(HEADER, size, 3 * size - size // 2)
        for number, slot in enumerate(slots):
            slot[:] = bytes([number]) * len(slot)
        lengths = [len(slot) for slot in slots]
        assert sum(lengths) == 3 * size - size // 2
        outbound.seal_run(HEADER, size, sum(lengths))
        assert put(inbound, taken(outbound)) == [
            HEADER + uint32(length) + bytes([number]) * length for number, length in enumerate(lengths)
        ]
    assert inbound.sequence == outbound.sequence
    assert inbound.bytes == outbound.bytes
    assert inbound.packets == outbound.packets


@pytest.mark.parametrize(("cipher", "mac"), PROTECTIONS)
@pytest.mark.parametrize("chunk", [1, 100, 32_768])
def test_slots_hold_whatever_the_last_size(cipher: str, mac: str, chunk: int) -> None:
    """The run has room for the longest padding, wherever the data ends."""
    outbound, inbound = ends(cipher, mac)
    for spare in range(0, 64, 7):
        run = memoryview(bytearray(chunk + 512 + spare))
        slots = outbound.data_slots(HEADER, chunk, 1 << 30, run)
        assert slots
        total = sum(map(len, slots))
        for count in {total, total - 1, max(total - 16, 1), 1} - {0}:
            outbound.seal_run(HEADER, chunk, count, run)
            assert sum(len(payload) - 9 for payload in put(inbound, taken(outbound))) == count


def test_a_short_slot_needs_a_short_run() -> None:
    outbound, _ = ends("aes128-gcm@openssh.com")
    assert [len(slot) for slot in outbound.data_slots(HEADER, 32_768, 5, memoryview(bytearray(4096)))] == [5]
    assert outbound.data_slots(HEADER, 32_768, 4096, memoryview(bytearray(4096))) == []


def test_padding_fills_blocks_and_is_at_least_four() -> None:
    outbound, _ = ends()
    for size in range(1, 40):
        outbound.send(bytes(size))
        packet = taken(outbound)
        assert len(packet) % 8 == 0
        assert 4 <= packet[4] <= 11
        assert int.from_bytes(packet[:4], "big") == len(packet) - 4 == 1 + size + packet[4]


@pytest.mark.parametrize("length", [0, 1, 5, 11, 13, 35_001, 262_145, 2**31, 2**32 - 1])
def test_impossible_lengths(length: int) -> None:
    inbound = Inbound(Arena(os.urandom), 35_000)
    with pytest.raises(IntegrityError):
        put(inbound, uint32(length))


@pytest.mark.parametrize("padding", [0, 3, 11, 12, 255])
def test_impossible_padding(padding: int) -> None:
    _, inbound = ends()
    with pytest.raises(IntegrityError, match="padding"):
        put(inbound, uint32(12) + bytes([padding]) + bytes(11))


def test_payload_of_one_byte_is_the_least() -> None:
    _, inbound = ends()
    assert put(inbound, uint32(12) + b"\x0a" + b"\x63" + bytes(10)) == [b"\x63"]


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 15, 16, 17, 40])
@pytest.mark.parametrize(("cipher", "mac"), PROTECTIONS)
def test_packets_in_pieces(cipher: str, mac: str, cut: int) -> None:
    outbound, inbound = ends(cipher, mac)
    payloads = [bytes([size]) * size for size in (1, 5, 30, 100)]
    for payload in payloads:
        outbound.send(payload)
    data = taken(outbound)
    found = []
    for start in range(0, len(data), cut):
        found += put(inbound, data[start : start + cut])
    assert found == payloads


def test_largest_packet_kept_beside_a_full_read() -> None:
    outbound, inbound = ends("aes128-gcm@openssh.com")
    outbound.send(bytes(256 * 1024 - 32))
    outbound.send(b"next")
    data = taken(outbound)
    assert put(inbound, data[: READ_BYTES - 16]) == []
    rest = data[READ_BYTES - 16 :] + bytes(0)
    assert [len(payload) for payload in put(inbound, rest)] == [256 * 1024 - 32, 4]


def test_lines() -> None:
    _, inbound = ends()

    def lines(data: bytes) -> list[bytes]:
        room = inbound.buffer()
        room[: len(data)] = data
        inbound.received(len(data))
        found = []
        while (line := inbound.line(20)) is not None:
            found.append(line)
        inbound.keep()
        return found

    assert lines(b"one\r\ntwo\nthr") == [b"one\r", b"two"]
    assert lines(b"ee\n") == [b"three"]
    assert lines(b"x" * 19 + b"\n") == [b"x" * 19]
    with pytest.raises(LimitExceeded):
        lines(b"x" * 20 + b"\n")


@pytest.mark.parametrize(
    "wrap", [lambda outbound: outbound.send(b"x"), lambda outbound: outbound.seal_run(HEADER, 1, 1)]
)
def test_sequence_numbers_wrap(wrap: Callable[[Outbound], None]) -> None:
    outbound, inbound = ends("chacha20-poly1305@openssh.com")
    outbound.sequence = inbound.sequence = 2**32 - 1
    for _ in range(2):
        wrap(outbound)
        assert len(put(inbound, taken(outbound))) == 1
    assert inbound.sequence == outbound.sequence == 1
