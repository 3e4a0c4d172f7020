"""The login of one connection: what the engine asks and tells of it, until its user is in."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar

from dunnart.protocol.events import AuthFailed, AuthPartial, LoggedIn
from dunnart.protocol.questions import (
    Allow,
    AuthQuestion,
    AuthReply,
    Deny,
    GssapiQuestion,
    GssapiStep,
    InteractiveCredential,
    MethodsQuestion,
    Prompt,
)
from dunnart.runtime import logs
from dunnart.runtime.logs import clean, report
from dunnart.server.authentication import Attempt
from dunnart.server.facts import Address, Candidate, ConnectionFacts, UserTerms

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.protocol.events import Event
    from dunnart.protocol.questions import Credential, Question
    from dunnart.server.connection import ServerConnection

_AUTH = logging.getLogger("dunnart.auth")
_DETAIL_CHARACTERS = 1000  # of a certificate, its authority, and why it is refused
_FAILURE_SECONDS = 0.005  # THREATS R15: every failure takes at least so long


class Login:
    """Made for a connection when a user is named, and dropped when one is in.

    Attributes:
        unknown_user: the user named last is unknown.
    """

    __slots__ = ("_connection", "_rounds", "unknown_user")

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._rounds = 0
        self.unknown_user = False

    def handle(self, item: Event | Question) -> None:
        """One event or question, of those that have a handler here."""
        self.handlers[type(item)](self, item)

    # Questions.

    def _methods_asked(self, question: MethodsQuestion) -> None:
        connection = self._connection
        connection.user = question.user
        candidate = Candidate(question.user, connection.peer, self._local, connection.id)
        connection.spawn(self._find_terms(question, candidate))

    async def _find_terms(self, question: MethodsQuestion, candidate: Candidate) -> None:
        connection = self._connection
        began = connection.loop.time()
        terms = await connection.asked(connection.server.host.terms(candidate), UserTerms())
        await self._wait(began, _FAILURE_SECONDS)  # groups are looked up only for users who exist
        connection.pump.engine.use_limits(terms.limits or connection.server.config.limits)
        connection.answer(question, tuple(tuple(chain.split(",")) for chain in terms.methods))

    def _mechanism_asked(self, question: GssapiQuestion) -> None:
        self._decide(question, "", question.step)

    def _authenticate(self, question: AuthQuestion) -> None:
        self._connection.user = question.user
        credential = question.credential
        answered = isinstance(credential, InteractiveCredential) and credential.responses is not None
        self._rounds = self._rounds + 1 if answered else 0
        self._decide(question, question.user, credential)

    def _decide(self, question: AuthQuestion | GssapiQuestion, user: str, credential: Credential) -> None:
        connection = self._connection
        rounds = 0 if isinstance(question, GssapiQuestion) else self._rounds
        attempt = Attempt(user, credential, connection.address, rounds, connection.id, connection.port, self._local)
        connection.spawn(self._answer(question, attempt))

    async def _answer(self, question: AuthQuestion | GssapiQuestion, attempt: Attempt) -> None:
        connection = self._connection
        began = connection.loop.time()
        failure = Deny(f"the {attempt.credential.method} authenticator failed")
        reply: AuthReply = await connection.asked(connection.server.host.authenticate(attempt), failure)
        host = connection.server.host
        if isinstance(reply, Allow) and host.admits and self._completes(question, reply):
            reply = await self._connection.asked(host.admit(attempt, reply), Deny("the account could not be checked"))
        if not isinstance(reply, Allow | Prompt | GssapiStep):
            await self._wait(began, max(_FAILURE_SECONDS, connection.server.config.limits.auth_delay_seconds))
        connection.answer(question, reply)

    def _completes(self, question: AuthQuestion | GssapiQuestion, reply: Allow) -> bool:
        return isinstance(question, AuthQuestion) and self._connection.pump.engine.completes(question.credential, reply)

    async def _wait(self, began: float, seconds: float) -> None:
        """See that an answer comes no sooner than so long after its question."""
        await asyncio.sleep(max(0.0, began + seconds - self._connection.loop.time()))

    @property
    def _local(self) -> Address:
        return Address(*self._connection.pump.local_address)

    # Events.

    def _failed(self, event: AuthFailed) -> None:
        connection = self._connection
        connection.user = event.user
        connection.server.count("auth_failures")
        if event.unknown_user and not self.unknown_user:
            self._say(logs.invalid_user(event.user, connection.address, connection.port))
        self.unknown_user = event.unknown_user
        connection.audit("login-failed", method=event.method, detail=event.detail)
        detail = clean(event.detail, most=_DETAIL_CHARACTERS)
        self._say(logs.failed(event.method, event.user, connection.address, connection.port,
                              invalid=event.unknown_user, detail=detail))  # fmt: skip

    def _partly_done(self, event: AuthPartial) -> None:
        self._say(logs.partial(event.method, event.user, self._connection.address, self._connection.port))

    def _accepted(self, event: LoggedIn) -> None:
        connection = self._connection
        connection.user = event.user
        version = clean(connection.pump.engine.peer_version)
        connection.facts = ConnectionFacts(
            connection.id, event.user, connection.peer, self._local, event.method, event.key, event.grants, version,
            event.rights,
        )  # fmt: skip
        connection.server.login_done(connection)
        connection.audit("login", method=event.method, key=event.detail)
        detail = clean(event.detail, most=_DETAIL_CHARACTERS)
        self._say(logs.accepted(event.method, event.user, connection.address, connection.port, detail))

    def _say(self, text: str) -> None:
        report(_AUTH, logging.INFO, self._connection, "%s", text)

    handlers: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        MethodsQuestion: _methods_asked,
        AuthQuestion: _authenticate,
        GssapiQuestion: _mechanism_asked,
        AuthFailed: _failed,
        AuthPartial: _partly_done,
        LoggedIn: _accepted,
    }
