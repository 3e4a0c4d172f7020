"""What every test shares."""

from __future__ import annotations

import gc
import os

from hypothesis import HealthCheck, settings

# Machines that run tests are busy: hypothesis's own time limits would measure them and not the code.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", settings.get_profile("default"), print_blob=True, derandomize=True
)  # finding is for laptops
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long values after their argument: generated keys differ between workers, which must agree on every name."""
    return argname if isinstance(val, bytes | str) and len(val) > 32 else None


def pytest_collection_finish() -> None:
    """Take what is there now out of the collector's sight: tests that look for leaks have it run very often."""
    gc.collect()
    gc.freeze()
