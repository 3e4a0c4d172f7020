"""The same server with its protocol on the application's loop, in a thread, in one process and in two."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dunnart.errors import ConfigError
from dunnart.keys.private import PrivateKey
from dunnart.protocol.events import AuthRefused, LoggedIn
from dunnart.protocol.questions import (
    Allow,
    AuthReply,
    CredentialQuestion,
    Deny,
    InteractiveCredential,
    PasswordCredential,
    Prompt,
    PromptQuestion,
    PublicKeyCredential,
    Refusal,
    SignQuestion,
)
from dunnart.protocol.requests import (
    ExecRequest,
    PtyRequest,
    ShellRequest,
    SignalRequest,
    SubsystemRequest,
    UnknownGlobalRequest,
    WindowChange,
)
from dunnart.runtime.admission import Admission, StartupLimit
from dunnart.server import (
    Address,
    Attempt,
    BlockingSession,
    PasswordCallback,
    PublicKeys,
    RawSession,
    Server,
    Session,
)
from dunnart.server.config import _random
from dunnart.server.interfaces import AuditEvent, ChannelOpening, ConnectionRequest
from tests.runtime.driver import (
    HOST_KEY,
    MIB,
    PASSWORD,
    USER,
    Beginning,
    Channel,
    Clients,
    Running,
    alive,
    descriptors,
    eventually,
    exists,
    right_password,
)

PLACEMENTS = [("loop", 1), ("thread", 1), ("process", 1), ("process", 2)]
every_placement = pytest.mark.parametrize("where", PLACEMENTS, ids=lambda where: f"{where[0]}-{where[1]}")
both_sides = pytest.mark.parametrize(
    "where", [PLACEMENTS[1], PLACEMENTS[3]], ids=lambda where: f"{where[0]}-{where[1]}"
)
"""In this process, and in others; for what takes long."""
in_processes = pytest.mark.parametrize("where", PLACEMENTS[2:], ids=lambda where: f"{where[0]}-{where[1]}")


class Placed(Clients):
    """A server through its public face, and its clients."""

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", server.port))
        self.server = server

    def workers(self) -> list[int]:
        """The protocol processes."""
        return [worker.pid for worker in self.server._placement.workers]  # type: ignore[union-attr]


@asynccontextmanager
async def placed(where: tuple[Any, int], handler: Any = None, **options: Any) -> AsyncIterator[Placed]:
    options.setdefault("authenticators", [PasswordCallback(right_password)])
    options.setdefault("admission", None)
    server = Server(
        handler or Running(),
        host_keys=[HOST_KEY],
        listen="127.0.0.1:0",
        placement=where[0],
        workers=where[1],
        **options,
    )
    async with server:
        running = Placed(server)
        try:
            yield running
        finally:
            for client in running.clients:
                client.close()


@every_placement
async def test_programs_run_on_pipes(where: tuple[str, int]) -> None:
    async with placed(where) as server:
        client = await server.login()
        channel = await client.run("cat; echo err >&2; exit 7", b"in")
        assert (channel.out, channel.err, channel.status) == (b"in", b"err\n", 7)
        assert (await client.run("kill -USR1 $$")).signal == "USR1"
        data = os.urandom(3 * MIB)
        assert (await client.run("cat", data)).out == data
        digest = await client.run("sha256sum", data)
        assert digest.out.split()[0].decode() == hashlib.sha256(data).hexdigest()


@every_placement
async def test_programs_run_on_a_pty_of_the_right_size(where: tuple[str, int]) -> None:
    async with placed(where) as server:
        client = await server.login()
        channel = await client.session()
        assert await client.ask(channel, PtyRequest("vt100", 80, 24, 0, 0, b""))
        assert await client.ask(channel, ExecRequest(b"stty size; read x; stty size; exit 3"))
        await client.until(lambda: b"24 80\r\n" in channel.out)
        client.request(channel, WindowChange(100, 30, 0, 0))
        client.send(channel, b"\n")
        await client.until(lambda: channel.closed)
        assert channel.out.endswith(b"30 100\r\n")
        assert channel.status == 3


@every_placement
async def test_signals_and_hang_ups_reach_programs(where: tuple[str, int]) -> None:
    async with placed(where) as server:
        client = await server.login()
        channel = await client.exec("trap 'echo got; exit 5' INT; echo ready; while :; do sleep 0.01; done")
        await client.until(lambda: channel.out == b"ready\n")
        client.request(channel, SignalRequest("INT"))
        await client.until(lambda: channel.closed)
        assert (channel.out, channel.status) == (b"ready\ngot\n", 5)
        channel = await client.exec("echo $$; exec sleep 1000")
        await client.until(lambda: channel.out.endswith(b"\n"))
        pid = int(channel.out)
        client.reset()
        await eventually(lambda: not alive(pid))


@every_placement
async def test_handlers_get_what_the_client_said(where: tuple[str, int]) -> None:
    seen: list[Any] = []

    async def handler(session: Session) -> int:
        assert session.terminal is not None
        seen.append((session.user, session.method, session.kind, session.command, dict(session.environment)))
        seen.append((session.terminal.term, session.terminal.columns, session.terminal.modes, session.key))
        async for request in session.requests():
            seen.append(request)
            seen.append((session.terminal.columns, session.terminal.rows))
            if isinstance(request, SignalRequest):
                break
        await session.write("text\n")
        await session.stderr.write(b"raw\n")
        seen.append(threading.current_thread() is threading.main_thread())
        return 4

    async with placed(where, handler) as server:
        client = await server.login()
        channel = await client.session()
        modes = b"\x35\0\0\0\1\0"
        assert await client.ask(channel, PtyRequest("xterm", 80, 24, 640, 480, modes))
        assert await client.ask(channel, ExecRequest(b"do \xff it"))
        client.request(channel, WindowChange(132, 0, 0, 0))
        client.request(channel, SignalRequest("INT"))
        await client.until(lambda: channel.closed)
        assert (channel.out, channel.err, channel.status) == (b"text\r\n", b"raw\n", 4)
    assert seen[0] == (USER, "password", "exec", "do \udcff it", {})
    assert seen[1] == ("xterm", 80, {53: 1}, None)
    assert seen[2:6] == [WindowChange(132, 0, 0, 0), (132, 24), SignalRequest("INT"), (132, 24)]
    assert seen[6] is True


@every_placement
async def test_a_refused_kind_leaves_the_channel_for_another(where: tuple[str, int]) -> None:
    async def told(session: Session) -> None:
        await session.write(f"{session.subsystem}")

    async with placed(where, subsystems={"tell": told}, shell=Running(), exec=Running()) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, SubsystemRequest("none"))
        assert await client.ask(channel, SubsystemRequest("tell"))
        await client.until(lambda: channel.closed)
        assert (channel.out, channel.status) == (b"tell", 0)


@every_placement
async def test_an_application_that_fails_fails_its_channel(
    where: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    def failing(session: RawSession) -> bool:
        raise ZeroDivisionError("an application's own fault")

    async with placed(where, shell=Beginning(failing)) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, ShellRequest())
        assert (await client.run("echo on")).out == b"on\n"
        assert server.server.counters["failures"] == 1
    assert any("an application's own fault" in message for message in caplog.messages)


@every_placement
async def test_grants_are_those_of_the_request_that_counted(where: tuple[str, int]) -> None:
    """THREATS R12: a key that was only asked about grants nothing."""
    key, other = PrivateKey.generate("ed25519"), PrivateKey.generate("ed25519")
    granted: list[tuple[object, ...]] = []
    keys: list[object] = []

    class Both:
        method = "publickey"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            assert isinstance(attempt.credential, PublicKeyCredential)
            return Allow({key.public: key, other.public: other}[attempt.credential.key])

    async def handler(session: Session) -> None:
        granted.append(session.grants)
        keys.append(session.key)

    tries = iter([
        PublicKeyCredential(other.public, "ssh-ed25519", signed=False),
        PublicKeyCredential(key.public, "ssh-ed25519", signed=True),
    ])  # fmt: skip
    answers: dict[Any, Any] = {
        CredentialQuestion: lambda _: next(tries, None),
        SignQuestion: lambda question: key.sign(question.algorithm, question.data),
    }
    async with placed(where, handler, authenticators=[Both()]) as server:
        client = await server.login(answers=answers)
        await client.run("x")
    assert granted == [(key,)]
    assert granted[0][0] is key
    assert keys == [key.public]


@every_placement
async def test_prompts_and_denials_travel(where: tuple[str, int], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dunnart")

    class Asking:
        method = "keyboard-interactive"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            assert isinstance(attempt.credential, InteractiveCredential)
            if attempt.credential.responses is None:
                return Prompt((("one? ", True), ("two? ", False)), "name", "do it")
            if attempt.credential.responses == ("1", "zwei"):
                return Allow()
            return Deny("wrong answers", unknown_user=True)

    asked: list[Prompt] = []
    replies = iter([("1", "2"), ("1", "zwei")])

    def reply(question: PromptQuestion) -> tuple[str, ...]:
        asked.append(question.prompt)
        return next(replies)

    answers: dict[Any, Any] = {
        CredentialQuestion: InteractiveCredential("", None),
        PromptQuestion: reply,
    }
    async with placed(where, authenticators=[Asking()]) as server:
        await server.login(answers=answers)
        await eventually(lambda: any("Accepted keyboard-interactive" in message for message in caplog.messages))
    assert asked == [Prompt((("one? ", True), ("two? ", False)), "name", "do it")] * 2
    assert any(message.startswith(f"Invalid user {USER} from 127.0.0.1") for message in caplog.messages)
    assert any("wrong answers" in message for message in caplog.messages)


@every_placement
@pytest.mark.parametrize("how", ["raise", "hang", "hang in a thread"])
async def test_an_authenticator_that_fails_denies_and_others_log_in(where: tuple[str, int], how: str) -> None:
    let_go = threading.Event()

    class Failing:
        method = "password"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            if attempt.credential == PasswordCredential(PASSWORD):
                return Allow()
            if how == "raise":
                raise ZeroDivisionError
            if how == "hang":
                await asyncio.sleep(1000)
            return await attempt.run(let_go.wait)  # type: ignore[no-any-return]

    async with placed(where, authenticators=[Failing()], callback_seconds=0.5) as server:
        stuck = server.begin(password="wrong")
        await asyncio.wait_for(server.login(), 10)
        await stuck.until(lambda: any(isinstance(event, AuthRefused) for event in stuck.events))
        assert not any(isinstance(event, LoggedIn) for event in stuck.events)
        let_go.set()


@every_placement
async def test_the_accept_callback_refuses_before_a_byte(where: tuple[str, int]) -> None:
    seen: list[Address] = []
    open_door = [False]

    def accept(peer: Address) -> bool:
        seen.append(peer)
        return open_door[0]

    async with placed(where, accept=accept) as server:
        loop = asyncio.get_running_loop()
        with server.dial() as sock:
            sock.setblocking(False)
            assert await loop.sock_recv(sock, 100) == b""
            assert [peer.host for peer in seen] == ["127.0.0.1"]
            assert seen[0].port == sock.getsockname()[1]
        open_door[0] = True
        assert (await (await server.login()).run("echo in")).out == b"in\n"
        assert server.server.connections == 1


@every_placement
async def test_connections_have_numbers_of_their_own_and_are_counted(where: tuple[str, int]) -> None:
    numbers: list[int] = []

    async def handler(session: Session) -> None:
        numbers.append(session.connection_id)
        await session.read()

    async with placed(where, handler) as server:
        clients = [await server.login() for _ in range(6)]
        for client in clients:
            await client.exec("x")
        await eventually(lambda: len(numbers) == 6)
        assert len(set(numbers)) == 6
        assert server.server.connections == 6
        for client in clients[:4]:
            client.reset()
        await eventually(lambda: server.server.connections == 2)


@every_placement
async def test_limits_hold_for_all_workers_together(where: tuple[Any, int]) -> None:
    admission = Admission(startups=StartupLimit(3, 100, 3), per_source=0, random=_random)
    async with placed(where, admission=admission) as server:
        loop = asyncio.get_running_loop()
        socks = [server.dial() for _ in range(4)]
        for sock in socks:
            sock.setblocking(False)
        first = [await loop.sock_recv(sock, 8) for sock in socks]
        assert first == [b"SSH-2.0-", b"SSH-2.0-", b"SSH-2.0-", b""]
        socks[0].close()
        while True:  # room again, once the server has seen it
            with server.dial() as sock:
                sock.setblocking(False)
                if await loop.sock_recv(sock, 8):
                    break
        for sock in socks:
            sock.close()
        for _ in range(5):  # and logins make room as well
            await eventually(lambda: server.server.connections == len(server.clients))
            await server.login()
        assert (await server.clients[-1].run("echo in")).out == b"in\n"


class _Channels:
    async def open(self, opening: ChannelOpening) -> Any:
        if opening.data == b"no":
            return Refusal(4, "not today")
        if opening.data == b"fail":
            raise ZeroDivisionError("a plug-in's own fault")

        async def serve(session: Session) -> None:
            await session.write(f"{session.kind} {opening.data!r} {session.user} ".encode())
            while data := await session.read():
                await session.write(data.upper())

        return serve


class _Requests:
    async def answer(self, request: ConnectionRequest) -> bool | bytes:
        if request.data == b"fail":
            raise ZeroDivisionError("a plug-in's own fault")
        return request.data or False


class _Sink:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def record(self, event: AuditEvent) -> None:
        self.events.append(event)
        raise ZeroDivisionError("a sink's own fault")


@every_placement
async def test_plug_ins_serve_channels_and_global_requests(where: tuple[Any, int]) -> None:
    options = {"channel_types": {"x@example.org": _Channels()}, "global_requests": {"ask@example.org": _Requests()}}
    async with placed(where, **options) as server:
        client = await server.login()

        async def opened(data: bytes, kind: str = "x@example.org") -> Any:
            number = client.engine.open_channel(kind, data)
            channel = client.channels[number] = Channel(number)
            client.move()
            await client.until(lambda: channel.opened is not None)
            return channel

        assert not (await opened(b"no")).opened
        assert not (await opened(b"fail")).opened
        assert not (await opened(b"", "y@example.org")).opened
        channel = await opened(b"data")
        client.send(channel, b"abc")
        await client.until(lambda: channel.out.endswith(b"ABC"))
        assert channel.out == f"x@example.org b'data' {USER} ABC".encode()
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        for data, wanted in ((b"yes", True), (b"", False), (b"fail", False)):
            client.engine.request_global(UnknownGlobalRequest("ask@example.org", data), want_reply=True)
            client.move()
            await client.until(lambda: client.global_answers)
            assert client.global_answers.pop() is wanted
        assert (await client.run("echo on")).out == b"on\n"


@every_placement
async def test_audit_sinks_hear_of_logins_and_sessions(where: tuple[Any, int]) -> None:
    sinks = [_Sink(), _Sink()]
    async with placed(where, audit=sinks) as server:
        wrong = server.begin(password="wrong")
        await wrong.until(lambda: any(isinstance(event, AuthRefused) for event in wrong.events))
        client = await server.login()
        await client.run("echo \udcff".encode(errors="surrogateescape"))
        await eventually(lambda: len(sinks[1].events) >= 4)
    for sink in sinks:
        kinds = [event.kind for event in sink.events]
        assert kinds == ["login-failed", "login", "session-begin", "session-end"]
        assert all(event.user == USER and event.peer.host == "127.0.0.1" for event in sink.events)
        assert sink.events[1].details["method"] == "password"
        assert sink.events[2].details["detail"] == "echo \ufffd"
        assert len({event.connection for event in sink.events[1:]}) == 1


@every_placement
async def test_static_keys_let_in_wherever_they_are_looked_at(where: tuple[Any, int]) -> None:
    key, other = PrivateKey.generate("ed25519"), PrivateKey.generate("ed25519")
    line = key.public.line("me")
    interval = sys.getswitchinterval()

    def trying(who: PrivateKey) -> dict[Any, Any]:
        tries = iter([PublicKeyCredential(who.public, "ssh-ed25519", signed=True)])
        return {
            CredentialQuestion: lambda _: next(tries, None),
            SignQuestion: lambda question: who.sign(question.algorithm, question.data),
        }

    async with placed(where, authenticators=[PublicKeys(line, users=[USER])]) as server:
        assert (sys.getswitchinterval() < interval) is (where[0] == "process")
        assert (await (await server.login(answers=trying(key))).run("echo in")).out == b"in\n"
        stranger = server.begin(answers=trying(other))
        await stranger.until(lambda: any(isinstance(event, AuthRefused) for event in stranger.events))
    assert sys.getswitchinterval() == interval


@in_processes
async def test_the_work_is_shared_out(where: tuple[Any, int]) -> None:
    async with placed(where) as server:
        for _ in range(8):
            await server.login()
        shares = [worker.connections for worker in server.server._placement.workers]  # type: ignore[union-attr]
        assert sum(shares) == 8
        assert max(shares) - min(shares) <= 1


@in_processes
async def test_a_protocol_process_that_dies_is_replaced(
    where: tuple[Any, int], caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    async def handler(session: Session) -> None:
        try:
            await session.read()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        ended.append("read")

    async with placed(where, handler) as server:
        clients = [await server.login() for _ in range(2)]
        for client in clients:
            await client.exec("x")
        for _ in range(2):
            before = server.server.connections
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            await eventually(lambda before=before: server.server.connections < before)  # type: ignore[misc]
            await eventually(lambda victim=victim: not exists(victim))  # type: ignore[misc]
            for _ in range(4):  # the listener's queue takes them meanwhile
                client = await server.login()
                await client.exec("x")
        assert server.server.counters["worker_restarts"] == 2
        assert len(set(server.workers())) == where[1]
    assert sum("has ended unexpectedly" in message for message in caplog.messages) == 2
    assert ended


@in_processes
async def test_nothing_is_left_after_the_end(where: tuple[Any, int]) -> None:
    async def once() -> None:
        async with placed(where) as server:
            client = await server.login()
            await client.exec("sleep 1000")
            assert (await client.run("echo in")).out == b"in\n"
            workers = server.workers()
        assert not any(map(exists, workers))

    await once()
    before = descriptors(), {thread.name for thread in threading.enumerate() if thread.name.startswith("dunnart")}
    await once()
    after = descriptors(), {thread.name for thread in threading.enumerate() if thread.name.startswith("dunnart")}
    assert after[0] <= before[0]
    assert "dunnart-control" not in after[1]


async def test_what_cannot_travel_is_refused() -> None:
    admission = Admission(startups=StartupLimit(), per_source=0, random=lambda: 0.5)
    with pytest.raises(ConfigError, match="admission: cannot be given to another process"):
        async with placed(("process", 1), admission=admission):
            pass


_ORPHANS = """
import asyncio, sys
from tests.runtime.test_placements import placed

async def main():
    async with placed(("process", 2)) as server:
        print(*server.workers(), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_protocol_processes_end_with_the_application() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ORPHANS, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    workers = [int(pid) for pid in (await process.stdout.readline()).split()]
    assert len(workers) == 2
    process.kill()
    await process.wait()
    await eventually(lambda: not any(map(alive, workers)))


# What went wrong once.


@every_placement
async def test_lines_and_bytes_may_be_read_in_turn(where: tuple[Any, int]) -> None:
    def handler(session: BlockingSession) -> None:
        seen.append((session.readline(), session.read(), session.read()))

    seen: list[tuple[str, bytes, bytes]] = []
    async with placed(where, handler) as server:
        client = await server.login()
        await client.run("x", b"head\r\nBINARY\xff")
    assert seen == [("head", b"BINARY\xff", b"")]


async def test_an_acceptor_that_is_replaced_knows_of_the_connections_that_live() -> None:
    admission = Admission(startups=StartupLimit(), per_source=0, random=_random)
    async with placed(("process", 2), admission=admission) as server:
        workers = server.server._placement.workers  # type: ignore[union-attr]
        clients = [await server.login() for _ in range(4)]
        before = server.workers()
        waiting = [server.dial() for _ in range(2)]  # they have not logged in
        await eventually(lambda: server.server.connections == 6)
        os.kill(before[0], signal.SIGKILL)
        await eventually(lambda: server.workers()[0] != before[0] and not workers[0].lost)
        clients += [await server.login() for _ in range(2)]
        for client in clients:
            client.reset()
        for sock in waiting:
            sock.close()
        await eventually(lambda: server.server.connections == 0)
        clients = [await server.login() for _ in range(4)]
        assert sorted(worker.connections for worker in workers) == [2, 2]
        assert server.workers()[1] == before[1]
        assert server.server.counters["worker_restarts"] == 1


async def test_a_process_that_stops_listening_stops_only_itself() -> None:
    async with placed(("process", 1)) as server:
        (worker,) = server.server._placement.workers  # type: ignore[union-attr]
        (listener,) = server.server._placement._listeners  # type: ignore[union-attr]
        listener.shutdown(socket.SHUT_RDWR)  # which it can, for they share it
        os.kill(worker.pid, signal.SIGKILL)
        await eventually(lambda: worker.lost)
        await eventually(lambda: not worker.lost)
        clients = Clients(listener.getsockname())  # a port that nobody has named is another one then
        assert (await (await clients.login()).run("echo in")).out == b"in\n"
        for client in clients.clients:
            client.close()


@every_placement
async def test_nobody_is_let_in_after_the_end(where: tuple[Any, int]) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def accept(_: Address) -> bool:
        asked.set()
        await answer.wait()
        return True

    async with placed(where, accept=accept) as server:
        sock = server.dial()
        await asked.wait()
    answer.set()
    with sock:
        sock.setblocking(False)
        with suppress(ConnectionResetError):
            assert await loop.sock_recv(sock, 100) == b""


async def test_the_switch_interval_is_whose_server_ends_last() -> None:
    before = sys.getswitchinterval()
    async with placed(("process", 1)):
        async with placed(("process", 1)):
            pass
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before


@every_placement
async def test_a_start_that_fails_leaves_nothing(where: tuple[Any, int]) -> None:
    def failing(_: Any) -> Any:
        raise ZeroDivisionError("middleware's own fault")

    interval = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError):
        async with placed(where, middleware=[failing]):
            pass
    assert not any(thread.name in {"dunnart-protocol", "dunnart-control"} for thread in threading.enumerate())
    assert sys.getswitchinterval() == interval
    async with placed(where):
        assert (sys.getswitchinterval() < interval) is (where[0] == "process")
    assert sys.getswitchinterval() == interval


@every_placement
async def test_what_is_audited_to_begin_is_audited_to_end(where: tuple[Any, int]) -> None:
    sink = _Sink()
    async with placed(where, audit=[sink], channel_types={"x@example.org": _Channels()}, shell=Running(),
                      exec=Beginning(lambda _: False)) as server:  # fmt: skip
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, ExecRequest(b"x"))
        assert await client.ask(channel, ShellRequest())
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        number = client.engine.open_channel("x@example.org", b"data")
        other = client.channels[number] = Channel(number)
        client.move()
        await client.until(lambda: other.opened is not None)
        client.send_eof(other)
        await client.until(lambda: other.closed)
        await eventually(lambda: len(sink.events) == 7)
    kinds = [event.kind for event in sink.events]
    assert kinds == ["login", *["session-begin", "session-end"] * 2, "channel-begin", "channel-end"]


@every_placement
async def test_a_handler_may_close_its_own_server(where: tuple[Any, int]) -> None:
    async def handler(session: Session) -> None:
        await session.server.close()

    async with placed(where, handler) as server:
        client = await server.login()
        channel = await client.session()
        client.request(channel, ExecRequest(b"x"))
        await server.server.wait_closed()
        await server.server.close()
    assert not any(thread.name in {"dunnart-protocol", "dunnart-control"} for thread in threading.enumerate())
