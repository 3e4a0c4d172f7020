"""The package of docs/how-to/write-a-plugin.md, built and installed outside the tree, and used by a real client."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from dunnart.daemon.ways_in import this_user
from tests.examples.driver import ROOT, SECONDS, program, until

PAGE = (ROOT / "docs" / "how-to" / "write-a-plugin.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Installed:
    """The package, where Python finds it, and a configuration that uses it."""

    folder: Path
    environment: dict[str, str]

    @property
    def key(self) -> Path:
        """What the user logs in with."""
        return self.folder / "key"

    @property
    def config(self) -> Path:
        """The page's, with the key of the user who runs the test."""
        return self.folder / "dunnart.toml"

    def dunnart(self, *arguments: str) -> list[str]:
        """Give a command line."""
        return [sys.executable, "-m", "dunnart", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run dunnart to its end."""
        return subprocess.run(self.dunnart(*arguments), env=self.environment, capture_output=True, text=True,
                              check=False, timeout=SECONDS)  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("walk-through")
    source, site = folder / "dunnart-greeter", folder / "site"
    (source / "src" / "dunnart_greeter").mkdir(parents=True)
    [project] = blocks('toml title="pyproject.toml"')
    shell, keys, _embedding = blocks("python")
    (source / "pyproject.toml").write_text(project)
    (source / "src" / "dunnart_greeter" / "__init__.py").write_text(f"{shell}\n\n{keys}")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps",
           "--no-build-isolation", "--no-cache-dir", "--root-user-action", "ignore", "--target", str(site),
           str(source)]  # fmt: skip
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    key = folder / "key"
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    [text] = [block for block in blocks("toml") if "[plugin.team.members]" in block]
    member = f"{this_user().name} = {json.dumps(key.with_suffix('.pub').read_text().strip())}"
    text, found = re.subn(r"^ada = .*$", member, text, flags=re.MULTILINE)
    assert found == 1
    (folder / "dunnart.toml").write_text(text)
    path = os.pathsep.join([str(site), str(ROOT / "src")])
    return Installed(folder, os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "error"})


def test_it_is_found(installed: Installed) -> None:
    done = installed.run("plugins", "--config", str(installed.config), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {each["name"]: each for each in json.loads(done.stdout) if each["distribution"] == "dunnart-greeter"}
    assert {name: row["enabled"] for name, row in rows.items()} == {"greeter": ["shell"], "team": ["key_sources"]}
    assert [row["broken"] for row in rows.values()] == [None, None]
    assert rows["greeter"]["options"] == ["greeting", "line_characters"]
    assert Path(rows["greeter"]["file"]).is_relative_to(installed.folder / "site")
    [line] = [line for block in blocks("text") for line in block.splitlines() if line.startswith("shells ")]
    listed = installed.run("plugins", "--config", str(installed.config)).stdout
    assert line.split() in [each.split() for each in listed.splitlines()]


def test_the_message_is_the_pages(installed: Installed) -> None:
    [message] = [block.strip() for block in blocks("text") if block.startswith("dunnart serve: ")]
    wrong = installed.folder / "wrong.toml"
    wrong.write_text(installed.config.read_text().replace("greeting", "greting"))
    done = installed.run("serve", "--config", str(wrong), "--state-folder", str(installed.folder / "state"))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, message.replace("dunnart.toml", str(wrong)))
    assert installed.run("config", "--check", "--config", str(installed.config)).returncode == 0


@pytest.fixture
def port(installed: Installed) -> Iterator[int]:
    """A server with the page's configuration, by flags where the page shows some."""
    arguments = ("serve", "--config", str(installed.config), "--listen", "127.0.0.1:0", "--shell", "greeter",
                 "--state-folder", str(installed.folder / "state"), "--password", "off")  # fmt: skip
    log = installed.folder / "log"
    with log.open("wb") as errors, subprocess.Popen(
        installed.dunnart(*arguments), env=installed.environment, stdout=subprocess.PIPE, stderr=errors, text=True
    ) as server:  # fmt: skip
        assert server.stdout is not None
        yield listening(server.stdout, log)
        server.terminate()
        assert server.wait(SECONDS) == 0


def listening(output: IO[str], log: Path) -> int:
    for line in output:
        if found := re.match(r"listening on 127\.0\.0\.1:(\d+)$", line):
            return int(found[1])
    raise AssertionError(log.read_text())


@pytest.mark.interop
def test_a_client_is_greeted(installed: Installed, port: int) -> None:
    ssh = [program("ssh"), "-F", "none", "-T", "-p", str(port), "-i", str(installed.key), "-o", "BatchMode=yes",
           "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
           "-o", f"UserKnownHostsFile={installed.folder / 'known'}", f"{this_user().name}@127.0.0.1"]  # fmt: skip
    done = subprocess.run(ssh, input=f"hello\n{'x' * 300}\n", capture_output=True, text=True, check=False,
                          timeout=SECONDS)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Good morning, {this_user().name}!\nYou said: hello\nYou said: {'x' * 200}\n"
    for said in (r"debug/plugin\.greeter connection \d+ is greeted$", "ED25519 SHA256:"):
        wanted = re.compile(said, re.MULTILINE)
        until(lambda wanted=wanted: wanted.search((installed.folder / "log").read_text()), f"the log says {said}")  # type: ignore[misc]


@pytest.mark.interop
def test_a_stranger_is_not(installed: Installed, port: int, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    ssh = [program("ssh"), "-F", "none", "-T", "-p", str(port), "-i", str(stranger), "-o", "BatchMode=yes",
           "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
           "-o", f"UserKnownHostsFile={installed.folder / 'known'}", f"{this_user().name}@127.0.0.1"]  # fmt: skip
    done = subprocess.run(ssh, input="", capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 255
    assert "Permission denied" in done.stderr
