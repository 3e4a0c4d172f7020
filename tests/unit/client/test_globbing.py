"""Patterns of paths as OpenSSH's sftp has them."""

from __future__ import annotations

import pytest

from dunnart.client.globbing import matches


@pytest.mark.parametrize(
    ("name", "pattern", "found"),
    [
        ("abc", "a*", True), ("abc", "a?c", True), ("abc", "[a-b]bc", True), ("abc", "[!a]bc", False),
        (".abc", "*", False), (".abc", ".*", True), ("a*c", r"a\*c", True), ("abc", r"a\*c", False),
        ("[x]", r"\[x]", True), ("x", r"\[x]", False), ("a\\b", r"a\\b", True), ("ABC", "abc", False),
        ("a\nb", "a?b", True),
    ],
)  # fmt: skip
def test_patterns(name: str, pattern: str, found: bool) -> None:
    assert matches(name, pattern) is found
