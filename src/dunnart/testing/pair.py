"""Two engines wired to each other in memory, under a virtual clock."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dunnart.crypto.profiles import PROFILES, Algorithms
from dunnart.keys.private import PrivateKey
from dunnart.protocol.core import EngineConfig
from dunnart.protocol.engine import Engine
from dunnart.protocol.events import Event
from dunnart.protocol.limits import Limits
from dunnart.protocol.phases import Role
from dunnart.protocol.questions import (
    Allow,
    AuthQuestion,
    ChannelOpenQuestion,
    ChannelRequestQuestion,
    CredentialQuestion,
    Deny,
    HostKeyQuestion,
    PasswordCredential,
    PromptQuestion,
    Question,
    SignQuestion,
    WorkQuestion,
)

Answerer = Callable[[Question], Any]


class Side:
    """An engine with what came out of it.

    Attributes:
        seen: all events, in order.
        questions: all questions, in order.
        answers: per question class, what to reply: a value or a function of the question.
    """

    def __init__(self, engine: Engine, keys: tuple[PrivateKey, ...], answers: dict[type[Question], Any]) -> None:
        self.engine = engine
        self.keys = {key.public.blob: key for key in keys}
        self.answers = answers
        self.seen: list[Event] = []
        self.questions: list[Question] = []
        self.sent_bytes = 0

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one class."""
        return [event for event in self.seen if isinstance(event, kind)]

    def sweep(self) -> bool:
        """Take events, answer questions; whether there were any."""
        batch = self.engine.events()
        for item in batch:
            if isinstance(item, Question):
                self.questions.append(item)
                self._answer(item)
            else:
                if hasattr(item, "chunks"):
                    item.chunks = [memoryview(bytes(chunk)) for chunk in item.chunks]
                self.seen.append(item)
        return bool(batch)

    def _answer(self, question: Question) -> None:
        if type(question) in self.answers:
            reply = self.answers[type(question)]
            if reply is ...:
                return
            self.engine.answer(question.token, reply(question) if callable(reply) else reply)
        elif isinstance(question, SignQuestion):
            signature = self.keys[question.key.blob].sign(question.algorithm, question.data)
            self.engine.answer(question.token, signature)
        elif isinstance(question, WorkQuestion):
            self.engine.answer(question.token, question.work())


class Pair:
    """A client and a server engine, connected; `run` carries bytes until nothing moves.

    Args:
        algorithms: for both sides, or one for each as a tuple (client, server).
        chunk: how many bytes are handed over at a time; None for all at once.
    """

    def __init__(
        self,
        *,
        algorithms: Algorithms | tuple[Algorithms, Algorithms] = PROFILES["default"],
        limits: Limits | None = None,
        client_limits: Limits | None = None,
        auth_methods: tuple[tuple[str, ...], ...] = (("password",),),
        host_keys: tuple[PrivateKey, ...] | None = None,
        user_keys: tuple[PrivateKey, ...] = (),
        client_answers: dict[type[Question], Any] | None = None,
        server_answers: dict[type[Question], Any] | None = None,
        random: Callable[[int], bytes] = os.urandom,
        chunk: int | None = None,
    ) -> None:
        client_algorithms, server_algorithms = algorithms if isinstance(algorithms, tuple) else (algorithms, algorithms)
        host_keys = host_keys or (PrivateKey.generate("ed25519"),)
        offered = {name for key in host_keys for name in key.signature_algorithms}
        self.now = 1000.0
        self.chunk = chunk
        server_config = EngineConfig(
            Role.SERVER, _with_host_keys(server_algorithms, offered), limits or Limits(),
            tuple(key.public for key in host_keys), auth_methods,
        )  # fmt: skip
        client_config = EngineConfig(Role.CLIENT, client_algorithms, client_limits or limits or Limits(), user="alice")
        self.server = Side(
            Engine(server_config, random=random, now=self.now),
            host_keys,
            {AuthQuestion: _right_password, ChannelOpenQuestion: True, ChannelRequestQuestion: True} | (server_answers or {}),
        )
        self.client = Side(
            Engine(client_config, random=random, now=self.now),
            user_keys,
            {HostKeyQuestion: True, CredentialQuestion: _first_time_only(), PromptQuestion: ("secret",)}
            | (client_answers or {}),
        )

    def run(self) -> Pair:
        """Carry bytes and answer questions until both sides are at rest."""
        moved = True
        while moved:
            moved = self.carry(self.client, self.server) | self.carry(self.server, self.client)
            moved |= self.client.sweep() | self.server.sweep()
        return self

    def carry(self, source: Side, target: Side) -> bool:
        """Hand what `source` sends to `target`, once."""
        data = b"".join(source.engine.data_to_send())
        source.sent_bytes += len(data)
        size = self.chunk or len(data) or 1
        for start in range(0, len(data), size):
            target.engine.receive(data[start : start + size], self.now)
            target.sweep()
        return bool(data)

    def advance(self, seconds: float) -> Pair:
        """Let virtual time pass, then run."""
        self.now += seconds
        for side in (self.client, self.server):
            deadline = side.engine.next_deadline()
            if deadline is not None and deadline <= self.now:
                side.engine.handle_timeout(self.now)
        return self.run()


def _with_host_keys(algorithms: Algorithms, offered: set[str]) -> Algorithms:
    from dataclasses import replace  # noqa: PLC0415

    return replace(algorithms, host_key=tuple(name for name in algorithms.host_key if name in offered))


def _right_password(question: Question) -> Allow | Deny:
    assert isinstance(question, AuthQuestion)
    credential = question.credential
    good = isinstance(credential, PasswordCredential) and credential.password == "secret"  # noqa: S105
    return Allow() if good else Deny()


def _first_time_only() -> Answerer:
    tries = iter([PasswordCredential("secret")])
    return lambda _question: next(tries, None)
