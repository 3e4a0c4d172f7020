"""X11 forwarding with a real display and real X programs."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.clients import OpenSsh, Putty
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Served, eventually, program


@dataclass
class Display:
    """A display that wants a cookie.

    Attributes:
        environment: what reaches it.
    """

    name: str
    environment: dict[str, str]


def x_server(authority: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start an X server; gives the display's number, "" if it has ended: another one's end can be in its way."""
    reader, writer = os.pipe()
    command = [program("Xvfb"), "-displayfd", str(writer), "-screen", "0", "640x480x24", "-auth", str(authority),
               "-nolisten", "tcp"]  # fmt: skip
    process = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with open(reader, "rb") as told:
        assert select.select([told], [], [], SECONDS)[0]
        return process, told.readline().strip().decode()


@pytest.fixture
def display(tmp_path: Path) -> Iterator[Display]:
    """Run an X server of the test's own."""
    authority = tmp_path / "authority"
    cookie = b"\0\x12MIT-MAGIC-COOKIE-1" + b"\0\x10" + os.urandom(16)
    authority.write_bytes(b"\xff\xff" + b"\0\0" + b"\0\0" + cookie)
    process, number = x_server(authority)
    while not number:
        process.wait(SECONDS)
        process, number = x_server(authority)
    try:
        host = socket.gethostname().encode()  # what PuTTY looks for; the X server has read the file
        address = b"\1\0" + len(host).to_bytes(2, "big") + host
        authority.write_bytes(address + len(number).to_bytes(2, "big") + number.encode() + cookie)
        yield Display(f":{number}", {"DISPLAY": f":{number}", "XAUTHORITY": str(authority)})
    finally:
        process.terminate()
        process.wait(SECONDS)


@pytest.fixture
def server(start: Serve) -> Served:
    return start("--forwards", "x11")


def ask(server: Served, display: Display, command: str, *flags: str) -> subprocess.CompletedProcess[str]:
    line, env = OpenSsh().command(server, *flags)
    return subprocess.run([*line, command], env=env | display.environment, capture_output=True, text=True,
                          timeout=SECONDS, check=False)  # fmt: skip


INSIDE = 'echo $DISPLAY; xdpyinfo | grep -E "dimensions|name of display"; stat -c "%a %U" $XAUTHORITY; echo $XAUTHORITY'


@pytest.mark.parametrize("flag", ["-X", "-Y"])
def test_programs_reach_the_client_s_display(server: Served, display: Display, flag: str) -> None:
    done = ask(server, display, INSIDE, flag)
    name, shown, dimensions, mode, path = done.stdout.splitlines()
    assert re.fullmatch(r"localhost:\d\d+\.0", name), done.stderr
    assert shown.split() == ["name", "of", "display:", name]
    assert "640x480" in dimensions
    assert mode == f"600 {server.user}"
    assert eventually(lambda: not os.path.exists(os.path.dirname(path)))


def test_two_sessions_have_displays_of_their_own(server: Served, display: Display) -> None:
    inside = f"echo $DISPLAY; {program('xdpyinfo')} | grep -c dimensions; read x"
    line, env = OpenSsh().command(server, "-Y")
    found = set()
    with contextlib.ExitStack() as stack:
        for _ in range(2):  # one after the other: xauth locks the client's file, and gives up if it is locked too often
            session = subprocess.Popen([*line, inside], env=env | display.environment, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE)  # fmt: skip
            stack.callback(session.communicate, b"\n", timeout=SECONDS)
            assert session.stdout is not None
            found.add(session.stdout.readline())
            assert session.stdout.readline() == b"1\n"
    assert len(found) == 2


def test_without_the_cookie_there_is_no_display(server: Served, display: Display) -> None:
    for inside in ("XAUTHORITY=/dev/null xdpyinfo", "printf x >$XAUTHORITY; xdpyinfo"):
        done = ask(server, display, inside, "-Y")
        assert done.returncode != 0
        assert "unable to open display" in done.stderr


def test_xauth_reads_the_cookie(server: Served, display: Display) -> None:
    done = ask(server, display, f"{program('xauth')} list $DISPLAY", "-Y")
    assert re.search(r"MIT-MAGIC-COOKIE-1 +[0-9a-f]{32}$", done.stdout.strip()), done.stderr


def test_putty(server: Served, display: Display) -> None:
    line, env = Putty().command(server, "-X")
    done = subprocess.run([*line, INSIDE], env=env | display.environment, capture_output=True, text=True,
                          timeout=SECONDS, check=False)  # fmt: skip
    assert "640x480" in done.stdout, done.stderr


def test_the_display_is_off_by_default(start: Serve, display: Display) -> None:
    done = ask(start(), display, "echo display: $DISPLAY", "-X")
    assert done.stdout == "display:\n"
