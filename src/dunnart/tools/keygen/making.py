"""Key pairs: making them, changing passphrase and comment, showing and converting the public half."""

from __future__ import annotations

import os
import re
import sys
from typing import Literal, cast

from dunnart.errors import KeyFormatError
from dunnart.keys.certificate import Certificate
from dunnart.tools.keygen.files import (
    key_format,
    new_passphrase,
    pem_form,
    private_bytes,
    private_in,
    public_in,
    read,
    wanted_file,
    write,
)
from dunnart.tools.keygen.fingerprints import bits, kind
from dunnart.tools.keygen.flags import Flags, KeygenError
from dunnart.tools.terminal import shown

_WHICH = "Enter file in which the key is"
_DEFAULT = "~/.ssh/id_ed25519"


def make(flags: Flags) -> int:
    """Make a key pair."""
    from dunnart.keys.private import PrivateKey

    name = flags.value("t") or "ed25519"
    wanted, size = _kind_and_bits(name, flags.number("b", 0, 1 << 16))
    quiet = "q" in flags
    if not quiet:
        print(f"Generating public/private {name} key pair.")
    key = PrivateKey.generate(wanted, size)
    path = wanted_file(flags, "Enter file in which to save the key", f"~/.ssh/id_{wanted}")
    if not _may_overwrite(path):
        return 1
    folder = os.path.dirname(path)
    if folder == os.path.expanduser("~/.ssh"):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    passphrase = new_passphrase(flags, path)
    comment = _default_comment() if flags.value("C") is None else flags.value("C") or ""
    write(path, private_bytes(flags, key, comment, passphrase), 0o600)
    write(f"{path}.pub", f"{key.public.line(comment)}\n", 0o644)
    if not quiet:
        print(f"Your identification has been saved in {shown(path)}")
        print(f"Your public key has been saved in {shown(path)}.pub")
        print("The key fingerprint is:")
        print(f"{key.public.fingerprint()} {shown(comment)}")
    return 0


def _kind_and_bits(name: str, size: int) -> tuple[Literal["ed25519", "rsa", "ecdsa"], int | None]:
    short = name.lower().removeprefix("ssh-")
    if curve := re.fullmatch(r"ecdsa-sha2-nistp(256|384|521)", short):
        short, size = "ecdsa", size or int(curve[1])
    if short.endswith("-sk") or short.startswith("sk-"):
        raise KeygenError(f"a key of type {name} is made by its authenticator; ssh-keygen asks that for one")
    if short not in {"ed25519", "rsa", "ecdsa"}:
        raise KeygenError(f"unknown key type {name!r}; there are ed25519, rsa and ecdsa")
    if short == "ed25519":  # of one size, and -b is not looked at
        return "ed25519", None
    return cast("Literal['rsa', 'ecdsa']", short), size or None


def _may_overwrite(path: str) -> bool:
    if not os.path.lexists(path):
        return True
    print(f"{shown(path)} already exists.\nOverwrite (y/n)? ", end="", flush=True)
    return sys.stdin.readline().lower().startswith("y")


def _default_comment() -> str:
    import getpass
    import socket

    return f"{getpass.getuser()}@{socket.gethostname()}"


def change_passphrase(flags: Flags) -> int:
    """-p: the same key with another passphrase."""
    path = wanted_file(flags, _WHICH, _DEFAULT)
    key, comment, _ = private_in(path, flags.value("P"))
    if comment:
        print(f"Key has comment '{shown(comment)}'")
    write(path, private_bytes(flags, key, comment, new_passphrase(flags, path)), 0o600)
    print("Your identification has been saved with the new passphrase.")
    return 0


def change_comment(flags: Flags) -> int:
    """-c: the same key with another comment, in both files."""
    path = wanted_file(flags, _WHICH, _DEFAULT)
    given = flags.value("P")
    key, old, passphrase = private_in(path, flags.value("N") if given is None else given)
    if b"OPENSSH PRIVATE KEY" not in read(path):
        raise KeygenError(f"{shown(path)} is PEM, which has no room for a comment; -p -N writes it anew")
    print(f"Old comment: {shown(old)}" if old else "No existing comment")
    comment = flags.value("C")
    if comment is None:
        print("New comment: ", end="", flush=True)
        comment = sys.stdin.readline().rstrip("\n")
    if comment == old:
        print("No change to comment")
        return 0
    write(path, private_bytes(flags, key, comment, passphrase), 0o600)
    write(f"{path}.pub", f"{key.public.line(comment)}\n", 0o644)
    print(f"Comment '{shown(comment)}' applied" if comment else "Comment removed")
    return 0


def show_public(flags: Flags) -> int:
    """-y: the public half of a private key."""
    key, comment, _ = private_in(wanted_file(flags, _WHICH, _DEFAULT), flags.value("P"))
    print(key.public.line(comment))
    return 0


def export(flags: Flags) -> int:
    """-e: a public key in another format."""
    from dunnart.keys.conversion import to_pem, to_rfc4716

    key, _ = public_in(wanted_file(flags, _WHICH, _DEFAULT))
    form = key_format(flags, "RFC4716")
    if form == "RFC4716":
        print(to_rfc4716(key, f"{bits(key)}-bit {kind(key)}, converted by {_default_comment()}"), end="")
    elif isinstance(key, Certificate):
        raise KeygenError(f"no {form} file holds a certificate")
    else:
        print(to_pem(key, pem_form(form)), end="")
    return 0


def import_(flags: Flags) -> int:
    """-i: a public key from another format."""
    from dunnart.keys.conversion import from_pem, from_rfc4716

    path = wanted_file(flags, _WHICH, _DEFAULT)
    data = read(path)
    try:
        key = (
            from_rfc4716(data.decode(errors="replace")) if key_format(flags, "RFC4716") == "RFC4716" else from_pem(data)
        )
    except KeyFormatError as error:
        raise KeygenError(f"{shown(path)}: {shown(str(error))}") from error
    print(key.line())
    return 0
