"""Makes `dunnart.pyz`: everything that dunnart needs beside Python 3.11 or newer, in one executable file.

    python -m shipping.one_file dist/dunnart.pyz [--extra argon2 …] [--python 3.13 …]

The packages are those of the environment that this runs in. The one library that is made for one version of Python
alone, cffi's, is fetched for the others that --python names.
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import os
import py_compile
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
_LEFT_OUT = {"pycparser"}  # cffi reads C with it where it is used by itself
_USELESS = {".pyi", ".typed", ".h", ".pyx"}
_TIME = (1980, 1, 1, 0, 0, 0)  # the same content makes the same file


def closure(extras: list[str]) -> list[metadata.Distribution]:
    """Give the installed packages that dunnart needs, without itself."""
    from packaging.requirements import Requirement

    found: dict[str, metadata.Distribution] = {}

    def add(name: str, wanted: tuple[str, ...]) -> None:
        distribution = metadata.distribution(name)
        for text in distribution.requires or ():
            requirement = Requirement(text)
            environments = [{"extra": extra} for extra in ("", *wanted)]
            needed = requirement.marker is None or any(map(requirement.marker.evaluate, environments))
            if needed and requirement.name not in found and requirement.name not in _LEFT_OUT:
                if requirement.name != "dunnart":
                    found[requirement.name] = metadata.distribution(requirement.name)
                add(requirement.name, tuple(requirement.extras))

    add("dunnart", tuple(extras))
    return [*found.values()]


def fill(folder: Path, extras: list[str], pythons: list[str], *, compiled: bool = True) -> None:
    """Put dunnart and all that it needs into a folder; `compiled`: with bytecode for this version of Python."""
    for distribution in closure(extras):
        # Of cffi itself only the library is wanted, by cryptography.
        alone = "_cffi_backend" if distribution.name == "cffi" else ""
        for file in distribution.files or ():
            if ".." in file.parts or file.suffix in {*_USELESS, ".pyc"} or not str(file).startswith(alone):
                continue
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(distribution.locate_file(file)), target)
    for version in pythons:
        fetch_cffi(folder, version)
    wheel(folder)
    if not compiled:
        return
    compileall.compile_dir(
        folder, quiet=2, stripdir=str(folder), prependdir="dunnart.pyz",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip


def fetch_cffi(folder: Path, version: str) -> None:
    """Add cffi's library for another version of Python."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return
    with tempfile.TemporaryDirectory() as scratch:
        wanted = f"cffi=={metadata.version('cffi')}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--python-version", version, "--dest", scratch, wanted]
        subprocess.run(command, check=True)
        (archive,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(archive) as packed:
            for name in packed.namelist():
                if name.startswith("_cffi_backend"):
                    packed.extract(name, folder)


def wheel(folder: Path) -> None:
    """Add dunnart itself, as its wheel has it."""
    import hatchling.build

    with tempfile.TemporaryDirectory() as scratch:
        before = Path.cwd()
        os.chdir(ROOT)
        try:
            name = hatchling.build.build_wheel(scratch)
        finally:
            os.chdir(before)
        with zipfile.ZipFile(Path(scratch, name)) as packed:
            packed.extractall(folder)


def archive(folder: Path, target: Path, level: int) -> str:
    """Pack a folder; gives the digest of what is in it."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(target, "w") as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name, data = str(path.relative_to(folder)), path.read_bytes()
                digest.update(f"{name}\0{len(data)}\0".encode() + data)
                entry = zipfile.ZipInfo(name, _TIME)
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, data, zipfile.ZIP_DEFLATED, level)
    return digest.hexdigest()


def make(target: Path, extras: list[str], pythons: list[str], *, quick: bool = False) -> None:
    """Make the file; `quick`: hardly compressed, and without bytecode."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "packages")
        folder.mkdir()
        fill(folder, extras, pythons, compiled=not quick)
        packages = Path(scratch, "packages.zip")
        build = f"{metadata.version('dunnart')}-{archive(folder, packages, 1 if quick else 9)[:16]}"
        program = (ROOT / "shipping/bootstrap.py").read_text(encoding="utf-8").replace("@BUILD@", build)
        aside = target.with_name(f".{target.name}.new")
        with aside.open("wb") as file:
            file.write(b"#!/usr/bin/env python3\n")
            with zipfile.ZipFile(file, "w") as packed:
                packed.writestr(zipfile.ZipInfo("__main__.py", _TIME), program)
                packed.writestr(zipfile.ZipInfo("packages.zip", _TIME), packages.read_bytes())
        aside.chmod(aside.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        aside.replace(target)


def main() -> None:
    """Make it as the command line says."""
    parser = argparse.ArgumentParser(description="Makes dunnart.pyz.")
    parser.add_argument("target", type=Path)
    parser.add_argument("--extra", action="append", default=[], help="an extra of dunnart's to take in, as argon2")
    parser.add_argument("--python", action="append", default=[], help="a further version of Python that it is for")
    given = parser.parse_args()
    make(given.target, given.extra, given.python)
    print(f"{given.target}: {given.target.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main()
