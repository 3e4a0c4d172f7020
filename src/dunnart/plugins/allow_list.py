"""The forwarding policy that allows what its rules name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple

from dunnart.keys.patterns import matches
from dunnart.records import dataclass
from dunnart.server import Network
from dunnart.server.plugins import Context, plugin

if TYPE_CHECKING:
    from dunnart.server.interfaces import Forward

_TCP = ("connect", "listen")
_UNIX = ("connect-unix", "listen-unix")
_PROGRAMS = ("agent", "x11")
_LARGEST_PORT = 65535
_ADDRESS_CHARACTERS = frozenset("0123456789.:")
_MAPPED = bytes(10) + b"\xff\xff"
_HERE = {4: b"\x7f\0\0\1", 16: bytes(15) + b"\1"}  # where a connection to no address, 0.0.0.0 or ::, leads


@dataclass(frozen=True)
class Options:
    """What is allowed.

    A rule is "connect HOST:PORTS" (`ssh -L`), "listen ADDRESS:PORTS" (`ssh -R`), "connect-unix PATH", "listen-unix
    PATH", "agent" or "x11". HOST and ADDRESS are as the client writes them, PATH is a file's name; * and ? may stand in
    them. HOST may be a network, 192.0.2.0/24. PORTS is 80, 8000-8999 or *. With a ! before it a rule forbids what it
    names, whatever the others allow.

    Attributes:
        rules: for everybody whom `users` does not name.
        users: rules of single users by name, in which * and ? may stand; several are separated by semicolons. The first
            name that fits counts.
    """

    rules: tuple[str, ...] = (
        "connect *:*", "listen *:*", "connect-unix *", "listen-unix *", "agent", "x11",
    )  # fmt: skip
    users: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rule in self.rules:
            _read("rules", rule)
        for name, rules in self.users.items():
            if "," in name or len(name.split()) != 1 or name.strip() != name:
                raise ValueError(f"users holds {name!r}, which is not one user; each has an entry of its own")
            _several(rules)


class _Rule(NamedTuple):
    kind: str
    fits: Callable[[Forward], bool]
    forbids: bool
    everything: bool


@plugin(Options)
class AllowList:
    """Allows what its rules name, for all users or for each: hosts, networks, ports, unix sockets, agent, display."""

    def __init__(self, context: Context[Options]) -> None:
        self._rules = tuple(_read("rules", rule) for rule in context.options.rules)
        self._users = {name: _several(rules) for name, rules in context.options.users.items()}

    async def allows(self, forward: Forward) -> bool:
        """Look it up."""
        own = (rules for name, rules in self._users.items() if matches(name, forward.user))
        fitting = [rule for rule in next(own, self._rules) if rule.kind == forward.kind and rule.fits(forward)]
        return bool(fitting) and not any(rule.forbids for rule in fitting)


def allowed(options: Options) -> frozenset[str]:
    """Give the kinds of forwards of which somebody may have some."""
    lists = [[_read("rules", rule) for rule in options.rules], *map(_several, options.users.values())]
    return frozenset(
        each.kind for rules in lists for each in rules
        if not each.forbids and not any(rule.forbids and rule.everything and rule.kind == each.kind for rule in rules)
    )  # fmt: skip


def _several(rules: str) -> tuple[_Rule, ...]:
    return tuple(_read("users", rule) for rule in rules.split(";") if rule.strip())


def _read(option: str, rule: str) -> _Rule:
    """Make a rule of its text, or raise ValueError."""
    kind, _, where = rule.strip().removeprefix("!").strip().partition(" ")
    where = where.strip()
    forbids = rule.strip().startswith("!")
    if kind in _PROGRAMS and not where:
        return _Rule(kind, lambda _: True, forbids, everything=True)
    if kind in _UNIX and where:
        if not where.startswith(("/", "*", "?")):
            raise ValueError(f"{option} holds {rule!r}, whose path is not absolute")
        return _Rule(kind, lambda forward: matches(where, forward.path), forbids, where == "*")
    host, colon, ports = where.rpartition(":")
    if kind not in _TCP or not colon or not host:
        raise ValueError(
            f"{option} holds {rule!r}, which is none of connect HOST:PORTS, listen ADDRESS:PORTS, connect-unix PATH, "
            f"listen-unix PATH, agent, x11"
        )
    first, last = _ports(option, ports)
    try:
        is_there = _host(host.removeprefix("[").removesuffix("]").lower())
    except ValueError as error:
        raise ValueError(f"{option} holds {rule!r}: {error}") from None
    return _Rule(kind, lambda forward: first <= forward.port <= last and is_there(forward), forbids, where == "*:*")


def _ports(option: str, ports: str) -> tuple[int, int]:
    if ports == "*":
        return 0, _LARGEST_PORT
    first, dash, last = ports.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or not dash)):
        raise ValueError(f"{option} holds {ports!r}, which is no port and no range of them")
    found = int(first), int(last or first)
    if not 0 <= found[0] <= found[1] <= _LARGEST_PORT:
        raise ValueError(f"{option} holds {ports!r}, which is no range of ports from 0 to {_LARGEST_PORT}")
    return found


def _host(pattern: str) -> Callable[[Forward], bool]:
    """Compare with the name that the client wrote, and with the address that it stands for.

    Raises:
        ValueError: it is nearly a network, and would fit nothing.
    """
    try:
        network = Network(pattern)
    except ValueError:
        if "/" in pattern or _ADDRESS_CHARACTERS.issuperset(pattern):
            raise
        return lambda forward: any(matches(pattern, each) for each in _spelled(forward))
    return lambda forward: _packed(forward) in network


def _spelled(forward: Forward) -> set[str]:
    """Give every text that a pattern may fit: what the client wrote, the address, and its usual spelling."""
    packed = _packed(forward)
    plain = socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed) if packed else ""
    return {forward.host.lower(), forward.address, plain} - {""} or {""}


def _packed(forward: Forward) -> bytes:
    """Give the bytes of an IP address, of an IPv4 one in IPv6's notation those of the IPv4 one; none of a name."""
    address = (forward.address or forward.host).partition("%")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, address).removeprefix(_MAPPED)
        except (OSError, ValueError):
            continue
        return packed if any(packed) or forward.kind != "connect" else _HERE[len(packed)]
    return b""
