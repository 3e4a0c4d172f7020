"""Where a server's protocol runs: on the application's event loop, in a thread, or in processes of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections import Counter
    from collections.abc import Iterable

    from dunnart.server.config import ServerConfig
    from dunnart.server.host import Host
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
    from dunnart.server.in_process import InThread, OnLoop

    return (OnLoop if config.placement == "loop" else InThread)(config, app_loop, server, first)
