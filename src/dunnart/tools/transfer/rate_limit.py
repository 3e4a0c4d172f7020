"""A connection on which only so much flows each second: -l of `dunnart sftp` and `dunnart scp`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dunnart.client.scp import CommandStream
    from dunnart.client.sftp import ByteStream
    from dunnart.tools.transfer.connections import HostConnection

_PIECE_BYTES = 16 * 1024


class RateLimited:
    """A connection with a limit that all its streams share, both ways together.

    Args:
        connection: what leads to the host.
        kilobits: how much may flow each second, in kbit of 1000.
    """

    def __init__(self, connection: HostConnection, kilobits: int) -> None:
        self._connection = connection
        self._bytes_a_second = kilobits * 1000 / 8
        self._free_at = 0.0

    async def sftp(self) -> ByteStream:
        """Begin SFTP at the host."""
        return _LimitedStream(await self._connection.sftp(), self._wait)

    async def session(self, command: bytes, *, stderr: str = "drop") -> CommandStream:
        """Run a command at the host."""
        return _LimitedStream(await self._connection.session(command, stderr=stderr), self._wait)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._connection.close()

    async def _wait(self, count: int) -> None:
        """Wait as long as so many bytes must take, behind those that go before them."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + count / self._bytes_a_second
        await asyncio.sleep(self._free_at - now)


class _LimitedStream:
    def __init__(self, stream: Any, wait: Callable[[int], Awaitable[None]]) -> None:  # noqa: ANN401 - any of the streams
        self._stream = stream
        self._wait = wait

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - likewise
        return getattr(self._stream, name)

    async def read(self, limit: int) -> bytes:
        data: bytes = await self._stream.read(min(limit, _PIECE_BYTES))
        await self._wait(len(data))
        return data

    async def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        for at in range(0, len(view), _PIECE_BYTES):
            piece = view[at : at + _PIECE_BYTES]
            await self._wait(len(piece))
            await self._stream.write(piece)

    async def close(self) -> None:
        await self._stream.close()
