"""The relay itself, where clients do not read and descriptors run out."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from dunnart.testing.faults import Faults
from dunnart.testing.relay import Link
from dunnart.testing.ssh_server import SshServer
from tests.unit.testing.clients import SECONDS, dialled

DATA = os.urandom(2 << 20)
FEW_BYTES = 4096


@asynccontextmanager
async def stuck() -> AsyncIterator[tuple[socket.socket, Link, asyncio.Task[None]]]:
    """A link whose client does not read, and the task that sends it data."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FEW_BYTES)
        client.connect(listener.getsockname())
        client.setblocking(False)
        accepted, peer = listener.accept()
        accepted.setblocking(False)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, FEW_BYTES)
        link = Link(accepted, peer, Faults(lambda function: function(), lambda: None))
        with link.tap:
            link.tap.setblocking(False)
            running = asyncio.create_task(link.run())
            sending = asyncio.create_task(loop.sock_sendall(link.tap, DATA))
            assert not (await asyncio.wait([sending], timeout=0.1))[0]
            yield client, link, sending
            with suppress(OSError):  # the link has ended
                await sending
        await running


async def read(client: socket.socket, size: int = len(DATA) + 1) -> bytes:
    """So many bytes."""
    received = b""
    while len(received) < size:
        received += await asyncio.get_running_loop().sock_recv(client, 65536)
    return received


def test_a_sender_waits_for_a_client_that_does_not_read() -> None:
    async def run() -> None:
        async with asyncio.timeout(SECONDS), stuck() as (client, _, sending):
            assert await read(client, len(DATA)) == DATA
            await sending

    asyncio.run(run())


def test_a_connection_that_nobody_reads_from_is_cut() -> None:
    async def run() -> None:
        async with asyncio.timeout(SECONDS), stuck() as (client, link, sending):
            link.cut(reset=True)
            await link.flushed.wait()
            with pytest.raises(BrokenPipeError):
                await sending
            with pytest.raises(ConnectionResetError):
                await read(client)

    asyncio.run(run())


def test_clients_are_accepted_again_when_there_are_descriptors_again(server: SshServer) -> None:
    with socket.socket() as early:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))  # what is open stays so
        try:
            early.connect((server.host, server.port))
            early.settimeout(0.2)
            with pytest.raises(TimeoutError):
                early.recv(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        early.settimeout(SECONDS)
        assert early.recv(4) == b"SSH-"
    with dialled(server) as sock:
        assert sock.recv(4) == b"SSH-"
