"""What `dunnart scp` prints, with a server at the other end of pipes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

# In the place of ssh: `scp` is our own server side, anything else fails.
SSH = """\
#!{python}
import sys
from dunnart.scp import Places, ScpCommand, serve
from dunnart.sftp import LocalFiles
command = ScpCommand.parse(sys.argv[-1].encode())
def write(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
sys.exit(serve(command, Places(LocalFiles(start={folder!r})), sys.stdin.buffer.raw.read, write))
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dunnart", "scp", *words], capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_a_directory_without_r(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    server = shlex.join([sys.executable, "-m", "dunnart", "sftp-server"])
    done = run(tmp_path, "-D", server, "w", "host:copy")
    assert done.returncode == 1
    assert done.stderr == "dunnart scp: w: is a directory; -r (recursive) copies directories\n"


@pytest.mark.parametrize("places", [("w", "host:copy"), ("host:w", "copy")])
def test_by_scp_an_error_is_told_once(tmp_path: Path, places: tuple[str, str]) -> None:
    (tmp_path / "w").mkdir()
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH.format(python=sys.executable, folder=str(tmp_path)))
    ssh.chmod(0o755)
    done = run(tmp_path, "-O", "-S", str(ssh), *places)
    assert done.returncode == 1
    assert done.stderr == "dunnart scp: w: not a regular file; -r copies directories\n"


def test_by_scp_several_sources_want_a_directory_wherever_they_are(tmp_path: Path) -> None:
    for name in ("a", "b", "target"):
        (tmp_path / name).write_text(name)
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH.format(python=sys.executable, folder=str(tmp_path)))
    ssh.chmod(0o755)
    done = run(tmp_path, "-O", "-S", str(ssh), "a", "host:b", "host:target")
    assert done.returncode == 1
    assert "Not a directory" in done.stderr
    assert (tmp_path / "target").read_text() == "target"
