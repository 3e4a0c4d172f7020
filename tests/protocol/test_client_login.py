"""The client's side of a login by key: a server is asked about a key before anybody signs."""

from __future__ import annotations

from dunnart.errors import UnexpectedMessage
from dunnart.keys.private import PrivateKey
from dunnart.protocol.events import LoggedIn
from dunnart.protocol.questions import (
    Allow,
    AuthQuestion,
    CredentialQuestion,
    Deny,
    PasswordCredential,
    PublicKeyCredential,
    SignQuestion,
)
from dunnart.testing.pair import PASSWORD, Pair, one_after_another
from dunnart.wire.messages import UserauthPkOk

OURS = PrivateKey.generate("ed25519")
OTHER = PrivateKey.generate("ed25519")


def asking(*keys: PrivateKey, **answers: object) -> Pair:
    """A client that asks about these keys, and a server that takes OURS."""

    def allow(question: AuthQuestion) -> Allow | Deny:
        return Allow() if getattr(question.credential, "key", None) == OURS.public else Deny()

    tries = (PublicKeyCredential(key.public, "ssh-ed25519", signed=False) for key in keys)
    return Pair(
        client_answers={CredentialQuestion: one_after_another(*tries), **answers},  # type: ignore[dict-item]
        server_answers={AuthQuestion: allow},
        auth_methods=(("publickey",),),
        user_keys=(OURS, OTHER),
    )


def test_only_the_key_that_the_server_takes_signs() -> None:
    made = asking(OTHER, OURS).run()
    assert [question.key for question in made.client.asked(SignQuestion)] == [OURS.public]
    assert made.client.of(LoggedIn)


def test_after_a_signature_that_failed_the_next_one_is_asked_about() -> None:
    made = asking(OURS, OURS)
    made.client.answers[SignQuestion] = one_after_another(None)
    made.run()
    assert len(made.client.asked(SignQuestion)) == 2
    assert not made.client.of(LoggedIn)
    assert made.client.ended is None


def test_an_answer_about_another_key_ends_the_connection() -> None:
    for algorithm, key in (("ssh-ed25519", OTHER), ("ssh-rsa", OURS)):
        made = asking(OURS)
        made.server.answers[AuthQuestion] = ...
        made.run()
        made.server.send(UserauthPkOk(algorithm, key.public.blob))
        made.run()
        assert made.client.ended is not None
        assert isinstance(made.client.ended.error, UnexpectedMessage)
        assert made.client.asked(SignQuestion) == []


def test_an_answer_to_a_signature_or_a_password_is_out_of_place() -> None:
    for credential in (PublicKeyCredential(OURS.public, "ssh-ed25519", signed=True), PasswordCredential(PASSWORD)):
        made = Pair(
            client_answers={CredentialQuestion: one_after_another(credential)},
            server_answers={AuthQuestion: ...},
            auth_methods=((credential.method,),),
            user_keys=(OURS,),
        ).run()
        made.server.send(UserauthPkOk("ssh-ed25519", OURS.public.blob))
        made.run()
        if credential.method == "publickey":
            assert made.client.ended is not None
            assert isinstance(made.client.ended.error, UnexpectedMessage)
        assert len(made.client.asked(SignQuestion)) == (credential.method == "publickey")
        assert not made.client.of(LoggedIn)
