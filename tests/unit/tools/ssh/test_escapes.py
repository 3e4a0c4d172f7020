"""Escapes among what is typed."""

from __future__ import annotations

import pytest

from dunnart.tools.ssh.escapes import Escape, Escapes, escape_character


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (b"~.", [Escape.DISCONNECT]),
        (b"a~.", [b"a~."]),
        (b"ls\r~.", [b"ls\r", Escape.DISCONNECT]),
        (b"\n~\x1ax", [b"\n", Escape.SUSPEND, b"x"]),
        (b"~~.", [b"~."]),
        (b"~~\r~#", [b"~\r", Escape.LIST]),
        (b"~x~.", [b"~x~."]),
        (b"~\r~?", [b"~\r", Escape.HELP]),
        (b"~#~.", [Escape.LIST, Escape.DISCONNECT]),
        (b"~", []),
    ],
)
def test_escapes(typed: bytes, found: list[bytes | Escape]) -> None:
    assert Escapes().receive(typed) == found
    one = Escapes()
    single = [each for number in typed for each in one.receive(bytes((number,)))]
    joined: list[bytes | Escape] = []
    for each in single:
        if isinstance(each, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += each
        else:
            joined.append(each)
    assert joined == found


def test_the_character_can_be_another() -> None:
    assert [escape_character(text) for text in ("~", "^B", "none", "%")] == ["~", "\x02", None, "%"]
    assert Escapes(b"%").receive(b"~.\r%.") == [b"~.\r", Escape.DISCONNECT]
    for wrong in ("ab", "^1", "ä"):
        with pytest.raises(ValueError, match="is no character"):
            escape_character(wrong)
