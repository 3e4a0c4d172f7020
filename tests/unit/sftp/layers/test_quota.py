"""No way of making a file larger, or of making more of them, gets past a quota."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dunnart.sftp import Attributes, File, FileSystem, LocalFiles, MemoryFiles, OpenMode, Quota
from tests.unit.sftp.stores import Stored, in_memory

READ, WRITE = OpenMode(read=True), OpenMode(write=True)
NEW = OpenMode(write=True, create=True, truncate=True)
APPEND = OpenMode(write=True, append=True)
NOTHING = Attributes()
LIMIT = 1000


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "local"])
def inside(request: pytest.FixtureRequest, tmp_path: Path) -> FileSystem:
    return MemoryFiles() if request.param == "memory" else LocalFiles(str(tmp_path))


@pytest.fixture
def files(inside: FileSystem, clock: Clock) -> Quota:
    return Quota(inside, largest_bytes=LIMIT, most_files=10, clock=clock)


def put(files: FileSystem, path: bytes, size: int, mode: OpenMode = NEW, at: int = 0) -> None:
    file = files.open(path, mode, NOTHING)
    try:
        if size:
            file.write(memoryview(bytes(size)), at)
    finally:
        file.close()


def full(act: Callable[[], object]) -> None:
    with pytest.raises(OSError, match="quota") as caught:
        act()
    assert caught.value.errno == errno.EDQUOT


def room(files: FileSystem) -> int:
    """How many bytes can still be written, found out by writing them."""
    put(files, b"probe", 0)
    file = files.open(b"probe", WRITE, NOTHING)
    low, high = 0, LIMIT + 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            file.set(Attributes(size=middle))
            low = middle
        except OSError:
            high = middle
    file.close()
    files.remove(b"probe")
    return low


def test_writing(files: Quota) -> None:
    put(files, b"a", 600)
    full(lambda: put(files, b"b", 401))
    put(files, b"b", 400)
    full(lambda: put(files, b"b", 1, APPEND))
    full(lambda: put(files, b"b", 1, WRITE, at=400))
    put(files, b"b", 400, WRITE)  # over what is there
    assert room(files) == 0
    put(files, b"a", 0)  # truncated
    assert room(files) == 600


def test_sizes_and_holes(files: Quota) -> None:
    put(files, b"a", 0)
    full(lambda: files.set(b"a", Attributes(size=LIMIT + 1), follow=True))
    full(lambda: put(files, b"a", 1, WRITE, at=LIMIT))
    full(lambda: put(files, b"a", 1, WRITE, at=1 << 40))
    files.set(b"a", Attributes(size=LIMIT), follow=True)
    assert room(files) == 0
    files.set(b"a", Attributes(size=300), follow=True)
    assert room(files) == 700
    file = files.open(b"a", WRITE, NOTHING)
    full(lambda: file.set(Attributes(size=LIMIT + 1)))
    file.set(Attributes(size=10))
    file.close()
    assert room(files) == 990


def test_removing_and_renaming(files: Quota) -> None:
    put(files, b"a", 600)
    put(files, b"b", 300)
    files.rename(b"a", b"c", replace=False)
    assert room(files) == 100
    files.rename(b"c", b"b", replace=True)  # 300 bytes are gone
    assert room(files) == 400
    files.rename(b"b", b"b", replace=True)
    assert room(files) == 400
    files.remove(b"b")
    assert room(files) == LIMIT
    for path in (b"b", b"no"):
        with pytest.raises(FileNotFoundError):
            files.remove(path)
    assert room(files) == LIMIT


def test_hard_links(files: Quota, clock: Clock) -> None:
    put(files, b"a", 900)
    files.make_link(b"a", b"b", symbolic=False)
    assert room(files) == 100
    files.remove(b"a")
    assert room(files) == 100
    files.make_link(b"b", b"c", symbolic=False)
    files.rename(b"b", b"c", replace=True)  # two names of one file: nothing happens
    assert room(files) == 100
    clock.now += 1000
    assert room(files) == 100
    files.remove(b"b")
    files.remove(b"c")
    assert room(files) == LIMIT


@pytest.mark.parametrize("mode", [READ, WRITE])
def test_what_is_removed_while_it_is_open_still_counts(files: Quota, clock: Clock, mode: OpenMode) -> None:
    put(files, b"a", 800)
    put(files, b"other", 0)
    opened = [files.open(b"a", mode, NOTHING) for _ in range(2)]
    files.rename(b"other", b"a", replace=True)
    files.remove(b"a")
    assert room(files) == 200
    clock.now += 1000
    assert room(files) == 200
    opened[0].close()
    assert room(files) == 200
    opened[1].abandon()
    assert room(files) == LIMIT


def test_names(files: Quota) -> None:
    for number in range(9):
        files.make_directory(b"%d" % number, NOTHING)
    put(files, b"9", 0)
    put(files, b"9", 0)  # is there
    for act in (
        lambda: put(files, b"x", 0),
        lambda: files.make_directory(b"x", NOTHING),
        lambda: files.make_link(b"9", b"x", symbolic=True),
        lambda: files.make_link(b"9", b"x", symbolic=False),
    ):
        full(act)
    files.remove_directory(b"0")
    files.make_link(b"9", b"x", symbolic=True)
    full(lambda: put(files, b"y", 0))
    files.rename(b"1", b"2", replace=True)
    put(files, b"y", 0)
    full(lambda: put(files, b"z", 0))


def test_what_others_do_is_seen_when_the_last_look_is_old(files: Quota, inside: FileSystem, clock: Clock) -> None:
    inside.make_directory(b"d", NOTHING)
    put(inside, b"d/before", 500)
    assert room(files) == 500
    put(inside, b"d/after", 300)
    clock.now += 9
    assert room(files) == 500
    clock.now += 1
    assert room(files) == 200


def test_what_is_too_much_already_may_shrink(files: Quota, inside: FileSystem) -> None:
    put(inside, b"a", LIMIT + 500)
    put(files, b"a", 5, WRITE)
    full(lambda: put(files, b"b", 1))
    files.set(b"a", Attributes(size=LIMIT - 1), follow=True)
    put(files, b"b", 1)


def test_a_write_that_fails_is_not_counted(clock: Clock) -> None:
    files = Quota(MemoryFiles(largest_bytes=10_000), largest_bytes=100_000, clock=clock)
    with pytest.raises(OSError, match="No space left"):
        put(files, b"a", 50_000)
    assert files.stat(b"a", follow=True).st_size == 0
    assert files.statvfs(b"/").f_bfree <= 2
    put(files, b"a", 5_000)
    assert files._bytes == 5_000


def test_the_room_that_is_told(files: Quota, clock: Clock) -> None:
    files = Quota(files._files, largest_bytes=1 << 20, most_files=10, clock=clock)
    put(files, b"a", 1 << 19)
    found = files.statvfs(b"/")
    assert (found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize) == (1 << 20, 1 << 19)
    assert (found.f_files, found.f_favail) == (10, 9)


def test_sessions_that_share_it_cannot_exceed_it_together(inside: FileSystem) -> None:
    files = Quota(inside, largest_bytes=LIMIT)
    opened: list[File] = [files.open(b"%d" % number, NEW, NOTHING) for number in range(4)]
    refused = []

    def fill(file: File) -> None:
        for at in range(LIMIT + 1):
            try:
                file.write(memoryview(b"x"), at)
            except OSError as error:
                refused.append(error.errno)
                return

    threads = [threading.Thread(target=fill, args=(file,)) for file in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == [errno.EDQUOT] * 4
    assert sum(file.stat().st_size for file in opened) == LIMIT
    for file in opened:
        file.close()


def test_what_cannot_be_looked_at_stops_growth(tmp_path: Path, clock: Clock) -> None:
    """A tree deeper than a path may be long can be made by renaming; what is in there could not be counted."""
    files = Quota(LocalFiles(str(tmp_path)), largest_bytes=1 << 30, clock=clock)
    deep = b"/".join([b"x" * 200] * 18)
    for top in (b"a", b"b"):
        made = top
        files.make_directory(made, NOTHING)
        for part in deep.split(b"/"):
            made += b"/" + part
            files.make_directory(made, NOTHING)
    files.rename(b"b", b"a/" + deep + b"/b", replace=False)
    put(files, b"f", 1)
    clock.now += 1000
    with pytest.raises(OSError, match=r"cannot be counted.*File name too long") as caught:
        put(files, b"f", 2)
    assert caught.value.errno == errno.EDQUOT
    files.remove(b"f")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
@pytest.mark.parametrize("mode", [0, 0o400, 0o100])
def test_what_may_not_be_looked_at_stops_growth(files: Quota, clock: Clock, mode: int) -> None:
    files.make_directory(b"d", NOTHING)
    put(files, b"d/hidden", 900)
    files.set(b"d", Attributes(mode=mode), follow=True)
    clock.now += 1000
    full(lambda: put(files, b"f", 200))
    files.set(b"d", Attributes(mode=0o700), follow=True)


def test_the_texts_of_links_count(files: Quota, inside: FileSystem, clock: Clock) -> None:
    files.make_link(b"t" * 600, b"/one", symbolic=True)
    full(lambda: files.make_link(b"t" * 600, b"/two", symbolic=True))
    full(lambda: put(files, b"/f", 600))
    files.remove(b"/one")
    put(files, b"/f", 600)
    full(lambda: files.make_link(b"t" * 600, b"/two", symbolic=True))
    files.rename(b"/f", b"/g", replace=True)
    inside.remove(b"/g")
    inside.make_link(b"t" * 600, b"/others", symbolic=True)
    clock.now += 1000
    full(lambda: put(files, b"/f", 600))
    files.make_link(b"t" * 10, b"/h", symbolic=True)
    files.rename(b"/h", b"/others", replace=True)
    put(files, b"/g", 600)


def test_an_empty_write_makes_nothing_larger(files: Quota) -> None:
    put(files, b"a", 10)
    file = files.open(b"a", WRITE, NOTHING)
    file.write(memoryview(b""), 900)
    file.close()
    assert room(files) == 990


# Of a store, what is written is staged until it is closed.


@pytest.fixture
def stored() -> Stored:
    return in_memory()


@pytest.fixture
def store(stored: Stored, clock: Clock) -> Quota:
    return Quota(stored.files, largest_bytes=LIMIT, most_files=3, clock=clock)


def test_what_is_staged_counts_at_every_look(store: Quota, stored: Stored, clock: Clock) -> None:
    file = store.open(b"f", NEW, NOTHING)
    for at in range(0, LIMIT, 250):
        file.write(memoryview(bytes(250)), at)
        clock.now += 60
    full(lambda: file.write(memoryview(b"x"), LIMIT))
    full(lambda: put(store, b"g", 1))
    full(lambda: file.set(Attributes(size=LIMIT + 1)))
    file.sync()
    clock.now += 60
    full(lambda: file.write(memoryview(b"x"), LIMIT))
    file.abandon()
    assert len(stored.content("f")) == LIMIT


def test_what_was_abandoned_is_free_at_once(store: Quota) -> None:
    for _ in range(5):
        file = store.open(b"f", NEW, NOTHING)
        file.write(memoryview(bytes(LIMIT)), 0)
        file.abandon()
    put(store, b"f", LIMIT)


def test_what_a_store_replaces_is_free_when_it_is_replaced(store: Quota, stored: Stored) -> None:
    put(store, b"a", 400)
    put(store, b"b", 200)
    replacing = store.open(b"a", NEW, NOTHING)
    replacing.write(memoryview(bytes(400)), 0)
    full(lambda: put(store, b"c", 1))
    replacing.close()
    for _ in range(3):
        put(store, b"a", 400)
    changing = store.open(b"a", WRITE, NOTHING)
    changing.write(memoryview(bytes(500)), 0)  # of which 400 are there
    changing.set(Attributes(size=100))
    full(lambda: put(store, b"b", 501))
    changing.close()
    put(store, b"b", 600)
    assert sorted(len(stored.content(name)) for name in "ab") == [100, 600]


@pytest.mark.parametrize("way", ["truncate", "rename", "remove", "set"])
def test_no_way_round_what_is_staged(store: Quota, stored: Stored, way: str) -> None:
    put(store, b"f", 600)
    put(store, b"tiny", 1)
    file = store.open(b"f" if way in {"truncate", "set"} else b"g", NEW, NOTHING)
    if way == "set":
        with contextlib.suppress(OSError):
            store.set(b"f", Attributes(size=390), follow=True)
    else:
        file.write(memoryview(bytes(390)), 0)
    if way == "rename":
        store.rename(b"tiny", b"g", replace=True)
    elif way == "remove":
        store.remove(b"g")
    full(lambda: put(store, b"more", 300))
    file.close()
    names = [name for name in ("f", "g", "tiny", "more") if stored.has(name)]
    assert sum(len(stored.content(name)) for name in names) <= LIMIT
