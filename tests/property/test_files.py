"""Files in memory, below a root and under a quota are what Linux has in a real folder, whatever is done to them."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dunnart.sftp import Attributes, File, FileSystem, LocalFiles, MemoryFiles, OpenMode, Quota

NAMES = st.sampled_from([b"a", b"b", b"c"])
PARTS = st.one_of(NAMES, NAMES, NAMES, st.sampled_from([b".", b".."]))
PATHS = st.builds(
    lambda parts, end: b"/".join(parts) + end,
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from([b"", b"", b"", b"", b"/", b"/.", b"//"]),
)
TARGETS = st.builds(
    lambda up, parts, end: up + b"/".join(parts) + end,
    st.sampled_from([b"", b"", b"../", b"./"]),
    st.lists(NAMES, min_size=1, max_size=2),
    st.sampled_from([b"", b"", b"", b"/"]),
)
MODES = st.builds(
    OpenMode, read=st.booleans(), write=st.booleans(), append=st.booleans(), create=st.booleans(),
    truncate=st.booleans(), exclusive=st.booleans(),
)  # fmt: skip
SIZES = st.one_of(st.integers(0, 40), st.integers(32_760, 32_780), st.just(100_000))
LENGTHS = st.sampled_from([0, 1, 5, 40_000])
PERMISSIONS = st.sampled_from([0o700, 0o755, 0o644 | 0o700, 0o1777])

START = b"/s" * 12
"""So deep that links and paths, each of which goes up a few folders, do not climb out of it."""
LARGEST = 1 << 40
DIRECT = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
"""Without explaining, which traces every line."""


def outcome(act: Callable[[], object]) -> object:
    """What came of it: a value, or the number of an error."""
    try:
        return act()
    except OSError as error:
        return f"error {errno.errorcode[error.errno or 0]}"


def look(status: os.stat_result) -> tuple[int, ...]:
    """What is the same everywhere; a directory's size and count of links are not."""
    if stat.S_ISDIR(status.st_mode):
        return (status.st_mode,)
    return (status.st_mode, status.st_size, status.st_nlink)


def data(length: int) -> memoryview:
    return memoryview(b"0123456789" * (length // 10 + 1))[:length]


def content(file: File, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    count = file.read_into(buffer, 0)
    return bytes(buffer[:count])


def odd(path: bytes) -> bool:
    """Tell whether a path asks for a directory at its end: more than one thing may be wrong, and kernels differ."""
    return path.endswith((b"/", b"."))


class Files(RuleBasedStateMachine):
    """Does the same to all of them and compares what comes of it; the first is Linux."""

    @initialize()
    def begin(self) -> None:
        self.umask = os.umask(0)
        self.folders = [os.fsencode(tempfile.mkdtemp(prefix="dunnart-")) for _ in range(2)]
        for folder in self.folders:
            os.makedirs(folder + START)
        plain, rooted = self.folders
        start = os.fsdecode(START)
        counted = MemoryFiles(umask=0, start=start)
        self.quota = Quota(counted, largest_bytes=LARGEST)
        self.quota._look()
        self.systems: list[FileSystem] = [
            LocalFiles(start=os.fsdecode(plain + START)), LocalFiles(os.fsdecode(rooted), start=start),
            MemoryFiles(umask=0, start=start), self.quota,
        ]  # fmt: skip
        self.opened: list[list[File]] = []
        self.odd_link = False

    def teardown(self) -> None:
        if hasattr(self, "folders"):
            for files in self.opened:
                for file in files:
                    file.close()
            os.umask(self.umask)
            for folder in self.folders:
                shutil.rmtree(folder)

    def same(self, act: Callable[[FileSystem], object], *, any_error: bool = False) -> object:
        found = [outcome(lambda files=files: act(files)) for files in self.systems]  # type: ignore[misc]
        if any_error:
            found = ["error" if str(each).startswith("error") else each for each in found]
        assert found[1:] == found[:1] * 3
        return found[0]

    def open_files(self, path: bytes, mode: OpenMode, permissions: int) -> list[File] | None:
        files: list[File] = []

        def act(system: FileSystem) -> str:
            files.append(system.open(path, mode, Attributes(mode=permissions)))
            return "opened"

        # Of a directory that is to be created as a file two things are wrong at once.
        return files if self.same(act, any_error=odd(path) or self.odd_link) == "opened" else None

    @rule(path=PATHS, mode=MODES, permissions=PERMISSIONS)
    def open_and_keep(self, path: bytes, mode: OpenMode, permissions: int) -> None:
        files = self.open_files(path, mode, permissions)
        if files is not None:
            self.opened.append(files)

    @rule(path=PATHS, length=LENGTHS, offset=SIZES, truncate=st.booleans())
    def put(self, path: bytes, length: int, offset: int, truncate: bool) -> None:
        files = self.open_files(path, OpenMode(write=True, create=True, truncate=truncate), 0o644)
        for file in files or []:
            if length:
                file.write(data(length), offset)
            file.close()

    @precondition(lambda self: bool(self.opened))
    @rule(which=st.integers(0, 1000), length=st.sampled_from([1, 5, 40_000]), offset=SIZES)
    def write(self, which: int, length: int, offset: int) -> None:
        files = self.opened[which % len(self.opened)]
        found = [outcome(lambda file=file: file.write(data(length), offset)) for file in files]  # type: ignore[misc]
        assert found[1:] == found[:1] * 3

    @precondition(lambda self: bool(self.opened))
    @rule(which=st.integers(0, 1000), size=SIZES, offset=SIZES)
    def read(self, which: int, size: int, offset: int) -> None:
        def act(file: File) -> object:
            buffer = memoryview(bytearray(b"z" * size))
            count = file.read_into(buffer, offset)
            return count, bytes(buffer)

        files = self.opened[which % len(self.opened)]
        if size or not stat.S_ISDIR(files[0].stat().st_mode):
            found = [outcome(lambda file=file: act(file)) for file in files]  # type: ignore[misc]
            assert found[1:] == found[:1] * 3

    @precondition(lambda self: bool(self.opened))
    @rule(which=st.integers(0, 1000), size=SIZES)
    def cut_open_file(self, which: int, size: int) -> None:
        files = self.opened[which % len(self.opened)]
        found = [outcome(lambda file=file: file.set(Attributes(size=size))) for file in files]  # type: ignore[misc]
        assert found[1:] == found[:1] * 3

    @precondition(lambda self: bool(self.opened))
    @rule(which=st.integers(0, 1000))
    def close(self, which: int) -> None:
        files = self.opened.pop(which % len(self.opened))
        looks = [look(file.stat()) for file in files]
        assert looks[1:] == looks[:1] * 3
        for file in files:
            file.close()

    @rule(path=PATHS, permissions=PERMISSIONS)
    def make_directory(self, path: bytes, permissions: int) -> None:
        self.same(lambda files: files.make_directory(path, Attributes(mode=permissions)), any_error=odd(path))

    @rule(path=PATHS)
    def remove_directory(self, path: bytes) -> None:
        if path.rstrip(b"/").endswith(b".."):
            return  # below a root ".." is walked, and then "." is removed: also an error, but another
        self.same(lambda files: files.remove_directory(path), any_error=odd(path))

    @rule(path=PATHS)
    def remove(self, path: bytes) -> None:
        self.same(lambda files: files.remove(path), any_error=odd(path))

    @rule(old=PATHS, new=PATHS, replace=st.booleans())
    def rename(self, old: bytes, new: bytes, replace: bool) -> None:
        # If both paths are wrong, which of them is told may differ.
        self.same(lambda files: files.rename(old, new, replace=replace), any_error=True)

    @rule(to=TARGETS, path=PATHS)
    def make_symbolic_link(self, to: bytes, path: bytes) -> None:
        self.same(lambda files: files.make_link(to, path, symbolic=True), any_error=odd(path))
        self.odd_link = self.odd_link or odd(to)

    @rule(to=PATHS, path=PATHS)
    def make_hard_link(self, to: bytes, path: bytes) -> None:
        self.same(lambda files: files.make_link(to, path, symbolic=False), any_error=True)

    @rule(path=PATHS, permissions=PERMISSIONS, follow=st.booleans())
    def change_mode(self, path: bytes, permissions: int, follow: bool) -> None:
        self.same(lambda files: files.set(path, Attributes(mode=permissions), follow=follow))

    @rule(path=PATHS, when=st.integers(0, 5_000_000_000), follow=st.booleans())
    def change_times(self, path: bytes, when: int, follow: bool) -> None:
        def act(files: FileSystem) -> object:
            files.set(path, Attributes(atime=1, mtime=when), follow=follow)
            return files.stat(path, follow=follow).st_mtime

        self.same(act)

    @rule(path=PATHS, size=SIZES)
    def cut(self, path: bytes, size: int) -> None:
        self.same(lambda files: files.set(path, Attributes(size=size), follow=True))

    @rule(path=PATHS)
    def ask(self, path: bytes) -> None:
        top = self.folders[0]
        self.same(lambda files: look(files.stat(path, follow=True)))
        self.same(lambda files: look(files.stat(path, follow=False)))
        self.same(lambda files: files.read_link(path))
        self.same(lambda files: files.real_path(path).removeprefix(top))
        self.same(lambda files: sorted((name, look(status)) for name, status in files.scan(path) if name != b".."))

    @rule(path=PATHS)
    def read_all(self, path: bytes) -> None:
        def act(files: FileSystem) -> object:
            file = files.open(path, OpenMode(read=True), Attributes())
            try:
                return content(file, 1 << 18)
            finally:
                file.close()

        self.same(act)

    @invariant()
    def usage_is_known(self) -> None:
        if hasattr(self, "quota"):
            kept = self.quota._bytes, self.quota._names
            self.quota._look()
            assert (self.quota._bytes, self.quota._names) == kept


Files.TestCase.settings = settings(max_examples=60, stateful_step_count=40, phases=DIRECT)
TestFiles = Files.TestCase
