"""Nothing outside a root is read, listed, looked at or written, whatever links, names and races lead there."""

from __future__ import annotations

import os
import random
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dunnart.sftp import Attributes, LocalFiles, OpenMode

MARK = b"OUTSIDE"
NAMES = (b"a", b"b", b"c", b"marker", b"outside", b"root")
PARTS = st.sampled_from([*NAMES, b"..", b"..", b".", b""])
PATHS = st.builds(
    lambda head, parts: head + b"/".join(parts), st.sampled_from([b"", b"/", b"//"]), st.lists(PARTS, max_size=6)
)
MODES = st.builds(
    OpenMode, read=st.booleans(), write=st.booleans(), append=st.booleans(), create=st.booleans(),
    truncate=st.booleans(), exclusive=st.booleans(),
)  # fmt: skip
NOTHING = Attributes()
RACE_SECONDS = 1.5


class World:
    """A root, and what is around it: a folder with a marked file, whose every change and every sight is noticed."""

    def __init__(self, top: Path) -> None:
        self.top = os.fsencode(top)
        self.root = self.top + b"/root"
        self.outside = self.top + b"/outside"
        os.makedirs(self.root + b"/a/b")
        os.makedirs(self.outside + b"/a")
        for path in (self.top + b"/marker", self.outside + b"/marker", self.outside + b"/a/marker"):
            Path(os.fsdecode(path)).write_bytes(MARK)
        self.files = LocalFiles(os.fsdecode(self.root))
        self.before = self.state()
        self.numbers = {number for _, number, *_ in self.before}

    def state(self) -> list[tuple[object, ...]]:
        """All that is outside, with what any change would change."""
        found: list[tuple[object, ...]] = []
        for folder in (self.top, self.outside, self.outside + b"/a"):
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                status = entry.stat(follow_symlinks=False)
                if entry.name != b"root":
                    found.append((entry.path, status.st_ino, status.st_mode, status.st_nlink, status.st_size,
                                  status.st_uid, status.st_mtime_ns, status.st_ctime_ns))  # fmt: skip
        return found

    def seen(self, status: os.stat_result) -> None:
        assert status.st_ino not in self.numbers, "looked at what is outside"

    def move(self, old: bytes, new: bytes, *, into_a: bool) -> None:
        """Move something inside, as others may at any moment; never through a link, or they were who went out."""
        fd = os.open(self.root, os.O_DIRECTORY)
        try:
            if into_a:
                inner = os.open(b"a", os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                try:
                    os.rename(old, new, src_dir_fd=fd, dst_dir_fd=inner)
                finally:
                    os.close(inner)
            else:
                os.rename(old, new, src_dir_fd=fd, dst_dir_fd=fd)
        finally:
            os.close(fd)

    # What a client may try; errors are as good as success.

    def look(self, path: bytes, *, follow: bool) -> None:
        self.seen(self.files.stat(path, follow=follow))

    def names(self, path: bytes) -> None:
        for _, status in self.files.scan(path):
            self.seen(status)

    def read(self, path: bytes, mode: OpenMode) -> None:
        file = self.files.open(path, mode, NOTHING)
        try:
            self.seen(file.stat())
            buffer = memoryview(bytearray(64))
            if stat.S_ISREG(file.stat().st_mode) and (mode.read or not mode.write):
                assert MARK not in bytes(buffer[: file.read_into(buffer, 0)])
            if mode.write:
                file.write(memoryview(b"client"), 0)
            file.set(Attributes(mode=0o777))
        finally:
            file.close()

    def real(self, path: bytes) -> None:
        found = self.files.real_path(path)
        assert b".." not in found.split(b"/")

    def acts(self, one: bytes, other: bytes, mode: OpenMode, *, flag: bool) -> list[Callable[[], object]]:
        """All that can be asked for with two paths."""
        files = self.files
        return [
            lambda: self.look(one, follow=flag),
            lambda: self.names(one),
            lambda: self.read(one, mode),
            lambda: self.real(one),
            lambda: files.set(one, Attributes(mode=0o700), follow=flag),
            lambda: files.set(one, Attributes(size=3, atime=1, mtime=2), follow=flag),
            lambda: files.set(one, Attributes(atime=1, mtime=2, uid=os.getuid(), gid=os.getgid()), follow=flag),
            lambda: files.remove(one),
            lambda: files.make_directory(one, NOTHING),
            lambda: files.remove_directory(one),
            lambda: files.rename(one, other, replace=flag),
            lambda: files.make_link(one, other, symbolic=flag),
            lambda: files.make_link(one, other, symbolic=False),
            lambda: files.read_link(one),
            lambda: files.statvfs(one),
        ]


def attempt(act: Callable[[], object]) -> None:
    try:
        act()
    except OSError:
        return


class Confinement(RuleBasedStateMachine):
    """A client that makes links that lead out, and tries everything through them."""

    @initialize()
    def begin(self) -> None:
        self.top = tempfile.mkdtemp(prefix="dunnart-")
        self.world = World(Path(self.top))

    def teardown(self) -> None:
        if hasattr(self, "top"):
            del self.world
            shutil.rmtree(self.top)

    @rule(path=PATHS, to=PATHS, up=st.booleans(), outside=st.booleans())
    def link(self, path: bytes, to: bytes, up: bool, outside: bool) -> None:
        to = self.world.top + b"/" + to if outside else b"../" * 5 + to if up else to
        attempt(lambda: self.world.files.make_link(to, path, symbolic=True))

    @rule(one=PATHS, other=PATHS, mode=MODES, flag=st.booleans(), which=st.integers(0, 14))
    def act(self, one: bytes, other: bytes, mode: OpenMode, flag: bool, which: int) -> None:
        attempt(self.world.acts(one, other, mode, flag=flag)[which])

    @rule(path=PATHS, mode=MODES)
    def look_everywhere(self, path: bytes, mode: OpenMode) -> None:
        for follow in (True, False):
            attempt(lambda follow=follow: self.world.look(path, follow=follow))  # type: ignore[misc]
        attempt(lambda: self.world.names(path))
        attempt(lambda: self.world.read(path, mode))

    @rule(old=st.sampled_from(NAMES), new=st.sampled_from(NAMES), inside=st.booleans())
    def others_move_things(self, old: bytes, new: bytes, inside: bool) -> None:
        attempt(lambda: self.world.move(old, new, into_a=inside))

    @invariant()
    def outside_is_as_it_was(self) -> None:
        if hasattr(self, "world"):
            assert self.world.state() == self.world.before


Confinement.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
)
TestConfinement = Confinement.TestCase


def swap(world: World, done: threading.Event, chance: random.Random) -> None:
    """Put links that lead out in the place of a folder and a file, and back, as fast as can be."""
    for name, to in ((b"way", world.outside), (b"up", b".."), (b"to-marker", b"../outside/marker")):
        os.symlink(to, world.root + b"/" + name)
    while not done.is_set():
        name, link = chance.choice([(b"a", b"way"), (b"a", b"up"), (b"marker", b"to-marker")])
        for old, new in ((name, b"kept"), (link, name), (name, link), (b"kept", name)):
            attempt(lambda old=old, new=new: world.move(old, new, into_a=False))  # type: ignore[misc]


def test_races_lead_nowhere(tmp_path: Path) -> None:
    world = World(tmp_path)
    done = threading.Event()
    thread = threading.Thread(target=swap, args=(world, done, random.Random(1)))
    chance = random.Random(0)
    for name in (b"/marker", b"/a/marker", b"/a/a"):
        Path(os.fsdecode(world.root + name)).write_bytes(b"inside")
    paths = [b"a", b"a/a", b"a/marker", b"marker", b"a/../marker", b"a/outside/marker"]
    modes = [OpenMode(read=True), OpenMode(read=True, write=True), OpenMode(write=True, truncate=True)]
    thread.start()
    succeeded = 0
    try:
        end = time.monotonic() + RACE_SECONDS
        while time.monotonic() < end:
            # What takes names away would soon leave nothing to swap: that is left to the machine above.
            acts = world.acts(chance.choice(paths), b"", chance.choice(modes), flag=chance.random() < 0.5)[:7]
            acts.append(lambda: world.read(b"a/new", OpenMode(write=True, create=True)))
            try:
                chance.choice(acts)()
                succeeded += 1
            except OSError:
                continue
    finally:
        done.set()
        thread.join()
    assert succeeded > 10
    assert world.state() == world.before


@pytest.mark.parametrize("path", [b"marker", b"a/marker", b"a", b"a/new"])
@pytest.mark.parametrize("which", range(7))
@pytest.mark.parametrize("mode", [OpenMode(read=True), OpenMode(write=True, create=True, truncate=True)])
def test_a_link_in_the_place_of_what_was_looked_at_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: bytes, which: int, mode: OpenMode
) -> None:
    """The same at the worst moment: each name is swapped for a link right after it was seen to be none."""
    world = World(tmp_path)
    swaps = {b"a": b"../outside", b"marker": world.outside + b"/marker", b"new": world.outside + b"/new"}
    for name in (b"/marker", b"/a/marker"):
        Path(os.fsdecode(world.root + name)).write_bytes(b"inside")
    real, swapped = os.readlink, []

    def read_link(part: bytes, *, dir_fd: int | None = None) -> bytes:
        try:
            return real(part, dir_fd=dir_fd)
        finally:
            if part in swaps:
                swapped.append(part)
                attempt(lambda: os.rename(part, b"kept", src_dir_fd=dir_fd, dst_dir_fd=dir_fd))
                os.symlink(swaps.pop(part), part, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "readlink", read_link)
        attempt(world.acts(path, b"", mode, flag=True)[which])
    assert swapped
    assert world.state() == world.before
