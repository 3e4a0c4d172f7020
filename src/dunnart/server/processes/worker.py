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
from collections.abc import Callable
from typing import TYPE_CHECKING

from dunnart.keys.private import PrivateKey
from dunnart.keys.public import PublicKey
from dunnart.protocol.questions import AuthReply, Refusal
from dunnart.protocol.requests import ExitSignal, ExitStatus
from dunnart.runtime.admission import Outcome
from dunnart.runtime.event_loop import new_event_loop
from dunnart.runtime.footprint import release_files
from dunnart.runtime.streams import Streams
from dunnart.runtime.terminal import Terminal
from dunnart.server.config import ServerConfig
from dunnart.server.facts import UserTerms
from dunnart.server.forwarding import Opening, Tunnel
from dunnart.server.processes import frames
from dunnart.server.processes.link import Link
from dunnart.server.processes.loading import load_all
from dunnart.server.processes.order import cookie
from dunnart.server.processes.remote import RemoteHost
from dunnart.server.protocol_server import ProtocolServer
from dunnart.server.raw import TEMPORARY_FAILURE

if TYPE_CHECKING:
    from dunnart.runtime.admission import Admission
    from dunnart.server.authentication import Attempt
    from dunnart.server.connection import ServerConnection
    from dunnart.server.interfaces import AuditEvent, ChannelOpening, ConnectionRequest, SessionRequest
    from dunnart.server.processes.order import Order

Confine = Callable[[Callable[[], None]], list[str]]
_LOG = logging.getLogger("dunnart.server")
_ATTACHED = (1, 3)


class Worker:
    """A protocol process: its server, its link to the application's process, its links to the other workers."""

    def __init__(self, order: Order, control: socket.socket, listeners: list[socket.socket]) -> None:
        self._order = order
        self._control = control
        self._listeners = listeners
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._link = Link(control, self._loop, self._receive, self._ended.set)
        self._host = RemoteHost(self._link, order.authenticators, order.options["callback_seconds"])
        self._peers: dict[int, _Dealer] = {}
        self._acceptor: Link | None = None
        logging.getLogger().handlers[:] = [_LinkHandler(self._link)]
        for name, level in order.levels.items():
            logging.getLogger(name).setLevel(level)
        self._server = _WorkerServer(order, self._host, self)

    async def run(self, confine: Confine | None) -> None:
        """Serve until the application's process says it is enough, or is gone."""
        self._server.prepare()
        in_force: list[str] | None = None
        try:
            if confine is not None:
                load_all(self._server.engine_config.algorithms)
                release_files()
                in_force = confine(self._server.start_computing)
        except OSError as error:  # one that is not confined must not serve
            self._link.send(
                frames.Returned(0, failed=True, result=json.dumps(f"cannot be confined: {error.strerror}").encode())
            )
            return
        self._server.start(self._listeners)
        self._link.send(frames.Returned(0, failed=False, result=json.dumps(in_force).encode()))
        await self._ended.wait()
        await self._server.close(seconds=0)

    # From the application's process.

    def _receive(self, frame: frames.Frame, descriptors: list[int]) -> None:
        match frame:
            case frames.Answered():
                self._settle(frame.token, frame.yes)
            case (
                frames.TermsAnswered() | frames.AuthAnswered() | frames.RequestAnswered() | frames.Prepared()
                | frames.Signed()
            ):  # fmt: skip
                self._settle(frame.token, frame)
            case frames.OpenAnswered():
                refusal = Refusal(frame.reason_code, frame.description)
                self._settle(frame.token, _opening(frame, descriptors) if frame.opening else refusal)
            case frames.Begun():
                then = self._host.begun.pop((frame.connection, frame.channel), None)
                if then is not None:
                    then(frame.yes)
            case frames.Attach():
                self._attach(frame, descriptors)
            case frames.AddStderr():
                self._add_stderr(frame, descriptors)
            case frames.End():
                session = self._host.sessions.get((frame.connection, frame.channel))
                if session is not None:
                    how = ExitSignal(frame.signal, core_dumped=False, message="") if frame.signal else ExitStatus(
                        frame.status)  # fmt: skip
                    session.control.end(how, frame.text)
            case frames.OpenWanted():
                self._open(frame, descriptors)
            case frames.Call():
                task = self._loop.create_task(self._call(frame))
                self._server.keep(task)
            case frames.Peer() if descriptors:
                self._meet(frame, socket.socket(fileno=descriptors[0]))

    def _settle(self, token: int, answer: object) -> None:
        future = self._host.waiting.get(token)
        if future is not None and not future.done():
            future.set_result(answer)
        elif isinstance(answer, Opening) and answer.tunnel is None:  # who asked is gone
            self._host.abandon(answer.number)

    def _open(self, frame: frames.OpenWanted, descriptors: list[int]) -> None:
        connection = self._server.connection(frame.connection)
        opening = _opening(frame, descriptors)
        if connection is None:
            return  # the other side will hear that it is gone
        if isinstance(opening, Refusal):
            self._host.settled(frame.connection, frame.opening, opening)
        else:
            connection.open_channel(frame.channel_type, frame.data, opening)

    def _add_stderr(self, frame: frames.AddStderr, descriptors: list[int]) -> None:
        session = self._host.sessions.get((frame.connection, frame.channel))
        for fd in descriptors:
            if session is None:
                os.close(fd)
            else:
                os.set_blocking(fd, False)
                session.control.add_stderr(fd)

    def _attach(self, frame: frames.Attach, descriptors: list[int]) -> None:
        session = self._host.sessions.get((frame.connection, frame.channel))
        if len(descriptors) not in _ATTACHED:
            for fd in descriptors:
                os.close(fd)
            if session is not None:
                _LOG.error("session %d of connection %d: no descriptors are left for it", frame.channel,
                           frame.connection)  # fmt: skip
                session.control.end(ExitStatus(TEMPORARY_FAILURE), "the server is out of descriptors\r\n")
            return
        for fd in descriptors:
            os.set_blocking(fd, False)
        if frame.terminal:
            streams = Streams.of_terminal(Terminal(descriptors[0]))
        elif len(descriptors) == 1:
            sock = socket.socket(fileno=descriptors[0])
            streams = Streams.of_socket(sock, typed=frame.typed)
        else:
            streams = Streams(*descriptors)  # type: ignore[arg-type] # three numbers
        if session is None:
            streams.close()
        else:
            session.control.attach(streams)

    async def _call(self, frame: frames.Call) -> None:
        arguments = json.loads(frame.arguments)
        result: object = None
        try:
            if frame.name == "close":
                await self._server.close(*arguments)
            else:
                result = await self._server.operate(frame.name, *arguments)
            self._link.send(frames.Returned(frame.token, failed=False, result=json.dumps(result).encode()))
        except Exception as error:  # noqa: BLE001 - who has called must not wait for ever; a result may be too large
            _LOG.error("%s failed: %r", frame.name, error)
            self._link.send(frames.Returned(frame.token, failed=True, result=json.dumps(repr(error)[:1000]).encode()))
        if frame.name == "close":
            self._ended.set()

    # The other workers.

    def _meet(self, frame: frames.Peer, sock: socket.socket) -> None:
        if frame.acceptor:
            self._acceptor = Link(sock, self._loop, self._dealt, lambda: None)
            self._acceptor.send(frames.Held(self._server.connections))
        else:
            self._peers[frame.index] = _Dealer(frame.index, sock, self)

    def _dealt(self, frame: frames.Frame, descriptors: list[int]) -> None:
        if not isinstance(frame, frames.Dealt):
            return
        if descriptors:
            self._server.let_in(socket.socket(fileno=descriptors[0]), frame.host, frame.port)
        else:
            _LOG.error("no descriptor is left for the connection from %s", frame.host)
            self.left(frame.host, Outcome.BLAMELESS.value)

    @property
    def has_dealt(self) -> bool:
        """Other workers have connections of it, as far as is known here."""
        return any(peer.connections for peer in self._peers.values())

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
            self._acceptor.send(frames.Entered(address))

    def left(self, address: str, outcome: str) -> None:
        """Tell the acceptor that a dealt connection has ended."""
        if self._acceptor is not None:
            self._acceptor.send(frames.Left(address, outcome))


def _opening(frame: frames.OpenAnswered | frames.OpenWanted, descriptors: list[int]) -> Opening | Refusal:
    """What a channel is to be opened for."""
    if not frame.tunnel:
        return Opening(frame.opening, frame.detail)
    tunnel = Tunnel(socket.socket(fileno=descriptors[0]), frame.detail) if descriptors else None
    if tunnel is None or tunnel.scarce:
        return Refusal(Refusal.RESOURCE_SHORTAGE, "the server is short of descriptors")
    return Opening(frame.opening, frame.detail, tunnel)


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
        self._link.send(frames.Dealt(address, port), (sock.detach(),))

    def _receive(self, frame: frames.Frame, _descriptors: list[int]) -> None:
        admission = self._worker.admission
        if isinstance(frame, frames.Held):
            self.connections += frame.connections
        elif isinstance(frame, frames.Left):
            self.connections -= 1
        # What an acceptor before this one has dealt, admission knows nothing of.
        if not isinstance(frame, frames.Entered | frames.Left) or self._waiting[frame.host] <= 0:
            return
        if isinstance(frame, frames.Entered):
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

    async def prepare(self, request: SessionRequest) -> None:
        """Never called."""
        raise NotImplementedError

    def record(self, event: AuditEvent) -> None:
        """Never called."""
        raise NotImplementedError


class _WorkerServer(ProtocolServer):
    """The protocol's side of the server in a process of its own."""

    def __init__(self, order: Order, host: RemoteHost, worker: Worker) -> None:
        options = dict(order.options)
        if order.index:
            options["admission"] = None  # the acceptor's business
        config = ServerConfig(
            host_keys=[PrivateKey(PublicKey.decode(blob), slow=False) for blob in order.host_keys],
            host_certificates=order.host_certificates,
            authenticators=[_Elsewhere(method) for method in order.methods],
            channel_types=dict.fromkeys(order.channel_types, _Elsewhere()),
            global_requests=dict.fromkeys(order.global_requests, _Elsewhere()),
            session_requests=dict.fromkeys(order.session_requests, _Elsewhere()),
            audit=[_Elsewhere()] if order.audited else [],
            accept=(lambda _: True) if order.asks_accept else None,
            terms_for=(lambda _: UserTerms()) if order.asks_terms else None,
            **options,
        )
        super().__init__(config, host, Counter(), numbers=(order.first, order.workers))
        self.role = f"protocol {order.index}"
        self._link = host.link
        self._cookies = order.cookies
        self._introduced = host.introduced
        self._worker = worker
        self._background: set[asyncio.Task[None]] = set()

    def host_key(self, _public: PublicKey) -> None:
        """The private halves are the application's process's: a stranger who takes this one over has none of them."""

    def cookie(self, number: int) -> bytes:
        """What the connection's first KEXINIT shows: the application's process wants to see it there."""
        return cookie(self._cookies, number)

    @property
    def needed(self) -> bool:
        """Here or, of the acceptor's, in another worker."""
        return super().needed or self._worker.has_dealt

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
        self._link.send(frames.Opened(self._next_number))  # before it can end
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
        self._link.send(frames.Gone(connection.id))


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
            self._link.send(frames.Said(record.levelno, record.name, message, number, user, peer))
        except Exception:  # noqa: BLE001 - what is no line must not become its writer's fault
            self.handleError(record)


def main(control: int, confine: Confine | None = None) -> None:
    """Run a protocol process.

    Args:
        control: the descriptor of its link.
        confine: gives up what the process may not have while it serves, and says what is given up; what it gets
            starts the threads that will be needed.
    """
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
        await Worker(order, sock, listeners).run(confine)

    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run())
