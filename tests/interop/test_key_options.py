"""Options of authorized_keys: OpenSSH's client at OpenSSH's sshd and at dunnart, with one and the same file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.forwards import Echo, echoing
from tests.interop.peers import Peer, answers, sshd
from tests.interop.support import (
    SECONDS,
    Keys,
    Served,
    environment,
    eventually,
    free_port,
    program,
    serve,
    settings,
    ssh_agent,
)

SHOW = 'echo "forced: ${SSH_ORIGINAL_COMMAND-none}"'


@dataclass
class Both:
    """The two servers.

    Attributes:
        file: the authorized_keys that they share.
        line: a user's key, as it stands there.
        free: a port that nobody listens on; `other` is one more.
    """

    ours: Served
    theirs: Peer
    keys: Keys
    file: Path
    line: str
    echo: Echo
    agent: str
    free: int = 0
    other: int = 0

    def filled(self, text: str) -> str:
        """Put the key and the ports in."""
        ports = {"{echo}": self.echo.port, "{free}": self.free, "{other}": self.other}
        for name, port in ports.items():
            text = text.replace(name, str(port))
        return text.replace("{key}", self.line)

    def ssh(self, port: int, *options: str, program_name: str = "ssh") -> tuple[list[str], dict[str, str]]:
        fixed = settings(
            StrictHostKeyChecking="no", UserKnownHostsFile="/dev/null", LogLevel="ERROR", Port=str(port),
            User=self.ours.user, IdentityFile=self.keys.path("ed25519"), IdentityAgent=self.agent,
        )  # fmt: skip
        env = environment(self.ours.folder, DISPLAY=":97", SSH_AUTH_SOCK=self.agent)
        return [program(program_name), *options, *fixed], env


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An agent without keys."""
    with ssh_agent(tmp_path_factory.mktemp("agent") / "socket") as path:
        yield path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, agent: str) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("both")
    (folder / "keys").mkdir()
    (folder / "sshd").mkdir()
    (folder / "ours").mkdir()
    keys = Keys(folder / "keys")
    line = (folder / "keys" / "ed25519.pub").read_text().strip()
    theirs = sshd(folder / "sshd", keys, "PermitUserEnvironment yes", "X11Forwarding yes", "MaxStartups 100")
    ours = serve(
        folder / "ours", keys, "--permit-user-environment", "*", "--forwards", "tcp", "--forwards", "unix",
        "--forwards", "agent", "--forwards", "x11", "--penalty-exempt", "127.0.0.0/8",
    )  # fmt: skip
    try:
        with echoing() as echo:
            yield Both(ours, theirs, keys, keys.authorized, line, echo, agent)
    finally:
        theirs.process.terminate()
        theirs.process.wait()
        ours.stop()


def run(line: list[str], env: dict[str, str], stdin: bytes = b"") -> tuple[int, bytes]:
    done = subprocess.run(line, input=stdin, env=env, capture_output=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout.replace(b"\r", b"")


Situation = Callable[[Both, int], tuple[int, bytes]]


def command(both: Both, port: int) -> tuple[int, bytes]:
    line, env = both.ssh(port, "-T")
    return run([*line, "127.0.0.1", "echo hello; exit 3"], env)


def shell(both: Both, port: int) -> tuple[int, bytes]:
    line, env = both.ssh(port, "-T")
    return run([*line, "127.0.0.1"], env, b"echo from the shell\nexit 4\n")


def terminal(both: Both, port: int) -> tuple[int, bytes]:
    line, env = both.ssh(port, "-tt")
    return run([*line, "127.0.0.1", "tty >/dev/null && echo a terminal || echo none"], env)


def sftp(both: Both, port: int) -> tuple[int, bytes]:
    line, env = both.ssh(port, "-q", "-b", "-", program_name="sftp")
    return run([*line, "127.0.0.1"], env, b"cd /etc\npwd\n")


def old_scp(both: Both, port: int) -> tuple[int, bytes]:
    line, env = both.ssh(port, "-O", "-q", program_name="scp")
    copied = both.ours.folder / "copied"
    copied.unlink(missing_ok=True)
    status, out = run([*line, "127.0.0.1:/etc/hostname", str(copied)], env)
    return status, out + (copied.read_bytes() if copied.exists() else b"nothing")


def variable(both: Both, port: int) -> tuple[int, bytes]:
    line, env = both.ssh(port, "-T")
    return run([*line, "127.0.0.1", 'echo "$WHO|$MAIL|${SSH_CONNECTION%% *}"'], env)


def connecting(host: str) -> Situation:
    def connect(both: Both, port: int) -> tuple[int, bytes]:
        line, env = both.ssh(port, "-W", f"{host}:{both.echo.port}")
        return run([*line, "127.0.0.1"], env, b"ping")

    return connect


def listening(where: str) -> Situation:
    def listen(both: Both, port: int) -> tuple[int, bytes]:
        line, env = both.ssh(port, "-o", "ExitOnForwardFailure=yes", "-R", f"{both.filled(where)}:127.0.0.1:1", "-T")
        done = run([*line, "127.0.0.1", "echo listening"], env)
        assert eventually(lambda: not (answers(both.free) or answers(both.other)))  # the next one wants them as well
        return done

    return listen


def unix(both: Both, port: int) -> tuple[int, bytes]:
    path = both.ours.folder / f"listening{port}"
    line, env = both.ssh(port, "-o", "ExitOnForwardFailure=yes", "-R", f"{path}:127.0.0.1:1", "-T")
    return run([*line, "127.0.0.1", "echo listening"], env)


def with_agent(both: Both, port: int) -> tuple[int, bytes]:
    line, env = both.ssh(port, "-A", "-T")
    return run([*line, "127.0.0.1", 'test -S "$SSH_AUTH_SOCK" && echo an agent || echo none'], env)


def with_display(both: Both, port: int) -> tuple[int, bytes]:
    line, env = both.ssh(port, "-Y", "-T")
    return run([*line, "127.0.0.1", 'test -n "$DISPLAY" && echo a display || echo none'], env)


TABLE: list[tuple[str, list[Situation]]] = [
    ("{key}", [command, shell, terminal, sftp, old_scp, with_agent, with_display, connecting("127.0.0.1"),
               listening("{free}"), unix]),
    ("restrict {key}", [command, terminal, with_agent, with_display, connecting("127.0.0.1"), listening("{free}"),
                        unix]),
    ("restrict,pty,agent-forwarding {key}", [terminal, with_agent, with_display, connecting("127.0.0.1")]),
    ("restrict,port-forwarding,x11-forwarding {key}", [with_display, connecting("127.0.0.1"), listening("{free}")]),
    ("no-pty {key}", [terminal, command]),
    ("no-agent-forwarding,no-X11-forwarding {key}", [with_agent, with_display, command]),
    ("no-port-forwarding {key}", [connecting("127.0.0.1"), listening("{free}"), with_agent]),
    (f'command="{SHOW.replace(chr(34), chr(92) + chr(34))}" {{key}}', [command, shell, terminal, sftp, old_scp]),
    ('command="exit 9",no-pty {key}', [command, terminal]),
    ('command="internal-sftp" {key}', [sftp, connecting("127.0.0.1")]),
    ('command="$SSH_ORIGINAL_COMMAND" {key}', [command, old_scp]),
    ('environment="WHO=me",environment="WHO=you",environment="MAIL=x",environment="SSH_CONNECTION=lie" {key}',
     [variable]),
    ('from="127.0.0.0/8" {key}', [command]),
    ('from="127.0.0.?,!127.0.0.1" {key}', [command]),
    ('from="192.0.2.*,::1" {key}', [command]),
    ('from="192.0.2.1",command="echo first" {key}\ncommand="echo second" {key}', [command]),
    ('command="echo first" {key}\n{key}', [command]),
    ('expiry-time="20200101" {key}', [command]),
    ('expiry-time="20200101Z" {key}\nexpiry-time="20990101",command="echo later" {key}', [command]),
    ('permitopen="127.0.0.1:{echo}" {key}', [connecting("127.0.0.1"), connecting("localhost")]),
    ('permitopen="localhost:*",permitopen="[::1]:80" {key}', [connecting("127.0.0.1"), connecting("localhost")]),
    ('permitopen="127.0.0.1:1" {key}', [connecting("127.0.0.1"), listening("{free}")]),
    ('permitlisten="{free}" {key}', [listening("{free}"), listening("127.0.0.1:{free}"), listening("{other}"),
                                         connecting("127.0.0.1")]),
    ('permitlisten="127.*:{free}" {key}', [listening("{free}"), listening("127.0.0.1:{free}")]),
    ('permitlisten="localhost:*" {key}', [listening("{free}"), listening("127.0.0.1:{free}")]),
    ("cert-authority {key}", [command]),
    ('principals="me" {key}', [command]),
    ("no-such-option {key}", [command]),
    ('command="a",command="b" {key}', [command]),
    ("no-touch-required,user-rc {key}", [command]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "situations"), TABLE, ids=[lines.replace("{key}", "").strip()[:50] for lines, _ in TABLE]
)
def test_as_at_openssh_s_server(both: Both, lines: str, situations: list[Situation]) -> None:
    both.free, both.other = free_port(), free_port()
    both.file.write_text(both.filled(lines) + "\n")
    got = {f"{each.__qualname__} {number}": each(both, both.ours.port) for number, each in enumerate(situations)}
    expected = {f"{each.__qualname__} {number}": each(both, both.theirs.port) for number, each in enumerate(situations)}
    assert got == expected


def test_the_table_tells_things_apart(both: Both) -> None:
    """Without this the two could agree because nothing works."""
    both.file.write_text(f"{both.line}\n")
    free = {each: each(both, both.ours.port) for each in (command, terminal, with_agent, connecting("127.0.0.1"))}
    assert list(free.values()) == [(3, b"hello\n"), (0, b"a terminal\n"), (0, b"an agent\n"), (0, b"pingbye")]
    both.file.write_text(f"restrict {both.line}\n")
    shut = [each(both, both.ours.port) for each in free]
    assert shut[:3] == [(3, b"hello\n"), (255, b""), (0, b"none\n")]
    assert shut[3][0] != 0
