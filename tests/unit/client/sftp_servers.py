"""Servers for the SFTP client, in its own process: an honest one over a folder, and ones that follow a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dunnart.sftp import FileSystem, SftpServer, messages
from dunnart.wire.encoding import Reader, string, uint32

NOTHING = uint32(0)


def packet(kind: int, number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return uint32(5 + len(body)) + bytes((kind,)) + uint32(number) + body


def status(number: int, code: int, text: bytes = b"") -> bytes:
    return packet(messages.STATUS, number, uint32(code), string(text), string(b""))


def names(number: int, *listed: tuple[bytes, int]) -> bytes:
    entries = (string(name) + string(b"") + uint32(4) + uint32(mode) for name, mode in listed)
    return packet(messages.NAME, number, uint32(len(listed)), *entries)


class Stream:
    """The client's end of a server that answers at once."""

    def __init__(self) -> None:
        self.answers = bytearray()
        self.closed = False
        self._news = asyncio.Event()

    def said(self, data: bytes) -> None:
        """The client has sent this; nothing comes of it."""

    def answer(self, data: bytes) -> None:
        self.answers += data
        self._news.set()

    def end(self) -> None:
        self.closed = True
        self._news.set()

    async def read(self, limit: int) -> bytes:
        while not self.answers and not self.closed:
            self._news.clear()
            await self._news.wait()
        data = bytes(self.answers[:limit])
        del self.answers[:limit]
        return data

    async def write(self, data: bytes | memoryview) -> None:
        self.said(bytes(data))

    async def close(self) -> None:
        self.end()


class Honest(Stream):
    """dunnart's own server.

    Args:
        files: what it serves.
        largest: at most so many bytes of answers are given at once.
    """

    def __init__(self, files: FileSystem, largest: int = 1 << 20) -> None:
        super().__init__()
        self._server = SftpServer(files)
        self._largest = largest

    def said(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            room = self._server.room()[: len(view)]
            room[:] = view[: len(room)]
            self._server.received(len(room))
            view = view[len(room) :]
            self._take()
            while self._server.go_on():
                self._take()
            self._take()

    def _take(self) -> None:
        self.answer(bytes(self._server.answers))
        self._server.taken()

    async def read(self, limit: int) -> bytes:
        return await super().read(min(limit, self._largest))

    async def close(self) -> None:
        self._server.close()
        await super().close()


Act = Callable[["Scripted", int, int, Reader], None]


class Scripted(Stream):
    """Does what a function of kind, number and the rest of each request says.

    Args:
        act: that function.
        extensions: what it says that it has.
    """

    def __init__(self, act: Act, *extensions: bytes) -> None:
        super().__init__()
        self._act = act
        self._extensions = extensions
        self._rest = bytearray()

    def said(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= 4 and len(self._rest) >= 4 + int.from_bytes(self._rest[:4], "big"):
            size = int.from_bytes(self._rest[:4], "big")
            request = Reader(bytes(self._rest[4 : 4 + size]))
            del self._rest[: 4 + size]
            kind, number = request.byte(), request.uint32()
            if kind == messages.INIT:
                known = dict(messages.EXTENSIONS)
                told = b"".join(string(name) + string(known[name]) for name in self._extensions)
                self.answer(packet(messages.VERSION_ANSWER, 3, told))
            else:
                self._act(self, kind, number, request)
