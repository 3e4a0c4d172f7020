"""Passwords of the system's users: libcrypt's hashes, locked and expired accounts, and the same work for everybody."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from dunnart.errors import ConfigError
from dunnart.plugins import os_account, shadow
from dunnart.plugins.shadow import Entry, Options, Shadow, entry_of
from dunnart.protocol.questions import Allow, AuthReply, Deny, NoneCredential, PasswordCredential
from dunnart.server import Attempt
from dunnart.server.plugins import Context

needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux may read the shadow file"
)
ANN = os_account.Account("ann", 1000, 1000, "/home/ann", "/bin/sh")
TODAY = int(time.time()) // 86400
# By openssl passwd and by libxcrypt's own crypt().
KNOWN = {
    "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1":
        "Hello world!",
    "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5": "Hello world!",
    "$y$j9T$abcdefghijklmnop$3dL1LkYnZM.OVXuVdnnaKVDlLYT92dRwOzDZ5XiVCe.": "secret",
}  # fmt: skip
HASH = next(iter(KNOWN))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shadow:
    """Only ann is a user; her entry is to be put in place."""
    monkeypatch.setattr(os_account, "find", lambda name: ANN if name == "ann" else None)
    (tmp_path / "shadow").write_text(f"root:*:1:0:::::\nann:{HASH}:1::::::\n")
    return Shadow(Context("shadow", Options(str(tmp_path / "shadow")), logging.getLogger("dunnart.plugin.shadow")))


def has(monkeypatch: pytest.MonkeyPatch, entry: Entry | None) -> None:
    monkeypatch.setattr("dunnart.plugins.shadow.entry_of", lambda _: entry)


async def ask(made: Shadow, password: str, user: str = "ann") -> AuthReply:
    return await made.authenticate(Attempt(user, PasswordCredential(password), "192.0.2.1"))


@needs_root
@pytest.mark.parametrize("hashed", KNOWN)
async def test_the_hashes_of_libcrypt(made: Shadow, monkeypatch: pytest.MonkeyPatch, hashed: str) -> None:
    has(monkeypatch, Entry(hashed))
    assert await ask(made, KNOWN[hashed]) == Allow(ANN)
    for wrong in ("", "x", KNOWN[hashed] + "\0", KNOWN[hashed] + "x", "\udcff", "x" * 600):
        assert await ask(made, wrong) == Deny()


@needs_root
@pytest.mark.parametrize(
    ("entry", "reply"),
    [
        (None, Deny("has no entry in the shadow file")),
        (Entry("!" + HASH), Deny("the password is locked")),
        (Entry("*"), Deny("the password is locked")),
        (Entry("!!"), Deny("the password is locked")),
        (Entry("x"), Deny()),
        (Entry("$unknown$x$y"), Deny()),
        (Entry(HASH, changed=0), Deny("the password has to be changed first")),
        (Entry(HASH, changed=TODAY - 10, most_days=9), Deny("the password has expired")),
        (Entry(HASH, changed=TODAY - 10, most_days=11), Allow(ANN)),
        (Entry(HASH, expires=TODAY - 1), Deny("the account has expired")),
        (Entry(HASH, expires=TODAY + 2), Allow(ANN)),
    ],
)
async def test_accounts(made: Shadow, monkeypatch: pytest.MonkeyPatch, entry: Entry | None, reply: AuthReply) -> None:
    has(monkeypatch, entry)
    assert await ask(made, "Hello world!") == reply


@needs_root
async def test_an_account_s_state_is_told_only_to_who_knows_the_password(
    made: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, Entry(HASH, expires=1))
    assert await ask(made, "x") == Deny()


@needs_root
async def test_no_password_at_all(made: Shadow, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, Entry(""))
    assert await ask(made, "") == Allow(ANN)  # which the option permit_empty_passwords refuses
    assert await ask(made, "x") == Deny()


@needs_root
async def test_the_work_is_the_same_for_everybody(made: Shadow, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[str] = []
    hashed = made.hashed

    def counted(password: bytes, setting: str) -> bytes | None:
        settings.append(setting)
        return hashed(password, setting)

    monkeypatch.setattr(made, "hashed", counted)
    for user, entry in [("ann", Entry(HASH)), ("ann", Entry("!")), ("ann", Entry("")), ("ann", None), ("eve", None)]:
        has(monkeypatch, entry)
        for password in ("Hello world!", "", "x" * 600):
            settings.clear()
            await ask(made, password, user)
            assert [setting[:14] for setting in settings] == ["$6$saltstring$"], (user, entry)
    assert await ask(made, "x", "eve") == Deny("no such user here", unknown_user=True)


@needs_root
async def test_hashes_are_made_where_only_few_are_at_a_time(made: Shadow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 16 MiB, if it is yescrypt's, and needs no right password."""
    threads: set[str] = set()
    hashed = made.hashed

    def seen(password: bytes, setting: str) -> bytes | None:
        threads.add(threading.current_thread().name)
        return hashed(password, setting)

    monkeypatch.setattr(made, "hashed", seen)
    has(monkeypatch, Entry(HASH))
    assert await ask(made, KNOWN[HASH]) == Allow(ANN)
    assert threads == {"dunnart-hashing"}


@needs_root
def test_the_system_s_own_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    # To look for a library starts a program: not for each login.
    monkeypatch.setattr("ctypes.util.find_library", lambda name: pytest.fail(f"looks for {name}"))
    lines = dict(line.split(":")[:2] for line in Path("/etc/shadow").read_text().splitlines())
    for name, hashed in lines.items():
        entry = entry_of(name)
        assert entry is not None
        assert entry.hashed == hashed
    assert entry_of("no-such-user") is None


@needs_root
def test_hashes_that_libcrypt_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "shadow").write_text("ann:$strange$salt$hash:1::::::\n")
    with pytest.raises(ConfigError, match="libcrypt cannot make hashes as most of"):
        Shadow(Context("shadow", Options(str(tmp_path / "shadow")), logging.getLogger("dunnart.plugin.shadow")))


def test_unknown_users_cost_what_most_do(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    path.write_text("a:$6$one$x:\nb:!$y$j9T$two$x:\nc:$y$j9T$three$y:\nd:*:\ne::\nf\n")
    assert shadow._typical(str(path)) == "$y$j9T$three$"
    path.write_text(f"a:$6$one$x:\nb:$2b$12${'a' * 53}:\nc:$2b$12${'b' * 53}:\n")
    assert shadow._typical(str(path)) == f"$2b$12${'b' * 22}"
    path.write_text("d:*:\n")
    assert shadow._typical(str(path)).startswith("$y$j9T$")
    assert shadow._typical(str(tmp_path / "none")).startswith("$y$j9T$")


def test_for_others_than_root_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="run the server as root" if sys.platform == "linux" else "Linux"):
        Shadow(Context("shadow", Options(), logging.getLogger("dunnart.plugin.shadow")))


@needs_root
async def test_other_methods_are_for_others(made: Shadow) -> None:
    assert isinstance(await made.authenticate(Attempt("ann", NoneCredential(), "")), Deny)
