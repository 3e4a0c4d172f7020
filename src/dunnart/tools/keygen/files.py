"""The key files that `dunnart keygen` reads and writes, and the passphrases that it asks for."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Literal

from dunnart.errors import ConfigError, KeyFormatError, KeyLocked
from dunnart.keys.certificate import Certificate, decode_public
from dunnart.keys.dropbear import is_dropbear
from dunnart.keys.files import read_private_key
from dunnart.keys.public import PublicKey, split_line
from dunnart.keys.putty import is_putty
from dunnart.tools.keygen.flags import Flags, KeygenError
from dunnart.tools.terminal import ask, failure, shown

if TYPE_CHECKING:
    from dunnart.keys.private import PrivateKey

_LARGEST = 16 << 20
PRIVATE_MARK = b"PRIVATE KEY-----"


def wanted_file(flags: Flags, question: str, default: str) -> str:
    """The file of -f, or the one that is asked for."""
    path = flags.value("f")
    if path is None:
        answer = ask(f"{question} ({default}): ", hidden=False)
        if answer is None:
            raise KeygenError("which file? Name it with -f")
        path = answer or default
    return os.path.expanduser(path)


def read(path: str) -> bytes:
    """Read a file, or standard input for "-"."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(_LARGEST + 1)
    except OSError as error:
        raise KeygenError(failure(error)) from error
    if len(data) > _LARGEST:
        raise KeygenError(f"{shown(path)}: larger than 16 MiB")
    return data


def read_text(path: str) -> str:
    """Read a file of text; bytes that are no UTF-8 come out as they went in, if `write` writes them."""
    return read(path).decode(errors="surrogateescape")


def write(path: str, data: bytes | str, mode: int) -> None:
    """Write a file at once, in the place of what has its name."""
    if isinstance(data, str):
        data = data.encode(errors="surrogateescape")
    folder, name = os.path.split(path)
    aside = os.path.join(folder, f".{name}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:
        raise KeygenError(f"{shown(path)}: {error.strerror}") from error


def is_private(data: bytes) -> bool:
    """Whether a file looks like a private key's."""
    return PRIVATE_MARK in data or is_dropbear(data) or is_putty(data)


def key_in(line: str) -> tuple[PublicKey | Certificate, str]:
    """Read the line of a .pub file: a key or a certificate, and the comment."""
    key_type, blob, comment = split_line(line)
    key = decode_public(blob)
    if key.key_type != key_type:
        raise KeyFormatError(f"the line says {key_type[:64]!r}, the key itself {key.key_type}")
    return key, comment


def public_in(path: str) -> tuple[PublicKey | Certificate, str]:
    """Read a public key file, or a private key's public half; and the comment."""
    data = read(path)
    if is_private(data):
        beside = f"{path}.pub"
        if os.path.exists(beside):
            return public_in(beside)
        key, comment, _ = private_in(path, None)
        return key.public, comment
    reason = "no public key in it"
    for line in data.decode(errors="replace").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                return key_in(line)
            except KeyFormatError as error:
                reason = str(error)
    raise KeygenError(f"{shown(path)}: {shown(reason)}")


def private_in(path: str, passphrase: str | None) -> tuple[PrivateKey, str, str]:
    """Read a private key file.

    Args:
        path: the file.
        passphrase: what unlocks it; None: it is asked for if one is needed.

    Returns:
        The key, its comment, and the passphrase, "" if it was not locked.
    """
    from dunnart.keys.conversion import comment_of

    used = ""
    try:
        try:
            key = read_private_key(path)
        except ConfigError as error:
            if not isinstance(error.__cause__, KeyLocked):
                raise
            used = _asked(f'Enter passphrase for "{shown(path)}": ') if passphrase is None else passphrase
            key = read_private_key(path, passphrase=used)
    except ConfigError as error:
        raise KeygenError(shown(str(error))) from error
    return key, comment_of(read(path), used), used


def _asked(question: str) -> str:
    answer = ask(question, hidden=True)
    if answer is None:
        raise KeygenError("a passphrase is wanted, and nobody is there to ask")
    return answer


def new_passphrase(flags: Flags, path: str) -> str:
    """The passphrase of -N, or the one that is asked for, twice."""
    given = flags.value("N")
    while given is None:
        first = _asked(f'Enter passphrase for "{shown(path)}" (empty for none): ')
        if _asked("Enter same passphrase again: ") == first:
            return first
        print("The passphrases are not the same. Try again.")
    return given


def private_bytes(flags: Flags, key: PrivateKey, comment: str, passphrase: str) -> bytes:
    """Give a private key as the file that -m and -a want."""
    from dunnart.keys.conversion import private_to_pem
    from dunnart.keys.private import BCRYPT_ROUNDS

    form = key_format(flags, "OPENSSH")
    if form in {"PEM", "PKCS8"} and not (form == "PEM" and key.public.key_type == "ssh-ed25519"):
        return private_to_pem(key, pem_form(form), passphrase)
    rounds = flags.number("a", BCRYPT_ROUNDS, 1 << 16) or 1
    return key.openssh(comment, passphrase or None, rounds=rounds)


def key_format(flags: Flags, default: str) -> str:
    """The format of -m: RFC4716, PKCS8 or PEM."""
    given = flags.value("m")
    if given is None:
        return default
    form = {"SSH2": "RFC4716"}.get(given.upper(), given.upper())
    if form not in {"RFC4716", "PKCS8", "PEM"}:
        raise KeygenError(f"no key format {given!r}; there are RFC4716, PKCS8 and PEM")
    return form


def pem_form(form: str) -> Literal["PEM", "PKCS8"]:
    """The same, narrowed."""
    return "PEM" if form == "PEM" else "PKCS8"
