"""prompt_toolkit for visitors: each his own keys, screen and colours, and none the process."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import sys
import threading
from typing import Any

import pytest
from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application import Application, get_app, get_app_session
from prompt_toolkit.application.application import attach_winch_signal_handler
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.data_structures import Size
from prompt_toolkit.formatted_text import HTML, StyleAndTextTuples
from prompt_toolkit.input import vt100_parser
from prompt_toolkit.input.defaults import create_pipe_input
from prompt_toolkit.input.typeahead import _buffer as typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import FormattedTextControl, Layout, Window
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.shortcuts import yes_no_dialog
from prompt_toolkit.utils import is_dumb_terminal

import dunnart
from dunnart.apps.prompt_toolkit import _Keys, prompt_toolkit_handler
from dunnart.protocol.requests import SignalRequest
from tests.apps.support import Visitor, tasks, visit
from tests.runtime.driver import KIB, Serving, descriptors, eventually, serving


def name_of(session: dunnart.Session) -> str:
    return session.environment.get("LC_NAME", "nobody")


async def converse(session: dunnart.Session) -> int | None:
    """Hear lines, and do what they say."""
    name = name_of(session)
    prompts: PromptSession[str] = PromptSession(f"{name}> ", completer=WordCompleter(["completion"]))
    print_formatted_text(f"hello {name}")
    while True:
        line = await prompts.prompt_async()
        word, _, rest = line.partition(" ")
        match word:
            case "leave":
                return int(rest)
            case "fail":
                raise ValueError(rest)
            case "exit":
                sys.exit(int(rest))
            case "ask":
                answer = await yes_no_dialog("A question", f"Is it {name}?").run_async()
                print_formatted_text(f"answered {answer}")
            case "colours":
                print_formatted_text(HTML("<ansired>red</ansired> <style bg='#336699'>blue</style>"))
            case "size":
                size = get_app_session().output.get_size()
                print_formatted_text(f"{size.columns} by {size.rows}")
            case _:
                print_formatted_text(f"heard {line}")


talk = prompt_toolkit_handler(converse)


async def meet(server: Serving, name: str = "ann", columns: int = 80, rows: int = 24, **options: Any) -> Visitor:
    visitor = await visit(server, columns, rows, environment={"LC_NAME": name} | options.pop("env", {}), **options)
    await visitor.shows(f"hello {name}")
    await visitor.shows(f"{name}>")
    return visitor


async def test_a_conversation() -> None:
    async with serving(handler=talk) as server:
        ann = await meet(server, columns=70, rows=20)
        ann.type("onne\x7f\x7fe\r")
        await ann.shows("heard one")
        ann.type("size\r")
        await ann.shows("70 by 20")
        ann.resize(91, 33)
        ann.type("size\r")
        await ann.shows("91 by 33")
        ann.type("\x1b[A\x1b[A\x1b[A\r")  # up, to the first line
        await ann.client.until(lambda: ann.text.count("heard one") == 2)
        ann.type("leave 42\r")
        assert await ann.leaves() == 42
        assert not server.server.counters["failures"]


async def test_lines_typed_ahead_are_heard_in_order() -> None:
    async with serving(handler=talk) as server:
        ann = await meet(server)
        ann.type("".join(f"line {number}\r" for number in range(10)) + "leave 3\r")
        assert await ann.leaves() == 3
        assert re.findall(r"^heard line (\d)", ann.text, re.MULTILINE) == list("0123456789")


async def test_a_dialog() -> None:
    async with serving(handler=talk) as server:
        ann = await meet(server)
        ann.type("ask\r")
        await ann.shows("Is it ann?")
        ann.type("\r")
        await ann.shows("answered True")


async def test_completion() -> None:
    async with serving(handler=talk) as server:
        ann = await meet(server)
        ann.type("comp")
        await ann.shows("completion")
        ann.type("\t")
        await ann.shows("ann> completion")
        ann.type("\r")
        await ann.shows("heard completion")


@pytest.mark.parametrize(
    ("key", "status"), [(b"\x03", 130), (b"\x04", 0), (b"exit 7\r", 7), (b"leave 5\r", 5)], ids=str
)
async def test_how_it_ends(key: bytes, status: int) -> None:
    async with serving(handler=talk) as server:
        ann, bob = await meet(server, "ann"), await meet(server, "bob")
        ann.type(key)
        assert await ann.leaves() == status
        bob.type("leave 1\r")
        assert await bob.leaves() == 1
        assert not server.server.counters["failures"]


async def test_control_keys_may_be_caught() -> None:
    async def careful(_session: dunnart.Session) -> None:
        prompts: PromptSession[str] = PromptSession("> ")
        for _ in range(3):
            try:
                print_formatted_text(f"a line: {await prompts.prompt_async()}")
            except (KeyboardInterrupt, EOFError) as error:
                print_formatted_text(f"caught {type(error).__name__}")

    async with serving(handler=prompt_toolkit_handler(careful)) as server:
        ann = await visit(server)
        await ann.shows(">")
        ann.type("half\x03")
        await ann.shows("caught KeyboardInterrupt")
        ann.type("\x04")
        await ann.shows("caught EOFError")
        ann.client.request(ann.channel, SignalRequest("INT"))
        assert await ann.leaves() == 0


async def test_the_end_of_input_is_not_control_d() -> None:
    async with serving(handler=talk) as server:
        ann = await meet(server)
        ann.type("last words\r")
        ann.silent = True
        ann.client.send_eof(ann.channel)
        assert await ann.leaves() == 1
        assert "heard last words" in ann.text


async def test_a_full_screen_that_follows_the_size() -> None:
    async def draw(session: dunnart.Session) -> int:
        bindings = KeyBindings()

        @bindings.add("q")
        def _quit(event: KeyPressEvent) -> None:
            event.app.exit(result=9)

        def text() -> str:
            size = get_app().output.get_size()
            return f"{name_of(session)} has {size.columns} by {size.rows}"

        app: Application[int] = Application(
            Layout(Window(FormattedTextControl(text))), key_bindings=bindings, full_screen=True
        )
        return await app.run_async()

    async with serving(handler=prompt_toolkit_handler(draw)) as server:
        ann = await visit(server, 60, 20, environment={"LC_NAME": "ann"})
        bob = await visit(server, 0, 0, environment={"LC_NAME": "bob"})
        await ann.shows("ann has 60 by 20")
        await bob.shows("bob has 80 by 24")
        bob.resize(100, 30)
        await bob.shows("bob has 100 by 30")
        bob.resize(9000, 9000)
        await bob.shows("bob has 640 by 240")
        assert "ann has 60 by 20" in ann.text
        for visitor in (ann, bob):
            visitor.type("q")
            assert await visitor.leaves() == 9
            assert b"\x1b[?1049l" in visitor.channel.out
        assert b"bob" not in ann.channel.out


async def test_twenty_visitors_at_once() -> None:
    async with serving(handler=talk) as server:
        names = [f"visitor{number:02}" for number in range(20)]
        visitors = await asyncio.gather(*(meet(server, name, 60 + index) for index, name in enumerate(names)))
        for visitor, name in zip(visitors, names, strict=True):
            visitor.type(f"i am {name}\rsize\r")
        for index, (visitor, name) in enumerate(zip(visitors, names, strict=True)):
            await visitor.shows(f"heard i am {name}")
            await visitor.shows(f"{60 + index} by 24")
            visitor.type(f"leave {index}\r")
        assert [await visitor.leaves() for visitor in visitors] == list(range(20))
        for visitor, name in zip(visitors, names, strict=True):
            assert {other for other in names if other.encode() in visitor.channel.out} == {name}


@pytest.mark.parametrize("early", [True, False])
async def test_a_visitor_who_vanishes_ends_his_application_alone(*, early: bool) -> None:
    async with serving(handler=talk) as server:
        ann = await meet(server)
        entries = None
        before = tasks(), descriptors()
        for _ in range(4):
            visitor = await visit(server, environment={"LC_NAME": "bob"})
            if not early:
                await visitor.shows("bob>")
            visitor.client.reset()
            await eventually(lambda: tasks() <= before[0] and descriptors() <= before[1])
            entries = entries or set(typeahead)
        assert set(typeahead) == entries, "prompt_toolkit keeps nothing of who has gone"
        ann.type("all is well\r")
        await ann.shows("heard all is well")
        assert not server.server.counters["failures"]


# Failures.


async def test_a_failure_ends_its_session(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(handler=talk) as server:
        ann, bob = await meet(server, "ann"), await meet(server, "bob")
        ann.type("fail swordfish\r")
        assert await ann.leaves() == 1
        assert "ValueError('swordfish')" in caplog.text
        assert b"ValueError" not in ann.channel.out + ann.channel.err
        bob.type("leave 0\r")
        assert await bob.leaves() == 0


@pytest.mark.parametrize("where", ["binding", "timed binding", "drawing", "background"])
async def test_what_fails_beside_the_handler_ends_the_session_too(where: str, caplog: pytest.LogCaptureFixture) -> None:
    async def fragile(_session: dunnart.Session) -> None:
        bindings = KeyBindings()
        broken = False

        @bindings.add("x")
        @bindings.add("escape", eager=False)
        def _pressed(event: KeyPressEvent) -> None:
            nonlocal broken
            broken = where == "drawing"
            if where == "background":
                event.app.create_background_task(fail())
            elif where != "drawing":
                raise ValueError("swordfish")

        def toolbar() -> str:
            if broken:
                raise ValueError("swordfish")
            return "all is well"

        async def fail() -> None:
            raise ValueError("swordfish")

        prompts: PromptSession[str] = PromptSession("> ", key_bindings=bindings, bottom_toolbar=toolbar)
        await prompts.prompt_async()

    async with serving(handler=prompt_toolkit_handler(fragile)) as server:
        ann = await visit(server)
        await ann.shows("all is well")
        ann.type("\x1b" if where == "timed binding" else "x")
        assert await ann.leaves() == 1
        assert "ValueError('swordfish')" in caplog.text
        assert server.server.counters["failures"] == 1
        assert b"swordfish" not in ann.channel.out + ann.channel.err


# The process is not theirs.


async def test_the_process_is_left_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "dumb")  # the server's

    def state() -> tuple[object, ...]:
        loop = asyncio.get_running_loop()
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)]
        files = [sys.stdin, sys.stdout, sys.stderr, sys.breakpointhook]
        return *signals, *files, dict(os.environ), loop.get_exception_handler(), loop.slow_callback_duration

    before = state()
    async with serving(handler=talk) as server:
        threads = set(threading.enumerate())
        ann, bob = await meet(server, "ann"), await meet(server, "bob")
        assert state() == before
        assert set(threading.enumerate()) <= threads
        for visitor in (ann, bob):  # the first to come is the first to go
            visitor.type("leave 0\r")
            assert await visitor.leaves() == 0
            assert state() == before
    assert capsys.readouterr() == ("", "")


async def test_an_application_of_the_embedder_is_as_ever() -> None:
    with create_pipe_input() as keys:
        handled: list[object] = []
        app: Application[None] = Application(
            input=keys, output=DummyOutput(), before_render=lambda _: handled.append(signal.getsignal(signal.SIGWINCH))
        )
        asyncio.get_running_loop().call_later(0.1, app.exit)
        before = signal.getsignal(signal.SIGWINCH)
        await app.run_async()
        assert handled[0] is not before
        with attach_winch_signal_handler(lambda: None):
            assert signal.getsignal(signal.SIGWINCH) is not before
        assert signal.getsignal(signal.SIGWINCH) is before
    assert is_dumb_terminal("dumb")


# What a visitor may not do to others.


@pytest.mark.parametrize("seed", range(3))
async def test_noise_does_no_harm(seed: int) -> None:
    noise = random.Random(seed)
    pieces = [b"\x1b[", b"\x1b[<", b"\x1b]", b"\x1bO", b"\x1b[200~", b"\x1b[201~", b";", b"M", b"R", b"\x1b[M"]
    data = b"".join(noise.choice([noise.randbytes(1), noise.choice(pieces), b"%d" % noise.randrange(1000)])
                    for _ in range(2000))  # fmt: skip
    for control in (b"\x03", b"\x04"):
        data = data.replace(control, b"")
    async with serving(handler=talk) as server:
        ann, bob = await meet(server, "ann"), await meet(server, "bob")
        await ann.client.send_all(ann.channel, data + b"\x1b[201~\x07")
        bob.type("undisturbed\r")
        await bob.shows("heard undisturbed")
        ann.type(b"\x03")
        assert await ann.leaves() in {0, 1, 130}
        assert [error for error in server.server.counters if error == "failures"] == []


async def test_sequences_without_end_cost_no_memory() -> None:
    cache = vt100_parser._IS_PREFIX_OF_LONGER_MATCH_CACHE
    keys = _Keys(lambda: Size(rows=24, columns=80), lambda error: pytest.fail(repr(error)))
    for number in range(3000):
        keys.feed(f"\x1b[{number};{number};")
    keys.feed("\x1b[" + "1" * 10_000)
    for _ in range(1000):
        keys.feed("2")
    keys.release()
    assert len(cache) < 11_000
    assert max(map(len, cache)) < 200
    assert "".join(key.data for key in keys.read_keys()).endswith("2" * 900)


async def test_places_outside_of_the_terminal_are_made_up() -> None:
    keys = _Keys(lambda: Size(rows=24, columns=80), lambda error: pytest.fail(repr(error)))
    keys.feed("\x1b[24;80R\x1b[25;80R\x1b[0;1R\x1b[24;81R")
    keys.feed("\x1b[<0;80;24M\x1b[<0;81;24M\x1b[<0;80;25m\x1b[<0;;M\x1b[5M\x1b[M ! \x1b[<1;2;3m")
    keys.release()
    assert [key.data for key in keys.read_keys()] == ["\x1b[24;80R", "\x1b[<0;80;24M", "\x1b[<1;2;3m"]


async def test_a_paste() -> None:
    async with serving(handler=talk) as server:
        ann = await meet(server)
        await ann.client.send_all(ann.channel, b"\x1b[200~" + b"x" * 1100 * KIB + b"\x1b[201~fine\r")
        await ann.shows("heard fine")
        for byte in b"\x1b[200~two lines\rin one\x1b[201~":
            ann.type(bytes([byte]))
        await ann.shows("two lines")
        ann.type("\r")
        await ann.shows("heard two lines")


async def test_a_slow_visitor_gets_fewer_pictures_and_delays_nobody() -> None:
    drawn = 0

    async def tick(session: dunnart.Session) -> int | None:
        if name_of(session) == "ann":
            return await converse(session)

        def text() -> StyleAndTextTuples:
            nonlocal drawn
            drawn += 1
            return [("[ZeroWidthEscape]", "\x1b[0m" * 5000), ("", f"{drawn:09}"[::-1])]

        layout = Layout(Window(FormattedTextControl(text)))
        app: Application[int] = Application(layout, full_screen=True, refresh_interval=0.05)
        return await app.run_async()

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * KIB)
    async with serving(listener, handler=prompt_toolkit_handler(tick)) as server:
        ann = await meet(server)
        client = await server.login(receive_bytes=8 * KIB)
        bob = await visit(server, environment={"LC_NAME": "bob"}, client=client)
        await bob.shows("00000")
        bob.client.pause()
        before = -1
        while drawn > before:  # until he gets no more pictures
            before = drawn
            for number in range(10):
                word = f"word{drawn}-{number}"
                ann.type(f"{word}\r")
                await ann.shows(f"heard {word}")
                await asyncio.sleep(0.05)
        bob.client.resume()
        await bob.client.until(lambda: int(bob.lines[0][::-1]) > before)  # drawn since
        assert len(bob.channel.out) < 2 << 20


async def test_prints_without_end_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    async def flood(_session: dunnart.Session) -> None:
        while True:
            print_formatted_text("x" * 100_000)

    async with serving(handler=prompt_toolkit_handler(flood)) as server:
        ann = await visit(server)
        assert await ann.leaves() == 1
        assert "8 MiB wait already" in caplog.text


# Colours, and no terminal.


@pytest.mark.parametrize(
    ("term", "environment", "present", "absent"),
    [
        ("xterm-256color", {}, b"48;5;", b"48;2;"),
        ("xterm-256color", {"COLORTERM": "truecolor"}, b"48;2;51;102;153", b"48;5;"),
        ("linux", {}, b"31", b"[34]8;[25];"),
        ("vt220", {}, b"red", rb"[34]8;[25];|\[0;31"),
        ("xterm-256color", {"NO_COLOR": "1"}, b"red", rb"[34]8;[25];|\[0;31"),
    ],
)
async def test_colours_are_the_terminals(term: str, environment: dict[str, str], present: bytes, absent: bytes) -> None:
    async with serving(handler=talk, accept_env=("LC_*", "COLORTERM", "NO_COLOR")) as server:
        ann = await meet(server, term=term, env=environment)
        ann.type("colours\r")
        await ann.shows("red blue")
        assert re.search(present, ann.channel.out)
        assert not re.search(absent, ann.channel.out)


async def test_without_a_terminal_there_is_a_message() -> None:
    async with serving(handler=talk) as server:
        channel = await (await server.login()).run("anything")
        assert channel.status == 1
        assert channel.err == b"this application needs a terminal: connect with ssh -t\n"
        assert not channel.out
