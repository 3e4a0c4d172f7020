"""The forwarding policy's rules."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from dunnart.errors import DecodeError
from dunnart.plugins.allow_list import AllowList, Options
from dunnart.plugins.unix_sockets import read_path
from dunnart.server import Address, ConnectionFacts
from dunnart.server.interfaces import Forward
from dunnart.server.plugins import Context
from dunnart.wire.encoding import Reader, string

LOG = logging.getLogger("dunnart.plugin.test")


def policy(*rules: str, **users: str) -> AllowList:
    return AllowList(Context("allow-list", Options(rules, users), LOG))


def forward(
    kind: Any, host: str = "", port: int = 0, *, user: str = "ada", path: str = "", address: str = ""
) -> Forward:
    facts = ConnectionFacts(1, user, Address("192.0.2.7", 1), Address("192.0.2.1", 22))
    return Forward(facts, kind, host, port, path, address)


async def test_everything_is_allowed_unless_it_is_said_otherwise() -> None:
    everything = AllowList(Context("allow-list", Options(), LOG))
    for each in (
        forward("connect", "example.org", 65535), forward("listen", "", 0), forward("connect-unix", path="/a/b"),
        forward("listen-unix", path="/a"), forward("agent"), forward("x11"),
    ):  # fmt: skip
        assert await everything.allows(each)
    assert not await policy().allows(forward("agent"))


@pytest.mark.parametrize(
    ("rule", "host", "port", "address", "allowed"),
    [
        ("connect db.example.org:5432", "DB.example.org", 5432, "192.0.2.9", True),
        ("connect db.example.org:5432", "db.example.org", 5433, "192.0.2.9", False),
        ("connect db.example.org:5432", "db.example.com", 5432, "192.0.2.9", False),
        ("connect *.example.org:80-90", "www.example.org", 90, "192.0.2.9", True),
        ("connect *.example.org:80-90", "www.example.org", 91, "192.0.2.9", False),
        ("connect 192.0.2.0/24:*", "www", 1, "192.0.2.9", True),
        ("connect 192.0.2.0/24:*", "www", 1, "192.0.3.9", False),
        ("connect 192.0.2.9:*", "www", 1, "::ffff:192.0.2.9", True),
        ("connect 192.0.2.*:*", "www", 1, "192.0.2.9", True),
        ("connect [2001:db8::/32]:*", "www", 1, "2001:db8::1", True),
        ("connect [2001:db8::1]:22", "2001:db8::1", 22, "2001:db8::1", True),
        ("connect ::1:22", "localhost", 22, "::1", True),
        ("listen localhost:8000-8999", "localhost", 8000, "", False),
    ],
)
async def test_hosts_networks_and_ports(rule: str, host: str, port: int, address: str, *, allowed: bool) -> None:
    assert await policy(rule).allows(forward("connect", host, port, address=address)) is allowed


async def test_listening_and_paths_have_rules_of_their_own() -> None:
    some = policy("listen localhost:8000-8999", "connect-unix /run/*/docker.sock", "agent")
    assert await some.allows(forward("listen", "localhost", 8999))
    assert not await some.allows(forward("listen", "", 8999))
    assert not await some.allows(forward("listen", "localhost", 0))
    assert await some.allows(forward("connect-unix", path="/run/user/docker.sock"))
    assert not await some.allows(forward("listen-unix", path="/run/user/docker.sock"))
    assert await some.allows(forward("agent"))
    assert not await some.allows(forward("x11"))


async def test_only_stars_and_question_marks_stand_for_something_else() -> None:
    some = policy("connect-unix *", "!connect-unix /run/a[1]/s", **{"b[1]": ""})
    assert not await some.allows(forward("connect-unix", path="/run/a[1]/s"))
    assert await some.allows(forward("connect-unix", path="/run/a1/s"))
    assert not await some.allows(forward("connect-unix", path="/s", user="b[1]"))
    assert await some.allows(forward("connect-unix", path="/s", user="b1"))
    assert not await policy("connect h[1]:1").allows(forward("connect", "h1", 1))


async def test_what_is_forbidden_stays_so_whatever_its_name() -> None:
    some = policy("connect *:*", "!connect 127.0.0.0/8:*", "!connect *.internal:22")
    assert await some.allows(forward("connect", "example.org", 22, address="192.0.2.9"))
    for host, address in (
        ("localhost", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("x", "::ffff:127.0.0.1"),
    ):
        assert not await some.allows(forward("connect", host, 80, address=address))
    assert not await some.allows(forward("connect", "a.internal", 22, address="192.0.2.9"))


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "::FFFF:7f00:1", "0.0.0.0", "::ffff:0:0", "127.0.0.1"])
async def test_an_address_has_one_spelling_for_patterns(host: str) -> None:
    some = policy("connect *:*", "!connect 127.*:*")
    assert not await some.allows(forward("connect", host, 80, address=host))
    assert not await some.allows(forward("connect", "some.name", 80, address=host))


async def test_to_listen_everywhere_is_not_to_listen_here() -> None:
    here = policy("listen 127.0.0.1:*", "listen ::1:*")
    assert await here.allows(forward("listen", "127.0.0.1", 8000, address="127.0.0.1"))
    assert not await here.allows(forward("listen", "0.0.0.0", 8000, address="0.0.0.0"))
    assert not await here.allows(forward("listen", "::", 8000, address="::"))
    somewhere = policy("listen *:*", "!listen 0.0.0.0:*", "!listen :::*")
    assert not await somewhere.allows(forward("listen", "", 8000, address="0.0.0.0"))
    assert not await somewhere.allows(forward("listen", "*", 8000, address="::"))
    assert await somewhere.allows(forward("listen", "192.0.2.1", 8000, address="192.0.2.1"))


@pytest.mark.parametrize("name", ["ann,ben", "ann ben", " ann", ""])
def test_a_key_is_one_user(name: str) -> None:
    with pytest.raises(ValueError, match="not one user"):
        Options((), {name: "agent"})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("!connect 127.0.0.1/8:*", "bits set beyond its prefix"), ("!connect 127.0.0.0/33:*", "prefix length"),
        ("!connect 127.0.0:*", "no network"), ("connect https://a:80", "no network"),
        ("!connect 127.0.0.1:90-80", "no range of ports"), ("connect a:70000", "no range of ports"),
        ("connect-unix run/x", "not absolute"), ("listen-unix ~/x", "not absolute"),
    ],
)  # fmt: skip
def test_what_would_fit_nothing_is_no_rule(rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options((rule,))


async def test_the_first_name_that_fits_counts() -> None:
    some = policy("agent", **{"ada": "connect a:1; connect b:2", "a*": "connect c:3", "nobody": ""})
    assert await some.allows(forward("connect", "b", 2))
    assert not await some.allows(forward("connect", "c", 3))
    assert not await some.allows(forward("agent"))
    assert await some.allows(forward("connect", "c", 3, user="abe"))
    assert await some.allows(forward("agent", user="bob"))
    assert not await some.allows(forward("agent", user="nobody"))


@pytest.mark.parametrize(
    "rule", ["", "connect", "connect host", "connect :1", "connect a:", "connect a:x", "connect a:1-", "connect a:-2",
             "connect a:1-2-3", "connect-unix", "agent x", "forward a:1", "allow"],
)  # fmt: skip
def test_rules_are_checked(rule: str) -> None:
    with pytest.raises(ValueError, match="rules holds"):
        Options((rule,))
    if rule:
        with pytest.raises(ValueError, match="users holds"):
            Options(users={"ada": f"agent; {rule}"})


@pytest.mark.parametrize(
    "path", ["/run/app/../docker.sock", "/run//docker.sock", "/run/./docker.sock", "run/docker.sock"]
)
def test_paths_have_one_form(path: str) -> None:
    with pytest.raises(DecodeError):
        read_path(Reader(string(path.encode())))
    assert read_path(Reader(string(b"/run/docker.sock"))) == "/run/docker.sock"
