"""What names hosts and files on command lines of sftp and scp."""

from __future__ import annotations

import pytest

from dunnart.errors import ConfigError
from dunnart.tools.transfer.destinations import Host, Place, destination, jump, place

HOST = Host("host")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("host:", Place(HOST, ".")),
        ("host:a b", Place(HOST, "a b")),
        ("ann@host:/x:y", Place(Host("host", "ann"), "/x:y")),
        ("a@b@host:x", Place(Host("host", "a@b"), "x")),
        ("host:C:/x", Place(HOST, "C:/x")),
        (r"host:e:\dir", Place(HOST, r"e:\dir")),
        ("C:/x", Place(Host("C"), "/x")),
        ("./C:", Place(None, "./C:")),
        ("/a:b", Place(None, "/a:b")),
        ("d/a:b", Place(None, "d/a:b")),
        ("file", Place(None, "file")),
        (":file", Place(None, ":file")),
        ("[::1]:x", Place(Host("::1"), "x")),
        ("ann@[fe80::1]:", Place(Host("fe80::1", "ann"), ".")),
        ("scp://host", Place(HOST, ".")),
        ("scp://ann@host:2222/a%20b", Place(Host("host", "ann", 2222), "a b")),
        ("scp://[::1]:7//abs", Place(Host("::1", "", 7), "/abs")),
    ],
)
def test_places(text: str, meant: Place) -> None:
    assert place(text, drives=False) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [("C:/x", Place(None, "C:/x")), ("e:file", Place(None, "e:file")), ("host:C:/x", Place(HOST, "C:/x")),
     ("./C:", Place(None, "./C:"))],
)  # fmt: skip
def test_drives_are_here_where_there_are_drives(text: str, meant: Place) -> None:
    assert place(text, drives=True) == meant


@pytest.mark.parametrize("text", ["scp://", "scp://host:99999/x", "scp://-oProxyCommand=x/y", "-oProxyCommand=x:y",
                                  "-l@host:x", "a b:x", "host\n:x", "@:x"])  # fmt: skip
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ConfigError):
        place(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("host", Place(HOST, "")), ("ann@host:dir", Place(Host("host", "ann"), "dir")), ("[::1]", Place(Host("::1"), "")),
     ("sftp://ann@host:22/dir/x", Place(Host("host", "ann", 22), "dir/x")), ("sftp://host", Place(HOST, ""))],
)  # fmt: skip
def test_destinations(text: str, meant: Place) -> None:
    assert destination(text) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [("host", HOST), ("ann@host:22", Host("host", "ann", 22)), ("ssh://ann@[::1]:7", Host("::1", "ann", 7)),
     ("a@b@host", Host("host", "a@b"))],
)  # fmt: skip
def test_hosts_to_go_through(text: str, meant: Host) -> None:
    assert jump(text) == meant


@pytest.mark.parametrize("text", ["", "host:x", "-x", "host:99999", "a b", "ssh://"])
def test_what_is_no_host_to_go_through(text: str) -> None:
    with pytest.raises(ConfigError):
        jump(text)
