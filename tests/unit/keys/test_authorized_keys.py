from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.keys import AuthorizedKeys, AuthorizedKeysCache, PrivateKey, Rights, strict_modes_reason
from dunnart.keys.authorized_keys import Decision, parse, parse_options
from dunnart.keys.key_options import KeyOptions

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


def options_of(options: str, **more: Any) -> KeyOptions:
    keys = parse(f"{options} {ONE.line('me')}", "file", **more)
    assert keys.refused == ()
    return keys.entries[0].terms


RESTRICTED = Rights(
    pty=False, port_forwarding=False, agent_forwarding=False, x11_forwarding=False, user_rc=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "rights"),
    [
        ("no-pty", Rights(pty=False)),
        ("NO-X11-Forwarding", Rights(x11_forwarding=False)),
        ("no-agent-forwarding,no-port-forwarding,no-user-rc",
         Rights(agent_forwarding=False, port_forwarding=False, user_rc=False)),
        ("restrict", RESTRICTED),
        ("restrict,pty", replace(RESTRICTED, pty=True)),
        ("pty,restrict", RESTRICTED),  # in their order, as in sshd
        ("restrict,port-forwarding,X11-forwarding,agent-forwarding,user-rc,pty", Rights()),
        ("restrict,pty,no-pty", RESTRICTED),
        ('command="echo \\"a b\\", # c"', Rights(command=b'echo "a b", # c')),
        ('command=""', Rights(command=b"")),
        ('permitopen="db:5432",permitopen="[::1]:80",permitopen="*:*"',
         Rights(permit_open=(("db", 5432), ("::1", 80), ("*", "*")))),
        ('permitlisten="8080",permitlisten="*:1",permitlisten="localhost:*",permitlisten="[2001:db8::*]:2"',
         Rights(permit_listen=(("*", 8080), ("*", 1), ("localhost", "*"), ("2001:db8::*", 2)))),
        ('expiry-time="20380119031407Z"', Rights(expires=2**31 - 1)),
        ('expiry-time="203801190314UTC",expiry-time="20390101Z"', Rights(expires=2**31 - 8)),  # the earlier one
    ],
)  # fmt: skip
def test_what_options_mean(options: str, rights: Rights) -> None:
    assert options_of(options).rights == rights


def test_options_that_are_not_about_rights() -> None:
    assert options_of("no-touch-required,verify-required") == KeyOptions(touch=False, verify=True)
    assert options_of("no-touch-required,touch-required") == KeyOptions()
    authority = options_of('cert-authority,principals="ann,bob"')
    assert (authority.authority, authority.principals) == (True, ("ann", "bob"))
    assert options_of('from="192.0.2.0/24"').addresses is not None


def test_variables_need_the_administrator() -> None:
    line = 'environment="A=\\"b\\"",environment="A=2",environment="B_1=x=y"'
    assert options_of(line, variables=["?", "B_*"]).rights == Rights(environment=(("A", '"b"'), ("B_1", "x=y")))
    assert options_of('environment="A="', variables=["*"]).rights == Rights(environment=(("A", ""),))
    keys = parse(f"{line} {ONE.line()}", "file", variables=["A"])
    assert "B_1" in reasons(keys)[1]
    assert "permit_user_environment" in reasons(keys)[1]


def test_an_expiry_time_is_local_without_a_z(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        monkeypatch.setenv("TZ", "JST-9")
        time.tzset()
        assert options_of('expiry-time="20270101"').rights.expires == 1798729200.0
        assert options_of('expiry-time="20270101Z"').rights.expires == 1798729200.0 + 9 * 3600
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("no-such-option", "unknown option 'no-such-option'"),
        ('no-such-option="x"', "unknown option 'no-such-option'"),
        ("no-restrict", "unknown option"),
        ("no-cert-authority", "unknown option"),
        ("no-pty2", "unknown option"),
        ('pty="x"', "takes no value"),
        ('restrict="x"', "takes no value"),
        ("command", "wants a value"),
        ("from", "wants a value"),
        ('command="a",command="a"', "'command' stands there twice"),
        ('from="*",from="*"', "'from' stands there twice"),
        ('cert-authority,principals="a",principals="b"', "'principals' stands there twice"),
        ('principals="a"', "principals without cert-authority"),
        ('cert-authority,principals="a,,b"', "empty name"),
        ('tunnel="0"', "tunnel"),
        ('environment="A=b"', "permit_user_environment"),
        ('environment="no"', "NAME=value"),
        ('environment="A-B=x"', "NAME=value"),
        ('environment="=x"', "NAME=value"),
        ('from=""', "empty"),
        ('from="192.0.2.1/24"', "beyond its prefix"),
        ('from="!bad.example,*"', "not looked up"),
        ('from="*,!10.0.0.01"', "forbids nothing"),
        ('from="*,!192.168.1"', "forbids nothing"),
        ('expiry-time="2027"', "no time"),
        ('expiry-time="20271301"', "month"),
        ('expiry-time="20270101T00"', "no time"),
        ('expiry-time=""', "no time"),
        ('expiry-time="202701010000ZZ"', "no time"),
        ('permitopen="80"', "HOST:PORT"),
        ('permitopen="host:0"', "no port"),
        ('permitopen="host:65536"', "no port"),
        ('permitopen="host:http"', "no port"),
        ('permitopen="host:8_0"', "no port"),
        ('permitopen="::1:80"', "no port"),
        ('permitopen="[::1]80"', "HOST:PORT"),
        ('permitopen="[::1:80"', "HOST:PORT"),
        ('permitopen="host/80"', "HOST:PORT"),
        ('permitlisten="x"', "no port"),
        ('permitlisten=""', "no port"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_obeyed_grants_nothing(options: str, reason: str) -> None:
    keys = parse(f"{options} {ONE.line('me')}\n{ONE.line('again')}\n{TWO.line()}", "file")
    assert keys.find(ONE) == keys.find_authority(ONE) == ()
    assert reason in reasons(keys)[1]
    assert "line 1 has the same key" in reasons(keys)[2]  # which must not grant what the first one did not
    decision = keys.decide(ONE, "192.0.2.1", 0)
    assert (decision.entry, decision.final) == (None, True)
    assert keys.find(TWO)  # the rest of the file goes on


def test_the_first_line_whose_conditions_hold_counts() -> None:
    text = (
        f'from="192.0.2.0/24",command="a" {ONE.line()}\n'
        f'expiry-time="20200101Z",command="b" {ONE.line()}\n'
        f'command="c" {ONE.line()}\ncommand="d" {ONE.line()}'
    )
    keys = parse(text, "file")

    def command(address: str, now: float = 1577836800.0) -> bytes | None:
        entry = keys.decide(ONE, address, now).entry
        return None if entry is None else entry.terms.rights.command

    assert command("192.0.2.7") == b"a"
    assert command("198.51.100.1") == b"b"
    assert command("198.51.100.1", 1577836801.0) == b"c"
    assert command("", 1577836801.0) == b"c"
    refused = parse(text.rsplit("\n", 2)[0], "file").decide(ONE, "198.51.100.1", 1577836801.0)
    assert (refused.entry, refused.final) == (None, False)
    assert refused.reasons == (
        'file:1: 198.51.100.1 is not among its from="192.0.2.0/24"',
        "file:2: it expired at 2020-01-01 00:00:00 UTC",
    )
    assert parse("", "file").decide(ONE, "", 0) == Decision()


def test_a_dead_line_after_a_good_one() -> None:
    keys = parse(f'from="192.0.2.1" {ONE.line()}\nrestrict,unheard-of {ONE.line()}', "file")
    assert keys.decide(ONE, "192.0.2.1", 0).entry is not None
    decision = keys.decide(ONE, "192.0.2.2", 0)
    assert decision.final
    assert decision.reasons[-1] == "file:2: the line is not understood"


def test_the_key_of_a_line_that_is_too_long_is_known() -> None:
    keys = parse(f'command="{"x" * 70_000}" {ONE.line()}\n{ONE.line()}', "file")
    assert "longer than" in reasons(keys)[1]
    assert "line 1 has the same key" in reasons(keys)[2]
    assert keys.decide(ONE, "192.0.2.1", 0).final


def test_keys_of_lines_whose_options_cannot_even_be_read_are_known() -> None:
    for broken in ('command="a', "command=a b", 'command="a"b', "restrict,", "rest rict", 'no-pty, command="x"'):
        keys = parse(f"{broken} {ONE.line('me')}\n{ONE.line()}", "file")
        assert keys.decide(ONE, "", 0).final, broken


def test_an_authority_s_key_is_no_user_s() -> None:
    keys = parse(f"cert-authority {ONE.line()}\n{TWO.line()}", "file")
    assert keys.decide(ONE, "192.0.2.1", 0) == Decision()
    assert keys.decide_authority(ONE, "192.0.2.1", 0, lambda entry: entry).entry == keys.entries[0]
    assert keys.decide_authority(TWO, "192.0.2.1", 0, lambda entry: entry) == Decision()
    both = parse(f"cert-authority {ONE.line()}\n{ONE.line('a')}", "file")  # as in sshd
    assert [entry.comment for entry in both.find(ONE)] == ["a"]


def test_bytes_that_are_no_text_stay_what_they_are() -> None:
    keys = parse(b'command="\xff\xe9" ' + ONE.line("caf\xe9").encode("latin-1"), "file")
    assert keys.entries[0].terms.rights.command == b"\xff\xe9"
    assert keys.entries[0].comment == "caf?"
    wrong = parse(f'command="\ud800" {ONE.line()}', "file")
    assert "cannot be encoded" in reasons(wrong)[1]


def test_there_is_an_end_to_what_a_line_may_list() -> None:
    permits = ",".join(f'permitopen="h:{port}"' for port in range(1, 3000))
    assert len(options_of(permits).rights.permit_open or ()) == 2999
    variables = ",".join(f'environment="V{number}="' for number in range(1025))
    assert "too many variables" in reasons(parse(f"{variables} {ONE.line()}", "file", variables=["*"]))[1]


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
    options, rest = parse_options(line)
    assert options == (("no-pty", None), ("command", 'say "a, b" \\n # c'), ("from", ""), ("user-rc", None))
    assert rest == "ssh-ed25519 AAAA"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\\\n\0")))
def test_any_quoted_value_comes_back(value: str) -> None:
    options, rest = parse_options('command="' + value.replace('"', '\\"') + '" rest')
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


def test_what_to_do_about_modes_is_told(home: Path, file: Path) -> None:
    file.chmod(0o666)
    assert (strict_modes_reason(str(file), UID, str(home)) or "").endswith(f"others; chmod go-w {file.resolve()}")
    file.chmod(0o600)
    file.parent.chmod(0o1777)
    assert (strict_modes_reason(str(file), UID, str(home)) or "").endswith(
        "1777: writable by others; keep the file elsewhere"
    )


def test_another_owner_s_file_is_not_trusted(home: Path, file: Path) -> None:
    if UID == 0:
        os.chown(file, 12345, -1)
        found = AuthorizedKeysCache().load(str(file), owner_uid=0, home=str(home))
        assert reasons(found)[0] == f"bad owner: uid 12345; chown 0 {file.resolve()}"
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


def test_what_may_be_a_secret_is_not_repeated() -> None:
    secret = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW"
    refused = parse(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{secret}\n", "keys").refused
    assert [line for line, _ in refused] == [1, 2]
    assert "public half belongs here" in refused[0][1]
    assert secret[:10].lower() not in refused[1][1].lower()
