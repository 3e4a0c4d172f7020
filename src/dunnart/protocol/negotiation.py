"""Which algorithms a connection uses: RFC 4253 §7.1, with the markers of RFC 8308 and strict KEX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dunnart.crypto.ciphers import CIPHERS
from dunnart.crypto.profiles import negotiate
from dunnart.errors import DecodeError, LimitExceeded, NegotiationError
from dunnart.protocol.phases import Role
from dunnart.wire.messages import KexInit

if TYPE_CHECKING:
    from dunnart.crypto.profiles import Algorithms
    from dunnart.protocol.limits import Limits

EXT_INFO_MARKER = {Role.CLIENT: "ext-info-c", Role.SERVER: "ext-info-s"}
STRICT_MARKER = {Role.CLIENT: "kex-strict-c-v00@openssh.com", Role.SERVER: "kex-strict-s-v00@openssh.com"}
_LISTS = ("kex", "host_key", "ciphers_to_server", "ciphers_to_client", "macs_to_server", "macs_to_client",
          "compression_to_server", "compression_to_client", "languages_to_server", "languages_to_client")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides agreed on; `mac_*` is "" where the cipher needs none."""

    kex: str
    host_key: str
    cipher_to_server: str
    cipher_to_client: str
    mac_to_server: str
    mac_to_client: str
    compression_to_server: str
    compression_to_client: str


def offer(role: Role, algorithms: Algorithms, *, first: bool) -> bytes:
    """Our KEXINIT without number and cookie; the markers stand in the first one only."""
    markers = (EXT_INFO_MARKER[role], STRICT_MARKER[role]) if first else ()
    return KexInit(
        cookie=b"",
        kex=algorithms.kex + markers,
        host_key=algorithms.host_key,
        ciphers_to_server=algorithms.ciphers,
        ciphers_to_client=algorithms.ciphers,
        macs_to_server=algorithms.macs,
        macs_to_client=algorithms.macs,
        compression_to_server=algorithms.compression,
        compression_to_client=algorithms.compression,
    ).encode()[1:]


def decode(payload: bytes, limits: Limits) -> KexInit:
    """Read the peer's KEXINIT within bounds (THREATS R10)."""
    if len(payload) > limits.kexinit_bytes:
        raise LimitExceeded(f"KEXINIT of {len(payload)} bytes")
    kexinit = KexInit.decode(payload)
    for name in _LISTS:
        if len(getattr(kexinit, name)) > limits.names_per_list:
            raise LimitExceeded(f"KEXINIT lists more than {limits.names_per_list} {name} names")
    if kexinit.reserved:
        raise DecodeError("KEXINIT's reserved field is not zero")
    return kexinit


def agree(role: Role, own: KexInit, peer: KexInit) -> Negotiated:
    """Choose from both lists, or raise NegotiationError saying which list has nothing in common."""
    client, server = (peer, own) if role is Role.SERVER else (own, peer)

    def choose(name: str) -> str:
        chosen = negotiate(getattr(client, name), getattr(server, name))
        if chosen is None or chosen.startswith(("ext-info-", "kex-strict-")):
            raise NegotiationError(f"no common {name}: the peer offers {','.join(getattr(peer, name))}")
        return chosen

    cipher_to_server = choose("ciphers_to_server")
    cipher_to_client = choose("ciphers_to_client")
    return Negotiated(
        kex=choose("kex"),
        host_key=choose("host_key"),
        cipher_to_server=cipher_to_server,
        cipher_to_client=cipher_to_client,
        mac_to_server="" if CIPHERS[cipher_to_server].aead else choose("macs_to_server"),
        mac_to_client="" if CIPHERS[cipher_to_client].aead else choose("macs_to_client"),
        compression_to_server=choose("compression_to_server"),
        compression_to_client=choose("compression_to_client"),
    )


def guessed_wrong(own: KexInit, peer: KexInit) -> bool:
    """Whether the packet that follows the peer's KEXINIT is a wrong guess and must be skipped (RFC 4253 §7)."""
    return peer.first_kex_packet_follows and (
        own.kex[:1] != peer.kex[:1] or own.host_key[:1] != peer.host_key[:1]
    )
