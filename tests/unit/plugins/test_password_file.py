"""Passwords from a file: who gets in, what the file has to be, and that the time tells nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from dunnart.errors import ConfigError
from dunnart.plugins import password_file
from dunnart.plugins.hashing import HASHING
from dunnart.plugins.password_file import Options, PasswordFile
from dunnart.protocol.questions import Allow, AuthReply, Credential, Deny, NoneCredential, PasswordCredential
from dunnart.server import Attempt
from dunnart.server.plugins import Context

LOG = logging.getLogger("dunnart.plugin.password-file")


def hashed(password: str | bytes, cost: int = 4, prefix: bytes = b"2b") -> str:
    data = password.encode() if isinstance(password, str) else password
    made = bcrypt.hashpw(data, bcrypt.gensalt(cost, b"2b")).decode()
    return made.replace("$2b$", f"${prefix.decode()}$")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the file anew, as an editor does: another file takes its place."""

    def written(*lines: str, mode: int = 0o600) -> Path:
        path, other = tmp_path / "passwords", tmp_path / "new"
        other.write_text("".join(f"{line}\n" for line in lines))
        other.chmod(mode)
        os.replace(other, path)
        return path

    return written


def made(path: Path) -> PasswordFile:
    return PasswordFile(Context("password-file", Options(str(path)), LOG))


async def ask(authenticator: PasswordFile, user: str, credential: str | Credential) -> AuthReply:
    credential = PasswordCredential(credential) if isinstance(credential, str) else credential
    return await authenticator.authenticate(Attempt(user, credential, "192.0.2.1"))


async def allowed(authenticator: PasswordFile, user: str, credential: str | Credential) -> bool:
    reply = await ask(authenticator, user, credential)
    assert isinstance(reply, Allow | Deny)
    return isinstance(reply, Allow)


async def test_the_right_password_lets_in_and_nothing_else(write: Callable[..., Path]) -> None:
    passwords = made(write("# people", "", f"ada:{hashed('secret')}", f"bob:{hashed('sécret', prefix=b'2y')}"))
    assert await allowed(passwords, "ada", "secret")
    assert await allowed(passwords, "bob", "sécret")
    for user, password in [("ada", "sécret"), ("bob", "secret"), ("ada", ""), ("", "secret"), ("eve", "secret"),
                           ("Ada", "secret"), ("# people", "")]:  # fmt: skip
        assert not await allowed(passwords, user, password)
    assert not await allowed(passwords, "ada", NoneCredential())
    assert await ask(passwords, "ada", "x") == Deny()
    assert await ask(passwords, "eve", "secret") == Deny("no such user here", unknown_user=True)


async def test_long_passwords_are_cut_where_the_hash_cuts_them(write: Callable[..., Path]) -> None:
    passwords = made(write(f"ada:{hashed('x' * 72)}", f"bob:{hashed('x')}"))
    assert await allowed(passwords, "ada", "x" * 72)
    assert await allowed(passwords, "ada", "x" * 100)
    assert not await allowed(passwords, "ada", "x" * 71)
    assert not await allowed(passwords, "bob", "x\0y")


async def test_changes_are_seen(write: Callable[..., Path]) -> None:
    path = write(f"ada:{hashed('one')}")
    passwords = made(path)
    assert await allowed(passwords, "ada", "one")
    write(f"ada:{hashed('two')}")
    assert not await allowed(passwords, "ada", "one")
    assert await allowed(passwords, "ada", "two")
    path.write_text(path.read_text() + f"bob:{hashed('three')}\n")
    assert await allowed(passwords, "bob", "three")


async def test_a_file_that_cannot_be_used_any_more_lets_nobody_in(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    line = f"ada:{hashed('secret')}"
    path = write(line)
    passwords = made(path)
    path.chmod(0o644)
    assert not await allowed(passwords, "ada", "secret")
    assert not await allowed(passwords, "ada", "secret")
    [message] = caplog.messages
    assert message.startswith(f"nobody can log in by password: {path} can be read or written by others")
    path.unlink()
    assert not await allowed(passwords, "ada", "secret")
    assert caplog.messages[1:] == [
        f"nobody can log in by password: {path} cannot be read: No such file or directory"
    ]  # fmt: skip
    write(line)
    assert await allowed(passwords, "ada", "secret")


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o644, 0o666])
def test_a_file_that_others_may_use_is_refused_at_the_start(write: Callable[..., Path], mode: int) -> None:
    with pytest.raises(ConfigError, match="can be read or written by others; chmod 600 mends that") as caught:
        made(write(f"ada:{hashed('x')}", mode=mode))
    assert caught.value.key == "file"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
async def test_modes_that_are_good(write: Callable[..., Path], mode: int) -> None:
    assert await allowed(made(write(f"ada:{hashed('x')}", mode=mode)), "ada", "x")


def test_what_is_no_file_of_passwords(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    latin = tmp_path / "latin"
    latin.touch(0o600)
    latin.write_bytes(b"\xe9:x")
    huge = tmp_path / "huge"
    huge.touch(0o600)
    os.truncate(huge, (4 << 20) + 1)
    for path, reason in [(tmp_path / "none", "cannot be read: No such file"), (fifo, "is no file"),
                         (tmp_path, "is no file"), (latin, "is not UTF-8"), (huge, "more than 4 MiB")]:  # fmt: skip
        with pytest.raises(ConfigError, match=reason):
            made(path)
    with pytest.raises(ValueError, match="file must be an absolute path, not 'passwords'"):
        Options("passwords")


async def test_a_bad_line_lets_nobody_in_and_is_named_once(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    good = hashed("x")
    path = write(
        "ada", ":" + good, "bob:x", "cleo:$1$abc$def", f"dan:{good}", f"dan:{hashed('y')}", f"eva:{good[:-1]}",
        f"fay:$2b$16${good[7:]}", f"gus:$2b$03${good[7:]}", f"hal:{good}:more",
    )  # fmt: skip
    passwords = made(path)
    assert await allowed(passwords, "dan", "x")
    assert not await allowed(passwords, "dan", "y")
    for user in ("ada", "", "bob", "cleo", "eva", "fay", "gus", "hal"):
        assert not await allowed(passwords, user, "x")
    assert [message.split(": ")[0] for message in caplog.messages] == [
        f"{path}:{line}" for line in (1, 2, 3, 4, 6, 7, 8, 9, 10)
    ]  # fmt: skip
    assert not any(good[7:] in message for message in caplog.messages)


async def test_the_work_is_the_same_for_everybody(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """THREATS R15: neither an unknown user nor one with a cheaper hash is answered sooner."""
    passwords = made(write(f"ada:{hashed('x', 4)}", f"bob:{hashed('x', 7)}"))
    work: list[int] = []
    compare = bcrypt.checkpw

    def counted(password: bytes, found: bytes) -> bool:
        work.append(2 ** int(found[4:6]))
        return compare(password, found)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    for user in ("ada", "bob", "eve", ""):
        for password in ("x", "y"):
            work.clear()
            await ask(passwords, user, password)
            assert sum(work) == 2**7
    assert not any(compare(word, f"$2b$04${password_file._NOBODY}".encode()) for word in (b"", b"x"))


async def test_no_more_is_hashed_at_a_time_than_memory_is_there_for(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = made(write(f"ada:{hashed('x')}"))
    running, most, lock = 0, 0, threading.Lock()
    compare = password_file._is_right

    def counted(*arguments: Any) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        found = compare(*arguments)
        time.sleep(0.001)
        with lock:
            running -= 1
        return found

    monkeypatch.setattr(password_file, "_is_right", counted)
    attempt = Attempt("ada", PasswordCredential("x"), "", run=asyncio.to_thread)
    replies = await asyncio.gather(*(passwords.authenticate(attempt) for _ in range(30)))
    assert all(isinstance(reply, Allow) for reply in replies)
    assert most <= HASHING.size <= 4
    assert passwords.on_any_loop


def test_no_hash_is_in_a_repr(write: Callable[..., Path]) -> None:
    line = hashed("x")
    assert line[7:] not in repr(made(write(f"ada:{line}"))._passwords)
