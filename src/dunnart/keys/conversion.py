"""Keys in other programs' formats: RFC 4716, PEM, PKCS#8; and the comment in an OpenSSH private key file."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm

from dunnart.errors import DecodeError, KeyFormatError
from dunnart.keys.certificate import Certificate, decode_public
from dunnart.keys.public import PublicKey
from dunnart.wire.encoding import Reader

if TYPE_CHECKING:
    from dunnart.keys.private import PrivateKey

_BEGIN_4716 = "---- BEGIN SSH2 PUBLIC KEY ----"
_END_4716 = "---- END SSH2 PUBLIC KEY ----"
_LINE_4716 = 72  # RFC 4716 §3: bytes in a line, without its end
_WRITTEN_LINE = 70
_BEGIN_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_END_OPENSSH = b"-----END OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"
# How many strings of a key stand before its comment (draft-ietf-sshm-ssh-agent §3.2).
_PRIVATE_STRINGS = {
    b"ssh-ed25519": 2, b"ssh-rsa": 6, b"ssh-dss": 5,
    b"ecdsa-sha2-nistp256": 3, b"ecdsa-sha2-nistp384": 3, b"ecdsa-sha2-nistp521": 3,
}  # fmt: skip
_CIPHERS = {b"aes128-cbc": 16, b"aes192-cbc": 24, b"aes256-cbc": 32, b"aes128-ctr": 16, b"aes192-ctr": 24,
            b"aes256-ctr": 32}  # fmt: skip
_ROUNDS_MAX = 1 << 16


def to_rfc4716(key: PublicKey | Certificate, comment: str) -> str:
    """Give a public key as RFC 4716 has it, with line ends; the comment is cut to fit into its line."""
    encoded = binascii.b2a_base64(key.blob, newline=False).decode()
    room = _LINE_4716 - len('Comment: ""')
    lines = [f'Comment: "{comment[:room]}"']
    lines += [encoded[start : start + _WRITTEN_LINE] for start in range(0, len(encoded), _WRITTEN_LINE)]
    return "\n".join((_BEGIN_4716, *lines, _END_4716, ""))


def from_rfc4716(text: str) -> PublicKey | Certificate:
    """Read a public key as RFC 4716 has it.

    Raises:
        KeyFormatError: it is something else, or the key is malformed, weak, or of an unsupported type.
    """
    lines = [line.strip() for line in text.splitlines()]
    if _BEGIN_4716 not in lines or _END_4716 not in lines:
        raise KeyFormatError("no public key of RFC 4716: its first or last line is missing")
    body = []
    in_header = False
    for line in lines[lines.index(_BEGIN_4716) + 1 : lines.index(_END_4716)]:
        if in_header or ":" in line:  # a header goes on in the next line where it ends with a backslash
            in_header = line.endswith("\\")
        else:
            body.append(line)
    try:
        return decode_public(binascii.a2b_base64("".join(body), strict_mode=True))
    except ValueError as error:
        raise KeyFormatError(f"the key's base64 is broken: {error}") from error


def to_pem(key: PublicKey, form: Literal["PEM", "PKCS8"]) -> str:
    """Give a public key as PEM: PKCS#1 (RSA only), or SubjectPublicKeyInfo.

    Raises:
        KeyFormatError: the form cannot hold such a key.
    """
    from cryptography.hazmat.primitives import serialization

    plain = serialization.PublicFormat.PKCS1 if form == "PEM" else serialization.PublicFormat.SubjectPublicKeyInfo
    if key.key_type.startswith("sk-") or (form == "PEM" and key.key_type != "ssh-rsa"):
        raise KeyFormatError(f"no {form} file holds a key of type {key.key_type}")
    loaded = serialization.load_ssh_public_key(key.line().encode())
    return loaded.public_bytes(serialization.Encoding.PEM, plain).decode()


def from_pem(data: bytes) -> PublicKey:
    """Read a public key from PEM, of either form.

    Raises:
        KeyFormatError: it is something else, or the key is weak or of a type that SSH does not have.
    """
    from cryptography.hazmat.primitives import serialization

    try:
        loaded: Any = serialization.load_pem_public_key(data)
        line = loaded.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFormatError(f"no public key in PEM that SSH has: {error}") from error
    return PublicKey.parse_line(line.decode())[0]


def private_to_pem(key: PrivateKey, form: Literal["PEM", "PKCS8"], passphrase: str = "") -> bytes:
    """Give a private key as PEM, traditional or PKCS#8, encrypted if there is a passphrase. A comment it cannot have.

    Raises:
        KeyFormatError: the form cannot hold such a key.
    """
    from cryptography.hazmat.primitives import serialization

    if form == "PEM" and key.public.key_type == "ssh-ed25519":
        raise KeyFormatError("no traditional PEM file holds a key of type ssh-ed25519")
    loaded = serialization.load_ssh_private_key(key.openssh(), None)
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = serialization.BestAvailableEncryption(passphrase.encode())
    plain = serialization.PrivateFormat.TraditionalOpenSSL if form == "PEM" else serialization.PrivateFormat.PKCS8
    return loaded.private_bytes(serialization.Encoding.PEM, plain, lock)


def comment_of(data: bytes, passphrase: str | None = None) -> str:
    """Give the comment in a private key file that `PrivateKey.load` has read; "" if it cannot have one, or is locked.

    Args:
        data: the file's content.
        passphrase: what unlocks it.
    """
    if data[:6] == b"PuTTY-":
        from dunnart.keys.putty import putty_comment

        return putty_comment(data)
    begin, end = data.find(_BEGIN_OPENSSH), data.find(_END_OPENSSH)
    if begin < 0 or end < begin:
        return ""
    try:
        whole = binascii.a2b_base64(b"".join(data[begin + len(_BEGIN_OPENSSH) : end].split()))
        reader = Reader(whole, len(_MAGIC))
        cipher, kdf, options = reader.string(), reader.string(), Reader(reader.string())
        reader.uint32()  # one key
        reader.string()  # its public half
        secret = reader.string()
        if cipher != b"none":
            if passphrase is None or kdf != b"bcrypt" or cipher not in _CIPHERS:
                return ""
            secret = _decrypted(cipher, secret, passphrase, options.string(), options.uint32())
        reader = Reader(secret)
        if reader.raw(4) != reader.raw(4):
            return ""
        for _ in range(_PRIVATE_STRINGS.get(reader.string(), 0)):
            reader.string()
        return reader.string().decode(errors="replace")
    except (DecodeError, ValueError):
        return ""


def _decrypted(cipher: bytes, secret: bytes, passphrase: str, salt: bytes, rounds: int) -> bytes:
    import bcrypt
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    if not 0 < rounds <= _ROUNDS_MAX:
        raise ValueError(f"{rounds} rounds")
    size = _CIPHERS[cipher]
    derived = bcrypt.kdf(passphrase.encode(), salt, size + 16, rounds, ignore_few_rounds=True)
    mode = modes.CTR if cipher.endswith(b"ctr") else modes.CBC
    return Cipher(algorithms.AES(derived[:size]), mode(derived[size:])).decryptor().update(secret)
