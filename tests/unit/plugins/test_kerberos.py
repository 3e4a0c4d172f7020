"""The steps of logins and key exchanges by Kerberos, right and wrong ones, with a real KDC but without SSH."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dunnart.plugins.kerberos import KERBEROS, Kerberos, KerberosKeyExchange, Options
from dunnart.server import (
    Allow,
    Attempt,
    AuthReply,
    Deny,
    GssapiCredential,
    GssapiKeyExchange,
    GssapiStep,
    PasswordCredential,
)
from dunnart.server.plugins import Context
from tests.interop.kerberos import REALM, Realm

SIGNED = b"what is signed"


@pytest.fixture(scope="module")
def _realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    made = Realm(tmp_path_factory.mktemp("realm"))
    made.add("ann")
    yield made
    made.close()


@pytest.fixture
def realm(_realm: Realm, monkeypatch: pytest.MonkeyPatch) -> Realm:
    """A realm in which Ann has a ticket that can be forwarded; this process is in it."""
    for name, value in _realm.log_in("ann", "-f").items():
        monkeypatch.setenv(name, value)
    return _realm


Make = Callable[..., Any]


@pytest.fixture
def plugin(realm: Realm) -> Make:
    def make(kind: type[Kerberos] = Kerberos, **options: Any) -> Kerberos:
        return kind(Context("gssapi", Options(realm.keytab, **{"realm": REALM} | options), logging.getLogger("test")))

    return make


def client(*flags: str) -> Any:
    """Ann's side of a security context."""
    import gssapi

    wanted = int(gssapi.RequirementFlag.integrity)
    for flag in flags or ("mutual_authentication",):
        wanted |= int(gssapi.RequirementFlag[flag])
    name = gssapi.Name("host@localhost", gssapi.NameType.hostbased_service)
    return gssapi.SecurityContext(name=name, usage="initiate", flags=wanted, mech=gssapi.MechType.kerberos)


def attempt(user: str = "ann", **credential: Any) -> Attempt:
    return Attempt(user, GssapiCredential(**credential), "192.0.2.7", connection=1)


async def established(plugin: Kerberos, ann: Any) -> bytes:
    """Go as far as the MIC; gives the client's only token."""
    assert await plugin.authenticate(attempt(mechanisms=(b"\6\1x", KERBEROS))) == GssapiStep(KERBEROS)
    token: bytes = ann.step()
    reply = await plugin.authenticate(attempt(token=token))
    assert isinstance(reply, GssapiStep)
    assert ann.complete or ann.step(reply.data) is None
    assert ann.complete
    return token


async def test_the_right_mic_once(plugin: Make) -> None:
    made, ann = plugin(), client()
    await established(made, ann)
    last = attempt(mic=ann.get_signature(SIGNED), signed=SIGNED)
    assert await made.authenticate(last) == Allow()
    assert await made.authenticate(last) == Deny("no exchange is under way")


@pytest.mark.parametrize("wrong", ["nothing", "garbage", "other data", "another context's"])
async def test_wrong_mics(plugin: Make, wrong: str) -> None:
    made, ann = plugin(), client()
    await established(made, ann)
    mic = {"nothing": b"", "garbage": b"x" * 28, "other data": ann.get_signature(SIGNED + b"!")}.get(wrong)
    if mic is None:
        other = client()
        await established(plugin(), other)
        mic = other.get_signature(SIGNED)
    assert isinstance(await made.authenticate(attempt(mic=mic, signed=SIGNED)), Deny)
    right = attempt(mic=ann.get_signature(SIGNED), signed=SIGNED)
    assert await made.authenticate(right) == Deny("no exchange is under way")  # one try for each exchange


async def test_the_right_mic_of_the_wrong_user(plugin: Make) -> None:
    made, ann = plugin(), client()
    await established(made, ann)
    reply = await made.authenticate(attempt("bob", mic=ann.get_signature(SIGNED), signed=SIGNED))
    assert reply == Deny(f"ann@{REALM} may not log in as this user")


@pytest.mark.parametrize("user", ["", "ann@", "ann/", f"ann@{REALM}"])
async def test_no_other_name_is_hers(plugin: Make, user: str) -> None:
    made, ann = plugin(), client()
    await established(made, ann)
    assert isinstance(await made.authenticate(attempt(user, mic=ann.get_signature(SIGNED), signed=SIGNED)), Deny)


@pytest.mark.parametrize("token", [b"", b"garbage", bytes(2000)])
async def test_tokens_that_are_none(plugin: Make, token: bytes) -> None:
    made = plugin()
    await made.authenticate(attempt(mechanisms=(KERBEROS,)))
    assert isinstance(await made.authenticate(attempt(token=token)), Deny)
    assert await made.authenticate(attempt(token=token)) == Deny("no exchange is under way")


async def test_a_token_is_good_once(plugin: Make) -> None:
    made = plugin()
    token = await established(made, client())
    await made.authenticate(attempt(mechanisms=(KERBEROS,)))
    reply = await made.authenticate(attempt(token=token))
    assert isinstance(reply, Deny)
    assert "replay" in reply.detail


async def test_steps_out_of_order(plugin: Make) -> None:
    made, ann = plugin(), client()
    assert await made.authenticate(attempt(token=b"x")) == Deny("no exchange is under way")
    assert await made.authenticate(attempt(mechanisms=(b"\6\1x",))) == Deny("the client does not offer Kerberos")
    await made.authenticate(attempt(mechanisms=(KERBEROS,)))
    assert await made.authenticate(attempt(mic=b"x", signed=SIGNED)) == Deny("a MIC before the last token")
    await established(made, ann)
    assert await made.authenticate(attempt(token=b"x")) == Deny("a token after the last one")
    other = replace(attempt(), credential=PasswordCredential("x"))
    assert isinstance(await made.authenticate(other), Deny)


async def test_the_end_of_a_connection_ends_its_exchange(plugin: Make) -> None:
    made, ann = plugin(), client()
    await established(made, ann)
    made.ended(1)
    assert made._logins == {}
    reply = await made.authenticate(attempt(mic=ann.get_signature(SIGNED), signed=SIGNED))
    assert reply == Deny("no exchange is under way")


async def test_tickets_that_come_as_the_connection_ends_do_not_stay(
    plugin: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made, ann = plugin(delegation=True), client("mutual_authentication", "delegate_to_peer")
    monkeypatch.setattr("dunnart.plugins.os_account.to_act_as", lambda _user, _grants: made.ended(1))
    await established(made, ann)
    reply: AuthReply = await made.authenticate(attempt(mic=ann.get_signature(SIGNED), signed=SIGNED))
    assert isinstance(reply, Allow)
    assert reply.rights is not None
    assert os.listdir(tmp_path) == []


async def test_a_home_that_hangs_holds_up_nobody_else(plugin: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    home, made, ann = threading.Event(), plugin(realm=""), client()
    monkeypatch.setattr("dunnart.plugins.kuserok.may_log_in", lambda _principal, _user: home.wait(30))
    await established(made, ann)
    asked = attempt(mic=ann.get_signature(SIGNED), signed=SIGNED)
    waiting = asyncio.ensure_future(made.authenticate(asked))
    assert (await asyncio.wait([waiting], timeout=0.1))[0] == set()
    other = replace(attempt(mechanisms=(KERBEROS,)), connection=2)
    assert await made.authenticate(other) == GssapiStep(KERBEROS)
    bob = client()
    assert isinstance(await made.authenticate(replace(attempt(token=bob.step()), connection=2)), GssapiStep)
    assert not waiting.done()
    home.set()
    assert await waiting == Allow()


# Key exchanges.


def step(**fields: Any) -> Attempt:
    return Attempt("", GssapiKeyExchange(**fields), "192.0.2.7", connection=1)


async def test_a_key_exchange_and_its_login(plugin: Make) -> None:
    made, ann = plugin(KerberosKeyExchange), client()
    reply = await made.authenticate(step(token=ann.step(), first=True))
    assert isinstance(reply, GssapiStep)
    assert reply.complete
    ann.step(reply.data)
    signed = await made.authenticate(step(digest=b"H" * 32))
    assert isinstance(signed, GssapiStep)
    ann.verify_signature(b"H" * 32, signed.data)
    last = GssapiCredential(mic=ann.get_signature(SIGNED), signed=SIGNED, method="gssapi-keyex")
    assert await made.authenticate(Attempt("ann", last, "192.0.2.7", connection=2)) == Deny(
        "keys were not exchanged by GSS-API"
    )
    assert await made.authenticate(Attempt("ann", last, "192.0.2.7", connection=1)) == Allow()


async def test_a_key_exchange_in_which_the_server_proves_nothing(plugin: Make) -> None:
    made, ann = plugin(KerberosKeyExchange), client("integrity")
    reply = await made.authenticate(step(token=ann.step(), first=True))
    assert reply == Deny("the client wants no mutual authentication, or no integrity")


async def test_key_exchanges_out_of_order(plugin: Make) -> None:
    made = plugin(KerberosKeyExchange)
    assert await made.authenticate(step(digest=b"H")) == Deny("no exchange is under way")
    assert isinstance(await made.authenticate(step(token=b"garbage", first=True)), Deny)
    assert await made.authenticate(step(digest=b"H")) == Deny("not yet established")
    assert isinstance(await made.authenticate(replace(step(), credential=PasswordCredential("x"))), Deny)
