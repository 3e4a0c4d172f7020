"""Copies of files between two sides: what becomes of them when a copy is cut short, stalls, or makes no sense."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from dunnart.client import transfer_sides
from dunnart.client.sftp import Sftp
from dunnart.client.transfer_sides import LocalSide, RemoteSide
from dunnart.client.transfers import Transfer
from dunnart.sftp import Attributes, LocalFiles, MemoryFiles, OpenMode, messages
from dunnart.sftp.layers.base import Layer, LayerFile
from dunnart.wire.encoding import Reader, string, uint32, uint64
from tests.unit.client.sftp_servers import NOTHING, Honest, Scripted, packet, status


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 45))


def test_a_file_is_not_copied_onto_itself(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"data")
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("f")

    async def work() -> None:
        async with await Sftp.begin(Honest(LocalFiles(start=str(tmp_path)))) as sftp:
            here, there = Transfer(LocalSide(), LocalSide()), Transfer(RemoteSide(sftp), RemoteSide(sftp))
            for target in ("f", ".", "link", "d/../f"):
                for transfer in (here, there):
                    with pytest.raises(OSError, match="same file"):
                        await transfer.run(os.fsencode(tmp_path / "f"), os.fsencode(tmp_path / target))
                if target != ".":
                    with pytest.raises(OSError, match="into itself"):
                        await sftp.copy("f", target)
            for transfer, name in ((here, "here"), (there, "there")):
                await transfer.run(os.fsencode(tmp_path / "f"), os.fsencode(tmp_path / name))
            await sftp.copy("f", "copied")

    run(work())
    assert [(tmp_path / name).read_bytes() for name in ("f", "here", "there", "copied")] == [b"data"] * 4


class _Refusing(Layer):
    """Refuses the first write at the start of a file, and no other."""

    refused = False

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> _RefusingFile:
        return _RefusingFile(self, super().open(path, mode, attributes))


class _RefusingFile(LayerFile):
    def __init__(self, files: _Refusing, file: Any) -> None:
        super().__init__(file)
        self._files = files

    def write(self, data: memoryview, offset: int) -> None:
        if offset == 0 and not self._files.refused:
            self._files.refused = True
            raise OSError(errno.EIO, "once")
        super().write(data, offset)


class _Holding(Honest):
    """Answers nothing while it holds: from the first write on, if it is told to."""

    def __init__(self, files: Any, *, holds: bool) -> None:
        super().__init__(files)
        self.wrote = asyncio.Event()
        self._free = asyncio.Event()
        self._holds = holds
        self._free.set()

    def free(self) -> None:
        self._free.set()

    def said(self, data: bytes) -> None:
        if data[4] == messages.WRITE:
            self.wrote.set()
            if self._holds:
                self._holds = False
                self._free.clear()
        super().said(data)

    async def read(self, limit: int) -> bytes:
        data = await super().read(limit)
        await self._free.wait()
        return data


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_a_failed_upload_leaves_can_be_resumed(tmp_path: Path, cancelled: bool) -> None:
    data = os.urandom(1 << 20)
    (tmp_path / "f").write_bytes(data)
    memory = MemoryFiles()

    async def work() -> None:
        server = _Holding(_Refusing(memory), holds=cancelled)
        async with await Sftp.begin(server, requests=4) as sftp:
            putting = asyncio.create_task(sftp.put(tmp_path / "f", "/f"))
            await server.wrote.wait()
            if cancelled:
                for _ in range(10):  # it waits for an answer
                    await asyncio.sleep(0)
                putting.cancel()
                await asyncio.sleep(0)
                server.free()
            with pytest.raises(asyncio.CancelledError if cancelled else OSError):
                await putting
            assert data.startswith(memory.contents()["/f"])
            await sftp.put(tmp_path / "f", "/f", resume=True)
            assert memory.contents()["/f"] == data

    run(work())


def test_a_server_that_stalls_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(transfer_sides, "_SETTLE_SECONDS", 0.01)

    async def work() -> None:
        server = _Holding(MemoryFiles(), holds=True)
        async with await Sftp.begin(server) as sftp:
            putting = asyncio.create_task(sftp.put(tmp_path / "f", "/f"))
            await server.wrote.wait()
            putting.cancel()
            done, _ = await asyncio.wait([putting], timeout=20)
            assert done

    run(work())


def _counting(opened: list[int]) -> Any:
    """A server that knows neither modes nor the size of what is open, and counts what is."""

    def act(server: Scripted, kind: int, number: int, request: Reader) -> None:
        if kind == messages.OPEN:
            opened.append(number)
            server.answer(packet(messages.HANDLE, number, string(b"h")))
        elif kind == messages.CLOSE:
            opened.pop()
            server.answer(status(number, messages.OK))
        elif kind == messages.READ:
            request.string()
            start = request.uint64()
            server.answer(packet(messages.DATA, number, string(b"data")) if not start else status(number, messages.EOF))
        elif kind == messages.STAT:
            server.answer(packet(messages.ATTRS, number, uint32(1), uint64(4)))
        elif kind == messages.FSTAT:
            server.answer(status(number, messages.FAILURE, b"refuses"))
        else:
            server.answer(packet(messages.ATTRS, number, NOTHING))

    return act


def test_what_fails_leaves_no_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"data")
    opened: list[int] = []

    async def work() -> None:
        async with await Sftp.begin(Scripted(_counting(opened))) as sftp:
            with pytest.raises(OSError, match="refuses"):
                await sftp.put(tmp_path / "f", "x", resume=True)
            await sftp.stat("x")
            assert opened == []
            submit = sftp.submit

            def submitted(request: Any) -> Any:
                future = submit(request)
                future.add_done_callback(lambda _: opening.cancel())  # the answer is here, and not taken yet
                return future

            monkeypatch.setattr(sftp, "submit", submitted)
            opening = asyncio.create_task(sftp.open("x"))
            with pytest.raises(asyncio.CancelledError):
                await opening
            monkeypatch.undo()
            await sftp.stat("x")
            assert opened == []

    run(work())


def test_what_is_opened_here_for_nobody_is_closed(tmp_path: Path) -> None:
    (tmp_path / "f").touch()

    async def work() -> None:
        await asyncio.to_thread(os.getpid)  # whatever a thread pool needs
        before = set(os.listdir("/proc/self/fd"))
        side = LocalSide()
        for work in (
            side.read(b"%b/f" % os.fsencode(tmp_path), Attributes()),
            side.write(b"%b/g" % os.fsencode(tmp_path), 0o600, resume=False),
        ):
            task = asyncio.create_task(work)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        while set(os.listdir("/proc/self/fd")) - before:  # noqa: ASYNC110 - a thread's work ends, or the test's time
            await asyncio.sleep(0.01)

    run(work())


def test_a_mode_that_nobody_told_is_not_kept(tmp_path: Path) -> None:
    old = os.umask(0o077)

    async def work() -> None:
        async with await Sftp.begin(Scripted(_counting([]))) as sftp:
            await sftp.get("f", tmp_path / "f", preserve=True)

    try:
        run(work())
    finally:
        os.umask(old)
    assert (tmp_path / "f").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def test_a_file_stays_open_while_a_thread_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"data")
    reads, goes_on = threading.Event(), threading.Event()
    used: list[int] = []

    def waiting(fd: int, count: int) -> bytes:
        used.append(fd)
        reads.set()
        goes_on.wait(20)
        os.fstat(fd)  # raises if it was closed
        used.append(fd)
        return b""

    closed = asyncio.Event()
    close = os.close

    def closing(fd: int) -> None:
        close(fd)
        if fd in used:
            closed.set()

    async def work() -> None:
        reading = await LocalSide().read(os.fsencode(tmp_path / "f"), Attributes())
        monkeypatch.setattr(os, "read", waiting)
        monkeypatch.setattr(os, "close", closing)
        task = asyncio.create_task(anext(reading.chunks(0)))
        await asyncio.to_thread(reads.wait, 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await reading.close()
        goes_on.set()
        await closed.wait()

    try:
        run(work())
    finally:
        monkeypatch.undo()
    assert len(used) == 2
