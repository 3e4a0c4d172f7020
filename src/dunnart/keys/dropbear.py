"""Private keys in Dropbear's own format: the fields as they go over the wire, neither encrypted nor with a comment.

Ed25519: string "ssh-ed25519", the seed and the public half as one string of 64 bytes.
RSA: string "ssh-rsa", mpint e, n, d, p, q.
ECDSA: string "ecdsa-sha2-nistp256", string "nistp256", string Q, mpint d; 384 and 521 likewise.
DSA: string "ssh-dss", mpint p, q, g, y, x.
"""

from __future__ import annotations

from dunnart.errors import DecodeError, KeyFormatError
from dunnart.keys.parts import assembled, secret_numbers
from dunnart.keys.private import PrivateKey
from dunnart.keys.public import PublicKey
from dunnart.wire.encoding import Reader, mpint, string, text

_SEED_BYTES = 32


def is_dropbear(data: bytes) -> bool:
    """Whether a file begins as Dropbear's private keys do."""
    return data[:3] == b"\0\0\0" and data[4:].startswith((b"ssh-", b"ecdsa-sha2-"))


def from_dropbear(data: bytes) -> PrivateKey:
    """Read a private key.

    Raises:
        KeyFormatError: it is damaged, weak, or of an unsupported type.
    """
    reader = Reader(data)
    try:
        kind = reader.text()
        if kind == "ssh-ed25519":
            pair = reader.string()
            if len(pair) != 2 * _SEED_BYTES:
                raise KeyFormatError(f"damaged Dropbear private key: {len(pair)} bytes where 64 are wanted")
            blob, secret = text(kind) + string(pair[_SEED_BYTES:]), (int.from_bytes(pair[:_SEED_BYTES], "big"),)
        elif kind == "ssh-rsa":
            blob = text(kind) + string(reader.string()) + string(reader.string())
            if not (d := reader.mpint()) or not reader.remaining:
                raise KeyFormatError("an RSA key without its primes, as Dropbear wrote before 2003; make a new one")
            secret = (d, reader.mpint(), reader.mpint())  # type: ignore[assignment] # of another length
        elif kind.startswith("ecdsa-sha2-nistp"):
            blob, secret = text(kind) + string(reader.string()) + string(reader.string()), (reader.mpint(),)
        elif kind == "ssh-dss":
            blob = text(kind) + b"".join(string(reader.string()) for _ in range(4))
            secret = (reader.mpint(),)
        else:
            raise KeyFormatError(f"a Dropbear private key of the unsupported type {kind!r}")
        reader.end()
    except DecodeError as error:
        raise KeyFormatError(f"damaged Dropbear private key: {error}") from error
    return assembled(PublicKey.decode(blob), *secret)


def to_dropbear(key: PrivateKey) -> bytes:
    """Give a private key as Dropbear keeps it; the format has neither passphrase nor comment."""
    secret = secret_numbers(key)
    if key.public.key_type == "ssh-ed25519":
        pair = secret[0].to_bytes(_SEED_BYTES, "big") + key.public.blob[-_SEED_BYTES:]
        return text("ssh-ed25519") + string(pair)
    return key.public.blob + b"".join(map(mpint, secret[:3]))
