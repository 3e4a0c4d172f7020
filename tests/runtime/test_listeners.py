"""Where servers listen, and how `dunnart serve` begins and ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dunnart.errors import ConfigError
from dunnart.runtime.listeners import ListenAddress, bound_address, listen
from tests.runtime.driver import Clients, eventually, serving


def has_ipv6() -> bool:
    """Whether ::1 is there."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this system has no ::1")


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=ipv6), "localhost"])
async def test_tcp(host: str) -> None:
    (listener,) = listen(ListenAddress(host, 0))
    assert bound_address(listener).port > 0
    async with serving(listener) as server:
        client = await server.login()
        channel = await client.run("echo $SSH_CONNECTION")
        address, port, local, local_port = channel.out.decode().split()
        assert (address, int(port)) == client.sock.getsockname()[:2]
        assert (local, int(local_port)) == server.address[:2]
        assert server.server.counters["connections"] == 1


@ipv6
async def test_every_address_on_one_port() -> None:
    listeners = listen(ListenAddress("", 0))
    assert [listener.family for listener in listeners] == [socket.AF_INET, socket.AF_INET6]
    assert len({bound_address(listener).port for listener in listeners}) == 1
    async with serving(listeners[0]) as server:
        server.server.start(listeners[1:])
        other = Clients(("::1", bound_address(listeners[1]).port, 0, 0), socket.AF_INET6)
        for clients in (server, other):
            client = await clients.login()
            assert (await client.run("echo in")).out == b"in\n"
            client.close()
        assert server.server.counters["logins"] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can listen on one interface")
def test_one_interface() -> None:
    for host in ("%lo", "127.0.0.1%lo"):
        for listener in listen(ListenAddress(host, 0)):
            with listener:
                assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
    with pytest.raises(ConfigError, match=r"cannot listen on \*%nowhere:0: "):
        listen(ListenAddress("%nowhere", 0))


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    (listener,) = listen(ListenAddress("", 0, path))
    assert bound_address(listener) == ListenAddress("", 0, path)
    assert os.stat(path).st_mode & 0o777 == 0o700
    async with serving(listener) as server:
        client = await server.login()
        assert (await client.run("echo $SSH_CLIENT")).out == b"UNKNOWN 65535 65535\n"


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    address = ListenAddress("", 0, str(tmp_path / "socket"))
    (first,) = listen(address)
    with pytest.raises(ConfigError, match="cannot listen on"):
        listen(address)
    first.close()
    (second,) = listen(address)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(address.path)
    second.close()


def test_a_live_socket_whose_backlog_is_full_is_live(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    probes = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        for _ in range(3):
            probes.append(socket.socket(socket.AF_UNIX))
            probes[-1].setblocking(False)
            probes[-1].connect_ex(path)
        with pytest.raises(ConfigError):
            listen(ListenAddress("", 0, path))
        for probe in probes:
            probe.close()
    assert os.path.exists(path)


@pytest.mark.parametrize("kind", ["file", "folder", "nowhere"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "socket"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path = tmp_path / "no" / "socket"
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        listen(ListenAddress("", 0, str(path)))
    assert kind != "file" or path.read_text() == "precious"


def test_every_address_is_not_half_of_them() -> None:
    """Else clients of the other half would meet somebody else there, and nobody would be told."""
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"{port}: Address already in use"):
            listen(ListenAddress("", port))
        with socket.socket() as free:
            free.bind(("0.0.0.0", port))  # nothing was left behind


def test_a_port_in_use_is_a_clear_error() -> None:
    (listener,) = listen(ListenAddress("127.0.0.1", 0))
    with pytest.raises(ConfigError, match="cannot listen on"):
        listen(bound_address(listener))
    listener.close()


# The program.


class Daemon(Clients):
    """A `dunnart serve`."""

    def __init__(self, process: asyncio.subprocess.Process, address: tuple[str, int], password: str) -> None:
        super().__init__(address)
        self.process = process
        self.password = password


SERVE = """
import sys
from dataclasses import replace
from dunnart.plugins import os_account
from dunnart.tools.main import main

found = os_account.find
# The shell and home of whoever runs the tests may have profiles that do anything.
os_account.find = lambda name: replace(found(name), shell="/bin/sh", home="/")
sys.exit(main())
"""


@asynccontextmanager
async def daemon(folder: Path, *ignored: signal.Signals) -> AsyncIterator[Daemon]:
    """Run one that was started with some signals ignored, with a password for this run."""

    def ignore() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, "serve", "--listen", "127.0.0.1:0", "--password", "one-time",
        "--authorized-keys", str(folder / "none"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=ignore,
        env={"PATH": os.environ["PATH"], "XDG_STATE_HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout is not None
    address, password = ("", 0), ""
    while not password:
        line = (await process.stdout.readline()).decode().strip()
        assert line or not process.stdout.at_eof()
        if line.startswith("listening on "):
            host, _, port = line.removeprefix("listening on ").rpartition(":")
            address = (host, int(port))
        elif line.startswith("password of "):
            password = line.rpartition(" ")[2]
    running = Daemon(process, address, password)
    try:
        yield running
    finally:
        for client in running.clients:
            client.close()
        if process.returncode is None:
            process.kill()
        await process.communicate()


IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


async def test_children_begin_with_default_signals(tmp_path: Path) -> None:
    """Started by `nohup`, or by `&` in a script, the server ignores signals; what runs in its sessions does not."""
    async with daemon(tmp_path, *IGNORED) as server:
        client = await server.login(password=server.password)
        channel = await client.run("grep SigIgn /proc/self/status")
        # The C library keeps the signals from 32 on for itself; whoever started the tests may have them ignored.
        assert int(channel.out.split()[-1], 16) & 0x7FFFFFFF == 0
        for number in IGNORED:
            server.process.send_signal(number)
        assert (await client.run("echo still here")).out == b"still here\n"


async def test_sigterm_ends_it_with_status_0_and_its_sessions_with_it(tmp_path: Path) -> None:
    async with daemon(tmp_path) as server:
        client = await server.login(password=server.password)
        channel = await client.exec("echo $$; exec sleep 1000")
        await client.until(lambda: channel.out.endswith(b"\n"))
        server.process.send_signal(signal.SIGTERM)
        await client.until(lambda: client.ended is not None)
        assert client.ended is not None
        assert client.ended.by_peer
        assert client.ended.reason_code == 11
        assert await server.process.wait() == 0
        await eventually(lambda: not os.path.exists(f"/proc/{int(channel.out)}"))
        assert server.process.stderr is not None
        errors = (await server.process.stderr.read()).decode()
        assert "Traceback" not in errors
        assert server.password not in errors
