"""Whether anybody has a key to come in with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dunnart.daemon import ways_in
from dunnart.daemon.ways_in import User, anyone_has_key, new_password, this_user
from dunnart.keys.private import PrivateKey
from dunnart.plugins.authorized_keys import fill_in

LINE = PrivateKey.generate("ed25519").public.line("me@here").encode()


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("%h/.ssh/authorized_keys", "/home/a%h/.ssh/authorized_keys"),
        ("/etc/keys/%u.%U", "/etc/keys/bob.1000"),
        (".ssh/keys", "/home/a%h/.ssh/keys"),
        ("/a%%u", "/a%u"),
        ("/%%%u%%", "/%bob%"),
    ],
)
def test_patterns(pattern: str, path: str) -> None:
    assert fill_in(pattern, "bob", 1000, "/home/a%h") == path


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The homes of the two users that there are."""
    users = [User(name, os.geteuid(), str(tmp_path / name)) for name in "ab"]
    monkeypatch.setattr(ways_in, "served_users", lambda: iter(users))
    for user in users:
        os.mkdir(user.home, 0o755)
    return [Path(user.home) for user in users]


@pytest.mark.parametrize(
    ("content", "usable"),
    [
        (b"", False),
        (b"# comment\n#" + LINE, False),
        (b"hello world\n", False),
        (b"unknown-option " + LINE, False),
        (LINE[:40], False),
        (b"junk\r\n  " + LINE + b"\r\n", True),
    ],
)
def test_any_users_key_counts(homes: list[Path], content: bytes, usable: bool) -> None:
    assert not anyone_has_key(["%h/k"], strict_modes=True)
    (homes[1] / "k").write_bytes(content)
    (homes[1] / "k").chmod(0o644)
    assert anyone_has_key(["/nowhere/%u", "%h/k"], strict_modes=True) is usable


def test_a_file_that_others_can_write_counts_only_without_strict_modes(
    homes: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    (homes[0] / "k").write_bytes(LINE)
    (homes[0] / "k").chmod(0o666)
    assert not anyone_has_key(["%h/k"], strict_modes=True)
    assert f"{homes[0]}/k lets nobody in: " in caplog.text
    assert "writable" in caplog.text
    assert anyone_has_key(["%h/k"], strict_modes=False)


def test_a_file_for_all_is_spoken_of_once(homes: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    shared = homes[0] / "k"
    shared.write_bytes(b"hello world\n" + LINE)
    shared.chmod(0o666)
    assert not anyone_has_key([str(shared)], strict_modes=True)
    assert caplog.text.count("lets nobody in") == 1


def test_what_is_no_file(homes: list[Path]) -> None:
    os.mkfifo(homes[0] / "fifo", 0o600)
    assert not anyone_has_key(["%h/fifo", "%h"], strict_modes=True)


def test_served_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345678)
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("USER", "nameless")
    assert list(ways_in.served_users()) == [User("nameless", 12345678, "/h")] == [this_user()]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    users = list(ways_in.served_users())
    assert users[0].number == 0
    assert len(users) > 1


def test_passwords_are_long_and_new() -> None:
    made = {new_password() for _ in range(50)}
    assert len(made) == 50
    assert {len(password) for password in made} == {20}
    letters = set("".join(made))
    assert len(letters) == 32
    assert not letters & set("01lo")
