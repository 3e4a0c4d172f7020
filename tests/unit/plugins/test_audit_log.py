"""Audit events as lines of JSON."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from dunnart.plugins.audit_log import Options, audit_log
from dunnart.server.facts import Address
from dunnart.server.interfaces import AuditEvent, AuditSink, Details
from dunnart.server.plugins import Context

LOG = logging.getLogger("dunnart.plugin.log")


def sink(**options: Any) -> AuditSink:
    return audit_log(Context("log", Options(**options), LOG))


def event(user: str = "ada", **details: Any) -> AuditEvent:
    known: Details = details
    return AuditEvent(1700000000.12345, "session-begin", 7, user, Address("192.0.2.1", 50022), known)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_has_everything(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    made = sink(file=str(path))
    made.record(event(what="exec", session=3))
    made.record(event())
    own = {"time": 1700000000.123, "event": "session-begin", "connection": 7, "user": "ada", "address": "192.0.2.1",
           "port": 50022}  # fmt: skip
    assert lines(path) == [{**own, "what": "exec", "session": 3}, own]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_file_it_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    sink().record(event(method="password"))
    [record] = caplog.records
    assert record.name == "dunnart.plugin.log"
    assert json.loads(record.getMessage())["method"] == "password"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\x1b[31m", "a\nb\r\x1b[31m"),  # escaped by JSON
        ('"}{"', '"}{"'),
        ("\udcff\u2028é", "\\udcff\u2028é"),
        ("\ud800", "\\ud800"),
        ("x" * 21, "x" * 20 + "..."),
    ],
)
def test_what_a_peer_sends_stays_on_its_line(tmp_path: Path, text: str, shown: str) -> None:
    path = tmp_path / "audit"
    sink(file=str(path), text_characters=20).record(event(user=text, detail=text))
    [line] = path.read_bytes().splitlines()
    assert line.decode("ascii").isprintable()
    assert (json.loads(line)["user"], json.loads(line)["detail"]) == (shown, shown)


def test_no_detail_takes_the_place_of_a_fact(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    sink(file=str(path)).record(event(user_=1, address="elsewhere", time=0))
    [line] = lines(path)
    assert (line["address"], line["time"]) == ("192.0.2.1", 1700000000.123)


def test_a_file_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    made = sink(file=str(path))
    made.record(event(user="one"))
    os.rename(path, tmp_path / "old")
    made.record(event(user="two"))
    made.record(event(user="three"))
    path.unlink()
    made.record(event(user="four"))
    assert [line["user"] for line in lines(tmp_path / "old")] == ["one"]
    assert [line["user"] for line in lines(path)] == ["four"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    for user in ("one", "two"):
        sink(file=str(path)).record(event(user=user))
    assert [line["user"] for line in lines(path)] == ["one", "two"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    made = sink(file=str(tmp_path / "audit"))
    os.unlink(tmp_path / "audit")
    made.record(event())
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    del made
    assert len(os.listdir("/proc/self/fd")) <= before


def test_what_cannot_be_used() -> None:
    with pytest.raises(ValueError, match="file must be an absolute path, not 'x'"):
        Options(file="x")
    with pytest.raises(ValueError, match="text_characters must be at least 1"):
        Options(text_characters=0)
    with pytest.raises(FileNotFoundError):
        sink(file="/nowhere/audit")
