"""Which algorithms are offered: profiles, OpenSSH's list edits, and the choice between two lists (RFC 4253 §7.1).

The markers for extension negotiation and strict key exchange are not algorithms; the engine adds them.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from dunnart.crypto.ciphers import CIPHERS, MACS
from dunnart.crypto.compression import COMPRESSION
from dunnart.crypto.kex import KEX_METHODS
from dunnart.errors import ConfigError
from dunnart.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Algorithms:
    """Names in order of preference, most wanted first."""

    kex: tuple[str, ...]
    """Key exchange methods."""
    host_key: tuple[str, ...]
    """Signature algorithms of host keys; a server offers those that its keys can make."""
    ciphers: tuple[str, ...]
    """Packet ciphers, both directions."""
    macs: tuple[str, ...]
    """MACs for ciphers that need one, both directions."""
    compression: tuple[str, ...]
    """Compression, both directions."""
    user_key: tuple[str, ...]
    """Signature algorithms accepted from users (`server-sig-algs`, RFC 8308 §3.1)."""
    ca_signature: tuple[str, ...]
    """Signature algorithms accepted on certificates."""


_CERT = "-cert-v01@openssh.com"
_ECDSA = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
_SK_ED25519 = ("sk-ssh-ed25519@openssh.com", "sk-ssh-ed25519-cert-v01@openssh.com")
_SK_ECDSA = ("sk-ecdsa-sha2-nistp256@openssh.com", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com")
_CTR = ("aes128-ctr", "aes192-ctr", "aes256-ctr")
_ETM = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")


def _certified(*names: str) -> tuple[str, ...]:
    """Put the certificates of these algorithms before them."""
    return (*(name + _CERT for name in names), *names)


_DEFAULT = Algorithms(
    kex=(
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group18-sha512",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group-exchange-sha256",
    ),
    host_key=_certified("ssh-ed25519", *_ECDSA, *_RSA),
    ciphers=("chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", *_CTR),
    macs=(*_ETM, "hmac-sha2-256", "hmac-sha2-512"),
    compression=("none", "zlib@openssh.com"),
    user_key=(*_certified("ssh-ed25519", *_ECDSA, *_RSA), *_SK_ED25519, *_SK_ECDSA),
    ca_signature=("ssh-ed25519", *_ECDSA, _SK_ED25519[0], _SK_ECDSA[0], *_RSA),
)

# What ssh-audit 3.9 neither fails nor warns of: post-quantum key exchange, no NIST curves, nothing encrypt-and-MAC.
_STRICT = Algorithms(
    kex=("mlkem768x25519-sha256",),
    host_key=_certified("ssh-ed25519", *_RSA),
    ciphers=("chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com", *_CTR[::-1]),
    macs=_ETM[::-1],
    compression=("none", "zlib@openssh.com"),
    user_key=(*_certified("ssh-ed25519", *_RSA), *_SK_ED25519),
    ca_signature=("ssh-ed25519", _SK_ED25519[0], *_RSA),
)

# NIST's list: SP 800-56A, FIPS 197, 180-4, 186-5 without Curve25519.
_FIPS = Algorithms(
    kex=(
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group18-sha512",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group-exchange-sha256",
    ),
    host_key=_certified(*_ECDSA, *_RSA),
    ciphers=("aes256-gcm@openssh.com", "aes128-gcm@openssh.com", *_CTR[::-1]),
    macs=(*_ETM, "hmac-sha2-256", "hmac-sha2-512"),
    compression=("none", "zlib@openssh.com"),
    user_key=(*_certified(*_ECDSA, *_RSA), *_SK_ECDSA),
    ca_signature=(*_ECDSA, _SK_ECDSA[0], *_RSA),
)

# Everything there is, for old devices and honeypots.
_LEGACY = Algorithms(
    kex=(
        *_DEFAULT.kex,
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group14-sha1",
        "diffie-hellman-group-exchange-sha1",
        "diffie-hellman-group1-sha1",
    ),
    host_key=(*_DEFAULT.host_key, "ssh-rsa-cert-v01@openssh.com", "ssh-rsa", "ssh-dss"),
    ciphers=(*_DEFAULT.ciphers, "aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"),
    macs=(*_DEFAULT.macs, "hmac-sha1-etm@openssh.com", "hmac-sha1"),
    compression=COMPRESSION,
    user_key=(*_DEFAULT.user_key, "ssh-rsa-cert-v01@openssh.com", "ssh-rsa", "ssh-dss"),
    ca_signature=(*_DEFAULT.ca_signature, "ssh-rsa"),
)

PROFILES: dict[str, Algorithms] = {"default": _DEFAULT, "strict": _STRICT, "fips": _FIPS, "legacy": _LEGACY}

KNOWN = Algorithms(
    kex=tuple(KEX_METHODS),
    host_key=_LEGACY.host_key,
    ciphers=tuple(CIPHERS),
    macs=tuple(MACS),
    compression=COMPRESSION,
    user_key=_LEGACY.user_key,
    ca_signature=_LEGACY.ca_signature,
)
"""Every name dunnart implements."""


def edit(default: tuple[str, ...], specification: str, known: Iterable[str], option: str) -> tuple[str, ...]:
    """Edit a list of algorithms as OpenSSH's options do.

    Args:
        default: the profile's list.
        specification: `a,b` replaces it, `+a,b` appends, `^a,b` moves to the front, `-a,b*` removes by pattern.
        known: every name there is.
        option: the option's name, for the error.

    Raises:
        ConfigError: a name is not known, or nothing is left.
    """
    known = tuple(known)
    action = specification[:1] if specification[:1] in {"+", "-", "^"} else ""
    names = tuple(dict.fromkeys(name.strip() for name in specification[len(action) :].split(",")))
    for name in names:
        if not (any(fnmatchcase(each, name) for each in known) if action == "-" else name in known):
            raise ConfigError(f"unknown algorithm {name!r}; known are {', '.join(known)}", key=option)
    if action == "-":
        names = tuple(each for each in default if not any(fnmatchcase(each, name) for name in names))
    elif action == "+":
        names = (*default, *(name for name in names if name not in default))
    elif action == "^":
        names = (*names, *(each for each in default if each not in names))
    if not names:
        raise ConfigError(f"{specification!r} leaves no algorithm", key=option)
    return names


def negotiate(client: tuple[str, ...], server: tuple[str, ...]) -> str | None:
    """Choose the first of the client's names that the server has too (RFC 4253 §7.1), if any."""
    return next((name for name in client if name in server), None)
