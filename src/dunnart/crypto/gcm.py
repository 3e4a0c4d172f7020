"""aes128-gcm@openssh.com and aes256-gcm@openssh.com (RFC 5647, OpenSSH PROTOCOL §1.6).

The length field is sent in the clear and is the associated data. The nonce is 4 fixed bytes and a 64-bit counter of
packets that starts where the key derivation says and wraps around (RFC 5647 §7.1).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dunnart.errors import IntegrityError

_COUNTER_MASK = (1 << 64) - 1


class _Gcm:
    """What both directions have in common: the key and the nonce of the next packet."""

    __slots__ = ("_counter", "_fixed", "_gcm")

    block_bytes = 16
    tag_bytes = 16
    aad_bytes = 4
    chained = False
    header_bytes = 4

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._gcm = AESGCM(key)
        self._fixed = iv[:4]
        self._counter = int.from_bytes(iv[4:], "big")

    def prepare(self, sequence: int) -> None:
        """There is nothing to prepare."""


class GcmSealer(_Gcm):
    """The outgoing direction; `key` is 16 or 32 bytes, `iv` 12."""

    __slots__ = ()

    def seal(self, packet: memoryview, sequence: int) -> None:  # the nonce has its own counter
        """Encrypt and authenticate the packet in place."""
        counter = self._counter
        self._counter = (counter + 1) & _COUNTER_MASK
        nonce = self._fixed + counter.to_bytes(8, "big")
        self._gcm.encrypt_into(nonce, packet[4:-16], packet[:4], packet[4:])


class GcmOpener(_Gcm):
    """The incoming direction; `key` is 16 or 32 bytes, `iv` 12."""

    __slots__ = ()

    def packet_length(self, packet: memoryview, sequence: int) -> int:  # not encrypted
        """Read the length field, which is not encrypted."""
        return int.from_bytes(packet, "big")

    def open(self, packet: memoryview, sequence: int) -> None:  # the nonce has its own counter
        """Verify the packet and decrypt it in place behind its length field."""
        counter = self._counter
        self._counter = (counter + 1) & _COUNTER_MASK
        nonce = self._fixed + counter.to_bytes(8, "big")
        try:
            self._gcm.decrypt_into(nonce, packet[4:], packet[:4], packet[4:-16])
        except InvalidTag:
            # OpenSSL decrypts and authenticates in one pass: what it wrote must not be seen.
            packet[4:] = bytes(len(packet) - 4)
            raise IntegrityError("wrong GCM tag") from None
