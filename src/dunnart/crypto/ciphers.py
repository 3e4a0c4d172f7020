"""What protects SSH packets on the wire (RFC 4253 §6): ciphers and MACs by name, one object for each direction.

A packet is one buffer: uint32 length | padding length | payload | padding | tag. It is sealed and opened in place.
Each packet must be passed exactly once and in order: contexts and counters run on.
"""

from __future__ import annotations

from typing import Literal, Protocol

from dunnart.crypto.chacha import ChaChaOpener, ChaChaSealer
from dunnart.crypto.gcm import GcmOpener, GcmSealer
from dunnart.crypto.hmac_modes import EtmOpener, EtmSealer, MacOpener, MacSealer, block_cipher
from dunnart.records import dataclass

_GIB = 1 << 30


class Sealer(Protocol):
    """One direction, outgoing."""

    @property
    def block_bytes(self) -> int:
        """What the padding fills up to a multiple of."""

    @property
    def tag_bytes(self) -> int:
        """Length of the MAC or tag behind the packet."""

    @property
    def aad_bytes(self) -> int:
        """4 when the length field is left out of the padding's alignment, else 0."""

    def prepare(self, sequence: int) -> None:
        """Do what can be done before the next packet is there; without it, that is done with the packet.

        Args:
            sequence: its sequence number.
        """

    def seal(self, packet: memoryview, sequence: int) -> None:
        """Encrypt and authenticate in place.

        Args:
            packet: the whole wire packet, with `tag_bytes` of room at its end.
            sequence: its sequence number, 0..2^32-1.
        """


class Opener(Protocol):
    """One direction, incoming."""

    @property
    def block_bytes(self) -> int:
        """What the padding fills up to a multiple of."""

    @property
    def tag_bytes(self) -> int:
        """Length of the MAC or tag behind the packet."""

    @property
    def aad_bytes(self) -> int:
        """4 when the length field is left out of the padding's alignment, else 0."""

    @property
    def chained(self) -> bool:
        """The length field is encrypted by CBC, so that nobody may learn what it decrypts to before the MAC holds."""

    @property
    def header_bytes(self) -> int:
        """How many bytes of a packet `packet_length` needs."""

    def prepare(self, sequence: int) -> None:
        """Do what can be done before the next packet is there; without it, that is done with the packet.

        Args:
            sequence: its sequence number.
        """

    def packet_length(self, header: memoryview, sequence: int) -> int:
        """Read the length field from a packet's first `header_bytes` bytes; to be called once for each packet.

        Encrypt-and-MAC ciphers decrypt these bytes in place; they must come back in `open`. The value is not checked.
        """

    def open(self, packet: memoryview, sequence: int) -> None:
        """Verify and decrypt in place: afterwards the padding length stands at 4 and the payload at 5.

        Args:
            packet: the whole packet, 4 + length + `tag_bytes` bytes, seen by `packet_length` before.
            sequence: its sequence number, 0..2^32-1.

        Raises:
            IntegrityError: the MAC or tag is wrong; nothing decrypted is then left in the packet.
        """


@dataclass(frozen=True, slots=True)
class MacSpec:
    """A MAC algorithm; `etm` when it covers the ciphertext."""

    name: str
    key_bytes: int
    tag_bytes: int
    etm: bool
    hash_name: Literal["sha1", "sha256", "sha512"]


@dataclass(frozen=True, slots=True)
class CipherSpec:
    """A cipher; `aead` when it needs no MAC. `rekey_bytes` is how much one key may protect."""

    name: str
    key_bytes: int
    iv_bytes: int
    block_bytes: int
    family: Literal["chacha", "gcm", "ctr", "cbc", "3des"]
    rekey_bytes: int = _GIB

    @property
    def aead(self) -> bool:
        """Whether the cipher authenticates by itself."""
        return self.family in ("chacha", "gcm")

    def sealer(self, key: bytes, iv: bytes, mac: MacSpec | None, mac_key: bytes) -> Sealer:
        """Make the outgoing direction; `mac` and `mac_key` count only for ciphers that are not `aead`."""
        if self.family == "chacha":
            return ChaChaSealer(key)
        if self.family == "gcm":
            return GcmSealer(key, iv)
        if mac is None:
            raise ValueError(f"{self.name} needs a MAC")
        context = block_cipher(self.family, key, iv).encryptor()
        kind = EtmSealer if mac.etm else MacSealer
        return kind(context, self.block_bytes, mac.hash_name, mac_key)

    def opener(self, key: bytes, iv: bytes, mac: MacSpec | None, mac_key: bytes) -> Opener:
        """Make the incoming direction; `mac` and `mac_key` count only for ciphers that are not `aead`."""
        if self.family == "chacha":
            return ChaChaOpener(key)
        if self.family == "gcm":
            return GcmOpener(key, iv)
        if mac is None:
            raise ValueError(f"{self.name} needs a MAC")
        context = block_cipher(self.family, key, iv).decryptor()
        if mac.etm:
            return EtmOpener(context, self.block_bytes, mac.hash_name, mac_key)
        opener = MacOpener(context, self.block_bytes, mac.hash_name, mac_key)
        opener.chained = self.family in ("cbc", "3des")
        return opener


class PlainSealer:
    """The outgoing direction before the first NEWKEYS: nothing is encrypted."""

    __slots__ = ()

    block_bytes = 8
    tag_bytes = 0
    aad_bytes = 0

    def prepare(self, sequence: int) -> None:
        """There is nothing to prepare."""

    def seal(self, packet: memoryview, sequence: int) -> None:
        """Leave the packet as it is."""


class PlainOpener:
    """The incoming direction before the first NEWKEYS: nothing is encrypted."""

    __slots__ = ()

    block_bytes = 8
    tag_bytes = 0
    aad_bytes = 0
    chained = False
    header_bytes = 4

    def prepare(self, sequence: int) -> None:
        """There is nothing to prepare."""

    def packet_length(self, packet: memoryview, sequence: int) -> int:  # not encrypted
        """Read the length field."""
        return int.from_bytes(packet[:4], "big")

    def open(self, packet: memoryview, sequence: int) -> None:
        """Leave the packet as it is."""


CIPHERS: dict[str, CipherSpec] = {
    spec.name: spec
    for spec in (
        CipherSpec("chacha20-poly1305@openssh.com", 64, 0, 8, "chacha"),
        CipherSpec("aes128-gcm@openssh.com", 16, 12, 16, "gcm"),
        CipherSpec("aes256-gcm@openssh.com", 32, 12, 16, "gcm"),
        CipherSpec("aes128-ctr", 16, 16, 16, "ctr"),
        CipherSpec("aes192-ctr", 24, 16, 16, "ctr"),
        CipherSpec("aes256-ctr", 32, 16, 16, "ctr"),
        CipherSpec("aes128-cbc", 16, 16, 16, "cbc"),
        CipherSpec("aes192-cbc", 24, 16, 16, "cbc"),
        CipherSpec("aes256-cbc", 32, 16, 16, "cbc"),
        # 2^(L/4) blocks of L = 64 bits (RFC 4344 §3.2): half a MiB, well below where CBC collisions begin to show.
        CipherSpec("3des-cbc", 24, 8, 8, "3des", rekey_bytes=(1 << 64 // 4) * 8),
    )
}

MACS: dict[str, MacSpec] = {
    spec.name: spec
    for spec in (
        MacSpec("hmac-sha2-256-etm@openssh.com", 32, 32, etm=True, hash_name="sha256"),
        MacSpec("hmac-sha2-512-etm@openssh.com", 64, 64, etm=True, hash_name="sha512"),
        MacSpec("hmac-sha2-256", 32, 32, etm=False, hash_name="sha256"),
        MacSpec("hmac-sha2-512", 64, 64, etm=False, hash_name="sha512"),
        MacSpec("hmac-sha1-etm@openssh.com", 20, 20, etm=True, hash_name="sha1"),
        MacSpec("hmac-sha1", 20, 20, etm=False, hash_name="sha1"),
    )
}
