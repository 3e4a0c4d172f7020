"""Mutation fuzzing of everything that reads what a stranger wrote: `python fuzz/parsers.py NAME [SECONDS]`."""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable

from dunnart.errors import DecodeError, DunnartError
from dunnart.keys.agent import AgentAnswers, read_identities, read_signature
from dunnart.keys.authorized_keys import parse as parse_authorized_keys
from dunnart.keys.certificate import Certificate, decode_public
from dunnart.keys.certified import demands
from dunnart.keys.dropbear import to_dropbear
from dunnart.keys.known_hosts import KnownHosts
from dunnart.keys.principals import parse_principals
from dunnart.keys.private import PrivateKey
from dunnart.keys.putty import to_putty
from dunnart.keys.revocation import RevokedKeys
from dunnart.plugins import direct_streamlocal, direct_tcpip, tcpip_forward, x11_forwarding
from dunnart.protocol.core import EngineConfig
from dunnart.protocol.engine import Engine
from dunnart.protocol.events import ConnectionEnded
from dunnart.protocol.phases import Role
from dunnart.protocol.requests import decode_channel_request, decode_modes
from dunnart.sftp import LocalFiles, ReadOnly, SftpClient, SftpServer
from dunnart.sftp.messages import EXTENSIONS
from dunnart.wire.encoding import string, uint32
from dunnart.wire.messages import KexInit

_KEY = PrivateKey.generate("ed25519")
_LINE = _KEY.public.line("me@here")
_KEXINIT = KexInit(bytes(16), *[("a", "b@example.com")] * 8).encode()  # type: ignore[arg-type]
_CERTIFICATE = Certificate.issue(
    _KEY, _KEY.public, kind="user", key_id="an id", principals=["me", "you"], serial=77,
    critical_options={"force-command": string(b"x"), "source-address": string(b"192.0.2.0/24,::1")},
    extensions={"permit-pty": b"", "no-touch-required": b""},
)  # fmt: skip
_CONFIG = EngineConfig(Role.SERVER, host_keys=(_KEY.public,))


def _engine(data: bytes) -> None:
    engine = Engine(_CONFIG, random=random.randbytes, now=0.0)
    engine.receive(b"SSH-2.0-fuzz\r\n" + data, 0.0)
    engine.receive_eof(0.0)
    ended = [event for event in engine.events() if isinstance(event, ConnectionEnded)]
    assert len(ended) == 1


def _packet(payload: bytes) -> bytes:
    padding = 8 - (len(payload) + 5) % 8 + 8
    return (len(payload) + 1 + padding).to_bytes(4, "big") + bytes((padding,)) + payload + bytes(padding)


def _sftp(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = SftpServer(ReadOnly(LocalFiles(folder)))
        try:
            said = uint32(5) + b"\1" + uint32(3) + data
            room = server.room()
            room[: len(said)] = said
            server.received(len(said))
        finally:
            server.close()


def _sftp_answers(data: bytes) -> None:
    client = SftpClient()
    said = b"".join(string(name) + string(version) for name, version in EXTENSIONS)
    client.receive(uint32(5 + len(said)) + b"\2" + uint32(3) + said)
    client.stat(b"p")
    client.read_directory(b"h")
    client.read(b"h", 0, 100)
    client.limits()
    client.names_of_numbers((1, 2), (3,))
    for request, result in client.receive(data):
        assert request.number < 5
        assert not isinstance(result, bytes) or len(result) <= 100


def _agent(data: bytes) -> None:
    for answer in AgentAnswers().receive(data):
        if answer[0] == 14:
            read_signature(answer, "ssh-ed25519")
        else:
            read_identities(answer)


def _forwards(data: bytes) -> None:
    for read in (
        direct_tcpip.read_destination, direct_streamlocal.read_destination, tcpip_forward.read_address,
        x11_forwarding.read_request,
    ):  # fmt: skip
        with contextlib.suppress(DecodeError):
            read(data)


def _authorized_keys(data: bytes) -> None:
    keys = parse_authorized_keys(data, "fuzz", variables=["*"])
    decision = keys.decide(_KEY.public, "10.1.2.3", 1e9)
    assert decision.entry is None or decision.entry in keys.entries
    assert not decision.final or keys.refused


def _certificate(data: bytes) -> None:
    demands(Certificate.decode(data))


def _revoked(data: bytes) -> None:
    revoked = RevokedKeys.parse(data)
    revoked.reason(_CERTIFICATE)
    RevokedKeys.parse(revoked.encode())


def _lists() -> list[bytes]:
    revoked = RevokedKeys(number=1, comment="a list")
    revoked.keys.add(_KEY.public.blob)
    revoked.sha1.add(bytes(20))
    revoked.sha256.add(bytes(32))
    certificates = revoked.of_authority(_KEY.public.blob)
    certificates.revoke_serials(5, 5)
    certificates.revoke_serials(7, 70)
    certificates.key_ids.add("an id")
    bitmap = b"\x22" + string(bytes(8) + string(b"\1\0\2\4"))
    extension = b"\xff" + string(string(b"x@example.com") + b"\0" + string(b""))
    written = revoked.encode()
    return [written, written + b"\1" + string(string(b"") * 2 + bitmap) + extension, _LINE.encode() + b"\n# \n"]


def _request(kind: int, body: bytes) -> bytes:
    return uint32(5 + len(body)) + bytes((kind,)) + uint32(1) + body


def _answer(kind: int, number: int, body: bytes) -> bytes:
    return uint32(5 + len(body)) + bytes((kind,)) + uint32(number) + body


PARSERS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "engine": (
        _engine,
        [_packet(_KEXINIT), _packet(_KEXINIT) + _packet(b"\x1e" + (32).to_bytes(4, "big") + bytes(32))],
    ),
    "kexinit": (KexInit.decode, [_KEXINIT]),
    "public-key": (decode_public, [_KEY.public.blob]),
    "certificate": (_certificate, [_CERTIFICATE.blob]),
    "revoked-keys": (_revoked, _lists()),
    "principals": (
        lambda data: parse_principals(data, "fuzz"),
        [b'from="192.0.2.0/24",command="a \\"b" staff # them\n# \n\nme\n'],
    ),
    "private-key": (
        PrivateKey.load,
        [
            _KEY.openssh("me"),
            to_dropbear(_KEY),
            to_dropbear(PrivateKey.generate("ecdsa")),
            to_dropbear(PrivateKey.generate("rsa", 2048)),
            to_putty(_KEY, "me"),
            to_putty(_KEY, version=2),
        ],
    ),
    "authorized-keys": (
        _authorized_keys,
        [
            _LINE.encode(),
            b'command="a \\"b",from="10.0.0.0/8,!10.1.2.?,fe80::/10" ' + _LINE.encode(),
            b'restrict,pty,permitopen="[::1]:80",permitlisten="8*:*",expiry-time="20380119031407Z" ' + _LINE.encode(),
            b'cert-authority,principals="a,b",environment="A=b",no-touch-required ' + _LINE.encode(),
            b"# \n\n" + _LINE.encode() * 2,
        ],
    ),
    "known-hosts": (
        lambda data: KnownHosts(data.decode("utf-8", "replace")),
        [b"[host]:22,*.x " + _LINE.encode(), b"@revoked |1|AAAA|BBBB " + _LINE.encode()],
    ),
    "agent": (
        _agent,
        [
            string(b"\x0c" + uint32(2) + (string(_KEY.public.blob) + string(b"comment")) * 2),
            string(b"\x0e" + string(_KEY.sign("ssh-ed25519", b"data"))),
        ],
    ),
    "pty": (lambda data: decode_channel_request("pty-req", data), [bytes(4) * 5 + b"\0\0\0\5\1\0\0\0\3"]),
    "sftp": (
        _sftp,
        [
            _request(11, string(b"/")) + _request(12, string(uint32(1))) + _request(4, string(uint32(1))),
            _request(9, string(b"/x") + uint32(15) + bytes(28)) + _request(5, string(uint32(1)) + bytes(12)),
            _request(200, string(b"copy-data") + string(uint32(1)) + bytes(16) + string(uint32(2)) + bytes(8)),
        ],
    ),
    "sftp-answers": (
        _sftp_answers,
        [
            _answer(105, 0, uint32(15) + bytes(28)) + _answer(103, 2, string(bytes(100))) + _answer(101, 3, bytes(12)),
            _answer(104, 1, uint32(2) + (string(b"name") + string(b"long") + uint32(4) + bytes(4)) * 2),
            _answer(201, 3, bytes(32)) + _answer(201, 4, string(string(b"a") * 2) + string(string(b"b"))),
        ],
    ),
    "forwards": (
        _forwards,
        [
            string(b"localhost") + uint32(8080) + string(b"127.0.0.1") + uint32(5000),
            string(b"") + uint32(0),
            string(b"/run/a.sock") + string(b"") + uint32(0),
            b"\1" + string(b"MIT-MAGIC-COOKIE-1") + string(b"00112233445566778899aabbccddeeff") + uint32(0),
        ],
    ),
    "modes": (decode_modes, [b"\1\0\0\0\3\x35\0\0\0\1\0"]),
}


def mutate(data: bytes, source: random.Random) -> bytes:
    """Change a few bytes: flip, cut, repeat, or put in a number that parsers stumble over."""
    mutated = bytearray(data)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(mutated) + 1)
        kind = source.randrange(5)
        if kind == 0 and at < len(mutated):
            mutated[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            del mutated[at : at + source.randint(1, 8)]
        elif kind == 2:
            mutated[at:at] = mutated[at : at + source.randint(1, 64)]
        elif kind == 3:
            mutated[at : at + 4] = source.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)).to_bytes(4, "big")
        else:
            mutated[at:at] = source.randbytes(source.randint(1, 16))
    return bytes(mutated)


def fuzz(name: str, seconds: float, seed: int) -> int:
    """Feed one parser for so long; returns how many inputs it got. An unexpected exception passes through."""
    parser, samples = PARSERS[name]
    source = random.Random(seed)
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        data = mutate(source.choice(samples), source)
        try:
            parser(data)
        except DunnartError:
            pass
        except Exception:
            print(f"{name}: {data!r}")
            raise
        count += 1
    return count


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARSERS:
        sys.exit(f"usage: python fuzz/parsers.py NAME [SECONDS]; names: {', '.join(PARSERS)}")
    seed = random.randrange(1 << 32)
    length = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    print(f"{fuzz(sys.argv[1], length, seed)} inputs, seed {seed}")
