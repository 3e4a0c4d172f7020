from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.keys import AuthorizedKeys, AuthorizedKeysCache, PrivateKey, strict_modes_reason
from dunnart.keys.authorized_keys import _parse_options, parse

ONE, TWO = PrivateKey.generate("ed25519").public, PrivateKey.generate("ecdsa").public
UID = os.getuid()


def reasons(keys: AuthorizedKeys) -> dict[int, str]:
    return dict(keys.refused)


def test_plain_lines() -> None:
    text = f"# a comment\n\n  \t\n{ONE.line('me at home')}\r\n\t {TWO.line()}\n  # {TWO.line()}"
    keys = parse(text, "file")
    assert keys.source == "file"
    assert [(entry.key, entry.comment, entry.options, entry.line) for entry in keys.entries] == [
        (ONE, "me at home", (), 4),
        (TWO, "", (), 5),
    ]
    assert keys.refused == ()
    assert keys.find(ONE) == keys.entries[:1]
    assert keys.find(TWO) == keys.entries[1:]
    assert keys.find(PrivateKey.generate("ed25519").public) == ()
    assert parse(text.encode(), "file").entries == keys.entries


def test_two_lines_with_one_key_stand_in_order() -> None:
    keys = parse(f"{ONE.line('a')}\n{TWO.line()}\n{ONE.line('b')}", "file")
    assert [entry.comment for entry in keys.find(ONE)] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("restrict", "restrict"),
        ('no-pty,command="x"', "no-pty"),
        ('command="echo \\"a b\\", # c"', "command"),
        ('from="*.example,!bad.example"', "from"),
        ('CERT-Authority,principals="a"', "cert-authority"),
        ('expiry-time="20380101"', "expiry-time"),
        ("no-such-option", "no-such-option"),
        ('environment="A=\\"b\\"",no-pty', "environment"),
    ],
)
def test_a_line_with_an_option_grants_nothing(options: str, named: str) -> None:
    keys = parse(f"{options} {ONE.line('me')}\n{TWO.line()}", "file")
    assert keys.find(ONE) == ()
    assert reasons(keys) == {1: f"option '{named}' is not supported yet"}
    assert keys.find(TWO)  # the rest of the file goes on


def test_a_key_with_options_is_not_granted_more_by_a_later_line() -> None:
    keys = parse(f'command="backup" {ONE.line()}\n{ONE.line()}', "file")
    assert keys.find(ONE) == ()
    assert "line 1" in reasons(keys)[2]
    assert parse(f'{ONE.line()}\ncommand="backup" {ONE.line()}', "file").find(ONE)  # there sshd takes the plain one too


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "ssh-ed25519",
        "ssh-ed25519 !!!!",
        "ssh-foo AAAA me",
        "1024 65537 1234 an SSH 1 key",
        'command="unclosed ' + ONE.line(),
        "command=unquoted " + ONE.line(),
        'command="a"b ' + ONE.line(),
        "restrict, " + ONE.line(),
        ",restrict " + ONE.line(),
        '="x" ' + ONE.line(),
        "restrict",
        "restrict,",
        'command="x"',
        "ré " + ONE.line(),
        "ssh-rsa " + ONE.line().split()[1],
        ONE.line()[:-4],
        ONE.line().replace(" ", " \0"),
        ONE.line("a\0b"),
        ONE.line("x" * 65536),
        "ssh-ed25519-cert-v01@openssh.com " + ONE.line().split()[1],
    ],
)
def test_a_line_that_is_not_understood_grants_nothing(line: str) -> None:
    keys = parse(f"{line}\n{TWO.line()}", "file")
    assert keys.find(ONE) == ()
    assert list(reasons(keys)) == [1]
    assert [entry.key for entry in keys.entries] == [TWO]


def test_only_line_feeds_end_lines() -> None:
    # A form feed or a Unicode separator in a comment must not let a new line begin there.
    for separator in "\x0b\x0c\x1c\x85\u2028\u2029\r":
        keys = parse(f"{ONE.line('comment')}{separator}{TWO.line()}", "file")
        assert keys.find(TWO) == ()
        assert len(keys.entries) == 1


def test_the_grammar_of_options() -> None:
    line = 'No-Pty,command="say \\"a, b\\" \\n # c",from="",user-rc\t ssh-ed25519 AAAA'
    options, rest = _parse_options(line)
    assert options == (("no-pty", None), ("command", 'say "a, b" \\n # c'), ("from", ""), ("user-rc", None))
    assert rest == "ssh-ed25519 AAAA"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\\\n\0")))
def test_any_quoted_value_comes_back(value: str) -> None:
    options, rest = _parse_options('command="' + value.replace('"', '\\"') + '" rest')
    assert options == (("command", value),)
    assert rest == "rest"


@given(st.one_of(st.binary(), st.text(alphabet='ab ="\\,\n\t#-é').map(str.encode)))
def test_no_text_raises(data: bytes) -> None:
    assert parse(data, "file").entries == ()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True, mode=0o700)
    folder.chmod(0o755)
    (folder / ".ssh" / "authorized_keys").write_text(ONE.line() + "\n")
    (folder / ".ssh" / "authorized_keys").chmod(0o600)
    return folder


@pytest.fixture
def file(home: Path) -> Path:
    return home / ".ssh" / "authorized_keys"


def test_a_file_is_read_again_only_when_it_changed(home: Path, file: Path) -> None:
    cache = AuthorizedKeysCache()
    first = cache.load(str(file), owner_uid=UID, home=str(home))
    assert first.find(ONE)
    assert cache.load(str(file), owner_uid=UID, home=str(home)) is first
    file.write_text(f"{ONE.line()}\n{TWO.line()}\n")
    second = cache.load(str(file), owner_uid=UID, home=str(home))
    assert second.find(TWO)
    # Replaced by one of the same size and time: the inode differs.
    status = file.stat()
    other = file.with_name("other")
    other.write_text(f"{TWO.line()}\n{ONE.line()}\n".replace(ONE.line(), "#" + ONE.line()[1:]))
    other.chmod(0o600)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert other.stat().st_size == status.st_size
    other.rename(file)
    assert cache.load(str(file), owner_uid=UID, home=str(home)).find(ONE) == ()
    file.unlink()
    gone = cache.load(str(file), owner_uid=UID, home=str(home))
    assert (gone.entries, gone.refused) == ((), ())


def test_a_warm_file_is_not_opened(home: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = AuthorizedKeysCache()
    cache.load(str(file), owner_uid=UID, home=str(home))

    def refuse(*_: object) -> int:
        raise AssertionError("opened")

    monkeypatch.setattr(os, "open", refuse)
    assert cache.load(str(file), owner_uid=UID, home=str(home)).find(ONE)


@pytest.mark.parametrize("place", ["", ".ssh", ".ssh/authorized_keys"])
@pytest.mark.parametrize("bit", [0o020, 0o002])
def test_what_others_can_write_is_not_trusted_cold_or_warm(home: Path, file: Path, place: str, bit: int) -> None:
    unsafe = home / place
    safe_mode = unsafe.stat().st_mode
    unsafe.chmod(safe_mode | bit)
    cache = AuthorizedKeysCache()
    cold = cache.load(str(file), owner_uid=UID, home=str(home))
    assert cold.find(ONE) == ()
    assert "writable by others" in reasons(cold)[0]
    assert "writable by others" in (strict_modes_reason(str(file), UID, str(home)) or "")
    assert cache.load(str(file), owner_uid=None).find(ONE)  # that check is switched off there

    unsafe.chmod(safe_mode)
    assert cache.load(str(file), owner_uid=UID, home=str(home)).find(ONE)
    assert strict_modes_reason(str(file), UID, str(home)) is None
    unsafe.chmod(safe_mode | bit)
    assert cache.load(str(file), owner_uid=UID, home=str(home)).find(ONE) == ()


def test_directories_above_home_do_not_count_but_without_home_all_do(home: Path, file: Path) -> None:
    home.parent.chmod(0o777)
    assert AuthorizedKeysCache().load(str(file), owner_uid=UID, home=str(home)).find(ONE)
    assert AuthorizedKeysCache().load(str(file), owner_uid=UID).find(ONE) == ()


def test_another_owner_s_file_is_not_trusted(home: Path, file: Path) -> None:
    if UID == 0:
        os.chown(file, 12345, -1)
        assert "bad owner" in reasons(AuthorizedKeysCache().load(str(file), owner_uid=0, home=str(home)))[0]
    else:
        assert "bad owner" in reasons(AuthorizedKeysCache().load(str(file), owner_uid=UID + 1, home=str(home)))[0]


def test_links_are_followed_and_what_they_lead_through_is_checked(home: Path, file: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    elsewhere.chmod(0o777)
    target = elsewhere / "keys"
    target.write_text(TWO.line())
    target.chmod(0o600)
    cache = AuthorizedKeysCache()
    cache.load(str(file), owner_uid=UID, home=str(home))
    file.unlink()
    file.symlink_to(target)
    assert "writable by others" in reasons(cache.load(str(file), owner_uid=UID, home=str(home)))[0]
    assert cache.load(str(file), owner_uid=None).find(TWO)


def test_only_regular_files_of_bounded_size(home: Path, file: Path) -> None:
    fifo = home / "fifo"
    os.mkfifo(fifo, 0o600)
    big = home / "big"
    big.write_text(f"{ONE.line()}\n" + "#" * (1 << 20))
    for path, reason in ((fifo, "not a regular file"), (home, "not a regular file"), (big, "1 MiB")):
        keys = AuthorizedKeysCache().load(str(path), owner_uid=None)
        assert keys.entries == ()
        assert reason in reasons(keys)[0]
    assert reasons(AuthorizedKeysCache().load(str(file / "below"), owner_uid=None))[0] == "Not a directory"


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = AuthorizedKeysCache()
    for number in range(300):
        (tmp_path / str(number)).write_text(ONE.line())
        assert cache.load(str(tmp_path / str(number)), owner_uid=None).find(ONE)
        cache.load(str(tmp_path / f"missing{number}"), owner_uid=None)
    assert len(cache._files) == 256
