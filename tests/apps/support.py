"""A visitor with a terminal: a client of a server in this process, and a screen to look at."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pyte

from dunnart.protocol.requests import EnvironmentRequest, ExecRequest, PtyRequest, ShellRequest, WindowChange
from tests.runtime.driver import Channel, Client, Serving

_KEYBOARD = re.compile(rb"\x1b\[[<>]\d*u")  # which pyte would show


class Display(pyte.Screen):
    """A screen with the little more that applications need."""

    def __init__(self, columns: int, rows: int, answer: Callable[[str], None]) -> None:
        super().__init__(columns, rows)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data)

    def set_mode(self, *modes: int, **options: Any) -> None:
        super().set_mode(*modes, **options)
        if options.get("private") and 1049 in modes:
            self.reset()


class Visitor:
    """A visitor of a server. What is sent to him is drawn when somebody looks."""

    def __init__(self, client: Client, channel: Channel, columns: int, rows: int) -> None:
        self.client = client
        self.channel = channel
        self.screen = Display(columns, rows, self._answer)
        self._stream = pyte.ByteStream(self.screen)
        self._drawn = 0
        self.silent = False

    def _answer(self, report: str) -> None:
        if not (self.channel.closed or self.silent):
            self.type(report)

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        data = bytes(self.channel.out[self._drawn :])
        self._drawn += len(data)
        self._stream.feed(_KEYBOARD.sub(b"", data))
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The same in one."""
        return "\n".join(self.lines)

    def type(self, text: str | bytes) -> None:
        """Press keys."""
        data = text.encode() if isinstance(text, str) else text
        assert self.client.send(self.channel, data) == len(data)

    async def shows(self, text: str) -> None:
        """Wait until this is on the screen."""
        try:
            await self.client.until(lambda: text in self.text or self.channel.closed)
        except TimeoutError as error:
            raise AssertionError(f"{text!r} is not shown:\n{self.text}") from error
        assert text in self.text, f"{text!r} is not shown, and the session has ended:\n{self.text}"

    async def shows_no_more(self, text: str) -> None:
        """Wait until this is not on the screen any more."""
        await self.client.until(lambda: text not in self.text)

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size."""
        assert columns >= self.screen.columns, "what was beyond a border would be drawn where it is not"
        self.screen.resize(min(rows, 240), min(columns, 640))
        self.client.request(self.channel, WindowChange(columns, rows, 0, 0))

    async def leaves(self) -> int | None:
        """Wait until the session has ended, and give its status."""
        await self.client.until(lambda: self.channel.closed)
        return self.channel.status


async def visit(
    server: Serving, columns: int = 80, rows: int = 24, *, term: str = "xterm-256color", command: str | None = None,
    environment: dict[str, str] | None = None, client: Client | None = None,
) -> Visitor:  # fmt: skip
    """Come with a terminal."""
    client = client or await server.login()
    channel = await client.session()
    for name, value in (environment or {}).items():
        assert await client.ask(channel, EnvironmentRequest(name, value))
    assert await client.ask(channel, PtyRequest(term, columns, rows, 0, 0, b"\0"))
    assert await client.ask(channel, ShellRequest() if command is None else ExecRequest(command.encode()))
    return Visitor(client, channel, min(columns or 80, 640), min(rows or 24, 240))


def tasks() -> set[asyncio.Task[Any]]:
    """What runs beside the test."""
    return asyncio.all_tasks() - {asyncio.current_task()}
