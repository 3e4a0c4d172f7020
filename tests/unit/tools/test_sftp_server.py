"""The flags of `dunnart sftp-server`, and its log; tests/interop runs it beside OpenSSH's."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from dunnart.tools.sftp_log import ERROR, FACILITIES, INFO, Log, vis
from dunnart.tools.sftp_server import run


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["-P", "remove,renam"], 255, "-P: 'renam' is no request; -Q requests lists them"),
        (["-p", "open", "-popen"], 255, "-p is given twice"),
        (["-l", "LOUD"], 255, "-l: 'LOUD' is none of QUIET, FATAL, "),
        (["-eflocal9"], 255, "-f: 'local9' is none of DAEMON, "),
        (["-d", "%x"], 255, "'%x' holds a % before something else"),
        (["-d", "50%"], 255, "'50%' holds a % before something else"),
        (["-u", "0x1"], 255, "'0x1' is no umask"),
        (["-u", "-1"], 255, "'-1' is no umask"),
        (["-eRz"], 1, "there is no flag -z"),
        (["-eu"], 1, "-u wants a value"),
        (["-Q", "ciphers"], 1, "-Q knows nothing but requests"),
        (["-h"], 1, "usage: dunnart sftp-server"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_flag_ends_it(
    capfd: pytest.CaptureFixture[str], arguments: list[str], status: int, text: str
) -> None:
    assert run(arguments) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert text in err


@pytest.mark.parametrize("facility", ["", "local3"])
def test_the_systems_log_takes_the_lines(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], facility: str
) -> None:
    calls: list[tuple[Any, ...]] = []
    fake = SimpleNamespace(
        LOG_PID=1, LOG_CRIT=2, LOG_ERR=3, LOG_INFO=6, LOG_DEBUG=7, openlog=lambda *words: calls.append(words),
        syslog=lambda *words: calls.append(words), **{f"LOG_{name}": name for name in FACILITIES},
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "syslog", fake)
    log = Log(INFO, facility.upper() or "AUTH")
    log(INFO, "a line")
    log(ERROR, "an error")
    log(INFO + 1, "nobody wants this")
    assert calls == [("sftp-server", 1, facility.upper() or "AUTH"), (6, "a line"), (3, "an error")]
    assert capfd.readouterr().err == ""


def test_names_stay_on_one_line_of_the_log() -> None:
    assert vis(b"a\nb\x1b[2J \xff \xc3\xbc") == "a\\012b\\033[2J \\xff ü"
    assert os.linesep not in vis(bytes(range(256)))
