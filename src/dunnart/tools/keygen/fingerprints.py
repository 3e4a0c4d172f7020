"""How keys are shown: size, fingerprint, kind."""

from __future__ import annotations

import binascii
import os
from typing import TYPE_CHECKING

from dunnart.errors import KeyFormatError
from dunnart.keys.certificate import Certificate
from dunnart.tools.keygen.files import is_private, key_in, private_in, read, wanted_file
from dunnart.tools.keygen.flags import Flags, KeygenError
from dunnart.tools.terminal import shown
from dunnart.wire.encoding import Reader

if TYPE_CHECKING:
    from dunnart.keys.public import PublicKey

_HASHES = ("md5", "sha1", "sha256", "sha384", "sha512")
_NAMES = {
    "ssh-ed25519": "ED25519", "ssh-rsa": "RSA", "ssh-dss": "DSA",
    "sk-ssh-ed25519@openssh.com": "ED25519-SK", "sk-ecdsa-sha2-nistp256@openssh.com": "ECDSA-SK",
}  # fmt: skip
_VOWELS, _CONSONANTS = "aeiouy", "bcdfghklmnprstvzx"


def show(flags: Flags) -> int:
    """-l and -B: show the fingerprint of each key in a file."""
    path = wanted_file(flags, "Enter file in which the key is", "~/.ssh/id_ed25519")
    data = read(path)
    if is_private(data):
        if not os.path.exists(f"{path}.pub"):
            key, comment, _ = private_in(path, flags.value("P"))
            print(line(flags, key.public, comment))
            return 0
        data = read(f"{path}.pub")
    found = False
    for text in data.decode(errors="replace").splitlines():
        stripped = text.strip()
        if stripped and not stripped.startswith("#") and (entry := _entry(stripped)) is not None:
            print(line(flags, *entry))
            found = True
    if not found:
        raise KeygenError(f"{shown(path)} is not a public key file")
    return 0


def _entry(text: str) -> tuple[PublicKey | Certificate, str] | None:
    """The key on a line, which may have options, a host or a marker before it; and what follows or goes before."""
    before = ""
    for _ in range(3):
        try:
            key, comment = key_in(text)
        except KeyFormatError:
            first, text = _first_word(text)
            before = before or first
            if not text:
                return None
        else:
            return key, comment or before
    return None


def _first_word(text: str) -> tuple[str, str]:
    quoted = False
    for place, character in enumerate(text):
        if character == '"' and text[max(place - 1, 0)] != "\\":
            quoted = not quoted
        elif character in " \t" and not quoted:
            return text[:place], text[place:].lstrip()
    return text, ""


def line(flags: Flags, key: PublicKey | Certificate, comment: str) -> str:
    """The line that shows a key."""
    return f"{bits(key)} {fingerprint(flags, key)} {shown(comment or 'no comment')} ({kind(key)})"


def fingerprint(flags: Flags, key: PublicKey | Certificate) -> str:
    """The fingerprint by the hash of -E, or with -B in words."""
    import hashlib

    blob = key.key.blob if isinstance(key, Certificate) else key.blob
    if "B" in flags:
        return _bubble_babble(hashlib.sha1(blob, usedforsecurity=False).digest())
    name = (flags.value("E") or "sha256").lower()
    if name not in _HASHES:
        raise KeygenError(f"no hash {name!r}; there are {', '.join(_HASHES)}")
    digest = hashlib.new(name, blob, usedforsecurity=False).digest()
    if name == "md5":
        return f"MD5:{digest.hex(':')}"
    return f"{name.upper()}:{binascii.b2a_base64(digest, newline=False).decode().rstrip('=')}"


def kind(key: PublicKey | Certificate) -> str:
    """The short name of its type, as ED25519 or RSA-CERT."""
    if isinstance(key, Certificate):
        return f"{kind(key.key)}-CERT"
    return _NAMES.get(key.key_type, "ECDSA")


def bits(key: PublicKey | Certificate) -> int:
    """Its size."""
    plain = key.key if isinstance(key, Certificate) else key
    fields = Reader(plain.blob)
    name = fields.text()
    if name == "ssh-rsa":
        fields.mpint()
        return fields.mpint().bit_length()
    if name == "ssh-dss":
        return fields.mpint().bit_length()
    return int(name[-3:]) if name.startswith("ecdsa-") else 256


def _bubble_babble(digest: bytes) -> str:
    """The Bubble Babble encoding of a hash (A. Huima, 2000)."""
    checksum, text = 1, "x"
    for place in range(0, len(digest) + 1, 2):
        if place == len(digest):
            text += _VOWELS[checksum % 6] + "x" + _VOWELS[checksum // 6]
            break
        first = digest[place]
        text += _VOWELS[((first >> 6) + checksum) % 6] + _CONSONANTS[first >> 2 & 15]
        text += _VOWELS[((first & 3) + checksum // 6) % 6]
        if place + 1 == len(digest):
            break
        second = digest[place + 1]
        text += _CONSONANTS[second >> 4] + "-" + _CONSONANTS[second & 15]
        checksum = (checksum * 5 + first * 7 + second) % 36
    return text + "x"
