"""What OpenSSH's client does beyond a login: signals, streams, long commands, many sessions, host keys, vanishing."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.interop.clients import AsyncSsh, OpenSsh, Paramiko, on_terminal
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Blob, Served, environment, eventually, program, started

SSH = OpenSsh()


def ssh(server: Served, command: str, *options: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    line, env = SSH.command(server, *options)
    return subprocess.run([*line, command], env=env, input=stdin, capture_output=True, timeout=SECONDS, check=False)


@contextmanager
def ssh_started(
    server: Served, *command: str, options: tuple[str, ...] = (), terminal: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    line, env = SSH.command(server, *options, terminal=terminal)
    with started([*line, *command], env) as process:
        yield process


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def alive(pid: int) -> bool:
    """Whether a process runs: no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# Streams, statuses and the ends of things.


def test_stderr_is_a_stream_of_its_own(server: Served) -> None:
    done = ssh(server, "for i in 1 2 3; do echo out$i; echo err$i >&2; done")
    assert (done.stdout, done.stderr) == (b"out1\nout2\nout3\n", b"err1\nerr2\nerr3\n")


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_exit_status(server: Served, status: int) -> None:
    assert ssh(server, f"exit {status}").returncode == status


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "USR2"])
def test_a_child_killed_by_a_signal(server: Served, name: str) -> None:
    done = ssh(server, f"ulimit -c 0; kill -{name} $$; sleep 9", "-o", "LogLevel=DEBUG1")
    assert done.returncode == 255
    assert b"rtype exit-signal" in done.stderr


def test_half_close(server: Served, tmp_path: Path, blob: Blob) -> None:
    done = ssh(server, f"cat >{shlex.quote(str(tmp_path))}/f; echo done", stdin=blob.data[: 1 << 22])
    assert (done.returncode, done.stdout) == (0, b"done\n")
    assert (tmp_path / "f").read_bytes() == blob.data[: 1 << 22]


def test_half_close_with_both_streams_busy(server: Served, blob: Blob) -> None:
    done = ssh(server, "cat", stdin=blob.data)
    assert done.returncode == 0
    assert hashlib.sha256(done.stdout).hexdigest() == blob.sha256


def test_an_upload_into_a_program_that_ends_at_once_loses_nothing(server: Served, tmp_path: Path, blob: Blob) -> None:
    sizes = [1, 4095, 65_536, 65_537, 300_001] * 10
    master = ("-o", f"ControlPath={tmp_path}/c")
    with control_master(server, tmp_path):
        for number, size in enumerate(sizes):
            data = blob.data[number : number + size]
            done = ssh(server, f"exec cat >{shlex.quote(str(tmp_path))}/f{number}", *master, stdin=data)
            assert done.returncode == 0
            assert (tmp_path / f"f{number}").read_bytes() == data


def test_output_without_end_into_a_program_that_ends(server: Served) -> None:
    line, env = SSH.command(server)
    command = f"yes | {shlex.join([*line, 'true'])}"
    assert subprocess.run(["/bin/sh", "-c", command], env=env, timeout=SECONDS, check=False).returncode == 0


def test_a_client_that_wants_no_more_output_ends_an_endless_program(server: Served) -> None:
    import paramiko

    with Paramiko().login(server) as transport:
        channel = transport.open_session()
        channel.settimeout(SECONDS)
        channel.exec_command("exec yes")
        assert channel.recv(4) == b"y\ny\n"
        # OpenSSH PROTOCOL §2.1; ssh itself sends it to servers of its own kind only.
        message = paramiko.Message()
        message.add_byte(b"\x62")
        message.add_int(channel.remote_chanid)
        message.add_string("eow@openssh.com")
        message.add_boolean(False)
        transport._send_user_message(message)
        while channel.recv(1 << 20):
            pass
        assert channel.recv_exit_status() == -1  # by a signal


def test_a_background_child_that_holds_stdout_keeps_the_session(server: Served) -> None:
    began = time.monotonic()
    done = ssh(server, "sleep 1.5 & echo hi")
    assert (done.returncode, done.stdout) == (0, b"hi\n")
    assert time.monotonic() - began >= 1.5


def test_a_background_child_that_holds_nothing_does_not(server: Served) -> None:
    done = ssh(server, "sleep 1000 >/dev/null 2>&1 </dev/null & echo $!")
    try:
        assert done.returncode == 0
        assert alive(int(done.stdout))
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


def test_a_program_that_closes_its_output_goes_on(server: Served, tmp_path: Path) -> None:
    done = ssh(server, f"exec >&- 2>&- <&-; sleep 1.5; touch {shlex.quote(str(tmp_path))}/reached; exit 9")
    assert done.returncode == 9
    assert (tmp_path / "reached").exists()


def test_no_command_at_all(start: Serve) -> None:
    server = start()
    with ssh_started(server, options=("-N", "-o", "LogLevel=DEBUG1")) as client:
        assert client.stderr is not None
        assert any(b"Entering interactive session" in line for line in client.stderr)
        assert ssh(server, "true").returncode == 0
        assert client.poll() is None
        assert "Connection closed by user" not in server.log
        client.kill()
    assert eventually(lambda: "Connection closed by user" in server.log)


# Commands and environments.


def test_a_long_command(server: Served) -> None:
    text = "x" * (128 * 1024 - 100)  # Linux takes 128 KiB in one argument
    done = ssh(server, f": {text}; echo $((1+1))")
    assert (done.returncode, done.stdout) == (0, b"2\n")


def test_a_command_that_is_too_long(server: Served) -> None:
    # Once for Linux, and once for the limit command_bytes. ssh could not even be started with it.
    import asyncio

    import asyncssh

    async def work() -> None:
        async with AsyncSsh().connect(server) as connection:
            done = await connection.run(f": {'x' * 190_000}")
            assert done.returncode == 1
            assert str(done.stderr).endswith(" cannot be started: Argument list too long\r\n")
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.run(f": {'x' * 200_000}")
            assert (await connection.run("exit 4")).returncode == 4

    asyncio.run(work())


def test_the_environment_of_a_login(server: Served) -> None:
    done = ssh(server, "env -0", "-o", "SetEnv=LANG=xx_YY LC_FOO=a=b FOO=bar LD_PRELOAD=/nothing")
    *entries, _ = done.stdout.decode().split("\0")
    found = dict(entry.split("=", 1) for entry in entries)
    assert (found["LANG"], found["LC_FOO"]) == ("xx_YY", "a=b")
    assert not {"FOO", "LD_PRELOAD", "PYTHONPATH", "SSH_TTY"} & found.keys()
    assert found["USER"] == found["LOGNAME"] == server.user
    assert found["HOME"] == str(server.home)
    assert found["PWD"] == str(server.home)
    assert re.fullmatch(rf"127\.0\.0\.1 \d+ 127\.0\.0\.1 {server.port}", found["SSH_CONNECTION"])
    assert re.fullmatch(rf"127\.0\.0\.1 \d+ {server.port}", found["SSH_CLIENT"])


def test_a_large_environment(start: Serve) -> None:
    server = start("--accept-env", "BIG*")
    # 60 variables of 2 KiB; ssh wants all of them in one SetEnv.
    values = " ".join(f"BIG{number}={'v' * 2048}" for number in range(60))
    done = ssh(server, "env | grep -c '^BIG[0-9]*=v\\{2048\\}$'", "-o", f"SetEnv={values}")
    assert (done.returncode, done.stdout) == (0, b"60\n")


def test_default_signals_in_sessions(start: Serve, tmp_path: Path) -> None:
    # A server that was started with `&` by sh ignores SIGINT and SIGQUIT; a session must not.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        server = start()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    done = ssh(server, "grep SigIgn /proc/self/status")
    ignored = int(done.stdout.split()[1], 16)
    assert not ignored & (1 << signal.SIGINT - 1 | 1 << signal.SIGQUIT - 1 | 1 << signal.SIGPIPE - 1)


# Terminals.


def test_a_terminal_without_input_runs_to_its_end(server: Served) -> None:
    line, env = SSH.command(server, terminal=True)
    with open(os.devnull, "rb") as nothing:
        done = subprocess.run(
            [*line, "tty; sleep 0.5; echo end; exit 6"], env=env, stdin=nothing, capture_output=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
    assert done.returncode == 6
    assert re.fullmatch(rb"/dev/(pts/|tty)\w+\r\nend\r\n", done.stdout)


def test_keys_reach_the_terminal(server: Served) -> None:
    line, env = SSH.command(server, terminal=True)
    with started([*line, "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done"], env) as client:
        assert line_of(client) == b"ready\r\n"
        assert client.stdin is not None
        client.stdin.write(b"\x03")
        client.stdin.flush()
        assert client.wait(SECONDS) == 5
        assert client.stdout is not None
        assert b"caught" in client.stdout.read()


def test_modes_of_the_terminal_are_the_clients(server: Served) -> None:
    line, env = SSH.command(server, terminal=True)
    local = shlex.join(["stty", "intr", "^G", "-echoe"]) + " && exec " + shlex.join([*line, "stty -a"])
    done = on_terminal(["/bin/sh", "-c", local], env)
    assert done.status == 0
    assert b"intr = ^G;" in done.out
    assert b"-echoe" in done.out


def test_signals_are_delivered(server: Served) -> None:
    import asyncio

    async def work() -> None:
        async with AsyncSsh().connect(server) as connection:
            command = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.1; done"
            process = await connection.create_process(command, term_type="xterm")
            assert await process.stdout.readline() == "ready\r\n"
            process.send_break(100)  # nothing on a pty's line hears it, and nothing may go wrong
            process.send_signal("USR1")
            # The signal goes to the whole group, and the shell tells of its child's end first.
            while await process.stdout.readline() != "usr1\r\n":
                assert not process.stdout.at_eof()
            process.terminate()
            await process.wait(timeout=SECONDS)
            assert process.exit_signal is not None
            assert process.exit_signal[0] == "TERM"
            plain = await connection.create_process("echo ready; exec sleep 60")
            assert await plain.stdout.readline() == "ready\n"
            plain.send_signal("INT")
            await plain.wait(timeout=SECONDS)
            assert plain.exit_signal is not None
            assert plain.exit_signal[0] == "INT"

    asyncio.run(work())


# Many at once.


@contextmanager
def control_master(server: Served, folder: Path, *options: str) -> Iterator[str]:
    """A connection that other clients share; give its socket's path."""
    path = str(folder / "c")
    line, env = SSH.command(server, "-M", "-N", "-o", f"ControlPath={path}", *options)
    with started(line, env) as master:
        assert eventually(lambda: os.path.exists(path) or master.poll() is not None)
        assert master.poll() is None
        yield path


def test_ten_sessions_on_one_connection_and_no_more(server: Served, tmp_path: Path) -> None:
    with ExitStack() as stack:
        path = stack.enter_context(control_master(server, tmp_path))
        shared = ("-o", f"ControlPath={path}", "-o", "ControlMaster=no")
        clients = [
            stack.enter_context(ssh_started(server, "echo ready; cat", options=shared)) for _ in range(10)
        ]  # fmt: skip
        assert [line_of(client) for client in clients] == [b"ready\n"] * 10
        # Left without a session the client would connect anew: to a port where nobody is.
        refused = ssh(server, "echo in", *shared, "-o", "ProxyCommand=false")
        assert (refused.returncode, refused.stdout) == (255, b"")
        for number, client in enumerate(clients):
            out, _ = client.communicate(b"%d\n" % number, SECONDS)
            assert (client.returncode, out) == (0, b"%d\n" % number)
        again = ssh(server, "echo in", *shared, "-o", "ProxyCommand=false")
        assert (again.returncode, again.stdout) == (0, b"in\n")


def test_many_channels_on_one_connection(server: Served) -> None:
    import asyncio

    async def work() -> None:
        async with AsyncSsh().connect(server) as connection:
            for _ in range(10):
                done = await asyncio.gather(*(connection.run(f"cat; exit {n}", input=f"{n}") for n in range(10)))
                assert [(each.returncode, each.stdout) for each in done] == [(n, str(n)) for n in range(10)]

    asyncio.run(work())


def test_fifty_logins_at_once_from_one_address(server: Served) -> None:
    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(lambda number: ssh(server, f"exit {number}").returncode, range(50)))
    assert statuses == list(range(50))


# Vanishing.


@pytest.mark.parametrize("terminal", [False, True])
def test_children_are_hung_up_when_the_client_vanishes(start: Serve, tmp_path: Path, terminal: bool) -> None:
    server = start()
    mark = tmp_path / "hung_up"
    # Whatever the shell wants to say of it goes nowhere: its stderr is gone by then.
    command = f"exec 2>/dev/null; trap 'touch {shlex.quote(str(mark))}; exit' HUP; echo $$; while :; do sleep 0.1; done"
    with ssh_started(server, command, terminal=terminal) as client:
        pid = int(line_of(client))
        assert alive(pid)
        client.kill()
    assert eventually(mark.exists)
    assert eventually(lambda: not alive(pid))
    assert eventually(server.has_no_children)


def test_nothing_is_left_of_many_sessions(start: Serve) -> None:
    server = start()
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    assert ssh(server, "true").returncode == 0
    assert eventually(server.has_no_children)
    before = len(list(descriptors.iterdir()))
    with ExitStack() as stack:
        clients = [
            stack.enter_context(ssh_started(server, "echo ready; exec sleep 60", terminal=bool(number % 2)))
            for number in range(8)
        ]
        assert [line_of(client).strip() for client in clients] == [b"ready"] * 8
        for client in clients:
            client.kill()
    assert eventually(server.has_no_children)
    assert eventually(lambda: len(list(descriptors.iterdir())) <= before)


def test_the_end_of_the_server_ends_the_sessions(start: Serve) -> None:
    server = start()
    with ssh_started(server, "echo $$; exec sleep 60") as client:
        pid = int(line_of(client))
        server.process.terminate()
        assert client.wait(SECONDS) == 255
        assert server.process.wait(SECONDS) == 0
    assert eventually(lambda: not alive(pid))


def test_no_descriptor_of_the_server_leaks_into_a_session(server: Served) -> None:
    with ssh_started(server, "echo ready; cat"):  # another session's pipes
        done = ssh(server, "ls -l /proc/self/fd")
    shown = [line.split(b" -> ")[0].split()[-1] for line in done.stdout.splitlines() if b" -> " in line]
    assert shown == [b"0", b"1", b"2", b"3"]  # the last is what ls reads


# Keepalives, host keys and OpenSSH's other programs.


def test_the_client_asks_for_signs_of_life(server: Served) -> None:
    options = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=9", "-o", "LogLevel=DEBUG3")
    done = ssh(server, "sleep 2.5; exit 8", *options)
    assert done.returncode == 8
    assert done.stderr.count(b"receive packet: type 82") + done.stderr.count(b"receive packet: type 100") >= 2


def test_the_server_asks_for_signs_of_life(start: Serve) -> None:
    server = start("--limits", "keepalive_seconds=0.5", "--limits", "keepalive_count_max=6")
    done = ssh(server, "sleep 3; exit 8", "-o", "LogLevel=DEBUG3")
    assert done.returncode == 8
    assert done.stderr.count(b"keepalive@openssh.com") >= 2
    with ssh_started(server, "echo $$; exec sleep 60") as client:
        pid = int(line_of(client))
        client.send_signal(signal.SIGSTOP)
        assert eventually(lambda: not alive(pid))
        client.send_signal(signal.SIGCONT)


def test_an_unknown_or_changed_host_key_stops_the_client(server: Served, tmp_path: Path, start: Serve) -> None:
    other = start()
    wrong = tmp_path / "known_hosts"
    wrong.write_text(f"[127.0.0.1]:{server.port} {other.host_key_lines()[0]}\n")
    for path in (tmp_path / "none", wrong):
        done = ssh(server, "true", "-o", f"UserKnownHostsFile={path}")
        assert done.returncode == 255
        assert b"Host key verification failed" in done.stderr


def test_further_host_keys_are_proved_to_the_client(start: Serve, tmp_path: Path) -> None:
    types = ("ed25519", "rsa", "ecdsa")
    server = start(*(word for each in types for word in ("--host-key-types", each)))
    lines = sorted(server.host_key_lines())
    assert len(lines) == 3
    first = next(line for line in lines if line.startswith("ssh-ed25519"))
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {first}\n")
    options = ("-o", f"UserKnownHostsFile={known}", "-o", "UpdateHostKeys=yes", "-o", "HashKnownHosts=no")
    # The client proves and writes while its session runs.
    with ssh_started(server, "cat", options=options) as client:
        assert eventually(lambda: len(known.read_text().splitlines()) == 3)
        client.communicate(b"", SECONDS)
    assert sorted(line.partition(" ")[2] for line in known.read_text().splitlines()) == lines


def test_ssh_keyscan(start: Serve) -> None:
    server = start("--host-key-types", "ed25519", "--host-key-types", "rsa")
    done = subprocess.run(
        [program("ssh-keyscan"), "-p", str(server.port), "-T", "30", "-t", "rsa,ecdsa,ed25519", "127.0.0.1"],
        env=environment(server.folder), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    found = sorted(line.partition(" ")[2] for line in done.stdout.splitlines() if not line.startswith("#"))
    assert found == sorted(server.host_key_lines())


def test_ssh_copy_id(start: Serve) -> None:
    server = start("--password", "one-time", authorized="%h/.ssh/authorized_keys")
    assert ssh(server, "true").returncode == 255
    (server.folder / ".ssh").mkdir(0o700)
    line, env = SSH.command(server, key=None)
    # ssh-copy-id hands its -F and -o to ssh; the rest it does itself.
    options = [word for flag, value in pairwise(line) if flag in {"-F", "-o"} for word in (flag, value)]
    copied = subprocess.run(
        [program("ssh-copy-id"), *options, "-i", server.keys.path("ed25519") + ".pub", "127.0.0.1"],
        env=env | {"HOME": str(server.folder)}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert copied.returncode == 0, copied.stderr
    assert "Number of key(s) added: 1" in copied.stdout
    assert ssh(server, "exit 3").returncode == 3


def test_more_variables_than_are_kept_are_no_offence(server: Served) -> None:
    """Sshd ignores the surplus; they all come in one write with the command."""
    values = " ".join(f"LC_{number:03}=x" for number in range(200))
    done = ssh(server, "env | grep -c '^LC_[0-9]'", "-o", f"SetEnv={values}")
    assert (done.returncode, done.stdout) == (0, b"64\n")
