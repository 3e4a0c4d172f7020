"""chacha20-poly1305@openssh.com (OpenSSH PROTOCOL.chacha20poly1305).

The 64-byte key is two ChaCha20 keys: the first half encrypts the packet and yields its Poly1305 key, the second half
encrypts the length field. The nonce of both is the sequence number; block 0 of the main stream is the Poly1305 key,
the packet starts at block 1. The tag covers the encrypted length and the encrypted packet.

Building a cipher costs more than running it on a keystroke, so each direction keeps its two contexts and sets their
nonce for each packet. That, and the Poly1305 key, need the packet's number alone: they can be had before it is there.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.poly1305 import Poly1305

from dunnart.errors import IntegrityError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

# 64 bits of block counter (little-endian, zero), 64 bits of sequence number.
_nonce = struct.Struct(">QQ").pack
_ZERO_BLOCK = bytes(64)


def _stream(key: bytes) -> CipherContext:
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()


class _ChaCha:
    """What both directions have in common: the two streams and the MAC, for the packet that they are prepared for."""

    __slots__ = ("_length", "_mac", "_main", "_prepared")

    block_bytes = 8
    tag_bytes = 16
    aad_bytes = 4
    chained = False
    header_bytes = 4

    def __init__(self, key: bytes) -> None:
        self._main = _stream(key[:32])
        self._length = _stream(key[32:])
        self._mac: Poly1305 | None = None
        self._prepared = -1

    def prepare(self, sequence: int) -> None:
        """Set both streams up for a packet, and its MAC."""
        if self._prepared == sequence:
            return
        nonce = _nonce(0, sequence)
        self._length.reset_nonce(nonce)
        self._main.reset_nonce(nonce)
        self._mac = Poly1305(self._main.update(_ZERO_BLOCK)[:32])
        self._prepared = sequence

    def _taken_mac(self) -> Poly1305:
        mac, self._mac, self._prepared = self._mac, None, -1
        assert mac is not None
        return mac


class ChaChaSealer(_ChaCha):
    """The outgoing direction; `key` is 64 bytes."""

    __slots__ = ()

    def seal(self, packet: memoryview, sequence: int) -> None:
        """Encrypt and authenticate the packet in place."""
        self.prepare(sequence)
        header, body = packet[:4], packet[4:-16]
        self._length.update_into(header, header)
        self._main.update_into(body, body)
        mac = self._taken_mac()
        mac.update(packet[:-16])
        packet[-16:] = mac.finalize()


class ChaChaOpener(_ChaCha):
    """The incoming direction; `key` is 64 bytes."""

    __slots__ = ()

    def packet_length(self, packet: memoryview, sequence: int) -> int:
        """Decrypt the length field; the packet stays as it is, for the tag covers its encrypted form."""
        self.prepare(sequence)
        return int.from_bytes(self._length.update(packet), "big")

    def open(self, packet: memoryview, sequence: int) -> None:
        """Verify the packet, then decrypt it in place behind its length field."""
        self.prepare(sequence)
        mac = self._taken_mac()
        mac.update(packet[:-16])
        try:
            mac.verify(packet[-16:].tobytes())
        except InvalidSignature:
            raise IntegrityError("wrong Poly1305 tag") from None
        body = packet[4:-16]
        self._main.update_into(body, body)
