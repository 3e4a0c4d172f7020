"""Sessions' keyrings in the kernel (session-keyring(7), Linux): each user's session has one of its own.

It is inherited, whoever a process becomes: without this all sessions would have that of the server, whose keys and each
other's their users could read. With PAM it is pam_keyinit that makes one.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

_JOIN = 1  # KEYCTL_JOIN_SESSION_KEYRING of keyctl(2), which the C library has no function for
_NUMBERS = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}


def share_no_keys() -> None:
    """Have this thread, and what it starts from now on, use a new keyring, if the kernel has any."""
    number = _NUMBERS.get(os.uname().machine) if sys.platform == "linux" and sys.maxsize > 1 << 32 else None
    if number is not None:
        _libc().syscall(number, _JOIN, None)


@functools.cache
def _libc() -> Any:  # noqa: ANN401 - ctypes.CDLL, which is loaded only if it is needed
    import ctypes

    libc = ctypes.CDLL(None)
    libc.syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p)
    return libc
