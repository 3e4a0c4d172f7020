"""Tests here are coroutine functions, on an event loop each; anything that is reported to the loop fails them."""

from tests.runtime.driver import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
