"""Sessions as objects with a method for each event, run by whichever thread of the application pool is free."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING

from dunnart.errors import ConnectionClosed
from dunnart.server.raw import Facts, exit_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.protocol.requests import BreakRequest, ChannelRequest, SignalRequest, WindowChange
    from dunnart.server.raw import RawSession
    from dunnart.server.server import Server

_READ_BYTES = 64 * 1024
_EVENTS_AHEAD = 16
_HIGH_WATER_BYTES = 256 * 1024
_MOST_BYTES = 8 << 20
_KEPT_REQUESTS = 64
_RETRY_SECONDS = 0.05


class SessionEvents:
    """Subclass it and give the class to the server: each session gets an object of its own.

    Any thread of the pool may run the next event, and never two run at once for one session. While more than 256 KiB
    of what was written wait for the client, or 16 events for a thread, nothing is read from it. An exception in a
    method ends the session with status 1, and is logged; nothing but `closed` comes after it.
    """

    def opened(self, session: EventSession) -> None:
        """The session has begun. First of all."""

    def data_received(self, data: bytes) -> None:
        """The client has sent this."""

    def eof_received(self) -> None:
        """The client sends no more."""

    def request_received(self, request: WindowChange | SignalRequest | BreakRequest) -> None:
        """The client's window has another size, or it sends a signal or a break. The last 64 are kept."""

    def drained(self) -> None:
        """All that was written has gone out, after some of it had to wait."""

    def closed(self) -> None:
        """The client has gone, or has taken all after the end. Last of all."""


class EventSession(Facts):
    """A session for `SessionEvents`. All its methods may be called from any thread, and none blocks."""

    __slots__ = ("_runner",)

    def __init__(self, runner: _Runner) -> None:
        super().__init__(runner.raw.facts)
        self._runner = runner

    @property
    def server(self) -> Server:
        """The server that the session belongs to. Its coroutines run on its own event loop."""
        return self._runner.raw.server

    def write(self, data: bytes | str) -> None:
        r"""Send `data`; what the client does not take yet waits.

        Args:
            data: bytes go out as they are. Text is UTF-8, and to a terminal its "\n" goes out as "\r\n".

        Raises:
            BufferError: 8 MiB wait already.
            ConnectionClosed: the client has gone, or the session has ended.
        """
        self._runner.write(data)

    def write_stderr(self, data: bytes | str) -> None:
        """The same, to the client's stderr, for messages: what does not fit into 200 KiB raises BufferError."""
        self._runner.write_stderr(data)

    def exit(self, status: int = 0) -> None:
        """End the session with an exit status, once all that was written has gone out."""
        self._runner.exit(status)


class EventsApplication:
    """Makes an object for each session and feeds it events."""

    def __init__(self, make: type[SessionEvents]) -> None:
        self._make = make

    def begin(self, session: RawSession) -> bool:
        """Queue the first event; if the queue is full the session is refused, and its user told why."""
        runner = _Runner(session, self._make)
        if not runner.start():
            pool = session.host.handlers
            session.host.refuse(session, f"the server is busy: {pool.size} jobs run and {pool.queue} wait")
        return True


def _closed(events: SessionEvents) -> None:
    events.closed()


class _Runner:
    """One session's events, in order, one at a time. Its socket is read on the service loop."""

    def __init__(self, raw: RawSession, make: Callable[[], SessionEvents]) -> None:
        self.raw = raw
        self._make = make
        self._session = EventSession(self)
        self._object: SessionEvents | None = None
        self._events: deque[Callable[[SessionEvents], None]] = deque()
        self._requests: deque[ChannelRequest] = deque(maxlen=_KEPT_REQUESTS)
        self._running = False
        self._failed = False
        self._paused = False
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._stderr: socket.socket | None = None
        self._backlog = bytearray()
        self._writing = False
        self._exit: int | None = None

    # On the service loop.

    def start(self) -> bool:
        raw = self.raw
        self._sock = sock = raw.socket()
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        raw.on_request = self._requested
        raw.on_close = self._gone
        self._events.append(lambda events: events.opened(self._session))
        self._running = True
        if not raw.host.handlers.submit(self._run_next):
            return False
        raw.host.loop.add_reader(sock, self._readable)
        return True

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.raw.host.loop.remove_reader(self._sock)
            self._post(lambda events: events.eof_received())
            return
        self._post(lambda events: events.data_received(data))
        with self._lock:  # a thread that has just run the last of them must see it
            self._paused = len(self._events) >= _EVENTS_AHEAD or len(self._backlog) > _HIGH_WATER_BYTES
        if self._paused:
            self.raw.host.loop.remove_reader(self._sock)

    def _requested(self, request: ChannelRequest) -> bool:
        with self._lock:
            full = len(self._requests) == _KEPT_REQUESTS
            self._requests.append(request)
        if not full:  # else it takes the place of the oldest, whose event still waits
            self._post(self._tell_request)
        return True

    def _tell_request(self, events: SessionEvents) -> None:
        with self._lock:
            request = self._requests.popleft()
        events.request_received(request)  # type: ignore[arg-type] # there are no others

    def _gone(self) -> None:
        if self._sock is not None:
            loop = self.raw.host.loop
            loop.remove_reader(self._sock)
            loop.remove_writer(self._sock)
        self._post(_closed)
        with self._lock:  # a write may be under way in a thread
            self.raw.release()

    def _resume(self) -> None:
        if self._paused and not self.raw.gone and len(self._backlog) <= _HIGH_WATER_BYTES:
            self._paused = False
            assert self._sock is not None
            self.raw.host.loop.add_reader(self._sock, self._readable)

    def _writable(self) -> None:
        assert self._sock is not None
        with self._lock:
            try:
                del self._backlog[: self._sock.send(self._backlog)]
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._backlog.clear()
            if self._backlog:
                return
            self._writing = False
        self.raw.host.loop.remove_writer(self._sock)
        if self._exit is not None:
            self.raw.exit(self._exit)
        else:
            self._post(lambda events: events.drained())
        self._resume()

    def _await_writable(self) -> None:
        if self._sock is not None and not self.raw.gone:
            self.raw.host.loop.add_writer(self._sock, self._writable)

    # From any thread.

    def _post(self, event: Callable[[SessionEvents], None]) -> None:
        with self._lock:
            if self._failed and not self._wanted_after_failure(event):
                return
            self._events.append(event)
            if self._running:
                return
            self._running = True
        self._submit()

    def _submit(self) -> None:
        # Events of a session that runs are not refused: they wait, and as long nothing more is read.
        if not self.raw.host.handlers.submit(self._run_next):
            with contextlib.suppress(RuntimeError):  # the server is closed, and its loop
                self.raw.host.call(self.raw.host.loop.call_later, _RETRY_SECONDS, self._submit)

    def _fail(self) -> None:
        with self._lock:
            self._failed = True
            self._events = deque(filter(self._wanted_after_failure, self._events))
        self.exit(1)

    def _wanted_after_failure(self, event: Callable[[SessionEvents], None]) -> bool:
        return event is _closed and self._object is not None

    def _run_next(self) -> None:
        more = self._run_one()
        while more and self.raw.host.handlers.closed:  # no other thread will
            more = self._run_one()
        if more:
            self._submit()
        elif self._paused:
            self.raw.host.call(self._resume)

    def _run_one(self) -> bool:
        with self._lock:
            event = self._events.popleft()
        try:
            if self._object is None:
                self._object = self._make()
            event(self._object)
        except ConnectionClosed:
            self._fail()  # the client has left
        except BaseException as error:  # noqa: BLE001 - it ends its session, not the thread
            self.raw.host.failed(self.raw.facts.connection, error)
            self._fail()
        with self._lock:
            self._running = bool(self._events)
            return self._running

    def write(self, data: bytes | str) -> None:
        data = self._encoded(data)
        with self._lock:
            if self._exit is not None or self.raw.ended or self._sock is None:
                raise ConnectionClosed("the session has ended")
            if len(self._backlog) + len(data) > _MOST_BYTES:
                raise BufferError("8 MiB wait already for the client to take them")
            sent = 0
            if not self._backlog:
                try:
                    sent = self._sock.send(data)
                except (BlockingIOError, InterruptedError):
                    sent = 0
                except OSError as error:
                    raise ConnectionClosed("the client has gone") from error
            self._backlog += data[sent:]
            if not self._backlog or self._writing:
                return
            self._writing = True
        self.raw.host.call(self._await_writable)

    def write_stderr(self, data: bytes | str) -> None:
        data = self._encoded(data)
        with self._lock:
            if self._exit is not None or self.raw.ended:
                raise ConnectionClosed("the session has ended")
            if self._stderr is None:
                self._stderr = self.raw.stderr_socket()
                self._stderr.setblocking(False)  # noqa: FBT003 - the name says it
            try:
                sent = self._stderr.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                raise ConnectionClosed("the client has gone") from error
        if sent < len(data):
            raise BufferError("the client does not take its stderr")

    def _encoded(self, data: bytes | str) -> bytes:
        if not isinstance(data, str):
            return data
        return (data.replace("\n", "\r\n") if self.raw.terminal is not None else data).encode(errors="surrogateescape")

    def exit(self, status: int) -> None:
        exit_status(status)
        with self._lock:
            if self._exit is not None:
                return
            self._exit = status
            if self._backlog:
                return
        self.raw.exit(status)
