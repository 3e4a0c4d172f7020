"""Key exchange: agreement, vectors, what is refused, hashes and key derivation."""

from __future__ import annotations

import base64
import hashlib
import threading
import warnings

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from dunnart.crypto.dh_groups import GROUP_1, GROUP_14, GROUP_15, GROUP_16, GROUP_17, GROUP_18, GROUPS
from dunnart.crypto.kex import (
    GSSAPI_METHODS,
    KEX_METHODS,
    Curve25519,
    DiffieHellman,
    DiffieHellmanAnyGroup,
    Ecdh,
    GroupExchange,
    HashName,
    KeyAgreement,
    MlKem768X25519,
    derive_key,
    exchange_hash,
    with_gssapi,
)
from dunnart.errors import NegotiationError
from dunnart.wire.encoding import Reader, mpint, string

CURVE = Curve25519("curve25519-sha256")
HYBRID = MlKem768X25519()
EXCHANGE = GroupExchange("diffie-hellman-group-exchange-sha256", "sha256")
HASH_NAMES: tuple[HashName, ...] = ("sha1", "sha256", "sha384", "sha512")


def agreement(name: str) -> KeyAgreement:
    method = KEX_METHODS[name]
    return method.group(*method.choose_group(2048, 3072, 8192)) if isinstance(method, GroupExchange) else method


def small_order_points() -> list[bytes]:
    """Points of RFC 7748's curve whose multiples by any clamped scalar are zero."""
    p = 2**255 - 19
    order_8 = (
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
    return [number.to_bytes(32, "little") for number in (0, 1, p - 1, p, p + 1, *order_8)]


@pytest.mark.parametrize("name", list(KEX_METHODS))
def test_both_sides_agree_and_never_twice_on_the_same(name: str) -> None:
    method = agreement(name)
    assert method.name == name
    secrets = set()
    for _ in range(2):
        state, offered = method.offer()
        answered, secret = method.respond(offered)
        assert method.finish(state, answered) == secret
        secrets |= {offered, answered, secret}
    assert len(secrets) == 6


@pytest.mark.parametrize("name", list(KEX_METHODS))
def test_secret_is_encoded_as_the_exchange_hash_wants_it(name: str) -> None:
    method = agreement(name)
    for _ in range(4 if method.expensive else 300):  # leading zeros and set top bits occur
        _, secret = method.respond(method.offer()[1])
        reader = Reader(secret)
        if name == "mlkem768x25519-sha256":
            assert len(reader.string()) == 32
        else:
            number = reader.mpint()
            assert number > 0
            assert mpint(number) == secret
        reader.end()


@pytest.mark.parametrize(
    ("name", "hash_name"),
    [
        ("mlkem768x25519-sha256", "sha256"),
        ("curve25519-sha256", "sha256"),
        ("curve25519-sha256@libssh.org", "sha256"),
        ("ecdh-sha2-nistp256", "sha256"),
        ("ecdh-sha2-nistp384", "sha384"),
        ("ecdh-sha2-nistp521", "sha512"),
        ("diffie-hellman-group14-sha256", "sha256"),
        ("diffie-hellman-group16-sha512", "sha512"),
        ("diffie-hellman-group18-sha512", "sha512"),
        ("diffie-hellman-group-exchange-sha256", "sha256"),
        ("diffie-hellman-group14-sha1", "sha1"),
        ("diffie-hellman-group1-sha1", "sha1"),
        ("diffie-hellman-group-exchange-sha1", "sha1"),
    ],
)
def test_hash_of_each_method(name: str, hash_name: str) -> None:
    assert KEX_METHODS[name].hash_name == hash_name
    assert agreement(name).hash_name == hash_name


def test_groups_of_the_fixed_methods() -> None:
    primes = {
        name: method.p
        for name, method in KEX_METHODS.items()
        if isinstance(method, DiffieHellman | DiffieHellmanAnyGroup)
    }
    assert primes == {
        "diffie-hellman-group14-sha256": GROUP_14,
        "diffie-hellman-group16-sha512": GROUP_16,
        "diffie-hellman-group18-sha512": GROUP_18,
        "diffie-hellman-group14-sha1": GROUP_14,
        "diffie-hellman-group1-sha1": GROUP_1,
    }


def test_x25519_vector_of_rfc_7748() -> None:
    alice = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    )
    bob_share = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    secret = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert CURVE.finish(alice, bob_share) == string(secret)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_x25519_share_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(NegotiationError):
        CURVE.respond(b"\x09" * size)
    with pytest.raises(NegotiationError):
        CURVE.finish(CURVE.offer()[0], b"\x09" * size)


@pytest.mark.parametrize("share", small_order_points(), ids=bytes.hex)
def test_x25519_all_zero_result_is_refused(share: bytes) -> None:
    with pytest.raises(NegotiationError):
        CURVE.respond(share)
    with pytest.raises(NegotiationError):
        CURVE.finish(CURVE.offer()[0], share)
    kem_key = MLKEM768PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(NegotiationError):
        HYBRID.respond(kem_key + share)


def test_hybrid_secret_is_computed_from_both_parts() -> None:
    kem, private = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    share = kem.public_key().public_bytes_raw() + private.public_key().public_bytes_raw()
    assert len(share) == 1184 + 32
    answer, secret = HYBRID.respond(share)
    assert len(answer) == 1088 + 32
    classical = private.exchange(X25519PublicKey.from_public_bytes(answer[1088:]))
    assert secret == string(hashlib.sha256(kem.decapsulate(answer[:1088]) + classical).digest())
    assert HYBRID.finish((kem, private), answer) == secret


@pytest.mark.parametrize("size", [0, 32, 1088, 1184, 1215, 1217, 2432])
def test_hybrid_client_share_of_another_length_is_refused(size: int) -> None:
    share = HYBRID.offer()[1]
    with pytest.raises(NegotiationError):
        HYBRID.respond((share * 2)[:size])


@pytest.mark.parametrize("size", [0, 32, 1087, 1088, 1119, 1121, 2240])
def test_hybrid_server_share_of_another_length_is_refused(size: int) -> None:
    state, offered = HYBRID.offer()
    answer, _ = HYBRID.respond(offered)
    with pytest.raises(NegotiationError):
        HYBRID.finish(state, (answer * 2)[:size])


def test_hybrid_encapsulation_key_with_a_coefficient_out_of_range_is_refused() -> None:
    """FIPS 203 §7.2: the modulus check. A 12-bit coefficient must be less than 3329."""
    share = bytearray(HYBRID.offer()[1])
    share[0], share[1] = 0xFF, share[1] | 0x0F
    with pytest.raises(NegotiationError):
        HYBRID.respond(bytes(share))


def test_hybrid_changed_ciphertext_gives_another_secret() -> None:
    """FIPS 203's implicit rejection: no error, but no agreement either."""
    state, offered = HYBRID.offer()
    answer, secret = HYBRID.respond(offered)
    assert HYBRID.finish(state, bytes([answer[0] ^ 1]) + answer[1:]) != secret


@pytest.mark.parametrize(
    ("method", "curve"),
    [
        (Ecdh(256, "sha256"), ec.SECP256R1()),
        (Ecdh(384, "sha384"), ec.SECP384R1()),
        (Ecdh(521, "sha512"), ec.SECP521R1()),
    ],
    ids=lambda value: value.name,
)
def test_ecdh_takes_only_uncompressed_points_on_its_curve(method: Ecdh, curve: ec.EllipticCurve) -> None:
    private = ec.generate_private_key(curve)
    public = private.public_key()
    share = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    answer, secret = method.respond(share)
    peer = ec.EllipticCurvePublicKey.from_encoded_point(curve, answer)
    assert secret == mpint(int.from_bytes(private.exchange(ec.ECDH(), peer), "big"))

    size = (curve.key_size + 7) // 8
    off_the_curve = share[:-1] + bytes([share[-1] ^ 1])
    hybrid_form = bytes([6 + (share[-1] & 1)]) + share[1:]
    compressed = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    other = ec.generate_private_key(ec.SECP256R1() if curve.key_size != 256 else ec.SECP384R1()).public_key()
    bad_shares = {
        "empty": b"",
        "infinity": b"\0",
        "infinity, padded": bytes(len(share)),
        "zero": b"\4" + bytes(2 * size),
        "off the curve": off_the_curve,
        "hybrid form": hybrid_form,
        "compressed": compressed,
        "short": share[:-1],
        "long": share + b"\0",
        "coordinates too large": b"\4" + b"\xff" * (2 * size),
        "another curve": other.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    }
    state, _ = method.offer()
    for what, bad in bad_shares.items():
        reason = "^bad ECDH" if what in {"zero", "off the curve", "coordinates too large"} else "not an uncompressed"
        with pytest.raises(NegotiationError, match=reason):
            pytest.fail(f"{what}: {method.respond(bad)!r}")
        with pytest.raises(NegotiationError, match=reason):
            pytest.fail(f"{what}: {method.finish(state, bad)!r}")


@pytest.mark.parametrize(
    "method",
    [DiffieHellman("known", "sha256", GROUP_14), DiffieHellmanAnyGroup("any", "sha256", GROUP_14)],
    ids=lambda method: method.name,
)
def test_dh_takes_only_2_to_p_minus_2(method: DiffieHellman | DiffieHellmanAnyGroup) -> None:
    p = method.p
    refused = [0, 1, p - 1, p, p + 1, -1, -2, -(p - 2), 2 * p + 2, 1 << 4096]
    state, _ = method.offer()
    for number in refused:
        with pytest.raises(NegotiationError, match="outside"):
            method.respond(mpint(number)[4:])
        with pytest.raises(NegotiationError, match="outside"):
            method.finish(state, mpint(number)[4:])  # type: ignore[arg-type]
    for number in (2, 3, p - 2):
        assert Reader(method.respond(mpint(number)[4:])[1]).mpint() > 1


def test_dh_share_too_long_for_its_number_is_refused_before_it_becomes_one() -> None:
    with pytest.raises(NegotiationError):
        DiffieHellman("", "sha256", GROUP_14).respond(bytes(1 << 20) + b"\5")


def test_both_implementations_of_dh_agree() -> None:
    openssl = DiffieHellman("", "sha256", GROUP_14)
    plain = DiffieHellmanAnyGroup("", "sha256", GROUP_14)
    exponent, offered = plain.offer()
    answer, secret = openssl.respond(offered)
    number = int.from_bytes(answer, "big")
    assert secret == mpint(pow(number, exponent, GROUP_14)) == plain.finish(exponent, answer)
    assert int.from_bytes(offered, "big") == pow(2, exponent, GROUP_14)
    assert exponent.bit_length() == 512


def test_dh_of_a_small_subgroup_is_refused() -> None:
    """In a group that is no safe prime's, more numbers than p - 1 have small orders."""
    p = GROUP_14
    method = DiffieHellmanAnyGroup("", "sha256", p * 3)  # 1 mod p and 2 mod 3: its square is 1
    element = next(number for number in (p + 1, 2 * p + 1) if number % 3 == 2)
    with pytest.raises(NegotiationError, match="subgroup"):
        method.finish(1 << 511, mpint(element)[4:])


def test_dh_gives_no_warning_even_from_many_threads() -> None:
    method = agreement("diffie-hellman-group14-sha256")
    failures: list[BaseException] = []

    def run() -> None:
        try:
            method.respond(method.offer()[1])
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            failures.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


@pytest.mark.parametrize(
    ("request_bits", "bits"),
    [
        ((2048, 2048, 2048), 2048),
        ((1024, 2048, 8192), 3072),
        ((1024, 1024, 8192), 3072),
        ((2048, 3072, 8192), 3072),
        ((2048, 3073, 8192), 4096),
        ((2048, 7680, 8192), 8192),
        ((2048, 8192, 8192), 8192),
        ((2048, 2048, 3000), 2048),
        ((2048, 4000, 4095), 3072),
        ((4097, 5000, 6144), 6144),
        ((1, 9000, 10_000), 8192),
    ],
)
def test_group_is_the_smallest_that_suits(request_bits: tuple[int, int, int], bits: int) -> None:
    assert EXCHANGE.choose_group(*request_bits) == (GROUPS[bits], 2)


@pytest.mark.parametrize(
    "request_bits",
    [
        (1024, 1024, 1024),
        (1024, 1536, 2047),
        (8193, 8193, 9000),
        (3073, 3073, 4095),
        (4096, 3072, 8192),
        (2048, 8192, 4096),
        (4096, 4096, 2048),
        (0, 0, 0),
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
    ],
)
def test_impossible_group_request_is_refused(request_bits: tuple[int, int, int]) -> None:
    with pytest.raises(NegotiationError):
        EXCHANGE.choose_group(*request_bits)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_group_lies_in_the_requested_range_or_is_refused(minimum: int, preferred: int, maximum: int) -> None:
    try:
        p, g = EXCHANGE.choose_group(minimum, preferred, maximum)
    except NegotiationError:
        assert not minimum <= preferred <= maximum or not any(minimum <= bits <= maximum for bits in GROUPS)
    else:
        assert max(2048, minimum) <= p.bit_length() <= maximum
        assert EXCHANGE.group(p, g).name == EXCHANGE.name


@pytest.mark.parametrize(
    ("p", "g"),
    [
        (GROUP_1, 2),
        ((1 << 2046) + 1, 2),
        ((1 << 8192) + 1, 2),
        (GROUP_14 + 1, 2),
        (-GROUP_14, 2),
        (0, 2),
        (GROUP_14, 0),
        (GROUP_14, 1),
        (GROUP_14, -2),
        (GROUP_14, GROUP_14 - 1),
        (GROUP_14, GROUP_14 + 2),
    ],
)
def test_client_refuses_an_unusable_group(p: int, g: int) -> None:
    with pytest.raises(NegotiationError):
        EXCHANGE.group(p, g)


def test_client_takes_a_group_it_does_not_know() -> None:
    method = EXCHANGE.group(GROUP_14, 5)
    assert isinstance(method, DiffieHellmanAnyGroup)
    state, offered = method.offer()
    answer, secret = method.respond(offered)
    assert method.finish(state, answer) == secret
    known = [EXCHANGE.group(p, 2) for p in (GROUP_14, GROUP_15, GROUP_17)]
    assert all(isinstance(each, DiffieHellman) for each in known)


@pytest.mark.parametrize("hash_name", HASH_NAMES)
def test_exchange_hash(hash_name: HashName) -> None:
    assert exchange_hash(hash_name, b"fields") == hashlib.new(hash_name, b"fields").digest()


@pytest.mark.parametrize("hash_name", HASH_NAMES)
@pytest.mark.parametrize("size", [0, 1, 12, 20, 21, 32, 33, 64, 65, 200])
def test_key_derivation_of_rfc_4253(hash_name: HashName, size: int) -> None:
    secret, exchange, session_id = mpint(0x80FF), b"H" * 32, b"S" * 32
    for letter in (b"A", b"B", b"C", b"D", b"E", b"F"):
        blocks = [hashlib.new(hash_name, secret + exchange + letter + session_id).digest()]
        while sum(map(len, blocks)) < size:
            blocks.append(hashlib.new(hash_name, secret + exchange + b"".join(blocks)).digest())
        assert derive_key(hash_name, secret, exchange, letter, session_id, size) == b"".join(blocks)[:size]


def test_names_with_kerberos() -> None:
    """RFC 4462 §2.3, RFC 8732 §4, 5: the name ends in the MD5 of the mechanism's OID."""
    digest = hashlib.md5(bytes.fromhex("06092a864886f712010202"), usedforsecurity=False).digest()
    ending = "-" + base64.b64encode(digest).decode()
    plain = (
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group1-sha1",
    )
    assert with_gssapi(plain) == (f"gss-curve25519-sha256{ending}", f"gss-group14-sha256{ending}")
    assert GSSAPI_METHODS[f"gss-group16-sha512{ending}"] is KEX_METHODS["diffie-hellman-group16-sha512"]
    assert set(with_gssapi(tuple(KEX_METHODS))) == set(GSSAPI_METHODS)
    assert set(GSSAPI_METHODS).isdisjoint(KEX_METHODS)
