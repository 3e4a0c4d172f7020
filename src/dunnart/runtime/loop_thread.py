"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from dunnart.runtime.event_loop import new_event_loop

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")


class LoopThread:
    """Runs coroutines on a loop in a daemon thread.

    Args:
        name: the thread's.
    """

    def __init__(self, name: str) -> None:
        self.loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run."""
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self._cancel_all()
        finally:
            self.loop.close()

    def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    @property
    def running(self) -> bool:
        """Whether coroutines can run there."""
        return self._thread.is_alive()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine there, and give its result here."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine there, and wait for its result here, where no loop runs. Control-C here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # does nothing once it is done
            raise

    async def stop(self) -> None:
        """End the loop and the thread. What still runs there is cancelled."""
        await asyncio.to_thread(self.end)

    def end(self) -> None:
        """As `stop`, for where no loop runs."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


class RunningLoop:
    """The event loop that runs already, in the place of one in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def start(self) -> None:
        """It runs already."""

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine, and give its result."""
        return await work

    async def stop(self) -> None:
        """It goes on: it is somebody else's."""
