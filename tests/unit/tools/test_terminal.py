"""Nothing from elsewhere reaches the terminal raw."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dunnart.tools.terminal import failure, shown


def test_nothing_that_a_terminal_obeys_is_shown() -> None:
    assert shown("plain ünï") == "plain ünï"
    assert shown("a\x1b[31m\n\r\x07\x9b") == r"a\x1b[31m\n\r\x07\x9b"
    assert shown("\u202e\u2028") == r"\u202e\u2028"
    assert shown(b"a\xff\x80b") == r"a\xff\x80b"
    assert failure(FileNotFoundError(2, "no\x1b", b"/x\n")) == r"/x\n: no\x1b"
    assert failure(OSError("just\x07 text")) == r"just\x07 text"


@given(st.text())
def test_what_is_shown_is_one_printable_line(text: str) -> None:
    told = shown(text)
    assert told.isprintable()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", told)
