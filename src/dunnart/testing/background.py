"""An event loop in a thread, for callers that have no loop of their own or are not to wait on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_SECONDS = 10.0


class BackgroundLoop:
    """Runs coroutines and functions on a loop in a daemon thread; starts with its construction.

    Args:
        name: the thread's.

    Attributes:
        loop: the event loop.
    """

    def __init__(self, name: str) -> None:
        self.loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._ready.set()
        await self._end.wait()

    @property
    def here(self) -> bool:
        """This is its thread."""
        return threading.current_thread() is self._thread

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine there and wait for its result; not from there.

        Raises:
            RuntimeError: it takes longer than 10 seconds.
        """
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(_SECONDS)
        except TimeoutError as error:
            if future.done():  # it is the coroutine's own
                raise
            future.cancel()
            raise RuntimeError(f"{self._thread.name} did not answer in {_SECONDS:g} s: something blocks it") from error

    def call(self, function: Callable[[], _T]) -> _T:
        """Call a function there and wait for its result; from there, call it at once."""
        if self.here:
            return function()

        async def called() -> _T:
            return function()

        return self.run(called())

    def stop(self) -> None:
        """Cancel what runs there, end the loop and the thread.

        Raises:
            RuntimeError: something there does not end.
        """
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(f"{self._thread.name} did not end in {_SECONDS:g} s: something blocks it")
