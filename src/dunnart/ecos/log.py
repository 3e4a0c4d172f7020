"""The log, as a callback gets it."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator

from dunnart.runtime.threads import start_thread

_LINES_AHEAD = 1000


@contextlib.contextmanager
def logging_to(callback: Callable[[str], object] | None) -> Iterator[None]:
    """Have a callback get the log; without one, have Python not print it for want of anything better."""
    logger = logging.getLogger("dunnart")
    handler: logging.Handler = logging.NullHandler() if callback is None else _LogHandler(callback)
    logger.addHandler(handler)
    if callback is not None and logger.level == logging.NOTSET:
        _LogHandler.raised_level = True
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        if _LogHandler.raised_level and not any(isinstance(each, _LogHandler) for each in logger.handlers):
            _LogHandler.raised_level = False
            logger.setLevel(logging.NOTSET)


class _LogHandler(logging.Handler):
    """Calls a callback from a thread of its own: one that blocks loses lines, and stops nobody."""

    raised_level = False
    """The log's level is ours, and to be reset with the last handler."""

    def __init__(self, callback: Callable[[str], object]) -> None:
        super().__init__()
        self._callback = callback
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = start_thread(self._run, "dunnart-ecos-log")

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        if self._lines.qsize() < _LINES_AHEAD:
            connection = getattr(record, "connection", None)
            head = "" if connection is None else f"connection {connection.id}: "
            self._lines.put(head + record.getMessage())

    def close(self) -> None:
        """Deliver what there is, for a second."""
        self._lines.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)
        super().close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(Exception):  # there is nowhere to tell it
                self._callback(line)
