"""What the protocol's processes and the application's say to each other, and the local socket that carries it.

A frame is a length, a number that says which, and the fields of its structure; descriptors travel beside it. Nothing is
believed that comes from a protocol process beyond what its structure says: it is the one that strangers talk to. What
is no frame closes the link. A process that has no room for a descriptor gets the frame without it.

    worker ► host                                  host ► worker
    AcceptAsked, AuthAsked      a question         Answered, AuthAnswered
    OpenAsked, RequestAsked     a question         OpenAnswered, RequestAnswered
    UserIn, SessionAsked        serve this         Begun, Attach, AddStderr, End
    Requested, HungUp           from its client    Call             operate
    Opened, Gone                connections        Peer             another worker
    Said, Audited               for the records
    Returned                    a call's result

    acceptor ► worker: Dealt, with a connection    worker ► acceptor: Held, Entered, Left
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, ClassVar

from dunnart.errors import DecodeError
from dunnart.wire.messages import Boolean, Rest, SecretText, String, Structure, Text, UInt32, UInt64, structure

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

_HEADER_BYTES = 6  # length of what follows, number, descriptors
_READ_BYTES = 64 * 1024
_LARGEST_FRAME = 16 << 20  # a table of 15,000 connections
_DESCRIPTORS = 3
_MOST_QUEUED_BYTES = 64 << 20
_NOT_SENT = (errno.EBADF, errno.ETOOMANYREFS)  # the application has closed it; too many are on their way
_LOG = logging.getLogger("dunnart.server")


class Frame(Structure):
    """One message between processes."""

    __slots__ = ()
    number: ClassVar[int] = 0
    most_descriptors: ClassVar[int] = 0


@structure
class AcceptAsked(Frame):
    """May this client connect?"""

    token: UInt32
    host: Text
    port: UInt32


@structure
class AuthAsked(Frame):
    """May this user in? The method says which of the last fields count."""

    token: UInt32
    connection: UInt64
    user: Text
    address: Text
    port: UInt32
    rounds: UInt32
    method: Text
    text: SecretText
    algorithm: Text
    signed: Boolean
    data: String
    answered: Boolean


@structure
class UserIn(Frame):
    """A user has logged in: `ConnectionFacts`; `grants` are the numbers that `AuthAnswered` gave, 32 bits each."""

    connection: UInt64
    user: Text
    peer_host: Text
    peer_port: UInt32
    local_host: Text
    local_port: UInt32
    method: Text
    key: String
    grants: String


@structure
class SessionAsked(Frame):
    """A session is to be served: `SessionFacts`; `terminal` is a `PtyRequest`, or empty."""

    connection: UInt64
    channel: UInt32
    kind: Text
    command: String
    subsystem: Text
    environment: String
    terminal: String
    opening: UInt32


@structure
class OpenAsked(Frame):
    """May a channel that is no session be opened?"""

    token: UInt32
    connection: UInt64
    channel_type: Text
    data: Rest


@structure
class Abandoned(Frame):
    """Nothing came of a channel that was to be opened."""

    opening: UInt32


@structure
class RequestAsked(Frame):
    """Answer a global request."""

    token: UInt32
    connection: UInt64
    name: Text
    data: Rest


@structure
class Audited(Frame):
    """An `AuditEvent`: the time is in microseconds, the details are JSON."""

    time: UInt64
    kind: Text
    connection: UInt64
    user: Text
    host: Text
    port: UInt32
    details: Rest


@structure
class Requested(Frame):
    """The client asks something of a session."""

    connection: UInt64
    channel: UInt32
    name: Text
    data: Rest


@structure
class HungUp(Frame):
    """A session's channel is gone."""

    connection: UInt64
    channel: UInt32


@structure
class Opened(Frame):
    """A connection was accepted."""

    connection: UInt64


@structure
class Gone(Frame):
    """A connection has ended."""

    connection: UInt64


@structure
class Said(Frame):
    """A log line; `connection` 0 belongs to none."""

    level: UInt32
    logger: Text
    message: Text
    connection: UInt64
    user: Text
    peer: Text


@structure
class Returned(Frame):
    """What a call gave, as JSON; or, if it `failed`, why as a text in JSON."""

    token: UInt32
    failed: Boolean
    result: Rest


@structure
class Answered(Frame):
    """Yes or no."""

    token: UInt32
    yes: Boolean


@structure
class AuthAnswered(Frame):
    """An `AuthReply`: `kind` 0 denies, 1 allows, 2 prompts; `texts` are detail, or name, instruction and prompts."""

    token: UInt32
    kind: UInt32
    flags: UInt32
    grant: UInt32
    texts: String


@structure
class OpenAnswered(Frame):
    """`opening` is `SessionFacts.opening`; 0 refuses for the reason that follows."""

    token: UInt32
    opening: UInt32
    reason_code: UInt32
    description: Text


@structure
class RequestAnswered(Frame):
    """The answer to a global request."""

    token: UInt32
    yes: Boolean
    data: Rest


@structure
class Begun(Frame):
    """Whether something serves a session."""

    connection: UInt64
    channel: UInt32
    yes: Boolean


@structure
class Attach(Frame):
    """A session's descriptors travel beside this: one of a socket or of a pty's master side, or three pipes."""

    connection: UInt64
    channel: UInt32
    terminal: Boolean
    typed: Boolean
    joined: Boolean


@structure
class AddStderr(Frame):
    """A descriptor for a session's stderr travels beside this."""

    connection: UInt64
    channel: UInt32


@structure
class End(Frame):
    """A session has ended: by a signal if one is named, else with a status."""

    connection: UInt64
    channel: UInt32
    status: UInt32
    signal: Text
    text: Text


@structure
class Call(Frame):
    """Do something: a method's name, and its arguments as JSON. Returned follows."""

    token: UInt32
    name: Text
    arguments: Rest


@structure
class Peer(Frame):
    """A link to another worker travels beside this; to the acceptor if `acceptor`."""

    index: UInt32
    acceptor: Boolean


@structure
class Dealt(Frame):
    """A connection travels beside this: serve it."""

    host: Text
    port: UInt32


@structure
class Held(Frame):
    """A worker serves so many connections, which the acceptor that it meets has not dealt."""

    connections: UInt32


@structure
class Entered(Frame):
    """The user of a dealt connection has logged in."""

    host: Text


@structure
class Left(Frame):
    """A dealt connection has ended; `outcome` is empty if its user had logged in."""

    host: Text
    outcome: Text


_FRAMES: tuple[type[Frame], ...] = (
    AcceptAsked, AuthAsked, UserIn, SessionAsked, OpenAsked, Abandoned, RequestAsked, Audited, Requested, HungUp,
    Opened, Gone, Said, Returned, Answered, AuthAnswered, OpenAnswered, RequestAnswered, Begun, Attach, AddStderr,
    End, Call, Peer, Held, Dealt, Entered, Left,
)  # fmt: skip
for _number, _frame in enumerate(_FRAMES, 1):
    _frame.number = _number
for _frame in (AddStderr, Peer, Dealt):
    _frame.most_descriptors = 1
Attach.most_descriptors = _DESCRIPTORS


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
        self._loop = loop
        self._receive = receive
        self._lost = lost
        self._buffer = bytearray()
        self._descriptors: deque[tuple[list[int], bool]] = deque()  # those of one frame, and whether some were lost
        self._paused = False
        self._queue: deque[tuple[bytes | memoryview, list[int]]] = deque()
        self.queued_bytes = 0
        self.closed = False
        loop.add_reader(sock, self._readable)

    def send(self, frame: Frame, descriptors: tuple[int, ...] = ()) -> None:
        """Send a frame, with copies of descriptors, which are closed here. On a closed link nothing but that.

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
        self._queue.append((data, list(descriptors)))
        self.queued_bytes += len(data)
        if len(self._queue) == 1:
            self._flush()
        if self.queued_bytes > _MOST_QUEUED_BYTES:
            self.close()  # the other end does not keep up, and never will

    def _flush(self) -> None:
        while self._queue:
            data, descriptors = self._queue[0]
            try:
                sent = socket.send_fds(self._sock, [data], descriptors) if descriptors else self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock, self._writable)
                return
            except OSError as error:
                if descriptors and error.errno in _NOT_SENT:
                    # It concerns one session, and the link carries all: the frame goes without them.
                    _close(descriptors)
                    self._queue[0] = (bytes((*data[:5], 0, *data[6:])), [])
                    continue
                self.close()
                return
            _close(descriptors)
            self.queued_bytes -= sent
            if sent < len(data):
                self._queue[0] = (memoryview(data)[sent:], [])
            else:
                self._queue.popleft()

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock)
        self._flush()

    def pause(self) -> None:
        """Read no more for now: the other end asks faster than it is answered."""
        self._paused = True
        if not self.closed:
            self._loop.remove_reader(self._sock)

    def resume(self) -> None:
        """Read again."""
        if self._paused and not self.closed:
            self._paused = False
            self._loop.add_reader(self._sock, self._readable)
            self._loop.call_soon(self._read_on)

    def _readable(self) -> None:
        try:
            data, descriptors, flags, _ = socket.recv_fds(self._sock, _READ_BYTES, 16 * _DESCRIPTORS)
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
            if not _HEADER_BYTES <= size <= _LARGEST_FRAME or not 1 <= number <= len(_FRAMES):
                raise DecodeError("no frame")
            kind = _FRAMES[number - 1]
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
        """Close the socket and what waits for it."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
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
