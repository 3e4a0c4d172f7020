"""The protocol in the application's own process: on its event loop, or in a thread."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from dunnart.runtime.loop_thread import LoopThread
from dunnart.server.host import Host
from dunnart.server.placement import HANG_UP_SECONDS
from dunnart.server.protocol_server import ProtocolServer

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from dunnart.server.config import ServerConfig
    from dunnart.server.server import Server


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
