"""The server: describe it with its arguments, start it, close it. What runs where is `dunnart.server.placement`'s."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self

from dunnart.errors import LocalProtocolError
from dunnart.runtime.listeners import ListenAddress, bound_address, listen
from dunnart.server.config import ServerConfig
from dunnart.server.placement import place

if TYPE_CHECKING:
    from collections import Counter
    from types import TracebackType

    from dunnart.server.placement import Placement

_P = ParamSpec("_P")


def _described_by(
    description: Callable[_P, ServerConfig],
) -> Callable[[Callable[[Server, ServerConfig], None]], Callable[Concatenate[Server, _P], None]]:
    """Give a server's __init__ the arguments of its description, so that they are written down once."""

    def decorate(init: Callable[[Server, ServerConfig], None]) -> Callable[Concatenate[Server, _P], None]:
        def described(self: Server, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
            init(self, description(*args, **kwargs))

        described.__wrapped__ = description  # type: ignore[attr-defined] # what help() shows
        return described

    return decorate


class Server:
    """An SSH server.

    Args:
        handler: what serves the sessions; it and all further arguments, by name, are `ServerConfig`'s.

    Attributes:
        config: the arguments, checked.

    Raises:
        ConfigError: an argument cannot be used; names it.
    """

    config: ServerConfig

    @_described_by(ServerConfig)
    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self._placement: Placement | None = None
        self._addresses: tuple[ListenAddress, ...] = ()

    async def start(self) -> None:
        """Listen and serve; returns once connections are accepted. Coroutine handlers run on the running event loop.

        Raises:
            ConfigError: it cannot listen where it should.
        """
        if self._placement is not None:
            raise LocalProtocolError("the server was started already")
        listeners: list[socket.socket] = []
        try:
            for where in self.config.listeners:
                listeners += [where] if isinstance(where, socket.socket) else listen(where)
            addresses = tuple(map(bound_address, listeners))
            placement = place(self.config, asyncio.get_running_loop())
            await placement.start(listeners)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        self._placement = placement
        self._addresses = addresses

    async def close(self, text: str = "the server is shutting down", *, seconds: float = 5.0) -> None:
        """Stop listening, end every connection and its programs.

        Waits at most `seconds` for the clients to take what is sent to them, and a second for programs to heed SIGHUP.

        Args:
            text: what the clients are told.
            seconds: how long to wait for them.
        """
        placement, self._placement = self._placement, None
        if placement is not None:
            await placement.close(text, seconds)
            for address in self._addresses:
                address.remove()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT comes, in an event loop of its own."""
        from dunnart.runtime.process import default_signals

        default_signals()
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, ended.set)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))
        async with self:
            await ended.wait()

    # Facts.

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens, with the ports that the system chose for port 0; empty before it was started."""
        return self._addresses

    @property
    def port(self) -> int:
        """The first address's port."""
        return self._addresses[0].port

    @property
    def connections(self) -> int:
        """How many connections there are now, those that have not logged in included."""
        return self._placement.connections if self._placement is not None else 0

    @property
    def counters(self) -> Counter[str]:
        """How often each thing has happened so far, by name."""
        from collections import Counter

        return self._placement.counters if self._placement is not None else Counter()
