"""A client's connection: what the engine's events and questions mean here, and what is opened on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from dunnart.client import loops
from dunnart.client.agent import agent_place
from dunnart.client.channel import Bell, Channel, StderrUse
from dunnart.client.closing import Closing
from dunnart.client.session import Completed, Session, Terminal, program_request
from dunnart.errors import (
    ChannelError,
    ConnectionClosed,
    DunnartError,
    HostKeyError,
    LocalProtocolError,
    NegotiationError,
)
from dunnart.protocol.events import (
    AuthRefused,
    BannerReceived,
    ChannelClosed,
    ChannelOpened,
    ChannelRefused,
    CloseReceived,
    ConnectionEnded,
    DataReceived,
    EofReceived,
    Event,
    LoggedIn,
    RequestAnswered,
    SendingResumed,
    WindowOpened,
)
from dunnart.protocol.questions import (
    ChannelOpenQuestion,
    ChannelRequestQuestion,
    CredentialQuestion,
    GlobalRequestQuestion,
    HostKeyQuestion,
    PromptQuestion,
    Question,
    Refusal,
    SignQuestion,
    WorkQuestion,
)
from dunnart.protocol.requests import UnknownGlobalRequest
from dunnart.runtime.pump import Pump
from dunnart.wire.encoding import text, uint32

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Mapping

    from dunnart.client.forwarding import Endpoint, Forwards, Listener
    from dunnart.client.host_keys import HostKeyCheck
    from dunnart.client.login import Login
    from dunnart.client.sftp import Sftp
    from dunnart.protocol.core import EngineConfig

_LOG = logging.getLogger("dunnart.client")


class Connection(Closing):
    """A connection to a server, logged in; made by `connect`.

    Use it as an asynchronous context manager, or close it. Everything that waits on it ends with ConnectionClosed when
    it breaks.

    Attributes:
        host: the server's name as it was given; `port` goes with it.
        user: who is logged in.
    """

    def __init__(self, sock: socket.socket, config: EngineConfig, host_key: HostKeyCheck, login: Login) -> None:
        self._loop = asyncio.get_running_loop()
        self._host_key = host_key
        self._login = login
        self._channels: dict[int, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: DunnartError | None = None
        self._crash: Exception | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._lost = asyncio.Event()
        self._forwards: Forwards | None = None
        self._channel_left = Bell()
        self._global_answers: deque[asyncio.Future[bytes | None]] = deque()
        self.host = host_key.host
        self.port = host_key.port
        self.user = config.user
        self._packet_bytes = config.limits.channel_packet_bytes
        self.pump = Pump(loops.join(self._loop, self._packet_bytes), sock, config, self)

    # What is opened on it.

    async def session(
        self,
        command: str | bytes | None = None,
        *,
        subsystem: str | None = None,
        terminal: Terminal | None = None,
        environment: Mapping[str, str] | None = None,
        stderr: StderrUse | None = None,
        forward_agent: bool | str = False,
    ) -> Session:
        """Start a program at the server: a command, a subsystem, or the user's shell if neither is named.

        Args:
            command: what the user's shell is to run.
            subsystem: the name of one that the server offers, such as "sftp".
            terminal: the terminal that the program is to have, None for pipes.
            environment: variables to set; servers ignore those that they do not let in, mostly all but LANG and LC_*.
            stderr: "read" (by `Session.stderr`, the default), "join" (it comes with the rest), or "drop", the default
                for a subsystem.
            forward_agent: let the program use the agent at $SSH_AUTH_SOCK, or at that socket; whoever is root at the
                server can use it too. A server need not take part in it.

        Raises:
            ChannelError: the server refuses it.
            ConnectionClosed: the connection is gone.
        """
        program = program_request(command, subsystem)
        if forward_agent:
            self._forwarding().agent = agent_place(None if forward_agent is True else forward_agent)
        use: StderrUse = stderr or ("read" if subsystem is None else "drop")
        session = Session(self, self._open("session"), use)
        await self._opened(session)
        try:
            await session.begin(program, terminal, environment or {}, agent=bool(forward_agent))
        except BaseException:
            session.abandon()
            raise
        return session

    async def run(
        self,
        command: str | bytes,
        input: bytes | bytearray | memoryview = b"",  # noqa: A002 - subprocess calls it so
        *,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a command to its end.

        Args:
            command: what the user's shell is to run.
            input: what it finds on its stdin.
            environment: variables to set, as for `session`.

        Raises:
            ChannelError: the server refuses it.
            ConnectionClosed: the connection is gone.
        """
        data = memoryview(input).cast("B")
        async with await self.session(command, environment=environment) as session:
            return await session.complete(data)

    async def sftp(self, *, requests: int = 64, chunk_bytes: int = 0) -> Sftp:
        """Begin an SFTP session; see `Sftp.begin` for the arguments.

        Raises:
            ChannelError: the server has no SFTP.
            DecodeError: what it has is none.
            ConnectionClosed: the connection is gone.
        """
        from dunnart.client.sftp import Sftp

        return await Sftp.begin(await self.session(subsystem="sftp"), requests=requests, chunk_bytes=chunk_bytes)

    async def open_direct(self, host: str, port: int, *, origin: tuple[str, int] = ("127.0.0.1", 0)) -> Channel:
        """Have the server connect to a TCP port, and give the bytes both ways (RFC 4254 §7.2).

        Args:
            host: the port's host, as the server knows it.
            port: the port.
            origin: for whom it is, for the server's log.

        Raises:
            ChannelError: the server refuses it, or cannot connect.
            ConnectionClosed: the connection is gone.
        """
        data = text(host) + uint32(port) + text(origin[0]) + uint32(origin[1])
        channel = Channel(self, self._open("direct-tcpip", data))
        await self._opened(channel)
        return channel

    async def open_unix(self, path: str) -> Channel:
        """Have the server connect to a unix socket, and give the bytes both ways (OpenSSH PROTOCOL §2.4).

        Raises:
            ChannelError: the server refuses it, or cannot connect.
            ConnectionClosed: the connection is gone.
        """
        from dunnart.client.forwarding import direct_unix

        channel = Channel(self, self._open("direct-streamlocal@openssh.com", direct_unix(path)))
        await self._opened(channel)
        return channel

    # What is forwarded.

    async def forward_local(self, listen: Endpoint, to: Endpoint) -> Listener:
        """Listen here; the server connects for whoever connects (`ssh -L`).

        Args:
            listen: a host and port, or the path of a unix socket. "localhost" is both loopback addresses, "" is every
                address; port 0 lets the system choose.
            to: a host and port as the server knows them, or the path of a unix socket there.

        Raises:
            ConfigError: it cannot be listened on.
            ConnectionClosed: the connection is gone.
        """
        self.check()
        forwards = self._forwarding()
        return forwards.listen_here(listen, lambda sock, peer: forwards.connect_there(to, sock, peer))

    async def forward_remote(self, listen: Endpoint, to: Endpoint) -> Listener:
        """Have the server listen; what connects there is connected to `to` from here (`ssh -R`).

        Args:
            listen: a host and port at the server, or the path of a unix socket there. It is for the server to say
                whether others than itself can connect. Port 0 lets it choose.
            to: a host and port, or the path of a unix socket, here.

        Raises:
            ChannelError: the server does not listen there.
            ConnectionClosed: the connection is gone.
        """
        self.check()
        return await self._forwarding().listen_there(listen, to)

    async def forward_dynamic(self, listen: Endpoint) -> Listener:
        """Be a SOCKS server (4, 4a, 5): the server connects to where each client wants (`ssh -D`).

        Args:
            listen: as for `forward_local`.

        Raises:
            ConfigError: it cannot be listened on.
            ConnectionClosed: the connection is gone.
        """
        self.check()
        forwards = self._forwarding()
        return forwards.listen_here(listen, forwards.connect_where_asked)

    def _forwarding(self) -> Forwards:
        if self._forwards is None:
            from dunnart.client.forwarding import Forwards

            self._forwards = Forwards(self)
        return self._forwards

    @property
    def open_channels(self) -> tuple[tuple[int, str], ...]:
        """The channels that are open: their numbers and types."""
        engine = self.pump.engine
        return tuple((number, engine.channel(number).channel_type) for number in self._channels)

    async def wait_idle(self) -> None:
        """Wait until no channel is open any more, or the connection is over."""
        while self._channels:
            await self._channel_left.wait()

    def rekey(self) -> None:
        """Exchange keys anew, unless that is going on.

        Raises:
            ConnectionClosed: the connection is gone.
        """
        self.check()
        self.pump.now().rekey()
        self.pump.tick()

    async def ask_global(self, name: str, data: bytes) -> bytes | None:
        """Send a global request, and wait for the answer; None if it is no."""
        self.check()
        self.pump.now().request_global(UnknownGlobalRequest(name, data), want_reply=True)
        answer: asyncio.Future[bytes | None] = self._loop.create_future()
        self._global_answers.append(answer)
        self.pump.tick()
        return await answer

    def _open(self, channel_type: str, data: bytes = b"") -> int:
        self.check()
        try:
            return self.pump.now().open_channel(channel_type, data)
        except LocalProtocolError as error:
            raise ChannelError(str(error)) from error

    async def _opened(self, channel: Channel) -> None:
        self._channels[channel.number] = channel
        self.pump.tick()
        try:
            await asyncio.shield(channel.opened)
        except asyncio.CancelledError:
            channel.abandon()
            raise

    # Its end.

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self._error is not None

    def check(self) -> None:
        """Raise ConnectionClosed if it is over."""
        if self._error is not None:
            raise ConnectionClosed(str(self._error)) from self._error.__cause__

    async def close(self, text: str = "") -> None:
        """End it in order; what was sent before still goes out, within two seconds. `text` is for the server."""
        self.pump.now().disconnect(text)
        self.pump.tick()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until it is over, whoever ends it."""
        await self._lost.wait()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # For its channels.

    def send(self, number: int, data: memoryview) -> int:
        """Send what window and socket take now of `data`; at most one run of packets."""
        pump = self.pump
        if pump.congested:
            return 0
        try:
            slots = pump.now().data_slots(number, 0, len(data))
        except LocalProtocolError as error:  # its end is on its way
            raise ChannelError("the channel is closed") from error
        sent = 0
        for slot in slots:
            size = len(slot)
            slot[:] = data[sent : sent + size]
            sent += size
        if sent:
            pump.send_slots(number, sent, 0)
        return sent

    def consumed(self, number: int, count: int) -> None:
        """A reader took so many bytes: the server may send as many again. Less than 0: they were put back."""
        if self._error is None:
            self.pump.now().consumed(number, count)
            self.pump.tick()

    def close_channel(self, number: int) -> None:
        """Send CLOSE."""
        if self._error is None:
            with contextlib.suppress(LocalProtocolError):  # the server has just closed it
                self.pump.now().close_channel(number)
            self.pump.tick()

    # The way to the login.

    async def start(self) -> None:
        """Exchange keys and log in; what goes wrong is raised, and leaves nothing behind."""
        try:
            self.pump.start()
            await self._ready
        except BaseException:
            self.pump.close()
            await self.wait_closed()
            raise
        finally:
            for task in self._tasks:  # a server may let in whoever has not even answered
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._login.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that ends with the connection at the latest."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reply(self, question: Question, work: Coroutine[Any, Any, object]) -> None:
        """Answer with what a coroutine returns; if it raises, the login has failed."""

        async def run() -> None:
            try:
                reply = await work
            except Exception as error:  # noqa: BLE001 - whatever a callback raises is the caller's to see
                self._refuse(error)
                return
            self.pump.now().answer(question.token, reply)
            self.pump.tick()

        self.spawn(run())

    def _refuse(self, error: Exception) -> None:
        """The login cannot go on."""
        if not self._ready.done():
            self._ready.set_exception(error)
        self.pump.now().disconnect("")
        self.pump.tick()

    def _check_host_key(self, question: HostKeyQuestion) -> None:
        async def check() -> bool:
            try:
                await self._host_key.check(question.key)
            except HostKeyError as error:
                if not self._ready.done():
                    self._ready.set_exception(error)
                return False
            return True

        self._reply(question, check())

    def _choose(self, question: CredentialQuestion) -> None:
        extensions = self.pump.engine.extensions
        self._reply(question, self._login.next(question.methods, extensions, partial=question.partial))

    def _sign(self, question: SignQuestion) -> None:
        self._reply(question, self._login.sign(question.algorithm, question.data))

    def _prompt(self, question: PromptQuestion) -> None:
        self._reply(question, self._login.answer(question.prompt))

    def _work(self, question: WorkQuestion) -> None:
        self._reply(question, asyncio.to_thread(question.work))

    def _banner(self, event: BannerReceived) -> None:
        self._login.hear(event.text)

    def _logged_in(self, _: LoggedIn) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _no_login(self, event: AuthRefused) -> None:
        self._refuse(self._login.failure(event.methods))

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
        self._crash = error
        _LOG.error("the connection to %s failed", self.host, exc_info=error)

    def lost(self) -> None:
        """The socket is closed."""
        self._end(ConnectionClosed("the connection was closed"))
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        loops.leave(self._loop, self._packet_bytes)
        self._lost.set()

    def _end(self, error: DunnartError) -> None:
        if self._error is not None:
            return
        self._error = error
        if not self._ready.done():
            self._ready.set_exception(error)
        if not self._ready.cancelled():
            self._ready.exception()  # nobody may be waiting any more
        for answer in self._global_answers:
            if not answer.done():
                answer.set_exception(ConnectionClosed(str(error)))
                answer.exception()  # nobody may be waiting any more
        self._global_answers.clear()
        if self._forwards is not None:
            self._forwards.close()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.lost(error)
        self._channel_left.ring()

    def _ended(self, event: ConnectionEnded) -> None:
        reason = event.text or "no reason given"
        if self._crash is not None:
            error: DunnartError = ConnectionClosed("internal error")
            error.__cause__ = self._crash
        elif event.error is not None:
            kind = NegotiationError if isinstance(event.error, NegotiationError) else ConnectionClosed
            error = kind(f"{event.error}")
            error.__cause__ = event.error
        elif event.stage in {"AUTH", "INTERACTIVE"} and event.by_peer and event.reason_code:
            error = self._login.failure((), f"the server ended the connection: {reason}")
        elif event.by_peer:
            error = ConnectionClosed(f"the server ended the connection: {reason}" if event.reason_code else reason)
        else:
            error = ConnectionClosed("the connection was closed")
        self._end(error)

    # Channels.

    def _data(self, event: DataReceived) -> None:
        channel = self._channels.get(event.channel)
        if channel is None:
            self.pump.engine.consumed(event.channel, sum(map(len, event.chunks)))
        else:
            channel.received(event.chunks, event.stream)

    def _window(self, event: WindowOpened) -> None:
        if channel := self._channels.get(event.channel):
            channel.resume()

    def _resumed(self, _: SendingResumed) -> None:
        self.uncongested()

    def _eof(self, event: EofReceived) -> None:
        if channel := self._channels.get(event.channel):
            channel.received_eof()

    def _channel_opened(self, event: ChannelOpened) -> None:
        channel = self._channels.get(event.channel)
        if channel is None:  # the server's
            assert self._forwards is not None
            channel = self._channels[event.channel] = Channel(self, event.channel)
            channel.opened.set_result(None)
            self._forwards.opened(channel)
        elif channel.abandoned:
            self.pump.engine.close_channel(event.channel)
        else:
            channel.opened.set_result(None)

    def _channel_refused(self, event: ChannelRefused) -> None:
        channel = self._channels.pop(event.channel)
        error = ChannelError(f"the server refused the channel: {event.description}", event.reason_code)
        if not channel.opened.done():
            channel.opened.set_exception(error)
        channel.lost(None)
        self._channel_left.ring()

    def _close_received(self, event: CloseReceived) -> None:
        if channel := self._channels.get(event.channel):
            channel.received_close()

    def _channel_closed(self, event: ChannelClosed) -> None:
        if channel := self._channels.pop(event.channel, None):
            channel.lost(None)
        self._channel_left.ring()

    def _answered(self, event: RequestAnswered) -> None:
        if event.channel is None:
            answer = self._global_answers.popleft()
            if not answer.done():
                answer.set_result(event.data if event.success else None)
        elif channel := self._channels.get(event.channel):
            channel.answered(success=event.success)

    def _requested(self, question: ChannelRequestQuestion) -> None:
        channel = self._channels.get(question.channel)
        understood = channel is not None and channel.received_request(question.request)
        self.pump.engine.answer(question.token, understood)

    def _open_asked(self, question: ChannelOpenQuestion) -> None:
        if self._forwards is None:
            self.pump.engine.answer(question.token, Refusal())
        else:
            self.spawn(self._forwards.answer(question))

    def _asked(self, question: GlobalRequestQuestion) -> None:
        self.pump.engine.answer(question.token, False)  # noqa: FBT003 - the reply is the argument

    _handlers: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        DataReceived: _data,
        WindowOpened: _window,
        EofReceived: _eof,
        ChannelOpened: _channel_opened,
        ChannelRefused: _channel_refused,
        CloseReceived: _close_received,
        ChannelClosed: _channel_closed,
        RequestAnswered: _answered,
        ChannelRequestQuestion: _requested,
        ChannelOpenQuestion: _open_asked,
        GlobalRequestQuestion: _asked,
        SendingResumed: _resumed,
        HostKeyQuestion: _check_host_key,
        CredentialQuestion: _choose,
        SignQuestion: _sign,
        PromptQuestion: _prompt,
        WorkQuestion: _work,
        BannerReceived: _banner,
        LoggedIn: _logged_in,
        AuthRefused: _no_login,
        ConnectionEnded: _ended,
    }
