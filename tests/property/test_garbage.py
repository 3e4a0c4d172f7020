"""Whatever a peer sends, the engine raises nothing: it goes on, or says ConnectionEnded once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import RemoteProtocolError
from dunnart.keys import PrivateKey
from dunnart.protocol.events import ConnectionEnded, LoggedIn
from dunnart.protocol.questions import AuthQuestion, CredentialQuestion, Prompt
from dunnart.testing.authenticator import Authenticator
from dunnart.testing.pair import Pair, Side, kexinit, plain_packet
from dunnart.wire.encoding import string, text, uint32
from dunnart.wire.messages import (
    ChannelData,
    ChannelOpen,
    ChannelRequest,
    GlobalRequest,
    InteractiveData,
    KexExchangeInit,
    PasswordData,
    PublicKeySigned,
    UserauthInfoResponse,
    UserauthRequest,
)

FAST = replace(PROFILES["default"], kex=("curve25519-sha256",))
ZLIB = replace(FAST, compression=("zlib@openssh.com",))
KEYS = (PrivateKey.generate("ed25519"),)
TOKEN = Authenticator("ecdsa")


def check(side: Side) -> None:
    """At most one end, of the peer's making, and nothing after it."""
    ends: list[ConnectionEnded] = side.of(ConnectionEnded)
    assert len(ends) <= 1
    assert bool(ends) is side.engine.ended
    if ends:
        assert side.seen.index(ends[0]) == len(side.seen) - 1
        assert isinstance(ends[0].error, RemoteProtocolError | None)


def side_of(role: str, made: Pair) -> tuple[Side, Side]:
    return (made.server, made.client) if role == "server" else (made.client, made.server)


@pytest.mark.parametrize("role", ["client", "server"])
@given(data=st.binary(max_size=600), line=st.booleans())
def test_random_bytes_before_keys(role: str, data: bytes, line: bool) -> None:
    target, _ = side_of(role, Pair(algorithms=FAST, host_keys=KEYS))
    target.engine.receive((b"SSH-2.0-x\r\n" if line else b"") + data, 1000.0)
    target.sweep()
    check(target)
    assert not target.of(LoggedIn)


@pytest.mark.parametrize("role", ["client", "server"])
@given(payloads=st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5))
def test_random_payloads_before_keys(role: str, payloads: list[bytes]) -> None:
    target, _ = side_of(role, Pair(algorithms=FAST, host_keys=KEYS))
    target.engine.receive(b"SSH-2.0-x\r\n" + b"".join(map(plain_packet, payloads)), 1000.0)
    target.sweep()
    check(target)


@st.composite
def mutated(draw: st.DrawFn, *originals: bytes) -> bytes:
    """Something valid, with a few bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 3))
        if kind == 0 and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == 1:
            del data[place : place + draw(st.integers(0, 8))]
        elif kind == 2:
            data[place:place] = draw(st.binary(max_size=8))
        elif place + 4 <= len(data):
            data[place : place + 4] = uint32(draw(st.sampled_from((0, 1, 2**31 - 1, 2**31, 2**32 - 1))))
    return bytes(data) or b"\0"


OFFER = kexinit(replace(FAST, ciphers=("aes128-ctr",), compression=("none",)), host_key=("ssh-ed25519",)).encode()


@pytest.mark.parametrize("role", ["client", "server"])
@given(first=mutated(OFFER), second=mutated(KexExchangeInit(b"\x09" * 32).encode()), raw=st.booleans())
def test_mutated_packets_before_keys(role: str, first: bytes, second: bytes, raw: bool) -> None:
    target, _ = side_of(role, Pair(algorithms=FAST, host_keys=KEYS))
    stream = plain_packet(OFFER if raw else first) + plain_packet(second)
    target.engine.receive(b"SSH-2.0-x\r\n" + stream, 1000.0)
    target.sweep()
    check(target)


@given(data=st.data())
def test_mutated_stream_before_keys(data: st.DataObject) -> None:
    stream = b"SSH-2.0-x\r\n" + plain_packet(OFFER) + plain_packet(KexExchangeInit(b"\x09" * 32))
    target, _ = side_of("server", Pair(algorithms=FAST, host_keys=KEYS))
    target.engine.receive(data.draw(mutated(stream)), 1000.0)
    target.sweep()
    check(target)


def request(method: str, body: bytes) -> bytes:
    return UserauthRequest("alice", "ssh-connection", method, body).encode()


HOSTBOUND = "publickey-hostbound-v00@openssh.com"
SIGNATURE = text("ssh-ed25519") + string(bytes(64))
TOKEN_SIGNATURE = TOKEN.sign(TOKEN.public.key_type, b"")
AUTH_MESSAGES = (
    request("none", b""),
    request("password", PasswordData(False, "x").encode()),
    request("publickey", PublicKeySigned(True, "ssh-ed25519", KEYS[0].public.blob, SIGNATURE).encode()),
    request("publickey", PublicKeySigned(True, TOKEN.public.key_type, TOKEN.public.blob, TOKEN_SIGNATURE).encode()),
    request(HOSTBOUND, b"\0" + text("ssh-ed25519") + string(KEYS[0].public.blob) * 2),
    request("keyboard-interactive", InteractiveData(b"", "").encode()),
    UserauthInfoResponse(1, text("x")).encode(),
)  # fmt: skip
CHANNEL_MESSAGES = (
    ChannelOpen("session", 1, 1000, 1000).encode(),
    ChannelOpen("direct-tcpip", 1, 1000, 1000, text("h") + uint32(1) + text("o") + uint32(2)).encode(),
    ChannelRequest(0, "pty-req", True, text("xterm") + bytes(16) + string(b"\x01\0\0\0\5\0")).encode(),
    ChannelRequest(0, "env", True, text("LANG") + text("C")).encode(),
    ChannelRequest(0, "exec", True, text("ls")).encode(),
    GlobalRequest("tcpip-forward", True, text("") + uint32(0)).encode(),
    GlobalRequest("hostkeys-prove-00@openssh.com", True, string(KEYS[0].public.blob)).encode(),
    ChannelData(0, b"data").encode(),
    b"\x5b" + uint32(0) + uint32(1) + uint32(5) + uint32(5),
    b"\x5c" + uint32(0) + uint32(1) + string(b"no") + string(b""),
    b"\x5d" + uint32(0) + uint32(5),
    b"\x5f" + uint32(0) + uint32(1) + string(b"err"),
    b"\x60" + uint32(0),
    b"\x61" + uint32(0),
    b"\x63" + uint32(0),
    b"\x64" + uint32(0),
    b"\x51data",
    b"\x52",
    b"\x01" + uint32(11) + string(b"bye") + string(b""),
    b"\xc0" + string(b"ping"),
)


def seal_and_check(made: Pair, target: Side, peer: Side, payloads: list[bytes], *, damage: int | None = None) -> None:
    peer.puppet = True
    peer.send(*payloads)
    data = bytearray(b"".join(peer.engine.data_to_send()))
    if damage is not None:
        data[damage % len(data)] ^= 1
    target.receive(bytes(data), made.now)
    while target.sweep():
        pass
    check(target)
    target.engine.handle_timeout(made.now + 10_000)
    target.engine.receive_eof(made.now)
    target.sweep()
    check(target)
    assert target.engine.ended


@pytest.mark.parametrize("chain", ["none", "password", "publickey", "keyboard-interactive"])
@settings(max_examples=60)
@given(payloads=st.lists(mutated(*AUTH_MESSAGES) | st.binary(min_size=1, max_size=60), min_size=1, max_size=6))
def test_sealed_nonsense_to_a_server_before_the_login(chain: str, payloads: list[bytes]) -> None:
    made = Pair(
        algorithms=FAST,
        host_keys=KEYS,
        auth_methods=((chain, "password"),),
        client_answers={CredentialQuestion: ...},
        server_answers={AuthQuestion: Prompt((("?", True),))},
    ).run()
    seal_and_check(made, made.server, made.client, payloads)
    assert not made.server.of(LoggedIn)


@pytest.mark.parametrize("algorithms", [FAST, ZLIB], ids=["none", "zlib"])
@pytest.mark.parametrize("role", ["client", "server"])
@settings(max_examples=60)
@given(payloads=st.lists(mutated(*CHANNEL_MESSAGES) | st.binary(min_size=1, max_size=60), min_size=1, max_size=8))
def test_sealed_nonsense_after_the_login(role: str, algorithms: object, payloads: list[bytes]) -> None:
    made = Pair(algorithms=algorithms, host_keys=KEYS).run()  # type: ignore[arg-type]
    made.session()
    seal_and_check(made, *side_of(role, made), payloads)


@settings(max_examples=60)
@given(payloads=st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=4))
def test_what_does_not_inflate(payloads: list[bytes]) -> None:
    made = Pair(algorithms=ZLIB, host_keys=KEYS).run()
    made.session()
    made.client.engine.outbound.compressor = None
    seal_and_check(made, made.server, made.client, payloads)


@given(damage=st.integers(0, 10_000))
def test_damaged_packets(damage: int) -> None:
    made = Pair(algorithms=FAST, host_keys=KEYS).run()
    made.session()
    seal_and_check(made, made.server, made.client, [ChannelData(0, bytes(100)).encode()] * 3, damage=damage)
    (event,) = made.server.of(ConnectionEnded)
    assert event.reason_code == 5 or event.by_peer  # the length may have become one that is still to come


@pytest.mark.parametrize("number", range(256))
def test_a_lying_server_before_its_client_is_logged_in(number: int) -> None:
    for body in (b"", bytes(40), string(b"ssh-userauth"), uint32(2**32 - 1) * 4):
        made = Pair(algorithms=FAST, host_keys=KEYS, server_answers={AuthQuestion: ...}).run()
        made.server.puppet = True
        made.server.send(bytes([number]) + body)
        made.run()
        check(made.client)
