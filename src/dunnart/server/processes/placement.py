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
from dunnart.runtime.footprint import release_files
from dunnart.runtime.listeners import BACKLOG, bound_address, listens
from dunnart.runtime.loop_thread import LoopThread, RunningLoop
from dunnart.server.host import Host
from dunnart.server.placement import HANG_UP_SECONDS
from dunnart.server.processes.frames import Peer
from dunnart.server.processes.process import ProtocolProcess

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dunnart.server.config import ServerConfig
    from dunnart.server.processes.separation import Separation
    from dunnart.server.server import Server

_LOG = logging.getLogger("dunnart.server")
_START_SECONDS = 30.0
_RESTART_SECONDS = 1.0
_END_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_LOOKS = 4
"""How often it is looked whether somebody has come, before the processes rest."""
_SWITCH_SECONDS = 0.0005
"""How long a thread that computes may keep Python's lock while the control loop's wants it. Python's own 5 ms would be
waited for at every step of a login."""


class InProcesses:
    """The placement: as many protocol processes as the configuration says."""

    def __init__(
        self, config: ServerConfig, app_loop: asyncio.AbstractEventLoop, server: Server | None = None, first: int = 1
    ) -> None:
        try:
            pickle.dumps(config.admission)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ConfigError(f"cannot be given to another process: {error}", key="admission") from error
        self.counters: Counter[str] = Counter()
        self._config = config
        self._app_loop = app_loop
        self._server = server
        self._first = first
        # Who is separated does nothing that blocks, and has one thread as long as plug-ins need no others.
        self._thread = LoopThread("dunnart-control") if config.separation is None else RunningLoop()
        self._workers: list[ProtocolProcess] = []
        self._host: Host | None = None
        self._listeners: list[socket.socket] = []
        self._listening: list[socket.socket] = []
        self._closing = False
        self._resting: asyncio.Task[None] | None = None
        self._rested: dict[str, Counter[str]] = {"sums": Counter(), "counters": Counter(), "algorithms": Counter()}

    @property
    def host(self) -> Host:
        """What runs the application; on the control loop."""
        assert self._host is not None
        return self._host

    @property
    def connections(self) -> int:
        """How many there are now."""
        return sum(worker.connections for worker in self._workers)

    @property
    def next_number(self) -> int:
        """A number that no connection has had."""
        return max((worker.next_number for worker in self._workers), default=self._first)

    async def start(self, listeners: Iterable[socket.socket]) -> None:
        """Start the processes; returns once they accept connections."""
        self._listeners = list(listeners)
        self._listening = [each for each in self._listeners if listens(each)]
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
            self._workers.append(ProtocolProcess(self._host, index, self._listeners, self._first))
        try:
            await self._start_workers()
        except PluginError as error:
            raise ConfigError(str(error)) from error
        if self._listening and self._config.separation is not None:
            self._resting = self._thread.loop.create_task(self._rest(self._config.separation))

    async def _start_workers(self) -> None:
        async with asyncio.timeout(_START_SECONDS):
            await asyncio.gather(*(worker.start() for worker in self._workers))
        for worker in self._workers[1:]:
            self._introduce(worker)
        for worker in self._workers:
            worker.on_lost = self._restart
            if worker.lost:  # before anybody could be told
                self._restart(worker)

    # While nobody is there.

    async def _rest(self, separation: Separation) -> None:
        """End the processes each time that nobody has come for long, and start them for who comes then."""
        come, quiet = 0, 0
        while separation.idle_seconds:
            await asyncio.sleep(separation.idle_seconds / _LOOKS)
            quiet = 0 if self.connections or self.next_number != come else quiet + 1
            come = self.next_number
            if quiet < _LOOKS or separation.outdated() or not await self._at_rest():
                continue
            quiet = 0
            _LOG.info(
                "there has been no connection for %g seconds: the protocol processes rest", separation.idle_seconds
            )
            release_files()
            await self._somebody_comes()
            if separation.outdated():
                _LOG.error("the program was changed on disk: have it taken over (`dunnart upgrade`) or started anew")
            await self._wake()

    async def _at_rest(self) -> bool:
        """End the processes if nobody needs them, the acceptor first; False if somebody does."""
        if any(worker.lost for worker in self._workers):  # which is about to be started again
            return False
        for worker in self._workers:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    last = await worker.call("rest")
            except (DunnartError, TimeoutError):
                last = None
            if last is None and worker.index == 0:
                return False
            for kind, counts in self._rested.items():
                counts.update(_counted(last, kind))
        for worker in self._workers:
            worker.on_lost = lambda _: None
            await worker.end()
        return True

    async def _somebody_comes(self) -> None:
        """Wait for a connection, which nobody accepts yet."""
        self._listen_again()
        comes = asyncio.Event()
        for each in self._listening:
            self._thread.loop.add_reader(each, comes.set)
        try:
            await comes.wait()
        finally:
            for each in self._listening:
                self._thread.loop.remove_reader(each)

    async def _wake(self) -> None:
        while True:
            try:
                await self._start_workers()
            except (OSError, TimeoutError, DunnartError) as error:  # no descriptors, no memory: who has come waits
                _LOG.error("the protocol processes cannot be started: %r", error)
            else:
                return
            for worker in self._workers:
                await worker.end()
            await asyncio.sleep(_RESTART_SECONDS)

    async def _rest_no_more(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            await asyncio.wait([self._resting])
            self._resting = None

    # When one is lost.

    def _introduce(self, worker: ProtocolProcess) -> None:
        """Give a worker and the acceptor a link to each other."""
        ours, theirs = socket.socketpair()
        self._workers[0].send(Peer(worker.index, acceptor=False), (ours.detach(),))
        worker.send(Peer(0, acceptor=True), (theirs.detach(),))

    def _restart(self, worker: ProtocolProcess) -> None:
        _LOG.error("protocol process %d has ended unexpectedly; another one is started", worker.index)
        self.counters["worker_restarts"] += 1
        self._restart_later(worker)

    def _restart_later(self, worker: ProtocolProcess) -> None:
        self._thread.loop.call_later(_RESTART_SECONDS, lambda: self.host.keep(self._again(worker)))

    async def _again(self, worker: ProtocolProcess) -> None:
        await worker.end()
        if self._closing:
            return
        try:
            self._listen_again()
            async with asyncio.timeout(_START_SECONDS):
                await worker.start()
        except (OSError, TimeoutError) as error:  # no descriptors, no memory, no time: perhaps later
            _LOG.error("protocol process %d cannot be started: %r", worker.index, error)
            if not self._closing:
                self._restart_later(worker)
            return
        except DunnartError as error:  # it has ended again, and so it is started again
            _LOG.error("protocol process %d does not come up: %s", worker.index, error)
            return
        for other in self._workers[1:] if worker.index == 0 else [worker]:
            self._introduce(other)

    def _listen_again(self) -> None:
        """Listen where a process that was taken over has stopped it: the sockets are shared."""
        for each in self._listening:
            if each in self._listeners and not listens(each):
                _LOG.error("a protocol process has stopped listening on %s", bound_address(each))
                each.listen(BACKLOG)

    async def close(self, text: str, seconds: float) -> None:
        """End every connection, the processes, and all that runs."""
        await self._thread.run(self._close(text, seconds))
        await self.host.close()
        await self._thread.stop()

    async def _close(self, text: str, seconds: float) -> None:
        self._closing = True
        await self._rest_no_more()
        for worker in self._workers:
            worker.on_lost = lambda _: None
        calls = [asyncio.ensure_future(worker.call("close", text, seconds)) for worker in self._workers]
        await asyncio.wait(calls, timeout=seconds + _END_SECONDS)  # one that does not answer is ended all the same
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self.host.hung_up(HANG_UP_SECONDS)
        await self._end()

    async def _end(self) -> None:
        self._closing = True
        for worker in self._workers:
            worker.on_lost = lambda _: None
            await worker.end()
        for listener in self._listeners:
            listener.close()
        _Switching.end()

    @property
    def processes(self) -> dict[int, str]:
        """Those that serve the protocol."""
        return {worker.pid: worker.role for worker in self._workers if worker.pid}

    async def each(self, name: str, *arguments: object, seconds: float = 0.0) -> list[Any]:
        """Have every worker do something, and give what they return; those that do not answer in time are left out."""

        async def collect() -> list[Any]:
            limit = seconds + _ANSWER_SECONDS
            calls = (asyncio.wait_for(worker.call(name, *arguments), limit) for worker in self._workers)
            found = await asyncio.gather(*calls, return_exceptions=True)
            for worker, result in zip(self._workers, found, strict=True):
                if isinstance(result, TimeoutError):
                    _LOG.warning("protocol process %d (%d) does not answer: %s", worker.index, worker.pid, name)
            results = [result for result in found if not isinstance(result, BaseException)]
            return [*results, self._rested] if name == "status" else results

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


def _counted(last: object, kind: str) -> dict[str, int]:
    """What a process has counted, as far as it says so in the form that it should have."""
    counts = last.get(kind) if isinstance(last, dict) else None
    return {name: count for name, count in counts.items() if type(count) is int} if isinstance(counts, dict) else {}


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
