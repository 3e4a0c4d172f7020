"""Stores behind SFTP and SCP with real clients: S3 by the daemon's options, and memory in a program."""

from __future__ import annotations

import filecmp
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import dunnart
from dunnart.sftp import FsspecFiles
from dunnart.testing.background import BackgroundLoop
from tests.interop.clients import _library
from tests.interop.conftest import Serve
from tests.interop.support import MIB, SECONDS, Blob, Keys, Served, environment, eventually, make_blob, program
from tests.interop.tools import run, ssh_config
from tests.unit.sftp.stores import S3, Stored, in_s3, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def stored(s3: S3) -> Stored:
    return in_s3(s3)


@pytest.fixture
def served(start: Serve, s3: S3, stored: Stored, tmp_path: Path) -> Served:
    options = f"root = {json.dumps(f's3://{stored.base}')}\nstorage = {{ {', '.join(_toml(s3))} }}\n"
    config = tmp_path / "dunnart.toml"
    config.write_text(f'exec = "scp"\nsubsystem = {{ sftp = "sftp" }}\n[plugin.sftp]\n{options}[plugin.scp]\n{options}')
    return start("--config", str(config))


def _toml(s3: S3) -> list[str]:
    return [f"{name} = {json.dumps(value)}" for name, value in s3.options.items()]


def sftp(served: Served, *lines: str, status: int = 0) -> str:
    text = "\n".join(lines).encode() + b"\n"
    return run(served, "sftp", "-F", ssh_config(served), "-b", "-", "dunnart", said=text, status=status)


def test_openssh_works_in_a_bucket(served: Served, stored: Stored, tmp_path: Path) -> None:
    blob = make_blob(tmp_path / "blob", 20 * MIB + 3)
    (tmp_path / "short").write_bytes(blob.data[: 11 * MIB])
    sftp(served, "mkdir d", f"put -p {blob.path} d/f", f"put {tmp_path}/short d/g", f"get d/f {tmp_path}/back")
    assert stored.content("d/f") == blob.data
    assert filecmp.cmp(tmp_path / "back", blob.path, shallow=False)
    sftp(served, f"reput {blob.path} d/g", "mkdir d/empty", "rename d d2", "chmod 600 d2/f", "rename d2/f d2/h")
    assert stored.content("d2/g") == blob.data
    shown = sftp(served, "ls -l d2", "ls")
    assert [line.split()[0] for line in shown.splitlines() if "d2/" in line] == [
        "drwxr-xr-x", "-rw-r--r--", "-rw-r--r--",
    ]  # fmt: skip
    sftp(served, "rm d2/g", "rm d2/h", "rmdir d2/empty", "rmdir d2")
    assert sftp(served, "ls -l").splitlines() == ["sftp> ls -l"]
    for line, wanted in (
        ("get missing", "not found"), ("ln -s a b", "unsupported"),
        ("rmdir nothing", "No such"),
        (f"put {blob.path} nowhere/f", "No such file"),
    ):  # fmt: skip
        assert wanted in sftp(served, line, status=1)


@pytest.mark.parametrize("protocol", ["-s", "-O"])
def test_scp_takes_and_gives_trees(served: Served, stored: Stored, tmp_path: Path, protocol: str) -> None:
    (tmp_path / "tree/sub/empty").mkdir(parents=True)
    for number, name in enumerate(("plain", "with space", "a[1]*", "ünï")):
        (tmp_path / "tree/sub" / name).write_bytes(name.encode() * 50_000 * number)
    scp = ["scp", protocol, "-rp", "-F", str(ssh_config(served))]
    for _ in range(2):  # the second time over what is there
        run(served, *scp, tmp_path / "tree/sub", "dunnart:/")
    run(served, *scp, "dunnart:/sub", tmp_path / "back")
    assert stored.content("sub/a[1]*") == b"a[1]*" * 100_000
    compared = filecmp.dircmp(tmp_path / "tree/sub", tmp_path / "back")
    assert (compared.left_only, compared.right_only, compared.diff_files) == ([], [], [])
    assert sorted(compared.common) == ["a[1]*", "empty", "plain", "with space", "ünï"]


def test_half_an_upload_is_not_visible(served: Served, stored: Stored) -> None:
    paramiko = _library("paramiko", "paramiko")
    stored.put("old", b"as it was")
    transport = paramiko.Transport(("127.0.0.1", served.port))
    transport.connect(username=served.user, pkey=paramiko.PKey.from_path(served.keys.path("ed25519")))
    client = paramiko.SFTPClient.from_transport(transport)
    opened = [client.open(f"/{name}", "w") for name in ("new", "old")]
    for file in opened:
        file.set_pipelined()
        file.write(bytes(6 * MIB))
    assert client.listdir("/") == ["old"]
    transport.close()
    assert eventually(lambda: "process ended" in served.log)
    assert not stored.has("new")
    assert stored.content("old") == b"as it was"


def test_rclone_syncs_and_sees_the_same(served: Served, stored: Stored, tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    for number in range(4):
        (tmp_path / f"tree/sub/f{number}").write_bytes(bytes([number]) * 300_000)
    settings = {
        "RCLONE_CONFIG_THERE_TYPE": "sftp", "RCLONE_CONFIG_THERE_HOST": "127.0.0.1",
        "RCLONE_CONFIG_THERE_PORT": str(served.port), "RCLONE_CONFIG_THERE_USER": served.user,
        "RCLONE_CONFIG_THERE_KEY_FILE": served.keys.path("ed25519"),
        "RCLONE_CONFIG_THERE_KNOWN_HOSTS_FILE": served.known_hosts,
    }  # fmt: skip

    def rclone(*words: str | Path) -> None:
        run(
            served,
            "rclone",
            "--config",
            "",
            "--retries",
            "1",
            "--transfers",
            "1",
            "--checkers",
            "1",
            *words,
            variables=settings,
        )

    rclone("sync", tmp_path / "tree", "there:there")
    assert stored.content("there/sub/f3") == b"\3" * 300_000
    rclone("check", "--download", tmp_path / "tree", "there:there")
    (tmp_path / "tree/sub/f0").unlink()
    rclone("sync", "--size-only", tmp_path / "tree", "there:there")
    assert not stored.has("there/sub/f0")
    rclone("purge", "there:there")
    assert not stored.has("there")


def test_sessions_in_a_program_share_a_store(keys: Keys, tmp_path: Path, blob: Blob) -> None:
    store = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    files = FsspecFiles(store)
    loop = BackgroundLoop("test-server")
    server = dunnart.Server(
        subsystems={"sftp": dunnart.SftpHandler(files)}, exec=dunnart.ScpHandler(files),
        host_keys=[dunnart.PrivateKey.generate("ed25519")],
        authenticators=[dunnart.PublicKeys(keys.authorized.read_text(), users=["alice"])],
        listen="127.0.0.1:0", admission=None,
    )  # fmt: skip
    loop.run(server.start())
    try:
        host = server.config.keys[0].public.line()
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {host}\n")
        options = ("BatchMode=yes", f"UserKnownHostsFile={tmp_path}/known_hosts", "User=alice",
                   f"IdentityFile={keys.path('ed25519')}", f"Port={server.port}")  # fmt: skip
        scp = [program("scp"), "-F", "none", *(part for option in options for part in ("-o", option))]

        def began(protocol: str, *words: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen([*scp, protocol, *words], env=environment(tmp_path), stderr=subprocess.PIPE)

        def done(processes: list[subprocess.Popen[bytes]]) -> None:
            for process in processes:
                _, errors = process.communicate(timeout=SECONDS)
                assert process.returncode == 0, errors

        done([began(flag, str(blob.path), f"127.0.0.1:/up{flag}") for flag in ("-s", "-O")])
        assert store.cat_file("/up-s") == store.cat_file("/up-O") == blob.data
        done([began(flag, "127.0.0.1:/up-s", str(tmp_path / f"back{flag}")) for flag in ("-s", "-O")])
        for flag in ("-s", "-O"):
            assert filecmp.cmp(tmp_path / f"back{flag}", blob.path, shallow=False)
    finally:
        loop.run(server.close(seconds=1))
        loop.stop()
