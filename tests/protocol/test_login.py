from __future__ import annotations

from typing import Any

import pytest

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import LimitExceeded
from dunnart.keys import PrivateKey
from dunnart.protocol.authentication import ServiceNotAvailable, TooManyFailures
from dunnart.protocol.events import AuthFailed, AuthPartial, AuthRefused, BannerReceived, LoggedIn
from dunnart.protocol.limits import Limits
from dunnart.protocol.phases import Stage
from dunnart.protocol.questions import (
    Allow,
    AuthQuestion,
    CredentialQuestion,
    Deny,
    InteractiveCredential,
    NoneCredential,
    PasswordCredential,
    Prompt,
    PromptQuestion,
    PublicKeyCredential,
)
from dunnart.testing.authenticator import TOUCHED, VERIFIED, Authenticator
from dunnart.testing.pair import PASSWORD, Pair, Signer, one_after_another
from dunnart.wire.encoding import boolean, byte, string, text, uint32
from dunnart.wire.messages import (
    HostboundQuery,
    HostboundSigned,
    InteractiveData,
    PasswordData,
    PublicKeyQuery,
    PublicKeySigned,
    ServiceRequest,
    UserauthFailure,
    UserauthInfoRequest,
    UserauthInfoResponse,
    UserauthPkOk,
    UserauthRequest,
    UserauthSuccess,
)

KEYS: dict[str, Signer] = {
    "ssh-ed25519": PrivateKey.generate("ed25519"),
    "ecdsa-sha2-nistp256": PrivateKey.generate("ecdsa", 256),
    "ecdsa-sha2-nistp384": PrivateKey.generate("ecdsa", 384),
    "ecdsa-sha2-nistp521": PrivateKey.generate("ecdsa", 521),
    "rsa-sha2-256": PrivateKey.generate("rsa", 2048),
    "sk-ssh-ed25519@openssh.com": Authenticator("ed25519"),
    "sk-ecdsa-sha2-nistp256@openssh.com": Authenticator("ecdsa"),
}
KEYS["rsa-sha2-512"] = KEYS["ssh-rsa"] = KEYS["rsa-sha2-256"]
ED = KEYS["ssh-ed25519"]
HOSTBOUND = "publickey-hostbound-v00@openssh.com"


def credential(algorithm: str) -> PublicKeyCredential:
    return PublicKeyCredential(KEYS[algorithm].public, algorithm, signed=True)


def pair(
    *tries: object, user_keys: tuple[Signer, ...] = tuple(KEYS.values()), allow: Any = None, **options: Any
) -> Pair:
    answers: dict[Any, Any] = {} if allow is None else {AuthQuestion: allow}
    return Pair(
        client_answers={CredentialQuestion: one_after_another(*tries)},
        server_answers=answers,
        user_keys=user_keys,
        **options,
    )


def idle(**options: Any) -> Pair:
    """A client that knows how to be refused, and no more: tests go on with requests of their own."""
    return pair(**options).run()


def request(method: str, data: bytes = b"", user: str = "alice", service: str = "ssh-connection") -> UserauthRequest:
    return UserauthRequest(user, service, method, data)


def password(value: str = PASSWORD, user: str = "alice") -> UserauthRequest:
    return request("password", PasswordData(change=False, password=value).encode(), user)


def signed(
    made: Pair, signer: Signer, algorithm: str, user: str = "alice", *, hostbound: bool = False, **other: bytes
) -> UserauthRequest:
    """Make a signed publickey request; `other` replaces what is signed."""
    method = HOSTBOUND if hostbound else "publickey"
    host_key = made.client.engine.server_key
    data = b"".join((
        string(other.get("session_id", made.client.engine.session_id)), byte(50), text(user), text("ssh-connection"),
        text(method), boolean(True), text(algorithm), string(other.get("key", signer.public.blob)),
        string(other.get("host_key", host_key)) if hostbound else b"",
    ))  # fmt: skip
    signature = signer.sign(algorithm, data)
    blob = signer.public.blob
    body = (
        HostboundSigned(True, algorithm, blob, other.get("host_key", host_key), signature)
        if hostbound
        else PublicKeySigned(True, algorithm, blob, signature)
    )
    return request(method, body.encode(), user)


def logged_in(made: Pair) -> bool:
    return bool(made.server.of(LoggedIn))


# The methods.


def test_login_by_password() -> None:
    made = Pair().run()
    assert made.client.of(LoggedIn) == [LoggedIn("alice", "password", "", ())]
    assert made.server.of(LoggedIn) == [LoggedIn("alice", "password", "", (None,))]
    assert made.server.engine.stage is Stage.CONNECTION
    assert made.server.of(AuthFailed) == []


def test_wrong_password_is_refused() -> None:
    made = pair(PasswordCredential("wrong"))
    made.run()
    assert not logged_in(made)
    assert made.client.of(AuthRefused) == [AuthRefused(("password",))]
    assert made.server.of(AuthFailed) == [AuthFailed("alice", "password", "")]
    assert made.server.engine.stage is Stage.AUTH
    assert (made.server.engine.user, made.server.engine.auth_failures) == ("alice", 1)


def test_wrong_then_right_password() -> None:
    made = pair(PasswordCredential("wrong"), PasswordCredential(PASSWORD)).run()
    assert logged_in(made)
    assert len(made.server.of(AuthFailed)) == 1


@pytest.mark.parametrize("algorithm", sorted(KEYS))
def test_login_by_key(algorithm: str) -> None:
    profile = PROFILES["legacy"]
    made = pair(credential(algorithm), allow=Allow("grant"), auth_methods=(("publickey",),), algorithms=profile).run()
    (event,) = made.server.of(LoggedIn)
    assert (event.user, event.method, event.grants) == ("alice", "publickey", ("grant",))
    assert KEYS[algorithm].public.fingerprint() in event.detail
    assert [question.credential for question in made.server.asked(AuthQuestion)] == [credential(algorithm)]
    assert made.client.of(LoggedIn)


@pytest.mark.parametrize("algorithm", sorted(KEYS))
@pytest.mark.parametrize("hostbound", [False, True])
def test_query_then_signed_request(algorithm: str, hostbound: bool) -> None:
    made = idle(allow=Allow(), auth_methods=(("publickey",),), algorithms=PROFILES["legacy"])
    key = KEYS[algorithm]
    query = (
        HostboundQuery(False, algorithm, key.public.blob, made.client.engine.server_key)
        if hostbound
        else PublicKeyQuery(False, algorithm, key.public.blob)
    )
    made.client.puppet = True
    made.client.send(request(HOSTBOUND if hostbound else "publickey", query.encode()))
    made.run()
    assert not logged_in(made)
    assert made.server.asked(AuthQuestion)[-1].credential.signed is False
    assert made.client.got(UserauthPkOk) == [UserauthPkOk(algorithm, key.public.blob)]
    made.client.send(signed(made, key, algorithm, hostbound=hostbound))
    made.run()
    assert logged_in(made)


def test_allowed_key_without_its_signature_does_not_log_in() -> None:
    made = idle(allow=Allow(), auth_methods=(("publickey",),))
    good = signed(made, ED, "ssh-ed25519")
    bad = good.method_data[:-1] + bytes([good.method_data[-1] ^ 1])
    made.client.send(UserauthRequest("alice", "ssh-connection", "publickey", bad))
    made.run()
    assert not logged_in(made)
    (event,) = made.server.of(AuthFailed)
    assert "wrong ssh-ed25519 signature" in event.detail
    assert ED.public.fingerprint() in event.detail


@pytest.mark.parametrize("hostbound", [False, True])
def test_signature_over_something_else_does_not_log_in(hostbound: bool) -> None:
    for name, value in (("session_id", bytes(32)), ("key", b"another")):
        made = idle(allow=Allow(), auth_methods=(("publickey",),))
        made.client.send(signed(made, ED, "ssh-ed25519", "alice", hostbound=hostbound, **{name: value}))
        made.run()
        assert not logged_in(made)
        assert "wrong ssh-ed25519 signature" in made.server.of(AuthFailed)[0].detail


def test_signature_of_one_user_does_not_let_another_in() -> None:
    made = idle(allow=Allow(), auth_methods=(("publickey",),))
    made.client.send(replace_user(signed(made, ED, "ssh-ed25519", "bob"), "alice"))
    made.run()
    assert not logged_in(made)


def replace_user(message: UserauthRequest, user: str) -> UserauthRequest:
    return UserauthRequest(user, message.service, message.method, message.method_data)


def test_hostbound_request_for_another_host_key_is_refused() -> None:
    made = idle(allow=Allow(), auth_methods=(("publickey",),))
    other = PrivateKey.generate("ed25519").public.blob
    made.client.send(signed(made, ED, "ssh-ed25519", hostbound=True, host_key=other))
    made.run()
    assert not logged_in(made)
    assert made.server.asked(AuthQuestion) == []
    assert made.server.of(AuthFailed) == [AuthFailed("alice", "publickey", "signed for another host key")]


def test_hostbound_is_refused_where_public_keys_are() -> None:
    made = idle(allow=Allow(), auth_methods=(("password",),))
    made.client.send(signed(made, ED, "ssh-ed25519", hostbound=True))
    made.run()
    assert not logged_in(made)


@pytest.mark.parametrize("algorithm", ["ssh-rsa", "rsa-sha2-512-cert-v01@openssh.com", "ssh-dss", "x", ""])
def test_algorithms_that_are_not_accepted(algorithm: str) -> None:
    made = idle(allow=Allow(), auth_methods=(("publickey",),))
    data = PublicKeyQuery(False, algorithm, KEYS["ssh-rsa"].public.blob).encode()
    made.client.send(request("publickey", data))
    made.run()
    assert made.server.asked(AuthQuestion) == []
    assert len(made.server.of(AuthFailed)) == 1


def test_algorithm_must_be_one_of_the_key() -> None:
    made = idle(allow=Allow(), auth_methods=(("publickey",),))
    made.client.send(request("publickey", PublicKeyQuery(False, "rsa-sha2-256", ED.public.blob).encode()))
    made.run()
    assert made.server.asked(AuthQuestion) == []
    assert "a ssh-ed25519 key cannot sign as rsa-sha2-256" in made.server.of(AuthFailed)[0].detail


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
@pytest.mark.parametrize(
    ("flags", "allow", "enters"),
    [
        (TOUCHED, Allow(), True),
        (0, Allow(), False),
        (VERIFIED, Allow(), False),
        (0, Allow(touch=False), True),
        (TOUCHED, Allow(verify=True), False),
        (TOUCHED | VERIFIED, Allow(verify=True), True),
        (VERIFIED, Allow(touch=False, verify=True), True),
    ],
)
def test_security_keys_must_be_touched(kind: Any, flags: int, allow: Allow, enters: bool) -> None:
    token = Authenticator(kind)
    token.flags = flags
    tried = PublicKeyCredential(token.public, token.public.key_type, signed=True)
    made = pair(tried, user_keys=(token,), allow=allow, auth_methods=(("publickey",),)).run()
    assert logged_in(made) is enters
    if not enters:
        assert "security key" in made.server.of(AuthFailed)[0].detail


def rounds(question: AuthQuestion) -> Allow | Deny | Prompt:
    """Two rounds, the second with two prompts, then an empty one."""
    asked = question.credential
    assert isinstance(asked, InteractiveCredential)
    known: dict[Any, Any] = {
        None: Prompt((("Name: ", True),), "the name", "the instruction"),
        ("n",): Prompt((("Colour: ", True), ("Number: ", False))),
        ("c", "1"): Prompt(()),
        (): Allow("three rounds"),
    }
    return known.get(asked.responses, Deny("wrong"))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("last", "enters"), [(("c", "1"), True), (("c", "2"), False), (("c",), False)])
def test_keyboard_interactive_in_several_rounds(last: tuple[str, ...], enters: bool) -> None:
    made = Pair(
        auth_methods=(("keyboard-interactive",),),
        client_answers={
            CredentialQuestion: one_after_another(InteractiveCredential("", None)),
            PromptQuestion: one_after_another(("n",), last),
        },
        server_answers={AuthQuestion: rounds},
    ).run()
    prompts = [question.prompt for question in made.client.asked(PromptQuestion)]
    assert prompts == [
        Prompt((("Name: ", True),), "the name", "the instruction"),
        Prompt((("Colour: ", True), ("Number: ", False))),
    ]
    assert logged_in(made) is enters
    assert bool(made.client.of(LoggedIn)) is enters
    if enters:
        assert made.server.of(LoggedIn)[0].grants == ("three rounds",)


def test_questions_that_nobody_answers_end_their_method_alone() -> None:
    made = Pair(
        auth_methods=(("keyboard-interactive",), ("password",)),
        client_answers={
            CredentialQuestion: one_after_another(InteractiveCredential("", None), PasswordCredential("p")),
            PromptQuestion: None,
        },
        server_answers={
            AuthQuestion: lambda question: (
                Allow("p") if isinstance(question.credential, PasswordCredential) else rounds(question)
            )
        },
    ).run()
    assert made.server.of(LoggedIn)[0].grants == ("p",)
    assert not made.server.of(AuthFailed)  # no answers, and not wrong ones


@pytest.mark.parametrize(
    "responses",
    [uint32(2) + text("a"), uint32(0), uint32(2) + text("a") + text("b"),
     uint32(1) + text("a") + b"x", uint32(2**32 - 1), b"", uint32(1) + text("a\0b"),
     uint32(1) + text("x" * 1025), uint32(1) + text("\u20ac" * 342), uint32(1) + string(b"\xff")],
)  # fmt: skip
def test_malformed_responses_are_failures(responses: bytes) -> None:
    made = idle(allow=Prompt((("?", True),)), auth_methods=(("keyboard-interactive",),))
    interactive(made)
    assert made.server.engine.stage is Stage.INTERACTIVE
    made.client.send(b"\x3d" + responses)
    made.run()
    assert len(made.server.of(AuthFailed)) == 1
    assert made.server.engine.stage is Stage.AUTH
    assert made.server.ended is None
    assert len(made.server.asked(AuthQuestion)) == 1


def interactive(made: Pair) -> None:
    made.client.puppet = True
    made.client.send(request("keyboard-interactive", InteractiveData(b"", "").encode()))
    made.run()


def test_new_request_abandons_the_prompts() -> None:
    """RFC 4256 §3.1; the responses that come afterwards are nobody's, and end the connection."""
    made = idle(
        allow=lambda question: (
            Prompt((("?", True),)) if isinstance(question.credential, InteractiveCredential) else Deny()
        ),
        auth_methods=(("keyboard-interactive",), ("password",)),
    )
    interactive(made)
    made.client.send(password())
    made.run()
    assert made.server.engine.stage is Stage.AUTH
    made.client.send(UserauthInfoResponse(0, b""))
    made.run()
    assert made.server.ended is not None
    assert not logged_in(made)


def test_request_parked_behind_prompts_is_not_forgotten() -> None:
    """RFC 4256 §3.1: what was sent before the prompts came is a new request as well."""
    made = idle(
        allow=lambda question: (
            Prompt((("?", True),)) if isinstance(question.credential, InteractiveCredential) else Allow()
        ),
        auth_methods=(("keyboard-interactive",), ("password",)),
    )
    made.client.puppet = True
    made.client.send(request("keyboard-interactive", InteractiveData(b"", "").encode()), password())
    made.run()
    assert logged_in(made)
    assert made.client.got(UserauthInfoRequest)


def test_prompt_for_a_password_is_a_denial() -> None:
    made = pair(PasswordCredential(PASSWORD), allow=Prompt((("?", True),))).run()
    assert not logged_in(made)
    assert len(made.server.of(AuthFailed)) == 1


@pytest.mark.parametrize("reply", [None, True, 1, "yes", b"", Exception("plugin failed"), Allow])
def test_whatever_is_no_allow_is_a_denial(reply: object) -> None:
    made = pair(PasswordCredential(PASSWORD), allow=lambda _question: reply).run()
    assert not logged_in(made)
    assert made.server.of(AuthFailed) == [AuthFailed("alice", "password", "no answer")]


def test_login_by_none_where_configured() -> None:
    made = pair(allow=Allow(), auth_methods=(("none",),)).run()
    assert [event.method for event in made.server.of(LoggedIn)] == ["none"]
    assert [question.credential for question in made.server.asked(AuthQuestion)] == [NoneCredential()]


def test_first_none_is_free_the_second_counts() -> None:
    made = idle()
    assert made.server.engine.auth_failures == 0
    assert made.client.got(UserauthFailure) == [UserauthFailure(("password",), False)]
    made.client.send(request("none"))
    made.run()
    assert made.server.engine.auth_failures == 1
    assert made.server.asked(AuthQuestion) == []


def test_none_in_place_of_a_later_request_counts() -> None:
    made = idle()
    made.client.send(password("wrong"), request("none"))
    made.run()
    assert made.server.engine.auth_failures == 2


@pytest.mark.parametrize(
    "message",
    [
        request("password", b"\1" + text("old") + text("new")),
        request("password", b"\2" + text(PASSWORD)),
        request("password", b""),
        request("password", b"\0" + text(PASSWORD) + b"x"),
        password("x" * 1025),
        password("a\0b"),
        request("password", b"\0" + string(b"\xff")),
        request("publickey", b""),
        request("publickey", b"\0" + text("ssh-ed25519") + string(b"")),
        request("publickey", b"\0" + text("ssh-ed25519") + string(text("ssh-ed25519") + string(b"x" * 31))),
        request("publickey", b"\1" + text("ssh-ed25519") + string(ED.public.blob)),
        request("hostbased", b""),
        request("gssapi-with-mic", b""),
        request("", b""),
        password(user="al\0ice"),
        password(user="x" * 256),
        request("keyboard-interactive", b"\0"),
        request("none", b"x"),
    ],
)
def test_impossible_requests_are_failures(message: UserauthRequest) -> None:
    chains = (("password",), ("publickey",), ("keyboard-interactive",))
    made = idle(allow=Allow(), auth_methods=chains)
    made.client.send(message)
    made.run()
    assert made.server.asked(AuthQuestion) == []
    assert len(made.server.of(AuthFailed)) == 1
    assert made.server.ended is None
    assert made.client.got(UserauthFailure)[-1] == UserauthFailure(
        ("password", "publickey", "keyboard-interactive"), partial_success=False
    )


def test_password_of_1024_bytes_is_asked_for() -> None:
    made = pair(PasswordCredential("ä" * 512), allow=Allow()).run()
    assert logged_in(made)
    assert not logged_in(pair(PasswordCredential("ä" * 512 + "x"), allow=Allow()).run())


# Chains.


def test_chain_wants_each_method_in_order() -> None:
    made = pair(
        credential("ssh-ed25519"),
        PasswordCredential(PASSWORD),
        allow=lambda question: Allow(question.credential.method),
        auth_methods=(("publickey", "password"),),
    ).run()
    assert made.server.of(AuthPartial) == [AuthPartial("alice", "publickey")]
    assert made.server.of(LoggedIn)[0].grants == ("publickey", "password")
    assert made.client.got(UserauthFailure) == [
        UserauthFailure(("publickey",), partial_success=False),
        UserauthFailure(("password",), partial_success=True),
    ]
    assert [question.partial for question in made.client.asked(CredentialQuestion)] == [False, True]


def test_the_second_of_a_chain_alone_is_not_enough() -> None:
    made = pair(PasswordCredential(PASSWORD), allow=Allow(), auth_methods=(("publickey", "password"),)).run()
    assert not logged_in(made)
    assert made.server.asked(AuthQuestion) == []


def test_one_link_twice_is_not_the_chain() -> None:
    made = pair(
        credential("ssh-ed25519"), credential("ssh-ed25519"), allow=Allow(), auth_methods=(("publickey", "password"),)
    ).run()
    assert not logged_in(made)
    assert len(made.server.of(AuthPartial)) == 1


def test_chains_branch() -> None:
    chains = (("publickey", "password"), ("publickey", "keyboard-interactive"), ("keyboard-interactive", "none"))
    made = pair(credential("ssh-ed25519"), allow=Allow(), auth_methods=chains).run()
    assert [message.methods for message in made.client.got(UserauthFailure)] == [
        ("publickey", "keyboard-interactive"),
        ("password", "keyboard-interactive"),
    ]


def test_another_user_starts_from_nothing() -> None:
    """RFC 4252 §5: alice's key and mallory's password make nobody."""
    made = idle(
        allow=lambda question: Allow((question.user, question.credential.method)),
        auth_methods=(("publickey", "password"),),
    )
    made.client.send(signed(made, ED, "ssh-ed25519", "alice"), password(user="mallory"))
    made.run()
    assert not logged_in(made)
    made.client.send(signed(made, ED, "ssh-ed25519", "alice"), password(user="alice"))
    made.run()
    assert made.server.of(LoggedIn)[0].grants == (("alice", "publickey"), ("alice", "password"))


def test_a_failure_does_not_undo_what_has_passed() -> None:
    made = pair(
        credential("ssh-ed25519"),
        PasswordCredential("wrong"),
        PasswordCredential(PASSWORD),
        allow=lambda question: Deny() if getattr(question.credential, "password", PASSWORD) != PASSWORD else Allow(),
        auth_methods=(("publickey", "password"),),
    ).run()
    assert logged_in(made)


# Bounds and order.


@pytest.mark.parametrize("tries", [1, 3, 6])
def test_too_many_failures(tries: int) -> None:
    wrong = [PasswordCredential(str(number)) for number in range(20)]
    made = pair(*wrong, limits=Limits(max_auth_tries=tries)).run()
    assert made.server.ended is not None
    assert isinstance(made.server.ended.error, TooManyFailures)
    assert len(made.server.of(AuthFailed)) == tries
    assert made.client.ended is not None
    assert (made.client.ended.reason_code, made.client.ended.by_peer) == (14, True)


def test_silent_denials_do_not_count() -> None:
    made = pair(*[PasswordCredential("x")] * 20, allow=Deny(silent=True)).run()
    assert made.server.ended is None
    assert made.server.of(AuthFailed) == []


def test_denials_that_do_not_count_have_an_end() -> None:
    made = pair(*[PasswordCredential("x")] * 101, allow=Deny(silent=True)).run()
    assert isinstance(made.server.ended and made.server.ended.error, TooManyFailures)


def test_queries_of_unknown_keys_count() -> None:
    made = idle(allow=Deny(), auth_methods=(("publickey",),), limits=Limits(max_auth_tries=3))
    query = request("publickey", PublicKeyQuery(False, "ssh-ed25519", ED.public.blob).encode())
    made.client.send(query, query, query)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, TooManyFailures)


def test_pipelined_requests_are_decided_in_order() -> None:
    made = idle(allow=...)
    made.client.send(password("1"), password("2"), password(PASSWORD), password("4"))
    made.run()
    asked = made.server.asked(AuthQuestion)
    assert [question.credential.password for question in asked] == ["1"]
    made.server.engine.answer(asked[0].token, Deny())
    made.run()
    made.server.engine.answer(made.server.asked(AuthQuestion)[1].token, Deny())
    made.run()
    last = made.server.asked(AuthQuestion)[2]
    assert last.credential.password == PASSWORD
    made.server.engine.answer(last.token, Allow())
    made.run()
    assert logged_in(made)
    assert len(made.server.asked(AuthQuestion)) == 3
    assert [payload[0] for payload in made.client.payloads if 50 < payload[0] < 53] == [51, 51, 51, 52]


def test_parked_requests_are_bounded() -> None:
    made = idle(allow=...)
    made.client.send(*[password("x" * 1000)] * 100)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, LimitExceeded)
    assert len(made.server.asked(AuthQuestion)) == 1


def test_an_answer_counts_once() -> None:
    made = idle(allow=..., auth_methods=(("password", "password"),))
    made.client.send(password())
    made.run()
    (question,) = made.server.asked(AuthQuestion)
    made.server.engine.answer(question.token, Allow())
    made.server.engine.answer(question.token, Allow())
    made.server.engine.answer(4711, Allow())
    made.run()
    assert not logged_in(made)
    assert len(made.server.of(AuthPartial)) == 1


def test_requests_after_the_login_are_ignored() -> None:
    made = Pair().run()
    made.client.send(password("wrong"), request("none"), password(user="root"))
    made.run()
    assert made.server.ended is None
    assert len(made.server.of(LoggedIn)) == 1
    assert made.server.of(AuthFailed) == []


@pytest.mark.parametrize("service", ["ssh-connection", "ssh-userauth\0", ""])
def test_unknown_service_is_refused(service: str) -> None:
    made = Pair()
    made.client.engine._transport._greeted = True  # it shall not ask for ssh-userauth
    made.run()
    made.client.send(ServiceRequest(service))
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, ServiceNotAvailable)
    assert made.client.ended is not None
    assert made.client.ended.reason_code == 7


def test_authentication_for_another_service_is_refused() -> None:
    made = idle(allow=Allow())
    made.client.send(request("password", PasswordData(False, PASSWORD).encode(), service="ssh-userauth"))
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, ServiceNotAvailable)
    assert not logged_in(made)


def test_banner_comes_once_before_the_first_answer() -> None:
    made = pair(PasswordCredential("wrong"), PasswordCredential(PASSWORD), banner="Welcome\n").run()
    assert made.client.of(BannerReceived) == [BannerReceived("Welcome\n")]
    answers = [number for number in made.client.numbers if 51 <= number <= 53]
    assert answers == [53, 51, 51, 52]


def test_credentials_do_not_show_their_secrets() -> None:
    assert PASSWORD not in repr(PasswordCredential(PASSWORD))
    assert PASSWORD not in repr(InteractiveCredential("", (PASSWORD,)))
    assert PASSWORD not in repr(PasswordData(False, PASSWORD))
    assert PASSWORD not in repr(UserauthInfoResponse(1, text(PASSWORD)))


# The client.


def test_client_that_is_asked_for_a_new_password_gives_up() -> None:
    made = pair(PasswordCredential(PASSWORD), allow=...).run()
    made.server.send(b"\x3c" + text("change it") + text(""))
    made.run()
    assert made.client.of(AuthRefused) == [AuthRefused(())]
    assert made.client.ended is None


def test_client_ignores_answers_that_come_after_the_login() -> None:
    made = Pair(client_answers={CredentialQuestion: ...}, server_answers={AuthQuestion: Allow()}).run()
    (question,) = made.client.asked(CredentialQuestion)
    made.server.send(UserauthSuccess())
    made.run()
    before = len(made.server.payloads)
    made.client.engine.answer(question.token, PasswordCredential(PASSWORD))
    made.run()
    assert made.client.of(LoggedIn)
    assert len(made.server.payloads) == before


def test_client_that_cannot_sign_goes_on() -> None:
    token = PublicKeyCredential(ED.public, "ssh-ed25519", signed=True)
    made = pair(token, PasswordCredential(PASSWORD), auth_methods=(("publickey",), ("password",)))
    made.client.keys[ED.public.blob] = NoSigner()  # type: ignore[assignment]
    made.run()
    assert [event.method for event in made.server.of(LoggedIn)] == ["password"]


class NoSigner:
    def sign(self, _algorithm: str, _data: bytes) -> None:
        return None
