"""What the commands of `dunnart sftp` print, with a server at the other end of pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVER = f"{sys.executable} -m dunnart sftp-server"


# Tells neither owners nor groups.
NO_OWNERS = """\
import os
from dunnart.sftp import LocalFiles, serve, server
from dunnart.wire.encoding import uint32
server.encode_status = lambda status: uint32(4) + uint32(status.st_mode)
serve(LocalFiles(start=os.getcwd()), 0, 1)
"""


def run(folder: Path, script: str, server: str = SERVER) -> subprocess.CompletedProcess[str]:
    """Run a batch of commands; both sides begin in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "dunnart", "sftp", "-D", server, "-b", "-"], input=script, capture_output=True,
        text=True, check=False, cwd=folder, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_transfers_name_the_files_that_they_make(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "w" / "x").write_text("data")
    done = run(
        tmp_path, f"put w/x\nput w/x there\nput w/x there/y\nget {tmp_path}/there/x\nget there/x w/z\nget w/x w\n"
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith(("Uploading", "Fetching"))]
    assert told == [
        f"Uploading w/x to {tmp_path}/x",
        f"Uploading w/x to {tmp_path}/there/x",
        f"Uploading w/x to {tmp_path}/there/y",
        f"Fetching {tmp_path}/there/x to x",
        f"Fetching {tmp_path}/there/x to w/z",
        f"Fetching {tmp_path}/w/x to w/x",
    ]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("chmod u+x f", "u+x is no octal mode, such as 644"),
        ("lumask 9", "9 is no octal mode, such as 644"),
        ("chown ann f", "ann is no number up to 4294967295; names of users and groups are not known here"),
        ("chgrp 4294967296 f", "4294967296 is no number up to 4294967295"),
    ],
)
def test_what_is_no_number(tmp_path: Path, command: str, said: str) -> None:
    done = run(tmp_path, f"{command}\n")
    assert done.returncode == 1
    assert said in done.stderr


def test_what_is_not_told_is_not_set(tmp_path: Path) -> None:
    """Owner and group are only set together, so that one alone would be neither."""
    (tmp_path / "f").touch()
    server = f"{sys.executable} {tmp_path / 'server'}"
    (tmp_path / "server").write_text(NO_OWNERS)
    done = run(tmp_path, "chown 1 f\n", server)
    assert done.returncode == 1
    assert "the server tells no owners" in done.stderr
