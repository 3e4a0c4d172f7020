"""The one file and the Debian package, where nothing of this environment is: another folder, no variables, no home."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dunnart.daemon.config import OPTIONS
from dunnart.keys import PrivateKey
from dunnart.tools.main import USAGE, applets
from shipping import debian, one_file
from tests.interop.support import SECONDS, missing, program

PYTHON = Path(os.path.realpath(sys.executable))
"""The interpreter without the environment's packages."""


class OneFile:
    """The file, with links to it, and a folder that it unpacks itself in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "dunnart.pyz"
        one_file.make(self.path, [], [], quick=True)
        for name in applets():
            (folder / name).symlink_to(self.path.name)
        interpreter = folder / "bin/python3"
        interpreter.parent.mkdir()
        interpreter.symlink_to(PYTHON)
        self.variables = {"PATH": f"{interpreter.parent}:/usr/bin:/bin", "DUNNART_CACHE": str(folder / "cache")}

    def run(
        self, name: str, *arguments: str, status: int = 0, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it by a name of its."""
        done = subprocess.run(
            [str(self.folder / name), *arguments], env=self.variables if variables is None else variables, cwd="/",
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == status, done
        assert "Traceback" not in done.stderr, done
        return done


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> OneFile:
    return OneFile(tmp_path_factory.mktemp("one-file"))


@pytest.fixture(scope="module")
def served(file: OneFile) -> Iterator[tuple[int, str]]:
    """A server that the file is; gives its port and the file with a key that it lets in."""
    key = PrivateKey.generate("ed25519")
    path = file.folder / "key"
    path.touch(0o600)
    path.write_bytes(key.openssh())
    (file.folder / "authorized_keys").write_text(f"{key.public.line()}\n")
    command = [str(file.path), "serve", "--listen", "127.0.0.1:0", "--state-folder", str(file.folder / "state")]
    command += ["--authorized-keys", str(file.folder / "authorized_keys"), "--no-strict-modes"]
    with (file.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=file.variables,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        port = next((found[1] for line in process.stdout if (found := re.match(r"listening on .*:(\d+)", line))), None)
        assert port is not None, (file.folder / "log").read_text()
        yield int(port), str(path)
    finally:
        process.terminate()
        process.wait(SECONDS)
        process.stdout.close()


def test_it_is_every_program_by_its_name(file: OneFile) -> None:
    made = str(file.folder / "made")
    assert "Public key portion is:" in file.run("dropbearkey", "-t", "ed25519", "-f", made).stdout
    file.run("dropbearconvert", "dropbear", "openssh", made, f"{made}.openssh")
    line = PrivateKey.load(Path(made).read_bytes()).public.line()
    assert file.run("ssh-keygen", "-y", "-f", f"{made}.openssh").stdout.strip() == line
    assert "place of Dropbear" in file.run("dropbear", "-V").stderr
    assert "open\n" in file.run("sftp-server", "-Q", "requests").stdout
    assert "a source and a target are wanted" in file.run("scp", status=1).stderr
    assert "no command" in file.run("dunnart.pyz", "frob", status=2).stderr


def test_a_login_with_a_command_and_a_file(file: OneFile, served: tuple[int, str]) -> None:
    """Sessions, SFTP and the client are processes and modules of their own: they are found in the file, too."""
    port, key = served
    options = [
        part for each in (
            f"Port={port}", f"IdentityFile={key}", "IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes",
            "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null",
        ) for part in ("-o", each)
    ]  # fmt: skip
    done = subprocess.run(
        [program("ssh"), "-F", "none", *options, "127.0.0.1", "echo in; exit 7"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (7, "in\n"), (done, (file.folder / "log").read_text())
    (file.folder / "source").write_text("content")
    file.run("scp", *options, str(file.folder / "source"), f"127.0.0.1:{file.folder}/target")
    assert (file.folder / "target").read_text() == "content"
    assert "Traceback" not in (file.folder / "log").read_text()


def test_where_it_unpacks_itself(file: OneFile, tmp_path: Path) -> None:
    file.run("dunnart.pyz", "version")
    (build,) = (file.folder / "cache").iterdir()
    before = build.stat().st_mtime_ns
    file.run("dunnart.pyz", "version")
    assert [*(file.folder / "cache").iterdir()] == [build]
    assert build.stat().st_mtime_ns == before
    # A folder that others can write to is none for programs; one that cannot be made is none at all.
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "temporary").mkdir()
    for place in (tmp_path / "open", Path("/proc/none")):
        variables = file.variables | {"DUNNART_CACHE": str(place), "TMPDIR": str(tmp_path / "temporary")}
        said = file.run("dunnart.pyz", "version", variables=variables)
        assert said.stdout.startswith("dunnart ")
        assert ("can be written by others" in said.stderr) == (place.name == "open")
        assert not place.is_dir() or not [*place.iterdir()]
    assert not [*(tmp_path / "temporary").iterdir()]
    home = file.variables | {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    del home["DUNNART_CACHE"]
    if os.geteuid() != 0:  # root's is /var/cache/dunnart
        file.run("dunnart.pyz", "version", variables=home)
        assert [each.name for each in (tmp_path / ".cache/dunnart").iterdir()] == [build.name]


def test_the_debian_package(tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        missing("dpkg-deb")
    package = debian.make(tmp_path, [], [], quick=True)
    fields = subprocess.run(["dpkg-deb", "-f", package], check=True, capture_output=True, text=True).stdout
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"Depends: python3 (>= {here}), python3 (<< 3.{sys.version_info[1] + 1}), libc6 (>= 2." in fields
    root, control = tmp_path / "root", tmp_path / "control"
    subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    subprocess.run(["dpkg-deb", "-e", package, control], check=True)
    for script in ("postinst", "prerm", "postrm"):
        subprocess.run(["sh", "-n", control / script], check=True)
    assert "systemctl kill --kill-who=main --signal=SIGUSR2" in (control / "postinst").read_text()
    assert (control / "conffiles").read_text() == "/etc/dunnart/dunnart.toml\n"
    installed = root / "usr/lib/dunnart"
    assert sorted(each.name for each in (installed / "bin").iterdir()) == sorted(applets())
    unit = (root / "usr/lib/systemd/system/dunnart.service").read_text()
    assert "ExecStart=/usr/bin/dunnart serve --config /etc/dunnart/dunnart.toml\n" in unit
    starter = installed / "dunnart"
    text = starter.read_text()
    assert text.startswith("#!/usr/bin/python3 -I\n")
    starter.write_text(text.replace("#!/usr/bin/python3", f"#!{PYTHON}").replace("/usr/lib/dunnart", str(installed)))
    done = subprocess.run(
        [root / "usr/bin/dunnart", "config", "--check", "--config", root / "etc/dunnart/dunnart.toml"],
        env={}, cwd="/", capture_output=True, text=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    assert done.stdout == "the configuration is good\n"
    done = subprocess.run(
        [installed / "bin/dropbear", "-V"], env={}, capture_output=True, text=True, timeout=SECONDS, check=True
    )  # fmt: skip
    assert "place of Dropbear" in done.stderr
    manual = {page.name: shown(page) for page in (root / "usr/share/man").glob("man?/*")}
    assert sorted(manual) == [
        "dunnart-authorized_keys.5.gz", "dunnart-scp.1.gz", "dunnart-sftp.1.gz", "dunnart-ssh.1.gz",
        "dunnart-sshd_config.5.gz", "dunnart.1.gz", "dunnart.toml.5.gz",
    ]  # fmt: skip
    commands = re.findall(r"^       dunnart (\S+)$", manual["dunnart.1.gz"], re.MULTILINE)
    assert commands == re.findall(r"^  (\S+) ", USAGE, re.MULTILINE)
    terms = re.findall(r"^       (\w+)(?: |$)", manual["dunnart.toml.5.gz"], re.MULTILINE)
    assert {*OPTIONS} - {*terms} == set()


def shown(page: Path) -> str:
    """What `man` makes of a page, in which groff finds nothing wrong."""
    done = subprocess.run(
        [program("groff"), "-wmac", "-Wbreak", "-Kutf8", "-t", "-man", "-Tutf8", "-P-cbou", "-rLL=80n"],
        input=gzip.decompress(page.read_bytes()), capture_output=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    assert done.stderr == b"", page
    text = done.stdout.decode()
    assert f"\nNAME\n       {Path(page.stem).stem} - " in text
    return text
