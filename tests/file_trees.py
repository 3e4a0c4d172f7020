"""Trees of files with odd names: made, and compared with their copies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def make_tree(folder: Path, names: Sequence[str]) -> Path:
    """Fill a new folder: `sub` has files of these names, each larger than the one before, and a folder `empty`."""
    (folder / "sub/empty").mkdir(parents=True)
    for number, name in enumerate(names):
        path = folder / "sub" / name
        path.write_bytes(os.urandom(number * 70_000))
        path.chmod(0o604)
        os.utime(path, (1_000_000, 2_000_000 + number))
    return folder


def assert_same(one: Path, other: Path, *, preserved: bool = True) -> None:
    """See that a tree is a copy of one that `make_tree` has made; `preserved`: with its times and permissions."""
    names = sorted(os.listdir(one / "sub"))
    assert sorted(os.listdir(other / "sub")) == names
    assert len(names) > 1
    for name in names:
        found, wanted = other / "sub" / name, one / "sub" / name
        if name == "empty":
            assert os.listdir(found) == []
            continue
        assert found.read_bytes() == wanted.read_bytes()
        if preserved:
            assert found.stat().st_mode == wanted.stat().st_mode
            assert int(found.stat().st_mtime) == int(wanted.stat().st_mtime)
