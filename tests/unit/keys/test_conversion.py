from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import KeyFormatError
from dunnart.keys import Certificate, PrivateKey
from dunnart.keys.conversion import comment_of, from_pem, from_rfc4716, private_to_pem, to_pem, to_rfc4716
from dunnart.testing.authenticator import Authenticator

Maker = Callable[..., Path]
ED, RSA, ECDSA = PrivateKey.generate("ed25519"), PrivateKey.generate("rsa", 2048), PrivateKey.generate("ecdsa")


@pytest.mark.parametrize("key", [ED, RSA, ECDSA])
def test_rfc4716_there_and_back(key: PrivateKey) -> None:
    text = to_rfc4716(key.public, "c" * 200)
    assert from_rfc4716(text) == key.public
    assert max(map(len, text.splitlines())) <= 72
    # Headers may go on in the next line, lines may end in CR LF, and other text may stand around.
    noisy = text.replace("Comment:", "Subject: a \\\nb c\nx-y: z\nComment:").replace("\n", "\r\n")
    assert from_rfc4716(f"before\n{noisy}after\n") == key.public


def test_rfc4716_of_a_certificate() -> None:
    certificate = Certificate.issue(ED, RSA.public, kind="user", key_id="x", principals=["me"])
    found = from_rfc4716(to_rfc4716(certificate, ""))
    assert isinstance(found, Certificate)
    assert found == certificate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "---- BEGIN SSH2 PUBLIC KEY ----\n",
        "---- BEGIN SSH2 PUBLIC KEY ----\nAA*A\n---- END SSH2 PUBLIC KEY ----\n",
        "---- BEGIN SSH2 PUBLIC KEY ----\n---- END SSH2 PUBLIC KEY ----\n",
        "---- END SSH2 PUBLIC KEY ----\nAAAA\n---- BEGIN SSH2 PUBLIC KEY ----\n",
    ],
)
def test_what_is_no_rfc4716(text: str) -> None:
    with pytest.raises(KeyFormatError):
        from_rfc4716(text)


def test_pem() -> None:
    for key in (ED, RSA, ECDSA):
        assert from_pem(to_pem(key.public, "PKCS8").encode()) == key.public
        assert PrivateKey.load(private_to_pem(key, "PKCS8", "secret"), "secret").public == key.public
    assert from_pem(to_pem(RSA.public, "PEM").encode()) == RSA.public
    assert b"BEGIN EC PRIVATE KEY" in private_to_pem(ECDSA, "PEM")
    for refused in (
        lambda: to_pem(ED.public, "PEM"),
        lambda: to_pem(Authenticator("ed25519").public, "PKCS8"),
        lambda: private_to_pem(ED, "PEM"),
        lambda: from_pem(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        lambda: from_pem(b""),
    ):
        with pytest.raises(KeyFormatError):
            refused()


@pytest.mark.parametrize("kind", ["ed25519", "rsa:2048", "ecdsa:521"])
@pytest.mark.parametrize(
    "arguments", [("",), ("secret",), ("secret", "-Z", "aes128-cbc"), ("secret", "-Z", "aes192-ctr")]
)
def test_comments(kind: str, arguments: tuple[str, ...], make_key: Maker) -> None:
    data = make_key(kind, *arguments).read_bytes()
    assert comment_of(data, arguments[0] or None) == "a comment"
    if arguments[0]:
        assert comment_of(data) == comment_of(data, "wrong") == ""


def test_comments_that_are_not_there() -> None:
    assert comment_of(private_to_pem(RSA, "PKCS8")) == ""
    assert comment_of(b"") == ""


GOOD = ED.openssh("me")


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=8))
def test_damaged_files_have_no_comment_or_some(place: int, data: bytes) -> None:
    assert isinstance(comment_of(GOOD[:place] + data + GOOD[place + len(data) :]), str)
