"""Examples that run, terminals, and the visitor's key."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.driver import Example, Start, Terminal, Tmux, program


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The visitor's key."""
    path = tmp_path / "key"
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an example, which is stopped at the test's end and must end well."""
    running: list[Example] = []

    def begin(name: str, *arguments: str) -> Example:
        running.append(Example(name, tmp_path, *arguments))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """Run a command in a terminal; any number of them."""
    opened: list[Tmux] = []

    def begin(command: list[str]) -> Tmux:
        opened.append(Tmux(tmp_path / f"t{len(opened)}", command))
        return opened[-1]

    yield begin
    for each in opened:
        each.close()
