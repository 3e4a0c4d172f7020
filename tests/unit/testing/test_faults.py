"""Faults, as real clients see them."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import asyncssh
import paramiko
import pytest

from dunnart.server import Session
from dunnart.testing.faults import Fault, Faults
from dunnart.testing.ssh_server import SshServer
from tests.unit.testing.clients import (
    SECONDS,
    Ssh,
    by_asyncssh,
    by_paramiko,
    dialled,
    output_by_paramiko,
    received,
)

CIPHERS = [
    ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ("aes128-gcm@openssh.com", "hmac-sha2-256"),
    ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes256-ctr", "hmac-sha2-512"),
]
PLENTY = 4 << 20


async def much(session: Session) -> None:
    """Write more than any buffer on the way takes."""
    for _ in range(PLENTY // 65536):
        await session.write(b"x" * 65536)


def lost(client: Any) -> None:
    """Wait until a paramiko client knows that its connection is gone."""
    client.get_transport().join(SECONDS)
    assert not client.get_transport().is_active()


# A bad MAC.


@pytest.mark.parametrize(("cipher", "mac"), CIPHERS)
@pytest.mark.parametrize("stage", ["keys", "login", "session"])
def test_openssh_reports_a_bad_mac(server: SshServer, ssh: Ssh, cipher: str, mac: str, stage: Any) -> None:
    # The command does not end before its input does, so there is a packet after each stage.
    with server.faults.bad_mac(stage) as fault:
        done = ssh("echo hello", "-c", cipher, "-m", mac)
        assert b"message authentication code incorrect" in done.stderr
        assert done.returncode == 255
        assert fault.hits == 1
        assert [login.accepted for login in server.logins] == [True] * (stage != "keys")
    assert ssh("echo hello", "-c", cipher, "-m", mac).stdout == b"hello\n"


@pytest.mark.parametrize(("cipher", "mac"), CIPHERS)
def test_openssh_reports_a_bad_mac_in_the_midst_of_a_transfer(
    server: SshServer, ssh: Ssh, cipher: str, mac: str
) -> None:
    server.handler = much
    server.faults.bad_mac("session", after_bytes=PLENTY // 2)
    done = ssh("x", "-c", cipher, "-m", mac)
    assert b"message authentication code incorrect" in done.stderr
    assert 65_536 < len(done.stdout) < PLENTY - 65_536
    assert set(done.stdout) == set(b"x")


def test_paramiko_reports_a_bad_mac(server: SshServer) -> None:
    with by_paramiko(server) as client:
        assert output_by_paramiko(client, "echo one") == b"one\n"
        fault = server.faults.bad_mac()
        with pytest.raises(paramiko.SSHException, match="Mismatched MAC"):
            client.exec_command("echo two")
        lost(client)
        assert fault.hits == 1


def test_asyncssh_reports_a_bad_mac(server: SshServer) -> None:
    server.faults.bad_mac("keys")
    with pytest.raises(asyncssh.MACError):
        by_asyncssh(server, "echo hello")


# Drops.


@pytest.mark.parametrize(
    ("stage", "reset", "message"),
    [
        ("connect", False, b"kex_exchange_identification: Connection closed by remote host"),
        ("connect", True, b"Connection reset by"),
        ("keys", False, b"Connection closed by"),
        ("keys", True, b"Connection reset by"),
        ("login", False, b"closed by remote host"),
        ("login", True, b""),  # now a broken pipe, now a reset
        ("session", False, b"closed by remote host"),
        ("session", True, b""),
    ],
)
def test_openssh_sees_a_connection_drop(server: SshServer, ssh: Ssh, stage: Any, reset: bool, message: bytes) -> None:
    with server.faults.drop(stage, reset=reset) as fault:
        done = ssh("cat", stdin=b"what comes in")
        assert done.returncode == 255
        assert done.stdout == b""
        assert message in done.stderr
        assert b"incorrect" not in done.stderr
        assert fault.hits == 1
    assert [login.accepted for login in server.logins] == [True] * (stage in {"login", "session"})
    assert len(server.sessions) == (stage == "session")
    assert ssh("echo hello").stdout == b"hello\n"


@pytest.mark.parametrize("reset", [False, True])
def test_a_drop_is_in_order_or_a_reset(server: SshServer, reset: bool) -> None:
    hang = server.faults.hang()  # a reset that comes at once may come before the connection is known to be there
    with dialled(server) as sock:
        server.wait_until(lambda: hang.hits)
        server.faults.drop(after_bytes=10, reset=reset)
        hang.remove()
        assert sock.recv(100) == b"SSH-2.0-du"
        if reset:
            with pytest.raises(ConnectionResetError):
                sock.recv(100)
        else:
            assert sock.recv(100) == b""


def test_a_drop_in_order_is_one_even_if_the_client_goes_on_sending(server: SshServer) -> None:
    with dialled(server) as sock:
        assert sock.recv(1) == b"S"
        sock.sendall(b"SSH-2.0-test\r\n")
        server.faults.drop()
        sock.sendall(b"x")
        assert received(sock).startswith(b"SH-2.0-dunnart")


def test_a_transfer_is_cut_where_it_should_be(server: SshServer, ssh: Ssh) -> None:
    server.handler = much
    server.faults.drop("session", after_bytes=100_000)
    done = ssh("x")
    assert done.returncode == 255
    assert 65_536 <= len(done.stdout) < 100_000


def test_a_connection_that_nobody_reads_from_is_cut(server: SshServer) -> None:
    server.handler = much
    with by_paramiko(server) as client:
        channel = client.get_transport().open_session(timeout=SECONDS)
        channel.exec_command("x")  # and what it writes fills the window
        server.drop_connections(reset=True)
        lost(client)
    server.wait_until(lambda: not server.connections)


def test_open_connections_are_dropped_and_later_ones_not(server: SshServer) -> None:
    with by_paramiko(server) as first, by_paramiko(server) as second:
        server.drop_connections()
        lost(first)
        lost(second)
    with by_paramiko(server) as third:
        assert output_by_paramiko(third, "echo three") == b"three\n"


def test_asyncssh_sees_a_connection_drop(server: SshServer) -> None:
    server.faults.drop("keys")
    with pytest.raises(asyncssh.ConnectionLost):
        by_asyncssh(server, "echo hello")


# Hanging.


def test_a_server_that_says_nothing(server: SshServer, ssh: Ssh) -> None:
    with server.faults.hang() as fault:
        done = ssh("true", "-o", "ConnectTimeout=1")
        assert b"timed out" in done.stderr
        assert fault.hits == 1
        with dialled(server) as sock:
            server.wait_until(lambda: fault.hits == 2)
            assert select.select([sock], [], [], 0.05)[0] == []
            fault.remove()
            assert sock.recv(8) == b"SSH-2.0-"


def test_a_command_that_hangs_goes_on_when_the_fault_is_removed(server: SshServer) -> None:
    async def run() -> None:
        async with (
            asyncio.timeout(SECONDS),
            asyncssh.connect(
                server.host, server.port, username=server.user, client_keys=[server.key_path],
                known_hosts=server.known_hosts, config=None, agent_path=None,
            ) as connection,
        ):  # fmt: skip
            fault = server.faults.hang("session", times=1)
            command = asyncio.ensure_future(connection.run("cat", input="what comes in"))
            await asyncio.to_thread(server.wait_until, lambda: fault.hits)
            assert not (await asyncio.wait([command], timeout=0.1))[0]
            fault.remove()
            assert (await command).stdout == "what comes in"

    asyncio.run(run())


# Slowness.


def test_bytes_take_their_time(server: SshServer) -> None:
    with server.faults.slow(delay_seconds=0.2):
        began = time.monotonic()
        with dialled(server) as sock:
            assert sock.recv(8) == b"SSH-2.0-"
            first = time.monotonic()
            assert first - began >= 0.2
    with by_paramiko(server) as client:
        channel = client.get_transport().open_session(timeout=SECONDS)
        channel.exec_command("cat")
        server.faults.slow(delay_seconds=0.1)
        began = time.monotonic()
        channel.sendall(b"there and back")
        assert channel.recv(100) == b"there and back"
        assert time.monotonic() - began >= 0.2


def test_delayed_bytes_do_not_wait_for_each_other(server: SshServer, ssh: Ssh) -> None:
    server.handler = much
    server.faults.slow(delay_seconds=0.1, stage="session")
    began = time.monotonic()
    assert len(ssh("x").stdout) == PLENTY
    # Each of them by itself would take a minute.
    assert 0.2 <= time.monotonic() - began < PLENTY // 65536 * 0.1


def test_bytes_pass_one_after_the_other(server: SshServer, ssh: Ssh) -> None:
    server.commands["x"] = "x" * 20_000
    server.faults.slow(bytes_per_second=40_000, stage="session")
    began = time.monotonic()
    assert ssh("x").stdout == b"x" * 20_000
    assert time.monotonic() - began >= 0.4


def test_slowness_ends_at_once(server: SshServer) -> None:
    with server.faults.slow(bytes_per_second=0.001) as fault, dialled(server) as sock:
        assert sock.recv(1) == b"S"
        assert fault.hits == 1
        fault.remove()
        assert sock.recv(7) == b"SH-2.0-"


# Refusals.


@pytest.mark.parametrize(
    ("reason", "code", "shown"),
    [
        ("prohibited", 1, b"administratively prohibited"),
        ("connect-failed", 2, b"connect failed"),
        ("unknown-type", 3, b"unknown channel type"),
        ("resource-shortage", 4, b"resource shortage"),
    ],
)
def test_a_channel_is_refused_with_a_reason(server: SshServer, ssh: Ssh, reason: Any, code: int, shown: bytes) -> None:
    server.faults.refuse_channel(reason, "not today")
    done = ssh("echo hello")
    assert done.returncode == 255
    assert b"open failed: " + shown + b": not today" in done.stderr
    with pytest.raises(asyncssh.ChannelOpenError, match="not today") as raised:
        by_asyncssh(server, "echo hello")
    assert raised.value.code == code
    assert server.sessions == []


def test_one_channel_is_refused_and_the_next_one_opens(server: SshServer) -> None:
    fault = server.faults.refuse_channel(4, channel_type="session", times=1)
    with by_paramiko(server) as client:
        with pytest.raises(paramiko.ChannelException) as raised:
            client.exec_command("echo one")
        assert raised.value.code == 4
        assert output_by_paramiko(client, "echo two") == b"two\n"
    assert fault.hits == 1


def test_a_channel_of_another_type_is_refused(server: SshServer) -> None:
    server.faults.refuse_channel("connect-failed", channel_type="direct-tcpip")
    with by_paramiko(server) as client:
        with pytest.raises(paramiko.ChannelException) as raised:
            client.get_transport().open_channel("direct-tcpip", ("a.example", 80), ("127.0.0.1", 1))
        assert raised.value.code == 2
        assert output_by_paramiko(client, "echo hello") == b"hello\n"


def test_a_login_is_refused(server: SshServer, ssh: Ssh) -> None:
    server.users["ada"] = "secret"
    with server.faults.refuse_login(["ada"]) as fault:
        done = ssh("echo hello", user="ada")
        assert b"Permission denied" in done.stderr
        assert fault.hits == 1
        assert ssh("echo hello").stdout == b"hello\n"
        with (
            pytest.raises(paramiko.AuthenticationException),
            by_paramiko(server, username="ada", key_filename=None, password="secret"),
        ):
            pass
    assert ssh("echo hello", user="ada").stdout == b"hello\n"
    assert [login.accepted for login in server.logins if login.user == "ada"] == [False, False, True]


def test_the_first_login_is_refused(server: SshServer) -> None:
    server.faults.refuse_login(times=1)
    with pytest.raises(paramiko.AuthenticationException), by_paramiko(server):
        pass
    with by_paramiko(server) as client:
        assert output_by_paramiko(client, "echo hello") == b"hello\n"


# Rules.


def test_the_first_connections_fail(server: SshServer, ssh: Ssh) -> None:
    fault = server.faults.drop("login", times=2)
    assert [ssh("echo hello").returncode for _ in range(3)] == [255, 255, 0]
    assert fault.hits == 2


def test_a_connection_that_is_past_the_stage_is_hit_at_once(server: SshServer) -> None:
    with by_paramiko(server) as client:
        assert output_by_paramiko(client, "echo one") == b"one\n"
        server.faults.drop("session")
        lost(client)


def test_bytes_are_counted_from_when_the_fault_was_asked_for(server: SshServer) -> None:
    with by_paramiko(server) as client:
        assert len(output_by_paramiko(client, "echo " + "x" * 30_000)) == 30_001
        fault = server.faults.drop(after_bytes=20_000)
        assert output_by_paramiko(client, "echo one") == b"one\n"
        assert fault.hits == 0
        assert len(output_by_paramiko(client, "echo " + "x" * 30_000)) < 30_000
        lost(client)


def test_faults_go_together(server: SshServer) -> None:
    server.faults.slow(delay_seconds=0.05)
    server.faults.slow(delay_seconds=0.05, bytes_per_second=1e6)
    server.faults.drop(after_bytes=7)
    began = time.monotonic()
    with dialled(server) as sock:
        assert received(sock) == b"SSH-2.0"
        assert time.monotonic() - began >= 0.1


def test_all_faults_are_removed(server: SshServer, ssh: Ssh) -> None:
    server.faults.drop()
    fault = server.faults.refuse_login()
    server.faults.clear()
    assert list(server.faults) == []
    assert ssh("echo hello").stdout == b"hello\n"
    fault.remove()  # once more does nothing


def test_faults_may_be_asked_for_beforehand_and_outlive_a_restart(server: SshServer, ssh: Ssh) -> None:
    server.stop()
    server.faults.refuse_channel(text="as before")
    server.start()
    assert b"as before" in ssh("echo hello").stderr


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda faults: faults.drop("dinner"), "'dinner' is none of connect, keys, login, session"),
        (lambda faults: faults.drop(after_bytes=-1), "after_bytes must be 0 or more, not -1"),
        (lambda faults: faults.drop(times=0), "times must be 1 or more, not 0"),
        (lambda faults: faults.bad_mac("connect"), "packets have no MAC before"),
        (lambda faults: faults.slow(delay_seconds=-1), "delay_seconds must be 0 or more, not -1"),
        (lambda faults: faults.slow(bytes_per_second=0), "bytes_per_second must be more than 0, not 0"),
        (lambda faults: faults.refuse_channel("bad weather"), "'bad weather' is none of prohibited, connect-failed"),
        (lambda faults: faults.refuse_login("ada"), r"users must be several names, as in \['ada'\]"),
    ],
)
def test_what_makes_no_sense_is_refused(server: SshServer, ask: Callable[[Faults], Fault], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        ask(server.faults)
    assert list(server.faults) == []


def test_the_server_sees_the_clients_address_through_it_all(server: SshServer, ssh: Ssh) -> None:
    addresses = []

    async def handler(session: Session) -> None:
        addresses.extend([session.peer, session.local])

    server.handler = handler
    assert ssh("x").returncode == 0
    [peer, local] = addresses
    assert local == (server.host, server.port)
    assert peer.host == "127.0.0.1"
    with socket.socket() as sock:  # nobody listens there: it is a client's port and no relay's
        assert sock.connect_ex(peer) != 0
