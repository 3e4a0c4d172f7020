"""Paths at a server: `str` for callers, bytes for the server. A name that is no UTF-8 keeps its bytes (PEP 383)."""

from __future__ import annotations

import os

Path = str | bytes | os.PathLike[str]


def to_bytes(path: Path) -> bytes:
    """What the server gets for a path."""
    text = os.fspath(path)
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def to_text(path: bytes) -> str:
    """What a caller gets for the server's path."""
    return path.decode("utf-8", "surrogateescape")
