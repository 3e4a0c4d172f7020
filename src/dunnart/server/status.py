"""How a server is doing: plain values, which become JSON and come back from it.

What a peer has a say in (names, commands, versions) is shown clean: printable, with odd characters escaped, and at most
200 characters of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dunnart.records import dataclass

LASTING = ("bytes_received", "bytes_sent")
"""What connections leave behind of themselves, beside what is counted."""

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process of the server's.

    Attributes:
        pid: its number.
        role: "server", or "protocol N" for one that only serves the protocol.
        memory_bytes: what it has in memory now, pages that it shares with others included.
        cpu_seconds: what it has used of processors so far.
        threads: how many it has now.
        answers: False if it has not answered in time: what it serves is not counted, and the numbers above are 0.
    """

    pid: int
    role: str
    memory_bytes: int
    cpu_seconds: float
    threads: int
    answers: bool = True

    @classmethod
    def of_this(cls, role: str) -> ProcessStatus:
        """That of this process."""
        return cls(os.getpid(), role, _memory(), time.process_time(), threading.active_count())


def _memory() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # better than nothing
        return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """The threads for blocking handlers and event methods.

    Attributes:
        size: how many there may be; `threads` are there now, and `busy` of them run something.
        queue: how much may wait for a thread; `waiting` is what does.
        refused: how often something found no room.
    """

    size: int
    threads: int
    busy: int
    queue: int
    waiting: int
    refused: int


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server as a whole.

    Attributes:
        started: when, in seconds since 1970 (UTC).
        uptime_seconds: how long ago that is.
        placement: where the protocol runs: "loop", "thread" or "process".
        workers: how many processes or threads serve it.
        draining: it accepts nobody any more, and ends with its last session.
        connections: how many there are now; `logged_in` of them have a user.
        sessions: how many sessions (shells, commands, subsystems) are open.
        channels: how many channels of any kind are.
        programs: how many child processes run.
        logins: connections that have logged in so far; `failed_logins` ended before.
        bytes_received: on the wire, of all connections so far; `bytes_sent` likewise.
        rekeys: key exchanges after each connection's first.
        memory_bytes: of all its processes; `cpu_seconds` and `threads` likewise.
        application: its pool of threads.
        processes: the processes.
        algorithms: how many connections use what: "kex", "host_key", "cipher", "mac", "compression" → name → count.
        counters: how often each thing has happened, by name.
    """

    started: float
    uptime_seconds: float
    placement: str
    workers: int
    draining: bool
    connections: int
    logged_in: int
    sessions: int
    channels: int
    programs: int
    logins: int
    failed_logins: int
    bytes_received: int
    bytes_sent: int
    rekeys: int
    memory_bytes: int
    cpu_seconds: float
    threads: int
    application: PoolStatus
    processes: tuple[ProcessStatus, ...]
    algorithms: Mapping[str, Mapping[str, int]]
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """A channel.

    Attributes:
        number: the channel's on its connection.
        kind: "shell", "exec", "subsystem"; "session" before one of them; or another channel's type.
        detail: the command, or the subsystem's name.
        terminal: the client's, as "xterm 80x24"; "" if it wants none.
        since: when it was opened, in seconds since 1970.
        bytes_received: data that came on it; `bytes_sent` went out.
        served_by: by what: "process PID", or the handler's name.
    """

    number: int
    kind: str
    detail: str
    terminal: str
    since: float
    bytes_received: int
    bytes_sent: int
    served_by: str


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """A connection.

    Attributes:
        id: its number, as the log shows it.
        logged_in: somebody has logged in on it.
        user: who, or the name given so far.
        peer: the client's address and port; `local` are those that it reached.
        method: the last method of the login, "" before it.
        key: the key that logged in: "ED25519 SHA256:…", or "".
        since: when it was made, in seconds since 1970.
        idle_seconds: for how long no channel's data has moved.
        client: its version line.
        kex: the method of the last key exchange; "" before the first, as all below.
        host_key: the algorithm of the host key's signature.
        cipher_to_server: what is used from the client to the server; `cipher_to_client` the other way.
        mac_to_server: "" if the cipher needs none; `mac_to_client` likewise.
        compression_to_server: "none" or how; `compression_to_client` likewise.
        bytes_received: on the wire; `bytes_sent` likewise.
        rekeys: key exchanges after the first.
        channels: what is open.
    """

    id: int
    logged_in: bool
    user: str
    peer: str
    local: str
    method: str
    key: str
    since: float
    idle_seconds: float
    client: str
    kex: str
    host_key: str
    cipher_to_server: str
    cipher_to_client: str
    mac_to_server: str
    mac_to_client: str
    compression_to_server: str
    compression_to_client: str
    bytes_received: int
    bytes_sent: int
    rekeys: int
    channels: tuple[ChannelStatus, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ConnectionStatus:
        """Make one again of what `to_json` gave."""
        return cls(**{**values, "channels": tuple(ChannelStatus(**each) for each in values["channels"])})


def to_json(value: DataclassInstance) -> dict[str, Any]:
    """Give a status as what JSON knows."""
    return asdict(value)
