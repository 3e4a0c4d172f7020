"""Audit events as lines of JSON, in a file of their own or in the log."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Protocol

from dunnart.records import dataclass
from dunnart.server.plugins import plugin

if TYPE_CHECKING:
    import logging

    from dunnart.server.interfaces import AuditEvent, AuditSink
    from dunnart.server.plugins import Context


@dataclass(frozen=True, slots=True)
class Options:
    """The table [plugin.log].

    Attributes:
        file: where lines are added, in mode 0600 if it is made; renaming it begins a new one. Empty: the log itself.
        text_characters: the longest that a text gets; the rest of it is left out.
    """

    file: str = ""
    text_characters: int = 200

    def __post_init__(self) -> None:
        if self.file and not os.path.isabs(self.file):
            raise ValueError(f"file must be an absolute path, not {self.file!r}")
        if self.text_characters < 1:
            raise ValueError("text_characters must be at least 1")


@plugin(Options)
def audit_log(context: Context[Options]) -> AuditSink:
    """Writes a line of JSON for each event."""
    options = context.options
    output: _Output = _File(options.file) if options.file else _Log(context.logger)
    return JsonLines(output, options.text_characters)


class _Output(Protocol):
    def write(self, line: str) -> None: ...


class JsonLines:
    """Writes an event as one line: time, event, connection, user, address, port, and then its details.

    Args:
        output: what takes the line, without its end.
        text_characters: longer texts end in "...".
    """

    def __init__(self, output: _Output, text_characters: int) -> None:
        self._output = output
        self._longest = text_characters

    def record(self, event: AuditEvent) -> None:
        """Write it."""
        fields = {name: self._fit(value) for name, value in event.details.items()}
        # Last, so that no detail takes the place of what every line has; first, so that lines are easy to read.
        own = {
            "time": round(event.time, 3), "event": event.kind, "connection": event.connection,
            "user": self._fit(event.user), "address": event.peer.host, "port": event.peer.port,
        }  # fmt: skip
        self._output.write(json.dumps(own | fields | own))

    def _fit(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        if len(value) > self._longest:
            value = value[: self._longest] + "..."
        # A lone surrogate stands for a byte that is no UTF-8; JSON has no way to write either.
        return value.encode(errors="backslashreplace").decode()


class _File:
    """A local file that lines are added to; one write each, so that they are whole whoever else writes there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._node = (0, 0)
        self._open()

    def _open(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self._node = (found.st_dev, found.st_ino)

    def write(self, line: str) -> None:
        """Add a line."""
        try:
            found = os.stat(self._path)
            moved = (found.st_dev, found.st_ino) != self._node
        except FileNotFoundError:
            moved = True
        if moved:
            self._open()
        os.write(self._descriptor, f"{line}\n".encode())

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class _Log:
    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def write(self, line: str) -> None:
        self._logger.info("%s", line)
