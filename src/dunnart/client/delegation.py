"""Blocking objects made of asynchronous ones: each call runs on the loop of the connection, in its thread."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from dunnart.errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Self

    from dunnart.runtime.loop_thread import LoopThread

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M")


class Facade(Generic[T]):
    """A blocking object.

    Args:
        thread: where the loop runs.
        target: the asynchronous object, which lives on that loop.
    """

    def __init__(self, thread: LoopThread, target: T) -> None:
        self._thread = thread
        self._target = target

    def wait_for(self, work: Coroutine[Any, Any, M]) -> M:
        """Run a coroutine on the loop, and wait for it.

        Raises:
            ConnectionClosed: the connection was closed, and the loop with it.
        """
        if not self._thread.running:
            work.close()
            raise ConnectionClosed("the connection was closed")
        return self._thread.call(work)

    def close(self) -> None:
        """Close it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, M]]) -> Callable[Concatenate[Any, P], M]:
    """Make a facade's method of a coroutine method of its target."""

    @functools.wraps(method)
    def call(facade: Facade[Any], /, *args: P.args, **kwargs: P.kwargs) -> M:
        return facade.wait_for(method(facade._target, *args, **kwargs))  # noqa: SLF001 - the facade's own

    return call
