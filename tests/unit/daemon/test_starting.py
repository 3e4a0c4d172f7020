"""What a daemon is started with and tells: sockets that are handed over, systemd, the pid file."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dunnart.daemon.background import remove_pid_file, write_pid_file
from dunnart.daemon.config import ServeConfig
from dunnart.daemon.flags import parse, parser
from dunnart.daemon.handed import VARIABLE, Handed, by_systemd
from dunnart.daemon.serve import fitting, log_place
from dunnart.daemon.systemd import Notifier
from dunnart.daemon.upgrade import taken_over
from dunnart.errors import ConfigError


def test_what_can_be_handed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as packets:
        assert not Handed([listener]).connection
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert Handed([theirs]).connection
            assert ours.recv(100).startswith(b"SSH-2.0-dunnart")
            for wrong in ([theirs, listener], [theirs, ours], [packets]):
                with pytest.raises(ConfigError, match="can be served"):
                    Handed(wrong)
            ours.setblocking(False)
            with pytest.raises(BlockingIOError):
                ours.recv(100)


@pytest.mark.parametrize(
    ("count", "process"), [("", ""), ("1", "1"), ("0", "{pid}"), ("x", "{pid}")]
)  # fmt: skip
def test_what_was_passed_to_another_process_is_not_taken(
    count: str, process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_PID", process.format(pid=os.getpid()))
    monkeypatch.setenv("LISTEN_FDNAMES", "a")
    assert by_systemd() is None
    assert not [name for name in os.environ if name.startswith("LISTEN_")], "children see nothing of it"


def test_a_successor_believes_no_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken_over() is None
    for text in ("x", "{}", "[]", '{"handed": [], "listening": [], "control": null}'):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(ConfigError, match="for a running server to set"):
            taken_over()
        assert VARIABLE not in os.environ


def test_what_goes_without_saying() -> None:
    config = ServeConfig(control_socket="auto", workers=4)
    assert fitting(config, Handed()) is config
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert fitting(config, Handed([listener])) is config
        assert fitting(config, Handed([listener], by_inetd=True)).exit_on_idle == 60
        assert fitting(ServeConfig(exit_on_idle=5), Handed([listener], by_inetd=True)).exit_on_idle == 5
        with pytest.raises(ConfigError, match="background: who hands sockets over"):
            fitting(ServeConfig(background=True), Handed([listener]))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fitted = fitting(config, Handed([theirs]))
        assert (fitted.workers, fitted.control_socket, fitted.password) == (1, "off", "off")
        assert fitting(ServeConfig(password="one-time"), Handed([theirs])).password == "one-time"
    places = [
        log_place(ServeConfig(log_to=to, inetd=inetd, background=background))
        for to, inetd, background in [
            ("auto", False, False), ("auto", True, False), ("auto", False, True), ("stderr", True, True),
            ("/x", True, True),
        ]
    ]  # fmt: skip
    assert places == ["stderr", "syslog", "syslog", "stderr", "/x"]


def test_flags_that_say_something_by_themselves() -> None:
    made = parser("dunnart serve", "")
    assert parse(["-i", "--exit-on-idle"], made)[1] == {"inetd": True, "exit_on_idle": 60}
    assert parse(["--exit-on-idle", "5"], made)[1] == {"exit_on_idle": 5}


def test_systemd_is_told(tmp_path: Path) -> None:
    for address in (str(tmp_path / "notify"), f"@dunnart-test-{os.getpid()}"):
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
            listener.settimeout(20)
            notifier = Notifier(environment)
            assert environment == {"A": "b"}, "sessions' programs do not speak for us"
            assert notifier.watchdog_seconds == 1.5
            assert notifier.variables == {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1500000"}
            notifier.tell("READY=1", "STATUS=x")
            assert listener.recv(4096) == b"READY=1\nSTATUS=x"
            notifier.reloading()
            assert listener.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        notifier.tell("STOPPING=1")  # nobody listens any more
    assert Notifier({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}).watchdog_seconds == 0
    assert Notifier({}).variables == {}
    asyncio.run(Notifier({}).keep_alive())  # nobody wants it, and so it ends at once


def test_the_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("1\n")
    write_pid_file(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == [path]
    remove_pid_file(str(path))
    assert not path.exists()
    path.write_text("1\n")
    remove_pid_file(str(path))
    assert path.exists(), "it is another's by now"
    with pytest.raises(ConfigError, match="pid_file: cannot be written"):
        write_pid_file(str(tmp_path / "nowhere/pid"))


BACKGROUND = """\
import os, sys
from dunnart.daemon.background import Background
background = Background()
if sys.argv[1] == "ready":
    print("from the child", os.getsid(0) == os.getpid(), flush=True)
    background.ready()
    print("nobody reads this")
    sys.exit(0)
print("what is wrong", file=sys.stderr)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
sys.exit(2)
"""


@pytest.mark.parametrize(("word", "status"), [("ready", 0), ("wrong", 2), ("killed", signal.SIGKILL)])
def test_the_background(word: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BACKGROUND, word], capture_output=True, text=True, check=False, timeout=40
    )
    assert done.returncode == status
    assert done.stdout == ("from the child True\n" if word == "ready" else "")
    assert done.stderr == ("" if word == "ready" else "what is wrong\n")
