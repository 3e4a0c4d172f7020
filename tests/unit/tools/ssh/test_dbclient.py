"""The command lines of `dunnart ssh` and `dbclient`, and what they are options for."""

from __future__ import annotations

import getopt

import pytest

from dunnart.errors import ConfigError
from dunnart.tools.ssh import dbclient, flags
from dunnart.tools.ssh.reading import read_options
from dunnart.tools.transfer.destinations import Host


def test_flags_of_ssh_stand_before_the_host_and_behind_it() -> None:
    found = flags.parse(["-p", "7", "-vt", "ann@host", "-t", "-L1:h:2", "ls", "-l"])
    assert (found.host, found.command, found.terminals, found.verbose) == (Host("host", "ann"), "ls -l", 2, 1)
    assert found.given == [("Port", '"7"'), ("LocalForward", '"1:h:2"')]
    assert flags.parse(["ssh://ann@[::1]:23/"]).host == Host("::1", "ann", 23)
    for line in ("-l bob ann@host -l carl", "-o USER=bob -p 7 ssh://ann@host:8 -p 9"):
        found = flags.parse(line.split())
        options = read_options(found.host, found.given, "none")
        assert (options.user, options.port) == ("bob", 7 if "-p" in line else 22)
    assert flags.parse(["ann@host", "-l", "bob"]).host == Host("host", "ann")
    assert flags.parse(["-W", "h:1", "host"]).to == ("h", 1)
    assert flags.parse(["-X", "host"]).notes == ["-X: there is nothing here for X11; it is ignored"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-p",
        "$(id)",
        "a;b@host",
        "`id`@host",
        "ssh://x$y@h",
        "-w any host",
        "-I x host",
        "-O exit host",
        "-L x -W y host",
    ],
)
def test_what_is_no_command_line(line: str) -> None:
    with pytest.raises((ConfigError, getopt.GetoptError)):
        flags.parse(line.split())


@pytest.mark.parametrize(
    ("line", "host", "command", "given"),
    [
        ("host", Host("host"), "", []),
        ("ann@host^23 -p 22 a -b", Host("host", "ann", 23), "a -b", [("Port", '"22"')]),
        ("host/23", Host("host", "", 23), "", []),
        ("a,b@c^1,d", Host("d"), "", [("ProxyJump", "a,b@c:1")]),
        ("-l a@b,c d", Host("d", "c"), "", [("ProxyJump", "a@b")]),
        ("-y host", Host("host"), "", [("StrictHostKeyChecking", "accept-new")]),
        ("-gN host", Host("host"), "", [("GatewayPorts", "yes"), ("SessionType", "none")]),
        ("-J prog\u00a0x host", Host("host"), "", [("ProxyCommand", "prog\u00a0x")]),
        ("-o Port=2 -o BatchMode=y host", Host("host"), "", [("port", "2"), ("batchmode", "yes")]),
        ("-K5 -s host sub", Host("host"), "sub", [("ServerAliveInterval", '"5"'), ("SessionType", "subsystem")]),
    ],
)
def test_flags_of_dropbear(line: str, host: Host, command: str, given: list[tuple[str, str]]) -> None:
    found = dbclient.parse(line.split(" "))
    assert (found.host, found.command, found.given) == (host, command, given)
    assert found.file == "none"


def test_what_dropbear_has_and_ssh_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    found = dbclient.parse(["-yy", "-I", "5", "-M", "6", "-W", "65536", "-B", "h:1", "-b", "127.0.0.1:9", "-j", "host"])
    assert found.unchecked
    assert (found.idle_seconds, found.max_seconds, found.window_bytes) == (5, 6, 65536)
    assert (found.to, found.bind) == (("h", 1), ("127.0.0.1", 9))
    assert "-j is not known" in capsys.readouterr().err
    for wrong in (["-I", "x", "h"], ["-W", "20000000", "h"], [], ["-p"], ["-J", "x", "a,b"]):
        with pytest.raises(ConfigError):
            dbclient.parse(wrong)
