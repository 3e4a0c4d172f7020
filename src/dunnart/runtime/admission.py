"""Who may connect: bounds on connections that have not logged in yet, and penalties for sources that misbehave.

Three checks, in this order (THREATS R18; the first and last two are sshd's PerSourcePenalties, MaxStartups and
PerSourceMaxStartups):

1. A source under an active penalty is refused.
2. Random early drop: from `begin` connections on some are refused, from `full` on all.
3. A source may have so many connections waiting for a login, and no more.

A source is a network: one IPv4 address and an IPv6 /64 by default. A peer on a unix socket has no source, so only the
second check knows it. Every admitted connection must be given back exactly once, with `finished_login` if its user got
in and with `closed` if it ended before. The module reads no clock and makes no random numbers: both are handed in.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from dunnart.records import dataclass

_MAPPED = bytes(10) + b"\xff\xff"  # an IPv4 address seen through an IPv6 socket (RFC 4291 §2.5.5.2)


@dataclass(frozen=True, slots=True)
class StartupLimit:
    """Connections without a login: up to `begin` all are let in, at `full` none, between them `rate` % or more drop.

    Raises:
        ValueError: a number is out of its range.
    """

    begin: int = 100
    rate: int = 30
    full: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.begin <= self.full:
            raise ValueError("begin must be 1 to full")
        if not 1 <= self.rate <= 100:
            raise ValueError("rate must be 1 to 100 percent")

    def __str__(self) -> str:
        return f"{self.begin}:{self.rate}:{self.full}"


@dataclass(frozen=True, slots=True)
class SourceBits:
    """How many bits of an address make a source; the rest does not tell sources apart.

    Raises:
        ValueError: a number is out of its range.
    """

    ipv4: int = 32
    ipv6: int = 64

    def __post_init__(self) -> None:
        if not (0 <= self.ipv4 <= 32 and 0 <= self.ipv6 <= 128):
            raise ValueError("at most 32 bits of an IPv4 and 128 of an IPv6 address")

    def __str__(self) -> str:
        return f"{self.ipv4}:{self.ipv6}"


@dataclass(frozen=True, slots=True)
class Penalties:
    """For how long a source is refused after what its connections did; the defaults are sshd's.

    Raises:
        ValueError: a value is out of its range; the message names the field.
    """

    enabled: bool = True
    """Whether there are penalties at all."""
    auth_failure_seconds: float = 5.0
    """For a connection that failed to authenticate and went away."""
    invalid_user_seconds: float = 5.0
    """For a connection that tried a user who does not exist."""
    no_auth_seconds: float = 1.0
    """For a connection that went away without trying to authenticate."""
    grace_exceeded_seconds: float = 10.0
    """For a connection that did not log in in time."""
    crash_seconds: float = 90.0
    """For a connection whose input made the server fail."""
    min_seconds: float = 15.0
    """Penalties of a source add up; it is refused once they are more than this."""
    max_seconds: float = 600.0
    """They add up to no more than this."""
    sources: int = 65_536
    """Sources remembered at once; the one penalised longest ago makes room."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.sources < 1:
            raise ValueError("sources must be at least 1")


class Outcome(Enum):
    """How a connection ended that nobody logged in on."""

    BLAMELESS = "blameless"
    """By our own doing, or the network's: no penalty."""
    NO_AUTH = "no_auth"
    AUTH_FAILURE = "auth_failure"
    INVALID_USER = "invalid_user"
    GRACE_EXCEEDED = "grace_exceeded"
    CRASH = "crash"


class Refusal(NamedTuple):
    """Why a connection is not let in."""

    counter: str
    """The key in `Admission.counters` that has counted it."""
    reason: str
    """For the log."""


_REASONS = {
    Outcome.NO_AUTH: "connections without attempting authentication",
    Outcome.AUTH_FAILURE: "failed authentication",
    Outcome.INVALID_USER: "attempted authentication by invalid user",
    Outcome.GRACE_EXCEEDED: "exceeded the time for a login",
    Outcome.CRASH: "caused a failure of the server",
}


def packed_address(address: str) -> bytes | None:
    """Give an address as 4 or 16 bytes, one that is IPv4 inside IPv6 as 4; None if it is no IP address."""
    address = address.partition("%")[0]  # the zone of a link-local address
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):
        return None
    return packed.removeprefix(_MAPPED) if len(packed) == 16 else packed


def _masked(packed: bytes, bits: int) -> bytes:
    shift = max(8 * len(packed) - bits, 0)
    return (int.from_bytes(packed, "big") >> shift << shift).to_bytes(len(packed), "big")


class Network:
    """An IP network, "192.0.2.0/24" or "2001:db8::/32"; without a slash one address.

    Raises:
        ValueError: the text is no network, or bits beyond the prefix are set.
    """

    __slots__ = ("_bits", "_packed", "_text")

    def __init__(self, text: str) -> None:
        address, slash, prefix = text.partition("/")
        packed = packed_address(address)
        if packed is None:
            raise ValueError(f"{text!r} is no network such as 192.0.2.0/24")
        bits = 8 * len(packed)
        if slash:
            if not (prefix.isascii() and prefix.isdecimal() and int(prefix) <= bits):
                raise ValueError(f"{text!r} has no prefix length of 0 to {bits} bits")
            bits = int(prefix)
        if _masked(packed, bits) != packed:
            raise ValueError(f"{text!r} has bits set beyond its prefix")
        self._text = text
        self._packed = packed
        self._bits = bits

    def __contains__(self, packed: bytes) -> bool:
        return len(packed) == len(self._packed) and _masked(packed, self._bits) == self._packed

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Network):
            return NotImplemented
        return (self._packed, self._bits) == (other._packed, other._bits)

    def __hash__(self) -> int:
        return hash((self._packed, self._bits))

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Network({self._text!r})"


class _Penalty:
    __slots__ = ("active", "expires", "reason")

    def __init__(self, now: float) -> None:
        self.active = False
        self.expires = now
        self.reason = ""


class Admission:
    """Decides which new connections are let in.

    Args:
        startups: the bounds on connections without a login.
        per_source: how many of them one source may have; 0: no bound.
        source_bits: how many bits of an address make a source.
        penalties: for how long sources are refused.
        exempt: networks that get no penalties; the other bounds hold for them too.
        random: gives a number from 0 up to but not 1.

    Attributes:
        counters: how often each thing has happened, by name; the set of names never changes.
    """

    __slots__ = (
        "_exempt", "_penalised", "_penalties", "_per_source", "_random", "_source_bits", "_startups", "_waiting",
        "_waiting_by_source", "counters",
    )  # fmt: skip

    def __init__(
        self,
        *,
        startups: StartupLimit,
        per_source: int,
        random: Callable[[], float],
        source_bits: SourceBits = SourceBits(),  # noqa: B008 - nobody can change it
        penalties: Penalties = Penalties(),  # noqa: B008
        exempt: Sequence[Network] = (),
    ) -> None:
        self._startups = startups
        self._per_source = per_source
        self._random = random
        self._source_bits = source_bits
        self._penalties = penalties
        self._exempt = tuple(exempt)
        self._waiting = 0
        self._waiting_by_source: dict[bytes, int] = {}  # no zeros: at most as long as `_waiting`
        self._penalised: dict[bytes, _Penalty] = {}  # in the order of the last penalty
        names = ("admitted", "logged_in", "refused_penalty", "refused_startups", "refused_source")
        self.counters = dict.fromkeys((*names, *(f"penalty_{each.value}" for each in _REASONS)), 0)

    @property
    def bounds(self) -> dict[str, str | float]:
        """What it was made with, by names as in the configuration."""
        penalties = {f"penalty_{name}": getattr(self._penalties, name) for name in self._penalties.__slots__}
        return {
            "max_startups": str(self._startups),
            "max_startups_per_source": self._per_source,
            "source_bits": str(self._source_bits),
            **penalties,
            "penalty_exempt": ", ".join(map(str, self._exempt)),
        }

    @property
    def waiting(self) -> int:
        """How many connections have not logged in yet."""
        return self._waiting

    @property
    def penalised(self) -> int:
        """How many sources are remembered for a penalty."""
        return len(self._penalised)

    def remembers(self, now: float) -> bool:
        """Tell whether anything that has been still has a consequence."""
        return self._waiting > 0 or any(each.expires >= now for each in self._penalised.values())

    def admit(self, address: str, now: float) -> Refusal | None:
        """Let a new connection in, which counts it, or say why not.

        Args:
            address: the peer's IP address; "" for a unix socket.
            now: monotonic seconds.
        """
        source = self._source(address)
        reason = None if source is None else self._penalty(source, now)
        if reason is not None:
            return self._refuse("refused_penalty", f"penalty: {reason}")
        if self._drops():
            return self._refuse("refused_startups", f"{self._waiting} connections wait for a login")
        if source is not None:
            count = self._waiting_by_source.get(source, 0)
            if 0 < self._per_source <= count:
                return self._refuse("refused_source", f"{count} connections of this source wait for a login")
            self._waiting_by_source[source] = count + 1
        self._waiting += 1
        self.counters["admitted"] += 1
        return None

    def finished_login(self, address: str) -> None:
        """The user of an admitted connection has logged in: it counts no more."""
        self._release(self._source(address))
        self.counters["logged_in"] += 1

    def closed(self, address: str, outcome: Outcome, now: float) -> float:
        """An admitted connection has ended before a login: it counts no more, and its source may get a penalty.

        Returns:
            For how many seconds from now its source is refused, 0 if it is not.
        """
        source = self._source(address)
        self._release(source)
        reason = _REASONS.get(outcome)
        if reason is None or source is None or not self._penalties.enabled:
            return 0.0
        seconds: float = getattr(self._penalties, f"{outcome.value}_seconds")
        packed = packed_address(address)
        if seconds == 0 or any(packed in network for network in self._exempt if packed is not None):
            return 0.0
        self.counters[f"penalty_{outcome.value}"] += 1
        penalty = self._penalised.pop(source, None)
        if penalty is None or penalty.expires < now:
            penalty = _Penalty(now)
            self._make_room(now)
        penalty.expires = min(penalty.expires + seconds, now + self._penalties.max_seconds)
        penalty.active = penalty.active or penalty.expires - now > self._penalties.min_seconds
        penalty.reason = reason
        self._penalised[source] = penalty
        return penalty.expires - now if penalty.active else 0.0

    def _source(self, address: str) -> bytes | None:
        packed = packed_address(address)
        if packed is None:
            return None
        return _masked(packed, self._source_bits.ipv4 if len(packed) == 4 else self._source_bits.ipv6)

    def _penalty(self, source: bytes, now: float) -> str | None:
        penalty = self._penalised.get(source)
        if penalty is None:
            return None
        if penalty.expires < now:
            del self._penalised[source]
            return None
        return penalty.reason if penalty.active else None

    def _make_room(self, now: float) -> None:
        """Drop what has expired at the old end, two for each that comes, and the oldest if the table is full."""
        for _ in range(2):
            oldest = next(iter(self._penalised), None)
            if oldest is None:
                return
            if self._penalised[oldest].expires >= now and len(self._penalised) < self._penalties.sources:
                return
            del self._penalised[oldest]

    def _drops(self) -> bool:
        """Decide by chance, rising from `rate` % at `begin` connections to 100 % at `full`."""
        begin, full = self._startups.begin, self._startups.full
        if self._waiting < begin:
            return False
        if self._waiting >= full:
            return True
        rate = self._startups.rate / 100
        return self._random() < rate + (1 - rate) * (self._waiting - begin) / (full - begin)

    def _refuse(self, counter: str, reason: str) -> Refusal:
        self.counters[counter] += 1
        return Refusal(counter, reason)

    def _release(self, source: bytes | None) -> None:
        assert self._waiting > 0, "a connection was given back twice"
        self._waiting -= 1
        if source is not None:
            left = self._waiting_by_source[source] - 1
            if left:
                self._waiting_by_source[source] = left
            else:
                del self._waiting_by_source[source]
