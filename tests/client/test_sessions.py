"""Sessions of the client: bytes both ways, ends, requests."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from dunnart.client import Terminal
from dunnart.errors import ChannelError
from tests.client.support import MIB, noise, serving


async def test_a_command_runs_to_its_end() -> None:
    async with serving() as server, server.connect() as connection:
        done = await connection.run("both")
        assert (done.status, done.stdout, done.stderr) == (0, b"out", b"err")
        assert (await connection.run("exit 7")).status == 7
        assert (await connection.run("cat", b"there and back")).stdout == b"there and back"


async def test_a_subsystem_is_a_byte_stream() -> None:
    async with serving() as server, server.connect() as connection:
        session = await connection.session(subsystem="cat")
        await session.write(b"some")
        assert await session.read_exactly(4) == b"some"
        await session.write(b"more")
        await session.write_eof()
        assert await session.read_all() == b"more"
        assert await session.read() == b""
        assert (await session.wait()).status == 0
        await session.close()


async def test_64_mib_come_whole_both_ways_at_once() -> None:
    data = noise(64 * MIB)
    async with serving() as server, server.connect() as connection:
        done = await connection.run("cat", data)
        assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


async def test_a_terminal_is_asked_for() -> None:
    async with serving() as server, server.connect() as connection:
        session = await connection.session("terminal", terminal=Terminal("vt100", 93))
        assert await session.read_all() == b"('vt100', 93)"


async def test_what_the_server_does_not_have_is_refused() -> None:
    async with serving() as server, server.connect() as connection:
        with pytest.raises(ChannelError, match="refuses the subsystem 'nothing'"):
            await connection.session(subsystem="nothing")
        assert (await connection.run("echo on")).stdout == b"on"


async def test_a_command_is_a_line() -> None:
    async with serving() as server, server.connect() as connection:
        with pytest.raises(TypeError, match=r"a command is a str or bytes, not list: .* shlex\.join"):
            await connection.run(["ls"])  # type: ignore[arg-type]
        assert (await connection.run("echo on")).stdout == b"on"


async def test_several_sessions_share_a_connection() -> None:
    async with serving() as server, server.connect() as connection:
        done = await asyncio.gather(*(connection.run("cat", noise(100_000 + n)) for n in range(5)))
        assert [len(each.stdout) for each in done] == [100_000 + n for n in range(5)]
