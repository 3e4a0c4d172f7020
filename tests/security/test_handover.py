"""A protocol process that strangers have taken over: the application's process believes nothing that it cannot mean."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from dunnart.protocol.requests import PtyRequest
from dunnart.server import Allow, Attempt, AuthReply, PasswordCallback, RawSession, Rights, ServerConfig
from dunnart.server.host import Host
from dunnart.server.interfaces import ConnectionRequest, SessionRequest
from dunnart.server.processes.frames import (
    AddStderr,
    Attach,
    Audited,
    AuthAnswered,
    AuthAsked,
    Begun,
    Call,
    Dealt,
    Frame,
    Gone,
    HungUp,
    OpenAsked,
    Opened,
    OpenWanted,
    PrepareAsked,
    Prepared,
    RequestAnswered,
    RequestAsked,
    Requested,
    Returned,
    Said,
    SessionAsked,
    Settled,
    Unprepared,
    UserIn,
)
from dunnart.server.processes.link import Link
from dunnart.server.processes.process import ProtocolProcess
from dunnart.wire.encoding import uint32
from tests.runtime.driver import HOST_KEY, PASSWORD, USER, Beginning, descriptors, eventually, right_password


def opened(number: int = 1) -> Opened:
    return Opened(number)


def asked(connection: int = 1, password: str = PASSWORD, token: int = 7) -> AuthAsked:
    return AuthAsked(
        token,
        connection,
        USER,
        "127.0.0.1",
        9,
        0,
        "password",
        password,
        "",
        signed=False,
        data=b"",
        answered=False,
        local_host="127.0.0.1",
        local_port=22,
    )


def user_in(connection: int = 1, user: str = USER, method: str = "password") -> UserIn:
    return UserIn(connection, user, "127.0.0.1", 9, "127.0.0.1", 22, method, b"", uint32(0), "SSH-2.0-x")


def session(connection: int = 1, channel: int = 0, opening: int = 0) -> SessionAsked:
    return SessionAsked(connection, channel, "shell", b"", "", b"", b"", opening)


class Fake:
    """The application's side of a link, and the process at its other end, played by the test."""

    def __init__(
        self, *, workers: int = 1, authenticator: object = None, handler: object = None, **options: Any
    ) -> None:
        self.begun: list[RawSession] = []
        config = ServerConfig(
            handler or Beginning(self._begin),  # type: ignore[arg-type]
            host_keys=[HOST_KEY],
            workers=workers,
            placement="process",
            **{"authenticators": [authenticator or PasswordCallback(right_password)], **options},
        )
        loop = asyncio.get_running_loop()
        self.host = Host(config, loop, loop, Counter())
        self.worker = ProtocolProcess(self.host, 0, [])
        self.frames: list[Frame] = []
        self.connect()

    def _begin(self, raw: RawSession) -> bool:
        self.begun.append(raw)
        return True

    def connect(self) -> None:
        """Start anew with another process."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self.talk = self.worker._talk(ours)
        self.link = self.talk._link
        self.process = Link(theirs, loop, lambda frame, _: self.frames.append(frame), lambda: None)
        self.process.send(Returned(0, failed=False, result=b"null"))  # it is ready

    async def answered(self, kind: type[Frame]) -> Frame:
        await eventually(lambda: any(isinstance(frame, kind) for frame in self.frames))
        return next(frame for frame in self.frames if isinstance(frame, kind))

    async def log_in(self) -> None:
        for frame in (opened(), asked()):
            self.process.send(frame)
        answer = await self.answered(AuthAnswered)
        assert isinstance(answer, AuthAnswered)
        assert answer.kind == 1
        self.process.send(user_in())

    async def close(self) -> None:
        self.process.close()
        self.link.close()
        await self.host.close()


async def test_what_an_honest_process_says_is_served() -> None:
    fake = Fake()
    await fake.log_in()
    fake.process.send(session())
    begun = await fake.answered(Begun)
    assert begun == Begun(1, 0, yes=True)
    assert fake.begun[0].user == USER
    fake.process.send(HungUp(1, 0))
    fake.process.send(Gone(1))
    await eventually(lambda: not fake.worker.connections)
    assert fake.begun[0].gone
    assert not fake.host.sessions
    assert not fake.link.closed
    await fake.close()


LIES: dict[str, list[Frame]] = {
    "a session of nobody": [opened(), session()],
    "a session of no connection": [session(3)],
    "a login that nobody allowed": [opened(), user_in(), session()],
    "a login by another method": [opened(), user_in(method="none"), session()],
    "a connection of another process": [opened(2)],
    "a connection far ahead": [opened(2**64 - 1)],
    "a connection twice": [opened(), opened()],
    "the end of no connection": [Gone(1)],
    "a login question of no connection": [asked()],
    "a channel of nobody": [opened(), OpenAsked(1, 1, "direct-tcpip", b"")],
    "a request of nobody": [opened(), RequestAsked(1, 1, "x", b"")],
    "a session's request of nobody": [opened(), PrepareAsked(1, 1, 0, "x11-req", b"")],
    "the end of what nobody prepared": [Unprepared(1, 0)],
    "an answer of no client": [Settled(1, 1, refused=False, reason_code=0, description="")],
    "an answer that nobody waits for": [opened(), Settled(1, 1, refused=True, reason_code=1, description="no")],
    "what it is to ask its client": [opened(), OpenWanted(1, "x11", 1, "", tunnel=False, data=b"")],
    "a request of no session's": [opened(), Requested(1, 0, "exec", b"\0\0\0\1x")],
    "a request for no connection": [Requested(1, 0, "window-change", b"\0" * 16)],
    "a malformed request": [opened(), Requested(1, 0, "window-change", b"\0")],
    "a result of nothing": [Returned(9, failed=False, result=b"1")],
    "no JSON": [Audited(1, "login", 1, "u", "127.0.0.1", 1, b"{")],
    "no details": [Audited(1, "login", 1, "u", "127.0.0.1", 1, b"3")],
    "deep JSON": [Audited(1, "login", 1, "u", "127.0.0.1", 1, b"[" * 100_000)],
    "what it is told": [Call(1, "close", b"[]")],
    "what workers tell each other": [Dealt("127.0.0.1", 9)],
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_ends_the_process(lie: str) -> None:
    fake = Fake()
    for frame in LIES[lie]:
        fake.process.send(frame)
    await eventually(lambda: fake.link.closed)
    assert not fake.begun
    assert not fake.host.sessions
    assert fake.worker.connections == 0
    await fake.close()


AFTER_LOGIN: dict[str, list[Frame]] = {
    "a session twice": [session(), session()],
    "a second user": [user_in(user=f"not-{USER}")],
    "a channel that was not allowed": [session(opening=1)],
    "a channel that no client was asked for": [Settled(1, 1, refused=False, reason_code=0, description="")],
    "a session's request of no name": [PrepareAsked(1, 1, 0, "x@example.org", b"")],
    "a session under another name": [SessionAsked(1, 0, "subsystem sftp", b"", "", b"", b"", 0)],
    "a malformed terminal": [SessionAsked(1, 0, "shell", b"", "", b"", b"\1", 0)],
    "a malformed environment": [SessionAsked(1, 0, "shell", b"", "", b"\0\0\0\2\xff\xff", b"", 0)],
    "more sessions than channels": [session(channel=number) for number in range(1001)],
}


@pytest.mark.parametrize("lie", AFTER_LOGIN)
async def test_a_lie_after_a_login_ends_the_process_and_its_sessions(lie: str) -> None:
    fake = Fake()
    await fake.log_in()
    for frame in AFTER_LOGIN[lie]:
        fake.process.send(frame)
    await eventually(lambda: fake.link.closed)
    assert all(each.gone for each in fake.begun)
    assert not fake.host.sessions
    await fake.close()


async def test_a_login_is_that_user_s_and_no_other_s() -> None:
    fake = Fake()
    for frame in (opened(), asked()):
        fake.process.send(frame)
    await fake.answered(AuthAnswered)
    fake.process.send(user_in(user=f"not-{USER}"))
    await eventually(lambda: fake.link.closed)
    await fake.close()


class Restricting:
    method = "password"

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        return Allow(None, Rights(pty=False, command=b"only this"))


@pytest.mark.parametrize("numbers", [b"", uint32(0), uint32(2), uint32(1) + uint32(0)])
async def test_a_login_cannot_do_without_its_rights(numbers: bytes) -> None:
    fake = Fake(authenticator=Restricting())
    for frame in (opened(), asked()):
        fake.process.send(frame)
    await fake.answered(AuthAnswered)
    fake.process.send(replace(user_in(), grants=numbers))
    await eventually(lambda: fake.link.closed)
    await fake.close()


async def test_a_login_has_no_terminal_that_its_rights_forbid() -> None:
    fake = Fake(authenticator=Restricting())
    for frame in (opened(), asked()):
        fake.process.send(frame)
    await fake.answered(AuthAnswered)
    fake.process.send(replace(user_in(), grants=uint32(1)))
    fake.process.send(session())
    await fake.answered(Begun)
    assert (fake.begun[0].kind, fake.begun[0].command) == ("exec", "only this")
    terminal = PtyRequest("xterm", 80, 24, 0, 0, b"").encode()
    fake.process.send(SessionAsked(1, 1, "shell", b"", "", b"", terminal, 0))
    await eventually(lambda: fake.link.closed)
    assert len(fake.begun) == 1
    await fake.close()


async def test_descriptors_of_a_process_are_never_kept() -> None:
    fake = Fake()
    before = descriptors()
    data = Said(20, "dunnart.server", "x", 0, "", "").encode()
    frame = (len(data) + 2).to_bytes(4, "big") + bytes((13, 0)) + data
    socket.send_fds(fake.process._sock, [frame], [0, 1, 2])
    await eventually(lambda: fake.link.closed)
    await eventually(lambda: descriptors() <= before - 2)  # both ends of the link
    await fake.close()
    fake = Fake()
    before = descriptors()
    fake.process.send(AddStderr(1, 0), (os.dup(0),))
    await eventually(lambda: fake.link.closed)
    await eventually(lambda: descriptors() <= before - 2)
    await fake.close()


async def test_names_of_loggers_and_lines_of_a_process_stay_ours(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    import logging

    fake = Fake()
    fake.process.send(Said(30, "dunnart.unheard.of", "one\ntwo", 0, "", ""))
    await eventually(lambda: "one" in caplog.text)
    assert "dunnart.unheard.of" not in logging.root.manager.loggerDict
    assert caplog.messages[-1] == "one\\ntwo"
    await fake.close()


async def test_a_late_answer_is_not_for_the_next_process() -> None:
    """Both count their questions from 1: a yes to the one must let nobody in at the other."""
    go, waits = asyncio.Event(), asyncio.Event()

    class Slow:
        method = "password"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            waits.set()
            await go.wait()
            return Allow()

    others = asyncio.all_tasks()
    fake = Fake(authenticator=Slow())
    fake.process.send(opened())
    fake.process.send(asked())
    await waits.wait()
    tasks = asyncio.all_tasks() - others
    fake.process.close()
    await eventually(lambda: fake.link.closed)
    fake.connect()
    go.set()
    await asyncio.wait(tasks)
    fake.worker.send(Call(1, "marker", b"[]"))
    await fake.answered(Call)
    assert [type(frame) for frame in fake.frames] == [Call]
    await fake.close()


@pytest.mark.parametrize("reply", [Allow(touch="yes"), object(), None, 3])  # type: ignore[arg-type]
async def test_an_answer_that_is_none_still_answers(reply: object) -> None:
    class Broken:
        method = "password"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            return reply  # type: ignore[return-value]

    fake = Fake(authenticator=Broken())
    fake.process.send(opened())
    fake.process.send(asked())
    answer = await fake.answered(AuthAnswered)
    assert isinstance(answer, AuthAnswered)
    assert answer.kind == 0
    await fake.close()


async def test_a_process_that_floods_with_questions_is_not_listened_to_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dunnart.server.processes.conversation._MOST_QUESTIONS", 10)
    go = asyncio.Event()
    most = 0

    class Slow:
        method = "password"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            nonlocal most
            most = max(most, len(fake.talk._questions))
            await go.wait()
            return Allow()

    fake = Fake(authenticator=Slow())
    for token in range(1, 101):
        fake.process.send(opened(token))
        fake.process.send(asked(token, token=token))
    await eventually(lambda: fake.link._paused)
    go.set()
    await eventually(lambda: len(fake.frames) == 100)
    assert most == 10
    assert {frame.token for frame in fake.frames if isinstance(frame, AuthAnswered)} == set(range(1, 101))
    await fake.close()


# The link itself.


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Pair:
    """Two ends of a link; one of them is read by hand."""

    def __init__(self, receive: Callable[[Frame, list[int]], None] | None = None) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self.got: list[tuple[Frame, int]] = []
        self.sender = Link(ours, loop, lambda _, __: None, lambda: None)
        self.receiver = Link(theirs, loop, receive or self._receive, lambda: None)

    def _receive(self, frame: Frame, found: list[int]) -> None:
        self.got.append((frame, len(found)))
        for fd in found:
            os.close(fd)

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()


async def test_what_is_said_in_one_turn_is_sent_at_once() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # which keeps what is sent apart
    theirs.settimeout(10)
    link = Link(ours, asyncio.get_running_loop(), lambda _, __: None, lambda: None)
    for number in (1, 2):
        link.send(opened(number))
    link.send(AddStderr(1, 2), (os.dup(0),))
    link.send(opened(3))
    await asyncio.sleep(0)
    sizes = [len(theirs.recv(1000))]
    data, found, _, _ = socket.recv_fds(theirs, 1000, 2)
    assert [*sizes, len(data), len(found)] == [28, 18 + 14, 1]
    link.send(opened(4))
    link.close()
    assert len(theirs.recv(1000)) == 14
    os.close(found[0])
    theirs.close()


async def test_a_process_without_room_for_descriptors_gets_the_frames_and_the_next_ones_theirs() -> None:
    pair = Pair()
    attach = Attach(1, 2, terminal=False, typed=False)
    pair.sender.send(attach, (os.dup(0),))
    pair.sender.send(AddStderr(1, 3), (os.dup(0),))
    pair.sender._flush()
    with no_descriptors_left():
        pair.receiver._readable()
    pair.receiver._readable()
    assert pair.got == [(attach, 0), (AddStderr(1, 3), 1)]
    assert not pair.receiver.closed
    pair.close()


async def test_a_descriptor_that_the_application_has_closed_costs_its_session_alone() -> None:
    pair = Pair()
    fd = os.dup(0)
    os.close(fd)
    pair.sender.send(AddStderr(1, 2), (fd,))
    pair.sender.send(opened(3))
    await eventually(lambda: len(pair.got) == 2)
    assert pair.got == [(AddStderr(1, 2), 0), (opened(3), 0)]
    pair.close()


async def test_a_fault_in_one_frame_s_handling_does_not_stop_the_next(caplog: pytest.LogCaptureFixture) -> None:
    got: list[Frame] = []

    def receive(frame: Frame, _: list[int]) -> None:
        if not got:
            got.append(frame)
            raise ZeroDivisionError("one session's fault")
        got.append(frame)

    pair = Pair(receive)
    pair.sender.send(opened(1))
    pair.sender.send(opened(2))
    await eventually(lambda: len(got) == 2)
    assert "one session's fault" in caplog.text
    pair.close()


async def test_a_frame_that_is_too_large_is_its_sender_s_fault() -> None:
    pair = Pair()
    before = descriptors()
    with pytest.raises(ValueError, match="too large"):
        pair.sender.send(Returned(1, failed=False, result=bytes(17 << 20)), (os.dup(0),))
    assert descriptors() <= before
    large = Returned(1, failed=False, result=bytes(8 << 20))
    pair.sender.send(large)
    await eventually(lambda: pair.got)
    assert pair.got == [(large, 0)]
    pair.close()


@pytest.mark.parametrize("last", [False, True])
async def test_a_login_that_is_being_decided_ends_with_its_connection(last: bool) -> None:
    """What it makes afterwards nobody would release, for its authenticator was told before."""
    waits, go, kept = asyncio.Event(), asyncio.Event(), set[int]()

    class Slow:
        method = "password"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            return Allow() if last else await self.admit(attempt, Allow())

        async def admit(self, attempt: Attempt, allowed: Allow) -> Allow:
            waits.set()
            await go.wait()
            kept.add(attempt.connection)
            return allowed

        def ended(self, connection: int) -> None:
            kept.discard(connection)

    others = asyncio.all_tasks()
    fake = Fake(authenticator=Slow(), account=Slow() if last else None)
    fake.process.send(opened())
    fake.process.send(asked())
    await waits.wait()
    tasks = asyncio.all_tasks() - others
    fake.process.send(Gone(1))
    await eventually(lambda: not fake.talk.connections)
    go.set()
    await asyncio.wait(tasks)
    assert kept == set()
    assert not fake.link.closed
    await fake.close()


async def test_what_was_asked_for_by_who_has_gone_is_not_kept() -> None:
    """The end may come in the same breath as the question."""
    kept: list[Any] = []

    class Keeping:
        async def answer(self, request: ConnectionRequest) -> bool:
            kept.append(request)
            request.client.on_end(lambda: kept.remove(request))
            return True

        async def prepare(self, request: SessionRequest) -> dict[str, str]:
            kept.append(request)
            request.session.on_end(lambda: kept.remove(request))
            return {}

    fake = Fake(global_requests={"x": Keeping()}, session_requests={"x": Keeping()})
    await fake.log_in()
    fake.process.send(PrepareAsked(1, 1, 0, "x", b""))
    fake.process.send(Unprepared(1, 0))
    fake.process.send(RequestAsked(2, 1, "x", b""))
    fake.process.send(PrepareAsked(3, 1, 1, "x", b""))
    fake.process.send(Gone(1))
    await fake.answered(RequestAnswered)
    await eventually(lambda: sum(isinstance(frame, Prepared) for frame in fake.frames) == 2)
    assert kept == []
    assert (fake.host._clients, fake.host._prepared) == ({}, {})
    assert not fake.link.closed
    await fake.close()
