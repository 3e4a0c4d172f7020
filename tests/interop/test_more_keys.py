"""Keys from elsewhere than files, with OpenSSH's client at `dunnart serve`: a command, a web server, a database."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dunnart.daemon.ways_in import this_user
from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.support import Keys, Served, eventually

CLIENT = OpenSsh()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that nobody else can write, nor those above it; as one below /tmp is not."""
    for folder in (Path("/var/lib"), Path.home()):
        if os.access(folder, os.W_OK):
            with tempfile.TemporaryDirectory(dir=folder) as made:
                os.chmod(made, 0o755)
                yield Path(made)
            return
    pytest.skip("there is no folder that only this user can write")


def script(place: Path, text: str) -> str:
    path = place / "keys-of"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def line(keys: Keys, kind: str = "ed25519") -> str:
    return Path(f"{keys.path(kind)}.pub").read_text().strip()


def test_a_command_is_asked_after_the_files(start: Serve, keys: Keys, place: Path, tmp_path: Path) -> None:
    (tmp_path / "authorized").write_text(f'command="echo by the file" {line(keys, "rsa")}\n')
    program = script(
        place, f"""test "$1" = "{this_user().name}" && echo 'command="id -un; echo by command" {line(keys)}'"""
    )
    user = this_user().name
    server = start(
        "--authorized-keys-command", f"{program} %u %t", "--authorized-keys-command-user", user,
        authorized=str(tmp_path / "authorized"),
    )  # fmt: skip
    assert CLIENT.run(server, "x").out == f"{user}\nby command\n".encode()
    assert CLIENT.run(server, "x", key="rsa").out == b"by the file\n"
    assert CLIENT.run(server, "x", key="ecdsa256").status == 255


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_command_runs_as_its_user(start: Serve, keys: Keys, place: Path, tmp_path: Path) -> None:
    (tmp_path / "authorized").write_text("")
    program = script(place, f'echo "command=\\"echo $(id -un) $(id -G)\\" {line(keys)}"')
    server = start(
        "--authorized-keys-command", program, "--authorized-keys-command-user", "nobody",
        authorized=str(tmp_path / "authorized"),
    )  # fmt: skip
    assert CLIENT.run(server, "x").out == b"nobody 65534\n"


def test_a_hanging_command_holds_up_nobody_else(start: Serve, keys: Keys, place: Path, tmp_path: Path) -> None:
    (tmp_path / "authorized").write_text(f"{line(keys, 'rsa')}\n")
    program = script(place, f"echo $$ >> {tmp_path}/started; sleep 1000")

    def serving(seconds: int) -> Served:
        return start(
            "--authorized-keys-command", program, "--authorized-keys-command-user", this_user().name,
            "--plugin", f"authorized-keys.command_seconds={seconds}", authorized=str(tmp_path / "authorized"),
        )  # fmt: skip

    server = serving(100)
    command, env = CLIENT.command(server)
    hanging = [subprocess.Popen([*command, "x"], env=env, stderr=subprocess.DEVNULL) for _ in range(8)]
    try:
        assert eventually(lambda: len(started(tmp_path)) == 8)
        assert CLIENT.run(server, "echo in", key="rsa").out == b"in\n"
        assert [each.poll() for each in hanging] == [None] * 8
    finally:
        for each in hanging:
            each.kill()
            each.wait()
    server = serving(1)
    assert CLIENT.run(server, "x").status == 255
    for pid in started(tmp_path)[8:]:
        assert not Path(f"/proc/{pid}").exists()
    assert server.logs("has not ended within 1 s")
    assert eventually(server.has_no_children)


def started(folder: Path) -> list[str]:
    """The processes of the command so far."""
    path = folder / "started"
    return path.read_text().split() if path.exists() else []


@contextmanager
def web(text: str) -> Iterator[int]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == f"/{this_user().name}" else 404)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_web_server_and_a_database(start: Serve, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "authorized").write_text("")
    path = str(tmp_path / "keys.db")
    made = sqlite3.connect(path)
    made.execute("create table keys (name text, line text)")
    made.execute(
        "insert into keys values (?, ?)", (this_user().name, f'command="echo from the database" {line(keys, "rsa")}')
    )
    made.commit()
    made.close()
    with web(f'command="echo from the web" {line(keys)}\n') as port:
        server = start(
            "--key-sources", "http", "--key-sources", "sql", "--plugin", f"http.url=http://127.0.0.1:{port}/%u",
            "--plugin", "sql.query=select line from keys where name = ?", "--plugin", f"sql.connect.database={path}",
            authorized=str(tmp_path / "authorized"),
        )  # fmt: skip
        assert CLIENT.run(server, "x").out == b"from the web\n"
        assert CLIENT.run(server, "x", key="rsa").out == b"from the database\n"
        assert CLIENT.run(server, "x", key="ecdsa256").status == 255
