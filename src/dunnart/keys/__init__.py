"""Keys: public and private keys, certificates, authorized_keys and known_hosts.

Names are imported when they are first used, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunnart.keys.authorized_keys import (
        AuthorizedKey,
        AuthorizedKeys,
        AuthorizedKeysCache,
        Decision,
        strict_modes_reason,
    )
    from dunnart.keys.certificate import Certificate, decode_public
    from dunnart.keys.key_options import KeyOptions
    from dunnart.keys.known_hosts import KnownHost, KnownHosts
    from dunnart.keys.patterns import AddressPatterns
    from dunnart.keys.private import PrivateKey
    from dunnart.keys.public import PublicKey, SignatureError, SkDetails
    from dunnart.keys.revocation import RevokedCertificates, RevokedKeys
    from dunnart.keys.rights import Rights

_HOMES = {
    "AddressPatterns": "patterns",
    "AuthorizedKey": "authorized_keys",
    "AuthorizedKeys": "authorized_keys",
    "AuthorizedKeysCache": "authorized_keys",
    "Certificate": "certificate",
    "Decision": "authorized_keys",
    "KeyOptions": "key_options",
    "KnownHost": "known_hosts",
    "KnownHosts": "known_hosts",
    "PrivateKey": "private",
    "PublicKey": "public",
    "RevokedCertificates": "revocation",
    "RevokedKeys": "revocation",
    "Rights": "rights",
    "SignatureError": "public",
    "SkDetails": "public",
    "decode_public": "certificate",
    "strict_modes_reason": "authorized_keys",
}

__all__ = [
    "AddressPatterns",
    "AuthorizedKey",
    "AuthorizedKeys",
    "AuthorizedKeysCache",
    "Certificate",
    "Decision",
    "KeyOptions",
    "KnownHost",
    "KnownHosts",
    "PrivateKey",
    "PublicKey",
    "RevokedCertificates",
    "RevokedKeys",
    "Rights",
    "SignatureError",
    "SkDetails",
    "decode_public",
    "strict_modes_reason",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
