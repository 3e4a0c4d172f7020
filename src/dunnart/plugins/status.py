"""The status shell: looks at the server that it runs in, and operates it, over SSH.

As a shell it reads commands, with history, completion and help; a command of an exec request is run and ends. It serves
shells, commands and subsystems alike:

    ssh host                    with `shell = "status"`
    ssh host status --json      with `exec = "status"`
    ssh -s host status          with a subsystem "status"
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from dunnart.errors import ConnectionClosed, Interrupted
from dunnart.plugins import status_text
from dunnart.plugins.status_commands import TOP_SECONDS, CommandError, Console, Reply, split
from dunnart.records import dataclass
from dunnart.server import WindowChange, clean
from dunnart.server.plugins import Context, plugin

if TYPE_CHECKING:
    from dunnart.server import Session

_PROMPT = "dunnart> "
_ROWS, _COLUMNS = 24, 80
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # another screen, without a cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_QUIT = frozenset(b"qQ\x03\x04")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the plug-in `status`.

    Attributes:
        operators: the users who may do more than look: end connections, exchange keys, set log levels, drain.
    """

    operators: tuple[str, ...] = ()


class StatusShell:
    """Serves sessions with the commands of `dunnart.plugins.status_commands`.

    Who gets this shell may look at everything, other users' commands included.

    Args:
        operators: the names of the users who may do more than look. The login must prove them.
    """

    def __init__(self, operators: Collection[str] = ()) -> None:
        self._operators = frozenset(operators)

    async def __call__(self, session: Session) -> int:
        """Serve a session."""
        console = Console(
            session.server,
            may_change=session.user in self._operators,
            refusal=f"{clean(session.user, word=True)} is none of the operators, and may only look",
        )
        if session.command is not None:
            return await _run(session, console, session.command)
        if session.terminal is None:
            async for line in session:
                if line.split()[:1] == ["exit"]:
                    break
                if line.strip():
                    await _run(session, console, line)
            return 0
        return await _converse(session, console)


@plugin(Options)
def status_shell(context: Context[Options]) -> StatusShell:
    """Shows how the server is doing and operates it, by commands; `dunnart status` has the same ones."""
    return StatusShell(context.options.operators)


async def _converse(session: Session, console: Console) -> int:
    session.complete = console.complete
    await session.write("The status of this server. help lists the commands, Tab completes them.\n")
    while True:
        await console.prepare()
        try:
            line = await session.readline(_PROMPT)
        except Interrupted:
            continue
        except EOFError:
            return 0
        if line.split()[:1] == ["exit"]:
            return 0
        if line.strip():
            await _run(session, console, line)


async def _run(session: Session, console: Console, line: str) -> int:
    """Run a command and show what it gave; returns the exit status."""
    words, as_json = split(line)
    columns, console.rows = _size(session)
    console.columns = columns if session.terminal is not None else None
    try:
        if words == ["top"] and not as_json and session.terminal is not None:
            await _top(session, console)
            return 0
        reply = await console.run(words)
    except CommandError as error:
        if session.terminal is None:
            await session.stderr.write(f"{error}\n")
        else:
            await session.write(f"{error}\n")
        return error.status
    await session.write(shown(reply, as_json=as_json))
    return 0


def shown(reply: Reply, *, as_json: bool) -> str:
    """Give a reply as it is written."""
    if as_json:
        return json.dumps(reply.data, indent=2) + "\n"
    return "".join(f"{line}\n" for line in reply.lines)


def _size(session: Session) -> tuple[int, int]:
    terminal = session.terminal
    if terminal is None:
        return _COLUMNS, _ROWS
    return terminal.columns or _COLUMNS, terminal.rows or _ROWS


async def _top(session: Session, console: Console) -> None:
    """Show the busiest connections anew each second, and when the terminal has another size, until q is pressed."""
    await session.write(_ENTER.encode())
    loop = asyncio.get_running_loop()
    before, after = None, await console.look()
    due = loop.time() + TOP_SECONDS
    keys = loop.create_task(session.read())
    sizes = loop.create_task(_resized(session))
    try:
        while True:
            columns, rows = _size(session)
            await session.write(_frame(status_text.top(before, after, columns - 1, rows)))
            await asyncio.wait({keys, sizes}, timeout=max(0.0, due - loop.time()), return_when=asyncio.FIRST_COMPLETED)
            if keys.done():
                typed = keys.result()
                if not typed or _QUIT.intersection(typed):
                    return
                keys = loop.create_task(session.read())
            if sizes.done():
                sizes = loop.create_task(_resized(session))
            if loop.time() >= due:
                due = loop.time() + TOP_SECONDS
                before, after = after, await console.look()
    finally:
        for task in (keys, sizes):
            task.cancel()
        await asyncio.wait({keys, sizes})
        with contextlib.suppress(ConnectionClosed):
            await session.write(_LEAVE.encode())


async def _resized(session: Session) -> None:
    async for request in session.requests():
        if isinstance(request, WindowChange):
            return
    await session.wait_closed()


def _frame(lines: Sequence[str]) -> bytes:
    """Paint lines from the top of the screen, each cleared to its end, and the rest of the screen below."""
    return ("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J").encode()
