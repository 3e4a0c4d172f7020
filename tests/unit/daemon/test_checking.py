"""`dunnart config --check`: what would stop the start stops it, with the same error, and nothing is made."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest

from dunnart.daemon import separation
from dunnart.daemon.background import write_pid_file
from dunnart.daemon.checking import check
from dunnart.daemon.config import ServeConfig
from dunnart.daemon.loading import load
from dunnart.daemon.preparing import prepare
from dunnart.daemon.serve import start_log
from dunnart.errors import ConfigError
from dunnart.keys.private import PrivateKey

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX has it")
KEY = PrivateKey.generate("rsa", bits=2048).openssh()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "rsa"
    path.write_bytes(KEY)
    path.chmod(0o600)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    return tmp_path


def read(folder: Path, text: str) -> ServeConfig:
    path = folder / "dunnart.toml"
    path.write_text(text.replace("FOLDER", str(folder)))
    return load(str(path), {})


def start(config: ServeConfig) -> None:
    """Do what the server does before it serves, and after."""
    if config.log_to != "auto":
        start_log(config)
    prepare(config)
    write_pid_file(config.pid_file)


def below(folder: Path) -> set[str]:
    return {str(each) for each in folder.rglob("*")}


@pytest.mark.parametrize("text", [
    'log_to = "/nowhere/at/all"', 'log_to = "FOLDER/rsa/log"', 'log_to = "FOLDER/open"',
    'pid_file = "/nowhere/at/all"', 'pid_file = "FOLDER/open"',
    "listen = []", "host_key_types = []",
    'host_key = ["FOLDER/rsa"]\nrequired_rsa_size = 3072',
    'host_key = ["FOLDER/rsa"]\nhost_key_algorithms = "ssh-ed25519"',
    'state_folder = "FOLDER/open"', 'state_folder = "FOLDER/rsa"', 'state_folder = "FOLDER/rsa/below/it"',
    'state_folder = "FOLDER/new"\nhost_key_algorithms = "rsa-sha2-512"',
    'state_folder = "FOLDER/new"\nhost_certificate = ["FOLDER/none"]',
])  # fmt: skip
def test_what_would_stop_the_start(text: str, folder: Path) -> None:
    config = read(folder, f"{text}\n")
    before = below(folder)
    with pytest.raises(ConfigError) as found:
        check(config)
    assert below(folder) == before
    with pytest.raises(ConfigError) as told:
        start(config)
    assert str(found.value) == str(told.value)


@pytest.mark.parametrize("text", [
    "", 'host_key = ["FOLDER/rsa"]', 'log_to = "FOLDER/log"\npid_file = "FOLDER/pid"', 'log_to = "FOLDER/rsa"',
    'state_folder = "FOLDER/new/below"\nhost_key_types = ["ecdsa", "ed25519"]\nhost_key_algorithms = "ssh-ed25519"',
    'control_socket = "FOLDER/control"',
])  # fmt: skip
def test_nothing_is_made_of_what_is_good(text: str, folder: Path) -> None:
    config = read(folder, f"{text}\n")
    before = below(folder), (folder / "rsa").read_bytes()
    check(config)
    assert (below(folder), (folder / "rsa").read_bytes()) == before


def test_a_folder_in_which_nothing_can_be_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for whoever is not root
    for text, wrong in [
        ('log_to = "FOLDER/log"', "log: log_to: cannot be written: Permission denied"),
        ('pid_file = "FOLDER/pid"', "pid: pid_file: cannot be written: Permission denied"),
        ('state_folder = "FOLDER/new"', "new: state_folder: cannot be made: Permission denied"),
    ]:
        with pytest.raises(ConfigError, match=wrong):
            check(read(folder, text))


def test_a_state_folder_of_somebody_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: str) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (folder / "state" / "dunnart").mkdir(parents=True, mode=0o700)
    monkeypatch.setattr("dunnart.daemon.host_keys.could_make_folder", denied)
    monkeypatch.setattr("dunnart.daemon.host_keys.is_missing", lambda path: path.endswith("_key") and denied(path))
    with pytest.raises(ConfigError, match="ssh_host_ed25519_key: the key cannot be made: Permission denied"):
        check(read(folder, ""))


def test_a_log_that_nobody_reads_holds_nothing_up(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with pytest.raises(ConfigError, match="fifo: log_to: cannot be written"):
        check(read(folder, 'log_to = "FOLDER/fifo"'))


def test_where_the_control_socket_cannot_be(folder: Path) -> None:
    for path, wrong in [("/nowhere/at/all", "cannot be used"), (f"{folder}/open/x", "others can write to it"),
                        (f"{folder}/{'x' * 200}", "")]:  # fmt: skip
        with pytest.raises(ConfigError, match=f"control_socket: .*{wrong}"):
            check(read(folder, f'control_socket = "{path}"'))
    with socket.socket(socket.AF_UNIX) as running:
        running.bind(str(folder / "control"))
        running.listen()
        check(read(folder, 'control_socket = "FOLDER/control"'))  # it is this configuration's, before a reload


def test_who_meets_the_network_as_root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    host_key = f'host_key = ["{folder}/rsa"]\n'
    monkeypatch.setattr("dunnart.daemon.host_keys.read_private_key", lambda *_, **__: PrivateKey.generate("ed25519"))
    for user, wrong in [("no-such-user", "there is no user no-such-user"), ("root", "root is root")]:
        config = read(folder, f'{host_key}unprivileged_user = "{user}"\n')
        for see in (check, separation.separate):
            with pytest.raises(ConfigError, match=f"unprivileged_user: {wrong}"):
                see(config)
    for name, wrong in [("open", "others than root can write to it"), ("rsa", "cannot be used: "),
                        ("rsa/below", "cannot be used: Not a directory")]:  # fmt: skip
        config = read(folder, f'{host_key}empty_folder = "{folder}/{name}"\n')
        for see in (check, separation.separate):
            with pytest.raises(ConfigError, match=f"{folder}/{name}: empty_folder: {wrong}"):
                see(config)
        check(read(folder, f'{host_key}sandbox = false\nempty_folder = "{folder}/{name}"\n'))
    check(read(folder, f'{host_key}empty_folder = "{folder}/new/empty"\n'))
    assert not (folder / "new").exists()
