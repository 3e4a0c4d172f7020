"""What the options of the plug-ins sftp and scp come to, with real clients: roots, bounds, filters, events."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from dunnart.daemon.ways_in import this_user
from dunnart.sftp.messages import CLOSE
from tests.interop.clients import _library
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Served, eventually
from tests.interop.tools import transfer as run

MIB = 1 << 20
Configured = Callable[..., Served]
BOTH = pytest.mark.parametrize("protocol", ["-s", "-O"])


@pytest.fixture
def configured(start: Serve, tmp_path: Path) -> Configured:
    """Start a server whose sftp and scp have these options, and a root of their own."""

    def begin(top: str = "", **options: Any) -> Served:
        (tmp_path / "root").mkdir()
        options.setdefault("root", str(tmp_path / "root"))
        lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
        requests = ("allow_requests", "deny_requests")
        config = tmp_path / "dunnart.toml"
        config.write_text("\n".join([
            'exec = "scp"', 'subsystem = { sftp = "sftp" }', 'audit = ["log"]', top,
            "[plugin.log]", f'file = "{tmp_path}/audit"', "text_characters = 10000",
            "[plugin.sftp]", *lines,
            "[plugin.scp]", *(line for line in lines if not line.startswith(requests)),
        ]))  # fmt: skip
        return start("--config", str(config))

    return begin


def sftp(server: Served, *lines: str) -> subprocess.CompletedProcess[str]:
    return run(server, "sftp", "-b", "-", "127.0.0.1", said="\n".join(lines) + "\n")


@contextlib.contextmanager
def paramiko_sftp(server: Served, user: str = "", password: str = "") -> Iterator[Any]:
    paramiko = _library("paramiko", "paramiko")
    with paramiko.Transport(("127.0.0.1", server.port)) as transport:
        if password:
            transport.connect(username=user, password=password)
        else:
            transport.connect(username=server.user, pkey=paramiko.PKey.from_path(server.keys.path("ed25519")))
        channel = transport.open_session()
        channel.settimeout(SECONDS)
        channel.invoke_subsystem("sftp")
        yield channel


def events(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    lines = (folder / "audit").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] in kinds]


def told(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """The same, once there is one: a client hears of an end before the audit does."""
    assert eventually(lambda: bool(events(folder, *kinds)))
    return events(folder, *kinds)


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Whose files.


def test_virtual_users_have_roots_of_their_own(configured: Configured, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    users = ("alice", "carol", "..", "../alice", "a/b", ".")
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    passwords.write_text("".join(f"{user}:{hashed}\n" for user in users))
    passwords.chmod(0o600)
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice/hers").write_text("text")
    (tmp_path / "secret").write_text("nobody's")
    server = configured(
        f'authenticators = ["password-file"]\n[plugin.password-file]\nfile = "{passwords}"',
        root=f"{tmp_path}/%u", account=this_user().name,
    )  # fmt: skip
    paramiko = _library("paramiko", "paramiko")
    with paramiko_sftp(server, "alice", "secret") as channel:
        client = paramiko.SFTPClient(channel)
        assert client.listdir("/") == ["hers"]
        assert client.normalize(".") == "/"
        with client.open("/new", "w") as file:
            file.write("from alice")
        client.close()
    assert (tmp_path / "alice/new").read_text() == "from alice"
    for user in users[1:]:
        with paramiko_sftp(server, user, "secret") as channel:
            assert channel.recv(100) == b""
            text = channel.makefile_stderr("rb").read().decode()
            assert channel.recv_exit_status() == 1
        missing = f"sftp: {tmp_path}/carol cannot be served: No such file or directory\n"
        assert text == (missing if user == "carol" else f"sftp: {user!r} cannot be a part of a path\r\n")
    assert eventually(lambda: f"{tmp_path}/carol cannot be served: No such file or directory" in server.log)
    assert [event["user"] for event in told(tmp_path, "uploaded")] == ["alice"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can serve by another account")
@BOTH
def test_an_account_serves_with_its_own_rights(configured: Configured, tmp_path: Path, protocol: str) -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        (Path(folder) / "open").mkdir()
        os.chown(Path(folder) / "open", nobody.pw_uid, nobody.pw_gid)
        (Path(folder) / "roots").touch(0o600)
        server = configured(root=folder, account="nobody")
        (tmp_path / "f").write_text("text")
        done = run(server, "scp", protocol, str(tmp_path / "f"), "127.0.0.1:/open/f")
        assert done.returncode == 0, done.stderr
        assert (Path(folder) / "open/f").stat().st_uid == nobody.pw_uid
        for words in ((str(tmp_path / "f"), "127.0.0.1:/f"), ("127.0.0.1:/roots", str(tmp_path / "x"))):
            done = run(server, "scp", protocol, *words)
            assert done.returncode != 0
            assert "Permission denied" in done.stderr
        assert left(Path(folder)) == ["open", "open/f", "roots"]


@BOTH
def test_a_root_that_is_missing_is_never_the_systems(configured: Configured, tmp_path: Path, protocol: str) -> None:
    server = configured()
    (tmp_path / "root").rmdir()
    done = run(server, "scp", protocol, "127.0.0.1:/etc/passwd", str(tmp_path / "x"))
    assert done.returncode != 0
    assert f"{tmp_path}/root cannot be served: No such file or directory" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_store_is_reached_by_its_url(configured: Configured, tmp_path: Path) -> None:
    _library("fsspec", "fsspec")
    server = configured(root="memory://%u")
    (tmp_path / "f").write_text("text")
    done = sftp(server, f"put {tmp_path}/f up", "ls -1", f"get up {tmp_path}/back")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_text() == "text"


# Bounds and filters.


@pytest.mark.parametrize("atomic", [False, True])
@BOTH
def test_a_quota_is_told_and_leaves_no_half_file(
    configured: Configured, tmp_path: Path, protocol: str, *, atomic: bool
) -> None:
    server = configured(quota_bytes=MIB, quota_files=2, atomic=atomic)
    (tmp_path / "small").write_bytes(bytes(1000))
    (tmp_path / "large").write_bytes(bytes(2 * MIB))
    assert run(server, "scp", protocol, str(tmp_path / "small"), "127.0.0.1:/").returncode == 0
    done = run(server, "scp", protocol, str(tmp_path / "large"), "127.0.0.1:/")
    assert done.returncode != 0
    assert "quota" in done.stderr.lower()
    if atomic:
        assert eventually(lambda: left(tmp_path / "root") == ["small"])
        assert run(server, "scp", protocol, str(tmp_path / "small"), "127.0.0.1:/other").returncode == 0
        done = run(server, "scp", protocol, str(tmp_path / "small"), "127.0.0.1:/third")
        assert done.returncode != 0
        assert "quota" in done.stderr.lower()
    assert (tmp_path / "root/small").stat().st_size == 1000
    assert eventually(lambda: any("error" in event for event in events(tmp_path, "uploaded")))
    failed = next(event for event in events(tmp_path, "uploaded") if "error" in event)
    assert failed["path"] == "/large"
    assert "quota" in failed["error"].lower()


@pytest.mark.parametrize("atomic", [False, True])
@BOTH
def test_a_disk_that_takes_no_more(configured: Configured, tmp_path: Path, protocol: str, *, atomic: bool) -> None:
    server = configured(atomic=atomic)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))
    (tmp_path / "large").write_bytes(bytes(8 * MIB))
    (tmp_path / "root/old").write_text("as it was")
    done = run(server, "scp", protocol, str(tmp_path / "large"), "127.0.0.1:/old")
    assert done.returncode != 0
    assert "large" in done.stderr or "Failure" in done.stderr
    assert eventually(lambda: left(tmp_path / "root") == ["old"])
    if atomic:
        assert (tmp_path / "root/old").read_text() == "as it was"
    (event,) = told(tmp_path, "uploaded")
    assert event["error"] == os.strerror(27)


@BOTH
def test_names_and_sizes_are_filtered(configured: Configured, tmp_path: Path, protocol: str) -> None:
    server = configured(allow_names=["*.csv", "*.txt"], deny_names=["bad*"], largest_file_bytes=1000)
    for name, size in (("good.csv", 1000), ("good.exe", 1), ("bad.csv", 1), ("large.txt", 1001)):
        (tmp_path / name).write_bytes(bytes(size))
        done = run(server, "scp", protocol, str(tmp_path / name), "127.0.0.1:/")
        assert (done.returncode == 0) is (name == "good.csv"), done.stderr
    assert (tmp_path / "root/good.csv").stat().st_size == 1000
    assert not {"good.exe", "bad.csv"} & set(left(tmp_path / "root"))


def test_requests_are_denied(configured: Configured, tmp_path: Path) -> None:
    server = configured(deny_requests=["remove", "rename", "posix-rename"])
    (tmp_path / "root/f").touch()
    for line in ("rm f", "rename f g"):
        done = sftp(server, line)
        assert done.returncode == 1
        assert "Permission denied" in done.stderr
    assert sftp(server, "ls", "mkdir d").returncode == 0
    assert left(tmp_path / "root") == ["d", "f"]


@BOTH
def test_read_only_and_umask(configured: Configured, tmp_path: Path, protocol: str) -> None:
    server = configured(umask="027")
    (tmp_path / "f").write_text("text")
    (tmp_path / "f").chmod(0o666)
    assert run(server, "scp", protocol, str(tmp_path / "f"), "127.0.0.1:/").returncode == 0
    assert (tmp_path / "root/f").stat().st_mode & 0o777 == 0o640


@BOTH
def test_read_only(configured: Configured, tmp_path: Path, protocol: str) -> None:
    server = configured(read_only=True)
    (tmp_path / "root/f").write_text("text")
    assert run(server, "scp", protocol, "127.0.0.1:/f", str(tmp_path / "back")).returncode == 0
    done = run(server, "scp", protocol, str(tmp_path / "back"), "127.0.0.1:/up")
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr
    assert left(tmp_path / "root") == ["f"]


# Events.


@pytest.mark.parametrize("top", ["", "workers = 2"])
def test_the_audit_tells_who_did_what(configured: Configured, tmp_path: Path, top: str) -> None:
    server = configured(top, digest=True)
    data = os.urandom(3 * MIB)
    (tmp_path / "f").write_bytes(data)
    done = sftp(server, f"put {tmp_path}/f up", "rename up moved", "mkdir d", f"get moved {tmp_path}/back",
                "ln -s moved link", "chmod 600 moved", "rm moved", "rmdir d", "-rm none")  # fmt: skip
    assert done.returncode == 0, done.stderr
    kinds = ("uploaded", "downloaded", "renamed", "removed", "made-directory", "removed-directory", "linked", "changed")
    assert eventually(lambda: len(events(tmp_path, *kinds)) >= 9)
    found = events(tmp_path, *kinds)
    assert [event["event"] for event in found] == [
        "uploaded", "renamed", "made-directory", "downloaded", "linked", "changed", "removed", "removed-directory",
        "removed",
    ]  # fmt: skip
    digest = hashlib.sha256(data).hexdigest()
    for event, path in ((found[0], "/up"), (found[3], "/moved")):
        assert (event["path"], event["size"], event["sha256"]) == (path, len(data), digest)
        assert 0 < event["seconds"] < SECONDS
        assert "error" not in event
    assert (found[1]["path"], found[1]["target"]) == ("/up", "/moved")
    assert found[8]["error"] == "No such file or directory"
    for event in found:
        assert (event["user"], event["address"], event["session"]) == (server.user, "127.0.0.1", 0)
        assert event["connection"] == found[0]["connection"]
    done = run(server, "scp", "-O", str(tmp_path / "f"), "127.0.0.1:/by-scp")
    assert done.returncode == 0, done.stderr
    assert eventually(lambda: len(events(tmp_path, "uploaded")) == 2)
    assert events(tmp_path, "uploaded")[1]["sha256"] == digest


@pytest.mark.parametrize(("wanted", "kinds"), [("off", []), ("changes", ["uploaded"])])
def test_events_may_be_fewer(configured: Configured, tmp_path: Path, wanted: str, kinds: list[str]) -> None:
    server = configured(events=wanted)
    (tmp_path / "f").write_text("text")
    assert sftp(server, f"put {tmp_path}/f f", f"get f {tmp_path}/back").returncode == 0
    assert eventually(lambda: "session 0: process ended with status 0" in server.log)
    assert eventually(lambda: len(events(tmp_path, "uploaded", "downloaded")) >= len(kinds))
    assert [event["event"] for event in events(tmp_path, "uploaded", "downloaded")] == kinds


@pytest.mark.parametrize("protocol", ["sftp", "scp"])
@pytest.mark.parametrize("atomic", [False, True])
def test_a_client_that_is_killed_at_an_upload(
    configured: Configured, tmp_path: Path, protocol: str, *, atomic: bool
) -> None:
    server = configured(atomic=atomic)
    (tmp_path / "root/old").write_text("as it was")
    paramiko = _library("paramiko", "paramiko")
    with paramiko.Transport(("127.0.0.1", server.port)) as transport:
        transport.connect(username=server.user, pkey=paramiko.PKey.from_path(server.keys.path("ed25519")))
        if protocol == "sftp":
            client = paramiko.SFTPClient.from_transport(transport)
            file = client.open("/old", "w")
            file.write(bytes(MIB))
            assert file.stat().st_size == MIB
        else:
            channel = transport.open_session()
            channel.settimeout(SECONDS)
            channel.exec_command("scp -t /old")
            assert channel.recv(1) == b"\0"
            channel.sendall(b"C0644 5000000 old\n")
            assert channel.recv(1) == b"\0"
            channel.sendall(bytes(MIB))
        transport.sock.shutdown(2)
    (event,) = told(tmp_path, "uploaded")
    assert event["path"] == "/old"
    assert event["error"] == "not complete: the client has gone"
    assert eventually(lambda: left(tmp_path / "root") == ["old"])
    if atomic:
        assert (tmp_path / "root/old").read_text() == "as it was"


@pytest.mark.parametrize("atomic", [False, True])
def test_a_folder_that_vanishes_meanwhile(configured: Configured, tmp_path: Path, *, atomic: bool) -> None:
    server = configured(atomic=atomic)
    (tmp_path / "root/d").mkdir()
    paramiko = _library("paramiko", "paramiko")
    with paramiko_sftp(server) as channel:
        client = paramiko.SFTPClient(channel)
        file = client.open("/d/f", "w")
        file.write("text")
        file.flush()
        shutil.rmtree(tmp_path / "root/d")
        with pytest.raises(OSError, match="No such file") if atomic else contextlib.nullcontext():
            client._request(CLOSE, file.handle)  # file.close() would not tell
        with pytest.raises(OSError, match="No such file"):
            client.open("/d/g", "w")
    assert left(tmp_path / "root") == []
