"""A protocol process that strangers have taken over: what it can have signed, and whom it can claim to have let in.

Here the test speaks its frames; what a confined process can do to the system has tests of its own in
test_confinement.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dunnart.keys.private import PrivateKey
from dunnart.keys.public import PublicKey
from dunnart.protocol.proofs import signed_request, signed_with_mic
from dunnart.protocol.questions import Allow, GssapiCredential, GssapiKeyExchange, Prompt, PublicKeyCredential
from dunnart.server import Attempt, AuthReply, KeyCallback, PasswordCallback
from dunnart.server.facts import Address
from dunnart.server.processes import decisions, verified
from dunnart.server.processes.frames import AuthAnswered, AuthAsked, Begun, Frame, Gone, SignAsked, Signed, UserIn
from dunnart.server.processes.order import cookie
from dunnart.wire.encoding import string, text, uint32
from tests.runtime.driver import HOST_KEY, USER, eventually, right_password
from tests.security.test_handover import Fake, asked, opened, session, user_in
from tests.unit.keys.test_public import Authenticator

USER_KEY = PrivateKey.generate("ed25519")
STRANGER = PrivateKey.generate("ed25519")


def exchange(what: bytes, connection: int = 1, cookies: bytes = b"") -> bytes:
    """What an exchange hash is made of: versions, KEXINITs, and the rest."""
    kexinit = b"\x14" + cookie(cookies, connection) + b"offers"
    return string(b"SSH-2.0-c") + string(b"SSH-2.0-s") + string(b"\x14" + bytes(16)) + string(kexinit) + what


ONE, ANOTHER = exchange(b"one"), exchange(b"another")
HASH, OTHER_HASH = hashlib.sha256(ONE).digest(), hashlib.sha256(ANOTHER).digest()


def sign(
    data: bytes = ONE, connection: int = 1, token: int = 1, key: PrivateKey = HOST_KEY, hash_bytes: int = 32
) -> SignAsked:
    return SignAsked(token, connection, key.public.blob, key.signature_algorithms[0], hash_bytes, data)


def proof(session_id: bytes) -> SignAsked:
    data = text("hostkeys-prove-00@openssh.com") + string(session_id) + string(HOST_KEY.public.blob)
    return sign(data, hash_bytes=0)


def in_order(*made: Frame) -> list[Frame]:
    return [opened(), *made]


class Asking:
    """The process, and what it is answered, one after the other."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("authenticators", [KeyCallback(self._keys), PasswordCallback(right_password)])
        self.fake = Fake(**options)
        self.fake.process.send(opened())

    async def _keys(self, user: str, _: str) -> list[Any]:
        return [USER_KEY.public] if user == USER else []

    async def ask(self, frame: Frame) -> Frame | None:
        """Ask, and give the answer; None: the process was ended for it."""
        fake = self.fake
        before = len(fake.frames)
        fake.process.send(frame)
        await eventually(lambda: len(fake.frames) > before or fake.link.closed)
        return fake.frames[before] if len(fake.frames) > before else None

    async def offers(self, credential: Any, token: int = 7, user: str = USER) -> int | None:
        """Ask for a login: what kind of an answer it is; None: the process was ended for it."""
        attempt = Attempt(user, credential, "127.0.0.1", 0, 1, 9, Address("127.0.0.1", 22))
        answer = await self.ask(decisions.asked(token, attempt))
        assert isinstance(answer, AuthAnswered | None)
        return None if answer is None else answer.kind

    async def is_in(self, method: str = "publickey", key: bytes = USER_KEY.public.blob, **fields: Any) -> bool:
        """Claim that the user is in, and ask for a shell."""
        self.fake.process.send(replace(user_in(method=method), key=key, **fields))
        answer = await self.ask(session())
        assert bool(self.fake.begun) == (answer is not None)
        return answer == Begun(1, 0, yes=True)


def signed(
    key: PrivateKey = USER_KEY, session_id: bytes = HASH, user: str = USER, host_key: bytes | None = None
) -> PublicKeyCredential:
    """A login by a key; each argument is what its client has signed."""
    made = PublicKeyCredential(USER_KEY.public, "ssh-ed25519", signed=True, host_key=host_key)
    return replace(made, signature=key.sign("ssh-ed25519", signed_request(session_id, user, made)))


async def test_an_honest_process_has_its_exchanges_signed_and_its_users_let_in() -> None:
    worker = Asking()
    answer = await worker.ask(sign())
    assert isinstance(answer, Signed)
    HOST_KEY.public.verify("ssh-ed25519", answer.signature, HASH)
    assert await worker.offers(replace(signed(), signed=False, signature=b"")) == 1  # a query
    assert await worker.offers(signed(host_key=HOST_KEY.public.blob)) == 1
    assert await worker.is_in()
    for question, data in ((sign(ANOTHER), OTHER_HASH), (proof(HASH), proof(HASH).data)):
        answer = await worker.ask(question)  # it rekeys, and its client wants proof of further keys
        assert isinstance(answer, Signed)
        HOST_KEY.public.verify("ssh-ed25519", answer.signature, data)
    await worker.fake.close()


SIGNATURES: dict[str, list[Frame]] = {
    "for a connection that it does not have": [sign(connection=3)],
    "twice before a login": [sign(), sign(ANOTHER)],
    "the same again": [sign(), sign()],
    "what it has hashed itself": [sign(HASH, hash_bytes=0)],
    "what is no exchange hash": [sign(hash_bytes=33)],
    "by a hash that is not offered": [sign(hash_bytes=20)],
    "nothing": [sign(b""), sign(b"", hash_bytes=0)],
    "half an exchange": [sign(ONE[:40])],
    "an exchange of another connection": [sign(exchange(b"one", 2))],
    "an exchange of another process": [sign(exchange(b"one", cookies=b"another's"))],
    "a login": [sign(b"\0\0\0\x20" + bytes(32) + b"\x32", hash_bytes=0)],
    "by a key that is none of ours": [sign(key=STRANGER)],
    "by another algorithm": [replace(sign(), algorithm="rsa-sha2-512")],
    "a proof of keys before a login": [sign(), proof(HASH)],
    "a proof of keys before all": [proof(b"")],
    "a proof of keys for another session": [sign(), proof(OTHER_HASH)],
}


@pytest.mark.parametrize("what", SIGNATURES)
async def test_no_host_key_signs(what: str) -> None:
    fake = Fake()
    for frame in in_order(*SIGNATURES[what]):
        fake.process.send(frame)
    await eventually(lambda: fake.link.closed)
    assert sum(isinstance(frame, Signed) for frame in fake.frames) <= len(SIGNATURES[what]) - 1
    await fake.close()


async def test_signatures_come_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "_SIGNATURES", 3)
    monkeypatch.setattr(verified, "_SIGNATURES_PER_SECOND", 0.001)
    worker = Asking()
    await worker.ask(sign())
    assert await worker.offers(signed()) == 1
    for token in range(2, 20):
        worker.fake.process.send(sign(ANOTHER, token=token))
    await eventually(lambda: worker.fake.link.closed)
    assert sum(isinstance(frame, Signed) for frame in worker.fake.frames) <= 3
    await worker.fake.close()


CLAIMS: dict[str, Callable[[], PublicKeyCredential]] = {
    "no signature": lambda: replace(signed(), signature=b""),
    "a key query only": lambda: replace(signed(), signed=False),
    "a signature of another session": lambda: signed(session_id=OTHER_HASH),
    "a signature of another user": lambda: signed(user="somebody"),
    "a signature by another key": lambda: signed(STRANGER),
    "a signature as if bound to a host key": lambda: replace(signed(), host_key=HOST_KEY.public.blob),
}


@pytest.mark.parametrize("claim", CLAIMS)
async def test_no_user_is_in_who_has_not_signed(claim: str) -> None:
    worker = Asking()
    await worker.ask(sign())
    assert await worker.offers(CLAIMS[claim]()) == (1 if claim == "a key query only" else 0)
    assert not await worker.is_in()
    await eventually(lambda: worker.fake.link.closed)
    await worker.fake.close()


ENDING: dict[str, PublicKeyCredential] = {
    "a signature for another host": signed(host_key=STRANGER.public.blob),
    "an algorithm that is not the key's": replace(signed(), algorithm="rsa-sha2-512"),
}


@pytest.mark.parametrize("claim", ENDING)
async def test_what_the_engine_would_not_ask_ends_the_process(claim: str) -> None:
    worker = Asking()
    await worker.ask(sign())
    assert await worker.offers(ENDING[claim]) is None
    await worker.fake.close()


async def test_a_security_key_was_touched_and_has_verified_its_user_where_the_line_says_so() -> None:
    token = Authenticator("ed")
    key = PublicKey.decode(token.blob)
    made = PublicKeyCredential(key, token.name, signed=True)
    data = signed_request(HASH, USER, made)
    for options, flags, kind in (("", 0, 0), ("", 1, 1), ("verify-required ", 1, 0), ("verify-required ", 5, 1)):
        lines = [f"{options}{key.line()}"]
        worker = Asking(authenticators=[KeyCallback(lambda *_, lines=lines: lines)])
        await worker.ask(sign())
        assert await worker.offers(replace(made, signature=token.sign(data, flags, 7))) == kind
        number = uint32(1 if options else 0)
        if not kind:
            assert not await worker.is_in(key=token.blob, grants=number)
        await worker.fake.close()


async def test_a_login_that_is_over_is_not_repeated() -> None:
    """Who has seen its signature could have its session id signed for a connection that he makes up."""
    worker = Asking()
    await worker.ask(sign())
    assert await worker.offers(signed()) == 1
    for frame in (Gone(1), opened(2), sign(connection=2)):
        worker.fake.process.send(frame)
    await eventually(lambda: worker.fake.link.closed)
    await worker.fake.close()


async def test_no_login_by_a_key_before_keys_were_exchanged() -> None:
    worker = Asking()
    assert await worker.offers(signed(session_id=b"")) in {0, None}
    assert not await worker.is_in()
    await worker.fake.close()


async def test_a_login_is_by_the_key_that_signed_and_from_where_it_was_asked() -> None:
    for fields in ({"key": STRANGER.public.blob}, {"peer_host": "192.0.2.1"}, {"user": "somebody"}):
        worker = Asking()
        await worker.ask(sign())
        assert await worker.offers(signed()) == 1
        assert not await worker.is_in(**fields)
        await worker.fake.close()


async def test_half_a_chain_is_no_login_and_the_second_half_has_its_turn_after_the_first() -> None:
    chain = {"methods": ["publickey,password"]}
    first = Asking(**chain)
    await first.ask(sign())
    assert await first.offers(signed()) == 1
    assert not await first.is_in(grants=uint32(0) * 2)
    second = Asking(**chain)
    answer = await second.ask(asked())
    assert isinstance(answer, AuthAnswered)
    assert answer.kind == 0  # the right password, out of turn
    assert not await second.is_in("password", b"", grants=uint32(0) * 2)
    for worker in (first, second):
        await worker.fake.close()


async def test_who_becomes_another_user_starts_from_nothing() -> None:
    worker = Asking(methods=["publickey,password"])
    await worker.ask(sign())
    assert await worker.offers(signed()) == 1
    assert await worker.offers(signed(user="somebody"), user="somebody") == 0
    answer = await worker.ask(asked())
    assert isinstance(answer, AuthAnswered)
    assert answer.kind == 0
    await worker.fake.close()


async def test_guesses_are_counted() -> None:
    worker = Asking()
    wrong = asked(password="wrong")
    for _ in range(6):
        assert isinstance(await worker.ask(wrong), AuthAnswered)
    answer = await worker.ask(asked())
    assert isinstance(answer, AuthAnswered)
    assert answer.kind == 0
    assert not await worker.is_in("password", b"")
    await worker.fake.close()


async def test_one_question_at_a_time() -> None:
    go = asyncio.Event()

    class Slow:
        method = "password"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            await go.wait()
            return Allow()

    fake = Fake(authenticator=Slow())
    for frame in in_order(asked(token=1), asked(token=2)):
        fake.process.send(frame)
    await eventually(lambda: fake.link.closed)
    go.set()
    await fake.close()


async def test_answers_belong_to_prompts_and_are_counted_here() -> None:
    seen: list[int] = []

    class Interactive:
        method = "keyboard-interactive"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            seen.append(attempt.rounds)
            return Prompt((("code", False),)) if attempt.rounds < 2 else Allow()

    def answer(*texts: str, rounds: int = 0) -> AuthAsked:
        data = b"".join(string(each.encode()) for each in texts)
        made = replace(asked(), method="keyboard-interactive", text="", rounds=rounds)
        return replace(made, answered=bool(texts), data=data)

    worker = Asking(authenticators=[Interactive()])
    for frame in (answer(rounds=9), answer("1", rounds=9), answer("2")):
        assert isinstance(await worker.ask(frame), AuthAnswered)
    assert seen == [0, 1, 2]
    await worker.fake.close()
    for frame in (answer("1"), answer("1", "2")):
        worker = Asking(authenticators=[Interactive()])
        if frame.data != answer("1").data:
            await worker.ask(answer())
        assert await worker.ask(frame) is None
        await worker.fake.close()


async def test_what_a_mechanism_signs_and_verifies_is_of_this_session() -> None:
    asked_about: list[Any] = []

    class Mechanism:
        def __init__(self, method: str) -> None:
            self.method = method

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            asked_about.append(attempt.credential)
            return Allow()

    mechanisms = [Mechanism("gssapi-with-mic"), Mechanism("gssapi-keyex")]
    lie = GssapiCredential(mic=b"mic", signed=b"what another server's client has signed")
    worker = Asking(authenticators=mechanisms)
    await worker.ask(sign())
    assert await worker.offers(replace(lie, mic=None, signed=b"", token=b"t")) == 0  # allowed before the proof
    assert await worker.offers(lie) == 1
    assert asked_about[-1].signed == signed_with_mic(HASH, USER, "gssapi-with-mic")
    assert await worker.is_in("gssapi-with-mic", b"")
    await worker.fake.close()
    worker = Asking(authenticators=mechanisms)
    assert await worker.offers(GssapiKeyExchange(digest=bytes(32), made_of=ANOTHER)) == 0
    assert await worker.offers(replace(lie, method="gssapi-keyex")) == 1
    assert asked_about[-1].signed == signed_with_mic(OTHER_HASH, USER, "gssapi-keyex")
    assert await worker.is_in("gssapi-keyex", b"")
    assert await worker.offers(GssapiKeyExchange(digest=bytes(32), made_of=ONE)) == 0  # keys are exchanged again
    assert await worker.offers(replace(lie, method="gssapi-keyex")) is None  # but nobody logs in again
    await worker.fake.close()
    worker = Asking(authenticators=mechanisms)
    assert await worker.offers(GssapiKeyExchange(digest=bytes(32), made_of=b"a message of ours")) is None
    await worker.fake.close()


def test_a_claim_is_the_frame_that_is_claimed_by() -> None:
    """What the tests above change is what counts."""
    assert user_in() == UserIn(1, USER, "127.0.0.1", 9, "127.0.0.1", 22, "password", b"", uint32(0), "SSH-2.0-x")
