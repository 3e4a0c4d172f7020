"""What a protocol process loads before it is confined: later it finds no module any more."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunnart.crypto.profiles import Algorithms

LOADED = (
    "dunnart.server.operations", "dunnart.server.forwarded", "dunnart.runtime.terminal", "dunnart.keys.certificate",
    "dunnart.keys.parts",
    "cryptography.hazmat.backends.openssl.backend", "concurrent.futures.thread", "ctypes", "fcntl",
    "resource", "termios", "traceback",
)  # fmt: skip
"""What it loads sooner or later, whatever is configured."""
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


def load_all(algorithms: Algorithms) -> None:
    """Import what it needs, with what any of the algorithms needs."""
    names = (*algorithms.kex, *algorithms.ciphers, *algorithms.compression, *algorithms.user_key, *algorithms.host_key)
    wanted = {module: None for part, modules in _NEEDED.items() for module in modules
              if any(part in name for name in names)}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the library will drop some day
        for module in (*LOADED, *wanted):
            import_module(module)
