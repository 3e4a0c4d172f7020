"""Lines read at a terminal by handlers: `Session.readline`, `BlockingSession.stdin`, and what goes on beside them."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest

from dunnart.errors import Interrupted
from dunnart.protocol.requests import EnvironmentRequest, PtyRequest, WindowChange
from dunnart.server import BlockingSession, Session
from tests.runtime.driver import Channel, Client
from tests.unit.line_editor.emulator import Emulator
from tests.unit.server.api import begin, ended, every_placement, serving

XTERM = PtyRequest("xterm", 40, 10, 0, 0, b"")


def shown(channel: Channel) -> list[str]:
    """What the terminal shows now."""
    screen = Emulator(40)
    screen.feed(bytes(channel.out))
    return screen.rows


async def until_shown(client: Client, channel: Channel, *lines: str) -> None:
    await client.until(lambda: shown(channel) == list(lines))


def ends(channel: Channel, tail: bytes) -> bool:
    return channel.out.endswith(tail)


async def asks(session: Session) -> int:
    """Reads lines until "done", and says what it got."""
    while True:
        try:
            line = await session.readline("> ")
        except Interrupted:
            await session.write("interrupted\n")
            continue
        except EOFError:
            await session.write("end\n")
            return 3
        if line == "password":
            line = await session.readline("secret: ", echo=False)
        await session.write(f"got {line!a}\n")


def asks_blocking(session: BlockingSession) -> int:
    while True:
        try:
            line = session.readline("> ")
        except Interrupted:
            print("interrupted", file=session.stdout)
            continue
        except EOFError:
            print("end", file=session.stdout)
            return 3
        if line == "password":
            line = session.readline("secret: ", echo=False)
        print(f"got {line!a}", file=session.stdout)


both = pytest.mark.parametrize("handler", [asks, asks_blocking], ids=["async", "blocking"])


@every_placement
@both
async def test_lines_are_edited(placement: str, handler: Any) -> None:
    async with serving(placement, handler) as running:
        client = await running.login()
        channel = await begin(client, XTERM)
        await until_shown(client, channel, ">")
        client.send(channel, b"hallo\x1b[D\x1b[D\x1b[D\x7fe\x05!")
        await until_shown(client, channel, "> hello!")
        client.send(channel, b"\r")
        await until_shown(client, channel, "> hello!", "got 'hello!'", ">")
        client.send(channel, b"\x1b[A\x1b[A?\r")
        await until_shown(client, channel, "> hello!", "got 'hello!'", "> hello!?", "got 'hello!?'", ">")
        client.send(channel, b"\x04")
        assert await ended(client, channel) == 3


@every_placement
@both
async def test_control_c_and_passwords(placement: str, handler: Any) -> None:
    async with serving(placement, handler) as running:
        client = await running.login()
        channel = await begin(client, XTERM)
        client.send(channel, b"abc\x03")
        await until_shown(client, channel, "> abc^C", "interrupted", ">")
        client.send(channel, b"password\rtyped ahead")
        await until_shown(client, channel, "> abc^C", "interrupted", "> password", "secret:")
        client.send(channel, b"\r\x1b[A")
        await until_shown(
            client, channel, "> abc^C", "interrupted", "> password", "secret:", "got 'typed ahead'", "> password"
        )


@every_placement
@both
async def test_a_line_fits_a_new_size(placement: str, handler: Any) -> None:
    async with serving(placement, handler) as running:
        client = await running.login()
        channel = await begin(client, XTERM)
        client.send(channel, b"0123456789" * 3)
        await until_shown(client, channel, "> " + "0123456789" * 3)
        screen = Emulator(40)
        screen.feed(bytes(channel.out))
        screen.rewrap(20)
        before = len(channel.out)
        client.request(channel, WindowChange(20, 10, 0, 0))
        await client.until(lambda: len(channel.out) > before)
        screen.feed(bytes(channel.out[before:]))
        assert screen.rows == ["> 012345678901234567", "890123456789"]
        client.send(channel, b"x\r")
        await client.until(lambda: b"got '" + b"0123456789" * 3 + b"x'" in channel.out)


@both
async def test_an_end_of_input_ends_the_line(handler: Any) -> None:
    async with serving("loop", handler) as running:
        client = await running.login()
        channel = await begin(client, XTERM)
        client.send(channel, b"last")
        client.send_eof(channel)
        assert await ended(client, channel) == 3
        assert shown(channel) == ["> last", "got 'last'", ">", "end"]


@both
async def test_a_client_that_vanishes_ends_the_handler(handler: Any) -> None:
    async with serving("thread", handler) as running:
        client = await running.login()
        await begin(client, XTERM)
        client.reset()
        while running.server.connections or (await running.server.status()).application.busy:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert running.server.counters["failures"] == 0


@both
async def test_without_a_terminal_lines_are_plain(handler: Any) -> None:
    async with serving("loop", handler) as running:
        client = await running.login()
        channel = await begin(client)
        client.send(channel, b"a\x7fb\r\npassword\nsecret\nlast")
        client.send_eof(channel)
        assert await ended(client, channel) == 3
        assert channel.out.replace(b"> ", b"").replace(b"secret: ", b"") == (
            b"got 'a\\x7fb'\ngot 'secret'\ngot 'last'\nend\n"
        )


@both
async def test_latin_1(handler: Any) -> None:
    async with serving("loop", handler) as running:
        client = await running.login()
        channel = await begin(client, EnvironmentRequest("LC_ALL", "de_DE.ISO-8859-1"), XTERM)
        client.send(channel, b"\xe4\r")
        await client.until(lambda: b"got '\\xe4'" in channel.out)
        assert b"\xe4" in channel.out
        assert b"\xc3\xa4" not in channel.out


async def test_an_interrupt_that_nobody_handles_is_status_130() -> None:
    async def handler(session: Session) -> None:
        await session.readline()

    def blocking(session: BlockingSession) -> None:
        session.stdin.read()

    async with serving("loop", subsystems={"async": handler, "blocking": blocking}) as running:
        client = await running.login()
        for name in ("async", "blocking"):
            channel = await begin(client, XTERM, subsystem=name)
            client.send(channel, b"x\x03")
            assert await ended(client, channel) == 130
        assert running.server.counters["failures"] == 0


async def test_iteration_over_lines() -> None:
    async def handler(session: Session) -> None:
        async for line in session:
            await session.write(f"<{line}>")

    def blocking(session: BlockingSession) -> None:
        for line in session.stdin:
            session.stdout.write(f"<{line.rstrip()}>")

    async with serving("loop", subsystems={"async": handler, "blocking": blocking}) as running:
        client = await running.login()
        channel = await begin(client, XTERM, subsystem="async")
        client.send(channel, b"one\rdrop\x03two\r\x04")
        assert await ended(client, channel) == 0
        assert shown(channel)[-1].endswith("<two>")
        assert b"<one>" in channel.out
        channel = await begin(client, XTERM, subsystem="blocking")
        client.send(channel, b"one\rtwo\r\x04")
        assert await ended(client, channel) == 0
        assert b"<one>" in channel.out
        assert b"<two>" in channel.out


async def test_bytes_behind_a_line_go_to_who_reads_next() -> None:
    async def handler(session: Session) -> None:
        assert await session.readline() == "mode raw"
        assert await session.read(3) == b"abc"
        assert await session.read() == b"\x01\r"
        await session.write(b"raw")
        assert await session.read(1) == b"x"
        assert await session.readline() == "yz"

    def blocking(session: BlockingSession) -> None:
        assert session.readline() == "mode raw"
        assert session.read(3) == b"abc"
        assert session.read() == b"\x01\r"
        session.stdout.write("raw")
        session.stdout.flush()
        assert session.read(1) == b"x"
        assert session.readline() == "yz"

    async with serving("loop", subsystems={"async": handler, "blocking": blocking}) as running:
        client = await running.login()
        for name in ("async", "blocking"):
            channel = await begin(client, XTERM, subsystem=name)
            client.send(channel, b"mode raw\rabc\x01\r")
            await client.until(partial(ends, channel, b"raw"))
            client.send(channel, b"xyz\r")
            assert await ended(client, channel) == 0, name


async def test_raw_reads_without_a_terminal() -> None:
    def blocking(session: BlockingSession) -> None:
        assert session.stdin.buffer.readline() == b"line\n"
        assert session.read(2) == b"\x00\xff"
        assert session.read() == b""

    async with serving("loop", blocking) as running:
        client = await running.login()
        channel = await begin(client)
        client.send(channel, b"line\n\x00\xff")
        client.send_eof(channel)
        assert await ended(client, channel) == 0


async def test_text_comes_above_a_line_that_is_being_typed() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def handler(session: Session) -> None:
        async def tell() -> None:
            while True:
                await session.write(await told.get())

        telling = asyncio.create_task(tell())
        await session.write("welcome\n")
        line = await session.readline("say: ")
        telling.cancel()
        await session.write(f"said {line}\n")

    async with serving("loop", handler) as running:
        client = await running.login()
        channel = await begin(client, XTERM)
        client.send(channel, b"hel")
        await until_shown(client, channel, "welcome", "say: hel")
        told.put_nowait("bob: hi\nbob: there\n")
        await until_shown(client, channel, "welcome", "bob: hi", "bob: there", "say: hel")
        client.send(channel, b"lo\r")
        await until_shown(client, channel, "welcome", "bob: hi", "bob: there", "say: hello", "said hello")


async def test_several_tasks_write_and_nothing_is_mixed() -> None:
    pieces = [bytes([65 + index]) * 300_000 for index in range(5)]

    async def handler(session: Session) -> None:
        await asyncio.gather(*(session.write(piece) for piece in pieces))

    async with serving("loop", handler) as running:
        client = await running.login()
        channel = await begin(client)
        assert await ended(client, channel) == 0
        assert channel.out == b"".join(pieces)


async def test_a_read_that_is_given_up() -> None:
    waiting = asyncio.Event()

    async def handler(session: Session) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await session.readline("quick: ")
        await session.write("too slow\n")
        waiting.set()
        await session.write(await session.readline("slowly: "))

    async with serving("thread", handler) as running:
        client = await running.login()
        channel = await begin(client, XTERM)
        await waiting.wait()
        client.send(channel, b"ok\r")
        assert await ended(client, channel) == 0
        assert shown(channel) == ["too slow", "slowly: ok", "ok"]


async def test_words_are_completed() -> None:
    async def handler(session: Session) -> None:
        session.complete = lambda line, cursor: ["hello", "help"] if line[:cursor] in {"h", "hel"} else ["hello"]
        await session.write(await session.readline())

    async with serving("loop", handler) as running:
        client = await running.login()
        channel = await begin(client, XTERM)
        client.send(channel, b"h\t")
        await until_shown(client, channel, "hel")
        client.send(channel, b"lo\t\r")
        assert await ended(client, channel) == 0
        assert shown(channel) == ["hello", "hello"]


async def test_a_blocking_handler_reads_while_the_size_changes_all_the_time() -> None:
    began = threading.Event()

    def handler(session: BlockingSession) -> None:
        began.set()
        assert session.readline() == "x" * 200

    async with serving("thread", handler) as running:
        client = await running.login()
        channel = await begin(client, XTERM)
        await asyncio.to_thread(began.wait)
        for index in range(200):
            client.request(channel, WindowChange(20 + index % 50, 10, 0, 0))
            client.send(channel, b"x")
            await client.until(lambda: not client.unsent)
        client.send(channel, b"\r")
        assert await ended(client, channel) == 0
