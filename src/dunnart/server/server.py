"""The server: describe it with its arguments, start it, close it. What runs where is `dunnart.server.placement`'s."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self

from dunnart.errors import LocalProtocolError
from dunnart.runtime.listeners import ListenAddress, bound_address, listen, listens
from dunnart.runtime.logs import clean
from dunnart.server.config import ServerConfig
from dunnart.server.placement import place

if TYPE_CHECKING:
    from collections import Counter
    from types import TracebackType

    from dunnart.server.placement import Placement
    from dunnart.server.status import ConnectionStatus, ServerStatus

_P = ParamSpec("_P")
_LOG = logging.getLogger("dunnart.server")
_FOR_EVER = 1e9
_FORWARDS = re.compile(r"^direct-|^(tcpip|streamlocal)-forward")  # what asks policies


def _described_by(
    description: Callable[_P, ServerConfig],
) -> Callable[[Callable[[Server, ServerConfig], None]], Callable[Concatenate[Server, _P], None]]:
    """Give a server's __init__ the arguments of its description, so that they are written down once."""

    def decorate(init: Callable[[Server, ServerConfig], None]) -> Callable[Concatenate[Server, _P], None]:
        def described(self: Server, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
            init(self, description(*args, **kwargs))

        described.__wrapped__ = description  # type: ignore[attr-defined] # what help() shows
        return described

    return decorate


class Server:
    """An SSH server.

    Args:
        handler: what serves the sessions; it and all further arguments, by name, are `ServerConfig`'s.

    Attributes:
        config: the arguments, checked.

    Raises:
        ConfigError: an argument cannot be used; names it.
    """

    config: ServerConfig

    @_described_by(ServerConfig)
    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self._placement: Placement | None = None
        self._ending: asyncio.Task[None] | None = None
        self._addresses: tuple[ListenAddress, ...] = ()
        self._started = 0.0
        self._started_at = 0.0
        self._closed = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen and serve; returns once connections are accepted. Coroutine handlers run on the running event loop.

        Raises:
            ConfigError: it cannot listen where it should.
        """
        if self._placement is not None:
            raise LocalProtocolError("the server was started already")
        listeners: list[socket.socket] = []
        try:
            for where in self.config.listeners:
                listeners += [where] if isinstance(where, socket.socket) else listen(where)
            addresses = tuple(bound_address(each) for each in listeners if listens(each))
            self._placement = placement = place(self.config, asyncio.get_running_loop(), self)
            self._addresses = addresses
            self._started, self._started_at = time.time(), time.monotonic()
            self._closed = asyncio.Event()
            self._drain = None
            await placement.start(listeners)  # sessions may begin before it returns
            self._warn()
        except BaseException:
            self._placement, self._addresses = None, ()
            for listener in listeners:
                listener.close()
            raise

    def _warn(self) -> None:
        asking = [name for name in (*self.config.channel_types, *self.config.global_requests) if _FORWARDS.search(name)]
        if asking and not self.config.forwarding:
            _LOG.warning("there is no forwarding policy, so that nothing is allowed: %s", clean(", ".join(asking)))

    async def close(self, text: str = "the server is shutting down", *, seconds: float = 5.0) -> None:
        """Stop listening, end every connection and its programs.

        Waits at most `seconds` for the clients to take what is sent to them, and a second for programs to heed SIGHUP.

        Args:
            text: what the clients are told.
            seconds: how long to wait for them.
        """
        placement, self._placement = self._placement, None
        if placement is not None:
            self._ending = asyncio.create_task(self._end(placement, text, seconds))
        if self._ending is not None:
            await asyncio.shield(self._ending)  # a handler that calls this is cancelled by it

    async def _end(self, placement: Placement, text: str, seconds: float) -> None:
        try:
            await placement.close(text, seconds)
            self._remove_files()
        finally:
            self._closed.set()

    def _remove_files(self) -> None:
        if not self.draining:  # which has done so; another server may have made them since
            for address in self._addresses:
                address.remove()

    async def wait_closed(self) -> None:
        """Wait until it was closed, or has ended by being drained."""
        await self._closed.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def run(self, started: Callable[[Server], object] | None = None) -> None:
        """Serve until SIGTERM or SIGINT comes, in an event loop of its own.

        Args:
            started: called with the server once it listens; `port` and `addresses` say where.

        Raises:
            ConfigError: it cannot listen where it should.
            LocalProtocolError: this is not the main thread, which alone can wait for signals.
        """
        if threading.current_thread() is not threading.main_thread():
            raise LocalProtocolError("run() waits for signals, in the main thread; elsewhere await start() and close()")
        from dunnart.runtime.process import default_signals

        default_signals()
        asyncio.run(self._serve(started))

    async def _serve(self, started: Callable[[Server], object] | None) -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, ended.set)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))
        async with self:
            if started is not None:
                started(self)
            waiting = [asyncio.ensure_future(each) for each in (ended.wait(), self.wait_closed())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in waiting:
                each.cancel()

    # Operating it, from the event loop that started it. `dunnart.server.status` says what there is to see.

    async def status(self) -> ServerStatus:
        """How it is doing as a whole.

        Raises:
            LocalProtocolError: it does not run.
        """
        from dunnart.server.inspection import server_status

        return await server_status(
            self._running, self.config, self._started, time.monotonic() - self._started_at, draining=self.draining
        )

    async def sessions(self, connection: int | None = None) -> tuple[ConnectionStatus, ...]:
        """What connections there are, and what is open on them.

        Args:
            connection: the number of the one that is wanted; None: all.

        Raises:
            LocalProtocolError: it does not run.
        """
        from dunnart.server.inspection import connections

        return await connections(self._running, connection)

    async def kill(self, connection: int, text: str = "ended by the operator") -> bool:
        """End a connection, telling the client `text`, and hang up its programs; False if there is none."""
        done = True in await self._running.each("kill", connection, text)
        if done:
            _LOG.info("connection %d was ended by the operator: %s", connection, clean(text))
        return done

    async def rekey(self, connection: int) -> bool:
        """Begin to exchange a connection's keys anew; False if there is none, or nobody has logged in on it yet."""
        return True in await self._running.each("rekey", connection)

    async def set_log_level(self, level: str, part: str | None = None) -> None:
        """Set how much is logged from now on.

        Args:
            level: "error", "warning", "info" or "debug".
            part: of what: "auth", "transport" and so on, or "plugin.NAME"; None: of all parts that have no level of
                their own.

        Raises:
            ConfigError: there is no such level or part.
        """
        from dunnart.server.inspection import set_log_level

        await self._running.each("levels", set_log_level(level, part))

    @property
    def log_levels(self) -> dict[str, str]:
        """How much is logged of each part."""
        from dunnart.server.inspection import log_levels

        return log_levels()

    @property
    def draining(self) -> bool:
        """It accepts nobody any more, and ends with its last session."""
        return self._drain is not None

    def begin_drain(self, seconds: float, notice: str = "") -> asyncio.Task[None]:
        """Stop listening, let the sessions go on until they end, at most `seconds`, and then close.

        Args:
            seconds: when the rest is closed; 0: at once.
            notice: a line for every terminal; by default it says how much time is left.

        Returns:
            The task that does it, which goes on if nobody waits for it. A second call gives the same one.

        Raises:
            LocalProtocolError: it does not run.
        """
        placement = self._running
        if self._drain is None:
            _LOG.info("the server drains: it ends in %g seconds", seconds)
            notice = notice or f"The server ends in {seconds:.0f} seconds. Please finish your work."
            self._drain = asyncio.get_running_loop().create_task(self._drained(placement, seconds, notice))
        return self._drain

    async def _drained(self, placement: Placement, seconds: float, notice: str) -> None:
        await placement.stop_listening()
        for address in self._addresses:
            address.remove()
        for name, argument, limit in (("notify", notice, 0.0), ("drained", seconds, seconds)):
            if self._placement is placement:  # else it was closed meanwhile
                await placement.each(name, argument, seconds=limit)
        await self.close()

    def begin_end(self) -> asyncio.Task[None]:
        """Stop listening, let the connections go on until they end, however long that takes, and then close.

        Nobody is told. As `begin_drain`, it gives the task that does it.

        Raises:
            LocalProtocolError: it does not run.
        """
        placement = self._running
        if self._drain is None:
            self._drain = asyncio.get_running_loop().create_task(self._ended(placement))
        return self._drain

    async def _ended(self, placement: Placement) -> None:
        await placement.stop_listening()
        await placement.each("emptied", _FOR_EVER, seconds=_FOR_EVER)
        await self.close()

    async def emptied(self) -> None:
        """Wait until there is no connection.

        Raises:
            LocalProtocolError: it does not run.
        """
        await self._running.each("emptied", _FOR_EVER, seconds=_FOR_EVER)

    async def drain(self, seconds: float, notice: str = "") -> None:
        """The same, waiting until it is done."""
        await asyncio.shield(self.begin_drain(seconds, notice))

    @property
    def _running(self) -> Placement:
        if self._placement is None:
            raise LocalProtocolError("the server does not run")
        return self._placement

    # Facts.

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens, with the ports that the system chose for port 0; empty before it was started."""
        return self._addresses

    @property
    def port(self) -> int:
        """The first address's port."""
        return self._addresses[0].port

    @property
    def connections(self) -> int:
        """How many connections there are now, those that have not logged in included."""
        return self._placement.connections if self._placement is not None else 0

    @property
    def counters(self) -> Counter[str]:
        """How often each thing has happened so far, by name."""
        from collections import Counter

        return self._placement.counters if self._placement is not None else Counter()
