"""The documentation builds without a warning, and the reference has every public name."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

import dunnart
from tests.docs.pages import ROOT

BUILT = (
    "dunnart.server", "dunnart.sftp", "dunnart.client", "dunnart.client.blocking", "dunnart.keys", "dunnart.errors",
    "dunnart.ecos",
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pages are."""
    folder = tmp_path_factory.mktemp("docs")
    options = ["--fail-on-warning", "--keep-going", "-n", "-q", "-d", str(folder / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, "docs", str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def documented(built: Path) -> set[str]:
    """Every name that the reference has."""
    inventory = InventoryFile.loads((built / "objects.inv").read_bytes(), uri="").data
    return {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}


pytestmark = pytest.mark.timeout(300)


def test_pages_are_built(built: Path) -> None:
    assert "first server" in (built / "tutorial" / "first-server.html").read_text()


def test_pages_load_nothing_from_elsewhere(built: Path) -> None:
    for page in built.rglob("*.html"):
        text = page.read_text()
        assert 'src="http' not in text, page
        assert '<link rel="stylesheet" type="text/css" href="http' not in text, page


@pytest.mark.parametrize("module", BUILT)
def test_reference_has_every_public_name(module: str, documented: set[str]) -> None:
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", None) or [
        name for name, value in vars(loaded).items() if getattr(value, "__module__", None) == module
    ]
    assert len(names) > 3
    # What two packages share is on one page, where it has the name of its home as well.
    homes = {name: f"{getattr(vars(loaded).get(name), '__module__', '')}.{name}" for name in names}
    missing = [name for name in names if f"{module}.{name}" not in documented and homes[name] not in documented]
    assert missing == []


def test_short_names_are_listed() -> None:
    page = (ROOT / "docs" / "reference" / "api" / "index.md").read_text()
    assert [name for name in dunnart.__all__ if f"`dunnart.{name} <" not in page] == []
