"""Reports of a process that serves files: what it may say, and how much of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest

from dunnart.errors import ConfigError
from dunnart.plugins.file_process import FileProcesses, _Reports
from dunnart.plugins.scp import Options as ScpOptions
from dunnart.sftp.options import FileOptions
from dunnart.tools.main import main

LOG = logging.getLogger("dunnart.plugin.files")


def reported(data: bytes) -> tuple[list[tuple[str, dict[str, Any]]], int]:
    """What comes of a process's words, and the most that was kept of them."""
    recorded: list[tuple[str, dict[str, Any]]] = []
    context = SimpleNamespace(id=1, user="u", peer="p")
    session: Any = SimpleNamespace(
        channel=0, facts=SimpleNamespace(connection=context),
        record=lambda kind, **details: recorded.append((kind, details)),
    )  # fmt: skip

    async def run() -> int:
        reader, writer = os.pipe()
        reports = _Reports(session, reader, LOG)
        most = 0
        os.set_blocking(writer, False)
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(writer, rest) :]
            except BlockingIOError:
                pass
            except BrokenPipeError:  # it is not listened to any more
                break
            await asyncio.sleep(0)
            most = max(most, len(reports._rest))
        os.close(writer)
        while not closed(reader):  # noqa: ASYNC110 - the loop reads it to its end
            await asyncio.sleep(0)
        return most

    return recorded, asyncio.run(run())


def closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


def line(**what: object) -> bytes:
    return json.dumps(what).encode() + b"\n"


def test_events_are_recorded_with_what_they_may_say() -> None:
    event = line(event="uploaded", path="/f", target="", size=1, seconds=0.5, sha256="ab", error="", user="root",
                 session=7, connection=8)  # fmt: skip
    assert reported(event)[0] == [("uploaded", {"path": "/f", "size": 1, "seconds": 0.5, "sha256": "ab"})]
    assert reported(line(event="removed", path=3, size=True, seconds="x"))[0] == [("removed", {})]


def test_long_paths_are_cut() -> None:
    ((_, details),) = reported(line(event="uploaded", path="x" * 10_000))[0]
    assert details["path"] == "x" * 4096


def test_a_flood_is_not_kept() -> None:
    recorded, most = reported(b"x" * 1_000_000 + b"\n" + line(event="removed", path="/after"))
    assert most <= 128 * 1024
    assert recorded == []
    recorded, most = reported(line(event="removed", path="/f") * 20_000)
    assert len(recorded) == 20_000
    assert most <= 128 * 1024


@pytest.mark.parametrize(
    "nonsense",
    [
        b"{\n", b"[1]\n", b"7\n", b"{}\n", b'{"event": "login"}\n', b'{"event": ["uploaded"]}\n', b"\xff\n",
        b"[" * 60_000 + b"\n",
    ],
)  # fmt: skip
def test_nonsense_ends_its_being_heard(caplog: pytest.LogCaptureFixture, nonsense: bytes) -> None:
    recorded, _ = reported(nonsense + line(event="removed", path="/f"))
    assert recorded == []
    assert caplog.messages == ["session 0: its process reports nonsense, and is not listened to any more"]


def test_text_is_logged_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOG.name)
    reported(line(debug="a\nb") + line(error="c\x1b[2J"))
    assert caplog.messages == ["session 0: a\\x0ab", "session 0: c\\x1b[2J"]


def test_an_account_that_is_none_ends_the_start() -> None:
    context: Any = SimpleNamespace(options=FileOptions(account="no-such-user"), name="sftp", logger=LOG)
    with pytest.raises(ConfigError, match="account: 'no-such-user' is no user") as caught:
        FileProcesses(context, "sftp")
    assert caught.value.key == "account"


def test_a_url_needs_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    context: Any = SimpleNamespace(options=FileOptions(root="s3://b"), name="sftp", logger=LOG)
    with pytest.raises(ConfigError, match="dunnart\\[fsspec\\]") as caught:
        FileProcesses(context, "sftp")
    assert caught.value.key == "root"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("sftp.umask=99", "--plugin sftp.umask: umask is '99', and no octal number to 777"),
        ("sftp.root=srv", "--plugin sftp.root: root is 'srv', and no absolute path or URL"),
        ("sftp.quota_bytes=500M", "--plugin sftp.quota_bytes: '500M' is not a whole number"),
        ("sftp.deny_requests=renam", "--plugin sftp.deny_requests: deny_requests holds 'renam'"),
        ("sftp.allow_requests=ls", "--plugin sftp.allow_requests: allow_requests holds 'ls'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_options_name(
    capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    assert main(["config", "--check", "--plugin", option]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("drives", [{"CD": "/srv"}, {"C": ""}, {"C": "srv"}, {"C": "/%x"}])
def test_a_wrong_drive_is_refused(drives: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="drives "):
        ScpOptions(drives=drives)
