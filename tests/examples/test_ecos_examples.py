"""Hangman and shell, the examples on `dunnart.ecos`, for real clients."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.examples.driver import ROOT, SECONDS, Example, Start, Terminal, Tmux, until

pytestmark = pytest.mark.interop


def sitting(terminal: Terminal, command: list[str]) -> Tmux:
    """Run a client in a terminal, which shows its exit status at the end: tmux itself does not always come to know."""
    return terminal(["sh", "-c", f"{shlex.join(command)}; echo status was $?; sleep 60"])


# Hangman.


def enter(terminal: Terminal, example: Example, user: str) -> Tmux:
    """Log in with the password, as a person does."""
    screen = sitting(terminal, example.ssh(user=user, options=("-o", "PreferredAuthentications=password")))
    screen.shows(f"{user}@127.0.0.1's password:")
    screen.type("gallows", "Enter")
    screen.shows(f"{user} plays hangman")
    return screen


def test_players_at_the_same_time(start: Start, terminal: Terminal) -> None:
    example = start("hangman", "dunnart")
    ann, bob = enter(terminal, example, "ann"), enter(terminal, example, "bob")
    ann.shows("_ _ _ _ _ _ _")
    ann.type("n")
    ann.shows("_ _ n n _ _ _")
    ann.type("X")
    ann.shows("wrong: x")
    ann.shows(" |   O")
    bob.shows("_ _ _ _ _ _ _")
    bob.type("xyzvwq")
    bob.shows("You hang. Another one? (y/n)")
    assert bob.lines[2:8] == [" +---+", " |   O", " |  /|\\", " |  / \\", "_|_", ""]
    assert "d u n n a r t" in bob.lines
    ann.type("duart")
    ann.shows("You live. Another one? (y/n)")
    bob.type("y")
    bob.shows("Type a letter.")
    bob.type("C-c")
    bob.shows("status was 1")
    ann.type("n")
    ann.shows("status was 0")


def by_password(example: Example, password: str, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    """Play without a terminal; the password comes from a program."""
    askpass = example.folder / "askpass"
    askpass.write_text(f"#!/bin/sh\necho {password}\n")
    askpass.chmod(0o700)
    options = ("-T", "-o", "PreferredAuthentications=password", "-o", "NumberOfPasswordPrompts=1")
    environment = os.environ | {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":none"}
    return subprocess.run(
        example.ssh(options=options), input=stdin, capture_output=True, env=environment, timeout=SECONDS, check=False
    )


def test_a_wrong_password(start: Start) -> None:
    done = by_password(start("hangman"), "wrong", b"")
    assert done.returncode == 255
    assert b"Permission denied (password)" in done.stderr


def test_a_player_who_leaves_and_a_stranger(start: Start) -> None:
    example = start("hangman", "go")
    [local] = set(listening(example.process.pid)) - {example.port}
    with socket.create_connection(("127.0.0.1", local), SECONDS) as stranger:
        assert stranger.recv(100) == b""
    done = by_password(example, "gallows", b"g")  # and then the end of input
    assert done.returncode == 1
    assert done.stdout.endswith(b"\r\ng _\r\n\r\nwrong: \r\n")
    done = by_password(example, "gallows", b"gon")
    assert done.returncode == 0
    assert done.stdout.endswith(b"Type a letter.\r\n")


def listening(pid: int) -> list[int]:
    """The ports on which a process listens for IPv4."""
    own = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            own |= {*re.findall(r"socket:\[(\d+)\]", os.readlink(fd))}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and row[9] in own]


# Shell.


@pytest.mark.usefixtures("key")
def test_a_command(start: Start) -> None:
    shell = start("shell", "--keys", "key.pub")
    done = shell.run("echo", "one", "two")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one two\n", "")
    done = shell.run("reboot")
    assert (done.returncode, done.stdout, done.stderr) == (127, "", "reboot: no such command; try help\n")
    done = shell.run("exit", "x")
    assert (done.returncode, done.stderr) == (2, "exit: x is no status of 0 to 255\n")
    assert re.fullmatch(r"up \d+ s\n", shell.run("uptime").stdout)


@pytest.mark.usefixtures("key")
def test_lines_without_a_terminal(start: Start) -> None:
    done = start("shell", "--keys", "key.pub").run(stdin="help\n\nwhoami\nnonsense\nexit 3\necho not reached\n")
    assert done.returncode == 3
    assert re.fullmatch(r"echo exit help uptime whoami\nann from 127\.0\.0\.1:\d+\n", done.stdout)
    assert done.stderr == "nonsense: no such command; try help\n"


@pytest.mark.usefixtures("key")
def test_sessions_at_the_same_time(start: Start) -> None:
    shell = start("shell", "--keys", "key.pub")
    talks = [shell.talk("ann") for _ in range(3)]
    for number, talk in enumerate(talks):
        talk.say(f"echo {number}")
    assert [talk.hear() for talk in talks] == ["0", "1", "2"]
    assert [talk.end() for talk in talks] == [0, 0, 0]


@pytest.mark.usefixtures("key")
def test_a_shell_in_a_terminal(start: Start, terminal: Terminal) -> None:
    screen = sitting(terminal, start("shell", "--keys", "key.pub").ssh())
    screen.shows("ann>")
    screen.type("ecco", "BSpace", "BSpace", "ho hello", "Enter")
    screen.shows("hello")
    screen.type("who", "Tab", "Enter")
    until(lambda: any(re.fullmatch(r"ann from 127\.0\.0\.1:\d+", line) for line in screen.lines), "whoami says so")
    screen.type("half", "C-c", "Up", "Up", "Enter")
    until(lambda: screen.lines.count("hello") == 2, "the line was called back")
    screen.type("nonsense", "Enter")
    screen.shows("nonsense: no such command; try help")
    screen.type("exit 4", "Enter")
    screen.shows("status was 4")


@pytest.mark.parametrize("name", ["hangman", "shell"])
@pytest.mark.usefixtures("key")
def test_control_c_ends_the_server(start: Start, name: str) -> None:
    example = start(name, *(["--keys", "key.pub"] if name == "shell" else []))
    password = "   (the password is gallows)" if name == "hangman" else ""
    said = f"ssh -p {example.port} 127.0.0.1{password}\n"
    until(lambda: example.log == said, "it has begun")
    example.process.send_signal(signal.SIGINT)
    assert example.process.wait(SECONDS) == 0
    assert example.log == said


# The how-to.


def test_the_server_on_the_page(start: Start, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "ecos.md").read_text()
    [code] = re.findall(r'```python title="server\.py"\n(.*?)```', page, re.DOTALL)
    assert code.count("port=2222") == 1
    assert code.count("input(") == 1
    (tmp_path / "server.py").write_text(
        code.replace("2222", "int(sys.argv[2])")
        .replace("input(", "signal.pause()  # ")
        .replace("import hmac", "import hmac, signal, sys")
    )
    example = start(str(tmp_path / "server"))
    done = by_password(example, '"open sesame"', b"A")
    assert (done.returncode, done.stdout) == (0, b"Hello ann, type a key: that was 41\r\n")
