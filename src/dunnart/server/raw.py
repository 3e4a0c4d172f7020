"""A session as its application sees it, whatever the application is: facts, descriptors, an exit status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from socket import SHUT_RD, SHUT_WR, socketpair
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dunnart.errors import ConnectionClosed, LocalProtocolError
from dunnart.protocol.requests import ExitSignal, ExitStatus, WindowChange
from dunnart.runtime.logs import report
from dunnart.runtime.streams import Streams
from dunnart.server.facts import Address, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from socket import socket as Socket  # noqa: N812 - RawSession has a method of the other name

    from dunnart.keys.public import PublicKey
    from dunnart.keys.rights import Rights
    from dunnart.protocol.requests import ChannelRequest
    from dunnart.runtime.fork_server import ForkServer
    from dunnart.runtime.process import Call, Child, Command, Program
    from dunnart.runtime.terminal import Ownership
    from dunnart.server.channel import ChannelControl
    from dunnart.server.facts import SessionFacts
    from dunnart.server.host import Host
    from dunnart.server.server import Server

_T = TypeVar("_T")
_LOG = logging.getLogger("dunnart.session")
TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h
_LARGEST_STATUS = 0xFFFFFFFF


def exit_status(value: object) -> int:
    """Check an exit status.

    Raises:
        ValueError: it is no number from 0 to 4294967295.
    """
    if not isinstance(value, int) or not 0 <= value <= _LARGEST_STATUS:
        raise ValueError(f"{value!r} is no exit status, which are 0 to {_LARGEST_STATUS}")
    return int(value)


class Facts:
    """What a session is about: the part that every kind of session shares."""

    __slots__ = ("facts",)

    def __init__(self, facts: SessionFacts) -> None:
        self.facts = facts

    @property
    def user(self) -> str:
        """Who logged in."""
        return self.facts.connection.user

    @property
    def peer(self) -> Address:
        """The client's address and port; ("", 0) for a unix socket."""
        return self.facts.connection.peer

    @property
    def local(self) -> Address:
        """The address and port that the client reached."""
        return self.facts.connection.local

    @property
    def method(self) -> str:
        """The last method of the login: "publickey", "password", "keyboard-interactive" or "none"."""
        return self.facts.connection.method

    @property
    def key(self) -> PublicKey | None:
        """The public key that the user proved to have, if the login ended with one."""
        return self.facts.connection.key

    @property
    def grants(self) -> tuple[object, ...]:
        """What the authenticators granted, in the order of the chain."""
        return self.facts.connection.grants

    @property
    def rights(self) -> Rights:
        """What the login may do; forced commands, terminals and forwarding are seen to already."""
        return self.facts.connection.rights

    @property
    def connection_id(self) -> int:
        """The connection's number, as the log shows it; no other connection of this server has it."""
        return self.facts.connection.id

    @property
    def channel(self) -> int:
        """The session's number on its connection."""
        return self.facts.channel

    @property
    def kind(self) -> str:
        """What the client asked for: "shell", "exec" or "subsystem"."""
        return self.facts.kind

    @property
    def command(self) -> str | None:
        """The command to execute; bytes that are no UTF-8 are kept as `surrogateescape` keeps them."""
        command = self.facts.command
        return None if command is None else command.decode(errors="surrogateescape")

    @property
    def subsystem(self) -> str | None:
        """The subsystem's name."""
        return self.facts.subsystem

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that the client set, and that it may set."""
        return self.facts.environment

    @property
    def terminal(self) -> Terminal | None:
        """The client's terminal with its present size, or None if it wants none."""
        return self.facts.terminal


class Application(Protocol):
    """Serves sessions at the lowest level: a shell, an exec processor, a subsystem."""

    def begin(self, session: RawSession) -> bool:
        """Begin to serve a session, without blocking, on the protocol's event loop.

        False refuses it; so does an exception, which is logged.
        """


class RawSession(Facts):
    """A session for an `Application`. All methods but `run` may be called from any thread.

    Attributes:
        on_request: called on the protocol's event loop for a new window size, a signal or a break; says whether
            anything came of it.
        on_close: called there once, when the channel is gone.
        gone: the channel is gone.
        tty: the path of the pty that a child process serves it on, or "".
        host: what runs applications; not for them.
    """

    __slots__ = (
        "_control", "_ended", "_over", "_ownership", "_program", "_sock", "_stderr", "gone", "host",
        "on_close", "on_request", "tty",
    )  # fmt: skip

    def __init__(self, host: Host, facts: SessionFacts, control: ChannelControl) -> None:
        super().__init__(facts)
        self.host = host
        self._control = control
        self._program: Program | None = None
        self._sock: Socket | None = None
        self._stderr: Socket | None = None
        self._over: asyncio.Event | None = None
        self._ownership: Ownership | None = None
        self._ended = False
        self.gone = False
        self.tty = ""
        self.on_request: Callable[[ChannelRequest], bool] | None = None
        self.on_close: Callable[[], None] | None = None

    @property
    def server(self) -> Server:
        """The server that the session belongs to. Its coroutines run on its own event loop."""
        assert self.host.server is not None
        return self.host.server

    def socket(self) -> Socket:
        """Give the application's end of a local stream socket, blocking; the other end is the client.

        What is read from it are the bytes that the client sends, as they come; what is written goes to the client's
        stdout. Reading gives b"" after the client's end of input, or when it has gone. The client sees the end of
        output when the session exits. To be called once; the application closes it.

        Raises:
            LocalProtocolError: the session is served already.
            OSError: no descriptors are left.
        """
        self._check_free()
        ours, theirs = socketpair()
        self._sock = theirs
        self.host.call(self._control.attach, Streams.of_socket(ours, typed=self.terminal is not None))
        return theirs

    def stderr_socket(self) -> Socket:
        """Give a second local socket, whose written bytes go to the client's stderr; after `socket`, and once.

        Raises:
            LocalProtocolError: there is no first socket, or there is this one already.
            OSError: no descriptors are left.
        """
        if self._sock is None or self._stderr is not None:
            raise LocalProtocolError("stderr comes once, after the first socket")
        ours, theirs = socketpair()
        self._stderr = theirs
        ours.setblocking(False)  # noqa: FBT003 - the name says it
        with contextlib.suppress(OSError):
            theirs.shutdown(SHUT_RD)
        self.host.call(self._control.add_stderr, ours.detach())
        return theirs

    def run(self, program: Command | Call, forks: ForkServer | None = None) -> None:
        """Serve the session by a child process. On the protocol's loop only.

        Args:
            program: a `Command`, on a pty if the client asked for one; or a `Call`, on a pty only if it says so.
            forks: what forks the process of a `Call`, in the place of the server's own.

        Raises:
            ConnectionClosed: the session has ended.
            LocalProtocolError: the session is served already.
            OSError: the process could not be started.
        """
        from dunnart.runtime import process

        self._check_free()
        if self.terminal is not None and (isinstance(program, process.Command) or program.terminal):
            child, streams = self._on_terminal(program, self.terminal, forks)
        else:
            child, streams = self.host.start(program, forks)
        self.host.programs += 1
        self._program = process.Program(child, self.host.loop, self._program_ended)
        self._control.attach(streams)

    def _on_terminal(
        self, program: Command | Call, terminal: Terminal, forks: ForkServer | None
    ) -> tuple[Child, Streams]:
        from dunnart.runtime import process
        from dunnart.runtime.terminal import Ownership
        from dunnart.runtime.terminal import Terminal as Pty

        pty = Pty()
        ownership: Ownership | None = None
        try:
            pty.resize(terminal.columns, terminal.rows, terminal.width_pixels, terminal.height_pixels)
            pty.apply(terminal.modes)
            if hasattr(os, "O_PATH") and os.geteuid() == 0:
                ownership = Ownership(pty.name)
            if isinstance(program, process.Command):
                if program.user is not None:
                    pty.give_to(program.user[0], program.user[1])
                child, streams = process.spawn(program.with_variable("SSH_TTY", pty.name), pty)
            else:
                server, call = forks or self.host.forks(), program
                child, streams = process.on_terminal(pty, lambda sides: server.start(call, sides))
        except BaseException:
            pty.close()
            if ownership is not None:
                ownership.end()
            raise
        self.tty, self._ownership = pty.name, ownership
        return child, streams

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have a coroutine serve the session, on the protocol's loop: it must not block. On that loop only.

        What it raises ends the session with status 1, and is logged.
        """
        self.host.serve(self, work)

    async def in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call a function that may block, in a thread; for a coroutine that `spawn` was given.

        Raises:
            TimeoutError: it took longer than the server's `callback_seconds`.
            BufferError: all threads are busy, and many more calls wait for one.
        """
        return await self.host.callback(function, *arguments)

    async def over(self) -> None:
        """Wait for the end of the child process that `run` has started; for a coroutine that `spawn` was given."""
        if self._over is None:
            self._over = asyncio.Event()
        await self._over.wait()

    def exit(self, status: int = 0) -> None:
        """End the session with an exit status; what was written before goes out first. Later calls do nothing.

        Args:
            status: 0 to 4294967295; shells give 0 to 255.

        Raises:
            ValueError: the status is none.
        """
        self._end(ExitStatus(exit_status(status)), "")

    def refuse(self, reason: str, status: int = TEMPORARY_FAILURE) -> None:
        """End the session at once, and tell the user why on its stderr.

        Args:
            reason: the text.
            status: the exit status; by default 75, which mail and cron know as a temporary failure.

        Raises:
            ValueError: the status is none.
        """
        self._end(ExitStatus(exit_status(status)), f"{reason}\r\n")

    def record(self, kind: str, /, **details: str | float | bool) -> None:
        """Have the server's audit sinks take note of something that happened in the session.

        Args:
            kind: what it was; a word of your own, or one of those that `AuditEvent` names.
            details: more of it. The session's number is among them in any case.
        """
        from dunnart.server.interfaces import AuditEvent

        connection = self.facts.connection
        event = AuditEvent(time.time(), kind, connection.id, connection.user, connection.peer,
                           {**details, "session": self.channel})  # fmt: skip
        with contextlib.suppress(RuntimeError):  # the server is closed, and its loop
            self.host.call(self.host.audit, event)

    def release(self) -> None:
        """Close the application's sockets, for one that is done with them."""
        for sock in (self._sock, self._stderr):
            if sock is not None:
                sock.close()

    @property
    def process(self) -> int:
        """The number of the child process that serves it, or 0."""
        return 0 if self._program is None else self._program.pid

    @property
    def exited(self) -> bool:
        """An exit status was given."""
        return self._ended

    @property
    def ended(self) -> bool:
        """An exit status was given, or the client has gone."""
        return self._ended or self.gone

    def _check_free(self) -> None:
        if self._ended or self.gone:
            raise ConnectionClosed("the session has ended")
        if self._sock is not None or self._program is not None:
            raise LocalProtocolError("something serves this session already")

    def _end(self, how: ExitStatus | ExitSignal, text: str) -> None:
        if self._ended:
            return
        self._ended = True
        for sock in (self._sock, self._stderr):
            if sock is not None:
                with contextlib.suppress(OSError):  # closed by the application, or by the client's leaving
                    sock.shutdown(SHUT_WR)
        # Soon, not now: the request that began the session may not be answered yet.
        with contextlib.suppress(RuntimeError):  # the server is closed, and its loop
            self.host.loop.call_soon_threadsafe(self._control.end, how, text)

    def _program_ended(self, how: ExitStatus | ExitSignal) -> None:
        host = self.host
        shown = f"status {how.status}" if isinstance(how, ExitStatus) else f"signal {how.signal}"
        report(_LOG, logging.INFO, self.facts.connection, "session %d: process ended with %s", self.channel, shown)
        self._ended = True
        if self._ownership is not None:
            self._ownership.end()
        self._control.end(how)
        if self._over is None:
            self._over = asyncio.Event()
        self._over.set()
        host.program_ended()

    # For the server: as the counterpart of its streams, on the protocol's loop.

    def requested(self, request: ChannelRequest) -> bool:
        """The server tells that the client sends a signal, a break or its window's new size. Not for applications."""
        if isinstance(request, WindowChange) and self.facts.terminal is not None:
            self.facts.terminal = self.facts.terminal.resized(request)
        if self._program is not None:
            return self._program.requested(request)
        if self.on_request is None:
            return False
        try:
            return self.on_request(request) is True
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an application's fault concerns its channel alone
            self.host.failed(self.facts.connection, error)
            return False

    def hung_up(self) -> None:
        """The server tells that the channel is gone. Not for applications."""
        if self._program is not None:
            self._program.hung_up()
        if self.gone:
            return
        self.gone = True
        self.host.forget(self)
        if self.on_close is not None:
            try:
                self.on_close()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - others wait to be told as well
                self.host.failed(self.facts.connection, error)
