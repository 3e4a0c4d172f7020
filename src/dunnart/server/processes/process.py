"""The life of one protocol process: it is started, given its order, and seen to its end. On the control loop."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
from typing import TYPE_CHECKING, Any

from dunnart.errors import ConnectionClosed
from dunnart.runtime.logs import PARTS, clean
from dunnart.runtime.process import wait_or_kill
from dunnart.server.processes.conversation import Conversation
from dunnart.server.processes.order import Order
from dunnart.server.processes.separation import protocol_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.runtime.process import Child
    from dunnart.server.host import Host
    from dunnart.server.processes.frames import Frame

_LOG = logging.getLogger("dunnart.server")
_END_SECONDS = 5.0
_COOKIES_BYTES = 32
_WORKER = "dunnart.server.processes.worker:main"


class ProtocolProcess:
    """One protocol process, and the one that takes its place when it is lost.

    Args:
        host: what answers its questions.
        index: its number among the server's; 0 is the acceptor.
        listeners: what the acceptor listens on.
        first: the first connection's number, of all processes together.

    Attributes:
        on_lost: called once it has ended unexpectedly.
    """

    def __init__(self, host: Host, index: int, listeners: list[socket.socket], first: int = 1) -> None:
        self._host = host
        self._listeners = listeners
        self._process: Child | None = None
        self._ended = asyncio.Event()
        self._conversation: Conversation | None = None
        self._first = first + index
        self._cookies = b""
        self._ready = False
        self.index = index
        self.on_lost: Callable[[ProtocolProcess], None] = lambda _: None

    @property
    def role(self) -> str:
        """What it is, as `ProcessStatus` has it."""
        return f"protocol {self.index}"

    @property
    def pid(self) -> int:
        """Its number in the system; 0 while there is none."""
        return 0 if self._process is None else self._process.pid

    @property
    def lost(self) -> bool:
        """It is not there any more."""
        return self._conversation is None or self._conversation.over

    @property
    def next_number(self) -> int:
        """Its next connection's number."""
        return self._first if self._conversation is None else self._conversation.next_number

    @property
    def connections(self) -> int:
        """How many it serves."""
        return 0 if self._conversation is None else self._conversation.connections

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            ConnectionClosed: it ended instead.
            OSError: it cannot be started.
            PluginError: it cannot be confined.
        """
        separation = self._host.config.separation
        self._ready = False
        self._process, ours = protocol_process(_WORKER) if separation is None else separation.start()
        try:
            self._ended = ended = asyncio.Event()
            self._process.watch(self._host.loop, lambda _: ended.set())
            self._order(ours)
        except BaseException:
            ours.close()
            raise
        confined = await self._talk(ours).ready
        self._ready = True
        if confined:
            _LOG.info("protocol process %d (%d) is confined: %s", self.index, self.pid, clean(", ".join(confined)))

    def _order(self, sock: socket.socket) -> None:
        config = self._host.config
        levels = {f"dunnart.{part}": logging.getLogger(f"dunnart.{part}").getEffectiveLevel() for part in PARTS}
        self._cookies = os.urandom(_COOKIES_BYTES)
        data = pickle.dumps(Order.of(config, self.index, levels, self._first, self._cookies))
        listeners = [listener.fileno() for listener in self._listeners] if self.index == 0 else []
        socket.send_fds(sock, [len(data).to_bytes(4, "big")], listeners)
        sock.sendall(data)

    def _talk(self, sock: socket.socket) -> Conversation:
        self._conversation = Conversation(self._host, self.index, sock, self._first, self._cookies, self._lost)
        return self._conversation

    def _lost(self) -> None:
        assert self._conversation is not None
        self._first = self._conversation.next_number
        self.on_lost(self)

    def send(self, frame: Frame, descriptors: tuple[int, ...] = ()) -> None:
        """Send it a frame."""
        assert self._conversation is not None
        self._conversation.send(frame, descriptors)

    async def call(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - the method says what
        """Have it do something: "close", or one of `dunnart.server.operations`.

        Raises:
            ConnectionClosed: the process is gone.
            PluginError: it failed there.
        """
        if self._conversation is None:
            raise ConnectionClosed("the protocol process was not started")
        return await self._conversation.call(name, *arguments)

    async def end(self) -> None:
        """See it to its end: it goes when its link does. Nobody is told that it is lost."""
        on_lost, self.on_lost = self.on_lost, lambda _: None
        if self._conversation is not None:
            self._conversation.end()
        self.on_lost = on_lost
        if self._process is not None:
            if not self._ready:  # it would let somebody in once it is, only to hang up
                self._process.signal(signal.SIGKILL)
            await wait_or_kill(self._process, self._ended, _END_SECONDS)
        self._process = None
