from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import RightsConflict
from dunnart.keys import Rights
from dunnart.keys.rights import Permits


@dataclass
class Asked:
    kind: str
    host: str = ""
    port: int = 0
    path: str = ""


KINDS = ("connect", "listen", "connect-unix", "listen-unix", "agent", "x11")


def allowed(rights: Rights) -> set[str]:
    return {kind for kind in KINDS if rights.permits(Asked(kind, "host", 80, "/path"))}


def test_rights_take_away_what_they_name() -> None:
    assert allowed(Rights()) == set(KINDS)
    assert allowed(Rights(port_forwarding=False)) == {"agent", "x11"}
    assert allowed(Rights(agent_forwarding=False)) == set(KINDS) - {"agent"}
    assert allowed(Rights(x11_forwarding=False)) == set(KINDS) - {"x11"}
    assert allowed(Rights.nothing()) == set()
    nothing = Rights.nothing()
    assert not nothing.pty
    assert not nothing.sessions
    assert not nothing.user_rc
    assert not Rights().permits(Asked("tunnel"))  # what is not known


@pytest.mark.parametrize(
    ("rule", "host", "port", "fits"),
    [
        (("db", 5432), "db", 5432, True),
        (("db", 5432), "db", 5433, False),
        (("db", 5432), "DB", 5432, False),  # literal, as in sshd
        (("db", "*"), "db", 1, True),
        (("*", 80), "anything", 80, True),
        (("*", 80), "anything", 81, False),
        (("d*", 80), "db", 80, False),  # no pattern here
        (("::1", 80), "::1", 80, True),
    ],
)
def test_what_may_be_connected_to(rule: tuple[str, int], host: str, port: int, fits: bool) -> None:
    rights = Rights(permit_open=(rule,))
    assert rights.permits(Asked("connect", host, port)) is fits
    assert allowed(rights) - {"connect"} == {"listen", "listen-unix", "agent", "x11"}
    assert not Rights(permit_open=(rule,), port_forwarding=False).permits(Asked("connect", host, port))


@pytest.mark.parametrize(
    ("rule", "host", "port", "fits"),
    [
        (("localhost", 8080), "localhost", 8080, True),
        (("localhost", 8080), "127.0.0.1", 8080, False),
        (("*", 8080), "", 8080, True),
        (("10.*", "*"), "10.1.2.3", 0, True),
        (("10.*", 80), "10.1.2.3", 0, False),  # any port is more than that one
        (("Web?", 1), "wEB1", 1, True),
    ],
)
def test_what_may_be_listened_on(rule: tuple[str, int], host: str, port: int, fits: bool) -> None:
    rights = Rights(permit_listen=(rule,))
    assert rights.permits(Asked("listen", host, port)) is fits
    assert allowed(rights) - {"listen"} == {"connect", "connect-unix", "agent", "x11"}


def test_a_rule_for_all_ports_lets_unix_sockets_pass() -> None:
    assert allowed(Rights(permit_open=(("*", "*"),), permit_listen=(("*", "*"),))) == set(KINDS)


def test_no_rule_fits_where_there_are_none() -> None:
    assert not Rights(permit_open=()).permits(Asked("connect", "h", 1))
    assert not Rights(permit_listen=()).permits(Asked("listen", "h", 1))


FLAGS = ("sessions", "pty", "port_forwarding", "agent_forwarding", "x11_forwarding", "user_rc")


def test_of_two_the_stricter() -> None:
    one = Rights(pty=False, command=b"x", environment=(("A", "1"),), expires=5.0)
    other = Rights(agent_forwarding=False, environment=(("A", "2"), ("B", "3")), expires=4.0)
    both = one.both(other)
    assert both == Rights(
        pty=False, agent_forwarding=False, command=b"x", environment=(("A", "1"), ("B", "3")), expires=4
    )
    assert other.both(one).command == b"x"
    assert Rights().both(Rights()) == Rights() == Rights.all_of([])
    for name in FLAGS:
        missing = Rights(**{name: False})  # type: ignore[arg-type]
        assert Rights().both(missing) == missing.both(Rights()) == missing


def test_two_commands_do_not_go_together() -> None:
    with pytest.raises(RightsConflict, match="b'a' and b'b'"):
        Rights(command=b"a").both(Rights(command=b"b"))
    assert Rights(command=b"a").both(Rights(command=b"a")).command == b"a"


HOSTS = st.sampled_from(["*", "a", "ab", "a*", "*b", "?b", "b"])
PORTS = st.sampled_from(["*", 1, 2])
RULES = st.none() | st.lists(st.tuples(HOSTS, PORTS), max_size=3).map(tuple)


@given(RULES, RULES, st.sampled_from(["a", "ab", "b", "bb", "*", "?b"]), st.integers(0, 2))
def test_what_both_allow_each_allows(one: Permits | None, other: Permits | None, host: str, port: int) -> None:
    for kind in KINDS:
        asked = Asked(kind, host, port)
        first, second = Rights(permit_open=one, permit_listen=one), Rights(permit_open=other, permit_listen=other)
        if first.both(second).permits(asked):
            assert first.permits(asked)
            assert second.permits(asked)
        if kind == "connect" and first.permits(asked) and second.permits(asked):
            assert first.both(second).permits(asked)
