"""The command line of `dunnart keygen`: which flags there are, and how what is wrong ends."""

from __future__ import annotations

import getopt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """\
usage: dunnart keygen [-q] [-t ed25519|rsa|ecdsa] [-b bits] [-C comment] [-f file] [-m format] [-N passphrase]
       dunnart keygen -p [-f file] [-m format] [-N new_passphrase] [-P old_passphrase]
       dunnart keygen -c [-C comment] [-f file] [-P passphrase]
       dunnart keygen -y [-f file] [-P passphrase]
       dunnart keygen -l | -B [-E hash] [-f file]
       dunnart keygen -e | -i [-m RFC4716|PKCS8|PEM] [-f file]
       dunnart keygen -F host | -R host | -H [-f known_hosts] [-l]
       dunnart keygen -s authority -I key_id [-h] [-n names] [-O option] [-t algorithm] [-V interval] [-z serial]
                      file ...
       dunnart keygen -L [-f file]
       dunnart keygen -k -f list [-u] [-C comment] [-s authority.pub|none] [-z number] file ...
       dunnart keygen -Q -f list [-l] [file ...]

  -a  rounds that make guessing the passphrase slow   -L  show certificates
  -B  fingerprint in words                            -l  show fingerprints; with -Q, the list
  -c  change the comment                              -m  the format of a key file
  -E  md5, sha1, sha256, sha384 or sha512             -N  the new passphrase;  -P  the one that there is
  -e  show a public key in another format             -n  whom or which hosts a certificate is for: a,b
  -F  find a host in known_hosts                      -O  a certificate's option (see the documentation)
  -f  the file                                        -p  change the passphrase
  -H  hash the names in known_hosts                   -Q  look keys up in a list of revoked keys
  -h  sign a host's key                               -q  say little
  -I  the name under which a certificate is logged    -R  remove a host from known_hosts
  -i  read a public key in another format             -s  sign certificates with this key
  -k  make a list of revoked keys; -u: add to it      -V  when a certificate is valid: +52w, 20300101:20310101
                                                      -y  show the public key;  -z  serial number; +1 counts on
"""
_FLAGS = "a:Bb:C:cE:eF:f:Hhiklm:N:n:O:oP:pQqR:s:t:uV:yz:I:L"
_ELSEWHERE = {
    "A": "make each key with -t", "D": "", "g": "", "K": "", "M": "", "r": "", "U": "", "v": "", "w": "", "Y": "",
    "Z": "private keys are encrypted with aes256-ctr",
}  # fmt: skip


class KeygenError(Exception):
    """Something cannot be done; the exit status is 255."""


class UsageError(Exception):
    """The command line is wrong; the exit status is 1."""


class Flags:
    """A command line that was read.

    Args:
        arguments: the command line.

    Raises:
        UsageError: there is no such flag, or its value is missing.

    Attributes:
        rest: what is no flag.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        try:
            given, self.rest = getopt.getopt(list(arguments), _FLAGS)
        except getopt.GetoptError as error:
            why = _ELSEWHERE.get(error.opt)
            if why is None:
                raise UsageError(str(error)) from error
            raise UsageError(f"-{error.opt} is not offered; {why or 'OpenSSH has it in ssh-keygen'}") from error
        self._given = [(flag[1:], value) for flag, value in given]

    def __contains__(self, flag: str) -> bool:
        return any(name == flag for name, _ in self._given)

    def values(self, flag: str) -> list[str]:
        """All values that a flag was given."""
        return [value for name, value in self._given if name == flag]

    def value(self, flag: str) -> str | None:
        """The last of them, or None."""
        values = self.values(flag)
        return values[-1] if values else None

    def number(self, flag: str, default: int, largest: int) -> int:
        """The last of them as a number from 0."""
        given = self.value(flag)
        return default if given is None else whole(given, largest, f"-{flag} {given}")


def whole(text: str, largest: int, what: str, *, any_base: bool = False) -> int:
    """Read a number from 0 to `largest`; `what` names it in the error. With `any_base` 0x1f and 017 are numbers too."""
    try:
        octal = any_base and len(text) > 1 and text.startswith("0") and text.isdecimal()
        number = int(text, 8 if octal else 0 if any_base else 10) if text.isascii() and text[:1].isdecimal() else -1
    except ValueError:
        number = -1
    if "_" in text or not 0 <= number <= largest:
        raise KeygenError(f"{what} is no number from 0 to {largest}")
    return number
