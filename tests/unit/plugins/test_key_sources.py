"""Several key sources after an authenticator."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from dunnart.keys.private import PrivateKey
from dunnart.keys.public import PublicKey
from dunnart.plugins.key_size import LargeEnough
from dunnart.plugins.key_sources import KeySources
from dunnart.plugins.revoked_keys import NotRevoked
from dunnart.protocol.questions import Allow, AuthReply, Credential, Deny, PasswordCredential, PublicKeyCredential
from dunnart.server import Attempt, PublicKeys, Rights

ONE, TWO, THREE = (PrivateKey.generate("ed25519").public for _ in range(3))


class Source:
    """Knows keys, or fails."""

    def __init__(self, *keys: PublicKey, error: Exception | None = None) -> None:
        self._keys = keys
        self._error = error
        self.asked: list[tuple[str, str]] = []

    async def keys(self, user: str, address: str) -> Sequence[PublicKey]:
        self.asked.append((user, address))
        if self._error is not None:
            raise self._error
        return self._keys


async def ask(authenticator: KeySources, key: PublicKey | None, user: str = "ada") -> AuthReply:
    credential: Credential = PasswordCredential("x")
    if key is not None:
        credential = PublicKeyCredential(key, "ssh-ed25519", signed=True)
    return await authenticator.authenticate(Attempt(user, credential, "192.0.2.1"))


async def test_one_after_the_other() -> None:
    first, second = Source(ONE), Source(TWO)
    sources = KeySources({"a": first, "b": second})
    assert await ask(sources, ONE) == Allow()
    assert second.asked == []
    assert await ask(sources, TWO) == Allow()
    assert await ask(sources, THREE) == Deny()
    assert first.asked == [("ada", "192.0.2.1")] * 3
    assert second.asked == [("ada", "192.0.2.1")] * 2
    assert await ask(sources, None) == Deny("not a public key")


async def test_the_authenticator_comes_first_and_says_why_not() -> None:
    source = Source(TWO)
    sources = KeySources({"a": source}, PublicKeys(ONE.line(), users=["ada"]))
    assert isinstance(await ask(sources, ONE), Allow)
    assert source.asked == []
    assert isinstance(await ask(sources, TWO), Allow)
    assert await ask(sources, THREE, "bob") == Deny("no such user here", unknown_user=True)


def test_the_authenticator_is_told_of_connections_that_have_ended() -> None:
    class First(PublicKeys):
        def ended(self, connection: int) -> None:
            told.append(connection)

    told: list[int] = []
    first = First(ONE.line(), users=["ada"])
    for wrapped in (KeySources({}, first), NotRevoked(first, ()), LargeEnough(first, 2048)):
        wrapped.ended(len(told))
    assert told == [0, 1, 2]
    assert not hasattr(KeySources({"a": Source()}), "ended")


async def test_one_that_fails_does_not_keep_the_next_from_being_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dunnart")
    sources = KeySources({"broken": Source(error=RuntimeError("boom")), "good": Source(ONE)})
    assert isinstance(await ask(sources, ONE), Allow)
    assert isinstance(await ask(sources, TWO), Deny)
    assert caplog.messages == ["key source broken failed: RuntimeError('boom')"] * 2


class Lines(Source):
    """Knows lines."""

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self._lines = lines

    async def keys(self, user: str, address: str) -> Sequence[PublicKey | str]:  # type: ignore[override]
        return [TWO, *self._lines]


async def test_lines_may_have_options(caplog: pytest.LogCaptureFixture) -> None:
    source = Lines(f'from="192.0.2.0/24",command="x" {ONE.line()}', "nonsense")
    sources = KeySources({"a": source})
    assert await ask(sources, ONE) == Allow(None, Rights(command=b"x"))
    assert await ask(sources, TWO) == Allow()
    assert caplog.messages == ["key source a for ada:3: this line lets nobody in: options, but no key on the line"]
    elsewhere = KeySources({"a": Lines(f'from="198.51.100.1" {ONE.line()}'), "b": Source()})
    denied = await ask(elsewhere, ONE)
    assert isinstance(denied, Deny)
    assert "is not among its from" in denied.detail


async def test_a_line_that_is_not_understood_ends_the_search_for_its_key() -> None:
    dead = f"unheard-of {ONE.line()}"
    last = Source(ONE, TWO)
    assert isinstance(await ask(KeySources({"a": Lines(dead), "b": last}), ONE), Deny)
    assert last.asked == []

    class First:
        method = "publickey"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            return Deny("dead", final=True)

    assert await ask(KeySources({"b": last}, First()), ONE) == Deny("dead", final=True)
    assert last.asked == []
