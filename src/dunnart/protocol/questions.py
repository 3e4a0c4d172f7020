"""Decisions that the engine leaves to its owner.

The engine emits a `Question` among its events, parks only what waits for it, and goes on at `answer(token, reply)`.
A question that is never answered, or too late, counts as denied.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, ClassVar

from dunnart.keys.rights import Rights
from dunnart.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.keys.certificate import Certificate
    from dunnart.keys.public import PublicKey
    from dunnart.protocol.requests import ChannelRequest, GlobalRequest, OpenRequest


@dataclass(frozen=True, slots=True)
class Question:
    """What all questions share: `token` names it in the answer."""

    token: int


@dataclass(frozen=True, slots=True)
class SignQuestion(Question):
    """Sign `data` with the private half of `key`. Reply: the signature blob (bytes), or None.

    Where `data` is an exchange hash, `made_of` is what it is the hash of, the shared secret included (RFC 4253 §8).
    """

    key: PublicKey
    algorithm: str
    data: bytes
    made_of: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class WorkQuestion(Question):
    """Call `work` where it blocks nobody. Reply: its result, or the exception it raised."""

    work: Callable[[], object]


@dataclass(frozen=True, slots=True)
class HostKeyQuestion(Question):
    """Is this the server's key, or a good certificate of it? (client) Reply: True or False."""

    key: PublicKey | Certificate


@dataclass(frozen=True, slots=True)
class NoneCredential:
    """RFC 4252 §5.2: no credential at all."""

    method = "none"


@dataclass(frozen=True, slots=True)
class PublicKeyCredential:
    """RFC 4252 §7. Without `signed` the client only asks whether the key would do.

    The signature is verified by the engine after the key was allowed; nothing of a query outlives its answer.

    Attributes:
        key: the public key, also where it comes with a certificate.
        algorithm: the signature algorithm, or a certificate's name of it.
        certificate: what the client logs in with in the place of the plain key.
        signature: what was `signed`, over `dunnart.protocol.proofs.signed_request`.
        host_key: the server's key, as it was shown, that the signature is bound to as well; None: to none.
    """

    key: PublicKey
    algorithm: str
    signed: bool
    certificate: Certificate | None = None
    signature: bytes = field(default=b"", repr=False, compare=False)
    host_key: bytes | None = field(default=None, repr=False, compare=False)
    method = "publickey"


@dataclass(frozen=True, slots=True)
class PasswordCredential:
    """RFC 4252 §8."""

    password: str
    method = "password"

    def __repr__(self) -> str:
        return "PasswordCredential(…)"


@dataclass(frozen=True, slots=True)
class InteractiveCredential:
    """RFC 4256: the answers to the last `Prompt`; none yet when `responses` is None."""

    submethods: str
    responses: tuple[str, ...] | None
    method = "keyboard-interactive"

    def __repr__(self) -> str:
        return f"InteractiveCredential(submethods={self.submethods!r}, responses=…)"


@dataclass(frozen=True, slots=True)
class GssapiCredential:
    """RFC 4462 §3: one step of a login by GSS-API.

    First come the client's mechanisms, and `GssapiStep` answers with one of them; then tokens, each answered by
    `GssapiStep`; at last a MIC, which decides.

    Attributes:
        mechanisms: the DER forms of the OIDs, the client's favourite first; () but in the first step.
        token: the mechanism's, None but in the steps that follow.
        mic: a message integrity code over `signed`, None but in the last step. Both are the proof: of this user, on
            this connection.
        method: "gssapi-with-mic", or "gssapi-keyex" (RFC 4462 §4), whose only step is the MIC, made by the context that
            keys were exchanged with.
    """

    mechanisms: tuple[bytes, ...] = ()
    token: bytes | None = None
    mic: bytes | None = None
    signed: bytes = b""
    method: str = "gssapi-with-mic"

    def __repr__(self) -> str:
        return f"GssapiCredential(mechanisms={self.mechanisms!r}, …)"


@dataclass(frozen=True, slots=True)
class GssapiKeyExchange:
    """RFC 4462 §2: one step of a key exchange by GSS-API, in which the mechanism proves the server.

    Attributes:
        token: the client's, None in the last step.
        first: the exchange begins with it.
        digest: the exchange hash, None but in the last step; `GssapiStep` answers with a MIC of it.
        made_of: what that is the hash of.
    """

    token: bytes | None = None
    first: bool = False
    digest: bytes | None = None
    made_of: bytes = field(default=b"", repr=False)
    method = "gssapi-keyex"


Credential = (
    NoneCredential | PublicKeyCredential | PasswordCredential | InteractiveCredential | GssapiCredential
    | GssapiKeyExchange
)  # fmt: skip
"""What an authenticator is asked about. `GssapiKeyExchange` is none in truth: it comes before there is a user."""


@dataclass(frozen=True, slots=True)
class AuthQuestion(Question):
    """May `user` in with this credential? (server) Reply: `Allow`, `Deny`, `Prompt` or `GssapiStep`."""

    user: str
    credential: Credential


@dataclass(frozen=True, slots=True)
class MethodsQuestion(Question):
    """How may `user` log in? (server) Asked only where each user has chains of their own.

    Reply: the chains, a tuple of tuples of methods' names; anything else, and none, lets nobody in.
    """

    user: str


@dataclass(frozen=True, slots=True)
class GssapiQuestion(Question):
    """What does the mechanism say to this step of a key exchange? (server) Reply: `GssapiStep`, or `Deny`."""

    step: GssapiKeyExchange


@dataclass(frozen=True, slots=True)
class Allow:
    """The credential is good.

    Attributes:
        grant: whatever the owner wants to find in `LoggedIn.grants`.
        rights: what the login may do; None: everything. Those of all the chain's methods are put together.
        touch: a FIDO key must have been touched (OpenSSH's no-touch-required unset).
        verify: a FIDO key must have verified its user (OpenSSH's verify-required).
    """

    grant: object = None
    rights: Rights | None = None
    touch: bool = True
    verify: bool = False

    def __post_init__(self) -> None:
        # What is meant to take something away must not get lost as a grant that nobody looks at.
        if isinstance(self.grant, Rights) or not isinstance(self.rights, Rights | None):
            raise TypeError("Allow takes rights, and nothing else, as its second argument or by name")


@dataclass(frozen=True, slots=True)
class Deny:
    """The credential is not good. Nothing of this but the refusal reaches the peer.

    Attributes:
        detail: why, for the log.
        silent: do not count it as a failure.
        unknown_user: there is no such user; logged, and penalised, as sshd does.
        final: nobody else is to be asked who might allow it.
    """

    detail: str = ""
    silent: bool = False
    unknown_user: bool = False
    final: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ask the user (keyboard-interactive): pairs of text and echo."""

    prompts: tuple[tuple[str, bool], ...]
    name: str = ""
    instruction: str = ""


@dataclass(frozen=True, slots=True)
class GssapiStep:
    """A login by GSS-API goes on.

    Attributes:
        data: to the first step the chosen mechanism, in DER form; then the mechanism's token for the client, b"" if it
            has none; to the last step of a key exchange the MIC.
        complete: the context of a key exchange is established, with mutual authentication and integrity.
    """

    data: bytes
    complete: bool = False


AuthReply = Allow | Deny | Prompt | GssapiStep


@dataclass(frozen=True, slots=True)
class CredentialQuestion(Question):
    """The client's: which credential is to be tried next?

    Reply: a `PasswordCredential`, a `PublicKeyCredential`, an `InteractiveCredential` with responses None, or None to
    give up. `methods` are those that can go on. A key that is not `signed` is asked about first, which costs a round
    trip, and its signature is wanted only if the server would take it.
    """

    methods: tuple[str, ...]
    partial: bool


@dataclass(frozen=True, slots=True)
class PromptQuestion(Question):
    """The server asks (client, keyboard-interactive). Reply: a tuple with a string for each prompt, or None."""

    prompt: Prompt


@dataclass(frozen=True, slots=True)
class ChannelOpenQuestion(Question):
    """The peer wants a channel. Reply: True, or a `Refusal`."""

    request: OpenRequest


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a channel is refused: a reason code of RFC 4254 §5.1 and a text that the peer sees."""

    ADMINISTRATIVELY_PROHIBITED: ClassVar[int] = 1
    CONNECT_FAILED: ClassVar[int] = 2
    UNKNOWN_CHANNEL_TYPE: ClassVar[int] = 3
    RESOURCE_SHORTAGE: ClassVar[int] = 4

    reason_code: int = ADMINISTRATIVELY_PROHIBITED
    description: str = "administratively prohibited"


@dataclass(frozen=True, slots=True)
class ChannelRequestQuestion(Question):
    """The peer asks something of a channel. Reply: True or False. Answers go out in the order of the requests."""

    channel: int
    request: ChannelRequest


@dataclass(frozen=True, slots=True)
class GlobalRequestQuestion(Question):
    """The peer asks something of the connection. Reply: True, False, or bytes (success with data)."""

    request: GlobalRequest
