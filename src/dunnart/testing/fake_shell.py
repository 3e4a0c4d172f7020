"""A shell that does nothing: commands have the answers that a test gives them."""

from __future__ import annotations

import asyncio
import inspect
import shlex
from collections.abc import Callable, Mapping
from typing import cast

from dunnart.errors import Interrupted
from dunnart.server import AsyncHandler, Session

Text = str | bytes
Reply = Text | int | tuple[Text, Text, int] | AsyncHandler
"""What a command does: its output, its exit status, (stdout, stderr, status), or a coroutine function that does it."""
Answer = Callable[[str], Reply | None]
"""Gives the answer to a command line, None if there is no such command."""
_NO_SUCH_COMMAND = 127
_SYNTAX_ERROR = 2
_PROMPT = "$ "


async def fake_shell(session: Session, commands: Mapping[str, Reply], answer: Answer | None = None) -> int:
    """Serve a session: the command that it asks for, or a shell that reads commands line by line.

    Besides the commands given there are `echo`, `cat` (from its input), `true`, `false` and, in a shell, `exit`.

    Args:
        session: the session.
        commands: what there is, by the whole command line.
        answer: knows more.

    Returns:
        The exit status.
    """
    if session.command is not None:
        return await _execute(session, _reply(session.command, commands, answer))
    status = 0
    prompt = "" if session.terminal is None else _PROMPT
    while True:
        try:
            line = (await session.readline(prompt)).strip()
        except Interrupted:
            continue
        except EOFError:
            return status
        name, _, argument = line.partition(" ")
        if name == "exit":
            return int(argument) & 0xFF if argument.isdecimal() else status
        if line:
            status = await _execute(session, _reply(line, commands, answer))


async def _execute(session: Session, reply: Reply) -> int:
    if inspect.iscoroutinefunction(reply):
        return await reply(session) or 0
    if isinstance(reply, int):
        reply = "", "", reply
    elif not isinstance(reply, tuple):
        reply = cast("Text", reply), "", 0
    out, err, status = reply
    # Both at once: a client may want to read either of them first.
    await asyncio.gather(*([session.write(out)] if out else []), *([session.stderr.write(err)] if err else []))
    return status


def _reply(line: str, commands: Mapping[str, Reply], answer: Answer | None) -> Reply:
    found = commands.get(line)
    if found is None and answer is not None:
        found = answer(line)
    if found is not None:
        return found
    try:
        words = shlex.split(line)
    except ValueError as error:
        return "", f"{line}: {error}\n", _SYNTAX_ERROR
    match words:
        case ["echo", *rest]:
            return " ".join(rest) + "\n"
        case ["cat"]:
            return _cat
        case ["true"] | []:
            return 0
        case ["false"]:
            return 1
    return "", f"{words[0]}: command not found\n", _NO_SUCH_COMMAND


async def _cat(session: Session) -> None:
    while data := await session.read():
        await session.write(data)
