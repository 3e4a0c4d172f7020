"""What `Server` tells of itself, put together from its parts, which may be in several processes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeGuard

from dunnart.errors import ConfigError
from dunnart.runtime.logs import LEVELS, PARTS
from dunnart.server.status import LASTING, ConnectionStatus, PoolStatus, ProcessStatus, ServerStatus

if TYPE_CHECKING:
    from dunnart.server.config import ServerConfig
    from dunnart.server.placement import Placement

_PLUGIN = "plugin."
_LARGEST_COUNT = 1 << 63


async def server_status(
    placements: Sequence[Placement], config: ServerConfig, started: float, uptime_seconds: float, *,
    past: Mapping[str, int], draining: bool,
) -> ServerStatus:  # fmt: skip
    """Sum up a server; `past` is what those parts have counted that have ended."""
    sums: Counter[str] = Counter({name: past.get(name, 0) for name in LASTING})
    counters = Counter({name: count for name, count in past.items() if name not in LASTING})
    algorithms: dict[str, Counter[str]] = {}
    processes = [ProcessStatus.of_this("server")]
    for placement in placements:
        counters.update(placement.counters)
        for part in await placement.each("status"):
            sums.update(part["sums"])
            counters.update(part.get("counters", {}))
            for kind, counts in part["algorithms"].items():
                algorithms.setdefault(kind, Counter()).update(counts)
            if "process" in part:
                processes.append(ProcessStatus(**part["process"]))
    answered = {each.pid for each in processes}
    silent = {pid: role for each in placements for pid, role in each.processes.items() if pid not in answered}
    processes += [ProcessStatus(pid, role, 0, 0.0, 0, answers=False) for pid, role in silent.items()]
    pools = [placement.host.handlers for placement in placements]
    pool = pools[0]
    return ServerStatus(
        started=started,
        uptime_seconds=uptime_seconds,
        placement=config.placement,
        workers=config.workers,
        draining=draining,
        connections=sums["connections"],
        logged_in=sums["logged_in"],
        sessions=sums["sessions"],
        channels=sums["channels"],
        programs=sum(placement.host.programs for placement in placements),
        logins=counters["logins"],
        failed_logins=counters["failed_logins"],
        bytes_received=sums["bytes_received"],
        bytes_sent=sums["bytes_sent"],
        rekeys=counters["rekeys"],
        memory_bytes=sum(each.memory_bytes for each in processes),
        cpu_seconds=sum(each.cpu_seconds for each in processes),
        threads=sum(each.threads for each in processes),
        application=PoolStatus(
            pool.size,
            sum(each.threads for each in pools),
            sum(each.busy for each in pools),
            pool.queue,
            sum(each.waiting for each in pools),
            sum(each.refused for each in pools),
        ),
        processes=tuple(processes),
        algorithms={kind: dict(counts.most_common()) for kind, counts in algorithms.items()},
        counters=dict(sorted(counters.items())),
    )


def fits(part: object) -> TypeGuard[dict[str, Any]]:
    """Tell whether this is what "status" gives; a process that was taken over may give anything."""
    if not isinstance(part, dict):
        return False
    try:
        process = ProcessStatus(**part["process"])
        tables = [part["sums"], part["counters"], *part["algorithms"].values()]
        counts = [process.pid, process.memory_bytes, process.threads, *(part["sums"][name] for name in LASTING)]
        counts += [count for table in tables for count in table.values()]
    except (KeyError, TypeError, AttributeError):
        return False
    role: object = process.role
    seconds: object = process.cpu_seconds
    if not isinstance(role, str) or not isinstance(seconds, float):
        return False
    return all(type(count) is int and 0 <= count < _LARGEST_COUNT for count in counts)


async def connections(placements: Sequence[Placement], number: int | None) -> tuple[ConnectionStatus, ...]:
    """Describe the connections, or one of them, in the order of their numbers."""
    found: list[ConnectionStatus] = []
    for placement in placements:
        host = placement.host
        for part in await placement.each("sessions", number):
            for each in map(ConnectionStatus.from_json, part):
                channels = (replace(one, served_by=host.served_by(each.id, one.number)) for one in each.channels)
                found.append(replace(each, channels=tuple(channels)))
    return tuple(sorted(found, key=lambda each: each.id))


def set_log_level(level: str, part: str | None) -> dict[str, int]:
    """Set it in this process; gives the levels of all parts, for others.

    Raises:
        ConfigError: there is no such level or part.
    """
    if level not in LEVELS:
        raise ConfigError(f"{level!r} is none of {', '.join(LEVELS)}", key="level")
    if part is not None and part not in PARTS and not _is_plugin(part):
        raise ConfigError(f"{part!r} is none of {', '.join(PARTS)}, plugin.NAME", key="part")
    logging.getLogger("dunnart" if part is None else f"dunnart.{part}").setLevel(LEVELS[level])
    return {f"dunnart.{each}": logging.getLogger(f"dunnart.{each}").getEffectiveLevel() for each in PARTS}


def log_levels() -> dict[str, str]:
    """Give the level of each part."""
    names = {number: name for name, number in LEVELS.items()}
    found = {each: logging.getLogger(f"dunnart.{each}").getEffectiveLevel() for each in PARTS}
    return {each: names.get(level, str(level)) for each, level in found.items()}


def _is_plugin(part: str) -> bool:
    return part.startswith(_PLUGIN) and f"dunnart.{part}" in logging.root.manager.loggerDict
