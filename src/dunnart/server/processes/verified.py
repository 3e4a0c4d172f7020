"""What the application's process has itself seen of a connection that a protocol process serves: no more is believed.

    keys exchanged              decisions, each of them ours                            logged in
    ─ the first hash signed ──► signature, MIC, password … verified, in turn ─► chain ──► UserIn ──► sessions
      is the session id         over that session id                          complete   must say the same

The hash is made here, of what the exchange consisted of; a cookie of ours is in that, so no session id comes again, and
with it the proofs of a login that is over.

The protocol process speaks with the client and checks the same things first. It may be a stranger's by now; so it can
neither have anything signed but what its connections need, nor name a user whose proof was not seen here.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from dunnart.crypto.kex import GSSAPI_METHODS, HASH_BYTES, KEX_METHODS, exchange_hash
from dunnart.errors import DecodeError, RightsConflict
from dunnart.keys.certificate import plain_name
from dunnart.keys.public import CERTIFICATE_SUFFIX
from dunnart.keys.rights import Rights
from dunnart.protocol.proofs import signed_request, signed_with_mic, unproven
from dunnart.protocol.questions import (
    Allow,
    Deny,
    GssapiCredential,
    GssapiKeyExchange,
    GssapiStep,
    InteractiveCredential,
    PasswordCredential,
    Prompt,
    PublicKeyCredential,
)
from dunnart.protocol.requests import HostkeysProve
from dunnart.records import dataclass
from dunnart.server.facts import Address
from dunnart.wire.encoding import Reader, string, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dunnart.crypto.kex import HashName
    from dunnart.keys.certificate import Certificate
    from dunnart.keys.private import PrivateKey
    from dunnart.keys.public import PublicKey
    from dunnart.protocol.limits import Limits
    from dunnart.server.authentication import Attempt
    from dunnart.server.config import ServerConfig
    from dunnart.server.processes.frames import SignAsked, UserIn

_LONGEST_USER = 255
_SIGNATURES = 100  # at once; an honest connection signs when it rekeys, or proves further host keys
_SIGNATURES_PER_SECOND = 10.0
_BEFORE_KEYS = 4
_KEXINIT = b"\x14"
_HIGHEST_PORT = 0xFFFF
_LONGEST_ZONE = 16  # IFNAMSIZ: an interface's name


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all connections of a server.

    Attributes:
        keys: the host keys by their public halves.
        shown: what clients may have seen in their place: public halves and certificates; b"" with GSS-API.
        algorithms: the signatures that are offered of them.
        hashes: what exchange hashes are made by, by their length.
        user_algorithms: the signatures that users may make.
        chains: the methods to go through; `asks` if each user has others.
        elsewhere: the methods that protocol processes decide on by themselves.
        limits: those of a connection.
    """

    keys: Mapping[bytes, PrivateKey]
    shown: frozenset[bytes]
    algorithms: frozenset[str]
    hashes: Mapping[int, HashName]
    user_algorithms: frozenset[str]
    chains: tuple[tuple[str, ...], ...]
    asks: bool
    elsewhere: frozenset[str]
    limits: Limits

    @classmethod
    def of(cls, config: ServerConfig, elsewhere: frozenset[str]) -> Terms:
        """Take them from a server's configuration."""
        engine = config.engine_config()
        hashes = {(GSSAPI_METHODS.get(name) or KEX_METHODS[name]).hash_name for name in engine.algorithms.kex}
        shown: tuple[PublicKey | Certificate, ...] = (*engine.host_keys, *engine.host_certificates)
        return cls(
            {key.public.blob: key for key in config.keys},
            frozenset((b"", *(each.blob for each in shown))),
            frozenset(
                plain_name(name) if name.endswith(CERTIFICATE_SUFFIX) else name for name in engine.algorithms.host_key
            ),
            {HASH_BYTES[name]: name for name in hashes},
            frozenset(engine.algorithms.user_key),
            engine.auth_methods,
            engine.asks_methods,
            elsewhere,
            config.limits,
        )


class Verified:
    """One connection: what was signed for it, and who has proved what.

    Attributes:
        session_id: the first exchange hash that was signed.
        user: who was decided on last.
        chains: how that one may log in.
        limits: that one's.
        passed: the methods that have let that one in, in this order, each with what it granted.
    """

    __slots__ = ("_allowance", "_answers", "_asking", "_cookie", "_ends", "_failures", "_numbered", "_rounds",
                 "_seen_at", "_terms", "chains", "limits", "passed", "session_id", "user")  # fmt: skip

    def __init__(self, terms: Terms, cookie: bytes, now: float) -> None:
        self._terms = terms
        self._cookie = cookie
        self.session_id = b""
        self.user: str | None = None
        self.chains: tuple[tuple[str, ...], ...] = ()
        self.limits = terms.limits
        self.passed: list[_Passed] = []
        self._numbered = 0
        self._failures = 0
        self._rounds = 0
        self._answers: int | None = None
        self._asking = False
        self._ends: tuple[Address, Address] | None = None
        self._allowance = float(_SIGNATURES)
        self._seen_at = now

    # Host keys.

    def may_sign(self, frame: SignAsked, now: float) -> tuple[bytes, float]:
        """See that a signature may be made, and give what of, and how many seconds it must wait.

        Raises:
            DecodeError: it is none that this connection needs.
        """
        terms, data = self._terms, frame.data
        key = terms.keys.get(frame.key)
        if key is None or frame.algorithm not in key.signature_algorithms:
            raise DecodeError("a signature by no host key")
        if frame.hash_bytes:
            data = self._exchanged(frame.hash_bytes, data)
            if frame.algorithm not in terms.algorithms:
                raise DecodeError(f"a signature by {frame.algorithm}, which is not offered")
        elif data != text(HostkeysProve.name) + string(self.session_id) + string(frame.key):
            raise DecodeError("what is to be signed is no proof of host keys")
        elif not self._logged_in:
            raise DecodeError("a proof of host keys before a login")
        self._allowance = min(_SIGNATURES, self._allowance + (now - self._seen_at) * _SIGNATURES_PER_SECOND) - 1
        self._seen_at = now
        if self._allowance < -_SIGNATURES:
            raise DecodeError("signatures without end")
        return data, max(0.0, -self._allowance / _SIGNATURES_PER_SECOND)

    def _exchanged(self, hash_bytes: int, made_of: bytes) -> bytes:
        """The keys are exchanged: give the hash of it."""
        hash_name = self._terms.hashes.get(hash_bytes)
        if hash_name is None:
            raise DecodeError("what is to be signed is no exchange hash")
        if self.session_id and not self._logged_in:  # the protocol knows no other exchange before the login
            raise DecodeError("a second exchange of keys before the login")
        digest = exchange_hash(hash_name, made_of)
        if not self.session_id:
            self._check_cookie(made_of)
            self.session_id = digest
        return digest

    def _check_cookie(self, made_of: bytes) -> None:
        """See that an exchange is this connection's (RFC 4253 §8): V_C, V_S, I_C, and I_S begin it."""
        reader = Reader(made_of)
        *_, kexinit = (reader.string() for _ in range(_BEFORE_KEYS))
        if not kexinit.startswith(_KEXINIT + self._cookie):
            raise DecodeError("an exchange of keys without this connection's cookie")

    @property
    def _logged_in(self) -> bool:
        return any(self._ours(chain) == self._methods for chain in self.chains or self._terms.chains)

    @property
    def _methods(self) -> tuple[str, ...]:
        return tuple(each.method for each in self.passed)

    def _ours(self, chain: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(method for method in chain if method not in self._terms.elsewhere)

    # Decisions.

    def seen_from(self, peer: Address, local: Address) -> None:
        """The process says where the client is, and what it has reached: always the same.

        Raises:
            DecodeError: it said otherwise before, or these are no addresses.
        """
        if self._ends not in (None, (peer, local)):
            raise DecodeError("a connection from two places")
        if self._ends is None:
            check_address(peer)
            check_address(local)
            self._ends = peer, local

    def tries(self, user: str) -> None:
        """Somebody wants to be this user; who wants to be another starts from nothing (RFC 4252 §5).

        Raises:
            DecodeError: nobody has such a name, or it is still being decided on somebody else.
        """
        if "\0" in user or len(user) > _LONGEST_USER:
            raise DecodeError("an impossible user name")
        if user != self.user:
            if self._asking:  # a yes to the one would be a yes to the other
                raise DecodeError("another user while it is decided on one")
            self.user, self.passed, self._answers = user, [], None
            self.chains = () if self._terms.asks else self._terms.chains

    def attempts(self, attempt: Attempt) -> Attempt | Deny:
        """Begin to decide: gives what to ask the authenticator, with what only this side knows; `decided` must follow.

        Raises:
            DecodeError: the protocol would not have asked.
        """
        if self._asking:
            raise DecodeError("two questions about one login at once")
        credential = attempt.credential
        if isinstance(credential, GssapiKeyExchange):
            if credential.digest is not None:
                digest = self._exchanged(len(credential.digest), credential.made_of)
                attempt = replace(attempt, credential=replace(credential, digest=digest))
        else:
            self.tries(attempt.user)
            attempt = self._checked(attempt)
            if (reason := self._untimely(attempt)) is not None:
                return Deny(reason)
        self._asking = True
        return attempt

    def _checked(self, attempt: Attempt) -> Attempt:
        credential = attempt.credential
        answers, self._answers = self._answers, None
        if isinstance(credential, PasswordCredential):
            if "\0" in credential.password or len(credential.password.encode()) > self._terms.limits.password_bytes:
                raise DecodeError("an impossible password")
        elif isinstance(credential, PublicKeyCredential):
            self._check_key(credential)
        elif isinstance(credential, InteractiveCredential):
            if credential.responses is not None and len(credential.responses) != answers:
                raise DecodeError("responses to no prompts")
            self._rounds = 0 if credential.responses is None else self._rounds + 1
            return replace(attempt, rounds=self._rounds)
        elif isinstance(credential, GssapiCredential) and credential.mic is not None:
            signed = signed_with_mic(self._session, attempt.user, credential.method)
            return replace(attempt, credential=replace(credential, signed=signed))
        return attempt

    def _check_key(self, credential: PublicKeyCredential) -> None:
        shown = credential.certificate or credential.key
        known = self._terms.user_algorithms & {*shown.signature_algorithms}
        if credential.algorithm not in known:
            raise DecodeError(f"a {shown.key_type} key does not sign as {credential.algorithm} here")
        if credential.host_key is not None and credential.host_key not in self._terms.shown:
            raise DecodeError("a signature for another host key")

    @property
    def _session(self) -> bytes:
        if not self.session_id:
            raise DecodeError("a proof before keys were exchanged")
        return self.session_id

    def _untimely(self, attempt: Attempt) -> str | None:
        if self._failures >= self.limits.max_auth_tries:
            return "too many failures"
        method = attempt.credential.method
        turns = (self._ours(chain[: chain.index(method)]) for chain in self.chains if method in chain)
        return None if self._methods in turns else f"{method} is not in turn"

    def completes(self, attempt: Attempt, reply: object) -> bool:
        """Tell whether a decision, which is not `decided` yet, lets the user in: it is proved, and ends a chain."""
        credential = attempt.credential
        if not isinstance(reply, Allow) or isinstance(credential, GssapiKeyExchange):
            return False
        if isinstance(credential, GssapiCredential) and credential.mic is None:
            return False
        if isinstance(credential, PublicKeyCredential) and (
            not credential.signed
            or unproven(credential, signed_request(self._session, attempt.user, credential), reply)
        ):
            return False
        methods = (*self._methods, credential.method)
        return any(self._ours(chain) == methods for chain in self.chains)

    def decided(self, attempt: Attempt, reply: object) -> tuple[object, int]:
        """Give the answer to a decision that an authenticator made, and the number of what it grants; 0: nothing.

        Whoever asked learns the rest when it comes back with the number.
        """
        self._asking = False
        credential = attempt.credential
        if isinstance(reply, Prompt) and isinstance(credential, InteractiveCredential):
            self._answers = len(reply.prompts)
        if not isinstance(reply, Allow):
            self._failures += not (isinstance(reply, Prompt | GssapiStep) or (isinstance(reply, Deny) and reply.silent))
            return reply, 0
        key = b""
        if isinstance(credential, PublicKeyCredential):
            if not credential.signed:  # nothing of a query outlives its answer (THREATS R12)
                return Allow(), 0
            if reason := unproven(credential, signed_request(self._session, attempt.user, credential), reply):
                self._failures += 1
                return Deny(reason), 0
            key = credential.key.blob
        elif isinstance(credential, GssapiKeyExchange) or (
            isinstance(credential, GssapiCredential) and credential.mic is None
        ):
            return Deny("allowed before the proof"), 0
        try:
            Rights.all_of(
                each.rights for each in (*(one.reply for one in self.passed), reply) if each.rights is not None
            )
        except RightsConflict as error:  # which the process, that does not know commands, cannot see
            self._failures += 1
            return Deny(str(error)), 0
        number = 0
        if reply.grant is not None or reply.rights is not None:
            self._numbered += 1
            number = self._numbered
        self.passed.append(_Passed(credential.method, key, number, reply))
        return reply, number

    def logs_in(self, frame: UserIn) -> tuple[Allow, ...]:
        """Give what the methods have allowed that a user has logged in by.

        Raises:
            DecodeError: it was not seen here that they have.
        """
        self.seen_from(Address(frame.peer_host, frame.peer_port), Address(frame.local_host, frame.local_port))
        self.tries(frame.user)
        reader = Reader(frame.grants)
        numbers = [reader.uint32() for _ in range(len(frame.grants) // 4)]
        for chain in self.chains:
            if chain[-1] == frame.method and (found := self._went_through(chain, numbers, frame.key)):
                return found
        raise DecodeError("a user has logged in who has not proved it here")

    def _went_through(self, chain: tuple[str, ...], numbers: list[int], key: bytes) -> tuple[Allow, ...]:
        """What a chain's methods have allowed; () if they have not, or these are not the numbers of what they did."""
        if self._methods != self._ours(chain) or len(numbers) != len(chain):
            return ()
        passed = iter(self.passed)
        elsewhere = self._terms.elsewhere
        steps = [_Passed(each, key, 0, Allow()) if each in elsewhere else next(passed) for each in chain]
        same = [each.number for each in steps] == numbers and steps[-1].key == key
        return tuple(each.reply for each in steps) if same else ()


def check_address(address: Address) -> None:
    """See that an address is one, or none: it stands in variables, in records, and on terminals.

    Raises:
        DecodeError: it is not.
    """
    host, _, zone = address.host.partition("%")
    try:
        if host:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except (OSError, ValueError) as error:
        raise DecodeError("a client from no address") from error
    if address.port > _HIGHEST_PORT or not (zone.isascii() and zone.isprintable() and len(zone) < _LONGEST_ZONE):
        raise DecodeError("a client from no address")


@dataclass(frozen=True, slots=True)
class _Passed:
    """A method that has let a user in: the key that was proved, what it allowed, and the number of what it grants."""

    method: str
    key: bytes
    number: int
    reply: Allow
