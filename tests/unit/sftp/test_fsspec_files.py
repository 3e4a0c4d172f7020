"""Stores as clients see them, each checked from the other side: what arrived, what is visible when, what is refused."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from dunnart.sftp import Attributes, File, FsspecFiles, OpenMode, SftpServer
from dunnart.sftp.store import Store, status_of
from dunnart.wire.encoding import string, uint32
from tests.unit.sftp.stores import S3, Stored, in_a_directory, in_memory, in_s3, on_disk, s3_server

READ = OpenMode(read=True)
UPLOAD = OpenMode(write=True, create=True, truncate=True)
UPDATE = OpenMode(read=True, write=True)
MIB = 1 << 20


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["memory", "dir", "disk", "s3"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Stored:
    if request.param == "memory":
        return in_memory()
    if request.param == "dir":
        return in_a_directory()
    if request.param == "disk":
        return on_disk(tmp_path / "share")
    return in_s3(request.getfixturevalue("s3"))


@pytest.fixture
def files(stored: Stored) -> FsspecFiles:
    return stored.files


def opened(files: FsspecFiles, path: bytes, mode: OpenMode) -> File:
    return files.open(path, mode, Attributes())


def upload(files: FsspecFiles, path: bytes, data: bytes) -> None:
    file = opened(files, path, UPLOAD)
    for at in range(0, len(data), 255 * 1024):
        file.write(memoryview(data)[at : at + 255 * 1024], at)
    file.close()


def read(file: File, offset: int, count: int) -> bytes:
    buffer = bytearray(count)
    return bytes(buffer[: file.read_into(memoryview(buffer), offset)])


def names(files: FsspecFiles, path: bytes = b"/") -> set[bytes]:
    found = [name for name, _ in files.scan(path)]
    assert len(found) == len(set(found))
    return set(found) - {b".", b".."}


def number(excinfo: pytest.ExceptionInfo[OSError]) -> int:
    assert excinfo.value.strerror
    return excinfo.value.errno or 0


# Files.


@pytest.mark.parametrize("size", [0, 1, 300_000, 17 * MIB + 5], ids=str)
def test_what_is_uploaded_is_in_the_store_and_comes_back(stored: Stored, size: int) -> None:
    data = random.Random(size).randbytes(size)
    upload(stored.files, b"/f", data)
    assert stored.content("f") == data
    assert names(stored.files) == {b"f"}
    file = opened(stored.again(), b"/f", READ)
    got = b""
    while piece := read(file, len(got), 255 * 1024):
        got += piece
    assert got == data
    file.close()


def test_nothing_is_visible_before_it_is_closed(stored: Stored) -> None:
    file = opened(stored.files, b"/f", UPLOAD)
    file.write(memoryview(bytes(9 * MIB)), 0)
    assert not stored.has("f")
    assert names(stored.again()) == set()
    assert stored.files.stat(b"/f", follow=False).st_size == 9 * MIB  # sshfs looks before it writes
    with pytest.raises(FileNotFoundError):
        stored.again().stat(b"/f", follow=True)
    file.close()
    assert len(stored.content("f")) == 9 * MIB
    assert names(stored.files) == {b"f"}


def test_what_is_abandoned_leaves_nothing(stored: Stored) -> None:
    file = opened(stored.files, b"/new", UPLOAD)
    file.write(memoryview(b"half"), 0)
    file.abandon()
    stored.put("old", b"as it was")
    file = opened(stored.files, b"/old", UPLOAD)
    file.write(memoryview(b"half"), 0)
    file.abandon()
    assert stored.content("old") == b"as it was"
    assert names(stored.files) == {b"old"}
    with pytest.raises(FileNotFoundError):
        stored.files.stat(b"/new", follow=True)


def test_a_session_that_ends_leaves_nothing(stored: Stored) -> None:
    server = SftpServer(stored.files)
    for body in (b"\1" + uint32(3), b"\3" + uint32(1) + string(b"/f") + uint32(2 | 8 | 16) + uint32(0)):
        packet = uint32(len(body)) + body
        server.room()[: len(packet)] = packet
        server.received(len(packet))
    assert server.answers[-13] == 102  # a handle
    server.close()
    assert names(stored.files) == set()


def test_a_failed_write_is_not_put_even_if_the_client_closes(stored: Stored) -> None:
    files = stored.again(spool_bytes=1000)
    file = opened(files, b"/f", UPLOAD)
    file.write(memoryview(bytes(1000)), 0)
    with pytest.raises(OSError, match="1000 bytes") as excinfo:
        file.write(memoryview(b"x"), 1 << 62)
    assert number(excinfo) == errno.EFBIG
    with pytest.raises(OSError, match="1000 bytes"):
        file.close()
    assert names(files) == set()


def test_reads_at_any_offset(stored: Stored) -> None:
    data = random.Random(0).randbytes(9 * MIB)
    stored.put("f", data)
    file, other = (opened(stored.files, b"/f", READ) for _ in range(2))
    chance = random.Random(1)
    for _ in range(30):
        offset, count = chance.randrange(len(data) + 10), chance.choice([1, 4096, 32768, 255 * 1024])
        assert read(file, offset, count) == data[offset : offset + count]
        assert read(other, offset // 2, 10) == data[offset // 2 : offset // 2 + 10]
    assert read(file, 1 << 63, 10) == b""
    file.close()
    other.close()


def test_reading_in_order_asks_the_store_seldom(s3: S3) -> None:
    stored = in_s3(s3)
    stored.put("f", bytes(8 * MIB))
    file = opened(stored.files, b"/f", READ)
    asked = 0
    fetch = file._file._fetch_range  # type: ignore[attr-defined]

    def counted(start: int, end: int) -> bytes:
        nonlocal asked
        asked += 1
        data: bytes = fetch(start, end)
        return data

    file._file.cache.fetcher = counted  # type: ignore[attr-defined]
    assert sum(len(read(file, at, 32768)) for at in range(0, 8 * MIB, 32768)) == 8 * MIB
    assert 1 <= asked <= 4


def test_many_read_one_file_at_once(stored: Stored) -> None:
    """Sessions in threads share a file system, and memory's files have one position for all."""
    data = random.Random(2).randbytes(MIB)
    stored.put("f", data)

    def all_of_it(_: int) -> bool:
        file = opened(stored.files, b"/f", READ)
        got = b"".join(read(file, at, 4096) for at in range(0, MIB, 4096))
        file.close()
        return got == data

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(all_of_it, range(4))) == [True] * 4


def test_reading_from_memory_moves_no_position() -> None:
    stored = in_memory()
    stored.put("f", b"0123456789")
    assert read(opened(stored.files, b"/f", READ), 5, 3) == b"567"
    assert stored.filesystem.store["/share/f"].tell() == 0


@pytest.mark.parametrize("seed", range(4))
def test_random_writes_are_as_on_a_disk(stored: Stored, seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    there = chance.randbytes(chance.choice([0, 5000, 100_000]))
    stored.put("f", there)
    twin = tmp_path / "twin"
    twin.write_bytes(there)
    file = opened(stored.files, b"/f", UPDATE)
    with twin.open("r+b", buffering=0) as other:
        for _ in range(25):
            offset = chance.choice([0, other.seek(0, 2), chance.randrange(150_000)])
            act = chance.random()
            if act < 0.5:
                data = chance.randbytes(chance.choice([0, 1, 4096, 40_000]))
                file.write(memoryview(data), offset)
                os.pwrite(other.fileno(), data, offset)
            elif act < 0.7:
                file.set(Attributes(size=offset))
                other.truncate(offset)
            elif act < 0.8:
                file.sync()
                assert stored.content("f") == twin.read_bytes()
            else:
                assert read(file, offset, 5000) == os.pread(other.fileno(), 5000, offset)
            assert file.stat().st_size == other.seek(0, 2)
    file.close()
    assert stored.content("f") == twin.read_bytes()


def test_an_existing_file_is_appended_to_resumed_and_kept_untouched(stored: Stored) -> None:
    stored.put("f", b"0123456789")
    file = opened(stored.files, b"/f", OpenMode(write=True, append=True))
    file.write(memoryview(b"ab"), 0)
    file.write(memoryview(b"cd"), 3)
    file.close()
    assert stored.content("f") == b"0123456789abcd"
    file = opened(stored.files, b"/f", OpenMode(write=True))
    file.write(memoryview(b"XYZ"), 13)
    file.close()
    assert stored.content("f") == b"0123456789abcXYZ"
    before = stored.files.stat(b"/f", follow=True).st_mtime
    opened(stored.files, b"/f", UPDATE).close()  # nothing was written, so nothing is put
    assert stored.files.stat(b"/f", follow=True).st_mtime == before


def test_what_is_overwritten_from_its_start_is_not_fetched(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH's scp opens without truncating, and sets the size at the end."""
    stored.put("f", bytes(100))
    monkeypatch.setattr(Store, "open", lambda *_: pytest.fail("it was fetched"))
    file = opened(stored.files, b"/f", OpenMode(write=True, create=True))
    file.write(memoryview(b"new"), 0)
    file.set(Attributes(size=3))
    file.close()
    assert stored.content("f") == b"new"


def test_sizes_change_by_path(stored: Stored) -> None:
    stored.put("f", b"0123456789")
    for size, wanted in ((4, b"0123"), (6, b"0123\0\0"), (0, b"")):
        stored.files.set(b"/f", Attributes(size=size), follow=True)
        assert stored.content("f") == wanted
    file = opened(stored.files, b"/new", UPLOAD)
    file.write(memoryview(b"abc"), 0)
    stored.files.set(b"/new", Attributes(size=2), follow=True)
    file.close()
    assert stored.content("new") == b"ab"


def test_modes_owners_and_times_are_taken_without_effect(stored: Stored) -> None:
    stored.put("f", b"data")
    chosen = Attributes(mode=0o600, atime=1, mtime=2, uid=3, gid=4)
    stored.files.set(b"/f", chosen, follow=True)
    file = opened(stored.files, b"/f", UPDATE)
    file.set(chosen)
    file.close()
    with pytest.raises(FileNotFoundError):
        stored.files.set(b"/missing", chosen, follow=True)
    found = stored.files.stat(b"/f", follow=True)
    assert found.st_mtime > 1_000_000
    assert stat.S_IMODE(found.st_mode) & 0o644 == 0o644


def test_a_file_removed_while_it_is_uploaded_stays_away(stored: Stored) -> None:
    file = opened(stored.files, b"/f", UPLOAD)
    file.write(memoryview(b"data"), 0)
    with pytest.raises(OSError, match="busy") as excinfo:
        stored.files.rename(b"/f", b"/g", replace=False)
    assert number(excinfo) == errno.EBUSY
    stored.files.remove(b"/f")
    file.close()
    assert names(stored.files) == set()


def test_exclusive_means_new(stored: Stored) -> None:
    exclusive = OpenMode(write=True, create=True, exclusive=True)
    stored.put("old", b"")
    with pytest.raises(FileExistsError):
        opened(stored.files, b"/old", exclusive)
    file = opened(stored.files, b"/f", exclusive)
    with pytest.raises(FileExistsError):
        opened(stored.files, b"/f", exclusive)
    stored.put("f", b"somebody was faster")
    with pytest.raises(FileExistsError):
        file.close()
    assert stored.content("f") == b"somebody was faster"
    assert names(stored.files) == {b"f", b"old"}


def test_opening_what_cannot_be_opened(stored: Stored) -> None:
    files = stored.files
    stored.put("f", b"")
    files.make_directory(b"/d", Attributes())
    for path, mode, wanted in (
        (b"/missing", READ, FileNotFoundError),
        (b"/missing", OpenMode(write=True), FileNotFoundError),
        (b"/missing/f", UPLOAD, FileNotFoundError),
        (b"/f/f", UPLOAD, NotADirectoryError),
        (b"/d", READ, IsADirectoryError),
        (b"/d", UPLOAD, IsADirectoryError),
        (b"/", UPLOAD, IsADirectoryError),
        (b"/a\0b", READ, OSError),
        (b"/" + b"x" * 5000, READ, OSError),
    ):
        with pytest.raises(wanted):
            opened(files, path, mode)
    reading, writing = opened(files, b"/f", READ), opened(files, b"/f", OpenMode(write=True))
    for call in (
        lambda: reading.write(memoryview(b"x"), 0),
        lambda: writing.read_into(memoryview(bytearray(1)), 0),
        reading.statvfs,
        writing.statvfs,
        lambda: reading.set(Attributes(size=1)),
    ):
        with pytest.raises(OSError, match=r"Bad file|not supported|open to read"):
            call()
    reading.close()
    writing.close()


# Names.

NAMES = ("plain", "with space", "a[1]*?", "back\\slash", "ünï", "100%", "~", "a?b", "file:x", "-", "new\nline")


def test_names_are_names_and_no_patterns(stored: Stored) -> None:
    files = stored.files
    upload(files, b"/a1x", b"other")
    tried = [name for name in NAMES if name.isprintable() or not files._store.marks]  # the server for tests has no line
    for name in tried:
        upload(files, f"/{name}".encode(), name.encode())
    assert names(files) == {name.encode() for name in (*tried, "a1x")}
    for name in tried:
        path = f"/{name}".encode()
        assert stored.content(name) == name.encode()
        files.rename(path, b"/moved", replace=False)
        assert stored.content("moved") == name.encode()
        files.remove(b"/moved")
    assert stored.content("a1x") == b"other"
    assert names(files) == {b"a1x"}


def test_nothing_leads_out_of_the_root(stored: Stored) -> None:
    files = stored.files
    assert files.real_path(b"../../../a/./b/../c//d") == b"/a/c/d"
    assert files.real_path(b".") == b"/"
    upload(files, b"/../../../escaped", b"data")
    assert stored.content("escaped") == b"data"
    stored.put("sub/f", b"")
    beside = FsspecFiles(stored.filesystem, f"{stored.base}/sub")
    assert names(beside, b"/../..") == {b"f"}
    with pytest.raises(FileNotFoundError):
        opened(beside, b"/../escaped", READ)


def test_relative_paths_begin_at_the_start(stored: Stored) -> None:
    stored.put("sub/f", b"data")
    files = stored.again(start="/sub")
    assert read(opened(files, b"f", READ), 0, 10) == b"data"
    assert (files.home("anybody"), files.real_path(b"f")) == (b"/sub", b"/sub/f")


def test_names_that_are_no_text(stored: Stored) -> None:
    """A disk takes them; S3 cannot, and says so."""
    name = b"/\xff\xfe"
    if stored.files._store.marks:
        with pytest.raises(OSError, match="multibyte") as excinfo:
            upload(stored.files, name, b"data")
        assert number(excinfo) == errno.EILSEQ
    else:
        upload(stored.files, name, b"data")
        assert names(stored.files) == {b"\xff\xfe"}


# Directories.


def test_directories_are_made_kept_and_removed(stored: Stored) -> None:
    files = stored.files
    files.make_directory(b"/d", Attributes(mode=0o700))
    files.make_directory(b"/d/e", Attributes())
    assert stat.S_ISDIR(files.stat(b"/d/e", follow=True).st_mode)
    assert (names(files), names(files, b"/d"), names(files, b"/d/e")) == ({b"d"}, {b"e"}, set())
    upload(files, b"/d/e/f", b"data")
    assert (names(files, b"/d"), names(files, b"/d/e")) == ({b"e"}, {b"f"})
    for path in (b"/d", b"/d/e"):
        with pytest.raises(OSError, match="not empty") as excinfo:
            files.remove_directory(path)
        assert number(excinfo) == errno.ENOTEMPTY
    with pytest.raises(FileExistsError):
        files.make_directory(b"/d/e", Attributes())
    files.remove(b"/d/e/f")
    assert names(files, b"/d/e") == set()
    files.remove_directory(b"/d/e")
    assert names(files, b"/d") == set()
    files.remove_directory(b"/d")
    assert names(files) == set()
    with pytest.raises(FileNotFoundError):
        files.stat(b"/d", follow=True)


def test_an_empty_directory_is_there_for_the_next_session(stored: Stored) -> None:
    stored.files.make_directory(b"/d", Attributes())
    assert names(stored.again()) == {b"d"}
    assert names(stored.again(), b"/d") == set()


def test_a_directory_that_only_its_files_made_stays_when_they_go(stored: Stored) -> None:
    """`rm -r` removes the files, then the directory."""
    stored.put("d/e/f", b"data")
    stored.files.remove(b"/d/e/f")
    stored.files.remove_directory(b"/d/e")
    stored.files.remove_directory(b"/d")
    assert names(stored.again()) == set()


def test_what_fits_no_directory_is_refused(stored: Stored) -> None:
    files = stored.files
    stored.put("f", b"")
    files.make_directory(b"/d", Attributes())
    for act, wanted in (
        (lambda: files.scan(b"/f"), NotADirectoryError),
        (lambda: files.scan(b"/missing"), FileNotFoundError),
        (lambda: files.make_directory(b"/f", Attributes()), FileExistsError),
        (lambda: files.make_directory(b"/", Attributes()), FileExistsError),
        (lambda: files.make_directory(b"/missing/d", Attributes()), FileNotFoundError),
        (lambda: files.make_directory(b"/f/d", Attributes()), NotADirectoryError),
        (lambda: files.remove(b"/d"), IsADirectoryError),
        (lambda: files.remove(b"/missing"), FileNotFoundError),
        (lambda: files.remove_directory(b"/f"), NotADirectoryError),
        (lambda: files.remove_directory(b"/missing"), FileNotFoundError),
        (lambda: files.remove_directory(b"/"), OSError),
        (lambda: files.stat(b"/missing", follow=False), FileNotFoundError),
    ):
        with pytest.raises(wanted):
            act()
    assert names(files) == {b"d", b"f"}


def test_what_no_store_has_is_refused(files: FsspecFiles) -> None:
    for act in (
        lambda: files.read_link(b"/f"),
        lambda: files.make_link(b"/f", b"/g", symbolic=True),
        lambda: files.make_link(b"/f", b"/g", symbolic=False),
        lambda: files.statvfs(b"/"),
    ):
        with pytest.raises(OSError, match="not supported") as excinfo:
            act()
        assert number(excinfo) == errno.EOPNOTSUPP


# Renaming.


def test_files_and_directories_are_renamed(stored: Stored) -> None:
    files = stored.files
    for name in ("d/f", "d/sub/g", "other"):
        stored.put(name, name.encode())
    files.make_directory(b"/d/empty", Attributes())
    files.rename(b"/d", b"/e", replace=False)
    assert names(files) == {b"e", b"other"}
    assert (names(files, b"/e"), names(files, b"/e/empty")) == ({b"f", b"sub", b"empty"}, set())
    assert (stored.content("e/f"), stored.content("e/sub/g")) == (b"d/f", b"d/sub/g")
    assert not stored.has("d/f")
    files.rename(b"/e/f", b"/h", replace=False)
    assert stored.content("h") == b"d/f"
    with pytest.raises(FileExistsError):
        files.rename(b"/h", b"/other", replace=False)
    files.rename(b"/h", b"/other", replace=True)
    assert stored.content("other") == b"d/f"
    assert names(files) == {b"e", b"other"}


def test_renames_that_make_no_sense(stored: Stored) -> None:
    files = stored.files
    stored.put("d/f", b"data")
    stored.put("f", b"data")
    files.make_directory(b"/empty", Attributes())
    for old, new, wanted in (
        (b"/missing", b"/x", errno.ENOENT),
        (b"/d", b"/d/x", errno.EINVAL),
        (b"/d", b"/f", errno.ENOTDIR),
        (b"/f", b"/d", errno.EISDIR),
        (b"/empty", b"/d", errno.ENOTEMPTY),
        (b"/f", b"/missing/x", errno.ENOENT),
        (b"/", b"/x", errno.EBUSY),
        (b"/f", b"/", errno.EBUSY),
    ):
        with pytest.raises(OSError, match=r".") as excinfo:
            files.rename(old, new, replace=True)
        assert number(excinfo) == wanted, (old, new)
    files.rename(b"/f", b"/f", replace=True)
    files.rename(b"/d", b"/empty", replace=True)
    assert names(files) == {b"empty", b"f"}
    assert names(files, b"/empty") == {b"f"}


def test_a_directory_that_cannot_be_copied_stays_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = in_memory()
    for name in ("d/a", "d/b", "d/sub/c"):
        stored.put(name, name.encode())
    copy = Store.copy

    def failing(store: Store, old: str, new: str) -> None:
        if old.endswith("c"):
            raise OSError(errno.EIO, "lost")
        copy(store, old, new)

    monkeypatch.setattr(Store, "copy", failing)
    with pytest.raises(OSError, match="lost"):
        stored.files.rename(b"/d", b"/e", replace=False)
    assert names(stored.files) == {b"d"}
    assert (names(stored.files, b"/d"), names(stored.files, b"/d/sub")) == ({b"a", b"b", b"sub"}, {b"c"})


# What stores say and do.


class Moody(MemoryFileSystem):  # type: ignore[misc]
    """Fails as it is told to; `mv` is fsspec's own."""

    cachable = False
    protocol = "moody"

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__(global_store=False)
        self.failure = failure

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        found: dict[str, Any] = super().info(path, **kwargs)
        return found


class Answer(Exception):
    """What botocore's ClientError is like, and others."""

    def __init__(self, response: object = None, status: int = 0) -> None:
        super().__init__("secret.internal:9000")
        self.response = response
        self.status = status


@pytest.mark.parametrize(
    ("failure", "wanted"),
    [
        (FileNotFoundError("secret"), errno.ENOENT),
        (PermissionError("secret"), errno.EACCES),
        (OSError("secret"), errno.EIO),
        (OSError(errno.ENOSPC, "secret"), errno.ENOSPC),
        (OSError("secret", 5), errno.EIO),
        (ConnectionResetError(errno.ECONNRESET, "secret"), errno.EIO),
        (BrokenPipeError(), errno.EIO),
        (TimeoutError(), errno.ETIMEDOUT),
        (NotImplementedError(), errno.EOPNOTSUPP),
        (ValueError("secret"), errno.EIO),
        (KeyError("secret"), errno.EIO),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "secret"), errno.EILSEQ),
        (Answer({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}), errno.EIO),
        (Answer({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}), errno.EACCES),
        (Answer(status=404), errno.ENOENT),
        (Answer(status=507), errno.ENOSPC),
        (Answer(), errno.EIO),
    ],
    ids=repr,
)
def test_whatever_a_store_raises_is_an_error_of_the_system_without_its_secrets(failure: Exception, wanted: int) -> None:
    files = FsspecFiles(Moody(failure))
    with pytest.raises(OSError, match=r".") as excinfo:
        files.stat(b"/f", follow=True)
    assert number(excinfo) == wanted
    assert "secret" not in str(excinfo.value)
    assert not isinstance(excinfo.value, ConnectionError)  # which would be the client's, not the store's


def test_errors_of_a_real_store(s3: S3) -> None:
    from s3fs import S3FileSystem

    missing = FsspecFiles(s3.filesystem, "no-such-bucket/prefix")
    with pytest.raises(FileNotFoundError):
        missing.scan(b"/")
    with pytest.raises(FileNotFoundError):
        upload(missing, b"/f", b"data")
    unreachable = {
        **s3.options,
        "endpoint_url": "http://127.0.0.1:1",
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }
    nobody = S3FileSystem(**unreachable, skip_instance_cache=True)
    nobody.retries = 1
    with pytest.raises(OSError, match="the store failed") as excinfo:
        FsspecFiles(nobody, "bucket").stat(b"/f", follow=True)
    assert number(excinfo) == errno.EIO


def test_s3_shows_no_more_than_paths_lead_to(s3: S3) -> None:
    stored = in_s3(s3)
    for key in ("a", "a/b", "x/../y", "ok"):
        bucket, _, prefix = stored.base.partition("/")
        stored.filesystem.call_s3("put_object", Bucket=bucket, Key=f"{prefix}/{key}", Body=b"data")
    assert names(stored.files) == {b"a", b"ok", b"x"}
    assert names(stored.files, b"/x") == set()
    assert stat.S_ISREG(stored.files.stat(b"/a", follow=True).st_mode)
    with pytest.raises(OSError, match="Invalid"):
        upload(stored.files, b"/ok?versionId=1", b"overwritten")
    assert stored.content("ok") == b"data"


def test_s3_sees_what_others_change(s3: S3) -> None:
    stored = in_s3(s3)
    assert names(stored.files) == set()
    bucket, _, prefix = stored.base.partition("/")
    stored.filesystem.call_s3("put_object", Bucket=bucket, Key=f"{prefix}/f", Body=b"data")
    assert names(stored.files) == {b"f"}
    stored.filesystem.call_s3("delete_object", Bucket=bucket, Key=f"{prefix}/f")
    with pytest.raises(FileNotFoundError):
        stored.files.stat(b"/f", follow=True)


def test_whole_s3_has_buckets_as_directories(s3: S3) -> None:
    stored = in_s3(s3, prefix="")
    files = FsspecFiles(stored.filesystem)
    bucket = stored.base.encode()
    assert bucket in names(files)
    upload(files, b"/" + bucket + b"/f", b"data")
    assert stored.content("f") == b"data"
    files.remove(b"/" + bucket + b"/f")
    files.remove_directory(b"/" + bucket)
    assert bucket not in names(files)


def test_a_disk_shows_no_part_of_an_upload_and_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = on_disk(tmp_path / "share")
    stored.put("f", b"old")
    seen: list[tuple[set[str], bytes]] = []
    move = type(stored.filesystem).mv

    def watched(filesystem: AbstractFileSystem, *paths: str) -> None:
        seen.append(({path.name for path in (tmp_path / "share").iterdir()}, (tmp_path / "share/f").read_bytes()))
        if len(seen) == 2:
            raise OSError(errno.ENOSPC, "full")
        move(filesystem, *paths)

    monkeypatch.setattr(type(stored.filesystem), "mv", watched)
    upload(stored.files, b"/f", b"new")
    assert len(seen[0][0]) == 2
    assert seen[0][1] == b"old"
    with pytest.raises(OSError, match="No space"):
        upload(stored.files, b"/f", b"newer")
    assert {path.name: path.read_bytes() for path in (tmp_path / "share").iterdir()} == {"f": b"new"}


def test_a_disk_has_modes_links_and_other_things(tmp_path: Path) -> None:
    stored = on_disk(tmp_path / "share")
    stored.put("f", b"data")
    (tmp_path / "share/f").chmod(0o640)
    os.symlink("f", tmp_path / "share/link")
    os.symlink("nothing", tmp_path / "share/dangling")
    os.mkfifo(tmp_path / "share/fifo")
    listed = dict(stored.files.scan(b"/"))
    assert set(listed) == {b".", b"..", b"f", b"link", b"fifo"}
    assert stat.filemode(listed[b"f"].st_mode) == "-rw-r-----"
    assert (listed[b"link"].st_size, stat.S_ISREG(listed[b"link"].st_mode)) == (4, True)
    assert stat.S_ISFIFO(listed[b"fifo"].st_mode)
    for mode in (READ, UPLOAD):
        with pytest.raises(OSError, match="no regular file"):
            opened(stored.files, b"/fifo", mode)


@pytest.mark.parametrize(
    ("info", "seconds"),
    [
        ({"mtime": 12.9}, 12),
        ({"created": 5, "mtime": 7}, 7),
        ({"LastModified": "2001-09-09T01:46:40Z"}, 1_000_000_000),
        ({"updated": "2001-09-09T01:46:40.000+00:00"}, 1_000_000_000),
        ({"modified": "yesterday", "created": 3}, 3),
        ({"LastModified": ""}, 0),
        ({}, 0),
    ],
    ids=repr,
)
def test_times_are_found_wherever_a_store_keeps_them(info: dict[str, Any], seconds: int) -> None:
    assert status_of({"type": "file", "size": None, **info}).st_mtime == seconds


# Archives, URLs.


@pytest.fixture
def archive(tmp_path: Path) -> str:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(zipfile.ZipInfo("top", (2001, 2, 3, 4, 5, 6)), b"data")
        made.writestr("folder/sub/f", random.Random(3).randbytes(MIB), zipfile.ZIP_DEFLATED)
    return f"zip://::{tmp_path}/a.zip"


def test_an_archive_is_read_and_not_changed(archive: str) -> None:
    files = FsspecFiles.from_url(archive)
    assert (names(files), names(files, b"/folder"), names(files, b"/folder/sub")) == (
        {b"top", b"folder"},
        {b"sub"},
        {b"f"},
    )
    file = opened(files, b"/folder/sub/f", READ)
    data = random.Random(3).randbytes(MIB)
    for offset in (0, MIB // 2, MIB // 3, MIB - 5):
        assert read(file, offset, 1000) == data[offset : offset + 1000]
    for act in (
        lambda: opened(files, b"/new", UPLOAD),
        lambda: opened(files, b"/top", OpenMode(write=True)),
        lambda: files.remove(b"/top"),
        lambda: files.make_directory(b"/d", Attributes()),
        lambda: files.remove_directory(b"/folder"),
        lambda: files.rename(b"/top", b"/x", replace=True),
        lambda: files.set(b"/top", Attributes(mtime=1, atime=1), follow=True),
        lambda: file.set(Attributes(mtime=1, atime=1)),
        lambda: files.make_link(b"/top", b"/x", symbolic=True),
    ):
        with pytest.raises(OSError, match="Read-only") as excinfo:
            act()
        assert number(excinfo) == errno.EROFS
    assert files.stat(b"/top", follow=True).st_size == 4
    file.close()


def test_a_url_says_where_and_what(tmp_path: Path, s3: S3) -> None:
    (tmp_path / "f").write_bytes(b"data")
    assert names(FsspecFiles.from_url(f"file://{tmp_path}")) == {b"f"}
    stored = in_s3(s3)
    stored.put("f", b"data")
    files = FsspecFiles.from_url(f"s3://{stored.base}", start="/x", skip_instance_cache=True, **s3.options)
    assert (names(files), files.home("")) == ({b"f"}, b"/x")
    with pytest.raises(ValueError, match="nonsense"):
        FsspecFiles.from_url("nonsense://x")


def test_a_store_behind_urls_gets_no_path_that_would_be_resolved(s3: S3) -> None:
    pytest.importorskip("aiohttp")
    files = FsspecFiles.from_url(f"{s3.url}/bucket", skip_instance_cache=True)
    for path in (b"/%2e%2e/secret", b"/..%2fsecret", b"/%2E./x", b"/f?query", b"/f#part", b"/..\\secret"):
        with pytest.raises(OSError, match="Invalid") as excinfo:
            files.stat(path, follow=True)
        assert number(excinfo) == errno.EINVAL


def test_an_asynchronous_object_is_refused() -> None:
    class Asynchronous(Moody):
        asynchronous = True

    with pytest.raises(ValueError, match="asynchronous"):
        FsspecFiles(Asynchronous())


UPLOADED_IN_PIECES = """
import sys, tracemalloc
from fsspec.implementations.local import LocalFileSystem
from dunnart.sftp import Attributes, FsspecFiles, OpenMode
tracemalloc.start()
files = FsspecFiles(LocalFileSystem(), sys.argv[1])
file = files.open(b"/f", OpenMode(write=True, create=True, truncate=True), Attributes())
piece = bytes(255 * 1024)
for number in range(400):
    file.write(memoryview(piece), number * len(piece))
file.close()
print(tracemalloc.get_traced_memory()[1])
"""


def test_what_is_staged_is_not_in_memory(tmp_path: Path) -> None:
    """Only pieces pass through: fsspec copies from the spool by itself. No other test's threads are counted."""
    done = subprocess.run(
        [sys.executable, "-c", UPLOADED_IN_PIECES, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 8 * MIB
    assert (tmp_path / "f").stat().st_size == 400 * 255 * 1024


def test_uploads_side_by_side(stored: Stored) -> None:
    begun = threading.Barrier(4)

    def one(which: int) -> None:
        begun.wait()
        for count in range(3):
            upload(stored.files, f"/f{which}-{count}".encode(), bytes([which]) * 100_000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    assert len(names(stored.files)) == 12
    assert stored.content("f3-2") == b"\3" * 100_000
