"""Private keys from their public half and their secret numbers, and back: what other programs' formats are made of."""

from __future__ import annotations

import warnings

from cryptography.exceptions import UnsupportedAlgorithm

from dunnart.errors import KeyFormatError
from dunnart.keys.private import PrivateKey, from_library
from dunnart.keys.public import PublicKey, ecdsa_curve
from dunnart.wire.encoding import Reader


def assembled(public: PublicKey, *secret: int) -> PrivateKey:
    """Make a private key from its parts.

    Args:
        public: the public half.
        secret: of ssh-ed25519 the seed, as a number whose first byte is the highest; of ssh-rsa d, p and q; of ECDSA
            the scalar; of ssh-dss x.

    Raises:
        KeyFormatError: the halves do not belong together, or no such key is supported.
    """
    from cryptography.utils import CryptographyDeprecationWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # ssh-dss is asked for by its owner
            key = from_library(_loaded(public, *secret))
    except (ValueError, OverflowError, ZeroDivisionError, UnsupportedAlgorithm) as error:
        raise KeyFormatError(f"damaged private key: {error}") from error
    if key.public != public:
        raise KeyFormatError("damaged private key: the public half does not belong to it")
    return key


def _loaded(public: PublicKey, *secret: int) -> object:
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

    reader = Reader(public.blob)
    kind = reader.text()
    if kind == "ssh-ed25519":
        return ed25519.Ed25519PrivateKey.from_private_bytes(secret[0].to_bytes(32, "big"))
    if kind == "ssh-rsa":
        e, n = reader.mpint(), reader.mpint()
        d, p, q = secret
        numbers = rsa.RSAPublicNumbers(e, n)
        return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), numbers).private_key()
    if kind.startswith("ecdsa-sha2-nistp"):
        return ec.derive_private_key(secret[0], ecdsa_curve(int(kind.removeprefix("ecdsa-sha2-nistp"))))
    if kind == "ssh-dss":
        group = dsa.DSAParameterNumbers(reader.mpint(), reader.mpint(), reader.mpint())
        return dsa.DSAPrivateNumbers(secret[0], dsa.DSAPublicNumbers(reader.mpint(), group)).private_key()
    raise KeyFormatError(f"a private key of type {kind} is not in a file")


def secret_numbers(key: PrivateKey) -> tuple[int, ...]:
    """Give the secret numbers of a key, as `assembled` takes them; for ssh-rsa the inverse of q is a fourth one."""
    reader = Reader(key.secret_fields())
    kind = key.public.key_type
    if kind == "ssh-ed25519":
        reader.string()
        return (int.from_bytes(reader.string()[:32], "big"),)
    if kind == "ssh-rsa":
        _, _, d, inverse, p, q = (reader.mpint() for _ in range(6))
        return (d, p, q, inverse)
    for _ in range(4 if kind == "ssh-dss" else 2):
        reader.string()
    return (reader.mpint(),)
