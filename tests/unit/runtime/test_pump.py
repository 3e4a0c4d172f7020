"""One connection's bytes: `Pump`."""

from __future__ import annotations

import asyncio
import socket

from dunnart.protocol.core import EngineConfig
from dunnart.protocol.events import ConnectionEnded, Event
from dunnart.protocol.phases import Role
from dunnart.protocol.questions import Question
from dunnart.runtime.pump import ProtocolLoop, Pump
from dunnart.wire.messages import Disconnect

SECONDS = 45.0


class Keeper:
    """An owner that keeps the events until the socket is closed."""

    def __init__(self) -> None:
        self.seen: list[Event | Question] = []
        self.gone = asyncio.Event()

    def handle(self, item: Event | Question) -> None:
        """Something came."""
        self.seen.append(item)

    def uncongested(self) -> None:
        """There is nothing to send."""

    def failed(self, error: Exception) -> None:
        """The pump does not raise."""
        raise AssertionError from error

    def lost(self) -> None:
        """It is over."""
        self.gone.set()


def test_the_last_words_of_a_peer_that_is_gone_are_read() -> None:
    """It has said why, and closed; our first line is what finds out that nobody reads any more."""
    payload = Disconnect(12, b"too many connections").encode()
    padding = bytes(16 - (5 + len(payload)) % 8)
    packet = (1 + len(payload) + len(padding)).to_bytes(4, "big") + bytes([len(padding)]) + payload + padding

    async def work() -> Keeper:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.sendall(b"SSH-2.0-other\r\n" + packet)
        theirs.close()
        keeper = Keeper()
        pump = Pump(ProtocolLoop(asyncio.get_running_loop()), ours, EngineConfig(Role.CLIENT), keeper)
        pump.start()
        await keeper.gone.wait()
        assert pump.closed
        return keeper

    keeper = asyncio.run(asyncio.wait_for(work(), SECONDS))
    assert keeper.seen[-1] == ConnectionEnded(None, True, 12, "too many connections", "FIRST_KEX")


def test_a_peer_that_reads_no_more_and_speaks_on_is_given_up() -> None:
    async def work() -> Keeper:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.shutdown(socket.SHUT_RD)
        theirs.sendall(b"SSH-2.0-other\r\n")
        keeper = Keeper()
        Pump(ProtocolLoop(asyncio.get_running_loop()), ours, EngineConfig(Role.CLIENT), keeper).start()
        await keeper.gone.wait()
        theirs.close()
        return keeper

    keeper = asyncio.run(asyncio.wait_for(work(), SECONDS))
    assert isinstance(keeper.seen[-1], ConnectionEnded)
    assert keeper.seen[-1].text == "connection closed by the peer"
