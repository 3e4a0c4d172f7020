"""Argon2id in a password file, beside bcrypt, and the tool that makes such files."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import bcrypt
import pytest

pytest.importorskip("argon2")

from dunnart.plugins import argon2id
from dunnart.plugins.argon2id import Cost, hashed, matches
from dunnart.plugins.password_file import Options, PasswordFile
from dunnart.protocol.questions import Allow, AuthReply, Deny, PasswordCredential
from dunnart.server import Attempt
from dunnart.server.plugins import Context
from dunnart.tools.main import main

LOG = logging.getLogger("dunnart.plugin.password-file")
SMALL, OTHER = Cost(8, 1, 1), Cost(16, 1, 1)


def file(tmp_path: Path, *lines: str) -> PasswordFile:
    path = tmp_path / "passwords"
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    return PasswordFile(Context("password-file", Options(str(path)), LOG))


async def ask(passwords: PasswordFile, user: str, password: str) -> AuthReply:
    return await passwords.authenticate(Attempt(user, PasswordCredential(password), "192.0.2.1"))


def quick(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


async def test_both_kinds_in_one_file(tmp_path: Path) -> None:
    long = "x" * 100
    passwords = file(
        tmp_path, f"ada:{hashed(b'one', SMALL)}", f"bob:{quick('two')}", f"cleo:{hashed(long.encode(), OTHER)}"
    )
    for user, password in [("ada", "one"), ("bob", "two"), ("cleo", long)]:
        assert await ask(passwords, user, password) == Allow()
        for wrong in ("", "one" if user != "ada" else "two", password[:-1], password + "x", password + "\0"):
            assert await ask(passwords, user, wrong) == Deny(), (user, wrong)
    assert await ask(passwords, "eve", "one") == Deny("no such user here", unknown_user=True)


async def test_the_work_is_the_same_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = file(
        tmp_path, f"ada:{hashed(b'x', SMALL)}", f"bob:{quick('x')}", f"cleo:{hashed(b'x', OTHER)}"
    )  # fmt: skip
    work: list[object] = []
    compare, check = argon2id.matches, bcrypt.checkpw

    def counted(password: bytes, found: str) -> bool:
        work.append(argon2id.cost(found))
        return compare(password, found)

    def checked(password: bytes, found: bytes) -> bool:
        work.append(found[4:6])
        return check(password, found)

    monkeypatch.setattr(argon2id, "matches", counted)
    monkeypatch.setattr(bcrypt, "checkpw", checked)
    for user in ("ada", "bob", "cleo", "eve", ""):
        for password in ("x", "y", ""):
            work.clear()
            await ask(passwords, user, password)
            assert work == [b"04", SMALL, OTHER], (user, password)


async def test_of_argon2id_alone_no_bcrypt_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = file(tmp_path, f"ada:{hashed(b'x', SMALL)}")
    monkeypatch.setattr(bcrypt, "checkpw", None)
    assert await ask(passwords, "ada", "x") == Allow()
    assert isinstance(await ask(passwords, "eve", "x"), Deny)


def test_nobody_has_that_password() -> None:
    for password in (b"", b"x", bytes(32)):
        assert not matches(password, SMALL.nobody())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (SMALL.nobody().replace("argon2id", "argon2i"), "no Argon2id hash"),
        (SMALL.nobody()[:-30], "no Argon2id hash"),
        (Cost(1 << 30, 1, 1).nobody(), "costs more than"),
        (Cost(8, 100, 1).nobody(), "costs more than"),
        (Cost(1 << 17, 1, 17).nobody(), "costs more than"),
        (Cost(8, 1, 4).nobody(), "costs more than"),
    ],
)
async def test_lines_that_let_nobody_in(
    tmp_path: Path, line: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    passwords = file(tmp_path, f"ada:{line}")
    assert await ask(passwords, "ada", "") == Deny("no such user here", unknown_user=True)
    assert reason in caplog.text
    assert line[-40:] not in caplog.text


async def test_a_fifth_cost_is_one_too_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    passwords = file(tmp_path, *(f"u{kib}:{hashed(b'x', Cost(8 * kib, 1, 1))}" for kib in range(1, 6)))
    assert await ask(passwords, "u4", "x") == Allow()
    assert isinstance(await ask(passwords, "u5", "x"), Deny)
    assert "5: this line lets nobody in: it is of a fifth cost" in caplog.text


def test_without_the_package_the_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "argon2", None)
    file(tmp_path, f"ada:{SMALL.nobody()}")
    assert 'pip install "dunnart[argon2]"' in caplog.text


# The tool.


def passwd(monkeypatch: pytest.MonkeyPatch, said: str, *arguments: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    return main(["passwd", *arguments])


async def test_the_tool_makes_what_the_plugin_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "passwords"
    name = str(path)
    monkeypatch.setattr("dunnart.tools.passwd._COST", 4)
    assert passwd(monkeypatch, "secret\n", name, "ada") == 0
    assert path.stat().st_mode & 0o777 == 0o600
    passwords = PasswordFile(Context("password-file", Options(name), LOG))
    assert await ask(passwords, "ada", "secret") == Allow()
    path.write_text("# people\n" + path.read_text())
    path.chmod(0o640)
    assert passwd(monkeypatch, "other\n", name, "bob", "--argon2id") == 0
    assert passwd(monkeypatch, "new secret\n", name, "ada") == 0
    assert path.stat().st_mode & 0o777 == 0o640
    assert [line.partition(":")[0] for line in path.read_text().splitlines()] == ["# people", "ada", "bob"]
    assert "bob:$argon2id$v=19$m=65536,t=3,p=4$" in path.read_text()
    assert await ask(passwords, "ada", "new secret") == Allow()
    assert await ask(passwords, "bob", "other") == Allow()
    assert passwd(monkeypatch, "", name, "ada", "--delete") == 0
    assert isinstance(await ask(passwords, "ada", "new secret"), Deny)
    assert os.listdir(tmp_path) == ["passwords"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("said", "arguments", "message"),
    [
        ("\n", ("ada",), "not empty"),
        ("x" * 73, ("ada",), "72 bytes"),
        ("x", ("a:b",), "no name"),
        ("x", ("#a",), "no name"),
        ("x", ("",), "no name"),
        ("", ("nobody", "--delete"), "there is no line"),
    ],
)
def test_what_the_tool_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    said: str, arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    assert passwd(monkeypatch, said, str(tmp_path / "passwords"), *arguments) == 2
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_two_changes_at_once_do_not_lose_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "passwords.new").touch()
    assert passwd(monkeypatch, "x", str(tmp_path / "passwords"), "ada") == 2
    assert "somebody else changes the file" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["passwords.new"]
