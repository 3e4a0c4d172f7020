"""The server, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import sys
import threading
from typing import TYPE_CHECKING, Self

from dunnart.ecos.data import DropbearData
from dunnart.ecos.log import logging_to
from dunnart.ecos.sessions import Handle, Sessions
from dunnart.errors import ConfigError
from dunnart.runtime.threads import start_thread
from dunnart.server import Server

if TYPE_CHECKING:
    from types import TracebackType


def init(data: DropbearData) -> Daemon:
    """Start a server; returns once it listens.

    Raises:
        ConfigError: it cannot listen where it should.
    """
    if not isinstance(data, DropbearData):
        raise ConfigError("is no DropbearData", key="data")
    return Daemon(data)


class Daemon:
    """A running server; `init` makes it. Its methods may be called from any thread.

    Attributes:
        data: what it was made from.
        port: where it listens.
    """

    def __init__(self, data: DropbearData) -> None:
        self.data = data
        self._closing = threading.Lock()
        self._closed = False
        with contextlib.ExitStack() as undo:
            self._sessions = undo.enter_context(Sessions(data))
            self._server = Server(self._sessions, **data.options)
            undo.enter_context(logging_to(data.logger))
            self._start()
            self._undo = undo.pop_all()
        self.port = self._server.port

    def connections(self) -> int:
        """How many clients are connected now, those that have not logged in included."""
        return self._server.connections

    def sessions_not_done(self) -> int:
        """How many sessions are over, by the client's leaving or the socket's closing, for which `done` was not called.

        Those that it cannot be called for any more, because their handle was thrown away, are counted for ever.
        """
        return self._sessions.not_done()

    def handle_for(self, sock: socket.socket) -> Handle | None:
        """Give the handle of a session that the application has accepted on `local_port`.

        The session begins with this call. None for whoever else has connected there, or if it comes too late: then
        close the socket.
        """
        return self._sessions.claim(sock)

    def close(self) -> None:
        """End every session, and the server; returns when it has ended. Sockets that the application has stay its."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
                self._thread.join()
                self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = start_thread(lambda: asyncio.run(self._serve(started)), "dunnart-ecos", self.data.stack_size)
        failure = started.get()
        if failure is not None:
            self._thread.join()
            if isinstance(failure, ConfigError):
                raise ConfigError(str(failure).removeprefix("listen: "), key="port") from failure
            raise failure

    async def _serve(self, started: queue.SimpleQueue[BaseException | None]) -> None:
        self._loop = self._sessions.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if self.data.thread_priority and sys.platform == "linux":
            with contextlib.suppress(OSError):  # the threads that this one starts inherit it
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + self.data.thread_priority)
        try:
            await self._server.start()
        except BaseException as error:  # noqa: BLE001 - `init` raises it
            started.put(error)
            return
        started.put(None)
        await self._stop.wait()
        await self._server.close()
