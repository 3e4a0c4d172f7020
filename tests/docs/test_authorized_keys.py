"""What the page about authorized_keys shows of `dunnart authorized-keys check` is what it prints."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from dunnart.keys import PrivateKey
from dunnart.keys.authorized_keys import parse
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


def test_the_lines_that_pages_show_are_understood() -> None:
    key = PrivateKey.generate("ed25519").public.line()
    pages = [PAGE, ROOT / "docs" / "how-to" / "restrict-keys.md"]
    shown = [block.code for page in pages for block in blocks(page) if block.language == "text" and not block.title]
    assert len(shown) > 6
    text = "".join(shown).replace("ssh-ed25519 AAAAC3…", key)
    keys = parse(text, "pages", variables=["WHO"])
    assert keys.refused == ()
    assert len(keys.entries) == text.count(key)
