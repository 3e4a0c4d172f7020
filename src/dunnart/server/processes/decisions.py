"""Logins in frames: what an authenticator is asked, and what it decides, from one process to the other and back."""

from __future__ import annotations

from dunnart.keys.certificate import decode_public
from dunnart.keys.public import PublicKey
from dunnart.keys.rights import Rights
from dunnart.protocol.questions import (
    Allow,
    AuthReply,
    Credential,
    Deny,
    GssapiCredential,
    GssapiKeyExchange,
    GssapiStep,
    InteractiveCredential,
    NoneCredential,
    PasswordCredential,
    Prompt,
    PublicKeyCredential,
)
from dunnart.server.authentication import Attempt
from dunnart.server.facts import Address
from dunnart.server.processes.frames import AuthAnswered, AuthAsked, join_texts, split_texts
from dunnart.wire.encoding import Reader, string, uint32

_DENIED, _ALLOWED, _PROMPTED, _STEPPED = 0, 1, 2, 3
_MECHANISMS, _TOKEN, _MIC, _FIRST, _NEXT, _DIGEST = (bytes((number,)) for number in range(6))
_SILENT, _UNKNOWN_USER, _TOUCH, _VERIFY, _NO_PTY = 1, 2, 4, 8, 16
_LONGEST_HASH = 64
_WITHOUT_PTY = Rights(pty=False)


def asked(token: int, attempt: Attempt) -> AuthAsked:
    """Put an attempt into a frame."""
    credential = attempt.credential
    text, algorithm, signed, data, answered = "", "", False, b"", False
    if isinstance(credential, PasswordCredential):
        text = credential.password
    elif isinstance(credential, PublicKeyCredential):
        algorithm, signed, answered = credential.algorithm, credential.signed, credential.host_key is not None
        data = string((credential.certificate or credential.key).blob) + string(credential.signature)
        data += credential.host_key or b""
    elif isinstance(credential, InteractiveCredential):
        text, answered = credential.submethods, credential.responses is not None
        data = join_texts(credential.responses or ())
    elif isinstance(credential, GssapiCredential):
        data = _gssapi_data(credential)
    elif isinstance(credential, GssapiKeyExchange):
        data = _exchange_data(credential)
    return AuthAsked(
        token, attempt.connection, attempt.user, attempt.address, attempt.port, attempt.rounds, credential.method,
        text, algorithm, signed, data, answered, *attempt.local,
    )  # fmt: skip


def attempt_of(frame: AuthAsked) -> Attempt:
    """Make the attempt again.

    Raises:
        DecodeError: its fields are not what its method wants.
    """
    local = Address(frame.local_host, frame.local_port)
    return Attempt(frame.user, _credential(frame), frame.address, frame.rounds, frame.connection, frame.port, local)


def _credential(frame: AuthAsked) -> Credential:
    match frame.method:
        case "password":
            return PasswordCredential(frame.text)
        case "publickey":
            reader = Reader(frame.data)
            shown, signature, host_key = decode_public(reader.string()), reader.string(), reader.rest()
            key, certificate = (shown, None) if isinstance(shown, PublicKey) else (shown.key, shown)
            bound = host_key if frame.answered else None
            return PublicKeyCredential(key, frame.algorithm, frame.signed, certificate, signature, bound)
        case "keyboard-interactive":
            responses = tuple(split_texts(frame.data)) if frame.answered else None
            return InteractiveCredential(frame.text, responses)
        case "gssapi-with-mic" | "gssapi-keyex":
            return _gssapi_credential(frame.method, frame.data)
    return NoneCredential()


def _gssapi_data(credential: GssapiCredential) -> bytes:
    if credential.mic is not None:
        return _MIC + string(credential.mic) + credential.signed
    if credential.token is not None:
        return _TOKEN + credential.token
    return _MECHANISMS + b"".join(map(string, credential.mechanisms))


def _exchange_data(step: GssapiKeyExchange) -> bytes:
    if step.digest is not None:
        return _DIGEST + uint32(len(step.digest)) + step.made_of
    return (_FIRST if step.first else _NEXT) + (step.token or b"")


def _gssapi_credential(method: str, data: bytes) -> GssapiCredential | GssapiKeyExchange:
    kind, reader = data[:1], Reader(data, 1)
    if kind == _MIC:
        return GssapiCredential(mic=reader.string(), signed=reader.rest(), method=method)
    if method == GssapiKeyExchange.method:
        if kind == _DIGEST:
            return GssapiKeyExchange(digest=bytes(min(reader.uint32(), _LONGEST_HASH)), made_of=reader.rest())
        return GssapiKeyExchange(reader.rest(), first=kind == _FIRST)
    if kind == _TOKEN:
        return GssapiCredential(token=reader.rest())
    mechanisms = []
    while reader.remaining:
        mechanisms.append(reader.string())
    return GssapiCredential(tuple(mechanisms))


def answered(token: int, reply: object, grant: int = 0) -> AuthAnswered:
    """Put a decision into a frame; what is none denies.

    Args:
        token: the question's.
        reply: what the authenticator has given.
        grant: the number of what an `Allow` grants, and of its rights; 0: nothing.
    """
    if isinstance(reply, Allow):
        no_pty = reply.rights is not None and not reply.rights.pty
        flags = _TOUCH * reply.touch | _VERIFY * reply.verify | _NO_PTY * no_pty
        return AuthAnswered(token, _ALLOWED, flags, grant, b"")
    if isinstance(reply, Prompt):
        texts = [reply.name, reply.instruction]
        texts += [item for text, echo in reply.prompts for item in (text, "echo" if echo else "")]
        return AuthAnswered(token, _PROMPTED, 0, 0, join_texts(texts))
    if isinstance(reply, GssapiStep):
        return AuthAnswered(token, _STEPPED, int(reply.complete), 0, reply.data)
    denied = reply if isinstance(reply, Deny) else Deny("no answer")
    flags = _SILENT * denied.silent | _UNKNOWN_USER * denied.unknown_user
    detail = denied.detail.encode(errors="backslashreplace").decode()
    return AuthAnswered(token, _DENIED, flags, 0, join_texts([detail]))


def reply_of(frame: AuthAnswered) -> AuthReply:
    """Make the decision again; what it grants is a number here, and of the rights there is what the protocol obeys."""
    if frame.kind == _ALLOWED:
        rights = _WITHOUT_PTY if frame.flags & _NO_PTY else None
        return Allow(frame.grant or None, rights, bool(frame.flags & _TOUCH), bool(frame.flags & _VERIFY))
    if frame.kind == _STEPPED:
        return GssapiStep(frame.texts, complete=bool(frame.flags))
    texts = split_texts(frame.texts)
    if frame.kind == _PROMPTED:
        prompts = tuple((text, echo == "echo") for text, echo in zip(texts[2::2], texts[3::2], strict=True))
        return Prompt(prompts, texts[0], texts[1])
    return Deny(texts[0], bool(frame.flags & _SILENT), bool(frame.flags & _UNKNOWN_USER))
