"""Uploads appear whole, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from dunnart.sftp import Atomic, Attributes, File, LocalFiles, MemoryFiles, OpenMode, SftpServer
from dunnart.sftp.layers.atomic import PREFIX
from dunnart.sftp.messages import HANDLE, INIT, OPEN, VERSION_ANSWER
from dunnart.wire.encoding import string, uint32
from tests.unit.sftp.driver import feed, taken

READ, NEW = OpenMode(read=True), OpenMode(write=True, create=True, truncate=True)
EXCLUSIVE = OpenMode(write=True, create=True, exclusive=True)
NOTHING = Attributes()


@pytest.fixture
def memory() -> MemoryFiles:
    return MemoryFiles({"/old": b"old content"})


@pytest.fixture
def files(memory: MemoryFiles) -> Atomic:
    return Atomic(memory)


def begin(files: Atomic, path: bytes, data: bytes = b"new", mode: OpenMode = NEW) -> File:
    file = files.open(path, mode, NOTHING)
    file.write(memoryview(data), 0)
    return file


def finals(memory: MemoryFiles) -> dict[str, bytes]:
    """What everybody else sees, without hidden files."""
    return {path: data for path, data in memory.contents().items() if PREFIX.decode() not in path}


def test_nobody_sees_half_a_file(files: Atomic, memory: MemoryFiles) -> None:
    made, replaced = begin(files, b"new"), begin(files, b"old")
    assert finals(memory) == {"/old": b"old content"}
    assert len(memory.contents()) == 3
    assert [name for name, _ in files.scan(b"/")] == [b".", b"..", b"old"]
    made.close()
    replaced.close()
    assert memory.contents() == {"/old": b"new", "/new": b"new"}


def test_what_is_abandoned_leaves_nothing(files: Atomic, memory: MemoryFiles) -> None:
    for path in (b"new", b"old"):
        begin(files, path).abandon()
    assert memory.contents() == {"/old": b"old content"}
    assert files.stat(b"old", follow=True).st_size == 11


def test_a_client_that_goes_away_leaves_nothing(memory: MemoryFiles) -> None:
    server = SftpServer(Atomic(memory))
    opening = bytes((OPEN,)) + uint32(1) + string(b"/old") + uint32(2 | 8 | 16) + uint32(0)
    for packet in (bytes((INIT,)) + uint32(3), opening):
        feed(server, string(packet))
    assert [answer[0] for answer in taken(server)] == [VERSION_ANSWER, HANDLE]
    assert len(memory.contents()) == 2
    server.close()
    assert memory.contents() == {"/old": b"old content"}


def test_a_full_disk_is_told_and_leaves_the_old_file(memory: MemoryFiles) -> None:
    memory = MemoryFiles({"/old": b"old content"}, largest_bytes=100_000)
    files = Atomic(memory)
    file = begin(files, b"old")
    with pytest.raises(OSError, match="No space left"):
        file.write(memoryview(bytes(200_000)), 3)
    with pytest.raises(OSError, match=r"discarded.*No space left") as caught:
        file.close()
    assert caught.value.errno == errno.ENOSPC
    assert memory.contents() == {"/old": b"old content"}


def test_a_folder_that_vanished_is_told(files: Atomic, memory: MemoryFiles) -> None:
    files.make_directory(b"d", NOTHING)
    file = begin(files, b"d/f")
    memory.rename(b"d", b"elsewhere", replace=False)
    with pytest.raises(FileNotFoundError):
        file.close()


def test_what_came_into_being_meanwhile(files: Atomic, memory: MemoryFiles) -> None:
    exclusive, plain = begin(files, b"a", mode=EXCLUSIVE), begin(files, b"b")
    for path in (b"/a", b"/b"):
        memory.open(path, NEW, NOTHING).close()
    with pytest.raises(FileExistsError):
        exclusive.close()
    plain.close()
    assert memory.contents() == {"/old": b"old content", "/a": b"", "/b": b"new"}


def test_changing_and_appending_happen_in_place(files: Atomic, memory: MemoryFiles) -> None:
    changed = files.open(b"old", OpenMode(write=True), NOTHING)
    changed.write(memoryview(b"OLD"), 0)
    assert memory.contents() == {"/old": b"OLD content"}
    changed.close()
    appended = files.open(b"old", OpenMode(write=True, append=True), NOTHING)
    appended.write(memoryview(b"!"), 0)
    assert memory.contents() == {"/old": b"OLD content!"}
    appended.close()


def test_what_scp_overwrites_without_truncating_it_stays_until_the_end(files: Atomic, memory: MemoryFiles) -> None:
    how = OpenMode(write=True, create=True)
    for end in ("abandon", "close"):
        file = files.open(b"old", how, NOTHING)
        file.write(memoryview(b"OLD"), 0)
        assert memory.contents()["/old"] == b"old content"
        getattr(file, end)()
    assert memory.contents() == {"/old": b"OLD content"}


def test_the_final_name_reaches_the_upload(files: Atomic, memory: MemoryFiles) -> None:
    files.make_directory(b"d", NOTHING)
    files.make_link(b"d", b"link", symbolic=True)
    file = begin(files, b"d/f", b"12345")
    for path in (b"d/f", b"/link/f", b"./d/../d/f"):
        assert files.stat(path, follow=True).st_size == 5
    again = files.open(b"d/f", OpenMode(read=True, write=True), NOTHING)
    again.write(memoryview(b"Z"), 4)
    again.close()
    files.set(b"link/f", Attributes(mode=0o600, atime=1, mtime=2), follow=True)
    with pytest.raises(FileExistsError):
        files.open(b"d/f", EXCLUSIVE, NOTHING)
    file.close()
    assert memory.contents()["/d/f"] == b"1234Z"
    status = files.stat(b"d/f", follow=True)
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o600, 2)


def test_removing_it_discards_the_upload(files: Atomic, memory: MemoryFiles) -> None:
    for path in (b"new", b"old"):
        file = begin(files, path)
        files.remove(path)
        with pytest.raises(FileNotFoundError):
            files.stat(path, follow=True)
        file.close()
    assert memory.contents() == {}


@pytest.mark.parametrize("path", [b"new", b"old"])
def test_renaming_it_goes_with_the_upload(files: Atomic, memory: MemoryFiles, path: bytes) -> None:
    files.make_directory(b"d", NOTHING)
    file = begin(files, path)
    files.rename(path, b"d/moved", replace=False)
    assert files.stat(b"d/moved", follow=True).st_size == 3
    with pytest.raises(FileNotFoundError):
        files.stat(path, follow=True)
    file.close()
    assert finals(memory)["/d/moved"] == b"new"
    assert {name for name, _ in memory.scan(b"/")} - {b".", b"..", b"d", b"old"} == set()
    assert ("/old" in memory.contents()) == (path == b"new")


def test_renaming_something_over_it(files: Atomic, memory: MemoryFiles) -> None:
    file = begin(files, b"new")
    with pytest.raises(FileExistsError):
        files.rename(b"old", b"new", replace=False)
    files.rename(b"old", b"new", replace=True)
    file.close()
    assert memory.contents() == {"/new": b"old content"}


def test_renaming_its_folder(files: Atomic, memory: MemoryFiles) -> None:
    files.make_directory(b"d", NOTHING)
    file = begin(files, b"d/f")
    files.rename(b"d", b"e", replace=False)
    assert files.stat(b"e/f", follow=True).st_size == 3
    file.close()
    assert memory.contents() == {"/old": b"old content", "/e/f": b"new"}


def test_the_last_of_two_uploads_counts(files: Atomic, memory: MemoryFiles) -> None:
    first, second = begin(files, b"f", b"first"), begin(files, b"f", b"second")
    second.close()
    first.close()
    assert memory.contents()["/f"] == b"first"


def test_links_are_written_through(files: Atomic, memory: MemoryFiles) -> None:
    files.make_directory(b"d", NOTHING)
    files.make_link(b"../old", b"d/link", symbolic=True)
    files.make_link(b"d/made", b"dangling", symbolic=True)
    for path in (b"d/link", b"dangling"):
        begin(files, path).close()
    assert memory.contents() == {"/old": b"new", "/d/made": b"new"}
    assert files.read_link(b"d/link") == b"../old"


def test_what_is_no_file_is_opened_as_it_is(tmp_path: Path) -> None:
    files = Atomic(LocalFiles())
    file = files.open(b"/dev/null", OpenMode(write=True, truncate=True), NOTHING)
    file.write(memoryview(b"x"), 0)
    file.close()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(IsADirectoryError):
        files.open(os.fsencode(tmp_path), NEW, NOTHING)


def test_a_mode_is_kept_and_never_wider_meanwhile(tmp_path: Path) -> None:
    files = Atomic(LocalFiles(str(tmp_path)))
    (tmp_path / "private").write_bytes(b"")
    (tmp_path / "private").chmod(0o600)
    file = begin(files, b"private")
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o600, 0o600]
    file.close()
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o600]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")
def test_who_may_not_write_a_file_may_not_replace_it(tmp_path: Path) -> None:
    files = Atomic(LocalFiles(str(tmp_path)))
    (tmp_path / "f").write_bytes(b"kept")
    (tmp_path / "f").chmod(0o444)
    with pytest.raises(PermissionError):
        files.open(b"f", NEW, NOTHING)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"kept"]


def test_a_rename_that_fails_forgets_nothing(files: Atomic, memory: MemoryFiles) -> None:
    file = begin(files, b"/new")
    with pytest.raises(FileNotFoundError):
        files.rename(b"/new", b"/nowhere/new", replace=True)
    assert files.stat(b"/new", follow=True).st_size == 3
    file.close()
    assert memory.contents()["/new"] == b"new"


@pytest.mark.parametrize("superseded", [False, True])
def test_an_upload_without_a_name_leaves_nothing_in_a_renamed_folder(
    files: Atomic, memory: MemoryFiles, superseded: bool
) -> None:
    files.make_directory(b"/g", NOTHING)
    file = begin(files, b"/g/new")
    other = begin(files, b"/g/new", b"other") if superseded else None
    if other is None:
        files.remove(b"/g/new")
    files.rename(b"/g", b"/h", replace=False)
    if other is not None:
        other.close()
        file.abandon()
    else:
        file.close()
    found = [name for name in memory.contents() if name.startswith(("/g", "/h"))]
    assert found == (["/h/new"] if superseded else [])
