"""What ssh-audit says of the profiles."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Served, environment, missing


def audit(server: Served) -> dict[str, Any]:
    if find_spec("ssh_audit") is None:
        missing("the package ssh-audit")
    done = subprocess.run(
        [sys.executable, "-m", "ssh_audit.ssh_audit", "-j", "--skip-rate-test", "-t", "30", "-p", str(server.port),
         "127.0.0.1"],
        env=environment(server.folder), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def notes(found: dict[str, Any], *kinds: str) -> Iterator[str]:
    """Give what is said of algorithms."""
    for group in ("kex", "key", "enc", "mac"):
        assert found[group], group  # an audit of nothing finds nothing
        for algorithm in found[group]:
            for kind in kinds:
                for text in algorithm.get("notes", {}).get(kind, ()):
                    yield f"{group} {algorithm['algorithm']}: {kind}: {text}"


@pytest.mark.parametrize("types", [("ed25519",), ("ed25519", "rsa")])
def test_the_default_profile_has_no_failure(start: Serve, types: tuple[str, ...]) -> None:
    found = audit(start(*(word for each in types for word in ("--host-key-types", each))))
    assert list(notes(found, "fail")) == []
    assert found["cves"] == []


@pytest.mark.parametrize("types", [("ed25519",), ("ed25519", "rsa")])
def test_the_strict_profile_has_no_warning(start: Serve, types: tuple[str, ...]) -> None:
    found = audit(start("--profile", "strict", *(word for each in types for word in ("--host-key-types", each))))
    assert list(notes(found, "fail", "warn")) == []
    assert found["cves"] == []


def test_the_audit_sees_what_is_weak(start: Serve) -> None:
    found = audit(start("--profile", "legacy"))
    assert any("3des-cbc" in note for note in notes(found, "fail"))
