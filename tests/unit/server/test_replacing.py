"""A server whose description is exchanged while it runs, in every placement."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from dunnart.errors import ConfigError, LocalProtocolError
from dunnart.runtime.listeners import ListenAddress
from dunnart.server import PasswordCallback, Server, ServerConfig, Session
from tests.runtime.driver import HOST_KEY, right_password
from tests.unit.server.api import Api, begin, ended, every_placement, serving


def described(placement: Any, word: str, *listen: ListenAddress | socket.socket) -> dict[str, Any]:
    async def handler(session: Session) -> None:
        await session.write(word)
        await session.read()

    return {
        "handler": handler, "host_keys": [HOST_KEY], "authenticators": [PasswordCallback(right_password)],
        "listen": listen, "placement": placement, "admission": None,
    }  # fmt: skip


def reaches(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@every_placement
async def test_who_is_there_stays_and_who_comes_meets_the_new_one(placement: str, tmp_path: Path) -> None:
    kept, gone = ListenAddress("127.0.0.1", 0), ListenAddress("", 0, str(tmp_path / "gone"))
    added = ListenAddress("", 0, str(tmp_path / "added"))
    server = Server(**described(placement, "old", kept, gone))
    async with server:
        running, port = Api(server), server.port
        assert not any(each.getblocking() for _, sockets in server.listening for each in sockets)
        client = await running.login()
        old = await begin(client)
        await client.until(lambda: bytes(old.out) == b"old")
        await server.replace(ServerConfig(**described(placement, "new", kept, added)))
        assert server.port == port, "what both listen on stays open"
        assert not (tmp_path / "gone").exists()
        assert (tmp_path / "added").exists()
        newcomer = await running.login()
        new = await begin(newcomer)
        await newcomer.until(lambda: bytes(new.out) == b"new")
        first, second = await server.sessions()
        assert first.id < second.id
        assert [each.id for each in await server.sessions(first.id)] == [first.id]
        status = await server.status()
        assert (status.connections, status.logins, status.sessions) == (2, 2, 2)
        before = status.bytes_received

        # One that cannot listen changes nothing.
        with pytest.raises(ConfigError, match="cannot listen"):
            await server.replace(
                ServerConfig(**described(placement, "bad", kept, ListenAddress("", 0, "/nowhere/socket")))
            )
        again = await running.login()
        third = await begin(again)
        await again.until(lambda: bytes(third.out) == b"new")
        again.close()

        # The old one ends with its connections, and what it has counted stays.
        client.send_eof(old)
        assert await ended(client, old) == 0
        client.close()
        while (status := await server.status()).connections > 1:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
        assert status.logins == 3
        assert status.bytes_received > before
        assert await server.kill(second.id)
        newcomer.close()
        await server.drain(5)
        assert not reaches(port)
        assert not (tmp_path / "added").exists()
        with pytest.raises(LocalProtocolError):
            await server.replace(ServerConfig(**described(placement, "late", kept)))


async def test_it_ends_with_its_last_connection_while_another_listens() -> None:
    async with serving("loop") as running:
        server = running.server
        client = await running.login()
        other = socket.create_server(("127.0.0.1", 0))
        with other:
            end = server.begin_end(handed_over=True)
            while reaches(server.port):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)
            assert server.draining
            assert not end.done()
            client.close()
            await end
    await server.wait_closed()


async def test_who_comes_while_it_pauses_waits_for_the_next() -> None:
    where = ListenAddress("127.0.0.1", 0)
    async with Server(**described("loop", "old", where)) as server:
        await server.pause()
        newcomer = asyncio.create_task(Api(server).login())
        await asyncio.sleep(0)  # it has connected, and nobody answers
        assert server.connections == 0
        await server.replace(ServerConfig(**described("loop", "new", where)))
        client = await newcomer
        channel = await begin(client)
        await client.until(lambda: bytes(channel.out) == b"new")
        client.close()


@pytest.mark.parametrize("placement", ["loop", "process"])
async def test_a_connection_that_was_accepted_by_somebody_else(placement: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        async with Server(**described(placement, "one", theirs)) as server:
            assert server.addresses == ()
            loop = asyncio.get_running_loop()
            assert (await loop.sock_recv(ours, 4096)).startswith(b"SSH-2.0-dunnart")
            assert server.connections == 1
            ours.shutdown(socket.SHUT_RDWR)
            await server.emptied()
            assert server.connections == 0
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        async with Server(**described(placement, "one", theirs), identified=True):
            assert (await asyncio.get_running_loop().sock_recv(ours, 4096))[5] == 20, "KEXINIT, not the version line"
