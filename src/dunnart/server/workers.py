"""The protocol in processes of its own, seen from the application's: it starts them, and answers what they ask.

    application's process                                        protocol processes
    app loop     handlers, callbacks                             worker 0: acceptor, admission
    control loop Host ◄── link ──────────────────────────────►  worker 1 …
                 sessions' sockets, pipes and ptys are handed over and go straight to the application or its programs

The control loop has a thread of its own, so that handlers that block the application's loop delay no login.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from dunnart.errors import ConfigError, ConnectionClosed, DecodeError, PluginError
from dunnart.keys.public import PublicKey
from dunnart.protocol.questions import (
    Allow,
    AuthReply,
    Credential,
    Deny,
    InteractiveCredential,
    NoneCredential,
    PasswordCredential,
    Prompt,
    PublicKeyCredential,
    Refusal,
)
from dunnart.protocol.requests import (
    BreakRequest,
    ExitSignal,
    ExitStatus,
    PtyRequest,
    SignalRequest,
    WindowChange,
    decode_channel_request,
    decode_strings,
    encode_strings,
)
from dunnart.runtime.logs import PARTS
from dunnart.runtime.loop_thread import LoopThread
from dunnart.server.authentication import Attempt
from dunnart.server.facts import Address, ConnectionFacts, SessionFacts, Terminal
from dunnart.server.handover import (
    Abandoned,
    AcceptAsked,
    AddStderr,
    Answered,
    Attach,
    Audited,
    AuthAnswered,
    AuthAsked,
    Begun,
    Call,
    End,
    Frame,
    Gone,
    HungUp,
    Link,
    OpenAnswered,
    OpenAsked,
    Opened,
    Peer,
    RequestAnswered,
    RequestAsked,
    Requested,
    Returned,
    Said,
    SessionAsked,
    UserIn,
)
from dunnart.server.host import Host
from dunnart.server.interfaces import AuditEvent, ChannelOpening, ConnectionRequest
from dunnart.server.remote import ALLOWED, DENIED, PROMPTED, SILENT, TOUCH, UNKNOWN_USER, VERIFY, Order
from dunnart.wire.encoding import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from dunnart.runtime.streams import Streams
    from dunnart.server.config import ServerConfig
    from dunnart.server.raw import RawSession
    from dunnart.server.server import Server

_LOG = logging.getLogger("dunnart.server")
_HANG_UP_SECONDS = 1.0
_CONNECT_FAILED = 2
_START_SECONDS = 30.0
_RESTART_SECONDS = 1.0
_END_SECONDS = 5.0
_MOST_QUESTIONS = 4096
_MOST_CONNECTIONS = 1_000_000
_SWITCH_SECONDS = 0.0005
"""How long a thread that computes may keep Python's lock while the control loop's wants it. Python's own 5 ms would be
waited for at every step of a login."""
_BOOT = """\
import json, sys
sys.modules.setdefault("ssl", None)  # asyncio can do without, and it is 4.5 MB
sys.path[:] = json.loads(sys.argv[2])
from dunnart.server.remote import main
main(int(sys.argv[1]))
"""
# What a protocol process does not have to know is the application's.
_TRAVELS = (
    "methods", "accept_env", "algorithms", "limits", "admission", "banner", "accept_delay_seconds", "retry_seconds",
)  # fmt: skip


class _Whose(NamedTuple):
    """A connection of another process, for its log lines."""

    id: int
    user: str
    peer: str


class InProcesses:
    """The placement: as many protocol processes as the configuration says."""

    def __init__(self, config: ServerConfig, app_loop: asyncio.AbstractEventLoop, server: Server | None = None) -> None:
        try:
            pickle.dumps(config.admission)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ConfigError(f"cannot be given to another process: {error}", key="admission") from error
        self.counters: Counter[str] = Counter()
        self._config = config
        self._app_loop = app_loop
        self._server = server
        self._thread = LoopThread("dunnart-control")
        self._workers: list[_Worker] = []
        self._host: Host | None = None
        self._listeners: list[socket.socket] = []
        self._closing = False

    @property
    def host(self) -> Host:
        """What runs the application; on the control loop."""
        assert self._host is not None
        return self._host

    @property
    def connections(self) -> int:
        """How many there are now."""
        return sum(worker.connections for worker in self._workers)

    async def start(self, listeners: Iterable[socket.socket]) -> None:
        """Start the processes; returns once they accept connections."""
        self._listeners = list(listeners)
        _Switching.begin()  # `_end` ends it
        self._thread.start()
        try:
            await self._thread.run(self._start())
        except BaseException:
            await self._thread.run(self._end())
            await self._thread.stop()
            raise

    async def _start(self) -> None:
        self._host = Host(self._config, self._thread.loop, self._app_loop, self.counters, self._server)
        for index in range(self._config.workers):
            self._workers.append(_Worker(self._host, index, self._listeners))
        async with asyncio.timeout(_START_SECONDS):
            await asyncio.gather(*(worker.start() for worker in self._workers))
        for worker in self._workers[1:]:
            self._introduce(worker)
        for worker in self._workers:
            worker.on_lost = self._restart
            if worker.lost:  # before anybody could be told
                self._restart(worker)

    def _introduce(self, worker: _Worker) -> None:
        """Give a worker and the acceptor a link to each other."""
        ours, theirs = socket.socketpair()
        self._workers[0].send(Peer(worker.index, acceptor=False), (ours.detach(),))
        worker.send(Peer(0, acceptor=True), (theirs.detach(),))

    def _restart(self, worker: _Worker) -> None:
        _LOG.error("protocol process %d has ended unexpectedly; another one is started", worker.index)
        self.counters["worker_restarts"] += 1
        self._restart_later(worker)

    def _restart_later(self, worker: _Worker) -> None:
        self._thread.loop.call_later(_RESTART_SECONDS, lambda: self.host.keep(self._again(worker)))

    async def _again(self, worker: _Worker) -> None:
        await worker.end()
        if self._closing:
            return
        try:
            async with asyncio.timeout(_START_SECONDS):
                await worker.start()
        except (OSError, TimeoutError) as error:  # no descriptors, no memory, no time: perhaps later
            _LOG.error("protocol process %d cannot be started: %r", worker.index, error)
            if not self._closing:
                self._restart_later(worker)
            return
        for other in self._workers[1:] if worker.index == 0 else [worker]:
            self._introduce(other)

    async def close(self, text: str, seconds: float) -> None:
        """End every connection, the processes, and all that runs."""
        await self._thread.run(self._close(text, seconds))
        await self.host.close()
        await self._thread.stop()

    async def _close(self, text: str, seconds: float) -> None:
        self._closing = True
        for worker in self._workers:
            worker.on_lost = lambda _: None
        calls = [asyncio.ensure_future(worker.call("close", text, seconds)) for worker in self._workers]
        await asyncio.wait(calls, timeout=seconds + _END_SECONDS)  # one that does not answer is ended all the same
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self.host.hung_up(_HANG_UP_SECONDS)
        await self._end()

    async def _end(self) -> None:
        self._closing = True
        for worker in self._workers:
            worker.on_lost = lambda _: None
            await worker.end()
        for listener in self._listeners:
            listener.close()
        _Switching.end()

    async def each(self, name: str, *arguments: object) -> list[Any]:
        """Have every worker do something, and give what they return."""

        async def collect() -> list[Any]:
            calls = (worker.call(name, *arguments) for worker in self._workers)
            found = await asyncio.gather(*calls, return_exceptions=True)
            return [result for result in found if not isinstance(result, BaseException)]

        return await self._thread.run(collect())

    async def stop_listening(self) -> None:
        """Accept no more connections."""
        await self.each("stop_listening")

        async def forget() -> None:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()

        await self._thread.run(forget())


class _Switching:
    """Python's switch interval, which is the whole program's: short while any server has protocol processes."""

    _lock = threading.Lock()
    _users = 0
    _before = 0.0

    @classmethod
    def begin(cls) -> None:
        with cls._lock:
            if not cls._users:
                cls._before = sys.getswitchinterval()
                sys.setswitchinterval(min(cls._before, _SWITCH_SECONDS))
            cls._users += 1

    @classmethod
    def end(cls) -> None:
        with cls._lock:
            cls._users -= 1
            if not cls._users:
                sys.setswitchinterval(cls._before)


class _Connection:
    """A connection that a protocol process has spoken of.

    Attributes:
        allowed: the logins that were allowed here: method, user, public key.
        grants: what they granted, which the process knows by number.
        facts: once a user is in.
        sessions: those that run, by channel.
        openings: channels that may be opened, but are not yet.
    """

    __slots__ = ("allowed", "facts", "grants", "openings", "sessions")

    def __init__(self) -> None:
        self.allowed: set[tuple[str, str, bytes]] = set()
        self.grants: list[object] = []
        self.facts: ConnectionFacts | None = None
        self.sessions: dict[int, RawSession] = {}
        self.openings: set[int] = set()

    @property
    def whose(self) -> ConnectionFacts:
        """Who has logged in."""
        if self.facts is None:
            raise DecodeError("nobody has logged in on this connection")
        return self.facts


class _Worker:
    """One protocol process, from the control loop.

    It meets strangers, and may be theirs: it can lie about what its own connections send, and that is all. What it
    cannot mean ends it.
    """

    def __init__(self, host: Host, index: int, listeners: list[socket.socket]) -> None:
        self._host = host
        self._listeners = listeners
        self._link: Link | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._next_token = 1
        self._connections: dict[int, _Connection] = {}
        self._questions: set[asyncio.Task[None]] = set()
        self._travelling = {each.method for each in host.config.authenticators if getattr(each, "travels", False)}
        self._first = index + 1
        self.index = index
        self.on_lost: Callable[[_Worker], None] = lambda _: None

    @property
    def lost(self) -> bool:
        """It is not there any more."""
        return self._link is None or self._link.closed

    @property
    def connections(self) -> int:
        """How many it serves."""
        return len(self._connections)

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            ConnectionClosed: it ended instead.
            OSError: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                command = [sys.executable, "-c", _BOOT, str(theirs.fileno()), json.dumps(sys.path)]
                self._process = subprocess.Popen(  # noqa: ASYNC220 - vfork and exec take a millisecond
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0
                )
            self._order(ours)
        except BaseException:
            ours.close()
            raise
        self._calls[0] = ready = self._host.loop.create_future()
        self._link = Link(ours, self._host.loop, self._receive, self._lost)
        await ready

    def _order(self, sock: socket.socket) -> None:
        config = self._host.config
        levels = {f"dunnart.{part}": logging.getLogger(f"dunnart.{part}").getEffectiveLevel() for part in PARTS}
        order = Order(
            self.index, config.workers, {name: getattr(config, name) for name in _TRAVELS},
            tuple(key.openssh() for key in config.keys), config.accept is not None, bool(config.audit),
            tuple(authenticator.method for authenticator in config.authenticators),
            tuple(each for each in config.authenticators if getattr(each, "travels", False)),
            tuple(config.channel_types),
            tuple(config.global_requests), levels, self._first,
        )  # fmt: skip
        data = pickle.dumps(order)
        listeners = [listener.fileno() for listener in self._listeners] if self.index == 0 else []
        socket.send_fds(sock, [len(data).to_bytes(4, "big")], listeners)
        sock.sendall(data)

    def send(self, frame: Frame, descriptors: tuple[int, ...] = ()) -> None:
        """Send it a frame."""
        assert self._link is not None
        self._link.send(frame, descriptors)

    async def call(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - the method says what
        """Have it do something: "close", or one of `dunnart.server.operations`.

        Raises:
            ConnectionClosed: the process is gone.
        """
        if self.lost:
            raise ConnectionClosed("the protocol process is gone")
        token = self._next_token
        self._next_token = token + 1 & 0xFFFFFFFF
        self._calls[token] = future = self._host.loop.create_future()
        self.send(Call(token, name, json.dumps(arguments).encode()))
        return await future

    async def end(self) -> None:
        """See it to its end: it goes when its link does. Nobody is told that it is lost."""
        on_lost, self.on_lost = self.on_lost, lambda _: None
        if self._link is not None:
            self._link.close()
        self.on_lost = on_lost
        if self._process is not None:
            try:
                await self._reap(self._process)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _lost(self) -> None:
        calls, self._calls = self._calls, {}
        for future in calls.values():
            if not future.done():
                future.set_exception(ConnectionClosed("the protocol process is gone"))
        # An answer that came late would be taken for one to a question of the next process.
        for task in self._questions:
            task.cancel()
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            self._end(connection)
        self._first += self._host.config.workers * (1 + len(connections))
        self.on_lost(self)

    def _end(self, connection: _Connection) -> None:
        for session in tuple(connection.sessions.values()):
            session.hung_up()
        for opening in connection.openings:
            self._host.abandon(opening)

    async def _reap(self, process: subprocess.Popen[bytes]) -> None:
        await asyncio.to_thread(process.wait, _END_SECONDS)

    # What it asks and says.

    def _receive(self, frame: Frame, descriptors: list[int]) -> None:
        handler = self._handlers.get(type(frame))
        if handler is None or descriptors:
            for fd in descriptors:
                os.close(fd)
            raise DecodeError(f"a protocol process does not send {type(frame).__name__}")
        handler(self, frame)

    def _ask(self, work: Coroutine[Any, Any, None]) -> None:
        """Find an answer. A process that asks faster than it is answered is not listened to for so long."""
        link = self._link
        assert link is not None
        task = self._host.keep(work)
        self._questions.add(task)
        if len(self._questions) == _MOST_QUESTIONS:
            link.pause()

        def done(task: asyncio.Task[None]) -> None:
            self._questions.discard(task)
            if len(self._questions) < _MOST_QUESTIONS:
                link.resume()

        task.add_done_callback(done)

    def _reply(self, link: Link, frame: Frame, instead: Frame) -> None:
        """Answer; if the application's answer is none, by another."""
        try:
            link.send(frame)
        except Exception as error:  # noqa: BLE001 - who asked must not wait for ever
            self._host.counters["failures"] += 1
            _LOG.error("an answer cannot be told: %r", error)
            link.send(instead)

    def _known(self, number: int) -> _Connection:
        connection = self._connections.get(number)
        if connection is None:
            raise DecodeError(f"there is no connection {number}")
        return connection

    def _opened(self, frame: Opened) -> None:
        # Numbers come in order, so that no process can speak for the connections of another, nor use one twice.
        if frame.connection != self._first or len(self._connections) >= _MOST_CONNECTIONS:
            raise DecodeError(f"connection {frame.connection} is not the next one")
        self._connections[frame.connection] = _Connection()
        self._first += self._host.config.workers

    def _gone(self, frame: Gone) -> None:
        self._end(self._known(frame.connection))
        del self._connections[frame.connection]

    def _returned(self, frame: Returned) -> None:
        future = self._calls.pop(frame.token, None)
        if future is None:
            raise DecodeError("a result that nobody asked for")
        result = _json(frame.result)
        if future.done():
            return
        if frame.failed:
            future.set_exception(PluginError(str(result), f"protocol process {self.index}"))
        else:
            future.set_result(result)

    def _said(self, frame: Said) -> None:
        whose = _Whose(frame.connection, frame.user, frame.peer) if frame.connection else None
        extra = None if whose is None else {"connection": whose}
        # Loggers are never freed; and a line is one line.
        name = frame.logger if frame.logger in logging.root.manager.loggerDict else "dunnart.server"
        message = frame.message if frame.message.isprintable() else repr(frame.message)[1:-1]
        logging.getLogger(name).log(min(frame.level, logging.CRITICAL), "%s", message, extra=extra)

    def _audited(self, frame: Audited) -> None:
        peer, details = Address(frame.host, frame.port), _json(frame.details)
        if not isinstance(details, dict):
            raise DecodeError("an event without details")
        self._host.audit(AuditEvent(frame.time / 1e6, frame.kind, frame.connection, frame.user, peer, details))

    def _requested(self, frame: Requested) -> None:
        request = decode_channel_request(frame.name, frame.data)
        if not isinstance(request, WindowChange | SignalRequest | BreakRequest):
            raise DecodeError(f"{frame.name!r} is no request for what runs")
        session = self._known(frame.connection).sessions.get(frame.channel)
        if session is not None:
            session.requested(request)

    def _lost_session(self, frame: HungUp) -> None:
        session = self._known(frame.connection).sessions.pop(frame.channel, None)
        if session is not None:
            session.hung_up()

    def _accepting(self, frame: AcceptAsked) -> None:
        assert self._link is not None
        self._ask(self._accepts(frame, self._link))

    def _authenticating(self, frame: AuthAsked) -> None:
        assert self._link is not None
        connection = self._known(frame.connection)
        attempt = Attempt(frame.user, _credential(frame), frame.address, frame.rounds, frame.connection, frame.port)
        self._ask(self._authenticate(frame, attempt, connection, self._link))

    async def _accepts(self, frame: AcceptAsked, link: Link) -> None:
        yes = False
        try:
            yes = await self._host.accepts(Address(frame.host, frame.port)) is True
        finally:
            link.send(Answered(frame.token, yes))

    async def _authenticate(self, frame: AuthAsked, attempt: Attempt, connection: _Connection, link: Link) -> None:
        reply: AuthReply = Deny(f"the {frame.method} authenticator failed")
        instead = AuthAnswered(frame.token, DENIED, 0, 0, encode_strings([b"the authenticator's answer is none"]))
        try:
            reply = await self._host.authenticate(attempt)
        finally:
            try:
                answer = self._answer(frame, reply, connection)
            except Exception as error:  # noqa: BLE001 - who asked must not wait for ever
                self._host.counters["failures"] += 1
                _LOG.error("the %s authenticator's answer is none: %r", frame.method, error)
                answer = instead
            self._reply(link, answer, instead)

    def _answer(self, frame: AuthAsked, reply: object, connection: _Connection) -> AuthAnswered:
        if isinstance(reply, Allow):
            grant = 0
            if reply.grant is not None:
                connection.grants.append(reply.grant)
                grant = len(connection.grants)
            flags = TOUCH * reply.touch | VERIFY * reply.verify
            connection.allowed.add((frame.method, frame.user, frame.data if frame.method == "publickey" else b""))
            return AuthAnswered(frame.token, ALLOWED, flags, grant, b"")
        if isinstance(reply, Prompt):
            texts = [reply.name, reply.instruction]
            texts += [item for text, echo in reply.prompts for item in (text, "echo" if echo else "")]
            return AuthAnswered(frame.token, PROMPTED, 0, 0, encode_strings([text.encode() for text in texts]))
        denied = reply if isinstance(reply, Deny) else Deny("no answer")
        flags = SILENT * denied.silent | UNKNOWN_USER * denied.unknown_user
        detail = denied.detail.encode(errors="backslashreplace")
        return AuthAnswered(frame.token, DENIED, flags, 0, encode_strings([detail]))

    def _user_in(self, frame: UserIn) -> None:
        connection = self._known(frame.connection)
        if connection.facts is not None:
            raise DecodeError("a second user has logged in")
        # What was decided by a copy over there cannot be known here; all else was.
        login = (frame.method, frame.user, frame.key)
        if frame.method not in self._travelling and login not in connection.allowed:
            raise DecodeError("a user has logged in whom nobody has allowed in")
        granted, connection.grants = connection.grants, []
        connection.allowed.clear()
        reader = Reader(frame.grants)
        # 0 stands for nothing; queries of keys may have left more than what counts.
        numbers = [reader.uint32() for _ in range(len(frame.grants) // 4)]
        grants = tuple(granted[number - 1] if 0 < number <= len(granted) else None for number in numbers)
        connection.facts = ConnectionFacts(
            frame.connection, frame.user, Address(frame.peer_host, frame.peer_port),
            Address(frame.local_host, frame.local_port), frame.method,
            PublicKey.decode(frame.key) if frame.key else None, grants,
        )  # fmt: skip

    def _opening(self, frame: OpenAsked) -> None:
        assert self._link is not None
        connection = self._known(frame.connection)
        if frame.channel_type not in self._host.config.channel_types:
            raise DecodeError("a channel of no type")
        opening = ChannelOpening(connection.whose, frame.channel_type, frame.data)
        self._ask(self._open(frame, opening, connection, self._link))

    def _requesting(self, frame: RequestAsked) -> None:
        assert self._link is not None
        whose = self._known(frame.connection).whose
        if frame.name not in self._host.config.global_requests:
            raise DecodeError("a request of no name")
        self._ask(self._request(frame, ConnectionRequest(whose, frame.name, frame.data), self._link))

    async def _open(self, frame: OpenAsked, opening: ChannelOpening, connection: _Connection, link: Link) -> None:
        failed = Refusal(_CONNECT_FAILED, "the server cannot open this channel")
        reply: int | Refusal = failed
        try:
            reply = await self._host.open(opening)
        finally:
            opened, refusal = (0, reply) if isinstance(reply, Refusal) else (reply, Refusal())
            if opened and self._connections.get(frame.connection) is connection:
                connection.openings.add(opened)
            elif opened:  # it has ended meanwhile
                self._host.abandon(opened)
                opened = 0
            answer = OpenAnswered(frame.token, opened, refusal.reason_code, refusal.description)
            self._reply(link, answer, OpenAnswered(frame.token, 0, failed.reason_code, failed.description))

    def _abandoned(self, frame: Abandoned) -> None:
        for connection in self._connections.values():  # it happens seldom
            if frame.opening in connection.openings:
                connection.openings.discard(frame.opening)
                self._host.abandon(frame.opening)

    async def _request(self, frame: RequestAsked, request: ConnectionRequest, link: Link) -> None:
        answer: bool | bytes = False
        try:
            answer = await self._host.answer(request)
        finally:
            data = answer if isinstance(answer, bytes) else b""
            instead = RequestAnswered(frame.token, yes=False, data=b"")
            self._reply(link, RequestAnswered(frame.token, answer is not False, data), instead)

    def _serve(self, frame: SessionAsked) -> None:
        connection = self._known(frame.connection)
        if frame.opening:
            if frame.opening not in connection.openings:
                raise DecodeError("a channel that nobody has allowed")
            connection.openings.discard(frame.opening)
        if frame.channel in connection.sessions or len(connection.sessions) >= self._host.config.limits.channels:
            raise DecodeError("a session too many")
        terminal = Terminal.of(PtyRequest.decode(frame.terminal)) if frame.terminal else None
        variables = _texts(frame.environment)
        facts = SessionFacts(
            connection.whose, frame.channel, frame.kind,
            frame.command if frame.kind == "exec" else None, frame.subsystem if frame.kind == "subsystem" else None,
            dict(zip(variables[::2], variables[1::2], strict=False)), terminal, frame.opening,
        )  # fmt: skip
        number = (frame.connection, frame.channel)
        session = self._host.session(facts, _Control(self, number))
        connection.sessions[frame.channel] = session
        self._host.begin(session, lambda yes: self.send(Begun(*number, yes)))

    _handlers: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        AcceptAsked: _accepting,
        AuthAsked: _authenticating,
        OpenAsked: _opening,
        RequestAsked: _requesting,
        UserIn: _user_in,
        Abandoned: _abandoned,
        SessionAsked: _serve,
        Requested: _requested,
        HungUp: _lost_session,
        Opened: _opened,
        Gone: _gone,
        Said: _said,
        Audited: _audited,
        Returned: _returned,
    }


class _Control:
    """A channel in another process, for the session that serves it."""

    def __init__(self, worker: _Worker, key: tuple[int, int]) -> None:
        self._worker = worker
        self._key = key

    def attach(self, streams: Streams) -> None:
        """Join the channel with descriptors."""
        frame = Attach(*self._key, streams.terminal is not None, streams.typed, streams.joined)
        self._worker.send(frame, streams.detach())

    def add_stderr(self, fd: int) -> None:
        """Join the channel's stderr with a descriptor."""
        self._worker.send(AddStderr(*self._key), (fd,))

    def end(self, how: ExitStatus | ExitSignal, text: str = "") -> None:
        """Close the channel once all output is sent."""
        status, signal = (how.status, "") if isinstance(how, ExitStatus) else (0, how.signal)
        self._worker.send(End(*self._key, status, signal, text))


def _credential(frame: AuthAsked) -> Credential:
    match frame.method:
        case "password":
            return PasswordCredential(frame.text)
        case "publickey":
            return PublicKeyCredential(PublicKey.decode(frame.data), frame.algorithm, frame.signed)
        case "keyboard-interactive":
            responses = tuple(_texts(frame.data)) if frame.answered else None
            return InteractiveCredential(frame.text, responses)
    return NoneCredential()


def _texts(data: bytes) -> list[str]:
    try:
        return [item.decode() for item in decode_strings(data)]
    except UnicodeDecodeError as error:
        raise DecodeError("a text is not UTF-8") from error


def _json(data: bytes) -> Any:  # noqa: ANN401 - what JSON knows
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError("no JSON") from error
