"""A server of `dunnart.testing`, and OpenSSH's client for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dunnart.testing.ssh_server import SshServer
from tests.interop.support import program
from tests.unit.testing.clients import SECONDS, Ssh


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    with SshServer(folder=tmp_path) as made:
        yield made
    assert made.failures == []


@pytest.fixture
def ssh(server: SshServer) -> Ssh:
    """Runs a command by OpenSSH's client."""
    program("ssh")

    def run(command: str = "", *options: str, user: str | None = None, stdin: bytes = b"") -> Any:
        argv = server.command(command, user=user, options=options)
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=SECONDS, check=False)

    return run
