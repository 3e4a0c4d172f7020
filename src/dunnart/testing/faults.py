"""Faults that a test asks a server for: which there are, when they come about, and how often.

A fault is a rule: it holds for the connections that are open and for those to come, until it is removed or has come
about `times` times. Those on the wire wait for a stage of the connection:

    connect ──► keys ──► login ──► session
    accepted    the first    the user    the first shell, command or subsystem
                keys are     is in       is about to begin
                exchanged

and begin after the last byte with which the server tells the client of that stage, so a client whose connection drops
at "login" knows that it is logged in. A connection that is past the stage already is hit at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar, get_args
from weakref import WeakKeyDictionary, WeakSet

from dunnart.protocol.questions import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection

Stage = Literal["connect", "keys", "login", "session"]
RefusalReason = Literal["prohibited", "connect-failed", "unknown-type", "resource-shortage"]
_REASONS = {"prohibited": 1, "connect-failed": 2, "unknown-type": 3, "resource-shortage": 4}  # RFC 4254 §5.1
_T = TypeVar("_T", bound="Fault")
_W = TypeVar("_W", bound="WireFault")


class Wire(Protocol):
    """What a fault sees of a connection.

    Attributes:
        delivered: how many bytes have gone to the client.
        marks: at which of them each stage was reached.
    """

    delivered: int

    @property
    def marks(self) -> Mapping[str, int]:
        """The stages reached so far."""

    def announce(self) -> None:
        """Something has changed: look at the faults again."""


class Fault:
    """A fault that was asked for. `with` removes it at the block's end.

    Attributes:
        hits: how often it came about.
        times: how often it may; None: always.
    """

    def __init__(self, faults: Faults, times: int | None) -> None:
        if times is not None and times < 1:
            raise ValueError(f"times must be 1 or more, not {times}")
        self.hits = 0
        self.times = times
        self._faults = faults

    def remove(self) -> None:
        """Have it come about no more."""
        self._faults.remove(self)

    def hit(self) -> None:
        """It comes about."""
        self.hits += 1
        self._faults.happened()

    @property
    def spent(self) -> bool:
        """It has come about as often as it may."""
        return self.times is not None and self.hits >= self.times

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


class WireFault(Fault):
    """A fault of a connection's bytes.

    Attributes:
        stage: the stage that it waits for.
        after_bytes: how many more bytes the client gets first.
    """

    once = False
    """Whether it is over for a connection once it has come about there."""

    def __init__(self, faults: Faults, times: int | None, stage: Stage, after_bytes: int = 0) -> None:
        super().__init__(faults, times)
        if stage not in get_args(Stage):
            raise ValueError(f"{stage!r} is none of {', '.join(get_args(Stage))}")
        if after_bytes < 0:
            raise ValueError(f"after_bytes must be 0 or more, not {after_bytes}")
        self.stage = stage
        self.after_bytes = after_bytes
        self._hit_wires: WeakSet[Wire] = WeakSet()
        self._begins: WeakKeyDictionary[Wire, int] = WeakKeyDictionary({wire: wire.delivered for wire in faults.wires})

    def position(self, wire: Wire) -> int | None:
        """After which byte to the client it comes about; None: not there, or not yet."""
        mark = wire.marks.get(self.stage)
        known = wire in self._hit_wires
        if mark is None or (self.once if known else self.spent):
            return None
        return max(mark, self._begins.get(wire, 0)) + self.after_bytes

    def holds(self, wire: Wire) -> bool:
        """Whether it has come about on a connection, or does so now, and lasts."""
        position = self.position(wire)
        if position is None or position > wire.delivered:
            return False
        self.hit_wire(wire)
        return True

    def hit_wire(self, wire: Wire) -> None:
        """It comes about on a connection, if it has not done so already."""
        if wire not in self._hit_wires:
            self._hit_wires.add(wire)
            self.hit()


class Slow(WireFault):
    """Bytes take their time, both ways."""

    def __init__(
        self, faults: Faults, times: int | None, stage: Stage, delay_seconds: float, bytes_per_second: float | None
    ) -> None:
        super().__init__(faults, times, stage)
        if delay_seconds < 0:
            raise ValueError(f"delay_seconds must be 0 or more, not {delay_seconds}")
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise ValueError(f"bytes_per_second must be more than 0, not {bytes_per_second}")
        self.delay_seconds = delay_seconds
        self.bytes_per_second = bytes_per_second


class Drop(WireFault):
    """The connection ends."""

    def __init__(self, faults: Faults, times: int | None, stage: Stage, after_bytes: int, *, reset: bool) -> None:
        super().__init__(faults, times, stage, after_bytes)
        self.reset = reset


class Hang(WireFault):
    """The connection stays, and nothing moves on it any more."""


class BadMac(WireFault):
    """A packet to the client arrives with a flipped bit."""

    once = True


class RefusedChannel(Fault):
    """A channel is refused."""

    def __init__(self, faults: Faults, times: int | None, channel_type: str | None, refusal: Refusal) -> None:
        super().__init__(faults, times)
        self.channel_type = channel_type
        self.refusal = refusal


class RefusedLogin(Fault):
    """A login is refused, whatever proves it."""

    def __init__(self, faults: Faults, times: int | None, users: Collection[str] | None) -> None:
        super().__init__(faults, times)
        if isinstance(users, str):
            raise TypeError(f"users must be several names, as in [{users!r}]")
        self.users = users


class Faults:
    """A server's faults. The methods that make them may be called from any thread, at any time.

    Args:
        on_loop: calls a function on the event loop that serves the connections, and waits for it.
        happened: called when a fault came about.
    """

    def __init__(self, on_loop: Callable[[Callable[[], None]], None], happened: Callable[[], None]) -> None:
        self._on_loop = on_loop
        self._faults: list[Fault] = []
        self.happened = happened
        self.wires: set[Wire] = set()

    def __iter__(self) -> Iterator[Fault]:
        return iter(tuple(self._faults))

    def slow(
        self, *, delay_seconds: float = 0.0, bytes_per_second: float | None = None, stage: Stage = "connect",
        times: int | None = None,
    ) -> Fault:  # fmt: skip
        """Let connections be slow, both ways.

        Args:
            delay_seconds: how long each byte is under way.
            bytes_per_second: how many of them pass, each way; None: as many as come.
            stage: from when on.
            times: for how many connections.
        """
        return self._add(lambda: Slow(self, times, stage, delay_seconds, bytes_per_second))

    def drop(
        self, stage: Stage = "connect", *, after_bytes: int = 0, reset: bool = False, times: int | None = None
    ) -> Fault:
        """Let connections end without a word of SSH.

        Args:
            stage: when.
            after_bytes: how many bytes more the client gets first.
            reset: by a TCP reset, and not in order.
            times: how many connections.
        """
        return self._add(lambda: Drop(self, times, stage, after_bytes, reset=reset))

    def hang(self, stage: Stage = "connect", *, after_bytes: int = 0, times: int | None = None) -> Fault:
        """Let connections stay open, and answer nothing more.

        Args:
            stage: from when on.
            after_bytes: how many bytes more the client gets first.
            times: how many connections.
        """
        return self._add(lambda: Hang(self, times, stage, after_bytes))

    def bad_mac(self, stage: Stage = "login", *, after_bytes: int = 0, times: int | None = None) -> Fault:
        """Flip a bit in the MAC of one packet to the client, on each connection.

        Args:
            stage: when; not "connect", when there is no MAC yet.
            after_bytes: how many bytes more the client gets first. The packet is the last of those that the server
                then sends at once: mostly the next one, in a transfer one of the next few.
            times: how many connections.
        """
        if stage == "connect":
            raise ValueError('packets have no MAC before the stage "keys"')
        return self._add(lambda: BadMac(self, times, stage, after_bytes))

    def refuse_channel(
        self, reason: RefusalReason | int = "prohibited", text: str = "refused by the test", *,
        channel_type: str | None = None, times: int | None = None,
    ) -> Fault:  # fmt: skip
        """Refuse to open channels.

        Args:
            reason: the client is told a reason code of RFC 4254 §5.1, by name or number.
            text: the client is told this.
            channel_type: of which type, as "session" or "direct-tcpip"; None: of all.
            times: how many channels.
        """
        if isinstance(reason, str) and reason not in _REASONS:
            raise ValueError(f"{reason!r} is none of {', '.join(_REASONS)}, and no number")
        code = _REASONS[reason] if isinstance(reason, str) else reason
        return self._add(lambda: RefusedChannel(self, times, channel_type, Refusal(code, text)))

    def refuse_login(self, users: Collection[str] | None = None, *, times: int | None = None) -> Fault:
        """Refuse to let users in, as if password and key were wrong.

        Args:
            users: their names; None: everybody.
            times: how many attempts: each key and each password of a client is one.
        """
        return self._add(lambda: RefusedLogin(self, times, users))

    def clear(self) -> None:
        """Remove all of them."""
        self._on_loop(lambda: self._changed(self._faults.clear))

    def remove(self, fault: Fault) -> None:
        """Remove one of them; once more does nothing."""
        if fault in self._faults:
            self._on_loop(lambda: self._changed(lambda: self._faults.remove(fault)))

    def _add(self, make: Callable[[], Fault]) -> Fault:
        made: list[Fault] = []

        def add() -> None:
            made.append(make())  # there, because it looks at what has gone to the clients
            self._changed(lambda: self._faults.append(made[0]))

        self._on_loop(add)
        return made[0]

    def _changed(self, change: Callable[[], None]) -> None:
        change()
        for wire in self.wires:
            wire.announce()

    # For those who bring them about, on the event loop.

    def of(self, kind: type[_T]) -> Iterator[_T]:
        """Those of one kind."""
        return (fault for fault in self if isinstance(fault, kind))

    def held(self, kind: type[_W], wire: Wire) -> list[_W]:
        """Those of one kind that hold for a connection now."""
        return [fault for fault in self.of(kind) if fault.holds(wire)]

    def refusal(self, channel_type: str) -> Refusal | None:
        """Why a channel is refused, if it is."""
        for fault in self.of(RefusedChannel):
            if fault.channel_type in {None, channel_type} and not fault.spent:
                fault.hit()
                return fault.refusal
        return None

    def refuses(self, user: str) -> bool:
        """Whether an attempt to log in is refused."""
        for fault in self.of(RefusedLogin):
            if (fault.users is None or user in fault.users) and not fault.spent:
                fault.hit()
                return True
        return False
