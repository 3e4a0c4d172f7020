"""Threads with a stack of a wanted size."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STACK_SIZE = threading.Lock()
"""The size of stacks to come is the process's."""


def start_thread(run: Callable[[], object], name: str, stack_bytes: int = 0) -> threading.Thread:
    """Start a thread that does not keep the program from ending.

    Args:
        run: what it does.
        name: its name.
        stack_bytes: the size of its stack; 0: the platform's.

    Raises:
        RuntimeError: the system gives no more threads.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    with _STACK_SIZE:
        before = threading.stack_size(stack_bytes) if stack_bytes else 0
        try:
            thread.start()
        finally:
            if stack_bytes:
                threading.stack_size(before)
    return thread
