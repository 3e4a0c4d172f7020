"""What one protocol process asks and says, and how it is answered; on the control loop.

The process meets strangers, and may be theirs: it can lie about what its own connections send, and that is all. What it
cannot mean ends the conversation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from dunnart.errors import ConnectionClosed, DecodeError, PluginError
from dunnart.keys.public import PublicKey
from dunnart.keys.rights import Rights
from dunnart.protocol.questions import Allow, AuthReply, Deny, GssapiKeyExchange, Refusal, SignQuestion
from dunnart.protocol.requests import (
    BreakRequest,
    PtyRequest,
    SignalRequest,
    WindowChange,
    decode_channel_request,
)
from dunnart.runtime.logs import clean
from dunnart.server.config import may_set
from dunnart.server.facts import Address, Asked, Candidate, ConnectionFacts, SessionFacts, Terminal, UserTerms
from dunnart.server.forwarding import Opening
from dunnart.server.interfaces import AuditEvent
from dunnart.server.processes import decisions, frames
from dunnart.server.processes.connections import ChannelHandle, ConnectionHandle, KnownConnection, send
from dunnart.server.processes.link import Link
from dunnart.server.processes.order import cookie
from dunnart.server.processes.verified import Terms, Verified, check_address

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Mapping

    from dunnart.server.authentication import Attempt
    from dunnart.server.forwarding import Tunnel
    from dunnart.server.host import Host

_LOG = logging.getLogger("dunnart.server")
_KINDS = ("shell", "exec", "subsystem")
_MOST_QUESTIONS = 4096
_MOST_CONNECTIONS = 1_000_000
_BESIDE_MODES, _LONGEST_NAME = 256, 256
_CLOSING = 1000  # connections whose descriptor is closed already
_MOST_OF_A_BYTE = 7  # JSON makes six of some, and there is a little beside a client's text


class _Whose(NamedTuple):
    """A connection of the process, for its log lines."""

    id: int
    user: str
    peer: str


class Conversation:
    """The talk with one process, from its start to its end.

    Args:
        host: what answers.
        index: which process it is.
        sock: leads there; closed with the conversation.
        first: the number of its first connection.
        cookies: what the cookies of its connections are made of.
        lost: called once it is over.
    """

    def __init__(
        self, host: Host, index: int, sock: socket.socket, first: int, cookies: bytes, lost: Callable[[], None]
    ) -> None:  # fmt: skip
        self._host = host
        self._index = index
        self._next_number = first
        self._cookies = cookies
        self._lost = lost
        self._calls: dict[int, asyncio.Future[Any]] = {0: host.loop.create_future()}
        self._next_token = 1
        self._connections: dict[int, KnownConnection] = {}
        self._questions: set[asyncio.Task[None]] = set()
        self._most_connections = _most_connections()
        self._terms = Terms.of(host.config, host.config.decided_elsewhere)
        self._link = Link(sock, host.loop, self._receive, self._ended)
        self.ready = self._calls[0]

    @property
    def over(self) -> bool:
        """The process is not there any more."""
        return self._link.closed

    @property
    def connections(self) -> int:
        """How many it serves."""
        return len(self._connections)

    @property
    def next_number(self) -> int:
        """A number that it has used for no connection, nor any after it."""
        return self._next_number

    def send(self, frame: frames.Frame, descriptors: tuple[int, ...] = ()) -> None:
        """Send it a frame."""
        self._link.send(frame, descriptors)

    async def call(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - the method says what
        """Have it do something: "close", or one of `dunnart.server.operations`.

        Raises:
            ConnectionClosed: the process is gone.
            PluginError: it failed there.
        """
        if self.over:
            raise ConnectionClosed("the protocol process is gone")
        token = self._next_token
        self._next_token = token + 1 & 0xFFFFFFFF
        self._calls[token] = future = self._host.loop.create_future()
        self.send(frames.Call(token, name, json.dumps(arguments).encode()))
        return await future

    def end(self) -> None:
        """Hang up."""
        self._link.close()

    def _ended(self) -> None:
        calls, self._calls = self._calls, {}
        for future in calls.values():
            if not future.done():
                future.set_exception(ConnectionClosed("the protocol process is gone"))
        for task in self._questions:
            task.cancel()
        connections, self._connections = self._connections, {}
        for number, connection in connections.items():
            self._forget(number, connection)
        self._next_number += self._host.config.workers * (1 + len(connections))
        self._lost()

    def _forget(self, number: int, connection: KnownConnection) -> None:
        connection.gone = True
        if connection.deciding is not None:  # what it made would be kept for ever
            connection.deciding.cancel()
        for session in tuple(connection.sessions.values()):
            session.hung_up()
        for opening in connection.openings:
            self._host.abandon(opening)
        for channel in connection.prepared:
            self._host.unprepared(number, channel)
        connection.prepared.clear()
        self._host.ended(number)

    # What comes.

    def _receive(self, frame: frames.Frame, descriptors: list[int]) -> None:
        handler = self._handlers.get(type(frame))
        if handler is None or descriptors:
            for fd in descriptors:
                os.close(fd)
            raise DecodeError(f"a protocol process does not send {type(frame).__name__}")
        handler(self, frame)

    def _known(self, number: int) -> KnownConnection:
        connection = self._connections.get(number)
        if connection is None:
            raise DecodeError(f"there is no connection {number}")
        return connection

    def _opened(self, frame: frames.Opened) -> None:
        # Numbers come in order, so that no process can speak for the connections of another, nor use one twice.
        if frame.connection != self._next_number:
            raise DecodeError(f"connection {frame.connection} is not the next one")
        if len(self._connections) >= self._most_connections:
            raise DecodeError("more connections than a process can have")
        verified = Verified(self._terms, cookie(self._cookies, frame.connection), self._host.loop.time())
        self._connections[frame.connection] = KnownConnection(verified)
        self._next_number += self._host.config.workers

    def _gone(self, frame: frames.Gone) -> None:
        self._forget(frame.connection, self._known(frame.connection))
        del self._connections[frame.connection]

    def _returned(self, frame: frames.Returned) -> None:
        future = self._calls.pop(frame.token, None)
        if future is None:
            raise DecodeError("a result that nobody asked for")
        try:
            result = _printable(frames.parse_json(frame.result))
        except RecursionError as error:
            raise DecodeError("a result that is too deep") from error
        if future.done():
            return
        if frame.failed:
            future.set_exception(PluginError(str(result), f"protocol process {self._index}"))
        else:
            future.set_result(result)

    def _said(self, frame: frames.Said) -> None:
        whose = _Whose(frame.connection, frame.user, frame.peer) if frame.connection else None
        extra = None if whose is None else {"connection": whose}
        # Loggers are never freed; and a line is one line.
        name = frame.logger if frame.logger in logging.root.manager.loggerDict else "dunnart.server"
        message = frame.message if frame.message.isprintable() else repr(frame.message)[1:-1]
        logging.getLogger(name).log(min(frame.level, logging.CRITICAL), "%s", message, extra=extra)

    def _audited(self, frame: frames.Audited) -> None:
        if len(frame.details) > _MOST_OF_A_BYTE * self._host.config.limits.packet_bytes:
            raise DecodeError("an event about more than a client can have said")
        peer = Address(frame.host, frame.port)
        check_address(peer)
        details = frames.parse_json(frame.details)
        if not isinstance(details, dict):
            raise DecodeError("an event without details")
        self._host.audit(AuditEvent(frame.time / 1e6, frame.kind, frame.connection, frame.user, peer, details))

    def _user_in(self, frame: frames.UserIn) -> None:
        connection = self._known(frame.connection)
        if connection.facts is not None:
            raise DecodeError("a second user has logged in")
        replies = connection.verified.logs_in(frame)
        # That they agree was seen when each was decided.
        rights = Rights.all_of(reply.rights for reply in replies if reply.rights is not None)
        connection.facts = ConnectionFacts(
            frame.connection, frame.user, Address(frame.peer_host, frame.peer_port),
            Address(frame.local_host, frame.local_port), frame.method,
            PublicKey.decode(frame.key) if frame.key else None, tuple(reply.grant for reply in replies),
            clean(frame.client_version), rights,
        )  # fmt: skip

    def _serve(self, frame: frames.SessionAsked) -> None:
        connection = self._known(frame.connection)
        if frame.opening:
            if frame.opening not in connection.openings:
                raise DecodeError("a channel that nobody has allowed")
            connection.openings.discard(frame.opening)
        elif frame.kind not in _KINDS:  # under another name it would escape what the login's rights say
            raise DecodeError(f"{clean(frame.kind)!r} is no kind of session")
        if frame.channel in connection.sessions or len(connection.sessions) >= self._host.config.limits.channels:
            raise DecodeError("a session too many")
        limits, subsystem = self._host.config.limits, frame.subsystem.encode()
        if any(b"\0" in each or len(each) > limits.command_bytes for each in (frame.command, subsystem)):
            raise DecodeError("a command that is none")  # the session would keep it
        if len(frame.terminal) > limits.pty_modes_bytes + _BESIDE_MODES or len(frame.kind) > _LONGEST_NAME:
            raise DecodeError("more of a terminal, or of a channel's type, than there is")
        if frame.terminal and not connection.whose.rights.pty:
            raise DecodeError("a terminal for a login that may not have one")
        terminal = Terminal.of(PtyRequest.decode(frame.terminal)) if frame.terminal else None
        variables = self._variables(frame, connection)
        facts = SessionFacts(
            connection.whose, frame.channel, frame.kind,
            frame.command if frame.kind == "exec" else None, frame.subsystem if frame.kind == "subsystem" else None,
            variables, terminal, frame.opening,
        )  # fmt: skip
        key = (frame.connection, frame.channel)
        session = self._host.session(facts, ChannelHandle(self._link, key))
        connection.sessions[frame.channel] = session
        self._host.begin(session, lambda yes: self.send(frames.Begun(*key, yes)))

    def _variables(self, frame: frames.SessionAsked, connection: KnownConnection) -> dict[str, str]:
        """The session's variables: those that a client may set, and those that its requests were answered with."""
        texts = frames.split_texts(frame.environment)
        variables = dict(zip(texts[::2], texts[1::2], strict=False))
        given = connection.prepared.get(frame.channel, {}).items()
        config = self._host.config
        most = config.limits.environment_variables
        if any(pair not in given and not may_set(config, *pair) for pair in variables.items()):
            raise DecodeError("a variable that no client may set")
        if len(variables) > most + len(given):
            raise DecodeError("too many variables")
        return variables

    def _requested(self, frame: frames.Requested) -> None:
        request = decode_channel_request(frame.name, frame.data)
        if not isinstance(request, WindowChange | SignalRequest | BreakRequest):
            raise DecodeError(f"{frame.name!r} is no request for what runs")
        session = self._known(frame.connection).sessions.get(frame.channel)
        if session is not None:
            session.requested(request)

    def _hung_up(self, frame: frames.HungUp) -> None:
        session = self._known(frame.connection).sessions.pop(frame.channel, None)
        if session is not None:
            session.hung_up()

    def _abandoned(self, frame: frames.Abandoned) -> None:
        for connection in self._connections.values():  # it happens seldom
            if frame.opening in connection.openings:
                connection.openings.discard(frame.opening)
                self._host.abandon(frame.opening)

    # What is asked. Each check that can end the conversation comes before the answer is looked for.

    def _ask(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Find an answer. A process that asks faster than it is answered is not listened to for so long."""
        task = self._host.keep(work)
        self._questions.add(task)
        if len(self._questions) == _MOST_QUESTIONS:
            self._link.pause()

        def done(task: asyncio.Task[None]) -> None:
            self._questions.discard(task)
            if len(self._questions) < _MOST_QUESTIONS:
                self._link.resume()

        task.add_done_callback(done)
        return task

    def _answer(self, make: Callable[[], frames.Frame], instead: frames.Frame, tunnel: Tunnel | None = None) -> None:
        """Send an answer; if the application's is none, another in its place: who asked must not wait for ever."""
        try:
            send(self._link, make(), tunnel)
        except Exception as error:  # noqa: BLE001 - whatever the application has answered
            self._host.counters["failures"] += 1
            _LOG.error("an answer cannot be told: %r", error)
            self.send(instead)

    def _accept_asked(self, frame: frames.AcceptAsked) -> None:
        peer = Address(frame.host, frame.port)
        check_address(peer)
        self._ask(self._accept(frame.token, peer))

    async def _accept(self, token: int, peer: Address) -> None:
        yes = False
        try:
            yes = await self._host.accepts(peer) is True
        finally:
            self.send(frames.Answered(token, yes))

    def _terms_asked(self, frame: frames.TermsAsked) -> None:
        connection = self._known(frame.connection)
        if self._host.config.terms_for is None:
            raise DecodeError("chains of methods that nobody gives")
        peer, local = Address(frame.peer_host, frame.peer_port), Address(frame.local_host, frame.local_port)
        connection.verified.seen_from(peer, local)
        connection.verified.tries(frame.user)
        candidate = Candidate(frame.user, peer, local, frame.connection)
        self._ask(self._find_terms(frame, candidate, connection))

    async def _find_terms(self, frame: frames.TermsAsked, candidate: Candidate, connection: KnownConnection) -> None:
        terms = UserTerms()
        try:
            terms = await self._host.terms(candidate)
        finally:
            if connection.verified.user == frame.user:
                connection.verified.chains = tuple(tuple(chain.split(",")) for chain in terms.methods)
                connection.verified.limits = terms.limits or self._terms.limits
            limits = "" if terms.limits is None else json.dumps(asdict(terms.limits))
            instead = frames.TermsAnswered(frame.token, b"", "")
            self._answer(lambda: frames.TermsAnswered(frame.token, frames.join_texts(terms.methods), limits), instead)

    def _auth_asked(self, frame: frames.AuthAsked) -> None:
        connection = self._known(frame.connection)
        wanted = decisions.attempt_of(frame)
        if connection.facts is not None and not isinstance(wanted.credential, GssapiKeyExchange):
            raise DecodeError("a login after the login")
        connection.verified.seen_from(Address(wanted.address, wanted.port), wanted.local)
        attempt = connection.verified.attempts(wanted)
        if isinstance(attempt, Deny):
            self.send(decisions.answered(frame.token, attempt))
        else:
            connection.deciding = self._ask(self._authenticate(frame, attempt, connection))

    async def _authenticate(self, frame: frames.AuthAsked, attempt: Attempt, connection: KnownConnection) -> None:
        reply: AuthReply = Deny(f"the {frame.method} authenticator failed")
        try:
            reply = await self._host.authenticate(attempt)
            if isinstance(reply, Allow) and self._host.admits and connection.verified.completes(attempt, reply):
                allowed, reply = reply, Deny("the account could not be checked")
                reply = await self._host.admit(attempt, allowed)
        finally:
            connection.deciding = None
            instead = decisions.answered(frame.token, Deny("the authenticator's answer is none"))
            self._answer(lambda: self._decided(frame, attempt, reply, connection), instead)

    def _decided(
        self, frame: frames.AuthAsked, attempt: Attempt, reply: AuthReply, connection: KnownConnection
    ) -> frames.AuthAnswered:
        return decisions.answered(frame.token, *connection.verified.decided(attempt, reply))

    def _sign_asked(self, frame: frames.SignAsked) -> None:
        connection = self._known(frame.connection)
        self._ask(self._sign(frame, *connection.verified.may_sign(frame, self._host.loop.time())))

    async def _sign(self, frame: frames.SignAsked, data: bytes, seconds: float) -> None:
        signature = b""
        key = self._terms.keys[frame.key].public
        try:
            if seconds:
                await asyncio.sleep(seconds)
            question = SignQuestion(frame.token, key, frame.algorithm, data)
            signature = await self._host.sign(frame.connection, question)
        finally:
            self.send(frames.Signed(frame.token, signature))

    def _open_asked(self, frame: frames.OpenAsked) -> None:
        connection = self._known(frame.connection)
        if frame.channel_type not in self._host.config.channel_types:
            raise DecodeError("a channel of no type")
        asked = Asked(connection.whose, frame.channel_type, frame.data)
        self._ask(self._open(frame, asked, connection))

    async def _open(self, frame: frames.OpenAsked, asked: Asked, connection: KnownConnection) -> None:
        failed = Refusal(Refusal.CONNECT_FAILED, "the server cannot open this channel")
        reply: Opening | Refusal = failed
        try:
            reply = await self._host.open(asked, self._control(frame.connection, connection))
        finally:
            if isinstance(reply, Refusal):
                opened, refusal = Opening(0), reply
            elif self._connections.get(frame.connection) is not connection:  # it has ended meanwhile
                self._host.abandon(reply.number)
                opened, refusal = Opening(0), failed
            else:
                opened, refusal = reply, Refusal()
                if opened.tunnel is None:
                    connection.openings.add(opened.number)
            number, detail, tunnel = opened
            self._answer(
                lambda: frames.OpenAnswered(
                    frame.token, number, detail, tunnel is not None, refusal.reason_code, refusal.description
                ),
                frames.OpenAnswered(
                    frame.token, 0, "", tunnel=False, reason_code=failed.reason_code, description=failed.description
                ),
                tunnel,
            )

    def _control(self, number: int, connection: KnownConnection) -> ConnectionHandle:
        return ConnectionHandle(self._host, self._link, number, connection)

    def _settled(self, frame: frames.Settled) -> None:
        connection = self._known(frame.connection)
        if frame.opening not in connection.wanted:
            raise DecodeError("an answer about a channel that was not wanted")
        connection.wanted.discard(frame.opening)
        if frame.refused:
            connection.openings.discard(frame.opening)
        refusal = Refusal(frame.reason_code, frame.description) if frame.refused else None
        self._host.settled(frame.connection, frame.opening, refusal)

    def _prepare_asked(self, frame: frames.PrepareAsked) -> None:
        connection = self._known(frame.connection)
        asked = Asked(connection.whose, frame.name, frame.data, frame.channel)
        if frame.name not in self._host.config.session_requests:
            raise DecodeError("a request of no name")
        if frame.channel not in connection.prepared and len(connection.prepared) >= self._host.config.limits.channels:
            raise DecodeError("a session too many")
        connection.prepared.setdefault(frame.channel, {})
        self._ask(self._prepare(frame, asked, connection))

    async def _prepare(self, frame: frames.PrepareAsked, asked: Asked, connection: KnownConnection) -> None:
        variables: Mapping[str, str] | None = None
        try:
            if frame.channel in connection.prepared:  # else it is gone already
                variables = await self._host.prepare(asked, self._control(frame.connection, connection))
        finally:
            if variables and frame.channel in connection.prepared:
                connection.prepared[frame.channel].update(variables)
            texts = [item for pair in (variables or {}).items() for item in pair]
            self._answer(
                lambda: frames.Prepared(frame.token, variables is not None, frames.join_texts(texts)),
                frames.Prepared(frame.token, yes=False, variables=b""),
            )

    def _unprepared(self, frame: frames.Unprepared) -> None:
        connection = self._known(frame.connection)
        if frame.channel in connection.prepared:
            del connection.prepared[frame.channel]
            self._host.unprepared(frame.connection, frame.channel)

    def _request_asked(self, frame: frames.RequestAsked) -> None:
        connection = self._known(frame.connection)
        whose = connection.whose
        if frame.name not in self._host.config.global_requests:
            raise DecodeError("a request of no name")
        self._ask(self._request(frame, Asked(whose, frame.name, frame.data), connection))

    async def _request(self, frame: frames.RequestAsked, asked: Asked, connection: KnownConnection) -> None:
        answer: bool | bytes = False
        try:
            answer = await self._host.answer(asked, self._control(frame.connection, connection))
        finally:
            data = answer if isinstance(answer, bytes) else b""
            self._answer(
                lambda: frames.RequestAnswered(frame.token, answer is not False, data),
                frames.RequestAnswered(frame.token, yes=False, data=b""),
            )

    _handlers: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        frames.AcceptAsked: _accept_asked,
        frames.TermsAsked: _terms_asked,
        frames.AuthAsked: _auth_asked,
        frames.SignAsked: _sign_asked,
        frames.OpenAsked: _open_asked,
        frames.RequestAsked: _request_asked,
        frames.PrepareAsked: _prepare_asked,
        frames.Unprepared: _unprepared,
        frames.Settled: _settled,
        frames.UserIn: _user_in,
        frames.Abandoned: _abandoned,
        frames.SessionAsked: _serve,
        frames.Requested: _requested,
        frames.HungUp: _hung_up,
        frames.Opened: _opened,
        frames.Gone: _gone,
        frames.Said: _said,
        frames.Audited: _audited,
        frames.Returned: _returned,
    }


def _printable(value: Any) -> Any:  # noqa: ANN401 - what JSON knows
    """Make texts fit for an operator's terminal, as they are if the process is ours."""
    if isinstance(value, str):
        return value if value.isprintable() else clean(value)
    if isinstance(value, list):
        return [_printable(each) for each in value]
    if isinstance(value, dict):
        return {_printable(name): _printable(each) for name, each in value.items()}
    return value


def _most_connections() -> int:
    """Give how many connections a process can have: each is a descriptor, and their limit is inherited."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(soft + _CLOSING, _MOST_CONNECTIONS)
