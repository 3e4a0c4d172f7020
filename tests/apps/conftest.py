"""Coroutine tests run, and what every test in this folder shares."""

from __future__ import annotations

from tests.runtime.driver import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
