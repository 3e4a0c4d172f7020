"""What runs an application: its handlers and callbacks, on the event loop and in the threads where they belong.

The host lives on the *service loop*: the loop that serves the protocol or, where the protocol has processes of its own,
the loop that talks to them. The application's coroutines run on *its* loop, its blocking functions in a pool of
threads; so neither holds up the other, but for Python's own lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dunnart.errors import ConfigError
from dunnart.protocol.limits import OF_USERS, Limits
from dunnart.protocol.questions import Allow, AuthReply, Deny, Refusal
from dunnart.runtime.logs import clean, report
from dunnart.runtime.pool import ThreadPool
from dunnart.server import forced
from dunnart.server.applications import as_application, is_async, with_middleware
from dunnart.server.authentication import takes
from dunnart.server.facts import UserTerms
from dunnart.server.forwarding import ClientLink, Opening, Scope, Tunnel, gone
from dunnart.server.interfaces import AuditEvent, ChannelOpening, ConnectionRequest, SessionRequest
from dunnart.server.raw import RawSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from dunnart.protocol.questions import SignQuestion
    from dunnart.runtime.fork_server import ForkServer
    from dunnart.runtime.logs import Context
    from dunnart.runtime.process import Call, Child, Command
    from dunnart.runtime.streams import Streams
    from dunnart.server.applications import Handler
    from dunnart.server.authentication import Attempt
    from dunnart.server.channel import ChannelControl, Serving
    from dunnart.server.config import ServerConfig
    from dunnart.server.facts import Address, Asked, Candidate, ConnectionFacts, SessionFacts
    from dunnart.server.forwarding import ConnectionControl
    from dunnart.server.interfaces import Forward
    from dunnart.server.raw import Application
    from dunnart.server.server import Server

_T = TypeVar("_T")
_LOG = logging.getLogger("dunnart.server")
_FORWARD = logging.getLogger("dunnart.forward")
_SESSION = logging.getLogger("dunnart.session")
_CALLBACK_THREADS = 64  # started as they are needed: what hangs, a home on a network say, keeps its thread
_CALLBACK_QUEUE = 1000
_END_SECONDS = 5.0
_RECORD_SECONDS = 1.0


class HostLink(Protocol):
    """What the protocol's side asks of the application's, in this process or another. Called on the protocol's loop."""

    async def accepts(self, peer: Address) -> bool:
        """May this client connect?"""

    async def terms(self, candidate: Candidate) -> UserTerms:
        """Which chains of methods does a user have to go through, and within which limits? May raise."""

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Decide on one authentication request. May raise."""

    async def sign(self, connection: int, question: SignQuestion) -> bytes:
        """Sign for a connection with the private half of a host key that only the application's process has."""

    @property
    def admits(self) -> bool:
        """Whether `admit` is to be asked."""

    async def admit(self, attempt: Attempt, allowed: Allow) -> AuthReply:
        """A user has proved who he is: may he in? May raise."""

    async def open(self, asked: Asked, control: ConnectionControl) -> Opening | Refusal:
        """May a channel that is no session be opened? May raise."""

    def abandon(self, opening: int) -> None:
        """Nothing came of a channel that was to be opened."""

    async def answer(self, asked: Asked, control: ConnectionControl) -> bool | bytes:
        """Answer a global request. May raise."""

    async def prepare(self, asked: Asked, control: ConnectionControl) -> Mapping[str, str] | None:
        """Answer a request of a session that has not begun; gives variables for it. May raise."""

    def settled(self, connection: int, opening: int, refusal: Refusal | None) -> None:
        """The client has opened a channel that it was asked for, or refused."""

    def unprepared(self, connection: int, channel: int) -> None:
        """A session for which requests were answered is gone."""

    def ended(self, connection: int) -> None:
        """A connection is gone, whether or not its user was logged in."""

    def audit(self, event: AuditEvent) -> None:
        """Something happened that has to be recorded."""

    def session(self, facts: SessionFacts, control: ChannelControl) -> Serving:
        """A session is to be served."""

    def begin(self, session: Serving, then: Callable[[bool], None]) -> None:
        """Begin to serve it; `then` is told, now or later, whether something does."""


class Host:
    """Runs one server's application. Its methods are for the service loop, but for those that say otherwise.

    Args:
        config: the server's.
        loop: the service loop.
        app_loop: the loop that the application's coroutines run on.
        counters: how often each thing has happened.
        server: whose application it is.
    """

    def __init__(
        self, config: ServerConfig, loop: asyncio.AbstractEventLoop, app_loop: asyncio.AbstractEventLoop,
        counters: Counter[str], server: Server | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.server = server
        self.loop = loop
        self.app_loop = app_loop
        self.counters = counters
        self.sessions: dict[tuple[int, int], RawSession] = {}
        self.programs = 0
        self._forks: ForkServer | None = None
        self._idle: asyncio.Event | None = None
        self.handlers = ThreadPool(
            "dunnart-handler", config.application_threads, config.application_queue,
            nice=config.thread_nice, stack_bytes=config.thread_stack_bytes,
        )  # fmt: skip
        self.callbacks = ThreadPool("dunnart-callback", _CALLBACK_THREADS, _CALLBACK_QUEUE)
        self._thread = threading.get_ident()
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: set[asyncio.Task[None]] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._opened: dict[int, Application] = {}
        self._clients: dict[int, ClientLink] = {}
        self._prepared: dict[tuple[int, int], Scope] = {}
        self._wanted: dict[tuple[int, int], Callable[[Refusal | None], None]] = {}
        self._to_tell: dict[int, set[Callable[[int], object]]] = {}
        self._openings = 0
        self._authenticators = {each.method: each for each in config.authenticators}
        self._applications = {
            kind: with_middleware(config.middleware, as_application(handler, kind))
            for kind, handler in config.served().items()
        }

    # For the protocol's side.

    async def accepts(self, peer: Address) -> bool:
        """Ask the application's accept callback; an exception, or no answer in time, refuses."""
        accept = self.config.accept
        return accept is None or await self.callback(accept, peer)

    async def terms(self, candidate: Candidate) -> UserTerms:
        """Ask the application how a user may log in."""
        assert self.config.terms_for is not None
        terms: Any = await self.callback(self.config.terms_for, candidate)
        if not isinstance(terms, UserTerms) or not isinstance(terms.limits, Limits | None):
            raise ConfigError(f"{terms!r} is no UserTerms", key="terms_for")
        chains: tuple[Any, ...] = tuple(terms.methods)
        for chain in chains:
            methods = chain.split(",") if isinstance(chain, str) else []
            if not methods or not set(methods) <= self._authenticators.keys() or len(set(methods)) < len(methods):
                raise ConfigError(f"{chain!r} is no chain of methods that have authenticators", key="terms_for")
        if terms.limits is None:
            return UserTerms(chains)
        own = replace(self.config.limits, **{name: getattr(terms.limits, name) for name in OF_USERS})
        return UserTerms(chains, own)

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask the authenticator of the attempt's method."""
        authenticator = self._authenticators.get(attempt.credential.method)
        if authenticator is None:
            return Deny("no authenticator")
        if not takes(authenticator, attempt.credential):
            return Deny("certificates are not accepted")
        if (ended := getattr(authenticator, "ended", None)) is not None:
            self._to_tell.setdefault(attempt.connection, set()).add(ended)
        async with asyncio.timeout(self.config.callback_seconds):
            work = authenticator.authenticate(replace(attempt, run=self.callback))
            on_any_loop = getattr(authenticator, "on_any_loop", False)
            reply = await (contained(work) if on_any_loop else self._on_app_loop(work))
        if isinstance(reply, Allow) and reply.rights is not None and reply.rights.expires is not None:
            return Deny("has expired") if reply.rights.expires < time.time() else reply
        return reply

    async def sign(self, _connection: int, question: SignQuestion) -> bytes:
        """Sign with a host key."""
        private = next(each for each in self.config.keys if each.public == question.key)
        if private.slow:
            return await self.callbacks.run(lambda: private.sign(question.algorithm, question.data))
        return private.sign(question.algorithm, question.data)

    @property
    def admits(self) -> bool:
        """Whether somebody has the last word on logins."""
        return self.config.account is not None

    async def admit(self, attempt: Attempt, allowed: Allow) -> AuthReply:
        """Ask who has the last word on logins."""
        check = self.config.account
        assert check is not None
        if (ended := getattr(check, "ended", None)) is not None:
            self._to_tell.setdefault(attempt.connection, set()).add(ended)
        async with asyncio.timeout(self.config.callback_seconds):
            return await self._on_app_loop(check.admit(replace(attempt, run=self.callback), allowed))

    async def open(self, asked: Asked, control: ConnectionControl) -> Opening | Refusal:
        """Ask the channel type's plug-in, and keep what it wants to serve the channel with."""
        plugin = self.config.channel_types[asked.name]
        opening = ChannelOpening(asked.connection, asked.name, asked.data, self._client(asked, control))
        async with asyncio.timeout(self.config.callback_seconds):
            found = await self._on_app_loop(plugin.open(opening))
        if isinstance(found, Tunnel) and found.scarce:
            return Refusal(Refusal.RESOURCE_SHORTAGE, "the server is short of descriptors")
        return found if isinstance(found, Refusal) else self._keep_opening(found, asked.name)

    def _keep_opening(self, served: Handler | Tunnel, name: str) -> Opening:
        number = self._openings = self._openings + 1
        if isinstance(served, Tunnel):
            return Opening(number, served.detail, served)
        self._opened[number] = as_application(served, name)
        return Opening(number)

    def abandon(self, opening: int) -> None:
        """Forget what wanted to serve a channel."""
        self._opened.pop(opening, None)

    async def allows(self, forward: Forward) -> bool:
        """May this login have that forwarded? Its grants and all policies must say so. On the application's loop."""
        policies = self.config.forwarding
        granted: list[Any] = [each for each in forward.connection.grants if callable(getattr(each, "allows", None))]
        allowed = bool(policies)
        for policy in (forward.connection.rights, *granted, *policies):
            allowed = allowed and await policy.allows(forward) is True
        if not allowed:
            self.counters["refused_forwards"] += 1
            report(_FORWARD, logging.INFO, forward.connection, "may not have forwarded: %s", clean(str(forward)))
            self.note(forward.connection, "forward-refused", detail=clean(str(forward)))
        return allowed

    def note(self, connection: ConnectionFacts, kind: str, **details: str) -> None:
        """Have something recorded that concerns a connection. From any thread."""
        if self.config.audit:
            event = AuditEvent(time.time(), kind, connection.id, connection.user, connection.peer, details)
            self.call(self.audit, event)

    async def answer(self, asked: Asked, control: ConnectionControl) -> bool | bytes:
        """Ask the global request's plug-in."""
        plugin = self.config.global_requests[asked.name]
        request = ConnectionRequest(asked.connection, asked.name, asked.data, self._client(asked, control))
        async with asyncio.timeout(self.config.callback_seconds):
            answer = await self._on_app_loop(plugin.answer(request))
        return answer if isinstance(answer, bytes) else answer is True

    async def prepare(self, asked: Asked, control: ConnectionControl) -> Mapping[str, str] | None:
        """Ask the session request's plug-in."""
        plugin = self.config.session_requests[asked.name]
        key = (asked.connection.id, asked.channel)
        scope = self._prepared.get(key)
        if scope is None:
            scope = self._prepared[key] = Scope(self, asked.connection)
        client = self._client(asked, control)
        request = SessionRequest(asked.connection, asked.channel, asked.name, asked.data, scope, client)
        async with asyncio.timeout(self.config.callback_seconds):
            found: Any = await self._on_app_loop(plugin.prepare(request))
        if found is not None and not isinstance(found, Mapping):
            raise TypeError(f"{found!r} is no mapping of variables, and not None")
        return found

    def unprepared(self, connection: int, channel: int) -> None:
        """A session for which requests were answered is gone."""
        scope = self._prepared.pop((connection, channel), None)
        if scope is not None:
            self.call_app(scope.end)

    def _client(self, asked: Asked, control: ConnectionControl) -> ClientLink:
        number = asked.connection.id
        client = self._clients.get(number)
        if client is None:
            client = ClientLink(self, asked.connection, control)
            if control.gone:  # before anything came of what it asked for
                client.end()
            else:
                self._clients[number] = client
        return client

    def want(
        self, client: ClientLink, channel_type: str, data: bytes, served: Handler | Tunnel,
        settled: Callable[[Refusal | None], None],
    ) -> None:  # fmt: skip
        """Ask a client for a channel; `settled` is told what came of it."""
        if self._clients.get(client.facts.id) is not client:
            settled(gone())
            return
        opening = self._keep_opening(served, channel_type)
        self._wanted[client.facts.id, opening.number] = settled
        client.control.open_channel(channel_type, data, opening)

    def settled(self, connection: int, opening: int, refusal: Refusal | None) -> None:
        """The client has opened a channel that it was asked for, or refused."""
        settled = self._wanted.pop((connection, opening), None)
        if refusal is not None:
            self.abandon(opening)
        if settled is not None:
            settled(refusal)

    def ended(self, connection: int) -> None:
        """A connection is gone."""
        for ended in self._to_tell.pop(connection, ()):
            self.call_app(self._tell_ended, ended, connection)
        client = self._clients.pop(connection, None)
        if client is None:
            return
        for key in [key for key in self._wanted if key[0] == connection]:
            self.settled(*key, gone())
        self.call_app(client.end)

    def _tell_ended(self, ended: Callable[[int], object], connection: int) -> None:
        try:
            ended(connection)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an authenticator's fault disturbs nobody else
            self.counters["failures"] += 1
            _LOG.error("an authenticator failed as connection %d ended: %r", connection, error)

    def audit(self, event: AuditEvent) -> None:
        """Tell the audit sinks."""
        for sink in self.config.audit:
            try:
                sink.record(event)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a sink's fault disturbs neither the others nor the session
                self.counters["failures"] += 1
                _LOG.error("the audit sink %r failed: %r", sink, error)

    def session(self, facts: SessionFacts, control: ChannelControl) -> RawSession:
        """Note a session in the table."""
        made = RawSession(self, facts, control)
        self.sessions[facts.connection.id, facts.channel] = made
        return made

    def begin(self, session: Serving, then: Callable[[bool], None]) -> None:
        """Begin to serve a session: find its application and hand it over."""
        assert isinstance(session, RawSession)
        try:
            forced.apply(session.facts)
        except forced.NotAllowed as error:
            report(_SESSION, logging.INFO, session.facts.connection, "session %d: %s", session.channel, error)
            if error.told:
                session.refuse(str(error), 1)
            then(error.told)
            return
        if session.rights.command is not None and not session.facts.opening:
            what = session.facts.subsystem or session.command or ""
            report(_SESSION, logging.INFO, session.facts.connection, "session %d: forced to %s", session.channel,
                   clean(what))  # fmt: skip
        application = self.application(session.facts)
        done = False
        if application is not None:
            try:
                done = application.begin(session)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - an application's fault fails its channel alone
                self.failed(session.facts.connection, error)
        then(done is True)

    def application(self, facts: SessionFacts) -> Application | None:
        """Who serves such a session, or other channel."""
        if facts.opening:
            return self._opened.pop(facts.opening, None)
        return self._applications.get(facts.kind if facts.subsystem is None else f"subsystem {facts.subsystem}")

    def served_by(self, connection: int, channel: int) -> str:
        """What serves a session, for people: "process PID", or the handler's name. From any thread."""
        session = self.sessions.get((connection, channel))
        if session is None:
            return ""
        if session.process:
            return f"process {session.process}"
        facts = session.facts
        handler = self.config.served().get(facts.kind if facts.subsystem is None else f"subsystem {facts.subsystem}")
        return "" if handler is None else str(getattr(handler, "__qualname__", type(handler).__qualname__))

    # For sessions and applications.

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function on the service loop: now if this is its thread, soon otherwise. From any thread."""
        if threading.get_ident() == self._thread:
            function(*arguments)
        else:
            self.loop.call_soon_threadsafe(function, *arguments)

    def call_app(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function soon on the application's loop."""
        if self.app_loop is self.loop:
            function(*arguments)
        else:
            self.app_loop.call_soon_threadsafe(function, *arguments)

    async def callback(self, function: Callable[..., _T | Awaitable[_T]], *arguments: object) -> _T:
        """Call a function of the application, bounded in time: a coroutine function on its loop, another in a thread.

        Raises:
            TimeoutError: it took longer than `callback_seconds`.
        """
        async with asyncio.timeout(self.config.callback_seconds):
            if is_async(function):
                return await self._on_app_loop(function(*arguments))  # type: ignore[arg-type] # a coroutine
            result: Any = await self.callbacks.run(lambda: function(*arguments))
            return result  # type: ignore[no-any-return] # what the callback's type says

    async def _on_app_loop(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self.app_loop is self.loop:
            return await contained(work)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(contained(work), self.app_loop))

    def keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine on the service loop; its failure is logged."""
        task = self.loop.create_task(work)
        self._kept.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._kept.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.counters["failures"] += 1
                _LOG.error("failed: %r", error)

        task.add_done_callback(done)
        return task

    def spawn(self, work: Coroutine[Any, Any, None], context: Context) -> asyncio.Task[None]:
        """Run a coroutine on the application's loop, from there; its failure is logged."""
        task = self.app_loop.create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.failed(context, error)

        task.add_done_callback(done)
        return task

    def failed(self, context: Context, error: BaseException) -> None:
        """The application's or a plug-in's code failed, which other connections do not feel. From any thread."""
        self.counters["failures"] += 1
        try:
            shown = repr(error)
        except Exception:  # noqa: BLE001 - what cannot even be shown
            shown = type(error).__name__
        report(_LOG, logging.ERROR, context, "failed: %s", shown)
        _LOG.debug("failed", exc_info=error)

    def refuse(self, session: RawSession, reason: str) -> None:
        """There is no room for a session: tell its user."""
        self.counters["refused_sessions"] += 1
        report(_LOG, logging.WARNING, session.facts.connection, "session %d refused: %s", session.channel, reason)
        session.refuse(reason)

    def forget(self, session: RawSession) -> None:
        """A session's channel is gone."""
        self.sessions.pop((session.connection_id, session.channel), None)

    def program_ended(self) -> None:
        """A child process was reaped."""
        self.programs -= 1
        if self._idle is not None and not self.programs:
            self._idle.set()

    async def hung_up(self, seconds: float) -> None:
        """Wait until all child processes have ended, at most so long; on the service loop."""
        if self.programs:
            self._idle = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
        if self._serving:  # the ends of logins are recorded
            _, left = await asyncio.wait(self._serving, timeout=_RECORD_SECONDS)
            for task in left:
                task.cancel()
        if self._forks is not None:
            await self._forks.close()

    def start(self, program: Command | Call, forks: ForkServer | None = None) -> tuple[Child, Streams]:
        """Start a program, or a function in a process of its own, on pipes; on the service loop. Raises OSError."""
        from dunnart.runtime import process

        if isinstance(program, process.Command):
            return process.spawn(program, None)
        server = forks or self.forks()
        return process.on_pipes(lambda streams: server.start(program, streams))

    def forks(self) -> ForkServer:
        """Give what forks processes for functions of Python."""
        if self._forks is None:
            from dunnart.runtime.fork_server import ForkServer

            self._forks = ForkServer(self.loop)
        return self._forks

    def serve(self, session: RawSession, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that serves a session, on the service loop; what it raises fails the session."""

        async def serve() -> None:
            try:
                await contained(work)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it concerns this session alone
                if not session.ended:
                    session.exit(1)
                self.failed(session.facts.connection, error)

        task = self.loop.create_task(serve())
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    def start_beside(self, program: Command | Call, started: Callable[[OSError | None], None]) -> None:
        """Start a program that serves no session; `started` is called on the application's loop."""
        failure: OSError | None = None
        try:
            child, streams = self.start(program)
        except OSError as error:
            failure = error
        else:
            streams.close()
            self.programs += 1
            child.watch(self.loop, lambda _: self.program_ended())
        self.call_app(started, failure)

    async def close(self) -> None:
        """End what still runs. On the application's loop; a handler that does not heed its cancelling is left alone."""
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=_END_SECONDS)
            if left:
                _LOG.error("%d handlers do not end although they are cancelled", len(left))
        self.handlers.close()
        self.callbacks.close()


async def contained(work: Awaitable[_T]) -> _T:
    """Await a plug-in's work; its sys.exit() ends neither the event loop nor the program."""
    try:
        return await work
    except SystemExit as error:
        raise RuntimeError(f"{error!r} in a plug-in") from error
