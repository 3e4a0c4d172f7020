"""The documentation says what the code does, and its examples run."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dunnart.daemon import config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            yield f"{page.relative_to(ROOT)}:{number}", block


def test_generated_pages_are_up_to_date() -> None:
    found = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert found is not None
    assert found.loader is not None
    generate = importlib.util.module_from_spec(found)
    found.loader.exec_module(generate)
    for page, text in generate.pages().items():
        assert page.read_text() == text, f"run python docs/generate.py: {page} is out of date"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    for target, anchor in links:
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = [re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
                        for line in file.read_text().splitlines() if line.startswith("#")]  # fmt: skip
            assert anchor in headings, f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("block", [pytest.param(block, id=where) for where, block in blocks("toml")])
def test_configuration_examples_are_valid(block: str, tmp_path: Path) -> None:
    assert tomllib.loads(block)
    file = tmp_path / "dunnart.toml"
    file.write_text(block)
    assert isinstance(config.load(str(file)), config.ServeConfig)


def test_readme_server_answers_ssh(tmp_path: Path) -> None:
    [(_, code)] = [(where, block) for where, block in blocks("python") if where.startswith("README")]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert "2222" in code
    askpass = tmp_path / "askpass"
    askpass.write_text("#!/bin/sh\necho open sesame\n")
    askpass.chmod(0o700)
    server = subprocess.Popen([sys.executable, "-c", code.replace("2222", str(port))])
    try:
        command = ["ssh", "-F", "none", "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
                   "-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-o", "ConnectionAttempts=20",
                   "-o", "PreferredAuthentications=password", "you@127.0.0.1", "shout"]  # fmt: skip
        environment = os.environ | {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":none"}
        done = subprocess.run(command, input=b"hello\n", capture_output=True, env=environment, timeout=40, check=False)
        assert done.stdout == b"HELLO\n", done.stderr
        assert done.returncode == 0
    finally:
        server.terminate()
        server.wait(10)
