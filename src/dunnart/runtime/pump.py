"""The pump: moves bytes between one socket and one engine, and nothing else.

It works on the plain socket with `add_reader` and `add_writer`. An asyncio transport would keep objects for each idle
connection and stand between the engine's buffers and the system call.

    readable ─► recv_into(engine.buffer()) ─► engine.received ─► events ─► owner ─┐
    send ◄───── one call with all packets ◄── engine.data_to_send() ◄────────────┘

Backpressure: while the socket does not take our bytes nothing is produced (`congested`), and beyond `output_bytes` of
them nothing is read from the peer either.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from socket import IPPROTO_TCP
from typing import TYPE_CHECKING, Protocol

from dunnart.protocol.engine import Engine
from dunnart.protocol.events import ConnectionEnded, DataReceived
from dunnart.protocol.framing import READ_BYTES, Arena
from dunnart.runtime.deadlines import Deadlines

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from dunnart.protocol.core import EngineConfig
    from dunnart.protocol.events import Event
    from dunnart.protocol.framing import Buffer
    from dunnart.protocol.questions import Question

_BUFFERS_PER_WRITE = 512  # well under IOV_MAX
_SMALL_READ = 4096
_BULK_READ = 64 * 1024
_READS_PER_TURN = 6
_LAST_READS = 64  # more than a socket holds
_REST_SECONDS = 0.001
_TYPING_SECONDS = 1.0
_ECHO_SECONDS = 0.0005
_TURN_BYTES = 32 * 1024
_UNBOUNDED = 1 << 30
_BULK_LEAD = 1 << 20
_QUICKACK: int = getattr(socket, "TCP_QUICKACK", -1)  # Linux


class ProtocolLoop:
    """What the pumps of one event loop share: its buffers, its timer, and whether somebody types.

    Attributes:
        typing_until: until then transfers take short turns, so that keystrokes need not wait for them.
        echo_until: until then, or until the echo of a keystroke comes, programs' output waits altogether.
    """

    __slots__ = ("arena", "deadlines", "echo_until", "loop", "typing_until")

    def __init__(self, loop: AbstractEventLoop, *, channel_packet_bytes: int = 32 * 1024) -> None:
        self.loop = loop
        self.arena = Arena(os.urandom, channel_packet_bytes=channel_packet_bytes)
        self.deadlines = Deadlines(loop)
        self.typing_until = 0.0
        self.echo_until = 0.0


class Owner(Protocol):
    """Who decides what a pump's events mean."""

    def handle(self, item: Event | Question) -> None:
        """One event or question, in order. Views in it are valid during the call only."""

    def uncongested(self) -> None:
        """The socket takes bytes again: producers may go on."""

    def failed(self, error: Exception) -> None:
        """Our own code raised; the connection ends, and ConnectionEnded follows."""

    def lost(self) -> None:
        """The socket is closed; nothing follows."""


class Pump:
    """One connection's socket and engine.

    Args:
        context: the event loop's shared parts.
        sock: connected and non-blocking; the pump closes it.
        config: the engine's.
        owner: gets the events.
        cookie: the engine's.
    """

    __slots__ = (
        "_backlog", "_backlog_bytes", "_broken", "_bucket", "_closing", "_context", "_deadline", "_fd", "_owner",
        "_reading", "_sock", "_tcp", "_ticking", "bytes_received", "bytes_sent", "engine",
    )  # fmt: skip

    def __init__(
        self, context: ProtocolLoop, sock: socket.socket, config: EngineConfig, owner: Owner, cookie: bytes = b""
    ) -> None:
        self._context = context
        self._sock = sock
        self._fd = sock.fileno()
        self._tcp = _QUICKACK >= 0 and sock.family != getattr(socket, "AF_UNIX", None)
        self._owner = owner
        self._backlog: deque[memoryview] | None = None
        self._backlog_bytes = 0
        self._broken = False
        self._bucket = -1
        self._deadline: float | None = None
        self._closing = False
        self._reading = True
        self._ticking = False
        self.bytes_received = 0
        self.bytes_sent = 0
        self.engine = Engine(config, random=os.urandom, now=context.loop.time(), arena=context.arena, cookie=cookie)

    def start(self) -> None:
        """Send the first bytes and begin to read."""
        self._context.loop.add_reader(self._fd, self._readable)
        self.tick()

    @property
    def congested(self) -> bool:
        """The socket does not take our bytes: do not make more."""
        return self._backlog_bytes > 0

    @property
    def closed(self) -> bool:
        """The socket is gone."""
        return self._fd < 0

    @property
    def local_address(self) -> tuple[str, int]:
        """The address and port that the peer reached; ("", 0) for a unix socket, and once the socket is gone."""
        name = self._sock.getsockname() if self._fd >= 0 else ""
        return (name[0], name[1]) if isinstance(name, tuple) else ("", 0)

    @property
    def turn_bytes(self) -> int:
        """How much a transfer may move before the others have their turn."""
        context = self._context
        if not context.typing_until:
            return _UNBOUNDED
        now = context.loop.time()
        if now < context.echo_until:
            return 0
        return _TURN_BYTES if now < context.typing_until else _UNBOUNDED

    def typed(self) -> None:
        """Somebody types on this connection."""
        now = self._context.loop.time()
        self._context.typing_until = now + _TYPING_SECONDS
        self._context.echo_until = now + _ECHO_SECONDS

    def echoed(self) -> None:
        """A terminal had something to say: what waited for it may go on."""
        self._context.echo_until = 0.0

    def _readable(self) -> None:
        turn = self.turn_bytes or _TURN_BYTES
        count = self._read(turn)
        if count < _BULK_READ:
            return
        for _ in range(_READS_PER_TURN - 1):
            if count < READ_BYTES or not self._reading or self._closing:
                break
            count = self._read(turn)
        if count >= _BULK_READ and turn > READ_BYTES and self._reading and self._fd >= 0 and not self._closing:
            # More comes in any case, and to take it in a few large pieces costs less than in many small ones.
            loop = self._context.loop
            loop.remove_reader(self._fd)
            loop.call_later(_REST_SECONDS, self._read_on)

    def _read_on(self) -> None:
        if self._reading and self._fd >= 0 and not self._closing:
            self._context.loop.add_reader(self._fd, self._readable)
            self._readable()

    def _read(self, turn: int) -> int:
        """Read once and do what follows from it; returns how much there was."""
        engine = self.engine
        try:
            count = self._sock.recv_into(engine.buffer(), min(turn, READ_BYTES))
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            count = 0
        now = self._context.loop.time()
        sent = self.bytes_sent
        if count:
            self.bytes_received += count
            try:
                engine.received(count, now)
            except Exception as error:  # noqa: BLE001 - the other connections must not feel it
                self._fail(error)
        else:
            engine.receive_eof(now)
        self.tick()
        if count < _SMALL_READ and self.bytes_sent == sent and self._acknowledge:
            # Nothing went back that carries the acknowledgement, and a peer under Nagle's rule waits 40 ms for it
            # before it sends the next small packet. The option holds for this once only.
            self._sock.setsockopt(IPPROTO_TCP, _QUICKACK, 1)
        return count

    def tick(self) -> None:
        """Hand over events, send what is to be sent, see to the deadline. Call it after every use of the engine."""
        if self._ticking or self._fd < 0:
            return
        engine = self.engine
        self._ticking = True
        data = other = False
        try:
            while events := engine.events():
                for item in events:
                    if type(item) is DataReceived:
                        data = True
                    else:
                        other = True
                    try:
                        self._owner.handle(item)
                    except Exception as error:  # noqa: BLE001 - the other connections must not feel it
                        self._fail(error)
                        # What is left of the batch is for a connection that has ended, but the end itself must be told.
                        if item is not events[-1] and isinstance(events[-1], ConnectionEnded):
                            engine.emit(events[-1])
                        break
            self.flush()
        finally:
            self._ticking = False
        if engine.ended:
            self._end()
        elif other or self._bucket < 0 or engine.blocked:
            self._schedule()
        elif data:
            engine.prepare()  # more of it will come, and what is prepared takes memory: not for who is idle

    @property
    def _acknowledge(self) -> bool:
        # In bulk towards the peer most small reads are window adjusts, which nothing waits for.
        return self._tcp and self._fd >= 0 and self.bytes_sent - self.bytes_received < _BULK_LEAD

    def now(self) -> Engine:
        """The engine, told the time: for commands that no received bytes led to."""
        self.engine.now = self._context.loop.time()
        return self.engine

    def send_slots(self, channel: int, count: int, stream: int) -> None:
        """Send the first `count` bytes of the slots that the engine gave out for a channel."""
        engine = self.now()
        engine.commit_data(channel, count, stream)
        self.flush()
        if engine.blocked:
            self._schedule()  # it began a key exchange, which has a deadline
        engine.prepare()

    def flush(self) -> None:
        """Send what the engine has ready; what the socket does not take is kept."""
        queue = self.engine.data_to_send()
        if not queue or self._fd < 0 or self._broken:
            return
        if self._backlog is not None:
            self._keep(queue, 0)
            return
        if len(queue) > _BUFFERS_PER_WRITE:
            queue = [b"".join(queue)]
        try:
            sent = self._sock.send(queue[0]) if len(queue) == 1 else self._sock.sendmsg(queue)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._abort()
            return
        self.bytes_sent += sent
        if sent < sum(map(len, queue)):
            self._keep(queue, sent)

    def _keep(self, queue: list[Buffer], sent: int) -> None:
        # The engine's buffers are used again: what is left must be copied.
        rest = memoryview(b"".join(queue))[sent:]
        if self._backlog is None:
            self._backlog = deque()
            self._context.loop.add_writer(self._fd, self._writable)
        self._backlog.append(rest)
        self._backlog_bytes += len(rest)
        if self._reading and self._backlog_bytes > self.engine.config.limits.output_bytes:
            self._reading = False
            self._context.loop.remove_reader(self._fd)

    def _writable(self) -> None:
        backlog = self._backlog
        assert backlog is not None
        try:
            while backlog:
                sent = self._sock.send(backlog[0])
                self.bytes_sent += sent
                self._backlog_bytes -= sent
                if sent < len(backlog[0]):
                    backlog[0] = backlog[0][sent:]
                    return
                backlog.popleft()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._abort()
            return
        self._backlog = None
        self._context.loop.remove_writer(self._fd)
        if self._closing:
            self.close()
            return
        if not self._reading:
            self._reading = True
            self._context.loop.add_reader(self._fd, self._readable)
        self._owner.uncongested()
        self.tick()

    def due(self, now: float) -> None:
        """The deadline that was registered has passed."""
        self._bucket = -1
        self._deadline = None
        if self._closing:
            self.close()
            return
        try:
            self.engine.handle_timeout(now)
        except Exception as error:  # noqa: BLE001 - the other connections must not feel it
            self._fail(error)
        self.tick()

    def _schedule(self) -> None:
        deadline = self.engine.next_deadline()
        if deadline == self._deadline and self._bucket >= 0:
            return
        deadlines = self._context.deadlines
        if deadline is None:
            if self._bucket >= 0:
                deadlines.cancel(self, self._bucket)
                self._bucket = -1
        elif self._bucket < 0 or self._deadline is None or deadline < self._deadline:
            # A deadline that only moved later is looked at again when the registered one comes.
            if self._bucket >= 0:
                deadlines.cancel(self, self._bucket)
            self._deadline = deadline
            self._bucket = deadlines.set(self, deadline)

    def _end(self) -> None:
        """The engine is done: close once the last bytes are sent, or in two seconds."""
        if self._closing:
            return
        self._closing = True
        if self._backlog is None:
            self.close()
            return
        loop = self._context.loop
        loop.remove_reader(self._fd)
        if self._bucket >= 0:
            self._context.deadlines.cancel(self, self._bucket)
        self._bucket = self._context.deadlines.set(self, loop.time() + 2.0)

    def _fail(self, error: Exception) -> None:
        self._owner.failed(error)
        self.engine.disconnect("internal error")

    def _abort(self) -> None:
        # Sending failed: the peer is gone. The engine must hear of it, but events may be under way just now.
        self._backlog = None
        self._backlog_bytes = 0
        self._context.loop.remove_writer(self._fd)
        if self._closing:
            self.close()
            return
        self._broken = True
        self._context.loop.call_soon(self._read_rest)

    def _read_rest(self) -> None:
        # What the peer had sent before it went is here still: its last data, a status, or why it went.
        for _ in range(_LAST_READS):
            if self._fd < 0 or not self._read(READ_BYTES):
                break
        if self._fd >= 0:
            self.engine.receive_eof(self._context.loop.time())
            self.tick()

    def close(self) -> None:
        """Close the socket now."""
        if self._fd < 0:
            return
        loop = self._context.loop
        loop.remove_reader(self._fd)
        loop.remove_writer(self._fd)
        if self._bucket >= 0:
            self._context.deadlines.cancel(self, self._bucket)
            self._bucket = -1
        self._fd = -1
        self._sock.close()
        self._owner.lost()
