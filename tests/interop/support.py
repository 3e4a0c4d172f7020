"""A `dunnart serve` of its own, keys to log in with, and a world in which the clients find nothing of the user's."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import dunnart
from dunnart.daemon.ways_in import this_user

MIB = 1 << 20
SECONDS = 40.0
"""How long anything in these tests may take before it counts as hanging."""

SOURCE = Path(dunnart.__file__).parent.parent


def missing(what: str) -> NoReturn:
    """Skip, or fail where everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


def program(name: str) -> str:
    """Give a program's path; no path, no test."""
    return shutil.which(name) or missing(name)


def eventually(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    """Wait for what no event tells of: another process's doing. False if it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def terminal_of(session: Callable[[], str]) -> str:
    """What a session says of its terminal, in the form of ``stat -c '%U %G %a'``.

    Another test's sshd or Dropbear may make it root's with mode 666, which nothing of ours does: they give a terminal
    back by its name, when its number is another session's already. Then the session is held again.
    """
    said = (session().strip() for _ in range(5))
    return next(line for line in said if line != "root root 666")


def free_port() -> int:
    """One that nobody listens at now, for servers that cannot choose for themselves; never the same again.

    The system gives ports above 32,767 to whoever connects, so that one of those may be taken before it is used. Each
    worker of pytest-xdist has ports of its own, for the same reason.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 11
    while True:
        port = random.SystemRandom().randrange(10_000 + 2_000 * worker, 12_000 + 2_000 * worker)
        if port in _GIVEN:
            continue
        with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", port)):
            _GIVEN.add(port)
            return port


_GIVEN: set[int] = set()


@contextlib.contextmanager
def ssh_agent(path: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run OpenSSH's agent, without keys, at this socket for as long as the block lasts; gives the socket's path."""
    command = [program("ssh-agent"), "-D", "-a", str(path), *options]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(path)) == 0

    try:
        assert eventually(lambda: answers() or process.poll() is not None)
        assert process.poll() is None
        yield str(path)
    finally:
        process.terminate()
        process.wait(SECONDS)


@dataclass(frozen=True)
class Blob:
    """Data that no compression and no repetition helps with."""

    path: Path
    data: bytes = field(repr=False)
    sha256: str


def make_blob(path: Path, size: int) -> Blob:
    """Write `size` bytes of a seeded generator to `path`."""
    data = random.Random(size).randbytes(size)
    path.write_bytes(data)
    return Blob(path, data, hashlib.sha256(data).hexdigest())


def _new_key(kind: str) -> ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 3072)
    curves = {"ecdsa256": ec.SECP256R1(), "ecdsa384": ec.SECP384R1(), "ecdsa521": ec.SECP521R1()}
    return ec.generate_private_key(curves[kind]) if kind in curves else ed25519.Ed25519PrivateKey.generate()


def write_key(path: Path, kind: str) -> str:
    """Make a private key file in OpenSSH's format, and give the public half as a line."""
    key = _new_key(kind)
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    path.with_suffix(".pub").write_text(f"{line} {kind}\n")
    return line


KEY_KINDS = ("ed25519", "ecdsa256", "ecdsa384", "ecdsa521", "rsa")


class Keys:
    """A folder with a user key of each kind, and the authorized_keys file that lists them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lines = [write_key(folder / kind, kind) for kind in KEY_KINDS]
        self.authorized = folder / "authorized_keys"
        self.authorized.write_text("".join(f"{line}\n" for line in lines))

    def path(self, kind: str) -> str:
        """Give the key in OpenSSH's format."""
        return str(self.folder / kind)

    def dropbear(self, kind: str) -> str:
        """Give the key in Dropbear's format."""
        return self._converted(kind, "db", program("dropbearconvert"), "openssh", "dropbear", self.path(kind))

    def putty(self, kind: str) -> str:
        """Give the key in PuTTY's format."""
        return self._converted(kind, "ppk", program("puttygen"), self.path(kind), "-O", "private", "-o")

    def _converted(self, kind: str, suffix: str, *command: str) -> str:
        made = self.folder / f"{kind}.{suffix}"
        if not made.exists():
            subprocess.run([*command, str(made)], check=True, capture_output=True, timeout=SECONDS)
        return str(made)


@dataclass
class Served:
    """A running server.

    Attributes:
        folder: where its state, its log and its clients' files are.
        keys: what one may log in with.
        lines: what it printed at its start.
    """

    folder: Path
    keys: Keys
    process: subprocess.Popen[str]
    lines: Sequence[str]

    @property
    def user(self) -> str:
        """Who runs the server, and may log in."""
        return this_user().name

    @property
    def home(self) -> Path:
        """Where that user lives."""
        return self.folder / "home"

    @property
    def log(self) -> str:
        """What it has logged so far."""
        if os.geteuid() == 0 and self.process.poll() is None:
            self._settle()
        return (self.folder / "log").read_text()

    def logs(self, text: str, times: int = 1) -> bool:
        """Whether a text comes to stand in its log, so often at least: the client is told before the log is written."""
        return eventually(lambda: self.log.count(text) >= times)

    def _settle(self) -> None:
        """See that it has written what its workers had to say: an answer of theirs comes after that."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:  # perhaps there is none
            sock.settimeout(SECONDS)
            sock.connect(str(self.folder / "state" / "control.sock"))
            sock.sendall(b'{"command": ["status"]}\n')
            while (data := sock.recv(4096)) and not data.endswith(b"\n"):
                pass

    @cached_property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._after("listening on 127.0.0.1:"))

    @cached_property
    def password(self) -> str:
        """The password of this run."""
        return self._after(f"password of {self.user} for this run: ")

    def _after(self, head: str) -> str:
        return next(line.removeprefix(head) for line in self.lines if line.startswith(head))

    @cached_property
    def host_keys(self) -> dict[str, str]:
        """The host keys' fingerprints by the keys' types."""
        found = (line.split() for line in self.lines if line.startswith("host key "))
        return {words[2]: words[3] for words in found}

    @cached_property
    def known_hosts(self) -> str:
        """A file with its host keys, read from its own state folder or files."""
        path = self.folder / "known_hosts"
        path.write_text("".join(f"[127.0.0.1]:{self.port} {line}\n" for line in self.host_key_lines()))
        return str(path)

    def host_key_lines(self) -> list[str]:
        """The public host keys as lines, checked against the fingerprints that it printed."""
        lines = []
        arguments = shlex.split((self.folder / "arguments").read_text())
        files = [Path(value) for flag, value in pairwise(arguments) if flag == "--host-key"]
        for path in files or sorted((self.folder / "state").iterdir()):
            if path.suffix == ".pub" or not path.is_file():
                continue
            shown = subprocess.run(
                [program("ssh-keygen"), "-y", "-f", str(path)], check=True, capture_output=True, text=True
            ).stdout.split()
            digest = hashlib.sha256(base64.b64decode(shown[1])).digest()
            assert self.host_keys[shown[0]] == "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
            lines.append(f"{shown[0]} {shown[1]}")
        return lines

    def children(self) -> list[int]:
        """Its child processes, zombies too; but not those that serve the protocol for it."""
        return [pid for pid in self._all_children() if pid not in self.workers()]

    def workers(self) -> list[int]:
        """The processes that serve the protocol for it, if it runs as root."""
        return [pid for pid in self._all_children() if _name(pid) == "dunnart-worker"]

    def _all_children(self) -> list[int]:
        found: list[int] = []
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                found += map(int, (thread / "children").read_text().split())
        return found

    def has_no_children(self) -> bool:
        """Whether everything that sessions started is reaped."""
        return not self.children()

    def stop(self) -> None:
        """End it as an administrator does, and see that nothing went wrong in its life."""
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(SECONDS) == 0, self.log[-4000:]
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process.wait()
        log = self.log
        assert "Traceback" not in log, log[log.index("Traceback") :][:4000]
        assert " error/" not in log, log[log.index(" error/") :][:1000]


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):  # it is gone
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    return ""


def answering(server: Served, answers: Mapping[str, str]) -> dict[str, str]:
    """Give the variables for ssh to have its questions answered, by a word of theirs; each is noted in `asked`."""
    asker = server.folder / "answers"
    cases = "\n".join(f"*{shlex.quote(word)}*) echo {shlex.quote(answer)};;" for word, answer in answers.items())
    asker.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >>{server.folder}/asked\ncase "$1" in\n{cases}\nesac\n')
    asker.chmod(0o700)
    return {"SSH_ASKPASS": str(asker), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":9"}


def serve(
    folder: Path, keys: Keys, *flags: str, authorized: str | None = None, shell: str = "",
    variables: Mapping[str, str] | None = None,
) -> Served:  # fmt: skip
    """Start a server on a free port; the home of its user is the folder `home` in `folder`, and empty.

    Args:
        folder: for its state and log.
        keys: who may log in.
        flags: further ones.
        authorized: a file other than the one of `keys`.
        shell: everybody's, in the place of what the system says.
        variables: for the server's environment.
    """
    arguments = ["serve", "--listen", "127.0.0.1:0", "--state-folder", str(folder / "state"), "--no-strict-modes"]
    arguments += ["--authorized-keys", authorized or str(keys.authorized), "--log-level", "debug", *flags]
    (folder / "arguments").write_text(shlex.join(arguments))
    home = folder / "home"
    home.mkdir(0o755)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            dunnart_at(home, *arguments, shell=shell),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(folder, **(variables or {})),
        )
    assert process.stdout is not None
    lines: list[str] = []
    last = "password of" if "one-time" in flags else "log in with:"
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(last):
            return Served(folder, keys, process, lines)
    process.stdout.close()
    process.wait()
    pytest.fail(f"the server did not start: {(folder / 'log').read_text()}")


def dunnart_at(home: Path, *arguments: str, shell: str = "") -> list[str]:
    """Give the command line of a `dunnart` for which the user who runs the tests lives elsewhere.

    Args:
        home: where.
        arguments: those of `dunnart`.
        shell: everybody's, in the place of what the system says.
    """
    return [sys.executable, "-c", _LIVING_ELSEWHERE, str(home), shell, *arguments]


# The user's ~/.bashrc and the like are no part of these tests, and his authorized_keys is not theirs to write. Neither
# are the system's records of logins.
_LIVING_ELSEWHERE = """\
import os, pwd, sys
from dunnart.plugins import os_login
from dunnart.tools.main import main

folder = os.path.dirname(sys.argv[1])
os_login.NOLOGIN, os_login.MOTD, os_login.SYSTEM_RC = (f"{folder}/{name}" for name in ("nologin", "motd", "sshrc"))
os_login.RECORDS = tuple(f"{folder}/{name}" for name in ("utmp", "wtmp", "lastlog"))
home, shell, find, find_number = sys.argv[1], sys.argv[2], pwd.getpwnam, pwd.getpwuid

def moved(entry):
    own = entry.pw_uid == os.geteuid()
    return pwd.struct_passwd((*entry[:5], home if own else entry.pw_dir, shell or entry.pw_shell))

if os.geteuid() == 0:
    os.setgroups([0, 4])  # which must not be everybody's
pwd.getpwnam = lambda name: moved(find(name))
pwd.getpwuid = lambda number: moved(find_number(number))
sys.exit(main(sys.argv[3:]))
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Give an environment in which the user's own configuration and agent play no role, and Python finds `dunnart`."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
    # /usr/games and the sbin folders are not in every user's PATH.
    kept["PATH"] = kept.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    return kept | {"HOME": str(home), "TERM": "xterm", "PYTHONPATH": str(SOURCE), **more}


def settings(**given: str) -> list[str]:
    """Give flags for OpenSSH's clients with which nothing counts that the user has, nor the system.

    Args:
        given: settings of ssh_config, beside or instead of those.
    """
    least = {
        "BatchMode": "yes", "StrictHostKeyChecking": "yes", "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no", "IdentitiesOnly": "yes", "IdentityAgent": "none",
    }  # fmt: skip
    return ["-F", "none", *(part for each in (least | given).items() for part in ("-o", "=".join(each)))]


@contextlib.contextmanager
def started(command: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with pipes for as long as the block lasts; what is left of it then is killed."""
    process = subprocess.Popen(
        command, env=env, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
