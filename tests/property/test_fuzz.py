"""The fuzzers run, and for a moment find nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_FOUND = importlib.util.spec_from_file_location("parsers", Path(__file__).parents[2] / "fuzz" / "parsers.py")
assert _FOUND is not None
assert _FOUND.loader is not None
parsers = importlib.util.module_from_spec(_FOUND)
_FOUND.loader.exec_module(parsers)


@pytest.mark.parametrize("name", parsers.PARSERS)
def test_mutated_inputs_raise_nothing_of_their_own(name: str) -> None:
    assert parsers.fuzz(name, 0.3, seed=1) > 10
