"""Packages with plug-ins, as an installer would leave them in a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest


def write_package(
    folder: Path, name: str, modules: Mapping[str, str], entry_points: Mapping[str, Mapping[str, str]],
    version: str = "1.0",
) -> None:  # fmt: skip
    """Write modules and the metadata of an installed package into a folder.

    Args:
        folder: where Python shall look.
        name: the package's.
        modules: their sources.
        entry_points: group → name → "module:attr".
        version: the package's.
    """
    folder.mkdir(exist_ok=True)
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, names in entry_points.items():
        lines += [f"[{group}]", *(f"{each} = {target}" for each, target in names.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


class Site:
    """A folder that this process imports from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, source: str, entry_points: Mapping[str, Mapping[str, str]], version: str = "1.0") -> None:
        """Install a package of one module, which has the package's name."""
        module = name.replace("-", "_")
        write_package(self.folder, name, {module: source}, entry_points, version)


@contextmanager
def imported_from(folder: Path) -> Iterator[Site]:
    """Have this process import from a folder, and forget its modules afterwards."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield Site(folder)
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
