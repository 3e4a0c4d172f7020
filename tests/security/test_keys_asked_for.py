"""CVE-2024-45337 (Go): the key that was asked about last counted, not the one that signed (THREATS R12, R13)."""

from __future__ import annotations

from dataclasses import replace

from dunnart.crypto.profiles import PROFILES
from dunnart.keys import PrivateKey
from dunnart.protocol.events import AuthFailed, LoggedIn
from dunnart.protocol.questions import Allow, AuthQuestion, CredentialQuestion, Deny, PublicKeyCredential
from dunnart.testing.pair import Pair
from dunnart.wire.encoding import string
from dunnart.wire.messages import PublicKeyQuery, UserauthRequest

FAST = replace(PROFILES["default"], kex=("curve25519-sha256",))
ADMIN, USER, STRANGER = (PrivateKey.generate("ed25519") for _ in range(3))
GRANTS = {ADMIN.public: "admin", USER.public: "user"}


def grant(question: AuthQuestion) -> Allow | Deny:
    assert isinstance(question.credential, PublicKeyCredential)
    found = GRANTS.get(question.credential.key)
    return Deny("unknown") if found is None else Allow(found)


def server() -> Pair:
    made = Pair(
        algorithms=FAST,
        auth_methods=(("publickey",),),
        server_answers={AuthQuestion: grant},
        client_answers={CredentialQuestion: ...},
    ).run()
    made.client.puppet = True
    return made


def query(key: PrivateKey) -> bytes:
    data = PublicKeyQuery(False, "ssh-ed25519", key.public.blob).encode()
    return UserauthRequest("alice", "ssh-connection", "publickey", data).encode()


def signed(made: Pair, named: PrivateKey, signer: PrivateKey, algorithm: str = "ssh-ed25519") -> bytes:
    data = PublicKeyQuery(True, algorithm, named.public.blob).encode()
    request = UserauthRequest("alice", "ssh-connection", "publickey", data).encode()
    signature = signer.sign("ssh-ed25519", string(made.client.engine.session_id) + request)
    return request + string(signature)


def test_grants_come_from_the_key_that_signed() -> None:
    for asked_first, asked_last in ((ADMIN, USER), (USER, ADMIN)):
        made = server()
        made.client.send(query(asked_first), query(asked_last), signed(made, USER, USER))
        made.run()
        (event,) = made.server.of(LoggedIn)
        assert event.grants == ("user",)
        assert USER.public.fingerprint() in event.detail


def test_asking_after_signing_changes_nothing() -> None:
    made = server()
    made.client.send(signed(made, STRANGER, STRANGER), query(ADMIN))
    made.run()
    assert made.server.of(LoggedIn) == []
    assert len(made.server.of(AuthFailed)) == 1


def test_a_known_key_with_a_stranger_s_signature() -> None:
    made = server()
    made.client.send(query(ADMIN), signed(made, ADMIN, STRANGER))
    made.run()
    assert made.server.of(LoggedIn) == []
    assert "wrong" in made.server.of(AuthFailed)[0].detail


def test_signature_of_another_session_is_worth_nothing() -> None:
    first, second = server(), server()
    second.client.send(signed(first, ADMIN, ADMIN))
    second.run()
    assert second.server.of(LoggedIn) == []


def test_signature_label_is_the_announced_algorithm() -> None:
    rsa = PrivateKey.generate("rsa", 2048)
    made = server()
    data = PublicKeyQuery(True, "rsa-sha2-512", rsa.public.blob).encode()
    request = UserauthRequest("alice", "ssh-connection", "publickey", data).encode()
    GRANTS[rsa.public] = "rsa"
    made.client.send(request + string(rsa.sign("rsa-sha2-256", string(made.client.engine.session_id) + request)))
    made.run()
    assert made.server.of(LoggedIn) == []
    assert "labelled" in made.server.of(AuthFailed)[0].detail


def test_grants_of_a_failed_chain_are_gone_with_their_user() -> None:
    """CVE-2026-46595, CVE-2026-39828 (Go): what one request allowed must not reach another's session."""
    made = Pair(
        algorithms=FAST,
        auth_methods=(("publickey", "publickey"),),
        server_answers={AuthQuestion: lambda question: Allow((question.user, grant(question)))},
        client_answers={CredentialQuestion: ...},
    ).run()
    made.client.puppet = True

    def by(user: str, key: PrivateKey) -> bytes:
        data = PublicKeyQuery(True, "ssh-ed25519", key.public.blob).encode()
        request = UserauthRequest(user, "ssh-connection", "publickey", data).encode()
        return request + string(key.sign("ssh-ed25519", string(made.client.engine.session_id) + request))

    made.client.send(by("root", ADMIN), by("alice", USER))
    made.run()
    assert made.server.of(LoggedIn) == []
    made.client.send(by("alice", USER))
    made.run()
    (event,) = made.server.of(LoggedIn)
    assert [user for user, _ in event.grants] == ["alice", "alice"]
