"""`dunnart.ecos` from the application's side: plain threads and sockets, no event loop."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import queue
import select
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from dunnart import ecos
from dunnart.ecos import Daemon, DropbearData, Handle
from dunnart.errors import LocalProtocolError
from dunnart.keys import PrivateKey
from dunnart.protocol.events import AuthRefused, LoggedIn
from dunnart.protocol.questions import CredentialQuestion, PublicKeyCredential, SignQuestion
from dunnart.protocol.requests import ExecRequest, PtyRequest, ShellRequest, SubsystemRequest
from dunnart.server import Address
from tests.runtime.driver import HOST_KEY, KIB, MIB, PASSWORD, USER, Channel, Client, Clients, descriptors, eventually

_T = TypeVar("_T")
SECONDS = 30.0


class Sessions:
    """A `connected` callback that hands its sessions to the test."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[socket.socket, Handle]] = queue.SimpleQueue()

    def __call__(self, sock: socket.socket, handle: Handle) -> None:
        self._queue.put((sock, handle))

    async def next(self) -> tuple[socket.socket, Handle]:
        """The next one."""
        return await asyncio.to_thread(self._queue.get, timeout=SECONDS)


def right(user: str, _address: Address, password: str) -> bool:
    return (user, password) == (USER, PASSWORD)


class Ecos(Clients):
    """A server and its clients."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(("127.0.0.1", daemon.port))
        self.daemon = daemon

    async def shell(self, **options: Any) -> tuple[Client, Channel]:
        """Log in and ask for a shell."""
        client = await self.login(**options)
        channel = await client.session()
        assert await client.ask(channel, ShellRequest())
        return client, channel


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Ecos]:
    """Run a server; what is left of its sessions then is closed by the garbage collector, and so reported."""
    least: dict[str, Any] = {
        "private_host_keys": [HOST_KEY], "authenticate_password": right, "connected": Sessions(),
        "address": "127.0.0.1", "port": 0,
    }  # fmt: skip
    server = Ecos(ecos.init(DropbearData(**(least | options))))
    try:
        yield server
    finally:
        for client in server.clients:
            client.close()
        await asyncio.to_thread(server.daemon.close)


async def blocking(function: Callable[..., _T], *arguments: Any) -> _T:
    """Call what blocks beside the test's event loop."""
    return await asyncio.to_thread(function, *arguments)


def received(sock: socket.socket, size: int) -> bytes:
    """Read so much, or less at the end."""
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


# E1, E3.


def test_init_returns_once_it_listens_and_close_ends_it() -> None:
    before = set(threading.enumerate())
    daemon = ecos.init(DropbearData(private_host_keys=[HOST_KEY], authenticate_password=right, connected=Sessions(),
                                    address="127.0.0.1", port=0))  # fmt: skip
    with socket.create_connection(("127.0.0.1", daemon.port)) as sock:
        assert sock.recv(8) == b"SSH-2.0-"
        assert daemon.connections() == 1
        daemon.close()
        while sock.recv(4096):
            pass
    daemon.close()
    assert set(threading.enumerate()) <= before
    assert (daemon.connections(), daemon.sessions_not_done()) == (0, 0)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", daemon.port)):
        pass


async def test_accept_decides_before_a_byte_is_exchanged() -> None:
    asked: list[tuple[Address, int]] = []

    def accept(address: Address) -> bool:
        asked.append((address, server.daemon.connections()))
        return server.daemon.connections() < 1

    async with running(accept_connection=accept) as server:
        await server.login()
        with server.dial() as second:
            assert await blocking(second.recv, 100) == b""
            assert asked[1] == (Address(*second.getsockname()), 1)
        assert server.daemon.connections() == 1
        server.clients[0].close()
        await eventually(lambda: server.daemon.connections() == 0)
        await server.login()


# E6, E9.


async def test_a_session_is_a_blocking_socket_and_a_handle() -> None:
    sessions = Sessions()
    async with running(connected=sessions) as server:
        client, channel = await server.shell()
        sock, handle = await sessions.next()
        assert sock.getblocking()
        assert (handle.username, handle.command, handle.terminal, handle.valid) == (USER, None, None, True)
        assert handle.addr == Address(*client.sock.getsockname())
        client.send(channel, b"\x03raw\r\x04")
        assert await blocking(received, sock, 6) == b"\x03raw\r\x04"
        sock.sendall(b"out\n")
        await client.until(lambda: channel.out == b"out\n")
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        assert select.select([sock], [sock], [], 0) == ([], [sock], [])
        client.send(channel, b"more")
        assert (await blocking(select.select, [sock], [], [], SECONDS))[0] == [sock]
        assert sock.recv(10) == b"more"
        client.send_eof(channel)
        await blocking(select.select, [sock], [], [], SECONDS)
        assert sock.recv(10) == b""
        sock.sendall(b"last words")
        sock.close()
        handle.done(7)
        await client.until(lambda: channel.closed)
        assert (channel.out, channel.status) == (b"out\nlast words", 7)
        assert server.daemon.sessions_not_done() == 0


async def test_a_command_and_a_terminal_are_told_and_a_subsystem_is_refused() -> None:
    sessions = Sessions()
    async with running(connected=sessions) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, SubsystemRequest("sftp"))
        assert await client.ask(channel, PtyRequest("vt100", 80, 24, 0, 0, b""))
        assert await client.ask(channel, ExecRequest(b"show version"))
        sock, handle = await sessions.next()
        assert handle.command == "show version"
        assert handle.terminal is not None
        assert (handle.terminal.term, handle.terminal.columns) == ("vt100", 80)
        second = client.engine.open_channel("session")
        client.channels[second] = Channel(second)
        client.move()
        await client.until(lambda: client.channels[second].opened is not None)
        assert client.channels[second].opened is False
        sock.close()
        handle.done(0)
        await client.until(lambda: channel.closed)
        again = await client.session()
        assert await client.ask(again, ShellRequest())
        sock, handle = await sessions.next()
        sock.close()
        handle.done(0)


async def test_a_handle_is_invalid_once_it_is_done() -> None:
    sessions = Sessions()
    async with running(connected=sessions, support_stderr=True) as server:
        await server.shell()
        sock, handle = await sessions.next()
        fraction: Any = 1.0
        for code in (-1, 1 << 32, fraction):
            with pytest.raises(LocalProtocolError, match="no exit code"):
                handle.done(code)
        sock.close()
        handle.done(0)
        assert not handle.valid
        uses: list[Callable[[], object]] = [
            lambda: handle.username, lambda: handle.addr, lambda: handle.command, lambda: handle.terminal,
            handle.get_stderr, lambda: handle.done(1),
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(LocalProtocolError, match="the handle is no longer valid: the session is done"):
                use()


async def test_done_without_a_close_ends_the_session_as_well() -> None:
    sessions = Sessions()
    async with running(connected=sessions) as server:
        client, channel = await server.shell()
        sock, handle = await sessions.next()
        sock.sendall(b"bye")
        handle.done(3)
        await client.until(lambda: channel.closed)
        assert (channel.out, channel.status) == (b"bye", 3)
        sock.close()


async def test_the_client_leaves() -> None:
    sessions = Sessions()
    async with running(connected=sessions) as server:
        client, _ = await server.shell()
        sock, handle = await sessions.next()
        client.close()
        assert await blocking(sock.recv, 1) == b""
        await eventually(lambda: server.daemon.sessions_not_done() == 1)
        sock.close()
        handle.done(0)
        assert server.daemon.sessions_not_done() == 0


async def test_connected_may_block_and_stops_nobody() -> None:
    release = threading.Event()
    sessions = Sessions()

    def connected(sock: socket.socket, handle: Handle) -> None:
        sessions(sock, handle)
        release.wait(SECONDS)

    async with running(connected=connected) as server:
        try:
            held = [await sessions_of(server, sessions) for _ in range(20)]
            assert server.daemon.connections() == 20
            for client, channel, sock, handle in held:
                client.send(channel, b"ping")
                assert await blocking(received, sock, 4) == b"ping"
                sock.close()
                handle.done(0)
        finally:
            release.set()


async def sessions_of(server: Ecos, sessions: Sessions) -> tuple[Client, Channel, socket.socket, Handle]:
    """Log in; both ends of the session."""
    client, channel = await server.shell()
    return client, channel, *(await sessions.next())


async def test_connected_that_raises_ends_its_session(caplog: pytest.LogCaptureFixture) -> None:
    kept = []

    def connected(_sock: socket.socket, handle: Handle) -> None:
        kept.append(handle)
        raise ValueError("out of order")

    async with running(connected=connected) as server:
        client, channel = await server.shell()
        await client.until(lambda: channel.closed)
        assert channel.status == 1
        assert not kept[0].valid
        assert "connected failed: ValueError('out of order')" in caplog.text
        assert server.daemon.sessions_not_done() == 0


# E9: sessions that are not done.


async def test_a_socket_closed_without_done_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    sessions = Sessions()
    async with running(connected=sessions) as server:
        client, channel = await server.shell()
        sock, handle = await sessions.next()
        assert server.daemon.sessions_not_done() == 0
        sock.close()
        assert server.daemon.sessions_not_done() == 1
        await eventually(lambda: "it is over, and done() was not called" in caplog.text)
        assert f"connection 1, session 0 of {USER!r}: " in caplog.text
        assert (channel.status, channel.closed) == (None, False)
        handle.done(4)
        await client.until(lambda: channel.closed)
        assert channel.status == 4
        assert server.daemon.sessions_not_done() == 0


async def test_a_session_that_can_never_be_done_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    async with running(connected=lambda sock, _: sock.close()) as server:
        client, channel = await server.shell()
        await client.until(lambda: channel.closed)
        assert (channel.status, channel.err) == (75, b"the application has lost this session\r\n")
        assert "its handle was thrown away, and done() was not called" in caplog.text
        assert server.daemon.sessions_not_done() == 1


async def test_a_session_whose_handle_is_thrown_away_goes_on_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    sockets: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
    async with running(connected=lambda sock, _: sockets.put(sock)) as server:
        client, channel = await server.shell()
        sock = await blocking(sockets.get)
        await eventually(lambda: "its handle was thrown away" in caplog.text)
        client.send(channel, b"still")
        assert await blocking(received, sock, 5) == b"still"
        assert server.daemon.sessions_not_done() == 0
        client.close()
        await eventually(lambda: sock.fileno() < 0)  # nobody else would close it
        assert server.daemon.sessions_not_done() == 1


# E8.


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is free for one who says SO_REUSEADDR, and for nobody else."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("over_tcp", [False, True])
async def test_stderr(port: int, over_tcp: bool) -> None:
    sessions = Sessions()
    async with running(connected=sessions, support_stderr=True, stderr_port=port if over_tcp else 0) as server:
        client, channel, sock, handle = await sessions_of(server, sessions)
        stderr = await blocking(handle.get_stderr)
        assert stderr.family == (socket.AF_INET if over_tcp else socket.AF_UNIX)
        assert stderr.getblocking()
        with pytest.raises(LocalProtocolError, match="once"):
            handle.get_stderr()
        sock.sendall(b"out")
        stderr.sendall(b"err" * KIB)
        stderr.close()
        sock.close()
        handle.done(2)
        await client.until(lambda: channel.closed)
        assert (channel.out, channel.err, channel.status) == (b"out", b"err" * KIB, 2)


async def test_stderr_must_be_enabled() -> None:
    sessions = Sessions()
    async with running(connected=sessions) as server:
        *_, sock, handle = await sessions_of(server, sessions)
        with pytest.raises(LocalProtocolError, match="support_stderr is off"):
            handle.get_stderr()
        sock.close()
        handle.done(0)


# E7.


class Accepting:
    """An application that accepts its sessions itself."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def next(self) -> socket.socket:
        """The next one."""
        self.listener.settimeout(SECONDS)
        return self.listener.accept()[0]


@pytest.fixture
def application() -> Iterator[Accepting]:
    made = Accepting()
    yield made
    made.listener.close()


async def test_the_application_accepts_the_local_socket_itself(application: Accepting) -> None:
    async with running(connected=None, local_port=application.port, support_stderr=True) as server:
        client, channel = await server.shell()
        client.send(channel, b"early")
        sock = await blocking(application.next)
        handle = server.daemon.handle_for(sock)
        assert handle is not None
        assert handle.username == USER
        assert await blocking(received, sock, 5) == b"early"
        stderr = handle.get_stderr()
        stderr.sendall(b"err")
        sock.sendall(b"x" * MIB)
        client.send_eof(channel)
        assert await blocking(sock.recv, 1) == b""
        sock.close()
        stderr.close()
        assert server.daemon.sessions_not_done() == 1
        handle.done(5)
        await client.until(lambda: channel.closed)
        assert (channel.out, channel.err, channel.status) == (b"x" * MIB, b"err", 5)
        assert server.daemon.sessions_not_done() == 0


async def test_a_stranger_on_the_local_port_is_no_session(application: Accepting) -> None:
    async with running(connected=None, local_port=application.port) as server:
        await server.shell()
        ours = await blocking(application.next)
        with socket.create_connection(("127.0.0.1", application.port)) as stranger:
            accepted = await blocking(application.next)
            assert server.daemon.handle_for(accepted) is None
            assert server.daemon.handle_for(stranger) is None
            accepted.close()
        here, there = socket.socketpair()
        assert server.daemon.handle_for(here) is None
        here.close()
        there.close()
        assert server.daemon.handle_for(here) is None
        handle = server.daemon.handle_for(ours)
        assert handle is not None
        assert server.daemon.handle_for(ours) is None, "it was claimed already"
        ours.close()
        handle.done(0)


async def test_one_who_listens_in_the_applications_place_gets_nothing(
    application: Accepting, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(connected=None, local_port=application.port, callback_seconds=0.3) as server:
        client, channel = await server.shell()
        client.send(channel, b"my secret")
        sock = await blocking(application.next)  # and handle_for is not called in time
        assert await blocking(sock.recv, 100) == b""
        await client.until(lambda: channel.closed)
        assert (channel.status, channel.err) == (75, b"the application does not take sessions\r\n")
        assert server.daemon.handle_for(sock) is None
        sock.close()
        assert f"nobody took it on port {application.port}" in caplog.text


async def test_nobody_listens_on_the_local_port(port: int) -> None:
    async with running(connected=None, local_port=port) as server:
        client, channel = await server.shell()
        await client.until(lambda: channel.closed)
        assert (channel.status, channel.err) == (75, b"the application does not take sessions\r\n")


async def test_the_client_leaves_a_session_over_tcp(application: Accepting) -> None:
    async with running(connected=None, local_port=application.port) as server:
        client, _ = await server.shell()
        sock = await blocking(application.next)
        handle = server.daemon.handle_for(sock)
        assert handle is not None
        client.close()
        assert await blocking(sock.recv, 1) == b""
        await eventually(lambda: server.daemon.sessions_not_done() == 1)
        sock.close()
        handle.done(0)
        assert server.daemon.sessions_not_done() == 0


async def test_connected_over_a_local_port_of_tcp(port: int) -> None:
    sessions = Sessions()
    async with running(connected=sessions, local_port=port) as server:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            client, channel, sock, handle = await sessions_of(server, sessions)
            assert await blocking(stranger.recv, 1) == b""
        assert sock.getsockname() == ("127.0.0.1", port)
        client.send(channel, b"in")
        assert await blocking(received, sock, 2) == b"in"
        sock.sendall(b"x" * MIB)
        handle.done(1)
        sock.close()
        await client.until(lambda: channel.closed)
        assert (channel.received, channel.status) == (MIB, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_server_that_is_closed_leaves_nothing(application: Accepting, port: int) -> None:
    before = descriptors()
    async with running(connected=None, local_port=application.port, support_stderr=True, stderr_port=port) as server:
        await server.shell()
        sock = await blocking(application.next)
        handle = server.daemon.handle_for(sock)
        assert handle is not None
        stderr = await blocking(handle.get_stderr)
        await server.shell()
        unclaimed = await blocking(application.next)
    for each in (sock, stderr, unclaimed):
        assert await blocking(each.recv, 1) == b""
        each.close()
    handle.done(0)
    with pytest.raises(LocalProtocolError):
        handle.done(0)
    assert descriptors() <= before


# E4, E5.


class KeyRing:
    """Callbacks for keys that note how they are called."""

    def __init__(self, keys: Sequence[Any]) -> None:
        self.keys = keys
        self.calls: list[object] = []
        self.inside = 0

    def get(self, algorithm: str, user: str, address: Address) -> Sequence[Any]:
        self.inside += 1
        self.calls.append((algorithm, user, address, self.inside))
        if isinstance(self.keys, Exception):
            raise self.keys
        return self.keys

    def free(self, keys: Sequence[Any]) -> None:
        self.calls.append(keys)
        self.inside -= 1


KEY = PrivateKey.generate("ed25519")
OTHERS = [PrivateKey.generate("ed25519").public for _ in range(8)]


def with_key(key: PrivateKey) -> dict[type, Any]:
    """A client's answers that try a key and nothing else."""
    tries = iter([PublicKeyCredential(key.public, "ssh-ed25519", signed=True)])
    return {
        CredentialQuestion: lambda _: next(tries, None),
        SignQuestion: lambda question: key.sign(question.algorithm, question.data),
    }


async def logs_in(server: Ecos, key: PrivateKey) -> bool:
    client = server.begin(answers=with_key(key))
    await client.until(lambda: any(isinstance(event, LoggedIn | AuthRefused) for event in client.events))
    return any(isinstance(event, LoggedIn) for event in client.events)


@pytest.mark.parametrize(
    ("keys", "allowed"),
    [
        ([], False),
        (OTHERS, False),
        ([*OTHERS[:7], KEY.public], True),
        ([*OTHERS, KEY.public], False),  # the ninth does not count
        (["nonsense", KEY.public.line("me")], True),
        (ValueError("no flash"), False),
        (3, False),
    ],
    ids=["none", "others", "eighth", "ninth", "line", "raises", "no sequence"],
)
async def test_public_keys(keys: Any, allowed: bool) -> None:
    ring = KeyRing(keys)
    async with running(get_public_keys=ring.get, free_public_keys=ring.free, authenticate_password=None) as server:
        assert await logs_in(server, KEY) is allowed
        asked = ring.calls[0]
        assert isinstance(asked, tuple)
        peer = Address("127.0.0.1", asked[2].port)
        assert asked == ("ssh-ed25519", USER, peer, 1)
        assert peer.port > 0
        if not isinstance(keys, Exception):
            assert ring.calls == [asked, keys] * (len(ring.calls) // 2)


async def test_calls_for_keys_are_never_two_at_once() -> None:
    ring = KeyRing([KEY.public])
    async with running(get_public_keys=ring.get, free_public_keys=ring.free) as server:
        assert all(await asyncio.gather(*(logs_in(server, KEY) for _ in range(10))))
    assert [call[3] for call in ring.calls if isinstance(call, tuple)] == [1] * (len(ring.calls) // 2)
    assert len(ring.calls) == 20


@pytest.mark.parametrize("answer", [False, None, 1, "yes", ValueError("no flash")])
async def test_only_true_is_a_right_password(answer: object) -> None:
    asked = []

    def check(user: str, address: Address, password: str) -> Any:
        asked.append((user, address, password))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with running(authenticate_password=check) as server:
        client = server.begin()
        await client.until(lambda: any(isinstance(event, AuthRefused) for event in client.events))
        assert asked == [(USER, Address(*client.sock.getsockname()), PASSWORD)]


async def test_a_method_without_a_callback_is_off() -> None:
    async with running() as server:
        assert not await logs_in(server, KEY)
    async with running(get_public_keys=lambda *_: [KEY.public], authenticate_password=None) as server:
        client = server.begin()
        await client.until(lambda: any(isinstance(event, AuthRefused) for event in client.events))
        assert await logs_in(server, KEY)


# E10, E11.


async def test_the_logger_gets_the_log() -> None:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    level = logging.getLogger("dunnart").level
    handlers = logging.getLogger("dunnart").handlers[:]
    async with running(logger=lines.put) as server:
        client = await server.login()
        line = await blocking(lines.get)
        port = client.sock.getsockname()[1]
        assert line == f"connection 1: Accepted password for {USER} from 127.0.0.1 port {port} ssh2"
    assert logging.getLogger("dunnart").level == level
    assert logging.getLogger("dunnart").handlers == handlers


async def test_a_logger_that_blocks_or_raises_stops_nobody() -> None:
    release, called = threading.Event(), threading.Event()

    def log(_: str) -> None:
        called.set()
        release.wait(SECONDS)
        raise ValueError("no flash")

    async with running(logger=log) as server:
        await server.login()
        await blocking(called.wait, SECONDS)
        await server.login()
        release.set()


def stack_bytes() -> int:
    """How large this thread's stack is."""
    library = ctypes.CDLL(None)
    library.pthread_self.restype = ctypes.c_ulong
    attributes, size = ctypes.create_string_buffer(128), ctypes.c_size_t()
    assert library.pthread_getattr_np(ctypes.c_ulong(library.pthread_self()), attributes) == 0
    library.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    library.pthread_attr_destroy(attributes)
    return size.value


@pytest.mark.skipif(sys.platform != "linux", reason="a thread's own nice value")
async def test_priority_and_stack_size() -> None:
    sessions: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()

    def connected(sock: socket.socket, handle: Handle) -> None:
        sessions.put((os.nice(0), stack_bytes()))
        sock.close()
        handle.done(0)

    def check(user: str, address: Address, password: str) -> bool:
        nice.append(os.nice(0))
        return right(user, address, password)

    nice: list[int] = []
    async with running(connected=connected, authenticate_password=check, thread_priority=3,
                       stack_size=256 * KIB) as server:  # fmt: skip
        await server.shell()
        mine = os.nice(0)
        assert await blocking(sessions.get) == (mine + 3, 256 * KIB)
        assert nice == [mine + 3]
        assert threading.stack_size() == 0


@pytest.mark.parametrize("size", [KIB, 32 * KIB])
async def test_packets_are_as_large_as_they_may_be(size: int) -> None:
    sessions = Sessions()
    async with running(connected=sessions, max_packet_bytes=size) as server:
        client, channel, sock, handle = await sessions_of(server, sessions)
        assert client.engine.channel(channel.number).packet_bytes == size
        reading = asyncio.create_task(blocking(received, sock, MIB))
        await client.send_all(channel, b"x" * MIB)
        assert len(await reading) == MIB
        sock.close()
        handle.done(0)
