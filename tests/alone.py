"""Tests that measure a whole process, each in a process of its own: no other test's threads are counted there."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_SECONDS = 50.0


def alone(test: Callable[[], Any]) -> Callable[[], None]:
    """Have a test, which may be a coroutine function, run in a process of its own."""

    @functools.wraps(test)
    def started() -> None:
        command = [sys.executable, "-c", _RUN, test.__module__, test.__name__]
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
            timeout=_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return started


_RUN = "import sys; from tests.alone import run; run(*sys.argv[1:])"


def run(module: str, name: str) -> None:
    """Run it: what such a process does."""
    test = inspect.unwrap(getattr(import_module(module), name))
    if inspect.iscoroutinefunction(test):
        asyncio.run(test())
    else:
        test()
