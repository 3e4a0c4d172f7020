"""The blocking client: the same, in a thread that has no event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dunnart.client import blocking
from dunnart.errors import ConnectionClosed, HostKeyError
from dunnart.keys import KnownHosts
from tests.client.support import KEY, USER, Running, noise, serving


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "dunnart-client"]


def connect(server: Running, **options: object) -> blocking.Connection:
    defaults: dict[str, object] = {"user": USER, "keys": [KEY], "agent": False, "known_hosts": server.known}
    return blocking.connect("127.0.0.1", server.port, **(defaults | options))  # type: ignore[arg-type]


async def test_commands_and_streams() -> None:
    def use() -> None:
        with connect(server) as connection:
            assert connection.run("both").stderr == b"err"
            assert connection.run("cat", noise(3_000_000)).stdout == noise(3_000_000)
            with connection.session(subsystem="cat") as session:
                session.write(b"word")
                assert session.read_exactly(4) == b"word"
                session.write_eof()
                assert session.read_all() == b""
                assert session.wait().status == 0
                assert session.exit.status == 0
            with connection.session("both") as session:
                assert session.stderr.read_all() == b"err"
        assert connection.closed
        with pytest.raises(ConnectionClosed, match="was closed"):
            connection.run("both")
        connection.close()

    async with serving() as server:
        await asyncio.to_thread(use)
    assert threads() == []


async def test_what_goes_wrong_is_raised_and_leaves_no_thread() -> None:
    async with serving() as server:
        with pytest.raises(HostKeyError, match="not known"):
            await asyncio.to_thread(connect, server, known_hosts=KnownHosts())
    assert threads() == []


async def test_callbacks_run_on_the_connections_own_loop() -> None:
    where = []

    async def trust(_: object) -> bool:
        where.append(threading.current_thread().name)
        return True

    async with serving() as server:
        connection = await asyncio.to_thread(connect, server, known_hosts=KnownHosts(), unknown_host=trust)
        await asyncio.to_thread(connection.close)
    assert where == ["dunnart-client"]
    assert threads() == []
