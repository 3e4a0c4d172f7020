"""Host keys: made once, kept private, and refused when they are not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dunnart.daemon.host_keys import default_state_folder, load_host_keys
from dunnart.errors import ConfigError
from dunnart.keys import files
from dunnart.keys.files import read_private_key
from dunnart.keys.private import PrivateKey


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_the_key_and_the_next_ones_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    old = os.umask(0)
    try:
        (first,) = load_host_keys((), ("ed25519",), str(folder))
    finally:
        os.umask(old)
    assert first.public.key_type == "ssh-ed25519"
    assert mode(folder) == 0o700
    assert [(path.name, mode(path)) for path in folder.iterdir()] == [("ssh_host_ed25519_key", 0o600)]
    (second,) = load_host_keys((), ("ed25519",), str(folder))
    assert second.public == first.public


def test_other_types_on_demand(tmp_path: Path) -> None:
    keys = load_host_keys((), ("rsa", "ecdsa", "ed25519"), str(tmp_path / "state"))
    assert [key.public.key_type for key in keys] == ["ssh-rsa", "ecdsa-sha2-nistp256", "ssh-ed25519"]


@pytest.mark.interop
def test_ssh_keygen_reads_the_key(tmp_path: Path) -> None:
    (key,) = load_host_keys((), ("ed25519",), str(tmp_path))
    command = ["ssh-keygen", "-l", "-f", str(tmp_path / "ssh_host_ed25519_key")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert key.public.fingerprint() in done.stdout


def test_first_starts_at_once_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from dunnart.daemon.host_keys import load_host_keys; sys.stdin.read(1);"
        "print(load_host_keys((), ('ed25519',), sys.argv[1])[0].public.fingerprint())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "state")]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]  # fmt: skip
    for each in started:
        assert each.stdin is not None
        each.stdin.close()
    printed = set()
    for each in started:
        assert each.stdout is not None
        printed.add(each.stdout.read())
        each.stdout.close()
        assert each.wait() == 0
    assert len(printed) == 1
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["ssh_host_ed25519_key"]


def test_who_comes_second_takes_the_first_ones_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = PrivateKey.generate("ed25519")
    publish = files._publish

    def late(aside: str, path: str) -> None:
        files._write_new(path, other.openssh())
        publish(aside, path)

    monkeypatch.setattr(files, "_publish", late)
    (key,) = load_host_keys((), ("ed25519",), str(tmp_path))
    assert key.public == other.public
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_that_exists_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        files._write_new(str(tmp_path / "there"), b"secret")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(_source: str, _target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    (key,) = load_host_keys((), ("ed25519",), str(tmp_path))
    assert read_private_key(str(tmp_path / "ssh_host_ed25519_key")).public == key.public
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "my key"
    path.write_bytes(PrivateKey.generate("ed25519").openssh())
    path.chmod(bits)
    with pytest.raises(ConfigError) as caught:
        load_host_keys((str(path),), ())
    assert caught.value.path == str(path)
    assert f"chmod 600 '{path}'" in str(caught.value)
    path.chmod(0o600)
    assert len(load_host_keys((str(path),), ())) == 1


def test_files_that_hold_no_usable_key(tmp_path: Path) -> None:
    locked, text, fifo = tmp_path / "locked", tmp_path / "text", tmp_path / "fifo"
    locked.write_bytes(PrivateKey.generate("ed25519").openssh(passphrase="secret"))
    text.write_bytes(b"hello")
    os.mkfifo(fifo, 0o600)
    for path in (locked, text):
        path.chmod(0o600)
    for path, message in (
        (tmp_path / "missing", "cannot be read: No such file"),
        (locked, "locked by a passphrase"),
        (text, "not a private key"),
        (fifo, "it is no regular file"),
        (tmp_path, "it is no regular file"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            load_host_keys((str(path),), ("ed25519",), str(tmp_path / "state"))
        assert str(caught.value).startswith(str(path))
    assert not (tmp_path / "state").exists()


def test_a_damaged_key_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ssh_host_ed25519_key"
    path.write_bytes(b"damaged")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="not a private key"):
        load_host_keys((), ("ed25519",), str(tmp_path))
    assert path.read_bytes() == b"damaged"


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    with pytest.raises(ConfigError, match="run: chmod 700"):
        load_host_keys((), ("ed25519",), str(tmp_path))
    (tmp_path / "file").touch()
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match="is no folder"):
        load_host_keys((), ("ed25519",), str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot be made"):
        load_host_keys((), ("ed25519",), str(tmp_path / "file" / "below"))


def test_no_key_at_all() -> None:
    with pytest.raises(ConfigError, match="host_key_types: neither"):
        load_host_keys((), ())


def test_the_platforms_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_state_folder() == "/home/u/.local/state/dunnart"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_state_folder() == "/home/u/.local/state/dunnart"
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert default_state_folder() == "/x/dunnart"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_state_folder() == "/home/u/Library/Application Support/dunnart"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_folder() == "/var/lib/dunnart"
