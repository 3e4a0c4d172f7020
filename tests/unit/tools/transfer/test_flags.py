"""The flags of sftp and scp, and what both say to a wrong command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dunnart.errors import ConfigError
from dunnart.tools.scp import run as run_scp
from dunnart.tools.sftp.program import run as run_sftp
from dunnart.tools.transfer.flags import TransferFlags


def test_flags() -> None:
    flags = TransferFlags(["-rp", "-P22", "-oUser=ann", "-o", "BatchMode yes", "-i", "k", "-4", "-J", "x", "f", "-r"],
                          "46rpP:o:i:J:")  # fmt: skip
    assert flags.rest == ["f", "-r"]
    assert (flags.connection.port, flags.connection.family, flags.connection.identities) == (22, "inet", ["k"])
    assert flags.connection.options == [("User", "ann"), ("BatchMode", "yes")]
    assert flags.connection.jump == "x"
    for wrong in (["-P", "0"], ["-P", "65536"], ["-P", "x"], ["-o", "User"], ["-P", "٣"]):
        with pytest.raises(ConfigError):
            TransferFlags(wrong, "P:o:")


@pytest.mark.parametrize(
    ("tool", "words", "status"),
    [
        ("scp", ["x"], 1), ("scp", ["--frob", "a", "b"], 1), ("scp", ["-P", "x", "a", "b"], 1),
        ("scp", ["scp://", "b"], 1), ("scp", ["-D", "x", "-O", "a:b", "c"], 1), ("scp", ["a:", "-oX:b"], 1),
        ("sftp", [], 1), ("sftp", ["a", "b", "c"], 1), ("sftp", ["-R", "0", "a"], 1), ("sftp", ["-oProxyCommand=x"], 1),
        ("scp", ["-oFrob=yes", "host:x", "y"], 255), ("scp", ["-J", "x:y", "host:x", "y"], 255),
        ("scp", ["-F", "x", "host:x", "y"], 255),
        ("scp", ["-oStrictHostKeyChecking=maybe", "host:x", "y"], 255), ("sftp", ["-oPort=x", "host"], 255),
        ("sftp", ["-S", "/no such/ssh", "host"], 255),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(
    capsys: pytest.CaptureFixture[str], tool: str, words: list[str], status: int
) -> None:
    assert {"scp": run_scp, "sftp": run_sftp}[tool](words) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"dunnart {tool}: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("run", [run_scp, run_sftp])
def test_help(capsys: pytest.CaptureFixture[str], run: Callable[[list[str]], int]) -> None:
    assert run(["-h"]) == 0
    assert "usage: dunnart s" in capsys.readouterr().out
