"""A key, and then a code: OpenSSH's client in a chain of two methods."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from dunnart.tools.totp import write_secret
from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Served, answering

pyotp = pytest.importorskip("pyotp")
SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
TEXT = """\
authenticators = ["authorized-keys", "totp"]
methods = ["publickey,keyboard-interactive"]
permit_root_login = "yes"
[plugin.totp]
file = "{}/%u"
"""


@pytest.fixture
def server(start: Serve, tmp_path: Path) -> Served:
    path = tmp_path / "dunnart.toml"
    path.write_text(TEXT.format(tmp_path))
    running = start("--config", str(path))
    write_secret(str(tmp_path / running.user), SECRET)
    return running


def log_in(server: Served, answer: str, *, key: bool = True) -> subprocess.CompletedProcess[str]:
    options = ["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1"]
    options += [] if key else ["-o", "PubkeyAuthentication=no"]
    line, env = OpenSsh().command(server, *options)
    env |= answering(server, {"Verification code": answer})
    return subprocess.run([*line, "echo in"], env=env, capture_output=True, text=True, timeout=SECONDS, check=False)


def code() -> str:
    """That of the next half minute, which counts already: the one of the server's start does not."""
    found: str = pyotp.TOTP(SECRET).at(time.time() + 30)
    return found


def test_a_key_and_a_code(server: Served) -> None:
    answer = code()
    done = log_in(server, answer)
    assert done.stdout == "in\n", done.stderr + server.log
    again = log_in(server, answer)
    assert (again.returncode, again.stdout) == (255, "")
    assert "Permission denied (keyboard-interactive)" in again.stderr
    assert server.logs("was used before")
    assert server.logs("Partial publickey for")


def test_a_code_alone_is_not_asked_for(server: Served) -> None:
    done = log_in(server, code(), key=False)
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_a_wrong_code_is_refused(server: Served) -> None:
    assert log_in(server, "no code").returncode == 255
    assert server.logs("the code is wrong")
