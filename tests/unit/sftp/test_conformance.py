"""Every file system means the same by the same call: those of Linux, whatever layers are on it.

A file system joins by a line in `SYSTEMS`; what it cannot do stands in `LACKING`, and must then be refused clearly.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dunnart.sftp import (
    Atomic,
    Attributes,
    FileSystem,
    LocalFiles,
    MemoryFiles,
    NameFilter,
    Observed,
    OpenMode,
    Quota,
)
from tests.unit.sftp.stores import in_memory, on_disk

Make = Callable[[Path], FileSystem]


def layered(files: FileSystem) -> FileSystem:
    counted = Quota(files, largest_bytes=1 << 44, most_files=1000)
    return Observed(NameFilter(Atomic(counted), deny=("*.forbidden",)), lambda _: None)


SYSTEMS: dict[str, Make] = {
    "local": lambda folder: LocalFiles(start=str(folder)),
    "root": lambda folder: LocalFiles(str(folder)),
    "memory": lambda _: MemoryFiles(umask=0),
    "memory, quota": lambda _: Quota(MemoryFiles(umask=0), largest_bytes=1 << 44),
    "memory, atomic": lambda _: Atomic(MemoryFiles(umask=0)),
    "memory, all layers": lambda _: layered(MemoryFiles(umask=0)),
    "root, all layers": lambda folder: layered(LocalFiles(str(folder))),
    "store": lambda _: in_memory().files,
    "store on a disk": lambda folder: on_disk(folder / "store").files,
    "store, all layers": lambda _: layered(in_memory().files),
}
_STORE = frozenset({"append", "hard links", "limits", "links", "modes", "room", "sparse", "times"})
LACKING: dict[str, frozenset[str]] = dict.fromkeys(("store", "store on a disk", "store, all layers"), _STORE)
"""By the name of a system: "append" (of two at once), "hard links", "limits" (of names), "links", "modes", "owners",
"room" (that is told), "sparse", "times"."""

READ, WRITE = OpenMode(read=True), OpenMode(write=True)
NEW = OpenMode(write=True, create=True, truncate=True)
BOTH = OpenMode(read=True, write=True, create=True)
NOTHING = Attributes()


class Files:
    """A file system, and short ways to use it."""

    def __init__(self, name: str, files: FileSystem) -> None:
        self.system = files
        self.lacking = LACKING.get(name, frozenset())

    def needs(self, ability: str) -> None:
        if ability in self.lacking:
            pytest.skip(f"{ability} are nothing that this file system has")

    def put(self, path: bytes, data: bytes = b"", mode: OpenMode = NEW, at: int = 0) -> None:
        file = self.system.open(path, mode, NOTHING)
        if data:
            file.write(memoryview(bytearray(data)), at)
        file.close()

    def content(self, path: bytes) -> bytes:
        file = self.system.open(path, READ, NOTHING)
        buffer = memoryview(bytearray(1 << 20))
        found = b""
        while count := file.read_into(buffer, len(found)):
            found += buffer[:count]
        file.close()
        return found

    def names(self, path: bytes) -> set[bytes]:
        return {name for name, _ in self.system.scan(path)} - {b".", b".."}

    def exists(self, path: bytes) -> bool:
        try:
            self.system.stat(path, follow=False)
        except FileNotFoundError:
            return False
        return True


@pytest.fixture(params=SYSTEMS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    folder = tmp_path / "files"
    folder.mkdir()
    before = os.umask(0)
    yield Files(request.param, SYSTEMS[request.param](folder))
    os.umask(before)


def refused(number: int, act: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        act()
    assert caught.value.errno == number, errno.errorcode.get(caught.value.errno or 0)


def test_what_is_written_is_read(files: Files) -> None:
    files.put(b"f", b"hello")
    assert files.content(b"f") == b"hello"
    status = files.system.stat(b"f", follow=True)
    assert stat.S_ISREG(status.st_mode)
    assert status.st_size == 5
    assert "modes" in files.lacking or stat.S_IMODE(status.st_mode) == 0o666
    files.put(b"f", b"J", WRITE)
    assert files.content(b"f") == b"Jello"
    files.put(b"f", b"cut")
    assert files.content(b"f") == b"cut"
    files.put(b"f")
    assert files.content(b"f") == b""


def test_a_handle_reads_what_it_wrote(files: Files) -> None:
    file = files.system.open(b"f", BOTH, NOTHING)
    buffer = memoryview(bytearray(b"x" * 10))
    file.write(memoryview(b"hello"), 0)
    assert file.read_into(buffer, 1) == 4
    assert bytes(buffer[:5]) == b"ellox"
    assert file.read_into(buffer, 5) == 0
    assert file.read_into(buffer, 500) == 0
    assert file.stat().st_size == 5
    file.sync()
    file.close()


def test_written_data_is_the_files_own(files: Files) -> None:
    data = bytearray(b"before")
    file = files.system.open(b"f", NEW, NOTHING)
    file.write(memoryview(data), 0)
    data[:] = b"after!"  # the buffer that requests come in is used again
    file.close()
    assert files.content(b"f") == b"before"


def test_handles_do_only_what_they_were_opened_for(files: Files) -> None:
    files.put(b"f", b"data")
    reading = files.system.open(b"f", READ, NOTHING)
    refused(errno.EBADF, lambda: reading.write(memoryview(b"x"), 0))
    reading.close()
    writing = files.system.open(b"f", WRITE, NOTHING)
    refused(errno.EBADF, lambda: writing.read_into(memoryview(bytearray(4)), 0))
    writing.close()
    assert files.content(b"f") == b"data"


def test_opening(files: Files) -> None:
    refused(errno.ENOENT, lambda: files.system.open(b"f", READ, NOTHING))
    refused(errno.ENOENT, lambda: files.system.open(b"f", OpenMode(write=True, truncate=True), NOTHING))
    refused(errno.ENOENT, lambda: files.system.open(b"d/f", NEW, NOTHING))
    exclusive = OpenMode(write=True, create=True, exclusive=True)
    files.put(b"f", b"1", exclusive)
    refused(errno.EEXIST, lambda: files.system.open(b"f", exclusive, NOTHING))
    refused(errno.ENOTDIR, lambda: files.system.open(b"f/x", NEW, NOTHING))
    refused(errno.EISDIR, lambda: files.system.open(b".", NEW, NOTHING))
    refused(errno.EISDIR, lambda: files.system.open(b"new/", NEW, NOTHING))
    assert files.content(b"f") == b"1"
    assert files.names(b".") == {b"f"}


def test_modes(files: Files) -> None:
    files.needs("modes")
    made = files.system.open(b"f", NEW, Attributes(mode=0o640))
    made.close()
    assert stat.S_IMODE(files.system.stat(b"f", follow=True).st_mode) == 0o640
    files.system.set(b"f", Attributes(mode=0o100604), follow=True)
    files.put(b"f", b"again")  # who replaces the content keeps the mode
    assert stat.S_IMODE(files.system.stat(b"f", follow=True).st_mode) == 0o604
    files.system.make_directory(b"d", Attributes(mode=0o710))
    assert files.system.stat(b"d", follow=True).st_mode == stat.S_IFDIR | 0o710
    file = files.system.open(b"f", BOTH, NOTHING)
    file.set(Attributes(mode=0o600))
    file.close()
    assert files.system.stat(b"f", follow=True).st_mode == stat.S_IFREG | 0o600


def test_times_and_owners(files: Files) -> None:
    files.needs("times")
    files.put(b"f")
    files.system.set(b"f", Attributes(atime=1, mtime=4_000_000_000, uid=os.getuid(), gid=os.getgid()), follow=True)
    status = files.system.stat(b"f", follow=True)
    assert (status.st_atime, status.st_mtime) == (1, 4_000_000_000)
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    file = files.system.open(b"f", NEW, NOTHING)
    file.write(memoryview(b"x"), 0)
    file.set(Attributes(atime=2, mtime=3))
    file.close()
    assert files.system.stat(b"f", follow=True).st_mtime == 3


def test_what_is_set_by_path_before_an_upload_is_closed(files: Files) -> None:
    files.needs("modes")
    file = files.system.open(b"f", NEW, NOTHING)
    file.write(memoryview(b"data"), 0)
    assert files.system.stat(b"f", follow=True).st_size == 4
    files.system.set(b"./f", Attributes(mode=0o600, atime=1, mtime=2, size=3), follow=True)
    file.set(Attributes(atime=1, mtime=2))
    file.close()
    status = files.system.stat(b"f", follow=True)
    assert (stat.S_IMODE(status.st_mode), status.st_mtime, status.st_size) == (0o600, 2, 3)


def test_sizes(files: Files) -> None:
    files.needs("sparse")
    files.put(b"f", b"hello")
    files.system.set(b"f", Attributes(size=2), follow=True)
    files.system.set(b"f", Attributes(size=4), follow=True)
    assert files.content(b"f") == b"he\0\0"
    files.system.set(b"f", Attributes(size=0), follow=True)
    files.put(b"f", b"x", WRITE, at=100_000)
    assert files.content(b"f") == bytes(100_000) + b"x"
    files.system.set(b"f", Attributes(size=65_536), follow=True)
    files.system.set(b"f", Attributes(size=70_000), follow=True)
    assert files.content(b"f") == bytes(70_000)
    refused(errno.EISDIR, lambda: files.system.set(b".", Attributes(size=0), follow=True))


def test_beyond_4_gib(files: Files) -> None:
    files.needs("sparse")
    far = 5 << 30
    files.put(b"f", b"far", OpenMode(write=True, create=True), at=far)
    file = files.system.open(b"f", READ, NOTHING)
    assert file.stat().st_size == far + 3
    buffer = memoryview(bytearray(b"x" * 8))
    assert file.read_into(buffer, far - 1) == 4
    assert bytes(buffer[:4]) == b"\0far"
    file.close()
    files.system.set(b"f", Attributes(size=far + 1), follow=True)
    assert files.system.stat(b"f", follow=True).st_size == far + 1


def test_appending(files: Files) -> None:
    files.needs("append")
    files.put(b"f", b"one")
    file = files.system.open(b"f", OpenMode(write=True, append=True), NOTHING)
    file.write(memoryview(b" two"), 0)
    files.put(b"f", b" and", OpenMode(write=True, append=True))
    file.write(memoryview(b" three"), 100)
    file.close()
    assert files.content(b"f") == b"one two and three"


def test_a_listing_shows_the_directory_above(files: Files) -> None:
    files.needs("modes")
    files.system.make_directory(b"d", NOTHING)
    files.system.make_directory(b"d/e", NOTHING)
    files.system.set(b"d", Attributes(mode=0o751), follow=True)
    assert stat.S_IMODE(dict(files.system.scan(b"d/e"))[b".."].st_mode) == 0o751
    top = dict(files.system.scan(b"/"))
    assert top[b".."].st_mode == top[b"."].st_mode


def test_directories(files: Files) -> None:
    system = files.system
    system.make_directory(b"d", NOTHING)
    system.make_directory(b"d/e/", NOTHING)
    refused(errno.EEXIST, lambda: system.make_directory(b"d", NOTHING))
    refused(errno.EEXIST, lambda: system.make_directory(b"d/.", NOTHING))
    refused(errno.ENOENT, lambda: system.make_directory(b"no/d", NOTHING))
    files.put(b"d/f", b"x")
    listed = dict(system.scan(b"d"))
    assert set(listed) == {b".", b"..", b"e", b"f"}
    assert stat.S_ISDIR(listed[b"e"].st_mode)
    assert listed[b"f"].st_size == 1
    refused(errno.ENOTEMPTY, lambda: system.remove_directory(b"d"))
    refused(errno.ENOTDIR, lambda: system.remove_directory(b"d/f"))
    refused(errno.ENOTDIR, lambda: system.scan(b"d/f"))
    refused(errno.ENOENT, lambda: system.scan(b"no"))
    refused(errno.EISDIR, lambda: system.remove(b"d"))
    refused(errno.EISDIR, lambda: system.remove(b"d/"))
    refused(errno.ENOTDIR, lambda: system.remove(b"d/f/"))
    refused(errno.ENOTDIR, lambda: system.stat(b"d/f/", follow=False))
    system.remove(b"d/f")
    refused(errno.ENOENT, lambda: system.remove(b"d/f"))
    system.remove_directory(b"d/e/")
    system.remove_directory(b"d")
    refused(errno.ENOENT, lambda: system.remove_directory(b"d"))
    assert files.names(b".") == set()


def test_renaming(files: Files) -> None:
    system = files.system
    files.put(b"a", b"a")
    files.put(b"b", b"b")
    refused(errno.EEXIST, lambda: system.rename(b"a", b"b", replace=False))
    system.rename(b"a", b"b", replace=True)
    assert (files.names(b"."), files.content(b"b")) == ({b"b"}, b"a")
    refused(errno.ENOENT, lambda: system.rename(b"a", b"c", replace=True))
    refused(errno.ENOENT, lambda: system.rename(b"a", b"c", replace=False))
    refused(errno.ENOENT, lambda: system.rename(b"b", b"no/c", replace=True))
    system.rename(b"b", b"c", replace=False)
    system.make_directory(b"d", NOTHING)
    system.make_directory(b"d/e", NOTHING)
    system.make_directory(b"empty", NOTHING)
    refused(errno.EISDIR, lambda: system.rename(b"c", b"d", replace=True))
    refused(errno.ENOTDIR, lambda: system.rename(b"d", b"c", replace=True))
    refused(errno.ENOTEMPTY, lambda: system.rename(b"empty", b"d", replace=True))
    refused(errno.EINVAL, lambda: system.rename(b"d", b"d/e/f", replace=True))
    refused(errno.ENOTDIR, lambda: system.rename(b"c", b"x/", replace=True))
    refused(errno.EEXIST, lambda: system.rename(b"d", b"empty", replace=False))
    system.rename(b"d", b"empty", replace=True)
    system.rename(b"empty/", b"moved/", replace=False)
    assert files.names(b".") == {b"c", b"moved"}
    assert files.names(b"moved") == {b"e"}
    system.rename(b"c", b"c", replace=True)
    assert files.content(b"c") == b"a"


def test_symbolic_links(files: Files) -> None:
    files.needs("links")
    system = files.system
    system.make_directory(b"d", NOTHING)
    files.put(b"d/f", b"data")
    system.make_link(b"d", b"link", symbolic=True)
    system.make_link(b"../d/f", b"d/g", symbolic=True)
    assert system.read_link(b"link") == b"d"
    assert files.content(b"link/g") == b"data"
    assert stat.S_ISLNK(system.stat(b"link", follow=False).st_mode)
    assert stat.S_ISDIR(system.stat(b"link", follow=True).st_mode)
    assert stat.S_ISDIR(system.stat(b"link/", follow=False).st_mode)
    assert files.names(b"link/") == {b"f", b"g"}
    refused(errno.EINVAL, lambda: system.read_link(b"d"))
    refused(errno.EEXIST, lambda: system.make_link(b"x", b"link", symbolic=True))
    refused(errno.ENOTDIR, lambda: system.remove_directory(b"link"))
    files.put(b"d/g", b"through")  # what a link points to is written, the link stays
    assert system.read_link(b"d/g") == b"../d/f"
    assert files.content(b"d/f") == b"through"
    system.make_link(b"new", b"dangling", symbolic=True)
    refused(errno.EEXIST, lambda: system.open(b"dangling", OpenMode(write=True, create=True, exclusive=True), NOTHING))
    files.put(b"dangling", b"made")
    assert files.content(b"new") == b"made"
    system.make_link(b"loop", b"loop", symbolic=True)
    refused(errno.ELOOP, lambda: system.stat(b"loop", follow=True))
    refused(errno.ELOOP, lambda: system.stat(b"loop/x", follow=False))
    system.remove(b"link")
    system.rename(b"loop", b"d/g", replace=True)
    assert files.names(b"d") == {b"f", b"g"}


def test_attributes_of_a_link_are_its_own(files: Files) -> None:
    files.needs("links")
    files.put(b"f", b"data")
    files.system.make_link(b"f", b"link", symbolic=True)
    files.system.set(b"link", Attributes(atime=1, mtime=2), follow=False)
    assert files.system.stat(b"link", follow=False).st_mtime == 2
    assert files.system.stat(b"f", follow=False).st_mtime > 2
    refused(errno.EOPNOTSUPP, lambda: files.system.set(b"link", Attributes(mode=0o600), follow=False))
    refused(errno.EINVAL, lambda: files.system.set(b"link", Attributes(size=0), follow=False))
    assert files.content(b"f") == b"data"


def test_hard_links(files: Files) -> None:
    files.needs("hard links")
    system = files.system
    files.put(b"a", b"data")
    system.make_link(b"a", b"b", symbolic=False)
    assert system.stat(b"a", follow=True).st_nlink == 2
    files.put(b"b", b"more", WRITE, at=4)
    system.rename(b"a", b"b", replace=True)  # two names of one file stay
    assert files.content(b"a") == b"datamore"
    refused(errno.EEXIST, lambda: system.rename(b"a", b"b", replace=False))
    system.remove(b"a")
    assert files.content(b"b") == b"datamore"
    system.make_directory(b"d", NOTHING)
    refused(errno.EPERM, lambda: system.make_link(b"d", b"e", symbolic=False))
    refused(errno.EEXIST, lambda: system.make_link(b"b", b"d", symbolic=False))
    refused(errno.ENOENT, lambda: system.make_link(b"no", b"e", symbolic=False))


def test_a_removed_file_stays_open(files: Files) -> None:
    files.needs("hard links")
    files.put(b"f", b"data")
    file = files.system.open(b"f", OpenMode(read=True, write=True), NOTHING)
    files.system.remove(b"f")
    file.write(memoryview(b"more"), 4)
    buffer = memoryview(bytearray(8))
    assert (file.read_into(buffer, 0), bytes(buffer)) == (8, b"datamore")
    file.close()
    assert not files.exists(b"f")


def test_real_paths(files: Files) -> None:
    files.needs("links")
    system = files.system
    top = system.real_path(b".").rstrip(b"/")
    system.make_directory(b"d", NOTHING)
    files.put(b"d/f")
    system.make_link(b"d", b"link", symbolic=True)
    assert system.real_path(b"link//./f") == top + b"/d/f"
    assert system.real_path(b"link/../new") == top + b"/new"
    assert system.real_path(b"link/") == top + b"/d"
    assert system.real_path(b"/../..") == b"/"
    refused(errno.ENOENT, lambda: system.real_path(b"no/x"))
    refused(errno.ENOENT, lambda: system.real_path(b"no/../x"))
    refused(errno.ENOTDIR, lambda: system.real_path(b"d/f/x"))


def test_names_and_paths_have_limits(files: Files) -> None:
    files.needs("limits")
    files.put(b"x" * 255)
    refused(errno.ENAMETOOLONG, lambda: files.put(b"y" * 256))
    refused(errno.ENAMETOOLONG, lambda: files.system.stat(b"./" * 2048 + b"x", follow=True))
    for act in (files.put, files.names, files.system.remove, files.system.real_path):
        refused(errno.EINVAL, lambda act=act: act(b"a\0b"))  # type: ignore[misc]
    files.put(b"\xff\n\\")
    assert files.names(b".") == {b"x" * 255, b"\xff\n\\"}


def test_room_is_told(files: Files) -> None:
    files.needs("room")
    files.put(b"f")
    file = files.system.open(b"f", READ, NOTHING)
    for found in (files.system.statvfs(b"f"), file.statvfs()):
        assert 0 < found.f_bavail <= found.f_blocks
        assert found.f_namemax >= 255
    file.close()
    refused(errno.ENOENT, lambda: files.system.statvfs(b"no"))


def test_an_abandoned_file_is_let_go_of(files: Files, tmp_path: Path) -> None:
    files.put(b"f", b"data")
    before = len(os.listdir("/proc/self/fd"))
    for mode in (READ, WRITE, NEW, BOTH):
        files.system.open(b"f", mode, NOTHING).abandon()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert files.names(b".") == {b"f"}
