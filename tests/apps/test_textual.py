"""Textual applications for visitors: each his own, and none the process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import re
import signal
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any, ClassVar

import pytest
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Key, Paste, Resize
from textual.widgets import Button, Label, Static

import dunnart
from dunnart.apps import terminal as visitor_terminal
from dunnart.apps import textual as textual_apps
from dunnart.apps.terminal import VisitorTerminal
from dunnart.apps.textual import textual_handler
from dunnart.protocol.requests import SignalRequest
from tests.apps.support import Visitor, tasks, visit
from tests.runtime.driver import KIB, Serving, descriptors, eventually, serving


class Greeter(App[None]):
    """Says who is there and how large the terminal is, and takes lines."""

    AUTO_FOCUS = None
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "say('escape pressed')"), Binding("up", "say('up pressed')"),
    ]  # fmt: skip

    def __init__(self, name: str) -> None:
        super().__init__()
        self.visitor = name
        self.line = ""

    def compose(self) -> ComposeResult:
        yield Static(f"hello {self.visitor}")
        yield Label(id="size")
        yield Label(id="said", markup=False)
        yield Label(id="line", markup=False)
        yield Button("push", variant="error")

    def on_resize(self, event: Resize) -> None:
        self.query_one("#size", Label).update(f"{event.size.width} by {event.size.height}")

    def action_say(self, what: str) -> None:
        self.query_one("#said", Label).update(what)

    def on_button_pressed(self) -> None:
        self.action_say("button pressed")

    def on_paste(self, event: Paste) -> None:
        self.action_say(f"pasted {len(event.text)}")

    def on_key(self, event: Key) -> None:
        if event.key == "enter":
            line, self.line = self.line, ""
            self.heard(line)
        elif event.key == "ctrl+u":
            self.line = ""
        elif event.is_printable:
            self.line += event.character or ""
        self.query_one("#line", Label).update(self.line[-20:])

    def heard(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        match word:
            case "leave":
                self.exit(return_code=int(rest), message=f"goodbye {self.visitor}")
            case "fail":
                local_secret = "swordfish"
                raise ValueError(rest or local_secret)
            case "print":
                print(rest)  # noqa: T201 - what must not happen to others
            case "save":
                self.deliver_screenshot(path=rest)
            case "link":
                self.open_url(rest)
            case _:
                self.action_say(f"heard {line}")


greet = textual_handler(lambda session: Greeter(session.environment.get("LC_NAME", session.user)))


async def meet(server: Serving, name: str = "ann", columns: int = 80, rows: int = 24, **options: Any) -> Visitor:
    visitor = await visit(server, columns, rows, environment={"LC_NAME": name} | options.pop("env", {}), **options)
    await visitor.shows(f"hello {name}")
    return visitor


async def test_an_application_to_its_end() -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server, columns=70, rows=20)
        await ann.shows("70 by 20")
        ann.resize(91, 33)
        await ann.shows("91 by 33")
        ann.type("leave 42\r")
        assert await ann.leaves() == 42
        end = bytes(ann.channel.out).rpartition(b"\x1b[?1049l")[2]
        assert b"\x1b[?25h" in end
        assert b"goodbye ann\r\n" in end


async def test_a_command_on_a_terminal() -> None:
    seen = []

    def make(session: dunnart.Session) -> Greeter:
        seen.append(session.command)
        return Greeter("you")

    async with serving(handler=textual_handler(make)) as server:
        visitor = await visit(server, command="show me")
        await visitor.shows("hello you")
    assert seen == ["show me"]


async def test_two_visitors_see_their_own() -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server, "ann", 60, 15)
        bob = await meet(server, "bob", 100, 40)
        assert "60 by 15" in ann.text
        assert "100 by 40" in bob.text
        for number in range(5):
            ann.type(f"anns{number}\r")
            bob.type(f"bobs{number}\r")
            ann.resize(61 + number, 16)
            await ann.shows(f"heard anns{number}")
            await bob.shows(f"heard bobs{number}")
        await ann.shows("65 by 16")
        assert "100 by 40" in bob.text
        bob.type("leave 2\r")
        assert await bob.leaves() == 2
        ann.type("still here\r")
        await ann.shows("heard still here")
        ann.type("leave 3\r")
        assert await ann.leaves() == 3
    assert b"bob" not in ann.channel.out
    assert b"ann" not in bob.channel.out


async def test_two_sessions_on_one_connection() -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server, "ann")
        bob = await meet(server, "bob", client=ann.client)
        ann.type("leave 1\r")
        assert await ann.leaves() == 1
        bob.type("leave 2\r")
        assert await bob.leaves() == 2


async def test_twenty_visitors_at_once() -> None:
    async with serving(handler=greet) as server:
        names = [f"visitor{number:02}" for number in range(20)]
        visitors = await asyncio.gather(*(meet(server, name, 60 + index) for index, name in enumerate(names)))
        for visitor, name in zip(visitors, names, strict=True):
            visitor.type(f"i am {name}\r")
        for index, (visitor, name) in enumerate(zip(visitors, names, strict=True)):
            await visitor.shows(f"heard i am {name}")
            await visitor.shows(f"{60 + index} by 24")
            visitor.type(f"leave {index}\r")
        assert [await visitor.leaves() for visitor in visitors] == list(range(20))
        for visitor, name in zip(visitors, names, strict=True):
            assert {other for other in names if other.encode() in visitor.channel.out} == {name}


@pytest.mark.parametrize("early", [True, False])
async def test_a_visitor_who_vanishes_ends_his_application_alone(*, early: bool) -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server, "ann")
        before = tasks(), descriptors()
        for _ in range(3):
            visitor = await visit(server, environment={"LC_NAME": "bob"})
            if not early:
                await visitor.shows("hello bob")
            visitor.client.reset()
        await eventually(lambda: len(server.connections) == 1 and tasks() <= before[0] and descriptors() <= before[1])
        ann.type("all is well\r")
        await ann.shows("heard all is well")
        assert not server.server.counters["failures"]


async def test_a_server_that_closes_ends_all() -> None:
    async with serving(handler=greet) as server:
        before = tasks()
        visitors = [await meet(server, name) for name in ("ann", "bob")]
        await server.close()
        await eventually(lambda: tasks() == before)
        assert [visitor.client.eof for visitor in visitors] == [True, True]


async def test_a_failure_is_logged_and_not_shown(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(handler=greet) as server:
        ann, bob = await meet(server, "ann"), await meet(server, "bob")
        ann.type("fail\r")
        assert await ann.leaves() == 1
        assert b"\x1b[?1049l" in ann.channel.out
        assert "ValueError('swordfish')" in caplog.text
        for shown in (ann.channel.out, ann.channel.err, *map(str.encode, capsys.readouterr())):
            assert b"swordfish" not in shown
            assert b"ValueError" not in shown
        bob.type("leave 0\r")
        assert await bob.leaves() == 0


async def test_an_application_that_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    def make(_session: dunnart.Session) -> Greeter:
        raise LookupError("no such application")

    async with serving(handler=textual_handler(make)) as server:
        visitor = await visit(server)
        assert await visitor.leaves() == 1
        assert "no such application" in caplog.text
        await eventually(lambda: len(tasks()) <= 1)


async def test_one_application_for_two_visitors_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    shared: list[Greeter] = []

    def make(_session: dunnart.Session) -> Greeter:
        shared.append(shared[0] if shared else Greeter("ann"))
        return shared[0]

    async with serving(handler=textual_handler(make)) as server:
        ann = await visit(server)
        await ann.shows("hello ann")
        bob = await visit(server)
        assert await bob.leaves() == 1
        assert "an application of his own" in caplog.text
        ann.type("fine\r")
        await ann.shows("heard fine")


# The process is not theirs.


async def test_the_process_is_left_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> tuple[object, ...]:
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)]
        loop = asyncio.get_running_loop()
        files = [sys.stdin, sys.stdout, sys.stderr]
        return *signals, *files, dict(os.environ), loop.get_task_factory(), loop.get_exception_handler()

    def eager_task_factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(work, loop=loop, **options)

    # What Python 3.12 has; with it Textual would set it for the whole loop.
    monkeypatch.setattr(asyncio, "eager_task_factory", eager_task_factory, raising=False)
    before = state()
    async with serving(handler=greet) as server:
        threads = set(threading.enumerate())
        ann, bob = await meet(server, "ann"), await meet(server, "bob")
        assert state() == before
        assert set(threading.enumerate()) <= threads
        ann.type("print from ann\r")
        ann.type("leave 0\r")  # the first to come is the first to go
        assert await ann.leaves() == 0
        assert state() == before
        bob.type("leave 0\r")
        assert await bob.leaves() == 0
    assert state() == before
    assert capsys.readouterr().out == "from ann\n"
    assert b"from ann" not in bob.channel.out


async def test_the_embedder_may_redirect_its_output_meanwhile() -> None:
    original, other = sys.stdout, io.StringIO()
    async with serving(handler=greet) as server:
        ann = await meet(server)
        with contextlib.redirect_stdout(other):
            ann.type("leave 0\r")
            assert await ann.leaves() == 0
            assert sys.stdout is other
        assert sys.stdout is original


async def test_an_application_of_the_embedder_is_as_ever() -> None:
    app = Greeter("me")
    async with serving(handler=greet), app.run_test() as pilot:
        printed = sys.stdout
        await pilot.pause()
        assert printed is not sys.__stdout__
        assert type(printed).__module__ == "textual.app"


async def test_nothing_is_saved_on_the_server(tmp_path: Path) -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server, columns=120)
        ann.type(f"save {tmp_path}\r")
        await ann.shows("Failed to save screenshot")
    assert os.listdir(tmp_path) == []


async def test_no_browser_is_opened_on_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    async with serving(handler=greet) as server:
        ann = await meet(server)
        ann.type("link https://example.net/\r")
        await ann.shows("https://example.net/")
        await ann.shows("Link")
    assert opened == []


# Keys.


async def test_an_escape_that_nothing_follows_is_the_key() -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server)
        ann.type("\x1b")
        await ann.shows("escape pressed")


async def test_an_escape_sequence_in_two_parts_is_one_key() -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server)
        for byte in b"\x1b[A":
            ann.type(bytes([byte]))
        await ann.shows("up pressed")


async def test_text_in_parts_of_characters() -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server)
        for byte in "größe\r".encode():
            ann.type(bytes([byte]))
        await ann.shows("heard größe")
        ann.type(b"\xff\xfe!\r")
        await ann.shows("heard \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}!")


@pytest.mark.parametrize("mouse", [True, False])
async def test_the_mouse(*, mouse: bool) -> None:
    async with serving(handler=textual_handler(lambda _: Greeter("ann"), mouse=mouse)) as server:
        ann = await visit(server)
        await ann.shows("push")
        assert (b"\x1b[?1006h" in ann.channel.out) == mouse
        row = next(number for number, line in enumerate(ann.lines, 1) if "push" in line)
        column = ann.lines[row - 1].index("push") + 1
        ann.type(f"\x1b[<0;{column};{row}M\x1b[<0;{column};{row}m")
        await ann.shows("button pressed")
        ann.type("leave 0\r")


async def test_a_signal_interrupts_or_ends() -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server)
        ann.client.request(ann.channel, SignalRequest("TERM"))
        assert await ann.leaves() == 1


async def test_the_end_of_input_ends_it() -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server)
        ann.client.send_eof(ann.channel)
        assert await ann.leaves() == 1
        assert not server.server.counters["failures"]


# What a visitor may not do to others.


@pytest.mark.parametrize(
    "keys",
    [
        b"\x1b[48;30000;30000;1;1t",
        b"\x1b[48;0;0;0;0t\x1b[<0;60;20M",
        b"\x1b[<0;99999999999999999999;5M",
        b"\x1b[9999;9999R\x1b[?2048;1$y\x1b[?2026;1$y",
        b"\x1b[" + b"1" * 5000,
        b"\x1b[1;9999999999999999999u\x1b[99999999999;1u",
    ],
)
async def test_made_up_answers_of_a_terminal_do_no_harm(keys: bytes) -> None:
    async with serving(handler=greet) as server:
        ann = await meet(server)
        ann.type(keys + b"\x1b[A")
        await ann.shows("up pressed")
        ann.type(b"\x15fine\r")  # control-U: what was made of it is no part of the line
        await ann.shows("heard fine")
        assert "80 by 24" in ann.text
        assert not server.server.counters["failures"]


@pytest.mark.parametrize("seed", range(3))
async def test_noise_does_no_harm(seed: int) -> None:
    noise = random.Random(seed)
    pieces = [b"\x1b[", b"\x1b[<", b"\x1b]", b"\x1bO", b"\x1b[200~", b"\x1b[201~", b";", b"M", b"u", b"t", b"R", b"$y"]
    data = b"".join(noise.choice([noise.randbytes(1), noise.choice(pieces), b"%d" % noise.randrange(1000)])
                    for _ in range(2000))  # fmt: skip
    for control in (b"\x11", b"\x03", b"\x10"):  # quits, interrupts, opens the palette
        data = data.replace(control, b"")
    async with serving(handler=greet) as server:
        ann, bob = await meet(server, "ann"), await meet(server, "bob")
        await ann.client.send_all(ann.channel, data)
        bob.type("undisturbed\r")
        await bob.shows("heard undisturbed")
        ann.type(b"\x1b[201~")
        ann.type(b"\x11")
        assert await ann.leaves() in {0, 1}
        assert not server.server.counters["failures"]


async def test_a_paste_without_end_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor_terminal, "_LARGEST_PASTE", 100 * KIB)
    async with serving(handler=greet) as server:
        ann = await meet(server)
        await ann.client.send_all(ann.channel, b"\x1b[200~" + b"x" * 110 * KIB + b"\x1b[201~fine\r")
        await ann.shows("heard fine")
        ann.type(b"\x1b[200~" + b"y" * 1000 + b"\x1b[201~")
        await ann.shows("pasted 1000")


async def test_sizes_are_bounded() -> None:
    async with serving(handler=greet) as server:
        for asked, shown in (((100_000, 100_000), "640 by 240"), ((0, 0), "80 by 24"), ((1, 1), None)):
            visitor = await visit(server, *asked)
            if shown is not None:
                await visitor.shows(shown)
            visitor.type("leave 5\r")
            assert await visitor.leaves() == 5


class Ticker(App[None]):
    """Draws all the screen anew, as fast as it can."""

    count = 0

    def compose(self) -> ComposeResult:
        yield Static()

    def on_mount(self) -> None:
        self.query_one(Static).styles.height = "100%"
        self.set_interval(1 / 60, self.tick)

    def tick(self) -> None:
        self.count += 1
        line = "".join(chr(0x21 + (self.count * 7 + index) % 90) for index in range(self.size.width - 1))
        self.query_one(Static).update("\n".join([f"count {self.count} end", *[line.replace("[", "(")] * 100]))


def terminal_of(app: App[None]) -> VisitorTerminal:
    driver = app._driver
    assert isinstance(driver, textual_apps.SessionDriver)
    return driver._terminal


async def test_a_slow_visitor_gets_fewer_pictures_and_delays_nobody() -> None:
    tickers: list[Ticker] = []

    def make(session: dunnart.Session) -> App[None]:
        if session.environment["LC_NAME"] == "ann":
            return Greeter("ann")
        tickers.append(Ticker())
        return tickers[-1]

    async with serving(handler=textual_handler(make)) as server:
        ann = await meet(server)
        bob = await visit(server, 400, 100, environment={"LC_NAME": "bob"})
        await bob.shows("count")
        bob.client.pause()
        [ticker] = tickers
        terminal = terminal_of(ticker)
        await eventually(lambda: terminal.is_congested)
        stuck, most = ticker.count, 0
        while ticker.count < stuck + 30:  # half a second, once all the buffers between them are full
            if not terminal.is_congested:
                stuck = ticker.count
            most = max(most, len(terminal._backlog))
            word = f"word{ticker.count}"
            ann.type(f"{word}\r")
            await ann.shows(f"heard {word}")
            await asyncio.sleep(1 / 60)
        assert most < 150 * KIB  # two pictures
        # What he sees once he looks again is what is true then.
        now = ticker.count
        bob.client.resume()
        await bob.client.until(lambda: (found := _count(bob)) is not None and found > now)
        await eventually(lambda: not terminal.is_congested)


def _count(visitor: Visitor) -> int | None:
    found = [word for word in bytes(visitor.channel.out[-400_000:]).split(b"count ")[1:] if b" end" in word[:20]]
    return int(found[-1].partition(b" end")[0]) if found else None


# Colours.


@pytest.mark.parametrize(
    ("term", "environment", "present", "absent"),
    [
        ("xterm-256color", {}, b"[34]8;5;", b"[34]8;2;"),
        ("xterm-256color", {"COLORTERM": "truecolor"}, b"[34]8;2;", b"[34]8;5;"),
        ("xterm-kitty", {}, b"[34]8;2;", b"[34]8;5;"),
        ("linux", {}, rb"[\[;](3|4|9|10)[1-6][m;]", b"[34]8;[25];"),
        ("xterm-256color", {"NO_COLOR": "1"}, rb"[\[;](3|4|9|10)[07][m;]", rb"[34]8;2;|[\[;](3|4|9|10)[1-6][m;]"),
    ],
)
async def test_colours_are_the_terminals(
    term: str, environment: dict[str, str], present: bytes, absent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TERM": "dumb", "COLORTERM": "", "NO_COLOR": "1", "COLUMNS": "33", "LINES": "7"}.items():
        monkeypatch.setenv(name, value)  # the server's own count for nothing
    async with serving(handler=greet, accept_env=("LC_*", "COLORTERM", "NO_COLOR")) as server:
        ann = await meet(server, term=term, env=environment)
        await ann.shows("push")
        assert re.search(present, ann.channel.out)
        assert not re.search(absent, ann.channel.out)


# Without a terminal.


async def test_without_a_terminal_there_is_a_message() -> None:
    async with serving(handler=greet) as server:
        client = await server.login()
        channel = await client.run("anything")
        assert channel.status == 1
        assert channel.err == b"this application needs a terminal: connect with ssh -t\n"
        assert not channel.out
        visitor = await visit(server, term="dumb")
        assert await visitor.leaves() == 1
        assert visitor.channel.err == b"this application cannot be shown on a terminal of type dumb\r\n"


async def test_without_a_terminal_another_handler_may_serve() -> None:
    async def plain(session: dunnart.Session) -> int:
        await session.write(f"{session.command}, plainly\n")
        return 7

    async with serving(handler=textual_handler(lambda _: Greeter("ann"), without_terminal=plain)) as server:
        channel = await (await server.login()).run("status")
        assert (channel.out, channel.status) == (b"status, plainly\n", 7)


# What it stands on.


async def test_the_task_factory_is_kept_at_each_step() -> None:
    loop = asyncio.get_running_loop()
    steps: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(work, loop=loop, **options)

    def other(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(work, loop=loop, **options)

    async def work() -> str:
        loop.set_task_factory(other)
        await asyncio.sleep(0)
        steps.append("slept")
        with contextlib.suppress(ZeroDivisionError):
            await asyncio.gather(divide())
        loop.set_task_factory(other)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            steps.append("cancelled")
        assert loop.get_task_factory() is factory, "the embedder's, set meanwhile"
        loop.set_task_factory(other)
        return "result"

    async def divide() -> float:
        await asyncio.sleep(0)
        return 1 / 0

    async def divide_now() -> float:
        loop.set_task_factory(other)
        return 1 / 0

    async def keeping() -> str:
        return await textual_apps._keeping_task_factory(work())

    task = loop.create_task(keeping())
    while not steps:
        await asyncio.sleep(0)
        assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    for _ in range(5):
        await asyncio.sleep(0)
        assert loop.get_task_factory() is factory
    task.cancel()
    assert await task == "result"
    assert steps == ["slept", "cancelled"]
    with pytest.raises(ZeroDivisionError):
        await textual_apps._keeping_task_factory(divide_now())
    assert loop.get_task_factory() is factory
