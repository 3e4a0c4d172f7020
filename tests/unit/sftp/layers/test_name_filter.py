"""What may be uploaded, by name and size."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from dunnart.sftp import Attributes, MemoryFiles, NameFilter, OpenMode

NEW = OpenMode(write=True, create=True, truncate=True)
NOTHING = Attributes()


def refused(number: int, act: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=r"here|EACCES") as caught:
        act()
    assert caught.value.errno == number


@pytest.fixture
def files() -> NameFilter:
    memory = MemoryFiles({"/there.exe": b"x", "/a.jpg": b"y", "/d/b.png": b"z"})
    return NameFilter(memory, allow=("*.jpg", "*.png"), deny=("secret*",), largest_file_bytes=100)


@pytest.mark.parametrize(
    "path",
    [b"x.exe", b"/x", b".jpg.x", b"secret.jpg", b"SECRET.JPG", b"d/x.exe", b"d/../x.exe", b"x.jpg/../x", b"\xff"],
)
def test_names_that_may_not_be(files: NameFilter, path: bytes) -> None:
    refused(errno.EACCES, lambda: files.open(path, NEW, NOTHING))
    refused(errno.EACCES, lambda: files.rename(b"a.jpg", path, replace=True))
    refused(errno.EACCES, lambda: files.rename(b"a.jpg", path, replace=False))
    for symbolic in (True, False):
        refused(errno.EACCES, lambda symbolic=symbolic: files.make_link(b"a.jpg", path, symbolic=symbolic))  # type: ignore[misc]


@pytest.mark.parametrize("path", [b"x.jpg", b"X.JPG", b"d/\xff\n.png", b"./x.png"])
def test_names_that_may_be(files: NameFilter, path: bytes) -> None:
    files.open(path, NEW, NOTHING).close()
    files.rename(path, b"y.jpg", replace=False)
    files.make_link(b"y.jpg", path, symbolic=False)


def test_slashes_and_dots_at_the_end_hide_nothing(files: NameFilter) -> None:
    for path in (b"x.exe/", b"x.exe/.", b"x.exe//./"):
        refused(errno.EACCES, lambda path=path: files.open(path, NEW, NOTHING))  # type: ignore[misc]
        refused(errno.EACCES, lambda path=path: files.rename(b"a.jpg", path, replace=True))  # type: ignore[misc]


def test_links_hide_nothing(files: NameFilter) -> None:
    files.make_link(b"d/evil.exe", b"link.jpg", symbolic=True)
    files.make_link(b"link.jpg", b"second.jpg", symbolic=True)
    files.make_link(b"d/good.jpg", b"third.jpg", symbolic=True)
    for path in (b"link.jpg", b"second.jpg"):
        refused(errno.EACCES, lambda path=path: files.open(path, NEW, NOTHING))  # type: ignore[misc]
    files.open(b"third.jpg", NEW, NOTHING).close()
    assert {name for name, _ in files.scan(b"d")} == {b".", b"..", b"b.png", b"good.jpg"}


def test_directories_and_what_is_there_have_any_name(files: NameFilter) -> None:
    files.make_directory(b"secret", NOTHING)
    files.rename(b"secret", b"secret.exe", replace=False)
    file = files.open(b"there.exe", OpenMode(read=True, write=True), NOTHING)
    file.write(memoryview(b"changed"), 0)
    file.close()
    files.remove(b"there.exe")


def test_sizes(files: NameFilter) -> None:
    file = files.open(b"a.jpg", NEW, NOTHING)
    file.write(memoryview(bytes(100)), 0)
    refused(errno.EFBIG, lambda: file.write(memoryview(b"x"), 100))
    refused(errno.EFBIG, lambda: file.set(Attributes(size=101)))
    refused(errno.EFBIG, lambda: files.set(b"a.jpg", Attributes(size=101), follow=True))
    appended = files.open(b"a.jpg", OpenMode(write=True, append=True), NOTHING)
    refused(errno.EFBIG, lambda: appended.write(memoryview(b"x"), 0))
    file.set(Attributes(size=99))
    appended.write(memoryview(b"x"), 0)
    assert file.stat().st_size == 100


def test_without_rules_everything_may_be() -> None:
    files = NameFilter(MemoryFiles())
    files.open(b"x.exe", NEW, NOTHING).write(memoryview(bytes(1000)), 0)
    assert files.stat(b"x.exe", follow=True).st_size == 1000
