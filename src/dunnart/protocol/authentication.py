"""The server's side of authentication: RFC 4252, keyboard-interactive (RFC 4256), GSS-API (RFC 4462), chains, FIDO.

One request is decided at a time; further ones wait in a bounded row. A decision belongs to the very request that asked
for it: nothing of a query, a failed attempt or another method outlives it (THREATS R12).

    request ──► method enabled? well-formed? ──► AuthQuestion ──► Deny ──────────────────────► FAILURE, counted
                                                  │ ▲      Allow ──► signature holds? ──► chain complete? ──► SUCCESS
                                                  ▼ └──── INFO_RESPONSE ◄── Prompt               │no
                                                    └──── token or MIC ◄── GssapiStep            │
                                           (parked requests)                                     └──► FAILURE, partial
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from dunnart.errors import DecodeError, KeyFormatError, LimitExceeded, RemoteProtocolError, RightsConflict
from dunnart.keys.public import CERTIFICATE_SUFFIX, PublicKey
from dunnart.keys.rights import EVERYTHING
from dunnart.protocol import phases
from dunnart.protocol.events import AuthFailed, AuthPartial, LoggedIn
from dunnart.protocol.phases import Stage
from dunnart.protocol.proofs import HOSTBOUND, SERVICE, signed_request, signed_with_mic, unproven
from dunnart.protocol.questions import (
    Allow,
    AuthQuestion,
    Credential,
    Deny,
    GssapiCredential,
    GssapiStep,
    InteractiveCredential,
    MethodsQuestion,
    NoneCredential,
    PasswordCredential,
    Prompt,
    PublicKeyCredential,
)
from dunnart.wire.encoding import Reader, boolean, text
from dunnart.wire.messages import (
    GssapiData,
    GssapiKeyexData,
    HostboundQuery,
    HostboundSigned,
    InteractiveData,
    PasswordData,
    PublicKeyQuery,
    PublicKeySigned,
    UserauthBanner,
    UserauthFailure,
    UserauthGssapiExchangeComplete,
    UserauthGssapiMic,
    UserauthGssapiResponse,
    UserauthGssapiToken,
    UserauthInfoRequest,
    UserauthInfoResponse,
    UserauthPkOk,
    UserauthRequest,
    UserauthSuccess,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.keys.certificate import Certificate
    from dunnart.protocol.core import Core

_WITH_MIC, _KEYEX = "gssapi-with-mic", "gssapi-keyex"
_PARKED_BYTES = 64 * 1024
_LONGEST_USER = 255
_MOST_REQUESTS = 100
_SHOWN_ID = 200


class ServiceNotAvailable(RemoteProtocolError):
    """The client asks for a service that this server does not have."""

    disconnect_code = 7
    disconnect_text = "service not available"


class TooManyFailures(RemoteProtocolError):
    """The client used up its attempts (THREATS R14)."""

    disconnect_code = 14
    disconnect_text = "too many authentication failures"


class ServerAuthentication:
    """One connection's way to its login; dropped once that is done.

    Args:
        core: the engine's shared state.
        done: called once the user is in.
    """

    __slots__ = (
        "_answering", "_banner_sent", "_chains", "_core", "_done", "_failures", "_grants", "_parked", "_parked_bytes",
        "_passed", "_prompts", "_requests", "_rights", "_user",
    )  # fmt: skip

    def __init__(self, core: Core, done: Callable[[], None]) -> None:
        self._core = core
        self._done = done
        self._user: str | None = None
        self._chains = core.config.auth_methods
        self._passed: tuple[str, ...] = ()
        self._grants: tuple[object, ...] = ()
        self._rights = EVERYTHING
        self._failures = 0
        self._requests = 0
        self._banner_sent = False
        self._answering = False
        self._prompts = 0
        self._parked: deque[bytes] = deque()
        self._parked_bytes = 0

    @property
    def user(self) -> str | None:
        """The user name last tried."""
        return self._user

    @property
    def failures(self) -> int:
        """Requests that were refused and counted."""
        return self._failures

    def completes(self, credential: Credential, reply: object) -> bool:
        """Tell whether this answer to the question that is out lets the user in: it is proved, and ends a chain."""
        if not isinstance(reply, Allow) or (*self._passed, credential.method) not in self._chains:
            return False
        if isinstance(credential, GssapiCredential):
            return credential.mic is not None
        if not isinstance(credential, PublicKeyCredential):
            return True
        signed = signed_request(self._core.session_id, self._user or "", credential)
        return credential.signed and not unproven(credential, signed, reply)

    def receive(self, number: int, payload: memoryview) -> None:
        """Handle USERAUTH_REQUEST, USERAUTH_INFO_RESPONSE and what a GSS-API mechanism sends."""
        if self._answering:
            self._parked_bytes += len(payload)
            if self._parked_bytes > _PARKED_BYTES:
                raise LimitExceeded("too many authentication requests at once")
            self._parked.append(bytes(payload))
        else:
            self._receive(number, payload)

    def _receive(self, number: int, payload: bytes | memoryview) -> None:
        stage = self._core.stage
        if number == phases.USERAUTH_REQUEST:
            # RFC 4256 §3.1, 4462 §3.4: a new request abandons the prompts that are out, and a mechanism's exchange.
            self._core.stage = Stage.AUTH
            self._receive_request(payload)
        elif stage is Stage.INTERACTIVE:
            self._core.stage = Stage.AUTH
            self._receive_responses(payload)
        elif stage is Stage.GSSAPI:
            self._receive_gssapi(number, payload)
        # else: it was sent before the client could know that the exchange had failed

    def _resume(self) -> None:
        self._answering = False
        while self._parked and not self._answering and self._core.stage is not Stage.CONNECTION:
            payload = self._parked.popleft()
            self._parked_bytes -= len(payload)
            self._receive(payload[0], payload)

    def _receive_request(self, payload: bytes | memoryview) -> None:
        request = UserauthRequest.decode(payload)
        core = self._core
        if request.service != SERVICE:
            raise ServiceNotAvailable(f"service {request.service!r} asked for")
        if request.user != self._user:
            # RFC 4252 §5: another user starts from nothing.
            self._user = request.user
            self._passed = self._grants = ()
            self._rights = EVERYTHING
            self._chains = () if core.config.asks_methods else core.config.auth_methods
            if core.config.asks_methods and _possible(request.user):
                self._answering = True
                core.ask(MethodsQuestion, partial(self._methods_known, request), request.user)
                return
        self._try(request)

    def _methods_known(self, request: UserauthRequest, reply: object) -> None:
        self._answering = False
        self._chains = reply if isinstance(reply, tuple) else ()
        self._try(request)
        if not self._answering:
            self._resume()

    def _try(self, request: UserauthRequest) -> None:
        core = self._core
        if core.config.banner and not self._banner_sent:
            self._banner_sent = True
            core.send(UserauthBanner(core.config.banner).encode())
        self._requests += 1
        if self._requests > _MOST_REQUESTS:  # conversations that are begun and left are no failures
            raise TooManyFailures(f"{self._requests} requests")
        if request.method == "none" and self._requests == 1 and "none" not in self._methods():
            # Clients ask so for the list of methods; the first time is free.
            self._refuse("none", "", counted=False)
            return
        if not _possible(request.user):
            self._refuse(request.method, "impossible user name")
            return
        enabled = "publickey" if request.method == HOSTBOUND else request.method
        if enabled not in self._methods():
            self._refuse(request.method, "method not enabled")
            return
        try:
            handler = {
                "none": self._try_none,
                "publickey": self._try_public_key,
                HOSTBOUND: self._try_public_key,
                "password": self._try_password,
                "keyboard-interactive": self._try_interactive,
                _WITH_MIC: self._try_gssapi,
                _KEYEX: self._try_gssapi_keyex,
            }[request.method]
            handler(request)
        except (DecodeError, KeyFormatError) as error:
            self._refuse(request.method, str(error))

    def _methods(self) -> tuple[str, ...]:
        """Those that go on from what has passed, in the chains' order."""
        passed, chains = self._passed, self._chains
        count = len(passed)
        return tuple(dict.fromkeys(chain[count] for chain in chains if chain[:count] == passed and len(chain) > count))

    # The methods.

    def _try_none(self, request: UserauthRequest) -> None:
        if request.method_data:
            raise DecodeError("none has a body")
        self._ask(NoneCredential())

    def _try_password(self, request: UserauthRequest) -> None:
        if request.method_data[:1] not in (b"", b"\0"):
            self._refuse("password", "password changes are not offered")
            return
        data = PasswordData.decode(request.method_data)
        if "\0" in data.password or len(data.password.encode()) > self._core.config.limits.password_bytes:
            self._refuse("password", "impossible password")
            return
        self._ask(PasswordCredential(data.password))

    def _try_interactive(self, request: UserauthRequest) -> None:
        data = InteractiveData.decode(request.method_data)
        self._ask(InteractiveCredential(data.submethods, None))

    def _try_gssapi(self, request: UserauthRequest) -> None:
        data = GssapiData.decode(request.method_data)
        reader = Reader(data.mechanisms)
        mechanisms = tuple(reader.string() for _ in range(data.count))  # a short read ends a lying count (THREATS R8)
        reader.end()
        self._ask(GssapiCredential(mechanisms))

    def _try_gssapi_keyex(self, request: UserauthRequest) -> None:
        mic = GssapiKeyexData.decode(request.method_data).mic
        self._ask(self._mic(mic, _KEYEX))

    def _mic(self, mic: bytes, method: str) -> GssapiCredential:
        assert self._user is not None
        signed = signed_with_mic(self._core.session_id, self._user, method)
        return GssapiCredential(mic=mic, signed=signed, method=method)

    def _receive_gssapi(self, number: int, payload: bytes | memoryview) -> None:
        try:
            if number == UserauthGssapiToken.number:
                self._ask(GssapiCredential(token=UserauthGssapiToken.decode(payload).token))
            elif number == UserauthGssapiMic.number:
                mic = UserauthGssapiMic.decode(payload).mic
                self._ask(self._mic(mic, _WITH_MIC))
            elif number == UserauthGssapiExchangeComplete.number:
                self._refuse(_WITH_MIC, "the mechanism does not protect integrity")
            else:  # RFC 4462 §3.9: the client goes on with its next request, and waits for no answer to this
                self._refuse(_WITH_MIC, "the client's mechanism failed", answered=False)
        except DecodeError as error:
            self._refuse(_WITH_MIC, str(error))

    def _try_public_key(self, request: UserauthRequest) -> None:
        core = self._core
        hostbound = request.method == HOSTBOUND
        data = request.method_data
        query: PublicKeyQuery | PublicKeySigned | HostboundQuery | HostboundSigned
        signature = b""
        if data[:1] == b"\0":
            query = HostboundQuery.decode(data) if hostbound else PublicKeyQuery.decode(data)
        else:
            query = HostboundSigned.decode(data) if hostbound else PublicKeySigned.decode(data)
            signature = query.signature
        if isinstance(query, HostboundQuery | HostboundSigned) and query.host_key != core.server_key:
            self._refuse("publickey", "signed for another host key")
            return
        if query.algorithm not in core.config.algorithms.user_key:
            self._refuse("publickey", f"algorithm {query.algorithm} is not accepted")
            return
        shown = _decoded(query.algorithm, query.key)
        if query.algorithm not in shown.signature_algorithms:
            self._refuse("publickey", f"a {shown.key_type} key cannot sign as {query.algorithm}")
            return
        key, certificate = (shown, None) if isinstance(shown, PublicKey) else (shown.key, shown)
        bound = core.server_key if hostbound else None
        self._ask(PublicKeyCredential(key, query.algorithm, query.has_signature, certificate, signature, bound))

    def _ask(self, credential: Credential) -> None:
        self._answering = True
        assert self._user is not None
        self._core.ask(AuthQuestion, partial(self._answered, credential), self._user, credential)

    # The answers.

    def _answered(self, credential: Credential, reply: object) -> None:
        core = self._core
        method = credential.method
        if isinstance(reply, Prompt) and isinstance(credential, InteractiveCredential):
            self._answering = False
            self._prompts = len(reply.prompts)
            core.stage = Stage.INTERACTIVE
            core.send(UserauthInfoRequest(
                reply.name, reply.instruction, b"", len(reply.prompts),
                b"".join(text(prompt) + boolean(echo) for prompt, echo in reply.prompts),
            ).encode())  # fmt: skip
            self._resume()
            return
        if isinstance(reply, GssapiStep) and isinstance(credential, GssapiCredential) and credential.mic is None:
            if credential.token is None:
                core.stage = Stage.GSSAPI
                core.send(UserauthGssapiResponse(reply.data).encode())
            elif reply.data:
                core.send(UserauthGssapiToken(reply.data).encode())
            self._resume()
            return
        core.stage = Stage.AUTH
        if isinstance(credential, GssapiCredential) and credential.mic is None and isinstance(reply, Allow):
            reply = Deny("allowed before the proof")
        if not isinstance(reply, Allow):
            denied = reply if isinstance(reply, Deny) else Deny("no answer")
            self._refuse(
                method, denied.detail, counted=not denied.silent, detail_of=credential, unknown_user=denied.unknown_user
            )
        elif isinstance(credential, PublicKeyCredential) and not credential.signed:
            core.send(UserauthPkOk(credential.algorithm, (credential.certificate or credential.key).blob).encode())
        elif isinstance(credential, PublicKeyCredential) and (
            reason := unproven(credential, signed_request(core.session_id, self._user or "", credential), reply)
        ):
            self._refuse(method, reason, detail_of=credential)
        else:
            try:
                self._succeed(credential, reply)
            except RightsConflict as error:
                self._refuse(method, str(error), detail_of=credential)
        self._resume()

    def _receive_responses(self, payload: bytes | memoryview) -> None:
        try:
            message = UserauthInfoResponse.decode(payload)
            reader = Reader(message.responses)
            responses = [reader.text() for _ in range(message.count)]  # a short read ends a lying count (THREATS R8)
            reader.end()
        except DecodeError as error:
            self._refuse("keyboard-interactive", str(error))
            return
        if len(responses) != self._prompts:  # RFC 4256 §3.4
            self._refuse("keyboard-interactive", f"{len(responses)} responses to {self._prompts} prompts")
            return
        if any("\0" in item or len(item.encode()) > self._core.config.limits.password_bytes for item in responses):
            self._refuse("keyboard-interactive", "impossible response")
            return
        self._ask(InteractiveCredential("", tuple(responses)))

    def _refuse(
        self,
        method: str,
        detail: str,
        *,
        counted: bool = True,
        detail_of: Credential | None = None,
        unknown_user: bool = False,
        answered: bool = True,
    ) -> None:
        core = self._core
        assert self._user is not None
        core.stage = Stage.AUTH
        if counted:
            self._failures += 1
            if isinstance(detail_of, PublicKeyCredential):
                detail = f"{_describe(detail_of)} {detail}".rstrip()
            core.emit(AuthFailed(self._user, method, detail, unknown_user))
            if self._failures >= core.config.limits.max_auth_tries:
                raise TooManyFailures(f"{self._failures} failures")
        if answered:
            core.send(UserauthFailure(self._methods(), partial_success=False).encode())

    def _succeed(self, credential: Credential, reply: Allow) -> None:
        core = self._core
        assert self._user is not None
        if reply.rights is not None:
            self._rights = self._rights.both(reply.rights)
        self._passed = (*self._passed, credential.method)
        self._grants = (*self._grants, reply.grant)
        if self._passed not in self._chains:
            core.emit(AuthPartial(self._user, credential.method))
            core.send(UserauthFailure(self._methods(), partial_success=True).encode())
            return
        core.send(UserauthSuccess().encode())
        core.stage = Stage.CONNECTION
        key = credential.key if isinstance(credential, PublicKeyCredential) else None
        core.emit(LoggedIn(self._user, credential.method, _describe(credential), self._grants, key, self._rights))
        self._done()


def _possible(user: str) -> bool:
    return "\0" not in user and len(user) <= _LONGEST_USER


def _decoded(algorithm: str, blob: bytes) -> PublicKey | Certificate:
    if not algorithm.endswith(CERTIFICATE_SUFFIX):
        return PublicKey.decode(blob)
    from dunnart.keys.certificate import Certificate

    return Certificate.decode(blob)


_SHORT_NAMES = {
    "ssh-ed25519": "ED25519",
    "ssh-rsa": "RSA",
    "ssh-dss": "DSA",
    "sk-ssh-ed25519@openssh.com": "ED25519-SK",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ECDSA-SK",
}


def _describe(credential: Credential) -> str:
    if not isinstance(credential, PublicKeyCredential):
        return ""
    if (certificate := credential.certificate) is None:
        return _described(credential.key)
    # As sshd has it: the key, then the certificate, then who signed that.
    kind, _, fingerprint = _described(credential.key).partition(" ")
    return (
        f"{kind}-CERT {fingerprint} ID {certificate.key_id[:_SHOWN_ID]} (serial {certificate.serial}) "
        f"CA {_described(certificate.authority)}"
    )


def _described(key: PublicKey) -> str:
    return f"{_SHORT_NAMES.get(key.key_type, 'ECDSA')} {key.fingerprint()}"
