"""However a stream of bytes is cut into pieces, the same events come out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dunnart.crypto import kex
from dunnart.crypto.profiles import PROFILES, Algorithms
from dunnart.keys import PrivateKey
from dunnart.protocol.engine import Engine
from dunnart.protocol.events import DataReceived, LoggedIn
from dunnart.protocol.limits import Limits
from dunnart.protocol.requests import EnvironmentRequest, ExecRequest, ExitStatus
from dunnart.testing.pair import Pair, Side
from dunnart.wire.encoding import mpint

HOST_KEY = PrivateKey.load(PrivateKey.generate("ed25519").openssh())
BULK = bytes(range(256)) * 800


class FixedKex:
    """A key exchange without chance, so that one engine's bytes can be played to another."""

    name = "curve25519-sha256"
    hash_name: kex.HashName = "sha256"
    expensive = False

    def offer(self) -> tuple[object, bytes]:
        return None, b"client's share"

    def respond(self, _share: bytes) -> tuple[bytes, bytes]:
        return b"server's share", mpint(4711)

    def finish(self, _state: object, _share: bytes) -> bytes:
        return mpint(4711)


def fixed(size: int) -> bytes:
    """Give the same bytes each time."""
    return bytes(n & 0xFF for n in range(size))


@pytest.fixture(autouse=True, scope="module")
def fixed_kex() -> Iterator[None]:
    original = kex.KEX_METHODS[FixedKex.name]
    kex.KEX_METHODS[FixedKex.name] = FixedKex()
    yield
    kex.KEX_METHODS[FixedKex.name] = original


def make(cipher: str, compression: str) -> Pair:
    algorithms: Algorithms = replace(
        PROFILES["default"], kex=(FixedKex.name,), ciphers=(cipher,), compression=(compression,)
    )
    return Pair(algorithms=algorithms, host_keys=(HOST_KEY,), random=fixed, limits=Limits(rekey_bytes=0))


Step = bytes | Callable[[Engine], object]


class Transcript:
    """What each side received and was told to do, step by step.

    A flight of bytes ends where its sender waited for an answer. Nothing here rekeys by itself: when it would depends
    on when bytes come.
    """

    def __init__(self, cipher: str, compression: str) -> None:
        self.steps: dict[str, list[Step]] = {"client": [], "server": []}
        self.made = made = make(cipher, compression)
        made.tamper = self.note
        made.run()
        self.do("client", lambda engine: engine.open_channel("session"))
        self.do("client", lambda engine: engine.request(0, EnvironmentRequest("LANG", "C"), want_reply=True))
        self.do("client", lambda engine: engine.request(0, ExecRequest(b"cat"), want_reply=True))
        self.do("client", lambda engine: engine.send_data(0, BULK))
        self.do("server", lambda engine: engine.rekey())
        self.do("client", lambda engine: engine.send_eof(0))
        self.do("server", lambda engine: engine.send_data(0, b"complaint", stream=1))
        self.do("server", lambda engine: engine.send_data(0, BULK))
        self.do("client", lambda engine: engine.rekey())
        self.do("server", lambda engine: engine.request(0, ExitStatus(0)))
        self.do("server", lambda engine: engine.send_eof(0))
        self.do("server", lambda engine: engine.close_channel(0))
        self.do("client", lambda engine: engine.disconnect("done"))
        assert made.server.engine.rekeys == made.client.engine.rekeys == 2
        assert made.client.data(0) == made.server.data(0) == BULK

    def do(self, role: str, command: Callable[[Engine], object]) -> None:
        self.steps[role].append(command)
        side: Side = getattr(self.made, role)
        command(side.engine)
        self.made.run()

    def note(self, side: Side, data: bytes) -> bytes:
        self.steps["server" if side is self.made.client else "client"].append(data)
        return data


def told(side: Side) -> list[object]:
    """What came out of an engine, with what may be cut anywhere joined."""
    found: list[object] = []
    for event in side.seen:
        if isinstance(event, DataReceived):
            last = found[-1] if found else None
            key = ("data", event.channel, event.stream)
            if isinstance(last, tuple) and last[:3] == key:
                found[-1] = (*key, last[3] + event.data)
            else:
                found.append((*key, event.data))
        elif "ConnectionEnded" in type(event).__name__:
            found.append(repr(event))
        else:
            found.append(event)
    return found


TRANSCRIPTS: dict[tuple[str, str], Transcript] = {}
CIPHERS = [
    ("chacha20-poly1305@openssh.com", "none"),
    ("aes128-gcm@openssh.com", "zlib@openssh.com"),
    ("aes128-ctr", "none"),
]


def transcript(cipher: str, compression: str) -> Transcript:
    if (cipher, compression) not in TRANSCRIPTS:
        TRANSCRIPTS[cipher, compression] = Transcript(cipher, compression)
    return TRANSCRIPTS[cipher, compression]


def play(side: Side, steps: list[Step], cuts: list[int], pieces: int = 200) -> bytes:
    """Give an engine its steps, each flight cut into pieces of these sizes over and over; what it sent."""
    turn = 0
    sent = []
    for step in steps:
        if callable(step):
            step(side.engine)
        else:
            position = 0
            while position < len(step):
                size = max(cuts[turn % len(cuts)], len(step) // pieces)
                turn += 1
                side.engine.receive(step[position : position + size], 1000.0)
                side.engine._copy_views()  # they are valid until the engine receives again
                position += size
        while side.sweep():
            pass
        sent += side.engine.data_to_send()
    return b"".join(sent)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize(("cipher", "compression"), CIPHERS)
@settings(max_examples=25)
@given(cuts=st.lists(st.one_of(st.integers(1, 40), st.integers(1, 300_000)), min_size=1, max_size=12))
def test_any_chunking_gives_the_same_events(role: str, cipher: str, compression: str, cuts: list[int]) -> None:
    recorded = transcript(cipher, compression)
    cut: Side = getattr(make(cipher, compression), role)
    play(cut, recorded.steps[role], cuts)
    original: Side = getattr(recorded.made, role)
    assert told(cut) == told(original)
    assert any(isinstance(item, tuple) for item in told(cut))
    assert cut.questions == original.questions
    assert cut.payloads == original.payloads
    assert cut.engine.ended


@pytest.mark.parametrize("role", ["client", "server"])
def test_byte_by_byte_until_the_login(role: str) -> None:
    cipher, compression = CIPHERS[0]
    steps = transcript(cipher, compression).steps[role][:6]
    one: Side = getattr(make(cipher, compression), role)
    whole: Side = getattr(make(cipher, compression), role)
    assert play(one, steps, [1], 1 << 30) == play(whole, steps, [1 << 30])
    assert told(one) == told(whole)
    assert one.of(LoggedIn)
