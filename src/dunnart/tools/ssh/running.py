"""A run of `dunnart ssh`: connect, forward, have a session, and give its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from dunnart.client.session import TerminalRefused
from dunnart.errors import ConfigError, ConnectionClosed, DunnartError
from dunnart.tools.ssh import forwards
from dunnart.tools.ssh.arguments import QUIET, environment, missing_keys, without_checks
from dunnart.tools.ssh.escapes import escape_character
from dunnart.tools.ssh.reading import hop_options
from dunnart.tools.ssh.route import connect
from dunnart.tools.ssh.screen import Screen, terminal
from dunnart.tools.ssh.streams import Input
from dunnart.tools.ssh.talking import Conversation, Left, Talk
from dunnart.tools.terminal import failure, shown
from dunnart.tools.transfer.foreground import Foreground

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from dunnart.client.connection import Connection
    from dunnart.client.forwarding import Endpoint, Listener
    from dunnart.client.session import Session
    from dunnart.tools.ssh.flags import Wishes
    from dunnart.tools.ssh.options import Options

_LEVELS = {
    "quiet": logging.CRITICAL, "fatal": logging.CRITICAL, "error": logging.ERROR, "info": logging.WARNING,
    "verbose": logging.INFO, "debug": logging.DEBUG, "debug1": logging.DEBUG, "debug2": logging.DEBUG,
    "debug3": logging.DEBUG,
}  # fmt: skip
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def run_with(wishes: Wishes, options: Options, name: str, failed: int) -> int:
    """Run; gives the exit status.

    Args:
        wishes: the command line's.
        options: for the host.
        name: the program's name, for errors.
        failed: the exit status when something goes wrong on this side.

    Raises:
        ConfigError: an option is wrong.
    """
    program = _Program(wishes, options, name, failed)
    return _in_background(program) if program.forks else program.run()


class _Program:
    """One run.

    Attributes:
        forks: it goes into the background after the login.
        logged_in: called then.
    """

    def __init__(self, wishes: Wishes, options: Options, name: str, failed: int) -> None:
        self._wishes = wishes
        self._options = options
        self._name = name
        self._failed = failed
        self._screen = Screen()
        self._conversation: Conversation | None = None
        self.forks = options.flag("forkafterauthentication", default=False)
        self.logged_in: Callable[[], None] = lambda: None
        kinds = ("default", "none", "subsystem")
        self._kind = options.choice("sessiontype", "default", kinds)
        self._command = wishes.command or self._remote_command()
        self._wants_terminal = self._terminal_wanted()
        level = options.choice("loglevel", "info", _LEVELS)
        self._quiet = level in QUIET
        self._level = logging.DEBUG if wishes.verbose else _LEVELS[level]
        try:
            self._escape = escape_character(options.text("escapechar", "~"))
        except ValueError as error:
            options.fail("escapechar", str(error))
        self._forwards = [] if options.flag("clearallforwardings", default=False) else self._read_forwards()
        if self._kind == "subsystem" and not self._command:
            raise ConfigError("a subsystem is to be named", key="sessiontype")
        if self.forks and self._kind == "default" and not self._command:
            raise ConfigError("-f wants a command, or -N", key="forkafterauthentication")

    def _remote_command(self) -> str:
        command = self._options.text("remotecommand", "none")
        return "" if command.lower() == "none" else self._options.expanded(command)

    def _terminal_wanted(self) -> bool:
        wanted = self._options.choice("requesttty", "auto", ("auto", "yes", "true", "no", "false", "force"))
        if wanted in {"no", "false"} or self._kind != "default":
            return False
        if wanted == "force":
            return True
        if wanted in {"yes", "true"}:
            if not os.isatty(0):
                self._screen.say("there is no terminal here to give the command one; -tt gives it one in any case")
            return os.isatty(0)
        return not self._command and os.isatty(0)

    def _read_forwards(self) -> list[tuple[str, forwards.Forward]]:
        options = self._options
        everywhere = options.flag("gatewayports", default=False)
        found = [("local", forwards.local(words, everywhere=everywhere)) for words in options.all("localforward")]
        found += [("remote", forwards.remote(words)) for words in options.all("remoteforward")]
        found += [
            ("dynamic", forwards.dynamic(words, everywhere=everywhere)) for words in options.all("dynamicforward")
        ]
        return found

    def run(self) -> int:
        """Run; gives the exit status."""
        self._tell()
        for number in _ENDING:
            signal.signal(number, _end)
        with Foreground() as front:
            try:
                signal.signal(signal.SIGWINCH, lambda *_: front.loop.call_soon_threadsafe(self._resized))
                return front.call(self._work(front))
            except Left:
                self._screen.leave()
                self._say_closed("\n")
                return self._failed
            except BrokenPipeError:
                return self._failed
            except DunnartError as error:
                self._screen.leave()
                self._screen.say(f"{self._name}: {shown(str(error))}")
                return self._failed
            except OSError as error:
                self._screen.leave()
                self._screen.say(f"{self._name}: {failure(error)}")
                return self._failed
            finally:
                self._screen.leave()

    def _tell(self) -> None:
        """Say what was left out, and have what goes on told."""
        if self._wishes.log_file:
            try:
                descriptor = os.open(self._wishes.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            except OSError as error:
                raise ConfigError(f"cannot be written: {error.strerror}", path=self._wishes.log_file) from error
            os.dup2(descriptor, 2)
            os.close(descriptor)
        handler = logging.StreamHandler()
        handler.terminator = "\r\n" if os.isatty(2) else "\n"
        handler.setFormatter(logging.Formatter(f"{self._name}: %(message)s"))
        logging.basicConfig(level=self._level, handlers=[handler])
        for note in dict.fromkeys([*self._wishes.notes, *self._options.notes]):
            logging.getLogger("dunnart.ssh").info("%s", note)
        for path in missing_keys(self._options) if not self._quiet else ():
            if any(name == "IdentityFile" and path.endswith(value.strip('"')) for name, value in self._wishes.given):
                self._screen.say(f"{self._name}: {path} is not there")

    def _resized(self) -> None:
        if self._conversation is not None:
            self._sizing = asyncio.ensure_future(self._conversation.resized())

    async def _work(self, front: Foreground) -> int:
        wishes = self._wishes
        route = await connect(self._options, front, hop_options(wishes.given, wishes.file), self._changed)
        try:
            connection = route.connection
            async with asyncio.timeout(wishes.max_seconds or None):
                await self._start_forwards(connection)
                self.logged_in()
                return await self._serve(connection)
        except TimeoutError as error:
            raise ConnectionClosed(f"{wishes.max_seconds} seconds are over") from error
        finally:
            self._screen.leave()
            await route.close()

    def _changed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        wishes = self._wishes
        if wishes.unchecked:
            arguments = without_checks(arguments)
        if arguments["keys"] is None and wishes.keys:
            arguments["keys"] = [path for each in wishes.keys if os.path.exists(path := os.path.expanduser(each))]
        if wishes.bind is not None:
            arguments["bind"] = wishes.bind
        if wishes.descriptor >= 0:
            arguments["sock"] = _inherited(wishes.descriptor)
        if wishes.password is not None:
            arguments |= {"password": wishes.password, "prompt": None}
        limits = replace(arguments["limits"], idle_seconds=float(wishes.idle_seconds))
        if wishes.window_bytes:
            packet = min(limits.channel_packet_bytes, wishes.window_bytes)
            limits = replace(limits, window_bytes=wishes.window_bytes, channel_packet_bytes=packet)
        return arguments | {"limits": limits}

    async def _start_forwards(self, connection: Connection) -> None:
        fails = self._options.flag("exitonforwardfailure", default=False)
        for kind, (listen, to) in self._forwards:
            try:
                listener = await _start(connection, kind, listen, to)
            except (ConfigError, DunnartError) as error:
                if fails or connection.closed:
                    raise
                self._screen.say(f"{self._name}: {shown(str(error))}")
                continue
            if not isinstance(listen, str) and not listen[1]:
                self._screen.say(f"{self._name}: port {listener.address[1]} was chosen for {kind} forwarding")

    async def _serve(self, connection: Connection) -> int:
        stdin = None if self._options.flag("stdinnull", default=False) else Input(0)
        if self._wishes.to is not None:
            to = self._wishes.to
            channel = await (connection.open_unix(to) if isinstance(to, str) else connection.open_direct(*to))
            await Talk(channel, stdin).run()
            return 0
        if self._kind == "none":
            await connection.wait_closed()
            connection.check()
            return 0
        session = await self._session(connection)
        status = await self._talk(connection, session, stdin)
        if self._forwards:
            if connection.open_channels and not self._quiet:
                self._screen.say(f"{self._name}: waiting for forwarded connections to end")
            await connection.wait_idle()
        return status

    async def _session(self, connection: Connection) -> Session:
        try:
            return await self._begin(connection)
        except TerminalRefused as error:
            self._screen.say(f"{self._name}: {error}")
            self._wants_terminal = False
            return await self._begin(connection)

    async def _begin(self, connection: Connection) -> Session:
        subsystem = self._command if self._kind == "subsystem" else None
        command = os.fsencode(self._command) if self._command and subsystem is None else None
        return await connection.session(
            command, subsystem=subsystem, terminal=terminal() if self._wants_terminal else None,
            environment=environment(self._options), stderr="read", forward_agent=self._agent(),
        )  # fmt: skip

    def _agent(self) -> bool | str:
        wanted = self._options.text("forwardagent", "no")
        if wanted.lower() in {"no", "false"}:
            return False
        if wanted.lower() in {"yes", "true"}:
            return bool(os.environ.get("SSH_AUTH_SOCK"))
        return os.environ.get(wanted[1:], "") if wanted.startswith("$") else self._options.path(wanted)

    async def _talk(self, connection: Connection, session: Session, stdin: Input | None) -> int:
        talk = Talk(session, stdin)
        if self._wants_terminal:
            escape = self._escape if os.isatty(0) else None
            talk = self._conversation = Conversation(connection, session, stdin, self._screen, escape)
            self._screen.enter()
        try:
            await talk.run(session.stderr)
            how = await session.wait()
        finally:
            self._conversation = None
            self._screen.leave()
        self._say_closed()
        if how.status is not None:
            return how.status & 0xFF
        if how.signal and not self._quiet:
            self._screen.say(f"{self._name}: the program was ended by signal {shown(how.signal)}")
        return self._failed

    def _say_closed(self, before: str = "") -> None:
        if self._wants_terminal and not self._quiet:
            self._screen.say(f"{before}Connection to {shown(self._options.host)} closed.")


async def _start(connection: Connection, kind: str, listen: Endpoint, to: Endpoint | None) -> Listener:
    if kind == "dynamic" or to is None:
        return await connection.forward_dynamic(listen)
    begin: Callable[[Endpoint, Endpoint], Awaitable[Listener]] = connection.forward_local
    if kind == "remote":
        begin = connection.forward_remote
    return await begin(listen, to)


def _inherited(descriptor: int) -> socket.socket:
    import socket

    try:
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigError(f"-J: descriptor {descriptor} is no socket: {error.strerror}") from error


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(255)


def _in_background(program: _Program) -> int:
    """Run in a child; end when it has logged in, or with its status if it ends before."""
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child:
        os.close(to_parent)
        with contextlib.suppress(KeyboardInterrupt), open(from_child, "rb") as answer:
            if answer.read(1):
                return 0
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF
    os.close(from_child)

    def logged_in() -> None:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.setsid()
        os.write(to_parent, b"1")
        os.close(to_parent)

    program.logged_in = logged_in
    return program.run()
