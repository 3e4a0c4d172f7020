"""The server itself: its arguments, its callbacks, its pools, its start and its end; through the public interface."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dunnart
from dunnart.errors import ConfigError, LocalProtocolError
from dunnart.keys.private import PrivateKey
from dunnart.protocol.events import AuthRefused, LoggedIn
from dunnart.protocol.limits import Limits
from dunnart.protocol.questions import (
    CredentialQuestion,
    PasswordCredential,
    PublicKeyCredential,
    Refusal,
    SignQuestion,
)
from dunnart.protocol.requests import ExecRequest, ShellRequest
from dunnart.runtime.listeners import ListenAddress
from dunnart.server import (
    Address,
    AllowAnyone,
    Attempt,
    BlockingSession,
    EventSession,
    KeyCallback,
    PasswordCallback,
    PublicKeys,
    RawSession,
    Server,
    Session,
    SessionEvents,
)
from tests.runtime.driver import HOST_KEY, PASSWORD, USER, Beginning, Client, Clients, eventually, right_password
from tests.unit.server.api import begin, ended, every_placement, serving


async def nothing(session: Session) -> None:
    """Serve nobody."""


def arguments(**changed: Any) -> dict[str, Any]:
    given = {"handler": nothing, "host_keys": [HOST_KEY], "authenticators": [AllowAnyone()], "listen": "127.0.0.1:0"}
    return given | changed


# Arguments.


class Half:
    """An authenticator without its method's name."""

    async def authenticate(self, attempt: Attempt) -> None: ...


NOT_AN_APPLICATION: list[object] = [3, "handler", object(), Session, SessionEvents()]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("host_keys", [], "a server needs one"),
        ("host_keys", HOST_KEY, "is no sequence: write ["),
        ("host_keys", HOST_KEY.openssh(), "is no sequence"),
        ("host_keys", [3], "is no PrivateKey"),
        ("host_keys", [b"not a key"], "not a private key"),
        ("host_keys", ["/nonexistent/key"], "/nonexistent/key: cannot be read: No such file"),
        ("host_keys", ["a\0b"], "cannot be read"),
        ("host_keys", [HOST_KEY.public], "is no PrivateKey"),
        ("authenticators", [], "name an authenticator, or AllowAnyone() to let everybody in"),
        ("authenticators", AllowAnyone(), "is no sequence"),
        ("authenticators", [right_password], "is no authenticator"),
        ("authenticators", [AllowAnyone], "is no authenticator"),
        ("authenticators", [Half()], "None is none of none, publickey"),
        ("authenticators", [AllowAnyone(), AllowAnyone()], "two authenticators for none"),
        ("listen", "127.0.0.1", "127.0.0.1"),
        ("listen", "127.0.0.1:65536", "65536"),
        ("listen", 22, "is no sequence"),
        ("listen", [22], "is no address and no socket"),
        ("subsystems", [("sftp", nothing)], "is no Mapping"),
        ("subsystems", {"sftp": 3}, "is no async def handler(session)"),
        ("middleware", [3], "is no function of the next handler"),
        ("middleware", lambda following: following, "is no sequence"),
        ("accept", True, "is no function accept(address)"),
        ("methods", ["none,password"], "no authenticator is there for password"),
        ("methods", ["none,none"], "'none,none' names a method twice"),
        ("methods", "none", "is no sequence"),
        ("methods", [3], "is no str"),
        ("accept_env", [3], "is no str"),
        ("accept_env", "LANG", "is no sequence"),
        ("algorithms", "newest", "'newest' is none of default"),
        ("algorithms", None, "is no Algorithms"),
        ("limits", {"sessions": 3}, "is no Limits"),
        ("admission", 100, "is no Admission"),
        ("banner", b"hello", "is no str"),
        ("placement", "cloud", "is none of thread, process, loop"),
        ("workers", 0, "is no whole number from 1"),
        ("workers", 2, 'more than one worker needs placement="process"'),
        ("application_threads", 0, "is no whole number from 1"),
        ("application_threads", True, "is no whole number"),
        ("application_queue", -1, "is no whole number from 0"),
        ("application_queue", 1.5, "is no whole number"),
        ("callback_seconds", "10", "is no number"),
        ("callback_seconds", float("nan"), "is no number"),
        ("callback_seconds", float("inf"), "is no number"),
        ("thread_nice", -5, "is no whole number from 0"),
        ("thread_stack_bytes", 100, "a stack has at least 32768 bytes"),
        ("retry_seconds", -1, "is no number from 0"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_what_cannot_be_used_is_refused_by_name(name: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Server(**arguments(**{name: value}))
    assert caught.value.key == name
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["handler", "shell", "exec"])
@pytest.mark.parametrize("value", NOT_AN_APPLICATION, ids=lambda value: type(value).__name__)
def test_what_serves_nothing_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match="is no async def handler") as caught:
        Server(**arguments(**{name: value}))
    assert caught.value.key == name


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: PasswordCallback(3), "check"),  # type: ignore[arg-type]
        (lambda: KeyCallback("find"), "find"),  # type: ignore[arg-type]
        (lambda: PublicKeys(""), "text"),
        (lambda: PublicKeys("# nothing\n"), "text"),
        (lambda: PublicKeys("ssh-ed25519 AAAA"), "text"),
    ],
)
def test_authenticators_check_their_arguments(make: Callable[[], object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.key == key


def test_an_argument_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="hostkeys"):
        Server(**arguments(hostkeys=[]))


def test_nobody_can_start_a_server_without_saying_who_may_come_in() -> None:
    with pytest.raises(ConfigError, match=r"AllowAnyone\(\) to let everybody in"):
        dunnart.Server(nothing, host_keys=[HOST_KEY])


def test_host_keys_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(HOST_KEY.openssh())
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"^host_keys: .*key: can be read by others \(mode 640\); run: chmod 600"):
        Server(**arguments(host_keys=[path]))
    path.chmod(0o600)
    server = Server(**arguments(host_keys=[HOST_KEY.openssh(), str(path), path, HOST_KEY]))
    assert [key.public for key in server.config.keys] == [HOST_KEY.public] * 4


# Start and end.


@every_placement
async def test_where_it_listens(placement: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    own = socket.create_server(("127.0.0.1", 0))
    listen = ["127.0.0.1:0", own, f"unix:{path}", ListenAddress("127.0.0.1", 0)]
    server = Server(**arguments(listen=listen, placement=placement, admission=None))
    assert not server.addresses
    async with server:
        first, second, third, fourth = server.addresses
        assert server.port == first.port > 0
        assert second.port == own.getsockname()[1]
        assert third.path == path
        assert fourth.port not in {0, first.port}
        where = [(("127.0.0.1", each.port), socket.AF_INET) for each in (first, second, fourth)]
        for address, family in [*where, (path, socket.AF_UNIX)]:
            clients = Clients(address, family)
            client = await clients.login()
            assert await ended(client, await begin(client)) == 0
            client.close()
    assert os.listdir(tmp_path) == []
    for address, family in where:
        with socket.socket(family) as sock, pytest.raises(ConnectionRefusedError):
            sock.connect(address)


@every_placement
async def test_a_server_starts_once(placement: Any) -> None:
    server = Server(**arguments(placement=placement))
    assert (server.connections, dict(server.counters)) == (0, {})
    await server.start()
    with pytest.raises(LocalProtocolError):
        await server.start()
    await server.close()
    await server.close()
    assert server.connections == 0


@every_placement
async def test_a_taken_address_is_named(placement: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        server = Server(**arguments(listen=["127.0.0.1:0", where], placement=placement))
        with pytest.raises(ConfigError, match=where):
            await server.start()
    await server.start()  # the other listener was closed, and nothing was kept
    await server.close()


# Accept.


def dialled(running: Clients) -> Callable[[], bytes]:
    """Connect, and give what the server says first; b"" if it just closes."""

    def dial() -> bytes:
        with running.dial() as sock:
            sock.settimeout(10)
            return sock.recv(4)

    return dial


def raise_(error: BaseException) -> Any:
    raise error


@every_placement
@pytest.mark.parametrize("awaits", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (lambda: True, True),
        (lambda: False, False),
        (lambda: None, False),
        (lambda: 1, False),
        (lambda: raise_(ZeroDivisionError("in accept")), False),
    ],
    ids=["True", "False", "None", "1", "raises"],
)
async def test_accept(placement: str, *, awaits: bool, answer: Callable[[], Any], accepted: bool) -> None:
    asked: list[Address] = []

    def accept(peer: Address) -> Any:
        asked.append(peer)
        return answer()

    async def accept_soon(peer: Address) -> Any:
        await asyncio.sleep(0)
        return accept(peer)

    async with serving(placement, nothing, accept=accept_soon if awaits else accept) as server:
        assert (await asyncio.to_thread(dialled(server)) == b"SSH-") is accepted
        assert [peer.host for peer in asked] == ["127.0.0.1"]


@every_placement
@pytest.mark.parametrize("awaits", [False, True], ids=["def", "async def"])
async def test_an_accept_that_takes_too_long_refuses_and_others_go_on(placement: str, *, awaits: bool) -> None:
    release = threading.Event()
    slow: set[int] = set()

    def accept(peer: Address) -> bool:
        if not slow:
            slow.add(peer.port)
            release.wait()
        return True

    async def accept_soon(peer: Address) -> bool:
        if not slow:
            slow.add(peer.port)
            await asyncio.Event().wait()
        return True

    async with serving(placement, nothing, accept=accept_soon if awaits else accept, callback_seconds=1.5) as server:
        began = time.monotonic()
        waiting = asyncio.create_task(asyncio.to_thread(dialled(server)))
        await eventually(lambda: slow)
        client = await server.login()
        assert await ended(client, await begin(client)) == 0
        assert await waiting == b""
        assert time.monotonic() - began < 10
        release.set()


# Authenticators.


async def refused(client: Client) -> None:
    """Wait until the server says no."""
    await client.until(lambda: any(isinstance(event, AuthRefused | LoggedIn) for event in client.events))
    assert not any(isinstance(event, LoggedIn) for event in client.events)


@every_placement
@pytest.mark.parametrize("awaits", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize("answer", [None, False, 1, "yes", ZeroDivisionError("in check")], ids=repr)
async def test_what_is_not_true_is_no_login(
    placement: str, *, awaits: bool, answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    def check(user: str, password: str) -> Any:
        assert (user, password) == (USER, PASSWORD)
        return raise_(answer) if isinstance(answer, Exception) else answer

    async def check_soon(user: str, password: str) -> Any:
        return check(user, password)

    callback = PasswordCallback(check_soon if awaits else check)
    async with serving(placement, nothing, authenticators=[callback]) as server:
        await refused(server.begin())
    assert ("ZeroDivisionError" in caplog.text) is isinstance(answer, Exception)


@every_placement
@pytest.mark.parametrize("awaits", [False, True], ids=["def", "async def"])
async def test_a_check_that_takes_too_long_denies_and_others_log_in(placement: str, *, awaits: bool) -> None:
    release, begun = threading.Event(), threading.Event()

    def check(user: str, password: str) -> bool:
        if password == "slow":
            begun.set()
            release.wait()
        return True

    async def check_soon(user: str, password: str) -> bool:
        if password == "slow":
            begun.set()
            await asyncio.Event().wait()
        return True

    callback = PasswordCallback(check_soon if awaits else check)
    async with serving(placement, nothing, authenticators=[callback], callback_seconds=1.5) as server:
        slow = server.begin(password="slow")
        await eventually(begun.is_set)
        quick = await server.login()
        assert await ended(quick, await begin(quick)) == 0
        await refused(slow)
        release.set()


@every_placement
@pytest.mark.parametrize("awaits", [False, True], ids=["def", "async def"])
async def test_keys_that_a_function_finds(placement: str, *, awaits: bool) -> None:
    key, other = PrivateKey.generate("ed25519"), PrivateKey.generate("ed25519")
    asked: list[tuple[str, str]] = []

    def find(user: str, address: str) -> list[Any]:
        asked.append((user, address))
        return [HOST_KEY.public, key.public.line("a comment")]

    async def find_soon(user: str, address: str) -> list[Any]:
        return find(user, address)

    def trying(who: PrivateKey) -> dict[Any, Any]:
        tries = iter([PublicKeyCredential(who.public, "ssh-ed25519", signed=True)])
        return {
            CredentialQuestion: lambda _: next(tries, None),
            SignQuestion: lambda question: who.sign(question.algorithm, question.data),
        }

    authenticators = [KeyCallback(find_soon if awaits else find)]
    async with serving(placement, nothing, authenticators=authenticators) as server:
        await server.login(answers=trying(key))
        await refused(server.begin(answers=trying(other)))
    assert set(asked) == {(USER, "127.0.0.1")}


@every_placement
async def test_both_a_key_and_a_password(placement: str) -> None:
    key = PrivateKey.generate("ed25519")
    seen: list[Any] = []

    async def handler(session: Session) -> None:
        seen.append((session.method, session.key))

    def trying(*credentials: Any) -> dict[Any, Any]:
        tries = iter(credentials)
        return {
            CredentialQuestion: lambda _: next(tries, None),
            SignQuestion: lambda question: key.sign(question.algorithm, question.data),
        }

    proof = PublicKeyCredential(key.public, "ssh-ed25519", signed=True)
    password = PasswordCredential(PASSWORD)
    authenticators = [PublicKeys(key.public.line()), PasswordCallback(right_password)]
    options: dict[str, Any] = {"authenticators": authenticators, "methods": ["publickey,password"]}
    async with serving(placement, handler, **options) as server:
        await refused(server.begin(answers=trying(password)))
        client = await server.login(answers=trying(proof, password))
        await ended(client, await begin(client))
    assert [method for method, _ in seen] == ["password"]


# The application's threads.


@every_placement
async def test_a_full_pool_refuses_sessions_with_a_reason(placement: str, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    served: list[str | None] = []

    def handler(session: BlockingSession) -> int:
        served.append(session.command)
        if session.command == "wait":
            release.wait()
        return 3

    options = {"application_threads": 1, "application_queue": 1}
    async with serving(placement, handler, **options) as server:
        client = await server.login()
        runs = await begin(client, command="wait")
        await eventually(lambda: served == ["wait"])
        waits = await begin(client, command="next")
        refused_session = await begin(client, command="too many")
        assert await ended(client, refused_session) == 75
        assert bytes(refused_session.err) == b"the server is busy: 1 sessions run and 1 wait\r\n"
        assert server.server.counters["refused_sessions"] == 1
        assert not waits.closed
        release.set()
        assert [await ended(client, runs), await ended(client, waits)] == [3, 3]
        again = await begin(client, command="again")
        assert await ended(client, again) == 3
    assert served == ["wait", "next", "again"]
    assert "refused: the server is busy" in caplog.text


@every_placement
async def test_a_full_pool_refuses_sessions_with_events_and_delays_those_that_run(placement: str) -> None:
    release, begun = threading.Event(), threading.Event()
    order: list[str] = []

    class Events(SessionEvents):
        def opened(self, session: EventSession) -> None:
            self.session = session
            order.append(f"opened {session.command}")

        def data_received(self, data: bytes) -> None:
            order.append(f"data {self.session.command}")
            if data == b"wait":
                begun.set()
                release.wait()
            self.session.exit(3)

    options = {"application_threads": 1, "application_queue": 0}
    async with serving(placement, Events, **options) as server:
        client = await server.login()
        one = await begin(client, command="1")
        await eventually(lambda: len(order) == 1)
        two = await begin(client, command="2")
        await eventually(lambda: len(order) == 2)
        client.send(one, b"wait")
        await asyncio.to_thread(begun.wait)
        third = await begin(client, command="3")
        assert await ended(client, third) == 75
        assert b"the server is busy" in third.err
        client.send(two, b"go on")  # no thread is free, but it began already
        release.set()
        assert [await ended(client, one), await ended(client, two)] == [3, 3]
    assert order == ["opened 1", "opened 2", "data 1", "data 2"]


@every_placement
async def test_who_leaves_while_he_waits_for_a_thread_is_not_served(placement: str) -> None:
    release = threading.Event()
    served: list[str | None] = []

    def handler(session: BlockingSession) -> None:
        served.append(session.command)
        release.wait()

    async with serving(placement, handler, application_threads=1) as server:
        client = await server.login()
        await begin(client, command="first")
        await eventually(lambda: served)
        impatient = await server.login()
        await begin(impatient, command="second")
        connections = server.server.connections
        impatient.reset()
        await eventually(lambda: server.server.connections < connections)
        await begin(client, command="third")
        release.set()
        await eventually(lambda: len(served) == 2)
    assert served == ["first", "third"]


@every_placement
async def test_a_handler_that_blocks_does_not_hold_up_others(placement: str) -> None:
    release = threading.Event()

    def handler(session: BlockingSession) -> int:
        if session.command == "wait":
            release.wait()
        return 3

    async with serving(placement, handler) as server:
        client = await server.login()
        await begin(client, command="wait")
        other = await server.login()
        assert await ended(other, await begin(other)) == 3
        assert await ended(client, await begin(client)) == 3
        release.set()


# Facts.


@every_placement
async def test_what_the_server_counts(placement: str) -> None:
    async with serving(placement, nothing) as server:
        assert server.server.connections == 0
        client = await server.login()
        other = await server.login()
        assert server.server.connections == 2
        for _ in range(3):
            await ended(client, await begin(client))
        await refused(server.begin(password="wrong"))
        counters = (await server.server.status()).counters
        assert (counters["sessions"], counters["logins"]) == (3, 2)
        assert counters["auth_failures"] >= 1
        client.close()
        other.close()
        server.clients[-1].close()
        await eventually(lambda: server.server.connections == 0)


@every_placement
async def test_the_banner_and_the_limits(placement: str) -> None:
    async def wait(session: Session) -> None:
        await asyncio.Event().wait()

    async with serving(placement, wait, banner="keep out\r\n", limits=Limits(sessions=2)) as server:
        client = await server.login()
        assert any("keep out" in str(event) for event in client.events)
        await begin(client)
        await begin(client)
        third = await client.session()
        assert third.opened is False


@every_placement
async def test_an_application_may_refuse_or_fail(placement: str, caplog: pytest.LogCaptureFixture) -> None:
    def begin_raw(session: RawSession) -> bool:
        return session.facts.kind == "exec" and raise_(ZeroDivisionError("in begin"))

    caplog.set_level(logging.ERROR)
    async with serving(placement, Beginning(begin_raw), shell=nothing) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, ExecRequest(b"x"))
        assert await client.ask(channel, ShellRequest())
        assert await ended(client, channel) == 0
    assert "ZeroDivisionError" in caplog.text


@every_placement
async def test_an_application_that_fails_behind_its_socket_is_refused_and_then_ended(placement: str) -> None:
    def begin_raw(session: RawSession) -> bool:
        with session.socket():
            raise ZeroDivisionError("in begin")

    async with serving(placement, Beginning(begin_raw)) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, ExecRequest(b"x"))
        assert await ended(client, channel) == 1


class Refusing:
    """Opens nothing, and allows nothing."""

    async def open(self, _: Any) -> Refusal:
        return Refusal()

    async def allows(self, _: Any) -> bool:
        """Allow nothing."""
        return False


@pytest.mark.parametrize("policies", [(), (Refusing(),)], ids=["without", "with"])
async def test_a_forward_without_a_policy_is_warned_of(
    caplog: pytest.LogCaptureFixture, policies: tuple[Refusing, ...]
) -> None:
    async with serving("loop", nothing, channel_types={"direct-tcpip": Refusing()}, forwarding=policies):
        pass
    assert ("there is no forwarding policy, so that nothing is allowed: direct-tcpip" in caplog.text) is (not policies)


def test_run_tells_that_it_listens() -> None:
    program = """
import dunnart
server = dunnart.Server(print, host_keys=[dunnart.PrivateKey.generate("ed25519")], listen="127.0.0.1:0",
                        authenticators=[dunnart.AllowAnyone()])
server.run(started=lambda server: print(server.port, flush=True))
print("ended")
"""
    command = [sys.executable, "-W", "error", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with socket.create_connection(("127.0.0.1", port)) as sock:
                assert sock.recv(8) == b"SSH-2.0-"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == "ended\n"
        finally:
            process.kill()
    assert process.returncode == 0
