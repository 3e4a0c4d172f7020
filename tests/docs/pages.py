"""The documentation's pages and the blocks of code in them.

Blocks of ```python are of two kinds. A *program* starts a server: its last line calls `run(…)` or `wait()`. It stands
for itself and is run, and the ```console blocks between it and the next program are played against it. All other blocks
of a page are *fragments*, and go on where the one before ended: they are checked as one module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r'^( *)```(\w+)(?: title="([^"\n]*)")?\n(.*?)^\1```$', re.DOTALL | re.MULTILINE)
_RUNS = re.compile(r"^\S.*\b(run|wait)\(.*\)\n\Z", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: where it stands.
        line: the number of its first line there, from 1.
        language: what it says it is.
        title: the file's name that it shows, if any.
        code: its text.
    """

    page: Path
    line: int
    language: str
    title: str
    code: str

    @property
    def name(self) -> str:
        """Its place, for people."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def program(self) -> bool:
        """It starts a server."""
        return self.language == "python" and _RUNS.search(self.code) is not None


def blocks(page: Path) -> list[Block]:
    """All blocks of a page."""
    text = page.read_text()
    return [
        Block(
            page, text.count("\n", 0, found.start(4)) + 1, found[2], found[3] or "", _dedented(found[4], len(found[1]))
        )
        for found in _BLOCK.finditer(text)
    ]


def all_blocks(language: str) -> list[Block]:
    """All blocks of a language, on all pages."""
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def _dedented(text: str, indent: int) -> str:
    return "".join(line[indent:] for line in text.splitlines(keepends=True))


def modules(page: Path) -> dict[str, str]:
    """The page's Python as modules by name, each line where it stands on the page."""
    stem = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
    made: dict[str, str] = {}
    fragments = ""
    for block in blocks(page):
        if block.language != "python":
            continue
        if block.program:
            made[f"{stem}_program_{block.line}"] = "\n" * (block.line - 1) + block.code
        else:
            fragments += "\n" * (block.line - 1 - fragments.count("\n")) + block.code
    return made | ({f"{stem}_fragments": fragments} if fragments else {})


def transcripts(program: Block) -> list[Block]:
    """The console blocks between a program and the next."""
    found: list[Block] = []
    for block in blocks(program.page):
        if block.line <= program.line:
            continue
        if block.program:
            break
        if block.language == "console":
            found.append(block)
    return found
