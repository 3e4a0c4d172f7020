"""What applications have recorded reaches the audit sinks, wherever the protocol and the application run."""

from __future__ import annotations

import threading

import pytest

from dunnart.protocol.requests import ExecRequest, ShellRequest
from dunnart.server import AuditEvent, BlockingSession, RawSession, Session
from tests.runtime.driver import USER, Beginning, eventually
from tests.runtime.test_placements import every_placement, placed


class _Sink:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.threads: set[int] = set()

    def record(self, event: AuditEvent) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())


@every_placement
@pytest.mark.parametrize("how", ["coroutine", "thread", "application"])
async def test_every_kind_of_application_can_have_something_recorded(where: tuple[str, int], how: str) -> None:
    sink = _Sink()

    async def coroutine(session: Session) -> None:
        session.raw.record("uploaded", path="/f", size=3, session=99)

    def blocking(session: BlockingSession) -> None:
        session._raw.record("uploaded", path="/f", size=3, session=99)

    def begin(session: RawSession) -> bool:
        session.record("uploaded", path="/f", size=3, session=99)
        session.exit()
        return True

    handlers = {"coroutine": coroutine, "thread": blocking, "application": Beginning(begin)}
    async with placed(where, handlers[how], audit=[sink]) as server:
        client = await server.login()
        await client.session()
        channel = await client.session()
        assert await client.ask(channel, ShellRequest() if how == "thread" else ExecRequest(b"x"))
        await client.until(lambda: channel.closed)
        await eventually(lambda: any(event.kind == "uploaded" for event in sink.events))
        (event,) = (event for event in sink.events if event.kind == "uploaded")
        (login,) = (event for event in sink.events if event.kind == "login")
    # The session's number is the server's word, whatever the application says.
    assert event.details == {"path": "/f", "size": 3, "session": channel.number}
    assert (event.user, event.connection, event.peer) == (USER, login.connection, login.peer)
    assert len(sink.threads) == 1
