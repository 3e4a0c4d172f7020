"""Lists of algorithms: which names sshd knows that are none here, and what a list becomes without them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

_WEBAUTHN = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"
_SIGNATURES = (
    _WEBAUTHN, "webauthn-sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ssh-mldsa44-ed25519@openssh.com", "ssh-mldsa44-ed25519-cert-v01@openssh.com",
    "sk-ssh-ed25519@openssh.com", "sk-ssh-ed25519-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ssh-dss-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-512-cert-v01@openssh.com",
)  # fmt: skip
_ELSEWHERE = {
    "kex": (
        "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com", "sntrup4591761x25519-sha512@tinyssh.org",
        "mlkem768nistp256-sha256", "mlkem1024nistp384-sha384",
    ),
    "ciphers": ("rijndael-cbc@lysator.liu.se", "blowfish-cbc", "cast128-cbc", "arcfour", "arcfour128", "arcfour256"),
    "macs": (
        "umac-64@openssh.com", "umac-128@openssh.com", "umac-64-etm@openssh.com", "umac-128-etm@openssh.com",
        "hmac-sha1-96", "hmac-sha1-96-etm@openssh.com", "hmac-md5", "hmac-md5-96", "hmac-md5-etm@openssh.com",
        "hmac-md5-96-etm@openssh.com", "hmac-ripemd160", "hmac-ripemd160@openssh.com",
        "hmac-ripemd160-etm@openssh.com",
    ),
    "host_key": _SIGNATURES,
    "user_key": _SIGNATURES,
    "ca_signature": _SIGNATURES,
}  # fmt: skip
"""Names that some sshd knows; here a list is read without them."""


class Edited(NamedTuple):
    """A list as dunnart's options have it; "" changes nothing. `missing` are the names that are left out."""

    text: str
    missing: tuple[str, ...]


def _known(what: str) -> tuple[str, ...]:
    from dunnart.crypto.profiles import KNOWN

    found: tuple[str, ...] = getattr(KNOWN, what)
    return found


def _split(text: str) -> tuple[str, list[str]]:
    sign = text[:1] if text[:1] in {"+", "-", "^"} else ""
    return sign, text.removeprefix(sign).split(",")


def unknown(what: str, text: str) -> str:
    """Give what makes a list one that sshd refuses, or ""."""
    sign, names = _split(text)
    if sign == "-":
        return ""
    known = (*_known(what), *_ELSEWHERE[what])
    wrong = any(not any(fnmatchcase(each, name) for each in known) for name in names)
    return text if wrong else ""


def edited(what: str, text: str) -> Edited:
    """Make a list that holds only names of dunnart's; patterns are replaced by what they fit."""
    sign, names = _split(text)
    known = _known(what)
    found: dict[str, None] = {}
    missing = []
    for name in names:
        fitting = [name] if name in known else [each for each in known if fnmatchcase(each, name)]
        if sign == "-" and fitting:
            found[name] = None
        elif fitting:
            found |= dict.fromkeys(fitting)
        elif sign != "-":
            missing.append(name)
    return Edited(sign + ",".join(found) if found else "", tuple(missing))


def nothing_left(text: str, made: Edited) -> bool:
    """Tell whether a list that replaces the default one holds nothing that dunnart knows."""
    return not made.text and text[:1] not in {"+", "-", "^"}
