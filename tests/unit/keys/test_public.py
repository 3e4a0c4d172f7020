from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import KeyFormatError
from dunnart.keys import PrivateKey, PublicKey, SignatureError, SkDetails, decode_public
from dunnart.wire.encoding import byte, mpint, string, text, uint32

KINDS = ["ed25519", "rsa:2048", "rsa:3072", "ecdsa:256", "ecdsa:384", "ecdsa:521"]
L = 2**252 + 27742317777372353535851937790883648493  # the order of Ed25519's base point, RFC 8032 §5.1

# RFC 8032 §7.1, TEST 1 to 3: public key, message, signature
RFC8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


def ed25519_blob(point: bytes) -> bytes:
    return text("ssh-ed25519") + string(point)


def signature(algorithm: str, value: bytes) -> bytes:
    return text(algorithm) + string(value)


@pytest.fixture(scope="module")
def ed() -> PrivateKey:
    return PrivateKey.generate("ed25519")


@pytest.fixture(scope="module")
def rsa_key() -> PrivateKey:
    return PrivateKey.generate("rsa", 2048)


@pytest.fixture(scope="module")
def ecdsa() -> PrivateKey:
    return PrivateKey.generate("ecdsa")


@pytest.mark.parametrize("kind", KINDS)
def test_lines_and_fingerprints_are_those_of_ssh_keygen(
    kind: str, make_key: Callable[..., Path], keygen: Callable[..., str]
) -> None:
    path = make_key(kind)
    line = path.with_suffix(".pub").read_text().strip()
    key, comment = PublicKey.parse_line(line)
    assert comment == "a comment"
    assert key.line(comment) == line
    assert key.fingerprint() == keygen("-l", "-f", path).split()[1]
    assert PublicKey.decode(key.blob) == key
    assert hash(PublicKey.decode(key.blob)) == hash(key)
    assert decode_public(key.blob) == key


def test_line_without_comment_and_of_nonsense(ed: PrivateKey) -> None:
    line = ed.public.line()
    assert PublicKey.parse_line(line) == (ed.public, "")
    for bad in ("", "ssh-ed25519", line[:-1], line.replace("ssh-ed25519", "ssh-rsa"), line.replace(" A", " é")):
        with pytest.raises(KeyFormatError):
            PublicKey.parse_line(bad)


@pytest.mark.parametrize(("point", "message", "value"), RFC8032)
def test_rfc_8032_vectors(point: str, message: str, value: str) -> None:
    key = PublicKey.decode(ed25519_blob(bytes.fromhex(point)))
    assert key.verify("ssh-ed25519", signature("ssh-ed25519", bytes.fromhex(value)), bytes.fromhex(message)) is None
    with pytest.raises(SignatureError):
        key.verify("ssh-ed25519", signature("ssh-ed25519", bytes.fromhex(value)), bytes.fromhex(message) + b"x")


def test_ed25519_s_from_the_order_on_is_refused() -> None:
    # Dropbear CVE-2026-3706: S + L verifies by the bare equation, so that a signature could be changed at will.
    point, message, value = (bytes.fromhex(part) for part in RFC8032[1])
    key = PublicKey.decode(ed25519_blob(point))
    s = int.from_bytes(value[32:], "little")
    for multiple in range(1, 8):
        malleable = value[:32] + (s + multiple * L).to_bytes(32, "little")
        with pytest.raises(SignatureError):
            key.verify("ssh-ed25519", signature("ssh-ed25519", malleable), message)


@pytest.mark.parametrize("y", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_ed25519_points_of_small_order_are_refused(y: int, sign: int) -> None:
    with pytest.raises(KeyFormatError):
        PublicKey.decode(ed25519_blob((y | sign).to_bytes(32, "little")))


def test_the_small_order_table_is_right() -> None:
    # The points of order 8 are those whose double has y = 0: d y^4 + 2 y^2 - 1 = 0.
    from dunnart.keys.public import _P25519, _SMALL_ORDER

    p = _P25519
    d = -121665 * pow(121666, -1, p) % p
    of_order_8 = {y for y in _SMALL_ORDER if y not in {0, 1, p - 1}}
    assert len(of_order_8) == 2
    assert all((d * y**4 + 2 * y * y - 1) % p == 0 for y in of_order_8)


def test_an_ed25519_signature_for_the_neutral_point_would_pass_in_the_library() -> None:
    # Why the table is there: with A = (0, 1), R = (0, 1) and S = 0 sign everything.
    neutral = bytes([1]) + bytes(31)
    ed25519.Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"anything")
    with pytest.raises(KeyFormatError):
        PublicKey.decode(ed25519_blob(neutral))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_ed25519_lengths(size: int) -> None:
    with pytest.raises(KeyFormatError, match="32 bytes"):
        PublicKey.decode(ed25519_blob(b"\x07" * size))
    point = bytes.fromhex(RFC8032[0][0])
    with pytest.raises(SignatureError):  # Go CVE-2020-9283 panicked here
        PublicKey.decode(ed25519_blob(point)).verify("ssh-ed25519", signature("ssh-ed25519", bytes(size)), b"")


def test_the_signature_s_label_must_be_the_announced_algorithm(rsa_key: PrivateKey, ed: PrivateKey) -> None:
    made = rsa_key.sign("rsa-sha2-256", b"data")
    rsa_key.public.verify("rsa-sha2-256", made, b"data")
    with pytest.raises(SignatureError, match="labelled"):
        rsa_key.public.verify("rsa-sha2-512", made, b"data")
    with pytest.raises(SignatureError, match="no signature algorithm"):
        rsa_key.public.verify("ssh-ed25519", ed.sign("ssh-ed25519", b"data"), b"data")
    with pytest.raises(SignatureError, match="no signature algorithm"):
        ed.public.verify("rsa-sha2-256", made, b"data")


def test_rsa_signatures_that_lost_their_leading_zeros_are_taken(rsa_key: PrivateKey) -> None:
    for number in range(4000):
        data = b"%d" % number
        value = rsa_key.sign("rsa-sha2-256", data)[-256:]
        if value[0] == 0:
            break
    else:
        pytest.fail("no signature with a leading zero")
    rsa_key.public.verify("rsa-sha2-256", signature("rsa-sha2-256", value.lstrip(b"\0")), data)
    with pytest.raises(SignatureError):
        rsa_key.public.verify("rsa-sha2-256", signature("rsa-sha2-256", b"\0" + value), data)


def rsa_blob(e: int, n: int) -> bytes:
    return text("ssh-rsa") + mpint(e) + mpint(n)


@pytest.mark.parametrize(
    ("e", "n"),
    [
        (65537, 2**2046 + 1),  # 2047 bits
        (65537, 2**8192 + 1),  # 8193 bits
        (65537, 2**2047),  # even
        (1, 2**2047 + 1),
        (65536, 2**2047 + 1),
        (2**64 + 1, 2**2047 + 1),
        (-3, 2**2047 + 1),
        (3, -(2**2047)),
        (3, 0),
        (0, 2**2047 + 1),
    ],
)
def test_rsa_keys_out_of_bounds(e: int, n: int) -> None:
    with pytest.raises(KeyFormatError):
        PublicKey.decode(rsa_blob(e, n))


def test_rsa_keys_at_the_bounds() -> None:
    for e, n in ((3, 2**2047 + 1), (2**64 - 1, 2**8191 + 1)):
        key = PublicKey.decode(rsa_blob(e, n))
        assert key.signature_algorithms == ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
        with pytest.raises(SignatureError):
            key.verify("rsa-sha2-256", signature("rsa-sha2-256", bytes(256)), b"")


def test_numbers_must_be_in_their_shortest_form() -> None:
    n = 2**2047 + 1
    long = text("ssh-rsa") + string(b"\0\x01\x00\x01") + mpint(n)
    with pytest.raises(KeyFormatError, match="shortest"):
        PublicKey.decode(long)


@pytest.mark.parametrize("bits", [256, 384, 521])
def test_ecdsa_points_are_checked(bits: int) -> None:
    size = (bits + 7) // 8
    key = PrivateKey.generate("ecdsa", bits)
    point = key.public.blob[-(1 + 2 * size) :]
    head = text(f"ecdsa-sha2-nistp{bits}") + text(f"nistp{bits}")
    assert PublicKey.decode(head + string(point)) == key.public
    x, y = point[1 : 1 + size], point[1 + size :]
    prime = {256: 2**256 - 2**224 + 2**192 + 2**96 - 1, 384: 2**384 - 2**128 - 2**96 + 2**32 - 1, 521: 2**521 - 1}[bits]
    bad = [
        point[:-1] + bytes([point[-1] ^ 1]),
        b"\2" + x,
        b"\3" + x,
        b"\6" + x + y,
        b"\0",
        b"\4" + bytes(2 * size),
        point + b"\0",
        b"\4" + prime.to_bytes(size, "big") + y,
        b"\4" + b"\xff" * (2 * size),
    ]
    if bits == 521:  # the one curve whose bytes leave room for the same point modulo the prime
        bad.append(b"\4" + (int.from_bytes(x, "big") + prime).to_bytes(size, "big") + y)
    for other in bad:
        with pytest.raises(KeyFormatError):
            PublicKey.decode(head + string(other))
    with pytest.raises(KeyFormatError, match="another curve"):
        PublicKey.decode(text(f"ecdsa-sha2-nistp{bits}") + text("nistp999") + string(point))


def test_ecdsa_values_out_of_range(ecdsa: PrivateKey) -> None:
    name = "ecdsa-sha2-nistp256"
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for r, s in ((0, 1), (1, 0), (-1, 1), (1, -1), (order, 1), (1, order), (2**256, 1), (1, 2**3000), (1, 1)):
        with pytest.raises(SignatureError):
            ecdsa.public.verify(name, signature(name, mpint(r) + mpint(s)), b"data")


@pytest.mark.parametrize("kind", ["ed", "rsa_key", "ecdsa"])
def test_signatures_with_trailing_or_missing_bytes(kind: str, request: pytest.FixtureRequest) -> None:
    key: PrivateKey = request.getfixturevalue(kind)
    algorithm = key.signature_algorithms[0]
    good = key.sign(algorithm, b"data")
    assert key.public.verify(algorithm, good, b"data") is None
    value = good[4 + len(algorithm) + 4 :]
    broken = [good + b"\0", good[:-1], signature(algorithm, value + b"\0"), signature(algorithm, value[:-1]), b""]
    for other in broken:
        with pytest.raises(SignatureError):
            key.public.verify(algorithm, other, b"data")
    for place in range(len(good)):
        with pytest.raises(SignatureError):
            key.public.verify(algorithm, good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :], b"data")


@pytest.mark.parametrize("kind", KINDS)
def test_keys_with_trailing_or_missing_bytes(kind: str, make_key: Callable[..., Path]) -> None:
    blob = PublicKey.parse_line(make_key(kind).with_suffix(".pub").read_text())[0].blob
    with pytest.raises(KeyFormatError):
        PublicKey.decode(blob + b"\0")
    for size in range(len(blob)):
        with pytest.raises(KeyFormatError):
            PublicKey.decode(blob[:size])


class Authenticator:
    """A FIDO token in software, after OpenSSH's PROTOCOL.u2f."""

    def __init__(self, kind: str, application: bytes = b"ssh:") -> None:
        self.application = application
        self.ed = ed25519.Ed25519PrivateKey.generate()
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.name = {"ed": "sk-ssh-ed25519@openssh.com", "ec": "sk-ecdsa-sha2-nistp256@openssh.com"}[kind]
        if kind == "ed":
            fields = string(self.ed.public_key().public_bytes_raw())
        else:
            numbers = self.ec.public_key().public_numbers()
            fields = text("nistp256") + string(b"\4" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"))
        self.kind = kind
        self.blob = text(self.name) + fields + string(application)

    def sign(self, data: bytes, flags: int, counter: int) -> bytes:
        signed = (
            hashlib.sha256(self.application).digest() + byte(flags) + uint32(counter) + hashlib.sha256(data).digest()
        )
        if self.kind == "ed":
            value = self.ed.sign(signed)
        else:
            r, s = decode_dss_signature(self.ec.sign(signed, ec.ECDSA(hashes.SHA256())))
            value = mpint(r) + mpint(s)
        return signature(self.name, value) + byte(flags) + uint32(counter)


@pytest.mark.parametrize("kind", ["ed", "ec"])
@pytest.mark.parametrize("application", [b"ssh:", b"ssh:a host", b""])
def test_fido_signatures(kind: str, application: bytes) -> None:
    token = Authenticator(kind, application)
    key = PublicKey.decode(token.blob)
    assert key.signature_algorithms == (token.name,)
    for flags, present, verified in ((0, False, False), (1, True, False), (5, True, True), (4, False, True)):
        details = key.verify(token.name, token.sign(b"data", flags, 4711), b"data")
        assert details == SkDetails(flags, 4711)
        assert (details.user_present, details.user_verified) == (present, verified)
    good = token.sign(b"data", 1, 7)
    for bad in (good[:-5] + b"\5" + good[-4:], good[:-1] + b"\x08", good[:-1], good[:-5], good + b"\0"):
        with pytest.raises(SignatureError):
            key.verify(token.name, bad, b"data")
    with pytest.raises(SignatureError):
        key.verify(token.name, good, b"other data")
    elsewhere = PublicKey.decode(token.blob[: -len(string(application))] + string(b"ssh:elsewhere"))
    with pytest.raises(SignatureError):
        elsewhere.verify(token.name, good, b"data")


def test_a_fido_key_s_plain_signature_is_refused() -> None:
    token = Authenticator("ed")
    key = PublicKey.decode(token.blob)
    with pytest.raises(SignatureError):
        key.verify(token.name, signature(token.name, token.ed.sign(b"data")), b"data")
    with pytest.raises(SignatureError):
        key.verify("ssh-ed25519", signature("ssh-ed25519", token.ed.sign(b"data")), b"data")


@pytest.mark.parametrize("name", ["", "ssh-ed448", "ssh-rsa-cert-v01@openssh.com", "rsa-sha2-512", "\xff"])
def test_other_types_are_refused(name: str) -> None:
    with pytest.raises(KeyFormatError):
        PublicKey.decode(string(name.encode("latin-1")) + string(bytes(32)))


TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-ed25519-cert-v01@openssh.com",
    "ssh-rsa-cert-v01@openssh.com",
)


@given(st.sampled_from(TYPES), st.lists(st.binary(max_size=80), max_size=14), st.binary(max_size=20))
def test_malformed_blobs_raise_nothing_but_key_format_error(name: str, fields: list[bytes], tail: bytes) -> None:
    blob = text(name) + b"".join(map(string, fields)) + tail
    try:
        key = decode_public(blob)
    except KeyFormatError:
        return
    assert key.blob == blob


SIGNERS = {
    key.public.key_type: key
    for key in (PrivateKey.generate("ed25519"), PrivateKey.generate("ecdsa"), PrivateKey.generate("rsa", 2048))
}
TOKENS = {token.name: PublicKey.decode(token.blob) for token in (Authenticator("ed"), Authenticator("ec"))}
VERIFIERS = {**{name: key.public for name, key in SIGNERS.items()}, **TOKENS}


@given(st.sampled_from(sorted(VERIFIERS)), st.lists(st.binary(max_size=300), max_size=3), st.binary(max_size=80))
def test_malformed_signatures_raise_nothing_but_signature_error(name: str, fields: list[bytes], tail: bytes) -> None:
    key = VERIFIERS[name]
    algorithm = key.signature_algorithms[0]
    for blob in (tail, text(algorithm) + b"".join(map(string, fields)) + tail):
        with pytest.raises(SignatureError):
            key.verify(algorithm, blob, b"data")


def test_a_key_that_only_the_library_refuses_is_a_signature_error() -> None:
    exponent, modulus = 3, (2**1024 + 1) * (2**1024 + 3)
    key = PublicKey.decode(rsa_blob(exponent, modulus))
    assert rsa.RSAPublicNumbers(exponent, modulus).n == modulus
    with pytest.raises(SignatureError):
        key.verify("ssh-rsa", signature("ssh-rsa", b"\xff" * 257), b"")


def test_importing_the_package_loads_no_crypto_and_ed25519_no_rsa() -> None:
    program = (
        "import sys, dunnart.keys;"
        "print('cryptography' in sys.modules, 'dunnart.keys.public' in sys.modules);"
        "from dunnart.keys import PrivateKey, PublicKey, AuthorizedKeysCache;"
        f"PublicKey.decode({SIGNERS['ssh-ed25519'].public.blob!r});"
        f"PublicKey.decode({SIGNERS['ecdsa-sha2-nistp256'].public.blob!r});"
        f"key = PrivateKey.load({SIGNERS['ssh-ed25519'].openssh()!r});"
        "key.public.verify('ssh-ed25519', key.sign('ssh-ed25519', b'x'), b'x');"
        "a = 'cryptography.hazmat.primitives.';"
        "heavy = ('serialization', 'asymmetric.rsa', 'asymmetric.ec', 'asymmetric.dsa');"
        "print([n for n in heavy if a + n in sys.modules]);"
        "print([n for n in ('ssl','hashlib','hmac','secrets','random','tempfile','uuid') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.splitlines() == ["False False", "[]", "[]"]
