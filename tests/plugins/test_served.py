"""Built-in plug-ins in `dunnart serve`, with a real client."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import bcrypt
import pytest

from dunnart.daemon.ways_in import this_user
from tests.examples.driver import ROOT, SECONDS, program, until

USER = this_user().name
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Start a server whose password file has the user's password, "open sesame"; give the port."""
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    passwords.write_text(f"{USER}:{bcrypt.hashpw(b'open sesame', bcrypt.gensalt(4)).decode()}\n")
    with ExitStack() as stack:

        def begin(*options: str) -> int:
            arguments = [
                sys.executable, "-m", "dunnart", "serve", "--listen", "127.0.0.1:0", "--state-folder", str(tmp_path),
                "--authenticators", "password-file", "--plugin", f"password-file.file={passwords}",
                "--audit", "log", "--plugin", f"log.file={tmp_path / 'audit'}", *options,
            ]  # fmt: skip
            errors = stack.enter_context((tmp_path / "log").open("wb"))
            server = stack.enter_context(
                subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=errors, text=True)
            )
            stack.callback(server.terminate)
            assert server.stdout is not None
            found = re.match(r"listening on 127\.0\.0\.1:(\d+)$", server.stdout.readline())
            assert found, (tmp_path / "log").read_text()
            return int(found[1])

        yield begin


def ssh(port: int, folder: Path, password: str, command: str) -> subprocess.CompletedProcess[str]:
    askpass = folder / "askpass"
    askpass.write_text(f"#!/bin/sh\necho {password}\n")
    askpass.chmod(0o700)
    arguments = [
        program("ssh"), "-F", "none", "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
        "-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "PreferredAuthentications=password",
        "-o", "NumberOfPasswordPrompts=1", f"{USER}@127.0.0.1", command,
    ]  # fmt: skip
    environment = os.environ | {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":none"}
    return subprocess.run(arguments, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, timeout=SECONDS)  # fmt: skip


@pytest.mark.interop
def test_a_password_of_the_file_lets_in_and_the_audit_log_knows(serve: Callable[..., int], tmp_path: Path) -> None:
    port = serve("--permit-root-login", "yes")
    done = ssh(port, tmp_path, "open sesame", "echo in; exit 3")
    assert (done.stdout, done.returncode) == ("in\n", 3)
    wrong = ssh(port, tmp_path, "open barley", "echo in")
    assert (wrong.stdout, wrong.returncode) == ("", 255)
    assert "Permission denied" in wrong.stderr

    def events() -> list[dict[str, str]]:
        return [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]

    until(lambda: len(events()) >= 4, "all is recorded")
    assert [event["event"] for event in events()] == ["login", "session-begin", "session-end", "login-failed"]
    assert {event["user"] for event in events()} == {USER}
    assert events()[1]["detail"] == "echo in; exit 3"


@pytest.mark.interop
def test_what_is_switched_off_is_refused(serve: Callable[..., int], tmp_path: Path) -> None:
    port = serve("--permit-root-login", "yes", "--exec", "off")
    done = ssh(port, tmp_path, "open sesame", "echo in")
    assert done.stdout == ""
    assert "exec request failed" in done.stderr


@pytest.mark.interop
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be root")
def test_root_needs_more_than_a_password(serve: Callable[..., int], tmp_path: Path) -> None:
    done = ssh(serve(), tmp_path, "open sesame", "echo in")
    assert (done.stdout, done.returncode) == ("", 255)
    until(lambda: "root may not log in this way" in (tmp_path / "log").read_text(), "the log says so")
