"""The channels of one connection that are no sessions: those that the client wants, and those that it is asked for.

the client wants one     ask ──► plug-in decides ──► opened ──► ended
a plug-in wants one      open_channel ──► the client decides ──► opened, or refused
"""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from dunnart.errors import DunnartError, LocalProtocolError
from dunnart.protocol.events import ChannelRefused
from dunnart.protocol.questions import Refusal
from dunnart.runtime.logs import clean, report
from dunnart.runtime.streams import Streams
from dunnart.server.facts import Asked, SessionFacts
from dunnart.server.forwarding import Opening

if TYPE_CHECKING:
    from dunnart.protocol.questions import ChannelOpenQuestion
    from dunnart.protocol.requests import ChannelRequest, UnknownOpen
    from dunnart.server.channel import ServerChannel
    from dunnart.server.connection import ServerConnection

_SESSION = logging.getLogger("dunnart.session")
_FORWARD = logging.getLogger("dunnart.forward")


class _Beyond:
    """Who is at the other end of a tunnel: nobody that the server could tell anything."""

    def __init__(self, facts: SessionFacts) -> None:
        self.facts = facts

    def requested(self, _request: ChannelRequest) -> bool:
        """A tunnel has no requests."""
        return False

    def hung_up(self) -> None:
        """The end of the socket says so."""


class Forwarded:
    """Made for a connection when the first of them is wanted."""

    __slots__ = ("_asked", "_connection", "_granted", "_open", "_wanted")

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._asked = 0
        self._granted: Opening | None = None
        self._wanted: dict[int, Opening] = {}
        self._open: dict[int, SessionFacts] = {}

    @property
    def _full(self) -> bool:
        count = self._asked + len(self._wanted) + len(self._open)
        return count >= self._connection.server.config.limits.forwarded_connections

    async def ask(self, question: ChannelOpenQuestion, request: UnknownOpen) -> None:
        """The client wants one: ask a plug-in."""
        connection = self._connection
        server, facts = connection.server, connection.facts
        assert facts is not None
        reply: Opening | Refusal = Refusal(Refusal.CONNECT_FAILED, "the server cannot open this channel")
        if self._full:
            server.count("refused_channels")
            reply = Refusal(Refusal.RESOURCE_SHORTAGE, "too many channels")
        else:
            self._asked += 1
            try:
                asked = Asked(facts, request.wire_name, request.data)
                reply = await connection.asked(server.host.open(asked, connection), reply)
            finally:
                self._asked -= 1
        if isinstance(reply, Refusal):
            report(_SESSION, logging.INFO, connection, "channel %s refused: %s", clean(request.wire_name),
                   clean(reply.description))  # fmt: skip
            connection.answer(question, reply)
            return
        self._granted = reply  # ChannelOpened is the very next event
        connection.answer(question, True)  # noqa: FBT003 - the reply is the argument
        if self._granted is not None:  # the client has gone meanwhile
            server.host.abandon(self._granted.number)

    def open_channel(self, channel_type: str, data: bytes, opening: Opening) -> None:
        """A plug-in wants one: ask the client."""
        pump, server = self._connection.pump, self._connection.server
        refused = "too many channels"
        number = -1
        if not self._full:
            try:
                number = pump.now().open_channel(channel_type, data)
            except LocalProtocolError as error:  # the connection is over, or has too many
                refused = str(error)
        if number < 0:
            server.count("refused_channels")
            server.host.settled(self._connection.id, opening.number, Refusal(Refusal.RESOURCE_SHORTAGE, refused))
            return
        self._wanted[number] = opening
        pump.tick()

    def refused(self, event: ChannelRefused) -> None:
        """The client does not want it."""
        server = self._connection.server
        wanted = self._wanted.pop(event.channel, None)
        if wanted is not None:
            server.count("refused_channels")
            refusal = Refusal(event.reason_code, event.description)
            server.host.settled(self._connection.id, wanted.number, refusal)

    def opened(self, channel: ServerChannel, channel_type: str) -> None:
        """It is open: have it served."""
        connection = self._connection
        host = connection.server.host
        wanted = self._wanted.pop(channel.number, None)
        opening = wanted
        if opening is None:
            opening, self._granted = self._granted, None
        assert opening is not None
        assert connection.facts is not None
        number, detail, tunnel = opening
        facts = SessionFacts(connection.facts, channel.number, channel_type, opening=number, detail=detail)
        self._open[channel.number] = facts
        connection.server.count("channels")
        report(_FORWARD, logging.INFO, connection, "channel %d: %s %s", channel.number, channel_type, clean(detail))
        connection.audit("channel-begin", session=channel.number, what=channel_type, detail=detail)
        if tunnel is not None:
            channel.counterpart = _Beyond(facts)
            channel.attach(Streams.of_socket(tunnel.detach(), joined=True))
        else:
            channel.counterpart = host.session(facts, channel)
            host.begin(channel.counterpart, partial(self._begun, channel))
        if wanted is not None:
            host.settled(connection.id, wanted.number, None)

    def _begun(self, channel: ServerChannel, done: bool) -> None:  # noqa: FBT001
        if not done:
            channel.fail()
            with contextlib.suppress(DunnartError):  # the client has just closed it
                self._connection.pump.engine.close_channel(channel.number)
            self._connection.pump.tick()

    def ended(self, channel: ServerChannel) -> bool:
        """A channel is gone; whether it was one of these."""
        facts = self._open.pop(channel.number, None)
        if facts is None:
            return False
        connection = self._connection
        received, sent = channel.moved_bytes
        seconds = round(connection.loop.time() - channel.since, 3)
        connection.server.count("forwarded_bytes_received", received)
        connection.server.count("forwarded_bytes_sent", sent)
        report(_FORWARD, logging.INFO, connection, "channel %d: ended after %.1f s, %d bytes received, %d sent",
               channel.number, seconds, received, sent)  # fmt: skip
        connection.audit("channel-end", session=channel.number, what=facts.kind, detail=facts.detail,
                         bytes_received=received, bytes_sent=sent, seconds=seconds)  # fmt: skip
        return True
