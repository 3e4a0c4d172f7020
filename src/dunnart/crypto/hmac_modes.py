"""AES-CTR (RFC 4344), AES-CBC and 3DES-CBC (RFC 4253 §6.3) with an HMAC of their own (RFC 4253 §6.4, RFC 6668).

Encrypt-then-MAC (`-etm@openssh.com`, OpenSSH PROTOCOL §1.5): the length field is sent in the clear, the MAC covers
sequence number, length and ciphertext, and is checked before anything is decrypted.
Encrypt-and-MAC (RFC 4253 §6.4): the whole packet is encrypted, the MAC covers sequence number and plaintext. Nothing
of the plaintext but the length field is looked at before the MAC over all of it has been checked.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512
from cryptography.hazmat.primitives.hmac import HMAC

from dunnart.errors import IntegrityError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

_uint32 = struct.Struct(">I").pack
# Hash objects hold no state; HMAC takes them only to know which hash is meant.
_HASHES: dict[str, HashAlgorithm] = {"sha1": SHA1(), "sha256": SHA256(), "sha512": SHA512()}


def block_cipher(family: str, key: bytes, iv: bytes) -> Cipher[CTR | CBC]:
    """Build the cipher of a family: "ctr" or "cbc" for AES, "3des" for 3DES-CBC."""
    if family == "ctr":
        return Cipher(AES(key), CTR(iv))
    if family == "cbc":
        return Cipher(AES(key), CBC(iv))
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES  # legacy

    return Cipher(TripleDES(key), CBC(iv))


class _Authenticated:
    """A running cipher context, and a keyed HMAC that is copied for each packet (half the price of keying anew)."""

    __slots__ = ("_context", "_mac", "block_bytes", "tag_bytes")

    def __init__(self, context: CipherContext, block_bytes: int, hash_name: str, mac_key: bytes) -> None:
        self._context = context
        self._mac = HMAC(mac_key, _HASHES[hash_name])
        self.block_bytes = block_bytes
        self.tag_bytes = self._mac.algorithm.digest_size

    def prepare(self, sequence: int) -> None:
        """There is nothing to prepare."""


class EtmSealer(_Authenticated):
    """The outgoing direction, encrypt-then-MAC."""

    __slots__ = ()

    aad_bytes = 4

    def seal(self, packet: memoryview, sequence: int) -> None:
        """Encrypt and authenticate the packet in place."""
        end = len(packet) - self.tag_bytes
        # CBC wants room for one more block behind its output: the tag's place has it.
        self._context.update_into(packet[4:end], packet[4:])
        mac = self._mac.copy()
        mac.update(_uint32(sequence))
        mac.update(packet[:end])
        packet[end:] = mac.finalize()


class EtmOpener(_Authenticated):
    """The incoming direction, encrypt-then-MAC."""

    __slots__ = ()

    chained = False
    aad_bytes = 4
    header_bytes = 4

    def packet_length(self, packet: memoryview, sequence: int) -> int:  # not encrypted
        """Read the length field, which is not encrypted."""
        return int.from_bytes(packet, "big")

    def open(self, packet: memoryview, sequence: int) -> None:
        """Verify the packet, then decrypt it in place behind its length field."""
        end = len(packet) - self.tag_bytes
        mac = self._mac.copy()
        mac.update(_uint32(sequence))
        mac.update(packet[:end])
        try:
            mac.verify(packet[end:].tobytes())
        except InvalidSignature:
            raise IntegrityError("wrong MAC") from None
        self._context.update_into(packet[4:end], packet[4:])


class MacSealer(_Authenticated):
    """The outgoing direction, encrypt-and-MAC."""

    __slots__ = ()

    aad_bytes = 0

    def seal(self, packet: memoryview, sequence: int) -> None:
        """Authenticate and encrypt the packet in place."""
        end = len(packet) - self.tag_bytes
        mac = self._mac.copy()
        mac.update(_uint32(sequence))
        mac.update(packet[:end])
        self._context.update_into(packet[:end], packet)
        packet[end:] = mac.finalize()


class MacOpener(_Authenticated):
    """The incoming direction, encrypt-and-MAC; `chained` where that is by CBC."""

    __slots__ = ("chained",)

    chained: bool
    aad_bytes = 0

    @property
    def header_bytes(self) -> int:
        """One block: the length field is inside the first."""
        return self.block_bytes

    def packet_length(self, packet: memoryview, sequence: int) -> int:  # the MAC comes later
        """Decrypt the first block in place and read the length field in it."""
        block = self.block_bytes
        packet[:block] = self._context.update(packet[:block])
        return int.from_bytes(packet[:4], "big")

    def open(self, packet: memoryview, sequence: int) -> None:
        """Decrypt the rest of the packet in place, then verify the whole of it."""
        end = len(packet) - self.tag_bytes
        block = self.block_bytes
        self._context.update_into(packet[block:end], packet[block:])
        mac = self._mac.copy()
        mac.update(_uint32(sequence))
        mac.update(packet[:end])
        try:
            mac.verify(packet[end:].tobytes())
        except InvalidSignature:
            packet[:] = bytes(len(packet))
            raise IntegrityError("wrong MAC") from None
