"""The server for tests, driven by real clients."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import paramiko
import pytest

import dunnart
from dunnart.errors import ConfigError
from dunnart.keys import PrivateKey
from dunnart.server import AllowAnyone, BlockingSession, Session, SessionEvents
from dunnart.testing import background
from dunnart.testing.observing import Login
from dunnart.testing.ssh_server import SshServer
from tests.unit.testing.clients import SECONDS, Ssh, by_asyncssh, by_paramiko, dialled, output_by_paramiko


def descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))


# Clients.


def test_openssh_runs_a_command(server: SshServer, ssh: Ssh) -> None:
    server.commands["df"] = "full\n", "warning\n", 3
    done = ssh("df")
    assert (done.stdout, done.stderr, done.returncode) == (b"full\n", b"warning\n", 3)
    assert server.commands_seen == ["df"]
    [login] = server.logins
    assert (login.user, login.method, login.accepted) == ("user", "publickey", True)
    assert login.key == server.key.public


def test_openssh_takes_any_host_name_with_the_configuration_file(server: SshServer) -> None:
    argv = ["ssh", "-F", server.config_path, "no-such-host.invalid", "echo", "here"]
    assert subprocess.run(argv, capture_output=True, timeout=SECONDS, check=True).stdout == b"here\n"


def test_paramiko_logs_in_by_key_and_by_password(server: SshServer) -> None:
    with by_paramiko(server) as client:
        assert output_by_paramiko(client, "echo one") == b"one\n"
    with by_paramiko(server, key_filename=None, password=server.password) as client:
        assert output_by_paramiko(client, "echo two") == b"two\n"
    assert [login.method for login in server.logins] == ["publickey", "password"]


def test_asyncssh_logs_in_by_key_and_by_password(server: SshServer) -> None:
    assert by_asyncssh(server, "echo one").stdout == b"one\n"
    assert by_asyncssh(server, "echo two", client_keys=None, password=server.password).stdout == b"two\n"
    assert [login.method for login in server.logins] == ["publickey", "password"]


def test_a_host_key_that_is_not_known_is_noticed(server: SshServer, ssh: Ssh, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(f"[{server.host}]:{server.port} {PrivateKey.generate('ed25519').public.line()}\n")
    done = ssh("true", "-o", f"UserKnownHostsFile={other}")
    assert done.returncode == 255
    assert b"HOST IDENTIFICATION HAS CHANGED" in done.stderr
    assert server.logins == []


def test_ipv6(tmp_path: Path) -> None:
    with SshServer(host="::1", folder=tmp_path) as server:
        done = subprocess.run(server.command("echo six"), capture_output=True, timeout=SECONDS, check=False)
        assert (done.stdout, done.stderr) == (b"six\n", b"")


# Users.


@pytest.mark.parametrize(
    ("arguments", "method"),
    [({"password": "wrong", "key_filename": None}, "password"), ({"username": "bob"}, "publickey")],
)
def test_others_are_not_let_in(server: SshServer, arguments: dict[str, Any], method: str) -> None:
    with pytest.raises(paramiko.AuthenticationException), by_paramiko(server, **arguments):
        pass
    assert server.logins == [Login(arguments.get("username", "user"), method, accepted=False)]


def test_users_and_keys_may_change(server: SshServer) -> None:
    server.users = {"ada": "secret", "bot": None}
    assert (server.user, server.password) == ("ada", "secret")
    with by_paramiko(server, key_filename=None, password="secret") as client:
        assert output_by_paramiko(client, "echo ada") == b"ada\n"
    for password in ("", "None"):
        with (
            pytest.raises(paramiko.SSHException),
            by_paramiko(server, username="bot", key_filename=None, password=password),
        ):
            pass
    key = PrivateKey.generate("ecdsa")
    path = Path(server.folder, "other")
    path.write_bytes(key.openssh("other"))  # paramiko does not read all that have no comment
    server.authorized_keys = key.public.line()
    with by_paramiko(server, username="bot", key_filename=str(path)):
        assert server.logins[-1] == Login("bot", "publickey", accepted=True, key=key.public)


def test_other_authenticators(server: SshServer, ssh: Ssh) -> None:
    server.start(authenticators=[AllowAnyone()])
    assert ssh("echo hello", user="whoever").stdout == b"hello\n"
    with server.faults.refuse_login():
        assert ssh("echo hello").returncode == 255


def test_an_authenticator_of_the_handlers_loop(server: SshServer, ssh: Ssh) -> None:
    threads: list[str] = []

    class Anyone(AllowAnyone):
        on_any_loop = False

        async def authenticate(self, attempt: Any) -> Any:
            threads.append(threading.current_thread().name)
            return await super().authenticate(attempt)

    server.start(authenticators=[Anyone()])
    assert ssh("echo hello").stdout == b"hello\n"
    assert threads == ["dunnart-test-handlers"]


# Handlers.


async def greet(session: Session) -> int:
    await session.write(f"hello {session.user}\n")
    return 7


def greet_in_a_thread(session: BlockingSession) -> int:
    print("hello", session.user, file=session.stdout)
    return 7


class Greeting(SessionEvents):
    def opened(self, session: dunnart.EventSession) -> None:
        session.write(f"hello {session.user}\n")
        session.exit(7)


class GreetingObject:
    async def __call__(self, session: Session) -> int:
        return await greet(session)


@pytest.mark.parametrize("handler", [greet, greet_in_a_thread, Greeting, GreetingObject()])
@pytest.mark.parametrize("name", ["handler", "exec"])
def test_handlers_of_every_kind(server: SshServer, ssh: Ssh, name: str, handler: Any) -> None:
    server.start(**{name: handler})
    done = ssh("anything")
    assert (done.stdout, done.returncode) == (b"hello user\n", 7)
    assert server.commands_seen == ["anything"]


def test_a_handler_may_be_changed_and_taken_away(server: SshServer, ssh: Ssh) -> None:
    server.handler = greet
    assert ssh("echo one").stdout == b"hello user\n"
    server.handler = None
    assert ssh("echo one").stdout == b"one\n"


def test_a_subsystem(server: SshServer, ssh: Ssh) -> None:
    server.start(subsystems={"greeting": greet})
    assert ssh("greeting", "-s").stdout == b"hello user\n"
    [session] = server.sessions
    assert (session.kind, session.subsystem, session.command) == ("subsystem", "greeting", None)


def test_what_a_session_asks_for_is_seen(server: SshServer, ssh: Ssh) -> None:
    ssh("true", "-tt", "-o", "SetEnv=COLOUR=green")
    ssh()
    first, second = server.sessions
    assert (first.user, first.kind, first.command) == ("user", "exec", "true")
    assert first.environment == {"COLOUR": "green"}
    assert first.terminal is not None
    assert (second.kind, second.command, second.terminal) == ("shell", None, None)
    assert first.connection != second.connection


async def fail(session: Session) -> None:
    raise ZeroDivisionError


def fail_in_a_thread(session: BlockingSession) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("handler", [fail, fail_in_a_thread])
def test_what_a_handler_raises_is_kept(server: SshServer, ssh: Ssh, handler: Any) -> None:
    server.handler = handler
    assert ssh("x").returncode == 1
    assert [type(failure) for failure in server.failures] == [ZeroDivisionError]
    server.failures.clear()


async def read_lines(session: Session) -> None:
    while True:
        await session.readline()


def write_for_ever(session: BlockingSession) -> None:
    while True:
        session.stdout.write("x" * 4096)


@pytest.mark.parametrize("handler", [read_lines, write_for_ever])
def test_a_client_that_leaves_is_no_failure(server: SshServer, handler: Any) -> None:
    server.handler = handler
    with by_paramiko(server) as client:
        client.exec_command("x")[0].close()
    server.wait_until(lambda: not server.connections)
    server.stop()  # when handlers have ended
    assert server.failures == []


# The shell that does nothing.


@pytest.mark.parametrize(
    ("command", "out", "err", "status"),
    [
        ("version", b"1.0\n", b"", 0),
        ("raw", b"\xff\0", b"", 0),
        ("broken", b"", b"", 9),
        ("both", b"out", b"err", 2),
        ("greet", b"hello user\n", b"", 7),
        ("size 7", b"7 files\n", b"", 0),
        ("size", b"", b"size: command not found\n", 127),
        ("echo  'a  b'  c", b"a  b c\n", b"", 0),
        ("cat", b"what comes in", b"", 0),
        ("true", b"", b"", 0),
        ("false", b"", b"", 1),
        ("'", b"", b"': No closing quotation\n", 2),
    ],
)
def test_commands(server: SshServer, ssh: Ssh, command: str, out: bytes, err: bytes, status: int) -> None:
    server.start(
        commands={"version": "1.0\n", "raw": b"\xff\0", "broken": 9, "both": ("out", b"err", 2), "greet": greet},
        answer=lambda line: f"{line.split()[1]} files\n" if line.startswith("size ") else None,
    )
    done = ssh(command, stdin=b"what comes in")
    assert (done.stdout, done.stderr, done.returncode) == (out, err, status)


def test_commands_line_by_line(server: SshServer, ssh: Ssh) -> None:
    done = ssh("", "-T", stdin=b"echo one\n\nnonsense\nfalse\nexit\necho no more\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"one\n", b"nonsense: command not found\n", 1)
    assert ssh("", "-T", stdin=b"exit 300\n").returncode == 300 & 0xFF
    assert ssh("", "-T", stdin=b"exit now\n").returncode == 0
    assert ssh("", "-T", stdin=b"false\necho two").stdout == b"two\n"
    assert server.commands_seen == []


def test_commands_at_a_terminal(server: SshServer, ssh: Ssh) -> None:
    done = ssh("", "-tt", stdin=b"nonsense\x03echo one\rexit 4\r")
    assert b"$ echo one" in done.stdout
    assert b"\x1b[?2004lone\r\n" in done.stdout
    assert b"not found" not in done.stdout
    assert done.returncode == 4


# Its life.


def test_nothing_is_left_behind() -> None:
    threads, files = threading.active_count(), descriptors()
    server = SshServer(handler=greet_in_a_thread)
    with server:
        folder = Path(server.folder)
        assert stat.S_IMODE(os.stat(server.key_path).st_mode) == 0o600
        with by_paramiko(server) as client:
            assert output_by_paramiko(client, "x") == b"hello user\n"
        with dialled(server):  # never logs in
            server.wait_until(lambda: server.connections)
    assert threading.active_count() <= threads
    assert descriptors() <= files
    assert not folder.exists()


def test_what_a_client_left_open_is_closed(tmp_path: Path) -> None:
    with SshServer(folder=tmp_path) as server, by_paramiko(server) as client, server.faults.hang("login"):
        server.close()
        assert server.connections == 0
        client.get_transport().join(SECONDS)
        assert not client.get_transport().is_active()


def test_it_starts_again_where_it_was(server: SshServer, ssh: Ssh) -> None:
    port = server.port
    with by_paramiko(server) as client:
        server.stop()
        client.get_transport().join(SECONDS)
        assert not client.get_transport().is_active()
        with pytest.raises(ConnectionRefusedError), dialled(server):
            pass
    server.stop()  # once more does nothing
    server.start(users={"ada": "secret"}, banner="welcome back\n")
    assert server.port == port
    done = ssh("echo hello", "-v")
    assert done.stdout == b"hello\n"
    assert b"welcome back" in done.stderr
    assert server.logins[-1].user == "ada"


def test_a_handler_that_blocks_its_loop_does_not_keep_faults_from_coming_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun, release = threading.Event(), threading.Event()

    async def block(session: Session) -> None:
        begun.set()
        release.wait(SECONDS)

    with SshServer(handler=block, folder=tmp_path) as server, by_paramiko(server) as client:
        channel = client.get_transport().open_session(timeout=SECONDS)
        channel.exec_command("x")
        assert begun.wait(SECONDS)
        server.faults.drop()
        client.get_transport().join(SECONDS)
        assert not client.get_transport().is_active()
        threads = [thread for thread in threading.enumerate() if thread.name == "dunnart-test-handlers"]
        monkeypatch.setattr(background, "_SECONDS", 0.1)
        with pytest.raises(RuntimeError, match="dunnart-test-handlers did not e"):
            server.stop()
        release.set()
        for thread in threads:
            thread.join(SECONDS)


def test_a_handler_may_ask_for_faults_but_not_end_its_server(server: SshServer, ssh: Ssh) -> None:
    errors: list[str] = []

    async def handler(session: Session) -> None:
        server.faults.drop("login", after_bytes=0)
        try:
            server.start()
        except RuntimeError as error:
            errors.append(str(error))

    server.handler = handler
    assert ssh("x").returncode == 255
    server.wait_until(lambda: errors)
    assert errors == ["a handler cannot end its own server"]


def test_waiting_ends(server: SshServer) -> None:
    with pytest.raises(TimeoutError, match=r"did not come true in 0\.01 s"):
        server.wait_until(lambda: server.sessions, 0.01)
    server.wait_until(lambda: server.port, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": {}}, "users: there must be one who may log in"),
        ({"authorized_keys": "ssh-dunnart AAAA"}, "authorized_keys: line 2 lets nobody in"),
        ({"handler": 5}, "handler: 5 is no async def"),
        ({"subsystems": {"sftp": 5}}, "subsystem sftp: 5 is no async def"),
        ({"workers": 2}, "workers: "),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    threads = threading.active_count()
    with pytest.raises(ConfigError, match=message):
        SshServer(folder=tmp_path, **options).start()
    assert threading.active_count() <= threads


@pytest.mark.parametrize("name", ["host", "folder"])
def test_what_stays_the_same_is_not_changed(server: SshServer, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: cannot be changed"):
        server.start(**{name: "/"})


def test_a_server_that_cannot_start_leaves_no_folder() -> None:
    server = SshServer(users={})
    assert Path(server.folder).exists()
    with pytest.raises(ConfigError), server:
        pass
    assert not Path(server.folder).exists()


def test_an_unknown_argument_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="colour"):
        SshServer(folder=tmp_path, colour="green").start()


def test_a_port_that_is_taken_is_told(server: SshServer, tmp_path: Path) -> None:
    threads = threading.active_count()
    other = SshServer(folder=tmp_path)
    other._port = server.port
    with pytest.raises(OSError, match="in use"):
        other.start()
    assert threading.active_count() <= threads
