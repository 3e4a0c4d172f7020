"""Logins in a browser: what is shown, whom it lets in, which tokens prove nothing, an issuer that hangs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dunnart.errors import ConfigError
from dunnart.plugins import oidc
from dunnart.plugins.oidc import Oidc, Options
from dunnart.server import Allow, Attempt, AuthReply, Deny, InteractiveCredential, PasswordCredential, Prompt
from dunnart.server.plugins import Context
from tests.oidc_provider import CLIENT, Provider, encoded, signed, strangely_signed


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "_SHORTEST_INTERVAL", 0.01)
    monkeypatch.setattr(oidc, "_SLOW_DOWN", 0.01)


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


def made(provider: Provider, **options: Any) -> Oidc:
    return Oidc(Context("oidc", Options(provider.issuer, CLIENT, **options), logging.getLogger("dunnart.plugin.oidc")))


BEGIN = Attempt("ann", InteractiveCredential("", None), "192.0.2.7", connection=1)
ENTER = replace(BEGIN, credential=InteractiveCredential("", ("",)), rounds=1)


async def log_in(plugin: Oidc, provider: Provider, user: str = "ann") -> AuthReply:
    """Do what somebody does who enters the code at once."""
    prompt = await plugin.authenticate(replace(BEGIN, user=user))
    if not isinstance(prompt, Prompt):
        return prompt
    provider.approved.set()
    return await plugin.authenticate(replace(ENTER, user=user))


async def test_the_code_is_shown_and_lets_in(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    plugin = made(provider)
    with caplog.at_level(logging.INFO):
        prompt = await plugin.authenticate(BEGIN)
        assert isinstance(prompt, Prompt)
        assert f"open {provider.issuer}/enter in a browser and enter the code WDJB-MJHT" in prompt.instruction
        assert prompt.prompts == (("Press Enter when that is done: ", True),)
        provider.approved.set()
        assert await plugin.authenticate(ENTER) == Allow()
    assert "ann logs in as ann" in caplog.text
    assert provider.asked[0] == {"client_id": CLIENT, "scope": "openid profile"}
    assert isinstance(await plugin.authenticate(ENTER), Deny)  # once


async def test_a_link_is_shown_where_there_is_one(provider: Provider) -> None:
    _, answer = provider.answer("device", {"client_id": CLIENT})
    provider.changes["device"] = answer | {"verification_uri_complete": "https://login.example.org/?code=1"}
    plugin = made(provider)
    prompt = await plugin.authenticate(BEGIN)
    assert isinstance(prompt, Prompt)
    assert "or open https://login.example.org/?code=1" in prompt.instruction
    plugin.ended(1)


async def test_who_is_too_early_is_asked_again(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "_LOOK_SECONDS", 0.05)
    plugin = made(provider)
    prompt = await plugin.authenticate(BEGIN)
    assert await plugin.authenticate(ENTER) == prompt
    monkeypatch.setattr(oidc, "_LOOK_SECONDS", 10.0)
    provider.approved.set()
    assert await plugin.authenticate(ENTER) == Allow()


async def test_an_issuer_that_wants_to_be_asked_less(provider: Provider) -> None:
    provider.errors = ["authorization_pending", "slow_down"]
    assert await log_in(made(provider), provider) == Allow()
    assert provider.polls == 3


@pytest.mark.parametrize(
    ("claims", "options", "user", "reason"),
    [
        ({}, {}, "bob", "ann may not log in as this user"),
        ({}, {"users": {"ann": "bob, root"}}, "root", None),
        ({}, {"users": {"ann": "bob"}}, "ann", "ann may not log in as this user"),
        ({}, {"users": {"bob": "ann"}}, "ann", "ann may not log in as this user"),
        ({}, {"users": {"bob": "bob"}}, "", "ann may not log in as this user"),
        ({"preferred_username": None}, {}, "ann", "the ID token has no claim preferred_username"),
        ({"preferred_username": ""}, {}, "", "the ID token has no claim preferred_username"),
        ({}, {"groups": ("ops",)}, "ann", "ann is in none of the groups that may log in"),
        ({"groups": ["dev"]}, {"groups": ("ops",)}, "ann", "ann is in none of the groups that may log in"),
        ({"groups": "ops"}, {"groups": ("ops",)}, "ann", "ann is in none of the groups that may log in"),
        ({"groups": ["dev", "ops"]}, {"groups": ("ops", "adm")}, "ann", None),
        ({"roles": ["ops"]}, {"groups": ("ops",), "groups_claim": "roles"}, "ann", None),
        ({"email": "a@b.c"}, {"user_claim": "email"}, "a@b.c", "nobody has verified that a@b.c is the user's address"),
        ({"email": "a@b.c", "email_verified": True}, {"user_claim": "email"}, "a@b.c", None),
    ],
)
async def test_who_may_log_in(
    provider: Provider, claims: dict[str, Any], options: dict[str, Any], user: str, reason: str | None
) -> None:
    provider.claims |= claims
    reply = await log_in(made(provider, **options), provider, user)
    assert reply == (Allow() if reason is None else Deny(reason))


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return f"{encoded(header | {'alg': 'none'})}.{encoded(claims)}."


def with_mac(header: dict[str, Any], claims: dict[str, Any]) -> str:
    head = f"{encoded(header | {'alg': 'HS256'})}.{encoded(claims)}"
    return f"{head}.{encoded(hmac.digest(b'public', head.encode(), hashlib.sha256))}"


def changed(**other: Any) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    return lambda header, claims: signed(header, claims | other)


def without(name: str) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    return lambda header, claims: signed(header, {key: claims[key] for key in claims if key != name})


def edited(header: dict[str, Any], claims: dict[str, Any]) -> str:
    head, body, signature = signed(header, claims).split(".")
    data = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{head}.{encoded(data | {'sub': 'another'})}.{signature}"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (strangely_signed, "Signature verification failed"),
        (edited, "Signature verification failed"),
        (unsigned, "algorithm 'none' is not accepted"),
        (with_mac, "algorithm 'HS256' is not accepted"),
        (lambda header, claims: signed(header | {"kid": "two"}, claims), "has 0 keys"),
        (lambda _, claims: signed({"alg": "RS256"}, claims), "has 0 keys"),
        (lambda header, claims: signed(header | {"alg": "ES256"}, claims), "proves nothing|malformed"),
        (changed(iss="https://elsewhere.example.org"), "Invalid issuer"),
        (changed(aud="another"), "Audience"),
        (changed(aud=[CLIENT, "another"]), "for several clients"),
        (changed(azp="another"), "issued to another client"),
        (changed(exp=int(time.time()) - 100), "expired"),
        (changed(iat=int(time.time()) + 100_000), "not yet valid"),
        (changed(nbf=int(time.time()) + 100_000), "not yet valid"),
        *((without(name), "missing") for name in ("exp", "iat", "sub", "aud", "iss")),
        (lambda _header, _claims: "nonsense", "proves nothing"),
        (lambda _header, _claims: "a.b.c", "proves nothing"),
        (lambda _header, _claims: "", "no usable id_token"),
    ],
)
async def test_tokens_that_prove_nothing(provider: Provider, token: Any, reason: str) -> None:
    provider.token = token
    reply = await log_in(made(provider), provider)
    assert isinstance(reply, Deny)
    assert any(each in reply.detail for each in reason.split("|")), reply.detail


async def test_several_audiences_of_which_one_is_meant(provider: Provider) -> None:
    provider.token = changed(aud=[CLIENT, "another"], azp=CLIENT)
    assert await log_in(made(provider), provider) == Allow()


@pytest.mark.parametrize(("error", "reason"), [("access_denied", "the issuer refuses: access_denied"),
                                               ("expired_token", "the issuer refuses: expired_token")])  # fmt: skip
async def test_a_user_who_says_no(provider: Provider, error: str, reason: str) -> None:
    provider.errors = [error]
    assert await log_in(made(provider), provider) == Deny(reason)


async def test_a_user_who_takes_too_long(provider: Provider) -> None:
    plugin = made(provider, login_seconds=0.05)
    await plugin.authenticate(BEGIN)
    assert await plugin.authenticate(ENTER) == Deny("nobody has entered the code in time")


@pytest.mark.parametrize(
    ("part", "answer", "reason"),
    [
        ("openid-configuration", b"<html>", "and no JSON"),
        ("openid-configuration", [], "and no JSON object"),
        ("openid-configuration", {"issuer": "https://elsewhere.example.org"}, "does not describe the issuer"),
        ("openid-configuration", b"x" * 300_000, "is longer than"),
        ("device", {}, "no usable user_code"),
        ("device", {"user_code": "\x1b[2J", "verification_uri": "https://x"}, "no usable user_code"),
        ("keys", {"keys": "none"}, "has 0 keys"),
        ("keys", {}, "has 0 keys"),
        ("keys", {"keys": [{"kid": "one", "kty": "oct", "k": "c2VjcmV0"}]}, "for another algorithm"),
        ("keys", {"keys": [{"kid": "one", "kty": "RSA"}]}, "proves nothing"),
        ("token", {}, "no usable id_token"),
    ],
)
async def test_an_issuer_that_talks_nonsense(provider: Provider, part: str, answer: Any, reason: str) -> None:
    provider.changes[part] = answer
    reply = await log_in(made(provider), provider)
    assert isinstance(reply, Deny)
    assert reason in reply.detail


async def test_endpoints_that_are_not_secure(provider: Provider) -> None:
    _, answer = provider.answer("openid-configuration", {})
    provider.changes["openid-configuration"] = answer | {"token_endpoint": "http://login.example.org/token"}
    reply = await log_in(made(provider), provider)
    assert reply == Deny("the issuer's token_endpoint is http://login.example.org/token, which is not https")


async def test_an_issuer_that_hangs_denies_and_holds_up_nobody(provider: Provider) -> None:
    plugin = made(provider, seconds=1.0)
    provider.paused.clear()
    began = time.monotonic()
    replies = await asyncio.gather(*(plugin.authenticate(replace(BEGIN, connection=each)) for each in range(4)))
    assert all(isinstance(reply, Deny) for reply in replies)
    assert time.monotonic() - began < 10
    provider.paused.set()
    assert await log_in(plugin, provider) == Allow()


async def test_an_issuer_that_is_not_there(provider: Provider) -> None:
    plugin = made(provider)
    provider.close()
    reply = await plugin.authenticate(BEGIN)
    assert isinstance(reply, Deny)
    provider.__init__()  # type: ignore[misc] # something for the fixture to close


async def test_an_issuer_that_hangs_while_it_is_polled_is_asked_again(provider: Provider) -> None:
    plugin = made(provider, seconds=1.0)
    await plugin.authenticate(BEGIN)
    provider.paused.clear()
    asked = asyncio.ensure_future(plugin.authenticate(ENTER))
    await asyncio.wait([asked], timeout=1.5)
    provider.approved.set()
    provider.paused.set()
    assert await asked == Allow()


async def test_an_issuer_that_keeps_its_keys_to_itself_is_told_of_as_such(provider: Provider) -> None:
    def approved(header: dict[str, Any], claims: dict[str, Any]) -> str:
        provider.paused.clear()  # from now on
        return signed(header, claims)

    provider.token = approved
    reply = await log_in(made(provider, seconds=1.0), provider)
    assert isinstance(reply, Deny)
    assert "entered the code" not in reply.detail


async def test_nobody_is_asked_once_the_client_is_gone(provider: Provider) -> None:
    plugin = made(provider)
    await plugin.authenticate(BEGIN)
    task = plugin._logins[1].claims
    plugin.ended(1)
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()
    assert plugin._logins == {}
    plugin.ended(1)
    assert isinstance(await plugin.authenticate(ENTER), Deny)


async def test_a_client_that_goes_while_it_is_waited_for(provider: Provider) -> None:
    plugin = made(provider)
    await plugin.authenticate(BEGIN)
    asked = asyncio.ensure_future(plugin.authenticate(ENTER))
    await asyncio.wait([asked], timeout=0.05)
    plugin.ended(1)
    assert await asked == Deny("the connection is gone")


async def test_a_new_beginning_ends_the_old_one(provider: Provider) -> None:
    plugin = made(provider)
    await plugin.authenticate(BEGIN)
    task = plugin._logins[1].claims
    assert await log_in(plugin, provider) == Allow()
    assert task.cancelled()


async def test_logins_that_wait_are_bounded(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "_MOST_LOGINS", 1)
    plugin = made(provider)
    await plugin.authenticate(BEGIN)
    assert await plugin.authenticate(replace(BEGIN, connection=2)) == Deny("1 logins wait for their users already")
    plugin.ended(1)
    assert isinstance(await plugin.authenticate(replace(BEGIN, connection=2)), Prompt)
    plugin.ended(2)


async def test_a_secret(provider: Provider, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3:cret\n")
    assert await log_in(made(provider, client_secret_file=str(file)), provider) == Allow()
    assert provider.authorization == "Basic " + base64.b64encode(b"dunnart:s3%3Acret").decode()
    for text in ("", " \n"):
        file.write_text(text)
        with pytest.raises(ConfigError, match="client_secret_file"):
            made(provider, client_secret_file=str(file))


async def test_another_method(provider: Provider) -> None:
    assert await made(provider).authenticate(replace(BEGIN, credential=PasswordCredential("x"))) == Deny(
        "not an interactive login"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"issuer": "http://login.example.org"}, "issuer must be https"),
        ({"issuer": "login.example.org"}, "issuer must be https"),
        ({"scopes": ("profile",)}, "scopes must hold openid"),
        ({"client_secret_file": "secret"}, "must be an absolute path"),
        ({"seconds": 0.0}, "must be more than 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Options(**({"issuer": "https://login.example.org", "client_id": CLIENT} | options))
