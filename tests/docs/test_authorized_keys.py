"""What the page about authorized_keys shows of `dunnart authorized-keys check` is what it prints."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from tests.docs.pages import ROOT, blocks
from tests.docs.transcripts import play

PAGE = ROOT / "docs" / "reference" / "authorized-keys.md"


def test_the_page_shows_what_check_prints(tmp_path: Path) -> None:
    found = blocks(PAGE)
    shown = [block for block in found if block.language == "console"]
    file = next(block for block in found if block.title == "authorized_keys")
    assert len(shown) == 1
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "authorized_keys").write_text(file.code)
    program = tmp_path / "dunnart"  # where tests run, folders may be everybody's
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dunnart "$@" --no-strict-modes\n')
    program.chmod(0o700)
    play(shown[0].code, tmp_path, {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "TERM": "xterm",
                                   "PYTHONPATH": str(ROOT / "src")})  # fmt: skip
