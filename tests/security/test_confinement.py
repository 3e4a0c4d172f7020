"""A confined process, taken over: its own code, run by a stranger, and what the system refuses it.

`hostile` runs in a process that was confined as a worker is, and says what it could do. The other tests look at a real
worker of a real daemon. All of it needs root, and Linux.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from dunnart.daemon.confinement import Confinement
from dunnart.daemon.confinement import program as assembled
from dunnart.daemon.separation import leave_folder_of_others, prepare_empty_folder, worker_user
from tests.interop.clients import OpenSsh
from tests.interop.support import SECONDS, SOURCE, Keys, Served, eventually, program, serve

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can confine its processes"
)

_HOSTILE = """\
import ctypes, errno, fcntl, json, mmap, os, resource, signal, socket, subprocess, sys, threading
from dunnart.daemon.confinement import Confinement

monitor, listener = int(sys.argv[2]), int(sys.argv[3])
link = socket.socket(fileno=int(sys.argv[4]))
libc = ctypes.CDLL(None, use_errno=True)
memory = open(f"/proc/{monitor}/mem", "rb")  # as its descriptor proves, it could have
memory.close()

def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result

def try_thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()

def fast_open(send):
    acceptor = socket.socket(fileno=os.dup(listener))
    acceptor.shutdown(socket.SHUT_RDWR)  # now it is one that can connect
    send(acceptor, ("127.0.0.1", int(os.environ["ELSEWHERE"])))

path = ctypes.create_string_buffer(b"/etc/passwd")
vector = (ctypes.c_char_p * 2)(b"sh", None)
ATTEMPTS = {
    "open": lambda: os.open("/", os.O_RDONLY),
    "open a file": lambda: open("/etc/passwd").read(),
    "make a file": lambda: open("/made", "w"),
    "make a folder": lambda: os.mkdir("/made"),
    "leave the root": lambda: os.chroot(".."),
    "list": lambda: os.listdir("/"),
    "execute": lambda: os.execv("/bin/sh", ["sh"]),
    "execute a descriptor": lambda: os.execve(0, ["sh"], {}),
    "execute anew": lambda: call(322, -100, ctypes.create_string_buffer(b"/bin/sh"), vector, None, 0),
    "fork": os.fork,
    "spawn": lambda: subprocess.run(["true"]),
    "start a thread": try_thread,
    "clone a namespace": lambda: call(272, 0x10000000),
    "a TCP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "a UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "a unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "a netlink socket": lambda: socket.socket(16, socket.SOCK_RAW),
    "a pair of sockets": lambda: socket.socketpair(),
    "connect": lambda: link.connect("/run/x"),
    "connect by sending": lambda: fast_open(lambda sock, to: sock.sendto(b"x", socket.MSG_FASTOPEN, to)),
    "connect by a message": lambda: fast_open(lambda sock, to: sock.sendmsg([b"x"], [], socket.MSG_FASTOPEN, to)),
    "a filter that stays": lambda: socket.socket(fileno=os.dup(listener)).setsockopt(socket.SOL_SOCKET, 44, 1),
    "bind": lambda: link.bind("\\0hostile"),
    "be root": lambda: os.setuid(0),
    "be root again": lambda: os.setresuid(-1, 0, -1),
    "have groups": lambda: os.setgroups([0]),
    "signal the monitor": lambda: os.kill(monitor, 0),
    "kill the monitor": lambda: os.kill(monitor, signal.SIGKILL),
    "signal its own kind": lambda: os.kill(os.getpid(), 0),
    "signal a thread of the monitor": lambda: call(234, monitor, monitor, 0),
    "trace the monitor": lambda: call(101, 16, monitor, 0, 0),
    "read the monitor": lambda: call(310, monitor, None, 0, None, 0, 0),
    "steal its descriptors": lambda: call(438, os.getpid(), 0, 0),
    "more open files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)),
    "fewer open files of the monitor": lambda: resource.prlimit(monitor, resource.RLIMIT_NOFILE),
    "more processes": lambda: resource.setrlimit(resource.RLIMIT_NPROC, (100, 100)),
    "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "a dump": lambda: call(157, 4, 1, 0, 0, 0),
    "privileges by prctl": lambda: call(157, 28, 0, 0, 0, 0),
    "mount": lambda: call(165, path, path, path, 0, None),
    "a module": lambda: __import__("xml.dom.minidom"),
    "bpf": lambda: call(321, 0, None, 0),
    "keys of the kernel": lambda: call(250, 0, 0, 0, 0, 0),
    "an asynchronous ring": lambda: call(425, 8, path),
    "type into a terminal": lambda: fcntl.ioctl(0, 0x5412, b"x"),
    "be told of input": lambda: fcntl.fcntl(link, fcntl.F_SETOWN, monitor),
    "watch": lambda: call(253),
    "time": lambda: call(227, 0, path),
}
ALLOWED = {
    "random": lambda: os.urandom(16),
    "write": lambda: link.send(b"x"),
    "duplicate": lambda: os.close(os.dup(0)),
    "blocking": lambda: os.set_blocking(link.fileno(), False),
    "limits": lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    "memory": lambda: len(bytes(64 << 20)),
}
started = []
in_force = Confinement(**json.loads(sys.argv[1])).enter(lambda: started.append(True))
found = {"in force": in_force, "started": started, "uid": [os.getuid(), os.geteuid()],
         "gid": [os.getgid(), os.getegid()], "done": {}, "allowed": {}}
for kind, attempts in (("done", ATTEMPTS), ("allowed", ALLOWED)):
    for name, attempt in attempts.items():
        if sys.argv[5:] and name not in sys.argv[5:]:
            continue
        try:
            attempt()
            found[kind][name] = "done"
        except (OSError, ImportError, RuntimeError, ValueError) as error:
            found[kind][name] = type(error).__name__
print(json.dumps(found), flush=True)
"""


@pytest.fixture(scope="module")
def confinement(tmp_path_factory: pytest.TempPathFactory) -> Confinement:
    folder = tmp_path_factory.mktemp("empty")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    prepare_empty_folder(str(folder))
    uid, gid, name = worker_user("")
    return Confinement(name, uid, gid, str(folder))


def hostile(confinement: Confinement, *attempts: str) -> dict[str, Any]:
    """Run the code above, confined so, with all attempts or some."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as elsewhere,
    ):
        environment = {**os.environ, "ELSEWHERE": str(elsewhere.getsockname()[1])}
        numbers = map(str, (os.getpid(), listener.fileno(), theirs.fileno()))
        arguments = [json.dumps(confinement.arguments()), *numbers, *attempts]
        done = subprocess.run(
            [sys.executable, "-c", _HOSTILE, *arguments], check=False, capture_output=True, text=True, timeout=SECONDS,
            pass_fds=(listener.fileno(), theirs.fileno()), stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_confined_process_can_do_nothing_but_serve(confinement: Confinement) -> None:
    found = hostile(confinement)
    assert found["started"] == [True]
    assert (found["uid"], found["gid"]) == ([confinement.uid] * 2, [confinement.gid] * 2)
    assert {name for name, how in found["done"].items() if how == "done"} == set()
    assert {name for name, how in found["allowed"].items() if how != "done"} == set()
    assert {"no_new_privs", "rlimits"} < {*found["in force"]}
    if "seccomp" not in found["in force"]:
        pytest.skip(f"only {found['in force']} can be had here")


def test_without_the_sandbox_it_still_is_nobody(confinement: Confinement) -> None:
    others = ("be root", "be root again", "have groups", "kill the monitor", "trace the monitor")
    bare = Confinement(confinement.user, confinement.uid, confinement.gid, "")
    found = hostile(bare, "open a file", *others)
    assert found["uid"] == [confinement.uid] * 2
    assert found["in force"] == [f"user {confinement.user}"]
    assert [name for name, how in found["done"].items() if how == "done"] == ["open a file"]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_jumps_within_itself_and_ends(machine: str) -> None:
    made = assembled(machine, 7)
    assert len(made) < 4096
    for index, (code, yes, no, _) in enumerate(made):
        assert index + 1 + max(yes, no) < len(made) or code == 0x06
    assert made[-1] == (0x06, 0, 0, 0x00050001)


# A real daemon's worker.


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[Served]:
    running = serve(tmp_path_factory.mktemp("daemon"), keys)
    yield running
    running.stop()


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def memory(pid: int) -> Iterator[bytes]:
    """Everything that a process can write to, and so could have in it."""
    with open(f"/proc/{pid}/mem", "rb") as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if found is not None:
                file.seek(int(found[1], 16))
                yield file.read(int(found[2], 16) - int(found[1], 16))


def test_the_worker_of_a_daemon_is_confined_and_the_monitor_has_one_thread(daemon: Served) -> None:
    (worker,) = daemon.workers()
    found = status(worker)
    uid, gid, name = worker_user("")
    assert found["Uid"].split() == [str(uid)] * 4
    assert found["Gid"].split() == [str(gid)] * 4
    assert (found["Groups"], found["NoNewPrivs"], found["CapEff"]) == ("", "1", "0000000000000000")
    assert os.readlink(f"/proc/{worker}/root") == "/run/dunnart/empty"
    assert daemon.logs(f"is confined: user {name}")
    assert found["Seccomp"] == ("2" if "seccomp" in daemon.log else "0")
    assert status(daemon.process.pid)["Threads"] == "1"
    limits = Path(f"/proc/{worker}/limits").read_text()
    assert re.search(r"Max processes +0 +0 ", limits)
    opened = [os.readlink(each) for each in Path(f"/proc/{worker}/fd").iterdir()]
    assert not [each for each in opened if each.startswith("/") and each != "/dev/null"]


def test_no_memory_of_the_worker_holds_a_host_key(daemon: Served) -> None:
    path = next(each for each in (daemon.folder / "state").iterdir() if each.name.endswith("ed25519_key"))
    key = load_ssh_private_key(path.read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    secret, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    assert any(secret in region for region in memory(daemon.process.pid))
    (worker,) = daemon.workers()
    assert any(public in region for region in memory(worker))  # what it does hold can be seen
    assert not any(secret in region for region in memory(worker))


def gone(pid: int) -> bool:
    try:
        return status(pid)["State"].startswith("Z")
    except OSError:  # there is no such process
        return True


def test_a_worker_that_ends_has_a_successor_as_confined_and_both_end_with_the_monitor(
    tmp_path: Path, keys: Keys
) -> None:
    served = serve(tmp_path, keys, "--workers", "2")
    try:
        first, _ = served.workers()
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: served.log.count("is confined: ") == 3)
        second = int(re.findall(r"protocol process \d+ \((\d+)\) is confined", served.log)[-1])
        assert status(second)["NoNewPrivs"] == "1"
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
            assert client.recv(4) == b"SSH-"
        pids = [second, *served.workers()]
        served.process.kill()
        served.process.wait()
        assert eventually(lambda: all(map(gone, pids)))
    finally:
        served.process.kill()
        served.process.wait()
        assert served.process.stdout is not None
        served.process.stdout.close()


def test_nobody_meets_the_network_while_nobody_is_there(tmp_path: Path, keys: Keys) -> None:
    served = serve(tmp_path, keys, "--rest-on-idle", "1", "--workers", "2")
    line, env = OpenSsh().command(served)
    try:
        for _ in range(2):
            assert eventually(lambda: not served.workers())
            done = subprocess.run([*line, "echo in"], env=env, capture_output=True, timeout=SECONDS, check=False)
            assert done.stdout == b"in\n", done.stderr
            assert eventually(lambda: not served.workers())
            os.kill(served.process.pid, signal.SIGHUP)
            assert served.logs("the configuration was read again")
        assert served.log.count("the protocol processes rest") >= 4
        assert served.log.count("is confined: ") >= 8
    finally:
        served.process.terminate()
        assert served.process.wait() == 0
        assert served.process.stdout is not None
        served.process.stdout.close()


def test_no_module_comes_from_where_it_was_started_and_others_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [tmp_path / name for name in ("anybodys", "roots", "users", "program", "program/dunnart")]
    for folder in folders:
        folder.mkdir()
    folders[0].chmod(0o1777)
    for folder in folders[2:]:
        os.chown(folder, worker_user("")[0], -1)
    monkeypatch.setattr(sys, "path", ["", *map(str, folders[:4])])
    for started_in in (folders[1], folders[3]):
        monkeypatch.chdir(started_in)
        leave_folder_of_others()
        assert sys.path == ["", *map(str, folders[:4])]
    monkeypatch.chdir(folders[0])
    leave_folder_of_others()
    assert sys.path == [*map(str, folders[1:4])]
    monkeypatch.chdir(folders[2])
    leave_folder_of_others()
    assert sys.path == [str(folders[1]), str(folders[3])]
    assert caplog.text.count("no module is looked for in") == 3


def test_a_program_that_was_changed_takes_over_before_anything_is_read_again(tmp_path: Path, keys: Keys) -> None:
    program = tmp_path / "program"
    shutil.copytree(SOURCE / "dunnart", program / "dunnart")
    served = serve(tmp_path, keys, variables={"PYTHONPATH": str(program)})
    pids = [served.process.pid]
    try:
        os.utime(program / "dunnart/server/processes/order.py", (1, 1))
        os.kill(served.process.pid, signal.SIGHUP)
        assert served.logs("the program was changed on disk; `dunnart status upgrade`")
        assert "the configuration was read again" not in served.log
        os.kill(served.process.pid, signal.SIGUSR2)
        assert eventually(lambda: "has taken over" in (tmp_path / "log").read_text())
        pids += map(int, re.findall(r"process (\d+) has taken over", (tmp_path / "log").read_text()))
        assert served.process.wait(SECONDS) == 0
        os.kill(pids[-1], signal.SIGHUP)
        assert eventually(lambda: "the configuration was read again" in (tmp_path / "log").read_text())
        line, env = OpenSsh().command(served)
        done = subprocess.run([*line, "echo in"], env=env, capture_output=True, timeout=SECONDS, check=False)
        assert done.stdout == b"in\n", done.stderr
    finally:
        for each in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        served.process.wait()
        assert served.process.stdout is not None
        served.process.stdout.close()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--unprivileged-user", "root"], "unprivileged_user"),
        (["--unprivileged-user", "no-such-user"], "no user no-such-user"),
        (["--empty-folder", "/etc"], "is not empty"),
        (["--empty-folder", "/etc/passwd"], "empty_folder"),
    ],
)
def test_what_cannot_confine_ends_the_start(flags: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dunnart", "serve", "--listen", "127.0.0.1:0", "--state-folder", str(tmp_path)]
    done = subprocess.run([*command, *flags], check=False, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_system_that_refuses_ends_the_start_too(tmp_path: Path) -> None:
    command = [program("setpriv"), "--bounding-set", "-sys_chroot", "--inh-caps", "-sys_chroot", sys.executable]
    command += ["-m", "dunnart", "serve", "--listen", "127.0.0.1:0", "--state-folder", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "Operation not permitted" in done.stderr
    assert "sandbox = false" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    from dunnart.errors import ConfigError

    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="can write"):
        prepare_empty_folder(str(tmp_path))


EVERYTHING = (
    "--profile", "legacy", "--kex", "+ecdh-sha2-nistp256,ecdh-sha2-nistp521",
    "--compression", "none,zlib@openssh.com,zlib", "--forwards", "tcp", "--forwards", "agent", "--forwards", "x11",
)  # fmt: skip
LOGINS = [
    ("ed25519", "mlkem768x25519-sha256", "chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ("ecdsa256", "ecdh-sha2-nistp256", "aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("ecdsa521", "ecdh-sha2-nistp521", "aes128-cbc", "hmac-sha1"),
    ("rsa", "diffie-hellman-group-exchange-sha256", "3des-cbc", "hmac-sha2-512"),
    ("rsa", "diffie-hellman-group14-sha1", "aes128-gcm@openssh.com", "hmac-sha2-256"),
]


def test_a_confined_worker_serves_whatever_is_on_offer(tmp_path: Path, keys: Keys) -> None:
    """It can load nothing any more: what it lacked would be an error in its log, which `stop` looks at."""
    served = serve(tmp_path, keys, *EVERYTHING)
    client = OpenSsh()
    try:
        offered = subprocess.run([program("ssh"), "-Q", "kex"], check=True, capture_output=True, text=True).stdout
        for key, kex, cipher, mac in LOGINS:
            options = [f"-oKexAlgorithms={kex if kex in offered else 'curve25519-sha256'}", f"-oCiphers={cipher}"]
            line, env = client.command(served, *options, f"-oMACs={mac}", "-C", "-X", "-A", key=key)
            done = subprocess.run([*line, "head -c 3000000 /dev/zero | tail -c 1; exit 3"], env=env, check=False,
                                  capture_output=True, timeout=SECONDS)  # fmt: skip
            assert (done.returncode, done.stdout) == (3, b"\0"), (key, kex, cipher, done.stderr)
        line, env = client.command(served, "-W", f"127.0.0.1:{served.port}", key="ed25519")
        done = subprocess.run(line, env=env, check=False, input=b"", capture_output=True, timeout=SECONDS)
        assert done.stdout.startswith(b"SSH-2.0-")
        line, env = client.command(served, "-s", key="ed25519")
        done = subprocess.run([*line, "sftp"], env=env, check=False, input=b"\0\0\0\5\1\0\0\0\3", capture_output=True,
                              timeout=SECONDS)  # fmt: skip
        assert done.stdout[4:9] == b"\2\0\0\0\3"
        assert client.run_on_terminal(served, "stty size").status == 0
        control = str(tmp_path / "state" / "control.sock")
        shown = subprocess.run(
            [sys.executable, "-m", "dunnart", "status", "--control-socket", control, "status", "--json"], check=False,
            capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        assert json.loads(shown.stdout)["placement"] == "process", shown.stderr
    finally:
        served.stop()
