"""The sans-I/O engine: bytes in, events out; commands in, bytes out.

It knows no socket, task, thread, clock or random source: time and randomness are handed in. Server and client are two
roles of it. A driver does this, for ever:

    engine = Engine(config, random=os.urandom, now=clock())
    send(engine.data_to_send())
    on bytes:    engine.receive(data, clock()); for event in engine.events(): …; send(engine.data_to_send())
    on time:     engine.handle_timeout(clock()); … the same
    on a reply:  engine.answer(token, reply); … the same

A fast driver reads into `engine.buffer()` and calls `received(count, now)` in the place of `receive`, and fills
`data_slots()` in the place of calling `send_data`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dunnart.errors import DunnartError, LimitExceeded, LocalProtocolError, RemoteProtocolError, UnexpectedMessage
from dunnart.protocol import identification, phases
from dunnart.protocol.authentication import ServerAuthentication, ServiceNotAvailable
from dunnart.protocol.client_authentication import ClientAuthentication
from dunnart.protocol.connection import Connection
from dunnart.protocol.core import Core, EngineConfig
from dunnart.protocol.events import ConnectionEnded, DataReceived, Event, VersionReceived
from dunnart.protocol.framing import Arena, Buffer
from dunnart.protocol.phases import ALLOWED, KNOWN, Kex, Role, Stage
from dunnart.protocol.questions import Credential
from dunnart.protocol.transport import Transport
from dunnart.wire.messages import (
    Disconnect,
    Ping,
    Pong,
    ServiceAccept,
    ServiceRequest,
    Unimplemented,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.protocol.channel import Channel
    from dunnart.protocol.limits import Limits
    from dunnart.protocol.questions import Question
    from dunnart.protocol.requests import ChannelRequest, GlobalRequest

BY_APPLICATION = 11
"""SSH_DISCONNECT_BY_APPLICATION."""
_USERAUTH = "ssh-userauth"
_DATA, _EXTENDED_DATA, _WINDOW_ADJUST = 94, 95, 93
_IDLE, _OFFERED = Kex.IDLE, Kex.OFFERED  # looking a member up in its enum is slow


class LoginTimeout(LimitExceeded):
    """The login grace time, or the time for the version line, is over."""

    disconnect_text = "timeout before authentication"


class IdleTimeout(LimitExceeded):
    """No channel data moved for too long, or the peer gave no sign of life."""

    disconnect_code = 11
    disconnect_text = "idle timeout"


class ConnectionTimeout(LimitExceeded):
    """The connection has lasted as long as it may."""

    disconnect_code = 11
    disconnect_text = "the connection's time is over"


class Engine(Core):
    """One SSH connection without its I/O.

    Args:
        config: what all connections of this server or client share.
        random: `random(n)` returns n bytes that nobody can guess.
        now: seconds of any monotonic clock.
        arena: buffers shared by all engines of one event loop, one of its own when None. Events that carry views of it
            must be handled before another engine of the same arena receives.
        cookie: of our first KEXINIT, 16 bytes, where somebody has to know it before; else nobody can guess it.
    """

    __slots__ = (
        "__weakref__",
        "_authentication",
        "_connection",
        "_last_received",
        "_line_done",
        "_prelude",
        "_transport",
    )

    def __init__(
        self, config: EngineConfig, *, random: Callable[[int], bytes], now: float, arena: Arena | None = None,
        cookie: bytes = b"",
    ) -> None:  # fmt: skip
        arena = arena or Arena(random, channel_packet_bytes=config.limits.channel_packet_bytes)
        super().__init__(config, arena, random, now, cookie)
        self._transport = Transport(self)
        self._authentication: ServerAuthentication | ClientAuthentication | None = None
        self._connection: Connection | None = None
        self._line_done = False
        self._prelude = 0
        self._last_received = now
        self._transport.start()

    # What comes in.

    def buffer(self) -> memoryview:
        """Where to put the next received bytes; then call `received`."""
        return self.inbound.buffer()

    def received(self, count: int, now: float) -> None:
        """`count` bytes were put into `buffer()`. Never raises for what the peer sent: ConnectionEnded says it."""
        self.now = self._last_received = now
        if self.ended:
            self.inbound.discard()
            return
        self.inbound.received(count)
        try:
            if not self._line_done:
                self._receive_line()
            if self._line_done:
                self._receive_packets()
        except RemoteProtocolError as error:
            self._fail(error)
        finally:
            if self._connection is not None:
                self._connection.break_run()

    def receive(self, data: Buffer, now: float) -> None:
        """Take received bytes, in chunks of any size."""
        view = memoryview(data)
        while view:
            room = self.inbound.buffer()
            size = min(len(room), len(view))
            room[:size] = view[:size]
            self.received(size, now)
            view = view[size:]
            if view:
                self._copy_views()

    def _copy_views(self) -> None:
        # The buffer is about to be filled again, before the owner could take the events.
        for event in self._pending:
            if isinstance(event, DataReceived):
                event.chunks = [memoryview(bytes(chunk)) for chunk in event.chunks]

    def completes(self, credential: Credential, reply: object) -> bool:
        """Tell whether this reply to the `AuthQuestion` that is out would let the user in; the server's."""
        authentication = self._authentication
        return isinstance(authentication, ServerAuthentication) and authentication.completes(credential, reply)

    def receive_eof(self, now: float) -> None:
        """The peer closed its side of the transport."""
        self.now = now
        if not self.ended:
            self._end(None, by_peer=True, reason_code=0, text="connection closed by the peer")

    def _receive_line(self) -> None:
        inbound = self.inbound
        while (line := inbound.line(identification.LINE_BYTES)) is not None:
            if self.config.role is Role.CLIENT and not line.startswith(b"SSH-"):
                self._prelude += 1
                if self._prelude > identification.PRELUDE_LINES:
                    raise LimitExceeded("too many lines before the version line")
                continue
            version = identification.parse(line)
            self._transport.peer_version = version
            self._line_done = True
            self.emit(VersionReceived(version))
            return
        inbound.keep()

    def _receive_packets(self) -> None:
        inbound = self.inbound
        packet = inbound.packet
        connection = self._connection
        while (payload := packet()) is not None:
            number = payload[0]
            # What is hot goes first; everything else passes the phase table.
            if number == _DATA and connection is not None and (self.kex is _IDLE or self.kex is _OFFERED):
                connection.receive_data(payload)
                continue
            if connection is not None:
                connection.break_run()
            self._dispatch(number, payload)
            if self.ended:
                inbound.discard()
                return
            connection = self._connection
        inbound.keep()
        if self._transport.rekey_due():
            self._transport.rekey()

    def _may(self, number: int) -> bool:
        return number in ALLOWED[self.config.role, self.stage, self.kex, self.strict]

    def _dispatch(self, number: int, payload: memoryview) -> None:  # noqa: C901 - one flat row of handlers
        if not self._may(number):
            if number not in KNOWN and self.stage is Stage.CONNECTION and self.kex in (Kex.IDLE, Kex.OFFERED):
                self.send(Unimplemented((self.inbound.sequence - 1) & 0xFFFFFFFF).encode())
                return
            raise UnexpectedMessage(f"message {number} in stage {self.stage.name}, key exchange {self.kex.name}")
        if self.stage is Stage.EXT_INFO:
            self.stage = Stage.SERVICE  # RFC 8308 §2.4: EXT_INFO is the very next packet after NEWKEYS, or none
        if number >= 80 and number < phases.PING:
            assert self._connection is not None
            if number == _DATA:
                self._connection.receive_data(payload)
            elif number == _WINDOW_ADJUST:
                self._connection.receive_window_adjust(payload)
            elif number == _EXTENDED_DATA:
                self._connection.receive_extended_data(payload)
            else:
                self._connection.receive(number, payload)
                self._connection.unanswered_keepalives = 0
        elif number in (phases.KEXINIT, phases.NEWKEYS, phases.EXT_INFO) or 30 <= number < 50:
            self._transport.receive(number, payload)
        elif number == phases.DISCONNECT:
            self._receive_disconnect(payload)
        elif number in (phases.IGNORE, phases.UNIMPLEMENTED, phases.DEBUG):
            pass
        elif number == phases.SERVICE_REQUEST:
            self._receive_service_request(payload)
        elif number == phases.SERVICE_ACCEPT:
            self._receive_service_accept(payload)
        elif number == phases.PING:
            self.send(Pong(Ping.decode(payload).data).encode())
        elif number == phases.PONG:
            Pong.decode(payload)
        elif self._authentication is not None:  # else: RFC 4252 §5.1, requests after success are ignored
            self._authentication.receive(number, payload)

    def _receive_disconnect(self, payload: memoryview) -> None:
        try:
            message = Disconnect.decode(payload)
        except RemoteProtocolError:
            message = Disconnect(0, b"")
        text = message.description.decode(errors="replace")
        self._end(None, by_peer=True, reason_code=message.reason_code, text=text)

    def _receive_service_request(self, payload: memoryview) -> None:
        service = ServiceRequest.decode(payload).service
        if service != _USERAUTH:
            raise ServiceNotAvailable(f"service {service!r} asked for before authentication")
        self.stage = Stage.AUTH
        self._authentication = ServerAuthentication(self, self._logged_in)
        self.send(ServiceAccept(service).encode())

    def _receive_service_accept(self, payload: memoryview) -> None:
        if self.blocked:
            raise UnexpectedMessage("a service was accepted before the host key was trusted, and none asked for")
        if ServiceAccept.decode(payload).service != _USERAUTH:
            raise RemoteProtocolError("another service was accepted than was asked for")
        self.stage = Stage.AUTH
        self._authentication = authentication = ClientAuthentication(self, self._logged_in)
        authentication.start()

    def _logged_in(self) -> None:
        self._authentication = None
        self._transport.logged_in()
        self._connection = connection = Connection(self)
        self.last_activity = self.now
        if self.config.role is Role.SERVER and self.config.update_host_keys:
            connection.announce_host_keys()

    # What goes out.

    def events(self) -> list[Event | Question]:
        """Take the events and questions that came up, in order."""
        pending = self._pending
        if pending:
            self._pending = []
        return pending

    def data_to_send(self) -> list[Buffer]:
        """Take what is ready for the wire, for one write. Views of the arena must be sent or copied at once."""
        queue = self.outbound.queue
        if queue:
            self.outbound.queue = []
        return queue

    @property
    def has_data_to_send(self) -> bool:
        """Whether `data_to_send` would return anything."""
        return bool(self.outbound.queue)

    def prepare(self) -> None:
        """Do what the next packet each way needs and does not have to wait for; when there is nothing else to do."""
        self.inbound.opener.prepare(self.inbound.sequence)
        self.outbound.sealer.prepare(self.outbound.sequence)

    # Time.

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called, on the same clock; None for never."""
        if self.ended:
            return None
        limits = self.config.limits
        due: list[float] = []
        if limits.connection_seconds:
            due.append(self.connected_at + limits.connection_seconds)
        if self.stage is not Stage.CONNECTION:
            if limits.login_grace_seconds:
                due.append(self.connected_at + limits.login_grace_seconds)
            if not self._line_done:
                due.append(self.connected_at + limits.identification_seconds)
        else:
            if limits.idle_seconds:
                due.append(self.last_activity + limits.idle_seconds)
            if limits.keepalive_seconds:
                due.append(self._keepalive_at())
            rekey = self._transport.deadline
            if rekey is not None:
                due.append(rekey)
        return min(due, default=None)

    def _keepalive_at(self) -> float:
        connection = self._connection
        assert connection is not None
        if self._last_received > connection.keepalive_sent_at:
            connection.unanswered_keepalives = 0  # whatever came is a sign of life
        return self._last_received + self.config.limits.keepalive_seconds * (connection.unanswered_keepalives + 1)

    def handle_timeout(self, now: float) -> None:
        """Do what is due: end what took too long, rekey, ask for a sign of life."""
        self.now = now
        if self.ended:
            return
        try:
            self._check_deadlines()
        except RemoteProtocolError as error:
            self._fail(error)

    def _check_deadlines(self) -> None:
        limits = self.config.limits
        now = self.now
        if limits.connection_seconds and now >= self.connected_at + limits.connection_seconds:
            raise ConnectionTimeout(f"the connection has lasted {limits.connection_seconds:g} s")
        if self.stage is not Stage.CONNECTION:
            if limits.login_grace_seconds and now >= self.connected_at + limits.login_grace_seconds:
                raise LoginTimeout(f"no login within {limits.login_grace_seconds:g} s")
            if not self._line_done and now >= self.connected_at + limits.identification_seconds:
                raise LoginTimeout(f"no version line within {limits.identification_seconds:g} s")
            return
        if limits.idle_seconds and now >= self.last_activity + limits.idle_seconds:
            raise IdleTimeout(f"no channel data for {limits.idle_seconds:g} s")
        if limits.keepalive_seconds and now >= self._keepalive_at():
            assert self._connection is not None
            if self._connection.unanswered_keepalives >= limits.keepalive_count_max:
                raise IdleTimeout(f"{limits.keepalive_count_max} keepalives without an answer")
            self._connection.keepalive()
        self._transport.check_deadline()

    # Answers and commands.

    def answer(self, token: int, reply: object) -> None:
        """Answer a question; an unknown token (answered before, or the connection ended) is ignored."""
        then = self.waiting.pop(token, None)
        if then is None or self.ended:
            return
        try:
            then(reply)
        except RemoteProtocolError as error:
            self._fail(error)

    def use_limits(self, limits: Limits) -> None:
        """Bound the peer otherwise from now on, as by those of the user who wants to log in."""
        if limits != self.config.limits:
            self.config = replace(self.config, limits=limits)
            self._transport.bound_keys()

    def open_channel(self, channel_type: str, data: bytes = b"") -> int:
        """Ask for a channel and return its number; ChannelOpened or ChannelRefused follows."""
        return self._logged_in_connection().open(channel_type, data)

    def data_slots(self, channel: int, stream: int = 0, limit: int = 1 << 30) -> list[memoryview]:
        """Views to read data into, as many as window and packet size allow now; then call `commit_data`."""
        connection = self._logged_in_connection()
        return connection.data_slots(connection.channel(channel), stream, limit)

    def commit_data(self, channel: int, count: int, stream: int = 0) -> None:
        """Send the first `count` bytes of the slots. `data_to_send` must be taken and sent before the next slots."""
        connection = self._logged_in_connection()
        connection.commit_data(connection.channel(channel), stream, count)
        self._after_data()

    def send_data(self, channel: int, data: Buffer, stream: int = 0) -> int:
        """Send data and return how many bytes the window took; WindowOpened says when to go on with the rest."""
        connection = self._logged_in_connection()
        found = connection.channel(channel)
        view = memoryview(data)
        sent = 0
        while view:
            size = len(view)
            run = memoryview(bytearray(min(size, 8 * found.packet_bytes, 8 * 32768) + 8 * 512))
            slots = connection.data_slots(found, stream, size, run)
            if not slots:
                break
            taken = 0
            for slot in slots:
                slot[:] = view[taken : taken + len(slot)]
                taken += len(slot)
            connection.commit_data(found, stream, taken, run)
            sent += taken
            view = view[taken:]
        if sent:
            self._after_data()
        return sent

    def _after_data(self) -> None:
        self.last_activity = self.now
        if self._transport.rekey_due():
            self._transport.rekey()

    def may_send(self, channel: int) -> bool:
        """Whether window and key exchange would let data through."""
        connection = self._logged_in_connection()
        found = connection.channel(channel)
        if found.send_window.available <= 0:
            found.starved = True
            return False
        return found.sendable and not self.blocked

    def consumed(self, channel: int, count: int) -> None:
        """The application took `count` bytes of a DataReceived; the window opens again."""
        if self._connection is not None and not self.ended:
            self.last_activity = self.now
            try:
                self._connection.consumed(channel, count)
            except RemoteProtocolError as error:  # too much is held back while keys are exchanged
                self._fail(error)

    def send_eof(self, channel: int) -> None:
        """Half-close: no more data follows on this channel."""
        connection = self._logged_in_connection()
        connection.send_eof(connection.channel(channel))

    def close_channel(self, channel: int) -> None:
        """Close a channel; ChannelClosed follows once the peer has closed it too."""
        connection = self._logged_in_connection()
        connection.close(connection.channel(channel))

    def hold_close(self, channel: int) -> None:
        """Answer the peer's CLOSE only with `close_channel`, so that an exit status can still go before it."""
        self._logged_in_connection().channel(channel).holds_close = True

    def request(self, channel: int, request: ChannelRequest, *, want_reply: bool = False) -> None:
        """Send a channel request; RequestAnswered follows if a reply is wanted."""
        connection = self._logged_in_connection()
        connection.request(connection.channel(channel), request, want_reply=want_reply)

    def request_global(self, request: GlobalRequest, *, want_reply: bool = False) -> None:
        """Send a global request; RequestAnswered with channel None follows if a reply is wanted."""
        self._logged_in_connection().request_global(request, want_reply=want_reply)

    def channel(self, number: int) -> Channel:
        """What is known of a channel."""
        return self._logged_in_connection().channel(number)

    def rekey(self) -> None:
        """Exchange keys anew now, unless an exchange runs already."""
        self._logged_in_connection()
        self._transport.rekey()

    def disconnect(self, text: str = "", reason_code: int = BY_APPLICATION) -> None:
        """End the connection in order."""
        if not self.ended:
            self._say_goodbye(reason_code, text)
            self._end(None, by_peer=False, reason_code=reason_code, text=text)

    def _logged_in_connection(self) -> Connection:
        if self._connection is None or self.ended:
            raise LocalProtocolError("the connection is over" if self.ended else "nobody is logged in yet")
        return self._connection

    # Facts.

    @property
    def peer_version(self) -> bytes:
        """The peer's identification line, empty until it came."""
        return self._transport.peer_version

    @property
    def extensions(self) -> dict[str, bytes]:
        """What the peer's EXT_INFO said."""
        return self._transport.extensions

    @property
    def rekeys(self) -> int:
        """Key exchanges after the first."""
        return self._transport.rekeys

    @property
    def user(self) -> str | None:
        """The user name last tried, while authentication runs (server)."""
        authentication = self._authentication
        return authentication.user if isinstance(authentication, ServerAuthentication) else None

    @property
    def auth_failures(self) -> int:
        """Counted failures so far (server)."""
        authentication = self._authentication
        return authentication.failures if isinstance(authentication, ServerAuthentication) else 0

    # The end.

    def _fail(self, error: RemoteProtocolError) -> None:
        self._say_goodbye(error.disconnect_code, error.disconnect_text)
        self._end(error, by_peer=False, reason_code=error.disconnect_code, text=error.disconnect_text)

    def _say_goodbye(self, reason_code: int, text: str) -> None:
        if self._line_done:
            self.outbound.send(Disconnect(reason_code, text.encode()).encode())

    def _end(self, error: DunnartError | None, *, by_peer: bool, reason_code: int, text: str) -> None:
        self.ended = True
        self.waiting.clear()
        self.inbound.discard()
        self.emit(ConnectionEnded(error, by_peer, reason_code, text, self.stage.name))
