"""The programs themselves: what they load, what they print, how they end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dunnart.tools.main import main

_LOADED = """\
import sys
from dunnart.tools.main import main
assert main(["ssh", "-G", "-F", "none", "host"]) == 0
print(*sys.modules)
"""


def test_little_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True)
    options, _, modules = done.stdout.strip().rpartition("\n")
    assert "hostname host" in options.splitlines()
    loaded = set(modules.split())
    assert "dunnart.client.connection" in loaded
    for name in ("argparse", "dunnart.server", "dunnart.daemon", "dunnart.plugins", "dunnart.sftp", "urllib.parse"):
        assert name not in loaded, name
    assert "_ssl" not in loaded


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("ssh", 255, "a host is missing"), ("dbclient", 1, "a host is missing"), ("ssh -Q nothing", 255, "-Q nothing"),
        ("ssh -Z host", 255, "option -Z not recognized"), ("ssh -F /nowhere/x host", 255, "/nowhere/x: cannot be read"),
        ("ssh -F none -f host", 255, "-f wants a command"), ("ssh -F none -s host", 255, "a subsystem is to be named"),
        ("ssh -F none -e ab host", 255, "is no character"), ("ssh -F none -L 1 host", 255, "localforward"),
        ("ssh -V", 0, "dunnart "), ("dbclient -V", 0, "dunnart "),
    ],
)  # fmt: skip
def test_how_they_end(line: str, status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ssh --help", "[user@]host"), ("dbclient -h", "host[^port]"), ("ssh -Q cipher", "aes128-ctr"),
        ("dbclient -m help", "hmac-sha2-256"), ("dbclient -o help", "batchmode"),
    ],
)  # fmt: skip
def test_what_they_print(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    assert said in capsys.readouterr().out
