"""PuTTY's private key files, .ppk, of versions 2 and 3 (PuTTY's manual, appendix C).

Lines of headers, the public half in base64, the secret numbers in base64, perhaps encrypted, and a MAC over all of it,
which in an encrypted file tells a wrong passphrase. Version 3 has the key from Argon2, version 2 from SHA-1.
"""

from __future__ import annotations

import binascii
import os
from typing import TYPE_CHECKING, NamedTuple

from dunnart.errors import DecodeError, KeyFormatError, KeyLocked
from dunnart.keys.parts import assembled, secret_numbers
from dunnart.keys.public import PublicKey
from dunnart.wire.encoding import Reader, mpint, string, text, uint32

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dunnart.keys.private import PrivateKey

_BEGIN = b"PuTTY-User-Key-File-"
_CIPHER = "aes256-cbc"
_BLOCK = 16
_LINE = 64
_MOST_MEMORY_KIB = 1 << 20
_MOST_PASSES = 1 << 12
_MOST_LANES = 255
_MEMORY_KIB, _PASSES, _LANES = 8192, 21, 1  # puttygen aims at 100 ms


class _File(NamedTuple):
    version: int
    headers: dict[str, str]
    comment: bytes
    public: bytes
    private: bytes


def is_putty(data: bytes) -> bool:
    """Whether a file begins as PuTTY's private keys do."""
    return data.startswith(_BEGIN)


def putty_comment(data: bytes) -> str:
    """Give the comment; it is never encrypted.

    Raises:
        KeyFormatError: this is no such file.
    """
    return _parsed(data).comment.decode(errors="replace")


def from_putty(data: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """Read a private key.

    Raises:
        KeyFormatError: it is locked, damaged, weak, or of an unsupported type.
    """
    file = _parsed(data)
    encryption = file.headers.get("Encryption", "")
    if encryption == _CIPHER:
        if passphrase is None:
            raise KeyLocked("the private key is locked by a passphrase")
        cipher_key, vector, mac_key = _derived(file, passphrase)
        private = _crypted(file.private, cipher_key, vector, encrypt=False)
    elif encryption == "none":
        private, mac_key = file.private, _unlocked_mac_key(file.version)
    else:
        raise KeyFormatError(f"a PuTTY key with the unknown encryption {encryption[:64]!r}")
    from hmac import compare_digest

    kind = file.headers[""]
    if not compare_digest(_mac(file.version, mac_key, kind, encryption, file, private), _told_mac(file)):
        reason = "damaged, or the passphrase is wrong" if encryption == _CIPHER else "damaged"
        raise KeyFormatError(f"the PuTTY key is {reason}: its MAC is another one")
    public = PublicKey.decode(file.public)
    if public.key_type != kind:
        raise KeyFormatError(f"the PuTTY key is damaged: it says {kind[:64]!r}, the key itself {public.key_type}")
    reader = Reader(private)
    try:
        if kind == "ssh-ed25519":
            return assembled(public, int.from_bytes(reader.string(), "big"))
        return assembled(public, *(reader.mpint() for _ in range(3 if kind == "ssh-rsa" else 1)))
    except DecodeError as error:
        raise KeyFormatError(f"the PuTTY key is damaged: {error}") from error


def to_putty(key: PrivateKey, comment: str = "", passphrase: bytes | None = None, *, version: int = 3) -> bytes:
    """Give a private key as PuTTY keeps it.

    Args:
        key: the key.
        comment: of one line.
        passphrase: what shall lock it.
        version: 3, or 2 for PuTTY before 0.75.
    """
    kind = key.public.key_type
    numbers = secret_numbers(key)
    private = string(numbers[0].to_bytes(32, "big")) if kind == "ssh-ed25519" else b"".join(map(mpint, numbers))
    headers = {"": kind, "Encryption": _CIPHER if passphrase else "none"}
    more = {}
    if passphrase and version == 3:
        more = {
            "Key-Derivation": "Argon2id", "Argon2-Memory": str(_MEMORY_KIB), "Argon2-Passes": str(_PASSES),
            "Argon2-Parallelism": str(_LANES), "Argon2-Salt": os.urandom(16).hex(),
        }  # fmt: skip
    file = _File(version, headers | more, " ".join(comment.splitlines()).encode(), key.public.blob, b"")
    mac_key = _unlocked_mac_key(version)
    stored = private
    if passphrase:
        cipher_key, vector, mac_key = _derived(file, passphrase)
        private += os.urandom(-len(private) % _BLOCK)
        stored = _crypted(private, cipher_key, vector, encrypt=True)
    mac = _mac(version, mac_key, kind, headers["Encryption"], file, private)
    return b"".join(
        (
            b"PuTTY-User-Key-File-%d: %s\n" % (version, kind.encode()),
            b"Encryption: %s\nComment: %s\n" % (headers["Encryption"].encode(), file.comment),
            _lines("Public", file.public),
            *(f"{name}: {value}\n".encode() for name, value in more.items()),
            _lines("Private", stored),
            b"Private-MAC: %s\n" % mac.hex().encode(),
        )
    )


def _lines(name: str, data: bytes) -> bytes:
    encoded = binascii.b2a_base64(data, newline=False)
    lines = [encoded[start : start + _LINE] for start in range(0, len(encoded), _LINE)]
    return b"%s-Lines: %d\n%s\n" % (name.encode(), len(lines), b"\n".join(lines))


def _parsed(data: bytes) -> _File:
    if not is_putty(data):
        raise KeyFormatError("no private key of PuTTY's")
    rest = iter(data.replace(b"\r\n", b"\n").split(b"\n"))
    headers: dict[str, str] = {}
    blobs = {"Public-Lines": b"", "Private-Lines": b""}
    comment = b""
    for line in rest:
        name_bytes, colon, value_bytes = line.partition(b": ")
        name, value = name_bytes.decode(errors="replace"), value_bytes.decode(errors="replace")
        if name.startswith("PuTTY-User-Key-File-"):
            headers["version"], headers[""] = name.rpartition("-")[2], value
        elif name == "Comment":
            comment = value_bytes
        elif name in blobs:
            blobs[name] = _blob(rest, value)
        elif colon:
            headers[name] = value
    if headers["version"] not in {"2", "3"}:
        raise KeyFormatError(f"a PuTTY key of version {headers['version'][:8]}; only 2 and 3 can be read")
    if not blobs["Public-Lines"] or not blobs["Private-Lines"]:
        raise KeyFormatError("the PuTTY key is damaged: one of its halves is missing")
    return _File(int(headers["version"]), headers, comment, blobs["Public-Lines"], blobs["Private-Lines"])


def _blob(rest: Iterator[bytes], count: str) -> bytes:
    try:
        return binascii.a2b_base64(b"".join(next(rest) for _ in range(int(count))), strict_mode=True)
    except (ValueError, RuntimeError) as error:  # a generator that runs out
        raise KeyFormatError("the PuTTY key is damaged: its lines are not as many as it says, or no base64") from error


def _told_mac(file: _File) -> bytes:
    try:
        return bytes.fromhex(file.headers["Private-MAC"])
    except (KeyError, ValueError):
        raise KeyFormatError("the PuTTY key is damaged: it has no MAC") from None


def _mac(version: int, key: bytes, kind: str, encryption: str, file: _File, private: bytes) -> bytes:
    whole = text(kind) + text(encryption) + string(file.comment) + string(file.public) + string(private)
    from hmac import digest

    return digest(key, whole, "sha256" if version == 3 else "sha1")


def _unlocked_mac_key(version: int) -> bytes:
    return b"" if version == 3 else _sha1(b"putty-private-key-file-mac-key")


def _derived(file: _File, passphrase: bytes) -> tuple[bytes, bytes, bytes]:
    """Give the cipher's key and initialization vector, and the MAC's key."""
    if file.version == 2:
        key = _sha1(uint32(0) + passphrase) + _sha1(uint32(1) + passphrase)
        return key[:32], bytes(_BLOCK), _sha1(b"putty-private-key-file-mac-key" + passphrase)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf import argon2

    name = file.headers.get("Key-Derivation", "")
    if name not in {"Argon2d", "Argon2i", "Argon2id"}:
        raise KeyFormatError(f"a PuTTY key with the unknown key derivation {name[:64]!r}")
    memory = _number(file, "Argon2-Memory", _MOST_MEMORY_KIB)
    passes, lanes = _number(file, "Argon2-Passes", _MOST_PASSES), _number(file, "Argon2-Parallelism", _MOST_LANES)
    try:
        salt = bytes.fromhex(file.headers["Argon2-Salt"])
        made = getattr(argon2, name)(salt=salt, length=80, iterations=passes, lanes=lanes, memory_cost=memory)
        derived: bytes = made.derive(passphrase)
    except UnsupportedAlgorithm as error:
        raise KeyFormatError(f"this build of OpenSSL has no {name}: have puttygen write version 2") from error
    except (KeyError, ValueError) as error:
        raise KeyFormatError("the PuTTY key is damaged: its key derivation cannot be done") from error
    return derived[:32], derived[32:48], derived[48:]


def _number(file: _File, name: str, most: int) -> int:
    value = file.headers.get(name, "")
    if not (value.isascii() and value.isdecimal() and 0 < int(value) <= most):
        raise KeyFormatError(f"a PuTTY key whose {name} is {value[:32]!r}; up to {most} can be read")
    return int(value)


def _crypted(data: bytes, key: bytes, vector: bytes, *, encrypt: bool) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    if len(data) % _BLOCK:
        raise KeyFormatError("the PuTTY key is damaged: the encrypted half is no whole number of blocks")
    cipher = Cipher(algorithms.AES256(key), modes.CBC(vector))
    return (cipher.encryptor() if encrypt else cipher.decryptor()).update(data)


def _sha1(data: bytes) -> bytes:
    from hashlib import sha1

    return sha1(data).digest()
