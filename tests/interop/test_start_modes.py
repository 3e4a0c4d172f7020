"""How the server is started: by xinetd, by systemd, into the background; and what it does with its signals."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from dunnart.daemon.ways_in import this_user
from tests.interop.support import (
    SECONDS,
    SOURCE,
    Keys,
    dunnart_at,
    environment,
    eventually,
    free_port,
    missing,
    program,
    settings,
)

ROOT = os.geteuid() == 0
USER = this_user().name
# `only_from` is empty in the blog's file, which says that nobody may come (xinetd.conf(5)).
SEED = """\
service ssh
{{
    socket_type     = stream
    only_from       = 127.0.0.1
    wait            = {wait}
    user            = {user}
    protocol        = tcp
    server          = {server}
    server_args     = {arguments}
    disable         = no
{more}}}
"""


class World:
    """A folder with a server's files, and what clients need to reach it."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self.path = path
        self.keys = keys
        self.home = path / "home"
        (self.home / ".ssh").mkdir(parents=True)
        self.home.chmod(0o755)
        (self.home / ".ssh/authorized_keys").write_text(keys.authorized.read_text())
        self.log = path / "log"
        self.config = path / "dunnart.toml"
        self.write()
        self.env = environment(path)

    def write(self, more: str = "", *listen: str) -> None:
        """Write the configuration file."""
        self.config.write_text(
            f'state_folder = "{self.path}/state"\nauthorized_keys = ["{self.keys.authorized}"]\n'
            f'strict_modes = false\nlog_to = "{self.log}"\nlisten = {[*(listen or ["127.0.0.1:0"])]}\n{more}'
        )

    def command(self, *arguments: str) -> list[str]:
        """The command for `dunnart`, whose user lives here."""
        return dunnart_at(self.home, *arguments, shell="/bin/sh")

    def program(self, name: str, *arguments: str) -> str:
        """A program that is `dunnart` with these arguments before its own."""
        path = self.path / name
        line = shlex.join(["env", f"PYTHONPATH={SOURCE}", *self.command(*arguments)])
        path.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        path.chmod(0o755)
        return str(path)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `dunnart` to its end."""
        return subprocess.run(
            self.command(*arguments), env=self.env, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def ssh(self, *options: str) -> list[str]:
        """The command for OpenSSH's client."""
        given = settings(
            IdentityFile=self.keys.path("ed25519"), UserKnownHostsFile="/dev/null", StrictHostKeyChecking="no",
            User=USER, LogLevel="ERROR",
        )  # fmt: skip
        return [program("ssh"), *given, *options]

    def login(self, *options: str, says: str = "echo $((6 * 7))", prints: str = "42\n") -> None:
        """Log in, and run a command."""
        done = subprocess.run(
            self.ssh(*options, "127.0.0.1", says), env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, prints), (done.stderr, self.logged())

    def logged(self) -> str:
        """What the server has logged so far."""
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def world(tmp_path: Path, keys: Keys) -> World:
    return World(tmp_path, keys)


@contextlib.contextmanager
def ended(line: Sequence[str], world: World) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program as long as the block lasts."""
    with (world.path / "output").open("wb") as output:
        process = subprocess.Popen(line, env=world.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(SECONDS)


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


# By inetd.


@contextlib.contextmanager
def xinetd(world: World, wait: str, server: str, arguments: str) -> Iterator[int]:
    """Run xinetd with the seed's file, but for the port."""
    port = free_port()
    more = f"    type            = UNLISTED\n    port            = {port}\n    bind            = 127.0.0.1\n"
    path = world.path / "xinetd.conf"
    text = SEED.format(wait=wait, user=USER, server=server, arguments=arguments, more=more)
    if wait == "yes":  # xinetd, which does not see the clients then, would let nobody in
        text = text.replace("only_from", "#")
    path.write_text(text)
    line = [program("xinetd"), "-dontfork", "-f", str(path), "-filelog", str(world.path / "xinetd.log"),
               "-pidfile", str(world.path / "xinetd.pid")]  # fmt: skip
    with ended(line, world) as process:
        log = world.path / "xinetd.log"
        ready = eventually(lambda: process.poll() is not None or (log.exists() and "working" in log.read_text()))
        assert ready, log.read_text()
        assert process.poll() is None, log.read_text()
        yield port


@pytest.mark.skipif(not ROOT, reason="xinetd changes to the service's user, and may do so only as root")
def test_xinetd_starts_a_process_for_each_connection(world: World) -> None:
    server = world.program("dunnart", "serve")
    with xinetd(world, "no", server, f"-i --config {world.config}") as port:
        world.login("-p", str(port))
        world.login("-p", str(port), says="printf x; printf y >&2", prints="x")
    assert eventually(lambda: world.logged().count("Accepted publickey for") == 2)
    assert "from 127.0.0.1 port" in world.logged(), "the client's address is known"


@pytest.mark.skipif(not ROOT, reason="a network of its own, where port 22 is free, needs root")
def test_the_file_for_dropbear_of_the_blog_works_verbatim(world: World) -> None:
    """In a network of its own it may have port 22, as `service ssh` says."""
    key = world.path / "host_key"
    subprocess.run([program("dropbearkey"), "-t", "ed25519", "-f", str(key)], check=True, capture_output=True)
    server = world.program("dropbear", "dropbear", "-r", str(key))
    path = world.path / "xinetd.conf"
    path.write_text(SEED.format(wait="no", user="root", server=server, arguments="-i -g", more=""))
    client = shlex.join(world.ssh("127.0.0.1", "echo $((6 * 7))"))
    wait = "for each in $(seq 200); do grep -q working xinetd.log 2>/dev/null && break; sleep 0.1; done"
    script = (
        f"ip link set lo up; {program('xinetd')} -dontfork -f {path} -filelog xinetd.log -pidfile xinetd.pid & "
        f"{wait}; {client}; status=$?; kill $!; wait; exit $status"
    )
    done = subprocess.run(
        [program("unshare"), "--net", "sh", "-c", script], cwd=world.path, env=world.env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "42\n"), (done.stderr, (world.path / "xinetd.log").read_text())


@pytest.mark.skipif(not ROOT, reason="xinetd changes to the service's user, and may do so only as root")
def test_xinetd_that_waits_gets_its_socket_back_when_nobody_is_there(world: World) -> None:
    server = world.program("dunnart", "serve")
    with xinetd(world, "yes", server, f"-i --exit-on-idle 1 --config {world.config}") as port:
        world.login("-p", str(port))
        world.login("-p", str(port))
        assert eventually(lambda: "there has been no connection for 1 seconds" in world.logged())
        world.login("-p", str(port))  # by a new one
    listening = re.findall(r"Server listening on 127.0.0.1:(\d+)", world.logged())
    assert set(listening) == {str(port)}
    assert 2 <= len(listening) <= 3, "several connections have had one process"


def test_a_proxy_command_with_pipes_and_what_is_wrong_goes_to_the_log_alone(world: World) -> None:
    line = shlex.join(world.command("serve", "-i", "--config", str(world.config)))
    world.login("-o", f"ProxyCommand=env PYTHONPATH={SOURCE} {line}")
    world.write('kex = "nonsense"\n')
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            world.command("serve", "--inetd", "--config", str(world.config)), env=world.env, stdin=theirs.fileno(),
            stdout=theirs.fileno(), stderr=theirs.fileno(),
        )  # fmt: skip
    assert process.wait(SECONDS) == 2
    with ours:
        ours.settimeout(SECONDS)
        received = b""
        while data := ours.recv(4096):
            received += data
    assert re.fullmatch(rb"SSH-2\.0-[^\n]*\r\n", received), "nothing of the error goes to the client"
    done = world.run("serve", "-i", "--config", str(world.config))
    assert done.returncode == 2
    assert "standard input is no socket" in done.stderr


# By systemd.


def by_socket(path: Path) -> str:
    """Give the option with which ssh reaches a unix socket."""
    code = (
        "import socket,sys,threading,os;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1]);"
        "t=threading.Thread(target=lambda:[os.write(1,d) for d in iter(lambda:s.recv(65536),b'')],daemon=True);"
        "t.start();[s.sendall(d) for d in iter(lambda:os.read(0,65536),b'')]"
    )
    return f"ProxyCommand={shlex.join([sys.executable, '-Sc', code, str(path)])}"


@pytest.mark.parametrize("accept", [False, True])
def test_systemd_hands_over_its_socket_or_each_connection(world: World, accept: bool) -> None:
    path = world.path / "socket"
    activate = [program("systemd-socket-activate"), *(["--accept"] if accept else []), f"--listen={path}"]
    activate += ["-E", f"PYTHONPATH={SOURCE}", "-E", "HOME", "-E", "PATH"]
    with ended([*activate, *world.command("serve", "--config", str(world.config), "--exit-on-idle", "1")], world) as it:
        assert eventually(lambda: "Listening on " in (world.path / "output").read_text())
        world.login("-o", by_socket(path))
        if accept:
            world.login("-o", by_socket(path))
        else:  # it has become the server, which ends by itself
            assert it.wait(SECONDS) == 0
            assert "there has been no connection for 1 seconds" in world.logged()
            assert path.exists(), "the file is systemd's"
    assert eventually(lambda: world.logged().count("Accepted publickey") == 1 + accept)
    assert ("Server listening on unix:" in world.logged()) is not accept


class Manager:
    """What systemd does at the socket where it is told: it always reads, for who tells it waits for that."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while data := self._socket.recv(4096):
            self._told.put(data)

    def told(self, *wanted: str) -> list[str]:
        """Wait until it is told these; gives all that it was told."""
        lines: list[str] = []
        while not set(wanted) <= set(lines):
            lines += self._told.get(timeout=SECONDS).decode().split("\n")
        return lines

    def close(self) -> None:
        """Read no more."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def test_a_reload_that_fails_changes_neither_log_nor_what_is_served(world: World) -> None:
    pid_file = world.path / "pid"
    world.write()
    done = world.run("serve", "--config", str(world.config), "--background", "--pid-file", str(pid_file))
    assert done.returncode == 0, done.stderr
    port = done.stdout.split("listening on 127.0.0.1:")[1].split("\n")[0]
    process = int(pid_file.read_text())
    try:
        world.write('set_env = { WHICH = "none" }\n')
        text = world.config.read_text()
        world.config.write_text(text.replace(f'"{world.log}"', '"/nowhere/log"'))
        done = world.run("status", "--config", str(world.config), "reload")
        assert done.returncode == 1
        assert "/nowhere/log" in done.stderr
        world.login("-p", port, says="echo $WHICH", prints="\n")
        world.write("", "127.0.0.1:0", "unix:/nowhere/socket")  # where nobody can listen
        text = world.config.read_text()
        world.config.write_text(text.replace(f'"{world.log}"', f'"{world.path}/other"'))
        os.kill(process, signal.SIGHUP)
        assert eventually(lambda: "/nowhere/socket" in world.logged())
        world.login("-p", port)
    finally:
        os.kill(process, signal.SIGTERM)
        assert eventually(lambda: not alive(process))


def test_a_new_configuration_a_new_program_and_systemd_hears_of_all(world: World) -> None:
    notify = Manager(world.path / "notify")
    world.env |= {"NOTIFY_SOCKET": str(world.path / "notify"), "WATCHDOG_USEC": "3000000"}
    pid_file = world.path / "pid"
    both = ("127.0.0.1:0", f"unix:{(unix := world.path / 'socket')}")
    world.write("", *both)
    flags = ("--config", str(world.config), "--background", "--pid-file", str(pid_file))
    done = world.run("serve", *flags)
    assert done.returncode == 0, done.stderr
    port = done.stdout.split("listening on 127.0.0.1:")[1].split("\n")[0]
    old = int(pid_file.read_text())
    processes = [old]
    session = subprocess.Popen(
        world.ssh("-p", port, "127.0.0.1", "echo begun; read line; echo $line"), env=world.env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert session.stdout is not None
        assert session.stdout.readline() == "begun\n"
        assert "WATCHDOG=1" in notify.told("READY=1", "WATCHDOG=1")

        # A new key in another file, and one that is wrong.
        world.write('banner = "/nowhere"\nkey = 1\n')
        os.kill(old, signal.SIGHUP)
        assert eventually(lambda: f"{world.config}:" in world.logged() and "there is no such option" in world.logged())
        notify.told("RELOADING=1", "READY=1")
        world.login("-p", port)
        world.write('set_env = { WHICH = "new" }\n', *both)
        done = world.run("status", "--config", str(world.config), "reload")
        assert (done.returncode, done.stdout) == (0, "the configuration was read again\n"), done.stderr
        notify.told("RELOADING=1", "READY=1")
        world.login("-p", port, says="echo $WHICH", prints="new\n")
        assert "exec echo begun" in world.run("status", "--config", str(world.config), "sessions").stdout

        # One that does not start, and one that does.
        for wrong in (("max_startups = 3\n", *both), ("", *both, "unix:/nowhere/socket")):
            world.write(*wrong)
            done = world.run("status", "--state-folder", f"{world.path}/state", "upgrade")
            assert done.returncode == 1
            assert "the new program did not start (status 2); this one goes on" in done.stderr
        world.login("-p", port)
        assert unix.exists()
        world.write('set_env = { WHICH = "newest" }\n')
        os.kill(old, signal.SIGUSR2)
        assert eventually(lambda: int(pid_file.read_text()) != old)
        new = int(pid_file.read_text())
        processes.append(new)
        notify.told(f"MAINPID={new}")
        shown = world.run("top", "--config", str(world.config), "--once").stdout
        assert shown.startswith("dunnart, up ")
        assert eventually(lambda: f"process {new} has taken over" in world.logged())
        assert not unix.exists(), "the new one is not to listen there"
        world.login("-p", port, says="echo $WHICH", prints="newest\n")
        out, _ = session.communicate("lives on\n", SECONDS)
        assert (session.returncode, out) == (0, "lives on\n")
        assert eventually(lambda: not alive(old)), "it has ended with its last connection"
        os.kill(new, signal.SIGTERM)
        notify.told("STOPPING=1")
        assert eventually(lambda: not alive(new))
        assert not pid_file.exists()
        assert eventually(lambda: not answers(int(port)))
    finally:
        session.kill()
        session.communicate()
        notify.close()
        for each in filter(alive, processes):
            os.kill(each, signal.SIGKILL)
    assert "Traceback" not in world.logged()


def test_a_background_that_does_not_come_about_says_so(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = world.run(
            "serve", "--config", str(world.config), "--background", "--listen", f"127.0.0.1:{taken.getsockname()[1]}"
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot listen on 127.0.0.1:" in done.stderr
    assert "cannot listen on 127.0.0.1:" in world.logged()


# The files for systems.

PACKAGING = Path(__file__).parents[2] / "packaging"


def test_systemd_finds_nothing_wrong_with_its_units(tmp_path: Path) -> None:
    if not (PACKAGING / "systemd").is_dir():
        missing("packaging/systemd")
    units = []
    for unit in sorted((PACKAGING / "systemd").iterdir()):
        # The program need not be installed here.
        path = tmp_path / unit.name.replace("@.", "@1.")
        path.write_text(unit.read_text().replace("/usr/bin/dunnart", "/bin/true"))
        if "@" in unit.name:
            (tmp_path / unit.name).write_text(path.read_text())
        units.append(str(path))
    assert len(units) == 5
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", *units], capture_output=True, text=True, check=False,
        env=environment(tmp_path), timeout=SECONDS,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "dunnart" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def _names_another(path: Path, process: int) -> bool:
    try:
        return int(path.read_text()) != process
    except (OSError, ValueError):  # there is none at the moment
        return False


def init_script(world: World, name: str, pid_file: Path) -> Path:
    """One of ours, with this world's files in the place of the system's."""
    script = world.path / "init"
    text = (PACKAGING / name / "dunnart").read_text()
    for old, new in (
        ("/usr/bin/dunnart", world.program("dunnart")), ("/etc/dunnart/dunnart.toml", str(world.config)),
        ("/run/dunnart.pid", str(pid_file)),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    script.write_text(text.replace("/etc/default/dunnart", str(world.path / "default")))
    return script


def test_openrc_starts_reloads_and_stops(world: World) -> None:
    """By a shell in the place of openrc-run, whose ebegin and eend only show."""
    program("start-stop-daemon")
    pid_file = world.path / "init.pid"
    script = init_script(world, "openrc", pid_file)

    def service(word: str, command: str = "") -> int:
        steps = f"ebegin() {{ :; }}; eend() {{ return $1; }}; RC_CMD={command}; . {script}; {word}"
        return subprocess.run(["sh", "-c", steps], env=world.env, timeout=SECONDS, check=False).returncode

    try:
        assert service("start") == 0
        number = int(pid_file.read_text())
        assert service("start") == 0, "it runs already"
        assert int(pid_file.read_text()) == number
        assert service("reload") == 0
        assert eventually(lambda: "the configuration was read again" in world.logged())
        assert service("stop && start", "restart") == 0
        assert eventually(partial(_names_another, pid_file, number)), world.logged()
        number = int(pid_file.read_text())
        good = world.config.read_text()
        world.write("nonsense = 1\n")
        assert service("stop && start", "restart") == 1
        assert service("reload") == 1
        assert alive(number)
        world.config.write_text(good)
        assert service("stop") == 0
        assert not alive(number)
        assert service("reload") == 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_sysvinit_starts_reloads_and_stops(world: World) -> None:
    pid_file = world.path / "init.pid"
    script = init_script(world, "sysvinit", pid_file)

    def init(word: str) -> int:
        return subprocess.run(["sh", str(script), word], env=world.env, timeout=SECONDS, check=False).returncode

    try:
        assert init("status") == 3
        assert init("start") == 0
        number = int(pid_file.read_text())
        assert init("start") == 0, "it runs already"
        assert int(pid_file.read_text()) == number
        assert init("reload") == 0
        assert eventually(lambda: "the configuration was read again" in world.logged())
        # In a session of the server's own. With the second word that ends, and the script must not end with it.
        for word in ("restart", "force-restart"):
            number = int(pid_file.read_text())
            port = world.logged().rpartition("Server listening on 127.0.0.1:")[2].split()[0]
            subprocess.run(world.ssh("-p", port, "127.0.0.1", f"sh {script} {word}"), env=world.env, timeout=SECONDS,
                           stdin=subprocess.DEVNULL, check=word == "restart")  # fmt: skip
            assert eventually(partial(_names_another, pid_file, number)), world.logged()
            assert init("status") == 0
        number = int(pid_file.read_text())
        assert init("stop") == 0
        assert not alive(number)
        assert init("status") == 3
        world.write("nonsense = 1\n")
        assert init("start") == 6
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
