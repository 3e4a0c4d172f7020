"""What a connection forwards, in this process: both ends are ours."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import dunnart
from dunnart.client import Channel, Connection, Endpoint, Listener, blocking
from dunnart.errors import ChannelError, ConfigError, ConnectionClosed
from tests.client.support import KEY, USER, serving


@asynccontextmanager
async def echoing(path: Path | None = None) -> AsyncIterator[Endpoint]:
    """Give back what comes, in this process."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    if path is None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address: Endpoint = server.sockets[0].getsockname()
    else:
        server = await asyncio.start_unix_server(echo, path)
        address = str(path)
    async with server:
        yield address


async def said(address: Endpoint, text: bytes = b"hello") -> bytes:
    """Say something there; what comes back."""
    opening = asyncio.open_unix_connection(address) if isinstance(address, str) else asyncio.open_connection(*address)
    reader, writer = await opening
    with contextlib.closing(writer):
        writer.write(text)
        writer.write_eof()
        return await reader.read()


@asynccontextmanager
async def connected() -> AsyncIterator[Connection]:
    async with serving(**dunnart.forwarding()) as server, server.connect() as connection:
        yield connection


async def test_both_ways_by_tcp_and_by_unix_sockets(tmp_path: Path) -> None:
    async with connected() as connection, echoing() as tcp, echoing(tmp_path / "echo") as unix:
        here = str(tmp_path / "here")
        listeners: list[Listener] = []
        for _ in range(2):
            listeners += [
                await connection.forward_local(("localhost", 0), tcp), await connection.forward_local(here, tcp),
                await connection.forward_remote(("localhost", 0), tcp),
                await connection.forward_remote(("localhost", 0), unix),
            ]  # fmt: skip
            for listener in listeners:
                assert await said(listener.address) == b"hello"
            while listeners:
                listener = listeners.pop()
                await listener.close()
                await listener.close()
                with pytest.raises((ConnectionError, FileNotFoundError)):
                    await said(listener.address)


async def test_what_cannot_be_forwarded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with connected() as connection:
            with pytest.raises(ConfigError, match="cannot listen on"):
                await connection.forward_local(("127.0.0.1", port), ("h", 1))
            with pytest.raises(ChannelError, match=r"does not listen on 127\.0\.0\.1 port"):
                await connection.forward_remote(("127.0.0.1", port), ("h", 1))
            nowhere = str(tmp_path / "nowhere")
            with caplog.at_level(logging.WARNING, "dunnart.client"):
                for listener in (
                    await connection.forward_local(("127.0.0.1", 0), nowhere),
                    await connection.forward_remote(("127.0.0.1", 0), nowhere),
                ):
                    with contextlib.suppress(OSError):  # closed while we speak
                        assert await said(listener.address) == b""
            assert "is not forwarded" in caplog.text
            assert "cannot be reached" in caplog.text
            listener = await connection.forward_local(("127.0.0.1", 0), nowhere)
        with pytest.raises((ConnectionError, FileNotFoundError)):
            await said(listener.address)
        with pytest.raises(ConnectionClosed):
            await connection.forward_dynamic(("127.0.0.1", 0))


async def test_forwards_leave_each_other_alone() -> None:
    async with connected() as connection, echoing() as tcp:
        listeners = [
            await connection.forward_remote(("127.0.0.1", 0), tcp),
            *await asyncio.gather(*(connection.forward_remote(("127.0.0.1", 0), tcp) for _ in range(2))),
        ]
        for listener in listeners:
            with pytest.raises(ChannelError, match=r"does not listen on 127\.0\.0\.1 port"):
                await connection.forward_remote(listener.address, ("h", 1))
            assert await said(listener.address) == b"hello"


async def test_a_socks_client_that_gives_up_leaves_no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as connection, echoing() as tcp:
        listener = await connection.forward_dynamic(("127.0.0.1", 0))
        client = socket.create_connection((listener.address[0], int(listener.address[1])))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        opened = asyncio.Event()
        really = connection.open_direct

        async def open_direct(*arguments: Any, **options: Any) -> Channel:
            channel = await really(*arguments, **options)
            client.close()  # with a RST: what is sent now fails
            opened.set()
            return channel

        monkeypatch.setattr(connection, "open_direct", open_direct)
        client.sendall(b"\4\1" + int(tcp[1]).to_bytes(2, "big") + socket.inet_aton("127.0.0.1") + b"\0")
        await opened.wait()
        await asyncio.wait_for(connection.wait_idle(), 20)


async def test_a_server_opens_nothing_that_nobody_has_asked_for() -> None:
    async with serving(**dunnart.forwarding()) as server, server.connect() as connection:
        assert connection.open_channels == ()
        await connection.wait_idle()
        assert await connection.ask_global("no-such-request", b"") is None


async def test_without_a_loop() -> None:
    async with serving(**dunnart.forwarding()) as server, echoing() as tcp:

        def work() -> None:
            options = {"user": USER, "keys": [KEY], "agent": False, "known_hosts": server.known}
            with blocking.connect("127.0.0.1", server.port, **options) as connection:  # type: ignore[arg-type]
                listener = connection.forward_local(("127.0.0.1", 0), tcp)
                with listener, socket.create_connection(listener.address) as sock:  # type: ignore[arg-type]
                    sock.sendall(b"hello")
                    assert sock.recv(5) == b"hello"
                connection.forward_remote(("127.0.0.1", 0), tcp).close()
                connection.forward_dynamic(("127.0.0.1", 0)).close()

        await asyncio.to_thread(work)
