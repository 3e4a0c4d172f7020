from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import KeyFormatError
from dunnart.keys import KnownHosts, PrivateKey

ONE, TWO, THREE = (PrivateKey.generate("ed25519").public for _ in range(3))


def test_plain_names_and_ports() -> None:
    hosts = KnownHosts(f"# comment\n\nA.example,192.0.2.1 {ONE.line('c')}\n[b.example]:2222 {TWO.line()}\n")
    assert hosts.check("a.example", 22, ONE) == "known"
    assert hosts.check("A.Example", 22, ONE) == "known"
    assert hosts.check("192.0.2.1", 22, ONE) == "known"
    assert hosts.check("a.example", 22, TWO) == "changed"
    assert hosts.check("c.example", 22, ONE) == "unknown"
    assert hosts.check("b.example", 2222, TWO) == "known"
    assert hosts.check("b.example", 2222, ONE) == "changed"
    assert hosts.check("b.example", 22, TWO) == "unknown"
    assert hosts.keys("a.example", 22) == (ONE,)
    assert hosts.entries[0].comment == "c"


def test_a_name_without_port_serves_other_ports_for_the_same_key_only() -> None:
    hosts = KnownHosts(f"a.example {ONE.line()}\n@revoked * {TWO.line()}\n")
    assert hosts.check("a.example", 2222, ONE) == "known"
    assert hosts.check("a.example", 2222, THREE) == "unknown"
    assert hosts.check("a.example", 2222, TWO) == "revoked"


def test_patterns_and_negation() -> None:
    hosts = KnownHosts(f"*.example,!bad.example,h?st {ONE.line()}\n")
    for name, verdict in (
        ("a.example", "known"),
        ("a.b.example", "known"),
        ("bad.example", "unknown"),
        ("host", "known"),
        ("hoost", "unknown"),
        ("example", "unknown"),
    ):
        assert hosts.check(name, 22, ONE) == verdict
    assert KnownHosts(f"!a.example {ONE.line()}").check("b.example", 22, ONE) == "unknown"
    assert KnownHosts(f"[ab].example {ONE.line()}").check("a.example", 22, ONE) == "unknown"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_revoked_keys_win(order: tuple[int, int]) -> None:
    lines = [f"a.example {ONE.line()}", f"@revoked *.example {ONE.line()}"]
    hosts = KnownHosts("\n".join(lines[place] for place in order))
    assert hosts.check("a.example", 22, ONE) == "revoked"
    assert hosts.check("a.example", 22, TWO) == "changed"


def test_tabs_part_words_too() -> None:
    hosts = KnownHosts(f"a.example\t{ONE.line()}\n@revoked\t*\t{TWO.line()}\n")
    assert hosts.check("a.example", 22, ONE) == "known"
    assert hosts.check("a.example", 22, TWO) == "revoked"
    assert hosts.refused == []


def test_authorities_are_not_host_keys() -> None:
    hosts = KnownHosts(f"@cert-authority *.example {ONE.line()}\n")
    assert hosts.check("a.example", 22, ONE) == "unknown"
    assert hosts.authorities("a.example", 22) == (ONE,)
    assert hosts.authorities("a.test", 22) == ()
    assert hosts.keys("a.example", 22) == ()


def test_names_hashed_by_ssh_keygen(keygen: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"a.example {ONE.line()}\n[b.example]:2222 {TWO.line()}\n")
    keygen("-H", "-f", path)
    text = path.read_text()
    assert "example" not in text
    hosts = KnownHosts(text)
    assert hosts.refused == []
    assert hosts.check("a.example", 22, ONE) == "known"
    assert hosts.check("a.example", 22, TWO) == "changed"
    assert hosts.check("b.example", 2222, TWO) == "known"
    assert hosts.check("b.example", 22, TWO) == "unknown"


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(("host", "port"), [("a.example", 22), ("B.example", 2222), ("2001:db8::1", 22)])
def test_lines_we_add_are_found_by_ssh_keygen(
    host: str, port: int, hashed: bool, keygen: Callable[..., str], tmp_path: Path
) -> None:
    hosts = KnownHosts()
    line = hosts.add(host, port, ONE, hashed=hashed, comment="me")
    assert hosts.check(host, port, ONE) == "known"
    assert KnownHosts(line).check(host, port, ONE) == "known"
    assert (host.lower() in line) is not hashed
    path = tmp_path / "known_hosts"
    path.write_text(line + "\n")
    name = host.lower() if port == 22 else f"[{host.lower()}]:{port}"
    assert ONE.line() in keygen("-F", name, "-f", path)


@pytest.mark.parametrize("host", ["a b", "a\nb", "a,b", "*", "!a", "|1|", "@revoked", "#"])
def test_names_that_would_mean_something_else_in_the_file(host: str) -> None:
    hosts = KnownHosts()
    with pytest.raises(KeyFormatError):
        hosts.add(host, 22, ONE)
    assert hosts.entries == []


def test_lines_that_are_not_understood_are_listed() -> None:
    bad = [
        f"@other a {ONE.line()}",
        "a.example",
        "a.example ssh-ed25519 AAAA",
        f"|1|x|y {ONE.line()}",
        f"|2|a| {ONE.line()}",
    ]
    hosts = KnownHosts("\n".join([*bad, f"a.example {ONE.line()}"]))
    assert [number for number, _ in hosts.refused] == [1, 2, 3, 4, 5]
    assert hosts.check("a.example", 22, ONE) == "known"


@given(st.text(alphabet="@|1! *?,\n\tab=-[]:é\0"), st.text())
def test_no_text_raises(text: str, host: str) -> None:
    assert KnownHosts(f"{text}\n\n").check(host, 22, ONE) == "unknown"
