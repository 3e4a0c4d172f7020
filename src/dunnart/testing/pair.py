"""Two engines wired to each other in memory, under a virtual clock."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from dunnart.crypto.profiles import PROFILES, Algorithms
from dunnart.keys.private import PrivateKey
from dunnart.keys.public import PublicKey
from dunnart.protocol.core import EngineConfig
from dunnart.protocol.engine import Engine
from dunnart.protocol.events import ConnectionEnded, DataReceived, Event
from dunnart.protocol.framing import READ_BYTES, Arena, Inbound
from dunnart.protocol.limits import Limits
from dunnart.protocol.phases import Role
from dunnart.protocol.questions import (
    Allow,
    AuthQuestion,
    ChannelOpenQuestion,
    ChannelRequestQuestion,
    CredentialQuestion,
    Deny,
    GlobalRequestQuestion,
    HostKeyQuestion,
    MethodsQuestion,
    PasswordCredential,
    PromptQuestion,
    Question,
    SignQuestion,
    WorkQuestion,
)
from dunnart.wire.encoding import byte, uint32
from dunnart.wire.messages import KexInit, Message

Answerer = Callable[[Any], Any]
PASSWORD = "secret"  # noqa: S105 - both sides of a test know it


class Signer(Protocol):
    """A private key, or something that signs like one."""

    @property
    def public(self) -> PublicKey:
        """The public half."""

    def sign(self, algorithm: str, data: bytes) -> bytes:
        """Make a signature blob."""


class Tap(Inbound):
    """An Inbound that keeps a copy of every payload."""

    __slots__ = ("payloads",)

    def __init__(self, arena: Arena, packet_bytes: int) -> None:
        super().__init__(arena, packet_bytes)
        self.payloads: list[bytes] = []

    def packet(self) -> memoryview | None:
        """Take a packet as `Inbound` does."""
        payload = super().packet()
        if payload is not None:
            self.payloads.append(bytes(payload))
        return payload


class Side:
    """An engine with what came out of it.

    Args:
        config: the engine's.
        random: the engine's.
        now: the virtual time.
        keys: what signs.
        answers: per class of question, what to reply: a value, a function of the question, or `...` for nothing yet.

    Attributes:
        seen: all events, in order.
        questions: all questions, in order.
        payloads: all payloads received, decrypted, in order.
        consume: give the window back as soon as data comes.
        puppet: the engine opens packets, so that `payloads` shows them, but does nothing more: tests speak for it.
    """

    def __init__(
        self,
        config: EngineConfig,
        random: Callable[[int], bytes],
        now: float,
        keys: tuple[Signer, ...],
        answers: dict[type[Question], Any],
    ) -> None:
        arena = Arena(random, channel_packet_bytes=config.limits.channel_packet_bytes)
        self.engine = Engine(config, random=random, now=now, arena=arena)
        tap = Tap(arena, config.limits.packet_bytes_before_login)
        self.engine.inbound = tap
        self.payloads = tap.payloads
        self.keys = {key.public.blob: key for key in keys}
        self.answers = answers
        self.seen: list[Event] = []
        self.questions: list[Question] = []
        self.sent_bytes = 0
        self.consume = True
        self.puppet = False

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one class."""
        return [event for event in self.seen if isinstance(event, kind)]

    def asked(self, kind: type[Any]) -> list[Any]:
        """The questions of one class."""
        return [question for question in self.questions if isinstance(question, kind)]

    def got(self, kind: type[Any]) -> list[Any]:
        """The messages of one class that were received, decoded."""
        return [kind.decode(payload) for payload in self.payloads if payload[0] == kind.number]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the messages received."""
        return [payload[0] for payload in self.payloads]

    @property
    def ended(self) -> ConnectionEnded | None:
        """How the connection ended, if it did."""
        return next((event for event in self.seen if isinstance(event, ConnectionEnded)), None)

    def data(self, channel: int, stream: int = 0) -> bytes:
        """All data received on a channel."""
        chosen = [event for event in self.of(DataReceived) if (event.channel, event.stream) == (channel, stream)]
        return b"".join(event.data for event in chosen)

    def send(self, *messages: Message | bytes) -> None:
        """Seal any payload with the keys in use: what an honest engine would not send."""
        for message in messages:
            self.engine.outbound.send(message if isinstance(message, bytes) else message.encode())

    def receive(self, data: bytes, now: float) -> None:
        """Take received bytes."""
        if not self.puppet:
            self.engine.receive(data, now)
            return
        inbound = self.engine.inbound
        if data.startswith(b"SSH-2.0-"):
            data = data[data.index(b"\n") + 1 :]
        for start in range(0, len(data), READ_BYTES):
            part = data[start : start + READ_BYTES]
            inbound.buffer()[: len(part)] = part
            inbound.received(len(part))
            while inbound.packet() is not None:
                pass
            inbound.keep()

    def sweep(self) -> bool:
        """Take events, answer questions; whether there were any."""
        batch = self.engine.events()
        for item in batch:
            if isinstance(item, Question):
                self.questions.append(item)
            elif isinstance(item, DataReceived):
                item.chunks = [memoryview(bytes(chunk)) for chunk in item.chunks]
                self.seen.append(item)
            else:
                self.seen.append(item)
        for item in batch:
            if isinstance(item, Question):
                self._answer(item)
            elif isinstance(item, DataReceived) and self.consume:
                self.engine.consumed(item.channel, len(item.data))
        return bool(batch)

    def _answer(self, question: Question) -> None:
        if type(question) in self.answers:
            reply = self.answers[type(question)]
            if callable(reply):
                reply = reply(question)
            if reply is not ...:
                self.engine.answer(question.token, reply)
        elif isinstance(question, SignQuestion):
            signature = self.keys[question.key.blob].sign(question.algorithm, question.data)
            self.engine.answer(question.token, signature)
        elif isinstance(question, WorkQuestion):
            try:
                self.engine.answer(question.token, question.work())
            except Exception as error:  # noqa: BLE001 - the reply is the error
                self.engine.answer(question.token, error)


class Pair:
    """A client and a server engine, connected; `run` carries bytes until nothing moves.

    Args:
        algorithms: for both sides, or one for each as a tuple (client, server).
        limits: of the server, and of the client unless it has its own.
        client_limits: of the client.
        auth_methods: the server's chains.
        host_keys: the server's; a new Ed25519 key when None.
        user_keys: what the client signs with.
        client_answers: as for `Side`, on top of those that log in by password.
        server_answers: as for `Side`, on top of those that let the right password in and grant everything.
        banner: the server's.
        user: whom the client logs in as.
        random: both engines'.
        chunk: how many bytes are handed over at a time; None for all at once.

    Attributes:
        tamper: gets the sending side and its bytes, returns what arrives.
    """

    def __init__(
        self,
        *,
        algorithms: Algorithms | tuple[Algorithms, Algorithms] = PROFILES["default"],
        limits: Limits | None = None,
        client_limits: Limits | None = None,
        auth_methods: tuple[tuple[str, ...], ...] = (("password",),),
        host_keys: tuple[PrivateKey, ...] | None = None,
        user_keys: tuple[Signer, ...] = (),
        client_answers: dict[type[Question], Any] | None = None,
        server_answers: dict[type[Question], Any] | None = None,
        banner: str = "",
        user: str = "alice",
        random: Callable[[int], bytes] = os.urandom,
        chunk: int | None = None,
    ) -> None:
        client_algorithms, server_algorithms = algorithms if isinstance(algorithms, tuple) else (algorithms, algorithms)
        host_keys = host_keys or (PrivateKey.generate("ed25519"),)
        offered = {name for key in host_keys for name in key.signature_algorithms}
        self.now = 1000.0
        self.chunk = chunk
        self.tamper: Callable[[Side, bytes], bytes] = lambda _side, data: data
        server_config = EngineConfig(
            Role.SERVER,
            replace(server_algorithms, host_key=tuple(name for name in server_algorithms.host_key if name in offered)),
            limits or Limits(),
            tuple(key.public for key in host_keys),
            auth_methods,
            asks_methods=MethodsQuestion in (server_answers or {}),
            banner=banner,
        )
        client_config = EngineConfig(Role.CLIENT, client_algorithms, client_limits or limits or Limits(), user=user)
        granting = {
            AuthQuestion: right_password,
            ChannelOpenQuestion: True,
            ChannelRequestQuestion: True,
            GlobalRequestQuestion: False,
        }
        self.server = Side(server_config, random, self.now, host_keys, granting | (server_answers or {}))
        trying = {
            HostKeyQuestion: True,
            CredentialQuestion: one_after_another(PasswordCredential(PASSWORD)),
            PromptQuestion: (PASSWORD,),
            ChannelRequestQuestion: True,
            GlobalRequestQuestion: False,
        }
        self.client = Side(client_config, random, self.now, user_keys, trying | (client_answers or {}))

    def run(self) -> Pair:
        """Carry bytes and answer questions until both sides are at rest."""
        moved = True
        while moved:
            moved = self.carry(self.client, self.server) | self.carry(self.server, self.client)
            moved |= self.client.sweep() | self.server.sweep()
        return self

    def carry(self, source: Side, target: Side) -> bool:
        """Hand what `source` sends to `target`, once."""
        sent = b"".join(source.engine.data_to_send())
        source.sent_bytes += len(sent)
        data = self.tamper(source, sent) if sent else b""
        size = self.chunk or len(data) or 1
        for start in range(0, len(data), size):
            target.receive(data[start : start + size], self.now)
            target.sweep()
        return bool(sent)

    def advance(self, seconds: float) -> Pair:
        """Let virtual time pass, then run."""
        self.now += seconds
        for side in (self.client, self.server):
            side.engine.now = self.now
            deadline = None if side.puppet else side.engine.next_deadline()
            if deadline is not None and deadline <= self.now:
                side.engine.handle_timeout(self.now)
        return self.run()

    def session(self) -> tuple[int, int]:
        """Open a session; its number at the client and at the server."""
        number = self.client.engine.open_channel("session")
        self.run()
        return number, self.client.engine.channel(number).remote

    def transfer(self, source: Side, channel: int, data: bytes, stream: int = 0) -> Pair:
        """Send all of `data`, as windows and key exchanges let it through."""
        view = memoryview(data)
        while view:
            sent = source.engine.send_data(channel, view, stream)
            view = view[sent:]
            before = len(self.client.payloads) + len(self.server.payloads)
            self.run()
            if not sent and before == len(self.client.payloads) + len(self.server.payloads):
                raise AssertionError(f"{len(view)} bytes of {len(data)} are stuck")
        return self


def kexinit(algorithms: Algorithms, **fields: object) -> KexInit:
    """A KEXINIT that offers these algorithms both ways; `fields` replace some of it."""
    made = KexInit(
        cookie=b"a fixed cookie!!",
        kex=algorithms.kex,
        host_key=algorithms.host_key,
        ciphers_to_server=algorithms.ciphers,
        ciphers_to_client=algorithms.ciphers,
        macs_to_server=algorithms.macs,
        macs_to_client=algorithms.macs,
        compression_to_server=algorithms.compression,
        compression_to_client=algorithms.compression,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def plain_packet(payload: bytes | Message) -> bytes:
    """A packet as it is sent before the first NEWKEYS."""
    body = payload if isinstance(payload, bytes) else payload.encode()
    padding = 8 - (5 + len(body)) % 8
    padding += 8 if padding < 4 else 0
    return uint32(1 + len(body) + padding) + byte(padding) + body + bytes(padding)


def plain_payloads(data: bytes) -> list[bytes]:
    """The payloads of such packets, after a version line if there is one."""
    if data.startswith(b"SSH-"):
        data = data[data.index(b"\n") + 1 :]
    found = []
    while data:
        length = int.from_bytes(data[:4], "big")
        found.append(data[5 : 4 + length - data[4]])
        data = data[4 + length :]
    return found


def right_password(question: AuthQuestion) -> Allow | Deny:
    """Let in who knows the password."""
    credential = question.credential
    return Allow() if isinstance(credential, PasswordCredential) and credential.password == PASSWORD else Deny()


def one_after_another(*replies: object) -> Answerer:
    """Answer with these, then with None."""
    rest = iter(replies)
    return lambda _question: next(rest, None)
