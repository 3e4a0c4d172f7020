"""Sessions that are not done: what the server hands over, and the handles that the application has for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
import weakref
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Self

from dunnart.ecos.sockets import LOOPBACK, LoopbackPort, close_after, copy
from dunnart.errors import LocalProtocolError
from dunnart.runtime.threads import start_thread
from dunnart.server import Address, RawSession, Terminal

if TYPE_CHECKING:
    from dunnart.ecos.data import DropbearData

_LOG = logging.getLogger("dunnart.session")
_MAPPED_LOOPBACK = "::ffff:127.0.0.1"  # as a listener for IPv4 and IPv6 shows it
_LARGEST_STATUS = 0xFFFFFFFF
_SWEEP_SECONDS = 1.0


class Handle:
    """A session. It holds until `done`, and says so afterwards."""

    __slots__ = ("__weakref__", "_session", "_sessions")

    def __init__(self, sessions: Sessions, session: Session) -> None:
        self._sessions = sessions
        self._session = session
        session.handle = weakref.ref(self)

    def _alive(self) -> Session:
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
        given: object = exit_code  # a handle that is done cannot be done again: whatever is wrong is told before
        if not isinstance(given, int) or not 0 <= given <= _LARGEST_STATUS:
            raise LocalProtocolError(f"{given!r} is no exit code of 0 to {_LARGEST_STATUS}")
        self._sessions.done(self._alive(), given)


class Session:
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


class Sessions:
    """The sessions that are not done; the `Application` of the server, whose thread calls `begin`."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, data: DropbearData) -> None:
        self._data = data
        self._open: dict[int, Session] = {}
        self._numbers = count(1)
        self._offered: dict[int, tuple[Session, asyncio.Future[None]]] = {}
        self._lost = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping = False
        self._local: LoopbackPort | None = None
        self._stderr: LoopbackPort | None = None

    def __enter__(self) -> Self:
        data = self._data
        with contextlib.ExitStack() as undo:
            if data.local_port and data.connected is not None:
                self._local = undo.enter_context(LoopbackPort(data.local_port, "local_port"))
            if data.stderr_port:
                self._stderr = undo.enter_context(LoopbackPort(data.stderr_port, "stderr_port"))
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
        made = Session(session, next(self._numbers))
        self._open[made.number] = made
        try:
            if self._data.connected is None:
                made.copies.append(self._keep(self.loop.create_task(self._offer(made))))
            else:
                start_thread(lambda: self._connected(made), "dunnart-connected", self._data.stack_size)
        except BaseException:
            self._forget(made)
            made.close()
            raise
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(_SWEEP_SECONDS, self._sweep)
        return True

    def _connected(self, session: Session) -> None:
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

    async def _offer(self, session: Session) -> None:
        """Connect to the application's port, and wait for it to ask for the handle; only then a byte goes there.

        So a stranger who listens in the application's place gets nothing.
        """
        sock = socket.socket()
        port = 0
        try:
            sock.setblocking(False)  # noqa: FBT003 - the name says it
            sock.bind((LOOPBACK, 0))  # known before the application can accept it
            port = sock.getsockname()[1]
            claimed: asyncio.Future[None] = self.loop.create_future()
            self._offered[port] = session, claimed
            async with asyncio.timeout(self._data.callback_seconds):
                await self.loop.sock_connect(sock, (LOOPBACK, self._data.local_port))
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
        return int(peer[1]) if peer[0] in (LOOPBACK, _MAPPED_LOOPBACK) else 0

    # For handles.

    def holds(self, session: Session) -> bool:
        """It is not done."""
        return session.number in self._open

    def stderr_of(self, session: Session) -> socket.socket:
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

    def done(self, session: Session, exit_code: int) -> None:
        """End it."""
        if not self._forget(session):
            raise LocalProtocolError("the handle is no longer valid: the session is done")  # another thread was first
        self._end(session, exit_code)

    # The end.

    def _forget(self, session: Session) -> bool:
        """It is done; False if it was before."""
        return self._open.pop(session.number, None) is not None

    def _end(self, session: Session, status: int = 0, *, reason: str = "") -> None:
        """Tell the client the status, or why there is none, once it has what the application has written."""
        session.shut()

        def last(_: object = None) -> None:
            under_way = next((task for task in session.copies if not task.done()), None)
            if under_way is not None:
                under_way.add_done_callback(last)
            elif reason:
                session.raw.refuse(reason)
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
                self._end(session, reason="the application has lost this session")
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

    def _join(self, session: Session, sock: socket.socket) -> None:
        """Copy between a session's own socket and a TCP connection."""
        there = self._copy(session.local, sock)
        back = self._copy(sock, session.local)
        session.copies.append(back)
        close_after((there, back), (sock, session.local))

    def _join_stderr(self, session: Session, local: socket.socket, sock: socket.socket) -> None:
        copy = self._copy(sock, local)
        session.copies.append(copy)
        close_after((copy,), (sock, local))

    def _copy(self, source: socket.socket, target: socket.socket) -> asyncio.Task[None]:
        return self._keep(self.loop.create_task(copy(source, target)))
