"""Key sources that ask elsewhere: in threads of their own, bounded in time, with what they found kept for a while."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from dunnart.runtime.pool import ThreadPool

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_THREADS, _QUEUE = 8, 1000
_KEPT_USERS = 1000


def have_tls() -> None:
    """See that `ssl` can be imported: `dunnart serve` keeps asyncio from loading it by a None in the modules' table."""
    modules: dict[str, Any] = sys.modules
    if modules.get("ssl", "") is None:
        del modules["ssl"]


class LookingUp:
    """A key source made of a blocking function, which gets a user's name and gives lines of authorized_keys.

    Args:
        look_up: the function; what it raises fails the login, and is not kept.
        seconds: how long an answer may take. A thread that hangs is left alone, and waited for no longer; once all
            of them hang, logins that need this source fail, and others do not notice.
        kept_seconds: how long an answer counts; 0: it is asked for each time.
    """

    def __init__(self, look_up: Callable[[str], Sequence[str]], seconds: float, kept_seconds: float) -> None:
        self._look_up = look_up
        self._seconds = seconds
        self._kept_seconds = kept_seconds
        self._kept: dict[str, tuple[float, Sequence[str]]] = {}
        self._threads = ThreadPool("dunnart-keys", _THREADS, _QUEUE)

    async def keys(self, user: str, address: str) -> Sequence[str]:
        """Give the lines of a user."""
        kept = self._kept.get(user)
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._threads.run(lambda: self._look_up(user))
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._seconds:g} s") from None
        if self._kept_seconds > 0:
            self._kept.pop(user, None)
            if len(self._kept) >= _KEPT_USERS:
                del self._kept[next(iter(self._kept))]
            self._kept[user] = (time.monotonic() + self._kept_seconds, found)
        return found
