"""A local program's pipes as a stream: OpenSSH's `ssh -s host sftp`, or a server's program itself."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import PIPE
from typing import TYPE_CHECKING

from dunnart.client.closing import Closing

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence
    from typing import Self

_BUFFER_BYTES = 1024 * 1024
_END_SECONDS = 5.0


class Program(Closing):
    """A running program; made by `Program.start`. Its stderr is ours.

    Use it as an asynchronous context manager, or close it.
    """

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    @classmethod
    async def start(cls, arguments: Sequence[str | bytes]) -> Self:
        """Start one.

        Args:
            arguments: the program and its arguments; no shell is involved.

        Raises:
            OSError: it cannot be started.
        """
        return cls(await asyncio.create_subprocess_exec(*arguments, stdin=PIPE, stdout=PIPE, limit=_BUFFER_BYTES))

    async def read(self, limit: int = _BUFFER_BYTES) -> bytes:
        """1 to `limit` bytes of its stdout, b"" at the end."""
        return await self._stdout.read(limit)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write to its stdin, as fast as it reads.

        Raises:
            OSError: it has gone.
        """
        self._stdin.write(data)
        await self._stdin.drain()

    async def write_eof(self) -> None:
        """Close its stdin."""
        self._stdin.close()
        with contextlib.suppress(OSError):
            await self._stdin.wait_closed()

    async def wait(self) -> int:
        """Wait for its end, and give its exit status; negative for a signal."""
        return await self._process.wait()

    async def close(self) -> None:
        """Close its stdin, and end it if that does not within five seconds."""
        await self.write_eof()
        try:
            async with asyncio.timeout(_END_SECONDS):
                # A full pipe would keep it; a RuntimeError: somebody reads already.
                with contextlib.suppress(RuntimeError):
                    while await self._stdout.read(_BUFFER_BYTES):
                        pass
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
