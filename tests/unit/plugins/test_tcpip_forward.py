"""Remote forwarding: where it listens, what the client hears, and that nothing of it outlives the client."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dunnart.plugins.allow_list import AllowList
from dunnart.plugins.allow_list import Options as Rules
from dunnart.plugins.os_account import Account
from dunnart.plugins.tcpip_forward import Options, TcpipForward
from dunnart.protocol.events import RequestAnswered
from dunnart.protocol.limits import Limits
from dunnart.protocol.questions import ChannelOpenQuestion, Refusal
from dunnart.protocol.requests import UnknownGlobalRequest, UnknownOpen
from dunnart.server import Allow, Attempt, AuthReply
from dunnart.server.interfaces import AuditEvent, Forward
from dunnart.server.plugins import Context
from dunnart.wire.encoding import Reader, text, uint32
from tests.runtime.driver import MIB, USER, Channel, Client, descriptors, eventually
from tests.runtime.test_placements import Placed, both_sides, placed

LOG = logging.getLogger("dunnart.plugin.test")
ACCEPTING = {ChannelOpenQuestion: True}
ON_LOOP = ("loop", 1)


@asynccontextmanager
async def forwarding(
    where: Any = ON_LOOP, gateway_ports: str = "no", rules: tuple[str, ...] = ("listen *:*",), **options: Any
) -> AsyncIterator[Placed]:
    plugin = TcpipForward(Context("tcpip-forward", Options(gateway_ports), LOG))
    requests = {"tcpip-forward": plugin, "cancel-tcpip-forward": plugin}
    policy = AllowList(Context("allow-list", Rules(rules), LOG))
    async with placed(where, global_requests=requests, forwarding=[policy], **options) as server:
        yield server


async def ask(client: Client, name: str, data: bytes) -> RequestAnswered:
    """Send a global request and wait for its answer."""
    before = len(client.global_answers)
    client.engine.request_global(UnknownGlobalRequest(name, data), want_reply=True)
    client.move()
    await client.until(lambda: len(client.global_answers) > before)
    return [event for event in client.events if isinstance(event, RequestAnswered) and event.channel is None][-1]


async def listen(client: Client, host: str = "localhost", port: int = 0) -> int:
    """Have the server listen; gives the port, 0 if it refuses."""
    answer = await ask(client, "tcpip-forward", text(host) + uint32(port))
    if not answer.success:
        return 0
    assert len(answer.data) == (0 if port else 4)
    return port or Reader(answer.data).uint32()


async def cancel(client: Client, host: str, port: int) -> bool:
    return (await ask(client, "cancel-tcpip-forward", text(host) + uint32(port))).success


async def connect(port: int, host: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(host, port)


async def opened(client: Client, count: int = 1) -> Channel:
    """Wait for a channel that the server opens; gives the newest."""
    await client.until(lambda: len(client.channels) >= count)
    return client.channels[max(client.channels)]


def refused(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        return sock.connect_ex((host, port)) != 0


async def here(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@both_sides
async def test_bytes_go_both_ways_and_each_end_by_itself(where: Any) -> None:
    async with forwarding(where) as server:
        client = await server.login(answers=ACCEPTING)
        port = await listen(client, "")
        reader, writer = await connect(port)
        channel = await opened(client)
        question = next(event for event in client.events if isinstance(event, ChannelOpenQuestion))
        peer = writer.get_extra_info("sockname")
        assert question.request == UnknownOpen(
            "forwarded-tcpip", text("") + uint32(port) + text("127.0.0.1") + uint32(peer[1])
        )
        data = os.urandom(3 * MIB)
        writer.write(data)
        writer.write_eof()
        await client.until(lambda: channel.eof)
        assert channel.out == data
        await client.send_all(channel, data)
        client.send_eof(channel)
        assert await reader.read() == data
        await client.until(lambda: channel.closed)
        assert channel.order == ["data", "eof", "close"]
        await here(writer)


@both_sides
async def test_the_client_may_end_first(where: Any) -> None:
    async with forwarding(where) as server:
        client = await server.login(answers=ACCEPTING)
        port = await listen(client)
        reader, writer = await connect(port)
        channel = await opened(client)
        seen = (await server.server.sessions())[0].channels[0]
        name = writer.get_extra_info("sockname")[1]
        assert (seen.kind, seen.detail) == ("forwarded-tcpip", f"localhost:{port} from 127.0.0.1 port {name}")
        await client.send_all(channel, b"all I have")
        client.send_eof(channel)
        assert await reader.read() == b"all I have"
        assert not channel.closed
        writer.write(b"still listening")
        await here(writer)
        await client.until(lambda: channel.closed)
        assert channel.out == b"still listening"


async def test_a_slow_client_stops_its_channel_alone() -> None:
    async with forwarding() as server:
        client = await server.login(answers=ACCEPTING)
        port = await listen(client)
        _, slow = await connect(port)
        channel = await opened(client)
        channel.consume = False
        blocked = asyncio.ensure_future(_fill(slow))
        await client.until(lambda: channel.received >= Limits().window_bytes)
        _, other = await connect(port)
        second = await opened(client, 2)
        other.write(b"through")
        await client.until(lambda: second.out == b"through")
        assert channel.received == Limits().window_bytes
        assert not blocked.done()
        blocked.cancel()
        for writer in (slow, other):
            writer.transport.abort()


async def _fill(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(MIB))
        await writer.drain()


@both_sides
async def test_a_cancelled_port_is_free_and_what_runs_goes_on(where: Any) -> None:
    async with forwarding(where) as server:
        client = await server.login(answers=ACCEPTING)
        port = await listen(client, "localhost")
        _, writer = await connect(port)
        channel = await opened(client)
        assert not await cancel(client, "127.0.0.1", port)
        assert not await cancel(client, "localhost", port + 1)
        assert await cancel(client, "localhost", port)
        assert refused(port)
        writer.write(b"on")
        await client.until(lambda: channel.out == b"on")
        assert not await cancel(client, "localhost", port)
        assert await listen(client, "localhost", port) == port
        await here(writer)


async def test_requests_are_carried_out_one_after_the_other() -> None:
    async with forwarding() as server:
        client = await server.login()
        port = await listen(client)
        assert await cancel(client, "localhost", port)
        for name in ("tcpip-forward", "cancel-tcpip-forward"):  # in one packet run
            client.engine.request_global(UnknownGlobalRequest(name, text("localhost") + uint32(port)), want_reply=True)
        before = len(client.global_answers)
        client.move()
        await client.until(lambda: len(client.global_answers) == before + 2)
        assert client.global_answers[before:] == [True, True]
        assert refused(port)


async def test_what_was_asked_for_can_be_cancelled_as_it_was() -> None:
    async with forwarding() as server:
        client = await server.login()
        port = await listen(client, "localhost", 0)
        assert await cancel(client, "localhost", 0)
        assert refused(port)


async def test_nobody_listens_twice_or_cancels_for_another() -> None:
    async with forwarding() as server:
        client, other = await server.login(), await server.login()
        port = await listen(client)
        assert await listen(client, "localhost", port) == 0
        assert await listen(other, "localhost", port) == 0
        assert not await cancel(other, "localhost", port)
        assert not refused(port)


def bound(server: Placed, port: int) -> set[str]:
    """The addresses that this process listens on."""
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    ours = {os.readlink(link) for link in links if os.path.exists(link)}
    found = set()
    for name, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        with open(name) as table:
            for line in list(table)[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                address, _, number = local.partition(":")
                if state == "0A" and int(number, 16) == port and f"socket:[{inode}]" in ours:
                    words = bytes.fromhex(address)
                    packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                    found.add(socket.inet_ntop(family, packed))
    return found


LOOPBACK, EVERY = {"127.0.0.1", "::1"}, {"0.0.0.0", "::"}


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp6"), reason="needs Linux and IPv6")
@pytest.mark.parametrize(
    ("gateway_ports", "host", "wanted"),
    [
        ("no", "", LOOPBACK), ("no", "*", LOOPBACK), ("no", "0.0.0.0", LOOPBACK), ("no", "localhost", LOOPBACK),
        ("no", "192.0.2.1", LOOPBACK), ("no", "127.0.0.1", {"127.0.0.1"}), ("no", "::1", {"::1"}),
        ("yes", "localhost", EVERY), ("yes", "", EVERY),
        ("client", "", EVERY), ("client", "*", EVERY), ("client", "0.0.0.0", {"0.0.0.0"}), ("client", "::", {"::"}),
        ("client", "localhost", LOOPBACK), ("client", "127.0.0.2", {"127.0.0.2"}),
    ],
)  # fmt: skip
async def test_where_it_listens(gateway_ports: str, host: str, wanted: set[str]) -> None:
    async with forwarding(gateway_ports=gateway_ports) as server:
        client = await server.login()
        port = await listen(client, host)
        assert bound(server, port) == wanted
        client.close()
        await eventually(lambda: not bound(server, port))


@pytest.mark.parametrize(
    "data",
    [b"", text("localhost"), text("localhost") + uint32(65536), text("a\0b") + uint32(0), text("h") + uint32(0) + b"x",
     b"\0\0\0\1\xff" + uint32(0)],
)  # fmt: skip
async def test_malformed_addresses_are_refused(data: bytes) -> None:
    async with forwarding(gateway_ports="client") as server:
        client = await server.login()
        assert not (await ask(client, "tcpip-forward", data)).success
        assert not (await ask(client, "cancel-tcpip-forward", data)).success
        assert client.ended is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "*", "0", "::ffff:0.0.0.0"])
async def test_where_the_client_chooses_rules_are_about_what_it_means(host: str) -> None:
    async with forwarding(
        gateway_ports="client", rules=("listen *:*", "!listen 0.0.0.0/0:*", "!listen ::/0:*")
    ) as server:
        assert not await listen(await server.login(), host)
    async with forwarding(gateway_ports="client", rules=("listen 127.0.0.0/8:*", "listen [::1]:*")) as server:
        client = await server.login()
        assert not await listen(client, host)
        assert await listen(client, "127.0.0.1")


async def test_no_name_is_longer_than_names_are() -> None:
    async with forwarding() as server:
        assert not await listen(await server.login(), "x" * 256)


async def test_addresses_that_are_not_there_are_refused() -> None:
    async with forwarding(gateway_ports="client") as server:
        client = await server.login()
        assert await listen(client, "192.0.2.1") == 0
        assert await listen(client, "x" * 300) == 0
        assert await listen(client, "localhost") != 0


async def test_the_policies_decide() -> None:
    async with forwarding(rules=("listen localhost:0", "listen localhost:40000-50000")) as server:
        client = await server.login()
        assert await listen(client, "", 0) == 0
        assert await listen(client, "localhost", 39999) == 0
        assert await listen(client, "localhost", 0) != 0
    async with forwarding(rules=()) as server:
        assert await listen(await server.login()) == 0


class Granting:
    """Lets in, and grants something."""

    method = "password"

    def __init__(self, grant: object) -> None:
        self._grant = grant

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        return Allow(self._grant)


@both_sides
async def test_what_the_login_granted_decides_as_well(where: Any) -> None:
    class Rights:
        """Allows one host alone."""

        async def allows(self, forward: Forward) -> bool:
            return forward.host == "localhost" and self in forward.connection.grants

    async with forwarding(where, authenticators=[Granting(Rights())]) as server:
        client = await server.login()
        assert await listen(client, "127.0.0.1") == 0
        assert await listen(client, "localhost") != 0
    async with forwarding(where, rules=(), authenticators=[Granting(Rights())]) as server:
        assert await listen(await server.login(), "localhost") == 0


async def test_an_application_that_holds_its_loop_holds_up_nobody() -> None:
    async with forwarding(("thread", 1)) as server:
        client = await server.login(answers=ACCEPTING)
        port = await listen(client)
        passed: list[bytes] = []

        def use() -> None:
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sock.settimeout(10)
                passed.append(sock.recv(5))

        # The client has a loop of its own here, in a thread that answers while this one is held.
        thread = threading.Thread(target=use)
        thread.start()
        while server.server.counters["channels"] == 0:
            time.sleep(0.01)  # noqa: ASYNC251
            client._readable()
        channel = client.channels[max(client.channels)]
        client.send(channel, b"hello")
        thread.join(10)
        assert passed == [b"hello"]


@pytest.mark.skipif(os.name != "posix", reason="root is posix's")
@both_sides
async def test_ports_of_root_are_refused(where: Any) -> None:
    nobody = Account("nobody", 65534, 65534, "/", "/bin/sh")
    async with forwarding(where, authenticators=[Granting(nobody)]) as server:
        client = await server.login()
        assert await listen(client, "localhost", 1023) == 0
        assert await listen(client, "localhost", 0) != 0


async def test_so_many_connections_are_forwarded_at_once() -> None:
    async with forwarding(limits=Limits(forwarded_connections=2)) as server:
        client = await server.login(answers=ACCEPTING)
        port = await listen(client)
        first = await connect(port)
        await opened(client)
        second = await connect(port)
        await opened(client, 2)
        third = await connect(port)
        assert await third[0].read() == b""
        assert len(client.channels) == 2
        assert (await client.run("echo on")).out == b"on\n"  # sessions do not count
        await here(first[1])
        client.close_channel(client.channels[0])
        await client.until(lambda: client.channels[0].closed)
        fourth = await connect(port)
        await opened(client, 4)
        for _, writer in (second, third, fourth):
            await here(writer)


async def test_a_connection_has_so_many_listeners() -> None:
    async with forwarding(limits=Limits(listeners=3)) as server:
        client = await server.login()
        ports = [await listen(client) for _ in range(4)]
        assert [bool(port) for port in ports] == [True, True, True, False]
        assert await cancel(client, "localhost", ports[0])
        assert await listen(client) != 0


async def test_a_client_that_refuses_has_the_connection_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with forwarding() as server:
        client = await server.login(answers={ChannelOpenQuestion: Refusal(1, "not\nme")})
        reader, writer = await connect(await listen(client))
        assert await reader.read() == b""
        await here(writer)
        assert any("the client refused" in line and "not\\x0ame" in line for line in caplog.messages)


async def test_who_does_not_answer_bounds_what_is_accepted() -> None:
    async with forwarding(limits=Limits(channels=20)) as server:
        silent = {ChannelOpenQuestion: None}
        client = await server.login(answers=silent)
        port = await listen(client)
        client.pause()
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
        # 20 wait for the client, the others are closed: it has no more channels.
        for sock in sockets:
            sock.setblocking(False)
        await eventually(lambda: sum(_ended(sock) for sock in sockets) == 10)
        for sock in sockets:
            sock.close()


def _ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def record(self, event: AuditEvent) -> None:
        self.events.append(event)


@both_sides
async def test_what_is_forwarded_is_recorded(where: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dunnart.forward")
    sink = Sink()
    async with forwarding(where, rules=("listen localhost:0",), audit=[sink]) as server:
        client = await server.login(answers=ACCEPTING)
        assert await listen(client, "", 0) == 0
        port = await listen(client)
        _, writer = await connect(port)
        channel = await opened(client)
        writer.write(b"12345")
        await client.until(lambda: channel.out == b"12345")
        await client.send_all(channel, b"123")
        client.send_eof(channel)
        await here(writer)
        await client.until(lambda: channel.closed)
        assert await cancel(client, "localhost", port)
        await eventually(lambda: sink.events[-1].kind == "listen-end")
        events = {event.kind: event for event in sink.events}
        assert list(events) == [
            "login", "forward-refused", "listen-begin", "channel-begin", "channel-end", "listen-end",
        ]  # fmt: skip
        assert {event.user for event in sink.events} == {USER}
        assert events["forward-refused"].details == {"detail": "listen '' port 0"}
        assert events["listen-begin"].details == {"what": "forwarded-tcpip", "detail": f"localhost port {port}"}
        assert events["listen-end"].details == events["listen-begin"].details
        ended = dict(events["channel-end"].details)
        assert 0 <= float(ended.pop("seconds")) < 20
        assert ended == dict(events["channel-begin"].details) | {"bytes_received": 3, "bytes_sent": 5}
        assert str(ended["detail"]).startswith(f"localhost:{port} from 127.0.0.1 port ")
        counters = (await server.server.status()).counters
        assert (counters["forwarded_bytes_received"], counters["forwarded_bytes_sent"]) == (3, 5)
        assert (counters["channels"], counters["refused_forwards"]) == (1, 1)
    assert any("may not have forwarded: listen '' port 0" in line for line in caplog.messages)
    assert any("3 bytes received, 5 sent" in line for line in caplog.messages)


async def test_a_listener_rests_while_there_are_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    async with forwarding(retry_seconds=0.01) as server:
        client = await server.login(answers=ACCEPTING)
        port = await listen(client)
        accept, failures = socket.socket.accept, iter([errno.EMFILE, errno.ECONNABORTED, errno.ENFILE])

        def scarce(sock: socket.socket) -> Any:
            number = next(failures, 0)
            if number:
                raise OSError(number, "scarce")
            return accept(sock)

        monkeypatch.setattr(socket.socket, "accept", scarce)
        _, writer = await connect(port)
        channel = await opened(client)
        writer.write(b"at last")
        await client.until(lambda: channel.out == b"at last")
        assert next(failures, 0) == 0
        await here(writer)


@both_sides
async def test_nothing_is_left_of_clients_that_vanish(where: Any) -> None:
    async with forwarding(where) as server:

        async def some(count: int) -> None:
            for number in range(count):
                client = await server.login(answers=ACCEPTING if number % 2 else {})
                port = await listen(client)
                reader, writer = await connect(port)
                if number % 2:
                    await opened(client)
                client.reset()
                await eventually(lambda: refused(port))  # noqa: B023 - waited for here
                assert await reader.read() == b""
                await here(writer)
            await eventually(lambda: server.server.connections == 0)
            server.clients.clear()
            gc.collect()

        await some(4)
        before = descriptors()
        await some(12)
        await eventually(lambda: descriptors() <= before + 1)
