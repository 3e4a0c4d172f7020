"""A session for blocking code: files in the place of stdin, stdout and stderr."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, TextIO, cast

from dunnart.protocol.requests import WindowChange
from dunnart.server.raw import Facts

if TYPE_CHECKING:
    import socket

    from dunnart.protocol.requests import ChannelRequest
    from dunnart.server.line_reading import TypedInput
    from dunnart.server.raw import RawSession
    from dunnart.server.server import Server

_READ_BYTES = 64 * 1024
_LINE_BYTES = 64 * 1024
_CHARACTER_BYTES = 4


class BlockingSession(Facts):
    r"""A session in a thread of the application pool.

    A handler that returns ends it with status 0, or with the number that it returns; one that raises ends it with
    status 1, and the exception is logged. When the client goes away reads give the end and writes raise
    BrokenPipeError; where output was on its way, either may raise ConnectionResetError once instead.

    Attributes:
        stdin: what the client sends, as text in UTF-8; `stdin.buffer` has the bytes. At a terminal it gives lines that
            the user has edited: control-D is the end, control-C raises `Interrupted`. Without one it reads ahead, as
            text files do, so that `readline` and `read` do not have what follows.
        stdout: goes to the client; flushed at the end of each line, and when the handler is done. To a terminal "\n"
            goes out as "\r\n".
    """

    __slots__ = ("_raw", "_sock", "_stderr", "_typed", "stdin", "stdout")

    def __init__(self, raw: RawSession) -> None:
        super().__init__(raw.facts)
        self._raw = raw
        self._sock = raw.socket()
        self._stderr: TextIO | None = None
        self._typed: TypedInput | None = None
        self.stdin = self._reader()
        self.stdout = self._writer(self._sock)

    @property
    def server(self) -> Server:
        """The server that the session belongs to. Its coroutines run on its own event loop."""
        return self._raw.server

    def _reader(self) -> TextIO:
        if self.terminal is None:
            return self._sock.makefile("r", encoding="utf-8", errors="surrogateescape", newline=None)
        from dunnart.server.line_reading import TypedInput

        self._typed = TypedInput(self, self._sock, self._flush)
        self._raw.on_request = self._requested
        return io.TextIOWrapper(io.BufferedReader(self._typed), "utf-8", "surrogateescape")

    def _requested(self, request: ChannelRequest) -> bool:
        if self._typed is None or not isinstance(request, WindowChange):
            return False
        self._typed.resize()
        return True

    def _writer(self, sock: socket.socket) -> TextIO:
        raw = sock.makefile("wb")
        newline = "\r\n" if self.terminal is not None else "\n"
        return io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline=newline, line_buffering=True)

    @property
    def stderr(self) -> TextIO:
        """Goes to the client's stderr; as `stdout`."""
        if self._stderr is None:
            self._stderr = self._writer(self._raw.stderr_socket())
        return self._stderr

    def readline(self, prompt: str = "", *, echo: bool = True) -> str:
        """The next line, without its end, after writing `prompt`. At a terminal the user can edit it.

        Args:
            prompt: what the user is to see before the line.
            echo: show what is typed at a terminal, and remember it.

        Raises:
            EOFError: there are no more, or the user has pressed control-D.
            Interrupted: the user has pressed control-C.
        """
        typed = self._typed
        if typed is not None:
            typed.prompt, typed.echo = prompt, echo
        elif prompt:
            self.stdout.write(prompt)
        self.stdout.flush()
        if typed is None:
            # Not of the text file, which reads ahead: what follows may be for `read`.
            data = _line(cast("io.BufferedReader", self.stdin.buffer))
            if not data:
                raise EOFError
            return (data[:-1].removesuffix(b"\r") if data.endswith(b"\n") else data).decode(errors="replace")
        try:
            line = self.stdin.readline()
        finally:
            typed.prompt, typed.echo = "", True
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def read(self, limit: int = _READ_BYTES) -> bytes:
        """What the client sends, as it comes and unedited: 1 to `limit` bytes, or b"" after the end."""
        self._flush()
        if self._typed is not None:
            return self._typed.take(limit)
        return cast("io.BufferedReader", self.stdin.buffer).read1(limit)

    @property
    def closed(self) -> bool:
        """The client has gone; for handlers that compute and neither read nor write."""
        return self._raw.gone

    def exit(self, status: int = 0) -> None:
        """End the session with an exit status; what was written before still goes out."""
        self._flush()
        self._raw.exit(status)

    def _close(self) -> None:
        """The handler is done: let go of the files."""
        self._flush()
        for file in (self.stdin, self.stdout, self._stderr):
            if file is not None:
                with contextlib.suppress(OSError, ValueError):
                    file.close()

    def _flush(self) -> None:
        for file in (self.stdout, self._stderr):
            if file is not None:
                with contextlib.suppress(OSError, ValueError):  # the client has gone, or the handler closed it
                    file.flush()


def _line(file: io.BufferedReader) -> bytes:
    """Read a line with its end, or 64 KiB of it; a character of UTF-8 stays whole, and the end with the last piece."""
    data = file.readline(_LINE_BYTES)
    while _LINE_BYTES <= len(data) < _LINE_BYTES + _CHARACTER_BYTES and not data.endswith(b"\n"):
        following = file.peek(1)[:1]
        if following not in (b"\r", b"\n") and not b"\x80" <= following < b"\xc0":
            break
        data += file.read(1)
    return data
