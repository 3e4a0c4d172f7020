"""One connection of a server: what the engine's events and questions mean here."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from dunnart.errors import DecodeError, DunnartError, NegotiationError
from dunnart.protocol.engine import LoginTimeout
from dunnart.protocol.events import (
    ChannelClosed,
    ChannelDenied,
    ChannelOpened,
    ChannelRefused,
    CloseReceived,
    ConnectionEnded,
    DataReceived,
    EofReceived,
    Event,
    KeysExchanged,
    SendingResumed,
    VersionReceived,
    WindowOpened,
)
from dunnart.protocol.identification import VersionMismatch
from dunnart.protocol.questions import (
    ChannelOpenQuestion,
    ChannelRequestQuestion,
    GlobalRequestQuestion,
    Question,
    Refusal,
    SignQuestion,
    WorkQuestion,
)
from dunnart.protocol.requests import (
    BreakRequest,
    EndOfWrite,
    EnvironmentRequest,
    ExecRequest,
    PtyRequest,
    SessionOpen,
    ShellRequest,
    SignalRequest,
    SubsystemRequest,
    UnknownGlobalRequest,
    UnknownOpen,
    UnknownRequest,
    WindowChange,
)
from dunnart.runtime import logs
from dunnart.runtime.admission import Outcome
from dunnart.runtime.logs import clean, report
from dunnart.runtime.pump import Pump
from dunnart.server.channel import ServerChannel
from dunnart.server.config import may_set
from dunnart.server.facts import Address, Asked, SessionFacts
from dunnart.server.forwarded import Forwarded
from dunnart.server.interfaces import AuditEvent
from dunnart.server.login import Login

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Coroutine

    from dunnart.protocol.negotiation import Negotiated
    from dunnart.protocol.requests import ChannelRequest
    from dunnart.server.facts import ConnectionFacts
    from dunnart.server.forwarding import Opening
    from dunnart.server.protocol_server import ProtocolServer

_T = TypeVar("_T")
_AUTH = logging.getLogger("dunnart.auth")
_TRANSPORT = logging.getLogger("dunnart.transport")
_SESSION = logging.getLogger("dunnart.session")
_TERM_BYTES = 64
_TOO_MANY_FAILURES = 14
_TERM = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-")


class ServerConnection:
    """A connection and its sessions. It is its own context for log lines.

    Attributes:
        id: a number that no other connection of this process has.
        user: the name given so far, or that logged in.
        address: the peer's IP address, "" for a unix socket; `port` goes with it.
        algorithms: what both sides agreed on last; None before the first key exchange.
        facts: what is known of it, once its user is logged in.
        server: whose connection it is.
    """

    __slots__ = (
        "__weakref__", "_channels", "_crashed", "_forwarded", "_login", "_signing", "_tasks", "_turn", "address",
        "algorithms", "facts", "id", "port", "pump", "server", "user",
    )  # fmt: skip

    def __init__(self, server: ProtocolServer, sock: socket.socket, number: int, address: str, port: int) -> None:
        self.server = server
        self._channels: dict[int, ServerChannel] = {}
        self._tasks: set[asyncio.Task[None]] | None = None
        self._turn: asyncio.Task[None] | None = None
        self._signing: asyncio.Task[None] | None = None
        self._crashed = False
        self._forwarded: Forwarded | None = None
        self._login: Login | None = None
        self.id = number
        self.user = ""
        self.address = address
        self.port = port
        self.algorithms: Negotiated | None = None
        self.facts: ConnectionFacts | None = None
        self.pump = Pump(server.context, sock, server.engine_config, self, server.cookie(number))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it lives on."""
        return self.server.context.loop

    @property
    def peer(self) -> Address:
        """Where the connection comes from."""
        return Address(self.address, self.port)

    @property
    def logged_in(self) -> bool:
        """Authentication is done."""
        return self.facts is not None

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._channels)

    @property
    def channels(self) -> tuple[ServerChannel, ...]:
        """The session channels that are open."""
        return tuple(self._channels.values())

    def disconnect(self, text: str) -> None:
        """End it in order, telling the peer why."""
        self.pump.engine.disconnect(text)
        self.pump.tick()

    # The pump's owner.

    def handle(self, item: Event | Question) -> None:
        """One event or question of the engine."""
        handler = self._handlers.get(type(item))
        if handler is not None:
            handler(self, item)

    def uncongested(self) -> None:
        """The socket takes bytes again."""
        for channel in tuple(self._channels.values()):
            channel.resume()

    def failed(self, error: Exception) -> None:
        """Our own code raised."""
        self._crashed = True
        self.server.failed(self, error)

    async def asked(self, asked: Awaitable[_T], failure: _T) -> _T:
        """Wait for a plug-in. Its fault disturbs nobody else; neither does a task of its own that was cancelled."""
        try:
            return await asked
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self.server.failed(self, error)
            return failure

    def lost(self) -> None:
        """The socket is closed."""
        for task in self._tasks or ():
            task.cancel()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            self._end(channel)
        self._forwarded = None  # tunnels that the client has not answered are closed with it
        self.server.host.ended(self.id)
        self.server.forget(self)

    # Transport.

    def _version_received(self, event: VersionReceived) -> None:
        report(_TRANSPORT, logging.DEBUG, self, "client is %s", clean(event.version))

    def _keys_exchanged(self, event: KeysExchanged) -> None:
        self.algorithms = self.server.shared(event.algorithms)
        if not event.first:
            self.server.count("rekeys")
        if _TRANSPORT.isEnabledFor(logging.DEBUG):
            chosen = event.algorithms
            report(_TRANSPORT, logging.DEBUG, self, "keys exchanged by %s, host key %s, ciphers %s and %s", chosen.kex,
                   chosen.host_key, chosen.cipher_to_server, chosen.cipher_to_client)  # fmt: skip

    def _resumed(self, _: SendingResumed) -> None:
        self.uncongested()

    def _sign(self, question: SignQuestion) -> None:
        key = self.server.host_key(question.key)
        if key is None:
            self._signing = self.spawn(self._have_signed(question, self._signing))
        elif key.slow:
            self._off_loop(question, lambda: key.sign(question.algorithm, question.data))
        else:
            self.pump.engine.answer(question.token, key.sign(question.algorithm, question.data))

    async def _have_signed(self, question: SignQuestion, before: asyncio.Task[None] | None) -> None:
        # One at a time: who signs hangs up on a process that asks without end, and so on all its clients.
        if before is not None:
            await asyncio.wait([before])
        signature = await self.server.host.sign(self.id, question)
        self.answer(question, signature or None)

    def _work(self, question: WorkQuestion) -> None:
        self._off_loop(question, question.work)

    def _off_loop(self, question: Question, work: Callable[[], object]) -> None:
        async def run() -> None:
            reply: object
            try:
                reply = await self.loop.run_in_executor(self.server.computing, work)
            except DunnartError as error:
                reply = error
            except Exception as error:  # noqa: BLE001 - who waits for the answer must not wait for ever
                self.server.failed(self, error)
                reply = None
            self.answer(question, reply)

        self.spawn(run())

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a part of this connection: it is cancelled with it, and its failure is logged."""
        task = self.loop.create_task(work)
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        assert self._tasks is not None
        self._tasks.discard(task)
        if not self._tasks:
            self._tasks = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.server.failed(self, error)

    def answer(self, question: Question, reply: object) -> None:
        """Answer a question that took its time."""
        try:
            self.pump.now().answer(question.token, reply)
        except Exception as error:  # noqa: BLE001 - an answer that cannot be used must not leave the peer waiting
            self.server.failed(self, error)
            self.pump.engine.disconnect("internal error")
        self.pump.tick()

    def _ended(self, event: ConnectionEnded) -> None:
        address, port = self.address, self.port
        before = not self.logged_in
        level = logging.INFO
        logger = _AUTH if before else _TRANSPORT
        if isinstance(event.error, LoginTimeout):
            report(_AUTH, level, self, "%s", logs.grace_exceeded(address, port))
        elif isinstance(event.error, VersionMismatch):
            report(_AUTH, level, self, "%s", logs.bad_identification(address, port))
        elif isinstance(event.error, NegotiationError) and before:
            report(_TRANSPORT, level, self, "%s", logs.not_negotiated(address, port, str(event.error)))
        elif event.error is not None and event.reason_code == _TOO_MANY_FAILURES:
            report(_AUTH, level, self, "%s", logs.too_many_failures(
                self.user, address, port, invalid=self._unknown_user))  # fmt: skip
        elif event.error is not None:
            report(logger, level, self, "disconnected from %s port %d: %s (%s)", address or "UNKNOWN", port,
                   clean(str(event.error)), type(event.error).__name__)  # fmt: skip
        elif event.by_peer and event.reason_code:
            report(logger, level, self, "%s", logs.received_disconnect(
                address, port, event.reason_code, event.text, before_login=before))  # fmt: skip
        elif not self.pump.engine.peer_version:
            report(_AUTH, level, self, "%s", logs.no_identification(address, port))
        else:
            how: Any = "Connection closed" if event.by_peer else "Disconnected"
            report(logger, level, self, "%s", logs.ended(
                address, port, how=how, user=self.user, invalid=self._unknown_user, before_login=before))  # fmt: skip
        if event.error is not None:
            self.server.count(f"disconnect_{type(event.error).__name__}")
        if before:
            self.server.login_failed(self, self._outcome(event))

    @property
    def _unknown_user(self) -> bool:
        return self._login is not None and self._login.unknown_user

    def _outcome(self, event: ConnectionEnded) -> Outcome:
        if self._crashed:
            return Outcome.CRASH
        if isinstance(event.error, LoginTimeout):
            return Outcome.GRACE_EXCEEDED
        if self._unknown_user:
            return Outcome.INVALID_USER
        if self.pump.engine.auth_failures:
            return Outcome.AUTH_FAILURE
        if event.by_peer or event.error is not None:
            return Outcome.NO_AUTH
        return Outcome.BLAMELESS

    def _about_login(self, item: Event | Question) -> None:
        if self._login is None:
            self._login = Login(self)
        self._login.handle(item)
        if self.logged_in:
            self._login = None

    def audit(self, kind: str, **details: str | float) -> None:
        """Have something recorded."""
        if self.server.config.audit:
            self.server.host.audit(AuditEvent(time.time(), kind, self.id, self.user, self.peer, details))

    # Channels.

    def _open_asked(self, question: ChannelOpenQuestion) -> None:
        request = question.request
        if isinstance(request, SessionOpen):
            self.pump.engine.answer(question.token, True)  # noqa: FBT003 - the reply is the argument
        elif isinstance(request, UnknownOpen) and request.wire_name in self.server.config.channel_types:
            self.spawn(self._beside.ask(question, request))
        else:
            self.pump.engine.answer(question.token, Refusal(Refusal.UNKNOWN_CHANNEL_TYPE, "unknown channel type"))

    @property
    def _beside(self) -> Forwarded:
        if self._forwarded is None:
            self._forwarded = Forwarded(self)
        return self._forwarded

    @property
    def gone(self) -> bool:
        """The connection is over."""
        return self.pump.closed

    def open_channel(self, channel_type: str, data: bytes, opening: Opening) -> None:
        """Ask the client for a channel."""
        self._beside.open_channel(channel_type, data, opening)

    def _refused(self, event: ChannelRefused) -> None:
        self._beside.refused(event)

    def _denied(self, event: ChannelDenied) -> None:
        self.server.count("refused_channels")
        report(_SESSION, logging.INFO, self, "channel for %s port %d refused: %s", self.address or "UNKNOWN", self.port,
               event.reason)  # fmt: skip

    def _opened(self, event: ChannelOpened) -> None:
        channel = self._channels[event.channel] = ServerChannel(self, event.channel)
        if event.channel_type == SessionOpen.name:
            self.server.count("sessions")
            return
        self._beside.opened(channel, event.channel_type)

    def _data(self, event: DataReceived) -> None:
        channel = self._channels.get(event.channel)
        if channel is not None:
            channel.receive(event.chunks)

    def _eof(self, event: EofReceived) -> None:
        channel = self._channels.get(event.channel)
        if channel is not None:
            channel.receive_eof()

    def _close(self, event: CloseReceived) -> None:
        channel = self._channels.get(event.channel)
        if channel is not None:
            channel.receive_close()

    def _window(self, event: WindowOpened) -> None:
        channel = self._channels.get(event.channel)
        if channel is not None:
            channel.resume()

    def _closed(self, event: ChannelClosed) -> None:
        channel = self._channels.pop(event.channel, None)
        if channel is not None:
            self._end(channel)
            self.server.wake()

    def _end(self, channel: ServerChannel) -> None:
        counterpart = channel.counterpart
        channel.close()
        if channel.prepared:
            self.server.host.unprepared(self.id, channel.number)
        if (self._forwarded is None or not self._forwarded.ended(channel)) and counterpart is not None:
            self.audit("session-end", session=channel.number)

    def _requested(self, question: ChannelRequestQuestion) -> None:
        channel = self._channels.get(question.channel)
        request = question.request
        if channel is None:
            self._answer_request(question, done=False)
        elif channel.waiting is not None:
            channel.waiting.append(question)
        elif isinstance(request, UnknownRequest):
            self._prepare(channel, request, question)
        elif isinstance(request, ShellRequest | ExecRequest | SubsystemRequest):
            self._start(channel, request, question)
        else:
            self._answer_request(question, done=self._request(channel, request))

    def _prepare(self, channel: ServerChannel, request: UnknownRequest, question: ChannelRequestQuestion) -> None:
        """A request that a plug-in may know; those that come after it wait."""
        known = request.wire_name in self.server.config.session_requests
        if not known or channel.counterpart is not None:
            self._answer_request(question, done=False)
            return
        channel.waiting = []
        channel.prepared = True
        self.spawn(self._ask_prepare(channel, request, question))

    async def _ask_prepare(
        self, channel: ServerChannel, request: UnknownRequest, question: ChannelRequestQuestion
    ) -> None:
        assert self.facts is not None
        if self._channels.get(channel.number) is not channel:  # it is closed already
            return
        asked = Asked(self.facts, request.wire_name, request.data, channel.number)
        variables = await self.asked(self.server.host.prepare(asked, self), None)
        for name, value in (variables or {}).items():
            channel.set_variable(name, value)
        self._answer_request(question, done=variables is not None)
        waiting, channel.waiting = channel.waiting or [], None
        for each in waiting:
            self._requested(each)
        self.pump.tick()

    def _answer_request(self, question: ChannelRequestQuestion, *, done: bool) -> None:
        if not done:
            self.server.count("refused_requests")
            report(_SESSION, logging.DEBUG, self, "session %d: %s refused", question.channel, question.request.name)
        self.pump.engine.answer(question.token, done)

    def _request(self, channel: ServerChannel, request: ChannelRequest) -> bool:
        if isinstance(request, EnvironmentRequest):
            return self._set_variable(channel, request)
        if isinstance(request, PtyRequest):
            return self._set_terminal(channel, request)
        if isinstance(request, WindowChange | SignalRequest | BreakRequest):
            done = channel.requested(request)
            return done or isinstance(request, WindowChange)
        return isinstance(request, EndOfWrite) and channel.end_output()

    def _start(
        self, channel: ServerChannel, request: ShellRequest | ExecRequest | SubsystemRequest,
        question: ChannelRequestQuestion,
    ) -> None:  # fmt: skip
        assert self.facts is not None
        facts = SessionFacts(self.facts, channel.number, request.name, environment=channel.variables,
                             terminal=channel.terminal)  # fmt: skip
        if isinstance(request, ExecRequest):
            facts.command = shown = request.command
        else:
            facts.subsystem = request.subsystem if isinstance(request, SubsystemRequest) else None
            shown = (facts.subsystem or "").encode()
        possible = b"\0" not in shown and len(shown) <= self.server.config.limits.command_bytes
        if not possible or channel.counterpart is not None:  # RFC 4254 §6.5: one program a channel
            self._answer_request(question, done=False)
            return
        report(_SESSION, logging.INFO, self, "session %d: %s %s", channel.number, facts.kind, clean(shown))
        self.audit("session-begin", session=channel.number, what=facts.kind, detail=shown.decode(errors="replace"))
        host = self.server.host
        channel.counterpart = host.session(facts, channel)
        host.begin(channel.counterpart, partial(self._began, channel, question))

    def _began(self, channel: ServerChannel, question: ChannelRequestQuestion, done: bool) -> None:  # noqa: FBT001
        if not done:
            report(_SESSION, logging.INFO, self, "session %d: %s refused", channel.number, question.request.name)
        self._answer_request(question, done=done)
        if not done and self._channels.get(channel.number) is channel:  # else its end is told already
            channel.fail()  # it may have begun something
            if channel.counterpart is None:
                self.audit("session-end", session=channel.number)
        self.pump.tick()

    def _set_variable(self, channel: ServerChannel, request: EnvironmentRequest) -> bool:
        config = self.server.config
        if not may_set(config, request.variable, request.value):
            return False
        if len(channel.variables) >= config.limits.environment_variables:
            return False
        channel.set_variable(request.variable, request.value)
        return True

    def _set_terminal(self, channel: ServerChannel, request: PtyRequest) -> bool:
        if channel.counterpart is not None or channel.terminal is not None:
            return False
        if self.facts is None or not self.facts.rights.pty:
            return False
        if len(request.modes) > self.server.config.limits.pty_modes_bytes:
            return False
        if len(request.term) > _TERM_BYTES or not _TERM.issuperset(request.term):
            return False
        try:
            channel.set_terminal(request)
        except DecodeError:
            return False
        return True

    def _asked(self, question: GlobalRequestQuestion) -> None:
        request = question.request
        if isinstance(request, UnknownGlobalRequest) and request.wire_name in self.server.config.global_requests:
            self._turn = self.spawn(self._ask(question, request, self._turn))
        else:
            self.pump.engine.answer(question.token, False)  # noqa: FBT003 - the reply is the argument

    async def _ask(
        self, question: GlobalRequestQuestion, request: UnknownGlobalRequest, before: asyncio.Task[None] | None
    ) -> None:
        """Ask a plug-in to answer a global request, once the one before is answered."""
        assert self.facts is not None
        if before is not None:
            await asyncio.wait([before])
        asked = Asked(self.facts, request.wire_name, request.data)
        self.answer(question, await self.asked(self.server.host.answer(asked, self), failure=False))

    _handlers: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        DataReceived: _data,
        WindowOpened: _window,
        EofReceived: _eof,
        ChannelClosed: _closed,
        CloseReceived: _close,
        ChannelOpened: _opened,
        ChannelDenied: _denied,
        ChannelRefused: _refused,
        ChannelRequestQuestion: _requested,
        ChannelOpenQuestion: _open_asked,
        GlobalRequestQuestion: _asked,
        VersionReceived: _version_received,
        KeysExchanged: _keys_exchanged,
        SendingResumed: _resumed,
        SignQuestion: _sign,
        WorkQuestion: _work,
        **dict.fromkeys(Login.handlers, _about_login),
        ConnectionEnded: _ended,
    }
