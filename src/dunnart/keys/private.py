"""SSH private keys: making, reading, writing, and signing (RFC 4253 §6.6; file format: OpenSSH PROTOCOL.key).

Everything is read through cryptography's serializers, save one case: an Ed25519 key in an unencrypted OpenSSH file,
which is what a server's host key mostly is. Beside all that a running server has loaded, the serialization module costs
0.8 MiB PSS and 5 ms (3.2 MiB and 23 ms by itself), reading that one case by hand under 0.1 MiB and 0.1 ms.
OpenSSH files are written by hand, since the library cannot write a comment.
"""

from __future__ import annotations

import binascii
import os
from typing import TYPE_CHECKING, Final, Literal

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm

from dunnart.errors import DecodeError, KeyFormatError, KeyLocked, LocalProtocolError
from dunnart.keys.public import PublicKey, ecdsa_curve, ecdsa_hash, rsa_hash
from dunnart.wire.encoding import Reader, mpint, string, text, uint32

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.dsa import DSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_MAGIC = b"openssh-key-v1\0"
_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_END = b"-----END OPENSSH PRIVATE KEY-----"
_SEED_BYTES = 32
BCRYPT_ROUNDS = 24  # what ssh-keygen uses since OpenSSH 9.4
_LARGEST_FILE = 1 << 20


class PrivateKey:
    """A key that can sign; make one with `generate` or `load`.

    Attributes:
        public: the public half.
        slow: signing takes over 0.2 ms (RSA 1 ms and more), so an event loop should leave it to a thread.
    """

    __slots__ = ("public", "slow")

    def __init__(self, public: PublicKey, *, slow: bool) -> None:
        self.public: Final = public
        self.slow: Final = slow

    @classmethod
    def generate(cls, kind: Literal["ed25519", "rsa", "ecdsa"], bits: int | None = None) -> PrivateKey:
        """Make a new key.

        Args:
            kind: the kind of key.
            bits: for rsa 2048 to 8192, default 3072; for ecdsa 256, 384 or 521, default 256; for ed25519 none.

        Raises:
            KeyFormatError: there is no such kind or size.
        """
        if kind == "ed25519" and bits is None:
            return _Ed25519(os.urandom(_SEED_BYTES))
        if kind == "rsa" and (bits is None or 2048 <= bits <= 8192):
            from cryptography.hazmat.primitives.asymmetric import rsa

            return _Rsa(rsa.generate_private_key(65537, bits or 3072))
        if kind == "ecdsa" and bits in {None, 256, 384, 521}:
            from cryptography.hazmat.primitives.asymmetric import ec

            return _Ecdsa(ec.generate_private_key(ecdsa_curve(bits or 256)))
        raise KeyFormatError(f"no such key: {kind}" if bits is None else f"no {kind} key of {bits} bits")

    @classmethod
    def load(cls, data: bytes, passphrase: str | bytes | None = None) -> PrivateKey:
        """Read a private key file: OpenSSH's own format, PKCS#8, traditional PEM, PuTTY's or Dropbear's, locked or not.

        Args:
            data: the file's content.
            passphrase: what unlocks it; not used if the file is not encrypted.

        Raises:
            KeyFormatError: it is locked, damaged, weak, no private key, or of an unsupported type.
        """
        if len(data) > _LARGEST_FILE:
            raise KeyFormatError("not a private key: the file is over 1 MiB")
        if _BEGIN in data:
            key = _plain_ed25519(data)
            if key is not None:
                return key
        password = passphrase.encode() if isinstance(passphrase, str) else passphrase
        if data[:3] == b"\0\0\0":
            from dunnart.keys.dropbear import from_dropbear, is_dropbear

            if is_dropbear(data):
                return from_dropbear(data)
        if data[:6] == b"PuTTY-":
            from dunnart.keys.putty import from_putty

            return from_putty(data, password)
        return _load_by_library(data, password)

    @classmethod
    def load_or_generate(
        cls, path: str | os.PathLike[str], kind: Literal["ed25519", "rsa", "ecdsa"] = "ed25519"
    ) -> PrivateKey:
        """Read the key in a file; the first time, make it there, readable for nobody else (mode 0600).

        Args:
            path: the file; its folder must be there.
            kind: the kind of key to make.

        Raises:
            ConfigError: the file cannot be made, or is damaged, locked or open to others; says what to do.
        """
        from dunnart.keys.files import read_or_make_private_key

        return read_or_make_private_key(os.fspath(path), kind)

    @property
    def signature_algorithms(self) -> tuple[str, ...]:
        """The signature algorithms this key can make, best first."""
        return self.public.signature_algorithms

    def sign(self, algorithm: str, data: bytes) -> bytes:
        """Sign `data`; the result is a signature blob, "string algorithm, string signature".

        Raises:
            LocalProtocolError: `algorithm` is none of `signature_algorithms`.
        """
        raise NotImplementedError

    def openssh(
        self, comment: str = "", passphrase: str | bytes | None = None, *, rounds: int = BCRYPT_ROUNDS
    ) -> bytes:
        """Give the key as a file in OpenSSH's format, encrypted (bcrypt, aes256-ctr) if there is a passphrase.

        More `rounds` make guessing the passphrase slower, and each use of the key too.

        Give a comment to a key that paramiko is to read: every other ECDSA key without one, as ssh-keygen writes it
        too, needs no padding, and paramiko takes the comment's empty end for damaged padding.
        """
        check = os.urandom(4)
        secret = check + check + text(self.public.key_type) + self.secret_fields() + text(comment)
        cipher, kdf, options = "none", "none", b""
        if passphrase:
            cipher, kdf, salt = "aes256-ctr", "bcrypt", os.urandom(16)
            options = string(salt) + uint32(rounds)
            secret = _encrypt(_padded(secret, 16), passphrase, salt, rounds)
        else:
            secret = _padded(secret, 8)
        whole = b"".join(
            (_MAGIC, text(cipher), text(kdf), string(options), uint32(1), string(self.public.blob), string(secret)),
        )
        encoded = binascii.b2a_base64(whole, newline=False)
        lines = [encoded[start : start + 70] for start in range(0, len(encoded), 70)]
        return b"\n".join((_BEGIN, *lines, _END, b""))

    def __repr__(self) -> str:
        return f"<private {self.public!r}>"

    def secret_fields(self) -> bytes:
        """Give the key's fields in the agent's form (draft-ietf-sshm-ssh-agent §3.2), after the type."""
        raise NotImplementedError


class _Ed25519(PrivateKey):
    __slots__ = ("_loaded", "_prefix", "_seed")

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._seed = seed
        self._loaded: Ed25519PrivateKey = Ed25519PrivateKey.from_private_bytes(seed)
        self._prefix = text("ssh-ed25519") + uint32(64)
        raw = self._loaded.public_key().public_bytes_raw()
        super().__init__(PublicKey.decode(text("ssh-ed25519") + string(raw)), slow=False)

    def sign(self, algorithm: str, data: bytes) -> bytes:
        if algorithm != "ssh-ed25519":
            raise _no_such_algorithm(self, algorithm)
        return self._prefix + self._loaded.sign(data)

    def secret_fields(self) -> bytes:
        raw = self._loaded.public_key().public_bytes_raw()
        return string(raw) + string(self._seed + raw)


class _Rsa(PrivateKey):
    __slots__ = ("_loaded",)

    def __init__(self, loaded: RSAPrivateKey) -> None:
        self._loaded = loaded
        numbers = loaded.public_key().public_numbers()
        super().__init__(PublicKey.decode(text("ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)), slow=True)

    def sign(self, algorithm: str, data: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        if algorithm not in self.signature_algorithms:
            raise _no_such_algorithm(self, algorithm)
        return text(algorithm) + string(self._loaded.sign(data, PKCS1v15(), rsa_hash(algorithm)))

    def secret_fields(self) -> bytes:
        numbers = self._loaded.private_numbers()
        public = numbers.public_numbers
        return b"".join(map(mpint, (public.n, public.e, numbers.d, numbers.iqmp, numbers.p, numbers.q)))


class _Ecdsa(PrivateKey):
    __slots__ = ("_bits", "_loaded")

    def __init__(self, loaded: EllipticCurvePrivateKey) -> None:
        self._loaded = loaded
        self._bits = loaded.curve.key_size
        name = f"nistp{self._bits}"
        numbers = loaded.public_key().public_numbers()
        size = (self._bits + 7) // 8
        point = b"\x04" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")
        blob = text(f"ecdsa-sha2-{name}") + text(name) + string(point)
        super().__init__(PublicKey.decode(blob), slow=self._bits > 256)

    def sign(self, algorithm: str, data: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        if algorithm != self.public.key_type:
            raise _no_such_algorithm(self, algorithm)
        r, s = decode_dss_signature(self._loaded.sign(data, ECDSA(ecdsa_hash(self._bits))))
        return text(algorithm) + string(mpint(r) + mpint(s))

    def secret_fields(self) -> bytes:
        reader = Reader(self.public.blob)
        reader.string()
        return reader.rest() + mpint(self._loaded.private_numbers().private_value)


class _Dss(PrivateKey):
    """For `legacy` host keys; never generated."""

    __slots__ = ("_loaded",)

    def __init__(self, loaded: DSAPrivateKey) -> None:
        self._loaded = loaded
        public = loaded.public_key().public_numbers()
        group = public.parameter_numbers
        blob = text("ssh-dss") + b"".join(map(mpint, (group.p, group.q, group.g, public.y)))
        super().__init__(PublicKey.decode(blob), slow=True)

    def sign(self, algorithm: str, data: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA1

        if algorithm != "ssh-dss":
            raise _no_such_algorithm(self, algorithm)
        r, s = decode_dss_signature(self._loaded.sign(data, SHA1()))
        return text(algorithm) + string(r.to_bytes(20, "big") + s.to_bytes(20, "big"))

    def secret_fields(self) -> bytes:
        reader = Reader(self.public.blob)
        reader.string()
        return reader.rest() + mpint(self._loaded.private_numbers().x)


def _no_such_algorithm(key: PrivateKey, algorithm: str) -> LocalProtocolError:
    return LocalProtocolError(f"a {key.public.key_type} key cannot sign with {algorithm}")


def _plain_ed25519(data: bytes) -> PrivateKey | None:
    """Read an Ed25519 key in an unencrypted OpenSSH file; None for every other file.

    Raises:
        KeyFormatError: it is such a file, but damaged.
    """
    begin = data.index(_BEGIN) + len(_BEGIN)
    end = data.find(_END, begin)
    if end < 0:
        raise KeyFormatError("damaged OpenSSH private key: its last line is missing")
    try:
        whole = binascii.a2b_base64(b"".join(data[begin:end].split()), strict_mode=True)
        if not whole.startswith(_MAGIC):
            raise KeyFormatError("damaged OpenSSH private key: no openssh-key-v1 inside")
        reader = Reader(whole, len(_MAGIC))
        cipher, kdf, options, count = reader.string(), reader.string(), reader.string(), reader.uint32()
        if count != 1:
            raise KeyFormatError(f"an OpenSSH private key file with {count} keys; only one is supported")
        public = reader.string()
        if cipher != b"none" or kdf != b"none" or options or Reader(public).string() != b"ssh-ed25519":
            return None
        secret = Reader(reader.string())
        reader.end()
        if secret.raw(4) != secret.raw(4):
            raise KeyFormatError("damaged OpenSSH private key: check numbers differ")
        if secret.string() != b"ssh-ed25519":
            raise KeyFormatError("damaged OpenSSH private key: the halves are of different types")
        raw, pair = secret.string(), secret.string()
        secret.string()  # the comment
        padding = secret.rest()
    except (DecodeError, ValueError) as error:
        raise KeyFormatError(f"damaged OpenSSH private key: {error}") from error
    if len(pair) != 2 * _SEED_BYTES or padding != bytes(range(1, min(len(padding), 255) + 1)):
        raise KeyFormatError("damaged OpenSSH private key: lengths or padding are wrong")
    key = _Ed25519(pair[:_SEED_BYTES])
    # Each of the three copies of the public half is compared: the file must not be taken for another key's.
    if key.public.blob != public or raw != public[-_SEED_BYTES:] or pair[_SEED_BYTES:] != raw:
        raise KeyFormatError("damaged OpenSSH private key: the public half does not belong to it")
    return key


def _load_by_library(data: bytes, passphrase: bytes | None) -> PrivateKey:
    import warnings

    from cryptography.hazmat.primitives import serialization
    from cryptography.utils import CryptographyDeprecationWarning

    if b"PRIVATE KEY-----" not in data:
        raise KeyFormatError("not a private key: neither OpenSSH's format nor PEM, PuTTY's or Dropbear's")
    load = serialization.load_ssh_private_key if _BEGIN in data else serialization.load_pem_private_key
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # ssh-dss is asked for by its owner
            try:
                loaded = load(data, None)
            except TypeError:
                if passphrase is None:
                    raise KeyLocked("the private key is locked by a passphrase") from None
                loaded = load(data, passphrase)
    except UnsupportedAlgorithm as error:
        raise KeyFormatError(f"a private key of an unsupported type: {error}") from error
    except (ValueError, TypeError, InvalidTag) as error:
        reason = "damaged" if passphrase is None else "damaged, or the passphrase is wrong"
        raise KeyFormatError(f"the private key is {reason}: {error}") from error
    return from_library(loaded)


def from_library(loaded: object) -> PrivateKey:
    """Give a private key object of cryptography's as one of ours.

    Raises:
        KeyFormatError: SSH has no keys of its type.
    """
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return _Ed25519(loaded.private_bytes_raw())
    if isinstance(loaded, rsa.RSAPrivateKey):
        return _Rsa(loaded)
    if isinstance(loaded, ec.EllipticCurvePrivateKey) and loaded.curve.name in {"secp256r1", "secp384r1", "secp521r1"}:
        return _Ecdsa(loaded)
    if isinstance(loaded, dsa.DSAPrivateKey):
        return _Dss(loaded)
    raise KeyFormatError("a private key of a type that SSH does not have")


def _padded(secret: bytes, block: int) -> bytes:
    return secret + bytes(range(1, -len(secret) % block + 1))


def _encrypt(secret: bytes, passphrase: str | bytes, salt: bytes, rounds: int) -> bytes:
    import bcrypt
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    password = passphrase.encode() if isinstance(passphrase, str) else passphrase
    derived = bcrypt.kdf(password, salt, 48, rounds, ignore_few_rounds=True)
    return Cipher(algorithms.AES256(derived[:32]), modes.CTR(derived[32:])).encryptor().update(secret)
