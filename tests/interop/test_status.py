"""Operating a server with what an operator has: OpenSSH's client in a terminal, and `dunnart status` beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dunnart.daemon.ways_in import this_user
from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.peers import answers
from tests.interop.support import SECONDS, Served, environment, eventually, started
from tests.interop.test_terminal import Tmux

ME = this_user().name
SHELL = ("--shell", "status", "--plugin", f"status.operators={ME}")


def status_command(server: Served, *words: str) -> list[str]:
    return [sys.executable, "-m", "dunnart", "status", "--state-folder", str(server.folder / "state"), *words]


def ask(server: Served, *words: str) -> subprocess.CompletedProcess[str]:
    env = environment(server.folder)
    return subprocess.run(
        status_command(server, *words), env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def answer(server: Served, *words: str) -> Any:
    done = ask(server, "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def control(server: Served) -> Path:
    return server.folder / "state" / "control.sock"


Terminals = Callable[[Sequence[str]], Tmux]


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made: list[Tmux] = []

    def begin(command: Sequence[str]) -> Tmux:
        folder = tmp_path / f"terminal{len(made)}"
        folder.mkdir()
        made.append(Tmux(folder, f"{shlex.join(command)}; echo status was $?; sleep 60"))
        return made[-1]

    yield begin
    for each in made:
        each("kill-server")


def ssh(server: Served, *words: str) -> list[str]:
    line, _ = OpenSsh().command(server)
    line.remove("-T")
    return [*line, *words]


def screen(terminal: Tmux) -> list[str]:
    return [line.rstrip() for line in terminal("capture-pane", "-p").splitlines()]


def shows(terminal: Tmux, text: str) -> bool:
    return eventually(lambda: any(text in line for line in screen(terminal)))


def test_a_shell_with_editing_history_completion_and_help(start: Serve, terminals: Terminals) -> None:
    server = start(*SHELL)
    terminal = terminals(ssh(server))
    assert shows(terminal, "help lists the commands")
    terminal.type("sess", "Tab", "Tab")
    assert terminal.shows("dunnart> session")
    terminal.type("s", "Enter")
    assert shows(terminal, "  shell (")
    terminal.type("kil", "Left", "Left", "Left", "help ", "End", "l", "Enter")
    assert terminal.shows("kill N [TEXT]")
    terminal.type("Up")
    assert terminal.shows("dunnart> help kill")
    terminal.type("C-c")
    assert terminal.shows("dunnart> help kill^C")
    terminal.type("C-r", "sess")
    assert shows(terminal, "search")
    terminal.type("C-c")
    terminal.type("nonsense", "Enter")
    assert shows(terminal, "there is no command nonsense")
    terminal.type("C-d")
    assert terminal.shows("status was 0")


def fills(terminal: Tmux, columns: int, rows: int) -> bool:
    """Whether one screen of `top` stands there, and fits."""
    lines = screen(terminal)
    heads = [index for index, line in enumerate(lines) if line.startswith("dunnart, up")]
    return heads == [0] and len(lines) == rows and max(map(len, lines)) < columns


def test_top_in_a_terminal_that_changes_its_size(start: Serve, terminals: Terminals) -> None:
    server = start(*SHELL)
    terminal = terminals(ssh(server, "-t"))
    assert shows(terminal, "help lists the commands")
    terminal.type("top", "Enter")
    assert eventually(lambda: screen(terminal)[0].startswith("dunnart, up") and "WHAT" in screen(terminal)[4])
    assert shows(terminal, "application 0/64 busy")
    terminal("resize-window", "-x", "50", "-y", "12")
    assert eventually(lambda: fills(terminal, 50, 12))
    assert not any("application 0/64 busy" in line for line in screen(terminal))
    terminal("resize-window", "-x", "120", "-y", "40")
    assert eventually(lambda: fills(terminal, 120, 40) and "application 0/64 busy, 0 waiting" in screen(terminal)[2])
    terminal.type("q")
    assert shows(terminal, "dunnart> top")
    assert not any("logins/s" in line for line in screen(terminal)), "the screen from before is back"
    terminal.type("exit", "Enter")
    assert terminal.shows("status was 0")


def test_commands_of_real_clients(start: Serve) -> None:
    server = start("--exec", "status", "--subsystem", "status=status")
    client = OpenSsh()
    done = client.run(server, "status --json")
    assert (done.status, done.err) == (0, b"")
    placement = "process" if os.geteuid() == 0 else "loop"
    found = json.loads(done.out)
    assert (found["logins"], found["sessions"], found["placement"]) == (1, 1, placement)
    assert client.run(server, "sessions").out.splitlines()[1].endswith(b"exec sessions")
    assert json.loads(client.run(server, "sessions --json").out)[0]["channels"][0]["served_by"] == "status"
    done = client.run(server, "kill 1")
    assert (done.status, done.out) == (1, b"")
    assert b"none of the operators" in done.err


def test_a_session_is_seen_rekeyed_and_killed(start: Serve) -> None:
    server = start()
    line, env = OpenSsh().command(server)
    with started([*line, "echo ready; exec cat"], env) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stderr is not None
        assert client.stdout.readline() == b"ready\n"
        (found,) = answer(server, "sessions")
        number = str(found["id"])
        assert (found["user"], found["method"]) == (ME, "publickey")
        assert "ed25519 SHA256:" in found["key"]
        assert found["client"].startswith("SSH-2.0-OpenSSH")
        (channel,) = found["channels"]
        assert channel["detail"] == "echo ready; exec cat"
        pid = int(channel["served_by"].removeprefix("process "))
        assert pid in server.children()
        assert ask(server, "rekey", number).returncode == 0
        assert eventually(lambda: answer(server, "session", number)["rekeys"] == 1)
        client.stdin.write(b"goes on\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"goes on\n"
        assert ask(server, "kill", number, "go", "home").stdout == f"connection {number} is ended\n"
        assert client.wait(SECONDS) == 255
        assert b"go home" in client.stderr.read()
    assert eventually(server.has_no_children)
    assert answer(server, "status")["rekeys"] == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_is_drained_and_ends(start: Serve, terminals: Terminals, workers: int) -> None:
    server = start("--workers", str(workers))
    terminal = terminals(ssh(server, "-t", "echo read''y; read line; echo bye $line; exit 4"))
    assert terminal.shows("ready")
    done = ask(server, "drain", "60")
    assert done.stdout == "nobody new is let in; the server ends with the last of 1 channels, or in 60 s\n"
    assert shows(terminal, "The server ends in 60 seconds.")
    assert eventually(lambda: not answers(server.port))
    assert answer(server, "status")["draining"] is True
    assert server.process.poll() is None
    terminal.type("now", "Enter")
    assert terminal.shows("bye now")
    assert terminal.shows("status was 4")
    assert server.process.wait(SECONDS) == 0
    assert not control(server).exists()


def test_levels_of_the_log(start: Serve) -> None:
    server = start("--log-level", "info")
    assert answer(server, "log")["auth"] == "info"
    assert answer(server, "log", "error", "auth")["auth"] == "error"
    OpenSsh().run(server, "true")
    assert "Accepted publickey" not in server.log
    assert answer(server, "log", "info", "auth")["auth"] == "info"
    OpenSsh().run(server, "true")
    assert eventually(lambda: "Accepted publickey" in server.log)


# The socket.


def test_the_socket_is_its_owners_alone(start: Serve) -> None:
    server = start()
    found = control(server).stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.geteuid()
    assert stat.S_IMODE(control(server).parent.stat().st_mode) & 0o022 == 0


def test_one_socket_for_one_server(start: Serve, tmp_path: Path) -> None:
    first = start()
    second = start("--state-folder", str(first.folder / "state"))
    assert second.logs("there is no control socket: control_socket: cannot listen on unix:")
    assert second.logs("give this one a state_folder or control_socket of its own")
    assert ask(first, "status").returncode == 0
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(SECONDS) == 0
    assert control(first).exists(), "it is the first one's"
    off = start("--control-socket", "off")
    assert not control(off).exists()
    done = ask(off, "status")
    assert done.returncode == 1
    assert "No such file" in done.stderr
    own = tmp_path / "own"
    named = start("--control-socket", str(own))
    assert not control(named).exists()
    assert ask(named, "--control-socket", str(own)).returncode == 0


def test_a_socket_that_was_left_is_replaced(start: Serve) -> None:
    other = start("--control-socket", "off")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(control(other)))
    done = ask(other, "status")
    assert done.returncode == 1
    assert "Connection refused; is the server running?" in done.stderr
    server = start("--state-folder", str(other.folder / "state"))
    assert ask(other, "status").returncode == 0
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(SECONDS) == 0
    assert not control(other).exists()


def test_requests_that_are_none(start: Serve) -> None:
    server = start()
    lines = [
        b"nonsense", b"{}", b"[]", b'{"command": "status"}', b'{"command": [1]}',
        b'{"command": ["log"], "columns": "x"}', b'{"command": ["log"], "rows": true}', b"\xff",
    ]  # fmt: skip
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as answers:
        sock.connect(str(control(server)))
        for line in lines:
            sock.sendall(line + b"\n")
            assert json.loads(answers.readline())["status"] == 2, line
        sock.sendall(b'{"command": ["log"]}\n{"command": ["log"], "columns": 0, "rows": -5}\n')
        assert "lines" in json.loads(answers.readline())
        assert "lines" in json.loads(answers.readline())
        with contextlib.suppress(ConnectionError):  # it reads no further
            sock.sendall(b"x" * 100_000)
            assert answers.readline() == b""
    several = [socket.socket(socket.AF_UNIX) for _ in range(17)]
    for each in several:
        each.connect(str(control(server)))
    assert several[-1].recv(1) == b"", "there are as many as there may be"
    for each in several:
        each.close()
    assert eventually(lambda: ask(server, "status").returncode == 0)


def test_the_command_line(start: Serve, terminals: Terminals) -> None:
    server = start()
    assert ask(server).stdout.startswith("server ")
    assert ask(server, "help").stdout.startswith("status ")
    assert json.loads(ask(server, "limits", "--json").stdout)["connection"]["sessions"] == 10
    done = ask(server, "frobnicate")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dunnart status: there is no command frobnicate; help lists the commands\n"
    assert ask(server, "kill", "99").returncode == 1
    assert ask(server, "--nonsense").returncode == 2
    top = terminals(status_command(server, "top"))
    assert eventually(lambda: screen(top)[0].startswith("dunnart, up") and "WHAT" in screen(top)[4])
    top("resize-window", "-x", "40", "-y", "10")
    assert eventually(lambda: fills(top, 40, 10))
    top.type("q")
    assert top.shows("status was 0")
    path = server.folder / "dunnart.toml"
    path.write_text(f'state_folder = "{server.folder / "state"}"\n')
    command = [sys.executable, "-m", "dunnart", "status", "--config", str(path), "log"]
    env = environment(server.folder)
    assert subprocess.run(command, env=env, capture_output=True, check=True).stdout.startswith(b"server ")
