"""A plug-in's fault fails its login, channel or request, with one line in the log, and nothing else."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dunnart.daemon.loading import load
from dunnart.daemon.plugins import make
from dunnart.protocol.events import AuthRefused
from dunnart.protocol.requests import ShellRequest, SubsystemRequest, UnknownGlobalRequest
from tests.plugins.packages import Site
from tests.runtime.driver import Channel, Client, Serving, eventually, serving

FAULTY = """\
from __future__ import annotations

from dunnart.server import BlockingSession, Session, SessionEvents
from dunnart.server.plugins import Context

class Authenticator:
    method = "password"

    def __init__(self, context: Context[None]) -> None: ...
    async def authenticate(self, attempt):
        if attempt.credential.password == "nothing":
            return None
        raise ZeroDivisionError("the login's fault")

class Keys:
    def __init__(self, context: Context[None]) -> None: ...
    async def keys(self, user, address):
        raise ZeroDivisionError("the source's fault")

def coroutine(context: Context[None]):
    async def serve(session: Session) -> None:
        await session.write("before ")
        raise ZeroDivisionError("the session's fault")
    return serve

def blocking(context: Context[None]):
    def serve(session: BlockingSession) -> None:
        session.stdout.write("before ")
        session.stdout.flush()
        raise ZeroDivisionError("the session's fault")
    return serve

class Begin:
    def __init__(self, context: Context[None]) -> None: ...
    def begin(self, session):
        raise ZeroDivisionError("the session's fault")

def events(context: Context[None]):
    class Events(SessionEvents):
        def opened(self, session):
            session.write("before ")
            raise ZeroDivisionError("the session's fault")
    return Events

def status(context: Context[None]):
    async def serve(session: Session):
        await session.write("before ")
        return "five"
    return serve

def middleware(context: Context[None]):
    def around(following):
        async def serve(session: Session):
            await session.write("before ")
            if session.command == "fail":
                raise ZeroDivisionError("the session's fault")
            return await following(session)
        return serve
    return around

def bad_layer(context: Context[None]):
    def around(following):
        raise ZeroDivisionError("the layer's fault")
    return around

class Channels:
    def __init__(self, context: Context[None]) -> None: ...
    async def open(self, opening):
        if opening.data == b"later":
            async def serve(session: Session) -> None:
                raise ZeroDivisionError("the channel's fault")
            return serve
        if opening.data == b"allows":
            from dunnart.server.interfaces import Forward, Refusal
            if await opening.client.allows(Forward(opening.connection, "connect", "localhost", 1)):
                return coroutine(None)
            return Refusal()
        raise ZeroDivisionError("the channel's fault")

class Requests:
    def __init__(self, context: Context[None]) -> None: ...
    async def answer(self, request):
        raise ZeroDivisionError("the request's fault")

class Policy:
    def __init__(self, context: Context[None]) -> None: ...
    async def allows(self, forward):
        raise ZeroDivisionError("the policy's fault")

class Sink:
    def __init__(self, context: Context[None]) -> None: ...
    def record(self, event):
        raise ZeroDivisionError("the sink's fault")
"""


@pytest.fixture
def options(site: Site) -> Callable[..., dict[str, Any]]:
    """Give a server's arguments for the plug-ins of a configuration."""
    site.add("faulty", FAULTY, {})

    def made(text: str, *wanted: str) -> dict[str, Any]:
        file = site.folder / "dunnart.toml"
        file.write_text(text)
        plugins = make(load(str(file)), "me", None)
        return {name: getattr(plugins, name) for name in wanted}

    return made


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines that say that something is wrong."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def still_serves(server: Serving, client: Client) -> None:
    """The connection still works, and so does another."""
    assert (await client.run("echo on")).out == b"on\n"
    other = await server.login()
    assert (await other.run("echo on")).out == b"on\n"


@pytest.mark.parametrize(
    ("password", "message"),
    [
        ("anything", 'failed: PluginError("faulty:Authenticator: ZeroDivisionError: the login\'s fault")'),
        ("nothing", "failed: PluginError('faulty:Authenticator: its answer is None, and no Allow, Deny or Prompt')"),
    ],
)
async def test_an_authenticator(
    options: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture, password: str, message: str
) -> None:
    settings = (
        'authenticators = ["faulty:Authenticator"]\npermit_root_login = "yes"'  # root's password is not passed on
    )
    chosen = options(settings, "authenticators")
    async with serving(**chosen) as server:
        for _ in range(2):
            client = server.begin(password=password)
            await client.until(lambda: any(isinstance(event, AuthRefused) for event in client.events))  # noqa: B023
            assert client.ended is None
    assert failures(caplog) == [message] * 2


@pytest.mark.parametrize("name", ["coroutine", "blocking", "events", "status"])
@pytest.mark.parametrize("kind", ["shell", "subsystem"])
async def test_a_handler(
    options: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture, name: str, kind: str
) -> None:
    text = f'shell = "faulty:{name}"\n[subsystem]\nx = "faulty:{name}"'
    async with serving(**options(text, "shell", "subsystems")) as server:
        client = await server.login()
        channel = await client.session()
        await client.ask(channel, ShellRequest() if kind == "shell" else SubsystemRequest("x"))
        await client.until(lambda: channel.closed)
        assert channel.status == 1
        assert channel.out == b"before "
        await still_serves(server, client)
    [line] = failures(caplog)
    if name in {"coroutine", "blocking"}:
        assert line == f'failed: PluginError("faulty:{name}: ZeroDivisionError: the session\'s fault")'
    else:
        assert ("five" if name == "status" else "the session's fault") in line


async def test_an_application_that_does_not_begin(
    options: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(**options('shell = "faulty:Begin"', "shell")) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, ShellRequest())
        await still_serves(server, client)
    assert failures(caplog) == ['failed: PluginError("faulty:Begin: ZeroDivisionError: the session\'s fault")']


async def test_middleware(options: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    async with serving(**options('middleware = ["faulty:middleware"]', "middleware", "exec")) as server:
        client = await server.login()
        channel = await client.exec("fail")
        await client.until(lambda: channel.closed)
        assert (channel.out, channel.status) == (b"before ", 1)
    assert failures(caplog) == ['failed: PluginError("faulty:middleware: ZeroDivisionError: the session\'s fault")']


async def test_a_channel_type(options: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    text = 'forwarding = ["faulty:Policy"]\n[channel_types]\n"x@example.org" = "faulty:Channels"'
    async with serving(**options(text, "channel_types", "forwarding")) as server:
        client = await server.login()
        for data, opened in ((b"now", False), (b"allows", False), (b"later", True)):
            number = client.engine.open_channel("x@example.org", data)
            channel = client.channels[number] = Channel(number)
            client.move()
            await client.until(lambda: channel.opened is not None)  # noqa: B023
            assert channel.opened is opened
        await client.until(lambda: channel.closed)
        await still_serves(server, client)
    assert failures(caplog) == [
        'failed: PluginError("faulty:Channels: ZeroDivisionError: the channel\'s fault")',
        'failed: PluginError("faulty:Policy: ZeroDivisionError: the policy\'s fault")',
        'failed: PluginError("faulty:Channels: ZeroDivisionError: the channel\'s fault")',
    ]


async def test_a_global_request(options: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    text = '[global_requests]\n"x@example.org" = "faulty:Requests"'
    async with serving(**options(text, "global_requests")) as server:
        client = await server.login()
        client.engine.request_global(UnknownGlobalRequest("x@example.org", b""), want_reply=True)
        client.move()
        await client.until(lambda: client.global_answers)
        assert client.global_answers == [False]
        await still_serves(server, client)
    assert failures(caplog) == ['failed: PluginError("faulty:Requests: ZeroDivisionError: the request\'s fault")']


async def test_an_audit_sink(options: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    async with serving(**options('audit = ["faulty:Sink"]', "audit")) as server:
        client = await server.login()
        assert (await client.run("echo on")).out == b"on\n"
        await eventually(lambda: len(failures(caplog)) == 3)  # login, begin, end
    assert set(failures(caplog)) == {'the audit sink faulty:Sink failed: ZeroDivisionError("the sink\'s fault")'}


# At the start.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('shell = "nothere:x"', "1: shell: nothere:x: nothere:x cannot be imported: ModuleNotFoundError: No module"),
        ('\naudit = ["atimport:x"]', "2: audit: atimport:x: atimport:x cannot be imported: RuntimeError: at import"),
        (
            'exec = "atimport2:make"',
            "1: exec: atimport2:make: atimport2:make cannot be made: RuntimeError: in the fact",
        ),
        ('middleware = ["faulty:bad_layer"]', "1: middleware: faulty:bad_layer: ZeroDivisionError: the layer's fault"),
    ],
)
def test_one_that_cannot_be_used_keeps_the_server_from_starting_with_one_line(
    site: Site, tmp_path: Path, text: str, message: str
) -> None:
    site.add("faulty", FAULTY, {})
    site.add("atimport", "raise RuntimeError('at import\\nof it')", {})
    site.add("atimport2", "def make(context): raise RuntimeError('in the factory')", {})
    file = tmp_path / "dunnart.toml"
    file.write_text(text)
    program = (
        f"import sys; sys.path.insert(0, {str(site.folder)!r}); from dunnart.tools.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "serve", "--config", str(file), "--state-folder", str(tmp_path / "state"),
               "--listen", "127.0.0.1:0"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("dunnart serve:")]
    assert line.startswith(f"dunnart serve: {file}:{message}")
    assert "Traceback" not in done.stderr
