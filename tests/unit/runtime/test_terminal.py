"""Terminals: what is shown before a program runs, and whose they are."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator

import pytest

if sys.platform == "win32":
    pytest.skip("there are none", allow_module_level=True)

from dunnart.runtime.terminal import Ownership, Terminal


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def test_what_is_shown_comes_as_from_a_program(terminal: Terminal) -> None:
    terminal.show(b"")
    terminal.show(b"Mind\nthe gap.\n")
    assert os.read(terminal.master, 100) == b"Mind\r\nthe gap.\r\n"


def test_nobody_waits_for_what_finds_no_room(terminal: Terminal) -> None:
    terminal.show(b"x" * 1_000_000)
    os.set_blocking(terminal.master, False)
    assert os.read(terminal.master, 4096)[:100] == b"x" * 100
    os.close(os.open(terminal.name, os.O_WRONLY | os.O_NOCTTY))
    assert os.get_blocking(terminal.slave)  # the program's own is not touched


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root gives terminals away")
def test_a_terminal_is_the_users_and_then_roots_again(terminal: Terminal) -> None:
    ownership = Ownership(terminal.name)
    terminal.give_to(65534, 65534)
    given = os.stat(terminal.name)
    assert given.st_uid == 65534
    assert stat.S_IMODE(given.st_mode) in {0o620, 0o600}
    ownership.end()
    back = os.stat(terminal.name)
    assert (back.st_uid, back.st_gid, stat.S_IMODE(back.st_mode)) == (0, 0, 0o600)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root gives terminals away")
def test_another_ones_terminal_of_the_same_name_is_left_alone() -> None:
    first = Terminal()
    ownership = Ownership(first.name)
    first.close()
    others = [Terminal()]
    try:
        while others[-1].name != first.name and len(others) < 50:
            others.append(Terminal())
        if others[-1].name != first.name:
            pytest.skip("somebody else has it now")
        others[-1].give_to(65534, 65534)
        ownership.end()
        assert os.stat(first.name).st_uid == 65534
    finally:
        for each in others:
            each.close()
