"""chacha20-poly1305@openssh.com (OpenSSH PROTOCOL.chacha20poly1305).

The 64-byte key is two ChaCha20 keys: the first half encrypts the packet and yields its Poly1305 key, the second half
encrypts the length field. The nonce of both is the sequence number; block 0 of the main stream is the Poly1305 key,
the packet starts at block 1. The tag covers the encrypted length and the encrypted packet.

Building a cipher costs more than running it on a keystroke, so each direction keeps its two contexts and sets their
nonce for each packet.
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
_generate_tag = Poly1305.generate_tag
_verify_tag = Poly1305.verify_tag
_ZERO_BLOCK = bytes(64)


def _stream(key: bytes) -> CipherContext:
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()


class _ChaCha:
    """What both directions have in common: the two streams."""

    __slots__ = ("_length", "_main")

    block_bytes = 8
    tag_bytes = 16
    aad_bytes = 4
    header_bytes = 4

    def __init__(self, key: bytes) -> None:
        self._main = _stream(key[:32])
        self._length = _stream(key[32:])


class ChaChaSealer(_ChaCha):
    """The outgoing direction; `key` is 64 bytes."""

    __slots__ = ()

    def seal(self, packet: memoryview, sequence: int) -> None:
        """Encrypt and authenticate the packet in place."""
        nonce = _nonce(0, sequence)
        main = self._main
        length = self._length
        length.reset_nonce(nonce)
        header = packet[:4]
        length.update_into(header, header)
        main.reset_nonce(nonce)
        key = main.update(_ZERO_BLOCK)[:32]
        body = packet[4:-16]
        main.update_into(body, body)
        packet[-16:] = _generate_tag(key, packet[:-16])


class ChaChaOpener(_ChaCha):
    """The incoming direction; `key` is 64 bytes."""

    __slots__ = ()

    def packet_length(self, packet: memoryview, sequence: int) -> int:
        """Decrypt the length field; the packet stays as it is, for the tag covers its encrypted form."""
        length = self._length
        length.reset_nonce(_nonce(0, sequence))
        return int.from_bytes(length.update(packet), "big")

    def open(self, packet: memoryview, sequence: int) -> None:
        """Verify the packet, then decrypt it in place behind its length field."""
        main = self._main
        main.reset_nonce(_nonce(0, sequence))
        key = main.update(_ZERO_BLOCK)[:32]
        try:
            _verify_tag(key, packet[:-16], packet[-16:].tobytes())
        except InvalidSignature:
            raise IntegrityError("wrong Poly1305 tag") from None
        body = packet[4:-16]
        main.update_into(body, body)
