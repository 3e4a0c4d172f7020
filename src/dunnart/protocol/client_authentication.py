"""The client's side of authentication, RFC 4252 and 4256: asks its owner for one credential after the other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from dunnart.errors import UnexpectedMessage
from dunnart.protocol.events import AuthRefused, BannerReceived, LoggedIn
from dunnart.protocol.phases import Stage
from dunnart.protocol.questions import (
    CredentialQuestion,
    InteractiveCredential,
    NoneCredential,
    PasswordCredential,
    Prompt,
    PromptQuestion,
    PublicKeyCredential,
    SignQuestion,
)
from dunnart.wire.encoding import Reader, string, text
from dunnart.wire.messages import (
    InteractiveData,
    PasswordData,
    PublicKeyQuery,
    UserauthBanner,
    UserauthFailure,
    UserauthInfoRequest,
    UserauthInfoResponse,
    UserauthPkOk,
    UserauthRequest,
    UserauthSuccess,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.protocol.core import Core

_SERVICE = "ssh-connection"


class ClientAuthentication:
    """One connection's way to its login; dropped once that is done.

    Args:
        core: the engine's shared state.
        done: called once the user is in.
    """

    __slots__ = ("_core", "_done", "_tried")

    def __init__(self, core: Core, done: Callable[[], None]) -> None:
        self._core = core
        self._done = done
        self._tried: object = None

    def start(self) -> None:
        """Ask for the list of methods, by trying none."""
        self._try(NoneCredential())

    def receive(self, number: int, payload: memoryview) -> None:
        """Handle messages 51, 52, 53 and 60."""
        core = self._core
        if number == UserauthSuccess.number:
            UserauthSuccess.decode(payload)
            core.stage = Stage.CONNECTION
            method = getattr(self._tried, "method", "none")
            core.emit(LoggedIn(core.config.user, method, "", ()))
            self._done()
        elif number == UserauthFailure.number:
            message = UserauthFailure.decode(payload)
            core.ask(
                CredentialQuestion, partial(self._chosen, message.methods), message.methods, message.partial_success
            )
        elif number == UserauthBanner.number:
            core.emit(BannerReceived(UserauthBanner.decode(payload).text))
        elif isinstance(self._tried, InteractiveCredential):
            self._receive_prompts(UserauthInfoRequest.decode(payload))
        elif isinstance(self._tried, PublicKeyCredential) and not self._tried.signed:
            self._receive_ok(UserauthPkOk.decode(payload), self._tried)
        elif isinstance(self._tried, PasswordCredential):
            # PASSWD_CHANGEREQ: we have no new password to offer (RFC 4252 §8).
            core.ask(CredentialQuestion, partial(self._chosen, ()), (), False)  # noqa: FBT003
        else:
            raise UnexpectedMessage("message 60 answers nothing that was asked")

    # Answers that come after the login have nothing to go to.

    def _chosen(self, methods: tuple[str, ...], credential: object) -> None:
        if self._core.stage is Stage.CONNECTION:
            return
        if credential is None:
            self._core.emit(AuthRefused(methods))
        else:
            self._try(credential)

    def _try(self, credential: object) -> None:
        core = self._core
        self._tried = credential
        data = b""
        method = "none"
        if isinstance(credential, PasswordCredential):
            method = credential.method
            data = PasswordData(change=False, password=credential.password).encode()
        elif isinstance(credential, InteractiveCredential):
            method = credential.method
            data = InteractiveData(b"", credential.submethods).encode()
        elif isinstance(credential, PublicKeyCredential):
            method = credential.method
            data = PublicKeyQuery(credential.signed, credential.algorithm, _shown(credential)).encode()
            if credential.signed:
                request = UserauthRequest(core.config.user, _SERVICE, method, data).encode()
                signed = string(core.session_id) + request
                from dunnart.keys.certificate import plain_name

                algorithm = plain_name(credential.algorithm) or credential.algorithm
                core.ask(SignQuestion, partial(self._signed, request), credential.key, algorithm, signed)
                return
        core.send(UserauthRequest(core.config.user, _SERVICE, method, data).encode())

    def _receive_ok(self, message: UserauthPkOk, asked: PublicKeyCredential) -> None:
        if message.algorithm != asked.algorithm or message.key != _shown(asked):
            raise UnexpectedMessage("the server would take another key than was asked about")
        self._try(replace(asked, signed=True))

    def _signed(self, request: bytes, signature: object) -> None:
        if self._core.stage is Stage.CONNECTION:
            return
        if isinstance(signature, bytes):
            self._core.send(request + string(signature))
        else:
            self._core.ask(CredentialQuestion, partial(self._chosen, ()), (), False)  # noqa: FBT003

    def _receive_prompts(self, message: UserauthInfoRequest) -> None:
        reader = Reader(message.prompts)
        # A short read ends a lying count (THREATS R8).
        prompts = [(reader.text(), reader.boolean()) for _ in range(message.count)]
        reader.end()
        prompt = Prompt(tuple(prompts), message.name, message.instruction)
        if not prompts:
            self._responded(())
        else:
            self._core.ask(PromptQuestion, self._responded, prompt)

    def _responded(self, responses: object) -> None:
        if self._core.stage is Stage.CONNECTION:
            return
        if isinstance(responses, tuple):
            answers = b"".join(text(item) for item in responses)
            self._core.send(UserauthInfoResponse(len(responses), answers).encode())
        else:  # another request ends the conversation (RFC 4256 §3.1); sshd hangs up on an answer to no question
            self._core.ask(CredentialQuestion, partial(self._chosen, ()), (), False)  # noqa: FBT003


def _shown(credential: PublicKeyCredential) -> bytes:
    return (credential.certificate or credential.key).blob
