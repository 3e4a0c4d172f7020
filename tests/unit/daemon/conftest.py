"""Coroutine tests run."""

from __future__ import annotations

from tests.runtime.driver import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
