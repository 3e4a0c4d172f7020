"""An event loop that calls at once who reads a descriptor, where nothing else is ready.

asyncio lists what is ready, puts a handle for each into a queue, and calls those. Where small packets go to and fro,
there is one at a time, and this is most of what a loop costs. So the selector calls such a reader itself, and goes on
to wait as long as that gives the loop nothing to do. What is ready together with something else, timers and all the
rest have asyncio's way, in its order.
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import sys
from select import EPOLLIN
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

__all__ = ["new_event_loop"]

_Ts = TypeVarTuple("_Ts")

if sys.platform == "linux":

    class _Selector(selectors.EpollSelector):
        """Calls readers itself where it can, and says that nothing is ready.

        Args:
            loop: the loop that it is for.
        """

        def __init__(self, loop: _EventLoop) -> None:
            super().__init__()
            self._epoll = select.epoll.fromfd(os.dup(self.fileno()))  # the class keeps its own to itself
            self._loop = loop
            self._direct = loop.direct

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            loop = self._loop
            timer = loop.next_timer()
            end = None if timeout is None else monotonic() + timeout
            while ready := self._epoll.poll(timeout, 2):
                reader = self._direct.get(ready[0][0])
                if reader is None or len(ready) > 1 or ready[0][1] != EPOLLIN:
                    return super().select(0)
                try:
                    reader()
                except Exception as error:  # noqa: BLE001 - as where asyncio calls it
                    loop.call_exception_handler({"message": f"Exception in {reader!r}", "exception": error})
                if loop.has_work() or loop.next_timer() is not timer:
                    break
                if end is not None and (timeout := end - monotonic()) <= 0:
                    break
            return []

        def close(self) -> None:
            self._epoll.close()
            super().close()

    class _EventLoop(asyncio.SelectorEventLoop):
        """asyncio's, with that selector; of what asyncio keeps to itself three fields are looked at."""

        _ready: deque[asyncio.Handle]
        _scheduled: list[asyncio.TimerHandle]
        _stopping: bool

        def __init__(self) -> None:
            self.direct: dict[Any, Callable[[], object]] = {}  # who is called at once, by descriptors
            super().__init__(_Selector(self))

        def has_work(self) -> bool:
            """Whether callbacks wait, or it is to stop."""
            return bool(self._ready) or self._stopping

        def next_timer(self) -> asyncio.TimerHandle | None:
            """The first one, which may be cancelled."""
            return self._scheduled[0] if self._scheduled else None

        def add_reader(self, fd: Any, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:  # noqa: ANN401 - what has one
            super().add_reader(fd, callback, *args)
            if args:
                self.direct.pop(fd, None)
            else:
                self.direct[fd] = cast("Callable[[], object]", callback)

        def remove_reader(self, fd: Any) -> bool:  # noqa: ANN401
            self.direct.pop(fd, None)
            return super().remove_reader(fd)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make one; elsewhere than on Linux it is asyncio's."""
    return _EventLoop() if sys.platform == "linux" else asyncio.new_event_loop()
