"""What tests of file transfer programs share: a way in for whatever starts `ssh`, trees of files, what is in them."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.interop.support import MIB, SECONDS, Served, environment, program, settings

HOST = "dunnart"
"""What the server is called in `ssh_config`."""

SIZES = (0, 1, 4095, 32768, 100_003, MIB + 17)
NAMES = ("plain", "with space", "qu'ote", "ünï", "-dash", "many.dots.tar.gz")


def ssh_config(server: Served) -> Path:
    """Write a configuration for OpenSSH's programs in which the server is `HOST`; nothing of the user's counts."""
    path = server.folder / "ssh_config"
    if not path.exists():
        path.write_text(f"""\
Host {HOST} 127.0.0.1
    HostName 127.0.0.1
    Port {server.port}
    User {server.user}
    IdentityFile {server.keys.path("ed25519")}
    IdentitiesOnly yes
    IdentityAgent none
    BatchMode yes
    StrictHostKeyChecking yes
    UserKnownHostsFile {server.known_hosts}
    GlobalKnownHostsFile /dev/null
    UpdateHostKeys no
    LogLevel ERROR
""")
    return path


def ssh(server: Served) -> str:
    """Give the command that programs are told to use as `ssh`."""
    return f"{program('ssh')} -F {ssh_config(server)}"


def run(
    server: Served,
    *command: str | Path,
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
    said: bytes = b"",
    status: int = 0,
) -> str:
    """Run a program that has to end with `status`; gives what it printed.

    Args:
        server: whom it talks to; the program's home is a folder beside that server's.
        command: the program and its arguments.
        variables: further ones of its environment.
        folder: where it runs.
        said: its standard input.
        status: what it must end with.
    """
    client = server.folder / "client"
    client.mkdir(exist_ok=True)
    name, *arguments = map(str, command)
    done = subprocess.run(
        [program(name), *arguments], input=said, env=environment(client, **variables or {}), cwd=folder or client,
        timeout=SECONDS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    text = done.stdout.decode(errors="replace")
    assert done.returncode == status, f"{command} ended with {done.returncode}: {text[-3000:]}"
    return text


def transfer(server: Served, client: str, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of OpenSSH's clients to its end, however it ends; the server is 127.0.0.1."""
    given = settings(
        UserKnownHostsFile=server.known_hosts, IdentityFile=server.keys.path("ed25519"), Port=str(server.port),
        User=server.user,
    )  # fmt: skip
    return subprocess.run(
        [program(client), *given, *words], capture_output=True, text=True, input=said, timeout=SECONDS, check=False,
        env=environment(server.folder),
    )  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A file of a tree.

    Attributes:
        kind: "file", "folder" or "link".
        content: a file's digest or a link's target.
        mode: the permissions; 0 where they do not count.
        mtime: in seconds; 0 where it does not count.
    """

    kind: str
    content: str = ""
    mode: int = 0
    mtime: int = 0


def contents(folder: Path, *, modes: bool = False, times: bool = False) -> dict[str, Entry]:
    """Say what is below a folder, by the paths there.

    Args:
        folder: where to look.
        modes: whether the permissions of files and folders count.
        times: whether the times of files count; those of folders never do.
    """
    return {str(path.relative_to(folder)): _entry(path, modes, times) for path in sorted(folder.rglob("*"))}


def _entry(path: Path, modes: bool, times: bool) -> Entry:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return Entry("link", os.readlink(path))
    mode = stat.S_IMODE(status.st_mode) if modes else 0
    if stat.S_ISDIR(status.st_mode):
        return Entry("folder", mode=mode)
    return Entry("file", digest(path), mode, int(status.st_mtime) if times else 0)


def digest(path: Path) -> str:
    """Give a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_tree(folder: Path, *, links: bool = False, names: Sequence[str] = NAMES) -> Path:
    """Make a tree with files of every sort of size, name, mode and time, in the top folder and in a deep one.

    Args:
        folder: what is made.
        links: whether symbolic links are wanted, too.
        names: of the files.
    """
    source = random.Random(len(names))
    (folder / "a/deep folder").mkdir(parents=True)
    (folder / "empty").mkdir()
    for place in (folder, folder / "a/deep folder"):
        for number, (name, size) in enumerate(zip(names, SIZES, strict=True)):
            path = place / name
            path.write_bytes(source.randbytes(size))
            path.chmod((0o640, 0o755, 0o600, 0o664, 0o444, 0o711)[number])
            os.utime(path, (1_600_000_000 + number, 1_500_000_000 + number))
    if links:
        (folder / "link").symlink_to("a/deep folder")
        (folder / "a/dangling").symlink_to("../nowhere at all")
    return folder
