"""Hashes of passwords by Argon2id (RFC 9106), in the form $argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH."""

from __future__ import annotations

import re
from typing import NamedTuple

_HASH = re.compile(
    r"\$argon2id\$v=19\$m=([1-9]\d{0,9}),t=([1-9]\d{0,9}),p=([1-9]\d{0,9})\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)
_MOST_KIB = 256 * 1024
_MOST_PASSES = 16
_MOST_LANES = 16
_SALT_BYTES = 16


class Cost(NamedTuple):
    """What a hash costs: KiB of memory, passes over it, and lanes.

    The defaults are the second choice of RFC 9106: 64 MiB, for which it is meant where memory counts.
    """

    kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4

    def nobody(self) -> str:
        """Give a hash of this cost that no password has."""
        return f"$argon2id$v=19$m={self.kib},t={self.passes},p={self.lanes}${'A' * 22}${'A' * 43}"


def cost(found: str) -> Cost:
    """Give what a hash costs.

    Raises:
        ValueError: it is none, or one that costs too much.
        ImportError: argon2-cffi is not installed.
    """
    match = _HASH.fullmatch(found)
    if match is None:
        raise ValueError("what stands after the user's name is no Argon2id hash")
    kib, passes, lanes = map(int, match.groups())
    if kib > _MOST_KIB or passes > _MOST_PASSES or lanes > _MOST_LANES or kib < 8 * lanes:
        raise ValueError(f"the hash costs more than {_MOST_KIB} KiB, {_MOST_PASSES} passes and {_MOST_LANES} lanes")
    _library()
    return Cost(kib, passes, lanes)


def _library() -> None:
    try:
        import argon2  # noqa: F401 - whether it is there
    except ImportError as error:
        raise ImportError(f'argon2-cffi cannot be loaded: pip install "dunnart[argon2]" ({error})') from error


def matches(password: bytes, found: str) -> bool:
    """Compare."""
    from argon2.exceptions import VerificationError
    from argon2.low_level import Type, verify_secret

    try:
        return verify_secret(found.encode(), password, Type.ID)
    except VerificationError:
        return False


def hashed(password: bytes, cost: Cost | None = None) -> str:
    """Hash a password.

    Raises:
        ImportError: argon2-cffi is not installed.
    """
    _library()
    import os

    from argon2.low_level import Type, hash_secret

    kib, passes, lanes = cost or Cost()
    made: bytes = hash_secret(password, os.urandom(_SALT_BYTES), passes, kib, lanes, 32, Type.ID)
    return made.decode()
