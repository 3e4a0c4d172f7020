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
import pickle
import socket
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from dunnart.errors import ConfigError, ConnectionClosed
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
    ExitSignal,
    ExitStatus,
    PtyRequest,
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
    from collections.abc import Callable, Iterable

    from dunnart.runtime.streams import Streams
    from dunnart.server.config import ServerConfig
    from dunnart.server.server import Server

_LOG = logging.getLogger("dunnart.server")
_HANG_UP_SECONDS = 1.0
_CONNECT_FAILED = 2
_START_SECONDS = 30.0
_RESTART_SECONDS = 1.0
_END_SECONDS = 5.0
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
        self._thread.start()
        try:
            await self._thread.run(self._start())
        except BaseException:
            await self._thread.run(self._end())
            await self._thread.stop()
            raise

    async def _start(self) -> None:
        self._host = Host(self._config, self._thread.loop, self._app_loop, self.counters, self._server)
        self._switching = sys.getswitchinterval()
        sys.setswitchinterval(min(self._switching, _SWITCH_SECONDS))
        for index in range(self._config.workers):
            self._workers.append(_Worker(self._host, index, self._listeners))
        async with asyncio.timeout(_START_SECONDS):
            await asyncio.gather(*(worker.start() for worker in self._workers))
        for worker in self._workers[1:]:
            self._introduce(worker)
        for worker in self._workers:
            worker.on_lost = self._restart

    def _introduce(self, worker: _Worker) -> None:
        """Give a worker and the acceptor a link to each other."""
        ours, theirs = socket.socketpair()
        self._workers[0].send(Peer(worker.index, acceptor=False), (ours.detach(),))
        worker.send(Peer(0, acceptor=True), (theirs.detach(),))

    def _restart(self, worker: _Worker) -> None:
        _LOG.error("protocol process %d has ended unexpectedly; another one is started", worker.index)
        self.counters["worker_restarts"] += 1
        self._thread.loop.call_later(_RESTART_SECONDS, lambda: self.host.keep(self._again(worker)))

    async def _again(self, worker: _Worker) -> None:
        await worker.end()
        await worker.start()
        for other in self._workers[1:] if worker.index == 0 else [worker]:
            self._introduce(other)

    async def close(self, text: str, seconds: float) -> None:
        """End every connection, the processes, and all that runs."""
        await self._thread.run(self._close(text, seconds))
        await self.host.close()
        await self._thread.stop()

    async def _close(self, text: str, seconds: float) -> None:
        for worker in self._workers:
            worker.on_lost = lambda _: None
        await asyncio.gather(*(worker.call("close", text, seconds) for worker in self._workers), return_exceptions=True)
        await self.host.hung_up(_HANG_UP_SECONDS)
        await self._end()
        sys.setswitchinterval(self._switching)

    async def _end(self) -> None:
        for worker in self._workers:
            worker.on_lost = lambda _: None
            await worker.end()
        for listener in self._listeners:
            listener.close()

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


class _Worker:
    """One protocol process, from the control loop."""

    def __init__(self, host: Host, index: int, listeners: list[socket.socket]) -> None:
        self._host = host
        self._listeners = listeners
        self._link: Link | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._next_token = 1
        self._grants: dict[int, list[object]] = {}
        self._users: dict[int, ConnectionFacts] = {}
        self._sessions: set[tuple[int, int]] = set()
        self._first = index + 1
        self.index = index
        self.connections = 0
        self.on_lost: Callable[[_Worker], None] = lambda _: None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            ConnectionClosed: it ended instead.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", _BOOT, str(theirs.fileno()), json.dumps(sys.path)]
            self._process = subprocess.Popen(  # noqa: ASYNC220 - vfork and exec take a millisecond
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0
            )
        self._order(ours)
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
        if self._link is None or self._link.closed:
            raise ConnectionClosed("the protocol process is gone")
        token = self._next_token
        self._next_token = token + 1 & 0xFFFFFFFF
        self._calls[token] = future = self._host.loop.create_future()
        self.send(Call(token, name, json.dumps(arguments).encode()))
        return await future

    async def end(self) -> None:
        """See it to its end: it goes when its link does."""
        if self._link is not None:
            self._link.close()
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
        for key in tuple(self._sessions):
            self._hung_up(key)
        self._first += self._host.config.workers * (1 + self.connections)
        self.connections = 0
        self._grants.clear()
        self._users.clear()
        self.on_lost(self)

    async def _reap(self, process: subprocess.Popen[bytes]) -> None:
        await asyncio.to_thread(process.wait, _END_SECONDS)

    # What it asks and says.

    def _receive(self, frame: Frame, _descriptors: list[int]) -> None:
        handler = self._handlers.get(type(frame))
        if handler is not None:
            handler(self, frame)

    def _opened(self, frame: Opened) -> None:
        self.connections += 1
        self._first = max(self._first, frame.connection + self._host.config.workers)

    def _gone(self, frame: Gone) -> None:
        self.connections -= 1
        self._grants.pop(frame.connection, None)
        self._users.pop(frame.connection, None)

    def _returned(self, frame: Returned) -> None:
        future = self._calls.pop(frame.token, None)
        if future is not None and not future.done():
            future.set_result(json.loads(frame.result))

    def _said(self, frame: Said) -> None:
        whose = _Whose(frame.connection, frame.user, frame.peer) if frame.connection else None
        extra = None if whose is None else {"connection": whose}
        logging.getLogger(frame.logger).log(frame.level, "%s", frame.message, extra=extra)

    def _audited(self, frame: Audited) -> None:
        peer, details = Address(frame.host, frame.port), json.loads(frame.details)
        self._host.audit(AuditEvent(frame.time / 1e6, frame.kind, frame.connection, frame.user, peer, details))

    def _requested(self, frame: Requested) -> None:
        session = self._host.sessions.get((frame.connection, frame.channel))
        if session is not None:
            session.requested(decode_channel_request(frame.name, frame.data))

    def _lost_session(self, frame: HungUp) -> None:
        self._hung_up((frame.connection, frame.channel))

    def _hung_up(self, key: tuple[int, int]) -> None:
        self._sessions.discard(key)
        session = self._host.sessions.get(key)
        if session is not None:
            session.hung_up()

    def _accepting(self, frame: AcceptAsked) -> None:
        self._host.keep(self._accepts(frame))

    def _authenticating(self, frame: AuthAsked) -> None:
        self._host.keep(self._authenticate(frame))

    async def _accepts(self, frame: AcceptAsked) -> None:
        yes = False
        try:
            yes = await self._host.accepts(Address(frame.host, frame.port)) is True
        finally:
            self.send(Answered(frame.token, yes))

    async def _authenticate(self, frame: AuthAsked) -> None:
        reply: AuthReply = Deny(f"the {frame.method} authenticator failed")
        attempt = Attempt(frame.user, _credential(frame), frame.address, frame.rounds, frame.connection, frame.port)
        try:
            reply = await self._host.authenticate(attempt)
        finally:
            self.send(self._answer(frame, reply))

    def _answer(self, frame: AuthAsked, reply: object) -> AuthAnswered:
        if isinstance(reply, Allow):
            grant = 0
            if reply.grant is not None:
                grants = self._grants.setdefault(frame.connection, [])
                grants.append(reply.grant)
                grant = len(grants)
            flags = TOUCH * reply.touch | VERIFY * reply.verify
            return AuthAnswered(frame.token, ALLOWED, flags, grant, b"")
        if isinstance(reply, Prompt):
            texts = [reply.name, reply.instruction]
            texts += [item for text, echo in reply.prompts for item in (text, "echo" if echo else "")]
            return AuthAnswered(frame.token, PROMPTED, 0, 0, encode_strings([text.encode() for text in texts]))
        denied = reply if isinstance(reply, Deny) else Deny("no answer")
        flags = SILENT * denied.silent | UNKNOWN_USER * denied.unknown_user
        return AuthAnswered(frame.token, DENIED, flags, 0, encode_strings([denied.detail.encode()]))

    def _user_in(self, frame: UserIn) -> None:
        granted = self._grants.pop(frame.connection, [])
        reader = Reader(frame.grants)
        # 0 stands for nothing; queries of keys may have left more than what counts.
        numbers = [reader.uint32() for _ in range(len(frame.grants) // 4)]
        grants = tuple(granted[number - 1] if 0 < number <= len(granted) else None for number in numbers)
        self._users[frame.connection] = ConnectionFacts(
            frame.connection, frame.user, Address(frame.peer_host, frame.peer_port),
            Address(frame.local_host, frame.local_port), frame.method,
            PublicKey.decode(frame.key) if frame.key else None, grants,
        )  # fmt: skip

    def _opening(self, frame: OpenAsked) -> None:
        self._host.keep(self._open(frame, self._users[frame.connection]))

    def _requesting(self, frame: RequestAsked) -> None:
        self._host.keep(self._request(frame, self._users[frame.connection]))

    async def _open(self, frame: OpenAsked, whose: ConnectionFacts) -> None:
        reply: int | Refusal = Refusal(_CONNECT_FAILED, "the server cannot open this channel")
        try:
            reply = await self._host.open(ChannelOpening(whose, frame.channel_type, frame.data))
        finally:
            opened, refusal = (0, reply) if isinstance(reply, Refusal) else (reply, Refusal())
            self.send(OpenAnswered(frame.token, opened, refusal.reason_code, refusal.description))

    def _abandoned(self, frame: Abandoned) -> None:
        self._host.abandon(frame.opening)

    async def _request(self, frame: RequestAsked, whose: ConnectionFacts) -> None:
        answer: bool | bytes = False
        try:
            answer = await self._host.answer(ConnectionRequest(whose, frame.name, frame.data))
        finally:
            data = answer if isinstance(answer, bytes) else b""
            self.send(RequestAnswered(frame.token, answer is not False, data))

    def _serve(self, frame: SessionAsked) -> None:
        terminal = Terminal.of(PtyRequest.decode(frame.terminal)) if frame.terminal else None
        variables = [item.decode() for item in decode_strings(frame.environment)]
        facts = SessionFacts(
            self._users[frame.connection], frame.channel, frame.kind,
            frame.command if frame.kind == "exec" else None, frame.subsystem if frame.kind == "subsystem" else None,
            dict(zip(variables[::2], variables[1::2], strict=False)), terminal, frame.opening,
        )  # fmt: skip
        number = (frame.connection, frame.channel)
        self._sessions.add(number)
        session = self._host.session(facts, _Control(self, number))
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
            responses = tuple(item.decode() for item in decode_strings(frame.data)) if frame.answered else None
            return InteractiveCredential(frame.text, responses)
    return NoneCredential()
