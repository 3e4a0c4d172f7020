"""What each kind of handler gets, may do and must bear: through the public interface, in each placement."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dunnart.errors import ConnectionClosed
from dunnart.keys.private import PrivateKey
from dunnart.line_editor import LineEditor
from dunnart.protocol.questions import CredentialQuestion, PublicKeyCredential, SignQuestion
from dunnart.protocol.requests import (
    BreakRequest,
    EnvironmentRequest,
    ExecRequest,
    PtyRequest,
    ShellRequest,
    SignalRequest,
    SubsystemRequest,
    WindowChange,
)
from dunnart.server import (
    BlockingSession,
    EventSession,
    Handler,
    PublicKeys,
    RawSession,
    Session,
    SessionEvents,
)
from dunnart.server.applications import AsyncHandler, ThreadApplication
from tests.runtime.driver import KIB, MIB, USER, Beginning, Running, eventually
from tests.unit.server.api import begin, ended, every_placement, flood, serving

KINDS = ["async", "blocking", "events", "raw"]
every_kind = pytest.mark.parametrize("kind", KINDS)
XTERM = PtyRequest("xterm", 80, 24, 0, 0, b"")


def of_kind(kind: str, serve: Callable[[Any], int | None]) -> Any:
    """A handler of a kind that calls `serve` with its session once and ends with the status that it returns."""
    if kind == "async":

        async def coroutine(session: Session) -> int | None:
            return serve(session)

        return coroutine
    if kind == "blocking":

        def function(session: BlockingSession) -> int | None:
            return serve(session)

        return function
    if kind == "events":

        class Events(SessionEvents):
            def opened(self, session: EventSession) -> None:
                session.exit(serve(session) or 0)

        return Events

    def raw(session: RawSession) -> bool:
        session.exit(serve(session) or 0)
        return True

    return Beginning(raw)


# Facts.


@every_placement
@every_kind
async def test_what_a_session_knows(placement: str, kind: str) -> None:
    seen: list[Any] = []

    def serve(session: Any) -> None:
        seen.append((session.user, session.method, session.key, session.grants))
        seen.append((session.kind, session.command, session.subsystem, dict(session.environment), session.terminal))
        seen.append((session.peer, session.local, session.connection_id, session.channel))

    async with serving(placement, of_kind(kind, serve), accept_env=("LANG", "A*")) as server:
        client = await server.login()
        channel = await begin(
            client, EnvironmentRequest("LANG", "C.UTF-8"), EnvironmentRequest("A_B", "föö"), command="do it"
        )
        assert await ended(client, channel) == 0
        assert seen[0][:3] == (USER, "password", None)
        assert seen[1] == ("exec", "do it", None, {"LANG": "C.UTF-8", "A_B": "föö"}, None)
        peer, local, connection, _ = seen[2]
        assert peer == client.sock.getsockname()
        assert local == ("127.0.0.1", server.server.port)
        del seen[:]
        await ended(client, await begin(client, XTERM))
        assert seen[1][:4] == ("shell", None, None, {})
        assert (seen[1][4].term, seen[1][4].columns, seen[1][4].rows) == ("xterm", 80, 24)
        assert seen[2][2] == connection
        other = await server.login()
        await ended(other, await begin(other))
        assert seen[5][2] != connection


@every_placement
async def test_the_key_that_logged_in(placement: str) -> None:
    key = PrivateKey.generate("ed25519")
    seen: list[Any] = []
    answers = {
        CredentialQuestion: PublicKeyCredential(key.public, "ssh-ed25519", signed=True),
        SignQuestion: lambda question: key.sign(question.algorithm, question.data),
    }
    handler = of_kind("async", lambda session: seen.append((session.key, session.method)))
    async with serving(placement, handler, authenticators=[PublicKeys(key.public.line())]) as server:
        client = await server.login(answers=answers)
        await ended(client, await begin(client))
    assert seen == [(key.public, "publickey")]


@every_placement
async def test_a_terminal_is_kept_up_to_date(placement: str) -> None:
    seen: list[Any] = []

    async def handler(session: Session) -> None:
        async for request in session.requests():
            assert session.terminal is not None
            seen.append((request, session.terminal.columns, session.terminal.rows))
            await session.write(b".")
            if isinstance(request, BreakRequest):
                return

    async with serving(placement, handler) as server:
        client = await server.login()
        channel = await begin(client, XTERM)
        for request in (WindowChange(100, 0, 0, 0), WindowChange(0, 50, 0, 0), SignalRequest("INT"), BreakRequest(500)):
            client.request(channel, request)
            before = channel.received
            await client.until(lambda before=before: channel.received > before)  # type: ignore[misc]
        assert await ended(client, channel) == 0
    assert seen == [
        (WindowChange(100, 0, 0, 0), 100, 24),
        (WindowChange(0, 50, 0, 0), 100, 50),
        (SignalRequest("INT"), 100, 50),
        (BreakRequest(500), 100, 50),
    ]


# Data.


@every_placement
async def test_reading_and_writing(placement: str) -> None:
    async def handler(session: Session) -> None:
        assert await session.read(3) == b"abc"
        assert await session.readline() == "def"
        assert await session.readline("prompt> ") == "ghi"
        assert await session.read(2) == b"jk"
        assert [line async for line in session] == ["lmn", "", "fö�", "last"]
        assert await session.read() == b""
        with pytest.raises(EOFError):
            await session.readline()
        await session.write(b"bytes\n\0\xff")
        await session.write("text\n")
        await session.stderr.write("to stderr\n")

    async with serving(placement, handler) as server:
        client = await server.login()
        channel = await begin(client)
        for piece in (b"abcde", b"f\r\ngh", b"i\njklmn\n\nf\xc3", b"\xb6\xff\nlast"):
            client.send(channel, piece)
        client.send_eof(channel)
        assert await ended(client, channel) == 0
        assert (bytes(channel.out), bytes(channel.err)) == (b"prompt> bytes\n\0\xfftext\n", b"to stderr\n")


@every_placement
async def test_a_line_without_end_comes_in_pieces(placement: str) -> None:
    lines: list[str] = []

    async def handler(session: Session) -> None:
        lines.extend([line async for line in session])

    text = "0123456789" * 20_000
    async with serving(placement, handler) as server:
        client = await server.login()
        channel = await begin(client)
        await client.send_all(channel, text.encode() + b"\nend\n")
        client.send_eof(channel)
        assert await ended(client, channel) == 0
    assert ("".join(lines[:-1]), lines[-1]) == (text, "end")
    assert max(map(len, lines)) <= 128 * KIB


@pytest.mark.parametrize(
    "text", ["0123456789" * 20_000, "a" + "\u20ac" * 50_000, "\r" * 65_536 + "x"], ids=["1", "3", "r"]
)
@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 40_000])
async def test_nothing_of_a_line_without_end_is_lost_however_it_comes(
    text: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    data = f"{text}\r\nend".encode()
    received = [data[at : at + size] for at in range(0, len(data), size)]

    async def receive(_: Session) -> bytes:
        return received.pop(0) if received else b""

    async def handler(session: Session) -> None:
        lines.extend([line async for line in session])

    monkeypatch.setattr(Session, "_receive", receive)
    async with serving("loop", handler) as server:
        client = await server.login()
        assert await ended(client, await begin(client)) == 0
    assert ("".join(lines[:-1]), lines[-1]) == (text, "end")


@every_placement
@pytest.mark.parametrize("kind", ["async", "blocking", "events"])
async def test_line_feeds_for_a_terminal(placement: str, kind: str) -> None:
    def write(session: Any) -> None:
        if kind == "blocking":
            print("one\ntwo", file=session.stdout)
        elif kind == "events":
            session.write("one\ntwo\n")
            session.write(b"raw\n")

    handler: Any = of_kind(kind, write)
    if kind == "async":

        async def handler(session: Session) -> None:
            await session.write("one\ntwo\n")
            await session.write(b"raw\n")

    raw = b"" if kind == "blocking" else b"raw\n"
    async with serving(placement, handler) as server:
        client = await server.login()
        with_terminal, without = await begin(client, XTERM), await begin(client)
        assert [await ended(client, each) for each in (with_terminal, without)] == [0, 0]
        assert bytes(with_terminal.out) == b"one\r\ntwo\r\n" + raw
        assert bytes(without.out) == b"one\ntwo\n" + raw


@every_placement
@pytest.mark.parametrize("dumb", [False, True])
async def test_the_line_editor_can_be_exchanged(placement: str, *, dumb: bool) -> None:
    lines: list[str] = []

    async def handler(session: Session) -> None:
        if dumb:
            session.editor = LineEditor(term="dumb")
        lines.append(await session.readline("one> "))
        lines.append(await session.readline("two> ", echo=False))

    async with serving(placement, handler) as server:
        client = await server.login()
        channel = await begin(client, XTERM)
        await client.until(lambda: b"one> " in channel.out)
        client.send(channel, b"abx\x7fc\r")
        await client.until(lambda: b"two> " in channel.out)
        client.send(channel, b"secret\r")
        assert await ended(client, channel) == 0
        assert (b"\x1b" in channel.out) is not dumb
        assert b"secret" not in channel.out
    assert lines == ["abc", "secret"]


@every_placement
async def test_the_files_of_a_blocking_session(placement: str) -> None:
    def handler(session: BlockingSession) -> int:
        assert threading.current_thread() is not threading.main_thread()
        assert session.readline("name? ") == "Ann"
        assert session.stdin.readline() == "föö\n"
        assert next(iter(session.stdin)) == "crlf\n"
        session.stdout.write("no line end")
        session.stdout.buffer.flush()
        session.stderr.write("err")
        session.stdout.flush()
        session.stdout.buffer.write(b"\xff")
        assert session.stdin.read() == "rest"
        with pytest.raises(EOFError):
            session.readline()
        return 5

    async with serving(placement, handler) as server:
        client = await server.login()
        channel = await begin(client)
        await client.until(lambda: channel.out == b"name? ")  # it is flushed before the read
        for piece in (b"An", b"n\nf\xc3", b"\xb6\xc3\xb6\ncrlf\r\nre", b"st"):
            client.send(channel, piece)
        client.send_eof(channel)
        assert await ended(client, channel) == 5
        assert (bytes(channel.out), bytes(channel.err)) == (b"name? no line end\xff", b"err")


@every_placement
async def test_the_bytes_of_a_blocking_session(placement: str) -> None:
    def handler(session: BlockingSession) -> None:
        assert session.stdin.buffer.read(4) == b"\xff\0\r\n"
        session.stdout.buffer.write(session.stdin.buffer.read())

    async with serving(placement, handler) as server:
        client = await server.login()
        channel = await client.run("x", b"\xff\0\r\n\x80\n")
        assert (bytes(channel.out), channel.status) == (b"\x80\n", 0)


@every_placement
@pytest.mark.parametrize("size", [1, 5 * MIB])
async def test_all_that_was_written_arrives_before_the_end(placement: str, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x"

    async def coroutine(session: Session) -> int:
        await session.write(data)
        return 3

    def function(session: BlockingSession) -> int:
        session.stdout.buffer.write(data)
        return 3

    class Events(SessionEvents):
        def opened(self, session: EventSession) -> None:
            session.write(data)
            session.exit(3)

    def raw(session: RawSession) -> bool:
        sock = session.socket()

        def write() -> None:
            with sock:
                sock.sendall(data)
                session.exit(3)

        threading.Thread(target=write).start()
        return True

    for handler in (coroutine, function, Events, Beginning(raw)):
        async with serving(placement, handler) as server:
            client = await server.login()
            channel = await begin(client)
            assert await ended(client, channel) == 3
            assert bytes(channel.out) == data


# Ends.


RESULTS = [(None, 0), (0, 0), (7, 7), (2**32 - 1, 2**32 - 1), (2**32, 1), (-1, 1), ("0", 1), (0.0, 1)]


@every_placement
@pytest.mark.parametrize("kind", ["async", "blocking"])
async def test_what_a_handler_returns(placement: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    results: list[Any] = [result for result, _ in RESULTS]
    async with serving(placement, of_kind(kind, lambda _: results[0])) as server:
        client = await server.login()
        for _, status in RESULTS:
            caplog.clear()
            failures = server.server.counters["failures"]
            channel = await begin(client)
            assert await ended(client, channel) == status
            wrong = status == 1
            await eventually(lambda: server.server.counters["failures"] == failures + wrong)  # noqa: B023 - at once
            assert (f"the handler returned {results[0]!r}, which is no exit status" in caplog.text) == wrong
            del results[0]


@every_placement
@pytest.mark.parametrize("kind", ["async", "blocking"])
async def test_the_first_exit_counts(placement: str, kind: str) -> None:
    def serve(session: Any) -> int:
        session.exit(4)
        session.exit(5)
        return 6

    async with serving(placement, of_kind(kind, serve)) as server:
        client = await server.login()
        channel = await begin(client)
        assert await ended(client, channel) == 4
        assert channel.order == ["status", "eof", "close"]


@every_placement
async def test_after_the_exit_nothing_can_be_written(placement: str) -> None:
    failed: list[str] = []

    async def coroutine(session: Session) -> None:
        session.exit(2)
        with pytest.raises(ConnectionClosed):
            await session.write(b"late")
        failed.append("async")

    class Events(SessionEvents):
        def opened(self, session: EventSession) -> None:
            session.exit(2)
            for write in (session.write, session.write_stderr):
                with pytest.raises(ConnectionClosed):
                    write(b"late")
            failed.append("events")

    def function(session: BlockingSession) -> None:
        session.exit(2)
        with pytest.raises(BrokenPipeError):
            print("late", file=session.stdout)
        failed.append("blocking")

    handlers = {"async": coroutine, "events": Events, "blocking": function}
    for name, handler in handlers.items():
        async with serving(placement, handler) as server:
            client = await server.login()
            channel = await begin(client)
            assert await ended(client, channel) == 2
            assert channel.out == b""
            await eventually(lambda wanted=name: failed[-1:] == [wanted])  # type: ignore[misc]
    assert failed == [*handlers]


@every_placement
@every_kind
async def test_a_handler_that_raises_ends_its_session_only(
    placement: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def serve(session: Any) -> int:
        if session.command == "fail":
            raise ZeroDivisionError("a fault of the application's own")
        return 0

    caplog.set_level(logging.DEBUG, "dunnart.server")
    async with serving(placement, of_kind(kind, serve)) as server:
        client = await server.login()
        channel = await client.session()
        if kind == "raw":
            assert not await client.ask(channel, ExecRequest(b"fail"))
        else:
            assert await client.ask(channel, ExecRequest(b"fail"))
            assert await ended(client, channel) == 1
        assert await ended(client, await begin(client, command="work")) == 0
        assert server.server.counters["failures"] == 1
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "ZeroDivisionError" in record.getMessage()
    assert any(record.exc_info for record in caplog.records)  # the traceback, for who asks for it


@every_placement
async def test_a_coroutine_is_cancelled_when_the_client_vanishes(placement: str) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(session: Session) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert session.closed
            await session.wait_closed()
            cancelled.set()
            raise

    for vanish in ("reset", "close the channel"):
        began.clear()
        cancelled.clear()
        async with serving(placement, handler) as server:
            client = await server.login()
            channel = await begin(client)
            await began.wait()
            if vanish == "reset":
                client.reset()
            else:
                client.close_channel(channel)
            await cancelled.wait()
            assert server.server.counters["failures"] == 0


@every_placement
async def test_a_blocking_handler_sees_that_the_client_vanished(placement: str) -> None:
    seen: list[str] = []
    began, done = threading.Event(), threading.Event()

    def handler(session: BlockingSession) -> None:
        began.set()
        try:
            seen.append(session.stdin.read())
            for _ in range(1000):
                print("x" * KIB, file=session.stdout)
        except ConnectionError:  # broken, or reset if something was on its way
            seen.append("gone")
            raise
        finally:
            done.set()

    async with serving(placement, handler) as server:
        client = await server.login()
        await begin(client)
        await asyncio.to_thread(began.wait)
        client.reset()
        await asyncio.to_thread(done.wait)
        assert seen == ["", "gone"]
        assert server.server.counters["failures"] == 0


@every_placement
@every_kind
async def test_the_server_closes_while_sessions_run(placement: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("host", "processes.process", "processes.placement"):
        monkeypatch.setattr(f"dunnart.server.{module}._END_SECONDS", 60.0)
    began, release, closed = threading.Event(), threading.Event(), threading.Event()

    class Events(SessionEvents):
        def opened(self, session: EventSession) -> None:
            began.set()

        def closed(self) -> None:
            closed.set()

    async def coroutine(session: Session) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    def function(session: BlockingSession) -> None:
        began.set()
        release.wait()  # it heeds nothing, and nobody waits for it
        with contextlib.suppress(BrokenPipeError):
            print("late", file=session.stdout)
        closed.set()

    def raw(session: RawSession) -> bool:
        session.on_close = closed.set
        session.socket().detach()
        began.set()
        return True

    handler = {"async": coroutine, "blocking": function, "events": Events, "raw": Beginning(raw)}[kind]
    async with serving(placement, handler) as server:
        client = await server.login()
        await begin(client)
        await asyncio.to_thread(began.wait)
        before = time.monotonic()
        await server.server.close(seconds=60)
        assert time.monotonic() - before < 30
        await client.until(lambda: client.ended)
    release.set()
    assert await asyncio.to_thread(closed.wait, 20)


@every_placement
async def test_the_server_closes_while_an_event_is_handled(placement: str) -> None:
    began, release, closed = threading.Event(), threading.Event(), threading.Event()

    class Events(SessionEvents):
        def data_received(self, data: bytes) -> None:
            began.set()
            release.wait()

        def closed(self) -> None:
            closed.set()

    async with serving(placement, Events, application_threads=1) as server:
        client = await server.login()
        channel = await begin(client)
        client.send(channel, b"x")
        await asyncio.to_thread(began.wait)
        await server.server.close()
    release.set()
    assert await asyncio.to_thread(closed.wait, 20)


# Events.


class Recorder(SessionEvents):
    """Notes what happens, and that nothing happens at the same time."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.busy = threading.Lock()
        self.session: EventSession | None = None
        recorders.append(self)

    @property
    def resized(self) -> list[int]:
        return [each.columns for each in tuple(self.seen) if isinstance(each, WindowChange)]

    def note(self, what: Any) -> None:
        assert self.busy.acquire(blocking=False), "two at once"
        time.sleep(0.001)  # time for another to come in between
        self.seen.append(what)
        self.busy.release()

    def opened(self, session: EventSession) -> None:
        self.session = session
        self.note("opened")

    def data_received(self, data: bytes) -> None:
        self.note(data)
        assert self.session is not None
        self.session.write(data.upper())

    def eof_received(self) -> None:
        self.note("eof")
        assert self.session is not None
        self.session.exit(9)

    def request_received(self, request: WindowChange | SignalRequest | BreakRequest) -> None:
        self.note(request)

    def closed(self) -> None:
        self.note("closed")


recorders: list[Recorder] = []


@every_placement
async def test_events_come_in_order_and_never_two_at_once(placement: str) -> None:
    del recorders[:]
    async with serving(placement, Recorder) as server:
        client = await server.login()
        channels = [await begin(client, XTERM) for _ in range(5)]
        for number in range(30):
            for channel in channels:
                client.send(channel, b"%d," % number)
                if number % 10 == 0:
                    client.request(channel, WindowChange(80 + number, 24, 0, 0))
        # Requests have another way than data and its end: neither waits for the other.
        await eventually(lambda: all(len(each.resized) == 3 for each in recorders))
        for channel in channels:
            client.send_eof(channel)
        assert [await ended(client, channel) for channel in channels] == [9] * 5
        await eventually(lambda: all(each.seen[-1] == "closed" for each in recorders))
        assert server.server.counters["failures"] == 0
    text = b"".join(b"%d," % number for number in range(30))
    assert len(recorders) == 5
    for recorder in recorders:
        assert b"".join(each for each in recorder.seen if isinstance(each, bytes)) == text
        assert recorder.resized == [80, 90, 100]
        assert (recorder.seen[0], *recorder.seen[-2:]) == ("opened", "eof", "closed")
        assert recorder.seen.count("opened") == recorder.seen.count("closed") == 1


@every_placement
@pytest.mark.parametrize("where", ["__init__", "opened", "data_received"])
async def test_events_end_with_the_first_failure(placement: str, where: str) -> None:
    seen: list[str] = []

    def maybe_fail(here: str) -> None:
        seen.append(here)
        if here == where:
            raise ZeroDivisionError("a fault of the application's own")

    class Failing(SessionEvents):
        def __init__(self) -> None:
            maybe_fail("__init__")

        def opened(self, session: EventSession) -> None:
            maybe_fail("opened")

        def data_received(self, data: bytes) -> None:
            maybe_fail("data_received")

        def eof_received(self) -> None:
            maybe_fail("eof_received")

        def closed(self) -> None:
            maybe_fail("closed")

    async with serving(placement, Failing) as server:
        client = await server.login()
        channel = await begin(client)
        client.send(channel, b"1")
        client.send_eof(channel)
        assert await ended(client, channel) == 1
        all_events = ["__init__", "opened", "data_received"]
        expected = all_events[: all_events.index(where) + 1] + ([] if where == "__init__" else ["closed"])
        await eventually(lambda: len(seen) == len(expected))
        assert seen == expected
        assert server.server.counters["failures"] == 1


@every_placement
async def test_events_whose_client_does_not_read(placement: str) -> None:
    stopped, drained = threading.Event(), threading.Event()
    refused: list[str] = []
    sessions: list[EventSession] = []
    written = 0

    class Writer(SessionEvents):
        def opened(self, session: EventSession) -> None:
            nonlocal written
            sessions.append(session)
            try:
                while written < 100 * MIB:
                    session.write(bytes(64 * KIB))
                    written += 64 * KIB
            except BufferError as error:
                refused.append(str(error))
            stopped.set()

        def drained(self) -> None:
            drained.set()
            sessions[0].exit(3)

    async with serving(placement, Writer) as server:
        client = await server.login()
        channel = await client.session()
        channel.consume = channel.keep = False
        assert await client.ask(channel, ShellRequest())
        await asyncio.to_thread(stopped.wait)
        assert refused == ["8 MiB wait already for the client to take them"]
        assert 8 * MIB <= written < 32 * MIB
        assert not drained.is_set()
        channel.consume = True
        client.engine.consumed(channel.number, channel.received)
        client.move()
        assert await ended(client, channel) == 3
        assert drained.is_set()
        assert channel.received == written


@every_placement
async def test_events_keep_the_last_requests(placement: str) -> None:
    release = threading.Event()
    seen: list[int] = []
    begun: list[EventSession] = []

    class Slow(SessionEvents):
        def opened(self, session: EventSession) -> None:
            begun.append(session)
            release.wait()

        def request_received(self, request: WindowChange | SignalRequest | BreakRequest) -> None:
            if isinstance(request, WindowChange):
                seen.append(request.columns)

    async with serving(placement, Slow) as server:
        client = await server.login()
        channel = await begin(client, XTERM)
        for columns in range(100, 400):
            assert await client.ask(channel, WindowChange(columns, 24, 0, 0))
        # A protocol process has answered before the application's side has it.
        await eventually(lambda: begun and WindowChange(399, 24, 0, 0) in begun[0]._runner._requests)
        release.set()
        await eventually(lambda: seen[-1:] == [399])
    assert seen == list(range(400 - 64, 400))


# Backpressure.


@every_placement
@every_kind
async def test_a_handler_that_never_reads_stops_its_own_window_only(placement: str, kind: str) -> None:
    release = threading.Event()
    over = asyncio.Event()
    kept: list[socket.socket] = []

    async def coroutine(session: Session) -> None:
        if session.command == "echo":
            await session.write(await session.read())
        else:
            await over.wait()

    def function(session: BlockingSession) -> None:
        if session.command == "echo":
            session.stdout.write(session.stdin.readline())
        else:
            release.wait()

    class Events(SessionEvents):
        def opened(self, session: EventSession) -> None:
            self.session = session

        def data_received(self, data: bytes) -> None:
            if self.session.command != "echo":
                release.wait()
                return
            self.session.write(data)
            self.session.exit()

    def raw(session: RawSession) -> bool:
        sock = session.socket()
        kept.append(sock)
        if session.command == "echo":

            def echo() -> None:
                sock.sendall(sock.recv(100))
                session.exit()

            threading.Thread(target=echo).start()
        return True

    handler = {"async": coroutine, "blocking": function, "events": Events, "raw": Beginning(raw)}[kind]
    async with serving(placement, handler) as server:
        client = await server.login()
        deaf = await begin(client, command="deaf")
        sent = await flood(client, deaf, 20 * MIB)
        assert sent < 8 * MIB  # the window of 2 MiB, what the socket holds, and events ahead
        echo = await begin(client, command="echo")
        client.send(echo, b"hello\n")
        assert await ended(client, echo) == 0
        assert echo.out == b"hello\n"
        release.set()
        over.set()
    for sock in kept:
        sock.close()


@every_placement
async def test_a_client_that_never_reads_holds_up_its_own_handler_only(placement: str) -> None:
    written: list[int] = []

    async def coroutine(session: Session) -> None:
        if session.command == "echo":
            await session.write(await session.read())
            return
        for _ in range(500):
            await session.write(bytes(64 * KIB))
            written.append(64 * KIB)

    async with serving(placement, coroutine) as server:
        client = await server.login()
        deaf = await client.exec("deaf", consume=False)
        other = await server.login()
        echo = await begin(other, command="echo")
        other.send(echo, b"hello\n")
        assert await ended(other, echo) == 0
        before = -1
        while sum(written) != before:  # until it stands still
            before = sum(written)
            await asyncio.sleep(0.2)
        assert 0 < before < 8 * MIB
        assert not deaf.closed


# Middleware.


def around(name: str, seen: list[str]) -> Callable[[AsyncHandler], AsyncHandler]:
    def layer(following: AsyncHandler) -> AsyncHandler:
        async def handler(session: Session) -> int | None:
            seen.append(f"{name} begins {session.command}")
            try:
                return await following(session)
            finally:
                seen.append(f"{name} ends")

        return handler

    return layer


@every_placement
@every_kind
async def test_middleware_is_put_around_every_kind(placement: str, kind: str) -> None:
    seen: list[str] = []

    def serve(session: Any) -> int:
        seen.append("served")
        return 6

    layers = [around("outer", seen), around("inner", seen)]
    async with serving(placement, of_kind(kind, serve), middleware=layers) as server:
        client = await server.login()
        channel = await begin(client, command="it")
        assert await ended(client, channel) == 6
        await eventually(lambda: len(seen) == 5)
    assert seen == ["outer begins it", "inner begins it", "served", "inner ends", "outer ends"]


@every_placement
async def test_middleware_around_a_program(placement: str) -> None:
    seen: list[str] = []
    async with serving(placement, Running(), middleware=[around("layer", seen)]) as server:
        client = await server.login()
        channel = await client.run("cat; echo err >&2; exit 5", b"in")
        assert (bytes(channel.out), bytes(channel.err), channel.status) == (b"in", b"err\n", 5)
        await eventually(lambda: seen[-1] == "layer ends")
        terminal = await begin(client, XTERM, command="stty size; read x; stty size; exit 4")
        await client.until(lambda: b"24 80" in terminal.out)
        client.request(terminal, WindowChange(100, 30, 0, 0))
        client.send(terminal, b"\n")
        assert await ended(client, terminal) == 4
        assert b"30 100" in terminal.out


@every_placement
async def test_middleware_can_refuse(placement: str) -> None:
    def no_commands(following: AsyncHandler) -> AsyncHandler:
        async def handler(session: Session) -> int | None:
            if session.command == "forbidden":
                await session.stderr.write("not here\n")
                return 77
            return await following(session)

        return handler

    async with serving(placement, Running(), middleware=[no_commands]) as server:
        client = await server.login()
        channel = await client.run("forbidden")
        assert (channel.status, bytes(channel.err)) == (77, b"not here\n")
        assert (await client.run("exit 3")).status == 3


@every_placement
async def test_middleware_leaves_an_application_its_socket_when_the_client_goes(placement: str) -> None:
    began, over, seen = threading.Event(), threading.Event(), queue.SimpleQueue[int]()
    loop = asyncio.get_running_loop()

    def layer(following: AsyncHandler) -> AsyncHandler:
        async def handler(session: Session) -> int | None:
            try:
                return await following(session)
            finally:
                over.set()

        return handler

    class Serving(ThreadApplication):
        def serve(self, session: RawSession) -> None:
            sock = session.socket()
            began.set()
            over.wait()
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()  # the layer's session has ended
            seen.put(sock.fileno())

    async with serving(placement, Serving(), middleware=[layer]) as server:
        client = await server.login()
        await begin(client)
        await asyncio.to_thread(began.wait)
        client.close()
        assert await asyncio.to_thread(seen.get) >= 0


# Who serves what.


@every_placement
async def test_shells_commands_and_subsystems_have_handlers_of_their_own(placement: str) -> None:
    def named(status: int) -> Handler:
        result: Handler = of_kind("async", lambda _: status)
        return result

    subsystems = {"sub": named(3), "blocking": of_kind("blocking", lambda _: 4)}
    async with serving(placement, named(1), exec=named(2), subsystems=subsystems) as server:
        client = await server.login()
        assert await ended(client, await begin(client)) == 1
        assert await ended(client, await begin(client, command="x")) == 2
        assert await ended(client, await begin(client, subsystem="sub")) == 3
        assert await ended(client, await begin(client, subsystem="blocking")) == 4
        channel = await client.session()
        assert not await client.ask(channel, SubsystemRequest("none"))
    async with serving(placement, exec=named(2)) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, ShellRequest())
        assert await client.ask(channel, ExecRequest(b"x"))
        assert await ended(client, channel) == 2


# Raw sessions.


@every_placement
async def test_a_raw_session_refuses_as_it_begins(placement: str) -> None:
    def refuse(session: RawSession) -> bool:
        session.refuse("not today", 99)
        return True

    async with serving(placement, Beginning(refuse)) as server:
        client = await server.login()
        channel = await client.session()
        assert await client.ask(channel, ExecRequest(b"x"))  # answered before the end, so that the client shows it
        assert await ended(client, channel) == 99
        assert bytes(channel.err) == b"not today\r\n"
        assert channel.order == ["err", "status", "eof", "close"]


@every_placement
async def test_the_sockets_of_a_raw_session(placement: str) -> None:
    closed = threading.Event()

    def begin_raw(session: RawSession) -> bool:
        sock, err = session.socket(), session.stderr_socket()
        assert sock.getblocking()
        session.on_close = closed.set

        def serve() -> None:
            with sock, err:
                data = b""
                while piece := sock.recv(100):
                    data += piece
                sock.sendall(data)
                err.sendall(b"errors")
                assert not session.ended
                session.exit(8)
                assert session.exited

        threading.Thread(target=serve).start()
        return True

    async with serving(placement, Beginning(begin_raw)) as server:
        client = await server.login()
        channel = await client.run("x", b"input")
        assert (bytes(channel.out), bytes(channel.err), channel.status) == (b"input", b"errors", 8)
        await asyncio.to_thread(closed.wait)
