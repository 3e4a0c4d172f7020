"""Codes: which are taken, how often, whose secrets count, and that everybody costs the same."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

pyotp = pytest.importorskip("pyotp")

from dunnart.errors import ConfigError  # noqa: E402
from dunnart.plugins.totp import STEP_SECONDS, Options, Totp  # noqa: E402
from dunnart.protocol.questions import (  # noqa: E402
    Allow,
    AuthReply,
    Deny,
    InteractiveCredential,
    PasswordCredential,
    Prompt,
)
from dunnart.server import Attempt  # noqa: E402
from dunnart.server.plugins import Context  # noqa: E402
from dunnart.tools.main import main  # noqa: E402
from dunnart.tools.totp import write_secret  # noqa: E402

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # that of RFC 6238's test vectors
LOG = logging.getLogger("dunnart.plugin.totp")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000_020.0

    def __call__(self) -> float:
        return self.now


def code(step: int, clock: Clock, secret: str = SECRET) -> str:
    """The code of so many steps from now."""
    found: str = pyotp.TOTP(secret).generate_otp(int(clock.now) // STEP_SECONDS + step)
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def made(tmp_path: Path, clock: Clock) -> Totp:
    """Ada has a secret; some time has passed since the start."""
    write_secret(str(tmp_path / "ada"), SECRET)
    found = Totp(Context("totp", Options(str(tmp_path / "%u")), LOG), clock)
    clock.now += 10 * STEP_SECONDS
    return found


async def ask(totp: Totp, *responses: str, user: str = "ada") -> AuthReply:
    return await totp.authenticate(Attempt(user, InteractiveCredential("", responses), "192.0.2.1", 1))


async def refused(totp: Totp, *responses: str, user: str = "ada") -> str:
    reply = await ask(totp, *responses, user=user)
    assert isinstance(reply, Deny)
    return reply.detail


def test_the_codes_are_those_of_the_rfc() -> None:
    # RFC 6238, appendix B; its codes have eight digits
    for seconds, expected in [(59, "287082"), (1111111109, "081804"), (20000000000, "353130")]:
        assert pyotp.TOTP(SECRET).generate_otp(seconds // STEP_SECONDS) == expected


async def test_the_code_is_asked_for_and_taken_once(made: Totp, clock: Clock) -> None:
    asked = await made.authenticate(Attempt("ada", InteractiveCredential("", None), "192.0.2.1"))
    assert asked == Prompt((("Verification code: ", False),))
    assert await ask(made, code(0, clock)) == Allow()
    assert "used before" in await refused(made, code(0, clock))


@pytest.mark.parametrize("step", [-1, 0, 1])
async def test_clocks_may_differ_by_a_step(made: Totp, clock: Clock, step: int) -> None:
    shown = code(step, clock)
    assert await ask(made, f"{shown[:3]} {shown[3:]}") == Allow()
    for older in range(max(-1, step - 1), step + 1):  # and what came before it is not taken any more
        assert "used before" in await refused(made, code(older, clock))


@pytest.mark.parametrize("step", [-2, 2])
async def test_but_by_no_more(made: Totp, clock: Clock, step: int) -> None:
    assert await refused(made, code(step, clock)) == "the code is wrong"


@pytest.mark.parametrize("responses", [(), ("",), ("12345",), ("000000", "000000"), ("é" * 6,), ("\udcff",)])
async def test_what_is_no_code(made: Totp, responses: tuple[str, ...]) -> None:
    assert isinstance(await ask(made, *responses), Deny)


async def test_codes_from_before_the_start_may_have_been_used(tmp_path: Path, clock: Clock) -> None:
    write_secret(str(tmp_path / "ada"), SECRET)
    started = Totp(Context("totp", Options(str(tmp_path / "%u")), LOG), clock)
    assert "older than the server's start" in await refused(started, code(0, clock))
    assert await ask(started, code(1, clock)) == Allow()


async def test_tries_are_bounded_and_come_back(made: Totp, clock: Clock) -> None:
    for _ in range(3):
        assert await refused(made, "000000") == "the code is wrong"
    assert await refused(made, code(0, clock)) == "too many codes were tried"
    clock.now += 31
    assert await ask(made, code(0, clock)) == Allow()


async def test_another_instance_takes_no_code_again(made: Totp, clock: Clock, tmp_path: Path) -> None:
    assert await ask(made, code(0, clock)) == Allow()
    other = Totp(Context("totp", Options(str(tmp_path / "%u"), tries=9), LOG), clock)
    assert "used before" in await refused(other, code(0, clock))


async def test_users_without_a_secret_are_asked_and_cost_the_same(
    made: Totp, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    generate = pyotp.TOTP.generate_otp

    def counting(self: object, step: int) -> str:
        counted.append(step)
        found: str = generate(self, step)
        return found

    monkeypatch.setattr(pyotp.TOTP, "generate_otp", counting)
    for user in ("ada", "nobody-here", "../etc/passwd", "a b", ""):
        counted.clear()
        asked = await made.authenticate(Attempt(user, InteractiveCredential("", None), "192.0.2.1"))
        assert isinstance(asked, Prompt)
        assert isinstance(await ask(made, "000000", user=user), Deny)
        assert len(counted) == 3, user
    assert await refused(made, "000000", user="nobody-here") == "has no secret"
    assert (await ask(made, "000000", user="a/b")) == Deny("no such user here", unknown_user=True)


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (f'{SECRET}\n" TOTP_AUTH\n', 0o644, "chmod 600"),
        (f'{SECRET}\n" TOTP_AUTH\n', 0o620, "chmod 600"),
        (f'{SECRET}\n" HOTP_COUNTER 1\n', 0o600, "TOTP_AUTH"),
        ('secret\n" TOTP_AUTH\n', 0o600, "base32"),
        ("", 0o600, "base32"),
    ],
)
async def test_files_that_are_not_used(
    made: Totp, clock: Clock, tmp_path: Path, text: str, mode: int, reason: str
) -> None:
    path = tmp_path / "ada"
    path.write_text(text)
    path.chmod(mode)
    assert reason in await refused(made, code(0, clock))


async def test_a_folder_and_a_fifo_are_no_secrets(made: Totp, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo", 0o600)
    for user in ("dir", "fifo"):
        assert "not a regular file" in await refused(made, "000000", user=user)


async def test_passwords_are_for_others(made: Totp) -> None:
    assert isinstance(await made.authenticate(Attempt("ada", PasswordCredential("x"), "")), Deny)


@pytest.mark.parametrize("wrong", [{"file": "secrets/%u"}, {"tries": 0}, {"seconds": -1.0}])
def test_options(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)  # type: ignore[arg-type]


def test_without_pyotp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyotp", None)
    with pytest.raises(ConfigError, match=r"dunnart\[totp\]"):
        Totp(Context("totp", Options(), LOG))


async def test_the_tool_makes_what_the_plugin_reads(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ada"
    line = ["totp", "--file", str(path), "--user", "ada", "--issuer", "my host"]
    assert main(line) == 0
    uri = capsys.readouterr().out.strip()
    app = pyotp.parse_uri(uri)
    assert (app.name, app.issuer) == ("ada", "my host")
    assert path.stat().st_mode & 0o777 == 0o600
    totp = Totp(Context("totp", Options(str(tmp_path / "%u")), LOG), clock)
    clock.now += 60
    assert await ask(totp, app.at(clock.now)) == Allow()
    assert main(line) == 2
    assert "--replace" in capsys.readouterr().err
    assert main([*line, "--replace"]) == 0
    assert pyotp.parse_uri(capsys.readouterr().out.strip()).secret != app.secret
    assert os.listdir(tmp_path) == ["ada"]
