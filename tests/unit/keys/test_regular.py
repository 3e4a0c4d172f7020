"""What may be opened where somebody else decides what is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dunnart.keys.authorized_keys import AuthorizedKeysCache
from dunnart.keys.private import PrivateKey
from dunnart.keys.regular import open_regular

KEY = PrivateKey.generate("ed25519").public
UID, GID = os.geteuid(), os.getegid()


@pytest.mark.skipif(sys.platform != "linux", reason="O_PATH is Linux's")
def test_what_is_no_file_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    opened: list[int] = []
    real = os.open

    def note(path: str, flags: int) -> int:
        opened.append(flags)
        return real(path, flags)

    monkeypatch.setattr(os, "open", note)
    for name in ("fifo", "link", "."):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(str(tmp_path / name))
    assert opened == [os.O_PATH | os.O_CLOEXEC] * 3


def test_from_a_home_nothing_is_read_that_its_owner_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link may lead to the kernel's messages, which root would read, and so take from the log."""
    home, system = tmp_path / "home", tmp_path / "system"
    for each in (home, system):
        each.mkdir(mode=0o755)
    file, link = system / "keys", home / "authorized_keys"
    file.write_text(KEY.line())
    link.symlink_to(file)
    real, ids = os.stat, (UID, GID)

    def stat(path: str) -> os.stat_result:
        found = real(path)
        return os.stat_result((*found[:4], *ids, *found[6:])) if path == str(home) else found

    monkeypatch.setattr(os, "stat", stat)
    for mode, ids, lets_in in (  # noqa: B007 - `stat` reads them
        (0o600, (UID, GID), True), (0o600, (UID + 1, GID), False), (0o640, (UID + 1, GID), True),
        (0o640, (UID + 1, GID + 1), False), (0o604, (UID + 1, GID + 1), True),
    ):  # fmt: skip
        file.chmod(mode)
        found = AuthorizedKeysCache().load(str(link), owner_uid=None, home=str(home))
        assert bool(found.find(KEY)) == lets_in
        assert lets_in or "cannot read" in found.refused[0][1]
    file.chmod(0o600)  # who names another place in the configuration has put there what it is
    assert AuthorizedKeysCache().load(str(file), owner_uid=None, home=str(home)).find(KEY)
