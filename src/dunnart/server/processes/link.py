"""The local socket between two processes of a server, which carries frames and descriptors.

A frame is a length, a number that says which, and the fields of its structure; descriptors travel beside it. What is no
frame closes the link. A process that has no room for a descriptor gets the frame without it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING

from dunnart.errors import DecodeError
from dunnart.server.processes.frames import FRAMES, MOST_DESCRIPTORS

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from dunnart.server.processes.frames import Frame

_HEADER_BYTES = 6  # length of what follows, number, descriptors
_READ_BYTES = 64 * 1024
_LARGEST_FRAME = 16 << 20  # a table of 15,000 connections
_MOST_QUEUED_BYTES = 64 << 20
_NOT_SENT = (errno.EBADF, errno.ETOOMANYREFS)  # the application has closed it; too many are on their way
_LOG = logging.getLogger("dunnart.server")


class Link:
    """One end of a local socket that carries frames, on an event loop.

    Args:
        sock: a connected unix stream socket; the link closes it.
        loop: where it is read and written.
        receive: gets each frame and its descriptors, which are the receiver's; fewer of them if this process has no
            room for more. A DecodeError from it closes the link.
        lost: called once when the other end is gone, or has sent what it cannot mean.
    """

    def __init__(
        self, sock: socket.socket, loop: AbstractEventLoop, receive: Callable[[Frame, list[int]], None],
        lost: Callable[[], None],
    ) -> None:  # fmt: skip
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        self._sock = sock
        self._descriptor = sock.fileno()  # readers of numbers are called at once: see `dunnart.runtime.event_loop`
        self._loop = loop
        self._receive = receive
        self._lost = lost
        self._buffer = bytearray()
        self._descriptors: deque[tuple[list[int], bool]] = deque()  # those of one frame, and whether some were lost
        self._paused = False
        self._queue: deque[tuple[bytearray, tuple[int, ...]]] = deque()  # what is sent at once, descriptors first
        self._due = False
        self.queued_bytes = 0
        self.closed = False
        loop.add_reader(self._descriptor, self._readable)

    def send(self, frame: Frame, descriptors: tuple[int, ...] = ()) -> None:
        """Send a frame, with copies of descriptors, which are closed here. On a closed link nothing but that.

        It goes with what else the event loop's turn has to say: who is woken for each frame does little else.

        Raises:
            ValueError: the frame cannot be encoded, or is too large.
        """
        if self.closed:
            _close(descriptors)
            return
        try:
            body = _body(frame)
        except BaseException:
            _close(descriptors)
            raise
        data = (len(body) + 2).to_bytes(4, "big") + bytes((frame.number, len(descriptors))) + body
        if descriptors or not self._queue:
            self._queue.append((bytearray(data), descriptors))
        else:
            self._queue[-1][0].extend(data)
        self.queued_bytes += len(data)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._flush)
        if self.queued_bytes > _MOST_QUEUED_BYTES:
            self.close()  # the other end does not keep up, and never will

    def _flush(self) -> None:
        if self.closed:
            return
        try:
            self._write()
            self._due = False
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._descriptor, self._writable)
        except OSError:
            self.close()

    def _write(self) -> None:
        """Send what is queued. Raises OSError."""
        while self._queue:
            data, descriptors = self._queue[0]
            try:
                sent = socket.send_fds(self._sock, [data], descriptors) if descriptors else self._sock.send(data)
            except OSError as error:
                if not descriptors or error.errno not in _NOT_SENT:
                    raise
                # It concerns one session, and the link carries all: the frame goes without them.
                sent, data[5] = 0, 0
            _close(descriptors)
            self.queued_bytes -= sent
            if sent < len(data):
                del data[:sent]
                self._queue[0] = (data, ())
            else:
                self._queue.popleft()

    def _writable(self) -> None:
        self._loop.remove_writer(self._descriptor)
        self._flush()

    def pause(self) -> None:
        """Read no more for now: the other end asks faster than it is answered."""
        self._paused = True
        if not self.closed:
            self._loop.remove_reader(self._descriptor)

    def resume(self) -> None:
        """Read again."""
        if self._paused and not self.closed:
            self._paused = False
            self._loop.add_reader(self._descriptor, self._readable)
            self._loop.call_soon(self._read_on)

    def _readable(self) -> None:
        try:
            data, descriptors, flags, _ = socket.recv_fds(self._sock, _READ_BYTES, 16 * MOST_DESCRIPTORS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors, flags = b"", [], 0
        lost = bool(flags & socket.MSG_CTRUNC)  # this process has no room for them
        if descriptors or lost:  # never those of two frames: a read ends behind the data that they came with
            self._descriptors.append((descriptors, lost))
        if not data:
            self.close()
            return
        self._buffer += data
        self._read_on()

    def _read_on(self) -> None:
        try:
            self._deliver()
        except DecodeError as error:
            _LOG.error("a link between processes is closed: %s", error)
            self.close()

    def _deliver(self) -> None:
        buffer = self._buffer
        while len(buffer) >= _HEADER_BYTES and not self.closed and not self._paused:
            size = int.from_bytes(buffer[:4], "big") + 4
            number, count = buffer[4], buffer[5]
            if not _HEADER_BYTES <= size <= _LARGEST_FRAME or not 1 <= number <= len(FRAMES):
                raise DecodeError("no frame")
            kind = FRAMES[number - 1]
            if count > kind.most_descriptors:
                raise DecodeError(f"{kind.__name__} with {count} descriptors")
            if len(buffer) < size:
                break
            frame = kind.decode(bytes(buffer[_HEADER_BYTES:size]))
            del buffer[:size]
            self._hand_on(frame, self._take(count))
        if len(self._descriptors) > 1 or (self._descriptors and not buffer):
            raise DecodeError("descriptors that belong to no frame")

    def _take(self, count: int) -> list[int]:
        """Give the descriptors of a frame."""
        if not count:
            return []
        if not self._descriptors:
            raise DecodeError("descriptors are missing")
        found, lost = self._descriptors.popleft()
        if len(found) != count and not (lost and len(found) < count):
            _close(found)
            raise DecodeError(f"{len(found)} descriptors instead of {count}")
        return found

    def _hand_on(self, frame: Frame, descriptors: list[int]) -> None:
        try:
            self._receive(frame, descriptors)
        except DecodeError:
            raise
        except Exception as error:  # noqa: BLE001 - one session's fault must not become that of all on the link
            _LOG.error("%s failed: %r", type(frame).__name__, error)
            _LOG.debug("failed", exc_info=error)

    def close(self) -> None:
        """Close the socket, once what was said has gone as far as the other end takes it now."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        with contextlib.suppress(OSError):
            self._write()
        self._sock.close()
        for _, descriptors in self._queue:
            _close(descriptors)
        self._queue.clear()
        for found, _ in self._descriptors:
            _close(found)
        self._descriptors.clear()
        self._lost()


def _body(frame: Frame) -> bytes:
    body = frame.encode()
    if len(body) + _HEADER_BYTES > _LARGEST_FRAME:
        raise ValueError(f"{type(frame).__name__} with {len(body)} bytes is too large")
    return body


def _close(descriptors: tuple[int, ...] | list[int]) -> None:
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)
