from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dunnart.crypto.ciphers import CIPHERS, MACS
from dunnart.crypto.compression import COMPRESSION
from dunnart.crypto.profiles import KNOWN, PROFILES, Algorithms
from dunnart.errors import DecodeError, LimitExceeded, NegotiationError, UnexpectedMessage
from dunnart.keys import PrivateKey
from dunnart.protocol.events import KeysExchanged, LoggedIn, SendingResumed, VersionReceived
from dunnart.protocol.identification import VersionMismatch
from dunnart.protocol.limits import Limits
from dunnart.protocol.phases import Kex, Stage
from dunnart.protocol.questions import AuthQuestion, HostKeyQuestion, SignQuestion, WorkQuestion
from dunnart.protocol.transport import HostKeyMismatch
from dunnart.testing.pair import Pair, Side
from dunnart.wire.encoding import string, text
from dunnart.wire.messages import (
    Debug,
    ExtInfo,
    Ignore,
    KexExchangeInit,
    KexGexRequest,
    KexInit,
    NewKeys,
    ServiceAccept,
)

LEGACY = PROFILES["legacy"]
STRICT = "kex-strict-{}-v00@openssh.com"
HOST_KEYS = {
    "ssh-ed25519": PrivateKey.generate("ed25519"),
    "ecdsa-sha2-nistp256": PrivateKey.generate("ecdsa", 256),
    "ecdsa-sha2-nistp384": PrivateKey.generate("ecdsa", 384),
    "ecdsa-sha2-nistp521": PrivateKey.generate("ecdsa", 521),
    "rsa-sha2-256": PrivateKey.generate("rsa", 2048),
}
HOST_KEYS["rsa-sha2-512"] = HOST_KEYS["ssh-rsa"] = HOST_KEYS["rsa-sha2-256"]
FAST = replace(PROFILES["default"], kex=("curve25519-sha256",))


def works(made: Pair) -> Pair:
    """Data of all sizes goes both ways."""
    assert made.server.of(LoggedIn), (made.client.ended, made.server.ended)
    here, there = made.session()
    up = b"".join(bytes([size & 0xFF]) * size for size in (1, 15, 16, 17, 100, 5000, 40_000))
    down = up[::-1]
    made.transfer(made.client, here, up).transfer(made.server, there, down)
    assert made.server.data(there) == up
    assert made.client.data(here) == down
    assert made.client.ended is None
    assert made.server.ended is None
    return made


def rewrite_kexinit(side: Side, change: Callable[[KexInit], object], *more: bytes) -> None:
    """Change the KEXINIT that a side has ready, and send `more` payloads behind it."""
    engine = side.engine
    kexinit = KexInit.decode(engine._transport._own_kexinit)
    change(kexinit)
    engine._transport._own_kexinit = kexinit.encode()
    line = engine.data_to_send()[0]
    engine.outbound.queue.append(line)
    engine.outbound.sequence = 0
    side.send(kexinit, *more)


# Algorithms.


@pytest.mark.parametrize("kex", KNOWN.kex)
def test_every_key_exchange_method(kex: str) -> None:
    made = works(Pair(algorithms=replace(LEGACY, kex=(kex,))).run())
    assert made.server.of(KeysExchanged)[0].algorithms.kex == kex
    assert made.client.engine.session_id == made.server.engine.session_id
    made.client.engine.rekey()
    made.run()
    assert made.server.engine.rekeys == made.client.engine.rekeys == 1
    works(made)


PROTECTIONS = [
    (cipher, mac) for cipher in KNOWN.ciphers for mac in ((KNOWN.macs[0],) if CIPHERS[cipher].aead else KNOWN.macs)
]


@pytest.mark.parametrize("compression", COMPRESSION)
@pytest.mark.parametrize(("cipher", "mac"), PROTECTIONS)
def test_every_cipher_and_mac(cipher: str, mac: str, compression: str) -> None:
    chosen = replace(LEGACY, kex=FAST.kex, ciphers=(cipher,), macs=(mac,), compression=(compression,))
    made = works(Pair(algorithms=chosen).run())
    (event,) = made.client.of(KeysExchanged)
    used = "" if CIPHERS[cipher].aead else mac
    assert (event.algorithms.cipher_to_client, event.algorithms.mac_to_client) == (cipher, used)
    assert event.algorithms.compression_to_server == compression
    assert (made.server.engine.outbound.compressor is not None) == (compression != "none")


def test_every_algorithm_is_tried_here() -> None:
    assert {cipher for cipher, _ in PROTECTIONS} == set(CIPHERS)
    assert {mac for _, mac in PROTECTIONS} == set(MACS)


@pytest.mark.parametrize("algorithm", HOST_KEYS)
def test_every_host_key(algorithm: str) -> None:
    chosen = replace(LEGACY, kex=FAST.kex, host_key=(algorithm,))
    made = works(Pair(algorithms=chosen, host_keys=(HOST_KEYS[algorithm],)).run())
    assert made.server.of(KeysExchanged)[0].algorithms.host_key == algorithm
    assert made.client.asked(HostKeyQuestion)[0].key == HOST_KEYS[algorithm].public


def test_the_two_directions_may_differ() -> None:
    made = Pair(algorithms=FAST)

    def asymmetric(kexinit: KexInit) -> None:
        kexinit.ciphers_to_server = ("aes128-ctr",)
        kexinit.ciphers_to_client = ("aes256-gcm@openssh.com",)
        kexinit.macs_to_server = ("hmac-sha2-512",)
        kexinit.macs_to_client = ()
        kexinit.compression_to_client = ("zlib@openssh.com",)

    rewrite_kexinit(made.client, asymmetric)
    rewrite_kexinit(made.server, asymmetric)
    chosen = works(made.run()).server.of(KeysExchanged)[0].algorithms
    assert (chosen.cipher_to_server, chosen.mac_to_server) == ("aes128-ctr", "hmac-sha2-512")
    assert (chosen.cipher_to_client, chosen.mac_to_client) == ("aes256-gcm@openssh.com", "")
    assert (chosen.compression_to_server, chosen.compression_to_client) == ("none", "zlib@openssh.com")


@pytest.mark.parametrize("field", ["kex", "ciphers", "macs", "compression", "host_key"])
def test_nothing_in_common_ends_the_connection(field: str) -> None:
    client: Algorithms = replace(FAST, ciphers=("aes128-ctr",))
    server = replace(client, **{field: ("strange@example.com",)})
    if field == "host_key":
        client, server = replace(client, host_key=("rsa-sha2-512",)), client
    made = Pair(algorithms=(client, server)).run()
    assert isinstance(made.server.ended and made.server.ended.error, NegotiationError)
    assert made.client.ended is not None
    assert 3 in {made.client.ended.reason_code, made.server.ended and made.server.ended.reason_code}


def test_markers_are_no_algorithms() -> None:
    made = Pair(algorithms=FAST)
    rewrite_kexinit(
        made.client, lambda kexinit: setattr(kexinit, "kex", ("ext-info-c", "ext-info-s", STRICT.format("s")))
    )
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, NegotiationError)


# Guesses, RFC 4253 §7.


def follows(kexinit: KexInit) -> None:
    kexinit.first_kex_packet_follows = True


def guesses_right(kexinit: KexInit) -> None:
    follows(kexinit)
    kexinit.host_key = ("ssh-ed25519",)


WRONG = KexExchangeInit(b"what another method would say").encode()


def test_right_guess_is_used() -> None:
    made = Pair(algorithms=FAST)
    rewrite_kexinit(made.client, guesses_right)
    works(made.run())


@pytest.mark.parametrize("guess", [WRONG, KexGexRequest(2048, 3072, 8192).encode()])
@pytest.mark.parametrize("field", ["kex", "host_key"])
def test_wrong_guess_is_skipped(field: str, guess: bytes) -> None:
    made = Pair(algorithms=PROFILES["default"])

    def wrong(kexinit: KexInit) -> None:
        guesses_right(kexinit)
        setattr(kexinit, field, ("strange@example.com", *getattr(kexinit, field)))

    rewrite_kexinit(made.client, wrong, guess)
    works(made.run())


def without_strict(kexinit: KexInit) -> None:
    kexinit.kex = tuple(name for name in kexinit.kex if not name.startswith("kex-strict"))


def test_wrong_guess_is_skipped_behind_other_messages() -> None:
    made = Pair(algorithms=PROFILES["default"])

    def wrong(kexinit: KexInit) -> None:
        follows(kexinit)
        without_strict(kexinit)
        kexinit.kex = ("strange@example.com", *kexinit.kex)

    rewrite_kexinit(made.server, without_strict)
    rewrite_kexinit(made.client, wrong, Ignore(b"x").encode(), Debug(b"").encode(), WRONG)
    works(made.run())


def test_only_one_packet_is_skipped() -> None:
    made = Pair(algorithms=FAST)

    def wrong(kexinit: KexInit) -> None:
        follows(kexinit)
        kexinit.host_key = ("strange@example.com", *kexinit.host_key)

    rewrite_kexinit(made.client, wrong, WRONG, WRONG)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, NegotiationError)


def test_wrong_guess_without_the_flag_is_used_and_fails() -> None:
    made = Pair(algorithms=FAST)
    rewrite_kexinit(made.client, lambda _: None, WRONG)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, NegotiationError)


# Strict KEX, OpenSSH PROTOCOL §1.9.


def test_strict_resets_sequence_numbers_at_each_newkeys() -> None:
    made = works(Pair(algorithms=FAST).run())
    for _ in range(3):
        assert made.server.engine.strict
        assert made.client.engine.strict
        for side, other in ((made.server, made.client), (made.client, made.server)):
            since = len(side.numbers) - 1 - max(n for n, number in enumerate(side.numbers) if number == 21)
            assert side.engine.inbound.sequence == since == other.engine.outbound.sequence
        made.client.engine.rekey()
        works(made.run())


@pytest.mark.parametrize("who", ["client", "server"])
def test_peer_without_the_marker_keeps_its_sequence_numbers(who: str) -> None:
    made = Pair(algorithms=FAST)
    rewrite_kexinit(getattr(made, who), without_strict)
    other = made.client if who == "server" else made.server
    made.run()  # and fails, for an engine that left its marker out heeds the other's
    assert not other.engine.strict
    assert other.engine.outbound.sequence >= 3  # KEXINIT, share, NEWKEYS


def test_without_strict_ignore_and_debug_are_fine_in_the_first_exchange() -> None:
    made = Pair(algorithms=FAST)
    without_both(made, Ignore(b"x" * 100).encode(), Debug(b"").encode())
    works(made.run())
    assert not made.server.engine.strict
    assert made.server.engine.inbound.sequence == len(made.server.payloads)


def without_both(made: Pair, *more: bytes) -> None:
    rewrite_kexinit(made.server, without_strict)
    rewrite_kexinit(made.client, without_strict, *more)


def test_without_strict_a_message_may_come_before_kexinit() -> None:
    made = Pair(algorithms=FAST)
    without_both(made)
    line, kexinit = made.client.engine.data_to_send()
    made.client.engine.outbound.sequence = 0
    made.client.engine.outbound.queue.append(line)
    made.client.send(Ignore(b""), made.client.engine._transport._own_kexinit)
    assert kexinit
    works(made.run())


def test_strict_wants_kexinit_first() -> None:
    made = Pair(algorithms=FAST)
    line, _ = made.client.engine.data_to_send()
    made.client.engine.outbound.sequence = 0
    made.client.engine.outbound.queue.append(line)
    made.client.send(Ignore(b""), made.client.engine._transport._own_kexinit)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)


@pytest.mark.parametrize("message", [Ignore(b""), Debug(b""), ExtInfo(0, b"")])
def test_strict_allows_nothing_else_until_newkeys(message: Any) -> None:
    made = Pair(algorithms=FAST)
    rewrite_kexinit(made.client, lambda _: None, message.encode())
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)


def test_markers_in_later_exchanges_are_not_heeded() -> None:
    made = Pair(algorithms=FAST)
    without_both(made)
    made.run()
    assert not made.server.engine.strict
    made.client.engine.rekey()
    engine = made.client.engine
    engine.data_to_send()
    engine.outbound.sequence -= 1
    kexinit = KexInit.decode(engine._transport._own_kexinit)
    kexinit.kex += (STRICT.format("c"), "ext-info-c")
    engine._transport._own_kexinit = kexinit.encode()
    made.client.send(kexinit)
    works(made.run())
    assert made.server.engine.rekeys == 1
    assert not made.server.engine.strict
    assert made.server.engine.inbound.sequence == len(made.server.payloads)
    assert made.client.numbers.count(7) == 1


def test_our_own_markers_stand_in_the_first_kexinit_only() -> None:
    made = Pair(algorithms=FAST).run()
    made.server.engine.rekey()
    made.run()
    first, second = made.client.got(KexInit)
    assert first.kex == (*FAST.kex, "ext-info-s", STRICT.format("s"))
    assert second.kex == FAST.kex
    first, second = made.server.got(KexInit)
    assert first.kex == (*FAST.kex, "ext-info-c", STRICT.format("c"))
    assert second.kex == FAST.kex


# EXT_INFO, RFC 8308.


def test_server_says_what_it_can() -> None:
    made = Pair().run()
    extensions = made.client.engine.extensions
    assert extensions["server-sig-algs"].split(b",") == [name.encode() for name in PROFILES["default"].user_key]
    assert set(extensions) == {"server-sig-algs", "publickey-hostbound@openssh.com", "ping@openssh.com"}
    assert made.client.numbers[made.client.numbers.index(21) + 1] == 7


def test_server_says_nothing_to_clients_that_did_not_ask() -> None:
    made = Pair(algorithms=FAST)
    rewrite_kexinit(made.server, without_strict)
    rewrite_kexinit(made.client, lambda kexinit: setattr(kexinit, "kex", FAST.kex))
    works(made.run())
    assert 7 not in made.client.numbers


def quiet_client(**options: Any) -> Pair:
    """A client that stands directly behind its NEWKEYS and has sent nothing more."""
    made = Pair(algorithms=FAST, **options)
    made.client.engine._transport._greeted = True
    made.run()
    made.client.puppet = True
    assert made.server.engine.stage is Stage.EXT_INFO
    return made


EXT_INFO = ExtInfo(2, text("server-sig-algs") + string(b"x") + text("other@example.com") + string(b"\0\xff"))


def test_client_may_say_it_directly_after_newkeys() -> None:
    made = quiet_client()
    made.client.send(EXT_INFO)
    made.run()
    assert made.server.ended is None
    assert made.server.engine.stage is Stage.SERVICE
    assert made.server.engine.extensions == {"server-sig-algs": b"x"}


@pytest.mark.parametrize("first", [EXT_INFO, Ignore(b""), Debug(b"")])
def test_ext_info_comes_first_or_never(first: Any) -> None:
    made = quiet_client()
    made.client.send(first, EXT_INFO)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, UnexpectedMessage)


@pytest.mark.parametrize(
    "body", [ExtInfo(3, EXT_INFO.extensions), ExtInfo(1, EXT_INFO.extensions), ExtInfo(2**32 - 1, b"")]
)
def test_ext_info_with_a_wrong_count(body: ExtInfo) -> None:
    made = quiet_client()
    made.client.send(body)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, DecodeError)


def test_client_takes_ext_info_before_success_too() -> None:
    made = Pair(algorithms=FAST, server_answers={AuthQuestion: ...}).run()
    made.server.send(ExtInfo(1, text("ping@openssh.com") + string(b"1")))
    made.run()
    assert made.client.ended is None
    assert made.client.engine.extensions["ping@openssh.com"] == b"1"


# Host keys.


@pytest.mark.parametrize("reply", [False, None, 1, "yes", Exception()])
def test_untrusted_host_key_ends_the_connection(reply: object) -> None:
    made = Pair(client_answers={HostKeyQuestion: lambda _question: reply}).run()
    assert isinstance(made.client.ended and made.client.ended.error, HostKeyMismatch)
    assert made.server.ended is not None
    assert made.server.ended.reason_code == 9
    assert 5 not in made.server.numbers


def test_client_says_nothing_before_the_host_key_is_trusted() -> None:
    made = Pair(client_answers={HostKeyQuestion: ...}).run()
    assert made.server.numbers[-1] == 30
    assert made.client.of(LoggedIn) == []
    (question,) = made.client.asked(HostKeyQuestion)
    made.client.engine.answer(question.token, True)
    works(made.run())


@pytest.mark.parametrize("message", [ServiceAccept("ssh-userauth"), b"\x14" + bytes(16)])
def test_server_cannot_go_on_before_its_host_key_is_trusted(message: Any) -> None:
    made = Pair(client_answers={HostKeyQuestion: ...}).run()
    made.server.send(message)
    made.run()
    assert isinstance(made.client.ended and made.client.ended.error, UnexpectedMessage)


def test_wrong_host_key_signature() -> None:
    other = PrivateKey.generate("ed25519")
    made = Pair(server_answers={SignQuestion: lambda question: other.sign("ssh-ed25519", question.data)}).run()
    assert isinstance(made.client.ended and made.client.ended.error, HostKeyMismatch)
    assert made.client.asked(HostKeyQuestion) == []


@pytest.mark.parametrize("reply", [None, Exception("agent is gone"), "text", True])
def test_server_that_cannot_sign(reply: object) -> None:
    made = Pair(server_answers={SignQuestion: lambda _question: reply}).run()
    assert isinstance(made.server.ended and made.server.ended.error, NegotiationError)
    if isinstance(reply, Exception):
        assert made.server.ended is not None
        assert made.server.ended.error is not None
        assert made.server.ended.error.__cause__ is reply


def test_the_hash_that_is_signed_is_the_session_id() -> None:
    made = Pair().run()
    (question,) = made.server.asked(SignQuestion)
    assert question.data == made.server.engine.session_id == made.client.engine.session_id
    assert len(question.data) == 32


def test_slow_methods_are_asked_for() -> None:
    slow = replace(FAST, kex=("diffie-hellman-group14-sha256",))
    made = Pair(algorithms=slow, server_answers={WorkQuestion: ...}).run()
    (question,) = made.server.asked(WorkQuestion)
    assert made.server.engine.kex is Kex.BUSY
    made.server.engine.answer(question.token, question.work())
    works(made.run())
    assert Pair(algorithms=FAST).run().server.asked(WorkQuestion) == []


# KEXINIT and versions within bounds.


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda k: setattr(k, "kex", tuple(f"a{n}" for n in range(201))), LimitExceeded),
        (lambda k: setattr(k, "languages_to_client", tuple(f"a{n}" for n in range(201))), LimitExceeded),
        (lambda k: setattr(k, "kex", ("a" * 33_000,)), LimitExceeded),
        (lambda k: setattr(k, "reserved", 1), DecodeError),
        (lambda k: setattr(k, "kex", ("a b",)), DecodeError),
        (lambda k: setattr(k, "kex", ("a", "", "b")), DecodeError),
    ],
)
def test_kexinit_is_bounded(change: Callable[[KexInit], object], error: type[Exception]) -> None:
    made = Pair(algorithms=FAST)
    rewrite_kexinit(made.client, change)
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, error)


def test_kexinit_of_200_names_is_fine() -> None:
    made = Pair(algorithms=FAST)
    rewrite_kexinit(made.client, lambda k: setattr(k, "languages_to_client", tuple(f"a{n}" for n in range(200))))
    works(made.run())


def test_newkeys_has_no_body() -> None:
    made = Pair(algorithms=FAST, client_answers={HostKeyQuestion: ...}).run()
    made.client.send(NewKeys().encode() + b"\0")
    made.run()
    assert isinstance(made.server.ended and made.server.ended.error, DecodeError)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"SSH-1.5-old\r\n", VersionMismatch),
        (b"GET / HTTP/1.1\r\n", VersionMismatch),
        (b"\r\n", VersionMismatch),
        (b"Hello\r\nSSH-2.0-x\r\n", VersionMismatch),
        (b"SSH-2.0-a\0b\r\n", DecodeError),
        (b"SSH-2.0-a\x1b[1m\r\n", DecodeError),
        (b"SSH-2.0-" + b"x" * 255, LimitExceeded),
    ],
)
def test_bad_version_lines(line: bytes, error: type[Exception]) -> None:
    made = Pair()
    before = made.server.engine.data_to_send()
    made.server.engine.receive(line, made.now)
    made.server.sweep()
    assert isinstance(made.server.ended and made.server.ended.error, error)
    assert before
    assert made.server.engine.data_to_send() == []  # no packet to one who does not speak SSH


@pytest.mark.parametrize(
    "line", [b"SSH-2.0-x\r\n", b"SSH-2.0-x\n", b"SSH-1.99-x y\r\n", b"SSH-2.0-" + b"x" * 245 + b"\r\n"]
)
def test_good_version_lines(line: bytes) -> None:
    made = Pair()
    made.server.engine.receive(line, made.now)
    made.server.sweep()
    assert made.server.of(VersionReceived) == [VersionReceived(line.rstrip())]
    assert made.server.engine.peer_version == line.rstrip()


def test_client_reads_past_what_a_server_says_first() -> None:
    made = Pair(algorithms=FAST)
    made.server.engine.outbound.queue.insert(0, b"Welcome\r\nall\n")
    works(made.run())


def test_client_reads_only_so_far() -> None:
    made = Pair(algorithms=FAST)
    made.server.engine.outbound.queue.insert(0, b"x\r\n" * 51)
    made.run()
    assert isinstance(made.client.ended and made.client.ended.error, LimitExceeded)


# Once keys are there.


def test_damaged_packet_ends_the_connection() -> None:
    made = Pair(algorithms=FAST).run()
    made.tamper = lambda side, data: data[:-1] + bytes([data[-1] ^ 1]) if side is made.client else data
    made.client.send(Ignore(b"x"))
    made.run()
    assert made.server.ended is not None
    assert made.server.ended.reason_code == 5
    assert made.client.ended is not None


@pytest.mark.parametrize("drop", [0, 1])
def test_lost_or_repeated_packet_ends_the_connection(drop: int) -> None:
    for cipher, mac in PROTECTIONS:
        made = Pair(algorithms=replace(LEGACY, kex=FAST.kex, ciphers=(cipher,), macs=(mac,))).run()
        made.client.send(Ignore(b"first"))
        first = b"".join(made.client.engine.data_to_send())
        made.client.send(Ignore(b"other"))
        second = b"".join(made.client.engine.data_to_send())
        made.server.engine.receive(second if drop else first + first, made.now)
        made.server.sweep()
        if "cbc" in cipher and "etm" not in mac:  # a fault shows when the longest packet could be there, and no sooner
            assert made.server.ended is None
            for _ in range(5):
                made.server.engine.receive(bytes(64 * 1024), made.now)
                made.server.sweep()
        assert made.server.ended is not None, cipher
        assert made.server.ended.reason_code == 5


def test_sending_resumes_after_each_exchange() -> None:
    made = Pair(algorithms=FAST).run()
    made.server.engine.rekey()
    made.run()
    assert len(made.server.of(SendingResumed)) == len(made.client.of(SendingResumed)) == 2
    assert [event.first for event in made.server.of(KeysExchanged)] == [True, False]
    assert Limits().rekey_seconds == 3600
