"""Which messages are legal when: the one gate before any handler (THREATS R1-R4, RFC 4253 §7.1, 4252 §6, 4254).

Two things decide what a peer may send, beside its role: how far a key exchange has come (`Kex`) and what the connection
is doing (`Stage`). `ALLOWED` is their full product; a number that is not in its cell never reaches a handler.

    Stage:  FIRST_KEX ──NEWKEYS──► EXT_INFO ──any──► SERVICE ──► AUTH ◄─► INTERACTIVE, GSSAPI ──► CONNECTION
    Kex:    IDLE ──our KEXINIT──► OFFERED ──their KEXINIT──► EXCHANGE ◄──► BUSY ──► NEWKEYS ──► IDLE
"""

from __future__ import annotations

from enum import Enum
from itertools import product


class Role(Enum):
    """Which side the engine plays."""

    __hash__ = object.__hash__

    CLIENT = "client"
    SERVER = "server"


class Kex(Enum):
    """How far a key exchange has come."""

    __hash__ = object.__hash__  # enum's own is written in Python, and the table is looked up for each message

    IDLE = "no exchange runs"
    OFFERED = "our KEXINIT is sent, theirs has not come"
    EXCHANGE = "both KEXINITs are there, the peer's move"
    BUSY = "we compute or wait for a signature"
    NEWKEYS = "the peer's NEWKEYS is missing"


class Stage(Enum):
    """What the connection is doing."""

    __hash__ = object.__hash__

    FIRST_KEX = "the first key exchange"
    EXT_INFO = "directly after the first NEWKEYS"
    SERVICE = "before the service request"
    AUTH = "authentication"
    INTERACTIVE = "authentication, prompts are out"
    GSSAPI = "authentication, a GSS-API mechanism is chosen and its tokens go to and fro"
    CONNECTION = "logged in"


DISCONNECT = 1
IGNORE = 2
UNIMPLEMENTED = 3
DEBUG = 4
SERVICE_REQUEST = 5
SERVICE_ACCEPT = 6
EXT_INFO = 7
KEXINIT = 20
NEWKEYS = 21
USERAUTH_REQUEST = 50
PING = 192
PONG = 193

_TRANSPORT = frozenset((DISCONNECT, IGNORE, UNIMPLEMENTED, DEBUG))
_KEX_METHOD = {Role.SERVER: frozenset((30, 31, 32, 34)), Role.CLIENT: frozenset((31, 33))}
_BY_STAGE = {
    (Role.SERVER, Stage.FIRST_KEX): frozenset((KEXINIT,)),
    (Role.SERVER, Stage.EXT_INFO): frozenset((EXT_INFO, SERVICE_REQUEST)),
    (Role.SERVER, Stage.SERVICE): frozenset((SERVICE_REQUEST,)),
    # RFC 4252 §5: a request may be followed by another service request only before authentication has begun.
    (Role.SERVER, Stage.AUTH): frozenset((USERAUTH_REQUEST, PING)),
    (Role.SERVER, Stage.INTERACTIVE): frozenset((USERAUTH_REQUEST, 61, PING)),
    (Role.SERVER, Stage.GSSAPI): frozenset((USERAUTH_REQUEST, 61, 63, 65, 66, PING)),
    # RFC 4252 §5.1: authentication requests after success are to be ignored, so they are let in.
    (Role.SERVER, Stage.CONNECTION): frozenset(
        (KEXINIT, USERAUTH_REQUEST, *range(80, 83), *range(90, 101), PING, PONG)
    ),
    (Role.CLIENT, Stage.FIRST_KEX): frozenset((KEXINIT,)),
    (Role.CLIENT, Stage.EXT_INFO): frozenset((EXT_INFO, SERVICE_ACCEPT)),
    (Role.CLIENT, Stage.SERVICE): frozenset((SERVICE_ACCEPT,)),
    (Role.CLIENT, Stage.AUTH): frozenset((EXT_INFO, KEXINIT, 51, 52, 53, 60, PING)),
    (Role.CLIENT, Stage.INTERACTIVE): frozenset((EXT_INFO, KEXINIT, 51, 52, 53, 60, PING)),
    (Role.CLIENT, Stage.GSSAPI): frozenset(),  # our client does not know it
    (Role.CLIENT, Stage.CONNECTION): frozenset((KEXINIT, 53, *range(80, 83), *range(90, 101), PING, PONG)),
}

KNOWN = frozenset((*range(1, 8), KEXINIT, NEWKEYS, *range(30, 50), *range(50, 54), 60, 61, 63, 65, 66, 80, 81, 82,
                   *range(90, 101), PING, PONG))  # fmt: skip


def _allowed(role: Role, stage: Stage, kex: Kex, strict: bool) -> frozenset[int]:  # noqa: FBT001 - a table's axis
    transport = (
        frozenset((DISCONNECT,)) if strict and stage is Stage.FIRST_KEX and kex is not Kex.OFFERED else _TRANSPORT
    )
    if kex is Kex.EXCHANGE:
        return transport | _KEX_METHOD[role]
    if kex is Kex.BUSY:
        return transport
    if kex is Kex.NEWKEYS:
        return transport | {NEWKEYS}
    return transport | _BY_STAGE[role, stage]


ALLOWED = {key: _allowed(*key) for key in product(Role, Stage, Kex, (False, True))}
"""(role, stage, kex, strict) → the message numbers that the peer of that role may send."""
