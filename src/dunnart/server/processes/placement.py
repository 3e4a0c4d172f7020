"""The placement "process": a server's protocol processes, kept running.

The control loop has a thread of its own, so that handlers that block the application's loop delay no login.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from dunnart.errors import ConfigError, DunnartError, PluginError
from dunnart.runtime.listeners import BACKLOG, bound_address, listens
from dunnart.runtime.loop_thread import LoopThread, RunningLoop
from dunnart.server.host import Host
from dunnart.server.placement import HANG_UP_SECONDS
from dunnart.server.processes.frames import Peer
from dunnart.server.processes.process import ProtocolProcess
from dunnart.server.processes.resting import Resting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dunnart.server.config import ServerConfig
    from dunnart.server.server import Server

_LOG = logging.getLogger("dunnart.server")
_START_SECONDS = 30.0
_RESTART_SECONDS = 1.0
_END_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_SWITCH_SECONDS = 0.0005
"""How long a thread that computes may keep Python's lock while the control loop's wants it. Python's own 5 ms would be
waited for at every step of a login."""


class InProcesses:
    """The placement: as many protocol processes as the configuration says.

    Attributes:
        workers: they, the acceptor first.
        listening: the sockets that the acceptor accepts connections from.
    """

    def __init__(
        self, config: ServerConfig, app_loop: asyncio.AbstractEventLoop, server: Server | None = None, first: int = 1
    ) -> None:
        try:
            pickle.dumps(config.admission)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ConfigError(f"cannot be given to another process: {error}", key="admission") from error
        self.counters: Counter[str] = Counter()
        self.workers: list[ProtocolProcess] = []
        self.listening: list[socket.socket] = []
        self._config = config
        self._app_loop = app_loop
        self._server = server
        self._first = first
        # Who is separated does nothing that blocks, and has one thread as long as plug-ins need no others.
        self._thread = LoopThread("dunnart-control") if config.separation is None else RunningLoop()
        self._host: Host | None = None
        self._listeners: list[socket.socket] = []
        self._closing = False
        self._resting: Resting | None = None
        self._rests = 0

    @property
    def host(self) -> Host:
        """What runs the application; on the control loop."""
        assert self._host is not None
        return self._host

    @property
    def connections(self) -> int:
        """How many there are now."""
        return sum(worker.connections for worker in self.workers)

    @property
    def next_number(self) -> int:
        """A number that no connection has had."""
        return max((worker.next_number for worker in self.workers), default=self._first)

    async def start(self, listeners: Iterable[socket.socket]) -> None:
        """Start the processes; returns once they accept connections."""
        self._listeners = list(listeners)
        self.listening = [each for each in self._listeners if listens(each)]
        _Switching.begin()  # `_end` ends it
        self._thread.start()
        try:
            await self._thread.run(self._start())
        except BaseException:
            await self._thread.run(self._end())
            await self._thread.stop()
            raise

    async def _start(self) -> None:
        self._host = Host(self._config, self._thread.loop, self._app_loop, self.counters, self._server)
        for index in range(self._config.workers):
            self.workers.append(ProtocolProcess(self._host, index, self._listeners, self._first))
        try:
            await self.start_workers()
        except PluginError as error:
            raise ConfigError(str(error)) from error
        if self.listening and self._config.separation is not None:
            self._resting = Resting(self, self._config.separation)

    async def start_workers(self) -> None:
        """Start the processes and have them know each other. On the control loop."""
        async with asyncio.timeout(_START_SECONDS):
            await asyncio.gather(*(worker.start() for worker in self.workers))
        for worker in self.workers[1:]:
            self._introduce(worker)
        for worker in self.workers:
            worker.on_lost = self._restart
            if worker.lost:  # before anybody could be told
                self._restart(worker)

    def let_go(self) -> None:
        """The processes may end: none is started again before all are."""
        self._rests += 1
        for worker in self.workers:
            worker.on_lost = lambda _: None

    def _introduce(self, worker: ProtocolProcess) -> None:
        """Give a worker and the acceptor a link to each other."""
        ours, theirs = socket.socketpair()
        self.workers[0].send(Peer(worker.index, acceptor=False), (ours.detach(),))
        worker.send(Peer(0, acceptor=True), (theirs.detach(),))

    def _restart(self, worker: ProtocolProcess) -> None:
        _LOG.error("protocol process %d has ended unexpectedly; another one is started", worker.index)
        self.counters["worker_restarts"] += 1
        self._restart_later(worker)

    def _restart_later(self, worker: ProtocolProcess) -> None:
        rests = self._rests
        self._thread.loop.call_later(_RESTART_SECONDS, lambda: self.host.keep(self._again(worker, rests)))

    async def _again(self, worker: ProtocolProcess, rests: int) -> None:
        if rests != self._rests:  # it was started with all others meanwhile, or will be
            return
        await worker.end()
        if self._closing or rests != self._rests:
            return
        try:
            self.listen_again()
            async with asyncio.timeout(_START_SECONDS):
                await worker.start()
        except (OSError, TimeoutError) as error:  # no descriptors, no memory, no time: perhaps later
            _LOG.error("protocol process %d cannot be started: %r", worker.index, error)
            if rests == self._rests and not self._closing:
                self._restart_later(worker)
            return
        except DunnartError as error:  # it has ended again, and so it is started again
            _LOG.error("protocol process %d does not come up: %s", worker.index, error)
            return
        for other in self.workers[1:] if worker.index == 0 else [worker]:
            self._introduce(other)

    def listen_again(self) -> None:
        """Listen where a process that was taken over has stopped it: the sockets are shared."""
        for each in self.listening:
            if each in self._listeners and not listens(each):
                _LOG.error("a protocol process has stopped listening on %s", bound_address(each))
                each.listen(BACKLOG)

    async def close(self, text: str, seconds: float) -> None:
        """End every connection, the processes, and all that runs."""
        await self._thread.run(self._close(text, seconds))
        await self.host.close()
        await self._thread.stop()

    async def _rest_no_more(self) -> None:
        if self._resting is not None:
            await self._resting.close()

    async def _close(self, text: str, seconds: float) -> None:
        self._closing = True
        await self._rest_no_more()
        for worker in self.workers:
            worker.on_lost = lambda _: None
        calls = [asyncio.ensure_future(worker.call("close", text, seconds)) for worker in self.workers]
        await asyncio.wait(calls, timeout=seconds + _END_SECONDS)  # one that does not answer is ended all the same
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self.host.hung_up(HANG_UP_SECONDS)
        await self._end()

    async def _end(self) -> None:
        self._closing = True
        for worker in self.workers:
            worker.on_lost = lambda _: None
            await worker.end()
        for listener in self._listeners:
            listener.close()
        _Switching.end()

    @property
    def processes(self) -> dict[int, str]:
        """Those that serve the protocol."""
        return {worker.pid: worker.role for worker in self.workers if worker.pid}

    async def each(self, name: str, *arguments: object, seconds: float = 0.0) -> list[Any]:
        """Have every worker do something, and give what they return; those that do not answer in time are left out."""

        async def collect() -> list[Any]:
            limit = seconds + _ANSWER_SECONDS
            calls = (asyncio.wait_for(worker.call(name, *arguments), limit) for worker in self.workers)
            found = await asyncio.gather(*calls, return_exceptions=True)
            for worker, result in zip(self.workers, found, strict=True):
                if isinstance(result, TimeoutError):
                    _LOG.warning("protocol process %d (%d) does not answer: %s", worker.index, worker.pid, name)
            results = [result for result in found if not isinstance(result, BaseException)]
            if name == "status":
                from dunnart.server.inspection import fits

                results = [result for result in results if fits(result)]
            rested = [self._resting.counted] if self._resting is not None and name == "status" else []
            return [*results, *rested]

        return await self._thread.run(collect())

    async def stop_listening(self) -> None:
        """Accept no more connections."""
        await self._thread.run(self._rest_no_more())
        await self.each("stop_listening")

        async def forget() -> None:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()

        await self._thread.run(forget())


class _Switching:
    """Python's switch interval, which is the whole program's: short while any server has protocol processes."""

    _lock = threading.Lock()
    _users = 0
    _before = 0.0

    @classmethod
    def begin(cls) -> None:
        with cls._lock:
            if not cls._users:
                cls._before = sys.getswitchinterval()
                sys.setswitchinterval(min(cls._before, _SWITCH_SECONDS))
            cls._users += 1

    @classmethod
    def end(cls) -> None:
        with cls._lock:
            cls._users -= 1
            if not cls._users:
                sys.setswitchinterval(cls._before)
