from __future__ import annotations

from pathlib import Path

import pytest

from dunnart.plugins import listed_shell, os_account
from dunnart.plugins.os_account import Account
from dunnart.server import Allow, Deny


def test_only_listed_shells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shells = tmp_path / "shells"
    monkeypatch.setattr(listed_shell, "FILE", str(shells))
    accounts = {name: Account(name, 1, 1, "/", shell) for name, shell in [("ann", "/bin/sh"), ("tom", "/sbin/nologin")]}
    monkeypatch.setattr(os_account, "find", accounts.get)
    allowed = Allow()

    def kept_out(user: str) -> str:
        found = listed_shell._decide(user, allowed)
        assert found is allowed or isinstance(found, Deny)
        return found.detail if isinstance(found, Deny) else ""

    assert (kept_out("ann"), kept_out("nobody's account")) == ("", "")  # there is no such file yet
    assert kept_out("tom") == f"the shell /sbin/nologin is not in {shells}"
    shells.write_text("# shells\n/bin/bash\n /bin/zsh # and so on\n")
    assert kept_out("ann") == f"the shell /bin/sh is not in {shells}"
    shells.write_text("/bin/sh\n/sbin/nologin#\n")
    assert (kept_out("ann"), kept_out("tom")) == ("", "")
    shells.unlink()
    shells.mkdir()
    assert kept_out("ann") == f"{shells} cannot be read: Is a directory"
