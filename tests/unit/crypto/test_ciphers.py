"""Every cipher with every MAC: wire format against asyncssh's own implementation, round trips, tampering."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.crypto.ciphers import CIPHERS, MACS, CipherSpec, MacSpec, Opener, PlainOpener, PlainSealer, Sealer
from dunnart.errors import IntegrityError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # asyncssh imports what cryptography has deprecated
    from asyncssh.encryption import Encryption, get_encryption


@dataclass(frozen=True)
class Suite:
    """A cipher with its MAC, if it needs one, and fixed keys."""

    cipher: CipherSpec
    mac: MacSpec | None

    @property
    def key(self) -> bytes:
        return bytes(range(7, 7 + self.cipher.key_bytes))

    @property
    def iv(self) -> bytes:
        return bytes(range(200, 200 + self.cipher.iv_bytes))

    @property
    def mac_key(self) -> bytes:
        return bytes(range(90, 90 + self.mac.key_bytes)) if self.mac else b""

    def sealer(self) -> Sealer:
        return self.cipher.sealer(self.key, self.iv, self.mac, self.mac_key)

    def opener(self) -> Opener:
        return self.cipher.opener(self.key, self.iv, self.mac, self.mac_key)

    def reference(self) -> Encryption:
        mac = self.mac.name.encode() if self.mac else b""
        etm = self.mac.etm if self.mac else True
        return get_encryption(self.cipher.name.encode(), self.key, self.iv, mac, self.mac_key, etm)


SUITES = [Suite(cipher, mac) for cipher in CIPHERS.values() for mac in ([None] if cipher.aead else list(MACS.values()))]
every_suite = pytest.mark.parametrize(
    "suite", SUITES, ids=lambda suite: suite.cipher.name + (f"+{suite.mac.name}" if suite.mac else "")
)
SEQUENCES = (0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF, 0)


def plain_packet(ends: Sealer | Opener, blocks: int, fill: int = 1) -> bytearray:
    """Make a packet of so many cipher blocks, with room for the tag; the content differs in each byte."""
    size = ends.aad_bytes + blocks * ends.block_bytes
    content = bytes((fill + index * 7) & 0xFF for index in range(size - 5))
    return bytearray((size - 4).to_bytes(4, "big") + b"\4" + content + bytes(ends.tag_bytes))


def open_packet(opener: Opener, packet: bytearray, sequence: int) -> int:
    """Read the length from nothing but the header, then open; return the length."""
    view = memoryview(packet)
    length = opener.packet_length(view[: opener.header_bytes], sequence)
    opener.open(view, sequence)
    return length


@every_suite
def test_sealed_packets_are_what_asyncssh_makes(suite: Suite) -> None:
    sealer = suite.sealer()
    reference = suite.reference()
    for blocks, sequence in zip((1, 2, 3, 5, 2049, 4), SEQUENCES, strict=True):
        packet = plain_packet(sealer, blocks, sequence & 0xFF)
        body = bytes(packet[: -sealer.tag_bytes])
        sealed, tag = reference.encrypt_packet(sequence, body[:4], body[4:])
        sealer.seal(memoryview(packet), sequence)
        assert packet == sealed + tag


@every_suite
def test_round_trip_of_many_packets(suite: Suite) -> None:
    sealer, opener = suite.sealer(), suite.opener()
    assert (sealer.block_bytes, sealer.tag_bytes, sealer.aad_bytes) == (
        opener.block_bytes,
        opener.tag_bytes,
        opener.aad_bytes,
    )
    for blocks, sequence in zip((1, 2, 3, 5, 2049, 4), SEQUENCES, strict=True):
        packet = plain_packet(sealer, blocks)
        original = bytes(packet[: -sealer.tag_bytes])
        sealer.seal(memoryview(packet), sequence)
        assert bytes(packet[4 : -sealer.tag_bytes]) != original[4:]
        assert open_packet(opener, packet, sequence) == len(original) - 4
        assert bytes(packet[4 : -sealer.tag_bytes]) == original[4:]


@every_suite
def test_what_is_done_beforehand_changes_no_packet(suite: Suite) -> None:
    sealer, opener, unprepared = suite.sealer(), suite.opener(), suite.sealer()
    for sequence in (0, 1, 2):
        packet = plain_packet(sealer, 2)
        original, expected = bytes(packet), packet.copy()
        unprepared.seal(memoryview(expected), sequence)
        for direction in (sealer, opener):
            direction.prepare(sequence + 5)  # as before new keys, which begin to count anew
            direction.prepare(sequence)
        sealer.seal(memoryview(packet), sequence)
        assert packet == expected
        view = memoryview(packet)
        opener.packet_length(view[: opener.header_bytes], sequence)
        opener.prepare(sequence)  # while the rest of the packet is on its way
        opener.open(view, sequence)
        assert view[4 : -sealer.tag_bytes] == original[4 : -sealer.tag_bytes]


@every_suite
def test_every_changed_byte_is_detected(suite: Suite) -> None:
    sealer = suite.sealer()
    packet = plain_packet(sealer, 2)
    sealer.seal(memoryview(packet), 3)
    for index in range(len(packet)):
        for bit in (0x01, 0x80):
            changed = bytearray(packet)
            changed[index] ^= bit
            with pytest.raises(IntegrityError):
                open_packet(suite.opener(), changed, 3)


@every_suite
def test_replayed_reordered_or_foreign_packets_are_detected(suite: Suite) -> None:
    sealer = suite.sealer()
    first, second = plain_packet(sealer, 2), plain_packet(sealer, 2)
    sealer.seal(memoryview(first), 0)
    sealer.seal(memoryview(second), 1)
    assert first != second
    with pytest.raises(IntegrityError):
        open_packet(suite.opener(), bytearray(second), 0)
    opener = suite.opener()
    open_packet(opener, bytearray(first), 0)
    with pytest.raises(IntegrityError):
        open_packet(opener, bytearray(first), 1)
    stranger = suite.cipher.opener(bytes(suite.cipher.key_bytes), suite.iv, suite.mac, bytes(len(suite.mac_key)))
    with pytest.raises(IntegrityError):
        open_packet(stranger, bytearray(first), 0)


@every_suite
def test_bytes_around_the_packet_stay_as_they_are(suite: Suite) -> None:
    sealer, opener = suite.sealer(), suite.opener()
    for blocks in (1, 2, 9):
        packet = plain_packet(sealer, blocks)
        size = len(packet)
        buffer = bytearray(b"\xa5" * 64 + packet + b"\x5a" * 64)
        view = memoryview(buffer)[64 : 64 + size]
        sealer.seal(view, blocks)
        opener.packet_length(view[: opener.header_bytes], blocks)
        opener.open(view, blocks)
        assert buffer[:64] == b"\xa5" * 64
        assert buffer[64 + size :] == b"\x5a" * 64
        assert buffer[68 : 64 + size - sealer.tag_bytes] == packet[4 : size - sealer.tag_bytes]


@every_suite
def test_length_is_read_from_the_header_alone_and_the_packet_may_move(suite: Suite) -> None:
    sealer, opener = suite.sealer(), suite.opener()
    for sequence in range(3):
        packet = plain_packet(sealer, 4)
        original = bytes(packet)
        sealer.seal(memoryview(packet), sequence)
        header = bytearray(packet[: opener.header_bytes])
        before = bytes(header)
        assert opener.packet_length(memoryview(header), sequence) == int.from_bytes(original[:4], "big")
        if opener.aad_bytes:
            assert header == before
        moved = header + packet[opener.header_bytes :]
        opener.open(memoryview(moved), sequence)
        assert moved[4 : -opener.tag_bytes] == original[4 : -opener.tag_bytes]


@every_suite
def test_nothing_decrypted_is_left_after_a_wrong_tag(suite: Suite) -> None:
    sealer, opener = suite.sealer(), suite.opener()
    packet = plain_packet(sealer, 4)
    original = bytes(packet)
    sealer.seal(memoryview(packet), 0)
    packet[-1] ^= 1
    with pytest.raises(IntegrityError):
        open_packet(opener, packet, 0)
    for offset in range(4, len(packet) - opener.tag_bytes, 8):
        assert packet[offset : offset + 8] != original[offset : offset + 8]


def test_lengths_are_those_of_the_wire() -> None:
    for suite in SUITES:
        sealer, opener = suite.sealer(), suite.opener()
        authenticated_length = suite.mac is None or suite.mac.etm
        assert sealer.aad_bytes == (4 if authenticated_length else 0)
        assert opener.header_bytes == (4 if authenticated_length else suite.cipher.block_bytes)
        assert sealer.tag_bytes == (suite.mac.tag_bytes if suite.mac else 16)
        assert sealer.block_bytes == suite.cipher.block_bytes


def test_cipher_table() -> None:
    assert {name: (spec.key_bytes, spec.iv_bytes, spec.block_bytes) for name, spec in CIPHERS.items()} == {
        "chacha20-poly1305@openssh.com": (64, 0, 8),
        "aes128-gcm@openssh.com": (16, 12, 16),
        "aes256-gcm@openssh.com": (32, 12, 16),
        "aes128-ctr": (16, 16, 16),
        "aes192-ctr": (24, 16, 16),
        "aes256-ctr": (32, 16, 16),
        "aes128-cbc": (16, 16, 16),
        "aes192-cbc": (24, 16, 16),
        "aes256-cbc": (32, 16, 16),
        "3des-cbc": (24, 8, 8),
    }
    assert CIPHERS["3des-cbc"].rekey_bytes == 524_288
    assert all(spec.rekey_bytes == 1 << 30 for name, spec in CIPHERS.items() if name != "3des-cbc")


@pytest.mark.parametrize("name", [name for name, spec in CIPHERS.items() if not spec.aead])
def test_a_cipher_without_authentication_refuses_to_work_without_a_mac(name: str) -> None:
    spec = CIPHERS[name]
    with pytest.raises(ValueError, match="needs a MAC"):
        spec.sealer(bytes(spec.key_bytes), bytes(spec.iv_bytes), None, b"")
    with pytest.raises(ValueError, match="needs a MAC"):
        spec.opener(bytes(spec.key_bytes), bytes(spec.iv_bytes), None, b"")


@given(st.sampled_from(SUITES), st.lists(st.tuples(st.integers(1, 40), st.integers(0, 0xFFFFFFFF)), max_size=6))
def test_any_run_of_packets_round_trips(suite: Suite, packets: list[tuple[int, int]]) -> None:
    sealer, opener = suite.sealer(), suite.opener()
    for blocks, sequence in packets:
        packet = plain_packet(sealer, blocks, sequence & 0xFF)
        original = bytes(packet[4 : -sealer.tag_bytes])
        sealer.seal(memoryview(packet), sequence)
        assert open_packet(opener, packet, sequence) == len(original)
        assert packet[4 : -sealer.tag_bytes] == original


def test_plain_packets_pass_unchanged() -> None:
    sealer, opener = PlainSealer(), PlainOpener()
    packet = plain_packet(sealer, 3)
    original = bytes(packet)
    sealer.seal(memoryview(packet), 0)
    assert open_packet(opener, packet, 0) == len(original) - 4
    assert packet == original
    assert (sealer.block_bytes, sealer.tag_bytes, sealer.aad_bytes, opener.header_bytes) == (8, 0, 0, 4)
