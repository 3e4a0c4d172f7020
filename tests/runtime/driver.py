"""A server in this process on a loopback socket, and a client of it: the engine in the client's role, moved by hand.

Tests here are coroutine functions; each gets a fresh event loop, and fails if anything was reported to that loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from dunnart.daemon.ways_in import this_user
from dunnart.keys.private import PrivateKey
from dunnart.plugins import os_process
from dunnart.plugins.os_account import Account
from dunnart.protocol.core import EngineConfig
from dunnart.protocol.engine import Engine
from dunnart.protocol.events import (
    AuthRefused,
    ChannelClosed,
    ChannelOpened,
    ChannelRefused,
    ConnectionEnded,
    DataReceived,
    EofReceived,
    LoggedIn,
    RequestAnswered,
)
from dunnart.protocol.limits import Limits
from dunnart.protocol.phases import Role
from dunnart.protocol.questions import (
    ChannelRequestQuestion,
    CredentialQuestion,
    HostKeyQuestion,
    PasswordCredential,
    PromptQuestion,
    Question,
)
from dunnart.protocol.requests import ChannelRequest, ExecRequest, ExitSignal, ExitStatus
from dunnart.runtime.process import Command
from dunnart.server import PasswordCallback, RawSession, ServerConfig
from dunnart.server.in_process import OnLoop
from dunnart.server.protocol_server import ProtocolServer

USER = this_user().name
PASSWORD = "correct horse"
HOST_KEY = PrivateKey.generate("ed25519")
SECONDS = 45.0
"""How long a test may take before it counts as hanging."""
KIB = 1024
MIB = 1024 * KIB


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    reported: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        await asyncio.wait_for(pyfuncitem.obj(**arguments), SECONDS)

    asyncio.run(run())
    gc.collect()  # an exception that nobody fetched is reported when its task goes
    if reported:
        pytest.fail(f"reported to the loop: {reported}")
    return True


ACCOUNT = Account(USER, os.getuid(), os.getgid(), "/", "/bin/sh")


class Running:
    """Runs commands as the built-in plug-in does, but by a shell that reads no profile of whoever runs the tests."""

    def begin(self, session: RawSession) -> bool:
        argv = ("sh",) if session.facts.command is None else ("sh", "-c", session.facts.command)
        session.run(Command(argv, ACCOUNT.shell, os_process.environment(session, ACCOUNT), ACCOUNT.home))
        return True


class Beginning:
    """An application made of a function."""

    def __init__(self, begin: Callable[[RawSession], bool]) -> None:
        self.begin = begin


async def right_password(user: str, password: str) -> bool:
    """Who knows the password is let in, as the user who runs the test."""
    return user == USER and password == PASSWORD


@dataclass
class Channel:
    """What a client has seen of a channel."""

    number: int
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    order: list[str] = field(default_factory=list)
    """What came, in order: data, err, status, signal, eof, close; repetitions left out."""
    answers: list[bool] = field(default_factory=list)
    status: int | None = None
    signal: str | None = None
    opened: bool | None = None
    consume: bool = True
    keep: bool = True
    received: int = 0

    def note(self, what: str) -> None:
        """Something came."""
        if self.order[-1:] != [what]:
            self.order.append(what)

    @property
    def eof(self) -> bool:
        """The server sends no more data."""
        return "eof" in self.order

    @property
    def closed(self) -> bool:
        """The channel is gone."""
        return "close" in self.order


class Client:
    """A connection, moved by the running event loop. Nothing is read while it is paused."""

    def __init__(self, sock: socket.socket, limits: Limits, answers: dict[type[Question], Any]) -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = sock
        self.sock.setblocking(False)
        config = EngineConfig(Role.CLIENT, limits=limits, user=USER)
        self.engine = Engine(config, random=os.urandom, now=time.monotonic())
        self.answers = answers
        self.channels: dict[int, Channel] = {}
        self.global_answers: list[bool] = []
        self.events: list[Any] = []
        self.ended: ConnectionEnded | None = None
        self.eof = False
        self.unsent = bytearray()
        self._changed: list[asyncio.Future[None]] = []
        self.resume()
        self.move()

    # Bytes.

    def pause(self) -> None:
        """Read nothing more from the socket."""
        self.loop.remove_reader(self.sock)

    def resume(self) -> None:
        """Read again."""
        self.loop.add_reader(self.sock, self._readable)

    def _readable(self) -> None:
        try:
            data = self.sock.recv(256 * KIB)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.engine.receive(data, time.monotonic())
        else:
            self.eof = True
            self.loop.remove_reader(self.sock)
            self.engine.receive_eof(time.monotonic())
        self.move()

    def move(self) -> None:
        """Handle events, send what is to be sent."""
        while batch := self.engine.events():
            for item in batch:
                self._handle(item)
        for piece in self.engine.data_to_send():
            self.unsent += piece
        self._send()
        waiting, self._changed = self._changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _send(self) -> None:
        if self.sock.fileno() < 0:
            return
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent)]
        if self.unsent and not self.eof:
            self.loop.add_writer(self.sock, self._writable)
        else:
            self.loop.remove_writer(self.sock)

    def _writable(self) -> None:
        self.move()

    # Events.

    def _handle(self, item: Any) -> None:
        self.events.append(item if not isinstance(item, DataReceived) else DataReceived)
        match item:
            case DataReceived():
                self._data(item)
            case ChannelOpened(channel=number):
                self.channels.setdefault(number, Channel(number)).opened = True
            case ChannelRefused(channel=number):
                self.channels[number].opened = False
            case EofReceived(channel=number):
                self.channels[number].note("eof")
            case ChannelClosed(channel=number):
                self.channels[number].note("close")
            case RequestAnswered(channel=None, success=success):
                self.global_answers.append(success)
            case RequestAnswered(channel=int() as number, success=success):
                self.channels[number].answers.append(success)
            case ChannelRequestQuestion():
                self._requested(item)
            case ConnectionEnded():
                self.ended = item
            case Question():
                self._answer(item)

    def _data(self, event: DataReceived) -> None:
        channel = self.channels[event.channel]
        channel.note("err" if event.stream else "data")
        size = sum(map(len, event.chunks))
        channel.received += size
        if channel.keep:
            into = channel.err if event.stream else channel.out
            for chunk in event.chunks:
                into += chunk
        if channel.consume:
            self.engine.consumed(event.channel, size)

    def _requested(self, question: ChannelRequestQuestion) -> None:
        channel = self.channels[question.channel]
        if isinstance(question.request, ExitStatus):
            channel.status = question.request.status
            channel.note("status")
        elif isinstance(question.request, ExitSignal):
            channel.signal = question.request.signal
            channel.note("signal")
        else:
            channel.note(question.request.name)
        self.engine.answer(question.token, True)

    def _answer(self, question: Question) -> None:
        reply = self.answers.get(type(question))
        self.engine.answer(question.token, reply(question) if callable(reply) else reply)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until what came from the server makes this true."""
        while not condition():
            if self.eof:
                raise AssertionError(f"the connection ended before that: {self.ended}")
            future = self.loop.create_future()
            self._changed.append(future)
            await future

    # Commands.

    async def session(self) -> Channel:
        """Open a session channel."""
        number = self.engine.open_channel("session")
        channel = self.channels[number] = Channel(number)
        self.move()
        await self.until(lambda: channel.opened is not None)
        return channel

    async def ask(self, channel: Channel, request: ChannelRequest) -> bool:
        """Send a channel request and wait for its answer."""
        wanted = len(channel.answers) + 1
        self.request(channel, request, want_reply=True)
        await self.until(lambda: len(channel.answers) >= wanted)
        return channel.answers[wanted - 1]

    def request(self, channel: Channel, request: ChannelRequest, *, want_reply: bool = False) -> None:
        """Send a channel request."""
        self.engine.request(channel.number, request, want_reply=want_reply)
        self.move()

    async def exec(self, command: str | bytes, *, consume: bool = True) -> Channel:
        """Run a command in a new session."""
        channel = await self.session()
        channel.consume = consume
        assert await self.ask(channel, ExecRequest(command.encode() if isinstance(command, str) else command))
        return channel

    def send(self, channel: Channel, data: bytes | memoryview) -> int:
        """Send as much data as the window takes; none once the channel is closed."""
        if channel.closed:
            return 0
        sent = self.engine.send_data(channel.number, data)
        self.move()
        return sent

    async def send_all(self, channel: Channel, data: bytes) -> None:
        """Send all of the data, or what the channel takes before it is closed."""
        view = memoryview(data)
        while view:
            view = view[self.send(channel, view[: 64 * KIB]) :]
            if channel.closed:
                return
            if view and not self.engine.may_send(channel.number):
                await self.until(lambda: channel.closed or self.engine.may_send(channel.number))
            elif self.unsent:
                await self.until(lambda: not self.unsent)

    def send_eof(self, channel: Channel) -> None:
        """Send no more data on the channel, if it is still there."""
        if not channel.closed:
            self.engine.send_eof(channel.number)
            self.move()

    def close_channel(self, channel: Channel) -> None:
        """Close it, if it is not closed already."""
        if not channel.closed:
            self.engine.close_channel(channel.number)
            self.move()

    async def run(self, command: str | bytes, stdin: bytes = b"") -> Channel:
        """Run a command to its end."""
        channel = await self.exec(command)
        await self.send_all(channel, stdin)
        self.send_eof(channel)
        await self.until(lambda: channel.closed)
        return channel

    def close(self) -> None:
        """Close the socket."""
        if self.sock.fileno() >= 0:
            self.loop.remove_reader(self.sock)
            self.loop.remove_writer(self.sock)
            self.sock.close()

    def reset(self) -> None:
        """Vanish: the server gets a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()


def _one_password(password: str) -> Callable[[object], PasswordCredential | None]:
    rest = iter([PasswordCredential(password)])
    return lambda _question: next(rest, None)


class Clients:
    """Those of a server that listens at an address."""

    def __init__(self, address: Any, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.address = address
        self.family = family
        self.clients: list[Client] = []

    def dial(self, *, receive_bytes: int = 0) -> socket.socket:
        """A plain connection, with a small receive buffer if wanted."""
        sock = socket.socket(self.family)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.connect(self.address)
        return sock

    def begin(
        self, *, password: str = PASSWORD, limits: Limits | None = None,
        answers: dict[type[Question], Any] | None = None, receive_bytes: int = 0,
    ) -> Client:  # fmt: skip
        """Connect, and leave the login to the event loop."""
        trying = {HostKeyQuestion: True, CredentialQuestion: _one_password(password), PromptQuestion: (password,)}
        client = Client(self.dial(receive_bytes=receive_bytes), limits or Limits(), trying | (answers or {}))
        self.clients.append(client)
        return client

    async def login(self, **options: Any) -> Client:
        """Connect and log in."""
        client = self.begin(**options)
        await client.until(lambda: any(isinstance(event, LoggedIn | AuthRefused) for event in client.events))
        assert any(isinstance(event, LoggedIn) for event in client.events), "the login was refused"
        return client


class Serving(Clients):
    """A server that runs in this process, and its clients."""

    def __init__(self, placement: OnLoop, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), listener.family)
        self.placement = placement

    @property
    def server(self) -> ProtocolServer:
        """The protocol's side of it."""
        return self.placement.protocol

    @property
    def programs(self) -> int:
        """How many child processes run."""
        return self.placement.host.programs

    async def close(self, text: str = "the server is shutting down", *, seconds: float = 5.0) -> None:
        """End the server."""
        await self.placement.close(text, seconds)

    @property
    def connections(self) -> list[Any]:
        """The server's side of the connections, oldest first."""
        return list(self.server._connections.values())


@asynccontextmanager
async def serving(listener: socket.socket | None = None, **options: Any) -> AsyncIterator[Serving]:
    """Run a server with these fields of ServerConfig; the others let one user in by password to run real programs."""
    options.setdefault("authenticators", (PasswordCallback(right_password),))
    options.setdefault("host_keys", (HOST_KEY,))
    if not {"shell", "exec"} <= options.keys():
        options.setdefault("handler", Running())
    options.setdefault("admission", None)
    listener = listener or socket.create_server(("127.0.0.1", 0), backlog=256)
    placement = OnLoop(ServerConfig(**options, placement="loop"), asyncio.get_running_loop())
    running = Serving(placement, listener)
    await placement.start([listener])
    try:
        yield running
    finally:
        await running.close()
        for client in running.clients:
            client.close()


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait for what no event tells of: another process's doing, or what the server does after its last byte."""
    while not condition():  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.005)


def descriptors() -> int:
    """How many descriptors this process has open; what earlier tests have left to threads of theirs may be closed yet.

    So what leaves nothing leaves as many or fewer.
    """
    return len(os.listdir("/proc/self/fd")) - 1


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def exists(pid: int) -> bool:
    """Whether a process is there, zombies included."""
    return os.path.exists(f"/proc/{pid}")
