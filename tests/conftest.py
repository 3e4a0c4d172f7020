"""What every test shares."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Machines that run tests are busy: hypothesis's own time limits would measure them and not the code.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
