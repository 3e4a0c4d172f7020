"""Threads for the application's blocking code, apart from those that serve the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from dunnart.runtime.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_IDLE_SECONDS = 30.0
_LOG = logging.getLogger("dunnart.server")


class ThreadPool:
    """Runs jobs in threads: started as they are needed, ended when they were idle for half a minute.

    The threads are daemons: one that its job holds for ever does not keep the program from ending.

    Args:
        name: of the threads.
        size: how many there may be.
        queue: how many jobs may wait while all are busy; beyond it jobs are refused.
        nice: added to the threads' nice value (Linux; elsewhere it has no effect), 0 to 19.
        stack_bytes: the size of their stacks; 0: the platform's.

    Attributes:
        busy: how many run a job now.
        refused: how many jobs were refused so far.
        closed: no more are taken.
    """

    def __init__(self, name: str, size: int, queue: int, *, nice: int = 0, stack_bytes: int = 0) -> None:
        self.size = size
        self.queue = queue
        self.busy = 0
        self.refused = 0
        self._name = name
        self._nice = nice
        self._stack_bytes = stack_bytes
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._idle = 0
        self.closed = False
        self._work = threading.Condition()

    @property
    def threads(self) -> int:
        """How many threads there are now."""
        return self._threads

    @property
    def waiting(self) -> int:
        """How many jobs wait for a thread."""
        return len(self._jobs)

    def submit(self, job: Callable[[], None]) -> bool:
        """Have `job` called in a thread; False if the queue is full. A job must not raise."""
        with self._work:
            spawn = self._idle <= len(self._jobs) and self._threads < self.size
            # Jobs that an idle or a new thread is about to take do not wait for anybody.
            room = self.queue + self._idle + (1 if spawn else 0)
            if self.closed or len(self._jobs) >= room:
                self.refused += 1
                return False
            self._jobs.append(job)
            if spawn:
                try:
                    self._start()
                except RuntimeError:  # the system gives no more threads
                    if not self._threads:
                        self._jobs.pop()
                        self.refused += 1
                        return False
            self._work.notify()
        return True

    async def run(self, function: Callable[[], _T]) -> _T:
        """Call `function` in a thread and give its result.

        Raises:
            BufferError: all threads are busy, and the queue is full.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def settle(result: _T | None, error: BaseException | None) -> None:
            if future.done():  # nobody waits any more
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type] # a result is there if no error is

        def job() -> None:
            result, failure = None, None
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - it is who waits that it concerns
                # No future takes a StopIteration, and what is no Exception would end the loop.
                passed = isinstance(error, Exception) and not isinstance(error, StopIteration)
                failure = error if passed else RuntimeError(repr(error))
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, result, failure)

        if not self.submit(job):
            raise BufferError(f"all {self.size} threads of {self._name} are busy")
        return await future

    def close(self) -> None:
        """Take no more jobs, let idle threads end. Those that wait are still done."""
        with self._work:
            self.closed = True
            self._work.notify_all()

    def _start(self) -> None:
        start_thread(self._serve, self._name, self._stack_bytes)
        self._threads += 1

    def _serve(self) -> None:
        if self._nice and sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + self._nice)
        while True:
            with self._work:
                self._idle += 1
                while not self._jobs:
                    if self.closed or not self._work.wait(_IDLE_SECONDS):
                        if self._jobs:
                            break
                        self._idle -= 1
                        self._threads -= 1
                        return
                self._idle -= 1
                job = self._jobs.popleft()
                self.busy += 1
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - a thread less would be one less for ever
                with contextlib.suppress(Exception):
                    _LOG.error("a job of %s failed: %r", self._name, error)
            finally:
                del job  # an idle thread keeps nothing alive
                with self._work:
                    self.busy -= 1
