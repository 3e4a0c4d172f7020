from __future__ import annotations

import binascii
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import KeyFormatError, LocalProtocolError
from dunnart.keys import PrivateKey, PublicKey
from dunnart.wire.encoding import Reader, mpint, string, text, uint32

KINDS = ["ed25519", "rsa:2048", "ecdsa:256", "ecdsa:384", "ecdsa:521"]
FORMATS = [("-m", "RFC4716"), ("-m", "PEM"), ("-m", "PKCS8")]  # RFC4716 means OpenSSH's own for private keys
DATA = b"what is signed"


def public_of(path: Path) -> PublicKey:
    return PublicKey.parse_line(path.with_suffix(".pub").read_text())[0]


@pytest.mark.parametrize("passphrase", ["", "föö bar"])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form[1])
@pytest.mark.parametrize("kind", KINDS)
def test_files_made_by_ssh_keygen(
    kind: str, form: tuple[str, str], passphrase: str, make_key: Callable[..., Path], keygen: Callable[..., str]
) -> None:
    path = make_key(kind, passphrase, *form)
    data = path.read_bytes()
    key = PrivateKey.load(data, passphrase or None)
    assert key.public == public_of(path)
    assert PrivateKey.load(data, passphrase.encode()).public == key.public
    for algorithm in key.signature_algorithms:
        assert key.public.verify(algorithm, key.sign(algorithm, DATA), DATA) is None
    if passphrase:
        with pytest.raises(KeyFormatError, match="locked by a passphrase"):
            PrivateKey.load(data)
        with pytest.raises(KeyFormatError, match="passphrase is wrong"):
            PrivateKey.load(data, "another")
    else:
        assert PrivateKey.load(data, "not needed").public == key.public
    assert keygen("-l", "-f", path).split()[1] == key.public.fingerprint()


@pytest.mark.parametrize("passphrase", [None, "föö bar"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_we_write_are_read_by_ssh_keygen(
    kind: str, passphrase: str | None, tmp_path: Path, keygen: Callable[..., str]
) -> None:
    name, _, bits = kind.partition(":")
    key = PrivateKey.generate(name, int(bits) if bits else None)  # type: ignore[arg-type]  # names from the table above
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(key.openssh("a comment", passphrase))
    assert keygen("-y", "-P", passphrase or "", "-f", path).strip() == key.public.line("a comment")
    assert PrivateKey.load(path.read_bytes(), passphrase).public == key.public
    theirs = serialization.load_ssh_private_key(path.read_bytes(), passphrase.encode() if passphrase else None)
    line = theirs.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert line.decode() == key.public.line()


@pytest.mark.parametrize("kind", KINDS)
def test_ssh_keygen_takes_our_signatures_and_we_take_its(
    kind: str, tmp_path: Path, make_key: Callable[..., Path], keygen: Callable[..., str]
) -> None:
    path = make_key(kind)
    key = PrivateKey.load(path.read_bytes())
    digest = hashes.Hash(hashes.SHA512())
    digest.update(DATA)
    signed = b"SSHSIG" + text("file") + string(b"") + text("sha512") + string(digest.finalize())

    # OpenSSH PROTOCOL.sshsig: ours …
    signature = key.sign(key.signature_algorithms[0], signed)
    head = b"SSHSIG" + uint32(1) + string(key.public.blob) + text("file") + string(b"") + text("sha512")
    armoured = binascii.b2a_base64(head + string(signature), newline=False).decode()
    lines = [armoured[start : start + 70] for start in range(0, len(armoured), 70)]
    (tmp_path / "sig").write_text("\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----\n"]))
    (tmp_path / "signers").write_text(f"me {key.public.line()}\n")
    verify = ("-Y", "verify", "-f", tmp_path / "signers", "-I", "me", "-n", "file", "-s", tmp_path / "sig")
    assert "Good" in keygen(*verify, stdin=DATA)
    keygen(*verify, stdin=DATA + b"x", status=255)

    # … and theirs
    (tmp_path / "data").write_bytes(DATA)
    keygen("-Y", "sign", "-q", "-f", path, "-n", "file", tmp_path / "data")
    body = "".join((tmp_path / "data.sig").read_text().splitlines()[1:-1])
    reader = Reader(binascii.a2b_base64(body), 10)
    assert reader.string() == key.public.blob
    for _ in range(3):
        reader.string()
    theirs = reader.string()
    assert key.public.verify(key.signature_algorithms[0], theirs, signed) is None


def test_signatures_verify_in_the_library_alone() -> None:
    made = PrivateKey.generate("ed25519")
    reader = Reader(made.sign("ssh-ed25519", DATA))
    assert reader.text() == "ssh-ed25519"
    ed25519.Ed25519PublicKey.from_public_bytes(made.public.blob[-32:]).verify(reader.string(), DATA)
    reader.end()

    made = PrivateKey.generate("rsa", 2048)
    fields = Reader(made.public.blob, 11)
    loaded = rsa.RSAPublicNumbers(fields.mpint(), fields.mpint()).public_key()
    for algorithm, algorithm_hash in (
        ("rsa-sha2-256", hashes.SHA256()),
        ("rsa-sha2-512", hashes.SHA512()),
        ("ssh-rsa", hashes.SHA1()),
    ):
        reader = Reader(made.sign(algorithm, DATA))
        assert reader.text() == algorithm
        loaded.verify(reader.string(), DATA, padding.PKCS1v15(), algorithm_hash)

    made = PrivateKey.generate("ecdsa", 384)
    point = made.public.blob[-97:]
    reader = Reader(made.sign("ecdsa-sha2-nistp384", DATA))
    reader.string()
    pair = Reader(reader.string())
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point).verify(
        encode_dss_signature(pair.mpint(), pair.mpint()), DATA, ec.ECDSA(hashes.SHA384())
    )


def test_dss_keys_for_old_devices(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import dsa

    theirs = dsa.generate_private_key(1024)
    pem = theirs.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = PrivateKey.load(pem)
    assert key.signature_algorithms == ("ssh-dss",)
    assert key.slow
    assert PrivateKey.load(key.openssh()).public == key.public
    made = key.sign("ssh-dss", DATA)
    assert key.public.verify("ssh-dss", made, DATA) is None
    value = made[-40:]
    r, s = int.from_bytes(value[:20], "big"), int.from_bytes(value[20:], "big")
    theirs.public_key().verify(encode_dss_signature(r, s), DATA, hashes.SHA1())
    for bad in (value[:-1], value + b"\0", bytes(40), value[20:] + value[:20]):
        with pytest.raises(KeyFormatError):
            key.public.verify("ssh-dss", text("ssh-dss") + string(bad), DATA)
    big = dsa.generate_private_key(2048).public_key().public_numbers()
    group = big.parameter_numbers
    small = theirs.public_key().public_numbers()
    other = small.parameter_numbers
    for numbers in ((group.p, group.q, group.g, big.y), (other.p, other.q - 2, other.g, small.y)):
        with pytest.raises(KeyFormatError, match="1024"):
            PublicKey.decode(text("ssh-dss") + b"".join(map(mpint, numbers)))


def test_which_keys_are_slow() -> None:
    assert not PrivateKey.generate("ed25519").slow
    assert not PrivateKey.generate("ecdsa").slow
    assert PrivateKey.generate("rsa", 2048).slow


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_sizes_that_do_not_exist(kind: str) -> None:
    for bits in (0, 1024, 2047, 8193):
        with pytest.raises(KeyFormatError, match=str(bits)):
            PrivateKey.generate(kind, bits)  # type: ignore[arg-type]  # names from the table above


def test_algorithms_of_other_keys_are_the_caller_s_mistake() -> None:
    for key, algorithm in (
        (PrivateKey.generate("ed25519"), "rsa-sha2-256"),
        (PrivateKey.generate("rsa", 2048), "ssh-ed25519"),
        (PrivateKey.generate("ecdsa"), "ecdsa-sha2-nistp384"),
    ):
        with pytest.raises(LocalProtocolError, match=algorithm):
            key.sign(algorithm, DATA)


def test_secrets_are_not_shown() -> None:
    key = PrivateKey.generate("ed25519")
    assert repr(key) == f"<private <ssh-ed25519 {key.public.fingerprint()}>>"


def test_what_is_no_usable_private_key(make_key: Callable[..., Path]) -> None:
    path = make_key("ed25519")
    for data in (b"", b"\0" * 100, path.with_suffix(".pub").read_bytes(), b"x" * (1 << 20) + b"x"):
        with pytest.raises(KeyFormatError, match="not a private key"):
            PrivateKey.load(data)
    none = serialization.NoEncryption()
    for loaded in (ed448.Ed448PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())):
        pem = loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)
        with pytest.raises(KeyFormatError, match="type"):
            PrivateKey.load(pem)
    weak = rsa.generate_private_key(65537, 1024)
    pem = weak.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)
    with pytest.raises(KeyFormatError, match="1024 bits"):
        PrivateKey.load(pem)


def openssh_file(whole: bytes) -> bytes:
    begin, end = b"-----BEGIN OPENSSH PRIVATE KEY-----\n", b"-----END OPENSSH PRIVATE KEY-----\n"
    return begin + binascii.b2a_base64(whole) + end


def content(data: bytes) -> bytes:
    return binascii.a2b_base64(b"".join(data.splitlines()[1:-1]))


ED = PrivateKey.generate("ed25519")
WHOLE = content(ED.openssh("comment"))


def test_a_key_with_more_padding_than_there_can_be_is_damaged() -> None:
    reader = Reader(WHOLE, len(b"openssh-key-v1\0"))
    for _ in range(3):
        reader.string()
    assert reader.uint32() == 1
    reader.string()
    secret = reader.string()
    padded = WHOLE[: -len(secret) - 4] + string(secret + bytes(range(1, 256)) * 2)
    with pytest.raises(KeyFormatError, match="padding"):
        PrivateKey.load(openssh_file(padded))


def test_any_bit_flipped_in_a_plain_file_never_gives_another_key() -> None:
    comment = WHOLE.index(b"comment")
    for place in range(len(WHOLE)):
        for bit in (1, 0x80):
            damaged = openssh_file(WHOLE[:place] + bytes([WHOLE[place] ^ bit]) + WHOLE[place + 1 :])
            if comment <= place < comment + len("comment"):
                assert PrivateKey.load(damaged).public == ED.public
            else:
                with pytest.raises(KeyFormatError):
                    PrivateKey.load(damaged)


def test_a_seed_that_belongs_to_another_public_half_is_refused() -> None:
    # Signing with a foreign public half beside the seed gives the seed away (two signatures, the same nonce).
    other = PrivateKey.generate("ed25519").public.blob[-32:]
    assert WHOLE.count(ED.public.blob[-32:]) == 3
    with pytest.raises(KeyFormatError, match="does not belong"):
        PrivateKey.load(openssh_file(WHOLE.replace(ED.public.blob[-32:], other)))


@given(st.binary(max_size=300), st.integers(0, len(WHOLE)))
def test_malformed_files_raise_nothing_but_key_format_error(tail: bytes, kept: int) -> None:
    for data in (openssh_file(WHOLE[:kept] + tail), ED.openssh()[:kept], b"-----BEGIN PRIVATE KEY-----\n" + tail):
        try:
            key = PrivateKey.load(data)
        except KeyFormatError:
            continue
        assert key.public == ED.public
