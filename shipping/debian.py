"""Makes a Debian package of dunnart with all that it needs beside Python, by dpkg-deb.

    python -m shipping.debian dist [--extra argon2 …] [--python 3.13 …]

It touches no file of openssh's or dropbear's packages: its programs by their names are links in /usr/lib/dunnart/bin.
Sphinx makes the pages of the manual, which docs/conf.py lists, of pages of the documentation.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from dunnart.tools.main import applets
from shipping.one_file import ROOT, closure, fill

_PROGRAM = """\
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/usr/lib/dunnart/packages")
from dunnart.tools.main import main

sys.exit(main())
"""
_CONTROL = """\
Package: dunnart
Version: {version}
Architecture: {architecture}
Maintainer: dunnart contributors <dunnart@localhost>
Installed-Size: {size}
Depends: {depends}
Section: net
Priority: optional
Description: SSH server in Python, in the place of sshd or Dropbear
 Server, client, key generator, key converter, scp and sftp in one program.
 .
 The service is neither enabled nor started: it would want the port that
 another SSH server has. See /usr/share/doc/dunnart/README.Debian.
"""
_README = """\
dunnart for Debian
==================

The configuration is /etc/dunnart/dunnart.toml; dunnart.toml(5) has all options, dunnart(1) the commands.

    systemctl enable --now dunnart          start the server, now and with the system
    systemctl enable --now dunnart.socket   or have systemd listen, and nothing else in memory until somebody comes

In the place of another server: stop that one first (`systemctl disable --now ssh`, or `dropbear`), so that the port is
free. Name its host keys, which are in /etc/ssh or /etc/dropbear, in the option host_key: else clients will warn of a
changed key. `dunnart config import sshd_config /etc/ssh/sshd_config` prints sshd's whole configuration as dunnart's,
host keys included.

Programs of other names are links in /usr/lib/dunnart/bin: put that folder into a PATH, or links to them where the
originals were (dpkg-divert(1)). Files for sysvinit and xinetd are in /usr/share/doc/dunnart/examples.

    dpkg-divert --divert /usr/sbin/dropbear.real --rename /usr/sbin/dropbear
    ln -s /usr/lib/dunnart/bin/dropbear /usr/sbin/dropbear
"""
_CONFIGURATION = """\
# The server's options: `dunnart config` prints all of them, `dunnart config --check --config FILE` reads this file.

listen = ["*:22"]

# Clients warn of a changed host key unless the ones that they know already are named here:
# host_key = ["/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_rsa_key"]
"""
_POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    if ! getent passwd dunnart >/dev/null; then
        adduser --quiet --system --group --no-create-home --home /nonexistent --gecos "dunnart SSH server" dunnart
    fi
    /usr/bin/python3 -I -m compileall -q /usr/lib/dunnart/packages || true
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload || true
        if [ -n "$2" ]; then
            # what runs has the new program take over, and sessions live on
            systemctl kill --kill-who=main --signal=SIGUSR2 dunnart.service 2>/dev/null || true
        fi
    fi
fi
"""
_PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl stop dunnart.service dunnart.socket || true
fi
find /usr/lib/dunnart/packages -depth -name __pycache__ -type d -exec rm -rf {} +
"""
_POSTRM = """\
#!/bin/sh
set -e
if [ "$1" = purge ]; then
    rm -rf /var/lib/dunnart /var/cache/dunnart
    if command -v deluser >/dev/null; then
        deluser --quiet --system dunnart || true
    fi
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
"""


def depends(extras: list[str], pythons: list[str]) -> str:
    """Give what the package needs: the versions of Python that cffi's library is there for, the C library's."""
    versions = sorted({sys.version_info[:2], *(tuple(map(int, each.split("."))) for each in pythons)})
    newest = versions[-1]
    glibc = (2, 17)
    for distribution in closure(extras):
        tags = distribution.read_text("WHEEL") or ""
        for major, minor in re.findall(r"^Tag: .*manylinux_(\d+)_(\d+)_", tags, re.MULTILINE):
            glibc = max(glibc, (int(major), int(minor)))
    return (
        f"python3 (>= {versions[0][0]}.{versions[0][1]}), python3 (<< {newest[0]}.{newest[1] + 1}), "
        f"libc6 (>= {glibc[0]}.{glibc[1]}), adduser"
    )


def manual(folder: Path) -> None:
    """Lay the pages of the manual out; what the reference of the API would take to read is left out."""
    options = ["include_patterns=reference/*.md,how-to/*.md", "root_doc=reference/commands"]
    options += ["suppress_warnings=myst.xref_missing,toc.not_included"]
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "sphinx", "-b", "man", "-q", "--fail-on-warning", "-d", f"{scratch}/doctrees"]
        command += [part for each in options for part in ("-D", each)]
        subprocess.run([*command, str(ROOT / "docs"), f"{scratch}/man"], check=True)
        for page in Path(scratch, "man").glob("man*/*"):
            target = folder / page.parent.name / f"{page.name}.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(gzip.compress(page.read_bytes(), 9, mtime=0))


def tree(folder: Path, extras: list[str], pythons: list[str], architecture: str) -> None:
    """Lay the package's files out in a folder."""
    packages = folder / "usr/lib/dunnart/packages"
    packages.mkdir(parents=True)
    fill(packages, extras, pythons, compiled=False)
    program = folder / "usr/lib/dunnart/dunnart"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    (folder / "usr/bin").mkdir()
    (folder / "usr/bin/dunnart").symlink_to("../lib/dunnart/dunnart")
    (folder / "usr/lib/dunnart/bin").mkdir()
    for name in applets():
        (folder / "usr/lib/dunnart/bin" / name).symlink_to("../dunnart")
    shutil.copytree(ROOT / "packaging/systemd", folder / "usr/lib/systemd/system")
    (folder / "etc/dunnart").mkdir(parents=True)
    (folder / "etc/dunnart/dunnart.toml").write_text(_CONFIGURATION)
    docs = folder / "usr/share/doc/dunnart"
    docs.mkdir(parents=True)
    for name in ("sysvinit", "xinetd"):
        shutil.copytree(ROOT / "packaging" / name, docs / "examples" / name)
    (docs / "README.Debian").write_text(_README)
    (docs / "copyright").write_text((ROOT / "LICENSE").read_text())
    (docs / "changelog.gz").write_bytes(gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), 9, mtime=0))
    manual(folder / "usr/share/man")
    control = folder / "DEBIAN"
    control.mkdir()
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) >> 10
    (control / "control").write_text(
        _CONTROL.format(
            version=metadata.version("dunnart"), architecture=architecture, size=size, depends=depends(extras, pythons)
        )
    )
    (control / "conffiles").write_text("/etc/dunnart/dunnart.toml\n")
    for name, script in (("postinst", _POSTINST), ("prerm", _PRERM), ("postrm", _POSTRM)):
        (control / name).write_text(script)
        (control / name).chmod(0o755)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
        elif path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o111 == 0:
            path.chmod(0o644)


def make(target: Path, extras: list[str], pythons: list[str], *, quick: bool = False) -> Path:
    """Make the package in a folder; `quick`: hardly compressed."""
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"],  # noqa: S607 - wherever it is
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"dunnart_{metadata.version('dunnart')}_{architecture}.deb"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "dunnart")
        before = os.umask(0o022)
        try:
            folder.mkdir()
            tree(folder, extras, pythons, architecture)
        finally:
            os.umask(before)
        how = ["-Zgzip", "-z1"] if quick else ["-Zxz"]
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", *how, "--build", str(folder), str(path)],  # noqa: S607 - likewise
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return path


def main() -> None:
    """Make it as the command line says."""
    parser = argparse.ArgumentParser(description="Makes a Debian package.")
    parser.add_argument("target", type=Path, help="the folder")
    parser.add_argument("--extra", action="append", default=[], help="an extra of dunnart's to take in, as argon2")
    parser.add_argument("--python", action="append", default=[], help="a further version of Python that it is for")
    given = parser.parse_args()
    made = make(given.target, given.extra, given.python)
    print(f"{made}: {made.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main()
