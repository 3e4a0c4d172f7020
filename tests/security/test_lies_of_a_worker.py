"""A protocol process that strangers have taken over lies about what its connections have said, or says too much."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from dunnart.protocol.limits import Limits
from dunnart.protocol.requests import PtyRequest
from dunnart.server import Allow, Attempt, AuthReply, Candidate, Deny, PasswordCallback, UserTerms
from dunnart.server.interfaces import SessionRequest
from dunnart.server.processes import conversation
from dunnart.server.processes.frames import (
    AcceptAsked,
    Audited,
    AuthAnswered,
    Begun,
    Call,
    Frame,
    PrepareAsked,
    Prepared,
    Returned,
    SessionAsked,
    TermsAnswered,
    TermsAsked,
    join_texts,
)
from dunnart.server.processes.process import ProtocolProcess
from tests.runtime.driver import USER, eventually
from tests.runtime.test_placements import placed
from tests.security.test_handover import Fake, asked, opened, session, user_in

OTHER = f"not-{USER}"


def methods(user: str = USER, token: int = 1, host: str = "127.0.0.1") -> TermsAsked:
    return TermsAsked(token, 1, user, host, 9, "127.0.0.1", 22)


async def test_a_decision_about_one_user_lets_no_other_in() -> None:
    decides, goes_on = asyncio.Event(), asyncio.Event()

    class Slow:
        method = "password"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            decides.set()
            await goes_on.wait()
            return Allow() if attempt.user == USER else Deny()

    fake = Fake(authenticator=Slow(), terms_for=lambda _: UserTerms(["password"]))
    for frame in (opened(), methods()):
        fake.process.send(frame)
    await fake.answered(TermsAnswered)
    fake.process.send(asked())
    await decides.wait()
    fake.process.send(methods(OTHER, 2))  # while it is decided on the first
    await eventually(lambda: fake.link.closed or len(fake.frames) == 2)
    goes_on.set()
    lies: list[Frame] = [user_in(user=OTHER), session()]
    for lie in lies:
        fake.process.send(lie)
    await eventually(lambda: fake.link.closed or bool(fake.begun))
    assert not fake.begun
    await fake.close()


async def test_a_user_has_no_more_tries_than_are_that_ones() -> None:
    tried: list[str] = []

    async def check(_: str, password: str) -> bool:
        tried.append(password)
        return password == "right"

    def terms(candidate: Candidate) -> UserTerms:
        return UserTerms(["password"], Limits(max_auth_tries=1 if candidate.user == USER else 3))

    fake = Fake(authenticator=PasswordCallback(check), terms_for=terms)
    fake.process.send(opened())
    for token, (user, password) in enumerate([(USER, "1"), (USER, "right"), (OTHER, "2"), (OTHER, "right")], 1):
        fake.frames.clear()
        fake.process.send(methods(user, token))
        await fake.answered(TermsAnswered)
        fake.process.send(replace(asked(password=password, token=token), user=user))
        await fake.answered(AuthAnswered)
    assert tried == ["1", "2", "right"]
    await fake.close()


async def test_variables_are_those_that_a_client_may_set_or_was_given() -> None:
    class Display:
        async def prepare(self, _request: SessionRequest) -> dict[str, str]:
            return {"DISPLAY": "localhost:10"}

    async def serves(*texts: str) -> bool:
        fake = Fake(accept_env=["LANG"], session_requests={"x11-req": Display()})
        await fake.log_in()
        fake.process.send(PrepareAsked(1, 1, 0, "x11-req", b""))
        await fake.answered(Prepared)
        fake.process.send(replace(session(), environment=join_texts(texts)))
        await eventually(lambda: fake.link.closed or any(isinstance(each, Begun) for each in fake.frames))
        begun = bool(fake.begun)
        await fake.close()
        return begun

    assert await serves("LANG", "C", "DISPLAY", "localhost:10")
    for lie in (["BASH_ENV", "/tmp/x"], ["DISPLAY", "localhost:11"], ["LANG", "C\0"], ["LANG", "C" * 5000]):
        assert not await serves(*lie)


NOWHERE = ["\x1b]0;x\7", "127.0.0.1\n", "192.0.2.1 1 22", "fe80::1%\x1b[2J", "example.org", "1\0"]


@pytest.mark.parametrize("host", NOWHERE)
async def test_a_client_comes_from_an_address(host: str) -> None:
    """It is shown to the user at his next login."""
    lies: list[Frame] = [replace(asked(), address=host), replace(asked(), local_host=host), AcceptAsked(1, host, 9)]
    for frame in (*lies, Audited(1, "login", 1, "u", host, 1, b"{}")):
        fake = Fake()
        for each in (opened(), frame, asked()):
            fake.process.send(each)
        await eventually(lambda fake=fake: fake.link.closed or bool(fake.frames))  # type: ignore[misc]
        assert not fake.frames
        await fake.close()


@pytest.mark.parametrize("host", ["", "2001:db8::1", "fe80::1%eth0"])
async def test_addresses_are_of_every_kind(host: str) -> None:
    fake = Fake()
    for frame in (opened(), replace(asked(), address=host)):
        fake.process.send(frame)
    answer = await fake.answered(AuthAnswered)
    assert isinstance(answer, AuthAnswered)
    assert answer.kind == 1
    await fake.close()


async def test_nothing_is_made_of_more_than_a_process_can_have_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "_CLOSING", -(10**9))
    read: list[Any] = []
    monkeypatch.setattr("dunnart.server.processes.frames.parse_json", read.append)
    event = Audited(1, "login", 1, "u", "127.0.0.1", 1, b"[" + b"[]," * (1 << 20) + b"[]]")
    lies: list[Frame] = [opened(), event]
    for lie in lies:
        fake = Fake()
        fake.process.send(lie)
        await eventually(lambda fake=fake: fake.link.closed)  # type: ignore[misc]
        assert fake.worker.connections == 0
        await fake.close()
    assert event.details not in read


async def test_what_an_operator_is_shown_is_printable() -> None:
    fake = Fake()
    asking = asyncio.create_task(fake.talk.call("sessions"))
    call = await fake.answered(Call)
    assert isinstance(call, Call)
    fake.process.send(
        Returned(call.token, failed=False, result=rb'[{"user": "\u001b[2J\u00fc", "\u0007": ["\n"], "id": 3}]')
    )
    assert await asking == [{"user": "\\x1b[2Jü", "\\x07": ["\\x0a"], "id": 3}]
    await fake.close()


async def test_what_a_session_keeps_is_what_a_client_can_have_asked_for() -> None:
    terminal = PtyRequest("x" * 2000, 80, 24, 0, 0, b"").encode()
    for lie in (
        SessionAsked(1, 0, "exec", bytes(10), "", b"", b"", 0),
        SessionAsked(1, 0, "exec", b"x" * (1 << 20), "", b"", b"", 0),
        SessionAsked(1, 0, "subsystem", b"", "x" * (1 << 20), b"", b"", 0),
        replace(session(), terminal=terminal),
    ):
        fake = Fake()
        await fake.log_in()
        fake.process.send(lie)
        await eventually(lambda fake=fake: fake.link.closed)  # type: ignore[misc]
        assert not fake.begun
        await fake.close()


PROCESS = {"pid": 1, "role": "protocol 0", "memory_bytes": 1, "cpu_seconds": 0.5, "threads": 1, "answers": True}
STATUS: dict[str, Any] = {
    "sums": {"bytes_received": 1, "bytes_sent": 2}, "counters": {"a": 1}, "algorithms": {}, "process": PROCESS,
}  # fmt: skip
NO_STATUS: list[Any] = [
    None, [], 5, {}, {**STATUS, "sums": []}, {**STATUS, "sums": {"bytes_sent": 2}}, {**STATUS, "process": 3},
    {**STATUS, "process": {"pid": 1}}, {**STATUS, "process": {**PROCESS, "threads": "1"}},
    {**STATUS, "process": {**PROCESS, "cpu_seconds": "1"}},
    {**STATUS, "algorithms": {"kex": 3}}, {**STATUS, "algorithms": {"kex": {"a": None}}},
    *({**STATUS, "counters": {"a": lie}} for lie in ("b", None, 1.5, True, -1, 10**4299)),
]  # fmt: skip


async def test_what_is_no_status_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the daemon could not even sum up, and with `exit_on_idle` would end."""
    async with placed(("process", 1)) as server:
        (worker,) = server.workers()
        for said, count in [(STATUS, 1), *((each, 0) for each in NO_STATUS)]:

            async def call(_self: object, _name: str, said: Any = said) -> Any:
                return said

            with monkeypatch.context() as patched:
                patched.setattr(ProtocolProcess, "call", call)
                found = await server.server.status()
            assert found.counters.get("a", 0) == count, said
            assert [each.pid for each in found.processes if not each.answers] == [worker]
