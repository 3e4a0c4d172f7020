"""Local forwarding: what arrives, half-closes, refusals, and that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from dunnart.plugins.allow_list import AllowList
from dunnart.plugins.allow_list import Options as Allowed
from dunnart.plugins.direct_tcpip import DirectTcpip, Options
from dunnart.protocol.events import ChannelRefused
from dunnart.server import Address, ChannelOpening, ConnectionFacts, Rights
from dunnart.server.interfaces import Forward, Refusal
from dunnart.server.plugins import Context
from dunnart.wire.encoding import text, uint32
from tests.runtime.driver import MIB, Channel, Client, descriptors, eventually
from tests.runtime.test_placements import Placed, every_placement, placed

LOG = logging.getLogger("dunnart.plugin.test")


def allow(*rules: str) -> AllowList:
    return AllowList(Context("allow-list", Allowed(rules or ("connect *:*",)), LOG))


@asynccontextmanager
async def forwarding(where: Any, policy: Any = None, **options: Any) -> AsyncIterator[Placed]:
    types = {"direct-tcpip": DirectTcpip(Context("direct-tcpip", Options(2.0), LOG))}
    async with placed(where, channel_types=types, forwarding=[policy or allow()], **options) as server:
        yield server


@asynccontextmanager
async def echoing(*, first: bytes = b"") -> AsyncIterator[int]:
    """A TCP server that gives back what it reads, and says bye after the end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # some clients vanish
            writer.write(first)
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write(b"bye")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def dial(client: Client, port: int, host: str = "127.0.0.1", extra: bytes = b"") -> Channel:
    data = text(host) + uint32(port) + text("127.0.0.1") + uint32(1) + extra
    number = client.engine.open_channel("direct-tcpip", data)
    channel = client.channels[number] = Channel(number)
    client.move()
    await client.until(lambda: channel.opened is not None)
    return channel


def reason(client: Client) -> str:
    return [event.description for event in client.events if isinstance(event, ChannelRefused)][-1]


@every_placement
async def test_bytes_go_both_ways_and_each_end_by_itself(where: Any) -> None:
    async with forwarding(where) as server, echoing(first=b"hello") as port:
        client = await server.login()
        channel = await dial(client, port)
        await client.until(lambda: channel.out == b"hello")
        data = os.urandom(3 * MIB)
        await client.send_all(channel, data)
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        assert channel.out == b"hello" + data + b"bye"
        assert channel.order == ["data", "eof", "close"]


async def test_the_destination_may_end_first() -> None:
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"all I have")
        writer.write_eof()
        received.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with forwarding(("loop", 1)) as ours, server:
        client = await ours.login()
        channel = await dial(client, server.sockets[0].getsockname()[1])
        await client.until(lambda: channel.eof)
        assert not channel.closed
        await client.send_all(channel, b"still listening")
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        assert (channel.out, received) == (b"all I have", b"still listening")


async def test_a_slow_destination_stops_its_channel_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with forwarding(("loop", 1)) as server:
            client = await server.login()
            channel = await dial(client, listener.getsockname()[1])
            while client.send(channel, bytes(4 * MIB)):
                await client.run("true")
            assert (await client.run("echo on")).out == b"on\n"
            taken, _ = listener.accept()
            taken.close()  # with what it never read: a reset
            await client.until(lambda: channel.closed)


async def test_what_is_not_allowed_is_refused() -> None:
    async with forwarding(
        ("loop", 1), allow("connect local*:22", "connect 127.*:22", "connect 127.*:8000-8010")
    ) as server:
        client = await server.login()
        for host, port in (("127.0.0.1", 23), ("::1", 22), ("127.0.0.1", 8011)):
            assert not (await dial(client, port, host)).opened
            assert reason(client) == "forwarding there is not allowed"
    types = {"direct-tcpip": DirectTcpip(Context("direct-tcpip", Options(), LOG))}
    async with echoing() as port, placed(("loop", 1), channel_types=types) as server:
        client = await server.login()
        assert not (await dial(client, port)).opened  # without a policy nothing is


async def test_a_policy_that_fails_refuses() -> None:
    class Failing:
        async def allows(self, forward: Forward) -> bool:
            raise ZeroDivisionError("a policy's own fault")

    async with forwarding(("loop", 1), Failing()) as server, echoing() as port:
        client = await server.login()
        assert not (await dial(client, port)).opened
        assert server.server.counters["failures"] == 1


@pytest.mark.parametrize(
    ("host", "port", "extra"),
    [("", 22, b""), ("a\0b", 22, b""), ("h", 0, b""), ("h", 65536, b""), ("h", 22, b"x"), ("h", 0xFFFFFFFF, b"")],
)
async def test_malformed_destinations_are_refused(host: str, port: int, extra: bytes) -> None:
    async with forwarding(("loop", 1)) as server:
        client = await server.login()
        assert not (await dial(client, port, host, extra)).opened
        assert client.ended is None


async def test_who_cannot_be_reached_is_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with forwarding(("loop", 1)) as server:
        client = await server.login()
        assert not (await dial(client, port)).opened
        assert reason(client) == "connect failed"
        assert not (await dial(client, port, "x" * 300)).opened
    assert any("cannot be forwarded to '127.0.0.1'" in message for message in caplog.messages)


@every_placement
async def test_nothing_is_left_of_clients_that_vanish(where: Any) -> None:
    async with forwarding(where) as server, echoing() as port:

        async def some(count: int) -> None:
            for number in range(count):
                client = await server.login()
                if number % 2:
                    channel = await dial(client, port)
                    client.send(channel, b"x")
                else:  # gone while it is opened
                    client.engine.open_channel("direct-tcpip", text("127.0.0.1") + uint32(port) + text("") + uint32(0))
                    client.move()
                client.reset()
            await eventually(lambda: server.server.connections == 0)
            server.clients.clear()
            gc.collect()

        await some(4)
        before = descriptors()
        await some(20)
        await eventually(lambda: descriptors() <= before + 1)


@every_placement
async def test_what_is_forwarded_leaves_descriptors_for_others(where: Any) -> None:
    """With a quarter left no more is joined, and sessions go on being opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with echoing() as port:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        try:
            async with forwarding(where) as server:
                client = await server.login()
                channels = [await dial(client, port) for _ in range(200)]
                await eventually(lambda: any(not each.opened or each.closed for each in channels))
                assert sum(each.opened is True for each in channels) > 20
                assert (await client.run("echo there")).out == b"there\n"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_destination_that_does_not_answer_is_given_up() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filling = [socket.socket() for _ in range(4)]
        for sock in filling:  # what its backlog does not take the kernel drops
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        types = {"direct-tcpip": DirectTcpip(Context("direct-tcpip", Options(0.3), LOG))}
        async with placed(("loop", 1), channel_types=types, forwarding=[allow()]) as server:
            client = await server.login()
            channel = await dial(client, listener.getsockname()[1])
            assert not channel.opened
            assert reason(client) == "connect failed"
        for sock in filling:
            sock.close()


async def test_names_are_connected_to_as_far_as_their_addresses_are_allowed() -> None:
    async with forwarding(("loop", 1), allow("connect *:*", "!connect 127.0.0.0/8:*")) as server, echoing() as port:
        client = await server.login()
        for host in ("localhost", "127.0.0.1", "::ffff:127.0.0.1"):
            assert not (await dial(client, port, host)).opened


async def test_ipv6() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    try:
        listener = await asyncio.start_server(serve, "::1", 0)
    except OSError:
        pytest.skip("this system has no IPv6")
    async with listener, forwarding(("loop", 1), allow("connect [::1]:*")) as server:
        client = await server.login()
        port = listener.sockets[0].getsockname()[1]
        for host in ("::1", "0:0:0:0:0:0:0:1"):
            channel = await dial(client, port, host)
            await client.send_all(channel, b"six")
            client.send_eof(channel)
            await client.until(lambda: channel.closed)  # noqa: B023 - waited for here
            assert channel.out == b"six"
        assert not (await dial(client, port, "127.0.0.1")).opened


class Refusing:
    """A client for which nothing is allowed."""

    async def allows(self, _: object) -> bool:
        return False


async def test_names_are_looked_up_for_those_who_may_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def look_up(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    plug_in = DirectTcpip(Context("direct-tcpip", Options(2.0), LOG))
    data = text("some.example") + uint32(80) + text("127.0.0.1") + uint32(1)
    for rights, wanted in ((Rights(port_forwarding=False), []), (Rights(), ["some.example"])):
        facts = ConnectionFacts(1, "ann", Address("192.0.2.7", 1), Address("192.0.2.1", 22), rights=rights)
        reply = await plug_in.open(ChannelOpening(facts, "direct-tcpip", data, cast("Any", Refusing())))
        assert isinstance(reply, Refusal)
        assert asked == wanted


async def test_names_that_nobody_answers_for_keep_no_login_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(30) and [])
    plug_in = DirectTcpip(Context("direct-tcpip", Options(2.0), LOG))
    data = text("some.example") + uint32(80) + text("127.0.0.1") + uint32(1)
    facts = ConnectionFacts(1, "ann", Address("192.0.2.7", 1), Address("192.0.2.1", 22))
    opening = ChannelOpening(facts, "direct-tcpip", data, cast("Any", None))
    waiting = [asyncio.create_task(plug_in.open(opening)) for _ in range(40)]
    await asyncio.sleep(0)  # all of them ask
    try:
        async with asyncio.timeout(20):  # where keys are looked up
            assert await asyncio.get_running_loop().run_in_executor(None, lambda: 7) == 7
    finally:
        release.set()
    assert all(isinstance(reply, Refusal) for reply in await asyncio.gather(*waiting))
