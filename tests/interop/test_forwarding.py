"""Forwarding with real clients: -L, -R, -D, -J, -W, unix sockets, agent, and what is left afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.interop.clients import Dropbear, OpenSsh, Paramiko, Putty
from tests.interop.conftest import Serve
from tests.interop.forwards import MIB, dial, echoing, exchange, open_descriptors
from tests.interop.support import SECONDS, Served, environment, eventually, free_port, program, ssh_agent, started

DATA = os.urandom(8 * MIB)
PROGRAMS: dict[str, Any] = {"OpenSSH": OpenSsh(), "Dropbear": Dropbear(), "PuTTY": Putty()}
AGENT = ("-o", "IdentityAgent=SSH_AUTH_SOCK", "-A")
ALL = pytest.mark.parametrize("name", PROGRAMS)


@contextlib.contextmanager
def connected(server: Served, name: str, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a client that forwards and starts nothing."""
    line, env = PROGRAMS[name].command(server, "-N", *flags)
    with started(line, env) as process:
        yield process


def allocated(process: subprocess.Popen[bytes]) -> int:
    """The port that OpenSSH's client says the server has chosen."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(rb"Allocated port (\d+)", line):
            return int(found[1])
    raise AssertionError("no port was allocated")


@ALL
def test_local(server: Served, name: str) -> None:
    port = free_port()
    with echoing() as echo, connected(server, name, "-L", f"127.0.0.1:{port}:127.0.0.1:{echo.port}"):
        assert exchange(dial(("127.0.0.1", port)), DATA) == DATA + b"bye"
        assert exchange(dial(("127.0.0.1", port)), b"again") == b"againbye"


@ALL
def test_remote(server: Served, name: str) -> None:
    port = free_port()
    with echoing() as echo, connected(server, name, "-R", f"{port}:127.0.0.1:{echo.port}") as process:
        assert exchange(dial(("127.0.0.1", port)), DATA) == DATA + b"bye"
        assert exchange(dial(("127.0.0.1", port)), b"again") == b"againbye"
        process.terminate()
        assert eventually(lambda: closed(port))


def closed(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_of_the_server_s_choice(server: Served) -> None:
    with echoing() as echo, connected(server, "OpenSSH", "-o", "LogLevel=INFO", "-R", f"0:127.0.0.1:{echo.port}",
                                      "-R", f"0:localhost:{echo.port}") as process:  # fmt: skip
        first, second = allocated(process), allocated(process)
        assert first != second
        for port in (first, second):
            assert exchange(dial(("127.0.0.1", port)), DATA[:MIB]) == DATA[:MIB] + b"bye"


def test_a_port_that_is_taken_is_refused(server: Served) -> None:
    with echoing() as echo:
        line, env = OpenSsh().command(server, "-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{echo.port}:127.0.0.1:1")
        done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 255
        assert "remote port forwarding failed" in done.stderr


def test_a_forward_that_is_cancelled(server: Served, tmp_path: Path) -> None:
    port, control = free_port(), str(tmp_path / "master")
    with echoing() as echo, connected(server, "OpenSSH", "-M", "-S", control):
        assert eventually(lambda: os.path.exists(control))
        for operation, gone in (("forward", False), ("cancel", True), ("forward", False)):
            subprocess.run(
                [program("ssh"), "-F", "none", "-S", control, "-O", operation, "-R", f"{port}:127.0.0.1:{echo.port}",
                 "x"], check=True, timeout=SECONDS, capture_output=True,
            )  # fmt: skip
            assert eventually(lambda: closed(port) is gone)  # noqa: B023 - waited for here


def socks(sock: socket.socket, host: str, port: int) -> socket.socket:
    """Have a SOCKS 5 proxy connect (RFC 1928)."""
    sock.sendall(b"\x05\x01\x00")
    assert sock.recv(2) == b"\x05\x00"
    sock.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2, "big"))
    assert sock.recv(10)[:2] == b"\x05\x00"
    return sock


@pytest.mark.parametrize("name", ["OpenSSH", "PuTTY"])
def test_dynamic(server: Served, name: str) -> None:
    port = free_port()
    with echoing() as echo, connected(server, name, "-D", f"127.0.0.1:{port}"):
        for host in ("127.0.0.1", "localhost"):
            assert exchange(socks(dial(("127.0.0.1", port)), host, echo.port), DATA[:MIB]) == DATA[:MIB] + b"bye"


def test_dynamic_the_other_way_round(server: Served) -> None:
    port = free_port()
    with echoing() as echo, connected(server, "OpenSSH", "-R", f"{port}"):
        assert exchange(socks(dial(("127.0.0.1", port)), "localhost", echo.port), DATA) == DATA + b"bye"


def test_standard_input_and_output(server: Served) -> None:
    ended = "ended after"
    before = server.log.count(ended)
    with echoing() as echo:
        line, env = OpenSsh().command(server, "-W", f"127.0.0.1:{echo.port}")
        done = subprocess.run(line, env=env, input=DATA, capture_output=True, timeout=SECONDS, check=False)
        assert done.stdout == DATA + b"bye"
        line, env = Dropbear().command(server, "-B", f"127.0.0.1:{echo.port}")
        try:
            came = subprocess.run(line, env=env, input=DATA, capture_output=True, timeout=SECONDS, check=False).stdout
        except subprocess.TimeoutExpired as waiting:  # it may stay when the channel has ended, whosever the server
            came = waiting.stdout or b""
        assert came == DATA + b"bye"
        assert server.logs(ended, before + 2)


def configuration(server: Served, folder: Path, **more: str) -> str:
    """An ssh_config for a server."""
    settings = {
        "StrictHostKeyChecking": "yes", "UserKnownHostsFile": server.known_hosts, "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes", "IdentityFile": server.keys.path("ed25519"), "User": server.user, "BatchMode": "yes",
        "Port": str(server.port), "LogLevel": "ERROR", "UpdateHostKeys": "no", **more,
    }  # fmt: skip
    path = folder / "ssh_config"
    path.write_text("Host *\n" + "".join(f"  {name} {value}\n" for name, value in settings.items()))
    return str(path)


def test_a_jump(server: Served, start: Serve, tmp_path: Path) -> None:
    inner = start()
    known = tmp_path / "both"
    known.write_text(Path(server.known_hosts).read_text() + Path(inner.known_hosts).read_text())
    config = configuration(server, tmp_path, UserKnownHostsFile=str(known))
    line = [program("ssh"), "-F", config, "-J", f"127.0.0.1:{server.port}", "-p", str(inner.port), "127.0.0.1"]
    done = subprocess.run([*line, "cat; echo $SSH_CONNECTION >&2"], input=DATA, capture_output=True, timeout=SECONDS,
                          check=False, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)})  # fmt: skip
    assert (done.returncode, done.stdout) == (0, DATA)
    assert done.stderr.split()[3] == str(inner.port).encode()


def test_unix_sockets_to_connect_to(server: Served, tmp_path: Path) -> None:
    with echoing(tmp_path / "far") as echo, connected(server, "OpenSSH", "-L", f"{tmp_path}/near:{echo.address}"):
        assert exchange(dial(f"{tmp_path}/near"), DATA) == DATA + b"bye"


def test_unix_sockets_to_listen_on(server: Served, tmp_path: Path) -> None:
    far = tmp_path / "far"
    with echoing(tmp_path / "near") as echo:
        with connected(server, "OpenSSH", "-R", f"{far}:{echo.address}") as process:
            assert exchange(dial(str(far)), DATA) == DATA + b"bye"
            assert far.stat().st_mode & 0o777 == 0o600
            line, env = OpenSsh().command(server, "-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{far}:/x")
            assert subprocess.run(line, env=env, capture_output=True, timeout=SECONDS, check=False).returncode == 255
            process.terminate()
        assert eventually(lambda: not far.exists())


def test_sockets_that_are_left_are_replaced_on_demand(start: Serve, tmp_path: Path) -> None:
    server = start("--plugin", "streamlocal-forward.replace=true", "--plugin", "streamlocal-forward.mask=0117")
    far, other = tmp_path / "far", tmp_path / "other"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(far))
    other.touch()
    with echoing(tmp_path / "near") as echo, connected(server, "OpenSSH", "-R", f"{far}:{echo.address}"):
        assert exchange(dial(str(far)), b"x") == b"xbye"
        assert far.stat().st_mode & 0o777 == 0o660
        line, env = OpenSsh().command(server, "-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{other}:/x")
        assert subprocess.run(line, env=env, capture_output=True, timeout=SECONDS, check=False).returncode == 255
    assert other.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can serve other users")
def test_sockets_of_another_user(start: Serve) -> None:
    server = start(shell="/bin/sh")  # theirs lets nobody in
    user = ("-o", "User=nobody")
    with tempfile.TemporaryDirectory(dir="/tmp") as name, echoing() as echo:
        folder = Path(name)
        folder.chmod(0o777)
        far, closed_one = folder / "far", folder / "closed"
        closed_one.mkdir(0o700)
        with echoing(closed_one / "s") as hidden, echoing(folder / "s") as shown:
            os.chmod(shown.address, 0o777)
            flags = ("-R", f"{far}:127.0.0.1:{echo.port}", "-L", f"{folder}/near:{shown.address}",
                     "-L", f"{folder}/none:{hidden.address}")  # fmt: skip
            with connected(server, "OpenSSH", *user, *flags) as process:
                assert exchange(dial(str(far)), b"x") == b"xbye"
                assert (far.owner(), far.stat().st_mode & 0o777) == ("nobody", 0o600)
                assert exchange(dial(f"{folder}/near"), DATA) == DATA + b"bye"
                assert [int.from_bytes(each[4:8], "little") for each in shown.peers] == [far.stat().st_uid]
                assert exchange(dial(f"{folder}/none"), b"") == b""
                assert hidden.connections == 0
                process.kill()
            assert eventually(lambda: not far.exists())
        line, env = OpenSsh().command(server, *user, "-N", "-o", "ExitOnForwardFailure=yes", "-R", "1023:x:1")
        assert subprocess.run(line, env=env, capture_output=True, timeout=SECONDS, check=False).returncode == 255


# Each direction ends by itself.


def test_either_end_may_stop_sending_first(server: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, back = free_port(), free_port()
        where = listener.getsockname()[1]
        listener.settimeout(SECONDS)
        flags = ("-L", f"127.0.0.1:{port}:127.0.0.1:{where}", "-R", f"{back}:127.0.0.1:{where}")
        with connected(server, "OpenSSH", *flags):
            for each in (port, back):
                near = dial(("127.0.0.1", each))
                far, _ = listener.accept()
                far.settimeout(SECONDS)
                far.sendall(b"all I have")
                far.shutdown(socket.SHUT_WR)
                assert near.recv(100) == b"all I have"
                assert near.recv(100) == b""
                assert exchange(near, DATA) == b""
                got = bytearray()
                while data := far.recv(1 << 16):
                    got += data
                assert got == DATA
                far.close()


# The agent.


@pytest.fixture
def agent(server: Served, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An agent with the user's ECDSA key; gives the variable."""
    with ssh_agent(tmp_path / "agent") as path:
        env = {"SSH_AUTH_SOCK": path}
        subprocess.run([program("ssh-add"), "-q", server.keys.path("ecdsa256")], env=env, check=True, timeout=SECONDS)
        yield env


@pytest.mark.parametrize("name", ["OpenSSH", "Dropbear", "PuTTY"])
def test_the_client_s_agent_answers_and_leaves_nothing(server: Served, agent: dict[str, str], name: str) -> None:
    line, env = PROGRAMS[name].command(server, *(AGENT if name == "OpenSSH" else ("-A",)))
    line = [each for each in line if each != "-noagent"]
    env |= agent
    command = 'ssh-add -l; echo $SSH_AUTH_SOCK; stat -c "%a %U" "$SSH_AUTH_SOCK" "$(dirname $SSH_AUTH_SOCK)"'
    done = subprocess.run([*line, command], env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    keys, path, *modes = done.stdout.splitlines()
    assert keys.startswith("256 SHA256:"), done.stderr
    assert keys.endswith("(ECDSA)")
    assert modes == [f"600 {server.user}", f"700 {server.user}"]
    assert eventually(lambda: not os.path.exists(os.path.dirname(path)))


def test_a_further_hop_is_made_with_the_agent(server: Served, agent: dict[str, str], tmp_path: Path) -> None:
    line, env = OpenSsh().command(server, *AGENT)
    config = configuration(server, tmp_path, IdentityFile="none", IdentitiesOnly="no")
    hop = shlex.join([program("ssh"), "-F", config, "-A", "127.0.0.1"])
    done = subprocess.run([*line, f"{hop} '{hop} echo there'"], env=env | agent, capture_output=True, text=True,
                          timeout=SECONDS, check=False)  # fmt: skip
    assert done.stdout == "there\n", done.stderr


def test_a_key_is_bound_to_its_way(server: Served, start: Serve, agent: dict[str, str], tmp_path: Path) -> None:
    """The client and the far ssh tell the agent each hop by session-bind@openssh.com, which it compares."""
    further = start()
    known = tmp_path / "hops"
    known.write_text(
        "".join(f"hop{number} {line}\n" for number, each in enumerate((server, further), 1)
                for line in each.host_key_lines())
    )  # fmt: skip
    config = tmp_path / "config"
    config.write_text(
        f"User {server.user}\nBatchMode yes\nIdentityFile none\nUserKnownHostsFile {known}\nUpdateHostKeys no\n"
        f"GlobalKnownHostsFile none\nHost hop1\nHostName 127.0.0.1\nHostKeyAlias hop1\nPort {server.port}\n"
        f"Host hop2\nHostName 127.0.0.1\nHostKeyAlias hop2\nPort {further.port}\n"
    )
    env = environment(tmp_path) | agent
    subprocess.run([program("ssh-add"), "-q", "-D"], env=env, check=True, timeout=SECONDS)
    bound = [program("ssh-add"), "-q", "-H", str(known), "-h", "hop1", "-h", "hop1>hop2"]
    subprocess.run([*bound, server.keys.path("ecdsa256")], env=env, check=True, timeout=SECONDS)

    def ssh(*line: str) -> tuple[int, str]:
        done = subprocess.run([program("ssh"), "-F", str(config), *line], env=env, capture_output=True, text=True,
                              timeout=SECONDS, check=False)  # fmt: skip
        return done.returncode, done.stdout

    hop = shlex.join([program("ssh"), "-F", str(config)])
    assert ssh("-A", "hop1", f"{hop} hop2 echo there") == (0, "there\n")
    assert ssh("-A", "hop1", f"{hop} hop1 echo there") == (255, "")
    assert ssh("hop2", "echo there") == (255, "")


def test_without_the_flag_there_is_no_agent(server: Served, agent: dict[str, str]) -> None:
    line, env = OpenSsh().command(server)
    done = subprocess.run([*line, "echo agent: $SSH_AUTH_SOCK"], env=env | agent, capture_output=True, text=True,
                          timeout=SECONDS, check=False)  # fmt: skip
    assert done.stdout == "agent:\n"


# What is off, and what rules forbid.


def test_what_is_off(start: Serve, agent: dict[str, str], tmp_path: Path) -> None:
    server = start("--forwards", "off")
    with echoing() as echo:
        for flags, said in (
            (("-W", f"127.0.0.1:{echo.port}"), "forwarding failed"),
            (("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"0:127.0.0.1:{echo.port}"), "forwarding failed"),
            (("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{tmp_path}/far:/x"), "forwarding failed"),
        ):
            line, env = OpenSsh().command(server, *flags)
            done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
            assert done.returncode == 255
            assert said in done.stderr.lower()
        line, env = OpenSsh().command(server, *AGENT)
        done = subprocess.run([*line, "echo agent: $SSH_AUTH_SOCK"], env=env | agent, capture_output=True, text=True,
                              timeout=SECONDS, check=False)  # fmt: skip
        assert done.stdout == "agent:\n"
        assert echo.connections == 0


def test_rules(start: Serve, tmp_path: Path) -> None:
    with echoing() as echo, echoing() as other:
        server = start("--plugin", f"allow-list.rules=connect localhost:{echo.port}",
                       "--plugin", "allow-list.rules=listen localhost:0")  # fmt: skip
        for port, fine in ((echo.port, True), (other.port, False)):
            line, env = OpenSsh().command(server, "-W", f"localhost:{port}")
            done = subprocess.run(line, env=env, input=b"x", capture_output=True, timeout=SECONDS, check=False)
            assert done.stdout == (b"xbye" if fine else b"")
        line, env = OpenSsh().command(server, "-N", "-o", "ExitOnForwardFailure=yes", "-R", "*:0:127.0.0.1:1")
        done = subprocess.run(line, env=env, capture_output=True, timeout=SECONDS, check=False)
        assert done.returncode == 255
        assert other.connections == 0


# paramiko, whose calls say more than a program's output.


def test_paramiko(server: Served) -> None:
    with Paramiko().login(server) as transport, echoing() as echo:
        channel = transport.open_channel("direct-tcpip", ("127.0.0.1", echo.port), ("127.0.0.1", 1))
        assert exchange(channel, DATA) == DATA + b"bye"
        port = transport.request_port_forward("127.0.0.1", 0)
        near = dial(("127.0.0.1", port))
        accepted = transport.accept(SECONDS)
        assert accepted.origin_addr == near.getsockname()
        near.sendall(b"hello")
        assert accepted.recv(5) == b"hello"
        near.close()
        assert accepted.recv(5) == b""
        accepted.close()
        transport.cancel_port_forward("127.0.0.1", port)
        assert eventually(lambda: closed(port))


# Many.


def run_many(count: int, addresses: Sequence[Any]) -> None:
    for start in range(0, count, 20):
        socks_ = [dial(addresses[number % len(addresses)]) for number in range(start, min(start + 20, count))]
        for sock in socks_:
            assert exchange(sock, b"x" * 100) == b"x" * 100 + b"bye"


@contextlib.contextmanager
def four_ways(folder: Path) -> Iterator[tuple[list[str], list[Any]]]:
    """TCP and unix sockets, in both directions: the flags for ssh, and the addresses that lead to echoes then."""
    port, back = free_port(), free_port()
    with echoing() as echo, echoing(folder / "far") as far:
        flags = ["-L", f"127.0.0.1:{port}:127.0.0.1:{echo.port}", "-R", f"{back}:127.0.0.1:{echo.port}"]
        flags += ["-L", f"{folder}/near:{far.address}", "-R", f"{folder}/back:{far.address}"]
        yield flags, [("127.0.0.1", port), ("127.0.0.1", back), f"{folder}/near", f"{folder}/back"]


def test_many_connections_leave_nothing(start: Serve, tmp_path: Path) -> None:
    server = start()
    with four_ways(tmp_path) as (flags, addresses):
        idle = open_descriptors(server)
        with connected(server, "OpenSSH", *flags):
            run_many(8, addresses)
            before = open_descriptors(server)
            run_many(200, addresses)
            assert eventually(lambda: open_descriptors(server) <= before)
        assert eventually(lambda: open_descriptors(server) <= idle)
        assert eventually(lambda: not (tmp_path / "back").exists())


def test_a_client_that_vanishes(start: Serve, tmp_path: Path) -> None:
    server = start()
    back = free_port()
    with echoing() as echo:
        idle = open_descriptors(server)
        with connected(server, "OpenSSH", "-R", f"{back}:127.0.0.1:{echo.port}") as process:
            sock = dial(("127.0.0.1", back))
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            process.kill()
            assert sock.recv(1) == b""
            sock.close()
        assert eventually(lambda: closed(back))
        assert eventually(lambda: open_descriptors(server) <= idle)


@pytest.mark.parametrize("user", ["", "nobody"])
def test_a_server_that_ends_leaves_nothing(start: Serve, agent: dict[str, str], user: str) -> None:
    if user and os.geteuid() != 0:
        pytest.skip("only root can serve other users")
    server = start(shell="/bin/sh")
    port, back = free_port(), free_port()
    with tempfile.TemporaryDirectory(dir="/tmp") as name, echoing() as echo:
        os.chmod(name, 0o777)
        far = f"{name}/far"
        flags = ("-L", f"127.0.0.1:{port}:127.0.0.1:{echo.port}", "-R", f"{back}:127.0.0.1:{echo.port}",
                 "-R", f"{far}:127.0.0.1:{echo.port}")  # fmt: skip
        line, env = OpenSsh().command(server, *AGENT, *(("-o", f"User={user}") if user else ()), *flags)
        with started([*line, "echo $SSH_AUTH_SOCK; exec sleep 1000"], env | agent) as process:
            assert process.stdout is not None
            path = process.stdout.readline().decode().strip()
            assert os.path.exists(path)
            for address in (("127.0.0.1", port), ("127.0.0.1", back), far):
                sock = dial(address)
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
                sock.close()
            server.process.terminate()
            assert process.wait(SECONDS) == 255
            server.process.wait(SECONDS)
        assert eventually(lambda: closed(back))
        assert eventually(lambda: not os.path.exists(far))
        assert eventually(lambda: not os.path.exists(os.path.dirname(path)))


def test_everything_through_protocol_processes(start: Serve, agent: dict[str, str], tmp_path: Path) -> None:
    server = start("--workers", "2")
    with four_ways(tmp_path) as (flags, addresses):
        idle = open_descriptors(server)
        line, env = OpenSsh().command(server, *AGENT, *flags)
        with started([*line, "ssh-add -l; exec sleep 1000"], env | agent) as process:
            assert process.stdout is not None
            assert process.stdout.readline().endswith(b"(ECDSA)\n")
            for address in addresses:
                assert exchange(dial(address), DATA) == DATA + b"bye"
            run_many(40, addresses)
            process.kill()
        assert eventually(lambda: open_descriptors(server) <= idle)
        assert eventually(lambda: not (tmp_path / "back").exists())
