"""A server's status as text for people: sizes, times, tables, and the screen of `top`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dunnart.line_editor import width
from dunnart.records import dataclass

if TYPE_CHECKING:
    from dunnart.server.status import ChannelStatus, ConnectionStatus, ProcessStatus, ServerStatus

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_RIGHT = frozenset({"ID", "NR", "SINCE", "IDLE", "IN", "OUT", "IN/s", "OUT/s"})
_WHERE = {"loop": "on the application's event loop", "thread": "in a thread", "process": "in processes"}


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes a second, on average between two looks."""

    received: float = 0.0
    sent: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one time.

    Attributes:
        at: when, on a clock that only goes forward.
        status: the server.
        connections: all of its connections.
    """

    at: float
    status: ServerStatus
    connections: tuple[ConnectionStatus, ...]


def size(count: float) -> str:
    """Show a number of bytes: "17 B", "1.5 MiB"."""
    unit = 0
    while count >= 1023.95 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Show a time: "12 s", "3:07", "1:02:03", "4 d 01:02:03"."""
    total = max(0, int(seconds))
    minutes, second = divmod(total, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02}:{minute:02}:{second:02}"
    if hour:
        return f"{hour}:{minute:02}:{second:02}"
    return f"{minute}:{second:02}" if minute else f"{second} s"


def fit(text: str, columns: int | None) -> str:
    """Cut a line to a terminal's width."""
    if columns is None or text.isascii():
        return text[:columns]
    used = 0
    for index, character in enumerate(text):
        used += width(character)
        if used > columns:
            return text[:index]
    return text


def _wide(text: str) -> int:
    return len(text) if text.isascii() else sum(map(width, text))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], columns: int | None = None) -> list[str]:
    """Put rows below a header; numbers stand at the right of their columns, and the last column is as it is."""
    lines = [header, *rows]
    widths = [max(_wide(line[column]) for line in lines) for column in range(len(header) - 1)]

    def padded(text: str, column: int) -> str:
        space = " " * (widths[column] - _wide(text))
        return space + text if header[column] in _RIGHT else text + space

    return [
        fit("  ".join([*(padded(text, column) for column, text in enumerate(line[:-1])), line[-1]]).rstrip(), columns)
        for line in lines
    ]


def facts(pairs: Iterable[tuple[str, str]], columns: int | None = None) -> list[str]:
    """Put values beside their names; an empty name continues the one above."""
    found = list(pairs)
    longest = max((len(name) for name, _ in found), default=0)
    return [fit(f"{name.ljust(longest)}  {value}", columns) for name, value in found]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _process(seen: ProcessStatus) -> str:
    if not seen.answers:
        return "does not answer"
    return f"{size(seen.memory_bytes)}, {seen.cpu_seconds:.1f} s, {seen.threads} threads"


def status(seen: ServerStatus, version: str, columns: int | None = None) -> list[str]:
    """Show a server."""
    pool = seen.application
    several = len(seen.processes) > 1
    where = _WHERE.get(seen.placement, seen.placement)
    if seen.workers > 1:
        where = f"in {seen.workers} processes"
    lines = [
        ("server", f"dunnart {version}, up {duration(seen.uptime_seconds)}" + (", draining" if seen.draining else "")),
        ("started", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seen.started))),
        ("protocol", where),
        ("connections", f"{seen.connections}, {seen.logged_in} logged in"),
        ("sessions", f"{seen.sessions} in {seen.channels} channels, {seen.programs} programs"),
        ("logins", f"{seen.logins}, {seen.failed_logins} connections ended without one"),
        ("traffic", f"{size(seen.bytes_received)} in, {size(seen.bytes_sent)} out, {seen.rekeys} rekeys"),
        ("memory", size(seen.memory_bytes) + (", shared pages counted in each process" if several else "")),
        ("processors", f"{seen.cpu_seconds:.1f} s, {seen.threads} threads"),
        ("application", f"{pool.busy} of {pool.size} threads busy, {pool.waiting} jobs wait, {pool.refused} refused"),
    ]  # fmt: skip
    if several:
        lines += [
            ("process" if each is seen.processes[0] else "", f"{each.pid} {each.role}: {_process(each)}")
            for each in seen.processes
        ]  # fmt: skip
    lines += [(kind.replace("_", " "), _counts(names)) for kind, names in seen.algorithms.items()]
    lines += [
        ("counters" if index == 0 else "", f"{name} {count}")
        for index, (name, count) in enumerate(seen.counters.items())
    ]
    return facts(lines, columns)


def what(channel: ChannelStatus) -> str:
    """Show in few words what a channel is for."""
    text = f"{channel.kind} {channel.detail}".rstrip()
    return f"{text} ({channel.terminal})" if channel.terminal else text


def _doing(connection: ConnectionStatus) -> str:
    if not connection.logged_in:
        return "logs in"
    return "; ".join(map(what, connection.channels)) or "-"


def sessions(seen: Iterable[ConnectionStatus], now: float, columns: int | None = None) -> list[str]:
    """Show connections, one a line."""
    rows = [
        (
            str(each.id), each.user or "-", each.peer, duration(now - each.since), duration(each.idle_seconds),
            size(each.bytes_received), size(each.bytes_sent), _doing(each),
        )
        for each in seen
    ]  # fmt: skip
    if not rows:
        return ["there are no connections"]
    return table(("ID", "USER", "FROM", "SINCE", "IDLE", "IN", "OUT", "WHAT"), rows, columns)


def session(
    seen: ConnectionStatus, rate: Rate, rates: Mapping[int, Rate], now: float, columns: int | None = None
) -> list[str]:
    """Show a connection with its channels; `rates` has theirs."""
    lines = facts(
        (
            ("connection", f"{seen.id}, since {duration(now - seen.since)}, idle for {duration(seen.idle_seconds)}"),
            ("user", seen.user or "-"),
            ("login", seen.method or "not yet"),
            ("key", seen.key or "-"),
            ("from", f"{seen.peer} to {seen.local}"),
            ("client", seen.client or "-"),
            ("kex", seen.kex or "-"),
            ("host key", seen.host_key or "-"),
            ("cipher", _both(seen.cipher_to_server, seen.cipher_to_client)),
            ("mac", _both(seen.mac_to_server, seen.mac_to_client)),
            ("compression", _both(seen.compression_to_server, seen.compression_to_client)),
            ("rekeys", str(seen.rekeys)),
            ("traffic", f"{size(seen.bytes_received)} in, {size(seen.bytes_sent)} out"),
            ("now", f"{size(rate.received)}/s in, {size(rate.sent)}/s out"),
        ),
        columns,
    )
    if seen.channels:
        none = Rate()
        rows = [
            (
                str(each.number), duration(now - each.since), size(each.bytes_received), size(each.bytes_sent),
                f"{size(rates.get(each.number, none).received)}/s", f"{size(rates.get(each.number, none).sent)}/s",
                each.served_by or "-", what(each),
            )
            for each in seen.channels
        ]  # fmt: skip
        header = ("NR", "SINCE", "IN", "OUT", "IN/s", "OUT/s", "SERVED BY", "WHAT")
        lines += ["", *table(header, rows, columns)]
    return lines


def _both(to_server: str, to_client: str) -> str:
    if to_server == to_client:
        return to_server or "-"
    return f"{to_server or '-'} in, {to_client or '-'} out"


def rates(before: Look | None, after: Look) -> dict[int, Rate]:
    """What each connection has moved between two looks; one that was not there before, since it was made."""
    seconds = 0.0 if before is None else after.at - before.at
    if before is None or seconds <= 0:
        return {}
    known = {each.id: each for each in before.connections}
    found = {}
    for each in after.connections:
        old = known.get(each.id)
        received = each.bytes_received - (0 if old is None else old.bytes_received)
        sent = each.bytes_sent - (0 if old is None else old.bytes_sent)
        found[each.id] = Rate(received / seconds, sent / seconds)
    return found


def top(before: Look | None, after: Look, columns: int, rows: int) -> list[str]:
    """Show a server and its busiest connections on a screen; never more than `rows` lines of `columns` characters."""
    seen, old = after.status, after.status if before is None else before.status
    seconds = after.at - before.at if before is not None and after.at > before.at else 1.0
    by_connection = rates(before, after)
    pool = seen.application
    cpu = 100 * max(0.0, seen.cpu_seconds - old.cpu_seconds) / seconds
    received, sent = seen.bytes_received - old.bytes_received, seen.bytes_sent - old.bytes_sent
    logins, failed = seen.logins - old.logins, seen.failed_logins - old.failed_logins
    ending = ", DRAINING" if seen.draining else ""
    counts = f"{seen.connections} connections, {seen.logged_in} logged in, {seen.sessions} sessions"
    moved = f"in {size(received / seconds)}/s, out {size(sent / seconds)}/s"
    threads = f"{pool.busy}/{pool.size} busy, {pool.waiting} waiting, {pool.refused} refused"
    lines = [
        f"dunnart, up {duration(seen.uptime_seconds)}{ending}   {counts}, {seen.programs} programs",
        f"{moved}   {logins / seconds:.1f} logins/s, {failed / seconds:.1f} failed/s",
        f"processors {cpu:.0f} %, memory {size(seen.memory_bytes)}   application {threads}",
        "",
    ]
    none = Rate()

    def busy(each: ConnectionStatus) -> tuple[float, float, int]:
        rate = by_connection.get(each.id, none)
        return (-rate.received - rate.sent, each.idle_seconds, each.id)

    room = max(0, rows - len(lines) - 2)
    shown = sorted(after.connections, key=busy)[:room]
    body = [
        (
            str(each.id), each.user or "-", each.peer, duration(each.idle_seconds),
            f"{size(by_connection.get(each.id, none).received)}/s", f"{size(by_connection.get(each.id, none).sent)}/s",
            _doing(each),
        )
        for each in shown
    ]  # fmt: skip
    lines += table(("ID", "USER", "FROM", "IDLE", "IN/s", "OUT/s", "WHAT"), body)
    if len(after.connections) > len(shown):
        lines.append(f"... and {len(after.connections) - len(shown)} more")
    return [fit(line, columns) for line in lines[:rows]]
