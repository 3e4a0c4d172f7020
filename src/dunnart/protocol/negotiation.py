"""Which algorithms a connection uses: RFC 4253 §7.1, with the markers of RFC 8308 and strict KEX."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from dunnart.crypto.ciphers import CIPHERS
from dunnart.crypto.profiles import negotiate
from dunnart.errors import DecodeError, LimitExceeded, NegotiationError
from dunnart.protocol.phases import Role
from dunnart.records import dataclass
from dunnart.wire.messages import KexInit

if TYPE_CHECKING:
    from dunnart.crypto.profiles import Algorithms
    from dunnart.protocol.limits import Limits

EXT_INFO_MARKER = {Role.CLIENT: "ext-info-c", Role.SERVER: "ext-info-s"}
STRICT_MARKER = {Role.CLIENT: "kex-strict-c-v00@openssh.com", Role.SERVER: "kex-strict-s-v00@openssh.com"}
_COOKIE_END = 17
_REMEMBERED_BYTES = 4096
_LISTS = ("kex", "host_key", "ciphers_to_server", "ciphers_to_client", "macs_to_server", "macs_to_client",
          "compression_to_server", "compression_to_client", "languages_to_server", "languages_to_client")  # fmt: skip
_KINDS = {"kex": "key exchange method", "host_key": "host key type", "ciphers": "cipher", "macs": "MAC",
          "compression": "compression method"}  # fmt: skip
"""What logs call them, by sshd's words, which programs look for."""


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


@dataclass(frozen=True, slots=True)
class Settlement:
    """What two KEXINITs mean together.

    Attributes:
        algorithms: what both sides use.
        strict: the peer's KEXINIT has the marker of strict KEX.
        ext_info: the peer takes EXT_INFO.
        guessed_wrong: the packet that follows the peer's KEXINIT is a wrong guess and must be skipped (RFC 4253 §7).
    """

    algorithms: Negotiated
    strict: bool
    ext_info: bool
    guessed_wrong: bool


@lru_cache(maxsize=16)
def offer(role: Role, algorithms: Algorithms, *, first: bool) -> bytes:
    """Our KEXINIT without number and cookie; the markers stand in the first one only."""
    return _offered(role, algorithms, first=first).encode()[1:]


def _offered(role: Role, algorithms: Algorithms, *, first: bool) -> KexInit:
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
    )


def settle(role: Role, algorithms: Algorithms, limits: Limits, payload: bytes, *, first: bool) -> Settlement:
    """Hold the peer's KEXINIT against ours.

    Clients of one kind all send the same lists, so what they come to is remembered for a few of them.

    Args:
        role: ours.
        algorithms: ours, in order of preference.
        limits: the bounds on the KEXINIT.
        payload: the peer's KEXINIT.
        first: it belongs to the exchange that opens the connection.

    Raises:
        LimitExceeded: it is too large (THREATS R10).
        DecodeError: it is malformed.
        NegotiationError: nothing is in common; says in which list.
    """
    if len(payload) > limits.kexinit_bytes:
        raise LimitExceeded(f"KEXINIT of {len(payload)} bytes")
    find = _settle if len(payload) <= _REMEMBERED_BYTES else _settle.__wrapped__
    return find(role, algorithms, limits.names_per_list, payload[_COOKIE_END:], first=first)


@lru_cache(maxsize=16)
def _settle(role: Role, algorithms: Algorithms, names_per_list: int, lists: bytes, *, first: bool) -> Settlement:
    own = _offered(role, algorithms, first=first)
    peer = _decode(bytes(_COOKIE_END) + lists, names_per_list)
    peer_role = Role.CLIENT if role is Role.SERVER else Role.SERVER
    return Settlement(
        algorithms=_agree(role, own, peer),
        strict=STRICT_MARKER[peer_role] in peer.kex,
        ext_info=EXT_INFO_MARKER[peer_role] in peer.kex,
        guessed_wrong=peer.first_kex_packet_follows
        and (own.kex[:1] != peer.kex[:1] or own.host_key[:1] != peer.host_key[:1]),
    )


def _decode(payload: bytes, names_per_list: int) -> KexInit:
    kexinit = KexInit.decode(payload)
    for name in _LISTS:
        if len(getattr(kexinit, name)) > names_per_list:
            raise LimitExceeded(f"KEXINIT lists more than {names_per_list} {name} names")
    if kexinit.reserved:
        raise DecodeError("KEXINIT's reserved field is not zero")
    return kexinit


def _agree(role: Role, own: KexInit, peer: KexInit) -> Negotiated:
    client, server = (peer, own) if role is Role.SERVER else (own, peer)

    def choose(name: str) -> str:
        chosen = negotiate(getattr(client, name), getattr(server, name))
        if chosen is None or chosen.startswith(("ext-info-", "kex-strict-")):
            kind = _KINDS[name.partition("_to_")[0]]
            raise NegotiationError(f"no matching {kind} found. Their offer: {','.join(getattr(peer, name))}")
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
