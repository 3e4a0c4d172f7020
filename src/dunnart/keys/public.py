"""SSH public keys: decoding, checking, printing, and verifying signatures (RFC 4253 §6.6, 5656, 8332, 8709).

What a peer sends is checked here before the crypto library sees it: lengths, the RSA modulus and exponent, points on
the curve, no trailing bytes (THREATS R11, R13). A `PublicKey` keeps its wire form and little else: the library's key
object is built when the first signature is verified, so a long authorized_keys file loads no crypto module.

RSA, ECDSA and DSA are imported when first needed: a server that has met no such key saves 0.6 MiB PSS.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from dunnart.errors import DecodeError, KeyFormatError
from dunnart.wire.encoding import Reader, mpint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.dsa import DSAPublicKey
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurve, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192
CERTIFICATE_SUFFIX = "-cert-v01@openssh.com"
_LONGEST_NAME = 64  # RFC 4251 §6


class SignatureError(KeyFormatError):
    """A signature is malformed, by another algorithm than was promised, or wrong."""


class SkDetails(NamedTuple):
    """What a FIDO authenticator signed beside the data; whether it suffices is for the caller to decide.

    sshd refuses a signature without `user_present` unless the key's line says no-touch-required: so must a caller.
    """

    flags: int
    counter: int

    @property
    def user_present(self) -> bool:
        """The user touched the authenticator."""
        return bool(self.flags & 0x01)

    @property
    def user_verified(self) -> bool:
        """The authenticator checked a PIN or a fingerprint."""
        return bool(self.flags & 0x04)


class PublicKey:
    """A public key of any type; make one with `decode` or `parse_line`. Equal and hashed by `blob`.

    Attributes:
        key_type: "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com", …
        blob: the wire form (RFC 4253 §6.6), which begins with the type.
    """

    __slots__ = ("blob", "key_type")

    def __init__(self, key_type: str, blob: bytes) -> None:
        self.key_type: Final = key_type
        self.blob: Final = blob

    @classmethod
    def decode(cls, blob: bytes) -> PublicKey:
        """Read a key in wire form.

        Raises:
            KeyFormatError: it is malformed, weak, or of an unsupported type.
        """
        reader = Reader(blob)
        try:
            key_type = _read_type(reader)
            kind = _TYPES[key_type]
            kind._check(key_type, reader)  # noqa: SLF001 - its own subclass
            reader.end()
        except DecodeError as error:
            raise KeyFormatError(f"malformed public key: {error}") from error
        return kind(key_type, bytes(blob))

    @classmethod
    def parse_line(cls, text: str) -> tuple[PublicKey, str]:
        """Read a line as in a .pub file, "type base64 comment"; return the key and its comment ("" if there is none).

        Raises:
            KeyFormatError: it is no such line, or the key is malformed, weak, or of an unsupported type.
        """
        key_type, blob, comment = split_line(text)
        key = cls.decode(blob)
        if key.key_type != key_type:
            raise KeyFormatError(f"the line says {_shown(key_type)}, the key itself {key.key_type}")
        return key, comment

    @property
    def signature_algorithms(self) -> tuple[str, ...]:
        """The signature algorithms such a key can make, best first."""
        return (self.key_type,)

    @property
    def rsa_bits(self) -> int:
        """How large an RSA key is; 0 for other keys."""
        return 0

    def verify(self, algorithm: str, signature: bytes, data: bytes) -> SkDetails | None:
        """Check a signature in wire form ("string label, string signature, …") over `data`.

        Args:
            algorithm: the algorithm that was announced; the signature's own label must be the same.
            signature: the signature blob.
            data: what was signed.

        Returns:
            What a FIDO authenticator said beside, None for other keys.

        Raises:
            SignatureError: the signature is not a good one by this key, algorithm and data.
        """
        if algorithm not in self.signature_algorithms:
            raise SignatureError(f"{_shown(algorithm)} is no signature algorithm of a {self.key_type} key")
        reader = Reader(signature)
        try:
            label = reader.string()
            if label != algorithm.encode():
                raise SignatureError(f"signature labelled {_shown(label)}, {algorithm} expected")
            value = reader.string()
            details = self._read_details(reader)
            reader.end()
            self._verify(algorithm, value, data, details)
        except DecodeError as error:
            raise SignatureError(f"malformed signature: {error}") from error
        except (InvalidSignature, ValueError) as error:  # ValueError: a key that the library itself refuses
            raise SignatureError(f"wrong {algorithm} signature") from error
        return details

    def fingerprint(self) -> str:
        """Give the fingerprint as ssh-keygen -l prints it: "SHA256:" and unpadded base64."""
        return fingerprint(self.blob)

    def line(self, comment: str = "") -> str:
        """Give the line of a .pub file, without a line end."""
        return format_line(self.key_type, self.blob, comment)

    def __eq__(self, other: object) -> bool:
        return self.blob == other.blob if isinstance(other, PublicKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.blob)

    def __repr__(self) -> str:
        return f"<{self.key_type} {self.fingerprint()}>"

    @classmethod
    def _check(cls, key_type: str, reader: Reader) -> None:
        """Read the fields after the type; raise `KeyFormatError` or `DecodeError` unless they make a sound key."""
        raise NotImplementedError

    def _fields(self) -> Reader:
        """Give a reader that stands behind the type."""
        reader = Reader(self.blob)
        reader.string()
        return reader

    def _read_details(self, _reader: Reader) -> SkDetails | None:
        """Read what follows the signature's value."""
        return None

    def _verify(self, algorithm: str, value: bytes, data: bytes, details: SkDetails | None) -> None:
        """Raise `InvalidSignature`, `ValueError` or `DecodeError` unless `value` signs `data`."""
        raise NotImplementedError


class _Ed25519(PublicKey):
    """RFC 8709: string pk."""

    __slots__ = ("_loaded",)

    def __init__(self, key_type: str, blob: bytes) -> None:
        super().__init__(key_type, blob)
        self._loaded: Ed25519PublicKey | None = None

    @classmethod
    def _check(cls, _key_type: str, reader: Reader) -> None:
        point = reader.string()
        if len(point) != 32:  # RFC 8709 §4
            raise KeyFormatError(f"an Ed25519 key has 32 bytes, not {len(point)}")
        y = int.from_bytes(point, "little") & ((1 << 255) - 1)
        if y >= _P25519 or y in _SMALL_ORDER:
            raise KeyFormatError("an Ed25519 key of small order or in a non-canonical form")

    def _verify(self, _algorithm: str, value: bytes, data: bytes, _details: SkDetails | None) -> None:
        # OpenSSL refuses points off the curve and S >= L (RFC 8032 §5.1.7); tests hold it to that.
        if self._loaded is None:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

            self._loaded = Ed25519PublicKey.from_public_bytes(self._fields().string())
        self._loaded.verify(value, data)


class _Rsa(PublicKey):
    """RFC 4253 §6.6: mpint e, mpint n; signatures by RFC 8332."""

    __slots__ = ("_loaded",)

    def __init__(self, key_type: str, blob: bytes) -> None:
        super().__init__(key_type, blob)
        self._loaded: RSAPublicKey | None = None

    @classmethod
    def _check(cls, _key_type: str, reader: Reader) -> None:
        exponent, modulus = _positive(reader), _positive(reader)
        if not RSA_BITS_MIN <= modulus.bit_length() <= RSA_BITS_MAX:
            raise KeyFormatError(
                f"an RSA key of {modulus.bit_length()} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are allowed"
            )
        if not 3 <= exponent < 1 << 64 or not exponent & 1 or not modulus & 1:
            raise KeyFormatError("an RSA key with an impossible exponent or an even modulus")

    @property
    def signature_algorithms(self) -> tuple[str, ...]:
        return RSA_ALGORITHMS

    @property
    def rsa_bits(self) -> int:
        fields = self._fields()
        fields.mpint()
        return fields.mpint().bit_length()

    def _verify(self, algorithm: str, value: bytes, data: bytes, _details: SkDetails | None) -> None:
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        if self._loaded is None:
            fields = self._fields()
            exponent, modulus = fields.mpint(), fields.mpint()
            self._loaded = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        # RFC 8332 §3: as long as the modulus. Some peers strip leading zeros, one signature in 256; sshd pads as well.
        padded = value.rjust((self._loaded.key_size + 7) // 8, b"\0")
        self._loaded.verify(padded, data, padding.PKCS1v15(), rsa_hash(algorithm))


class _Ecdsa(PublicKey):
    """RFC 5656 §3.1: string curve, string Q; the signature's value is mpint r, mpint s."""

    __slots__ = ("_loaded",)

    def __init__(self, key_type: str, blob: bytes) -> None:
        super().__init__(key_type, blob)
        self._loaded: EllipticCurvePublicKey | None = None

    @classmethod
    def _check(cls, key_type: str, reader: Reader) -> None:
        bits, prime, b = _CURVES[key_type]
        if reader.string() != b"nistp%d" % bits:
            raise KeyFormatError(f"another curve than nistp{bits} in a {key_type} key")
        point = reader.string()
        size = (bits + 7) // 8
        if len(point) != 1 + 2 * size or point[0] != 4:  # the uncompressed form, SEC 1 §2.3.3
            raise KeyFormatError(f"a nistp{bits} point has the uncompressed form and {1 + 2 * size} bytes")
        x, y = int.from_bytes(point[1 : 1 + size], "big"), int.from_bytes(point[1 + size :], "big")
        if x >= prime or y >= prime or (y * y - (x * x - 3) * x - b) % prime:
            raise KeyFormatError(f"a point that is not on nistp{bits}")

    def _verify(self, _algorithm: str, value: bytes, data: bytes, _details: SkDetails | None) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        reader = Reader(value)
        r, s = reader.mpint(), reader.mpint()
        reader.end()
        bits = _CURVES[self.key_type][0]
        # The library refuses values from the group's order on; negative and huge ones shall not even reach it.
        if not (0 < r < 1 << bits and 0 < s < 1 << bits):
            raise InvalidSignature
        if self._loaded is None:
            fields = self._fields()
            fields.string()
            self._loaded = ec.EllipticCurvePublicKey.from_encoded_point(ecdsa_curve(bits), fields.string())
        self._loaded.verify(encode_dss_signature(r, s), data, ec.ECDSA(ecdsa_hash(bits)))


class _Dss(PublicKey):
    """RFC 4253 §6.6: mpint p, q, g, y; the signature's value is r and s in 20 bytes each. Profile `legacy` only."""

    __slots__ = ("_loaded",)

    def __init__(self, key_type: str, blob: bytes) -> None:
        super().__init__(key_type, blob)
        self._loaded: DSAPublicKey | None = None

    @classmethod
    def _check(cls, _key_type: str, reader: Reader) -> None:
        p, q, g, y = (_positive(reader) for _ in range(4))
        if p.bit_length() != 1024 or q.bit_length() != 160 or (p - 1) % q:
            raise KeyFormatError("a DSA key that is not of 1024 and 160 bits")
        if not (1 < g < p - 1 and 1 < y < p - 1):
            raise KeyFormatError("a DSA key out of its range")

    def _verify(self, _algorithm: str, value: bytes, data: bytes, _details: SkDetails | None) -> None:
        from cryptography.hazmat.primitives.asymmetric import dsa
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        if len(value) != 40:  # RFC 4253 §6.6
            raise InvalidSignature
        if self._loaded is None:
            fields = self._fields()
            p, q, g, y = (fields.mpint() for _ in range(4))
            self._loaded = dsa.DSAPublicNumbers(y, dsa.DSAParameterNumbers(p, q, g)).public_key()
        r, s = int.from_bytes(value[:20], "big"), int.from_bytes(value[20:], "big")
        self._loaded.verify(encode_dss_signature(r, s), data, hashes.SHA1())


class _SkMixin(PublicKey):
    """FIDO keys (OpenSSH PROTOCOL.u2f): the plain key's fields, then string application.

    A signature goes on with byte flags, uint32 counter, and is made over
    sha256(application) || flags || counter || sha256(data).
    """

    __slots__ = ()

    @classmethod
    def _check(cls, key_type: str, reader: Reader) -> None:
        super()._check(key_type, reader)
        reader.string()

    def _read_details(self, reader: Reader) -> SkDetails | None:
        return SkDetails(reader.byte(), reader.uint32())

    def _verify(self, algorithm: str, value: bytes, data: bytes, details: SkDetails | None) -> None:
        assert details is not None  # _read_details made it
        fields = self._fields()
        application = b""
        while fields.remaining:
            application = fields.string()  # the last one
        said = bytes((details.flags,)) + details.counter.to_bytes(4, "big")
        super()._verify(algorithm, value, _sha256(application) + said + _sha256(data), details)


class _SkEd25519(_SkMixin, _Ed25519):
    """string pk, string application."""

    __slots__ = ()


class _SkEcdsa(_SkMixin, _Ecdsa):
    """string curve, string Q, string application."""

    __slots__ = ()


RSA_ALGORITHMS = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")

_TYPES: dict[str, type[PublicKey]] = {
    "ssh-ed25519": _Ed25519,
    "ecdsa-sha2-nistp256": _Ecdsa,
    "ecdsa-sha2-nistp384": _Ecdsa,
    "ecdsa-sha2-nistp521": _Ecdsa,
    "ssh-rsa": _Rsa,
    "sk-ssh-ed25519@openssh.com": _SkEd25519,
    "sk-ecdsa-sha2-nistp256@openssh.com": _SkEcdsa,
    "ssh-dss": _Dss,
}
KEY_TYPES = tuple(_TYPES)
"""Every key type that `PublicKey.decode` knows."""

# Prime and b of y² = x³ - 3x + b (FIPS 186-4 §D.1.2): checking a point takes 2 µs and no 0.7 MiB of library.
_P256 = (
    256,
    2**256 - 2**224 + 2**192 + 2**96 - 1,
    0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
)
_CURVES: dict[str, tuple[int, int, int]] = {
    "ecdsa-sha2-nistp256": _P256,
    "sk-ecdsa-sha2-nistp256@openssh.com": _P256,
    "ecdsa-sha2-nistp384": (
        384,
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    ),
    "ecdsa-sha2-nistp521": (
        521,
        2**521 - 1,
        int(
            "051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E1"
            "56193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00",
            16,
        ),
    ),
}

_P25519 = 2**255 - 19
# The y of the points of order 1, 2, 4 and 8 (RFC 7748 §4.1): anyone can sign for such a key.
_SMALL_ORDER = frozenset(
    (
        0,
        1,
        _P25519 - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        _P25519 - 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    ),
)


def _read_type(reader: Reader) -> str:
    """Read a key's type name; raise `KeyFormatError` if it is none of ours."""
    name = reader.string()
    try:
        key_type = name.decode("ascii")
    except UnicodeDecodeError:
        raise KeyFormatError(f"unsupported key type {_shown(name)}") from None
    if key_type.endswith(CERTIFICATE_SUFFIX):
        raise KeyFormatError(f"{_shown(key_type)}: a certificate where a plain key is wanted")
    if key_type not in _TYPES:
        raise KeyFormatError(f"unsupported key type {_shown(key_type)}")
    return key_type


def split_line(text: str) -> tuple[str, bytes, str]:
    """Split "type base64 comment" into the type as written, the blob and the comment."""
    parts = text.split(None, 2)
    if len(parts) < 2:
        raise KeyFormatError("not a public key line: type and base64 wanted")
    try:
        blob = binascii.a2b_base64(parts[1], strict_mode=True)
    except ValueError as error:  # also what is not ASCII
        raise KeyFormatError(f"the key's base64 is broken: {error}") from error
    return parts[0], blob, parts[2].strip() if len(parts) > 2 else ""


def format_line(key_type: str, blob: bytes, comment: str) -> str:
    """Give "type base64 comment"."""
    return f"{key_type} {binascii.b2a_base64(blob, newline=False).decode()} {comment}".rstrip()


def fingerprint(blob: bytes) -> str:
    """Give "SHA256:" and the unpadded base64 of the hash of `blob`."""
    return "SHA256:" + binascii.b2a_base64(_sha256(blob), newline=False).decode().rstrip("=")


def rsa_hash(algorithm: str) -> hashes.HashAlgorithm:
    """Give the hash of an RSA signature algorithm (RFC 8332 §3)."""
    if algorithm == "rsa-sha2-512":
        return hashes.SHA512()
    if algorithm == "rsa-sha2-256":
        return hashes.SHA256()
    return hashes.SHA1()  # ssh-rsa, which profiles but `legacy` do not offer


def ecdsa_hash(bits: int) -> hashes.HashAlgorithm:
    """Give the hash that goes with a curve (RFC 5656 §6.2.1)."""
    return hashes.SHA256() if bits == 256 else hashes.SHA384() if bits == 384 else hashes.SHA512()


def ecdsa_curve(bits: int) -> EllipticCurve:
    """Give the library's curve."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.SECP256R1() if bits == 256 else ec.SECP384R1() if bits == 384 else ec.SECP521R1()


def _positive(reader: Reader) -> int:
    """Read an mpint that is positive and in its shortest form: keys are compared by their bytes."""
    value = reader.string()
    number = int.from_bytes(value, "big", signed=True)
    if number <= 0 or mpint(number)[4:] != value:
        raise KeyFormatError("a number that is not positive, or not in its shortest form")
    return number


def _sha256(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def _shown(name: str | bytes) -> str:
    return repr(name[:_LONGEST_NAME])
