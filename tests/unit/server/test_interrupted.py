"""Sessions whose handlers give up waiting, end early or fail, and applications that are busy: nothing else feels it."""

from __future__ import annotations

import asyncio
import io
import socket
import time
from typing import Any

import pytest

from dunnart.apps.terminal import has_screen
from dunnart.errors import ConnectionClosed
from dunnart.line_editor import LineEditor
from dunnart.protocol.events import LoggedIn
from dunnart.protocol.requests import (
    ExecRequest,
    GlobalKeepalive,
    PtyRequest,
    SignalRequest,
    UnknownGlobalRequest,
    UnknownRequest,
)
from dunnart.server import (
    Address,
    AllowAnyone,
    AsyncHandler,
    AuditEvent,
    EventSession,
    Handler,
    PasswordCallback,
    RawSession,
    Server,
    ServerConfig,
    Session,
    SessionEvents,
)
from dunnart.server.blocking import _line
from tests.runtime.driver import HOST_KEY, Beginning, Channel, eventually, right_password
from tests.unit.server.api import Api, begin, ended, every_placement, serving

XTERM = PtyRequest("xterm", 40, 10, 0, 0, b"")


@every_placement
async def test_a_task_that_outlives_its_handler_is_told_and_disturbs_no_other_session(placement: str) -> None:
    outlived: list[asyncio.Task[Any]] = []

    async def handler(session: Session) -> None:
        if session.command == "first":
            outlived.append(asyncio.create_task(session.read()))
            outlived.append(asyncio.create_task(session.write(bytes(32 << 20))))
            await eventually(lambda: len(session._io._waiting) == 2)
        else:
            await session.write(await session.read())

    async with serving(placement, handler, exec=handler) as server:
        client = await server.login()
        channel = await client.session()
        channel.consume = False  # so that it cannot be written to for long
        assert await client.ask(channel, ExecRequest(b"first"))
        await eventually(lambda: len(outlived) == 2 and all(task.done() for task in outlived))
        assert outlived[0].result() == b""
        assert isinstance(outlived[1].exception(), ConnectionClosed)
        second = await server.login()
        channel = await begin(second, command="second")
        await second.send_all(channel, b"hello")
        assert await ended(second, channel) == 0
        assert channel.out == b"hello"


async def test_a_line_that_was_entered_is_not_lost_with_who_waited_for_it() -> None:
    got: list[str] = []
    prompted, held, entered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(session: Session) -> None:
        reading = asyncio.create_task(session.readline("> "))
        await prompted.wait()
        async with session._turn:  # as by a client that takes nothing
            held.set()
            await entered.wait()
            await eventually(lambda: bool(session._turn._waiters))
            reading.cancel()
            await asyncio.wait([reading])
        got.append(await session.readline("again> "))
        got.append(await session.readline("more> "))

    async with serving("loop", handler) as server:
        client = await server.login()
        channel = await begin(client, XTERM)
        await client.until(lambda: b"> " in channel.out)
        prompted.set()
        await held.wait()
        await client.send_all(channel, b"hello\r")
        entered.set()
        await client.until(lambda: b"more> " in channel.out)
        await client.send_all(channel, b"second\r")
        assert await ended(client, channel) == 0
    assert got == ["hello", "second"]


async def test_what_was_typed_ahead_is_for_the_next_editor() -> None:
    got: list[str] = []

    async def handler(session: Session) -> None:
        got.append(await session.readline("> "))
        session.editor = LineEditor(columns=40)
        got.append(await session.readline("config> "))

    async with serving("loop", handler) as server:
        client = await server.login()
        channel = await begin(client, XTERM)
        await client.send_all(channel, b"configure\rset a 1\r")
        assert await ended(client, channel) == 0
    assert got == ["configure", "set a 1"]


@pytest.mark.parametrize(
    "text", ["a" * 65_536, "a" * 65_535, "a" + "\u20ac" * 50_000, "\r" * 65_537, "a" * 65_535 + "\r\r"]
)
def test_pieces_of_a_long_line_are_whole(text: str) -> None:
    raw: Any = io.BytesIO(f"{text}\r\nend".encode())
    file = io.BufferedReader(raw)
    pieces = [piece.decode() for piece in iter(lambda: _line(file), b"")]
    assert "".join(pieces) == f"{text}\r\nend"
    assert pieces[-2].endswith("\r\n")
    assert len(pieces[-2]) > 2
    assert max(map(len, pieces)) <= 65_540


@every_placement
@pytest.mark.parametrize("kind", ["async", "events"])
async def test_bytes_of_a_client_that_are_no_text_can_be_written_back(placement: str, kind: str) -> None:
    async def coroutine(session: Session) -> None:
        await session.write(f"no {session.command}")

    class Events(SessionEvents):
        def opened(self, session: EventSession) -> None:
            session.write(f"no {session.command}")
            session.exit(0)

    handler: Handler = coroutine if kind == "async" else Events
    async with serving(placement, exec=handler) as server:
        client = await server.login()
        channel = await client.run(b"caf\xe9")
        assert (bytes(channel.out), channel.status) == (b"no caf\xe9", 0)


@every_placement
async def test_signals_that_come_before_the_application_has_time_are_kept(placement: str) -> None:
    got: list[str] = []

    async def handler(session: Session) -> None:
        async for request in session.requests():
            assert isinstance(request, SignalRequest)
            got.append(request.signal)
            if request.signal == "TERM":
                return

    async with serving(placement, exec=handler) as server:
        client = await server.login()
        channel = await client.session()
        client.request(channel, ExecRequest(b"x"))
        client.request(channel, SignalRequest("INT"))
        time.sleep(0.2)  # noqa: ASYNC251 - the application computes
        await eventually(lambda: got == ["INT"])
        client.request(channel, SignalRequest("TERM"))
        assert await ended(client, channel) == 0
    assert got == ["INT", "TERM"]


@every_placement
async def test_middleware_ends_though_what_it_is_around_fails_at_the_end(placement: str) -> None:
    ends: list[int] = []

    def begin_raw(session: RawSession) -> bool:
        sock = session.socket()

        def fail() -> None:
            sock.close()
            raise ValueError("of the application")

        session.on_close = fail
        return True

    def layer(handler: AsyncHandler) -> AsyncHandler:
        async def around(session: Session) -> int | None:
            try:
                return await handler(session)
            finally:
                ends.append(session.connection_id)

        return around

    async with serving(placement, Beginning(begin_raw), middleware=[layer]) as server:
        for count in range(1, 7):
            client = await server.login()
            await begin(client)
            client.close()
            await eventually(lambda wanted=count: len(ends) == wanted)  # type: ignore[misc]


class _Accepts:
    def __init__(self, answer: bool) -> None:
        self._answer = answer

    async def __call__(self, _: Address) -> bool:
        return self._answer


@every_placement
async def test_a_callback_may_be_an_object_that_is_called_like_a_coroutine_function(placement: str) -> None:
    async with serving(placement, _greets, accept=_Accepts(True)) as server:
        client = await server.login()
        assert not client.eof
    async with serving(placement, _greets, accept=_Accepts(False)) as server:
        client = server.begin()
        await client.until(lambda: client.eof)


async def _greets(session: Session) -> None:
    await session.write("hello")


@every_placement
async def test_a_callback_that_raises_stopiteration_is_answered_for_at_once(placement: str) -> None:
    def accept(_: Address) -> bool:
        return next(iter(()))

    async with serving(placement, _greets, accept=accept, callback_seconds=600) as server:
        client = server.begin()
        await client.until(lambda: client.eof)


async def test_an_unnamed_terminal_is_no_screen() -> None:
    found: list[bool] = []

    async def handler(session: Session) -> None:
        found.append(has_screen(session))

    async with serving("loop", handler) as server:
        client = await server.login()
        for term in ("", "dumb", "xterm"):
            assert await ended(client, await begin(client, PtyRequest(term, 80, 24, 0, 0, b""))) == 0
    assert found == [False, False, True]


class _Own:
    """A plug-in in whose coroutine a task of its own is cancelled, or that gives what it must not."""

    def __init__(self, gives: Any = None) -> None:
        self._gives = gives

    async def prepare(self, _: object) -> Any:
        if self._gives is not None:
            return self._gives
        task = asyncio.ensure_future(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(task.cancel)
        await task
        raise AssertionError

    open = answer = prepare


@every_placement
async def test_a_plug_in_whose_own_task_is_cancelled_refuses(placement: str) -> None:
    plugins: dict[str, Any] = {
        "session_requests": {"own@x": _Own(), "wrong@x": _Own(gives=True)},
        "global_requests": {"own@x": _Own()}, "channel_types": {"own@x": _Own()},
    }  # fmt: skip
    async with serving(placement, _greets, exec=_greets, **plugins) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, UnknownRequest("own@x", b""))
        assert not await client.ask(channel, UnknownRequest("wrong@x", b""))
        assert await client.ask(channel, ExecRequest(b"x"))
        assert await ended(client, channel) == 0
        client.engine.request_global(UnknownGlobalRequest("own@x", b""), want_reply=True)
        client.engine.request_global(GlobalKeepalive(), want_reply=True)
        client.move()
        await client.until(lambda: len(client.global_answers) == 2)
        number = client.engine.open_channel("own@x")
        channel = client.channels[number] = Channel(number)
        client.move()
        await client.until(lambda: channel.opened is not None)
        assert not channel.opened


@every_placement
async def test_the_end_of_a_session_is_recorded_once(placement: str) -> None:
    ends: list[object] = []

    class Sink:
        def record(self, event: AuditEvent) -> None:
            if event.kind == "session-end":
                ends.append(event.details["session"])

    async with serving(placement, Beginning(lambda _: False), audit=[Sink()]) as server:
        client = await server.login()
        for _ in range(2):
            channel = await client.session()
            client.engine.request(channel.number, ExecRequest(b"x"), want_reply=True)
            client.close_channel(channel)
            await client.until(lambda: channel.closed)  # noqa: B023 - at once
        await eventually(lambda: 1 in ends)
        assert ends == [0, 1]


@every_placement
async def test_a_server_can_be_closed_though_the_application_has_closed_its_socket(placement: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = Server(_greets, host_keys=[HOST_KEY], authenticators=[AllowAnyone()], listen=sock, placement=placement)
        await server.start()
        port = server.port
    await server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("placement", ["loop", "thread"])
async def test_who_is_being_asked_about_while_the_server_is_replaced_is_let_in(placement: str) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def accept(_: Address) -> bool:
        asked.set()
        await answer.wait()
        return True

    options: dict[str, Any] = {
        "handler": _greets, "host_keys": [HOST_KEY], "authenticators": [PasswordCallback(right_password)],
        "listen": "127.0.0.1:0", "placement": placement, "admission": None, "callback_seconds": 60,
    }  # fmt: skip
    async with Server(**options, accept=accept) as server:
        client = Api(server).begin()
        await asked.wait()
        await server.replace(ServerConfig(**options))
        answer.set()
        await client.until(lambda: client.eof or any(isinstance(each, LoggedIn) for each in client.events))
        assert not client.eof
        client.close()
