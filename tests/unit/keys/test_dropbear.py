"""Dropbear's format; that Dropbear's own programs agree is shown in tests/interop/test_dropbear_tools.py."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa

from dunnart.errors import KeyFormatError
from dunnart.keys import PrivateKey
from dunnart.keys.dropbear import from_dropbear, is_dropbear, to_dropbear
from dunnart.keys.private import from_library
from dunnart.wire.encoding import mpint, string, text

ED, RSA, ECDSA = PrivateKey.generate("ed25519"), PrivateKey.generate("rsa", 2048), PrivateKey.generate("ecdsa", 521)


def test_there_and_back() -> None:
    keys = [ED, RSA, ECDSA, PrivateKey.generate("ecdsa", 384), from_library(dsa.generate_private_key(1024))]
    for key in keys:
        data = to_dropbear(key)
        assert is_dropbear(data)
        found = PrivateKey.load(data)
        assert (found.public, to_dropbear(found)) == (key.public, data)
        algorithm = found.signature_algorithms[0] if found.public.key_type != "ssh-dss" else "ssh-dss"
        assert key.public.verify(algorithm, found.sign(algorithm, b"x"), b"x") is None
        # The same key in OpenSSH's format, with every secret number in its place.
        assert PrivateKey.load(found.openssh()).public == key.public


def test_layout() -> None:
    pair = ED.secret_fields()[4 + 32 + 4 :]
    assert to_dropbear(ED) == text("ssh-ed25519") + string(pair)
    assert to_dropbear(ECDSA).startswith(ECDSA.public.blob)


def test_what_is_wrong_is_said() -> None:
    other = PrivateKey.generate("ed25519")
    whole = to_dropbear(ED)
    for data, said in [
        (whole[:-1], "damaged"),
        (whole + b"\0", "1 bytes after the last field"),
        (whole[:-32] + other.public.blob[-32:], "the public half does not belong to it"),
        (text("ssh-ed25519") + string(bytes(63)), "63 bytes where 64"),
        (text("ssh-frob") + string(b""), "unsupported type 'ssh-frob'"),
        (RSA.public.blob + mpint(5), "without its primes"),
        (RSA.public.blob + mpint(5) + mpint(1) + mpint(7), "damaged"),
        (ECDSA.public.blob + mpint(5), "does not belong"),
        (ECDSA.public.blob + mpint(-5), "damaged"),
        (text("ssh-rsa") + mpint(3) + mpint(15) + mpint(3) + mpint(3) + mpint(5), "RSA"),
    ]:
        with pytest.raises(KeyFormatError, match=said):
            from_dropbear(data)
        with pytest.raises(KeyFormatError):
            PrivateKey.load(data)
