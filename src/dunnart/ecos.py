"""The interface of Dropbear for eCos: a server started by one call, callbacks, and sessions that are local sockets.

    daemon = init(DropbearData(private_host_keys=["host_key"], authenticate_password=check, connected=connected))

`init` returns once the server listens, and the application, which needs no event loop, goes on. The server lives in a
thread of its own. None of the application's code runs in it:

    accept_connection, get_public_keys, …   a few threads for callbacks; one that takes too long denies
    connected                               a thread for each session, which it may keep
    logger                                  a thread of its own

    client ◄── SSH ──► server's thread ◄── local socket ──► whatever part of the application serves the session

Built on the public names of `dunnart`, `dunnart.server` and `dunnart.keys` alone; docs/how-to/ecos.md has the names
in C, and what a connection costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Self

from dunnart.errors import ConfigError, DunnartError, KeyFormatError, LocalProtocolError
from dunnart.keys import PrivateKey, PublicKey
from dunnart.server import (
    Address,
    Allow,
    Attempt,
    Authenticator,
    AuthReply,
    Deny,
    Limits,
    PasswordCredential,
    PublicKeyCredential,
    RawSession,
    Server,
    ServerConfig,
    Terminal,
)

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Daemon", "DropbearData", "Handle", "init"]

_LOG = logging.getLogger("dunnart.session")
_LOOPBACK = "127.0.0.1"
_MAPPED_LOOPBACK = "::ffff:127.0.0.1"  # as a listener for IPv4 and IPv6 shows it
_KIB = 1024
_LEAST_WINDOW_BYTES = 64 * _KIB
_WINDOW_PACKETS = 32
_LARGEST_STATUS = 0xFFFFFFFF
_LOST_STATUS = 75  # EX_TEMPFAIL of sysexits.h
_LINES_AHEAD = 1000
_COPY_BYTES = 64 * _KIB
_SWEEP_SECONDS = 1.0

Key = PublicKey | str
"""A public key, or its line as in an `id_ed25519.pub`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropbearData:
    """What a server is made from. Everything is checked when it is made.

    Callbacks that are left out switch off what they are for. An exception in one, or no answer within
    `callback_seconds`, denies; only `True` allows. Addresses are (host, port) pairs.

    Attributes:
        rsa_private_host_key: an RSA key, as its file's content (OpenSSH's format or PEM).
        dss_private_host_key: a DSS key likewise; only with `algorithms="legacy"`, because DSS is broken.
        private_host_keys: keys of any kind: `PrivateKey`s, files' contents, or files' names. At least one of the three.
        accept_connection: `(address)`: may this client connect? Asked before a byte is exchanged.
        connected: `(socket, handle)`: a session begins. It has a thread of its own, in which it may as well serve the
            session. If it raises, the session ends with status 1. None: the application accepts on `local_port`.
        get_public_keys: `(algorithm, user, address)` gives the keys that may log in, of which the first
            `max_public_keys` count. Never two calls at once.
        free_public_keys: `(keys)` gets back what `get_public_keys` gave, before that is called again.
        authenticate_password: `(user, address, password)`: is it right?
        logger: `(message)` gets the log, a line a call. All servers of the process share it. None: nothing is printed.
        address: where to listen; "*" is every address.
        port: the network port; 0 lets the system choose.
        support_stderr: whether `Handle.get_stderr` is there.
        max_packet_bytes: the largest channel packet that clients may send, at least 1024; 32768 for throughput.
        max_public_keys: how many keys of one `get_public_keys` count.
        local_port: make the local sockets TCP connections to this loopback port: with `connected` a free one, without
            it the one on which the application accepts. 0: pairs of sockets, which need none.
        stderr_port: the same for `get_stderr`; the port must be free.
        thread_priority: added to the nice value of the server's and the callbacks' threads (Linux), 0 to 19.
        stack_size: bytes of the stacks of the server's thread and of `connected`'s, 0 for the platform's or 32768 up.
        accept_delay_seconds: rest so long after each accepted connection.
        retry_delay_seconds: rest so long when descriptors ran out, and then accept again.
        callback_seconds: a callback that takes longer denies.
        algorithms: what is offered: "default", "strict", "fips" or "legacy".

    Raises:
        ConfigError: it cannot work, or would let everybody in; names the argument.
    """

    rsa_private_host_key: bytes = field(default=b"", repr=False)
    dss_private_host_key: bytes = field(default=b"", repr=False)
    private_host_keys: Sequence[PrivateKey | bytes | str | os.PathLike[str]] = field(default=(), repr=False)
    accept_connection: Callable[[Address], bool] | None = None
    connected: Callable[[socket.socket, Handle], object] | None = None
    get_public_keys: Callable[[str, str, Address], Sequence[Key]] | None = None
    free_public_keys: Callable[[Sequence[Key]], object] | None = None
    authenticate_password: Callable[[str, Address, str], bool] | None = None
    logger: Callable[[str], object] | None = None
    address: str = "*"
    port: int = 22
    support_stderr: bool = False
    max_packet_bytes: int = _KIB
    max_public_keys: int = 8
    local_port: int = 0
    stderr_port: int = 0
    thread_priority: int = 0
    stack_size: int = 0
    accept_delay_seconds: float = 0.0
    retry_delay_seconds: float = 0.1
    callback_seconds: float = 10.0
    algorithms: str = "default"

    def __post_init__(self) -> None:
        for each in fields(self):
            _check(each.name, getattr(self, each.name))
        if self.connected is None and not self.local_port:
            raise ConfigError("needed, unless the application accepts sessions on a local_port", key="connected")
        if self.get_public_keys is None and self.authenticate_password is None:
            raise ConfigError(
                "nobody could log in: give this callback, or get_public_keys, or both", key="authenticate_password"
            )
        if self.free_public_keys is not None and self.get_public_keys is None:
            raise ConfigError("has no get_public_keys to follow", key="free_public_keys")
        if self.stderr_port and not self.support_stderr:
            raise ConfigError("needs support_stderr", key="stderr_port")
        if self.dss_private_host_key and self.algorithms != "legacy":
            raise ConfigError('DSS is broken, and used only with algorithms="legacy"', key="dss_private_host_key")
        try:
            ServerConfig(thread_nice=self.thread_priority, thread_stack_bytes=self.stack_size, **self.options())
        except ConfigError as error:
            key = error.key or ""
            raise ConfigError(str(error).removeprefix(f"{key}: "), key=_OUR_NAMES.get(key, key)) from error

    def options(self) -> dict[str, Any]:
        """The arguments of the `Server`.

        Raises:
            ConfigError: a host key cannot be used; names the argument.
        """
        host = f"[{self.address}]" if ":" in self.address else self.address
        return {
            "host_keys": self.host_keys(),
            "authenticators": _authenticators(self),
            "listen": f"{host}:{self.port}",
            "accept": self.accept_connection,
            "limits": self.limits(),
            "algorithms": self.algorithms,
            "callback_seconds": self.callback_seconds,
            "accept_delay_seconds": self.accept_delay_seconds,
            "retry_seconds": self.retry_delay_seconds,
            "placement": "loop",
        }

    def host_keys(self) -> list[PrivateKey]:
        """All the host keys.

        Raises:
            ConfigError: one cannot be used; names the argument.
        """
        found = []
        for name, kind in (("rsa_private_host_key", "ssh-rsa"), ("dss_private_host_key", "ssh-dss")):
            if getattr(self, name):
                found.append(_host_key(getattr(self, name), name))
                if found[-1].public.key_type != kind:
                    raise ConfigError(f"is a key of another kind: {found[-1].public.key_type}", key=name)
        return found + [_host_key(key, "private_host_keys") for key in self.private_host_keys]

    def limits(self) -> Limits:
        """The bounds on a connection. One session at a time: so what is accepted bounds what is used."""
        size = self.max_packet_bytes
        return Limits(
            sessions=1,
            channel_packet_bytes=size,
            packet_bytes=max(Limits().packet_bytes_before_login, size + _KIB),
            window_bytes=max(_LEAST_WINDOW_BYTES, _WINDOW_PACKETS * size),
        )


_OUR_NAMES = {
    "host_keys": "private_host_keys", "listen": "address", "accept": "accept_connection",
    "retry_seconds": "retry_delay_seconds", "thread_nice": "thread_priority", "thread_stack_bytes": "stack_size",
}  # fmt: skip
_RANGES = {
    "port": (0, 65535), "local_port": (0, 65535), "stderr_port": (0, 65535), "max_packet_bytes": (_KIB, 255 * _KIB),
    "max_public_keys": (1, 1 << 16), "thread_priority": (0, 19),
}  # fmt: skip
_CALLBACKS = ("connected", "get_public_keys", "free_public_keys", "authenticate_password", "logger")


def _check(name: str, value: Any) -> None:  # noqa: ANN401 - it is what is checked
    """Check what `ServerConfig` does not."""
    least, most = _RANGES.get(name, (0, 0))
    if name in _CALLBACKS and not (value is None or callable(value)):
        raise ConfigError(f"{value!r} is no function", key=name)
    if most and (isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most):
        raise ConfigError(f"{value!r} is no whole number of {least} to {most}", key=name)
    if name == "support_stderr" and not isinstance(value, bool):
        raise ConfigError(f"{value!r} is neither True nor False", key=name)
    if name in ("address", "algorithms") and not isinstance(value, str):
        raise ConfigError(f"{value!r} is no text", key=name)
    # A value that may be a key is not shown.
    if name.endswith("_private_host_key") and not isinstance(value, bytes):
        raise ConfigError("is no bytes", key=name)
    if name == "private_host_keys" and (isinstance(value, str | bytes) or not isinstance(value, Sequence)):
        raise ConfigError("is no sequence: write [key]", key=name)


def _host_key(key: object, name: str) -> PrivateKey:
    if isinstance(key, PrivateKey):
        return key
    try:
        if isinstance(key, str | os.PathLike):
            with open(key, "rb") as file:
                key = file.read(1 << 20)
        if not isinstance(key, bytes):
            raise ConfigError(f"{type(key).__name__} is no PrivateKey, key as bytes, or file's name", key=name)
        return PrivateKey.load(key)
    except (KeyFormatError, OSError, ValueError) as error:
        raise ConfigError(str(error), key=name) from error


def init(data: DropbearData) -> Daemon:
    """Start a server; returns once it listens.

    Raises:
        ConfigError: it cannot listen where it should.
    """
    if not isinstance(data, DropbearData):
        raise ConfigError("is no DropbearData", key="data")
    return Daemon(data)


class Handle:
    """A session. It holds until `done`, and says so afterwards."""

    __slots__ = ("__weakref__", "_session", "_sessions")

    def __init__(self, sessions: _Sessions, session: _Session) -> None:
        self._sessions = sessions
        self._session = session
        session.handle = weakref.ref(self)

    def _alive(self) -> _Session:
        if not self.valid:
            raise LocalProtocolError("the handle is no longer valid: the session is done")
        return self._session

    @property
    def valid(self) -> bool:
        """`done` was not called yet; this may be asked at any time."""
        return self._sessions.holds(self._session)

    @property
    def username(self) -> str:
        """Who logged in."""
        return self._alive().raw.user

    @property
    def addr(self) -> Address:
        """The client's address and port."""
        return self._alive().raw.peer

    @property
    def command(self) -> str | None:
        """What the client wants to have executed, as in `ssh host COMMAND`; None for a plain login."""
        return self._alive().raw.command

    @property
    def terminal(self) -> Terminal | None:
        """The client's terminal with its present size; None if nobody sits at one."""
        return self._alive().raw.terminal

    def get_stderr(self) -> socket.socket:
        """Give a second local socket: what is written there goes to the client's stderr. Once for each session.

        Raises:
            LocalProtocolError: `support_stderr` is off, there is this socket already, or the session is done.
            OSError: no descriptors are left.
        """
        return self._sessions.stderr_of(self._alive())

    def done(self, exit_code: int) -> None:
        """End the session, once the application has closed its sockets; the handle is not valid from here on.

        What was written before still goes out. Nothing but this sets the exit status of a session that works.

        Args:
            exit_code: 0 to 4294967295; shells give 0 to 255.

        Raises:
            LocalProtocolError: this was done already.
        """
        if not 0 <= exit_code <= _LARGEST_STATUS:
            raise LocalProtocolError(f"{exit_code!r} is no exit code of 0 to {_LARGEST_STATUS}")
        self._sessions.done(self._alive(), exit_code)


class _Session:
    """A session that is not done.

    Attributes:
        raw: the server's side of it.
        number: its own.
        local: the application's end or, where that is a TCP connection, what is copied to and from there.
        sock: what the application has for it, `stderr` likewise.
        copies: what joins it with the application, and copies for it.
        handle: refers to the application's handle.
        since: since when something is wrong with it.
        told: the log has it.
    """

    __slots__ = ("copies", "handle", "local", "number", "raw", "since", "sock", "stderr", "told")

    def __init__(self, raw: RawSession, number: int) -> None:
        self.raw = raw
        self.number = number
        self.local = raw.socket()
        self.sock: socket.socket | None = None
        self.stderr: socket.socket | None = None
        self.copies: list[asyncio.Task[None]] = []
        self.handle: weakref.ref[Handle] | None = None
        self.since = 0.0
        self.told = False

    @property
    def over(self) -> bool:
        """The client has gone, or the application has closed the socket."""
        return self.raw.gone or (self.sock is not None and self.sock.fileno() < 0)

    @property
    def lost(self) -> bool:
        """The application has thrown the handle away, so that nobody can call `done`."""
        return self.handle is not None and self.handle() is None

    @property
    def shown(self) -> str:
        """For the log."""
        return f"connection {self.raw.connection_id}, session {self.raw.channel} of {self.raw.user!r}"

    def shut(self) -> None:
        """End what the application writes."""
        for sock in (self.sock, self.stderr):
            if sock is not None:
                with contextlib.suppress(OSError):  # closed already
                    sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close what the application has."""
        for sock in (self.sock or self.local, self.stderr):
            if sock is not None:
                sock.close()


class Daemon:
    """A running server; `init` makes it. Its methods may be called from any thread.

    Attributes:
        data: what it was made from.
        port: where it listens.
    """

    def __init__(self, data: DropbearData) -> None:
        self.data = data
        self._closing = threading.Lock()
        self._closed = False
        with contextlib.ExitStack() as undo:
            self._sessions = undo.enter_context(_Sessions(data))
            self._server = Server(self._sessions, **data.options())
            undo.enter_context(_logging_to(data.logger))
            self._start()
            self._undo = undo.pop_all()
        self.port = self._server.port

    def connections(self) -> int:
        """How many clients are connected now, those that have not logged in included."""
        return self._server.connections

    def sessions_not_done(self) -> int:
        """How many sessions are over, by the client's leaving or the socket's closing, for which `done` was not called.

        Those that it cannot be called for any more, because their handle was thrown away, are counted for ever.
        """
        return self._sessions.not_done()

    def handle_for(self, sock: socket.socket) -> Handle | None:
        """Give the handle of a session that the application has accepted on `local_port`.

        The session begins with this call. None for whoever else has connected there, or if it comes too late: then
        close the socket.
        """
        return self._sessions.claim(sock)

    def close(self) -> None:
        """End every session, and the server; returns when it has ended. Sockets that the application has stay its."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
                self._thread.join()
                self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = _start_thread(lambda: asyncio.run(self._serve(started)), "dunnart-ecos", self.data.stack_size)
        failure = started.get()
        if failure is not None:
            self._thread.join()
            if isinstance(failure, ConfigError):
                raise ConfigError(str(failure).removeprefix("listen: "), key="port") from failure
            raise failure

    async def _serve(self, started: queue.SimpleQueue[BaseException | None]) -> None:
        self._loop = self._sessions.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if self.data.thread_priority and sys.platform == "linux":
            with contextlib.suppress(OSError):  # the threads that this one starts inherit it
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + self.data.thread_priority)
        try:
            await self._server.start()
        except BaseException as error:  # noqa: BLE001 - `init` raises it
            started.put(error)
            return
        started.put(None)
        await self._stop.wait()
        await self._server.close()


class _Sessions:
    """The sessions that are not done; the `Application` of the server, whose thread calls `begin`."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, data: DropbearData) -> None:
        self._data = data
        self._open: dict[int, _Session] = {}
        self._numbers = count(1)
        self._offered: dict[int, tuple[_Session, asyncio.Future[None]]] = {}
        self._lost = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping = False
        self._local: _LoopbackPort | None = None
        self._stderr: _LoopbackPort | None = None

    def __enter__(self) -> Self:
        data = self._data
        with contextlib.ExitStack() as undo:
            if data.local_port and data.connected is not None:
                self._local = undo.enter_context(_LoopbackPort(data.local_port, "local_port"))
            if data.stderr_port:
                self._stderr = undo.enter_context(_LoopbackPort(data.stderr_port, "stderr_port"))
            self._ports = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ports.close()

    def not_done(self) -> int:
        """How many sessions are over and not done."""
        return self._lost + sum(session.over for session in tuple(self._open.values()))

    # The beginning of a session.

    def begin(self, session: RawSession) -> bool:
        """Serve a session; in the server's thread."""
        made = _Session(session, next(self._numbers))
        self._open[made.number] = made
        try:
            if self._data.connected is None:
                made.copies.append(self._keep(self.loop.create_task(self._offer(made))))
            else:
                _start_thread(lambda: self._connected(made), "dunnart-connected", self._data.stack_size)
        except BaseException:
            self._forget(made)
            made.close()
            raise
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(_SWEEP_SECONDS, self._sweep)
        return True

    def _connected(self, session: _Session) -> None:
        """Call the callback, in a thread of the session's own."""
        assert self._data.connected is not None
        try:
            if self._local is None:
                session.sock = session.local
            else:
                ours, session.sock = self._local.pair()
                self._soon(partial(self._join, session, ours))
            self._data.connected(session.sock, Handle(self, session))
        except BaseException as error:  # noqa: BLE001 - it ends its session, not the server
            _LOG.error("%s: connected failed: %r", session.shown, error)
            _LOG.debug("connected failed", exc_info=error)
            if self._forget(session):
                self._end(session, 1)
                session.close()

    async def _offer(self, session: _Session) -> None:
        """Connect to the application's port, and wait for it to ask for the handle; only then a byte goes there.

        So a stranger who listens in the application's place gets nothing.
        """
        sock = socket.socket()
        port = 0
        try:
            sock.setblocking(False)  # noqa: FBT003 - the name says it
            sock.bind((_LOOPBACK, 0))  # known before the application can accept it
            port = sock.getsockname()[1]
            claimed: asyncio.Future[None] = self.loop.create_future()
            self._offered[port] = session, claimed
            async with asyncio.timeout(self._data.callback_seconds):
                await self.loop.sock_connect(sock, (_LOOPBACK, self._data.local_port))
                await claimed
        except BaseException as error:
            sock.close()
            self._offered.pop(port, None)
            self._forget(session)
            session.raw.refuse("the application does not take sessions")
            session.local.close()
            if not isinstance(error, OSError):  # TimeoutError is one
                raise
            _LOG.warning("%s: nobody took it on port %d: %r", session.shown, self._data.local_port, error)
            return
        self._join(session, sock)

    def claim(self, sock: socket.socket) -> Handle | None:
        """Give the handle of the session that waits at the other end of a socket."""
        offered = self._offered.pop(self._peer_port(sock), None)
        if offered is None:
            return None
        session, claimed = offered
        session.sock = sock
        handle = Handle(self, session)

        def claim() -> None:
            if not claimed.done():  # too late
                claimed.set_result(None)

        return handle if self._soon(claim) else None

    def _peer_port(self, sock: socket.socket) -> int:
        """The port at the other end of a connection that may be ours, else 0."""
        try:
            peer, own = sock.getpeername(), sock.getsockname()
        except OSError:
            return 0
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or own[1] != self._data.local_port:
            return 0
        return int(peer[1]) if peer[0] in (_LOOPBACK, _MAPPED_LOOPBACK) else 0

    # For handles.

    def holds(self, session: _Session) -> bool:
        """It is not done."""
        return session.number in self._open

    def stderr_of(self, session: _Session) -> socket.socket:
        """Make the second socket."""
        if not self._data.support_stderr:
            raise LocalProtocolError("there is no stderr: support_stderr is off in DropbearData")
        local = session.raw.stderr_socket()
        if self._stderr is None:
            session.stderr = local
            return local
        try:
            ours, theirs = self._stderr.pair()
        except OSError:
            local.close()
            raise
        with contextlib.suppress(OSError):
            theirs.shutdown(socket.SHUT_RD)
        session.stderr = theirs
        self._soon(partial(self._join_stderr, session, local, ours))
        return theirs

    def done(self, session: _Session, exit_code: int) -> None:
        """End it."""
        if not self._forget(session):
            raise LocalProtocolError("the handle is no longer valid: the session is done")  # another thread was first
        self._end(session, exit_code)

    # The end.

    def _forget(self, session: _Session) -> bool:
        """It is done; False if it was before."""
        return self._open.pop(session.number, None) is not None

    def _end(self, session: _Session, status: int, reason: str = "") -> None:
        """Tell the client the status once it has what the application has written."""
        session.shut()

        def last(_: object = None) -> None:
            under_way = next((task for task in session.copies if not task.done()), None)
            if under_way is not None:
                under_way.add_done_callback(last)
            elif reason:
                session.raw.refuse(reason, status)
            else:
                session.raw.exit(status)

        self._soon(last)

    def _sweep(self) -> None:
        """Look for sessions that are over and not done, time and again while there are sessions."""
        now = time.monotonic()
        for session in tuple(self._open.values()):
            if not (session.over or session.lost):
                continue
            session.since = session.since or now
            if now - session.since < _SWEEP_SECONDS / 2:
                continue  # the application may be about to call it
            if not session.told:
                session.told = True
                what = "its handle was thrown away" if session.lost else "it is over"
                _LOG.warning("%s: %s, and done() was not called", session.shown, what)
            if session.over and session.lost and self._forget(session):
                self._lost += 1
                self._end(session, _LOST_STATUS, "the application has lost this session")
                session.close()
        self._sweeping = bool(self._open)
        if self._sweeping:
            self.loop.call_later(_SWEEP_SECONDS, self._sweep)

    # In the server's thread.

    def _soon(self, function: Callable[[], object]) -> bool:
        """Call something there; False if the server is closed."""
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:
            return False
        return True

    def _keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _join(self, session: _Session, sock: socket.socket) -> None:
        """Copy between a session's own socket and a TCP connection."""
        there = self._copy(session.local, sock)
        back = self._copy(sock, session.local)
        session.copies.append(back)
        _close_after((there, back), (sock, session.local))

    def _join_stderr(self, session: _Session, local: socket.socket, sock: socket.socket) -> None:
        copy = self._copy(sock, local)
        session.copies.append(copy)
        _close_after((copy,), (sock, local))

    def _copy(self, source: socket.socket, target: socket.socket) -> asyncio.Task[None]:
        return self._keep(self.loop.create_task(_copy(source, target)))


def _close_after(tasks: Iterable[asyncio.Task[None]], socks: Iterable[socket.socket]) -> None:
    def ended(_: object) -> None:
        if all(task.done() for task in tasks):
            for sock in socks:
                sock.close()

    for task in tasks:
        task.add_done_callback(ended)


async def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy to the end. That, or a target that takes no more, is passed on to the other side."""
    loop = asyncio.get_running_loop()
    for sock in (source, target):
        sock.setblocking(False)  # noqa: FBT003 - the name says it
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(source, _COPY_BYTES):
            await loop.sock_sendall(target, data)
    for sock, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            sock.shutdown(how)


class _LoopbackPort:
    """Makes pairs of sockets that are TCP connections over a port of the loopback interface."""

    def __init__(self, port: int, name: str) -> None:
        self._lock = threading.Lock()
        try:
            self._listener = socket.create_server((_LOOPBACK, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {_LOOPBACK}:{port}: {error.strerror}", key=name) from error
        self._listener.settimeout(10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Make one: ours and the application's."""
        with self._lock:
            ours = socket.create_connection(self._listener.getsockname(), 10.0)
            try:
                while True:
                    theirs, peer = self._listener.accept()
                    if peer == ours.getsockname():
                        return ours, theirs
                    theirs.close()  # a stranger
            except BaseException:
                ours.close()
                raise


def _start_thread(run: Callable[[], object], name: str, stack_bytes: int) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    if not stack_bytes:
        thread.start()
        return thread
    with _STACK_SIZE:
        before = threading.stack_size(stack_bytes)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    return thread


_STACK_SIZE = threading.Lock()
"""The size of stacks to come is the process's."""


# Logins.


def _authenticators(data: DropbearData) -> list[Authenticator]:
    made: list[Authenticator] = []
    if data.get_public_keys is not None:
        made.append(_Keys(data))
    if data.authenticate_password is not None:
        made.append(_Password(data.authenticate_password))
    return made


class _Password:
    method = "password"

    def __init__(self, check: Callable[[str, Address, str], bool]) -> None:
        self._check = check

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask the callback."""
        if not isinstance(attempt.credential, PasswordCredential):
            return Deny("not a password")
        address = Address(attempt.address, attempt.port)
        allowed = await attempt.run(self._check, attempt.user, address, attempt.credential.password)
        return Allow() if allowed is True else Deny()


class _Keys:
    method = "publickey"

    def __init__(self, data: DropbearData) -> None:
        self._data = data
        self._mutex = threading.Lock()

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask the callbacks."""
        if not isinstance(attempt.credential, PublicKeyCredential):
            return Deny("not a public key")
        address = Address(attempt.address, attempt.port)
        allowed = await attempt.run(self._holds, attempt.credential.key, attempt.user, address)
        return Allow() if allowed is True else Deny()

    def _holds(self, wanted: PublicKey, user: str, address: Address) -> bool:
        data = self._data
        assert data.get_public_keys is not None
        if not self._mutex.acquire(timeout=data.callback_seconds):
            return False  # the one before has not come back, and this one's answer is too late anyway
        try:
            keys = data.get_public_keys(wanted.key_type, user, address)
            try:
                return any(_same(key, wanted) for key in self._first(keys))
            finally:
                if data.free_public_keys is not None:
                    data.free_public_keys(keys)
        finally:
            self._mutex.release()

    def _first(self, keys: Sequence[Key]) -> list[Key]:
        most = self._data.max_public_keys
        if len(keys) > most:
            _LOG.warning("get_public_keys gave %d keys, of which %d count (max_public_keys)", len(keys), most)
        return list(islice(keys, most))


def _same(key: Key, wanted: PublicKey) -> bool:
    try:
        return (PublicKey.parse_line(key)[0] if isinstance(key, str) else key) == wanted
    except DunnartError as error:
        _LOG.warning("get_public_keys gave what is no public key: %s", error)
        return False


# The log.


@contextlib.contextmanager
def _logging_to(callback: Callable[[str], object] | None) -> Iterator[None]:
    """Have a callback get the log; without one, have Python not print it for want of anything better."""
    logger = logging.getLogger("dunnart")
    handler: logging.Handler = logging.NullHandler() if callback is None else _LogHandler(callback)
    logger.addHandler(handler)
    if callback is not None and logger.level == logging.NOTSET:
        _LogHandler.raised_level = True
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        if _LogHandler.raised_level and not any(isinstance(each, _LogHandler) for each in logger.handlers):
            _LogHandler.raised_level = False
            logger.setLevel(logging.NOTSET)


class _LogHandler(logging.Handler):
    """Calls a callback from a thread of its own: one that blocks loses lines, and stops nobody."""

    raised_level = False
    """The log's level is ours, and to be reset with the last handler."""

    def __init__(self, callback: Callable[[str], object]) -> None:
        super().__init__()
        self._callback = callback
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = _start_thread(self._run, "dunnart-ecos-log", 0)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        if self._lines.qsize() < _LINES_AHEAD:
            connection = getattr(record, "connection", None)
            head = "" if connection is None else f"connection {connection.id}: "
            self._lines.put(head + record.getMessage())

    def close(self) -> None:
        """Deliver what there is, for a second."""
        self._lines.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)
        super().close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(Exception):  # there is nowhere to tell it
                self._callback(line)
