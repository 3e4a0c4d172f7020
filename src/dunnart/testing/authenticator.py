"""A FIDO authenticator in software, after OpenSSH's PROTOCOL.u2f: it signs for sk- keys as a token would."""

from __future__ import annotations

from typing import Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from dunnart.keys.public import PublicKey
from dunnart.wire.encoding import byte, mpint, string, text, uint32

TOUCHED = 0x01
VERIFIED = 0x04


class Authenticator:
    """One key on a token.

    Args:
        kind: the algorithm.
        application: what the key was made for.

    Attributes:
        public: its public half.
        flags: what it says of its user: TOUCHED, VERIFIED.
        counter: signatures so far.
    """

    def __init__(self, kind: Literal["ed25519", "ecdsa"], application: bytes = b"ssh:") -> None:
        self._application = application
        self._key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
        if kind == "ed25519":
            self._key = ed25519.Ed25519PrivateKey.generate()
            fields = text("sk-ssh-ed25519@openssh.com") + string(self._key.public_key().public_bytes_raw())
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            numbers = self._key.public_key().public_numbers()
            point = b"\4" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
            fields = text("sk-ecdsa-sha2-nistp256@openssh.com") + text("nistp256") + string(point)
        self.public = PublicKey.decode(fields + string(application))
        self.flags = TOUCHED
        self.counter = 0

    def sign(self, algorithm: str, data: bytes) -> bytes:
        """Make a signature blob."""
        self.counter += 1
        said = byte(self.flags) + uint32(self.counter)
        signed = _sha256(self._application) + said + _sha256(data)
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            value = self._key.sign(signed)
        else:
            r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
            value = mpint(r) + mpint(s)
        return text(algorithm) + string(value) + said


def _sha256(data: bytes) -> bytes:
    return hashes.Hash.hash(hashes.SHA256(), data)
