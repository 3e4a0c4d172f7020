"""Git over SSH: repositories in the user's home."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.interop.support import MIB, Served
from tests.interop.tools import HOST, contents, make_tree, run, ssh

IDENTITY = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org"}
IDENTITY |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in IDENTITY.items()}


def git(server: Served, *words: str | Path, folder: Path | None = None) -> str:
    settings = IDENTITY | {"GIT_SSH_COMMAND": ssh(server), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    return run(server, "git", "-c", "init.defaultBranch=main", *words, folder=folder, variables=settings)


def commit(server: Served, folder: Path, text: str) -> str:
    git(server, "add", "-A", folder=folder)
    git(server, "commit", "-q", "-m", text, folder=folder)
    return git(server, "rev-parse", "HEAD", folder=folder).strip()


def files_of(folder: Path) -> dict[str, object]:
    return {name: entry for name, entry in contents(folder).items() if not name.startswith(".git")}


@pytest.fixture
def repository(files: Served, tmp_path: Path) -> str:
    """An empty one, as a path below the home."""
    name = f"{tmp_path.name}.git"
    git(files, "init", "-q", "--bare", files.home / name)
    return name


def test_push_clone_and_fetch(files: Served, tmp_path: Path, repository: str) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    git(files, "init", "-q", ours)
    make_tree(ours / "tree", links=True)
    first = commit(files, ours, "one")
    git(files, "remote", "add", "origin", f"{HOST}:{repository}", folder=ours)
    git(files, "push", "-q", "-u", "origin", "main", folder=ours)
    git(files, "clone", "-q", f"ssh://{HOST}/~/{repository}", theirs)
    # Git knows no empty folders.
    wanted = {name: entry for name, entry in files_of(ours).items() if name != "tree/empty"}
    assert files_of(theirs) == wanted
    assert git(files, "rev-parse", "HEAD", folder=theirs).strip() == first

    (theirs / "more").write_text("more\n")
    second = commit(files, theirs, "two")
    git(files, "tag", "v1", folder=theirs)
    git(files, "push", "-q", "origin", "main", "v1", folder=theirs)
    git(files, "fetch", "-q", "--tags", folder=ours)
    assert git(files, "rev-parse", "origin/main", "v1^{}", folder=ours).split() == [second, second]
    git(files, "merge", "-q", "--ff-only", "origin/main", folder=ours)
    assert (ours / "more").read_text() == "more\n"
    heads = git(files, "ls-remote", f"{HOST}:{repository}").splitlines()
    assert f"{second}\trefs/heads/main" in heads
    refused = run(files, "git", "push", f"{HOST}:{repository}", f"{first}:main", folder=ours, status=1,
                  variables={"GIT_SSH_COMMAND": ssh(files)})  # fmt: skip
    assert "non-fast-forward" in refused


def test_a_big_pack(files: Served, tmp_path: Path, repository: str) -> None:
    ours = tmp_path / "ours"
    git(files, "init", "-q", ours)
    source = random.Random(1)
    for number in range(200):
        (ours / f"{number}").write_bytes(source.randbytes(20_000))
    (ours / "large").write_bytes(source.randbytes(2 * MIB))
    commit(files, ours, "all")
    git(files, "push", "-q", f"{HOST}:{repository}", "main", folder=ours)
    git(files, "clone", "-q", f"{HOST}:{repository}", tmp_path / "theirs")
    assert files_of(tmp_path / "theirs") == files_of(ours)
    assert git(files, "fsck", "--full", folder=tmp_path / "theirs").strip() == ""


def test_a_part_of_a_history(files: Served, tmp_path: Path, repository: str) -> None:
    ours, shallow = tmp_path / "ours", tmp_path / "shallow"
    git(files, "init", "-q", ours)
    commits = []
    for number in range(5):
        (ours / "f").write_text(f"{number}\n")
        commits.append(commit(files, ours, str(number)))
    git(files, "push", "-q", f"{HOST}:{repository}", "main", folder=ours)
    git(files, "clone", "-q", "--depth", "2", f"{HOST}:{repository}", shallow)
    assert git(files, "rev-list", "HEAD", folder=shallow).split() == commits[:2:-1]
    git(files, "fetch", "-q", "--unshallow", folder=shallow)
    assert git(files, "rev-list", "HEAD", folder=shallow).split() == commits[::-1]
    git(files, "archive", f"--remote={HOST}:{repository}", "-o", tmp_path / "a.tar", "main")
    assert b"4\n" in (tmp_path / "a.tar").read_bytes()
