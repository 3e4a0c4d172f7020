"""How users prove who they are: one-method objects, tried by the name of their method."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import ConfigError
from dunnart.keys.authorized_keys import AuthorizedKeys, Decision, parse
from dunnart.keys.public import PublicKey
from dunnart.keys.rights import EVERYTHING
from dunnart.protocol.questions import Allow, AuthReply, Credential, Deny, PasswordCredential, PublicKeyCredential
from dunnart.records import dataclass
from dunnart.runtime.logs import clean
from dunnart.server.facts import NOWHERE, Address

if TYPE_CHECKING:
    from dunnart.keys.revocation import RevokedKeys

_CA_ALGORITHMS = PROFILES["default"].ca_signature
_LOG = logging.getLogger("dunnart.auth")


async def _run_here(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - what the function gives
    result = function(*arguments)
    return await result if isinstance(result, Awaitable) else result


@dataclass(frozen=True, slots=True)
class Attempt:
    """One authentication request.

    Attributes:
        user: the name given; nothing is known of it yet.
        credential: what came with it; a public key's signature is verified after the key was allowed.
        address: the peer's IP address, "" for a unix socket; `port` is the peer's.
        rounds: for keyboard-interactive, how many answers came before this one.
        connection: the connection's number.
        local: the address and port that the client reached; ("", 0) for a unix socket.
        run: `await run(function, *arguments)` calls a function of the application where it belongs: a coroutine
            function on the application's event loop, a plain one in a thread.
    """

    user: str
    credential: Credential
    address: str
    rounds: int = 0
    connection: int = 0
    port: int = 0
    local: Address = NOWHERE
    run: Callable[..., Awaitable[Any]] = field(default=_run_here, repr=False, compare=False)


class Authenticator(Protocol):
    """Decides on requests of one method.

    `authenticate` returns `Allow`, `Deny`, `Prompt` (keyboard-interactive) or `GssapiStep` (gssapi-with-mic). An
    exception denies, and is logged; so does no answer within the server's `callback_seconds`. A user who does not exist
    must cost as much as one who does (THREATS R15); the answer's time has a floor anyway.

    It runs on the application's event loop. One with a true attribute `on_any_loop` promises that it needs no loop of
    its own and never blocks; then a busy application does not delay logins. One with a true attribute `travels` can be
    pickled, changes nothing and grants nothing: where the protocol has processes of its own that are not separated, a
    copy decides there.

    Only one with a true attribute `certificates` is asked about certificates, of which nothing but the form was
    checked: `PublicKeyCredential.certificate`. Others are for keys, and have not seen who signed what.

    One with a method `ended(connection)` is told, on the application's event loop, when a connection is gone for which
    it has been asked: what it keeps between the steps of a login, or for as long as it lasts, can go.
    """

    @property
    def method(self) -> str:
        """The method's name in RFC 4252 or 4462, one of `dunnart.server.config.METHODS`."""

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Decide on one request."""


def takes(authenticator: Authenticator, credential: Credential) -> bool:
    """Tell whether an authenticator is to be asked about a credential at all."""
    certified = isinstance(credential, PublicKeyCredential) and credential.certificate is not None
    return not certified or getattr(authenticator, "certificates", False) is True


class AllowAnyone:
    """Lets everybody in without any proof. To be named explicitly, never by default."""

    method = "none"
    on_any_loop = True
    travels = True

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Say yes."""
        return Allow()


class PasswordCallback:
    """Passwords, decided by `check(user, password)`.

    Args:
        check: whether the password is right: a coroutine function, which runs on the application's event loop, or a
            plain function, which runs in a thread.
    """

    method = "password"
    on_any_loop = True

    def __init__(self, check: Callable[[str, str], Awaitable[bool]] | Callable[[str, str], bool]) -> None:
        if not callable(check):
            raise ConfigError("is no function check(user, password)", key="check")
        self._check = check

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask the callback."""
        if not isinstance(attempt.credential, PasswordCredential):
            return Deny("not a password")
        allowed = await attempt.run(self._check, attempt.user, attempt.credential.password)
        return Allow() if allowed is True else Deny()


class KeyCallback:
    """Public keys, found by `find(user, address)`, or certificates, by lines with the option cert-authority.

    Args:
        find: gives the keys that may log in as `user` from `address`, an IP address: `PublicKey`s, or lines as in an
            authorized_keys file, whose options are obeyed. A coroutine function, which runs on the application's event
            loop, or a plain function, which runs in a thread.
    """

    method = "publickey"
    on_any_loop = True
    certificates = True

    def __init__(
        self,
        find: Callable[[str, str], Awaitable[Iterable[PublicKey | str]]]
        | Callable[[str, str], Iterable[PublicKey | str]],
    ) -> None:
        if not callable(find):
            raise ConfigError("is no function find(user, address)", key="find")
        self._find = find
        self._told = RefusedLines()

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask the callback, and look for the key among what it gives."""
        if not isinstance(attempt.credential, PublicKeyCredential):
            return Deny("not a public key")
        found = await attempt.run(self._find, attempt.user, attempt.address)
        keys = keys_among(found, f"the callback for {attempt.user}")
        self._told.tell(keys)
        return reply_of(decider(attempt)(keys))


class PublicKeys:
    """Public keys that may log in, the same for every user, as the lines of an authorized_keys file.

    A line with the option cert-authority lets certificates in: those that its key has signed, and that name the user
    among their principals, or one of the line's option principals.

    Args:
        text: the lines; their options are obeyed.
        users: who may log in with them; None: any name.
        variables: patterns of the names that the option environment may set.
        revoked: keys and certificates that let nobody in any more.

    Raises:
        ConfigError: a line lets nobody in; says which and why.
    """

    method = "publickey"
    on_any_loop = True
    certificates = True

    def __init__(
        self, text: str, *, users: Iterable[str] | None = None, variables: Iterable[str] = (),
        revoked: RevokedKeys | None = None,
    ) -> None:  # fmt: skip
        self._revoked = revoked
        self._keys = parse(text, "text", variables=variables)
        self._users = None if users is None else frozenset(users)
        for line, reason in self._keys.refused:
            raise ConfigError(f"line {line} lets nobody in: {reason}", key="text")
        if not self._keys.entries:
            raise ConfigError("holds no key", key="text")

    @property
    def travels(self) -> bool:
        """A copy may decide elsewhere, if the lines have no options."""
        return not any(entry.options for entry in self._keys.entries)

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Look for the key."""
        if not isinstance(attempt.credential, PublicKeyCredential):
            return Deny("not a public key")
        if self._users is not None and attempt.user not in self._users:
            return Deny("no such user here", unknown_user=True)
        shown = attempt.credential.certificate or attempt.credential.key
        if self._revoked is not None and (reason := self._revoked.reason(shown)):
            return Deny(reason)
        return reply_of(decider(attempt)(self._keys))


def keys_among(found: Iterable[PublicKey | str], source: str) -> AuthorizedKeys:
    """Make one list of keys and of lines as in an authorized_keys file; `source` is its name for logs."""
    lines = [each if isinstance(each, str) else each.line() for each in found]
    return parse("\n".join(lines), source)


def reply_of(decision: Decision, grant: object = None) -> AuthReply:
    """Make the answer of a decision.

    Args:
        decision: which line lets the key in, or why none does.
        grant: what an `Allow` grants beside the line's rights.
    """
    if decision.entry is None:
        return Deny("; ".join(dict.fromkeys(decision.reasons)), final=decision.final)
    terms = decision.entry.terms
    return Allow(grant, None if terms.rights == EVERYTHING else terms.rights, terms.touch, terms.verify)


def decider(
    attempt: Attempt, user: str | None = None, algorithms: Collection[str] = _CA_ALGORITHMS
) -> Callable[[AuthorizedKeys], Decision]:
    """Make the function that says whether lines let a key or a certificate in.

    Args:
        attempt: who wants in, with a `PublicKeyCredential`.
        user: the user's name, if it is written otherwise than in the attempt.
        algorithms: the signature algorithms that an authority may have used on a certificate.
    """
    credential = attempt.credential
    assert isinstance(credential, PublicKeyCredential)
    now = time.time()
    if credential.certificate is None:
        return lambda keys: keys.decide(credential.key, attempt.address, now)
    from dunnart.keys.certified import UserCertificate

    return UserCertificate(
        credential.certificate, user=user or attempt.user, address=attempt.address, now=now, algorithms=algorithms
    ).decide


class Refusing(Protocol):
    """Lines of which some let nobody in."""

    @property
    def source(self) -> str:
        """Where they stand."""

    @property
    def refused(self) -> tuple[tuple[int, str], ...]:
        """Number and reason of each such line; number 0 stands for all."""


class RefusedLines:
    """Logs the lines that let nobody in, once, and again when they change."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[tuple[int, str], ...]] = {}

    def tell(self, keys: Refusing) -> None:
        """Log what is new."""
        refused = keys.refused
        if self._told.get(keys.source, ()) == refused:
            return
        self._told[keys.source] = refused
        for line, reason in refused:
            if line:
                _LOG.warning("%s:%d: this line lets nobody in: %s", clean(keys.source), line, clean(reason))
            else:
                _LOG.warning("%s lets nobody in: %s", clean(keys.source), clean(reason))
