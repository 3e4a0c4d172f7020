"""What a login may do: what an authorized_keys line, a certificate or an authenticator takes away from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Literal, Protocol, Self

from dunnart.errors import RightsConflict
from dunnart.keys.patterns import matches
from dunnart.records import dataclass

Port = int | Literal["*"]
Permits = tuple[tuple[str, Port], ...]


class Forwarding(Protocol):
    """What a client asks to have forwarded; `dunnart.server.Forward` is one."""

    @property
    def kind(self) -> str:
        """Give "connect", "listen", "connect-unix", "listen-unix", "agent" or "x11"."""

    @property
    def host(self) -> str:
        """Give the name or address as the client wrote it."""

    @property
    def port(self) -> int:
        """Give the port, 0 to let the system choose one."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a login may do beyond what the server's configuration allows. Each field can only take something away.

    Attributes:
        sessions: may have shells, commands and subsystems; without it there is nothing but forwarding.
        pty: may have terminals.
        port_forwarding: may have TCP ports and unix sockets forwarded.
        agent_forwarding: may have its agent forwarded.
        x11_forwarding: may have its display forwarded.
        user_rc: ~/.ssh/rc is run for it.
        command: runs in the place of whatever a session asks for, by the exec handler; what was asked for is in
            $SSH_ORIGINAL_COMMAND. "internal-sftp" stands for the subsystem sftp.
        environment: variables for its sessions, (name, value).
        permit_open: the hosts and ports that it may connect to, (host, port); "*" stands for any. None: no rule.
        permit_listen: the addresses and ports that it may listen on, (pattern, port). None: no rule.
        expires: in seconds since 1970; who logs in later is refused. None: never.
    """

    sessions: bool = True
    pty: bool = True
    port_forwarding: bool = True
    agent_forwarding: bool = True
    x11_forwarding: bool = True
    user_rc: bool = True
    command: bytes | None = None
    environment: tuple[tuple[str, str], ...] = ()
    permit_open: Permits | None = None
    permit_listen: Permits | None = None
    expires: float | None = None

    @classmethod
    def nothing(cls) -> Self:
        """Give the rights of a login that may do nothing at all."""
        return cls(**{each.name: False for each in fields(cls) if each.default is True})  # type: ignore[arg-type]

    @classmethod
    def all_of(cls, rights: Iterable[Rights]) -> Rights:
        """Put several together: what is allowed by each of them.

        Raises:
            RightsConflict: as `both`.
        """
        found = Rights()
        for each in rights:
            found = found.both(each)
        return found

    def both(self, other: Rights) -> Rights:
        """Put two together: what is allowed by either of them. A variable that both set has its value from the first.

        Raises:
            RightsConflict: they force different commands.
        """
        if None not in (self.command, other.command) and self.command != other.command:
            raise RightsConflict(f"two different commands are forced: {self.command!r} and {other.command!r}")
        names = {name for name, _ in self.environment}
        times = [each.expires for each in (self, other) if each.expires is not None]
        return Rights(
            sessions=self.sessions and other.sessions,
            pty=self.pty and other.pty,
            port_forwarding=self.port_forwarding and other.port_forwarding,
            agent_forwarding=self.agent_forwarding and other.agent_forwarding,
            x11_forwarding=self.x11_forwarding and other.x11_forwarding,
            user_rc=self.user_rc and other.user_rc,
            command=other.command if self.command is None else self.command,
            environment=self.environment + tuple(pair for pair in other.environment if pair[0] not in names),
            permit_open=_common(self.permit_open, other.permit_open, patterns=False),
            permit_listen=_common(self.permit_listen, other.permit_listen, patterns=True),
            expires=min(times, default=None),
        )

    async def allows(self, forward: Forwarding) -> bool:
        """Tell whether these rights allow a forwarding: they are a forwarding policy."""
        return self.permits(forward)

    def permits(self, forward: Forwarding) -> bool:
        """Tell whether these rights allow a forwarding. A rule for ports allows unix sockets only if it allows all."""
        match forward.kind:
            case "agent":
                return self.agent_forwarding
            case "x11":
                return self.x11_forwarding
            case "connect":
                rules = self.permit_open
                fits = rules is None or any(
                    host in {"*", forward.host} and port in {"*", forward.port} for host, port in rules
                )
            case "listen":
                rules = self.permit_listen
                name = forward.host.lower()
                fits = rules is None or any(
                    matches(pattern.lower(), name) and port in {"*", forward.port} for pattern, port in rules
                )
            case "connect-unix":
                fits = self.permit_open is None or ("*", "*") in self.permit_open
            case "listen-unix":
                fits = self.permit_listen is None or ("*", "*") in self.permit_listen
            case _:
                return False
        return self.port_forwarding and fits


EVERYTHING = Rights()


def _common(one: Permits | None, other: Permits | None, *, patterns: bool) -> Permits | None:
    """Give rules that allow what both allow, and of two patterns that only overlap nothing."""
    if one is None or other is None:
        return other if one is None else one
    found: dict[tuple[str, Port], None] = {}
    for host, port in one:
        for host2, port2 in other:
            narrow = _narrower(host, host2, patterns=patterns)
            if narrow is not None and (port == port2 or "*" in {port, port2}):
                found[narrow, port2 if port == "*" else port] = None
    return tuple(found)


def _narrower(one: str, other: str, *, patterns: bool) -> str | None:
    if other in {one, "*"}:
        return one
    if one == "*":
        return other
    for host, pattern in ((one, other), (other, one)):
        if patterns and "*" not in host and "?" not in host and matches(pattern.lower(), host.lower()):
            return host
    return None
