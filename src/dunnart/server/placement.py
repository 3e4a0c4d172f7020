"""Where a server's protocol runs: on the application's event loop, in a thread, or in processes of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from dunnart.runtime.loop_thread import LoopThread
from dunnart.server.host import Host
from dunnart.server.protocol_server import ProtocolServer

if TYPE_CHECKING:
    import socket

    from dunnart.server.config import ServerConfig
    from dunnart.server.server import Server

HANG_UP_SECONDS = 1.0


class Placement(Protocol):
    """The protocol's side of a running server, seen from the application's event loop."""

    counters: Counter[str]

    async def start(self, listeners: Iterable[socket.socket]) -> None:
        """Accept connections."""

    async def stop_listening(self) -> None:
        """Accept no more of them."""

    @property
    def processes(self) -> dict[int, str]:
        """Further processes that serve the protocol: their numbers, and their roles as in `ProcessStatus`."""

    async def each(self, name: str, *arguments: object, seconds: float = 0.0) -> list[Any]:
        """Have every part that serves the protocol do one of `dunnart.server.operations`.

        Args:
            name: which.
            arguments: its own.
            seconds: how long it may take by its nature.

        Returns:
            What they return. Other processes that do not answer in time, 5 s more, are left out.
        """

    async def close(self, text: str, seconds: float) -> None:
        """End every connection, and all that runs."""

    @property
    def host(self) -> Host:
        """What runs the application, once it was started."""

    @property
    def connections(self) -> int:
        """How many there are now."""

    @property
    def next_number(self) -> int:
        """A number that no connection has had."""


def place(
    config: ServerConfig, app_loop: asyncio.AbstractEventLoop, server: Server | None = None, first: int = 1
) -> Placement:
    """Make the placement that the configuration asks for; `first` is the first connection's number."""
    if config.placement == "process":
        from dunnart.server.processes.placement import InProcesses

        return InProcesses(config, app_loop, server, first)
    return (OnLoop if config.placement == "loop" else InThread)(config, app_loop, server, first)


class OnLoop:
    """The protocol on the running event loop."""

    def __init__(
        self, config: ServerConfig, app_loop: asyncio.AbstractEventLoop, server: Server | None = None, first: int = 1
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.host = Host(config, asyncio.get_running_loop(), app_loop, self.counters, server)
        self.protocol = ProtocolServer(config, self.host, self.counters, numbers=(first, 1))

    async def start(self, listeners: Iterable[socket.socket]) -> None:
        """Accept connections."""
        self.protocol.start(listeners)

    async def stop_listening(self) -> None:
        """Accept no more connections."""
        self.protocol.stop_listening()

    @property
    def processes(self) -> dict[int, str]:
        """None."""
        return {}

    async def each(self, name: str, *arguments: object, seconds: float = 0.0) -> list[Any]:
        """Do it here."""
        return [await self.protocol.operate(name, *arguments)]

    async def close(self, text: str, seconds: float) -> None:
        """End every connection, and all that runs."""
        await self.protocol.close(text, seconds=seconds)
        await self.host.hung_up(HANG_UP_SECONDS)
        await self.host.close()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return self.protocol.connections

    @property
    def next_number(self) -> int:
        """A number that no connection has had."""
        return self.protocol.next_number


class InThread:
    """The protocol on an event loop in a thread."""

    def __init__(
        self, config: ServerConfig, app_loop: asyncio.AbstractEventLoop, server: Server | None = None, first: int = 1
    ) -> None:
        self._config = config
        self._app_loop = app_loop
        self._server = server
        self._first = first
        self._inner: OnLoop | None = None
        self._thread = LoopThread("dunnart-protocol")
        self.counters: Counter[str] = Counter()

    async def start(self, listeners: Iterable[socket.socket]) -> None:
        """Accept connections."""

        async def begin() -> None:
            self._inner = OnLoop(self._config, self._app_loop, self._server, self._first)
            self.counters = self._inner.counters
            await self._inner.start(listeners)

        self._thread.start()
        try:
            await self._thread.run(begin())
        except BaseException:
            await asyncio.shield(self._thread.stop())
            raise

    @property
    def host(self) -> Host:
        """What runs the application."""
        assert self._inner is not None
        return self._inner.host

    async def stop_listening(self) -> None:
        """Accept no more connections."""
        await self.each("stop_listening")

    @property
    def processes(self) -> dict[int, str]:
        """None."""
        return {}

    async def each(self, name: str, *arguments: object, seconds: float = 0.0) -> list[Any]:
        """Do it there."""
        assert self._inner is not None
        return await self._thread.run(self._inner.each(name, *arguments))

    async def close(self, text: str, seconds: float) -> None:
        """End every connection, and all that runs."""
        inner = self._inner
        assert inner is not None

        async def end() -> None:
            await inner.protocol.close(text, seconds=seconds)
            await inner.host.hung_up(HANG_UP_SECONDS)

        await self._thread.run(end())
        await inner.host.close()
        await self._thread.stop()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return 0 if self._inner is None else self._inner.connections

    @property
    def next_number(self) -> int:
        """A number that no connection has had."""
        return self._first if self._inner is None else self._inner.next_number
