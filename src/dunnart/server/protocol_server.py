"""The protocol's side of a server: lets connections in, keeps them in a table, and ends them. All on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

from dunnart.crypto.kex import GSSAPI_METHODS, KEX_METHODS
from dunnart.runtime import logs
from dunnart.runtime.admission import Outcome
from dunnart.runtime.listeners import listens
from dunnart.runtime.logs import report
from dunnart.runtime.pump import ProtocolLoop
from dunnart.server.connection import ServerConnection
from dunnart.server.facts import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from dunnart.keys.private import PrivateKey
    from dunnart.keys.public import PublicKey
    from dunnart.protocol.negotiation import Negotiated
    from dunnart.server.config import ServerConfig
    from dunnart.server.host import HostLink

_LOG = logging.getLogger("dunnart.server")
_AUTH = logging.getLogger("dunnart.auth")
_ACCEPTS_PER_WAKE = 64
_MOST_ALGORITHMS = 100
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


def _place(name: object) -> tuple[str, int]:
    """The address and port of a socket's name; ("", 0) for a unix socket."""
    return (name[0], name[1]) if isinstance(name, tuple) else ("", 0)


class ProtocolServer:
    """The connections of one event loop.

    Args:
        config: what the server is made from.
        host: what runs the application.
        counters: how often each thing has happened, by name.
        numbers: the first connection's number, and how far it is to the next one's.

    Attributes:
        role: what the process is to others, if it is one of its own.
        bytes_received: by connections that have ended; `bytes_sent` likewise.
    """

    role = ""

    def __init__(
        self, config: ServerConfig, host: HostLink, counters: Counter[str], *, numbers: tuple[int, int] = (1, 1)
    ) -> None:
        self.config = config
        self.host = host
        self.counters = counters
        self.engine_config = config.engine_config()
        self._host_keys = {key.public.blob: key for key in config.keys}
        self._connections: dict[int, ServerConnection] = {}
        self._listeners: list[socket.socket] = []
        self._next_number, self._number_step = numbers
        self._context: ProtocolLoop | None = None
        self._spare = -1
        self._algorithms: dict[Negotiated, Negotiated] = {}
        self.bytes_received = 0
        self.bytes_sent = 0
        self._computing: Executor | None = None
        self._changed: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # Life.

    def prepare(self) -> None:
        """Make ready on the running event loop what `start` needs, as far as it needs files."""
        if self._context is None:
            loop = asyncio.get_running_loop()
            self._context = ProtocolLoop(loop, channel_packet_bytes=self.config.limits.channel_packet_bytes)
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def start(self, listeners: Iterable[socket.socket]) -> None:
        """Accept connections on bound and listening sockets, from the running event loop; serve connected ones."""
        self.prepare()
        loop = self.context.loop
        for listener in listeners:
            listener.setblocking(False)  # noqa: FBT003 - the name says it
            if listener.family in (socket.AF_INET, socket.AF_INET6):
                # Accepted sockets inherit both, which saves each login two system calls.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if not listens(listener):
                self._serve_one(listener)
                continue
            self._listeners.append(listener)
            loop.add_reader(listener.fileno(), self._accept, listener)

    def _serve_one(self, sock: socket.socket) -> None:
        """Serve a connection that somebody else has accepted."""
        with contextlib.suppress(OSError):  # it has gone already
            self._admit(sock, *_place(sock.getpeername()))

    async def close(self, text: str = "the server is shutting down", seconds: float = 5.0) -> None:
        """Stop listening, end every connection; waits at most `seconds` for the clients to take what they are sent."""
        self.stop_listening()
        for task in self._tasks:  # who is still being asked about
            task.cancel()
        if self._connections:
            for connection in tuple(self._connections.values()):
                connection.disconnect(text)
            await self.until(lambda: not self._connections, seconds)
            for connection in tuple(self._connections.values()):
                connection.pump.close()
        if self._computing is not None:
            self._computing.shutdown(wait=False, cancel_futures=True)

    def stop_listening(self) -> None:
        """Accept no more connections."""
        for listener in self._listeners:
            self.context.loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    async def until(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so, at most so long; it is looked at when a connection or channel goes."""
        if self._changed is None:
            self._changed = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()

    async def operate(self, name: str, *arguments: Any) -> object:  # noqa: ANN401 - what JSON knows
        """Do what an operator asks for; see `dunnart.server.operations`."""
        from dunnart.server.operations import OPERATIONS

        return await OPERATIONS[name](self, *arguments)

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    @property
    def next_number(self) -> int:
        """The next connection's number."""
        return self._next_number

    @property
    def numbers(self) -> tuple[int, ...]:
        """The connections' numbers."""
        return tuple(self._connections)

    @property
    def idle(self) -> bool:
        """No channel is open."""
        return not any(connection.sessions for connection in self._connections.values())

    @property
    def needed(self) -> bool:
        """There are connections, or what has to be remembered of those that were."""
        admission = self.config.admission
        remembers = admission is not None and admission.remembers(self.context.loop.time())
        return remembers or not self.empty

    @property
    def empty(self) -> bool:
        """There is no connection, nor one that the application is being asked about."""
        return not self._connections and not self._tasks

    def connection(self, number: int) -> ServerConnection | None:
        """The connection of that number."""
        return self._connections.get(number)

    @property
    def context(self) -> ProtocolLoop:
        """What its connections share."""
        assert self._context is not None, "the server was not started"
        return self._context

    # Accepting.

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            try:
                sock, name = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._out_of(error, listener)
                return
            self._admit(sock, *_place(name))
            if self.config.accept_delay_seconds:
                self._rest(listener, self.config.accept_delay_seconds)
                return

    def _admit(self, sock: socket.socket, address: str, port: int) -> None:
        context = self.context
        admission = self.config.admission
        refusal = admission.admit(address, context.loop.time()) if admission is not None else None
        if refusal is not None:
            self.count(refusal.counter)
            _AUTH.info("%s", logs.refused(address, port, refusal.reason))
            sock.close()
            return
        if self.config.accept is None:
            self.admitted(sock, address, port)
            return
        task = context.loop.create_task(self._ask(sock, address, port))
        self._tasks.add(task)
        task.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.wake()

    async def _ask(self, sock: socket.socket, address: str, port: int) -> None:
        """Ask the application whether the client may connect; what is not True, late or failed says no."""
        allowed = False
        try:
            allowed = await self.host.accepts(Address(address, port)) is True
        except Exception as error:  # noqa: BLE001 - a callback's fault refuses its connection
            self.count("failures")
            _LOG.error("the accept callback failed for %s: %r", Address(address, port), error)
        finally:
            if allowed:
                self.admitted(sock, address, port)
            else:
                self.count("refused_accept")
                _AUTH.info("%s", logs.refused(address, port, "not accepted by the application"))
                sock.close()
                if self.config.admission is not None:
                    self.config.admission.closed(address, Outcome.BLAMELESS, self.context.loop.time())

    def admitted(self, sock: socket.socket, address: str, port: int) -> None:
        """A connection may be served: do so."""
        self.let_in(sock, address, port)

    def let_in(self, sock: socket.socket, address: str, port: int) -> ServerConnection:
        """Serve a connection."""
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        number = self._next_number
        self._next_number = number + self._number_step
        self.count("connections")
        connection = ServerConnection(self, sock, number, address, port)
        self._connections[number] = connection
        try:
            connection.pump.start()
        except OSError as error:  # no room to watch one more socket
            self.failed(connection, error)
            connection.disconnect("out of resources")
            connection.pump.close()
        return connection

    def _out_of(self, error: OSError, listener: socket.socket) -> None:
        """Nothing is left to accept with: close the newcomer at once with the spare descriptor, and rest a little."""
        _LOG.error("cannot accept a connection: %s", error.strerror)
        self.count("accept_failures")
        if error.errno in _OUT_OF_DESCRIPTORS and self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
            with contextlib.suppress(OSError):
                refused, name = listener.accept()
                refused.close()
                _LOG.error("closed the connection from %s at once", name[0] if isinstance(name, tuple) else "UNKNOWN")
            self._keep_spare(listener)
        self._rest(listener, self.config.retry_seconds)

    def _keep_spare(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            try:
                self._spare = os.open(os.devnull, os.O_RDONLY)
            except (FileNotFoundError, PermissionError):  # this process is confined
                self._spare = os.dup(listener.fileno())

    def _rest(self, listener: socket.socket, seconds: float) -> None:
        loop = self.context.loop
        loop.remove_reader(listener.fileno())
        loop.call_later(seconds, self._accept_again, listener)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            if self._spare < 0:
                self._keep_spare(listener)
            self.context.loop.add_reader(listener.fileno(), self._accept, listener)

    # For connections.

    @property
    def computing(self) -> Executor:
        """One thread for long computations. More of them would only take the interpreter from the event loop."""
        if self._computing is None:
            from concurrent.futures import ThreadPoolExecutor

            self._computing = ThreadPoolExecutor(1, "dunnart-computing")
        return self._computing

    def start_computing(self) -> None:
        """Start that thread where it may be needed: later there may be none to be had."""
        methods = (KEX_METHODS.get(name) or GSSAPI_METHODS[name] for name in self.engine_config.algorithms.kex)
        if any(getattr(method, "expensive", True) for method in methods):
            self.computing.submit(int).result()

    def host_key(self, public: PublicKey) -> PrivateKey | None:
        """The private half of one of our host keys; None: only the host has it."""
        return self._host_keys[public.blob]

    def cookie(self, _number: int) -> bytes:
        """What a connection's first KEXINIT shows, if somebody else has to know; else nobody can guess it."""
        return b""

    def shared(self, algorithms: Negotiated) -> Negotiated:
        """Give one object for the same algorithms: most connections use the same."""
        if len(self._algorithms) > _MOST_ALGORITHMS:
            self._algorithms.clear()
        return self._algorithms.setdefault(algorithms, algorithms)

    def count(self, name: str, more: int = 1) -> None:
        """One more of `name`, or several."""
        self.counters[name] += more

    def login_done(self, connection: ServerConnection) -> None:
        """A connection's user is in."""
        self.count("logins")
        if self.config.admission is not None:
            self.config.admission.finished_login(connection.address)

    def login_failed(self, connection: ServerConnection, outcome: Outcome) -> None:
        """A connection ended before a login."""
        self.count("failed_logins")
        if self.config.admission is not None:
            self.config.admission.closed(connection.address, outcome, self.context.loop.time())

    def failed(self, connection: ServerConnection, error: BaseException) -> None:
        """Our own or a plug-in's code failed for one connection, which the others do not feel."""
        self.count("failures")
        report(_LOG, logging.ERROR, connection, "failed: %r", error)
        _LOG.debug("failed", exc_info=error)

    def forget(self, connection: ServerConnection) -> None:
        """A connection is gone."""
        self._connections.pop(connection.id, None)
        self.bytes_received += connection.pump.bytes_received
        self.bytes_sent += connection.pump.bytes_sent
        self.wake()

    def wake(self) -> None:
        """A connection or channel is gone."""
        if self._changed is not None:
            self._changed.set()
