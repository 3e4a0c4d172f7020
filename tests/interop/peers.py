"""Servers of every kind, in processes of their own: OpenSSH's sshd, Dropbear, and `dunnart serve`."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dunnart.client import Connecting, connect
from dunnart.daemon.ways_in import this_user
from dunnart.keys import KnownHosts, PublicKey
from tests.interop.support import SECONDS, Keys, eventually, free_port, missing, program, write_key
from tests.interop.support import serve as serve_ours

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


@dataclass
class Peer:
    """A server that runs."""

    name: str
    port: int
    host_key: PublicKey
    process: subprocess.Popen[Any]

    @property
    def known(self) -> KnownHosts:
        """What a client knows of it."""
        return KnownHosts(f"[127.0.0.1]:{self.port} {self.host_key.line()}\n")

    def connect(self, key: str, **options: Any) -> Connecting:
        """Connect to it."""
        defaults: dict[str, Any] = {"user": this_user().name, "keys": [key], "agent": False, "known_hosts": self.known}
        return connect("127.0.0.1", self.port, **(defaults | options))


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def begin(name: str, command: list[str], port: int, host_key: PublicKey) -> Peer:
    """Start a server, and wait until it listens."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    assert eventually(lambda: answers(port) or process.poll() is not None)
    assert process.poll() is None, f"{command} ended with status {process.returncode}"
    return Peer(name, port, host_key, process)


def sshd(folder: Path, keys: Keys, *lines: str, host: Path | None = None) -> Peer:
    """OpenSSH's server."""
    path = shutil.which("sshd", path=PATH) or missing("sshd")
    if os.getuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    if host is None:
        host = folder / "host"
        write_key(host, "ed25519")
    config = folder / "sshd_config"
    settings = [f"HostKey {host}", f"AuthorizedKeysFile {keys.authorized}", "PidFile none", "UseDNS no",
                "StrictModes no", "PermitRootLogin yes", "ListenAddress 127.0.0.1", "Subsystem sftp internal-sftp",
                "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitTTY yes"]  # fmt: skip
    config.write_text("\n".join([*lines, *settings]) + "\n")
    port = free_port()
    return begin("sshd", [path, "-D", "-f", str(config), "-p", str(port)], port, public(host.with_suffix(".pub")))


def dropbear(folder: Path, keys: Keys) -> Peer:
    """Dropbear."""
    path = shutil.which("dropbear", path=PATH) or missing("dropbear")
    usage = subprocess.run([path, "-h"], capture_output=True, text=True, check=False, timeout=SECONDS)
    placed = "-D" in usage.stdout + usage.stderr
    if not placed and os.getuid():
        pytest.skip("this Dropbear reads ~/.ssh/authorized_keys only, which takes root (a mount of its own) to replace")
    key = folder / "dropbear_host_key"
    made = subprocess.run([program("dropbearkey"), "-t", "ed25519", "-f", key], check=True, capture_output=True,
                          text=True, timeout=SECONDS)  # fmt: skip
    line = next(line for line in made.stdout.splitlines() if line.startswith("ssh-ed25519"))
    port = free_port()
    command = [path, "-F", "-E", "-r", str(key), "-p", f"127.0.0.1:{port}", "-P", str(folder / "pid")]
    if placed:
        command += ["-D", str(keys.folder)]
    else:
        home = os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".ssh")
        os.makedirs(home, mode=0o700, exist_ok=True)
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", str(keys.folder), home, *command]
    return begin("dropbear", command, port, PublicKey.parse_line(line)[0])


def public(path: Path) -> PublicKey:
    """The key in a .pub file."""
    return PublicKey.parse_line(path.read_text())[0]


def ours(folder: Path, keys: Keys) -> Peer:
    """`dunnart serve`."""
    running = serve_ours(folder, keys)
    return Peer("ours", running.port, PublicKey.parse_line(running.host_key_lines()[0])[0], running.process)


def stop(peer: Peer, *, gently: bool = True) -> None:
    """End a server."""
    if gently:
        peer.process.terminate()
    else:
        peer.process.kill()
    peer.process.wait(SECONDS)
    if peer.process.stdout is not None:
        peer.process.stdout.close()


SERVERS = {"sshd": sshd, "dropbear": dropbear, "ours": ours}


class Peers:
    """A server of each kind, which is started when it is wanted for the first time.

    Args:
        keys: who may log in.
        folder: gives one by its name.
    """

    def __init__(self, keys: Keys, folder: Callable[[str], Path]) -> None:
        self._keys = keys
        self._folder = folder
        self._started: dict[str, Peer] = {}

    def __getitem__(self, name: str) -> Peer:
        if name not in self._started:
            self._started[name] = SERVERS[name](self._folder(name), self._keys)
        return self._started[name]

    def all(self) -> list[Peer]:
        """All of them."""
        return [self[name] for name in SERVERS]

    def stop(self) -> None:
        """End those that were started."""
        for each in self._started.values():
            stop(each)
