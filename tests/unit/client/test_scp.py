"""SCP as a client: with our own server side behind it, and with servers that send what nobody asked for."""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from dunnart.client import scp
from dunnart.client.transfers import TransferWatch
from dunnart.scp import Places, ScpCommand, serve
from dunnart.sftp import LocalFiles
from tests.file_trees import assert_same, make_tree
from tests.unit.client.sftp_servers import Stream

NAMES = ("plain", "with space", "qu'ote", "back\\slash", "*", "{a,b}", "-rf", "\udcff")


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 45))


class Running(Stream):
    """Our own server side, in a thread."""

    def __init__(self, folder: Path, command: bytes) -> None:
        super().__init__()
        self._heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._status: asyncio.Future[int] = self._loop.create_future()
        self._rest = b""
        places = Places(LocalFiles(str(folder)))
        self.thread = threading.Thread(target=self._serve, args=(ScpCommand.parse(command), places))
        self.thread.start()

    def _serve(self, command: ScpCommand, places: Places) -> None:
        status = serve(command, places, self._take, lambda data: self._later(self.answer, bytes(data)))
        self._later(self._status.set_result, status)
        self._later(self.end)

    def _later(self, call: Any, *args: Any) -> None:
        self._loop.call_soon_threadsafe(call, *args)

    def _take(self, limit: int) -> bytes:
        data = self._rest or self._heard.get()
        self._rest = data[limit:]
        return data[:limit]

    def said(self, data: bytes) -> None:
        self._heard.put(bytes(data))

    async def write_eof(self) -> None:
        self._heard.put(b"")

    async def wait(self) -> int:
        return await self._status

    async def close(self) -> None:
        self._heard.put(b"")
        await super().close()
        await asyncio.to_thread(self.thread.join)


class Server:
    """Runs scp over a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.commands: list[bytes] = []

    async def session(self, command: bytes, *, stderr: str) -> Running:
        assert stderr == "drop"
        self.commands.append(command)
        return Running(self._folder, command)


class Saying(Stream):
    """Says something, whatever it hears."""

    def __init__(self, said: bytes) -> None:
        super().__init__()
        self.answer(said)
        self.end()
        self.heard = b""

    def said(self, data: bytes) -> None:
        self.heard += bytes(data)

    async def write_eof(self) -> None:
        pass

    async def wait(self) -> int:
        return 0

    async def session(self, command: bytes, *, stderr: str) -> Saying:
        assert command.startswith(b"scp -")
        assert stderr == "drop"
        return self


def test_trees_both_ways_and_between_servers(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    make_tree(tmp_path / "here", NAMES)
    moved: list[tuple[str, int, int | None]] = []

    class Watch(TransferWatch):
        def moved(self, path: str, done: int, size: int | None) -> None:
            moved.append((path, done, size))

    async def work() -> None:
        server = Server(one)
        await scp.put(server, [tmp_path / "here"], "/up", recursive=True, preserve=True)
        await scp.relay(server, "/up", Server(other), "/there", recursive=True, preserve=True)
        await scp.get(Server(other), ["/there"], tmp_path / "down", recursive=True, preserve=True, watch=Watch())
        await scp.put(server, [tmp_path / "here/sub" / name for name in NAMES[:3]], "/up")
        assert server.commands[-1] == b"scp -dt /up"
        await scp.get(server, [f"/up/sub/{name}" for name in NAMES], tmp_path / "here/sub/empty")

    run(work())
    for folder in (one / "up", other / "there", tmp_path / "down"):
        assert_same(tmp_path / "here", folder)
    assert [(one / "up" / name).exists() for name in NAMES[:3]] == [True] * 3
    assert sorted(os.listdir(tmp_path / "here/sub/empty")) == sorted(NAMES)
    size = (tmp_path / "down/sub/-rf").stat().st_size
    assert max(done for path, done, _ in moved if path.endswith("/-rf")) == size


def test_wildcards_are_the_servers(tmp_path: Path) -> None:
    make_tree(tmp_path, NAMES)

    async def work() -> None:
        (tmp_path / "down").mkdir()
        await scp.get(Server(tmp_path), ["/sub/p*"], tmp_path / "down", shell=True)
        await scp.get(Server(tmp_path), ["/sub/{a,b}"], tmp_path / "down")
        with pytest.raises(OSError, match="No such file"):
            await scp.get(Server(tmp_path), ["/sub/nothing"], tmp_path / "down")

    run(work())
    assert sorted(os.listdir(tmp_path / "down")) == ["plain", "{a,b}"]


def test_errors_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    make_tree(tmp_path, NAMES)
    (tmp_path / "down").mkdir()
    told: list[str] = []

    class Watch(TransferWatch):
        def failed(self, path: str, error: OSError) -> None:
            told.append(str(error.strerror))

    async def work() -> None:
        with pytest.raises(OSError, match="nothing"):
            await scp.get(Server(tmp_path), ["/nothing", "/sub/plain"], tmp_path / "down", watch=Watch())
        with pytest.raises(OSError, match="not a regular file"):
            await scp.put(Server(tmp_path), [tmp_path / "sub"], "/x", watch=Watch())
        with pytest.raises(OSError, match="Not a directory"):
            await scp.get(Server(tmp_path), ["/sub/plain", "/sub/-rf"], tmp_path / "down/plain", watch=Watch())
        with pytest.raises(OSError, match="not everything"):
            await scp.relay(Server(tmp_path), "/nothing", Server(tmp_path), "/x")

    run(work())
    assert (tmp_path / "down/plain").exists()
    assert [text.removeprefix("scp: ") for text in told[:1]] == ["/nothing: No such file or directory"]
    assert len(told) == 3


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["/x/wanted"], b"C0644 4 .bashrc\nevil\0"),
        (["/x/wanted"], b"C0644 4 wanted\ngood\0C0644 4 other\nevil\0"),
        (["/x/*"], b"C0644 4 .bashrc\nevil\0"),
        (["/x/w*"], b"C0644 4 .ssh\nevil\0"),
        (["/x/wanted"], b"C0644 4 ../wanted\nevil\0"),
        (["/x/wanted"], b"C0644 4 /tmp/wanted\nevil\0"),
        (["/x/wanted"], b"C0644 4 ..\nevil\0"),
        (["/x/wanted"], b"C0644 4 wan\0ted\nevil\0"),
        (["/x/wanted"], b"D0755 0 wanted\nC0644 4 evil\nevil\0E\n"),  # no -r
        (["/x/wanted"], b"C0644 99999999999999999999 wanted\n"),
        (["/x/wanted"], b"C0644 -1 wanted\n"),
        (["/x/wanted"], b"X\n"),
        (["/x/wanted"], b"C0644 4 " + b"w" * 10_000),
    ],
)
def test_what_was_not_asked_for_is_refused(tmp_path: Path, sources: list[str], said: bytes) -> None:
    target = tmp_path / "target"
    target.mkdir()

    async def work() -> None:
        with pytest.raises(OSError, match=r"asked|impossible|record"):
            await scp.get(Saying(said), sources, target)

    run(work())
    found = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert set(found) <= {"wanted"}
    assert b"evil" not in found.values()


def test_setuid_is_not_taken(tmp_path: Path) -> None:
    async def work() -> None:
        await scp.get(Saying(b"C6755 4 wanted\ngood\0"), ["wanted"], tmp_path / "f", preserve=True)

    run(work())
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o755


def test_any_name_is_taken_when_told_so(tmp_path: Path) -> None:
    async def work() -> None:
        await scp.get(Saying(b"C0644 4 other\ndata\0"), ["~/x"], tmp_path, strict=False)

    run(work())
    assert (tmp_path / "other").read_bytes() == b"data"


@pytest.mark.parametrize("said", [b"", b"C0644 4 f\nda"])
def test_a_server_that_ends_too_early(tmp_path: Path, said: bytes) -> None:
    async def work() -> None:
        with pytest.raises(OSError, match=r"nothing|ended"):
            await scp.get(Saying(said), ["f"], tmp_path / "f")
        (tmp_path / "here").touch()
        with pytest.raises(OSError, match="ended"):
            await scp.put(Saying(b""), [tmp_path / "here"], "f")

    run(work())


def test_a_cancelled_transfer_leaves_no_thread(tmp_path: Path) -> None:
    make_tree(tmp_path, NAMES)

    class Silent(Saying):
        def __init__(self) -> None:
            super().__init__(b"")
            self.closed = False

    async def work() -> None:
        task = asyncio.create_task(scp.put(Silent(), [tmp_path / "sub/plain"], "x"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = set(threading.enumerate())  # other tests' event loops may still have theirs
    run(work())
    assert not [thread for thread in set(threading.enumerate()) - before if "asyncio" in thread.name]


def test_the_status_of_the_server_counts(tmp_path: Path) -> None:
    class Killed(Saying):
        async def wait(self) -> int:
            return -9

    (tmp_path / "here").touch()

    async def work() -> None:
        with pytest.raises(OSError, match="ended"):
            await scp.get(Killed(b"C0644 4 f\ndata\0"), ["f"], tmp_path / "f")
        with pytest.raises(OSError, match="ended"):
            await scp.put(Killed(b"\0\0\0"), [tmp_path / "here"], "f")

    run(work())


def test_what_is_told_to_have_come_has_come(tmp_path: Path) -> None:
    told: list[str] = []

    class Watch(TransferWatch):
        def finished(self, path: str) -> None:
            told.append(os.path.basename(path))

        def failed(self, path: str, error: OSError) -> None:
            told.append(f"failed: {error.strerror}")

    (tmp_path / "empty").touch()
    (tmp_path / "full").write_bytes(b"data")
    (tmp_path / "d").mkdir()
    said = b"C0644 0 empty\n\0C0644 4 full\ndata\1unreadable\n"

    async def work() -> None:
        with pytest.raises(OSError, match="unreadable"):
            await scp.get(Saying(said), ["empty", "full"], tmp_path / "d", watch=Watch())
        assert told == ["empty", "failed: unreadable"]
        told.clear()
        sources = [tmp_path / "empty", tmp_path / "full"]
        with pytest.raises(OSError, match="disk"):
            await scp.put(Saying(b"\0\0\0\0\1disk full\n"), sources, "d", watch=Watch())
        assert told == ["empty", "failed: disk full"]

    run(work())


def test_a_failure_at_the_end_of_a_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "not yours")

    monkeypatch.setattr(LocalFiles, "set", refuse)

    async def work() -> None:
        said = Saying(b"T1 0 1 0\nD0755 0 d\nE\n")
        with pytest.raises(OSError, match="/d: not yours"):
            await scp.get(said, ["d"], tmp_path / "d", recursive=True, preserve=True)

    run(work())
