"""What the words on command lines of sftp and scp mean, and that nothing from a server reaches the terminal raw."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.client.globbing import has_magic, matches, unescaped
from dunnart.errors import ConfigError
from dunnart.tools.scp import run as run_scp
from dunnart.tools.sftp.program import run as run_sftp
from dunnart.tools.sftp.words import escaped, escaped_word, split
from dunnart.tools.terminal import failure, shown
from dunnart.tools.transfer.destinations import Host, Place, destination, jump, place
from dunnart.tools.transfer.flags import TransferFlags
from dunnart.tools.transfer.progress import size


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


def test_sizes_are_short() -> None:
    assert [size(count) for count in (0, 999, 1000, 1536, 10**6, 2**40)] == [
        "0B", "999B", "1.0KB", "1.5KB", "976.6KB", "1.0TB",
    ]  # fmt: skip
    assert max(len(size(10**power)) for power in range(20)) <= 7


def test_flags() -> None:
    flags = TransferFlags(["-rp", "-P22", "-oUser=ann", "-o", "BatchMode yes", "-i", "k", "-4", "-J", "x", "f", "-r"],
                          "46rpP:o:i:J:")  # fmt: skip
    assert flags.rest == ["f", "-r"]
    assert (flags.connection.port, flags.connection.family, flags.connection.identities) == (22, "inet", ["k"])
    assert flags.connection.options == [("User", "ann"), ("BatchMode", "yes")]
    assert flags.connection.jump == "x"
    for wrong in (["-P", "0"], ["-P", "65536"], ["-P", "x"], ["-o", "User"], ["-P", "٣"]):
        with pytest.raises(ConfigError):
            TransferFlags(wrong, "P:o:")


@pytest.mark.parametrize(
    ("tool", "words", "status"),
    [
        ("scp", ["x"], 1), ("scp", ["--frob", "a", "b"], 1), ("scp", ["-P", "x", "a", "b"], 1),
        ("scp", ["scp://", "b"], 1), ("scp", ["-D", "x", "-O", "a:b", "c"], 1), ("scp", ["a:", "-oX:b"], 1),
        ("sftp", [], 1), ("sftp", ["a", "b", "c"], 1), ("sftp", ["-R", "0", "a"], 1), ("sftp", ["-oProxyCommand=x"], 1),
        ("scp", ["-oFrob=yes", "host:x", "y"], 255), ("scp", ["-J", "x:y", "host:x", "y"], 255),
        ("scp", ["-F", "x", "host:x", "y"], 255),
        ("scp", ["-oStrictHostKeyChecking=maybe", "host:x", "y"], 255), ("sftp", ["-oPort=x", "host"], 255),
        ("sftp", ["-S", "/no such/ssh", "host"], 255),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(
    capsys: pytest.CaptureFixture[str], tool: str, words: list[str], status: int
) -> None:
    assert {"scp": run_scp, "sftp": run_sftp}[tool](words) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"dunnart {tool}: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("run", [run_scp, run_sftp])
def test_help(capsys: pytest.CaptureFixture[str], run: Callable[[list[str]], int]) -> None:
    assert run(["-h"]) == 0
    assert "usage: dunnart s" in capsys.readouterr().out
