"""The player of transcripts sees when something else happens than they show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs import transcripts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a program that asks, and is called as the real one is."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nprintf "name? "\nread name\necho "hello $name"\nstty size\nexit 3\n')
    ssh.chmod(0o700)
    return tmp_path


RIGHT = """\
$ ssh host
name? Ann
hello …
60 100
$ echo $?
3
"""


def played(block: str, folder: Path) -> None:
    transcripts.play(block, folder, {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "TERM": "xterm"})


def test_right_transcript(folder: Path) -> None:
    played(RIGHT, folder)


def test_size_changes(folder: Path) -> None:
    played("$ ssh host\n# Make it 80 columns and 24 rows.\nname? Ann\nhello Ann\n24 80\n", folder)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("name?", "nam?"),
        ("hello …", "bye …"),
        ("hello …\n", ""),
        ("60 100\n", "60 100\nmore\n"),
        ("3\n", "0\n"),
        ("$ echo $?\n", "$ true\n"),
    ],
)
def test_wrong_transcripts(right: str, wrong: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "SECONDS", 1.0)  # what is awaited does not come
    assert right in RIGHT
    with pytest.raises(AssertionError, match="the terminal shows"):
        played(RIGHT.replace(right, wrong), folder)


def test_text_without_a_command(folder: Path) -> None:
    with pytest.raises(AssertionError, match="no command"):
        played("hello\n", folder)
