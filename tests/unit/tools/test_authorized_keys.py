"""`dunnart authorized-keys check`."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from dunnart.keys import PrivateKey
from dunnart.tools.main import main

ONE, TWO = PrivateKey.generate("ed25519").public, PrivateKey.generate("ed25519").public
LINES = f"""\
# mine
{ONE.line("ann@laptop")}
from="192.0.2.0/24,*.example",restrict,pty,command="backup \\"/srv\\"",expiry-time="20270101Z" {TWO.line("backup")}
unheard-of {ONE.line()}
permitopen="db:5432",permitopen="[::1]:80",permitlisten="8080",verify-required,no-touch-required {TWO.line()}
cert-authority,principals="ann,ops" {TWO.line()}
command="internal-sftp",environment="WHO=\x1b[31m" {TWO.line()}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "keys").write_text(LINES)
    for name, key in (("one", ONE), ("two", TWO)):
        (tmp_path / f"{name}.pub").write_text(f"{key.line(name)}\n")
    return str(tmp_path / "keys")


def check(file: str, *flags: str) -> int:
    return main(["authorized-keys", "check", file, "--no-strict-modes", *flags])


def report(capsys: pytest.CaptureFixture[str], file: str, *flags: str) -> tuple[int, dict[str, Any]]:
    status = check(file, "--json", *flags)
    return status, json.loads(capsys.readouterr().out)


def key_file(file: str, name: str) -> str:
    return str(Path(file).with_name(f"{name}.pub"))


def test_each_line_is_explained(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--permit-user-environment", "*", "--from", "192.0.2.9", "--at", "20261231Z")
    status, found = report(capsys, file, *flags)
    assert status == 1  # for the dead line
    lines = {line["number"]: line for line in found["lines"]}
    assert sorted(lines) == [2, 3, 4, 5, 6, 7]
    assert lines[2]["allows"] == ["everything that the server allows"]
    assert lines[2]["comment"] == "ann@laptop"
    assert lines[2]["key"] == f"ssh-ed25519 {ONE.fingerprint()}"
    assert lines[3]["allows"] == [
        "only from 192.0.2.0/24, *.example",
        "note: hosts' names are not looked up, so *.example fits nobody",
        "until 2027-01-01 00:00:00 UTC",
        "runs 'backup \"/srv\"', whatever is asked for",
        "no port forwarding, no agent forwarding, no X11 forwarding, no ~/.ssh/rc",
    ]
    assert lines[3]["refused"] is None
    assert lines[4]["dead"] == "unknown option 'unheard-of'"
    assert lines[4]["text"].startswith("unheard-of ssh-ed25519")
    assert lines[5]["allows"] == [
        "forwarding connects to db:5432, [::1]:80 only",
        "forwarding listens on *:8080 only",
        "a security key need not be touched",
        "a security key must have verified its user; it means nothing for other keys",
    ]
    assert lines[6]["allows"] == ["trusts certificates that this key has signed for ann or ops"]
    assert "authority" in lines[6]["refused"]
    assert lines[7]["allows"] == ["nothing but SFTP", "sets WHO=\x1b[31m"]
    assert found["let_in_by"] == 2


def test_text_holds_nothing_that_a_terminal_obeys(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(file, "--permit-user-environment", "*")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "sets WHO=\\x1b[31m" in out
    assert "LETS NOBODY IN: unknown option 'unheard-of'" in out
    assert out.splitlines()[0] == file
    assert out.splitlines()[-1].endswith("let in by line 2")


@pytest.mark.parametrize(
    ("key", "flags", "status", "by"),
    [
        ("one", (), 0, 2),
        ("two", ("--from", "192.0.2.1", "--at", "20261231"), 0, 3),
        ("two", ("--from", "192.0.2.1", "--at", "20270102"), 0, 5),
        ("two", ("--from", "198.51.100.1"), 0, 5),
        ("two", ("--at", "20261231"), 0, 3),  # from wherever that line wants it
        ("other", (), 1, None),
    ],
)
def test_which_line_lets_a_key_in(
    file: str, capsys: pytest.CaptureFixture[str], key: str, flags: tuple[str, ...], status: int, by: int | None
) -> None:
    other = PrivateKey.generate("ed25519").public
    Path(key_file(file, "other")).write_text(other.line())
    got, found = report(capsys, file, "--key", key_file(file, key), *flags)
    assert (got, found["let_in_by"]) == (status, by)


def test_a_login_that_is_not_let_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    file.write_text(f'from="192.0.2.1" {ONE.line()}\n')
    status, found = report(capsys, str(file), "--from", "192.0.2.2")
    assert (status, found["let_in_by"]) == (1, None)
    assert found["lines"][0]["refused"] == '192.0.2.2 is not among its from="192.0.2.1"'
    assert report(capsys, str(file), "--from", "192.0.2.1")[0] == 0
    assert report(capsys, str(file))[0] == 0
    file.write_text("")
    assert report(capsys, str(file))[0] == 1


def test_the_file_must_be_nobody_else_s_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ONE.line()}\n")
    file.chmod(0o666)
    assert main(["authorized-keys", "check", str(file)]) == 1
    assert "nothing of it counts (strict_modes)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--from", "host.example"), "no IP address"),
        (("--at", "tomorrow"), "no time"),
        (("--user", "no-such-user-here"), "no user"),
        (("--key", "/no/such/file"), "No such file"),
        (("--key", "/dev/null"), "the public key is wanted"),
    ],
)
def test_flags_that_make_no_sense(
    file: str, flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(file, *flags) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("/no/such/file") == 2
    assert "No such file" in capsys.readouterr().err


def test_another_user_s_file(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    _, found = report(capsys, file, "--user", name)
    assert found["login"].startswith(name)
