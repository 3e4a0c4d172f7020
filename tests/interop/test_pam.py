"""Logins through PAM's real modules with OpenSSH's client."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.pam_services import needs_pam, program, services
from tests.interop.support import SECONDS, Served, answering, eventually

pytestmark = needs_pam


@pytest.fixture
def service() -> Iterator[Callable[[str], str]]:
    with services() as write:
        yield write


def stack(tmp_path: Path) -> str:
    """A stack that says something, asks for a password, and keeps a record of sessions."""
    (tmp_path / "note").write_text("Mind the gap.\n")
    (tmp_path / "variables").write_text("COLOUR=blue\n")
    check = program(tmp_path, '[ "$(tr -d "\\0")" = secret ]', "check")
    tell = program(tmp_path, f'echo "$PAM_TYPE $PAM_RHOST" >>{tmp_path}/told', "tell")
    return f"""\
auth requisite pam_echo.so file={tmp_path}/note
auth requisite pam_exec.so expose_authtok quiet {check}
auth required pam_permit.so
account required pam_permit.so
session required pam_exec.so quiet {tell}
session required pam_env.so conffile=/dev/null envfile={tmp_path}/variables readenv=1
"""


def log_in(server: Served, method: str, answer: str, command: str = "echo $COLOUR") -> subprocess.CompletedProcess[str]:
    options = ["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=INFO"]
    options += ["-o", f"PreferredAuthentications={method}"]
    line, env = OpenSsh().command(server, *options)
    env |= answering(server, {"assword": answer})
    return subprocess.run([*line, command], env=env, capture_output=True, text=True, timeout=SECONDS, check=False)


def started(start: Serve, tmp_path: Path, name: str, *flags: str) -> Served:
    path = tmp_path / "dunnart.toml"
    path.write_text(
        'authenticators = ["authorized-keys", "pam", "pam-password"]\npermit_root_login = "yes"\n'
        f'[plugin.pam]\nservice = "{name}"\n[plugin.pam-password]\nservice = "{name}"\n'
    )
    return start("--config", str(path), *flags)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("method", ["keyboard-interactive", "password"])
def test_a_login_its_variables_and_its_session(
    start: Serve, tmp_path: Path, service: Callable[[str], str], method: str, workers: int
) -> None:
    server = started(start, tmp_path, service(stack(tmp_path)), "--workers", str(workers))
    done = log_in(server, method, "secret", f"echo $COLOUR; cat {tmp_path}/told")
    assert done.stdout.splitlines() == ["blue", "open_session 127.0.0.1"], done.stderr + server.log
    told = tmp_path / "told"
    assert eventually(lambda: told.read_text().splitlines() == ["open_session 127.0.0.1", "close_session 127.0.0.1"])
    if method == "keyboard-interactive":
        assert "Mind the gap." in done.stderr


@pytest.mark.parametrize("method", ["keyboard-interactive", "password"])
def test_a_wrong_password(start: Serve, tmp_path: Path, service: Callable[[str], str], method: str) -> None:
    server = started(start, tmp_path, service(stack(tmp_path)))
    done = log_in(server, method, "wrong")
    assert (done.returncode, done.stdout) == (255, "")
    assert "Permission denied" in done.stderr
    assert server.logs("pam_authenticate: ")
    assert not (tmp_path / "told").exists()
