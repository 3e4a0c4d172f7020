"""Child processes that run a function of Python and start in two milliseconds: forked where it is loaded already.

A fresh interpreter takes 70 ms of CPU and some 8 MB of its own until it can serve files; a fork of one that waits for
orders takes about 2 ms, and shares what it does not change. The server itself cannot be forked: it has threads, keys
and other people's sessions. So the first order starts a fork server (`dunnart.runtime.forked` runs in it), which ends
when it has been idle for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING

from dunnart.runtime.executed import executed
from dunnart.runtime.forked import LENGTH_BYTES, MOST_DESCRIPTORS, ORDER_BYTES
from dunnart.runtime.process import unspared, wait_or_kill

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.runtime.process import Call, Spawned

_TARGET = "dunnart.runtime.forked:main"
_ANSWER_BYTES = 4
_MOST_WAITING = 16
_UNKNOWN_END = 255
_END_SECONDS = 2.0


class ForkServer:
    """Starts the fork server's process when it is needed, and gives it orders. Lives on one event loop.

    Args:
        loop: that loop.
        idle_seconds: how long the process waits for orders when it has no children.
        control: leads to a process that runs `dunnart.runtime.forked` already; once it has ended, orders fail.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, idle_seconds: int = 60, control: socket.socket | None = None
    ) -> None:
        self._loop = loop
        self._idle_seconds = idle_seconds
        self._control = control
        self._given = control is not None
        if control is not None:
            control.setblocking(False)  # noqa: FBT003 - the name says it
        self._waiting: deque[tuple[memoryview, list[int]]] = deque()  # orders; the first may be sent in part
        self._process: Spawned | None = None
        self._ended = asyncio.Event()
        self._orders = 0

    def start(self, call: Call, streams: tuple[int, int, int]) -> Forked:
        """Fork a child that makes the call; it gets the streams as 0, 1 and 2, and what the call passes from 3 on.

        Raises:
            OSError: it cannot be ordered.
        """
        if len(call.passed) > MOST_DESCRIPTORS - len(streams) - 1:
            raise OSError(errno.EMFILE, "too many descriptors to pass")
        self._orders += 1
        user = None if call.user is None else [*call.user[:2], _groups(call.user[2])]
        order = {
            "number": self._orders, "target": call.target, "arguments": list(call.arguments), "user": user,
            "environment": dict(call.environment), "directory": call.directory,
            "preload": list(call.preload),
        }  # fmt: skip
        reader, writer = os.pipe()
        try:
            self._send(order, (writer, *streams, *call.passed))
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        return Forked(self, self._orders, reader)

    def signal(self, number: int, which: int) -> None:
        """Send a signal to the child of an order."""
        if self._control is not None:
            with contextlib.suppress(OSError):  # it has ended, and so knows of no child
                self._deliver({"number": number, "signal": which}, ())

    async def close(self) -> None:
        """No more orders come: the fork server ends; its children go on."""
        self.hang_up()
        if self._process is not None:
            await wait_or_kill(self._process, self._ended, _END_SECONDS)

    def hang_up(self) -> None:
        """Give no more orders to the process that there is; one that was given is not replaced."""
        if self._control is not None:
            self._loop.remove_writer(self._control)
            while self._waiting:
                _close(self._waiting.popleft()[1])
            self._control.close()
            self._control = None

    def _send(self, order: dict[str, object], descriptors: tuple[int, ...]) -> None:
        if self._control is not None:
            with contextlib.suppress(ConnectionError):  # it was idle and has ended
                self._deliver(order, descriptors)
                return
        self._begin()
        self._deliver(order, descriptors)

    def _begin(self) -> None:
        self.hang_up()
        if self._given:
            raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
        with unspared():
            self._process, control = executed("dunnart-forks", _TARGET, self._idle_seconds, alone=True)
        self._ended = ended = asyncio.Event()
        self._process.watch(self._loop, lambda _: ended.set())
        control.setblocking(False)  # noqa: FBT003 - the name says it
        self._control = control

    def _deliver(self, order: dict[str, object], descriptors: tuple[int, ...]) -> None:
        assert self._control is not None
        text = json.dumps(order).encode()
        if len(text) > ORDER_BYTES:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        message = len(text).to_bytes(LENGTH_BYTES, "big") + text
        sent = 0
        if not self._waiting:
            with contextlib.suppress(BlockingIOError):
                sent = socket.send_fds(self._control, [message], list(descriptors))
        if sent < len(message):
            # Somebody's long order must not be in the way of what others order meanwhile.
            self._keep(memoryview(message)[sent:], () if sent else descriptors)

    def _keep(self, rest: memoryview, descriptors: tuple[int, ...]) -> None:
        assert self._control is not None
        if len(self._waiting) >= _MOST_WAITING:
            raise BlockingIOError(errno.EAGAIN, "the fork server does not keep up")
        own: list[int] = []
        try:
            own.extend(map(os.dup, descriptors))
        except OSError:
            _close(own)
            raise
        self._waiting.append((rest, own))
        if len(self._waiting) == 1:
            self._loop.add_writer(self._control, self._writable)

    def _writable(self) -> None:
        assert self._control is not None
        try:
            while self._waiting:
                rest, descriptors = self._waiting[0]
                sent = socket.send_fds(self._control, [rest], descriptors)
                self._waiting[0] = rest[sent:], []
                _close(descriptors)
                if sent == len(rest):
                    self._waiting.popleft()
        except BlockingIOError:
            return
        except OSError:  # it has ended, and what was ordered with it, as each order's own pipe tells
            self.hang_up()
            return
        self._loop.remove_writer(self._control)


def _close(descriptors: list[int]) -> None:
    for each in descriptors:
        os.close(each)


def _groups(groups: tuple[int, ...] | str | None) -> list[int] | str | None:
    return list(groups) if isinstance(groups, tuple) else groups


class Forked:
    """A child of the fork server.

    Attributes:
        pid: its process number; 0 as long as it is not known.
    """

    __slots__ = ("_ended", "_number", "_reader", "_server", "_told", "pid")

    def __init__(self, server: ForkServer, number: int, reader: int) -> None:
        self._server = server
        self._number = number
        self._reader = reader
        self._told = bytearray()
        self._ended = False
        self.pid = 0

    def watch(self, loop: asyncio.AbstractEventLoop, then: Callable[[int], None]) -> None:
        """Call `then(returncode)` on the loop once it has ended."""

        def readable() -> None:
            try:
                data = os.read(self._reader, 2 * _ANSWER_BYTES)
            except BlockingIOError:
                return
            self._told += data
            if len(self._told) >= _ANSWER_BYTES:
                self.pid = int.from_bytes(self._told[:_ANSWER_BYTES], "big")
            if data and len(self._told) < 2 * _ANSWER_BYTES:
                return
            loop.remove_reader(self._reader)
            os.close(self._reader)
            self._ended = True
            known = len(self._told) == 2 * _ANSWER_BYTES
            then(int.from_bytes(self._told[_ANSWER_BYTES:], "big", signed=True) if known else _UNKNOWN_END)

        loop.add_reader(self._reader, readable)

    def signal(self, number: int) -> bool:
        """Send a signal to it and those that it started, if it still runs."""
        if not self._ended:
            self._server.signal(self._number, signal.Signals(number))
        return not self._ended
