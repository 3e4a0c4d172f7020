"""Logins in a browser with OpenSSH's client, which asks its user through SSH_ASKPASS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Served
from tests.oidc_provider import CLIENT, Provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


def serving(start: Serve, provider: Provider, tmp_path: Path, *flags: str, seconds: int = 20) -> Served:
    config = tmp_path / "dunnart.toml"
    config.write_text(
        f'authenticators = ["oidc", "authorized-keys"]\n[plugin.oidc]\nissuer = "{provider.issuer}"\n'
        f'client_id = "{CLIENT}"\nseconds = {seconds}\n'
    )
    return start("--config", str(config), "--permit-root-login", "yes", *flags)


def log_in(server: Served, address: str) -> subprocess.CompletedProcess[str]:
    """Log in as somebody whose way to "press Enter" is to open an address."""
    asker = server.folder / "press-enter"
    asker.touch(0o700)
    asker.write_text(
        f"#!{sys.executable}\nimport urllib.request\nurllib.request.urlopen({address!r}).read()\nprint()\n"
    )
    line, env = OpenSsh().command(
        server, "-o", "BatchMode=no", "-o", "PreferredAuthentications=keyboard-interactive", "-o", "LogLevel=INFO"
    )
    env |= {"SSH_ASKPASS": str(asker), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":9"}
    return subprocess.run([*line, "echo in"], env=env, capture_output=True, text=True, timeout=SECONDS, check=False,
                          stdin=subprocess.DEVNULL)  # fmt: skip


@pytest.mark.parametrize("flags", [(), ("--workers", "1")])
def test_a_login(start: Serve, provider: Provider, tmp_path: Path, flags: tuple[str, ...]) -> None:
    server = serving(start, provider, tmp_path, *flags)
    provider.claims["preferred_username"] = server.user
    done = log_in(server, f"{provider.issuer}/approve")
    assert done.stdout == "in\n", done.stderr
    assert f"open {provider.issuer}/enter in a browser and enter the code WDJB-MJHT" in done.stderr
    assert server.logs("Accepted keyboard-interactive")
    assert server.logs(f"{server.user} logs in as {server.user}")


def test_somebody_else(start: Serve, provider: Provider, tmp_path: Path) -> None:
    server = serving(start, provider, tmp_path)
    provider.claims["preferred_username"] = "somebody-else"
    done = log_in(server, f"{provider.issuer}/approve")
    assert (done.returncode, done.stdout) == (255, "")
    assert server.logs("somebody-else may not log in as this user")


def test_an_issuer_that_hangs_holds_up_no_other_way_in(start: Serve, provider: Provider, tmp_path: Path) -> None:
    server = serving(start, provider, tmp_path, seconds=1)
    provider.paused.clear()
    line, env = OpenSsh().command(
        server, "-o", "BatchMode=no", "-o", "PreferredAuthentications=keyboard-interactive", "-o", "LogLevel=INFO"
    )
    waiting = [
        subprocess.Popen([*line, "echo in"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL)
        for _ in range(10)
    ]  # fmt: skip
    try:
        assert OpenSsh().run(server, "echo in").out == b"in\n"
        assert [each.wait(SECONDS) for each in waiting] == [255] * 10
    finally:
        for each in waiting:
            each.kill()
            each.communicate()
    assert server.logs("Failed keyboard-interactive")
