"""SCP of real clients against the exec processor that does nothing else."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Blob, Served, environment, eventually, program


def transfer(server: Served, client: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = _openssh(server) if client == "scp" else _putty(server)
    return subprocess.run(
        [*command, *words], capture_output=True, env=environment(server.folder), timeout=SECONDS, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _openssh(server: Served) -> list[str]:
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={server.known_hosts}"]
    head = [program("scp"), "-O", "-F", "none", "-i", server.keys.path("ed25519"), "-P", str(server.port)]
    return [*head, *(part for option in options for part in ("-o", option))]


def _putty(server: Served) -> list[str]:
    key = server.keys.putty("ed25519")
    return [program("pscp"), "-scp", "-batch", "-P", str(server.port), "-i", key, "-hostkey",
            server.host_keys["ssh-ed25519"]]  # fmt: skip


CLIENTS = ("scp", "pscp")


@pytest.fixture
def served(start: Serve, tmp_path: Path) -> Served:
    config = tmp_path / "scp.toml"
    for name in ("c", "root"):
        (tmp_path / name).mkdir()
    config.write_text(
        f'exec = "scp"\n[plugin.scp]\nroot = "{tmp_path}/root"\nlog_level = "debug"\n'
        f'drives = {{ C = "{tmp_path}/c" }}\n'
    )
    return start("--config", str(config))


def remote(server: Served, path: str) -> str:
    return f"{server.user}@127.0.0.1:{path}"


def same(one: Path, other: Path) -> bool:
    names = sorted(path.relative_to(one) for path in one.rglob("*"))
    assert names == sorted(path.relative_to(other) for path in other.rglob("*"))
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names if (one / name).is_file())


def tree(folder: Path, names: Sequence[str]) -> Path:
    made = folder / "tree"
    (made / "sub/empty").mkdir(parents=True)
    for number, name in enumerate(names):
        (made / name).write_bytes(os.urandom(number * 70_000))
        (made / "sub" / name).write_bytes(b"")
    return made


@pytest.mark.parametrize("client", CLIENTS)
def test_a_large_file_both_ways(served: Served, tmp_path: Path, blob: Blob, client: str) -> None:
    assert transfer(served, client, str(blob.path), remote(served, "/blob")).returncode == 0
    assert filecmp.cmp(tmp_path / "root/blob", blob.path, shallow=False)
    assert transfer(served, client, remote(served, "/blob"), str(tmp_path / "back")).returncode == 0
    assert filecmp.cmp(tmp_path / "back", blob.path, shallow=False)


@pytest.mark.parametrize("client", CLIENTS)
def test_trees_both_ways(served: Served, tmp_path: Path, client: str) -> None:
    made = tree(tmp_path, ["plain", "with space", "qu'ote", "ünïcode"])
    done = transfer(served, client, "-r", "-p", str(made), remote(served, "/"))
    assert done.returncode == 0, done.stderr
    assert same(made, tmp_path / "root/tree")
    assert int((tmp_path / "root/tree/plain").stat().st_mtime) == int((made / "plain").stat().st_mtime)
    (tmp_path / "back").mkdir()
    done = transfer(served, client, "-r", remote(served, "/tree"), str(tmp_path / "back"))
    assert done.returncode == 0, done.stderr
    assert same(made, tmp_path / "back/tree")


@pytest.mark.parametrize("client", CLIENTS)
def test_drives_both_ways(served: Served, tmp_path: Path, blob: Blob, client: str) -> None:
    (tmp_path / "c/dir").mkdir()
    assert transfer(served, client, str(blob.path), remote(served, "C:/dir/blob")).returncode == 0
    assert filecmp.cmp(tmp_path / "c/dir/blob", blob.path, shallow=False)
    done = transfer(served, client, remote(served, "c:/dir/blob"), str(tmp_path / "back"))
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(tmp_path / "back", blob.path, shallow=False)
    shutil.copy(blob.path, tmp_path / "c/bare")
    done = transfer(served, client, remote(served, "C:bare"), str(tmp_path / "bare"))
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(tmp_path / "bare", blob.path, shallow=False)


@pytest.mark.parametrize("client", CLIENTS)
def test_errors_reach_the_user(served: Served, tmp_path: Path, client: str) -> None:
    done = transfer(served, client, remote(served, "/nonexistent"), str(tmp_path / "x"))
    assert done.returncode != 0
    assert b"No such file or directory" in done.stderr + done.stdout
    (tmp_path / "file").write_bytes(b"x")
    done = transfer(served, client, str(tmp_path / "file"), remote(served, "/no/such/place"))
    assert done.returncode != 0
    assert b"No such file or directory" in done.stderr + done.stdout


def test_nothing_but_scp_is_executed(served: Served) -> None:
    command = [program("ssh"), "-F", "none", "-i", served.keys.path("ed25519"), "-p", str(served.port),
               "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={served.known_hosts}"]  # fmt: skip
    for words in ("id", "scp -t /x; id", "sh -c id", "scp -S id -t /x"):
        done = subprocess.run([*command, f"{served.user}@127.0.0.1", words], capture_output=True, timeout=SECONDS,
                              check=False, env=environment(served.folder), stdin=subprocess.DEVNULL)  # fmt: skip
        assert (done.returncode, done.stdout) == (1, b""), words
        assert done.stderr.startswith(b"scp: ")


def test_its_log_alone_can_be_turned_on(served: Served, tmp_path: Path) -> None:
    """MISSION P7."""
    (tmp_path / "a file").write_bytes(b"12345")
    assert transfer(served, "scp", str(tmp_path / "a file"), remote(served, "/")).returncode == 0
    assert eventually(lambda: "debug/plugin.scp/1 session 0: C0644 5 a file\n" in served.log)
