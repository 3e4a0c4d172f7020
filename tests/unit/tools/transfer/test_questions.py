"""What a login asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from dunnart.client import UnknownHost
from dunnart.keys import PrivateKey
from dunnart.tools.transfer import questions
from dunnart.tools.transfer.foreground import Foreground
from dunnart.tools.transfer.questions import LoginQuestions

HOST = UnknownHost("h", 22, PrivateKey.generate("ed25519").public)


class Front:
    """Runs what asks."""

    async def ask(self, asks: Callable[[], str | None]) -> str | None:
        return asks()


@pytest.mark.parametrize(
    ("typed", "trusted"),
    [
        (["yes"], True), ([" y "], True), ([HOST.fingerprint], True), (["perhaps", "", "y"], True),
        (["no"], False), (["n"], False), ([HOST.fingerprint[:-1], "Y", "no"], False), ([], False),
    ],
)  # fmt: skip
def test_whether_a_host_is_the_right_one(typed: list[str], trusted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    left = list(typed)
    monkeypatch.setattr(questions, "ask", lambda *_, **__: left.pop(0) if left else None)
    asking = LoginQuestions(cast("Foreground", Front()), "ann", "h", remember="")
    assert asyncio.run(asking.unknown_host(HOST)) is trusted
    assert left == []
