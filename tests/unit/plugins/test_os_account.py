"""Which of the system's users can be served."""

from __future__ import annotations

import os
import pwd

import pytest

from dunnart.daemon.ways_in import this_user
from dunnart.plugins import os_account


def test_who_runs_this_is_served() -> None:
    account = os_account.find(this_user().name)
    assert account is not None
    assert account.uid == os.geteuid()
    assert account.shell.startswith("/")
    assert account.gid in account.groups()


@pytest.mark.parametrize("name", ["", "-root", ".", "..", "../etc", "a/b", "nul\0", "no such user", "x" * 300])
def test_names_that_are_nobodys(name: str) -> None:
    assert os_account.find(name) is None


def test_others_are_served_by_root_only(monkeypatch: pytest.MonkeyPatch) -> None:
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, os.geteuid()))
    monkeypatch.setattr(os, "geteuid", lambda: other.pw_uid + 1)
    assert os_account.find(other.pw_name) is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert os_account.find(other.pw_name) is not None


def test_no_shell_means_sh(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd(("alice", "x", os.geteuid(), 1, "", "/home/alice", ""))
    monkeypatch.setattr(pwd, "getpwnam", lambda _: entry)
    account = os_account.find("alice")
    assert account is not None
    assert account.shell == "/bin/sh"


def test_a_name_has_one_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that know no case would let users in whom rules name otherwise."""
    entry = pwd.struct_passwd(("alice", "x", os.geteuid(), 1, "", "/home/alice", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda _: entry)
    assert os_account.find("ALICE") is None
