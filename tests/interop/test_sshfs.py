"""sshfs: a folder of the server mounted, and used as programs use folders."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import Serve
from tests.interop.support import MIB, SECONDS, Served, environment, eventually, make_blob, program
from tests.interop.test_git import commit, files_of, git
from tests.interop.tools import HOST, contents, digest, make_tree, run, ssh_config

EXERCISER = Path(__file__).parent / "file_exerciser.py"


@contextlib.contextmanager
def mounted(server: Served, folder: Path, place: Path) -> Iterator[Path]:
    """Mount the server's `folder` on `place` for as long as the block lasts; where that cannot be, skip and say why."""
    command = program("sshfs")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"sshfs is not tested: /dev/fuse: {error.strerror}")
    place.mkdir()
    process = subprocess.Popen(
        [command, "-f", "-F", ssh_config(server), f"{HOST}:{folder}", place], text=True, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env=environment(server.folder),
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert eventually(lambda: os.path.ismount(place) or process.poll() is not None)
        if process.poll() is not None:
            said = process.stderr.read().strip()
            if "fuse: " in said or "fusermount" in said:
                pytest.skip(f"sshfs is not tested: {said}")
            pytest.fail(said)
        yield place
        subprocess.run([program("fusermount3"), "-u", place], check=True, timeout=SECONDS)
        assert process.wait(SECONDS) == 0
    finally:
        # After a failure it is still mounted, perhaps with nobody behind it, which does not look like a mount.
        subprocess.run(
            [program("fusermount3"), "-q", "-u", "-z", place], capture_output=True, check=False, timeout=SECONDS
        )
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize("how", ["plain", "below a root", "atomic"])
def test_random_use_by_several_programs(files: Served, start: Serve, tmp_path: Path, how: str) -> None:
    there = tmp_path / "there"
    for seed in range(2):
        (there / str(seed)).mkdir(parents=True)
    server, folder = files, there
    if how == "below a root":
        server, folder = start("--plugin", f"sftp.root={there}"), Path("/")
    elif how == "atomic":
        server = start("--plugin", "sftp.atomic=true")
    listed = "" if how == "atomic" else "listed"
    with mounted(server, folder, tmp_path / "mounted") as here:
        running = [
            subprocess.Popen(
                [sys.executable, EXERCISER, here / str(seed), str(seed), "400", listed], text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for seed in range(2)
        ]  # fmt: skip
        try:
            ended = [process.communicate(timeout=SECONDS) for process in running]
        finally:
            for process in running:
                process.kill()
    for seed, (out, err) in enumerate(ended):
        assert err == ""
        told = dict(line.split(" ", 1)[::-1] for line in out.splitlines())
        assert told, seed
        assert {path.name: digest(path) for path in (there / str(seed)).iterdir()} == told


def test_trees_modes_times_and_links(files: Served, tmp_path: Path) -> None:
    made = make_tree(tmp_path / "tree", links=True)
    (made / "a/dangling").unlink()  # sshfs changes owners only of what a link leads to
    wanted = contents(made, modes=True, times=True)
    blob = make_blob(tmp_path / "blob", 4 * MIB)
    there = tmp_path / "there"
    there.mkdir()
    with mounted(files, there, tmp_path / "mounted") as here:
        run(files, "cp", "-a", made, here / "copy")
        run(files, "cp", blob.path, here / "blob")
        os.link(here / "blob", here / "hard")
        (here / "blob").chmod(0o604)
        assert contents(here / "copy", modes=True, times=True) == wanted
        assert os.statvfs(here).f_blocks == os.statvfs(there).f_blocks
        with pytest.raises(FileExistsError):
            (here / "copy").mkdir()
        with pytest.raises(FileNotFoundError):
            (here / "nothing").read_bytes()
        with pytest.raises(OSError, match=r"\[Errno"):
            (here / "copy").rmdir()
    assert contents(there / "copy", modes=True, times=True) == wanted
    assert digest(there / "hard") == blob.sha256
    assert (there / "hard").samefile(there / "blob")
    assert (there / "blob").stat().st_mode & 0o777 == 0o604


def test_git_works_in_a_mounted_folder(files: Served, tmp_path: Path) -> None:
    origin, there = tmp_path / "origin", tmp_path / "there"
    git(files, "init", "-q", origin)
    make_tree(origin / "tree")
    first = commit(files, origin, "one")
    there.mkdir()
    with mounted(files, there, tmp_path / "mounted") as here:
        clone = here / "clone"
        git(files, "clone", "-q", "--no-local", origin, clone)
        assert git(files, "status", "--short", folder=clone) == ""
        (clone / "more").write_text("more\n")
        second = commit(files, clone, "two")
        git(files, "gc", "-q", folder=clone)
        git(files, "fsck", "--full", folder=clone)
    assert git(files, "log", "--format=%H", folder=there / "clone").split() == [second, first]
    (there / "clone/more").unlink()
    assert files_of(there / "clone") == {
        name: entry for name, entry in files_of(origin).items() if name != "tree/empty"
    }


def test_a_large_folder(files: Served, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    names = sorted(f"file {number}" for number in range(1500))
    for name in names:
        (there / name).touch()
    with mounted(files, there, tmp_path / "mounted") as here:
        assert sorted(os.listdir(here)) == names
