"""Lines of commands are cut into words as OpenSSH does it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.client.globbing import has_magic, unescaped
from dunnart.tools.sftp.words import escaped, escaped_word, split


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("get a b", ["get", "a", "b"]),
        ("  get\t'a b'  \"c d\" ", ["get", "a b", "c d"]),
        (r"get a\ b c\'d", ["get", "a b", "c'd"]),
        ("get '*' \"?\" [x]", ["get", r"\*", r"\?", "[x]"]),
        (r"get \* a\\b", ["get", r"\*", r"a\\b"]),
        (r"""get 'it\'s' "a\"b" 'a\nb'""", ["get", "it's", 'a"b', r"a\\nb"]),
        ("put a#b # the rest", ["put", "a#b"]),
        ("# nothing", []),
        ("''", [""]),
        ("a''b", ["ab"]),
        ("", []),
    ],
)
def test_lines_are_cut_as_openssh_does(line: str, words: list[str]) -> None:
    assert split(line) == words


@pytest.mark.parametrize("line", ["get 'a", 'get "a', "get 'a\\", "get a\\"])
def test_what_is_not_closed_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"closed|backslash"):
        split(line)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=4))
def test_any_word_can_be_said(words: list[str]) -> None:
    line = " ".join(escaped_word(escaped(word)) for word in words)
    assert [unescaped(pattern) for pattern in split(line)] == words
    assert not any(has_magic(pattern) for pattern in split(line))
