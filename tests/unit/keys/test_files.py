"""A key that a program keeps in a file: made once, kept private. More of it in tests/unit/daemon/test_host_keys.py."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dunnart.errors import ConfigError
from dunnart.keys import PrivateKey


def test_it_is_made_the_first_time_and_read_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        made = PrivateKey.load_or_generate(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["key"]
    assert PrivateKey.load_or_generate(str(path)).public == made.public
    assert made.public.key_type == "ssh-ed25519"


def test_another_kind(tmp_path: Path) -> None:
    assert PrivateKey.load_or_generate(tmp_path / "key", "ecdsa").public.key_type == "ecdsa-sha2-nistp256"


def test_a_name_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PrivateKey.load_or_generate("key")
    assert os.listdir() == ["key"]


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "key"
    PrivateKey.load_or_generate(path)
    path.chmod(bits)
    with pytest.raises(ConfigError, match=f"{path}: can be read by others .* chmod 600 {path}"):
        PrivateKey.load_or_generate(path)


def test_a_damaged_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    with pytest.raises(ConfigError, match="not a private key"):
        PrivateKey.load_or_generate(path)
    assert path.read_bytes() == b""


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made: No such file"):
        PrivateKey.load_or_generate(tmp_path / "nowhere" / "key")
