"""A day of a small server in ten minutes: `python -m benchmarks.soak [--hours 24] [--minutes 10]`, as root.

Each hour has logins by good and bad keys, commands, terminals, transfers each way, tunnels, an agent, clients that are
killed, and the configuration is read again; by turns it also has a broken configuration, a full disk, no descriptors, a
step of the clock, and worker processes that are killed. Between hours everybody is gone but one who stays for as long
as the worker lives. What the server then has must not grow: memory, descriptors, processes, threads, ptys, utmp
entries, folders of agents. The exit status is 1 if it does, or if anything that should work does not.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import mmap
import os
import random
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from ssh2.exceptions import SSH2Error

from benchmarks.clients import ClientError, Identity, Login, OpenSsh, make_identity
from benchmarks.processes import KIB, MIB, family, weigh

if TYPE_CHECKING:
    from collections.abc import Callable

IN_NAMESPACE = "DUNNART_SOAK_NAMESPACE"
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LOGINS, _CROWD, _TUNNELLED = 30, 20, 20
_FILE_BYTES = 4 * MIB
_DISK_BYTES = 2 * MIB
_USER_PROCESS = 7  # utmp(5)
_UTMP_BYTES = 384
_WARM_HOURS = 4
"""So long everything happens for the first time; growth is counted from there."""
_MOST_GROWTH_KIB = 1024
_SECONDS = 30.0


class Holdings(NamedTuple):
    """What the server has when nearly nobody is there."""

    pss_kib: int
    private_kib: int
    descriptors: int
    processes: int
    threads: int
    ptys: int
    utmp_entries: int
    agent_folders: int


class Soak:
    """The server and what is done to it.

    Attributes:
        problems: what did not go as it should, by hour.
        done: how often each thing was done.
    """

    def __init__(self, identity: Identity, seed: int) -> None:
        self._identity = identity
        self._folder = identity.folder
        self._random = random.Random(seed)
        self._ssh = OpenSsh("ssh", identity)
        self._stranger = os.path.join(self._folder, "stranger")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._stranger], check=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port: int = probe.getsockname()[1]
        self._offset = self._path("offset", bytes(8))
        self._config = self._path("dunnart.toml", self._configuration())
        self._blob = self._path("blob", os.urandom(_FILE_BYTES))
        self._log = open(os.path.join(self._folder, "log"), "ab")  # noqa: SIM115 - closed with the server
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.servers.soak_server", self._offset, "serve", "--config", self._config],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=_ROOT,
            env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        )  # fmt: skip
        self._resident: tuple[Login, object] | None = None
        self._folders = len(glob.glob("/tmp/dunnart-*"))
        self.hour = 0
        self.problems: list[str] = []
        self.done: dict[str, int] = {}

    def _path(self, name: str, content: bytes) -> str:
        path = os.path.join(self._folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def _configuration(self, more: str = "") -> bytes:
        values = {
            "listen": [f"127.0.0.1:{self._port}"], "host_key": [self._identity.host_key],
            "authorized_keys": [self._identity.authorized_keys], "max_startups_per_source": 0,
            "penalty_exempt": ["127.0.0.0/8"],
        }  # fmt: skip
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        return ("\n".join(lines) + "\n" + more).encode()

    def begin(self) -> None:
        """Wait until it listens."""
        self._until(self._listens, "it does not listen")

    def last_words(self) -> str:
        """The end of its log."""
        with open(self._log.name, encoding="utf-8", errors="replace") as file:
            return file.read()[-500:]

    def end(self) -> None:
        """End it as an administrator does."""
        self._process.terminate()
        try:
            status = self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._log.close()
        if status:
            self.problems.append(f"it ended with {status}")

    def live(self, seconds: float) -> None:
        """Spend an hour, in so many seconds."""
        ends = time.monotonic() + seconds
        self.hour += 1
        self._attempt("a resident", self._stay)
        for name, work in self._daily():
            self._attempt(name, work)
        trouble = _TROUBLES[(self.hour - 1) % len(_TROUBLES)]
        self._attempt(trouble.__name__.strip("_").replace("_", " "), lambda: trouble(self))
        self._attempt("a login afterwards", self._log_in)
        self._until(self._quiet, "sessions are left")
        time.sleep(max(0.5, ends - time.monotonic()))

    def _daily(self) -> list[tuple[str, Callable[[], None]]]:
        works: list[tuple[str, Callable[[], None]]] = [
            ("logins", lambda: self._many(self._log_in, _LOGINS)),
            ("a stranger", self._be_strange),
            ("a crowd", lambda: self._at_once(self._run_true, _CROWD)),
            ("a terminal", self._type),
            ("a killed terminal", lambda: self._vanish(["-tt"], "exec sleep 1000")),
            ("a killed download", lambda: self._vanish([], "cat /dev/zero")),
            ("files", self._move_files),
            ("a tunnel", self._tunnel),
            ("an agent", self._use_an_agent),
            ("a reload", self._reload),
        ]
        self._random.shuffle(works)
        return works

    def _attempt(self, name: str, work: Callable[[], None]) -> None:
        self.done[name] = self.done.get(name, 0) + 1
        known, start = len(self.problems), time.monotonic()
        try:
            work()
        except (SSH2Error, OSError, ClientError, AssertionError, subprocess.SubprocessError) as error:
            self.problems.append(f"hour {self.hour}, {name}: {error!r}")
        print(f"hour {self.hour}, {name}: {time.monotonic() - start:.1f} s", *self.problems[known:], file=sys.stderr)

    def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while not condition():
            if self._process.poll() is not None:
                raise ClientError(f"the server is gone; its last words: {self.last_words()}")
            if time.monotonic() > deadline:
                self.problems.append(f"hour {self.hour}: {otherwise}")
                return
            time.sleep(0.1)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=5) as probe:
            return probe.recv(4) == b"SSH-"
        return False

    def _quiet(self) -> bool:
        """Whether nothing runs but the server's own processes and what the resident has."""
        programs = {os.path.basename(_executable(each.pid)) for each in family(self._process.pid)}
        return programs <= {os.path.basename(os.path.realpath(sys.executable)), "cat", ""}

    # Every hour.

    def _stay(self) -> None:
        """Be logged in, and see that one still is."""
        if self._resident is None:
            login = Login(self._identity, self._port)
            self._resident = login, login.typist()
        self._resident[1].type(b"x")  # type: ignore[attr-defined]

    def _log_in(self) -> None:
        with Login(self._identity, self._port):
            pass

    def _run_true(self) -> None:
        with Login(self._identity, self._port) as login:
            assert login.run("exit 3") == 3

    def _be_strange(self) -> None:
        identity = self._identity
        other = Identity(identity.folder, identity.user, self._stranger, identity.host_key, identity.authorized_keys)
        try:
            Login(other, self._port).close()
        except SSH2Error:
            return
        raise ClientError("a stranger is in")

    def _type(self) -> None:
        with Login(self._identity, self._port) as login:
            typist = login.typist()
            for number in range(20):
                typist.type(b"%c" % (97 + number))

    def _vanish(self, flags: list[str], command: str) -> None:
        with subprocess.Popen(
            self._ssh.arguments(self._port, command, *flags), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as client:  # fmt: skip
            time.sleep(1)
            client.kill()

    def _move_files(self) -> None:
        back = os.path.join(self._folder, "back")
        there = os.path.join(self._folder, "there")
        script = f"put {self._blob} {there}\nget {there} {back}\nls -l {self._folder}\nrm {there}\n"
        _checked(["sftp", *self._flags(), "-b", "-", "127.0.0.1"], script)
        with open(self._blob, "rb") as one, open(back, "rb") as other:
            assert one.read() == other.read()
        _checked(["scp", *self._flags(), self._blob, f"127.0.0.1:{there}"])
        os.unlink(there)

    def _flags(self) -> list[str]:
        line = self._ssh.arguments(self._port, "")
        return [each for each in line[1:-2] if each != "-T"]

    def _tunnel(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as far, socket.create_server(("127.0.0.1", 0)) as probe:
            near: int = probe.getsockname()[1]
            probe.close()
            threading.Thread(target=_echo, args=(far,), daemon=True).start()
            forward = f"127.0.0.1:{near}:127.0.0.1:{far.getsockname()[1]}"
            line = self._ssh.arguments(self._port, "", "-N", "-L", forward)[:-1]
            with subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
                try:
                    self._until(lambda: _reaches(near), "a tunnel does not open")
                    for _ in range(_TUNNELLED):
                        assert _reaches(near)
                finally:
                    client.kill()

    def _use_an_agent(self) -> None:
        path = os.path.join(self._folder, "agent")
        with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as agent:
            try:
                self._until(lambda: os.path.exists(path), "no agent")
                env = {**os.environ, "SSH_AUTH_SOCK": path}
                subprocess.run(["ssh-add", "-q", self._identity.user_key], env=env, check=True, timeout=_SECONDS)
                line = self._ssh.arguments(self._port, "ssh-add -l")
                line[1:1] = ["-A", "-o", "IdentityAgent=SSH_AUTH_SOCK"]  # of an option given twice the first counts
                done = subprocess.run(line, env=env, capture_output=True, check=False, timeout=_SECONDS)
                assert b"ED25519" in done.stdout, done.stderr
            finally:
                agent.terminate()

    def _reload(self) -> None:
        before = self._said("configuration")
        self._write_configuration(b"")
        self._process.send_signal(signal.SIGHUP)
        self._until(lambda: self._said("configuration") > before, "it does not read its configuration again")

    def _write_configuration(self, more: bytes) -> None:
        with open(self._config, "wb") as file:
            file.write(self._configuration() + more)

    def _said(self, word: str) -> int:
        with open(self._log.name, encoding="utf-8", errors="replace") as file:
            return file.read().count(word)

    # By turns.

    def _a_broken_configuration(self) -> None:
        before = self._said("dunnart.toml")
        self._write_configuration(b"no_such_option = 1\n")
        self._process.send_signal(signal.SIGHUP)
        self._until(lambda: self._said("dunnart.toml") > before, "a broken configuration is not spoken of")
        self._log_in()
        self._reload()

    def _a_full_disk(self) -> None:
        """A folder of two MiB takes no four."""
        folder = os.path.join(self._folder, "disk")
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "none", folder], check=True)
        try:
            line = ["sftp", *self._flags(), "-b", "-", "127.0.0.1"]
            done = subprocess.run(line, input=f"put {self._blob} {folder}/there\n", text=True, capture_output=True,
                                  check=False, timeout=_SECONDS)  # fmt: skip
            assert done.returncode, "4 MiB fit into 2"
        finally:
            self._until(lambda: _unmounted(folder), "the full disk stays busy")

    def _no_descriptors(self) -> None:
        """For a while no process of the server may open anything."""
        own = [each.pid for each in family(self._process.pid) if _executable(each.pid) == _executable(os.getpid())]
        before = {pid: _most_descriptors(pid) for pid in own}
        try:
            for pid in own:
                _limit_descriptors(pid, max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 2)
            self._at_once(self._try_to_log_in, _CROWD)
        finally:
            for pid, limit in before.items():
                _limit_descriptors(pid, limit)
        self._until(self._listens, "it does not recover from having no descriptors")

    def _try_to_log_in(self) -> None:
        with contextlib.suppress(SSH2Error, OSError, ClientError, AssertionError):
            self._run_true()

    def _a_step_of_the_clock(self) -> None:
        """By a day, and later back."""
        with open(self._offset, "r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
            now = struct.unpack_from("<d", shared)[0]
            struct.pack_into("<d", shared, 0, 0.0 if now else 86_400.0 * self._random.choice((-1, 1)))
        self._stay()

    def _a_killed_worker(self) -> None:
        """The process that meets the network dies, and with it whoever is logged in."""
        if self._resident is not None:
            self._resident[0].close()
            self._resident = None
        workers = [each.pid for each in family(self._process.pid) if _name(each.pid) == "dunnart-worker"]
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        self._until(self._listens, "a worker that died is not replaced")

    # Figures.

    def _many(self, work: Callable[[], None], count: int) -> None:
        for _ in range(count):
            work()

    def _at_once(self, work: Callable[[], None], count: int) -> None:
        failed: list[BaseException] = []

        def attempt() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - counted
                failed.append(error)

        threads = [threading.Thread(target=attempt) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise ClientError(f"{len(failed)} of {count} failed, first: {failed[0]!r}")

    def holdings(self) -> Holdings:
        """Count what it has now."""
        own = [each.pid for each in family(self._process.pid) if _executable(each.pid) == _executable(os.getpid())]
        links = [_link(f"/proc/{pid}/fd/{fd}") for pid in own for fd in os.listdir(f"/proc/{pid}/fd")]
        found = weigh(own)
        return Holdings(
            found.pss // KIB, found.private // KIB, len(links), len(family(self._process.pid)),
            sum(len(os.listdir(f"/proc/{pid}/task")) for pid in own),
            sum(link.startswith(("/dev/ptmx", "/dev/pts/ptmx")) for link in links),
            _utmp_entries(), len(glob.glob("/tmp/dunnart-*")) - self._folders,
        )  # fmt: skip


_TROUBLES = (
    Soak._a_broken_configuration, Soak._a_full_disk, Soak._no_descriptors, Soak._a_step_of_the_clock,  # noqa: SLF001
    Soak._a_killed_worker,  # noqa: SLF001
)  # fmt: skip


def _most_descriptors(pid: int) -> int:
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        return next(int(line.split()[3]) for line in file if line.startswith("Max open files"))


def _limit_descriptors(pid: int, most: int) -> None:
    """As who it runs as: root may not do so to others everywhere."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        user, group = (next(line.split()[1] for line in file if line.startswith(key)) for key in ("Uid:", "Gid:"))
    line = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "prlimit", f"--pid={pid}"]
    _checked([*line, f"--nofile={most}:"])


def _executable(pid: int) -> str:
    return _link(f"/proc/{pid}/exe")


def _name(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="ascii") as file:
        return file.read().rstrip("\n")
    return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _utmp_entries() -> int:
    with open("/var/run/utmp", "rb") as file:
        data = file.read()
    kinds = (struct.unpack_from("<h", data, start)[0] for start in range(0, len(data), _UTMP_BYTES))
    return sum(kind == _USER_PROCESS for kind in kinds)


def _echo(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            with listener.accept()[0] as connection:
                connection.sendall(connection.recv(4))


def _reaches(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"ping")
        return connection.recv(4) == b"ping"
    return False


def _checked(line: list[str], said: str = "") -> None:
    done = subprocess.run(line, input=said, text=True, capture_output=True, check=False, timeout=_SECONDS)
    if done.returncode:
        raise ClientError(f"{line[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def _unmounted(folder: str) -> bool:
    return subprocess.run(["umount", folder], check=False, stderr=subprocess.DEVNULL).returncode == 0


def enter_namespace() -> None:
    """Run again in a mount namespace with records of logins of its own, and where ~/.bashrc is empty."""
    if IN_NAMESPACE in os.environ:
        return
    os.environ[IN_NAMESPACE] = "1"
    script = "mount -t tmpfs none /var/run && mount -t tmpfs none /var/log && touch /var/run/utmp /var/log/wtmp && "
    script += 'if [ -e "$0" ]; then mount --bind /dev/null "$0"; fi && exec "$@"'
    again = [sys.executable, "-m", "benchmarks.soak", *sys.argv[1:]]
    os.execvp("unshare", ["unshare", "--mount", "sh", "-c", script, os.path.expanduser("~/.bashrc"), *again])


def main(arguments: list[str]) -> int:
    """Live through it, and print what the server had after each hour."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if os.getuid() or not shutil.which("unshare"):
        parser.error("it takes root, and unshare")
    enter_namespace()
    found: list[Holdings] = []
    with tempfile.TemporaryDirectory(prefix=".dunnart-soak-", dir=os.path.expanduser("~")) as folder:
        soak = Soak(make_identity(folder), options.seed)
        try:
            soak.begin()
            for _ in range(options.hours):
                soak.live(options.minutes * 60 / options.hours)
                found.append(soak.holdings())
                print(f"hour {soak.hour}: {found[-1]}", file=sys.stderr, flush=True)
        finally:
            soak.end()
    print(report(found, soak))
    grown = growth(found)
    print(*soak.problems, *grown, sep="\n")
    return 1 if soak.problems or grown else 0


def report(found: list[Holdings], soak: Soak) -> str:
    """Make the table for the documentation."""
    shown = sorted({0, _WARM_HOURS - 1, len(found) // 2 - 1, len(found) - 1} & set(range(len(found))))
    lines = ["| after hour | " + " | ".join(str(index + 1) for index in shown) + " |", "|---|" + "---:|" * len(shown)]
    for number, name in enumerate(Holdings._fields):
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(str(found[index][number]) for index in shown)} |")
    done = ", ".join(f"{name} {count}" for name, count in sorted(soak.done.items()))
    return "\n".join([*lines, "", f"Done: {done}."])


def growth(found: list[Holdings]) -> list[str]:
    """Say what has grown since everything had happened once: the medians of the first and last whole turn count."""
    turn = len(_TROUBLES)
    first, last = found[_WARM_HOURS : _WARM_HOURS + turn], found[-turn:]
    if len(found) < _WARM_HOURS + 2 * turn:
        return ["too few hours to tell whether anything grows"]
    grown = []
    for number, name in enumerate(Holdings._fields):
        before, now = (statistics.median(each[number] for each in some) for some in (first, last))
        if now > before + (_MOST_GROWTH_KIB if name.endswith("kib") else 0):
            grown.append(f"{name} has grown from {before} to {now}")
    return grown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
