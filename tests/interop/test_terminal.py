"""An interactive login in a real terminal emulator: what a person at the keyboard sees."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.clients import OpenSsh
from tests.interop.support import SECONDS, Served, environment, eventually, program


class Tmux:
    """A tmux of its own with one window of 80 columns that runs a command."""

    def __init__(self, folder: Path, command: str) -> None:
        # A socket's path must be short.
        self._base = [program("tmux"), "-f", "/dev/null", "-S", os.path.relpath(folder / "tmux")]
        self._env = environment(folder)
        self("new-session", "-d", "-x", "80", "-y", "24", command)

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._base, *arguments], env=self._env, capture_output=True, text=True, timeout=SECONDS, check=True
        )
        return done.stdout

    def type(self, *keys: str) -> None:
        """Press keys; a command is ended by "Enter"."""
        self("send-keys", *keys)

    def shows(self, line: str) -> bool:
        """Whether a line comes to stand on the screen."""
        return eventually(lambda: self.shows_now(line))

    def shows_now(self, line: str) -> bool:
        """Whether a line stands there already."""
        return line in map(str.rstrip, self("capture-pane", "-p").splitlines())

    def size(self) -> str:
        """Give the rows and columns of the window."""
        return self("display-message", "-p", "#{pane_height} #{pane_width}").strip()


@pytest.fixture
def terminal(server: Served, tmp_path: Path) -> Iterator[Tmux]:
    line, _ = OpenSsh().command(server)
    line.remove("-T")
    made = Tmux(tmp_path, shlex.join(line) + "; echo status was $?; sleep 60")
    yield made
    made("kill-server")


def test_a_login_shell_in_a_terminal(terminal: Tmux) -> None:
    terminal.type("echo 'o'ne $((1+1)) $0", "Enter")
    shell = os.path.basename(pwd.getpwuid(os.geteuid()).pw_shell or "/bin/sh")
    assert terminal.shows(f"one 2 -{shell}")
    terminal.type("stty size", "Enter")
    assert terminal.shows(terminal.size())


def test_a_window_that_changes_its_size(terminal: Tmux) -> None:
    terminal.type("sh -c \"trap 'stty size' WINCH; echo r''eady; while :; do sleep 0.1; done\"", "Enter")
    assert terminal.shows("ready")
    before = terminal.size()
    terminal("resize-window", "-x", "101", "-y", "33")
    assert terminal.size() != before
    assert terminal.shows(terminal.size())


def test_control_c_interrupts_the_program_and_not_the_login(terminal: Tmux) -> None:
    terminal.type("echo b''egun; sleep 60; echo not r''eached", "Enter")
    assert terminal.shows("begun")
    terminal.type("C-c")
    terminal.type("echo st''atus $?", "Enter")
    assert terminal.shows("status 130")
    assert not terminal.shows_now("not reached")


def test_a_logout(terminal: Tmux) -> None:
    terminal.type("exit 3", "Enter")
    assert terminal.shows("status was 3")
