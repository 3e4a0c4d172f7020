"""Coroutine tests run, and packages can be installed for a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.packages import Site, imported_from
from tests.runtime.driver import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A folder for packages, which this process imports from."""
    with imported_from(tmp_path / "site") as made:
        yield made
