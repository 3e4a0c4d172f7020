"""What the page about certificates shows happens so."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dunnart.daemon.ways_in import this_user
from tests.docs.pages import ROOT, blocks
from tests.docs.transcripts import play
from tests.examples.driver import SECONDS, program

PAGE = ROOT / "docs" / "how-to" / "certificates.md"


@pytest.mark.interop
@pytest.mark.timeout(120)
def test_the_page_shows_what_happens(tmp_path: Path) -> None:
    ssh = [program("ssh"), "-F", "none", "-o", "LogLevel=ERROR", "-o", "IdentityAgent=none"]
    scripts = {"ssh": shlex.join(ssh), "dunnart": shlex.join([sys.executable, "-m", "dunnart"])}
    for name, script in scripts.items():
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {script} "$@"\n')
        (tmp_path / name).chmod(0o700)
    surroundings = {
        "HOME": str(tmp_path), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "TERM": "xterm",
        "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "error",
    }  # fmt: skip
    user = this_user().name
    found = blocks(PAGE)
    shown = [block.code.replace("ann", user) for block in found if block.language == "console"]
    configuration = next(block.code for block in found if block.language == "toml")
    *before, login, revoked = shown
    assert len(before) == 3
    for block in before:
        play(block, tmp_path, surroundings)
    (tmp_path / "dunnart.toml").write_text(configuration.replace("/etc/dunnart", str(tmp_path)))
    server = subprocess.Popen(
        [sys.executable, "-m", "dunnart", "serve", "--config", "dunnart.toml", "--listen", "127.0.0.1:0",
         "--state-folder", str(tmp_path / "state"), "--authorized-keys", "none", "--control-socket", "off"],
        cwd=tmp_path, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = ""
        for line in server.stdout:
            port = line.strip().rpartition(":")[2] if line.startswith("listening on") else port
            if line.startswith("log in with:"):
                break
        for block in (login, revoked):
            assert "-p 2222 " in block
            play(block.replace("-p 2222 ", f"-p {port} "), tmp_path, surroundings)
        server.terminate()
        assert server.wait(SECONDS) == 0
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
