from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import KeyFormatError
from dunnart.keys import Certificate, PrivateKey, PublicKey, SignatureError, decode_public
from dunnart.keys.public import split_line
from dunnart.wire.encoding import string, text, uint32, uint64

KINDS = ["ed25519", "rsa:2048", "ecdsa:256", "ecdsa:384", "ecdsa:521"]
Maker = Callable[..., Path]


def certificate_of(
    keygen: Callable[..., str], make_key: Maker, folder: Path, kind: str, authority: str, *arguments: str
) -> bytes:
    public = folder / "user.pub"
    public.write_bytes(make_key(kind).with_suffix(".pub").read_bytes())
    keygen("-q", "-s", make_key(authority, "", "-m", "RFC4716"), "-I", "an id", "-z", "42", *arguments, public)
    return split_line((folder / "user-cert.pub").read_text())[1]


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_made_by_ssh_keygen(
    kind: str, keygen: Callable[..., str], make_key: Maker, tmp_path: Path
) -> None:
    options = ("-n", "root,günther", "-V", "20200101000000Z:20380101000000Z", "-O", "force-command=true")
    blob = certificate_of(keygen, make_key, tmp_path, kind, "ed25519", *options)
    certificate = decode_public(blob)
    assert isinstance(certificate, Certificate)
    assert certificate.key == PublicKey.parse_line(make_key(kind).with_suffix(".pub").read_text())[0]
    assert (certificate.kind, certificate.serial, certificate.key_id) == ("user", 42, "an id")
    assert certificate.principals == ("root", "günther")
    assert (certificate.valid_after, certificate.valid_before) == (1577836800, 2145916800)
    assert certificate.critical_options == (("force-command", string(b"true")),)
    assert dict(certificate.extensions)["permit-pty"] == b""
    certificate.verify_signature()
    listed = keygen("-L", "-f", tmp_path / "user-cert.pub")
    assert certificate.authority.fingerprint() in listed
    assert certificate.fingerprint() in listed
    assert certificate.key_type in listed
    assert certificate.line("a comment") == (tmp_path / "user-cert.pub").read_text().strip()

    key = PrivateKey.load(make_key(kind).read_bytes())
    for plain, name in zip(key.signature_algorithms, certificate.signature_algorithms, strict=True):
        assert name == f"{plain}-cert-v01@openssh.com"
        assert certificate.verify(name, key.sign(plain, b"data"), b"data") is None
        with pytest.raises(SignatureError):
            certificate.verify(name, key.sign(plain, b"data"), b"other")
        with pytest.raises(SignatureError):
            certificate.verify(plain, key.sign(plain, b"data"), b"data")


@pytest.mark.parametrize("authority", KINDS)
def test_authorities_of_every_type(authority: str, keygen: Callable[..., str], make_key: Maker, tmp_path: Path) -> None:
    certificate = Certificate.decode(
        certificate_of(keygen, make_key, tmp_path, "ed25519", authority, "-h", "-n", "a.example")
    )
    assert certificate.kind == "host"
    assert certificate.valid_before == 2**64 - 1
    certificate.verify_signature()
    tampered = certificate.blob.replace(b"a.example", b"b.example")
    assert Certificate.decode(tampered).principals == ("b.example",)
    with pytest.raises(SignatureError):
        Certificate.decode(tampered).verify_signature()


def test_sha1_authorities_only_on_demand(keygen: Callable[..., str], make_key: Maker, tmp_path: Path) -> None:
    blob = certificate_of(keygen, make_key, tmp_path, "ed25519", "rsa:2048", "-t", "ssh-rsa")
    certificate = Certificate.decode(blob)
    with pytest.raises(SignatureError, match="SHA-1"):
        certificate.verify_signature()
    certificate.verify_signature(sha1=True)


def made(
    authority: bytes, *, kind: int = 1, principals: bytes = b"", critical: bytes = b"", tail: bytes = b""
) -> bytes:
    fields = (
        text("ssh-ed25519-cert-v01@openssh.com"),
        string(bytes(32)),
        USER.public.blob[15:],
        uint64(1) + uint32(kind) + text("id") + string(principals),
        uint64(0) + uint64(2**64 - 1) + string(critical) + string(b"") + string(b""),
        string(authority),
    )
    signed = b"".join(fields)
    return signed + string(AUTHORITY.sign("ssh-ed25519", signed)) + tail


USER, AUTHORITY = PrivateKey.generate("ed25519"), PrivateKey.generate("ed25519")


def test_a_certificate_of_our_own_making() -> None:
    certificate = Certificate.decode(made(AUTHORITY.public.blob))
    certificate.verify_signature()
    assert certificate.key == USER.public
    assert certificate.principals == ()


def test_an_authority_that_is_a_certificate_is_refused() -> None:
    with pytest.raises(KeyFormatError, match="certificate where a plain key"):
        Certificate.decode(made(made(AUTHORITY.public.blob)))
    with pytest.raises(KeyFormatError):
        PublicKey.decode(made(AUTHORITY.public.blob))


def test_another_authority_s_signature_is_refused() -> None:
    with pytest.raises(SignatureError):
        Certificate.decode(made(USER.public.blob)).verify_signature()


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": 0},
        {"kind": 3},
        {"principals": b"\0\0\0\5root"},
        {"principals": string(b"x") * 257},
        {"principals": string(b"\xff")},
        {"critical": string(b"a")},
        {"critical": (string(b"a") + string(b"")) * 2},
        {"tail": b"\0"},
    ],
)
def test_malformed_certificates(arguments: dict[str, int | bytes]) -> None:
    with pytest.raises(KeyFormatError):
        Certificate.decode(made(AUTHORITY.public.blob, **arguments))  # type: ignore[arg-type]  # mixed on purpose


GOOD = made(AUTHORITY.public.blob)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place: int, change: int) -> None:
    changed = GOOD[:place] + bytes([GOOD[place] ^ change]) + GOOD[place + 1 :]
    with pytest.raises(KeyFormatError):
        Certificate.decode(changed).verify_signature()
    with pytest.raises(KeyFormatError):
        decode_public(GOOD[:place])
