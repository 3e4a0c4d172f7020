"""A session for blocking code: files in the place of stdin, stdout and stderr."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, TextIO

from dunnart.server.raw import Facts

if TYPE_CHECKING:
    import socket

    from dunnart.server.raw import RawSession


class BlockingSession(Facts):
    r"""A session in a thread of the application pool.

    A handler that returns ends it with status 0, or with the number that it returns; one that raises ends it with
    status 1, and the exception is logged. When the client goes away reads give the end and writes raise
    BrokenPipeError.

    Attributes:
        stdin: what the client sends, as text in UTF-8; `stdin.buffer` has the bytes.
        stdout: goes to the client; flushed at the end of each line, and when the handler is done. To a terminal "\n"
            goes out as "\r\n".
    """

    __slots__ = ("_raw", "_sock", "_stderr", "stdin", "stdout")

    def __init__(self, raw: RawSession) -> None:
        super().__init__(raw.facts)
        self._raw = raw
        self._sock = raw.socket()
        self._stderr: TextIO | None = None
        self.stdin: TextIO = self._sock.makefile("r", encoding="utf-8", errors="surrogateescape", newline=None)
        self.stdout = self._writer(self._sock)

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
        """The next line, without its end, after writing `prompt`.

        Raises:
            EOFError: there are no more.
        """
        if prompt:
            self.stdout.write(prompt)
        self.stdout.flush()
        line = self.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    @property
    def closed(self) -> bool:
        """The client has gone; for handlers that compute and neither read nor write."""
        return self._raw.gone

    def exit(self, status: int = 0) -> None:
        """End the session with an exit status; what was written before still goes out."""
        self._flush()
        self._raw.exit(status)

    def close(self) -> None:
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
