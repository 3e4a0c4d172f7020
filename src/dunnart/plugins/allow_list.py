"""The forwarding policy that allows what its lists name."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from dunnart.server.plugins import Context, plugin

if TYPE_CHECKING:
    from dunnart.server.interfaces import Forward


@dataclass(frozen=True)
class Options:
    """What is allowed.

    Attributes:
        hosts: names and addresses as the client writes them, with * and ? as in file names.
        ports: "80", "8000-8999".
    """

    hosts: tuple[str, ...] = ("*",)
    ports: tuple[str, ...] = ("1-65535",)

    def __post_init__(self) -> None:
        for entry in self.ports:
            first, dash, last = entry.partition("-")
            if not (first.isdecimal() and (last.isdecimal() or not dash)):
                raise ValueError(f"ports holds {entry!r}, which is no port and no range of them")


@plugin(Options)
class AllowList:
    """Allows local forwarding to hosts and ports, as the client names them."""

    def __init__(self, context: Context[Options]) -> None:
        self._hosts = tuple(host.lower() for host in context.options.hosts)
        self._ports = tuple((int(first), int(last or first)) for first, _, last in (
            entry.partition("-") for entry in context.options.ports))  # fmt: skip

    async def allows(self, forward: Forward) -> bool:
        """Look it up."""
        return (
            forward.kind == "local"
            and any(fnmatchcase(forward.host.lower(), pattern) for pattern in self._hosts)
            and any(first <= forward.port <= last for first, last in self._ports)
        )
