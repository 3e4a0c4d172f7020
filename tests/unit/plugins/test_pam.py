"""PAM with its real modules: what they ask, say, refuse and set, and that one that hangs holds up nobody."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dunnart.errors import ConfigError
from dunnart.plugins import os_account, pam_process
from dunnart.plugins.os_account import Opened
from dunnart.plugins.pam import Options, Pam, PamPassword
from dunnart.protocol.questions import (
    Allow,
    AuthReply,
    Credential,
    Deny,
    InteractiveCredential,
    PasswordCredential,
    Prompt,
)
from dunnart.server import Attempt
from dunnart.server.plugins import Context
from tests.interop.pam_services import PERMIT, needs_pam, program, services
from tests.runtime.driver import eventually

pytestmark = needs_pam
LOG = logging.getLogger("dunnart.plugin.pam")
PASSED = "auth required pam_permit.so\n"  # as in all real services: pam_exec itself has no credentials to set
REST = "account required pam_permit.so\nsession required pam_permit.so\n"


@pytest.fixture
def service() -> Iterator[Callable[[str], str]]:
    with services() as write:
        yield write


@asynccontextmanager
async def made(kind: Any, service: str, **options: Any) -> AsyncIterator[Any]:
    """An authenticator; at its end no process is left."""
    found = kind(Context("pam", Options(service=service, **options), LOG))
    try:
        yield found
    finally:
        for connection in list(found._helpers):
            found.ended(connection)
        await eventually(lambda: found._running == 0)
        if found._forks is not None:
            await found._forks.close()


async def ask(pam: Any, credential: Credential, user: str = "root", connection: int = 1) -> AuthReply:
    reply: AuthReply = await pam.authenticate(Attempt(user, credential, "192.0.2.1", connection=connection))
    return reply


BEGIN = InteractiveCredential("", None)


def answers(*responses: str) -> InteractiveCredential:
    return InteractiveCredential("", responses)


async def to_the_end(pam: Any) -> tuple[AuthReply, list[str]]:
    """Go through with a login that asks nothing; gives what comes of it, and what was said."""
    said = []
    reply = await ask(pam, BEGIN)
    while isinstance(reply, Prompt):
        assert reply.prompts == ()
        said.append(reply.instruction)
        reply = await ask(pam, answers())
    return reply, said


def checking(tmp_path: Path, word: str = "secret") -> Path:
    """A program that knows one password, which PAM hands it with a zero byte behind it."""
    return program(tmp_path, f'[ "$(tr -d "\\0")" = {word} ]')


async def test_nothing_is_asked_where_nothing_has_to_be(service: Callable[[str], str]) -> None:
    async with made(Pam, service(PERMIT)) as pam:
        reply = await ask(pam, BEGIN)
        assert isinstance(reply, Allow)
        account = os_account.find("root")
        assert account is not None
        assert isinstance(reply.grant, Opened)
        assert (reply.grant.uid, reply.grant.home, reply.grant.shell) == (0, account.home, account.shell)
        assert len(pam._helpers) == 1  # it keeps the session open
        assert await ask(pam, BEGIN, "no-such-user", 2) == Deny("no such user here", unknown_user=True)


async def test_a_module_denies(service: Callable[[str], str]) -> None:
    async with made(Pam, service(f"auth required pam_deny.so\n{REST}")) as pam:
        reply = await ask(pam, BEGIN)
        assert isinstance(reply, Deny)
        assert reply.detail.startswith("pam_authenticate: ")
        assert not reply.unknown_user
        assert pam._helpers == {}
        reply = await ask(pam, BEGIN, "no-such-user")
        assert isinstance(reply, Deny)
        assert reply.unknown_user


async def test_a_question_and_its_answer(service: Callable[[str], str], tmp_path: Path) -> None:
    text = f"auth required pam_exec.so expose_authtok quiet {checking(tmp_path)}\n{PASSED}{REST}"
    async with made(Pam, service(text)) as pam:
        asked = await ask(pam, BEGIN)
        assert asked == Prompt((("Password: ", False),))
        assert isinstance(await ask(pam, answers("secret")), Allow)
        assert isinstance(await ask(pam, BEGIN), Prompt)
        assert isinstance(await ask(pam, answers("wrong")), Deny)
        assert isinstance(await ask(pam, answers("secret")), Deny)  # nothing was asked
        assert isinstance(await ask(pam, BEGIN), Prompt)
        assert isinstance(await ask(pam, answers("secret"), "nobody"), Deny)  # somebody else was
        assert isinstance(await ask(pam, BEGIN), Prompt)
        for wrong in [(), ("secret", "secret"), ("sec\0ret",)]:
            assert isinstance(await ask(pam, BEGIN), Prompt)
            assert isinstance(await ask(pam, answers(*wrong)), Deny)


async def test_what_modules_say_reaches_the_user(service: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "note").write_text("Mind the gap, %u.")
    text = f"auth required pam_echo.so file={tmp_path}/note\n"
    text += f"auth required pam_exec.so expose_authtok quiet {checking(tmp_path)}\n{PASSED}"
    async with made(Pam, service(text + REST)) as pam:
        asked = await ask(pam, BEGIN)
        assert isinstance(asked, Prompt)
        assert (asked.prompts, asked.instruction.strip()) == ((("Password: ", False),), "Mind the gap, root.")
    # and also if it is the last word, before a refusal or a welcome
    for last, kind in (("pam_deny.so", Deny), ("pam_permit.so", Allow)):
        text = f"auth required pam_echo.so file={tmp_path}/note\nauth required {last}\n{REST}"
        async with made(Pam, service(text)) as pam:
            asked = await ask(pam, BEGIN)
            assert isinstance(asked, Prompt)
            assert (asked.prompts, asked.instruction.strip()) == ((), "Mind the gap, root.")
            assert isinstance(await ask(pam, answers()), kind)


async def test_what_a_session_s_modules_say_is_for_the_shell(service: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "note").write_text("The message of the day.")
    text = "auth required pam_permit.so\naccount required pam_permit.so\n"
    text += f"session required pam_echo.so file={tmp_path}/note\n"
    async with made(Pam, service(text)) as pam:
        reply, said = await to_the_end(pam)
        assert said == []
        assert isinstance(reply, Allow)
        assert isinstance(reply.grant, Opened)
        assert reply.grant.said.strip() == "The message of the day."


async def test_a_closed_account(service: Callable[[str], str]) -> None:
    text = "auth required pam_permit.so\naccount required pam_debug.so acct=acct_expired\n"
    async with made(Pam, service(text)) as pam:
        reply, said = await to_the_end(pam)
        assert reply == Deny("pam_acct_mgmt: User account has expired")
        assert said == ["acct=acct_expired"]


CHANGE = "auth required pam_permit.so\naccount required pam_debug.so acct=new_authtok_reqd\n"
CHANGE += "session required pam_permit.so\n"


async def test_a_password_that_has_to_be_changed_is_changed(service: Callable[[str], str], tmp_path: Path) -> None:
    told = tmp_path / "told"
    changing = program(tmp_path, f'echo "$PAM_TYPE $PAM_USER" >>{told}')
    text = CHANGE + f"password required pam_exec.so quiet {changing}\n"
    async with made(Pam, service(text)) as pam:
        reply, _ = await to_the_end(pam)
        assert isinstance(reply, Allow)
        assert set(told.read_text().splitlines()) == {"password root"}
    text = CHANGE + "password required pam_deny.so\n"
    async with made(Pam, service(text)) as pam:
        reply, _ = await to_the_end(pam)
        assert isinstance(reply, Deny)
        assert reply.detail.startswith("pam_chauthtok: ")


async def test_by_the_method_password_it_is_not(service: Callable[[str], str]) -> None:
    text = CHANGE + "password required pam_permit.so\n"
    async with made(PamPassword, service(text)) as pam:
        reply = await ask(pam, PasswordCredential("x"))
        assert isinstance(reply, Deny)
        assert "has to be changed" in reply.detail


async def test_a_password(service: Callable[[str], str], tmp_path: Path) -> None:
    text = f"auth required pam_exec.so expose_authtok quiet {checking(tmp_path)}\n{PASSED}{REST}"
    async with made(PamPassword, service(text)) as pam:
        assert isinstance(await ask(pam, PasswordCredential("secret")), Allow)
        assert isinstance(await ask(pam, PasswordCredential("wrong")), Deny)
        assert isinstance(await ask(pam, BEGIN), Deny)


async def test_the_session_is_opened_and_closed_and_sets_variables(
    service: Callable[[str], str], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    telling = program(tmp_path, f'echo "$PAM_TYPE $PAM_USER $PAM_RHOST $PAM_TTY" >>{told}')
    variables = tmp_path / "variables"
    variables.write_text("COLOUR=blue\n")
    text = "auth required pam_permit.so\naccount required pam_permit.so\n"
    text += f"session required pam_exec.so quiet {telling}\n"
    text += f"session required pam_env.so conffile=/dev/null envfile={variables} readenv=1\n"
    async with made(Pam, service(text)) as pam:
        reply = await ask(pam, BEGIN)
        assert isinstance(reply, Allow)
        assert reply.rights is not None
        assert dict(reply.rights.environment)["COLOUR"] == "blue"
        assert told.read_text() == "open_session root 192.0.2.1 ssh\n"
        pam.ended(1)
        await eventually(lambda: pam._running == 0)
        assert told.read_text().splitlines()[1:] == ["close_session root 192.0.2.1 ssh"]


async def test_a_session_that_cannot_be_opened(service: Callable[[str], str]) -> None:
    text = "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_deny.so\n"
    async with made(Pam, service(text)) as pam:
        reply = await ask(pam, BEGIN)
        assert isinstance(reply, Deny)
        assert reply.detail.startswith("pam_open_session: ")


async def test_one_that_hangs_is_cut_and_holds_up_nobody(service: Callable[[str], str], tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    hanging = program(tmp_path, f'[ "$PAM_USER" = root ] && exit 0; echo $$ >{begun}; exec sleep 1000')
    text = f"auth required pam_exec.so quiet {hanging}\n{PASSED}{REST}"
    async with made(Pam, service(text), seconds=2.0) as pam:
        hung = asyncio.ensure_future(ask(pam, BEGIN, "nobody", 2))
        await eventually(begun.exists)
        assert isinstance(await ask(pam, BEGIN, "root", 3), Allow)
        assert not hung.done()
        assert await hung == Deny("PAM has not answered within 2 s")
        assert 2 not in pam._helpers


async def test_one_that_crashes_denies(service: Callable[[str], str], tmp_path: Path) -> None:
    killing = program(tmp_path, "kill -9 $PPID")
    async with made(Pam, service(f"auth required pam_exec.so quiet {killing}\n{REST}")) as pam:
        reply = await ask(pam, BEGIN)
        assert isinstance(reply, Deny)
        assert "PAM failed" in reply.detail


async def test_a_client_that_goes_away_in_the_middle(service: Callable[[str], str], tmp_path: Path) -> None:
    text = f"auth required pam_exec.so expose_authtok quiet {checking(tmp_path)}\n{PASSED}{REST}"
    async with made(Pam, service(text)) as pam:
        assert isinstance(await ask(pam, BEGIN), Prompt)
        pam.ended(1)
        await eventually(lambda: pam._running == 0)
        assert isinstance(await ask(pam, answers("secret")), Deny)


async def test_processes_are_bounded(service: Callable[[str], str]) -> None:
    async with made(Pam, service(PERMIT), processes=1) as pam:
        assert isinstance(await ask(pam, BEGIN, connection=1), Allow)
        assert await ask(pam, BEGIN, connection=2) == Deny("too many processes speak to PAM")
        pam.ended(1)
        await eventually(lambda: pam._running == 0)
        assert isinstance(await ask(pam, BEGIN, connection=2), Allow)


@pytest.mark.parametrize(
    "wrong", [{"service": "../shadow"}, {"service": ""}, {"seconds": 10.0}, {"seconds": 0.0}, {"processes": 0}]
)
def test_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)


def test_a_service_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"there is no /etc/pam\.d/no-such-service") as caught:
        Pam(Context("pam", Options("no-such-service"), LOG))
    assert caught.value.key == "service"
    assert not os.path.exists("/etc/pam.d/no-such-service")


class FakeControl:
    """The server's end, with answers that are there already."""

    def __init__(self, *replies: dict[str, object]) -> None:
        self.written: list[dict[str, object]] = []
        self._replies = list(replies)

    def write(self, **what: object) -> None:
        self.written.append(what)

    def read(self) -> dict[str, object]:
        if not self._replies:
            raise pam_process.Gone
        return self._replies.pop(0)


def converse(
    control: FakeControl, password: str | None, *messages: tuple[int, bytes]
) -> tuple[int, list[bytes | None]]:
    """Call the conversation as a module does."""
    order: dict[str, object] = {
        "service": "other", "user": "root", "address": "", "password": password, "empty": False, "proved": False,
        "folder": "", "ends": "",
    }  # fmt: skip
    pam = pam_process.Pam(order, control)  # type: ignore[arg-type]
    rows = [pam_process._Message(style, text) for style, text in messages]
    pointers = (ctypes.POINTER(pam_process._Message) * len(rows))(*(ctypes.pointer(row) for row in rows))
    found = (ctypes.c_void_p * 1)()
    status = pam._converse(len(rows), pointers, found, None)
    texts: list[bytes | None] = []
    if status == 0:
        made = ctypes.cast(found[0] or 0, ctypes.POINTER(pam_process._Response))
        for number in range(len(rows)):
            text = made[number].text
            texts.append(ctypes.string_at(text) if text else None)
    pam.end()
    return status, texts


def test_a_conversation_of_several_messages() -> None:
    control = FakeControl({"answers": ["root of all", "s\u00e9cret"]})
    status, texts = converse(
        control, None, (4, b"Welcome"), (2, b"Login: "), (3, b"Caps lock is on"), (1, b"Password: ")
    )  # fmt: skip
    assert (status, texts) == (0, [None, b"root of all", None, "s\u00e9cret".encode()])
    assert control.written == [
        {"prompts": [("Login: ", True), ("Password: ", False)], "text": "Welcome\nCaps lock is on"}
    ]


@pytest.mark.parametrize(
    "replies", [(), ({"answers": []},), ({"answers": ["a", "b"]},), ({"answers": ["a\0b"]},), ({"answers": 7},), ({},)]
)
def test_answers_that_are_none_fail_the_conversation(replies: tuple[dict[str, object], ...]) -> None:
    assert converse(FakeControl(*replies), None, (1, b"Password: ")) == (19, [])


@pytest.mark.parametrize("messages", [((2, b"Login: "),), ((1, b"Old: "), (1, b"New: ")), ((7, b"?"),)])
def test_a_password_answers_one_hidden_question_only(messages: tuple[tuple[int, bytes], ...]) -> None:
    assert converse(FakeControl(), "secret", *messages) == (19, [])
    assert converse(FakeControl(), "secret", (4, b"Hello"), (1, b"Password: ")) == (0, [None, b"secret"])
