"""The application, as a protocol process sees it: its `HostLink` asks at the other end of a link."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from dunnart.errors import LocalProtocolError
from dunnart.protocol.limits import Limits
from dunnart.protocol.questions import Allow, AuthReply, Deny, Refusal
from dunnart.server.authentication import takes
from dunnart.server.facts import UserTerms
from dunnart.server.host import contained
from dunnart.server.processes import decisions, frames
from dunnart.wire.encoding import uint32

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dunnart.protocol.questions import SignQuestion
    from dunnart.protocol.requests import ChannelRequest
    from dunnart.server.authentication import Attempt, Authenticator
    from dunnart.server.channel import ChannelControl, Serving
    from dunnart.server.facts import Address, Asked, Candidate, ConnectionFacts, SessionFacts
    from dunnart.server.forwarding import ConnectionControl, Opening
    from dunnart.server.interfaces import AuditEvent
    from dunnart.server.processes.link import Link

Key = tuple[int, int]
"""A session: its connection's number and its channel's."""


class RemoteSession:
    """A session that the application's process serves: the counterpart of its channel."""

    def __init__(self, host: RemoteHost, facts: SessionFacts, control: ChannelControl) -> None:
        self.facts = facts
        self.control = control
        self.key: Key = (facts.connection.id, facts.channel)
        self._host = host

    def requested(self, request: ChannelRequest) -> bool:
        """Pass it on."""
        self._host.link.send(frames.Requested(*self.key, request.name, request.encode()))
        return True

    def hung_up(self) -> None:
        """Say so, once."""
        if self._host.sessions.pop(self.key, None) is not None:
            self._host.link.send(frames.HungUp(*self.key))


class RemoteHost:
    """Asks the application's process; see `HostLink`."""

    def __init__(self, link: Link, authenticators: tuple[Authenticator, ...], callback_seconds: float) -> None:
        self.link = link
        self._callback_seconds = callback_seconds
        self._authenticators = {each.method: each for each in authenticators}
        self.sessions: dict[Key, RemoteSession] = {}
        self.begun: dict[Key, Callable[[bool], None]] = {}
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.introduced: set[int] = set()
        self._next_token = 1

    async def _ask(self, make: Callable[[int], frames.Frame]) -> Any:  # noqa: ANN401 - the frame says what
        token = self._next_token
        self._next_token = token + 1 & 0xFFFFFFFF
        self.waiting[token] = future = asyncio.get_running_loop().create_future()
        self.link.send(make(token))
        try:
            return await future
        finally:
            del self.waiting[token]

    async def accepts(self, peer: Address) -> bool:
        """May this client connect?"""
        answer: bool = await self._ask(lambda token: frames.AcceptAsked(token, peer.host, peer.port))
        return answer

    async def terms(self, candidate: Candidate) -> UserTerms:
        """Which chains of methods does a user have to go through, and within which limits?"""
        answer: frames.TermsAnswered = await self._ask(lambda token: frames.TermsAsked(
            token, candidate.connection, candidate.user, *candidate.peer, *candidate.local))  # fmt: skip
        limits = Limits(**json.loads(answer.limits)) if answer.limits else None
        return UserTerms(tuple(frames.split_texts(answer.chains)), limits)

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Decide on one authentication request."""
        if (here := self._authenticators.get(attempt.credential.method)) is not None:
            if not takes(here, attempt.credential):
                return Deny("certificates are not accepted")
            async with asyncio.timeout(self._callback_seconds):
                reply = await contained(here.authenticate(attempt))
            if isinstance(reply, Allow) and reply.rights is not None:  # which the application's side would not know
                raise LocalProtocolError("an authenticator that travels grants nothing, and takes nothing away")
            return reply
        answer: frames.AuthAnswered = await self._ask(lambda token: decisions.asked(token, attempt))
        return decisions.reply_of(answer)

    async def sign(self, connection: int, question: SignQuestion) -> bytes:
        """Have something signed with a host key; b"" if it is not."""
        hash_bytes = len(question.data) if question.made_of else 0
        answer: frames.Signed = await self._ask(lambda token: frames.SignAsked(
            token, connection, question.key.blob, question.algorithm, hash_bytes, question.made_of or question.data
        ))  # fmt: skip
        return answer.signature

    @property
    def admits(self) -> bool:
        """The application's process does it by itself."""
        return False

    async def admit(self, _attempt: Attempt, allowed: Allow) -> AuthReply:
        """The application's process has done it by itself."""
        return allowed

    async def open(self, asked: Asked, _control: ConnectionControl) -> Opening | Refusal:
        """May a channel that is no session be opened?"""
        self._introduce(asked.connection)
        answer: Opening | Refusal = await self._ask(lambda token: frames.OpenAsked(
            token, asked.connection.id, asked.name, asked.data))  # fmt: skip
        return answer

    def abandon(self, opening: int) -> None:
        """Nothing came of a channel that was to be opened."""
        self.link.send(frames.Abandoned(opening))

    async def answer(self, asked: Asked, _control: ConnectionControl) -> bool | bytes:
        """Answer a global request."""
        self._introduce(asked.connection)
        answer: frames.RequestAnswered = await self._ask(lambda token: frames.RequestAsked(
            token, asked.connection.id, asked.name, asked.data))  # fmt: skip
        return answer.yes and (answer.data or True)

    async def prepare(self, asked: Asked, _control: ConnectionControl) -> Mapping[str, str] | None:
        """Answer a request of a session that has not begun."""
        self._introduce(asked.connection)
        answer: frames.Prepared = await self._ask(lambda token: frames.PrepareAsked(
            token, asked.connection.id, asked.channel, asked.name, asked.data))  # fmt: skip
        if not answer.yes:
            return None
        variables = frames.split_texts(answer.variables)
        return dict(zip(variables[::2], variables[1::2], strict=True))

    def unprepared(self, connection: int, channel: int) -> None:
        """A session for which requests were answered is gone."""
        self.link.send(frames.Unprepared(connection, channel))

    def settled(self, connection: int, opening: int, refusal: Refusal | None) -> None:
        """The client has opened a channel that it was asked for, or refused."""
        code, text = (0, "") if refusal is None else (refusal.reason_code, refusal.description)
        self.link.send(frames.Settled(connection, opening, refusal is not None, code, text))

    def ended(self, connection: int) -> None:
        """A connection is gone: `Gone` says so."""

    def audit(self, event: AuditEvent) -> None:
        """Something happened that has to be recorded."""
        self.link.send(frames.Audited(
            int(event.time * 1e6), event.kind, event.connection, event.user, *event.peer,
            json.dumps(event.details).encode()))  # fmt: skip

    def _introduce(self, whose: ConnectionFacts) -> None:
        if whose.id not in self.introduced:
            self.introduced.add(whose.id)
            # Grants are numbers here; the application's process knows what they stand for.
            grants = b"".join(uint32(grant if isinstance(grant, int) else 0) for grant in whose.grants)
            key = b"" if whose.key is None else whose.key.blob
            self.link.send(frames.UserIn(
                whose.id, whose.user, *whose.peer, *whose.local, whose.method, key, grants, whose.client_version
            ))  # fmt: skip

    def session(self, facts: SessionFacts, control: ChannelControl) -> Serving:
        """A session is to be served."""
        made = RemoteSession(self, facts, control)
        self.sessions[made.key] = made
        return made

    def begin(self, session: Serving, then: Callable[[bool], None]) -> None:
        """Ask the application's process to serve it."""
        assert isinstance(session, RemoteSession)
        facts, terminal = session.facts, session.facts.terminal
        self._introduce(facts.connection)
        self.begun[session.key] = then
        variables = frames.join_texts(item for pair in facts.environment.items() for item in pair)
        self.link.send(frames.SessionAsked(
            *session.key, facts.kind, facts.command or b"", facts.subsystem or "", variables,
            b"" if terminal is None else terminal.request().encode(), facts.opening,
        ))  # fmt: skip
