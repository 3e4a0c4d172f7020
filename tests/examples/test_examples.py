"""Each example does what its docstring promises, for real clients."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import paramiko
import pytest

from tests.examples.driver import ROOT, SECONDS, HeldPort, Start, program, until

pytestmark = pytest.mark.interop


def test_the_key_is_made_once(start: Start) -> None:
    example = start("echo")
    before = (example.folder / "example_host_key").read_bytes()
    assert example.run().returncode == 0
    other = start("echo")
    assert (other.folder / "example_host_key").read_bytes() == before


def test_echo(start: Start) -> None:
    done = start("echo").run(stdin="one\ntwo\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Hello ann, type something; control-D ends.\none\ntwo\n"


# Chat.


def test_a_chat(start: Start) -> None:
    room = start("chat")
    ann = room.talk("ann")
    assert [ann.hear(), ann.hear()] == ["* ann comes in", "* /name NEW, /who and /quit are commands"]
    bob = room.talk("ann")  # the name is taken
    assert [bob.hear(), bob.hear()] == ["* ann2 comes in", "* /name NEW, /who and /quit are commands"]
    assert ann.hear() == "* ann2 comes in"
    bob.say("/name bob")
    assert [ann.hear(), bob.hear()] == ["* ann2 is now bob"] * 2
    ann.say("hello")
    assert bob.hear() == "<ann> hello"
    bob.say("hi\x1b[2J there")
    assert ann.hear() == "<bob> hi[2J there"
    bob.say("/who")
    assert bob.hear() == "* here: ann, bob"
    bob.say("/nonsense")
    assert bob.hear() == "* there are: /name NEW, /who, /quit"
    bob.say("/quit")
    assert bob.end() == 0
    assert ann.hear() == "* bob leaves"
    assert ann.end() == 0


def test_a_chat_does_not_wait_for_who_does_not_listen(start: Start) -> None:
    room = start("chat")
    deaf = room.talk("deaf")
    assert deaf.hear() == "* deaf comes in"
    ann = room.talk("ann")
    assert [ann.hear(), ann.hear()] == ["* ann comes in", "* /name NEW, /who and /quit are commands"]
    bob = room.talk("bob")
    assert [bob.hear(), bob.hear()] == ["* bob comes in", "* /name NEW, /who and /quit are commands"]
    text = "x" * 50_000
    for _ in range(200):  # 10 MB: more than all buffers on the way to the deaf one
        ann.say(text)
        assert bob.hear() == f"<ann> {text}"
    assert [ann.end(), bob.end(), deaf.end()] == [0, 0, 0]


# REPL.


@pytest.mark.usefixtures("key")
def test_a_python_prompt(start: Start) -> None:
    program_ = start("repl", "--keys", "key.pub")
    assert program_.run("6 * 7").stdout == "42\n"
    done = program_.run("import asyncio; await asyncio.sleep(0); server.connections")
    assert (done.returncode, done.stdout) == (0, "1\n")
    done = program_.run("1 / 0")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1:] == [
        '  File "<ssh>", line 1, in <module>',
        "ZeroDivisionError: division by zero",
    ]
    assert program_.run("1 +").returncode == 1
    assert program_.run("state['visits'] += 1").stdout == ""
    assert program_.run("state").stdout == "{'visits': 1}\n"  # what the program has, not a copy


@pytest.mark.usefixtures("key")
def test_a_python_prompt_line_by_line(start: Start) -> None:
    typed = "def f(n):\n  return n + 1\n\nf(1)\nprint(_, 'printed')\nawait asyncio.sleep(0, 'awaited')\n"
    typed += "raise SystemExit\nf\n"
    done = start("repl", "--keys", "key.pub").run(stdin=typed)
    assert done.returncode == 0
    shown = done.stdout.replace(">>> ", "").replace("... ", "").splitlines()
    assert shown[1:4] == ["2", "2 printed", "'awaited'"]
    assert shown[6] == "SystemExit"
    assert shown[7].startswith("<function f at")


def test_a_python_prompt_for_others(start: Start, key: Path, tmp_path: Path) -> None:
    prompt = start("repl", "--keys", "key.pub")
    assert prompt.run("1").stdout == "1\n"
    key.unlink()
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, input=b"y\n")
    done = prompt.run("1")
    assert (done.returncode, done.stdout) == (255, "")
    assert "Permission denied (publickey)" in done.stderr


# Git.


class Git:
    """The real git as a client."""

    def __init__(self, ssh: list[str], folder: Path) -> None:
        host = ssh.index("127.0.0.1")
        self._environment = {
            **os.environ, "GIT_SSH_COMMAND": " ".join(ssh[:host]), "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(folder),
            "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b",
        }  # fmt: skip

    def __call__(self, *words: str, cwd: Path, status: int = 0) -> str:
        done = subprocess.run(
            [program("git"), *words], cwd=cwd, env=self._environment, capture_output=True, text=True, timeout=SECONDS,
            check=False, errors="replace",
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("version", ["0", "2"])
def test_git_clones_and_pushes(start: Start, tmp_path: Path, version: str) -> None:
    root = tmp_path / "repositories"
    root.mkdir()
    (tmp_path / "secret.git").mkdir()
    (tmp_path / "secret.git" / "HEAD").touch()
    (root / "link.git").symlink_to(tmp_path / "secret.git")
    server = start("git_server", "--root", str(root), "--keys", "key.pub")
    git = Git(server.ssh(), tmp_path)
    git("init", "-q", "--bare", "-b", "main", str(root / "project.git"), cwd=tmp_path)
    git("config", "--global", "protocol.version", version, cwd=tmp_path)
    url = f"ssh://127.0.0.1:{server.port}"

    git("clone", "-q", f"{url}/project.git", "one", cwd=tmp_path)
    one = tmp_path / "one"
    (one / "file").write_bytes(os.urandom(3_000_000))
    git("add", "file", cwd=one)
    git("commit", "-q", "-m", "first", cwd=one)
    git("push", "-q", "origin", "HEAD:main", cwd=one)
    git("clone", "-q", f"{url}/project.git", "two", cwd=tmp_path)
    assert (tmp_path / "two" / "file").read_bytes() == (one / "file").read_bytes()
    assert "file" in git("archive", f"--remote={url}/project.git", "main", cwd=tmp_path)

    for path in ("/nowhere.git", "/../secret.git", "/project.git/../../secret.git", "/link.git", "/"):
        said = git("clone", f"{url}{path}", "three", cwd=tmp_path, status=128)
        assert "fatal: there is no repository" in said, path
    for command in ("git-upload-pack", "git-shell project.git", "sh -c id", "git-upload-pack project.git; id", "'", ""):
        done = server.run(command)
        assert (done.returncode, done.stdout) == (128, "") if command else done.returncode != 0, command
    # An option is a name like any other.
    assert "no repository '--help'" in server.run("git-upload-pack --help").stderr


# The drop box.


def test_file_drop_takes_files_and_shows_none(start: Start, tmp_path: Path) -> None:
    server = start("file_drop", "--folder", "inbox")
    options = server.ssh(user="ann")[1:-1]
    options[options.index("-p")] = "-P"
    del options[options.index("-l") : options.index("-l") + 2]

    def copy(*words: str) -> subprocess.CompletedProcess[str]:
        command = [program("scp"), "-s", *options, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)

    data = os.urandom(2_000_000)
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "virus.exe").write_bytes(b"MZ")
    done = copy("-p", str(tmp_path / "file"), "127.0.0.1:")
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "inbox").rglob("file")
    assert kept.read_bytes() == data
    until(lambda: f"file 2000000 bytes {hashlib.sha256(data).hexdigest()}" in server.log, "the upload is told")

    assert copy(str(tmp_path / "virus.exe"), "127.0.0.1:").returncode != 0
    assert list((tmp_path / "inbox").rglob("virus*")) == []
    until(lambda: "'/virus.exe' failed: a file may not be named" in server.log, "the refusal is told")
    for line in ("ls", f"get file {tmp_path}/back", "rm file"):
        done = subprocess.run(
            [program("sftp"), *options, "-b", "-", "127.0.0.1"], input=f"put {tmp_path}/file\n{line}\n",
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert "Permission denied" in done.stderr, line
    assert not (tmp_path / "back").exists() or not (tmp_path / "back").read_bytes()


# The network device.


class Console:
    """A session in the manner of netmiko: an interactive shell, and its output searched for prompts."""

    def __init__(self, port: int, *, rows: int = 24, **options: object) -> None:
        self._client = paramiko.SSHClient()
        self._client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        self._client.connect(
            "127.0.0.1", port, "admin", "secret", look_for_keys=False, allow_agent=False, timeout=SECONDS, **options
        )
        self._channel = self._client.invoke_shell(width=511, height=rows)
        self._channel.settimeout(SECONDS)

    def until(self, text: str) -> str:
        """Read until a text comes; gives what came before it."""
        seen = ""
        while text not in seen:
            data = self._channel.recv(4096)
            assert data, seen
            seen += data.decode()
        before, _, rest = seen.partition(text)
        assert not rest.strip(), rest
        assert "\x1b" not in seen, seen  # netmiko and pexpect do not know what to do with it
        return before

    def send(self, line: str, prompt: str) -> str:
        """Send a line; gives what came before the prompt."""
        self._channel.sendall(f"{line}\n".encode())
        return self.until(prompt)

    def key(self, key: str) -> None:
        """Press a key."""
        self._channel.sendall(key.encode())

    @property
    def status(self) -> int:
        """The exit status."""
        return int(self._channel.recv_exit_status())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def test_a_network_device(start: Start) -> None:
    with Console(start("network_device", "--password", "secret").port) as console:
        console.until("router>")
        assert "Invalid input" in console.send("configure terminal", "router>")
        assert "Bad secrets" in (console.send("enable", "Password: ") + console.send("wrong", "router>"))
        console.send("enable", "Password: ")
        assert "secret" not in console.send("secret", "router#")
        assert "Version 15" in console.send("show version", "router#")
        console.send("terminal width 511", "router#")
        console.send("configure terminal", "router(config)#")
        console.send("hostname edge", "edge(config)#")
        console.send("end", "edge#")
        console.send("show running-config", " --More-- ")
        console.key(" ")
        console.until(" --More-- ")
        console.key("q")
        console.until("edge#")
        console.send("terminal length 0", "edge#")
        assert console.send("show running-config", "edge#").count("interface ") == 16
        console.key("exit\n")
        assert console.status == 0


def test_a_network_device_for_two(start: Start) -> None:
    device = start("network_device", "--password", "secret")
    with Console(device.port) as one, Console(device.port) as two:
        one.until("router>")
        two.until("router>")
        one.send("enable", "Password: ")
        one.send("secret", "router#")
        one.send("configure terminal", "router(config)#")
        one.send("hostname core", "core(config)#")
        assert "core" in two.send("show version", "core>")


# FastAPI.


@pytest.fixture
def http() -> Iterator[HeldPort]:
    port = HeldPort()
    yield port
    port.close()


@pytest.mark.usefixtures("key")
def test_ssh_beside_http(start: Start, http: HeldPort) -> None:
    both = start("fastapi_app", "--keys", "key.pub", "--http-port", str(http.number))
    until(lambda: http.answers, "HTTP is there")

    def ask(method: str, query: str = "") -> dict[str, int]:
        request = urllib.request.Request(f"http://127.0.0.1:{http.number}/counter{query}", method=method)
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            answer: dict[str, int] = json.load(reply)
        return answer

    assert ask("GET")["counter"] == 0
    assert both.run("add 5").stdout == "5\n"
    assert ask("GET")["counter"] == 5
    assert ask("POST", "?number=2")["counter"] == 7
    operator = both.talk("ann")
    assert operator.hear() == "show, or add NUMBER; control-D ends"
    operator.say("show")
    assert operator.hear() == "7"
    assert ask("GET")["operators"] >= 1
    operator.say("add -3")
    assert operator.hear() == "4"
    assert operator.end() == 0
    done = both.run("remove 1")
    assert (done.returncode, done.stderr) == (2, "no such command: remove 1\n")


@pytest.mark.usefixtures("key")
def test_ssh_beside_http_stops_with_operators_inside(start: Start, http: HeldPort) -> None:
    both = start("fastapi_app", "--keys", "key.pub", "--http-port", str(http.number))
    operator = both.talk("ann")
    assert operator.hear().startswith("show")
    began = time.monotonic()
    both.stop()
    assert time.monotonic() - began < SECONDS / 2
    assert operator.end() == 255
    assert not http.answers


# All of them.


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_it_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 150
    assert path.stem in (ROOT / "examples" / "README.md").read_text()
