"""What systemd is told of the service: ready, reloading, stopping, alive (sd_notify(3)). Without systemd, nobody is."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Sends messages to the service manager. Made once: what it needs is taken out of the environment.

    Args:
        environment: that of the process.

    Attributes:
        watchdog_seconds: how often it must hear of us; 0: it need not.
    """

    def __init__(self, environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        watchdog, process = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        self.watchdog_seconds = 0.0
        if self._address and watchdog.isdecimal() and process in {"", str(os.getpid())}:
            self.watchdog_seconds = int(watchdog) / 1e6

    def tell(self, *lines: str) -> None:
        """Send some assignments, such as "READY=1"."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto("\n".join(lines).encode(), address)

    def reloading(self) -> None:
        """Say that the configuration is read again; `tell("READY=1")` says that it is done."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    async def keep_alive(self) -> None:
        """Tell the watchdog, for ever, that the event loop turns."""
        import asyncio

        while self.watchdog_seconds:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 3)

    @property
    def variables(self) -> Mapping[str, str]:
        """What was taken out of the environment, for a program that takes over."""
        if not self._address:
            return {}
        found = {"NOTIFY_SOCKET": self._address}
        if self.watchdog_seconds:
            found["WATCHDOG_USEC"] = str(int(self.watchdog_seconds * 1e6))
        return found
