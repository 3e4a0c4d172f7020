"""Key exchange methods (RFC 4253 §7-8, RFC 4419, RFC 5656, RFC 8268, RFC 8731, draft-ietf-sshm-mlkem-hybrid-kex).

All of them look alike to the engine: the client makes an offer, the server responds, the client finishes, and both
hold the shared secret K, encoded as the exchange hash wants it. A share is the body of a string on the wire; for
Diffie-Hellman it is the body of the mpint, which is framed in the same way.

Shares are checked as THREATS R11 says; one that fails raises `NegotiationError`.
"""

from __future__ import annotations

import functools
import os
import warnings
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512, Hash

from dunnart.crypto.dh_groups import GENERATOR, GROUP_1, GROUP_14, GROUP_16, GROUP_18, GROUPS
from dunnart.errors import NegotiationError
from dunnart.wire.encoding import mpint, string

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.dh import (
        DHParameterNumbers,
        DHParameters,
        DHPrivateKey,
        DHPublicNumbers,
    )
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurve, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

HashName = Literal["sha1", "sha256", "sha384", "sha512"]

_HASHES: dict[str, HashAlgorithm] = {"sha1": SHA1(), "sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}
_hash = Hash.hash
_EXPONENT_BYTES = 64
_MIN_GROUP_BITS = 2048
_MAX_GROUP_BITS = 8192
_GOOD_GROUP_BITS = 3072
HASH_BYTES = {name: algorithm.digest_size for name, algorithm in _HASHES.items()}
"""How long an exchange hash is."""


class KeyAgreement(Protocol):
    """One way to agree on a secret; holds no state of an exchange.

    `expensive` says that `offer`, `respond` or `finish` takes more than about 200 µs.
    """

    @property
    def name(self) -> str:
        """The name in KEXINIT."""

    @property
    def hash_name(self) -> HashName:
        """The hash of the exchange and of the key derivation."""

    @property
    def expensive(self) -> bool:
        """Whether it should run off the event loop."""

    def offer(self) -> tuple[object, bytes]:
        """Client: make a private state to keep for `finish`, and the share to send."""

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        """Server: from the client's share make the share to send, and K as encoded for the exchange hash."""

    def finish(self, state: Any, share: bytes) -> bytes:  # noqa: ANN401 - each method has its own state
        """Client: from the state of `offer` and the server's share make K as encoded for the exchange hash."""


def exchange_hash(hash_name: HashName, data: bytes) -> bytes:
    """Hash the fields of an exchange (RFC 4253 §8)."""
    return _hash(_HASHES[hash_name], data)


def derive_key(
    hash_name: HashName, secret: bytes, exchange: bytes, letter: bytes, session_id: bytes, size: int
) -> bytes:
    """Derive key material (RFC 4253 §7.2).

    Args:
        hash_name: the hash of the key exchange method.
        secret: K as encoded for the exchange hash.
        exchange: the exchange hash H of this key exchange.
        letter: b"A" to b"F".
        session_id: the exchange hash of the first key exchange.
        size: bytes wanted.
    """
    algorithm = _HASHES[hash_name]
    seed = secret + exchange
    key = _hash(algorithm, seed + letter + session_id)
    while len(key) < size:
        key += _hash(algorithm, seed + key)
    return key[:size]


def _x25519(private: X25519PrivateKey, share: bytes) -> bytes:
    """Compute X25519; wrong lengths and an all-zero result are refused (RFC 7748 §6.1)."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(share))
    except ValueError as error:
        raise NegotiationError(f"bad X25519 share: {error}") from None


class Curve25519:
    """curve25519-sha256 (RFC 8731): a share is 32 bytes."""

    __slots__ = ("name",)

    hash_name: HashName = "sha256"
    expensive = False

    def __init__(self, name: str) -> None:
        self.name = name

    def offer(self) -> tuple[X25519PrivateKey, bytes]:
        """Client: make the private key and the share."""
        private = X25519PrivateKey.generate()
        return private, private.public_key().public_bytes_raw()

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        """Server: answer a share."""
        private = X25519PrivateKey.generate()
        secret = _x25519(private, share)
        return private.public_key().public_bytes_raw(), mpint(int.from_bytes(secret, "big"))

    def finish(self, state: X25519PrivateKey, share: bytes) -> bytes:
        """Client: compute K."""
        return mpint(int.from_bytes(_x25519(state, share), "big"))


class MlKem768X25519:
    """mlkem768x25519-sha256: an ML-KEM-768 encapsulation and X25519 side by side, both hashed into K.

    The client's share is the encapsulation key (1184 bytes) and its X25519 share, the server's the ciphertext
    (1088 bytes) and its X25519 share.
    """

    __slots__ = ()

    name = "mlkem768x25519-sha256"
    hash_name: HashName = "sha256"
    expensive = False

    _key_bytes = 1184
    _ciphertext_bytes = 1088

    def offer(self) -> tuple[tuple[MLKEM768PrivateKey, X25519PrivateKey], bytes]:
        """Client: make both private keys and the share."""
        kem = MLKEM768PrivateKey.generate()
        private = X25519PrivateKey.generate()
        share = kem.public_key().public_bytes_raw() + private.public_key().public_bytes_raw()
        return (kem, private), share

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        """Server: answer a share."""
        size = self._key_bytes
        try:
            kem_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(share[:size]).encapsulate()
        except ValueError as error:
            raise NegotiationError(f"bad ML-KEM-768 key: {error}") from None
        private = X25519PrivateKey.generate()
        secret = _x25519(private, share[size:])
        return (
            ciphertext + private.public_key().public_bytes_raw(),
            string(_hash(_HASHES["sha256"], kem_secret + secret)),
        )

    def finish(self, state: tuple[MLKEM768PrivateKey, X25519PrivateKey], share: bytes) -> bytes:
        """Client: compute K."""
        kem, private = state
        size = self._ciphertext_bytes
        try:
            kem_secret = kem.decapsulate(share[:size])
        except ValueError as error:
            raise NegotiationError(f"bad ML-KEM-768 ciphertext: {error}") from None
        return string(_hash(_HASHES["sha256"], kem_secret + _x25519(private, share[size:])))


class Ecdh:
    """ecdh-sha2-nistp256, -384 and -521 (RFC 5656 §4): a share is an uncompressed point."""

    __slots__ = ("_bits", "expensive", "hash_name", "name")

    def __init__(self, bits: int, hash_name: HashName) -> None:
        self.name = f"ecdh-sha2-nistp{bits}"
        self.hash_name: HashName = hash_name
        self.expensive = bits > 256  # measured: 70 µs for P-256, 590 µs for the others
        self._bits = bits

    def _curve(self) -> EllipticCurve:
        from cryptography.hazmat.primitives.asymmetric import ec  # not used by default

        curves: dict[int, EllipticCurve] = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
        return curves[self._bits]

    def _secret(self, private: EllipticCurvePrivateKey, share: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric import ec  # not used by default

        if len(share) != 1 + 2 * ((self._bits + 7) // 8) or share[0] != 4:  # SEC 1 §2.3.3
            raise NegotiationError("ECDH share is not an uncompressed point of this curve")
        try:
            public = ec.EllipticCurvePublicKey.from_encoded_point(private.curve, share)
            secret = private.exchange(ec.ECDH(), public)
        except ValueError as error:
            raise NegotiationError(f"bad ECDH share: {error}") from None
        return mpint(int.from_bytes(secret, "big"))

    @staticmethod
    def _share(private: EllipticCurvePrivateKey) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def offer(self) -> tuple[EllipticCurvePrivateKey, bytes]:
        """Client: make the private key and the share."""
        from cryptography.hazmat.primitives.asymmetric import ec  # not used by default

        private = ec.generate_private_key(self._curve())
        return private, self._share(private)

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        """Server: answer a share."""
        private, own_share = self.offer()
        return own_share, self._secret(private, share)

    def finish(self, state: EllipticCurvePrivateKey, share: bytes) -> bytes:
        """Client: compute K."""
        return self._secret(state, share)


@functools.cache
def _dh_classes() -> tuple[type[DHParameterNumbers], type[DHPublicNumbers]]:
    """Fetch pyca's classes for Diffie-Hellman, which warns on that, once, that it will drop them some day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cryptography.hazmat.primitives.asymmetric.dh import (  # not used by default
            DHParameterNumbers,
            DHPublicNumbers,
        )
    return DHParameterNumbers, DHPublicNumbers


@functools.cache
def _dh_parameters(p: int) -> DHParameters:
    numbers, _ = _dh_classes()
    return numbers(p, GENERATOR).parameters()


class _PrimeField:
    """What both implementations of Diffie-Hellman in a prime field (RFC 4253 §8) have in common.

    A share is the body of the mpint e or f.
    """

    __slots__ = ("g", "hash_name", "name", "p")

    expensive = True

    def __init__(self, name: str, hash_name: HashName, p: int, g: int = GENERATOR) -> None:
        self.name = name
        self.hash_name: HashName = hash_name
        self.p = p
        self.g = g

    def _public_value(self, share: bytes) -> int:
        # The length first: no number is made of more bytes than p has.
        if len(share) <= self.p.bit_length() // 8 + 1:
            value = int.from_bytes(share, "big", signed=True)
            if 2 <= value <= self.p - 2:  # RFC 4253 §8 and THREATS R11
                return value
        raise NegotiationError("Diffie-Hellman share is outside 2..p-2")


class DiffieHellman(_PrimeField):
    """Diffie-Hellman in one of the groups of RFC 3526, by OpenSSL.

    It is ten times as fast there as `pow` and keeps the exponent out of its timing; exponents have
    twice the bits of the group's strength.
    """

    __slots__ = ()

    def _secret(self, private: DHPrivateKey, share: bytes) -> bytes:
        numbers, public_numbers = _dh_classes()
        value = self._public_value(share)
        try:
            secret = private.exchange(public_numbers(value, numbers(self.p, self.g)).public_key())
        except ValueError as error:
            raise NegotiationError(f"bad Diffie-Hellman share: {error}") from None
        return mpint(int.from_bytes(secret, "big"))

    def offer(self) -> tuple[DHPrivateKey, bytes]:
        """Client: make the private key and the share."""
        private = _dh_parameters(self.p).generate_private_key()
        return private, mpint(private.public_key().public_numbers().y)[4:]

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        """Server: answer a share."""
        private, own_share = self.offer()
        return own_share, self._secret(private, share)

    def finish(self, state: DHPrivateKey, share: bytes) -> bytes:
        """Client: compute K."""
        return self._secret(state, share)


class DiffieHellmanAnyGroup(_PrimeField):
    """Diffie-Hellman in a group OpenSSL does not know: group 1, and what a server chose in a group exchange.

    OpenSSL would test the prime each time, which takes 40 ms for 1024 bits and grows with the fourth power. Exponents
    have 512 bits, twice the strength of the strongest hash.
    """

    __slots__ = ()

    def _secret(self, exponent: int, share: bytes) -> bytes:
        secret = pow(self._public_value(share), exponent, self.p)
        if not 1 < secret < self.p - 1:
            raise NegotiationError("Diffie-Hellman share is of a small subgroup")
        return mpint(secret)

    def offer(self) -> tuple[int, bytes]:
        """Client: make the private exponent and the share."""
        exponent = int.from_bytes(os.urandom(_EXPONENT_BYTES), "big") | 1 << (8 * _EXPONENT_BYTES - 1)
        return exponent, mpint(pow(self.g, exponent, self.p))[4:]

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        """Server: answer a share."""
        exponent, own_share = self.offer()
        return own_share, self._secret(exponent, share)

    def finish(self, state: int, share: bytes) -> bytes:
        """Client: compute K."""
        return self._secret(state, share)


class GroupExchange:
    """diffie-hellman-group-exchange-* (RFC 4419): the client says how large a group it wants, the server picks one."""

    __slots__ = ("hash_name", "name")

    def __init__(self, name: str, hash_name: HashName) -> None:
        self.name = name
        self.hash_name: HashName = hash_name

    def choose_group(self, minimum: int, preferred: int, maximum: int) -> tuple[int, int]:
        """Server: choose the prime and generator for a client's request, in bits.

        The smallest group of at least `preferred` and 3072 bits; else the largest the request allows.

        Raises:
            NegotiationError: no group of 2048 to 8192 bits lies in the range, or it contradicts itself.
        """
        if minimum <= preferred <= maximum:
            allowed = [bits for bits in GROUPS if minimum <= bits <= maximum]
            if allowed:
                wanted = max(preferred, _GOOD_GROUP_BITS)
                return GROUPS[next((bits for bits in allowed if bits >= wanted), allowed[-1])], GENERATOR
        raise NegotiationError(f"no group for {minimum} <= {preferred} <= {maximum} bits")

    def group(self, p: int, g: int) -> KeyAgreement:
        """Both: the exchange within a group, which the client gets from the server and therefore checks.

        Raises:
            NegotiationError: `p` is not an odd number of 2048 to 8192 bits, or `g` is not in 2..p-2.
        """
        if not _MIN_GROUP_BITS <= p.bit_length() <= _MAX_GROUP_BITS or p < 0 or p % 2 == 0:
            raise NegotiationError(f"unusable Diffie-Hellman prime of {p.bit_length()} bits")
        if not 2 <= g <= p - 2:  # RFC 4419 §3
            raise NegotiationError("unusable Diffie-Hellman generator")
        if g == GENERATOR and GROUPS.get(p.bit_length()) == p:
            return DiffieHellman(self.name, self.hash_name, p)
        return DiffieHellmanAnyGroup(self.name, self.hash_name, p, g)


KexMethod = KeyAgreement | GroupExchange

_METHODS: tuple[KexMethod, ...] = (
    MlKem768X25519(),
    Curve25519("curve25519-sha256"),
    Curve25519("curve25519-sha256@libssh.org"),
    Ecdh(256, "sha256"),
    Ecdh(384, "sha384"),
    Ecdh(521, "sha512"),
    DiffieHellman("diffie-hellman-group14-sha256", "sha256", GROUP_14),
    DiffieHellman("diffie-hellman-group16-sha512", "sha512", GROUP_16),
    DiffieHellman("diffie-hellman-group18-sha512", "sha512", GROUP_18),
    GroupExchange("diffie-hellman-group-exchange-sha256", "sha256"),
    DiffieHellman("diffie-hellman-group14-sha1", "sha1", GROUP_14),
    DiffieHellmanAnyGroup("diffie-hellman-group1-sha1", "sha1", GROUP_1),
    GroupExchange("diffie-hellman-group-exchange-sha1", "sha1"),
)
KEX_METHODS: dict[str, KexMethod] = {method.name: method for method in _METHODS}

_KERBEROS = "-toWM5Slw5Ew8Mqkay+al2g=="  # RFC 4462 §2.3: base64 of MD5 of the DER form of Kerberos' OID
_WITH_GSSAPI = {
    "curve25519-sha256": "gss-curve25519-sha256",
    "ecdh-sha2-nistp256": "gss-nistp256-sha256",
    "ecdh-sha2-nistp384": "gss-nistp384-sha384",
    "ecdh-sha2-nistp521": "gss-nistp521-sha512",
    "diffie-hellman-group14-sha256": "gss-group14-sha256",
    "diffie-hellman-group16-sha512": "gss-group16-sha512",
    "diffie-hellman-group18-sha512": "gss-group18-sha512",
}
GSSAPI_METHODS: dict[str, KeyAgreement] = {
    name + _KERBEROS: method for plain, name in _WITH_GSSAPI.items() if not isinstance(method := KEX_METHODS[plain],
                                                                                       GroupExchange)
}  # fmt: skip
"""How a key is agreed on where a GSS-API mechanism proves the server instead of a host key (RFC 8732), by its name."""


def with_gssapi(names: tuple[str, ...]) -> tuple[str, ...]:
    """Which of these methods, in their order, can be had with Kerberos, under which names."""
    return tuple(_WITH_GSSAPI[name] + _KERBEROS for name in names if name in _WITH_GSSAPI)
