"""Sessions: commands, shells and subsystems at the server (RFC 4254 §6)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from dunnart.client.channel import Channel, Incoming, StderrUse
from dunnart.errors import ChannelError, LocalProtocolError
from dunnart.protocol.requests import (
    BreakRequest,
    EnvironmentRequest,
    ExecRequest,
    ExitSignal,
    ExitStatus,
    PtyRequest,
    ShellRequest,
    SignalRequest,
    SubsystemRequest,
    UnknownRequest,
    WindowChange,
    encode_modes,
)
from dunnart.records import dataclass

if TYPE_CHECKING:
    from dunnart.client.connection import Connection
    from dunnart.protocol.requests import ChannelRequest


@dataclass(frozen=True, slots=True)
class Terminal:
    """The terminal that a session is to have.

    Attributes:
        term: its type, as in $TERM.
        columns: its width in characters; `rows` its height.
        width_pixels: its width in pixels, 0 if unknown; `height_pixels` likewise.
        modes: what to set (RFC 4254 §8), opcode → value.
    """

    term: str = "xterm-256color"
    columns: int = 80
    rows: int = 24
    width_pixels: int = 0
    height_pixels: int = 0
    modes: Mapping[int, int] = field(default_factory=dict)


class TerminalRefused(ChannelError):
    """The server gives no terminal; it may give a session without one."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a program ended.

    Attributes:
        status: its exit status; None if a signal ended it, or if the server did not say.
        signal: the signal that ended it, without SIG; "" if none did.
        core_dumped: whether it left a core file.
        message: what the server says about it.
    """

    status: int | None = None
    signal: str = ""
    core_dumped: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended.

    Attributes:
        exit: how it ended.
        stdout: what it wrote there.
        stderr: what it wrote there.
    """

    exit: Exit
    stdout: bytes
    stderr: bytes

    @property
    def status(self) -> int | None:
        """Its exit status; None if a signal ended it, or if the server did not say."""
        return self.exit.status


class Session(Channel):
    """A program at the server; made by `Connection.session`.

    What it writes must be read, or it stops: one window of 2 MiB serves its stdout and its stderr.
    """

    def __init__(self, connection: Connection, number: int, stderr: StderrUse) -> None:
        super().__init__(connection, number, stderr)
        self._exit = Exit()

    @property
    def stderr(self) -> Incoming:
        """The program's stderr, to `read` as the session itself.

        Raises:
            LocalProtocolError: the session was opened with it joined or dropped.
        """
        if self._errors is None:
            raise LocalProtocolError('the session was not opened with stderr="read"')
        return self._errors

    @property
    def exit(self) -> Exit:
        """How the program ended, as far as the server has said by now."""
        return self._exit

    async def wait(self) -> Exit:
        """Wait until the session is over, and tell how the program ended. Its output must be read meanwhile.

        Raises:
            ConnectionClosed: the connection broke before.
        """
        await self.wait_closed()
        return self._exit

    async def send_signal(self, name: str) -> None:
        """Send the program a signal, such as "TERM" or "INT" (without SIG). There is no answer.

        Raises:
            ChannelError: the session is over.
            ConnectionClosed: the connection is gone.
        """
        self.tell(SignalRequest(name.removeprefix("SIG")))

    async def send_break(self, milliseconds: int = 500) -> bool:
        """Break the line (RFC 4335); whether the server could."""
        return await self.ask(BreakRequest(milliseconds))

    async def resize(self, columns: int, rows: int, width_pixels: int = 0, height_pixels: int = 0) -> None:
        """Tell the terminal's new size."""
        self.tell(WindowChange(columns, rows, width_pixels, height_pixels))

    async def begin(
        self, program: ChannelRequest, terminal: Terminal | None, environment: Mapping[str, str], *, agent: bool = False
    ) -> None:
        """Ask for all that the session needs in one go, and wait for the answers."""
        if agent:
            self.tell(UnknownRequest("auth-agent-req@openssh.com", b""))
        for name, value in environment.items():
            self.tell(EnvironmentRequest(name, value))
        granted = None if terminal is None else self.send_request(_pty(terminal))
        begun = self.send_request(program)
        if granted is not None and not await granted:
            raise TerminalRefused("the server refuses a terminal")
        if not await begun:
            raise ChannelError(f"the server refuses the {_described(program)}")

    def received_request(self, request: ChannelRequest) -> bool:
        """The server tells how the program ended, or something else."""
        if isinstance(request, ExitStatus):
            self._exit = Exit(request.status)
        elif isinstance(request, ExitSignal):
            self._exit = Exit(None, request.signal, request.core_dumped, request.message)
        else:
            return super().received_request(request)
        return True

    async def complete(self, data: memoryview) -> Completed:
        """Send all input, read all output, wait for the end."""
        feeding = asyncio.create_task(self._feed(data))
        errors = asyncio.create_task(self.stderr.read_all())
        try:
            output = await self.read_all()
            return Completed(exit=await self.wait(), stdout=output, stderr=await errors)
        finally:
            feeding.cancel()
            errors.cancel()
            await asyncio.gather(feeding, errors, return_exceptions=True)

    async def _feed(self, data: memoryview) -> None:
        with contextlib.suppress(ChannelError):  # a program need not read all of its input
            await self.write(data)
            await self.write_eof()


def program_request(command: str | bytes | None, subsystem: str | None) -> ChannelRequest:
    """What a session is to run: a command, a subsystem, or else a shell."""
    if command is not None and subsystem is not None:
        raise LocalProtocolError("a session runs a command or a subsystem, not both")
    if subsystem is not None:
        return SubsystemRequest(subsystem)
    if command is not None:
        return ExecRequest(_command_line(command))
    return ShellRequest()


def _command_line(command: object) -> bytes:
    if isinstance(command, str):
        return command.encode()
    if isinstance(command, bytes):
        return command
    said = "the server's shell splits it; shlex.join makes a line of a list"
    raise TypeError(f"a command is a str or bytes, not {type(command).__name__}: {said}")


def _pty(terminal: Terminal) -> PtyRequest:
    return PtyRequest(
        terminal.term, terminal.columns, terminal.rows, terminal.width_pixels, terminal.height_pixels,
        encode_modes(dict(terminal.modes)),
    )  # fmt: skip


def _described(program: ChannelRequest) -> str:
    if isinstance(program, SubsystemRequest):
        return f"subsystem {program.subsystem!r}"
    return {"exec": "command"}.get(program.name, program.name)
