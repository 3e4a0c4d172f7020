"""The commands that look at a server and operate it, whoever gives them: the status shell, or the control socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar, Protocol

from dunnart.errors import ConfigError, DunnartError
from dunnart.plugins import status_text
from dunnart.plugins.status_text import Look, Rate
from dunnart.records import dataclass
from dunnart.runtime.logs import LEVELS, PARTS, clean
from dunnart.server.status import to_json

if TYPE_CHECKING:
    from dunnart.server import Server
    from dunnart.server.status import ConnectionStatus

JSON = "--json"
TOP_SECONDS = 1.0
_RATE_SECONDS = 0.5
_DRAIN_SECONDS = 30.0
_MOST_DRAIN_SECONDS = 7 * 86_400.0
_COMPLETED_CONNECTIONS = 500


class CommandError(Exception):
    """A command that cannot be understood, or could not be done; the message is for whoever gave it.

    Args:
        message: what is wrong.
        status: the exit status: 1 for what could not be done, 2 for what was not understood.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command gave, as text for people and as what JSON knows."""

    lines: Sequence[str]
    data: object


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        run: does it, with the words behind its name.
        usage: its name and arguments.
        help: what it does, in a line.
        details: more, for `help COMMAND`.
        least: how many arguments it needs; `most` is how many it takes, None any number.
        changes: it does more than look.
        daemon: it is for who reaches the daemon that runs the server, on its machine.
    """

    run: Callable[[Console, Sequence[str]], Awaitable[Reply]]
    usage: str
    help: str
    details: str = ""
    least: int = 0
    most: int | None = 0
    changes: bool = False
    daemon: bool = False


class Operated(Protocol):
    """A daemon that runs a server."""

    async def reload(self) -> None:
        """Read the configuration again; raises `DunnartError` if it cannot be used, and then nothing has changed."""

    async def upgrade(self) -> int:
        """Have the program that is installed now take over; gives its process's number. Raises `DunnartError`."""


class Console:
    """One operator's view of a server.

    Args:
        server: it.
        may_change: he may do more than look.
        columns: the width of his terminal; None: lines may be of any length.
        rows: its height.
        refusal: what he is told if he may not.
        daemon: what runs the server, if he may have it do something.

    Attributes:
        commands: what there is, by name.
    """

    def __init__(
        self, server: Server, *, may_change: bool, columns: int | None = None, rows: int = 24,
        refusal: str = "you may only look", daemon: Operated | None = None,
    ) -> None:  # fmt: skip
        self.server = server
        self.may_change = may_change
        self.columns = columns
        self.rows = rows
        self._refusal = refusal
        self._daemon = daemon
        self._numbers: tuple[int, ...] = ()
        self._before: Look | None = None

    async def run(self, words: Sequence[str]) -> Reply:
        """Run a command.

        Raises:
            CommandError: it cannot be understood, may not be given or could not be done.
        """
        name, *arguments = words or ("help",)
        command = Console.commands.get(name)
        if command is None:
            raise CommandError(_unknown(name), 2)
        if len(arguments) < command.least or (command.most is not None and len(arguments) > command.most):
            raise CommandError(f"usage: {command.usage}", 2)
        if command.changes and not self.may_change:
            raise CommandError(f"{name}: {self._refusal}")
        return await command.run(self, arguments)

    async def look(self) -> Look:
        """See all there is."""
        status = await self.server.status()
        connections = await self.server.sessions()
        self._numbers = tuple(each.id for each in connections)
        return Look(time.monotonic(), status, connections)

    async def prepare(self) -> None:
        """Find out what there is to complete, unless it is a lot."""
        if self.server.connections <= _COMPLETED_CONNECTIONS:
            self._numbers = tuple(each.id for each in await self.server.sessions())

    def complete(self, line: str, cursor: int) -> Sequence[str]:
        """Give what the word before the cursor may become."""
        *before, begun = line[:cursor].split(" ")
        given = [word for word in before if word]
        return sorted(word for word in self._words(given) if word.startswith(begun))

    def _words(self, given: Sequence[str]) -> Sequence[str]:
        match given:
            case [] | ["help"]:
                return tuple(self._known)
            case ["session" | "kill" | "rekey"]:
                return tuple(map(str, self._numbers))
            case ["log"]:
                return tuple(LEVELS)
            case ["log", _]:
                return PARTS
        return ()

    # The commands.

    async def _status(self, _: Sequence[str]) -> Reply:
        from dunnart import __version__

        seen = await self.server.status()
        return Reply(status_text.status(seen, __version__, self.columns), {"version": __version__, **to_json(seen)})

    async def _sessions(self, _: Sequence[str]) -> Reply:
        seen = (await self.look()).connections
        return Reply(status_text.sessions(seen, time.time(), self.columns), [to_json(each) for each in seen])

    async def _session(self, arguments: Sequence[str]) -> Reply:
        number = _number(arguments[0])
        before = await self._one(number)
        began = time.monotonic()
        await asyncio.sleep(_RATE_SECONDS)
        after = await self._one(number)
        seconds = time.monotonic() - began
        rate = Rate(
            (after.bytes_received - before.bytes_received) / seconds, (after.bytes_sent - before.bytes_sent) / seconds
        )
        old = {each.number: each for each in before.channels}
        rates = {
            each.number: Rate(
                (each.bytes_received - old[each.number].bytes_received) / seconds,
                (each.bytes_sent - old[each.number].bytes_sent) / seconds,
            )
            for each in after.channels
            if each.number in old
        }
        data = to_json(after) | _rated(rate)
        data["channels"] = [to_json(each) | _rated(rates.get(each.number, Rate())) for each in after.channels]
        return Reply(status_text.session(after, rate, rates, time.time(), self.columns), data)

    async def _one(self, number: int) -> ConnectionStatus:
        found = await self.server.sessions(number)
        if not found:
            raise CommandError(_gone(number))
        return found[0]

    async def _kill(self, arguments: Sequence[str]) -> Reply:
        number = _number(arguments[0])
        text = " ".join(arguments[1:])
        if not await (self.server.kill(number, text) if text else self.server.kill(number)):
            raise CommandError(_gone(number))
        return Reply([f"connection {number} is ended"], {"connection": number})

    async def _rekey(self, arguments: Sequence[str]) -> Reply:
        number = _number(arguments[0])
        if not await self.server.rekey(number):
            if await self.server.sessions(number):
                raise CommandError(f"nobody has logged in on connection {number} yet")
            raise CommandError(_gone(number))
        return Reply([f"connection {number} exchanges its keys anew"], {"connection": number})

    async def _log(self, arguments: Sequence[str]) -> Reply:
        if arguments:
            if not self.may_change:
                raise CommandError(f"log: {self._refusal}")
            try:
                await self.server.set_log_level(*arguments)
            except ConfigError as error:
                raise CommandError(clean(str(error)), 2) from error
        levels = self.server.log_levels
        return Reply(status_text.facts(levels.items(), self.columns), levels)

    async def _limits(self, _: Sequence[str]) -> Reply:
        config = self.server.config
        connection = asdict(config.limits)
        server = {
            name: getattr(config, name)
            for name in ("workers", "application_threads", "application_queue", "callback_seconds")
        }
        admission = {} if config.admission is None else config.admission.bounds
        parts = {"server": server, "connection": connection, "admission": admission}
        lines: list[str] = []
        for head, part in zip(("of the server", "of a connection", "of who may connect"), parts.values(), strict=True):
            if part:
                lines += ["", head, *status_text.facts(_shown(part), self.columns)]
        return Reply(lines[1:], parts)

    async def _drain(self, arguments: Sequence[str]) -> Reply:
        seconds = _seconds(arguments[0]) if arguments else _DRAIN_SECONDS
        notice = " ".join(arguments[1:])
        if self.server.draining:
            raise CommandError("the server is being drained already")
        status = await self.server.status()
        self.server.begin_drain(seconds, notice)
        return Reply(
            [f"nobody new is let in; the server ends with the last of {status.channels} channels, or in {seconds:g} s"],
            {"channels": status.channels, "seconds": seconds},
        )

    async def _reload(self, _: Sequence[str]) -> Reply:
        try:
            await self._operated.reload()
        except DunnartError as error:
            raise CommandError(f"nothing has changed: {clean(str(error), most=1000)}") from error
        return Reply(["the configuration was read again"], {})

    async def _upgrade(self, _: Sequence[str]) -> Reply:
        try:
            number = await self._operated.upgrade()
        except DunnartError as error:
            raise CommandError(clean(str(error), most=1000)) from error
        return Reply([f"process {number} has taken over; this one ends with its last connection"], {"pid": number})

    @property
    def _operated(self) -> Operated:
        if self._daemon is None:
            raise CommandError("this is for `dunnart status` on the server's machine")
        return self._daemon

    async def _top(self, _: Sequence[str]) -> Reply:
        if self._before is None:
            self._before = await self.look()
            await asyncio.sleep(TOP_SECONDS)
        before, self._before = self._before, await self.look()
        found = status_text.rates(before, self._before)
        data = {
            "status": to_json(self._before.status),
            "sessions": [to_json(each) | _rated(found.get(each.id, Rate())) for each in self._before.connections],
        }
        columns = 200 if self.columns is None else self.columns
        return Reply(status_text.top(before, self._before, columns, self.rows), data)

    async def _help(self, arguments: Sequence[str]) -> Reply:
        if arguments:
            command = Console.commands.get(arguments[0])
            if command is None:
                raise CommandError(_unknown(arguments[0]), 2)
            text = f"{command.help} {command.details}".rstrip()
            if command.changes and not self.may_change:
                text += f" Here {self._refusal}."
            return Reply([command.usage, *_wrapped(text)], {"usage": command.usage, "help": text})
        pairs = [(command.usage, command.help) for command in self._known.values()]
        lines = [*status_text.facts(pairs, self.columns), "", f"{JSON} behind any of them gives JSON."]
        return Reply(lines, {command.usage: command.help for command in self._known.values()})

    @property
    def _known(self) -> Mapping[str, Command]:
        """The commands that he has."""
        return {
            name: command
            for name, command in Console.commands.items()
            if not command.daemon or self._daemon is not None
        }

    async def _exit(self, _: Sequence[str]) -> Reply:
        return Reply([], None)

    commands: ClassVar[Mapping[str, Command]] = {
        "status": Command(
            _status, "status", "How the server is doing.",
            "Connections, logins, threads, memory, processors, traffic, key exchanges, algorithms in use, and what it "
            "has counted.",
        ),
        "sessions": Command(_sessions, "sessions", "The connections, and what is open on them."),
        "session": Command(
            _session, "session N", "One connection, with its channels and what they move.",
            "N is its number, as sessions and the log show it. The rates are those of half a second.", 1, 1,
        ),
        "kill": Command(
            _kill, "kill N [TEXT]", "End a connection.",
            "The client is told TEXT, and the programs on the connection are hung up.", 1, None, changes=True,
        ),
        "rekey": Command(
            _rekey, "rekey N", "Exchange a connection's keys anew.", "", 1, 1, changes=True,
        ),
        "log": Command(
            _log, "log [LEVEL [PART]]", "How much is logged, or set it.",
            f"LEVEL is one of {', '.join(LEVELS)}; PART of {', '.join(PARTS)}, or plugin.NAME. Without PART it is for "
            "all that have no level of their own.", 0, 2,
        ),
        "limits": Command(_limits, "limits", "The bounds on connections and on the server."),
        "drain": Command(
            _drain, "drain [SECONDS [TEXT]]", "Let nobody new in, and end with the last session.",
            f"What is still open after SECONDS ({_DRAIN_SECONDS:g} by default) is ended. Every terminal is shown TEXT, "
            "or how much time is left.", 0, None, changes=True,
        ),
        "reload": Command(
            _reload, "reload", "Read the configuration and the keys again.",
            "They are for new connections; those that there are go on as they are. What cannot be used changes "
            "nothing.", changes=True, daemon=True,
        ),
        "upgrade": Command(
            _upgrade, "upgrade", "Have the program that is installed now take over.",
            "It gets the listening sockets; this one ends with its last connection. If it does not start, nothing "
            "has changed.", changes=True, daemon=True,
        ),
        "top": Command(
            _top, "top", "The busiest connections, as they change; q ends it.",
            "Without a terminal it is shown once.",
        ),
        "help": Command(_help, "help [COMMAND]", "What there is to say.", "", 0, 1),
        "exit": Command(_exit, "exit", "Leave."),
    }  # fmt: skip
    """In the order of the help."""


def split(line: str) -> tuple[list[str], bool]:
    """Give the words of a line, and whether JSON is wanted."""
    words = line.split()
    return [word for word in words if word != JSON], JSON in words


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name[:100], Console.commands, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "help lists the commands"
    return f"there is no command {clean(name)}; {hint}"


def _number(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < 20):
        raise CommandError(f"{clean(word)} is no connection's number; sessions lists them", 2)
    return int(word)


def _gone(number: int) -> str:
    return f"there is no connection {number}; sessions lists them"


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MOST_DRAIN_SECONDS:
        raise CommandError(f"{clean(word)} is no number of seconds from 0 to {_MOST_DRAIN_SECONDS:.0f}", 2)
    return seconds


def _rated(rate: Rate) -> dict[str, float]:
    return {"received_per_second": round(rate.received, 1), "sent_per_second": round(rate.sent, 1)}


def _shown(values: Mapping[str, object]) -> list[tuple[str, str]]:
    return [
        (f"  {name}", f"{value:g}" if isinstance(value, float) else str(value))
        for name, value in values.items()
    ]  # fmt: skip


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, 76, initial_indent="  ", subsequent_indent="  ")
