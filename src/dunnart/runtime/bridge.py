"""Joins a channel with the descriptors of what runs behind it: a child's pipes or pty, or an application's socket.

The loop reads them straight into packets and writes received packets straight out of the receive buffer. Who holds the
other end is the bridge's `Counterpart`, which need not live in this process.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from dunnart.errors import LocalProtocolError
from dunnart.protocol.requests import BreakRequest, EndOfWrite, ExitSignal, ExitStatus, WindowChange
from dunnart.runtime import process

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle

    from dunnart.protocol.requests import ChannelRequest
    from dunnart.runtime.pump import Pump
    from dunnart.runtime.streams import Counterpart, Streams

_TURN_BYTES = 4096  # a pty has no more at once
_BULK_BYTES = 64 * 1024  # a pipe's size: a read or write of so much means bulk
_FEW_BYTES = 32 * 1024  # one packet has room for so much
_CHUNKS = 512  # in one call; well under IOV_MAX
_UNLESS_GONE = contextlib.suppress(LocalProtocolError)
"""The peer may have ended the channel or the connection by a message whose event is not handled yet."""
_STDERR = 1
CLOSE_WAITS_SECONDS = 10.0
"""How long what runs behind a channel may go on once the peer has closed it."""


class Bridge:
    """A channel's descriptors.

    Args:
        pump: the connection.
        loop: the pump's event loop.
        number: the channel's.
        streams: the descriptors, which the bridge closes.
        counterpart: who holds their other ends.

    Attributes:
        bytes_received: what came for the program; `bytes_sent` is what it has put out.
    """

    __slots__ = (
        "_closed", "_counterpart", "_eof_wanted", "_exit", "_joined", "_loop", "_much", "_number", "_paused",
        "_pending", "_pump", "_sock", "_stderr", "_stdin", "_stdout", "_terminal", "_typed", "_waits", "_wide",
        "bytes_received", "bytes_sent",
    )  # fmt: skip

    def __init__(
        self, pump: Pump, loop: AbstractEventLoop, number: int, streams: Streams, counterpart: Counterpart
    ) -> None:
        self._pump = pump
        self._loop = loop
        self._number = number
        self._counterpart = counterpart
        self._terminal = streams.terminal
        self._sock = streams.sock
        self._typed = streams.typed
        self._joined = streams.joined
        self._stdin, self._stdout, self._stderr = streams.stdin, streams.stdout, streams.stderr
        self._pending: bytearray | None = None
        self._paused = False
        self._eof_wanted = False
        self._much = False
        self._wide = 0
        self._exit: ExitStatus | ExitSignal | None = None
        self._closed = False
        self._waits: TimerHandle | None = None
        self.bytes_received = 0
        self.bytes_sent = 0
        with _UNLESS_GONE:  # closed in the same read that asked for the program: ChannelClosed is on its way
            pump.engine.hold_close(number)
        loop.add_reader(self._stdout, self._read_stdout)
        if self._stderr >= 0:
            loop.add_reader(self._stderr, self._read_stderr)

    def add_stderr(self, fd: int) -> None:
        """Take a second output along; too late, it is closed."""
        if self._closed or self._stderr >= 0 or self._exit is not None:
            os.close(fd)
            return
        self._stderr = fd
        if not self._paused:
            self._loop.add_reader(fd, self._read_stderr)

    # From the program to the peer.

    def _read_stdout(self) -> None:
        self._read(self._stdout, 0)

    def _read_stderr(self) -> None:
        self._read(self._stderr, _STDERR)

    def _read(self, fd: int, stream: int) -> bool:
        """Read once; False when there is nothing now."""
        pump = self._pump
        turn = pump.turn_bytes
        if not turn and not self._typed:
            return True  # a keystroke's echo comes first; the loop asks again
        limit = turn or _TURN_BYTES
        if limit > _FEW_BYTES and not self._much:
            limit = _FEW_BYTES  # to lay out more packets than will be filled takes time
        slots: list[memoryview] = []
        try:
            if not pump.congested:
                slots = pump.engine.data_slots(self._number, stream, limit)
        except LocalProtocolError:  # as _UNLESS_GONE, which takes more time
            pass
        if not slots:
            self._paused = True
            self._loop.remove_reader(fd)
            return False
        try:
            count = os.readv(fd, slots if len(slots) <= _CHUNKS else slots[:_CHUNKS])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # EIO: nobody holds the pty's other side any more
            count = 0
        if count == 0:
            self._output_ended(stream)
            return False
        if self._typed:
            pump.echoed()
        self.bytes_sent += count
        self._much = count >= _FEW_BYTES
        pump.send_slots(self._number, count, stream)
        if count >= _BULK_BYTES and not self._wide & 1 << stream:
            self._wide |= 1 << stream
            if self._terminal is None and self._sock is None:
                process.widen(fd)
        return True

    def _output_ended(self, stream: int) -> None:
        if stream == _STDERR:
            self._close_stderr()
        else:
            self._close_stdout()
        if self._stdout >= 0 or self._stderr >= 0:
            return
        if self._sock is not None and self._exit is None and not self._joined:
            return  # a socket for stderr may still be on its way
        with _UNLESS_GONE:
            self._pump.engine.send_eof(self._number)
            if self._exit is not None or (self._joined and self._stdin < 0):
                self._pump.engine.close_channel(self._number)
        self._pump.tick()

    def resume(self) -> None:
        """The channel may take data again."""
        if not self._paused or self._closed:
            return
        self._paused = False
        if self._stdout >= 0:
            self._loop.add_reader(self._stdout, self._read_stdout)
        if self._stderr >= 0:
            self._loop.add_reader(self._stderr, self._read_stderr)
        if self._exit is not None and self._terminal is not None:
            self._loop.call_soon(self._drain_terminal)

    def end(self, how: ExitStatus | ExitSignal) -> None:
        """The program has ended: say how; the channel is closed once the last of its output is sent."""
        if self._exit is not None:
            return
        self._exit = how
        self._stop_waiting()
        if self._closed:
            return
        with _UNLESS_GONE:
            self._pump.engine.request(self._number, how)
            if self._stdout < 0 and self._stderr < 0:
                self._pump.engine.send_eof(self._number)
                self._pump.engine.close_channel(self._number)
        self._pump.tick()
        if self._terminal is not None:
            self._drain_terminal()

    def _drain_terminal(self) -> None:
        # The login is over with its process; what others that hold the pty write later goes nowhere, as in sshd.
        if self._closed or self._stdout < 0 or self._paused:
            return
        if self._read(self._stdout, 0):
            self._loop.call_soon(self._drain_terminal)
        elif self._stdout >= 0 and not self._paused:
            self._output_ended(0)

    # From the peer to the program.

    def receive(self, chunks: list[memoryview]) -> None:
        """Write what came; what the child does not take yet is copied, and the window stays shut by as much."""
        total = sum(map(len, chunks))
        self.bytes_received += total
        if self._pending is not None:
            # One buffer: as many small objects as a peer may send bytes would be far more than its window.
            for chunk in chunks:
                self._pending += chunk
            return
        if self._stdin < 0:
            self._pump.engine.consumed(self._number, total)
            return
        try:
            if len(chunks) > _CHUNKS:
                chunks = [memoryview(b"".join(chunks))]
            count = os.writev(self._stdin, chunks)
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError:
            self._stdin_broken(total)
            return
        self._pump.engine.consumed(self._number, count)
        if self._typed:
            self._pump.typed()
        if count >= _BULK_BYTES and not self._wide & 1 << 2:
            self._wide |= 1 << 2
            if self._terminal is None and self._sock is None:
                process.widen(self._stdin)
        if count < total:
            self._pending = bytearray()
            for chunk in chunks:
                self._pending += chunk[count:]
                count = max(0, count - len(chunk))
            self._loop.add_writer(self._stdin, self._writable)
        elif self._terminal is not None and not self._paused and self._stdout >= 0:
            # The kernel has echoed already: take it along instead of waiting for the loop to come round.
            self._read(self._stdout, 0)

    def _writable(self) -> None:
        pending = self._pending
        assert pending is not None
        try:
            count = os.write(self._stdin, pending)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._stdin_broken(len(pending))
            self._pump.tick()
            return
        del pending[:count]  # moves nothing: a bytearray can begin later
        self._pump.now().consumed(self._number, count)
        if not pending:
            self._pending = None
            self._loop.remove_writer(self._stdin)
            if self._eof_wanted:
                self._close_stdin()
        self._pump.tick()

    def _stdin_broken(self, lost: int) -> None:
        # The program reads no more: swallow what comes, and tell the peer to send nothing (OpenSSH PROTOCOL §2.1).
        self._close_stdin()
        engine = self._pump.engine
        engine.consumed(self._number, lost)
        if b"OpenSSH" in engine.peer_version:
            with _UNLESS_GONE:
                engine.request(self._number, EndOfWrite())

    def receive_eof(self) -> None:
        """Close the program's stdin once all is written. A pty goes on (mosh, `ssh -tt </dev/null`)."""
        if self._terminal is not None:
            return
        if self._pending is not None:
            self._eof_wanted = True
        else:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin < 0:
            return
        self._loop.remove_writer(self._stdin)
        self._pending = None
        if self._sock is not None:
            self._shut(self._sock, socket.SHUT_WR, last=self._stdout < 0)
        elif self._terminal is None:
            os.close(self._stdin)
        self._stdin = -1
        if self._joined and self._stdout < 0 and not self._closed:
            with _UNLESS_GONE:
                self._pump.engine.close_channel(self._number)

    # The rest.

    def requested(self, request: ChannelRequest) -> bool:
        """The peer sends a signal, a break or its window's new size."""
        if self._closed or self._exit is not None:
            return False
        if self._terminal is not None and isinstance(request, WindowChange):
            self._terminal.resize(request.columns, request.rows, request.width_pixels, request.height_pixels)
        elif self._terminal is not None and isinstance(request, BreakRequest):
            return self._terminal.send_break()
        return self._counterpart.requested(request)

    def end_output(self) -> None:
        """The peer takes no more output: the program's next write to its stdout fails. A pty goes on."""
        if self._terminal is None and self._stdout >= 0:
            self._output_ended(0)

    def receive_close(self) -> None:
        """The peer is done with the channel; our CLOSE follows the program's end, or comes after a while.

        Dropbear, PuTTY and libssh2 answer the output's EOF with CLOSE and still want the exit status. With a pty the
        program is hung up at once; else it still gets what came before the CLOSE.
        """
        self._close_stdout()
        self._close_stderr()
        self.receive_eof()
        if self._joined and self._pending is not None:
            return  # what came before the CLOSE goes out first; the end of stdin then closes the channel
        if self._exit is not None or self._joined:
            with _UNLESS_GONE:
                self._pump.engine.close_channel(self._number)
            return
        if self._terminal is not None:
            self._close_streams()
            self._counterpart.hung_up()
        self._waits = self._loop.call_later(CLOSE_WAITS_SECONDS, self._give_up)

    def _give_up(self) -> None:
        # One that heeds no SIGHUP may run on, but it keeps no channel.
        self._waits = None
        self._close_stdin()
        with _UNLESS_GONE:
            self._pump.engine.close_channel(self._number)
        self._pump.tick()

    def close(self) -> None:
        """The channel is gone: hang up, close the streams."""
        if self._closed:
            return
        self._closed = True
        self._stop_waiting()
        self._close_streams()
        self._counterpart.hung_up()

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None

    def _close_streams(self) -> None:
        self._close_stdin()
        self._close_stdout()
        self._close_stderr()
        if self._terminal is not None:
            self._terminal.close()

    def _close_stdout(self) -> None:
        if self._stdout < 0:
            return
        self._loop.remove_reader(self._stdout)
        if self._sock is not None:
            self._shut(self._sock, socket.SHUT_RD, last=self._stdin < 0)
        elif self._terminal is None:
            os.close(self._stdout)
        self._stdout = -1

    def _close_stderr(self) -> None:
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1

    def _shut(self, sock: socket.socket, how: int, *, last: bool) -> None:
        if last:
            sock.close()
            return
        with contextlib.suppress(OSError):  # the other end is closed already
            sock.shutdown(how)
