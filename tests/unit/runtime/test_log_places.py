"""The log in syslog, in the journal, and in a file."""

from __future__ import annotations

import logging
import socket
import syslog
from pathlib import Path

import pytest

from dunnart.errors import ConfigError
from dunnart.runtime import log_places, logs

pytestmark = pytest.mark.usefixtures("restored")


class Context:
    id = 17
    user = "ann"
    peer = "192.0.2.1:5"


def log_all() -> None:
    logger = logging.getLogger("dunnart.auth")
    for level in ("critical", "error", "warning", "info", "debug"):
        getattr(logger, level)("%s", level, extra={"connection": Context()})


def test_syslog(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    sent: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "openlog", lambda *arguments: opened.append(arguments))
    monkeypatch.setattr(syslog, "syslog", lambda *arguments: sent.append(arguments))
    logs.setup(to="syslog:local3")
    logs.setup("debug", to="syslog")
    log_all()
    assert opened == [("dunnart", syslog.LOG_PID, facility) for facility in (syslog.LOG_LOCAL3, syslog.LOG_AUTH)]
    assert all(hasattr(syslog, f"LOG_{name.upper()}") for name in logs.FACILITIES)
    assert sent == [
        (syslog.LOG_CRIT, "critical/auth/17 critical"),
        (syslog.LOG_ERR, "error/auth/17 error"),
        (syslog.LOG_WARNING, "warning/auth/17 warning"),
        (syslog.LOG_INFO, "info/auth/17 info"),
        (syslog.LOG_DEBUG, "debug/auth/17 debug"),
    ]


def test_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "journal")
    monkeypatch.setattr(log_places.JournalHandler.__init__, "__defaults__", (path,))
    with pytest.raises(ConfigError, match="log_to: there is no journal at"):
        logs.setup(to="journald")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        journal.settimeout(20)
        logs.setup("info", to="journald")
        logging.getLogger("dunnart.auth").info("a\nPRIORITY=0", extra={"connection": Context()})
        assert journal.recv(4096).decode().splitlines() == [
            "MESSAGE=info/auth/17 a\\x0aPRIORITY=0",
            "PRIORITY=6",
            "SYSLOG_IDENTIFIER=dunnart",
            "SYSLOG_FACILITY=4",
            "DUNNART_CONNECTION=17",
        ]
    logging.getLogger("dunnart.auth").info("nobody is there any more")


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    logs.setup(to=str(path))
    logging.getLogger("dunnart.server").info("hello")
    with pytest.raises(ConfigError, match="log_to: cannot be written"):
        logs.setup(to=str(tmp_path / "nowhere/log"))
    logging.getLogger("dunnart.server").info("still here")
    lines = path.read_text().splitlines()
    assert lines[0] == "before"
    assert [line.partition(" ")[2] for line in lines[1:]] == ["info/server hello", "info/server still here"]
