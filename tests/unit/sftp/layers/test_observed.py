"""Everything that is done, and that could not be done, is told."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest

from dunnart.sftp import (
    Atomic,
    Attributes,
    File,
    FileEvent,
    FileSystem,
    MemoryFiles,
    NameFilter,
    Observed,
    OpenMode,
    ReadOnly,
)

READ, WRITE = OpenMode(read=True), OpenMode(write=True)
NEW = OpenMode(write=True, create=True, truncate=True)
NOTHING = Attributes()


class Told:
    """Files that are observed, and what was told of them."""

    def __init__(self, files: FileSystem) -> None:
        self.events: list[FileEvent] = []
        self.files = Observed(files, self.events.append, digest=True)

    def open(self, path: bytes, mode: OpenMode) -> File:
        return self.files.open(path, mode, NOTHING)

    def last(self) -> FileEvent:
        (event,) = self.events
        self.events.clear()
        assert event.seconds >= 0
        return event


@pytest.fixture(params=["memory", "atomic"])
def told(request: pytest.FixtureRequest) -> Told:
    memory = MemoryFiles({"/old": b"old content", "/d/f": b""}, start="/d")
    return Told(Atomic(memory) if request.param == "atomic" else memory)


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def test_an_upload_in_order(told: Told) -> None:
    file = told.open(b"./new", NEW)
    file.write(memoryview(b"one "), 0)
    file.write(memoryview(b"two"), 4)
    file.set(Attributes(mode=0o600))
    assert told.events == []
    file.close()
    event = told.last()
    assert (event.kind, event.path, event.size, event.error) == ("uploaded", b"/d/new", 7, "")
    assert event.sha256 == digest(b"one two")
    assert event.seconds > 0


@pytest.mark.parametrize("again", [False, True])
def test_an_upload_out_of_order_is_read_again(told: Told, again: bool) -> None:
    file = told.open(b"/old", NEW)
    file.write(memoryview(b"two"), 4)
    file.write(memoryview(b"one "), 0)
    if again:
        file.set(Attributes(size=6))
    file.close()
    assert told.last().sha256 == digest(b"one tw" if again else b"one two")


def test_a_size_that_was_set_counts(told: Told) -> None:
    file = told.open(b"/old", NEW)
    file.write(memoryview(b"one two"), 0)
    file.set(Attributes(size=3))
    file.close()
    event = told.last()
    assert (event.size, event.sha256) == (3, digest(b"one"))


@pytest.mark.parametrize("mode", [WRITE, OpenMode(write=True, append=True), OpenMode(write=True, create=True)])
def test_what_is_changed_in_place_is_hashed_as_a_whole(told: Told, mode: OpenMode) -> None:
    file = told.open(b"/old", mode)
    file.write(memoryview(b"OLD"), 0)
    file.close()
    event = told.last()
    wanted = b"old contentOLD" if mode.append else b"OLD content"
    assert (event.kind, event.size, event.sha256) == ("uploaded", len(wanted), digest(wanted))


def test_an_empty_upload(told: Told) -> None:
    told.open(b"/new", NEW).close()
    event = told.last()
    assert (event.kind, event.size, event.sha256) == ("uploaded", 0, digest(b""))


def test_downloads(told: Told) -> None:
    buffer = memoryview(bytearray(6))
    file = told.open(b"/old", READ)
    assert [file.read_into(buffer, at) for at in (0, 6, 11)] == [6, 5, 0]
    file.close()
    event = told.last()
    assert (event.kind, event.path, event.size, event.sha256) == ("downloaded", b"/old", 11, digest(b"old content"))
    for offsets in ((0,), (6, 0), (1, 7)):  # not all of it, or not in order
        file = told.open(b"/old", READ)
        for offset in offsets:
            file.read_into(buffer, offset)
        file.close()
        assert told.last().sha256 == ""
    told.open(b"/old", READ).close()
    assert told.events == []


def test_what_was_abandoned(told: Told) -> None:
    file = told.open(b"/new", NEW)
    file.write(memoryview(b"half"), 0)
    file.abandon()
    event = told.last()
    assert (event.kind, event.size, event.sha256, event.error) == (
        "uploaded", 4, "", "not complete: the client has gone",
    )  # fmt: skip
    file = told.open(b"/old", READ)
    file.read_into(memoryview(bytearray(3)), 0)
    file.abandon()
    event = told.last()
    assert (event.kind, event.size, event.error) == ("downloaded", 3, "not complete: the client has gone")


def test_what_failed_on_the_way() -> None:
    told = Told(Atomic(MemoryFiles({"/old": b"old"}, largest_bytes=10_000)))
    file = told.open(b"/old", NEW)
    with pytest.raises(OSError, match="No space left"):
        file.write(memoryview(bytes(20_000)), 0)
    with pytest.raises(OSError, match="No space left"):
        file.close()
    event = told.last()
    assert (event.kind, event.path, event.error) == ("uploaded", b"/old", "No space left on device")
    assert event.sha256 == ""


def test_everything_else(told: Told) -> None:
    files = told.files
    files.make_directory(b"e", NOTHING)
    assert told.last().kind == "made-directory"
    files.rename(b"/old", b"e/new", replace=True)
    event = told.last()
    assert (event.kind, event.path, event.target) == ("renamed", b"/old", b"/d/e/new")
    files.make_link(b"e/new", b"link", symbolic=True)
    event = told.last()
    assert (event.kind, event.path, event.target) == ("linked", b"/d/link", b"e/new")
    files.make_link(b"e/new", b"hard", symbolic=False)
    assert told.last().target == b"/d/e/new"
    files.set(b"hard", Attributes(mode=0o600), follow=True)
    assert told.last().kind == "changed"
    file = told.open(b"hard", READ)
    file.set(Attributes(mode=0o644))
    event = told.last()
    assert (event.kind, event.path) == ("changed", b"/d/hard")
    file.close()
    for path in (b"hard", b"link", b"e/new"):
        files.remove(path)
        assert told.last().kind == "removed"
    files.remove_directory(b"//d/./e/")
    event = told.last()
    assert (event.kind, event.path, event.error) == ("removed-directory", b"/d/e", "")


def test_what_is_refused() -> None:
    told = Told(ReadOnly(MemoryFiles({"/f": b""})))
    files = told.files
    refused: dict[str, Callable[[], object]] = {
        "uploaded": lambda: told.open(b"f", NEW),
        "removed": lambda: files.remove(b"f"),
        "renamed": lambda: files.rename(b"f", b"g", replace=True),
        "made-directory": lambda: files.make_directory(b"d", NOTHING),
        "removed-directory": lambda: files.remove_directory(b"d"),
        "linked": lambda: files.make_link(b"f", b"g", symbolic=True),
        "changed": lambda: files.set(b"f", Attributes(mode=0), follow=True),
    }
    for kind, act in refused.items():
        with pytest.raises(OSError, match="Read-only file system"):
            act()
        event = told.last()
        assert (event.kind, event.error) == (kind, "Read-only file system")
    with pytest.raises(FileNotFoundError):
        told.open(b"no", READ)
    event = told.last()
    assert (event.kind, event.path, event.error) == ("downloaded", b"/no", "No such file or directory")
    with pytest.raises(OSError, match="Read-only"):
        told.open(b"f", READ).set(Attributes(mode=0))
    assert (event := told.last()).kind == "changed"
    assert event.error


def test_without_digests_nothing_is_hashed() -> None:
    events: list[FileEvent] = []
    files = Observed(MemoryFiles(), events.append)
    file = files.open(b"f", NEW, NOTHING)
    file.write(memoryview(b"x"), 0)
    file.close()
    assert [(event.size, event.sha256) for event in events] == [(1, "")]


def test_errors_are_told_briefly() -> None:
    events: list[FileEvent] = []
    files = Observed(NameFilter(MemoryFiles(), deny=("*.exe",)), events.append)
    with pytest.raises(PermissionError) as caught:
        files.open(b"\1" * 100_000 + b".exe", NEW, NOTHING)
    assert len(str(caught.value.strerror)) < 2000
    assert 0 < len(events[0].error) <= 512


def test_a_change_does_not_hide_what_was_read() -> None:
    events: list[FileEvent] = []
    files = Observed(MemoryFiles({"/f": b"secret"}), events.append, digest=True)
    file = files.open(b"/f", OpenMode(read=True, write=True), NOTHING)
    assert file.read_into(memoryview(bytearray(10)), 0) == 6
    file.write(memoryview(b""), 0)
    file.close()
    assert [(event.kind, event.size) for event in events] == [("uploaded", 6), ("downloaded", 6)]
    assert [event.sha256 for event in events] == [sha256(b"secret").hexdigest(), ""]


def test_no_hash_of_what_was_cut_off(told: Told) -> None:
    file = told.open(b"/old", NEW)
    file.write(memoryview(b"innocent"), 0)
    file.set(Attributes(size=0))
    file.write(memoryview(b"evil"), 8)
    file.close()
    assert told.last().sha256 == digest(bytes(8) + b"evil")


@pytest.mark.parametrize("way", ["before", "meanwhile", "by path"])
def test_no_hash_of_what_was_changed_otherwise(told: Told, way: str) -> None:
    file = told.open(b"/old", NEW)
    other = told.open(b"/old", WRITE) if way == "before" else None
    file.write(memoryview(b"innocent"), 0)
    if way == "by path":
        told.files.set(b"/old", Attributes(size=4), follow=True)
        told.files.set(b"/old", Attributes(size=8), follow=True)
    else:
        other = other or told.open(b"/old", WRITE)
        other.write(memoryview(b"evil"), 4)
        other.close()
    told.events.clear()
    file.close()
    assert told.last().sha256 == digest(b"inno\0\0\0\0" if way == "by path" else b"innoevil")


def test_no_hash_of_another_file_at_the_old_name() -> None:
    told = Told(MemoryFiles({"/other": b"innocent"}))
    file = told.open(b"/new", NEW)
    file.write(memoryview(b"il"), 2)
    file.write(memoryview(b"ev"), 0)
    told.files.rename(b"/new", b"/hidden", replace=False)
    told.files.rename(b"/other", b"/new", replace=False)
    told.events.clear()
    file.close()
    assert told.last().sha256 == ""
