"""SFTP for coroutines: what it does with honest servers, with slow, broken and hostile ones, and in the background."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from dunnart.client.sftp import Sftp
from dunnart.client.transfers import TransferWatch
from dunnart.errors import ConnectionClosed, DecodeError, DunnartError, LimitExceeded
from dunnart.sftp import LocalFiles, MemoryFiles, messages
from dunnart.wire.encoding import Reader, string, uint32, uint64
from tests.file_trees import assert_same, make_tree
from tests.unit.client.sftp_servers import NOTHING, Honest, Scripted, Stream, names, packet, status

DIRECTORY, FILE, LINK = 0o40755, 0o100644, 0o120777
ODD = ("plain", "with space", "new\nline", "back\\slash", "*", "[a]", "\udcff\udcfe", "ünï", "-rf", "\x1b[31m")


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 45))


async def begin(folder: Path, largest: int = 1 << 20, **options: int) -> Sftp:
    return await Sftp.begin(Honest(LocalFiles(start=str(folder)), largest), **options)


def tree(folder: Path) -> None:
    make_tree(folder, ODD)
    (folder / "link").symlink_to("sub/plain")
    os.utime(folder / "sub", (1_000_000, 3_000_000))


def same(one: Path, other: Path) -> None:
    assert os.listdir(other) == ["sub"]  # links are skipped
    assert_same(one, other)
    assert int((other / "sub").stat().st_mtime) == 3_000_000


def test_files(tmp_path: Path) -> None:
    async def work() -> None:
        async with await begin(tmp_path) as sftp:
            async with await sftp.open("f", "w+", permissions=0o640) as file:
                assert await file.write(b"hello world") == 11
                assert await file.seek(-5, os.SEEK_END) == 6
                assert await file.read(3) == b"wor"
                assert file.tell() == 9
                assert await file.read() == b"ld"
                assert await file.read(10) == b""
                await file.write_at(0, b"J")
                await file.truncate(5)
                await file.sync()
                assert (await file.stat()).size == 5
            assert await sftp.read_file("f") == await sftp.read_file("f", largest_bytes=5) == b"Jello"
            with pytest.raises(LimitExceeded):
                await sftp.read_file("f", largest_bytes=4)
            async with await sftp.open("f", "a") as file:
                await file.write(b"!")
            assert (tmp_path / "f").read_bytes() == b"Jello!"
            assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640
            await sftp.write_file(b"\xff", b"bytes")
            assert await sftp.listdir() == ["f", "\udcff"]
            with pytest.raises(FileExistsError):
                await sftp.open("f", "x")
            with pytest.raises(ValueError, match="mode"):
                await sftp.open("f", "rw")
            with pytest.raises(FileNotFoundError) as missing:
                await sftp.open("nothing")
            assert missing.value.filename == "nothing"

    run(work())


def test_directories_links_and_attributes(tmp_path: Path) -> None:
    async def work() -> None:
        async with await begin(tmp_path) as sftp:
            assert await sftp.realpath() == str(tmp_path)
            await sftp.mkdir("d", 0o750)
            await sftp.write_file("d/a", b"12345")
            await sftp.symlink("a", "d/l")
            await sftp.link("d/a", "d/h")
            assert await sftp.readlink("d/l") == "a"
            assert (await sftp.lstat("d/l")).is_link
            assert (await sftp.stat("d/l")).size == 5
            assert (tmp_path / "d/h").stat().st_nlink == 2
            await sftp.chown("d/a", os.getuid(), os.getgid())
            await sftp.chmod("d/a", 0o4600)
            await sftp.utime("d/a", 5, 6)
            found = await sftp.stat("d/a")
            assert (stat.S_IMODE(found.mode or 0), found.mtime, found.uid) == (0o4600, 6, os.getuid())
            await sftp.copy("d/a", "copy")
            assert (tmp_path / "copy").read_bytes() == b"12345"
            with pytest.raises(FileExistsError):
                await sftp.rename("copy", "d/a")
            await sftp.truncate("copy", 2)
            await sftp.posix_rename("copy", "d/a")
            assert (tmp_path / "d/a").read_bytes() == b"12"
            assert await sftp.listdir("d") == ["a", "h", "l"]
            assert (await sftp.statvfs("d")).blocks > 0
            assert await sftp.exists("d/l")
            for name in ("a", "h", "l"):
                await sftp.remove(f"d/{name}")
            await sftp.rmdir("d")
            assert not await sftp.exists("d")
            with pytest.raises(FileNotFoundError):
                await sftp.expand("~nobody at all/x")

    run(work())


def test_walk_and_glob(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "sub/.hidden").touch()
    (tmp_path / "sub/empty/deep").touch()

    async def work() -> None:
        async with await begin(tmp_path) as sftp:
            walked = [(path, [each.name for each in files]) async for path, _, files in sftp.walk(".")]
            assert walked == [(".", ["link"]), ("./sub", sorted([*ODD, ".hidden"])), ("./sub/empty", ["deep"])]
            assert await sftp.glob("s*/p*n") == ["sub/plain"]
            assert await sftp.glob("*/empty/*") == ["sub/empty/deep"]
            assert await sftp.glob("sub/.*") == ["sub/.hidden"]
            assert await sftp.glob(r"sub/\*") == ["sub/*"]
            assert await sftp.glob(r"sub/\[?\]") == ["sub/[a]"]
            assert await sftp.glob("sub/[!-]*e") == ["sub/new\nline", "sub/with space"]
            assert await sftp.glob("no*/x") == await sftp.glob("nothing") == []
            assert await sftp.glob("sub/plain") == ["sub/plain"]
            assert await sftp.glob(f"{tmp_path}/su?") == [f"{tmp_path}/sub"]
            assert len(await sftp.glob("sub/*")) == len(ODD) + 1

    run(work())


@pytest.mark.parametrize("largest", [1 << 20, 777])
def test_trees_both_ways(tmp_path: Path, largest: int) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    (tmp_path / "into").mkdir()
    tree(here)

    async def work() -> None:
        async with await begin(there, largest) as sftp:
            await sftp.put(here, "up", recursive=True, preserve=True)
            await sftp.put(here / "sub/plain", ".")
            await sftp.get("up", tmp_path / "down", recursive=True, preserve=True)
            await sftp.get("up", tmp_path / "into", recursive=True)
            with pytest.raises(IsADirectoryError) as remote:
                await sftp.get("up", tmp_path / "other")
            with pytest.raises(FileNotFoundError) as local:
                await sftp.put(tmp_path / "nothing", "x")
            assert (remote.value.filename, local.value.filename) == ("up", str(tmp_path / "nothing"))

    run(work())
    same(here, there / "up")
    assert (there / "plain").exists()
    assert sorted(os.listdir(tmp_path / "into/up/sub")) == sorted([*ODD, "empty"])
    same(here, tmp_path / "down")


def test_a_link_is_skipped_or_followed(tmp_path: Path) -> None:
    tree(tmp_path / "here")
    skipped: list[tuple[str, str]] = []

    class Watch(TransferWatch):
        def skipped(self, path: str, why: str) -> None:
            skipped.append((path, why))

    async def work() -> None:
        async with await begin(tmp_path / "here") as sftp:
            await sftp.get(".", tmp_path / "down", recursive=True, watch=Watch())
            await sftp.get(".", tmp_path / "followed", recursive=True, follow_links=True, watch=Watch())

    run(work())
    assert skipped == [("./link", "is a symbolic link")]
    assert not (tmp_path / "down/link").exists()
    assert (tmp_path / "followed/link").read_bytes() == (tmp_path / "here/sub/plain").read_bytes()
    assert not (tmp_path / "followed/link").is_symlink()


@pytest.mark.parametrize("kept", [0, 1, 700_000, 1_500_000])
def test_resuming(tmp_path: Path, kept: int) -> None:
    data = os.urandom(1_500_000)
    (tmp_path / "whole").write_bytes(data)
    (tmp_path / "part").write_bytes(data[:kept])
    moved: list[int] = []

    class Watch(TransferWatch):
        def moved(self, path: str, done: int, size: int | None) -> None:
            moved.append(done)
            assert size == len(data)

    async def work() -> None:
        async with await begin(tmp_path) as sftp:
            await sftp.get("whole", tmp_path / "part", resume=True, watch=Watch())
            assert moved[0] == kept
            assert moved[-1] == len(data)
            assert (tmp_path / "part").read_bytes() == data
            (tmp_path / "up").write_bytes(data[:kept])
            await sftp.put(tmp_path / "whole", "up", resume=True)
            assert (tmp_path / "up").read_bytes() == data
            (tmp_path / "part").write_bytes(data + b"x")
            with pytest.raises(OSError, match="longer"):
                await sftp.get("whole", tmp_path / "part", resume=True)
            with pytest.raises(OSError, match="longer"):
                await sftp.put(tmp_path / "whole", "part", resume=True)
            assert (tmp_path / "part").read_bytes() == data + b"x"

    run(work())


def test_what_a_cut_leaves_can_be_resumed(tmp_path: Path) -> None:
    data = os.urandom(8 << 20)
    (tmp_path / "whole").write_bytes(data)

    class Cut(Honest):
        left = 5 << 20

        async def read(self, limit: int) -> bytes:
            found = await super().read(limit)
            self.left -= len(found)
            return found if self.left > 0 else b""

    async def work() -> None:
        sftp = await Sftp.begin(Cut(LocalFiles(start=str(tmp_path)), 50_000))
        with pytest.raises(ConnectionClosed):
            await sftp.get("whole", tmp_path / "part")
        with pytest.raises(ConnectionClosed):
            await sftp.stat("whole")
        await sftp.close()
        kept = (tmp_path / "part").read_bytes()
        assert 4 << 20 <= len(kept) < 5 << 20
        assert data.startswith(kept)
        async with await begin(tmp_path) as again:
            await again.get("whole", tmp_path / "part", resume=True)

    run(work())
    assert (tmp_path / "part").read_bytes() == data


def test_a_cancelled_download_leaves_its_beginning(tmp_path: Path) -> None:
    data = os.urandom(16 << 20)
    (tmp_path / "whole").write_bytes(data)

    async def work() -> None:
        task: asyncio.Task[None]

        class Watch(TransferWatch):
            def moved(self, path: str, done: int, size: int | None) -> None:
                if done > 6 << 20:
                    task.cancel()

        async with await begin(tmp_path) as sftp:
            task = asyncio.create_task(sftp.get("whole", tmp_path / "part", watch=Watch()))
            with pytest.raises(asyncio.CancelledError):
                await task
            kept = (tmp_path / "part").read_bytes()
            assert 5 << 20 < len(kept) < len(data)
            assert data.startswith(kept)
            assert await sftp.exists("whole")  # the session goes on

    run(work())


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    tree(tmp_path / "here")

    async def work() -> None:
        async with await begin(tmp_path) as sftp:
            await sftp.listdir()  # whatever a thread pool needs
            before = len(os.listdir("/proc/self/fd"))
            await sftp.put(tmp_path / "here", "a", recursive=True)
            await sftp.get("a", tmp_path / "b", recursive=True)
            (tmp_path / "long").write_bytes(bytes(100))
            with pytest.raises(OSError, match="longer"):
                await sftp.get("a/sub/plain", tmp_path / "long", resume=True)
            async for _ in sftp.scandir("a/sub"):
                break
            opening = asyncio.create_task(sftp.result(sftp.core.open(b"long", _reading())))
            await asyncio.sleep(0)
            opening.cancel()  # what it opens must not stay open
            await sftp.stat("a")
            await sftp.stat("a")
            assert len(os.listdir("/proc/self/fd")) <= before

    run(work())


def _reading() -> Any:
    from dunnart.sftp import OpenMode

    return OpenMode(read=True)


def test_failures_in_a_tree_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    tree(tmp_path / "here")
    (tmp_path / "down/sub/plain").mkdir(parents=True)  # where a file is to be
    os.mkfifo(tmp_path / "here/fifo")
    failed: list[tuple[str, type[OSError]]] = []
    skipped: list[str] = []

    class Watch(TransferWatch):
        def failed(self, path: str, error: OSError) -> None:
            failed.append((path, type(error)))

        def skipped(self, path: str, why: str) -> None:
            skipped.append(path)

    async def work() -> None:
        async with await begin(tmp_path / "here") as sftp:
            await sftp.get(".", tmp_path / "down", recursive=True, watch=Watch())
            with pytest.raises(IsADirectoryError):
                await sftp.get(".", tmp_path / "down", recursive=True)
            with pytest.raises(OSError, match="regular file"):
                await sftp.get("fifo", tmp_path / "x")
            with pytest.raises(OSError, match="regular file"):
                await sftp.put(tmp_path / "here/fifo", "x")

    run(work())
    assert failed == [("./sub/plain", IsADirectoryError)]
    assert sorted(skipped) == ["./fifo", "./link"]
    assert sorted(os.listdir(tmp_path / "down/sub")) == sorted([*ODD, "empty"])


def _serving(requests: list[tuple[int, int, int]], size: int, when: int, outstanding: list[int]) -> Any:
    """A file of zeros, whose reads are answered when so many wait, or the last one has come; the last ones first."""

    def act(server: Scripted, kind: int, number: int, request: Reader) -> None:
        if kind == messages.OPEN:
            server.answer(packet(messages.HANDLE, number, string(b"h")))
        elif kind in {messages.STAT, messages.LSTAT}:
            server.answer(packet(messages.ATTRS, number, uint32(5), uint64(size), uint32(FILE)))
        elif kind == messages.READ:
            request.string()
            requests.append((number, request.uint64(), request.uint32()))
            outstanding.append(len(requests))
            if len(requests) < when and requests[-1][1] < size:
                return
            for waiting, offset, count in reversed(requests):
                got = min(count, size - offset)
                answer = packet(messages.DATA, waiting, string(bytes(got))) if got > 0 else status(waiting, 1)
                server.answer(answer)
            requests.clear()
        else:
            server.answer(status(number, messages.OK))

    return act


@pytest.mark.parametrize("wanted", [1, 7, 64])
def test_so_many_reads_are_really_outstanding(tmp_path: Path, wanted: int) -> None:
    size = 200 * 32768 + 5
    outstanding: list[int] = []
    server = _serving([], size, wanted, outstanding)

    async def work() -> None:
        async with await Sftp.begin(Scripted(server), requests=wanted) as sftp:
            await sftp.get("f", tmp_path / "f")

    run(work())
    assert max(outstanding) == wanted
    assert (tmp_path / "f").stat().st_size == size


def test_small_files_of_a_tree_are_copied_several_at_a_time(tmp_path: Path) -> None:
    opened: list[int] = []
    most = 0

    def act(server: Scripted, kind: int, number: int, request: Reader) -> None:
        nonlocal most
        if kind == messages.OPEN:
            opened.append(number)
            most = max(most, len(opened))
            if len(opened) == 8:
                for each in opened:
                    server.answer(packet(messages.HANDLE, each, string(b"h")))
                opened.clear()
        elif kind == messages.READDIR:
            listed = [(str(each).encode(), FILE) for each in range(32)]
            server.answer(names(number, *listed) if not most else status(number, messages.EOF))
            most = most or 1
        elif kind == messages.OPENDIR:
            server.answer(packet(messages.HANDLE, number, string(b"d")))
        elif kind in {messages.STAT, messages.LSTAT}:
            server.answer(packet(messages.ATTRS, number, uint32(4), uint32(DIRECTORY)))
        else:
            server.answer(status(number, messages.EOF if kind == messages.READ else messages.OK))

    async def work() -> None:
        async with await Sftp.begin(Scripted(act)) as sftp:
            await sftp.get("d", tmp_path / "d", recursive=True)

    run(work())
    assert most == 8
    assert len(os.listdir(tmp_path / "d")) == 32


def test_setuid_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "f").chmod(0o6755)

    async def work() -> None:
        async with await begin(tmp_path) as sftp:
            await sftp.get("f", tmp_path / "g", preserve=True)

    run(work())
    assert stat.S_IMODE((tmp_path / "g").stat().st_mode) == 0o755


def test_outstanding_bytes_are_bounded(tmp_path: Path) -> None:
    requests: list[tuple[int, int, int]] = []
    waiting = asyncio.Event()

    def act(server: Scripted, kind: int, number: int, request: Reader) -> None:
        if kind == messages.EXTENDED:
            server.answer(packet(messages.EXTENDED_ANSWER, number, *map(uint64, (0, 0, 0, 0))))
        elif kind == messages.OPEN:
            server.answer(packet(messages.HANDLE, number, string(b"h")))
        elif kind == messages.STAT:
            server.answer(packet(messages.ATTRS, number, uint32(5), uint64(1 << 40), uint32(FILE)))
        elif kind == messages.READ:
            request.string()
            requests.append((number, request.uint64(), request.uint32()))
            waiting.set()

    async def work() -> None:
        async with await Sftp.begin(Scripted(act, messages.LIMITS), requests=1000) as sftp:
            getting = asyncio.create_task(sftp.get("f", tmp_path / "f"))
            await waiting.wait()
            for _ in range(10):
                await asyncio.sleep(0)
            getting.cancel()
            await asyncio.gather(getting, return_exceptions=True)

    run(work())
    assert sum(count for _, _, count in requests) == 4 << 20


def test_writes_are_outstanding_and_the_first_failure_counts(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(100 * 32768))
    writes: list[int] = []
    sizes: list[int] = []

    def act(server: Scripted, kind: int, number: int, request: Reader) -> None:
        if kind == messages.OPEN:
            server.answer(packet(messages.HANDLE, number, string(b"h")))
        elif kind == messages.STAT:
            server.answer(status(number, messages.NO_SUCH_FILE))
        elif kind == messages.WRITE:
            writes.append(number)
            if len(writes) == 64:
                for place, waiting in enumerate(writes):
                    full = place in {10, 20}
                    text = os.strerror(errno.ENOSPC).encode() if place == 10 else b"Failure"
                    server.answer(status(waiting, messages.FAILURE if full else messages.OK, text))
            elif len(writes) > 64:
                server.answer(status(number, messages.OK))
        elif kind == messages.FSETSTAT:
            request.string()
            assert request.uint32() == 1
            sizes.append(request.uint64())
            server.answer(status(number, messages.OK))
        else:
            server.answer(status(number, messages.OK))

    async def work() -> None:
        async with await Sftp.begin(Scripted(act)) as sftp:
            with pytest.raises(OSError, match="No space") as full:
                await sftp.put(tmp_path / "f", "f")
            assert full.value.errno == errno.ENOSPC

    run(work())
    assert sizes == [10 * 32768]  # what is behind the failure would pass for whole


def test_a_server_that_gives_less_than_it_could(tmp_path: Path) -> None:
    data = os.urandom(100_000)

    def act(server: Scripted, kind: int, number: int, request: Reader) -> None:
        if kind == messages.READ:
            request.string()
            offset, count = request.uint64(), request.uint32()
            found = data[offset : offset + min(count, 7000)]
            server.answer(packet(messages.DATA, number, string(found)) if found else status(number, 1))
        elif kind == messages.OPEN:
            server.answer(packet(messages.HANDLE, number, string(b"h")))
        elif kind in {messages.STAT, messages.FSTAT}:  # a size that is wrong
            server.answer(packet(messages.ATTRS, number, uint32(5), uint64(10), uint32(FILE)))
        else:
            server.answer(status(number, messages.OK))

    async def work() -> None:
        async with await Sftp.begin(Scripted(act)) as sftp:
            assert await sftp.read_file("f") == data
            await sftp.get("f", tmp_path / "f")

    run(work())
    assert (tmp_path / "f").read_bytes() == data


def _listing(found: Callable[[bytes], list[tuple[bytes, int]]]) -> Any:
    """Directories in which each listing says what a function of the path gives."""
    open_folders: dict[bytes, list[tuple[bytes, int]]] = {}

    def act(server: Scripted, kind: int, number: int, request: Reader) -> None:
        path = request.string()
        if kind in {messages.STAT, messages.LSTAT}:
            server.answer(packet(messages.ATTRS, number, uint32(4), uint32(DIRECTORY)))
        elif kind == messages.OPENDIR:
            open_folders[path[-200:]] = found(path)
            server.answer(packet(messages.HANDLE, number, string(path[-200:])))
        elif kind == messages.READDIR:
            entries, open_folders[path] = open_folders[path], []
            server.answer(names(number, *entries) if entries else status(number, messages.EOF))
        elif kind == messages.OPEN:
            server.answer(packet(messages.HANDLE, number, string(b"h")))
        elif kind == messages.READ:
            server.answer(status(number, messages.EOF))
        else:
            server.answer(status(number, messages.OK))

    return act


@pytest.mark.parametrize("name", [b"../evil", b"/tmp/evil", b"a/../../evil", b"evil\0", b""])
def test_a_name_that_leads_elsewhere_ends_the_session(tmp_path: Path, name: bytes) -> None:
    target = tmp_path / "a/b/target"
    target.mkdir(parents=True)

    async def work() -> None:
        listing = _listing(lambda _: [(b"good", FILE), (name, FILE)])
        async with await Sftp.begin(Scripted(listing)) as sftp:
            with pytest.raises(DecodeError, match="no name"):
                await sftp.get("d", target, recursive=True)
            with pytest.raises(DecodeError):
                await sftp.stat("x")

    run(work())
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert everything == []


@pytest.mark.parametrize("source", ["..", ".", "/", "x/..", "x/.", "//"])
def test_what_is_asked_for_by_no_name_gets_no_name(tmp_path: Path, source: str) -> None:
    target = tmp_path / "target"
    target.mkdir()

    async def work() -> None:
        found = {"count": 0}

        def once(_: bytes) -> list[tuple[bytes, int]]:
            found["count"] += 1
            return [(b"..", DIRECTORY), (b".", DIRECTORY), (b"f", FILE)] if found["count"] == 1 else []

        async with await Sftp.begin(Scripted(_listing(once))) as sftp:
            await sftp.get(source, target, recursive=True)

    run(work())
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["target", "target/f"]


def test_directories_without_end_are_given_up(tmp_path: Path) -> None:
    async def work() -> None:
        async with await Sftp.begin(Scripted(_listing(lambda _: [(b"d", DIRECTORY)]))) as sftp:
            with pytest.raises(LimitExceeded, match="deep"):
                await sftp.get("d", tmp_path / "d", recursive=True)
            with pytest.raises(LimitExceeded, match="deep"):
                async for _ in sftp.walk("d"):
                    pass
            assert (await sftp.stat("d")).is_directory  # the session goes on

    run(work())


def test_a_listing_without_end_is_given_up() -> None:
    def act(server: Scripted, kind: int, number: int, request: Reader) -> None:
        if kind == messages.OPENDIR:
            server.answer(packet(messages.HANDLE, number, string(b"d")))
        elif kind == messages.READDIR:
            server.answer(names(number, *[(b"again", FILE)] * 1000))
        else:
            server.answer(status(number, messages.OK))

    async def work() -> None:
        async with await Sftp.begin(Scripted(act)) as sftp:
            with pytest.raises(LimitExceeded, match="more than 5000"):
                await sftp.entries("d", most=5000)
            seen = 0
            async for _ in sftp.scandir("d"):
                seen += 1
                if seen == 20_000:
                    break
            assert seen == 20_000

    run(work())


def test_long_lines_of_a_listing_count_for_what_they_are() -> None:
    asked: list[int] = []

    def act(server: Scripted, kind: int, number: int, request: Reader) -> None:
        if kind == messages.OPENDIR:
            server.answer(packet(messages.HANDLE, number, string(b"d")))
        elif kind == messages.READDIR:
            asked.append(number)
            server.answer(packet(messages.NAME, number, uint32(1), string(b"f"), string(b"l" * 200_000), NOTHING))
        else:
            server.answer(status(number, messages.OK))

    async def work() -> None:
        async with await Sftp.begin(Scripted(act)) as sftp:
            with pytest.raises(LimitExceeded, match="more than 1000"):
                await sftp.entries("d", most=1000)
            assert len(asked) < 10

    run(work())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (packet(messages.ATTRS, 77, NOTHING), DecodeError),
        (packet(messages.DATA, 0, string(b"x")), DecodeError),
        (uint32(0x7FFFFFFF), LimitExceeded),
        (b"", ConnectionClosed),
    ],
)
def test_every_waiter_hears_of_the_end(answer: bytes, error: type[DunnartError]) -> None:
    async def work() -> None:
        heard = 0

        def act(server: Scripted, kind: int, number: int, request: Reader) -> None:
            nonlocal heard
            heard += 1
            if heard == 3:
                server.answer(answer) if answer else server.end()

        async with await Sftp.begin(Scripted(act)) as sftp:
            found = await asyncio.gather(*(sftp.stat("x") for _ in range(3)), return_exceptions=True)
            assert [type(each) for each in found] == [error] * 3
            assert sftp.closed
            with pytest.raises(error):
                await sftp.stat("x")

    run(work())


def test_what_is_asked_after_the_end_is_answered_too() -> None:
    async def work() -> None:
        sftp = await Sftp.begin(Honest(MemoryFiles()))
        request = sftp.core.stat(b"/")
        await sftp.close()
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(sftp.submit(request), 10)

    run(work())


def test_a_server_that_is_none() -> None:
    class Shell(Scripted):
        def said(self, data: bytes) -> None:
            self.answer(b"Welcome!\n")

    async def work() -> None:
        with pytest.raises(LimitExceeded):
            await Sftp.begin(Shell(lambda *_: None))
        silent = Stream()
        silent.end()
        with pytest.raises(ConnectionClosed):
            await Sftp.begin(silent)

    run(work())


def test_close_ends_what_waits() -> None:
    async def work() -> None:
        sftp = await Sftp.begin(Scripted(lambda *_: None))
        waiting = asyncio.create_task(sftp.stat("x"))
        await asyncio.sleep(0)
        await sftp.close()
        with pytest.raises(ConnectionClosed, match="was closed"):
            await waiting

    run(work())
