"""`dunnart dropbearconvert`: private keys from one program's format into another's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError, DunnartError, KeyFormatError, KeyLocked
from dunnart.tools.terminal import ask, failure, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dunnart.keys.private import PrivateKey

USAGE = """\
usage: dropbearconvert INPUT-TYPE OUTPUT-TYPE INPUT-FILE OUTPUT-FILE

  openssh   OpenSSH's own format, or as input PEM too
  dropbear  Dropbear's
  pem       traditional PEM (PKCS#1, SEC1), as OpenSSL and old programs have it; not for Ed25519
  pkcs8     PEM with PKCS#8
  putty     PuTTY's .ppk, version 3
  putty2    the same, version 2, for PuTTY before 0.75

A passphrase is asked for, and kept in the output, save in Dropbear's format, which has none. The output file must not
be there yet. A file - is standard input or output.
"""
_INPUTS: dict[str, Callable[[bytes], bool]] = {
    "openssh": lambda data: b"PRIVATE KEY-----" in data,
    "dropbear": lambda data: data[:3] == b"\0\0\0",
    "pem": lambda data: b" PRIVATE KEY-----" in data and b"OPENSSH PRIVATE" not in data,
    "pkcs8": lambda data: b"-----BEGIN PRIVATE KEY-----" in data or b"-----BEGIN ENCRYPTED PRIVATE" in data,
    "putty": lambda data: data[:6] == b"PuTTY-",
}
_LARGEST = 1 << 20
_OTHER_NAMES = {"ppk": "putty", "ppk2": "putty2"}


def run(arguments: Sequence[str]) -> int:
    """Run; gives the exit status, 0 or 1."""
    if [*arguments] in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    if len(arguments) != 4:
        print(f"dropbearconvert: four arguments are wanted\n{USAGE}", end="", file=sys.stderr)
        return 1
    source, target = _named(arguments[0]), _named(arguments[1])
    for name, known in ((source, {*_INPUTS}), (target, {*_INPUTS, "putty2"})):
        if name not in known:
            print(f"dropbearconvert: unknown key type {shown(name)!r}\n{USAGE}", end="", file=sys.stderr)
            return 1
    try:
        return _convert(source, target, arguments[2], arguments[3])
    except DunnartError as error:
        print(f"dropbearconvert: {shown(str(error))}", file=sys.stderr)
    except OSError as error:
        print(f"dropbearconvert: {failure(error)}", file=sys.stderr)
    return 1


def _named(name: str) -> str:
    # Dropbear's looks at the first letter.
    return {"d": "dropbear", "o": "openssh"}.get(name[:1]) or _OTHER_NAMES.get(name, name)


def _convert(source: str, target: str, path: str, into: str) -> int:
    from dunnart.keys.conversion import comment_of
    from dunnart.keys.files import read_regular
    from dunnart.tools.new_file import write_new

    data = sys.stdin.buffer.read(_LARGEST) if path == "-" else read_regular(path)[1]
    if not _INPUTS[source](data):
        kinds = [name for name, fits in _INPUTS.items() if fits(data)]
        raise ConfigError(f"is no {source} file" + (f", but {' or '.join(kinds)}" if kinds else ""), path=path)
    key, passphrase = _unlocked(path, data)
    comment = comment_of(data, passphrase)
    print(f"Key is a {key.public.key_type} key", file=sys.stderr)
    written = _written(key, target, comment, passphrase)
    if into == "-":
        sys.stdout.buffer.write(written)
    else:
        write_new(into, written, 0o600)
    if passphrase and target == "dropbear":
        print("Dropbear's format has no passphrases: who can read the file has the key", file=sys.stderr)
    print(f"Wrote key to '{shown(into)}'", file=sys.stderr)
    return 0


def _unlocked(path: str, data: bytes) -> tuple[PrivateKey, str]:
    """Read a key; give the passphrase too, "" for none."""
    from dunnart.keys.files import read_private_key
    from dunnart.keys.private import PrivateKey

    def read(passphrase: str | None) -> PrivateKey:
        return PrivateKey.load(data, passphrase) if path == "-" else read_private_key(path, passphrase=passphrase)

    try:
        return read(None), ""
    except DunnartError as error:
        if not isinstance(error, KeyLocked) and not isinstance(error.__cause__, KeyLocked):
            raise
        passphrase = ask(f"Enter passphrase for {shown(path)}: ", hidden=True)
        if passphrase is None:
            raise
        return read(passphrase), passphrase


def _written(key: PrivateKey, target: str, comment: str, passphrase: str) -> bytes:
    from dunnart.keys.conversion import private_to_pem
    from dunnart.keys.dropbear import to_dropbear
    from dunnart.keys.putty import to_putty

    if target == "dropbear":
        return to_dropbear(key)
    if target == "openssh":
        return key.openssh(comment, passphrase or None)
    if target in {"putty", "putty2"}:
        return to_putty(key, comment, passphrase.encode() or None, version=2 if target == "putty2" else 3)
    if key.public.key_type == "ssh-dss":
        raise KeyFormatError("DSA keys are written in OpenSSH's, Dropbear's and PuTTY's formats alone")
    return private_to_pem(key, "PEM" if target == "pem" else "PKCS8", passphrase)
