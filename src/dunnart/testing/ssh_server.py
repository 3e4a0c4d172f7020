"""A real server on a loopback port for tests of programs that use SSH, with faults on request.

It runs in threads of its own, so tests may be plain functions or coroutines of any event loop. One loop carries the
protocol and the faults, another the test's handlers: a handler that blocks does not keep faults from coming about.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dunnart.errors import ConfigError, ConnectionClosed, Interrupted
from dunnart.keys import PrivateKey
from dunnart.keys.known_hosts import host_name
from dunnart.server import Authenticator, Handler, PasswordCallback, PublicKeys, ServerConfig, Session
from dunnart.server.applications import as_application, is_async
from dunnart.server.in_process import OnLoop
from dunnart.testing.background import BackgroundLoop
from dunnart.testing.fake_shell import Answer, Reply, fake_shell
from dunnart.testing.faults import Faults
from dunnart.testing.observing import Login, PresentKeys, Recorded, Refusing, SeenSession, Watch
from dunnart.testing.relay import Link, Relay

if TYPE_CHECKING:
    from dunnart.server import Application

_T = TypeVar("_T")
_END_SECONDS = 1.0
_WAIT_SECONDS = 10.0
_LOOK_SECONDS = 0.05
_COMMENT = "ssh_server"
_USERS = {"user": "correct horse"}
# How a session ends when its client leaves, or has no more to say: nobody's fault.
_LEAVING = (ConnectionClosed, EOFError, Interrupted, BrokenPipeError, ConnectionResetError)


class SshServer:
    """A server for tests. `with` starts and closes it; the fixture `ssh_server` of the pytest plug-in does so, too.

    Args:
        users: who may log in, and by which password; None instead of a password leaves only keys. The first one is
            `user`. The key that is made for the test lets all of them in.
        commands: by command line, what it answers: its output, its exit status, or (stdout, stderr, status); or a
            coroutine function that serves the session. `fake_shell` looks here, which serves if there is no `handler`.
        answer: gives the answer to a command line that is not among `commands`, None if there is no such command.
        handler: serves the sessions, as `dunnart.Server`'s.
        authorized_keys: more keys, as the lines of such a file; they let in every user.
        host: the address to listen on.
        folder: where to put files; None makes a folder that `close` removes.
        options: anything else that `dunnart.Server` takes, such as `subsystems`, `algorithms`, `limits` and `banner`.
            `authenticators` take the place of users' passwords and keys.

    Attributes:
        users: as given; may be changed while it runs, as well as `commands`, `answer` and `authorized_keys`.
        faults: what is to go wrong.
        logins: attempts to log in so far; `sessions` likewise.
        failures: what handlers have raised so far.
        key: the key that was made, also in the file `key_path`; `host_key` is the server's own.
        known_hosts: a file for clients, that knows the server's key.
        config_path: a file for `ssh -F`, with which every host name leads here.
    """

    def __init__(
        self, *, users: Mapping[str, str | None] | None = None, commands: Mapping[str, Reply] | None = None,
        answer: Answer | None = None, handler: Handler | None = None, authorized_keys: str = "",
        host: str = "127.0.0.1", folder: str | os.PathLike[str] | None = None, **options: Any,  # noqa: ANN401 - ServerConfig says what
    ) -> None:  # fmt: skip
        self.users: MutableMapping[str, str | None] = dict(_USERS if users is None else users)
        self.commands: MutableMapping[str, Reply] = dict(commands or {})
        self.answer = answer
        self.authorized_keys = authorized_keys
        self.host = host
        self.logins: list[Login] = []
        self.sessions: list[SeenSession] = []
        self.failures: list[Exception] = []
        self.key = PrivateKey.generate("ed25519")
        self.host_key = PrivateKey.generate("ed25519")
        self._changed = threading.Condition()
        self._changes = 0
        self.faults = Faults(self._on_loop, self._happened)
        self._options = options
        self._handler: Handler | None = None
        self._application: Application
        self.handler = handler
        self._port = 0
        self._temporary = tempfile.TemporaryDirectory("ssh_server") if folder is None else None
        self.folder = os.path.abspath(self._temporary.name if self._temporary is not None else folder or "")
        self.key_path = os.path.join(self.folder, "id_ed25519")
        self.known_hosts = os.path.join(self.folder, "known_hosts")
        self.config_path = os.path.join(self.folder, "ssh_config")
        self._protocol_loop: BackgroundLoop | None = None
        self._handler_loop: BackgroundLoop | None = None
        self._placement: OnLoop | None = None
        self._relay: Relay | None = None

    # Life.

    def start(self, **changes: Any) -> Self:  # noqa: ANN401 - as __init__ has it
        """Start it; if it runs already, end it first. It keeps its port, its keys and its faults.

        Args:
            changes: arguments of the class, but `host` and `folder`, that shall be different from now on.

        Raises:
            ConfigError: an argument cannot be used; names it.
        """
        for fixed in ("host", "folder"):
            if fixed in changes:
                raise ConfigError("cannot be changed", key=fixed)
        if self._protocol_loop is not None:
            self.stop()
        for name in ("users", "commands", "answer", "authorized_keys", "handler"):
            if name in changes:
                setattr(self, name, changes.pop(name))
        self._options |= changes
        config = self._config()
        self._protocol_loop = BackgroundLoop("dunnart-test-protocol")
        self._handler_loop = BackgroundLoop("dunnart-test-handlers")
        try:
            self._protocol_loop.run(self._begin(config, self._handler_loop.loop))
            self._write_files(config)
        except BaseException:
            self.stop()
            raise
        return self

    def _config(self) -> ServerConfig:
        options: dict[str, Any] = {"host_keys": [self.host_key], "admission": None, "accept_env": ["*"]}
        options |= self._options
        for name in ("shell", "exec"):
            if options.get(name) is not None:
                options[name] = self._recorded(options[name], name)
        options["subsystems"] = {
            name: self._recorded(handler, f"subsystem {name}")
            for name, handler in options.get("subsystems", {}).items()
        }
        authenticators: Sequence[Authenticator] = options.pop("authenticators", None) or self._ways_in()
        options["authenticators"] = [Refusing(self.faults, each) for each in authenticators]
        return ServerConfig(Recorded(self._note_session, lambda: self._application), **options)

    def _recorded(self, handler: Handler, name: str) -> Application:
        application = as_application(self._watched(handler), name)
        return Recorded(self._note_session, lambda: application)

    def _ways_in(self) -> Sequence[Authenticator]:
        if not self.users:
            raise ConfigError("there must be one who may log in", key="users")
        try:
            self._keys()
        except ConfigError as error:
            raise ConfigError(str(error).removeprefix("text: "), key="authorized_keys") from error
        return [PasswordCallback(self._password), PresentKeys(self._keys)]

    def _keys(self) -> PublicKeys:
        return PublicKeys(f"{self.key.public.line()}\n{self.authorized_keys}", users=self.users)

    async def _begin(self, config: ServerConfig, handlers: asyncio.AbstractEventLoop) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self._port), family=family, backlog=128)
        self._port = listener.getsockname()[1]
        self._placement = OnLoop(config, handlers)
        await self._placement.start([])
        self._relay = Relay(listener, self.faults, self._serve)

    def _serve(self, link: Link) -> None:
        assert self._placement is not None
        connection = self._placement.protocol.let_in(link.tap, *link.peer[:2])
        watch = Watch(connection, link, self.faults, lambda login: self._note(self.logins.append, login))
        connection.pump._owner = watch  # noqa: SLF001 - all that the connection hears goes through the watch

    def stop(self) -> None:
        """End it: clients are told so and disconnected, and the port is closed. `start` starts it again.

        Raises:
            RuntimeError: something that the test gave does not end, or this is called from a coroutine handler.
        """
        if any(loop is not None and loop.here for loop in (self._protocol_loop, self._handler_loop)):
            raise RuntimeError("a handler cannot end its own server")
        protocol, self._protocol_loop = self._protocol_loop, None
        handlers, self._handler_loop = self._handler_loop, None
        placement, self._placement = self._placement, None
        relay, self._relay = self._relay, None
        try:
            if protocol is not None:
                protocol.run(self._end(placement, relay))
            if handlers is not None and placement is not None:
                handlers.run(_end_handlers(placement))
        finally:
            for loop in (protocol, handlers):
                if loop is not None:
                    loop.stop()

    async def _end(self, placement: OnLoop | None, relay: Relay | None) -> None:
        if relay is not None:
            await relay.stop_listening()
        if placement is not None:
            await placement.protocol.close("the server is shutting down", seconds=_END_SECONDS)
            await placement.host.hung_up(_END_SECONDS)
        if relay is not None:
            await relay.close(_END_SECONDS)

    def close(self) -> None:
        """Remove the faults, end it, and remove its files if it has made the folder.

        Raises:
            RuntimeError: something that the test gave does not end.
        """
        try:
            self.faults.clear()
            self.stop()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # For clients.

    @property
    def port(self) -> int:
        """The port, once it was started."""
        return self._port

    @property
    def user(self) -> str:
        """The first user's name."""
        return next(iter(self.users))

    @property
    def password(self) -> str:
        """The first user's password, "" if it has none."""
        return self.users[self.user] or ""

    def command(self, command: str = "", *, user: str | None = None, options: Sequence[str] = ()) -> list[str]:
        """Give the arguments with which OpenSSH's client logs in by the key.

        Args:
            command: what to execute; "" asks for a shell.
            user: who logs in; None: `user`.
            options: more for the client, as `["-v"]`.
        """
        where = f"{self.user if user is None else user}@{self.host}"
        return ["ssh", "-F", self.config_path, *options, where, *([command] if command else [])]

    def _write_files(self, config: ServerConfig) -> None:
        names = dict.fromkeys(host_name(host, self._port) for host in (self.host, "localhost"))
        hosts = ",".join(names)
        self._write("known_hosts", "".join(f"{hosts} {key.public.line()}\n" for key in config.keys).encode())
        self._write("id_ed25519", self.key.openssh(_COMMENT))
        self._write("id_ed25519.pub", f"{self.key.public.line(_COMMENT)}\n".encode())
        settings = {
            "HostName": self.host, "Port": self._port, "User": self.user, "IdentityFile": _quoted(self.key_path),
            "IdentitiesOnly": "yes", "IdentityAgent": "none", "UserKnownHostsFile": _quoted(self.known_hosts),
            "GlobalKnownHostsFile": "/dev/null", "StrictHostKeyChecking": "yes", "BatchMode": "yes",
        }  # fmt: skip
        lines = (f"    {name} {value}\n" for name, value in settings.items())
        self._write("ssh_config", f"Host *\n{''.join(lines)}".encode())

    def _write(self, name: str, data: bytes) -> None:
        path = os.path.join(self.folder, name)
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)

    # While it runs.

    @property
    def handler(self) -> Handler | None:
        """Serves the sessions from now on; None: `fake_shell`."""
        return self._handler

    @handler.setter
    def handler(self, handler: Handler | None) -> None:
        self._application = as_application(self._watched(handler or self._fake_shell), "handler")
        self._handler = handler

    async def _fake_shell(self, session: Session) -> int:
        return await fake_shell(session, self.commands, self.answer)

    @property
    def commands_seen(self) -> list[str]:
        """The commands that clients have asked to execute so far."""
        return [session.command for session in self.sessions if session.command is not None]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self.faults.wires)

    def drop_connections(self, *, reset: bool = False) -> None:
        """End all connections that are open now, without a word of SSH; `faults.drop` does so to those to come.

        Args:
            reset: by a TCP reset, and not in order.
        """

        def cut() -> None:
            for link in self._relay.links if self._relay is not None else ():
                link.cut(reset=reset)

        self._on_loop(cut)

    def wait_until(self, condition: Callable[[], object], seconds: float = _WAIT_SECONDS) -> None:
        """Wait until something is so.

        It is looked at again whenever a connection comes or goes, somebody logs in, a session begins, a handler fails
        or a fault comes about, and every 50 ms for what the server does not know of.

        Args:
            condition: gives something true in the end.
            seconds: how long to wait.

        Raises:
            TimeoutError: it did not become true.
        """
        deadline = time.monotonic() + seconds
        while True:
            seen = self._changes
            if condition():  # not under the lock: it may ask the server for something that changes
                return
            if time.monotonic() >= deadline:
                raise TimeoutError(f"it did not come true in {seconds:g} s")
            with self._changed:
                if self._changes == seen:
                    self._changed.wait(min(_LOOK_SECONDS, deadline - time.monotonic()))

    # What happens, from any thread.

    def _on_loop(self, function: Callable[[], None]) -> None:
        if self._protocol_loop is None:
            function()
        else:
            self._protocol_loop.call(function)

    def _note(self, into: Callable[[_T], None], what: _T) -> None:
        into(what)
        self._happened()

    def _note_session(self, session: SeenSession) -> None:
        self._note(self.sessions.append, session)

    def _happened(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _password(self, user: str, password: str) -> bool:
        return self.users.get(user) == password

    def _watched(self, handler: Any) -> Any:  # noqa: ANN401 - a Handler, of which functions are told apart
        """Make a handler of which it is noted what it raises."""
        if isinstance(handler, type) or hasattr(handler, "begin") or not callable(handler):
            return handler
        if is_async(handler):

            async def watched(session: Any) -> Any:  # noqa: ANN401 - as the handler has it
                with self._noting():
                    return await handler(session)

            return watched

        def watched_here(session: Any) -> Any:  # noqa: ANN401 - as the handler has it
            with self._noting():
                return handler(session)

        return watched_here

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except _LEAVING:
            raise
        except Exception as error:
            self._note(self.failures.append, error)
            raise


async def _end_handlers(placement: OnLoop) -> None:
    """On the handlers' event loop."""
    host = placement.host
    await host.close()
    # Threads that are idle end by themselves, and those of handlers whose client has gone, as a rule; nothing tells.
    deadline = time.monotonic() + _END_SECONDS
    while host.handlers.threads + host.callbacks.threads and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def _quoted(path: str) -> str:
    """A file's name as ssh_config has it: no %-token, and one word."""
    return '"' + path.replace("%", "%%") + '"'
