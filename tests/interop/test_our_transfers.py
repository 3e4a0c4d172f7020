"""`dunnart sftp`, `dunnart scp` and the API against OpenSSH's sshd and sftp-server, and against `dunnart serve`."""

from __future__ import annotations

import asyncio
import fcntl
import filecmp
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dunnart.client import scp
from dunnart.client.blocking import connect as connect_blocking
from dunnart.client.program import Program
from dunnart.client.sftp import Sftp
from dunnart.client.transfers import TransferWatch
from dunnart.daemon.ways_in import this_user
from dunnart.keys import PublicKey
from tests.file_trees import assert_same, make_tree
from tests.interop.peers import Peer, sshd, stop
from tests.interop.support import MIB, SECONDS, Blob, Keys, Served, environment, missing, program, serve

NAMES = ("plain", "with space", "qu'ote", 'dou"ble', "back\\slash", "*", "[x]", "\udcff\udcfe", "ünï", "-rf", "a:b")
OPENSSH_SFTP_SERVER = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")


@dataclass
class Host:
    """A server, and what the programs need to get in.

    Attributes:
        folder: for its client's state.
    """

    peer: Peer
    keys: Keys
    folder: Path

    @property
    def flags(self) -> list[str]:
        known = self.folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self.peer.port} {self.peer.host_key.line()}\n")
        options = [f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=/dev/null", "IdentityAgent=none"]
        options += ["BatchMode=yes", "StrictHostKeyChecking=yes", f"User={this_user().name}"]
        flags = [part for option in options for part in ("-o", option)]
        return [*flags, "-i", self.keys.path("ed25519"), "-P", str(self.peer.port)]

    def run(
        self, tool: str, *words: str, said: bytes = b"", flags: list[str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `dunnart sftp` or `dunnart scp`."""
        return dunnart(self.folder, tool, *(self.flags if flags is None else flags), *words, said=said, cwd=cwd)


def dunnart(
    folder: Path, *words: str, said: bytes = b"", cwd: Path | None = None, **more: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the program without a terminal; its home is a folder."""
    return subprocess.run(
        [sys.executable, "-m", "dunnart", *words], input=said, capture_output=True, timeout=SECONDS, check=False,
        cwd=cwd, env=environment(folder, **more), start_new_session=True,
    )  # fmt: skip


def ours(folder: Path, keys: Keys) -> Peer:
    running = serve(folder, keys, "--subsystem", "sftp=sftp", "--exec", "scp")
    return Peer("ours", running.port, PublicKey.parse_line(running.host_key_lines()[0])[0], running.process)


@pytest.fixture(scope="module", params=["sshd", "ours"])
def host(request: pytest.FixtureRequest, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    started = {"sshd": sshd, "ours": ours}[request.param](folder, keys)
    yield Host(started, keys, tmp_path_factory.mktemp("client"))
    stop(started)


WAYS = {"sftp": [], "scp": ["-O"], "sftp by ssh": ["-S", "ssh"], "scp by ssh": ["-S", "ssh", "-O"]}


@pytest.mark.parametrize("way", WAYS)
def test_scp_of_trees_both_ways(host: Host, tmp_path: Path, way: str) -> None:
    made = make_tree(tmp_path / "tree", NAMES)
    flags = list(WAYS[way])
    if "-S" in flags:
        flags[1] = program("ssh")
        flags += ["-F", "none"]
    done = host.run("scp", *flags, "-rp", str(made), f"127.0.0.1:{tmp_path}/there")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b""  # no terminal, no progress
    done = host.run("scp", *flags, "-rp", f"127.0.0.1:{tmp_path}/there", str(tmp_path / "back"))
    assert (done.returncode, done.stderr) == (0, b"")
    for folder in ("there", "back"):
        assert_same(made, tmp_path / folder)


@pytest.mark.parametrize("flags", [[], ["-O"], ["-3"]])
def test_scp_between_two_servers(host: Host, tmp_path: Path, flags: list[str]) -> None:
    made = make_tree(tmp_path / "tree", NAMES)
    done = host.run("scp", *flags, "-r", f"127.0.0.1:{made}", f"127.0.0.1:{tmp_path}/there")
    assert (done.returncode, done.stderr) == (0, b"")
    assert_same(made, tmp_path / "there", preserved=False)


@pytest.mark.parametrize("flags", [[], ["-O"]])
def test_scp_of_several_files_and_wildcards(host: Host, tmp_path: Path, flags: list[str]) -> None:
    for name in ("a1", "a2", "b1", "c"):
        (tmp_path / name).write_text(name)
    target = tmp_path / "target"
    target.mkdir()
    done = host.run("scp", *flags, f"127.0.0.1:{tmp_path}/a?", f"scp://127.0.0.1:{host.peer.port}/{tmp_path}/c", "b1",
                    str(target), cwd=tmp_path)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(os.listdir(target)) == ["a1", "a2", "b1", "c"]
    done = host.run("scp", *flags, "./a1", "a2", f"127.0.0.1:{target}/sub", cwd=tmp_path)
    assert done.returncode == 1  # which is no directory
    assert b"irectory" in done.stderr
    (target / "sub").mkdir()
    done = host.run("scp", *flags, "./a1", "a2", f"127.0.0.1:{target}/sub", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(os.listdir(target / "sub")) == ["a1", "a2"]


@pytest.mark.parametrize("flags", [[], ["-O"]])
def test_scp_tells_what_failed_and_does_the_rest(host: Host, tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "good").write_text("good")
    (tmp_path / "folder").mkdir()
    target = tmp_path / "target"
    target.mkdir()
    words = [f"127.0.0.1:{tmp_path}/{name}" for name in ("missing", "folder", "good")]
    done = host.run("scp", *flags, *words, str(target))
    assert done.returncode == 1
    assert os.listdir(target) == ["good"]
    assert b"No such file" in done.stderr
    assert b"director" in done.stderr or b"regular file" in done.stderr
    done = host.run("scp", *flags, str(tmp_path / "missing"), f"127.0.0.1:{target}")
    assert done.returncode == 1
    assert b"No such file" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_host_that_is_not_known_is_refused_in_a_batch(host: Host, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    for tool, words in (("scp", ["127.0.0.1:/etc/passwd", str(tmp_path)]), ("sftp", ["-b", "-", "127.0.0.1"])):
        done = host.run(tool, "-o", "UserKnownHostsFile=ignored", *words,
                        flags=["-o", f"UserKnownHostsFile={known}", *host.flags[2:]])  # fmt: skip
        assert done.returncode == 255
        assert b"is not known" in done.stderr
        assert not known.exists()
    flags = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=accept-new", *host.flags[2:]]
    done = host.run("sftp", "-b", "-", "127.0.0.1", said=b"pwd\n", flags=flags)
    assert done.returncode == 0, done.stderr
    assert host.peer.host_key.line().split()[1] in known.read_text()


def test_sftp_commands(host: Host, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (here / "f one").write_bytes(b"data")
    (here / "g").write_bytes(b"more")
    script = f"""\
cd {there}
lcd {here}
put "f one" renamed
mkdir d
put * d
get d/g fetched
chmod 600 renamed
ln -s renamed link
ln renamed hard
cp renamed copy
rename copy moved
rm hard
-rm nothing
-@rmdir nothing
ls -1
ls -1ar
ls -l moved
pwd
lpwd
lmkdir made
!echo from the shell
df -h
version
rm d/*
rmdir d
chown {os.getuid()} renamed
chgrp {os.getgid()} renamed
help
"""
    path = tmp_path / "batch"
    path.write_text(script)
    done = host.run("sftp", "-b", str(path), "127.0.0.1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(there)) == ["link", "moved", "renamed"]
    assert (there / "renamed").read_bytes() == (there / "moved").read_bytes() == b"data"
    assert os.readlink(there / "link") == "renamed"
    assert (there / "renamed").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(here)) == ["f one", "fetched", "g", "made"]
    assert (here / "fetched").read_bytes() == b"more"
    said = done.stdout.decode()
    assert "sftp> ls -1\nd\nlink\nmoved\nrenamed\n" in said
    assert "sftp> ls -1ar\nrenamed\nmoved\nlink\nd\n..\n.\n" in said
    assert f"Remote working directory: {there}\n" in said
    assert f"Local working directory: {here}\n" in said
    assert "from the shell\n" in said
    assert re.search(r"^-rw\S+ +\S+ +\S+ +\S+ +4 .* moved$", said, re.MULTILINE)
    assert "rmdir nothing" not in said  # @
    assert done.stderr.count(b"nothing") == 2
    assert b"Fetching" in done.stdout


def test_sftp_by_ssh(host: Host, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"data")
    said = f"get {tmp_path}/f {tmp_path}/g\n".encode()
    done = host.run("sftp", "-S", program("ssh"), "-F", "none", "-b", "-", "127.0.0.1", said=said)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "g").read_bytes() == b"data"
    done = host.run("sftp", "-S", program("ssh"), "-F", "none", "-oPort=1", "-b", "-", "127.0.0.1",
                    flags=["-oBatchMode=yes"])  # fmt: skip
    assert done.returncode == 255
    assert b"Traceback" not in done.stderr


def test_through_another_host(host: Host, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"data")
    by = f"{this_user().name}@127.0.0.1:{host.peer.port}"
    done = host.run("scp", "-J", f"{by},{by}", f"127.0.0.1:{tmp_path}/f", str(tmp_path / "g"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "g").read_bytes() == b"data"


def test_sftp_ends_a_batch_where_it_fails_and_a_session_goes_on(host: Host, tmp_path: Path) -> None:
    batch = f"rm {tmp_path}/nothing\nmkdir {tmp_path}/made\n".encode()
    done = host.run("sftp", "-b", "-", "127.0.0.1", said=batch)
    assert done.returncode == 1
    assert not (tmp_path / "made").exists()
    done = host.run("sftp", "127.0.0.1", said=b"frob\n'open\n" + batch + b"bye\nmkdir x\n")
    assert done.returncode == 0
    assert (tmp_path / "made").exists()
    assert b"no command frob" in done.stderr
    assert b"not closed" in done.stderr
    assert b"mkdir x" not in done.stdout


def test_sftp_fetches_what_its_destination_names(host: Host, tmp_path: Path) -> None:
    (tmp_path / "f x").write_bytes(b"data")
    done = host.run("sftp", f"127.0.0.1:{tmp_path}/f x", str(tmp_path / "g y"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "g y").read_bytes() == b"data"
    assert host.run("sftp", f"127.0.0.1:{tmp_path}/nothing", str(tmp_path / "h")).returncode == 1
    done = host.run("sftp", f"sftp://127.0.0.1:{host.peer.port}/{tmp_path}", said=b"pwd\n")
    assert f"Remote working directory: {tmp_path}\n".encode() in done.stdout
    done = host.run("sftp", "-r", f"127.0.0.1:{tmp_path}", str(tmp_path.parent / f"{tmp_path.name}-copy"))
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(f"{tmp_path}-copy")) == ["f x", "g y"]


def test_sftp_resumes(host: Host, tmp_path: Path, blob: Blob) -> None:
    (tmp_path / "part").write_bytes(blob.data[: 10 * MIB])
    (tmp_path / "up").write_bytes(blob.data[: 11 * MIB])
    script = (
        f"reget {blob.path} {tmp_path}/part\nreput {blob.path} {tmp_path}/up\nget -af {blob.path} {tmp_path}/part\n"
    )
    done = host.run("sftp", "-b", "-", "127.0.0.1", said=script.encode())
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(tmp_path / "part", blob.path, shallow=False)
    assert filecmp.cmp(tmp_path / "up", blob.path, shallow=False)
    with (tmp_path / "part").open("ab") as file:
        file.write(b"x")
    done = host.run("sftp", "-b", "-", "127.0.0.1", said=script.encode())
    assert done.returncode == 1
    assert b"longer" in done.stderr


def test_a_killed_transfer_is_resumed(host: Host, tmp_path: Path, blob: Blob) -> None:
    part = tmp_path / "part"
    command = [sys.executable, "-m", "dunnart", "sftp", *host.flags, "-l", "40000", f"127.0.0.1:{blob.path}", str(part)]
    process = subprocess.Popen(command, env=environment(host.folder),
                               stdout=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + SECONDS
    while not part.exists() or part.stat().st_size < 2 * MIB:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.read_bytes()
    assert 2 * MIB <= len(kept) < len(blob.data)
    assert blob.data.startswith(kept)
    done = host.run("sftp", "-a", f"127.0.0.1:{blob.path}", str(part))
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(part, blob.path, shallow=False)


def test_bandwidth_is_limited(host: Host, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(100_000))
    for words in ([str(tmp_path / "f"), f"127.0.0.1:{tmp_path}/g"], [f"127.0.0.1:{tmp_path}/f", str(tmp_path / "g")]):
        began = time.monotonic()
        assert host.run("scp", "-l", "1000", *words).returncode == 0
        assert time.monotonic() - began > 0.7  # 100 kB at 125 kB/s
    assert (tmp_path / "g").stat().st_size == 100_000


def server_program(name: str) -> str:
    if name == "ours":
        return f"{sys.executable} -m dunnart sftp-server"
    return next(filter(os.path.exists, OPENSSH_SFTP_SERVER), "") or missing("OpenSSH's sftp-server")


@pytest.fixture(params=["openssh", "ours"])
def sftp_server(request: pytest.FixtureRequest) -> str:
    return server_program(request.param)


def test_programs_straight_to_a_server(sftp_server: str, tmp_path: Path) -> None:
    made = make_tree(tmp_path / "tree", NAMES)
    done = dunnart(tmp_path, "scp", "-D", sftp_server, "-rp", str(made), f"x:{tmp_path}/there")
    assert (done.returncode, done.stderr) == (0, b"")
    assert_same(made, tmp_path / "there")
    flags = ["-D", sftp_server, "-R", "3", "-B", "1000", "-b", "-"]
    done = dunnart(tmp_path, "sftp", *flags, said=f"get -R {made} back\n".encode(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same(made, tmp_path / "back", preserved=False)
    for server in ("/nothing/there", "cat"):
        done = dunnart(tmp_path, "sftp", "-D", server, "-b", "-")
        assert (done.returncode, done.stderr.count(b"\n")) == (255, 1)


def test_the_api_with_a_server_program(sftp_server: str, tmp_path: Path, blob: Blob) -> None:
    made = make_tree(tmp_path / "tree", NAMES)

    async def work() -> None:
        async with await Sftp.begin(await Program.start(sftp_server.split())) as sftp:
            await sftp.put(made, tmp_path / "there", recursive=True, preserve=True)
            await sftp.get(tmp_path / "there", tmp_path / "back", recursive=True, preserve=True)
            await sftp.put(blob.path, tmp_path / "blob")
            assert await sftp.read_file(tmp_path / "blob") == blob.data
            async with await sftp.open(tmp_path / "blob", "r+") as file:
                await file.write_at(MIB, b"changed")
                assert await file.read_at(MIB, 8) == b"changed" + blob.data[MIB + 7 : MIB + 8]
                await file.sync()
            assert sorted(await sftp.listdir(made / "sub")) == sorted([*NAMES, "empty"])
            await sftp.copy(tmp_path / "blob", tmp_path / "copy")
            await sftp.posix_rename(tmp_path / "copy", tmp_path / "blob")
            with pytest.raises(FileNotFoundError):
                await sftp.stat(tmp_path / "copy")
            (tmp_path / "many").mkdir()
            for number in range(3000):
                (tmp_path / f"many/{number}").touch()
            assert len([entry async for entry in sftp.scandir(tmp_path / "many")]) == 3000

    asyncio.run(asyncio.wait_for(work(), SECONDS))
    assert_same(made, tmp_path / "there")
    assert_same(made, tmp_path / "back")


def test_the_api_over_a_connection(host: Host, tmp_path: Path, blob: Blob) -> None:
    made = make_tree(tmp_path / "tree", NAMES)

    async def work() -> None:
        async with host.peer.connect(host.keys.path("ed25519")) as connection:
            async with await connection.sftp() as sftp, await connection.sftp() as other:
                await asyncio.gather(
                    sftp.put(blob.path, tmp_path / "up"), other.get(blob.path, tmp_path / "down"),
                    other.get(blob.path, tmp_path / "again"), sftp.get(made, tmp_path / "tree2", recursive=True),
                )  # fmt: skip
            await scp.put(connection, [made], str(tmp_path / "there"), recursive=True, preserve=True)
            await scp.get(connection, [str(tmp_path / "there")], tmp_path / "back", recursive=True, preserve=True)
            with pytest.raises(OSError, match="No such file"):
                await scp.get(connection, [str(tmp_path / "nothing")], tmp_path / "x")

    asyncio.run(asyncio.wait_for(work(), SECONDS))
    for name in ("up", "down", "again"):
        assert filecmp.cmp(tmp_path / name, blob.path, shallow=False)
    assert_same(made, tmp_path / "tree2", preserved=False)
    assert_same(made, tmp_path / "there")
    assert_same(made, tmp_path / "back")


def test_without_an_event_loop(host: Host, tmp_path: Path) -> None:
    made = make_tree(tmp_path / "tree", NAMES)
    moved: list[int] = []

    class Watch(TransferWatch):
        def moved(self, path: str, done: int, size: int | None) -> None:
            moved.append(done)

    with connect_blocking(
        "127.0.0.1", host.peer.port, user=this_user().name, keys=[host.keys.path("ed25519")], agent=False,
        known_hosts=host.peer.known,
    ) as connection, connection.sftp() as sftp:  # fmt: skip
        sftp.put(made, tmp_path / "there", recursive=True, preserve=True, watch=Watch())
        sftp.get(tmp_path / "there", tmp_path / "back", recursive=True, preserve=True)
        assert [entry.name for entry in sftp.scandir(tmp_path / "there")] == ["sub"]
        walked = [path for path, _, _ in sftp.walk(tmp_path / "there")]
        assert walked == [str(tmp_path / "there" / name) for name in ("", "sub", "sub/empty")]
        with sftp.open(tmp_path / "f", "w+") as file:
            file.write(b"hello")
            file.seek(1)
            assert (file.read(), file.tell(), file.stat().size) == (b"ello", 5, 5)
        assert sftp.glob(f"{tmp_path}/?") == [f"{tmp_path}/f"]
        with pytest.raises(FileNotFoundError):
            sftp.stat(tmp_path / "nothing")
        assert "limits@openssh.com" in sftp.extensions
        assert sftp.limits.read_bytes > 200_000
    assert_same(made, tmp_path / "there")
    assert_same(made, tmp_path / "back")
    assert max(moved) == (made / "sub" / NAMES[-1]).stat().st_size


class Screen:
    """A program on a pty."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
        self.process = subprocess.Popen(
            ["setsid", "-c", "-w", *command], stdin=slave, stdout=slave, stderr=slave, env=env
        )  # with the pty as its controlling terminal
        os.close(slave)
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, text: str) -> bytes:
        """What was written up to and with this; later calls begin behind it."""
        deadline = time.monotonic() + SECONDS
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} does not come after {self.seen!r}"
            try:
                data = os.read(self.master, 4096)
            except OSError:  # EIO: the program is gone
                data = b""
            assert data, f"it has ended after {self.seen!r}"
            self.seen += data
        before, _, self.seen = self.seen.partition(text.encode())
        return before + text.encode()

    def interrupt(self, text: str) -> None:
        """Type control-C until this comes: a program that is about to wait for a key may miss the first."""
        while text.encode() not in self.seen:
            self.type("\x03")
            again = time.monotonic() + 5
            while text.encode() not in self.seen and time.monotonic() < again:
                if select.select([self.master], [], [], 1.0)[0]:
                    self.seen += os.read(self.master, 4096)
        self.until(text)

    def end(self) -> int:
        """Its exit status."""
        try:
            return self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.master)


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Callable[..., Screen]]:
    program("setsid")
    screens: list[Screen] = []

    def begin(tool: str, *words: str) -> Screen:
        env = environment(tmp_path) | {"TERM": "dumb"}
        screens.append(Screen([sys.executable, "-m", "dunnart", tool, *words], env))
        return screens[-1]

    yield begin
    for each in screens:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def test_a_person_at_a_terminal(host: Host, tmp_path: Path, screen: Callable[..., Screen], blob: Blob) -> None:
    (tmp_path / "\x1b[31mred\a").touch()
    known = tmp_path / "known_hosts"
    flags = ["-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=/dev/null", "-o", "IdentityAgent=none",
             "-o", f"User={this_user().name}", "-i", host.keys.path("ed25519"), "-P", str(host.peer.port)]  # fmt: skip
    shown = screen("sftp", *flags, f"127.0.0.1:{tmp_path}")
    asked = shown.until("fingerprint itself)? ").decode()
    assert host.peer.host_key.fingerprint() in asked
    shown.type("perhaps\n")
    shown.until("Please type yes, no")
    shown.until(": ")
    shown.type("yes\n")
    shown.until("sftp> ")
    assert host.peer.host_key.line().split()[1] in known.read_text()
    shown.type("ls\n")
    listed = shown.until("sftp> ")
    assert rb"\x1b[31mred\x07" in listed
    assert b"\x1b[31m" not in listed
    shown.type(f"get {blob.path} {tmp_path}/fetched\n")
    bar = shown.until("sftp> ")
    assert b"\rblob" in bar
    assert b"100%" in bar
    assert b"/s" in bar
    assert max(map(len, re.split(rb"[\r\n]+", bar[bar.index(b"\rblob") :]))) <= 90
    shown.type("never mind")
    shown.until("never mind")
    shown.interrupt("sftp> ")
    shown.type("l\t\t")
    completed = shown.until("ls")
    assert b"lcd" in completed or b"lls" in completed
    shown.type("\x15get nothing\n")
    shown.until("No such file")
    shown.until("sftp> ")
    shown.type("bye\n")
    assert shown.end() == 0


def test_control_c_ends_a_transfer_and_not_the_session(
    host: Host, tmp_path: Path, screen: Callable[..., Screen], blob: Blob
) -> None:
    shown = screen("sftp", *host.flags, "-l", "20000", "127.0.0.1")
    shown.until("sftp> ")
    shown.type(f"get {blob.path} {tmp_path}/part\n")
    shown.until("\rblob")
    shown.until("%")
    shown.interrupt("sftp> ")
    shown.type("pwd\n")
    shown.until("Remote working directory")
    shown.type("bye\n")
    assert shown.end() == 0
    kept = (tmp_path / "part").read_bytes()
    assert len(kept) < len(blob.data)
    assert blob.data.startswith(kept)


def by_password(server: Served, folder: Path) -> list[str]:
    options = [f"UserKnownHostsFile={server.known_hosts}", "GlobalKnownHostsFile=/dev/null", "PubkeyAuthentication=no"]
    flags = [part for option in options for part in ("-o", option)]
    return [*flags, "-P", str(server.port), f"{server.user}@127.0.0.1:{folder}/f", str(folder / "g")]


def test_a_password_is_asked_for_and_not_shown(server: Served, tmp_path: Path, screen: Callable[..., Screen]) -> None:
    (tmp_path / "f").write_bytes(b"data")
    shown = screen("scp", *by_password(server, tmp_path))
    everything = b""
    for word in ("wrong", server.password):
        everything += shown.until("assword")
        everything += shown.until(": ")
        shown.type(f"{word}\n")
    assert shown.until("100%")
    assert shown.end() == 0
    assert (tmp_path / "g").read_bytes() == b"data"
    assert everything.count(b"Permission denied. Password of") == 1
    assert server.password.encode() not in everything + shown.seen


def test_a_program_is_asked_where_there_is_no_terminal(server: Served, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"data")
    asker = tmp_path / "asker"
    asker.write_text(f"#!/bin/sh\necho '{server.password}'\n")
    asker.chmod(0o700)
    for more, status in ((["-B"], 255), ([], 0)):
        words = [*more, *by_password(server, tmp_path)]
        done = dunnart(tmp_path, "scp", *words, SSH_ASKPASS=str(asker), SSH_ASKPASS_REQUIRE="force")
        assert done.returncode == status, done.stderr
        assert (tmp_path / "g").exists() == (status == 0)


def test_a_host_that_the_person_does_not_trust(host: Host, tmp_path: Path, screen: Callable[..., Screen]) -> None:
    known = tmp_path / "known_hosts"
    shown = screen("scp", "-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=/dev/null", "-P",
                   str(host.peer.port), "127.0.0.1:/etc/passwd", str(tmp_path / "x"))  # fmt: skip
    shown.until("fingerprint itself)? ")
    shown.type("no\n")
    shown.until("not accepted")
    assert shown.end() == 255
    assert not known.exists()
    assert not (tmp_path / "x").exists()
