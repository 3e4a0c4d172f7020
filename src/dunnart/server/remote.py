"""A process that serves the protocol and nothing else; the application lives in another one, at the end of a link.

One of several such processes is the acceptor: it listens, decides on admission, and deals connections to the others and
itself, so that limits and penalties hold for all of them together.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import pickle
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dunnart.protocol.questions import (
    Allow,
    AuthReply,
    Deny,
    InteractiveCredential,
    PasswordCredential,
    Prompt,
    PublicKeyCredential,
    Refusal,
)
from dunnart.protocol.requests import ExitSignal, ExitStatus, decode_strings, encode_strings
from dunnart.runtime.admission import Outcome
from dunnart.runtime.streams import Streams
from dunnart.runtime.terminal import Terminal
from dunnart.server.config import ServerConfig
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
    Dealt,
    End,
    Entered,
    Frame,
    Gone,
    Held,
    HungUp,
    Left,
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
from dunnart.server.protocol_server import ProtocolServer
from dunnart.wire.encoding import uint32

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.protocol.requests import ChannelRequest
    from dunnart.runtime.admission import Admission
    from dunnart.server.authentication import Attempt, Authenticator
    from dunnart.server.channel import ChannelControl, Serving
    from dunnart.server.connection import ServerConnection
    from dunnart.server.facts import Address, ConnectionFacts, SessionFacts
    from dunnart.server.interfaces import AuditEvent, ChannelOpening, ConnectionRequest

Key = tuple[int, int]
"""A session: its connection's number and its channel's."""
_LOG = logging.getLogger("dunnart.server")
_ATTACHED = (1, 3)
_TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h
DENIED, ALLOWED, PROMPTED = 0, 1, 2
SILENT, UNKNOWN_USER, TOUCH, VERIFY = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class Order:
    """What a protocol process is started with. It comes from the process that starts it, pickled."""

    index: int
    workers: int
    options: dict[str, Any] = field(repr=False)
    host_keys: tuple[bytes, ...] = field(repr=False)
    asks_accept: bool
    audited: bool
    methods: tuple[str, ...]
    authenticators: tuple[Authenticator, ...]
    """Those that decide here."""
    channel_types: tuple[str, ...]
    global_requests: tuple[str, ...]
    levels: dict[str, int]
    first: int
    """The first connection's number."""


class _Elsewhere:
    """Stands for plug-ins of the application's process, which `RemoteHost` asks in the place of this."""

    def __init__(self, method: str = "") -> None:
        self.method = method

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Never called."""
        raise NotImplementedError

    async def open(self, opening: ChannelOpening) -> Refusal:
        """Never called."""
        raise NotImplementedError

    async def answer(self, request: ConnectionRequest) -> bool:
        """Never called."""
        raise NotImplementedError

    def record(self, event: AuditEvent) -> None:
        """Never called."""
        raise NotImplementedError


class RemoteSession:
    """A session that the application's process serves: the counterpart of its channel."""

    def __init__(self, host: RemoteHost, facts: SessionFacts, control: ChannelControl) -> None:
        self.facts = facts
        self.control = control
        self.key: Key = (facts.connection.id, facts.channel)
        self._host = host

    def requested(self, request: ChannelRequest) -> bool:
        """Pass it on."""
        self._host.link.send(Requested(*self.key, request.name, request.encode()))
        return True

    def hung_up(self) -> None:
        """Say so, once."""
        if self._host.sessions.pop(self.key, None) is not None:
            self._host.link.send(HungUp(*self.key))


class RemoteHost:
    """Asks the application's process; see `HostLink`."""

    def __init__(self, link: Link, authenticators: tuple[Authenticator, ...]) -> None:
        self.link = link
        self._authenticators = {each.method: each for each in authenticators}
        self.sessions: dict[Key, RemoteSession] = {}
        self.begun: dict[Key, Callable[[bool], None]] = {}
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.introduced: set[int] = set()
        self._next_token = 1

    async def _ask(self, make: Callable[[int], Frame]) -> Any:  # noqa: ANN401 - the frame says what
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
        answer: bool = await self._ask(lambda token: AcceptAsked(token, peer.host, peer.port))
        return answer

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Decide on one authentication request."""
        credential = attempt.credential
        if (here := self._authenticators.get(credential.method)) is not None:
            return await here.authenticate(attempt)
        text, algorithm, signed, data, answered = "", "", False, b"", False
        if isinstance(credential, PasswordCredential):
            text = credential.password
        elif isinstance(credential, PublicKeyCredential):
            algorithm, signed, data = credential.algorithm, credential.signed, credential.key.blob
        elif isinstance(credential, InteractiveCredential):
            text, answered = credential.submethods, credential.responses is not None
            data = encode_strings([item.encode() for item in credential.responses or ()])
        answer: AuthAnswered = await self._ask(lambda token: AuthAsked(
            token, attempt.connection, attempt.user, attempt.address, attempt.port, attempt.rounds, credential.method,
            text, algorithm, signed, data, answered))  # fmt: skip
        texts = [item.decode() for item in decode_strings(answer.texts)]
        if answer.kind == ALLOWED:
            return Allow(answer.grant or None, bool(answer.flags & TOUCH), bool(answer.flags & VERIFY))
        if answer.kind == PROMPTED:
            prompts = tuple((text, echo == "echo") for text, echo in zip(texts[2::2], texts[3::2], strict=True))
            return Prompt(prompts, texts[0], texts[1])
        return Deny(texts[0], bool(answer.flags & SILENT), bool(answer.flags & UNKNOWN_USER))

    async def open(self, opening: ChannelOpening) -> int | Refusal:
        """May a channel that is no session be opened?"""
        self._introduce(opening.connection)
        answer: OpenAnswered = await self._ask(lambda token: OpenAsked(
            token, opening.connection.id, opening.channel_type, opening.data))  # fmt: skip
        return answer.opening or Refusal(answer.reason_code, answer.description)

    def abandon(self, opening: int) -> None:
        """Nothing came of a channel that was to be opened."""
        self.link.send(Abandoned(opening))

    async def answer(self, request: ConnectionRequest) -> bool | bytes:
        """Answer a global request."""
        self._introduce(request.connection)
        answer: RequestAnswered = await self._ask(lambda token: RequestAsked(
            token, request.connection.id, request.name, request.data))  # fmt: skip
        return answer.yes and (answer.data or True)

    def audit(self, event: AuditEvent) -> None:
        """Something happened that has to be recorded."""
        self.link.send(Audited(
            int(event.time * 1e6), event.kind, event.connection, event.user, *event.peer,
            json.dumps(event.details).encode()))  # fmt: skip

    def _introduce(self, whose: ConnectionFacts) -> None:
        if whose.id not in self.introduced:
            self.introduced.add(whose.id)
            # Grants are numbers here; the application's process knows what they stand for.
            grants = b"".join(uint32(grant if isinstance(grant, int) else 0) for grant in whose.grants)
            key = b"" if whose.key is None else whose.key.blob
            self.link.send(UserIn(whose.id, whose.user, *whose.peer, *whose.local, whose.method, key, grants))

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
        variables = [item.encode() for pair in facts.environment.items() for item in pair]
        self.link.send(SessionAsked(
            *session.key, facts.kind, facts.command or b"", facts.subsystem or "", encode_strings(variables),
            b"" if terminal is None else terminal.request().encode(), facts.opening,
        ))  # fmt: skip


class Worker:
    """A protocol process: its server, its link to the application's process, its links to the other workers."""

    def __init__(self, order: Order, control: socket.socket, listeners: list[socket.socket]) -> None:
        self._order = order
        self._control = control
        self._listeners = listeners
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._link = Link(control, self._loop, self._receive, self._ended.set)
        self._host = RemoteHost(self._link, order.authenticators)
        self._peers: dict[int, _Dealer] = {}
        self._acceptor: Link | None = None
        logging.getLogger().handlers[:] = [_LinkHandler(self._link)]
        for name, level in order.levels.items():
            logging.getLogger(name).setLevel(level)
        self._server = _WorkerServer(order, self._host, self)

    async def run(self) -> None:
        """Serve until the application's process says it is enough, or is gone."""
        self._server.start(self._listeners)
        self._link.send(Returned(0, failed=False, result=b"null"))
        await self._ended.wait()
        await self._server.close(seconds=0)

    # From the application's process.

    def _receive(self, frame: Frame, descriptors: list[int]) -> None:
        match frame:
            case Answered():
                self._settle(frame.token, frame.yes)
            case AuthAnswered() | OpenAnswered() | RequestAnswered():
                self._settle(frame.token, frame)
            case Begun():
                then = self._host.begun.pop((frame.connection, frame.channel), None)
                if then is not None:
                    then(frame.yes)
            case Attach():
                self._attach(frame, descriptors)
            case AddStderr():
                self._add_stderr(frame, descriptors)
            case End():
                session = self._host.sessions.get((frame.connection, frame.channel))
                if session is not None:
                    how = ExitSignal(frame.signal, core_dumped=False, message="") if frame.signal else ExitStatus(
                        frame.status)  # fmt: skip
                    session.control.end(how, frame.text)
            case Call():
                task = self._loop.create_task(self._call(frame))
                self._server.keep(task)
            case Peer() if descriptors:
                self._meet(frame, socket.socket(fileno=descriptors[0]))

    def _settle(self, token: int, answer: object) -> None:
        future = self._host.waiting.get(token)
        if future is not None and not future.done():
            future.set_result(answer)
        elif isinstance(answer, OpenAnswered) and answer.opening:  # who asked is gone
            self._host.abandon(answer.opening)

    def _add_stderr(self, frame: AddStderr, descriptors: list[int]) -> None:
        session = self._host.sessions.get((frame.connection, frame.channel))
        for fd in descriptors:
            if session is None:
                os.close(fd)
            else:
                os.set_blocking(fd, False)
                session.control.add_stderr(fd)

    def _attach(self, frame: Attach, descriptors: list[int]) -> None:
        session = self._host.sessions.get((frame.connection, frame.channel))
        if len(descriptors) not in _ATTACHED:
            for fd in descriptors:
                os.close(fd)
            if session is not None:
                _LOG.error("session %d of connection %d: no descriptors are left for it", frame.channel,
                           frame.connection)  # fmt: skip
                session.control.end(ExitStatus(_TEMPORARY_FAILURE), "the server is out of descriptors\r\n")
            return
        for fd in descriptors:
            os.set_blocking(fd, False)
        if frame.terminal:
            streams = Streams.of_terminal(Terminal(descriptors[0]))
        elif len(descriptors) == 1:
            sock = socket.socket(fileno=descriptors[0])
            streams = Streams.of_socket(sock, typed=frame.typed, joined=frame.joined)
        else:
            streams = Streams(*descriptors)  # type: ignore[arg-type] # three numbers
        if session is None:
            streams.close()
        else:
            session.control.attach(streams)

    async def _call(self, frame: Call) -> None:
        arguments = json.loads(frame.arguments)
        result: object = None
        try:
            if frame.name == "close":
                await self._server.close(*arguments)
            else:
                result = await self._server.operate(frame.name, *arguments)
            self._link.send(Returned(frame.token, failed=False, result=json.dumps(result).encode()))
        except Exception as error:  # noqa: BLE001 - who has called must not wait for ever; a result may be too large
            _LOG.error("%s failed: %r", frame.name, error)
            self._link.send(Returned(frame.token, failed=True, result=json.dumps(repr(error)[:1000]).encode()))
        if frame.name == "close":
            self._ended.set()

    # The other workers.

    def _meet(self, frame: Peer, sock: socket.socket) -> None:
        if frame.acceptor:
            self._acceptor = Link(sock, self._loop, self._dealt, lambda: None)
            self._acceptor.send(Held(self._server.connections))
        else:
            self._peers[frame.index] = _Dealer(frame.index, sock, self)

    def _dealt(self, frame: Frame, descriptors: list[int]) -> None:
        if not isinstance(frame, Dealt):
            return
        if descriptors:
            self._server.let_in(socket.socket(fileno=descriptors[0]), frame.host, frame.port)
        else:
            _LOG.error("no descriptor is left for the connection from %s", frame.host)
            self.left(frame.host, Outcome.BLAMELESS.value)

    def forget(self, index: int) -> None:
        """Another worker is gone."""
        self._peers.pop(index, None)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        return self._loop

    @property
    def admission(self) -> Admission | None:
        """Who decides on new connections, in the acceptor."""
        return self._server.config.admission

    def deal(self, sock: socket.socket, address: str, port: int) -> bool:
        """Give a connection to another worker, if one has fewer of them than this one."""
        least = min(self._peers.values(), key=lambda peer: peer.connections, default=None)
        if least is None or least.connections >= self._server.connections:
            return False
        least.deal(sock, address, port)
        return True

    def entered(self, address: str) -> None:
        """Tell the acceptor that a dealt connection's user has logged in."""
        if self._acceptor is not None:
            self._acceptor.send(Entered(address))

    def left(self, address: str, outcome: str) -> None:
        """Tell the acceptor that a dealt connection has ended."""
        if self._acceptor is not None:
            self._acceptor.send(Left(address, outcome))


class _Dealer:
    """The acceptor's view of another worker: what was dealt to it counts in admission until it says otherwise."""

    def __init__(self, index: int, sock: socket.socket, worker: Worker) -> None:
        self._index = index
        self._worker = worker
        self._waiting: Counter[str] = Counter()
        self._link = Link(sock, worker.loop, self._receive, self._lost)
        self.connections = 0

    def deal(self, sock: socket.socket, address: str, port: int) -> None:
        self.connections += 1
        self._waiting[address] += 1
        self._link.send(Dealt(address, port), (sock.detach(),))

    def _receive(self, frame: Frame, _descriptors: list[int]) -> None:
        admission = self._worker.admission
        if isinstance(frame, Held):
            self.connections += frame.connections
        elif isinstance(frame, Left):
            self.connections -= 1
        # What an acceptor before this one has dealt, admission knows nothing of.
        if not isinstance(frame, Entered | Left) or self._waiting[frame.host] <= 0:
            return
        if isinstance(frame, Entered):
            self._waiting[frame.host] -= 1
            if admission is not None:
                admission.finished_login(frame.host)
        elif frame.outcome:
            self._waiting[frame.host] -= 1
            if admission is not None:
                admission.closed(frame.host, Outcome(frame.outcome), self._worker.loop.time())
        self._waiting += Counter()  # drops what is zero

    def _lost(self) -> None:
        self._worker.forget(self._index)
        admission = self._worker.admission
        for address in self._waiting.elements():
            if admission is not None:
                admission.closed(address, Outcome.BLAMELESS, self._worker.loop.time())


class _WorkerServer(ProtocolServer):
    """The protocol's side of the server in a process of its own."""

    def __init__(self, order: Order, host: RemoteHost, worker: Worker) -> None:
        options = dict(order.options)
        if order.index:
            options["admission"] = None  # the acceptor's business
        config = ServerConfig(
            host_keys=order.host_keys,
            authenticators=[_Elsewhere(method) for method in order.methods],
            channel_types=dict.fromkeys(order.channel_types, _Elsewhere()),
            global_requests=dict.fromkeys(order.global_requests, _Elsewhere()),
            audit=[_Elsewhere()] if order.audited else [],
            accept=(lambda _: True) if order.asks_accept else None,
            **options,
        )
        super().__init__(config, host, Counter(), numbers=(order.first, order.workers))
        self.role = f"protocol {order.index}"
        self._link = host.link
        self._introduced = host.introduced
        self._worker = worker
        self._background: set[asyncio.Task[None]] = set()

    def keep(self, task: asyncio.Task[None]) -> None:
        """Keep a task until it is done."""
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def admitted(self, sock: socket.socket, address: str, port: int) -> None:
        """Serve a connection, or deal it to another worker."""
        if not self._worker.deal(sock, address, port):
            self.let_in(sock, address, port)

    def let_in(self, sock: socket.socket, address: str, port: int) -> ServerConnection:
        """Serve a connection."""
        self._link.send(Opened(self._next_number))  # before it can end
        return super().let_in(sock, address, port)

    def login_done(self, connection: ServerConnection) -> None:
        """A connection's user is in."""
        super().login_done(connection)
        self._worker.entered(connection.address)

    def login_failed(self, connection: ServerConnection, outcome: Outcome) -> None:
        """A connection ended before a login."""
        super().login_failed(connection, outcome)
        self._worker.left(connection.address, outcome.value)

    def forget(self, connection: ServerConnection) -> None:
        """A connection is gone."""
        super().forget(connection)
        self._introduced.discard(connection.id)
        if connection.logged_in:
            self._worker.left(connection.address, "")
        self._link.send(Gone(connection.id))


class _LinkHandler(logging.Handler):
    """Sends log lines to the application's process."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        """Send one."""
        context = getattr(record, "connection", None)
        try:
            message = record.getMessage()
            if record.exc_info:
                message += " | " + " | ".join(logging.Formatter().formatException(record.exc_info).splitlines())
            message = message.encode(errors="backslashreplace").decode()
            number, user, peer = (0, "", "") if context is None else (context.id, context.user, str(context.peer))
            self._link.send(Said(record.levelno, record.name, message, number, user, peer))
        except Exception:  # noqa: BLE001 - what is no line must not become its writer's fault
            self.handleError(record)


def main(control: int) -> None:
    """Run a protocol process; `control` is the descriptor of its link."""
    sock = socket.socket(fileno=control)
    # The first thing that comes is no frame: the length of the order, with the listening sockets, and the order.
    data, descriptors, _, _ = socket.recv_fds(sock, 4, 64)
    wanted = int.from_bytes(data, "big")
    pickled = b""
    while len(pickled) < wanted:
        data = sock.recv(wanted - len(pickled))
        if not data:
            return  # who started this process is gone already
        pickled += data
    order: Order = pickle.loads(pickled)  # noqa: S301 - from the process that started this one
    listeners = [socket.socket(fileno=fd) for fd in descriptors]

    async def run() -> None:
        await Worker(order, sock, listeners).run()

    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    asyncio.run(run())
