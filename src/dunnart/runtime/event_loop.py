"""An event loop that calls at once who reads a descriptor, where nothing else is ready.

asyncio lists what is ready, puts a handle for each into a queue, and calls those. Where small packets go to and fro,
there is one at a time, and this is most of what a loop costs. What is ready together with something else, timers and
all the rest have asyncio's way, in its order.
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import sys
from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["new_event_loop"]

_Ts = TypeVarTuple("_Ts")

if sys.platform == "linux":

    class _Selector(selectors.EpollSelector):
        """Calls a reader itself where it can, and says that nothing is ready.

        Args:
            readers: by their descriptors.
            failed: takes what asyncio's exception handlers take, if one raises.
        """

        def __init__(
            self, readers: dict[Any, Callable[[], object]], failed: Callable[[dict[str, Any]], object]
        ) -> None:
            super().__init__()
            self._epoll = select.epoll.fromfd(os.dup(self.fileno()))  # the class keeps its own to itself
            self._direct = readers
            self._failed = failed

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            ready = self._epoll.poll(timeout, 2)
            if not ready:
                return []
            if len(ready) == 1 and ready[0][1] == select.EPOLLIN:
                reader = self._direct.get(ready[0][0])
                if reader is not None:
                    try:
                        reader()
                    except Exception as error:  # noqa: BLE001 - as where asyncio calls it
                        self._failed({"message": f"Exception in {reader!r}", "exception": error})
                    return []
            return super().select(0)

        def close(self) -> None:
            self._epoll.close()
            super().close()

    class _EventLoop(asyncio.SelectorEventLoop):
        """asyncio's, with that selector."""

        def __init__(self) -> None:
            self._direct: dict[Any, Callable[[], object]] = {}
            super().__init__(_Selector(self._direct, self.call_exception_handler))

        def add_reader(self, fd: Any, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:  # noqa: ANN401 - what has one
            super().add_reader(fd, callback, *args)
            if args:
                self._direct.pop(fd, None)
            else:
                self._direct[fd] = cast("Callable[[], object]", callback)

        def remove_reader(self, fd: Any) -> bool:  # noqa: ANN401
            self._direct.pop(fd, None)
            return super().remove_reader(fd)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make one; elsewhere than on Linux it is asyncio's."""
    return _EventLoop() if sys.platform == "linux" else asyncio.new_event_loop()
