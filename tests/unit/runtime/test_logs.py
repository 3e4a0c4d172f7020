"""Log lines: nothing raw, one a line, and such that fail2ban's sshd filter finds what it looks for."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.runtime import logs


class Connection(NamedTuple):
    id: int = 17
    user: str = "alice"
    peer: str = "192.0.2.1:50022"


@given(st.one_of(st.text(max_size=400), st.binary(max_size=900)), st.booleans())
def test_clean_text_is_printable_short_and_tells_what_was_there(value: str | bytes, word: bool) -> None:
    shown = logs.clean(value, word=word)
    assert shown.isprintable()
    assert len(shown) <= 200
    assert not (word and " " in shown)
    if isinstance(value, str) and not shown.endswith("..."):
        assert re.sub(r"\\(\\|x..|u....|U........)", _unescape, shown) == value


def _unescape(found: re.Match[str]) -> str:
    if found[1] == "\\":
        return "\\"
    code = int(found[1][1:], 16)
    return chr(code)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain text", "plain text"),
        ("größe 漢字", "größe 漢字"),
        ("a\nb\r\x1b[31m\0", r"a\x0ab\x0d\x1b[31m\x00"),
        ("\u202eevil\u00a0\U000e0001", r"\u202eevil\xa0\U000e0001"),
        (r"a\x0a", r"a\\x0a"),
        (b"caf\xc3\xa9 \xff", r"café \xff"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 197 + "..."),
        (b"x" * 100_000, "x" * 197 + "..."),
        ("x" * 195 + "\n" * 2, "x" * 195 + "..."),
    ],
)
def test_clean(value: str | bytes, shown: str) -> None:
    assert logs.clean(value) == shown


def test_a_name_is_one_word() -> None:
    assert logs.clean("a b ", word=True) == r"a\x20b\x20"
    assert logs.invalid_user("a b", "192.0.2.1", 1) == r"Invalid user a\x20b from 192.0.2.1 port 1"


@pytest.mark.usefixtures("restored")
def test_text_lines() -> None:
    stream = io.StringIO()
    logs.setup("info", {"auth": "debug", "session": "error"}, "text", stream)
    logs.report(logging.getLogger("dunnart.auth"), logging.DEBUG, Connection(), "shown %d", 1)
    logs.report(logging.getLogger("dunnart.session"), logging.WARNING, Connection(), "not shown")
    logging.getLogger("dunnart.server").info("no connection\nbut a line end")
    logging.getLogger("dunnart.server").debug("not shown")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
    assert re.fullmatch(stamp + r"debug/auth/17 shown 1", lines[0])
    assert re.fullmatch(stamp + r"info/server no connection\\x0abut a line end", lines[1])


@pytest.mark.usefixtures("restored")
def test_json_lines() -> None:
    stream = io.StringIO()
    logs.setup("info", None, "json", stream)
    logs.report(logging.getLogger("dunnart.auth"), logging.INFO, Connection(user="a\nb"), "hello\n%s", "you")
    logging.getLogger("dunnart.server").warning("alone")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "info", "part": "auth", "connection": 17, "user": r"a\x0ab", "peer": "192.0.2.1:50022",
        "message": "hello\nyou",
    }  # fmt: skip
    assert {key: value for key, value in second.items() if key != "time"} == {
        "level": "warning", "part": "server", "message": "alone",
    }  # fmt: skip


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_stays_on_its_line(form: str) -> None:
    stream = io.StringIO()
    logs.setup("info", None, "json" if form == "json" else "text", stream)
    try:
        int("two\nlines \x1b[0m")
    except ValueError:
        logging.getLogger("dunnart.session").exception("handler failed")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "handler failed" in stream.getvalue()
    assert "ValueError: invalid literal" in stream.getvalue()


@pytest.mark.usefixtures("restored")
def test_the_journal_keeps_the_time_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        logs.setup(stream=stream)
        logging.getLogger("dunnart.server").info("hello")
        stream.seek(0)
        assert stream.read() == "<6>info/server hello\n"


def test_importing_sets_nothing_up() -> None:
    program = "import logging, dunnart.runtime.logs; print(logging.getLogger().handlers, logging.logThreads)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True"]


ADDRESS = "192.0.2.1"
KEY = "ED25519 SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
EVIL = "root from 10.9.8.7 port 22 ssh2"

INVALID_BY_KEY = logs.failed("publickey", "bob", ADDRESS, 50022, invalid=True, detail=KEY)
FAILURES = [
    logs.failed("password", "bob", ADDRESS, 50022),
    logs.failed("password", "bob", ADDRESS, 50022, invalid=True),
    logs.failed("password", EVIL, ADDRESS, 50022, invalid=True),
    logs.failed("password", "a\nFailed password for root from 10.9.8.7 port 22 ssh2", ADDRESS, 50022),
    logs.failed("keyboard-interactive/pam", "bob", ADDRESS, 50022),
    logs.failed("none", "bob", ADDRESS, 50022, invalid=True),
    logs.invalid_user("bob", ADDRESS, 50022),
    logs.invalid_user(EVIL, ADDRESS, 50022),
    logs.too_many_failures("bob", ADDRESS, 50022),
    logs.too_many_failures("bob", ADDRESS, 50022, invalid=True),
]
AGGRESSIVE_FAILURES = [
    logs.ended(ADDRESS, 50022),
    logs.ended(ADDRESS, 50022, user="bob"),
    logs.ended(ADDRESS, 50022, user=EVIL, invalid=True, how="Connection reset"),
    logs.ended(ADDRESS, 50022, user="bob", invalid=True, how="Disconnected"),
    logs.no_identification(ADDRESS, 50022),
    logs.bad_identification(ADDRESS, 50022),
    logs.not_negotiated(ADDRESS, 50022, "no matching key exchange method found. Their offer: a,b"),
    logs.received_disconnect(ADDRESS, 50022, 14, "No supported authentication methods available"),
]
HARMLESS = [
    logs.accepted("publickey", "alice", ADDRESS, 50022, KEY),
    logs.accepted("password", "alice", ADDRESS, 50022),
    logs.partial("publickey", "alice", ADDRESS, 50022, KEY),
    logs.failed("publickey", "alice", ADDRESS, 50022, detail=KEY),  # every client tries several keys
    INVALID_BY_KEY,  # the filter counts the line "Invalid user" that goes with it
    logs.received_disconnect(ADDRESS, 50022, 11, "disconnected by user", before_login=False),
    logs.ended(ADDRESS, 50022, how="Disconnected", user="alice", before_login=False),
    logs.grace_exceeded(ADDRESS, 50022),
    logs.refused(ADDRESS, 50022, "penalty: failed authentication"),
]


def fail2ban_matches(messages: list[str], filter_name: str, folder: Path, *, journal: bool = False) -> list[str]:
    """Give the messages that fail2ban counts as failures, each logged on a connection of its own."""
    program = shutil.which("fail2ban-regex")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("fail2ban-regex is not installed")
    formatter = logs.TextFormatter(timed=not journal)
    record = logging.LogRecord("dunnart.auth", logging.INFO, "", 0, "", (), None)
    lines = []
    for number, message in enumerate(messages):
        record.msg = message
        record.connection = Connection(number)
        # fail2ban makes such a line of an entry of the journal.
        lines.append(("2026-10-01T12:00:00 host dunnart[4711]: " if journal else "") + formatter.format(record))
    log = folder / "log"
    log.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    done = subprocess.run(
        [program, "--print-all-matched", log, filter_name], capture_output=True, text=True, check=False
    )
    matched = re.search(r"^Lines: (\d+) lines, (\d+) ignored, (\d+) matched, (\d+) missed$", done.stdout, re.MULTILINE)
    assert matched is not None, done.stdout + done.stderr
    assert int(matched[1]) == len(messages)
    printed = done.stdout.partition("|- Matched line(s):")[2].partition("`-")[0].splitlines()
    found = [message for message, line in zip(messages, lines, strict=True) if f"|  {line}" in printed]
    assert len(found) == int(matched[3])
    return found


JOURNAL_FILTER = r'[logtype=journal, _daemon="dunnart\[\d+\]: \S+"{}]'


@pytest.mark.interop
@pytest.mark.parametrize("journal", [False, True])
def test_fail2ban_finds_the_failures_and_only_them(tmp_path: Path, journal: bool) -> None:
    name = "sshd" + (JOURNAL_FILTER.format("") if journal else "")
    assert fail2ban_matches(FAILURES + HARMLESS, name, tmp_path, journal=journal) == FAILURES


@pytest.mark.interop
@pytest.mark.parametrize("journal", [False, True])
def test_fail2ban_finds_more_in_aggressive_mode(tmp_path: Path, journal: bool) -> None:
    name = "sshd" + (JOURNAL_FILTER.format(", mode=aggressive") if journal else "[mode=aggressive]")
    wanted = FAILURES + AGGRESSIVE_FAILURES
    assert fail2ban_matches(wanted + HARMLESS, name, tmp_path, journal=journal) == wanted


@pytest.mark.interop
def test_fail2ban_counts_keys_of_invalid_users_when_asked(tmp_path: Path) -> None:
    wanted = [*FAILURES, INVALID_BY_KEY]
    assert fail2ban_matches(FAILURES + HARMLESS, "sshd[publickey=invalid]", tmp_path) == wanted


@pytest.mark.interop
def test_fail2ban_bans_the_right_address(tmp_path: Path) -> None:
    program = shutil.which("fail2ban-regex")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("fail2ban-regex is not installed")
    log = tmp_path / "log"
    log.write_text("".join(f"2026-10-01T12:00:00.000Z info/auth/{n} {line}\n" for n, line in enumerate(FAILURES)))
    done = subprocess.run([program, "-o", "ip", log, "sshd"], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [ADDRESS] * len(FAILURES)


def test_the_documented_filter_is_the_tested_one() -> None:
    assert logs.__doc__ is not None
    assert f"filter = sshd{JOURNAL_FILTER.format('')}" in logs.__doc__


def test_a_peer_without_an_address() -> None:
    assert logs.failed("password", "bob", "", 0) == "Failed password for bob from UNKNOWN port 0 ssh2"
