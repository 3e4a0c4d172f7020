"""Programs that make backups: borg by a command of its own on our side, restic by SFTP."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.interop.support import MIB, Served, make_blob
from tests.interop.tools import HOST, contents, make_tree, run, ssh


def test_borg(files: Served, tmp_path: Path) -> None:
    made = make_tree(tmp_path / "tree", links=True)
    make_blob(made / "blob", 2 * MIB)
    wanted = contents(made, modes=True, times=True)
    there = f"ssh://{HOST}{tmp_path}/repository"
    settings = {"BORG_RSH": ssh(files), "BORG_BASE_DIR": str(tmp_path / "borg"), "LC_ALL": "C.UTF-8"}

    def borg(*words: str | Path, folder: Path | None = None) -> str:
        return run(files, "borg", *words, variables=settings, folder=folder)

    borg("init", "--encryption=none", there)
    borg("create", f"{there}::one", ".", folder=made)
    borg("check", "--verify-data", there)
    back = tmp_path / "back"
    back.mkdir()
    borg("extract", f"{there}::one", folder=back)
    assert contents(back, modes=True, times=True) == wanted


def test_restic(files: Served, tmp_path: Path) -> None:
    made = make_tree(tmp_path / "tree", links=True)
    make_blob(made / "blob", 2 * MIB)
    wanted = contents(made, modes=True, times=True)
    settings = {"RESTIC_PASSWORD": "secret", "RESTIC_CACHE_DIR": str(tmp_path / "cache"),
                "RESTIC_REPOSITORY": f"sftp:{HOST}:{tmp_path}/repository"}  # fmt: skip

    def restic(*words: str | Path) -> str:
        return run(files, "restic", "-o", f"sftp.command={ssh(files)} {HOST} -s sftp", *words, variables=settings)

    restic("init")
    restic("backup", "-q", made)
    (made / "plain").write_bytes(b"changed")
    restic("backup", "-q", made)
    snapshots = sorted(json.loads(restic("snapshots", "--json")), key=lambda each: each["time"])
    assert [each["paths"] for each in snapshots] == [[str(made)], [str(made)]]
    restic("restore", snapshots[0]["id"], "--target", tmp_path / "back")
    assert contents(Path(f"{tmp_path}/back{made}"), modes=True, times=True) == wanted
    restic("forget", "-q", "--prune", "--keep-last", "1")
    shutil.rmtree(tmp_path / "cache")  # so that all is read from there
    assert "no errors were found" in restic("check", "--read-data")
