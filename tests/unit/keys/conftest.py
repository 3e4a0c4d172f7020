"""Keys made by the real ssh-keygen."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Keygen = Callable[..., str]


@pytest.fixture(scope="session")
def keygen() -> Keygen:
    """Run ssh-keygen with arguments, return its output."""
    program = shutil.which("ssh-keygen")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("ssh-keygen is missing")
        pytest.skip("ssh-keygen is missing")

    def run(*arguments: str | Path, stdin: bytes = b"", status: int = 0) -> str:
        done = subprocess.run([program, *map(str, arguments)], input=stdin, capture_output=True, check=False)
        assert done.returncode == status, done.stderr.decode()
        return done.stdout.decode()

    return run


@pytest.fixture(scope="session")
def make_key(keygen: Keygen, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a key file of a type, "ed25519" or "rsa:2048", once a session for each set of arguments."""
    folder = tmp_path_factory.mktemp("keys")
    made: dict[tuple[str, ...], Path] = {}

    def make(kind: str, passphrase: str = "", *arguments: str) -> Path:
        wanted = (kind, passphrase, *arguments)
        if wanted not in made:
            path = folder / f"key{len(made)}"
            name, _, bits = kind.partition(":")
            size = ("-b", bits) if bits else ()
            # -a 4: few rounds, for the test's time
            keygen("-q", "-t", name, *size, "-a", "4", "-N", passphrase, "-C", "a comment", *arguments, "-f", path)
            made[wanted] = path
        return made[wanted]

    return make
