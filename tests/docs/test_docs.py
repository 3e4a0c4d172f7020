"""The documentation says what the code does, and its examples run."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from dunnart.daemon.config import ServeConfig
from dunnart.daemon.loading import load
from tests.docs.pages import PAGES, ROOT, all_blocks


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


@pytest.mark.parametrize(
    "block", [pytest.param(each.code, id=each.name) for each in all_blocks("toml") if not each.title]
)
def test_configuration_examples_are_valid(block: str, tmp_path: Path) -> None:
    assert tomllib.loads(block)
    file = tmp_path / "dunnart.toml"
    file.write_text(block)
    assert isinstance(load(str(file)), ServeConfig)
