"""Protocol processes that end while nobody is there, and are started for who comes.

    at work ── nobody for long, and nothing to remember ──► at rest: this process waits on the listening sockets
       ▲                                                       │
       └───────────────── somebody comes ◄─────────────────────┘

All of it runs on the control loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from typing import TYPE_CHECKING

from dunnart.errors import DunnartError
from dunnart.runtime.footprint import release_files

if TYPE_CHECKING:
    from dunnart.server.processes.placement import InProcesses
    from dunnart.server.processes.process import ProtocolProcess
    from dunnart.server.processes.separation import Separation

_LOG = logging.getLogger("dunnart.server")
_LOOKS = 4
"""How often it is looked whether somebody has come, before the processes rest."""
_ANSWER_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_MOST_NAMES = 100
"""How many counters are kept of processes that may have been strangers' in the end."""


class Resting:
    """Ends a server's protocol processes each time that nobody has come for long.

    Args:
        placement: whose they are; they were started.
        separation: for how long nobody must have come, and whether new processes would go with this one.

    Attributes:
        counted: what those that have ended had counted, in the form of what "status" gives.
    """

    def __init__(self, placement: InProcesses, separation: Separation) -> None:
        self._placement = placement
        self._separation = separation
        self.counted: dict[str, Counter[str]] = {"sums": Counter(), "counters": Counter(), "algorithms": Counter()}
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """No more of that: who is there stays, who rests goes on resting."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        come, quiet = 0, 0
        while self._separation.idle_seconds:
            await asyncio.sleep(self._separation.idle_seconds / _LOOKS)
            quiet = 0 if self._placement.connections or self._placement.next_number != come else quiet + 1
            come = self._placement.next_number
            if quiet < _LOOKS or self._separation.outdated() or not await self._ended():
                continue
            quiet = 0
            _LOG.info(
                "there has been no connection for %g seconds: the protocol processes rest",
                self._separation.idle_seconds,
            )
            release_files()
            await self._somebody_comes()
            if self._separation.outdated():
                _LOG.error("the program was changed on disk: run `dunnart status upgrade`, or start it anew")
            await self._wake()

    async def _ended(self) -> bool:
        """End the processes if nobody needs them, the acceptor first; False if somebody does."""
        workers = self._placement.workers
        if any(worker.lost for worker in workers):  # which is about to be started again
            return False
        last = await _last_words(workers[0])  # however late it comes: nobody is accepted from then on
        if last is None:
            return False
        self._placement.let_go()
        said = [last]
        for worker in workers[1:]:
            last = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_SECONDS):
                    last = await _last_words(worker)
            said.append(last)
        for worker, last in zip(workers, said, strict=True):
            try:
                await worker.end()
            finally:  # not before: "status" asks those that are there
                for kind, counts in self.counted.items():
                    _add(counts, _counted(last, kind))
        return True

    async def _somebody_comes(self) -> None:
        """Wait for a connection, which nobody accepts yet."""
        with contextlib.suppress(OSError):  # it is tried again at once, and told
            self._placement.listen_again()
        loop, listening = asyncio.get_running_loop(), self._placement.listening
        comes = asyncio.Event()
        for each in listening:
            loop.add_reader(each, comes.set)
        try:
            await comes.wait()
        finally:
            for each in listening:
                loop.remove_reader(each)

    async def _wake(self) -> None:
        while True:
            try:
                self._placement.listen_again()  # a copy of a socket may be elsewhere
                await self._placement.start_workers()
            except (OSError, TimeoutError, DunnartError, MemoryError) as error:  # who has come waits
                _LOG.error("the protocol processes cannot be started: %r", error)
            else:
                return
            for worker in self._placement.workers:
                await worker.end()
            await asyncio.sleep(_RETRY_SECONDS)


async def _last_words(worker: ProtocolProcess) -> object:
    """What a process has counted, if nobody needs it and it accepts nobody any more; else None."""
    try:
        return await worker.call("rest")
    except DunnartError:
        return None


def _counted(last: object, kind: str) -> dict[str, int]:
    """What of a process's status has to last."""
    from dunnart.server.inspection import fits
    from dunnart.server.status import LASTING

    if kind == "algorithms" or not fits(last):
        return {}
    counts: dict[str, int] = last[kind]
    return {name: counts[name] for name in LASTING} if kind == "sums" else counts


def _add(counts: Counter[str], more: dict[str, int]) -> None:
    for name, count in more.items():
        if name in counts or len(counts) < _MOST_NAMES:
            counts[name] += count
