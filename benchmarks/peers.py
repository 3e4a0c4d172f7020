"""The servers that are compared: how each is started, which programs are it, and what it lacks."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from benchmarks import processes

if TYPE_CHECKING:
    from types import TracebackType

    from benchmarks.clients import Identity

START_SECONDS = 20


def _said(*command: str) -> str:
    """Return what a program prints about itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=20)
    return (done.stdout + done.stderr).strip()


def version_of_ssh(program: str) -> str:
    """Ask OpenSSH's client or server for its version."""
    return next((line for line in _said(program, "-V").splitlines() if line.startswith("OpenSSH")), "unknown")


@dataclass
class Peer:
    """A kind of server.

    `program` is the path it was asked for with, "" for those that come with Python. Subclasses say how it is started.
    """

    program: str = ""
    name: ClassVar[str]

    def missing(self) -> str | None:
        """Say why it cannot be measured here, None if it can."""
        raise NotImplementedError

    def version(self) -> str:
        """Name the version, as the server itself calls it."""
        raise NotImplementedError

    def command(self, identity: Identity, port: int) -> list[str]:
        """Make the command line that serves on 127.0.0.1:`port` and stays in the foreground."""
        raise NotImplementedError

    def inetd_command(self, identity: Identity) -> list[str]:
        """Make the command line that serves a connection on standard input; empty: there is none."""
        del identity
        return []

    def conditions(self, identity: Identity) -> str:
        """Describe what differs from the server's defaults."""
        raise NotImplementedError

    def programs(self) -> frozenset[str]:
        """List the executables that are this server, as real paths."""
        return frozenset({os.path.realpath(sys.executable)})


@dataclass
class Dunnart(Peer):
    """This project's server, from this checkout; a crowd may come from one address, as the sshd beside it lets it."""

    name: ClassVar[str] = "dunnart"
    crowd: ClassVar[tuple[str, ...]] = ("--max-startups=1000:30:2000", "--max-startups-per-source=0")

    def missing(self) -> str | None:
        """Is there a `serve` yet?"""
        found = importlib.util.find_spec("dunnart")
        if found is None or importlib.util.find_spec("dunnart.__main__") is None:
            return "this checkout has no `python -m dunnart` yet"
        return None

    def version(self) -> str:
        """Name the version of the package that is imported."""
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version("dunnart")
        return "not installed"

    def command(self, identity: Identity, port: int) -> list[str]:
        """Serve this user."""
        head = [sys.executable, "-m", "dunnart", "serve", "--listen", f"127.0.0.1:{port}", *self.crowd]
        return [*head, "--host-key", identity.host_key, "--authorized-keys", identity.authorized_keys]

    def inetd_command(self, identity: Identity) -> list[str]:
        """As inetd has it."""
        head = [sys.executable, "-m", "dunnart", "serve", "-i", "--log-to", os.devnull, "--host-key"]
        return [*head, identity.host_key, "--authorized-keys", identity.authorized_keys]

    def conditions(self, identity: Identity) -> str:
        """Show the flags, paths left out."""
        del identity
        return " ".join(self.crowd)


@dataclass
class Sshd(Peer):
    """OpenSSH's sshd."""

    name: ClassVar[str] = "sshd"

    def _path(self) -> str:
        return shutil.which(self.program or "sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") or ""

    def missing(self) -> str | None:
        """Is it there, and does it want a folder that is not?"""
        if not self._path():
            return f"no {self.program or 'sshd'} on PATH; name one with --sshd"
        return None

    def version(self) -> str:
        """Ask it: -V where it knows that, otherwise the usage message names the version."""
        return version_of_ssh(self._path())

    def _settings(self, identity: Identity) -> list[str]:
        lines = [f"HostKey {identity.host_key}", f"AuthorizedKeysFile {identity.authorized_keys}", "PidFile none"]
        lines += ["UseDNS no", "LogLevel ERROR", "PrintMotd no", "PermitRootLogin yes"]
        lines += ["Subsystem sftp internal-sftp"]
        lines += ["MaxStartups 1000:30:2000", "LoginGraceTime 600"]
        if "PerSourcePenalties" not in self._complaint([*lines, "PerSourcePenalties no"], identity):
            lines.append("PerSourcePenalties no")
        return lines

    def _complaint(self, lines: list[str], identity: Identity) -> str:
        path = os.path.join(identity.folder, "sshd_config")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        return _said(self._path(), "-t", "-f", path)

    def command(self, identity: Identity, port: int) -> list[str]:
        """Serve with a configuration of our own."""
        complaint = self._complaint(self._settings(identity), identity)
        if "Missing privilege separation directory" in complaint:
            os.makedirs(complaint.rsplit(": ", 1)[1], mode=0o755, exist_ok=True)
        path = os.path.join(identity.folder, "sshd_config")
        return [self._path(), "-D", "-e", "-f", path, "-p", str(port), "-o", "ListenAddress=127.0.0.1"]

    def inetd_command(self, identity: Identity) -> list[str]:
        """Serve with the same configuration."""
        command = self.command(identity, 22)
        return [self._path(), "-i", "-e", "-f", command[command.index("-f") + 1]]

    def conditions(self, identity: Identity) -> str:
        """Show the configuration, paths left out."""
        return "; ".join(line for line in self._settings(identity) if "/" not in line)

    def programs(self) -> frozenset[str]:
        """Name sshd and its helpers (9.8 split off sshd-session, 10.0 sshd-auth), wherever the build keeps them."""
        path = os.path.realpath(self._path())
        prefix = os.path.dirname(os.path.dirname(path))
        folders = [f"{prefix}/libexec", f"{prefix}/lib/openssh", f"{prefix}/libexec/openssh", f"{prefix}/lib/ssh"]
        helpers = [f"{folder}/{name}" for folder in folders for name in ("sshd-session", "sshd-auth")]
        return frozenset({path, *(os.path.realpath(helper) for helper in helpers)})


@dataclass
class Dropbear(Peer):
    """Dropbear."""

    name: ClassVar[str] = "dropbear"

    def _path(self) -> str:
        return shutil.which(self.program or "dropbear", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") or ""

    def _takes_folder(self) -> bool:
        return "-D" in _said(self._path(), "-h")

    def _key_tool(self) -> str:
        beside = os.path.join(os.path.dirname(os.path.dirname(self._path())), "bin", "dropbearkey")
        return beside if os.path.exists(beside) else shutil.which("dropbearkey") or ""

    def missing(self) -> str | None:
        """Is it there, with its key tool, and can it be pointed to our keys?"""
        if not self._path() or not self._key_tool():
            return f"no {self.program or 'dropbear'} with dropbearkey; name one with --dropbear"
        if not self._takes_folder() and os.getuid():
            return (
                f"{self.version()} reads ~/.ssh/authorized_keys only, which takes root (a mount of its own) to replace"
            )
        return None

    def version(self) -> str:
        """Ask it."""
        return _said(self._path(), "-V")

    def command(self, identity: Identity, port: int) -> list[str]:
        """Serve with a host key in its own format; an old one gets our folder mounted over ~/.ssh, for itself alone."""
        key = os.path.join(identity.folder, "dropbear_host_key")
        if not os.path.exists(key):
            subprocess.run([self._key_tool(), "-t", "ed25519", "-f", key], check=True, capture_output=True)
        serve = [self._path(), "-F", "-E", "-m", "-r", key, "-p", f"127.0.0.1:{port}", "-P", f"{key}.pid"]
        if self._takes_folder():
            return [*serve, "-D", identity.folder]
        home = os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".ssh")
        os.makedirs(home, mode=0o700, exist_ok=True)
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh", identity.folder, home, *serve]

    def inetd_command(self, identity: Identity) -> list[str]:
        """Serve with the same host key; nobody logs in."""
        command = self.command(identity, 22)
        return [self._path(), "-i", "-r", command[command.index("-r") + 1]]

    def conditions(self, identity: Identity) -> str:
        """As it comes; what it cannot do otherwise is part of the comparison."""
        del identity
        return "defaults (24 KiB receive window, few unauthenticated connections from one address, both set when built)"

    def programs(self) -> frozenset[str]:
        """One program is all of it."""
        return frozenset({os.path.realpath(self._path())})


@dataclass
class Library(Peer):
    """A Python library with the smallest server around it."""

    def missing(self) -> str | None:
        """Is it installed?"""
        return None if importlib.util.find_spec(self.name) else f"{self.name} is not installed"

    def version(self) -> str:
        """Ask the package."""
        return importlib.metadata.version(self.name)

    def command(self, identity: Identity, port: int) -> list[str]:
        """Serve in an interpreter of its own."""
        module = f"benchmarks.servers.{self.name}_server"
        return [sys.executable, "-m", module, str(port), identity.host_key, identity.authorized_keys]


@dataclass
class Asyncssh(Library):
    """asyncssh."""

    name: ClassVar[str] = "asyncssh"

    def conditions(self, identity: Identity) -> str:
        """See the server."""
        del identity
        return "one process, keys parsed once, 256 KiB pipe reads"


@dataclass
class Paramiko(Library):
    """paramiko."""

    name: ClassVar[str] = "paramiko"

    def conditions(self, identity: Identity) -> str:
        """See the server."""
        del identity
        return "one process, threads, 2 MiB window"


@dataclass
class Dunnart2(Dunnart):
    """The same with two processes that serve the protocol."""

    name: ClassVar[str] = "dunnart-2"
    crowd: ClassVar[tuple[str, ...]] = (*Dunnart.crowd, "--workers=2")

    def inetd_command(self, identity: Identity) -> list[str]:
        """One connection is served by one process."""
        del identity
        return []


class Embedded(Library):
    """dunnart embedded in a program, its protocol placed in a thread or in a process."""

    def __init__(self, placement: str) -> None:
        super().__init__()
        self.name = placement  # type: ignore[misc] # one of two

    def command(self, identity: Identity, port: int) -> list[str]:
        """Serve in an interpreter of its own."""
        module = "benchmarks.servers.embedded_server"
        return [sys.executable, "-m", module, str(port), identity.host_key, identity.authorized_keys, self.name]


KINDS: tuple[type[Peer], ...] = (Dunnart, Dunnart2, Sshd, Dropbear, Asyncssh, Paramiko)


class Running:
    """A started server; as a context manager it is stopped at the end, with everything it started."""

    def __init__(self, peer: Peer, identity: Identity) -> None:
        self.peer = peer
        self.name = peer.name
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._log = open(os.path.join(identity.folder, f"{peer.name}.log"), "ab+")  # noqa: SIM115 - closed by stop
        supervised = [sys.executable, "-m", "benchmarks.supervisor", *peer.command(identity, self.port)]
        # As an operator has it: with compiled modules. Compiling them at each start costs a Python server megabytes.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._process = subprocess.Popen(
            supervised, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=environment
        )
        self.pid = self._process.pid  # the supervisor's
        self._programs = peer.programs()
        self._at_rest = 1
        try:
            self._wait_until_listening()
        except BaseException:
            self.stop()
            raise

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.recv(1)  # its version line: it is up and this connection is not left half accepted
                break
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                said = self._log.read().decode(errors="replace").strip().splitlines() or ["it says nothing"]
                raise RuntimeError(f"does not listen: {said[-1]}")
            time.sleep(0.05)
        self.rest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and whatever it left."""
        pids = [process.pid for process in processes.family(self.pid)]
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in pids[1:]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self._log.close()

    def rest(self) -> None:
        """Take the number of its processes, now that all sessions end, as the one that `settle` waits for."""
        count, since = 0, time.monotonic()
        while time.monotonic() < since + 0.3:
            now = len(processes.family(self.pid))
            if now != count:
                count, since = now, time.monotonic()
            time.sleep(0.02)
        self._at_rest = count

    def settle(self) -> None:
        """Wait until ended sessions are gone."""
        processes.settle(self.pid, self._at_rest)

    def cpu_seconds(self) -> float:
        """What its processes used so far; see `processes`."""
        return processes.cpu_seconds(self.pid, self._programs)

    def weight(self) -> processes.Weight:
        """What its processes occupy now."""
        return processes.weigh(each.pid for each in processes.server_processes(self.pid, self._programs))

    def pss_bytes(self) -> int:
        """What its processes occupy now, each page shared out among those that have it."""
        return self.weight().pss
