"""A session between the server and our own stdin, stdout and stderr."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from dunnart.errors import ChannelError, ConnectionClosed
from dunnart.tools.ssh.escapes import Escape, Escapes, help_text
from dunnart.tools.ssh.screen import size
from dunnart.tools.ssh.streams import Input, Output

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dunnart.client.channel import Channel, Incoming
    from dunnart.client.connection import Connection
    from dunnart.client.session import Session
    from dunnart.tools.ssh.screen import Screen


class Left(Exception):
    """The person has ended the connection by an escape."""


class Talk:
    """Moves the bytes.

    Args:
        channel: where they go.
        stdin: our end of them, None for none.
    """

    def __init__(self, channel: Channel, stdin: Input | None) -> None:
        self._channel = channel
        self._stdin = stdin

    async def run(self, errors: Incoming | None = None) -> None:
        """Go on until the server sends no more; of a session, until it is over.

        Args:
            errors: what goes to our stderr, if this is a session.

        Raises:
            BrokenPipeError: nobody reads our stdout.
            ConnectionClosed: the connection broke.
            Left: an escape has ended it.
        """
        feeding = asyncio.create_task(self._feed())
        ends = [asyncio.create_task(_copy(self._channel.read, 1))]
        if errors is not None:
            ends.append(asyncio.create_task(_copy(errors.read, 2)))
            # A program may close its outputs and read on, as "cat >file 2>&1" does.
            ends.append(asyncio.create_task(self._channel.wait_closed()))
        pending = {feeding, *ends}
        try:
            while not all(task.done() for task in ends):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (feeding, *ends):
                task.cancel()
            await asyncio.gather(feeding, *ends, return_exceptions=True)

    async def _feed(self) -> None:
        with contextlib.suppress(ChannelError, ConnectionClosed):  # a program need not read all of its input
            while self._stdin is not None and (data := await self._stdin.read()):
                await self.typed(data)
            await self._channel.write_eof()

    async def typed(self, data: bytes) -> None:
        """Something came from our stdin."""
        await self._channel.write(data)


class Conversation(Talk):
    """A person at a terminal, who may type escapes.

    Args:
        connection: the session's.
        session: the session.
        stdin: where the keys come from.
        screen: the terminal.
        character: what begins escapes, None for nothing.
    """

    def __init__(
        self, connection: Connection, session: Session, stdin: Input | None, screen: Screen, character: str | None
    ) -> None:
        super().__init__(session, stdin)
        self._connection = connection
        self._session = session
        self._screen = screen
        self._shown = character or ""
        self._escapes = None if character is None else Escapes(character.encode())

    async def typed(self, data: bytes) -> None:
        """Keys came."""
        if self._escapes is None:
            await super().typed(data)
            return
        for each in self._escapes.receive(data):
            if isinstance(each, bytes):
                await super().typed(each)
            else:
                await self._escape(each)

    async def _escape(self, escape: Escape) -> None:
        screen = self._screen
        if escape is Escape.DISCONNECT:
            raise Left
        if escape is Escape.SUSPEND:
            screen.say(f"{self._shown}^Z [suspended]")
            screen.suspend()
            await self.resized()
        elif escape is Escape.HELP:
            screen.say(f"{self._shown}?\n{help_text(self._shown)}")
        elif escape is Escape.LIST:
            lines = [f"  {number} {kind}" for number, kind in self._connection.open_channels]
            screen.say("\n".join([f"{self._shown}#", "Open channels:", *lines]))
        elif escape is Escape.BREAK:
            screen.say(f"{self._shown}B")
            await self._session.send_break()
        else:
            screen.say(f"{self._shown}R")
            self._connection.rekey()

    async def resized(self) -> None:
        """The terminal has another size."""
        with contextlib.suppress(ChannelError, ConnectionClosed):
            await self._session.resize(*size())


async def _copy(read: Callable[[], Awaitable[bytes]], fd: int) -> None:
    output = Output(fd)
    try:
        while data := await read():
            await output.write(data)
    finally:
        output.close()
