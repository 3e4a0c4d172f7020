"""The ways in, their order, and what is said when none is open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dunnart
from dunnart.client import CLIENT_LIMITS, Agent, TrustAnyHostKey, connect
from dunnart.client.login import Login
from dunnart.errors import AgentError, AuthenticationFailed, ConfigError, ConnectionClosed, NegotiationError
from dunnart.keys import KnownHosts
from dunnart.keys.agent import AgentAnswers
from dunnart.protocol.limits import Limits
from dunnart.protocol.questions import Allow, AuthReply, Deny, InteractiveCredential, Prompt
from dunnart.server.authentication import Attempt
from dunnart.wire.encoding import Reader, byte, string, text, uint32
from dunnart.wire.messages import UserauthSuccess
from tests.client.support import HOST_KEY, KEY, USER, serving
from tests.runtime.driver import serving as running_programs

OTHER = dunnart.PrivateKey.generate("ed25519")
KINDS = {
    "ed25519": KEY,
    "rsa": dunnart.PrivateKey.generate("rsa", 2048),
    "ecdsa256": dunnart.PrivateKey.generate("ecdsa", 256),
    "ecdsa384": dunnart.PrivateKey.generate("ecdsa", 384),
    "ecdsa521": dunnart.PrivateKey.generate("ecdsa", 521),
}


async def secret(user: str, password: str) -> bool:
    return user == USER and password == "secret"


BY_PASSWORD: dict[str, Any] = {"authenticators": [dunnart.PasswordCallback(secret)]}


def replies(*answers: object) -> Callable[..., Any]:
    """Give one answer after the other, whatever is asked."""
    rest = list(answers)

    async def ask(*_: object) -> object:
        return rest.pop(0)

    ask.rest = rest  # type: ignore[attr-defined] # for tests to look at
    return ask


def write(folder: Path, name: str, key: dunnart.PrivateKey, passphrase: str = "") -> Path:
    path = folder / name
    path.touch(0o600)
    path.write_bytes(key.openssh("", passphrase or None))
    path.with_name(f"{name}.pub").write_text(key.public.line() + "\n")
    return path


@asynccontextmanager
async def agent_with(path: Path, *keys: dunnart.PrivateKey, refuses: bool = False) -> AsyncIterator[list[str]]:
    """An agent that holds these keys; gives what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        messages = AgentAnswers()
        with contextlib.closing(writer):
            while data := await reader.read(65536):
                for message in messages.receive(data):
                    writer.write(string(_answer(message, keys, asked, refuses=refuses)))

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield asked


def _answer(message: bytes, keys: Sequence[dunnart.PrivateKey], asked: list[str], *, refuses: bool) -> bytes:
    reader = Reader(message)
    if reader.byte() == 11:
        asked.append("list")
        listed = b"".join(string(key.public.blob) + text("") for key in keys)
        return byte(12) + uint32(len(keys)) + listed
    blob, data, flags = reader.string(), reader.string(), reader.uint32()
    key = next(key for key in keys if key.public.blob == blob)
    asked.append(f"sign {key.public.key_type}")
    algorithm = {0: key.public.key_type, 2: "rsa-sha2-256", 4: "rsa-sha2-512"}[flags]
    return byte(5) if refuses else byte(14) + string(key.sign(algorithm, data))


@pytest.mark.parametrize("kind", KINDS)
async def test_keys_of_every_kind(kind: str) -> None:
    key = KINDS[kind]
    options = {"authenticators": [dunnart.PublicKeys(key.public.line())]}
    async with serving(**options) as server, server.connect(keys=[OTHER, key]) as connection:
        assert (await connection.run("echo in")).stdout == b"in"


async def test_a_key_file(tmp_path: Path) -> None:
    async with serving() as server, server.connect(keys=[write(tmp_path, "key", KEY)]) as connection:
        assert not connection.closed


async def test_a_locked_file_is_opened_only_for_a_server_that_takes_its_key(tmp_path: Path) -> None:
    asked: list[str] = []

    async def passphrase(path: str) -> str:
        asked.append(path)
        return "opens" if len(asked) > 1 else "wrong"

    other = write(tmp_path, "other", OTHER, "never asked for")
    right = write(tmp_path, "right", KEY, "opens")
    async with serving() as server, server.connect(keys=[other, right], passphrase=passphrase) as connection:
        assert not connection.closed
    assert asked == [str(right), str(right)]


async def test_one_passphrase_for_all(tmp_path: Path) -> None:
    async with serving() as server:
        async with server.connect(keys=[write(tmp_path, "key", KEY, "opens")], passphrase="opens") as connection:
            assert not connection.closed
        with pytest.raises(ConfigError, match=r"key: .*passphrase is wrong"):
            await server.connect(keys=[tmp_path / "key"], passphrase="wrong")


async def test_key_files_that_were_named_must_be_usable(tmp_path: Path) -> None:
    async with serving() as server:
        with pytest.raises(ConfigError, match="missing: cannot be read"):
            await server.connect(keys=[tmp_path / "missing"])
        with pytest.raises(ConfigError, match="locked by a passphrase"):
            await server.connect(keys=[write(tmp_path, "locked", KEY, "x")])
        (tmp_path / "locked").chmod(0o644)
        with pytest.raises(ConfigError, match="chmod 600"):
            await server.connect(keys=[tmp_path / "locked"])


async def test_keys_in_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    write(tmp_path / ".ssh", "id_rsa", KEY)
    write(tmp_path / ".ssh", "id_ed25519", OTHER).chmod(0o666)
    async with serving() as server:
        async with server.connect(keys=None) as connection:
            assert not connection.closed
        (tmp_path / ".ssh" / "id_rsa").unlink()
        with pytest.raises(AuthenticationFailed, match="chmod 600"):
            await server.connect(keys=None)


async def test_an_agents_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rsa = KINDS["rsa"]
    async with (
        serving(authenticators=[dunnart.PublicKeys(rsa.public.line())]) as server,
        agent_with(tmp_path / "agent", OTHER, rsa) as asked,
    ):
        async with server.connect(keys=[], agent=tmp_path / "agent"):
            pass
        assert asked == ["list", "sign ssh-rsa"]  # the server was asked about the other one, and nobody else
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        async with server.connect(keys=[], agent=True) as connection:
            assert not connection.closed
        with pytest.raises(AuthenticationFailed):
            await server.connect(keys=[], agent=False)


async def test_an_agent_that_refuses_is_passed_over(tmp_path: Path) -> None:
    async with (
        serving(authenticators=[dunnart.PublicKeys(f"{OTHER.public.line()}\n{KEY.public.line()}")]) as server,
        agent_with(tmp_path / "agent", OTHER, refuses=True) as asked,
    ):
        async with server.connect(keys=[KEY], agent=tmp_path / "agent") as connection:
            assert not connection.closed
        assert asked == ["list", "sign ssh-ed25519"]
        with pytest.raises(AuthenticationFailed, match="The agent refused to sign"):
            await server.connect(keys=[], agent=tmp_path / "agent")


async def test_an_agent_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nobody"))
    async with serving() as server:
        async with server.connect(agent=True) as connection:  # by the key
            assert not connection.closed
        with pytest.raises(AgentError, match="nobody cannot be reached"):
            await server.connect(agent=tmp_path / "nobody")
        with pytest.raises(AuthenticationFailed, match="nobody cannot be reached"):
            await server.connect(agent=True, keys=[])


@pytest.mark.parametrize("answer", [b"", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1\5", b"\0\0\0\5\x0c\0\0\0\1"])
async def test_an_agent_that_makes_no_sense(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    with theirs:
        async with Agent(ours) as agent:
            with pytest.raises(AgentError):
                await agent.identities()


async def test_a_password() -> None:
    async with serving(**BY_PASSWORD) as server:
        async with server.connect(password="secret") as connection:
            assert not connection.closed
        with pytest.raises(AuthenticationFailed) as caught:
            await server.connect(password="wrong")
        assert "wrong" not in str(caught.value)
        assert "Tried: " in str(caught.value)
        assert f"{USER}@127.0.0.1" in str(caught.value)


async def test_a_password_is_asked_for_until_it_is_right() -> None:
    async with serving(**BY_PASSWORD) as server:
        ask = replies("wrong", "secret")
        async with server.connect(keys=[], password=ask) as connection:
            assert not connection.closed
        ask = replies("wrong", None, "secret")
        with pytest.raises(AuthenticationFailed, match="Tried: "):
            await server.connect(keys=[], password=ask)
        assert ask.rest == ["secret"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("asks", [1, 5])
async def test_so_often_a_person_is_asked(asks: int) -> None:
    async with serving(**BY_PASSWORD, limits=Limits(max_auth_tries=20)) as server:
        ask = replies(*["wrong"] * (asks - 1), "secret")
        async with server.connect(keys=[], password=ask, asks=asks) as connection:
            assert not connection.closed
        ask = replies(*["wrong"] * asks, "unasked")
        with pytest.raises(AuthenticationFailed):
            await server.connect(keys=[], password=ask, asks=asks)
        assert ask.rest == ["unasked"]  # type: ignore[attr-defined]
    async with serving(authenticators=[Asking(("Code: ", True))], limits=Limits(max_auth_tries=20)) as server:
        ask = replies(*[("wrong",)] * asks, "unasked")
        with pytest.raises(AuthenticationFailed):
            await server.connect(keys=[], prompt=ask, asks=asks)
        assert ask.rest == ["unasked"]  # type: ignore[attr-defined]


class Asking:
    """Asks two things, then lets in who knows both."""

    method = "keyboard-interactive"
    on_any_loop = False

    def __init__(self, *prompts: tuple[str, bool]) -> None:
        self.prompts = prompts

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask, then decide."""
        assert isinstance(attempt.credential, InteractiveCredential)
        responses = attempt.credential.responses
        if responses is None:
            return Prompt(self.prompts, "Name", "Instruction")
        return Allow() if responses == ("secret", "ü")[: len(self.prompts)] else Deny()


async def test_questions_are_answered() -> None:
    prompts: list[Prompt] = []

    async def prompt(found: Prompt) -> tuple[str, ...] | None:
        prompts.append(found)
        return [("wrong", ""), ("secret", "ü")][len(prompts) - 1]

    asked = (("Password: ", False), ("Letter: ", True))
    async with serving(authenticators=[Asking(*asked)]) as server:
        async with server.connect(keys=[], prompt=prompt) as connection:
            assert not connection.closed
        assert prompts == [Prompt(asked, "Name", "Instruction")] * 2
        with pytest.raises(AuthenticationFailed, match="Tried: keyboard-interactive"):
            await server.connect(keys=[], prompt=replies(None))
        with pytest.raises(AuthenticationFailed, match="Tried: keyboard-interactive"):
            await server.connect(keys=[], password="secret")  # two questions are not one for the password
        with pytest.raises(ValueError, match="1 answers to 2 questions"):
            await server.connect(keys=[], prompt=replies("x"))


async def test_a_password_answers_the_only_question_that_hides_it() -> None:
    async with serving(authenticators=[Asking(("Password: ", False))]) as server:
        async with server.connect(keys=[], password="secret") as connection:
            assert not connection.closed
        async with server.connect(keys=[], password=replies("wrong", "secret")) as connection:
            assert not connection.closed
    async with serving(authenticators=[Asking(("Name: ", True))]) as server:
        with pytest.raises(AuthenticationFailed):
            await server.connect(keys=[], password="secret")


async def test_a_key_and_a_password_where_both_are_wanted() -> None:
    both = [dunnart.PublicKeys(KEY.public.line()), dunnart.PasswordCallback(secret)]
    async with serving(authenticators=both, methods=["publickey,password"]) as server:
        async with server.connect(password="secret") as connection:
            assert not connection.closed
        with pytest.raises(AuthenticationFailed, match=r"accepted, but more is wanted.*offers: password"):
            await server.connect()


async def test_the_failure_says_what_was_tried_and_what_is_offered() -> None:
    async with serving() as server:
        with pytest.raises(AuthenticationFailed) as caught:
            await server.connect(keys=[OTHER], password="none")
        assert f"Tried: publickey ssh-ed25519 {OTHER.public.fingerprint()}." in str(caught.value)
        assert "The server offers: publickey." in str(caught.value)
        assert caught.value.methods == ("publickey",)
        with pytest.raises(AuthenticationFailed, match="nothing to try"):
            await server.connect(keys=[])


async def test_too_many_keys_are_said_to_be_too_many() -> None:
    async with serving() as server:
        with pytest.raises(AuthenticationFailed, match="The server ended the connection"):
            await server.connect(keys=[dunnart.PrivateKey.generate("ed25519") for _ in range(8)])


async def test_a_callbacks_failure_is_the_callers() -> None:
    async def password() -> str:
        raise LookupError("no vault")

    async with serving(**BY_PASSWORD) as server:
        with pytest.raises(LookupError, match="no vault"):
            await server.connect(keys=[], password=password)


async def test_a_server_that_lets_in_whoever_has_not_answered_yet() -> None:
    """The question that is open then is dropped."""
    ended: list[str] = []

    async def password() -> str:
        pump = server.connections[0].pump
        pump.engine.outbound.send(UserauthSuccess().encode())
        pump.flush()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        return ""

    async with running_programs(host_keys=(HOST_KEY,)) as server:
        known = KnownHosts(f"127.0.0.1 {HOST_KEY.public.line()}")
        options: dict[str, Any] = {"user": USER, "keys": [], "agent": False, "known_hosts": known}
        async with connect(*server.address, **options, password=password) as connection:
            assert not connection.closed
            assert ended == ["cancelled"]


async def test_nothing_in_common() -> None:
    async with serving() as server:
        with pytest.raises(NegotiationError, match="no matching host key type found"):
            await server.connect(algorithms="fips")
        with pytest.raises(ConfigError, match="no profile 'fast'"):
            server.connect(algorithms="fast")


async def test_nobody_there() -> None:
    async with serving() as server:
        pass
    with pytest.raises(
        ConnectionClosed, match=rf"127\.0\.0\.1 port {server.port} cannot be reached: Connection refused"
    ):
        await server.connect()


async def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limits = replace(CLIENT_LIMITS, identification_seconds=0.2)
        with pytest.raises(ConnectionClosed, match=r"no version line within 0\.2 s"):
            await connect(*silent.getsockname(), known_hosts=TrustAnyHostKey(), limits=limits)


@pytest.mark.parametrize("listed", [b"rsa-sha2-256", b"ssh-rsa,rsa-sha2-256", None])
async def test_an_rsa_key_signs_as_the_server_lists(listed: bytes | None) -> None:
    rsa = KINDS["rsa"]
    login = Login(USER, "host", keys=[rsa], agent=False, algorithms=("rsa-sha2-512", "rsa-sha2-256"), password=None,
                  passphrase=None, prompt=None)  # fmt: skip
    extensions = {} if listed is None else {"server-sig-algs": listed}
    credential = await login.next(("publickey",), extensions, partial=False)
    assert getattr(credential, "algorithm", None) == ("rsa-sha2-512" if listed is None else "rsa-sha2-256")
    assert await login.next(("publickey",), extensions, partial=False) is None
    await login.close()


async def test_no_sha_1_for_a_server_that_wants_nothing_else() -> None:
    login = Login(USER, "host", keys=[KINDS["rsa"]], agent=False, algorithms=("rsa-sha2-512",), password=None,
                  passphrase=None, prompt=None)  # fmt: skip
    assert await login.next(("publickey",), {"server-sig-algs": b"ssh-rsa"}, partial=False) is None
    assert "No signature algorithm of ssh-rsa" in str(login.failure(()))
    await login.close()


async def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "key", KEY)
    async with serving() as server, server.connect(keys=["~/key"]) as connection:
        assert connection.user == USER
    assert os.environ["HOME"] == str(tmp_path)
