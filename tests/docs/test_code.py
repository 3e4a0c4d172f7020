"""The code on the documentation's pages runs, and passes the checks that dunnart's own code passes."""

from __future__ import annotations

import ast
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Block, all_blocks, modules, transcripts
from tests.docs.transcripts import play
from tests.examples.driver import SECONDS, HeldPort, program, until

PROGRAMS = [block for block in all_blocks("python") if block.program]
PASSWORD = "open sesame"
"""What every page's server takes."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home, with a key."""
    ssh = tmp_path / ".ssh"
    ssh.mkdir(mode=0o700)
    make = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "id_ed25519")]
    subprocess.run(make, check=True)
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    """What commands and servers find: the user's home, and an ssh that looks at nothing else."""
    folder = home / "bin"
    folder.mkdir()
    ssh = [program("ssh"), "-F", "none", "-i", str(home / ".ssh" / "id_ed25519"), "-o", "StrictHostKeyChecking=no",
           "-o", f"UserKnownHostsFile={home / '.ssh' / 'known_hosts'}", "-o", "NumberOfPasswordPrompts=1"]  # fmt: skip
    scripts = {"ssh": f'exec {shlex.join(ssh)} "$@"', "askpass": f"echo {shlex.quote(PASSWORD)}"}
    for name in ("scp", "sftp"):
        scripts[name] = f'exec {program(name)} -S {folder}/ssh "$@"'
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o700)
    return {
        "HOME": str(home), "PATH": f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LANG": "C.UTF-8", "TERM": "xterm", "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "error",
        "SSH_ASKPASS": str(folder / "askpass"), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":none",
    }  # fmt: skip


@contextmanager
def ports(*shown: str) -> Iterator[Mapping[str, str]]:
    """Ports that nobody else gets, for those that the pages show."""
    held = {each: HeldPort() for each in shown}
    try:
        yield {each: str(port.number) for each, port in held.items()}
    finally:
        for port in held.values():
            port.close()


@contextmanager
def running(code: str, home: Path, environment: Mapping[str, str], port: str) -> Iterator[None]:
    """Run a page's program; when it is told to end it must end well."""
    (home / "server.py").write_text(code)
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "server.py"], cwd=home, env=dict(environment), stdout=output, stderr=output
        )

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", int(port))) == 0

    try:
        until(listens, "the server listens")
        yield
        process.terminate()
        assert process.wait(SECONDS) in {0, -signal.SIGTERM}, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.interop
@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in PROGRAMS])
def test_programs_do_what_the_page_shows(block: Block, home: Path) -> None:
    assert "2222" in block.code, "say where it listens: a fixed port stands for a free one"
    shown = transcripts(block)
    assert any(f"{name} " in each.code for each in shown for name in ("ssh", "scp", "sftp")), (
        "show how the program is used, in a ```console block"
    )
    with ports("2222", "8000") as numbers:

        def on_free_ports(text: str) -> str:
            for each, number in numbers.items():
                text = text.replace(each, number)
            return text

        surroundings = environment(home)
        with running(on_free_ports(block.code), home, surroundings, numbers["2222"]):
            for each in shown:
                play(on_free_ports(each.code), home, surroundings)


def test_there_are_programs() -> None:
    assert len({block.page for block in PROGRAMS}) > 5


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages' code as Python files."""
    folder = tmp_path_factory.mktemp("pages")
    for page in PAGES:
        for name, code in modules(page).items():
            ast.parse(code, name)
            (folder / f"{name}.py").write_text(code)
    return folder


@pytest.mark.timeout(300)
def test_code_is_typed(sources: Path) -> None:
    # A page may show several handlers of one name.
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir",
               str(ROOT / "build" / "mypy-docs"), "--disable-error-code", "no-redef",
               *sorted(map(str, sources.glob("*.py")))]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_code_has_the_form_of_ours(sources: Path, tmp_path: Path) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    rules = ["check", "--isolated", "--target-version", "py311", "--line-length", "120", "--select", "ASYNC,B,E,F,UP,W",
             "--ignore", "E402,F811", "--output-format", "concise", str(sources)]  # fmt: skip
    done = subprocess.run([*ruff, *rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    names = {}
    for number, block in enumerate(all_blocks("python")):
        names[f"block{number}.py"] = block.name
        (tmp_path / f"block{number}.py").write_text(block.code)
    form = ["format", "--isolated", "--line-length", "120", "--diff", str(tmp_path)]
    done = subprocess.run([*ruff, *form], capture_output=True, text=True, check=False)
    text = done.stdout
    for file, name in names.items():
        text = text.replace(str(tmp_path / file), name)
    assert done.returncode == 0, text
