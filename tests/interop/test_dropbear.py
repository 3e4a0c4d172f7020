"""`dunnart dropbear` in the place of Dropbear: its flags, its host keys, its ways to start; beside the real program.

The real one looks for authorized_keys in the user's own home, which is not for tests to write to: what comes after the
login is held against its manual, what comes before it and at the start against the program itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dunnart.daemon import dropbear_flags
from dunnart.daemon.ways_in import this_user
from dunnart.errors import ConfigError
from dunnart.keys import PrivateKey
from dunnart.tools import dropbear
from dunnart.tools import main as tool
from tests.interop.support import (
    SECONDS,
    Keys,
    dunnart_at,
    environment,
    eventually,
    free_port,
    program,
    settings,
    started,
    write_key,
)

ROOT = os.geteuid() == 0
USER = this_user().name


class Folder:
    """What servers and clients share: a host key of Dropbear's, a home with authorized_keys, known_hosts."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self.path = path
        self.keys = keys
        self.home = path / "home"
        (self.home / ".ssh").mkdir(parents=True)
        self.home.chmod(0o755)
        (self.home / "keys").mkdir()
        (self.home / "keys/authorized_keys").write_text(keys.authorized.read_text())
        (self.home / ".ssh/authorized_keys").write_text(Path(keys.path("ed25519")).with_suffix(".pub").read_text())
        self.host_key = path / "host_key"
        made = subprocess.run(
            [program("dropbearkey"), "-t", "ed25519", "-f", str(self.host_key)],
            check=True,
            capture_output=True,
            text=True,
        )
        line = next(each for each in made.stdout.splitlines() if each.startswith("ssh-ed25519 "))
        self.known_hosts = path / "known_hosts"
        self.known_hosts.write_text(f"dropbear {' '.join(line.split()[:2])}\n")

    def ours(self, *flags: str) -> list[str]:
        """Give the command for a server of ours; without -p, at a port that the system chooses."""
        return dunnart_at(self.home, "dropbear", *flags)

    def ssh_command(self, port: int, *arguments: str, **options: str) -> list[str]:
        """Give the command of an ssh that knows the host key and no other."""
        given = {"IdentityFile": self.keys.path("ed25519"), **options}
        known = settings(
            UserKnownHostsFile=str(self.known_hosts), HostKeyAlias="dropbear", User=USER, Port=str(port), **given
        )
        return [program("ssh"), *known, "127.0.0.1", *arguments]

    def ssh(
        self, port: int, *arguments: str, status: int | None = 0, **options: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it; it must end with `status`, unless that is None."""
        done = subprocess.run(
            self.ssh_command(port, *arguments, **options), env=environment(self.path), stdin=subprocess.DEVNULL,
            capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS, check=False,
        )  # fmt: skip
        assert status in {None, done.returncode}, done
        return done


@pytest.fixture(scope="module")
def folder(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("dropbear"), keys)


@contextlib.contextmanager
def serving(line: Sequence[str], log: Path, port: int = 0, **variables: str) -> Iterator[int]:
    """Run a server that logs to standard error, until the block ends; gives its port."""
    env = environment(log.parent, **variables)
    with log.open("wb") as errors:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=env)
    assert process.stdout is not None
    try:
        ready = re.compile(r"Server listening on 127\.0\.0\.1:(\d+)|Not backgrounding")
        assert eventually(lambda: bool(ready.search(log.read_text())) or process.poll() is not None)
        found = ready.search(log.read_text())
        assert found, log.read_text()
        yield port or int(found[1])
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
        assert process.stdout.read() == b""  # neither says a word there
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert "Traceback" not in log.read_text()


def test_logins_with_a_host_key_of_dropbears(folder: Folder, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    flags = [
        "-FE",
        "-p",
        "127.0.0.1:0",
        "-r",
        str(folder.host_key),
        "-P",
        str(pid_file),
        "-e",
        "-m",
        "-z",
        "-D",
        "~/keys",
    ]
    with serving(folder.ours(*flags), tmp_path / "log", FROM_OUTSIDE="yes") as port:
        assert folder.ssh(port, "echo $FROM_OUTSIDE $HOME; exit 7", status=7).stdout == f"yes {folder.home}\n"
        known = folder.path / ".ssh/known_hosts"
        known.parent.mkdir(exist_ok=True)
        known.write_text(folder.known_hosts.read_text().replace("dropbear ", "127.0.0.1 "))
        client = [program("dbclient"), "-p", str(port), "-l", USER, "-i", folder.keys.dropbear("ecdsa256"), "127.0.0.1"]
        done = subprocess.run(
            [*client, "id -u"], env=environment(folder.path), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, f"{os.geteuid()}\n"), done
        assert int(pid_file.read_text()) > 1
    assert not pid_file.exists()


def test_what_sessions_and_forwards_may(folder: Folder, tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    here = f"127.0.0.1:{listener.getsockname()[1]}"
    flags = ["-FE", "-p", "127.0.0.1:0", "-r", str(folder.host_key), "-P", str(tmp_path / "pid")]
    forced = ["-c", "echo forced: $SSH_ORIGINAL_COMMAND", "-j", "-a"]
    with listener, serving(folder.ours(*flags, *forced), tmp_path / "log") as port:
        assert folder.ssh(port, "id").stdout == "forced: id\n"
        assert "open failed" in folder.ssh(port, "-W", here, status=255).stderr
        remote = ["-o", "ExitOnForwardFailure=yes", "-N", "-R", "*:0:127.0.0.1:9"]
        with started(folder.ssh_command(port, *remote), environment(folder.path)) as ssh:
            assert ssh.stderr is not None
            said = re.match(rb"Allocated port (\d+) ", ssh.stderr.readline())
            assert said
            socket.create_connection(("127.0.0.2", int(said[1])), SECONDS).close()  # -a: not on 127.0.0.1 alone
    with serving(folder.ours(*flags, "-k"), tmp_path / "log") as port:
        assert "remote port forwarding failed" in folder.ssh(port, *remote, status=255).stderr
    with serving(folder.ours(*flags, "-M", "1"), tmp_path / "log") as port:
        folder.ssh(port, "sleep 60", status=255)  # -M: its second is over
        assert eventually(lambda: "the connection has lasted 1 s" in (tmp_path / "log").read_text())


def test_started_by_inetd_as_the_seed_has_it(folder: Folder, tmp_path: Path) -> None:
    """What xinetd does with `server_args = -i -g`: each connection is a process's three standard descriptors."""
    command = folder.ours("-i", "-g", "-r", str(folder.host_key))
    env = environment(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        statuses = []

        def accept() -> None:
            with listener.accept()[0] as sock:
                number = sock.fileno()
                process = subprocess.Popen(command, stdin=number, stdout=number, stderr=number, env=env)
            statuses.append(process.wait(SECONDS))

        thread = threading.Thread(target=accept)
        thread.start()
        assert folder.ssh(listener.getsockname()[1], "echo $SSH_CONNECTION").stdout.startswith("127.0.0.1 ")
        thread.join(SECONDS)
        assert statuses == [0]


def test_into_the_background(folder: Folder, tmp_path: Path) -> None:
    port, pid_file = free_port(), tmp_path / "pid"
    flags = ["-p", f"127.0.0.1:{port}", "-r", str(folder.host_key), "-P", str(pid_file)]
    done = subprocess.run(
        folder.ours(*flags), env=environment(tmp_path), capture_output=True, timeout=SECONDS, check=True
    )
    number = int(pid_file.read_text())
    try:
        assert (done.stdout, done.stderr) == (b"", b"")
        assert folder.ssh(port, "echo in").stdout == "in\n"
    finally:
        os.kill(number, signal.SIGTERM)
    assert eventually(lambda: not pid_file.exists())


def after_login(folder: Folder, port: int) -> tuple[str, bool, bool]:
    """What a client may once it is in: what a command says, whether it reaches hosts, whether ports are listened on."""
    said = folder.ssh(port, "echo ${FROM_OUTSIDE-nothing} in $PWD").stdout
    reached = folder.ssh(port, "-W", f"127.0.0.1:{port}", status=None).stdout.startswith("SSH-2.0-")
    with started(
        folder.ssh_command(port, "-N", "-R", "0:127.0.0.1:9", ExitOnForwardFailure="yes"), environment(folder.path)
    ) as ssh:
        assert ssh.stderr is not None
        return said, reached, ssh.stderr.readline().startswith(b"Allocated port ")


@pytest.mark.skipif(not ROOT, reason="the real one finds a test's authorized_keys where root mounts them as its home")
def test_what_clients_may_after_the_login(folder: Folder, tmp_path: Path) -> None:
    mounted = f'mount --bind {folder.home} {folder.home} && mount --bind {folder.home} ~root && exec "$@"'
    elsewhere = [program("unshare"), "-m", "sh", "-c", mounted, "sh"]
    if subprocess.run([*elsewhere, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets nobody mount")
    for flags, may in [
        (["-e", "-j"], ("yes in {home}", False, True)),
        (["-k", "-c", "echo forced: $SSH_ORIGINAL_COMMAND"], ("forced: echo", True, False)),
    ]:
        port = free_port()
        line = ["-F", "-E", "-r", str(folder.host_key), "-P", str(tmp_path / "pid"), "-p", f"127.0.0.1:{port}", *flags]
        for home, command in (("/root", [*elsewhere, program("dropbear"), *line]), (folder.home, folder.ours(*line))):
            with serving(command, tmp_path / "log", port, FROM_OUTSIDE="yes"):
                said, *others = after_login(folder, port)
                assert (said.startswith(may[0].format(home=home)), *others) == (True, *may[1:]), (command, said)


@pytest.mark.skipif(not ROOT, reason="only root's server lets others in, and checks passwords")
def test_root_may_be_kept_out(folder: Folder, tmp_path: Path) -> None:
    for flags, said in [("-w", "Permission denied"), ("-t", "Permission denied (password)")]:
        line = ["-FE", "-p", "127.0.0.1:0", "-r", str(folder.host_key), "-P", str(tmp_path / "pid"), *flags.split()]
        with serving(folder.ours(*line), tmp_path / "log") as port:
            assert said in folder.ssh(port, "true", status=255).stderr, flags


def before_login(folder: Folder, port: int) -> tuple[object, ...]:
    """What a client sees of a server before it is in: the banner, the methods, how many tries it has."""
    wrong = [f"IdentityFile={folder.path}/wrong{number}" for number in range(4)]
    seen = folder.ssh(
        port, "-v", *(part for each in wrong for part in ("-o", each)), status=255, IdentityFile="none",
        PreferredAuthentications="publickey",
    ).stderr  # fmt: skip
    methods = re.findall(r"Authentications that can continue: (\S+)", seen)
    return "Welcome, stranger" in seen, methods[0], seen.count("Offering public key")


def test_what_clients_see_before_the_login(folder: Folder, tmp_path: Path) -> None:
    for number in range(4):
        write_key(folder.path / f"wrong{number}", "ed25519")
    (tmp_path / "banner").write_text("Welcome, stranger\n")
    both = "-t" if ROOT else ""  # which asks for passwords, and only root can check them
    expected = {f"-b {tmp_path}/banner {both}": (True, "publickey,password", 4), "-s": (False, "publickey", 4)}
    for flags, shown in expected.items():
        port = free_port()
        line = ["-F", "-E", "-r", str(folder.host_key), "-P", str(tmp_path / "pid"), "-p", f"127.0.0.1:{port}"]
        line += flags.split()
        for command in ([program("dropbear"), *line], folder.ours(*line)):
            with serving(command, tmp_path / "log", port):
                found = before_login(folder, port)
                if not ROOT and command[0] == sys.executable:  # it checks no passwords, and says so
                    found = (found[0], shown[1], found[2])
                assert found == shown, command


def test_wrong_starts_end_as_dropbears_do(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "without_tls", lambda: None)  # this process is the other tests' too
    monkeypatch.setattr(dropbear_flags, "FOLDER", str(tmp_path / "none"))
    (tmp_path / "damaged").write_bytes(b"\0\0\0\x0bssh-ed25519\0\0")
    (tmp_path / "damaged").chmod(0o600)
    key = ["-r", str(folder.host_key)]
    for flags, said in [
        (["-y"], "invalid option -y"), (["x"], "invalid argument: 'x'"), (["-p"], "-p: missing argument"),
        (["-p", "22:"], "'22:' has no port"), (["-T", "x"], "bad maxauthtries 'x'"), (["-K", "x"], "bad keepalive 'x'"),
        (["-I", "-1"], "bad idle_timeout '-1'"), (["-G", "no-such-group"], "there is no group 'no-such-group'"),
        ([*key, *key], "are both of type ssh-ed25519"),
    ]:  # fmt: skip
        line = ["-F", "-E", "-P", str(tmp_path / "pid"), *flags]
        real = subprocess.run(
            [program("dropbear"), *line], capture_output=True, env=environment(tmp_path), timeout=SECONDS, check=False
        )
        assert dropbear.run(line) == real.returncode == 1, (flags, real.stderr)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("dropbear: ")
        assert said in captured.err
        assert ("usage:" in captured.err) == (b"Usage:" in real.stderr) == (flags == ["-y"])
    for flags, said in [
        (["-r", "/nowhere/key"], "/nowhere/key: host_key: cannot be read"),
        (["-r", str(tmp_path / "damaged")], "damaged: host_key: damaged Dropbear private key"),
        ([*key, "-p", "192.0.2.1:0"], "cannot listen on 192.0.2.1:0"),
    ]:
        line = ["-F", "-E", "-P", str(tmp_path / "pid"), *flags]
        for command in ([program("dropbear"), *line], folder.ours(*line)):
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment(tmp_path), timeout=SECONDS, check=False
            )
            assert (done.returncode, done.stdout) == (1, ""), done
            if command[0] == sys.executable:
                assert done.stderr.startswith("dropbear: ")
                assert said in done.stderr
                assert done.stderr.count("\n") == 1
    assert dropbear.run(["-h"]) == dropbear.run(["-V"]) == dropbear.run(["-Q", "help"]) == 0
    assert "place of Dropbear" in capsys.readouterr().err
    assert (dropbear.run(["-Q", "kex"]), dropbear.run(["-Q", "frob"])) == (0, 1)
    assert "curve25519-sha256\n" in capsys.readouterr().out


def test_missing_host_keys_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropbear_flags, "FOLDER", str(tmp_path / "new"))
    made = [str(tmp_path / f"new/dropbear_{kind}_host_key") for kind in ("ed25519", "ecdsa", "rsa")]
    assert [*dropbear.configuration(["-R", "-p", "0"]).host_key] == made
    before = [Path(each).read_bytes() for each in made]
    os.unlink(made[1])
    assert {*dropbear.configuration(["-R", "-p", "0"]).host_key} == {*made}
    assert [Path(each).read_bytes() == data for each, data in zip(made, before, strict=True)] == [True, False, True]
    monkeypatch.setattr(dropbear_flags, "FOLDER", "/proc/none")
    with pytest.raises(ConfigError, match=r"^-R: /proc/none: cannot be made: "):
        dropbear.configuration(["-R", "-p", "0"])
    for each in made:  # Dropbear takes them
        shown = subprocess.run([program("dropbearkey"), "-y", "-f", each], capture_output=True, text=True, check=True)
        assert PrivateKey.load(Path(each).read_bytes()).public.line() in shown.stdout
