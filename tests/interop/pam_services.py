"""Service files for PAM that a test writes below a name of its own, and removes."""

from __future__ import annotations

import ctypes.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

MODULES = ("/lib/x86_64-linux-gnu/security", "/lib/aarch64-linux-gnu/security", "/lib64/security", "/lib/security",
           "/usr/lib/security")  # fmt: skip
needs_pam = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0 or ctypes.util.find_library("pam") is None
    or not any(os.path.exists(f"{folder}/pam_debug.so") for folder in MODULES),
    reason="only root on Linux with PAM can have a service of its own",
)  # fmt: skip
PERMIT = "auth required pam_permit.so\naccount required pam_permit.so\npassword required pam_permit.so\n"
PERMIT += "session required pam_permit.so\n"


@contextmanager
def services() -> Iterator[Callable[[str], str]]:
    """Give a function that writes a service and gives its name."""
    made: list[Path] = []

    def write(text: str) -> str:
        path = Path(f"/etc/pam.d/dunnart-test-{uuid4().hex[:12]}")
        made.append(path)
        path.write_text(text)
        return path.name

    try:
        yield write
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def program(folder: Path, text: str, name: str = "program") -> Path:
    """Write a shell script for pam_exec."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path
