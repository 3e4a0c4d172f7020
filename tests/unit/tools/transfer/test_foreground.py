"""Coroutines in the background and a person in the foreground: results, questions, control-C."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from dunnart.tools.transfer.foreground import Foreground


@pytest.fixture
def front() -> Iterator[Foreground]:
    with Foreground() as made:
        yield made


def test_results_errors_and_questions(front: Foreground) -> None:
    async def work() -> tuple[str, int, int]:
        name = await front.ask(lambda: "ann")
        return name, threading.get_ident(), await front.ask(threading.get_ident)

    name, there, here = front.call(work())
    assert (name, here) == ("ann", threading.get_ident())
    assert there != here

    async def failing() -> None:
        raise FileNotFoundError(2, "no")

    with pytest.raises(FileNotFoundError):
        front.call(failing())
    assert front.call(work())[0] == "ann"


def test_a_question_that_is_interrupted_ends_the_work(front: Foreground) -> None:
    ended = threading.Event()

    def interrupted() -> None:
        raise KeyboardInterrupt

    async def work() -> None:
        try:
            await front.ask(interrupted)
        finally:
            await asyncio.sleep(0.05)
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        front.call(work())
    assert ended.is_set()


def test_control_c_waits_until_the_work_has_ended(front: Foreground) -> None:
    ended = threading.Event()

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            ended.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            front.call(work())
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.is_set()
    assert front.call(asyncio.sleep(0, "alive")) == "alive"
