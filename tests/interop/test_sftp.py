"""SFTP of real clients against the subsystem, and OpenSSH's client straight against the program."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Blob, Served, environment, program

NAMES = (b"plain", b"with space", b"qu'ote", b'dou"ble', b"new\nline", b"back\\slash", b"\xff\xfe", "ünï".encode())


@pytest.fixture
def served(start: Serve) -> Served:
    return start("--subsystem", "sftp=sftp")


def transfer(server: Served, client: str, *words: str, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*_command(server, client), *words], capture_output=True, env=environment(server.folder), timeout=SECONDS,
        check=False, input=said,
    )  # fmt: skip


def _command(server: Served, client: str) -> list[str]:
    if client in {"psftp", "pscp"}:
        head = [program(client), *(["-sftp"] if client == "pscp" else [])]
        key = server.keys.putty("ed25519")
        return [*head, "-batch", "-P", str(server.port), "-i", key, "-hostkey", server.host_keys["ssh-ed25519"]]
    head = [program(client), *(["-s"] if client == "scp" else [])]
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={server.known_hosts}"]
    head += ["-F", "none", "-i", server.keys.path("ed25519"), "-P", str(server.port)]
    return [*head, *(part for option in options for part in ("-o", option))]


def remote(server: Served, path: Path | str) -> str:
    return f"{server.user}@127.0.0.1:{path}"


@pytest.mark.parametrize("client", ["scp", "pscp"])
def test_a_large_file_both_ways(served: Served, tmp_path: Path, blob: Blob, client: str) -> None:
    done = transfer(served, client, "-p", str(blob.path), remote(served, tmp_path / "there"))
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(tmp_path / "there", blob.path, shallow=False)
    assert int((tmp_path / "there").stat().st_mtime) == int(blob.path.stat().st_mtime)
    done = transfer(served, client, remote(served, tmp_path / "there"), str(tmp_path / "back"))
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(tmp_path / "back", blob.path, shallow=False)


def test_trees_with_all_sorts_of_names_both_ways(served: Served, tmp_path: Path) -> None:
    made = tmp_path / "tree"
    (made / "sub/empty").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        path = os.fsencode(made / "sub") + b"/" + name
        Path(os.fsdecode(path)).write_bytes(os.urandom(number * 70_000))
        os.chmod(path, 0o604)
        os.utime(path, (1_000_000, 2_000_000 + number))
    done = transfer(served, "scp", "-rp", str(made), remote(served, tmp_path / "there"))
    assert done.returncode == 0, done.stderr
    done = transfer(served, "scp", "-rp", remote(served, tmp_path / "there"), str(tmp_path / "back"))
    assert done.returncode == 0, done.stderr
    for folder in ("there", "back"):
        assert (tmp_path / folder / "sub/empty").is_dir()
        listed = os.listdir(os.fsencode(tmp_path / folder / "sub"))
        assert sorted(listed) == sorted([*NAMES, b"empty"])
        for number, name in enumerate(NAMES):
            copy = Path(os.fsdecode(os.fsencode(tmp_path / folder / "sub") + b"/" + name))
            assert copy.read_bytes() == (made / "sub" / os.fsdecode(name)).read_bytes()
            status = copy.stat()
            assert (status.st_mode & 0o777, status.st_mtime) == (0o604, 2_000_000 + number)


@pytest.mark.parametrize("client", ["sftp", "psftp"])
def test_commands(served: Served, tmp_path: Path, client: str) -> None:
    (tmp_path / "f").write_bytes(b"data")
    script = tmp_path / "script"
    rename = "rename" if client == "sftp" else "ren"
    script.write_text(
        f"cd {tmp_path}\nmkdir made\nput {tmp_path}/f made/g\n{rename} made/g made/h\nchmod 600 made/h\nls made\n"
        f"get made/h {tmp_path}/back\nrm f\n"
    )
    flags = ["-b", str(script)]
    done = transfer(served, client, *flags, f"{served.user}@127.0.0.1")
    assert done.returncode == 0, done.stderr
    assert b"h" in done.stdout
    assert (tmp_path / "back").read_bytes() == b"data"
    assert (tmp_path / "made/h").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "f").exists()
    assert os.listdir(tmp_path / "made") == ["h"]


def test_a_program_that_other_servers_can_start(tmp_path: Path, blob: Blob, served: Served) -> None:
    """OpenSSH's client speaks to the program itself, over pipes: -D is what its sftp has for that."""
    server = tmp_path / "sftp-server"
    server.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dunnart sftp-server "$@"\n')
    server.chmod(0o755)
    done = subprocess.run(
        [program("sftp"), "-b", "-", "-D", str(server)], capture_output=True, timeout=SECONDS, check=False,
        input=f"put {blob.path} {tmp_path}/there\nget {tmp_path}/there {tmp_path}/back\n".encode(),
        env=environment(served.folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(tmp_path / "back", blob.path, shallow=False)
