"""What these tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from dunnart.runtime import logs


@pytest.fixture
def restored() -> Iterator[None]:
    """Undo what `setup` does to the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    switches = {name: getattr(logging, name) for name in ("logThreads", "logProcesses", "logMultiprocessing")}
    source = logging._srcfile
    yield
    for each in root.handlers:
        if each not in handlers:
            each.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, value in {**switches, "logAsyncioTasks": True, "_srcfile": source}.items():
        setattr(logging, name, value)
    for part in ("dunnart", *(f"dunnart.{part}" for part in logs.PARTS)):
        logging.getLogger(part).setLevel(logging.NOTSET)
