"""What is public says so, exists, and is documented."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import dunnart

PACKAGE = Path(dunnart.__path__[0])
PUBLIC = ("errors", "keys", "protocol", "sftp", "line_editor", "server", "client", "ecos", "apps", "testing")


def public_modules() -> list[str]:
    """Name the public modules that there are so far."""
    present = [
        name for name in PUBLIC if (PACKAGE / name / "__init__.py").exists() or (PACKAGE / f"{name}.py").exists()
    ]
    return ["dunnart", *(f"dunnart.{name}" for name in present)]


@pytest.mark.parametrize("name", public_modules())
def test_exported_names_exist_and_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert inspect.getdoc(module)
    exported = getattr(module, "__all__", None)
    if exported is None:  # then every name without an underscore that was defined there is public
        exported = sorted(key for key, value in vars(module).items() if getattr(value, "__module__", None) == name)
    else:
        assert list(exported) == sorted(set(exported)), "__all__ is sorted and holds each name once"
    missing = [key for key in exported if not hasattr(module, key)]
    assert missing == []
    undocumented = [
        key
        for key in exported
        if (inspect.isclass(value := getattr(module, key)) or inspect.isroutine(value))
        and not key.startswith("_")
        and not inspect.getdoc(value)
    ]
    assert undocumented == []


def test_every_error_is_a_dunnart_error() -> None:
    errors = importlib.import_module("dunnart.errors")
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    assert len(classes) > 10
    assert [found.__name__ for found in classes if not issubclass(found, errors.DunnartError)] == []
