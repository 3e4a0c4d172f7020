"""The connection protocol, RFC 4254: channels, their data and requests, global requests.

Both roles are the same here, but for what OpenSSH's extensions give only one of them. The hot messages (CHANNEL_DATA,
CHANNEL_EXTENDED_DATA, CHANNEL_WINDOW_ADJUST) are read and written with one `struct` each.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING

from dunnart.errors import (
    DecodeError,
    FlowControlError,
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
)
from dunnart.protocol.channel import Answer, Channel, settle
from dunnart.protocol.events import (
    ChannelClosed,
    ChannelDenied,
    ChannelOpened,
    ChannelRefused,
    CloseReceived,
    DataReceived,
    EofReceived,
    RequestAnswered,
    WindowOpened,
)
from dunnart.protocol.phases import Role
from dunnart.protocol.questions import (
    ChannelOpenQuestion,
    ChannelRequestQuestion,
    GlobalRequestQuestion,
    Refusal,
    SignQuestion,
)
from dunnart.protocol.requests import (
    GlobalKeepalive,
    HostkeysProve,
    Keepalive,
    NoMoreSessions,
    SessionOpen,
    UnknownGlobalRequest,
    UnknownRequest,
    decode_channel_request,
    decode_global_request,
    decode_open,
    decode_strings,
    encode_strings,
)
from dunnart.wire.encoding import string, text
from dunnart.wire.messages import (
    ChannelClose,
    ChannelEof,
    ChannelFailure,
    ChannelOpen,
    ChannelOpenConfirmation,
    ChannelOpenFailure,
    ChannelRequest,
    ChannelSuccess,
    GlobalRequest,
    RequestFailure,
    RequestSuccess,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.protocol import requests
    from dunnart.protocol.core import Core

_NUMBER_AND_LENGTH = struct.Struct(">II")
_STREAM = struct.Struct(">III")
_ADJUST = struct.Struct(">BII")
_DATA_OFFSET = 9
_EXTENDED_OFFSET = 13
_ADJUST_LENGTH = 9
_STDERR = 1

PROHIBITED = 1
RESOURCE_SHORTAGE = 4


class Connection:
    """All channels of one connection.

    Args:
        core: the engine's shared state.
    """

    __slots__ = (
        "_answers",
        "_channels",
        "_chunks",
        "_core",
        "_global_expected",
        "_next_number",
        "_no_more_sessions",
        "_packet_bytes",
        "_run",
        "_sessions",
        "keepalive_sent_at",
        "unanswered_keepalives",
    )  # fmt: skip

    def __init__(self, core: Core) -> None:
        self._core = core
        self._channels: dict[int, Channel] = {}
        self._next_number = 0
        self._answers: list[Answer] = []
        self._global_expected: list[bool] = []
        self._sessions = 0
        self._no_more_sessions = False
        self._packet_bytes = core.config.limits.channel_packet_bytes
        self._run: Channel | None = None
        self._chunks: list[memoryview] = []
        self.unanswered_keepalives = 0
        self.keepalive_sent_at = core.now

    def channel(self, number: int) -> Channel:
        """Our channel of that number; LocalProtocolError if there is none."""
        try:
            return self._channels[number]
        except KeyError:
            raise LocalProtocolError(f"there is no channel {number}") from None

    def _remote_channel(self, number: int) -> Channel:
        channel = self._channels.get(number)
        if channel is None or channel.remote < 0:
            raise RemoteProtocolError(f"channel {number} is not open")
        return channel

    # The hot path in.

    def receive_data(self, payload: memoryview) -> None:
        """CHANNEL_DATA."""
        size = len(payload) - _DATA_OFFSET
        if size < 0:
            raise DecodeError("CHANNEL_DATA is too short")
        number, length = _NUMBER_AND_LENGTH.unpack_from(payload, 1)
        if length != size:
            raise DecodeError("CHANNEL_DATA's length does not fit")
        run = self._run
        if run is not None and run.number == number and 0 < size <= self._packet_bytes:
            # The same channel as the packet before, with nothing in between: its state cannot have changed.
            window = run.receive_window
            if size <= window.available:
                window.available -= size
                self._chunks.append(payload[_DATA_OFFSET:])
                return
        self._take_data(number, payload[_DATA_OFFSET:], 0)

    def receive_extended_data(self, payload: memoryview) -> None:
        """CHANNEL_EXTENDED_DATA; streams other than stderr are counted and dropped."""
        if len(payload) < _EXTENDED_OFFSET:
            raise DecodeError("CHANNEL_EXTENDED_DATA is too short")
        number, stream, length = _STREAM.unpack_from(payload, 1)
        if length != len(payload) - _EXTENDED_OFFSET:
            raise DecodeError("CHANNEL_EXTENDED_DATA's length does not fit")
        self._take_data(number, payload[_EXTENDED_OFFSET:], stream)

    def _take_data(self, number: int, data: memoryview, stream: int) -> None:
        channel = self._remote_channel(number)
        size = len(data)
        if size > self._packet_bytes:
            raise FlowControlError(f"{size} bytes in one data packet")
        channel.receive_window.receive(size)
        if channel.eof_received or channel.close_received or channel.close_sent or stream > _STDERR or not size:
            # After EOF or CLOSE, and on a stream nobody reads, data is dropped; its window is given back.
            self.consumed(number, size)
            return
        if stream and self._core.config.role is Role.SERVER:
            self.consumed(number, size)
            return
        self._chunks = [data]
        self._run = None if stream else channel
        self._core.emit(DataReceived(number, self._chunks, stream))

    def break_run(self) -> None:
        """Something else than data comes now, or the events may be taken: begin a new DataReceived."""
        self._run = None

    def receive_window_adjust(self, payload: memoryview) -> None:
        """CHANNEL_WINDOW_ADJUST."""
        if len(payload) != _ADJUST_LENGTH:
            raise DecodeError("CHANNEL_WINDOW_ADJUST's length does not fit")
        number, count = _NUMBER_AND_LENGTH.unpack_from(payload, 1)
        if number < self._next_number and number not in self._channels:
            return  # it is closed: paramiko's reader may lag behind, and OpenSSH passes over it, too
        channel = self._remote_channel(number)
        channel.send_window.grant(count)
        if channel.starved and count:
            channel.starved = False
            self._core.emit(WindowOpened(number))

    # The hot path out.

    def data_slots(self, channel: Channel, stream: int, limit: int, run: memoryview | None = None) -> list[memoryview]:
        """Views to put data into, as window and packet size allow; none while nothing may be sent."""
        if self._core.blocked or not channel.sendable:
            return []
        limit = min(limit, channel.send_window.available)
        if limit <= 0:
            channel.starved = True
            return []
        return self._core.outbound.data_slots(channel.header(stream), channel.packet_bytes, limit, run)

    def commit_data(self, channel: Channel, stream: int, count: int, run: memoryview | None = None) -> None:
        """Seal the `count` bytes that were put into the slots."""
        channel.send_window.available -= count
        outbound = self._core.outbound
        seal = outbound.seal_run if outbound.compressor is None else outbound.compress_run
        seal(channel.header(stream), channel.packet_bytes, count, run)

    def consumed(self, number: int, count: int) -> None:
        """The owner took `count` received bytes of a channel: the peer may send as many again."""
        channel = self._channels.get(number)
        if channel is None or channel.close_sent or channel.close_received:
            return
        granted = channel.receive_window.consume(count)
        if granted and not channel.eof_received:
            self._core.send(_ADJUST.pack(93, channel.remote, granted))

    # Everything else that comes in.

    def receive(self, number: int, payload: memoryview) -> None:
        """Handle the messages 80-82, 90-92 and 96-100."""
        if number == ChannelRequest.number:
            self._receive_request(ChannelRequest.decode(payload))
        elif number == ChannelOpen.number:
            self._receive_open(ChannelOpen.decode(payload))
        elif number == ChannelEof.number:
            self._receive_eof(self._remote_channel(ChannelEof.decode(payload).recipient))
        elif number == ChannelClose.number:
            self._receive_close(self._remote_channel(ChannelClose.decode(payload).recipient))
        elif number == ChannelSuccess.number:
            self._receive_answer(ChannelSuccess.decode(payload).recipient, success=True)
        elif number == ChannelFailure.number:
            self._receive_answer(ChannelFailure.decode(payload).recipient, success=False)
        elif number == ChannelOpenConfirmation.number:
            self._receive_confirmation(ChannelOpenConfirmation.decode(payload))
        elif number == ChannelOpenFailure.number:
            self._receive_refusal(ChannelOpenFailure.decode(payload))
        elif number == GlobalRequest.number:
            self._receive_global(GlobalRequest.decode(payload))
        elif number == RequestSuccess.number:
            self._receive_global_answer(success=True, data=RequestSuccess.decode(payload).data)
        else:
            RequestFailure.decode(payload)
            self._receive_global_answer(success=False)

    # Opening.

    def _new_channel(self, channel_type: str) -> Channel:
        # Numbers are not used again: the owner may still have to hear of the last one's end.
        number = self._next_number
        self._next_number = number + 1
        channel = Channel(number, channel_type, self._core.config.limits.window_bytes)
        self._channels[number] = channel
        return channel

    def _forget(self, channel: Channel) -> None:
        del self._channels[channel.number]
        if channel.channel_type == SessionOpen.name:
            self._sessions -= 1

    def _receive_open(self, message: ChannelOpen) -> None:
        core = self._core
        limits = core.config.limits
        session = message.channel_type == SessionOpen.name
        try:
            request = decode_open(message.channel_type, message.data)
        except DecodeError as error:
            self._refuse_open(message.sender, PROHIBITED, str(error))
            return
        if message.packet == 0:
            self._refuse_open(message.sender, PROHIBITED, "a maximum packet of 0 bytes")
            return
        if session and self._no_more_sessions:
            raise RemoteProtocolError("a session was opened after no-more-sessions")
        if session and core.config.role is Role.CLIENT:
            self._refuse_open(message.sender, PROHIBITED, "a client offers no sessions")  # RFC 4254 §6.1
        elif len(self._channels) >= limits.channels or (session and self._sessions >= limits.sessions):
            self._refuse_open(message.sender, RESOURCE_SHORTAGE, "too many channels")
            core.emit(ChannelDenied(message.channel_type, "too many channels"))
        else:
            channel = self._new_channel(message.channel_type)
            if session:
                self._sessions += 1
            core.ask(ChannelOpenQuestion, partial(self._open_answered, channel, message), request)

    def _open_answered(self, channel: Channel, message: ChannelOpen, reply: object) -> None:
        if reply is not True:
            self._forget(channel)
            refusal = reply if isinstance(reply, Refusal) else Refusal()
            self._refuse_open(message.sender, refusal.reason_code, refusal.description)
            return
        limits = self._core.config.limits
        channel.connect(message.sender, message.window, min(message.packet, limits.channel_packet_bytes))
        self._core.send(ChannelOpenConfirmation(
            message.sender, channel.number, limits.window_bytes, limits.channel_packet_bytes).encode())  # fmt: skip
        self._core.emit(ChannelOpened(channel.number, channel.channel_type))

    def _refuse_open(self, sender: int, reason_code: int, description: str) -> None:
        self._core.send(ChannelOpenFailure(sender, reason_code, description.encode()).encode())

    def open(self, channel_type: str, data: bytes) -> int:
        """Ask the peer for a channel; ChannelOpened or ChannelRefused follows."""
        limits = self._core.config.limits
        if len(self._channels) >= limits.channels:
            raise LocalProtocolError(f"{limits.channels} channels are open already")
        channel = self._new_channel(channel_type)
        channel.asked_for = True
        if channel_type == SessionOpen.name:
            self._sessions += 1
        self._core.command(ChannelOpen(
            channel_type, channel.number, limits.window_bytes, limits.channel_packet_bytes, data).encode())  # fmt: skip
        return channel.number

    def _awaited(self, number: int) -> Channel:
        channel = self._channels.get(number)
        if channel is None or channel.remote >= 0 or not channel.asked_for:
            raise RemoteProtocolError(f"channel {number} was not asked for")
        return channel

    def _receive_confirmation(self, message: ChannelOpenConfirmation) -> None:
        channel = self._awaited(message.recipient)
        if message.packet == 0:
            raise LimitExceeded("a maximum packet of 0 bytes")
        packet_bytes = min(message.packet, self._core.config.limits.channel_packet_bytes)
        channel.connect(message.sender, message.window, packet_bytes)
        self._core.emit(ChannelOpened(channel.number, channel.channel_type))

    def _receive_refusal(self, message: ChannelOpenFailure) -> None:
        channel = self._awaited(message.recipient)
        self._forget(channel)
        self._core.emit(ChannelRefused(
            channel.number, message.reason_code, message.description.decode(errors="replace")))  # fmt: skip

    # Ending.

    def _receive_eof(self, channel: Channel) -> None:
        if not channel.eof_received and not channel.close_received:
            channel.eof_received = True
            self._core.emit(EofReceived(channel.number))

    def _receive_close(self, channel: Channel) -> None:
        if channel.close_received:
            raise RemoteProtocolError(f"channel {channel.number} closed twice")
        channel.close_received = True
        if channel.holds_close and not channel.close_sent:
            self._core.emit(CloseReceived(channel.number))
        else:
            self.close(channel)

    def send_eof(self, channel: Channel) -> None:
        """Say that no more data follows; once is enough."""
        if channel.sendable:
            channel.eof_sent = True
            self._core.command(ChannelEof(channel.remote).encode())

    def close(self, channel: Channel) -> None:
        """Close our side; when both sides are closed the number is free and ChannelClosed is emitted."""
        if channel.remote < 0:
            raise LocalProtocolError(f"channel {channel.number} is not open yet")
        if not channel.close_sent:
            channel.close_sent = True
            self._core.command(ChannelClose(channel.remote).encode())
        if channel.close_received:
            self._forget(channel)
            self._core.emit(ChannelClosed(channel.number))

    # Requests.

    def _receive_request(self, message: ChannelRequest) -> None:
        channel = self._remote_channel(message.recipient)
        if channel.close_received or channel.close_sent:
            return
        if channel.answers is None:
            channel.answers = []
        if len(channel.answers) >= self._core.config.limits.pending_requests:
            raise LimitExceeded("too many channel requests wait for an answer")
        answer = Answer(partial(self._answer_request, channel, message.want_reply))
        channel.answers.append(answer)
        try:
            request = decode_channel_request(message.name, message.data)
        except DecodeError:
            request = Keepalive()  # which is refused as well
        asked_for_nothing = isinstance(request, UnknownRequest) and self._core.config.role is Role.CLIENT
        if asked_for_nothing or isinstance(request, Keepalive):
            self._request_answered(channel, answer, reply=False)
        else:
            self._core.ask(
                ChannelRequestQuestion, partial(self._request_answered, channel, answer), channel.number, request
            )

    def _request_answered(self, channel: Channel, answer: Answer, reply: object) -> None:
        answer.success = reply is True
        if channel.answers is not None:
            settle(channel.answers)

    def _answer_request(self, channel: Channel, wanted: bool, success: bool | bytes) -> None:  # noqa: FBT001
        if wanted and not channel.close_sent:
            kind = ChannelSuccess if success else ChannelFailure
            self._core.send(kind(channel.remote).encode())

    def request(self, channel: Channel, request: requests.ChannelRequest, *, want_reply: bool) -> None:
        """Ask something of a channel; RequestAnswered follows if a reply is wanted."""
        if channel.close_sent or channel.remote < 0:
            raise LocalProtocolError(f"channel {channel.number} is not open")
        channel.expected += want_reply
        name = request.wire_name if isinstance(request, UnknownRequest) else request.name
        data = request.data if isinstance(request, UnknownRequest) else request.encode()
        self._core.command(ChannelRequest(channel.remote, name, want_reply, data).encode())

    def _receive_answer(self, number: int, *, success: bool) -> None:
        channel = self._remote_channel(number)
        if channel.expected:  # an answer that nobody waits for is dropped
            channel.expected -= 1
            self._core.emit(RequestAnswered(number, success))

    # Global requests.

    def _receive_global(self, message: GlobalRequest) -> None:
        if len(self._answers) >= self._core.config.limits.pending_requests:
            raise LimitExceeded("too many global requests wait for an answer")
        answer = Answer(partial(self._answer_global, message.want_reply))
        self._answers.append(answer)
        then = partial(self._global_answered, answer)
        server = self._core.config.role is Role.SERVER
        try:
            request = decode_global_request(message.name, message.data)
            if isinstance(request, HostkeysProve) and server:
                self._prove(decode_strings(request.keys), [], then)
                return
        except DecodeError:
            then(False)  # noqa: FBT003 - the reply is the argument
            return
        if isinstance(request, NoMoreSessions) and server:
            self._no_more_sessions = True
            then(True)  # noqa: FBT003
        elif isinstance(request, UnknownGlobalRequest):
            self._core.ask(GlobalRequestQuestion, then, request)
        else:
            then(False)  # noqa: FBT003

    def _global_answered(self, answer: Answer, reply: object) -> None:
        answer.success = reply if isinstance(reply, bytes) else reply is True
        settle(self._answers)

    def _answer_global(self, wanted: bool, success: bool | bytes) -> None:  # noqa: FBT001
        if not wanted:
            return
        if success is False:
            self._core.send(RequestFailure().encode())
        else:
            self._core.send(RequestSuccess(success if isinstance(success, bytes) else b"").encode())

    def request_global(self, request: requests.GlobalRequest, *, want_reply: bool) -> None:
        """Ask something of the connection; RequestAnswered follows if a reply is wanted."""
        if want_reply:
            self._global_expected.append(True)
        name = request.wire_name if isinstance(request, UnknownGlobalRequest) else request.name
        data = request.data if isinstance(request, UnknownGlobalRequest) else request.encode()
        self._core.command(GlobalRequest(name, want_reply, data).encode())

    def _receive_global_answer(self, *, success: bool, data: bytes = b"") -> None:
        # Some clients answer hostkeys-00, which wants no reply: an answer nobody waits for is dropped.
        if not self._global_expected:
            return
        if self._global_expected.pop(0):
            self._core.emit(RequestAnswered(None, success, data))

    def keepalive(self) -> None:
        """Ask for a sign of life; any answer will do."""
        self.unanswered_keepalives += 1
        self.keepalive_sent_at = self._core.now
        self._global_expected.append(False)
        self._core.command(GlobalRequest(GlobalKeepalive.name, want_reply=True).encode())

    # Host keys beyond the one that the connection began with (OpenSSH PROTOCOL §2.5).

    def announce_host_keys(self) -> None:
        """Tell the client all our host keys."""
        keys = encode_strings([key.blob for key in self._core.config.host_keys])
        self._core.send(GlobalRequest("hostkeys-00@openssh.com", want_reply=False, data=keys).encode())

    def _prove(self, wanted: list[bytes], signatures: list[bytes], then: Callable[[object], None]) -> None:
        """Sign for each wanted key in turn, then answer with all signatures."""
        core = self._core
        if len(wanted) > len(core.config.host_keys):
            then(False)  # noqa: FBT003
            return
        if not wanted:
            then(encode_strings(signatures) if signatures else False)
            return
        blob = wanted[0]
        key = next((key for key in core.config.host_keys if key.blob == blob), None)
        if key is None:
            then(False)  # noqa: FBT003
            return
        # OpenSSH lets RSA keys sign with the strongest hash that the client knows; SHA-512 is known to all that ask.
        algorithm = key.signature_algorithms[0]
        data = text(HostkeysProve.name) + string(core.session_id) + string(blob)
        core.ask(SignQuestion, partial(self._proved, wanted[1:], signatures, then), key, algorithm, data)

    def _proved(
        self, wanted: list[bytes], signatures: list[bytes], then: Callable[[object], None], signature: object
    ) -> None:
        if isinstance(signature, bytes):
            self._prove(wanted, [*signatures, signature], then)
        else:
            then(False)  # noqa: FBT003
