"""Sockets that belong to the user who logged in (THREATS R25).

A firewall may have rules for users, and a service may ask whose a connection is: root's would be let through. What
counts is who the thread was for files when it made the socket (setfsuid(2)); nobody can signal or trace it meanwhile,
as he could if it were the user. Linux only.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any

from dunnart.plugins import os_account
from dunnart.plugins.os_account import Account

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dunnart.server.facts import ConnectionFacts


@contextlib.contextmanager
def owned(connection: ConnectionFacts) -> Iterator[None]:
    """Have the sockets that this thread makes meanwhile belong to a connection's user, where the server is root."""
    granted = [each for each in connection.grants if isinstance(each, Account)]
    account = os_account.to_act_as("", granted) if granted else _looked_up(connection.id, connection.user)
    if account is None or sys.platform != "linux":
        yield
        return
    libc = _libc()
    libc.setfsgid(account.gid)
    libc.setfsuid(account.uid)
    try:
        yield
    finally:
        libc.setfsuid(0)
        libc.setfsgid(0)


@functools.lru_cache(maxsize=256)
def _looked_up(_connection: int, user: str) -> Account | None:
    """Ask the system once for a connection: a directory may take its time, and many sockets may be wanted."""
    try:
        return os_account.to_act_as(user, ())
    except PermissionError:  # a user that only the application knows
        return None


@functools.cache
def _libc() -> Any:  # noqa: ANN401 - ctypes.CDLL, which is loaded only if it is needed
    import ctypes

    libc = ctypes.CDLL(None)
    for name in ("setfsuid", "setfsgid"):
        getattr(libc, name).argtypes = (ctypes.c_uint,)
    return libc
