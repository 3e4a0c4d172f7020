"""`dunnart dropbearkey`: makes keys in Dropbear's format, and shows the public half of keys, as Dropbear's does."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, cast

from dunnart.errors import ConfigError, DunnartError
from dunnart.tools.terminal import failure, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from dunnart.keys.private import PrivateKey

USAGE = """\
usage: dropbearkey [-t TYPE] [-s BITS] [-C COMMENT] -f FILE
       dropbearkey -y -f FILE

  -t TYPE     ed25519, ecdsa or rsa; default: ed25519
  -f FILE     where the private key goes; the public half goes to FILE.pub
  -s BITS     of rsa 2048 to 4096, default 2048; of ecdsa 256, 384 or 521, default 256
  -C COMMENT  of the public half; default: the user and this machine's name
  -y          show the public half and the fingerprint of the key in FILE, which may be of any format
  -q, -v      nothing more or less is said
  -N ""       there are no passphrases
"""
_VALUED = frozenset("ftsCN")
_SWITCHES = frozenset("yhvq")
_DEFAULT_BITS = {"ed25519": 256, "ecdsa": 256, "rsa": 2048}
_MOST_RSA_BITS = 4096
_NO_KEY = 255


class _UsageError(Exception):
    """The command line is wrong."""


def run(arguments: Sequence[str]) -> int:
    """Run; gives the exit status: 0, 1, or with -y 255 if there is no key."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # what a terminal cannot show
    try:
        if [*arguments] == ["--help"]:
            print(USAGE, end="")
            return 0
        given = _flags(arguments)
        if "h" in given:
            print(USAGE, end="", file=sys.stderr)
            return 0
        if "f" not in given:
            raise _UsageError("which file? Name it with -f")  # noqa: TRY301 - one place for all that is wrong
        return _show(given["f"]) if "y" in given else _make(given)
    except _UsageError as error:
        print(f"dropbearkey: {shown(str(error))}\n{USAGE}", end="", file=sys.stderr)
    except DunnartError as error:
        print(f"dropbearkey: {shown(str(error))}", file=sys.stderr)
    except OSError as error:
        print(f"dropbearkey: {failure(error)}", file=sys.stderr)
    return 1


def _flags(arguments: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        flag = argument[1:]
        if not argument.startswith("-") or flag not in _VALUED | _SWITCHES:
            raise _UsageError(f"unknown argument {argument!r}")
        value = next(rest, None) if flag in _VALUED else ""
        if value is None:
            raise _UsageError(f"-{flag}: missing argument")
        given[flag] = value
    return given


def _make(given: dict[str, str]) -> int:
    from dunnart.errors import KeyFormatError
    from dunnart.keys.dropbear import to_dropbear
    from dunnart.keys.private import PrivateKey
    from dunnart.tools.new_file import write_new

    kind = given.get("t", "ed25519")
    if kind not in _DEFAULT_BITS:
        raise _UsageError("no server takes DSA keys any more" if kind == "dss" else f"unknown key type {kind!r}")
    if given.get("N"):
        raise KeyFormatError("only an empty passphrase goes into Dropbear's format")
    bits = _bits(kind, given.get("s"))
    path = given["f"]
    print(f"Generating {bits} bit {kind} key, this may take a while...", file=sys.stderr)
    key = PrivateKey.generate(
        cast("Literal['ed25519', 'rsa', 'ecdsa']", kind), None if kind == "ed25519" else bits
    )  # fmt: skip
    write_new(path, to_dropbear(key), 0o600)
    line = key.public.line(given.get("C", _comment()))
    try:
        write_new(f"{path}.pub", f"{line}\n".encode(errors="surrogateescape"), 0o600)
    except OSError as error:  # the key is there, and tells its public half at any time
        print(f"dropbearkey: {failure(error)}", file=sys.stderr)
    _print(key, line)
    return 0


def _bits(kind: str, given: str | None) -> int:
    from dunnart.errors import KeyFormatError

    if given is None:
        return _DEFAULT_BITS[kind]
    if not given.isascii() or not given.isdecimal():
        raise KeyFormatError(f"-s: {given!r} is no number of bits")
    bits = int(given)
    if kind == "ed25519" and bits != 256:
        raise KeyFormatError("ed25519 keys have 256 bits")
    if kind == "ecdsa" and bits not in {256, 384, 521}:
        raise KeyFormatError(f"an ecdsa key of {bits} bits there is not; of 256, 384 and 521 there are")
    if kind == "rsa" and (not 2048 <= bits <= _MOST_RSA_BITS or bits % 8):
        raise KeyFormatError(f"an rsa key has 2048 to {_MOST_RSA_BITS} bits, and a multiple of 8")
    return bits


def _show(path: str) -> int:
    from dunnart.keys.files import read_private_key

    try:
        key = read_private_key(path)
    except ConfigError as error:
        print(f"dropbearkey: {shown(str(error))}", file=sys.stderr)
        return _NO_KEY
    _print(key, key.public.line(_comment()))
    return 0


def _print(key: PrivateKey, line: str) -> None:
    print(f"Public key portion is:\n{shown(line)}\nFingerprint: {key.public.fingerprint()}")


def _comment() -> str:
    import pwd
    import socket

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = ""
    return f"{user}@{socket.gethostname()}"
