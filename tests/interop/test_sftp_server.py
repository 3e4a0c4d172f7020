"""`dunnart sftp-server` in the place of OpenSSH's: under OpenSSH's sshd, and flag by flag beside the real one."""

from __future__ import annotations

import filecmp
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dunnart.daemon.ways_in import this_user
from dunnart.sftp.messages import REQUESTS
from tests.interop.support import SECONDS, Blob, Keys, environment, missing, program, write_key

UNOFFERED = tuple(f"Refusing {name} request" for name, kind in REQUESTS.items() if isinstance(kind, bytes))
THEIRS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")


@pytest.fixture
def theirs() -> str:
    return next(filter(os.path.exists, THEIRS), "") or missing("OpenSSH's sftp-server")


@pytest.fixture
def ours(tmp_path: Path) -> str:
    made = tmp_path / "sftp-server"
    made.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dunnart sftp-server "$@"\n')
    made.chmod(0o755)
    return str(made)


class Sshd:
    """OpenSSH's server with a subsystem; each client starts it for itself, by its ProxyCommand."""

    def __init__(self, folder: Path, keys: Keys, subsystem: str) -> None:
        self._folder = folder
        self._keys = keys
        host = write_key(folder / "host", "ed25519")
        (folder / "known_hosts").write_text(f"* {host}\n")
        self._path = program_of_root("sshd")
        self._config = folder / "sshd_config"
        self._config.write_text(
            f"HostKey {folder}/host\nAuthorizedKeysFile {keys.authorized}\nPidFile none\nStrictModes no\nUsePAM no\n"
            f"PermitRootLogin yes\nSubsystem sftp {subsystem}\n"
        )
        said = subprocess.run(
            [self._path, "-t", "-f", self._config], capture_output=True, text=True, check=False, timeout=SECONDS
        ).stderr
        if "Missing privilege separation directory" in said:
            os.makedirs(said.strip().rsplit(": ", 1)[1], mode=0o755, exist_ok=True)

    def run(self, client: str, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
        options = ["BatchMode=yes", f"UserKnownHostsFile={self._folder}/known_hosts", f"User={this_user().name}",
                   f"IdentityFile={self._keys.path('ed25519')}",
                   f"ProxyCommand={self._path} -i -e -f {self._config}"]  # fmt: skip
        command = [program(client), "-F", "none", *(part for option in options for part in ("-o", option)), *words]
        return subprocess.run(command, capture_output=True, text=True, input=said, timeout=SECONDS, check=False,
                              env=environment(self._folder))  # fmt: skip


def program_of_root(name: str) -> str:
    return next(
        (path for folder in ("/usr/sbin", "/usr/local/sbin") if os.path.exists(path := f"{folder}/{name}")), ""
    ) or missing(name)


def test_sshd_serves_files_with_it(tmp_path: Path, keys: Keys, blob: Blob, ours: str) -> None:
    sshd = Sshd(tmp_path, keys, f"{ours} -e -l INFO 2>>{tmp_path}/log")
    folder = tmp_path / "files"
    folder.mkdir()
    done = sshd.run("scp", "-p", str(blob.path), f"host:{folder}/up")
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(folder / "up", blob.path, shallow=False)
    done = sshd.run("scp", f"host:{folder}/up", str(tmp_path / "back"))
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(tmp_path / "back", blob.path, shallow=False)
    script = f"cd {folder}\nmkdir made\nrename up made/x\nls -1 made\nln made/x made/y\nrm made/x\n-rm none\n"
    done = sshd.run("sftp", "-b", "-", "host", said=script)
    assert done.returncode == 0, done.stderr
    assert "made/x\n" in done.stdout
    assert [path.name for path in sorted(folder.rglob("*"))] == ["made", "y"]
    log = (tmp_path / "log").read_text()
    assert log.startswith(f"session opened for local user {this_user().name} from [")
    assert f'open "{folder}/up" flags WRITE,CREATE' in log
    assert f'close "{folder}/up" bytes read 0 written {len(blob.data)}' in log


SCRIPT = """\
cd {folder}
-put file up
-get up back
-ls -l back
-chmod 600 up
-rename up made
-rename none other
-rm none
-mkdir dir
-mkdir dir
-rmdir none
-ln up hard
-ln -s up soft
-get none
-rm made
-rename up renamed
"""


def script(server: str, folder: Path, env: dict[str, str], text: str = SCRIPT) -> tuple[int, str, list[str]]:
    """What OpenSSH's client says, and what the server logs, with what differs by its nature left out."""
    folder.mkdir()
    (folder / "file").write_text("text\n")
    (folder / "made").write_text("old\n")
    done = subprocess.run(
        [program("sftp"), "-b", "-", "-D", server], input=text.format(folder=folder), capture_output=True, text=True,
        timeout=SECONDS, check=False, cwd=folder, env=env,
    )  # fmt: skip
    said = done.stderr.replace(str(folder), "FOLDER").replace("\r", "").splitlines()
    # OpenSSH's names the list that a request is not on, and tells what it does not offer and when a listing is closed.
    said = [line.replace(" denylisted ", " ").replace(" non-allowlisted ", " ") for line in said]
    kept = [
        line
        for line in said
        if not line.startswith(("closedir", "received client", "sent status Permission", "users-groups", *UNOFFERED))
    ]
    shown = re.sub(r"\w{3} +\d+ \d\d:\d\d back", "NOW back", done.stdout.replace(str(folder), "FOLDER"))
    return done.returncode, shown, sorted(set(kept))


def tree(folder: Path) -> list[tuple[str, int, int, bytes]]:
    def content(path: Path) -> bytes:
        if path.is_symlink():
            return os.readlink(os.fsencode(path))
        return b"" if path.is_dir() else path.read_bytes()

    return [
        (path.name, path.lstat().st_mode, path.lstat().st_nlink, content(path)) for path in sorted(folder.rglob("*"))
    ]


@pytest.mark.parametrize(
    "flags",
    [
        "", "-e -l info", "-e -l VERBOSE", "-el VERBOSE", "-R -e -l INFO", "-u 027", "-u 0", "-u077", "-e -P remove",
        "-e -l VERBOSE -P posix-rename,rename", "-p open,close,read,write,stat,lstat,realpath,setstat,fsetstat -e",
        "-p open,close,stat,lstat,realpath,fstat,opendir,readdir -P opendir -e -l VERBOSE", "-d /nonexistent -e",
        "-e -c anything -R",
    ],
)  # fmt: skip
def test_the_same_as_the_real_one(tmp_path: Path, theirs: str, ours: str, flags: str) -> None:
    env = environment(tmp_path)
    expected = script(f"{theirs} {flags}", tmp_path / "theirs", env)
    found = script(f"{ours} {flags}", tmp_path / "ours", env)
    assert found == expected
    assert tree(tmp_path / "ours") == tree(tmp_path / "theirs")


@pytest.mark.parametrize("start", ["%d", "~", "{folder}", "{folder}/%%", "{folder}/%u", "%d/"])
def test_it_starts_where_the_real_one_does(tmp_path: Path, theirs: str, ours: str, start: str) -> None:
    for name in ("%", this_user().name):
        (tmp_path / name).mkdir()
    flags = f"-d {start.format(folder=tmp_path)}"
    said = [
        subprocess.run(
            [program("sftp"), "-b", "-", "-D", f"{server} {flags}"], input="pwd\n", capture_output=True, text=True,
            timeout=SECONDS, check=True, env=environment(tmp_path),
        ).stdout
        for server in (ours, theirs)
    ]  # fmt: skip
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("flags", "data"),
    [
        ("-h", b""), ("-x", b""), ("-l", b""), ("-Q foo", b""), ("-u 9", b""), ("-u 1000", b""), ("-u ''", b""),
        ("-p open -p close", b""), ("-P open -P close", b""), ("", b""), ("operand", b""),
        ("", b"GET / HTTP/1.1\r\n\r\n"), ("-e", b"\0\0\0\5\3\0\0\0\1"), ("-e", b"\0\0\0\5\1\0\0\0\3"),
    ],
)  # fmt: skip
def test_it_ends_as_the_real_one_does(theirs: str, ours: str, flags: str, data: bytes) -> None:
    ends = [
        subprocess.run([server, *shlex.split(flags)], input=data, capture_output=True, timeout=SECONDS, check=False)
        for server in (ours, theirs)
    ]
    assert ends[0].returncode == ends[1].returncode
    assert bool(ends[0].stderr) >= bool(ends[1].stderr)


def test_the_requests_have_the_real_ones_names(theirs: str, ours: str) -> None:
    listed = [
        subprocess.run([server, "-Q", "requests"], capture_output=True, text=True, timeout=SECONDS, check=True)
        .stdout.splitlines()
        for server in (ours, theirs)
    ]  # fmt: skip
    assert listed[0] == list(REQUESTS)
    assert listed[1] == [name for name in listed[0] if name in listed[1]]
