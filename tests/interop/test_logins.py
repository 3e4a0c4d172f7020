"""What belongs to a login beside its program, with OpenSSH's client: the terminal, records, greetings, rc files.

The server's files are not the system's (`tests.interop.support`).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Served, eventually, program

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can serve other users")
OTHER = "games"


@contextmanager
def shell(server: Served, user: str) -> Iterator[tuple[IO[bytes], IO[bytes], subprocess.Popen[bytes]]]:
    """A shell on a terminal: what is typed, what it shows, and the client."""
    line, env = OpenSsh().command(server, "-o", f"User={user}", terminal=True)
    with subprocess.Popen(line, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            yield client.stdin, client.stdout, client
        finally:
            client.kill()


def say(keyboard: IO[bytes], text: str) -> None:
    keyboard.write(text.encode())
    keyboard.flush()


def who(server: Served) -> str:
    return subprocess.check_output([program("who"), "-u", server.folder / "utmp"], text=True)


@needs_root
def test_a_login_on_a_terminal_from_its_greeting_to_its_end(start: Serve) -> None:
    server = start(shell="/bin/sh")
    for name in ("utmp", "wtmp", "lastlog"):
        (server.folder / name).touch()
    (server.folder / "motd").write_text("Mind the gap.\n")
    with shell(server, OTHER) as (keyboard, screen, _):
        say(keyboard, "echo $(tty) $$ $0 $(umask)\n")
        assert screen.readline() == b"Mind the gap.\r\n"
        pattern = r"/dev/(pts/\d+) (\d+) -sh 00?22\r\n"
        found = next(match for line in screen if (match := re.search(pattern, line.decode())))
        shown = re.compile(rf"{OTHER} +{found[1]} .* {found[2]} \(127\.0\.0\.1\)\n")
        assert eventually(lambda: shown.fullmatch(who(server)) is not None), who(server)
        say(keyboard, "exit 3\n")
        screen.read()
    assert eventually(lambda: not os.path.exists(f"/proc/{found[2]}"))
    # The end is recorded as well, and the next login is told of this one.
    assert eventually(lambda: who(server) == "")
    last = subprocess.check_output([program("last"), "-w", "-f", server.folder / "wtmp"], text=True)
    assert re.match(rf"{OTHER} +{found[1]} +127\.0\.0\.1 ", last)
    with shell(server, OTHER) as (keyboard, screen, client):
        assert re.fullmatch(rb"Last login: \w+ \w+ +\d+ [\d:]+ \d+ from 127\.0\.0\.1\r\n", screen.readline())
        say(keyboard, "trap 'exit 7' HUP; echo 'o'k; while :; do read x; done\n")
        assert any(b"ok\r\n" in line for line in screen)
        assert eventually(lambda: OTHER in who(server))
        client.kill()  # hangs up
    assert eventually(lambda: who(server) == "")


@needs_root
def test_rc_files(start: Serve) -> None:
    server = start("--permit-user-environment", "COLOUR", shell="/bin/sh")
    (server.folder / "sshrc").write_text("echo sshrc in $(pwd)\n")
    folder = server.home / ".ssh"
    folder.mkdir()

    def run(command: str, *, terminal: bool = False) -> str:
        line, env = OpenSsh().command(server, terminal=terminal)
        nothing = subprocess.DEVNULL
        done = subprocess.run(
            [*line, command], env=env, stdin=nothing, capture_output=True, timeout=SECONDS, check=True
        )
        return done.stdout.decode()

    assert run("echo then; cat") == f"sshrc in {server.home}\nthen\n"
    (folder / "rc").write_text("echo rc, $COLOUR, $(tty); cat\n")
    (folder / "environment").write_text("COLOUR=blue\nHOME=/evil\n")
    assert run("echo $COLOUR $HOME") == f"rc, blue, not a tty\nblue {server.home}\n"
    # A terminal is the file's too.
    assert re.fullmatch(r"rc, blue, not a tty\r\nthen /dev/pts/\d+\r\n", run("echo then $(tty)", terminal=True))


def test_nobody_but_root_while_there_is_a_nologin_file(start: Serve) -> None:
    user = OTHER if os.geteuid() == 0 else None
    server = start(shell="/bin/sh")
    (server.folder / "nologin").write_text("Down until noon.\n")
    line, env = OpenSsh().command(server, "-o", f"User={user or server.user}")
    done = subprocess.run([*line, "echo in"], env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout) == (254, "")
    assert "Down until noon.\n" in done.stderr
