"""A program with one loop in the background and one person in front of it.

The connection lives on a loop in a thread, so that it also lives while the main thread waits for a line to be typed.
What is asked of the person, such as a password, is asked in the main thread: there control-C ends it, and the
terminal is put right again.
"""

from __future__ import annotations

import asyncio
import queue
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dunnart.runtime.loop_thread import LoopThread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")


class Foreground:
    """Runs coroutines in the background for the main thread, and questions in the main thread for them."""

    def __init__(self) -> None:
        self._thread = LoopThread("dunnart-client")
        self._questions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.end()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in the background."""
        return self._thread.loop

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the background, and wait for its result; control-C cancels it, and waits for its end."""
        questions = self._questions = queue.SimpleQueue()
        tasks: list[asyncio.Task[_T]] = []
        loop = self._thread.loop

        def start() -> None:
            task = loop.create_task(work)
            task.add_done_callback(lambda _: questions.put(None))
            tasks.append(task)

        def cancel() -> None:
            if tasks:
                tasks[0].cancel()
            else:  # control-C came before it began
                work.close()
                questions.put(None)

        try:
            loop.call_soon_threadsafe(start)
            while (question := questions.get()) is not None:
                question()
        except BaseException:
            loop.call_soon_threadsafe(cancel)
            while questions.get() is not None:
                pass
            raise
        return tasks[0].result()

    async def ask(self, question: Callable[[], _T]) -> _T:
        """For coroutines in the background: run a function in the main thread, which waits for them."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()

        def run() -> None:
            loop.call_soon_threadsafe(_answer, answer, question())

        self._questions.put(run)
        return await answer


def _answer(future: asyncio.Future[_T], value: _T) -> None:
    if not future.done():
        future.set_result(value)
