from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.keys.patterns import AddressPatterns, matches


@given(st.text("ab*?[", max_size=8), st.text("ab*?[\n", max_size=8))
def test_a_pattern_is_what_its_regular_expression_is(pattern: str, name: str) -> None:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    assert matches(pattern, name) is bool(re.fullmatch(expression, name, re.DOTALL))


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    assert not matches("*a" * 300 + "b", "a" * 1000)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.2.8", "::1", "", "host"]),
        ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.3.0", "2001:db8::1"]),
        ("192.0.2.0/24,!192.0.2.7", ["192.0.2.6"], ["192.0.2.7"]),
        ("!192.0.2.7,192.0.2.0/24", ["192.0.2.6"], ["192.0.2.7"]),
        ("!192.0.2.7", [], ["192.0.2.7", "192.0.2.6"]),  # only what is named is let in
        ("10.*,192.0.2.?", ["10.1.2.3", "192.0.2.7"], ["110.1.2.3", "192.0.2.17"]),
        ("*,!10.0.0.0/8", ["192.0.2.1", "2001:db8::1"], ["10.1.2.3", "::ffff:10.1.2.3"]),
        ("2001:DB8::/32", ["2001:db8::1", "2001:0db8:ffff::"], ["2001:db9::", "192.0.2.1"]),
        ("2001:db8::*", ["2001:db8::7"], ["2001:db9::7"]),
        ("fe80::/10", ["fe80::1%eth0"], ["::1"]),
        ("0.0.0.0/0", ["192.0.2.1"], ["::1"]),
        ("host.example,*.example", [], ["192.0.2.1"]),
    ],
)
def test_addresses(text: str, inside: list[str], outside: list[str]) -> None:
    patterns = AddressPatterns(text)
    assert [address for address in inside if address not in patterns] == []
    assert [address for address in outside if address in patterns] == []


@pytest.mark.parametrize(
    "text",
    ["", ",", "192.0.2.1,", "!", "192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/-1", "192.0.2.0/x",
     "2001:db8::1/64", "*.example/8", "a, b", "x" * 1024],
)  # fmt: skip
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"entry|network|prefix|blank"):
        AddressPatterns(text)


def test_hosts_names_are_told() -> None:
    assert AddressPatterns("192.0.2.*,*.example,!bad.host,fe80::/10").names == ("*.example", "bad.host")
