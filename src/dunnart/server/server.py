"""The server: describe it with its arguments, start it, close it. What runs where is `dunnart.server.placement`'s."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self

from dunnart.errors import LocalProtocolError
from dunnart.runtime.listening import Listening
from dunnart.runtime.logs import clean
from dunnart.server.config import ServerConfig
from dunnart.server.placement import place

if TYPE_CHECKING:
    import socket
    from types import TracebackType

    from dunnart.runtime.listeners import ListenAddress
    from dunnart.server.placement import Placement
    from dunnart.server.status import ConnectionStatus, ServerStatus

_P = ParamSpec("_P")
_LOG = logging.getLogger("dunnart.server")
_FOR_EVER = 1e9
_OVERLAP = 1000  # connections that one placement may accept while the next one starts
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
        self._retired: dict[Placement, asyncio.Task[None]] = {}
        self._past: Counter[str] = Counter()
        self._listening = Listening()
        self._adopted = False
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
        try:
            listeners, self._addresses = self._listening.open(self.config.listeners)
            with _closed_on_failure(listeners):
                self._placement = placement = place(self.config, asyncio.get_running_loop(), self)
                self._started, self._started_at = time.time(), time.monotonic()
                self._closed = asyncio.Event()
                self._drain = None
                self._past.clear()
                await placement.start(listeners)  # sessions may begin before it returns
                self._warn()
            self._listening.keep(self.config.listeners)
        except BaseException:
            self._placement, self._addresses = None, ()
            if self._adopted:
                self.disown()
            self._listening.close()
            raise

    async def replace(self, config: ServerConfig) -> None:
        """Serve new connections as another description says. Those that there are go on as they are, until they end.

        What both listen on stays open, and nobody is refused meanwhile.

        Args:
            config: the description, whose sockets in `listen` are this server's to close.

        Raises:
            ConfigError: it cannot listen where it should; nothing has changed then, nor with other errors.
            LocalProtocolError: it does not run, or is being drained.
        """
        before = self._running
        if self.draining:
            raise LocalProtocolError("the server is being drained")
        held = [place for place, _ in self._listening.sockets]
        listeners, addresses = self._listening.open(config.listeners)
        try:
            with _closed_on_failure(listeners):
                placement = place(config, asyncio.get_running_loop(), self, before.next_number + _OVERLAP)
                await placement.start(listeners)
        except BaseException:
            self._listening.keep(held)
            raise
        if self._placement is not before or self.draining:  # meanwhile
            await placement.close("the server is shutting down", 0.0)
            return
        self.config, self._placement, self._addresses = config, placement, addresses
        self._retired[before] = asyncio.create_task(self._retire(before))
        await before.stop_listening()
        self._listening.keep(config.listeners)
        self._warn()

    async def _retire(self, placement: Placement) -> None:
        """Let what has been replaced go on until its last connection ends."""
        await placement.stop_listening()
        await placement.each("emptied", _FOR_EVER, seconds=_FOR_EVER)
        from dunnart.server.status import LASTING

        for part in await placement.each("status"):
            self._past.update(part.get("counters", {}))
            self._past.update({name: part["sums"][name] for name in LASTING})
        self._past.update(placement.counters)
        del self._retired[placement]
        await placement.close("", 0.0)

    async def pause(self) -> None:
        """Accept nobody until `replace` is called: connections wait in the system's queue.

        Raises:
            LocalProtocolError: it does not run.
        """
        await self._running.stop_listening()

    @property
    def listening(self) -> tuple[tuple[ListenAddress | socket.socket, Sequence[socket.socket]], ...]:
        """The listening sockets, by the places in `config.listen` that they are for."""
        return self._listening.sockets

    def adopt(self, address: ListenAddress, sockets: Sequence[socket.socket]) -> None:
        """Have sockets used that are listening already, when the server listens on that address."""
        self._adopted = True
        self._listening.adopt(address, sockets)

    def disown(self) -> None:
        """Close the listening sockets, but leave the files of unix sockets: another process listens there."""
        self._listening.forget()

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
            self._ending = asyncio.create_task(self._end((placement, *self._retired), text, seconds))
        if self._ending is not None:
            await asyncio.shield(self._ending)  # a handler that calls this is cancelled by it

    async def _end(self, placements: Sequence[Placement], text: str, seconds: float) -> None:
        try:
            for task in self._retired.values():
                task.cancel()
            self._retired.clear()
            self._listening.close()
            await asyncio.gather(*(each.close(text, seconds) for each in placements))
        finally:
            self._closed.set()

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

        uptime = time.monotonic() - self._started_at
        placements = self._placements
        return await server_status(
            placements, self.config, self._started, uptime, past=self._past, draining=self.draining
        )

    async def sessions(self, connection: int | None = None) -> tuple[ConnectionStatus, ...]:
        """What connections there are, and what is open on them.

        Args:
            connection: the number of the one that is wanted; None: all.

        Raises:
            LocalProtocolError: it does not run.
        """
        from dunnart.server.inspection import connections

        return await connections(self._placements, connection)

    async def kill(self, connection: int, text: str = "ended by the operator") -> bool:
        """End a connection, telling the client `text`, and hang up its programs; False if there is none."""
        done = True in await self._each("kill", connection, text)
        if done:
            _LOG.info("connection %d was ended by the operator: %s", connection, clean(text))
        return done

    async def rekey(self, connection: int) -> bool:
        """Begin to exchange a connection's keys anew; False if there is none, or nobody has logged in on it yet."""
        return True in await self._each("rekey", connection)

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

        await self._each("levels", set_log_level(level, part))

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
        await self._stop_listening(placement)
        for name, argument, limit in (("notify", notice, 0.0), ("drained", seconds, seconds)):
            if self._placement is placement:  # else it was closed meanwhile
                await self._each(name, argument, seconds=limit)
        await self.close()

    async def _stop_listening(self, placement: Placement) -> None:
        self._listening.close()
        await placement.stop_listening()

    def begin_end(self, *, handed_over: bool = False) -> asyncio.Task[None]:
        """Stop listening, let the connections go on until they end, however long that takes, and then close.

        Nobody is told. As `begin_drain`, it gives the task that does it.

        Args:
            handed_over: another process listens on the sockets: the files of unix sockets stay.

        Raises:
            LocalProtocolError: it does not run.
        """
        placement = self._running
        if self._drain is None:
            if handed_over:
                self.disown()
            self._drain = asyncio.get_running_loop().create_task(self._ended(placement))
        return self._drain

    async def _ended(self, placement: Placement) -> None:
        await self._stop_listening(placement)
        await self._each("emptied", _FOR_EVER, seconds=_FOR_EVER)
        await self.close()

    async def emptied(self) -> None:
        """Wait until there is no connection.

        Raises:
            LocalProtocolError: it does not run.
        """
        await self._each("emptied", _FOR_EVER, seconds=_FOR_EVER)

    async def drain(self, seconds: float, notice: str = "") -> None:
        """The same, waiting until it is done."""
        await asyncio.shield(self.begin_drain(seconds, notice))

    @property
    def _running(self) -> Placement:
        if self._placement is None:
            raise LocalProtocolError("the server does not run")
        return self._placement

    @property
    def _placements(self) -> tuple[Placement, ...]:
        return (self._running, *self._retired)

    async def _each(self, name: str, *arguments: object, seconds: float = 0.0) -> list[Any]:
        """Have every part of every placement do something."""
        found = await asyncio.gather(*(each.each(name, *arguments, seconds=seconds) for each in self._placements))
        return [result for results in found for result in results]

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
        return sum(each.connections for each in self._placements) if self._placement is not None else 0

    @property
    def counters(self) -> Counter[str]:
        """How often each thing has happened so far, by name."""
        found = Counter(self._past)
        for each in self._placements if self._placement is not None else ():
            found.update(each.counters)
        return found


@contextlib.contextmanager
def _closed_on_failure(listeners: Sequence[socket.socket]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
