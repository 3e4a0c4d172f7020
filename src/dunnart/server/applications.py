"""Makes applications of handlers: coroutine functions, blocking functions, classes of event methods."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError, ConnectionClosed, Interrupted
from dunnart.server.blocking import BlockingSession
from dunnart.server.event_objects import EventsApplication, SessionEvents
from dunnart.server.raw import Application, exit_status
from dunnart.server.session import Session

if TYPE_CHECKING:
    from dunnart.protocol.requests import ChannelRequest
    from dunnart.server.raw import RawSession

AsyncHandler = Callable[[Session], Awaitable[int | None]]
"""Serves a session; what it returns is the exit status, None stands for 0."""
BlockingHandler = Callable[[BlockingSession], int | None]
"""The same for a function that may block; it runs in a thread of the application pool."""
Handler = AsyncHandler | BlockingHandler | type[SessionEvents] | Application
Middleware = Callable[[AsyncHandler], AsyncHandler]
"""Gets the handler that comes next and gives the one to be called in its place."""
_KEPT_REQUESTS = 64
_INTERRUPTED = 130  # what a shell gives for a program that control-C has ended


def as_application(handler: object, name: str) -> Application:
    """Make an application of whatever can serve a session.

    Args:
        handler: a coroutine function, a blocking function, a subclass of `SessionEvents` or an application.
        name: of the argument, for the error.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(handler, type):
        if issubclass(handler, SessionEvents):
            return EventsApplication(handler)
    elif hasattr(handler, "begin"):
        return handler
    elif callable(handler):
        if is_async(handler):
            return CoroutineApplication(handler)
        return BlockingApplication(handler)
    raise ConfigError(
        f"{handler!r} is no async def handler(session), def handler(session), subclass of SessionEvents or application",
        key=name,
    )


def is_async(function: Callable[..., object]) -> bool:
    """Whether it is a coroutine function, or an object that is called like one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def with_middleware(middleware: Iterable[Middleware], application: Application) -> Application:
    """Put middleware around an application, the first outermost."""
    layers = list(middleware)
    if not layers:
        return application
    handler = _as_handler(application)
    for layer in reversed(layers):
        handler = layer(handler)
    return CoroutineApplication(handler)


def _as_handler(application: Application) -> AsyncHandler:
    if isinstance(application, CoroutineApplication):
        return application.handler

    async def serve(session: Session) -> int | None:
        raw = session.raw
        session._handed_on = True  # noqa: SLF001 - its socket is the application's

        def begin() -> None:
            outer = raw.on_close
            done = False
            try:
                done = application.begin(raw)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - an application's fault fails its channel
                raw.host.failed(raw.facts.connection, error)
            if not done:
                raw.exit(1)
                raw.release()
            raw.on_close = _both(outer, raw.on_close)

        raw.host.call(begin)
        await session.wait_closed()
        return None

    return serve


def _both(outer: Callable[[], None] | None, inner: Callable[[], None] | None) -> Callable[[], None]:
    def hooks() -> None:
        try:
            if inner is not None and inner is not outer:
                inner()
        finally:
            if outer is not None:
                outer()

    return hooks


class CoroutineApplication:
    """Runs a coroutine function for each session, on the application's event loop."""

    def __init__(self, handler: AsyncHandler) -> None:
        self.handler = handler

    def begin(self, session: RawSession) -> bool:
        """Have it begin."""
        waiting: deque[ChannelRequest] = deque(maxlen=_KEPT_REQUESTS)

        def early(request: ChannelRequest) -> bool:  # before the application's loop has time
            waiting.append(request)
            return True

        session.on_request = early
        session.host.call_app(self._start, session, waiting)
        return True

    def _start(self, raw: RawSession, waiting: deque[ChannelRequest]) -> None:
        session = Session(raw)
        task = raw.host.spawn(self._serve(session), raw.facts.connection)
        told = False

        def note() -> None:
            nonlocal told
            told = False
            while waiting:
                session._note(waiting.popleft())  # noqa: SLF001 - for nobody else

        def requested(request: ChannelRequest) -> bool:
            nonlocal told
            waiting.append(request)
            if not told:  # a loop that its handlers hold is told once, or a client could fill it with calls
                told = True
                raw.host.call_app(note)
            return True

        def gone() -> None:
            session._close()  # noqa: SLF001
            if not raw.exited:
                task.cancel()

        raw.on_request = requested
        note()
        raw.on_close = lambda: raw.host.call_app(gone)
        if raw.gone:  # meanwhile, on the other loop
            gone()

    async def _serve(self, session: Session) -> None:
        status = 1
        try:
            status = _status(await self.handler(session))
        except Interrupted:
            status = _INTERRUPTED
        except (ConnectionClosed, EOFError):
            pass  # the client has left, or has no more to say
        except SystemExit as error:  # it ends its session, not the program
            session.raw.host.failed(session.facts.connection, error)
        finally:
            session.raw.exit(status)
            session._release()  # noqa: SLF001


class ThreadApplication:
    """Serves each session in a thread of the application pool, by what a subclass says; see `BlockingHandler`."""

    def serve(self, session: RawSession) -> object:
        """Serve a session, blocking; gives the exit status, None stands for 0."""
        raise NotImplementedError

    def begin(self, session: RawSession) -> bool:
        """Have a thread begin; without one the session is refused, and its user told why."""
        pool = session.host.handlers
        if not pool.submit(lambda: self._serve(session)):
            session.host.refuse(session, f"the server is busy: {pool.size} sessions run and {pool.queue} wait")
        return True

    def _serve(self, raw: RawSession) -> None:
        status = 1
        try:
            if not raw.gone:
                status = _status(self.serve(raw))
        except Interrupted:
            status = _INTERRUPTED
        except (BrokenPipeError, ConnectionResetError, ConnectionClosed, EOFError):
            pass  # the client has left, or has no more to say
        except BaseException as error:  # noqa: BLE001 - it ends its session, not the thread
            raw.host.failed(raw.facts.connection, error)
        finally:
            raw.exit(status)
            raw.release()


class BlockingApplication(ThreadApplication):
    """Runs a function for each session in a thread of the application pool."""

    def __init__(self, handler: BlockingHandler) -> None:
        self._handler = handler

    def serve(self, session: RawSession) -> object:
        """Call the function."""
        made = BlockingSession(session)
        try:
            return self._handler(made)
        finally:
            made._close()  # noqa: SLF001 - for nobody else


def _status(result: object) -> int:
    if result is None:
        return 0
    try:
        return exit_status(result)
    except ValueError as error:
        raise TypeError(f"the handler returned {result!r}, which is no exit status") from error
