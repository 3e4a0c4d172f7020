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


@pytest.mark.timeout(300)
def test_pages_are_built_and_the_reference_has_every_public_name(tmp_path: Path) -> None:
    """One test, so that one worker builds them, and once."""
    options = ["--fail-on-warning", "--keep-going", "-n", "-q", "-d", str(tmp_path / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, "docs", str(tmp_path / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = tmp_path / "html"
    assert "first server" in (built / "tutorial" / "first-server.html").read_text()
    assert [page for page in built.rglob("*.html") if loads_from_elsewhere(page.read_text())] == []
    inventory = InventoryFile.loads((built / "objects.inv").read_bytes(), uri="").data
    documented = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    assert {module: found for module in BUILT if (found := undocumented(module, documented))} == {}


def loads_from_elsewhere(page: str) -> bool:
    return 'src="http' in page or '<link rel="stylesheet" type="text/css" href="http' in page


def undocumented(module: str, documented: set[str]) -> list[str]:
    """The module's public names that the reference does not have."""
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", None) or [
        name for name, value in vars(loaded).items() if getattr(value, "__module__", None) == module
    ]
    assert len(names) > 3
    # What two packages share is on one page, where it has the name of its home as well.
    homes = {name: f"{getattr(vars(loaded).get(name), '__module__', '')}.{name}" for name in names}
    return [name for name in names if f"{module}.{name}" not in documented and homes[name] not in documented]


def test_short_names_are_listed() -> None:
    page = (ROOT / "docs" / "reference" / "api" / "index.md").read_text()
    assert [name for name in dunnart.__all__ if f"`dunnart.{name} <" not in page] == []
