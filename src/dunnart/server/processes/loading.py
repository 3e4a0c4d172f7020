"""What a protocol process loads before it is confined: later it finds no module any more."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunnart.crypto.profiles import Algorithms

_PRIMITIVES = "cryptography.hazmat.primitives"
_ASYMMETRIC = f"{_PRIMITIVES}.asymmetric"
_CURVES = (f"{_ASYMMETRIC}.ec", f"{_ASYMMETRIC}.utils")
_NEEDED: dict[str, tuple[str, ...]] = {
    "zlib": ("zlib",),
    "3des": ("cryptography.hazmat.decrepit.ciphers.algorithms",),
    "rsa": (f"{_ASYMMETRIC}.padding", f"{_ASYMMETRIC}.rsa", f"{_ASYMMETRIC}.utils"),
    "ecdsa": _CURVES,
    "dss": (f"{_ASYMMETRIC}.dsa", f"{_ASYMMETRIC}.utils"),
    "ed25519": (f"{_ASYMMETRIC}.ed25519",),
    "ecdh": (*_CURVES, f"{_PRIMITIVES}.serialization"),
    "gss-nistp": (*_CURVES, f"{_PRIMITIVES}.serialization"),
    "diffie-hellman": (f"{_ASYMMETRIC}.dh",),
    "gss-group": (f"{_ASYMMETRIC}.dh",),
}
"""By a part of an algorithm's name, the modules that are imported only when it is used."""


def load_what_is_offered(algorithms: Algorithms) -> None:
    """Import what any of the algorithms needs."""
    names = (*algorithms.kex, *algorithms.ciphers, *algorithms.compression, *algorithms.user_key, *algorithms.host_key)
    wanted = {module: None for part, modules in _NEEDED.items() for module in modules
              if any(part in name for name in names)}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the library will drop some day
        for module in wanted:
            import_module(module)


def have_found() -> None:
    """Have OpenSSL find, for all that are forked, what it looks for when it is first used. No secret is involved."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    nobodys = Ed25519PrivateKey.from_private_bytes(bytes(32))
    nobodys.public_key().verify(nobodys.sign(b""), b"")
