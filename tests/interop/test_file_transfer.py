"""File transfer embedded in a program, in every placement, with real clients."""

from __future__ import annotations

import filecmp
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dunnart
from dunnart.server import AuditEvent
from dunnart.sftp import Atomic, FileEvent, LocalFiles, MemoryFiles, Observed
from dunnart.testing.background import BackgroundLoop
from tests.interop.clients import _library
from tests.interop.support import SECONDS, Blob, Keys, environment, eventually, program, settings

PLACEMENTS = [("loop", 1), ("thread", 1), ("process", 1), ("process", 2)]


@dataclass
class Embedded:
    """A server in this process, and its clients' commands."""

    server: dunnart.Server
    folder: Path
    keys: Keys

    def options(self, *, user: str = "alice") -> list[str]:
        known = self.folder / "known_hosts"
        host = self.server.config.keys[0].public.line()
        known.write_text(f"[127.0.0.1]:{self.server.port} {host}\n")
        return settings(
            UserKnownHostsFile=str(known), User=user, IdentityFile=self.keys.path("ed25519"),
            Port=str(self.server.port),
        )  # fmt: skip

    def run(self, client: str, *words: str, user: str = "alice", said: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program(client), *self.options(user=user), *words], capture_output=True, text=True, input=said,
            timeout=SECONDS, check=False, env=environment(self.folder),
        )  # fmt: skip


Embed = Callable[..., Embedded]


@pytest.fixture
def embed(keys: Keys, tmp_path: Path) -> Iterator[Embed]:
    """Start a server with these arguments, for this test."""
    loop = BackgroundLoop("test-server")
    running: list[dunnart.Server] = []

    def begin(where: tuple[Any, int] = ("thread", 1), **options: Any) -> Embedded:
        folder = tmp_path / "clients"
        folder.mkdir()
        (folder / "home").mkdir()
        server = dunnart.Server(
            host_keys=[dunnart.PrivateKey.generate("ed25519")],
            authenticators=[dunnart.PublicKeys(keys.authorized.read_text(), users=["alice", "bob"])],
            listen="127.0.0.1:0", placement=where[0], workers=where[1], admission=None, **options,
        )  # fmt: skip
        loop.run(server.start())
        running.append(server)
        return Embedded(server, folder, keys)

    yield begin
    for server in running:
        loop.run(server.close(seconds=1))
    loop.stop()


@pytest.mark.parametrize("where", PLACEMENTS, ids=lambda where: f"{where[0]}-{where[1]}")
def test_openssh_and_paramiko_both_ways(embed: Embed, tmp_path: Path, blob: Blob, where: tuple[str, int]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    files = LocalFiles(str(root))
    here = embed(where, subsystems={"sftp": dunnart.SftpHandler(files)}, exec=dunnart.ScpHandler(files))
    for number, protocol in enumerate(("-s", "-O")):
        done = here.run("scp", protocol, "-p", str(blob.path), f"127.0.0.1:/up{number}")
        assert done.returncode == 0, done.stderr
        assert filecmp.cmp(root / f"up{number}", blob.path, shallow=False)
        done = here.run("scp", protocol, f"127.0.0.1:/up{number}", str(tmp_path / f"back{number}"))
        assert done.returncode == 0, done.stderr
        assert filecmp.cmp(tmp_path / f"back{number}", blob.path, shallow=False)
    done = here.run("sftp", "-b", "-", "127.0.0.1", said="mkdir made\nrename up0 made/x\nls made\nrm up1\n")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted(root.rglob("*"))] == ["made", "x"]

    paramiko = _library("paramiko", "paramiko")
    with paramiko.Transport(("127.0.0.1", here.server.port)) as transport:
        transport.connect(username="bob", pkey=paramiko.PKey.from_path(here.keys.path("ed25519")))
        client = paramiko.SFTPClient.from_transport(transport)
        assert client.listdir("/made") == ["x"]
        client.put(str(blob.path), "/again")
        assert client.stat("/again").st_size == len(blob.data)
        client.close()


def test_the_subsystem_alone_refuses_shells_and_commands(embed: Embed, tmp_path: Path) -> None:
    here = embed(subsystems={"sftp": dunnart.SftpHandler(LocalFiles(str(tmp_path)))})
    for words in ((), ("id",)):
        done = here.run("ssh", "127.0.0.1", *words)
        assert done.returncode == 255
        assert "request failed on channel 0" in done.stderr
        assert done.stdout == ""
    assert here.run("sftp", "-b", "-", "127.0.0.1", said="ls\n").returncode == 0


def test_each_user_gets_files_of_their_own(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice/hers").touch()

    def of(session: dunnart.RawSession) -> LocalFiles:
        return LocalFiles(str(tmp_path / session.user))

    here = embed(subsystems={"sftp": dunnart.SftpHandler(of)}, exec=dunnart.ScpHandler(of))
    assert here.run("sftp", "-b", "-", "127.0.0.1", said="ls -1\n").stdout.splitlines()[1:] == ["hers"]
    # Who has none is told so, and gets nobody else's.
    for words in (("sftp", "-b", "-", "127.0.0.1"), ("scp", "-O", "127.0.0.1:/hers", str(tmp_path / "x"))):
        done = here.run(*words, user="bob", said="ls -1\n")
        assert done.returncode != 0
        assert "the server has no files for you" in done.stderr
        assert "hers" not in done.stdout
    assert here.server.counters["failures"] == 2


def test_nothing_but_scp_is_executed(embed: Embed, tmp_path: Path) -> None:
    here = embed(exec=dunnart.ScpHandler(None, {"c": LocalFiles(str(tmp_path))}))
    done = here.run("ssh", "127.0.0.1", "id")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "scp: only scp is served here\n")
    (tmp_path / "file").write_text("text")
    assert here.run("scp", "-O", "127.0.0.1:C:/file", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_text() == "text"
    assert here.run("scp", "-O", "127.0.0.1:/file", str(tmp_path / "not")).returncode == 1


def test_a_full_pool_refuses_and_a_client_that_leaves_makes_room(embed: Embed, tmp_path: Path) -> None:
    here = embed(
        subsystems={"sftp": dunnart.SftpHandler(LocalFiles(str(tmp_path)))}, application_threads=1, application_queue=0
    )
    command = [program("sftp"), *here.options(), "-b", "-", "127.0.0.1"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment(here.folder),
    ) as first:  # fmt: skip
        try:
            assert first.stdin is not None
            assert first.stdout is not None
            first.stdin.write("pwd\n")
            first.stdin.flush()
            for line in first.stdout:
                if line.startswith("Remote working directory"):
                    break
            done = here.run("ssh", "-s", "127.0.0.1", "sftp")
            assert (done.returncode, done.stderr) == (75, "the server is busy: 1 sessions run and 0 wait\n")
        finally:
            first.kill()
    assert eventually(lambda: here.run("ssh", "-s", "127.0.0.1", "sftp").returncode == 0)


def test_what_is_no_sftp_ends_the_session_alone(embed: Embed, tmp_path: Path) -> None:
    here = embed(subsystems={"sftp": dunnart.SftpHandler(LocalFiles(str(tmp_path)))})
    done = here.run("ssh", "-s", "127.0.0.1", "sftp", said="GET / HTTP/1.1\r\n\r\n")
    assert done.returncode == 1
    assert done.stderr == "sftp: an SFTP packet of 1195725856 bytes\n"
    assert here.server.counters["failures"] == 0


@pytest.mark.parametrize("files", [LocalFiles, 3, "text", None])
def test_what_is_no_file_system_is_refused_at_once(files: Any) -> None:
    with pytest.raises(dunnart.ConfigError, match="files: "):
        dunnart.SftpHandler(files)
    with pytest.raises(dunnart.ConfigError, match="files: "):
        dunnart.ScpHandler(files)
    with pytest.raises(dunnart.ConfigError, match="drives: 'CD' is no letter"):
        dunnart.ScpHandler(None, {"CD": LocalFiles()})
    with pytest.raises(dunnart.ConfigError, match="requests: 'ls' is no request"):
        dunnart.SftpHandler(LocalFiles(), requests=["open", "ls"])


def test_memory_that_is_full(embed: Embed, blob: Blob) -> None:
    files = MemoryFiles(largest_bytes=1 << 20)
    here = embed(subsystems={"sftp": dunnart.SftpHandler(Atomic(files))}, exec=dunnart.ScpHandler(Atomic(files)))
    for protocol in ("-s", "-O"):
        done = here.run("scp", protocol, str(blob.path), "127.0.0.1:/up")
        assert done.returncode != 0
        assert "No space left on device" in done.stderr or "Failure" in done.stderr
        assert files.contents() == {}


@pytest.mark.parametrize("where", PLACEMENTS, ids=lambda where: f"{where[0]}-{where[1]}")
def test_events_are_told_and_recorded(embed: Embed, tmp_path: Path, where: tuple[str, int]) -> None:
    recorded: list[AuditEvent] = []
    sink = SimpleNamespace(record=recorded.append)

    def files(session: dunnart.RawSession) -> Observed:
        def tell(event: FileEvent) -> None:
            session.record(event.kind, path=event.path.decode(), size=event.size, error=event.error)

        return Observed(MemoryFiles(), tell)

    here = embed(where, subsystems={"sftp": dunnart.SftpHandler(files)}, audit=[sink])
    (tmp_path / "f").write_text("text")
    assert here.run("scp", str(tmp_path / "f"), "127.0.0.1:/up").returncode == 0
    assert eventually(lambda: any(event.kind == "uploaded" for event in recorded))
    (event,) = (event for event in recorded if event.kind == "uploaded")
    assert event.user == "alice"
    assert event.details == {"path": "/up", "size": 4, "error": "", "session": 0}


def test_a_client_that_is_killed_at_an_upload(embed: Embed) -> None:
    memory, told = MemoryFiles(), list[FileEvent]()
    here = embed(subsystems={"sftp": dunnart.SftpHandler(Observed(Atomic(memory), told.append))})
    paramiko = _library("paramiko", "paramiko")
    with paramiko.Transport(("127.0.0.1", here.server.port)) as transport:
        transport.connect(username="bob", pkey=paramiko.PKey.from_path(here.keys.path("ed25519")))
        file = paramiko.SFTPClient.from_transport(transport).open("/up", "w")
        file.write(bytes(100_000))
        assert file.stat().st_size == 100_000
        transport.sock.shutdown(2)
    assert eventually(lambda: bool(told))
    assert [(event.kind, event.path, event.size) for event in told] == [("uploaded", b"/up", 100_000)]
    assert told[0].error == "not complete: the client has gone"
    assert eventually(lambda: memory.contents() == {})
    assert here.server.counters["failures"] == 0
