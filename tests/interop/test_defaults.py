"""What `dunnart serve` does with files when nothing was configured: scp and sftp just work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import Serve
from tests.interop.support import Served
from tests.interop.tools import transfer as run


@pytest.mark.parametrize("flags", [(), ("-s",), ("-O",)])
def test_scp_works(server: Served, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """With -O it is the system's scp that serves, started by the plug-in for commands."""
    (tmp_path / "f").write_text("text")
    done = run(server, "scp", *flags, str(tmp_path / "f"), f"127.0.0.1:{tmp_path}/up")
    assert done.returncode == 0, done.stderr
    done = run(server, "scp", *flags, f"127.0.0.1:{tmp_path}/up", str(tmp_path / "back"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_text() == "text"


def test_sftp_begins_in_the_home(server: Served) -> None:
    done = run(server, "sftp", "-b", "-", "127.0.0.1", said="pwd\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"Remote working directory: {server.home}"


def test_sftp_can_be_switched_off(start: Serve) -> None:
    server = start("--subsystem", "sftp=off")
    done = run(server, "sftp", "-b", "-", "127.0.0.1", said="pwd\n")
    assert done.returncode == 255
    assert "subsystem request failed on channel 0" in done.stderr
