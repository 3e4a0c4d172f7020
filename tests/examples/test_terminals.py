"""The examples in a terminal: what a person at the keyboard sees."""

from __future__ import annotations

import pytest

from tests.examples.driver import Start, Terminal, until

pytestmark = pytest.mark.interop


def test_echo_in_a_terminal(start: Start, terminal: Terminal) -> None:
    screen = terminal(start("echo").ssh())
    screen.shows("Hello ann, type something; control-D ends.")
    screen.type("onne", "BSpace", "BSpace", "e", "Enter")
    until(lambda: screen.lines.count("one") == 2, "the line is there twice: typed and sent back")
    screen.type("C-d")
    until(lambda: screen.ended == 0, "the client has ended")


def test_a_chat_in_a_terminal(start: Start, terminal: Terminal) -> None:
    room = start("chat")
    screen = terminal(room.ssh())
    screen.shows("* ann comes in")
    screen.type("half a li")
    screen.shows("half a li")
    bob = room.talk("bob")
    screen.shows("* bob comes in")
    until(lambda: screen.lines[screen.lines.index("* bob comes in") + 1] == "half a li", "the line is below it")
    screen.type("ne", "Enter")
    while (heard := bob.hear()) != "<ann> half a line":
        assert heard
    assert bob.end() == 0
    screen.shows("* bob leaves")


@pytest.mark.usefixtures("key")
def test_a_python_prompt_in_a_terminal(start: Start, terminal: Terminal) -> None:
    screen = terminal(start("repl", "--keys", "key.pub").ssh())
    screen.shows(">>>")
    screen.type("for n in range(2):", "Enter", "  print('line', n)", "Enter", "Enter")
    screen.shows("line 0")
    screen.shows("line 1")
    screen.type("1 +", "C-c", "40 + 2", "Enter")
    screen.shows("42")
    screen.type("Up", "BSpace", "3", "Enter")
    screen.shows("43")
    screen.type("C-d")
    until(lambda: screen.ended == 0, "the client has ended")


@pytest.mark.parametrize("legacy", [True, False])
def test_a_network_device_that_speaks_old_algorithms(start: Start, terminal: Terminal, *, legacy: bool) -> None:
    flags = ["--legacy"] if legacy else []
    device = start("network_device", "--password", "secret", *flags)
    old = ("-oKexAlgorithms=diffie-hellman-group14-sha1", "-oCiphers=aes128-cbc", "-oMACs=hmac-sha1",
           "-oHostKeyAlgorithms=ssh-rsa", "-oPreferredAuthentications=password")  # fmt: skip
    screen = terminal(device.ssh(user="admin", options=old))
    if not legacy:
        until(lambda: screen.ended == 255, "the client gives up")
        return
    screen.shows("admin@127.0.0.1's password:")
    screen.type("secret", "Enter")
    screen.shows("router>")
    screen.type("enable", "Enter")
    screen.shows("Password:")
    screen.type("secret", "Enter")
    screen.shows("router#")
    screen.type("show running-config", "Enter")
    screen.shows(" --More--")
    screen.type("Enter", "q")
    screen.shows("router#")
    screen.type("exit", "Enter")
    until(lambda: screen.ended == 0, "the client has ended")
