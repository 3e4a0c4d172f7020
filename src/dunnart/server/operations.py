"""What an operator asks of the protocol's side of a server. Arguments and results are JSON: it may be another process.

None of it is loaded before somebody asks, and nothing of it is kept: all is read from what the connections have anyway.
Long tables are read in pieces, so that keystrokes go between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from dunnart.errors import LocalProtocolError
from dunnart.runtime.logs import clean
from dunnart.server.facts import Address
from dunnart.server.status import ChannelStatus, ConnectionStatus, ProcessStatus, to_json

if TYPE_CHECKING:
    from dunnart.server.channel import ServerChannel
    from dunnart.server.connection import ServerConnection
    from dunnart.server.protocol_server import ProtocolServer

_PIECE = 50
_SESSION_KINDS = frozenset({"session", "shell", "exec", "subsystem"})


async def _connections(server: ProtocolServer) -> AsyncIterator[ServerConnection]:
    for index, number in enumerate(server.numbers, 1):
        connection = server.connection(number)
        if connection is not None:
            yield connection
        if not index % _PIECE:
            await asyncio.sleep(0)


async def status(server: ProtocolServer) -> dict[str, Any]:
    """Sum up the connections; a process of its own also says how it is doing, and what it has counted."""
    sums: Counter[str] = Counter(bytes_received=server.bytes_received, bytes_sent=server.bytes_sent)
    algorithms: dict[str, Counter[str]] = {}
    async for connection in _connections(server):
        sums["connections"] += 1
        sums["logged_in"] += connection.logged_in
        sums["channels"] += len(connection.channels)
        sums["sessions"] += sum(_kind(channel) in _SESSION_KINDS for channel in connection.channels)
        sums["bytes_received"] += connection.pump.bytes_received
        sums["bytes_sent"] += connection.pump.bytes_sent
        chosen = connection.algorithms
        if chosen is not None:
            _count(algorithms, "kex", chosen.kex)
            _count(algorithms, "host_key", chosen.host_key)
            _count(algorithms, "cipher", chosen.cipher_to_server, chosen.cipher_to_client)
            _count(algorithms, "mac", chosen.mac_to_server, chosen.mac_to_client)
            _count(algorithms, "compression", chosen.compression_to_server, chosen.compression_to_client)
    result: dict[str, Any] = {"sums": sums, "algorithms": algorithms}
    if server.role:
        result |= {"process": to_json(ProcessStatus.of_this(server.role)), "counters": server.counters}
    return result


def _count(algorithms: dict[str, Counter[str]], kind: str, *names: str) -> None:
    for name in {*names} - {""}:
        algorithms.setdefault(kind, Counter())[name] += 1


async def sessions(server: ProtocolServer, number: int | None = None) -> list[dict[str, Any]]:
    """Describe the connections, or one of them."""
    if number is not None:
        only = server.connection(number)
        return [] if only is None else [to_json(_described(only))]
    return [to_json(_described(connection)) async for connection in _connections(server)]


def _described(connection: ServerConnection) -> ConnectionStatus:
    pump, facts = connection.pump, connection.facts
    engine, chosen = pump.engine, connection.algorithms
    now = connection.loop.time()
    to_clock = time.time() - now
    key = None if facts is None else facts.key
    return ConnectionStatus(
        id=connection.id,
        logged_in=connection.logged_in,
        user=clean(connection.user),
        peer=str(connection.peer),
        local=str(Address(*pump.local_address)),
        method="" if facts is None else facts.method,
        key="" if key is None else f"{key.key_type} {key.fingerprint()}",
        since=engine.connected_at + to_clock,
        idle_seconds=max(0.0, now - engine.last_activity),
        client=clean(engine.peer_version),
        kex="" if chosen is None else chosen.kex,
        host_key="" if chosen is None else chosen.host_key,
        cipher_to_server="" if chosen is None else chosen.cipher_to_server,
        cipher_to_client="" if chosen is None else chosen.cipher_to_client,
        mac_to_server="" if chosen is None else chosen.mac_to_server,
        mac_to_client="" if chosen is None else chosen.mac_to_client,
        compression_to_server="" if chosen is None else chosen.compression_to_server,
        compression_to_client="" if chosen is None else chosen.compression_to_client,
        bytes_received=pump.bytes_received,
        bytes_sent=pump.bytes_sent,
        rekeys=engine.rekeys,
        channels=tuple(_described_channel(channel, to_clock) for channel in connection.channels),
    )


def _described_channel(channel: ServerChannel, to_clock: float) -> ChannelStatus:
    facts = None if channel.counterpart is None else channel.counterpart.facts
    detail = b"" if facts is None else facts.command or (facts.subsystem or facts.detail).encode()
    terminal = channel.terminal
    received, sent = channel.moved_bytes
    return ChannelStatus(
        number=channel.number,
        kind=_kind(channel),
        detail=clean(detail),
        terminal="" if terminal is None else f"{clean(terminal.term)} {terminal.columns}x{terminal.rows}",
        since=channel.since + to_clock,
        bytes_received=received,
        bytes_sent=sent,
        served_by="",
    )


def _kind(channel: ServerChannel) -> str:
    return "session" if channel.counterpart is None else channel.counterpart.facts.kind


async def kill(server: ProtocolServer, number: int, text: str) -> bool:
    """End a connection."""
    connection = server.connection(number)
    if connection is None:
        return False
    connection.disconnect(text)
    return True


async def rekey(server: ProtocolServer, number: int) -> bool:
    """Exchange a connection's keys anew; not before its login."""
    connection = server.connection(number)
    if connection is None or not connection.logged_in:
        return False
    try:
        connection.pump.now().rekey()
    except LocalProtocolError:  # it has just ended
        return False
    connection.pump.tick()
    return True


async def levels(server: ProtocolServer, wanted: Mapping[str, int]) -> None:
    """Set loggers' levels, which in the application's process are set already."""
    if server.role:
        for name, level in wanted.items():
            logging.getLogger(name).setLevel(level)


async def stop_listening(server: ProtocolServer) -> None:
    """Accept no more connections."""
    server.stop_listening()


async def rest(server: ProtocolServer) -> dict[str, Any] | None:
    """Accept no more connections and say what was counted, if nobody needs the process; None: somebody does."""
    if server.needed:
        return None
    server.stop_listening()
    return await status(server)


async def notify(server: ProtocolServer, text: str) -> int:
    """Show a text at every terminal; gives how many there are."""
    count = 0
    async for connection in _connections(server):
        for channel in connection.channels:
            if channel.terminal is not None and channel.counterpart is not None:
                with contextlib.suppress(LocalProtocolError):  # it is about to go
                    channel.say(text)
                    count += 1
    return count


async def drained(server: ProtocolServer, seconds: float) -> None:
    """Wait until no channel is open, at most so long."""
    await server.until(lambda: server.idle, seconds)


async def emptied(server: ProtocolServer, seconds: float) -> None:
    """Wait until there is no connection, at most so long."""
    await server.until(lambda: server.empty, seconds)


OPERATIONS: dict[str, Callable[..., Awaitable[object]]] = {
    "status": status,
    "sessions": sessions,
    "kill": kill,
    "rekey": rekey,
    "levels": levels,
    "stop_listening": stop_listening,
    "rest": rest,
    "notify": notify,
    "drained": drained,
    "emptied": emptied,
}
"""By name. Each gets the protocol's server first."""
