"""Phase x message number, as a full product: a real engine is driven into each phase that can be reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import RemoteProtocolError, UnexpectedMessage
from dunnart.keys import PrivateKey
from dunnart.protocol.phases import ALLOWED, KNOWN, Kex, Role, Stage
from dunnart.protocol.questions import (
    AuthQuestion,
    CredentialQuestion,
    GssapiStep,
    HostKeyQuestion,
    Prompt,
    SignQuestion,
)
from dunnart.testing.pair import Pair, Side
from dunnart.wire.encoding import string
from dunnart.wire.messages import GssapiData, Ignore, InteractiveData, KexInit, Unimplemented, UserauthRequest

# chacha20-poly1305 needs nothing but the sequence number, so a test may take a packet back.
FAST = replace(PROFILES["default"], kex=("curve25519-sha256",), ciphers=("chacha20-poly1305@openssh.com",))
HOST_KEYS = (PrivateKey.generate("ed25519"),)

BEFORE_LOGIN = {
    Role.SERVER: [(Stage.FIRST_KEX, Kex.EXCHANGE), (Stage.FIRST_KEX, Kex.BUSY), (Stage.FIRST_KEX, Kex.NEWKEYS)],
    Role.CLIENT: [(Stage.FIRST_KEX, Kex.EXCHANGE), (Stage.FIRST_KEX, Kex.NEWKEYS)],
}
REACHED = [
    *((role, Stage.FIRST_KEX, Kex.OFFERED, False) for role in Role),
    *((role, *place, strict) for role in Role for place in BEFORE_LOGIN[role] for strict in (False, True)),
    *product(Role, (Stage.EXT_INFO, Stage.SERVICE, Stage.AUTH), (Kex.IDLE,), (False, True)),
    *product((Role.SERVER,), (Stage.INTERACTIVE, Stage.GSSAPI), (Kex.IDLE,), (False, True)),
    *product((Role.CLIENT,), (Stage.AUTH,), (Kex.EXCHANGE, Kex.NEWKEYS), (False, True)),
    *product((Role.SERVER,), (Stage.CONNECTION,), Kex, (False, True)),
    *product((Role.CLIENT,), (Stage.CONNECTION,), [kex for kex in Kex if kex is not Kex.BUSY], (False, True)),
]


def drive(role: Role, stage: Stage, kex: Kex, strict: bool) -> tuple[Pair, Side, Side]:
    """Bring one engine into a phase; the other is a puppet that speaks with the keys in use."""
    made = Pair(algorithms=FAST, host_keys=HOST_KEYS)
    target, peer = (made.server, made.client) if role is Role.SERVER else (made.client, made.server)
    if not strict:
        for side in (made.client, made.server):
            unmark(side)
    if stage is Stage.FIRST_KEX:
        drive_first(made, target, peer, kex)
    else:
        if stage is Stage.INTERACTIVE:
            made.server.engine.config = replace(made.server.engine.config, auth_methods=(("keyboard-interactive",),))
            made.server.answers[AuthQuestion] = Prompt((("?", True),))
        elif stage is Stage.GSSAPI:
            made.server.engine.config = replace(made.server.engine.config, auth_methods=(("gssapi-with-mic",),))
            made.server.answers[AuthQuestion] = GssapiStep(b"")
        if stage is not Stage.CONNECTION:
            made.client.answers[CredentialQuestion] = ...
        drive_login(made, role, stage)
        drive_rekey(made, target, peer, kex)
    peer.puppet = True
    assert (target.engine.stage, target.engine.kex, target.engine.strict) == (stage, kex, strict)
    assert target.ended is None
    target.engine.data_to_send()
    peer.engine.inbound.sequence = target.engine.outbound.sequence  # as if it had read what is dropped here
    return made, target, peer


def unmark(side: Side) -> None:
    engine = side.engine
    kexinit = KexInit.decode(engine._transport._own_kexinit)
    kexinit.kex = tuple(name for name in kexinit.kex if not name.startswith("kex-strict"))
    engine._transport._own_kexinit = kexinit.encode()
    line = engine.data_to_send()[0]
    engine.outbound.queue.append(line)
    engine.outbound.sequence = 0
    side.send(kexinit)


def drive_first(made: Pair, target: Side, peer: Side, kex: Kex) -> None:
    if kex is Kex.OFFERED:
        line, _ = peer.engine.data_to_send()
        target.engine.receive(line, made.now)
    elif kex is Kex.EXCHANGE:
        made.carry(peer, target)
    elif kex is Kex.BUSY:
        made.server.answers[SignQuestion] = ...
        made.run()
    elif target is made.server:
        made.client.answers[HostKeyQuestion] = ...
        made.run()
    else:
        hold_newkeys(made)


def hold_newkeys(made: Pair, messages: int = 1) -> None:
    """Let the server answer a key exchange and keep its NEWKEYS, and what follows, to itself."""
    made.server.answers[SignQuestion] = ...
    made.run()
    question = made.server.asked(SignQuestion)[-1]
    outbound = made.server.engine.outbound
    sealer, sequence = outbound.sealer, outbound.sequence
    made.server.engine.answer(question.token, HOST_KEYS[0].sign(question.algorithm, question.data))
    sent = made.server.engine.data_to_send()
    made.client.engine.receive(b"".join(sent[:messages]), made.now)
    made.client.sweep()
    if messages == 1:
        outbound.sealer, outbound.sequence = sealer, sequence + 1
    else:
        outbound.sequence -= len(sent) - messages


def drive_login(made: Pair, role: Role, stage: Stage) -> None:
    if stage in (Stage.EXT_INFO, Stage.SERVICE):
        if role is Role.SERVER:
            made.client.engine._transport._greeted = True
            made.run()
        else:
            hold_newkeys(made, messages=2)
        if stage is Stage.SERVICE:
            peer, target = (made.client, made.server) if role is Role.SERVER else (made.server, made.client)
            peer.send(Ignore(b""))
            made.carry(peer, target)
        return
    made.run()
    begun = {
        Stage.INTERACTIVE: ("keyboard-interactive", InteractiveData(b"", "").encode()),
        Stage.GSSAPI: ("gssapi-with-mic", GssapiData(0, b"").encode()),
    }
    if stage in begun:
        made.client.puppet = True
        made.client.send(UserauthRequest("alice", "ssh-connection", *begun[stage]))
        made.run()


def drive_rekey(made: Pair, target: Side, peer: Side, kex: Kex) -> None:
    if kex is Kex.OFFERED:
        target.engine.rekey()
        target.engine.data_to_send()
    elif kex is Kex.EXCHANGE:
        peer.engine._transport.rekey()
        peer.puppet = True
        made.carry(peer, target)
    elif kex is Kex.BUSY:
        made.server.answers[SignQuestion] = ...
        made.client.engine.rekey()
        made.run()
    elif kex is Kex.NEWKEYS:
        if target is made.server:
            made.client.answers[HostKeyQuestion] = ...
            made.client.engine.server_key = b"another"
            made.client.engine.rekey()
            made.run()
        else:
            let_client_in(made)
            made.server.engine._transport.rekey()
            hold_newkeys(made)


def let_client_in(made: Pair) -> None:
    """A client's KEXINIT before its login: our server's table has no place for it, others' have."""
    if made.server.engine.stage is Stage.AUTH:
        made.server.engine.stage = Stage.CONNECTION


BODIES = [b"", bytes(4), bytes(64), string(b"x"), bytes(range(256)), b"\xff" * 40]


@pytest.mark.parametrize(
    "phase", REACHED, ids=lambda phase: "-".join(str(getattr(part, "name", part)) for part in phase)
)
def test_every_number_in_every_phase(phase: tuple[Role, Stage, Kex, bool]) -> None:
    _, stage, kex, _ = phase
    answered_politely = stage is Stage.CONNECTION and kex in (Kex.IDLE, Kex.OFFERED)
    polite: tuple[Pair, Side, Side] | None = None
    for number in range(256):
        legal = number in ALLOWED[phase]
        if legal:
            for body in BODIES:
                speak(*drive(*phase), bytes([number]) + body, legal_ending)
        elif number not in KNOWN and answered_politely:
            polite = polite or drive(*phase)  # the connection goes on, so one is enough for all
            speak(*polite, bytes([number]), no_ending)
        else:
            speak(*drive(*phase), bytes([number]), illegal_ending)
    if polite is not None:
        check_politeness(*polite, kex)


def speak(made: Pair, target: Side, peer: Side, payload: bytes, check: Callable[[Side], None]) -> None:
    peer.send(payload)
    made.carry(peer, target)
    target.sweep()
    assert target.payloads[-1] == payload
    check(target)


def illegal_ending(side: Side) -> None:
    assert isinstance(side.ended and side.ended.error, UnexpectedMessage)
    assert side.ended is not None
    assert side.ended.reason_code == 2


def no_ending(side: Side) -> None:
    assert side.ended is None


def legal_ending(side: Side) -> None:
    if side.ended is not None:
        assert isinstance(side.ended.error, RemoteProtocolError | None)
        assert "in stage" not in str(side.ended.error)


def check_politeness(made: Pair, target: Side, peer: Side, kex: Kex) -> None:
    unknown = [n for n, payload in enumerate(target.payloads) if payload[0] not in KNOWN]
    assert len(unknown) == 256 - len(KNOWN)
    if kex is Kex.OFFERED:
        assert target.engine.has_data_to_send is False  # held until the exchange is over
        target.engine.unblock()
    made.carry(target, peer)
    assert len(peer.got(Unimplemented)) == len(unknown)
    last = target.engine.inbound.sequence - 1
    assert peer.got(Unimplemented)[-1] == Unimplemented(last)


def test_what_is_not_reached_cannot_be() -> None:
    """A client knows no INTERACTIVE, GSSAPI or BUSY; nobody rekeys but in CONNECTION, or a client in AUTH."""
    for role, stage, kex, strict in set(ALLOWED) - set(REACHED):
        assert (
            (role is Role.CLIENT and (stage in (Stage.INTERACTIVE, Stage.GSSAPI) or kex is Kex.BUSY))
            or (stage is Stage.FIRST_KEX and (kex is Kex.IDLE or (kex is Kex.OFFERED and strict)))
            or (stage not in (Stage.FIRST_KEX, Stage.CONNECTION) and kex is not Kex.IDLE)
        ), (role, stage, kex, strict)
