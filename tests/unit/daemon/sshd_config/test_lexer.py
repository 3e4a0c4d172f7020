from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.daemon.sshd_config import lexer
from dunnart.daemon.sshd_config.lexer import Refused
from dunnart.daemon.sshd_config.sftp_arguments import sftp_options


def test_keywords_and_what_stands_behind_them() -> None:
    for line, wanted in [
        ("Port 22", ("Port", "22")), ("  Port\t=\t22 \f", ("Port", "22")), ("Port=22", ("Port", "22")),
        ("Port = = 22", ("Port", "= 22")), ('Banner="a b"', ("Banner", '"a b"')), ("Port", ("Port", "")),
        ("", ("", "")), ("   ", ("", "")), ("# Port 22", ("", "")), (" #", ("", "")),
        ("ForceCommand a=b", ("ForceCommand", "a=b")),
        ("Port 22\r", ("Port", "22")),
    ]:  # fmt: skip
        assert lexer.keyword_and_rest(line) == wanted, line


def test_words() -> None:
    for text, wanted in [
        ("a  b\tc", ["a", "b", "c"]), ("a # b", ["a"]), ("a#b", ["a#b"]), ('"a b" c', ["a b", "c"]),
        ("'a \"b' \"it's\"", ['a "b', "it's"]), (r"a\ b \"c\" \\ \x", ["a b", '"c"', "\\", r"\x"]),
        (r'"a\ b"', [r"a\ b"]), ('""', [""]), ('a"b c"d', ["ab cd"]), ('"#"', ["#"]), ("", []), ("\\", ["\\"]),
    ]:  # fmt: skip
        assert lexer.words(text) == wanted, text
    for text in ('"a', "'", 'a "b c'):
        with pytest.raises(Refused, match="invalid quotes") as caught:
            lexer.words(text)
        assert not caught.value.at_once


@given(st.lists(st.text(st.sampled_from("ab \t\\'\"x="), min_size=1), max_size=4))
def test_words_are_read_as_they_are_written(words: list[str]) -> None:
    assert lexer.words(lexer.joined(words)) == words


def test_times_numbers_and_ports() -> None:
    for text, wanted in [("90", 90), ("1h30m", 5400), ("2M30S", 150), ("1w2d", 777_600), ("1.5", 1.5), ("1m5", 65)]:
        assert lexer.seconds(text) == wanted
    for text in ("", "x", "1x", "5s5", "1.5m", "-1", "1 h", "h", "99999999999", ".5", "1."):
        with pytest.raises(Refused):
            lexer.seconds(text)
    assert [lexer.scaled(each) for each in ("16", "1K", "2m", "1G")] == [16, 1024, 2 << 20, 1 << 30]
    assert [lexer.port(each) for each in ("0", "22", "ssh", "65536", "no such")] == [0, 22, 22, -1, -1]
    assert lexer.number("+5", "X") == 5
    for text in ("", "x", "-1", "2147483648"):
        with pytest.raises(Refused, match="X integer value"):
            lexer.number(text, "X")
    assert [lexer.host_and_port(each) for each in ("h", "h:1", "[::1]:2", "[::1]", "h/1")] == [
        ("h", None), ("h", "1"), ("::1", "2"), ("::1", None), ("h", "1"),
    ]  # fmt: skip


def test_arguments_of_internal_sftp() -> None:
    assert sftp_options("") == {}
    assert sftp_options("-R -u 0022 -d /%u -l INFO -f AUTH -e") == {"read_only": True, "umask": "0022", "start": "/%u"}
    assert sftp_options("-Ru027 -p open,read -Premove") == {
        "read_only": True, "umask": "027", "allow_requests": ["open", "read"], "deny_requests": ["remove"],
    }  # fmt: skip
    for text in ("-x", "-u", "-u 9", "there", "-"):
        with pytest.raises(ValueError, match=r"internal-sftp|umask"):
            sftp_options(text)
