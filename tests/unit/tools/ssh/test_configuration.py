"""ssh_config: lines, blocks, files inside files, and what ends the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from dunnart.errors import ConfigError
from dunnart.tools.ssh import keywords
from dunnart.tools.ssh.configuration import Configuration


def read(text: str, folder: Path, host: str = "host") -> Configuration:
    path = folder / "config"
    path.write_text(text)
    found = Configuration(host, "me")
    found.read(str(path))
    return found


def words(found: Configuration, name: str) -> list[tuple[str, ...]]:
    return [setting.words for setting in found.settings(name)]


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("Port 22", "port", ("22",)),
        ("\tport\t=\t22  # a comment", "port", ("22",)),
        ("PORT=22", "port", ("22",)),
        ('User "a b"', "user", ("a b",)),
        (r'User "a \"b\""', "user", ('a "b"',)),
        (r"User a\ b", "user", ("a b",)),
        ("User a#b", "user", ("a#b",)),
        ("ProxyCommand nc 'x y' # %h", "proxycommand", ("nc 'x y' # %h",)),
        ("UserKnownHostsFile ~/a '~/b c'", "userknownhostsfile", ("~/a", "~/b c")),
        ("ChallengeResponseAuthentication no", "kbdinteractiveauthentication", ("no",)),
    ],
)
def test_lines(line: str, name: str, value: tuple[str, ...], tmp_path: Path) -> None:
    assert words(read(f"{line}\n", tmp_path), name) == [value]


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ("Host host", True), ("Host HOST", True), ("Host x h?st", True), ("Host * !h*", False), ("Host !x", False),
        ("Match all", True), ("Match host real", True), ("Match originalhost host", True), ("Match host host", False),
        ("Match user ann,bob", True), ("Match user *,!ann", False), ("Match localuser me user ann", True),
        ("Match !host real", False), ("Match host=real !user bob", True), ("Match exec true", True),
        ('Match exec "test %h = real -a %n = host"', True), ("Match exec false", False), ("Match final", True),
        ("Match canonical", False), ("Match final host real", True), ("Match host REAL", True),
        ("Match originalhost Host", True), ("Match user Ann", False),
    ],
)  # fmt: skip
def test_blocks(condition: str, fits: bool, tmp_path: Path) -> None:
    found = read(f"HostName real\nUser ann\n{condition}\n Port 1\nHost *\n Port 2\n", tmp_path)
    wanted = "1" if fits and "final" not in condition else "2"  # what only the second reading finds comes too late
    assert words(found, "port") == [(wanted,)]
    late = read(f"HostName real\nUser ann\n{condition}\n Port 1\n", tmp_path)
    assert bool(words(late, "port")) == fits


def test_the_first_value_counts_but_for_what_is_collected(tmp_path: Path) -> None:
    found = read("Port 1\nPort 2\nIdentityFile a\nIdentityFile b\nProxyJump j\nProxyCommand c\n", tmp_path)
    found.take("Port", "3")
    assert words(found, "port") == [("1",)]
    assert words(found, "identityfile") == [("a",), ("b",)]
    assert words(found, "proxycommand") == []


def test_files_inside_files_belong_to_their_block(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("Port 1\nHost host\n User in\n")
    (tmp_path / "b.conf").write_text("User late\n")
    include = f"Include {tmp_path}/*.conf {tmp_path}/missing\n"
    found = read(f"Host other\n{include}Host *\n Port 2\n", tmp_path)
    assert [words(found, name) for name in ("port", "user")] == [[("2",)], []]
    found = read(f"Host host\n{include} BatchMode yes\n", tmp_path)
    assert [words(found, name) for name in ("port", "user", "batchmode")] == [[("1",)], [("in",)], [("yes",)]]
    (tmp_path / "a.conf").write_text(f"Include {tmp_path}/a.conf\n")
    with pytest.raises(ConfigError, match="16 deep"):
        read(include, tmp_path)


def test_what_has_no_meaning_here_is_noted(tmp_path: Path) -> None:
    found = read("ControlMaster auto\nControlPath ~/x\nGSSAPIAuthentication no\nTunnel no\n", tmp_path)
    assert found.notes == [f"{tmp_path}/config:2: controlpath has no meaning here and is ignored"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("\nColour blue", ":2: colour: there is no such keyword"),
        ("Host other\n Colour blue", ":2: colour: there is no such keyword"),
        ("Port", ":1: port: its value is missing"),
        ("Port 1 2", ":1: port: '2' is too much"),
        ('User "a', ":1: the quote"),
        ("Tunnel yes", ":1: tunnel: this cannot be had here"),
        ("RevokedHostKeys /f", ":1: revokedhostkeys: this cannot be had here"),
        ("Match tagged x", ":1: Match: 'tagged' is not known here"),
        ("Match host", ":1: Match: host of what"),
        ("Host", ":1: Host: a pattern is missing"),
    ],
)
def test_what_ends_the_start(text: str, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/config{wrong}")


def test_unknown_keywords_may_be_none(tmp_path: Path) -> None:
    assert words(read("IgnoreUnknown Col*,x\nColour blue\nPort 1\n", tmp_path), "port") == [("1",)]


def test_a_file_that_is_named_has_to_be_there_and_the_users_own_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Configuration("host", "me").read(str(tmp_path / "missing"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    own = tmp_path / ".ssh" / "config"
    own.write_text("Host nothing\n")
    own.chmod(0o666)
    with pytest.raises(ConfigError, match="nobody else's to write"):
        Configuration("host", "me").read(None)


def test_every_keyword_is_of_one_kind_and_what_is_used_is_documented() -> None:
    assert not keywords.USED & keywords.UNUSED
    assert not keywords.REFUSED.keys() & (keywords.USED | keywords.UNUSED)
    assert set(keywords.SAME.values()) <= keywords.USED | keywords.UNUSED
    page = (Path(__file__).parents[4] / "docs" / "reference" / "ssh.md").read_text().lower()
    missing = [name for name in sorted(keywords.USED) if f"{name}," not in page and f"{name}." not in page]
    assert missing == []
