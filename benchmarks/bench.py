"""One run of the benchmarks: its peers, whose turn it is, and the figures."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ssh2.exceptions import SSH2Error

from benchmarks.clients import ClientError, Identity, Login, OpenSsh, Typist
from benchmarks.peers import Peer, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Bench:
    """One run: its peers, how much work, and what came out (`samples[metric][peer]`, a figure for each round)."""

    peers: list[Peer]
    identity: Identity
    ssh: OpenSsh
    quick: bool
    rounds: int
    samples: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    skipped: list[str] = field(default_factory=list)

    def add(self, metric: str, peer: str, value: float) -> None:
        """Keep one figure."""
        self.samples[metric][peer].append(value)

    def percentiles(self, metric: str, peer: str, seconds: list[float]) -> None:
        """Keep the percentiles of waits."""
        ordered = sorted(1000 * value for value in seconds)
        for percent in (50, 99):
            self.add(f"{metric}.p{percent} ms", peer, ordered[min(len(ordered) - 1, len(ordered) * percent // 100)])

    def skip(self, what: str) -> None:
        """Say that something is not measured, once."""
        if what not in self.skipped:
            self.skipped.append(what)
            tell(f"skipped: {what}")

    @contextlib.contextmanager
    def servers(self) -> Iterator[list[Running]]:
        """Start every peer; all run side by side, and only the one in turn has work."""
        with contextlib.ExitStack() as stack:
            started = []
            for peer in self.peers:
                try:
                    server = stack.enter_context(Running(peer, self.identity))
                    self.warm_up(server)
                except (RuntimeError, OSError, ClientError, SSH2Error) as error:
                    self.skip(f"{peer.name}: {error!r}")
                else:
                    started.append(server)
            yield started

    def warm_up(self, server: Running) -> None:
        """Log in once, so that what is loaded or started on first use is there."""
        with Login(self.identity, server.port) as login:
            status = login.run("exit 7")
        if status != 7:
            raise ClientError(f"`exit 7` came back as {status}")
        server.rest()

    def take_turns(
        self, title: str, servers: list[Running], work: Callable[[Running], None], rounds: int | None = None
    ) -> None:
        """Go round, A B C A B C ...; a server that fails is out of this measurement, and the report says so."""
        able = list(servers)
        for number in range(rounds or self.rounds):
            tell(f"{title}, round {number + 1}")
            for server in list(able):
                try:
                    work(server)
                    server.settle()
                except (ClientError, SSH2Error, OSError, RuntimeError) as error:
                    self.skip(f"{server.name}, {title}: {error!r}")
                    able.remove(server)


def tell(line: str) -> None:
    """Report progress."""
    print(line, file=sys.stderr, flush=True)


def type_keys(typist: Typist, keys: int) -> list[float]:
    """Type so many keys into a terminal; gives how long each echo took, in seconds."""
    waits = []
    for number in range(keys):
        waits.append(typist.type(b"%c" % (97 + number % 26)))
        time.sleep(0.002)  # nobody types faster; a server may doze off in between
    return waits
