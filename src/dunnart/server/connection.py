"""One connection of a server: what the engine's events and questions mean here."""

from __future__ import annotations

import asyncio
import logging
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

from dunnart.errors import DecodeError, DunnartError, NegotiationError
from dunnart.protocol.engine import LoginTimeout
from dunnart.protocol.events import (
    AuthFailed,
    AuthPartial,
    ChannelClosed,
    ChannelDenied,
    ChannelOpened,
    CloseReceived,
    ConnectionEnded,
    DataReceived,
    EofReceived,
    Event,
    KeysExchanged,
    LoggedIn,
    SendingResumed,
    VersionReceived,
    WindowOpened,
)
from dunnart.protocol.identification import VersionMismatch
from dunnart.protocol.questions import (
    Allow,
    AuthQuestion,
    AuthReply,
    ChannelOpenQuestion,
    ChannelRequestQuestion,
    Deny,
    GlobalRequestQuestion,
    InteractiveCredential,
    Prompt,
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
    WindowChange,
    decode_modes,
)
from dunnart.runtime import logs
from dunnart.runtime.admission import Outcome
from dunnart.runtime.logs import clean, report
from dunnart.runtime.pump import Pump
from dunnart.server.authentication import Attempt
from dunnart.server.session import Session

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine

    from dunnart.protocol.requests import ChannelRequest
    from dunnart.server.server import Server
    from dunnart.server.session import Application

_AUTH = logging.getLogger("dunnart.auth")
_TRANSPORT = logging.getLogger("dunnart.transport")
_SESSION = logging.getLogger("dunnart.session")
_FAILURE_SECONDS = 0.005  # THREATS R15: every failure takes at least so long
_UNKNOWN_CHANNEL_TYPE = 3
_TERM_BYTES = 64
_TOO_MANY_FAILURES = 14
_TERM = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-")


class ServerConnection:
    """A connection and its sessions. It is its own context for log lines.

    Attributes:
        id: a number that no other connection of this process has.
        user: the name given so far, or that logged in.
        address: the peer's IP address, "" for a unix socket; `port` goes with it.
        grants: what the authenticators granted.
        logged_in: authentication is done.
        server: whose connection it is.
    """

    __slots__ = (
        "__weakref__", "_crashed", "_interactive_rounds", "_sessions", "_tasks", "_unknown_user", "address", "grants",
        "id", "logged_in", "port", "pump", "server", "user",
    )  # fmt: skip

    def __init__(self, server: Server, sock: socket.socket, number: int, address: str, port: int) -> None:
        self.server = server
        self._sessions: dict[int, Session] = {}
        self._tasks: set[asyncio.Task[None]] | None = None
        self._interactive_rounds = 0
        self._crashed = False
        self._unknown_user = False
        self.id = number
        self.user = ""
        self.address = address
        self.port = port
        self.grants: tuple[object, ...] = ()
        self.logged_in = False
        self.pump = Pump(server.context, sock, server.engine_config, self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it lives on."""
        return self.server.context.loop

    @property
    def peer(self) -> str:
        """Where the connection comes from, for log lines."""
        if not self.address:
            return "UNKNOWN"
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    @property
    def local_address(self) -> tuple[str, int]:
        """The address and port that the client reached; ("", 0) for a unix socket."""
        return self.pump.local_address

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
        for session in tuple(self._sessions.values()):
            session.resume()

    def failed(self, error: Exception) -> None:
        """Our own code raised."""
        self._crashed = True
        self.server.failed(self, error)

    def lost(self) -> None:
        """The socket is closed."""
        for task in self._tasks or ():
            task.cancel()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()
        self.server.forget(self)

    # Transport.

    def _version_received(self, event: VersionReceived) -> None:
        report(_TRANSPORT, logging.DEBUG, self, "client is %s", clean(event.version))

    def _keys_exchanged(self, event: KeysExchanged) -> None:
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
        if key.slow:
            self._off_loop(question, lambda: key.sign(question.algorithm, question.data))
        else:
            self.pump.engine.answer(question.token, key.sign(question.algorithm, question.data))

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
            self._answer(question, reply)

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

    def _answer(self, question: Question, reply: object) -> None:
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
            report(_TRANSPORT, level, self, "Unable to negotiate with %s port %d: %s", address or "UNKNOWN", port,
                   clean(str(event.error)))  # fmt: skip
        elif event.error is not None and event.reason_code == _TOO_MANY_FAILURES:
            report(_AUTH, level, self, "%s", logs.too_many_failures(self.user, address, port))
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
            report(logger, level, self, "%s", logs.ended(address, port, how=how, user=self.user, before_login=before))
        if event.error is not None:
            self.server.count(f"disconnect_{type(event.error).__name__}")
        if before:
            self.server.login_failed(self, self._outcome(event))

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

    # Authentication.

    def _authenticate(self, question: AuthQuestion) -> None:
        self.user = question.user
        credential = question.credential
        if isinstance(credential, InteractiveCredential) and credential.responses is not None:
            self._interactive_rounds += 1
        else:
            self._interactive_rounds = 0
        attempt = Attempt(question.user, credential, self.address, self._interactive_rounds)
        self.spawn(self._decide(question, attempt))

    async def _decide(self, question: AuthQuestion, attempt: Attempt) -> None:
        began = self.loop.time()
        reply: AuthReply = Deny("no authenticator")
        authenticator = self.server.authenticator(attempt.credential.method)
        if authenticator is not None:
            try:
                reply = await authenticator.authenticate(attempt)
            except (Exception, asyncio.CancelledError) as error:
                # A plug-in's fault denies and disturbs nobody else; so does a task of its own that was cancelled.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self.server.failed(self, error)
                reply = Deny(f"the {attempt.credential.method} authenticator failed")
        if not isinstance(reply, Allow | Prompt):
            floor = max(_FAILURE_SECONDS, self.server.config.limits.auth_delay_seconds)
            await asyncio.sleep(max(0.0, began + floor - self.loop.time()))
        self._answer(question, reply)

    def _auth_failed(self, event: AuthFailed) -> None:
        self.user = event.user
        self.server.count("auth_failures")
        if event.unknown_user and not self._unknown_user:
            report(_AUTH, logging.INFO, self, "%s", logs.invalid_user(event.user, self.address, self.port))
        self._unknown_user = event.unknown_user
        report(_AUTH, logging.INFO, self, "%s", logs.failed(
            event.method, event.user, self.address, self.port, invalid=event.unknown_user,
            detail=clean(event.detail)))  # fmt: skip

    def _auth_partial(self, event: AuthPartial) -> None:
        report(_AUTH, logging.INFO, self, "%s", logs.partial(event.method, event.user, self.address, self.port))

    def _accepted(self, event: LoggedIn) -> None:
        self.user = event.user
        self.grants = event.grants
        self.logged_in = True
        self.server.login_done(self)
        report(_AUTH, logging.INFO, self, "%s", logs.accepted(
            event.method, event.user, self.address, self.port, event.detail))  # fmt: skip

    # Channels.

    def _open_asked(self, question: ChannelOpenQuestion) -> None:
        if isinstance(question.request, SessionOpen):
            self.pump.engine.answer(question.token, True)  # noqa: FBT003 - the reply is the argument
        else:
            self.pump.engine.answer(question.token, Refusal(_UNKNOWN_CHANNEL_TYPE, "unknown channel type"))

    def _denied(self, event: ChannelDenied) -> None:
        self.server.count("refused_channels")
        report(_SESSION, logging.INFO, self, "channel for %s port %d refused: %s", self.address or "UNKNOWN", self.port,
               event.reason)  # fmt: skip

    def _opened(self, event: ChannelOpened) -> None:
        self._sessions[event.channel] = Session(self, event.channel)
        self.server.count("sessions")

    def _data(self, event: DataReceived) -> None:
        session = self._sessions.get(event.channel)
        if session is not None:
            session.receive(event.chunks)

    def _eof(self, event: EofReceived) -> None:
        session = self._sessions.get(event.channel)
        if session is not None:
            session.receive_eof()

    def _close(self, event: CloseReceived) -> None:
        session = self._sessions.get(event.channel)
        if session is not None:
            session.receive_close()

    def _window(self, event: WindowOpened) -> None:
        session = self._sessions.get(event.channel)
        if session is not None:
            session.resume()

    def _closed(self, event: ChannelClosed) -> None:
        session = self._sessions.pop(event.channel, None)
        if session is not None:
            session.close()

    def _requested(self, question: ChannelRequestQuestion) -> None:
        session = self._sessions.get(question.channel)
        done = session is not None and self._request(session, question.request)
        if not done:
            self.server.count("refused_requests")
            report(_SESSION, logging.DEBUG, self, "session %d: %s refused", question.channel, question.request.name)
        self.pump.engine.answer(question.token, done)

    def _request(self, session: Session, request: ChannelRequest) -> bool:
        if isinstance(request, EnvironmentRequest):
            return self._set_variable(session, request)
        if isinstance(request, PtyRequest):
            return self._set_terminal(session, request)
        if isinstance(request, WindowChange):
            session.resize(request.columns, request.rows, request.width_pixels, request.height_pixels)
            return True
        if isinstance(request, SignalRequest):
            return session.signal(request.signal)
        if isinstance(request, BreakRequest):
            return session.send_break()
        if isinstance(request, EndOfWrite):
            session.end_output()
            return True
        return not session.began and self._start(session, request)  # RFC 4254 §6.5: one program a channel

    def _start(self, session: Session, request: ChannelRequest) -> bool:
        config = self.server.config
        if isinstance(request, ShellRequest):
            return self._begin(session, config.shell, "shell")
        if isinstance(request, ExecRequest):
            if b"\0" in request.command or len(request.command) > config.limits.command_bytes:
                return False
            session.command = request.command
            return self._begin(session, config.exec, "exec")
        if isinstance(request, SubsystemRequest):
            session.subsystem = request.subsystem
            return self._begin(session, config.subsystems.get(request.subsystem), "subsystem")
        return False

    def _begin(self, session: Session, application: Application | None, kind: str) -> bool:
        shown = session.command if session.command is not None else session.subsystem or ""
        if application is None:
            session.command = session.subsystem = None
            report(_SESSION, logging.INFO, self, "session %d: %s %s refused", session.number, kind, clean(shown))
            return False
        report(_SESSION, logging.INFO, self, "session %d: %s %s", session.number, kind, clean(shown))
        session.began = True
        try:
            done = application(session)
        except Exception as error:  # noqa: BLE001 - an application's fault fails its channel, never the connection
            self.server.failed(self, error)
            done = False
        if not done:
            session.fail()  # it may have begun something
        return done

    def _set_variable(self, session: Session, request: EnvironmentRequest) -> bool:
        limits = self.server.config.limits
        name, value = request.variable, request.value
        if session.environment is None:
            session.environment = {}
        if (
            not any(fnmatchcase(name, pattern) for pattern in self.server.config.accept_env)
            or not name
            or any(character in name for character in "\0=\n")
            or "\0" in value
            or len(name) + len(value) > limits.environment_bytes
            or len(session.environment) >= limits.environment_variables
        ):
            return False
        session.environment[name] = value
        return True

    def _set_terminal(self, session: Session, request: PtyRequest) -> bool:
        if session.began or session.terminal_request is not None:
            return False
        if len(request.modes) > self.server.config.limits.pty_modes_bytes:
            return False
        if len(request.term) > _TERM_BYTES or not _TERM.issuperset(request.term):
            return False
        try:
            decode_modes(request.modes)
        except DecodeError:
            return False
        session.terminal_request = request
        return True

    def _asked(self, question: GlobalRequestQuestion) -> None:
        self.pump.engine.answer(question.token, False)  # noqa: FBT003 - the reply is the argument

    _handlers: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        DataReceived: _data,
        WindowOpened: _window,
        EofReceived: _eof,
        ChannelClosed: _closed,
        CloseReceived: _close,
        ChannelOpened: _opened,
        ChannelDenied: _denied,
        ChannelRequestQuestion: _requested,
        ChannelOpenQuestion: _open_asked,
        GlobalRequestQuestion: _asked,
        VersionReceived: _version_received,
        KeysExchanged: _keys_exchanged,
        SendingResumed: _resumed,
        SignQuestion: _sign,
        WorkQuestion: _work,
        AuthQuestion: _authenticate,
        AuthFailed: _auth_failed,
        AuthPartial: _auth_partial,
        LoggedIn: _accepted,
        ConnectionEnded: _ended,
    }
