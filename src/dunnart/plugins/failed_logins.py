"""Failed logins in btmp, for lastb(1): the audit sink "btmp"."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError
from dunnart.runtime.pool import ThreadPool

if TYPE_CHECKING:
    from dunnart.server import AuditEvent, Context

BTMP = "/var/log/btmp"
_METHODS = frozenset(("password", "keyboard-interactive"))
_MOST_WAITING = 1000
_LINE = "ssh:notty"


class FailedLogins:
    """Keeps record of failed passwords in btmp, as sshd does, if the file is there and root's alone.

    As users type passwords where names belong, nobody else should read it.
    """

    def __init__(self, context: Context[None]) -> None:
        if sys.platform != "linux" or os.geteuid() != 0:
            raise ConfigError("btmp is root's, on Linux")
        self._log = context.logger
        self._thread = ThreadPool("dunnart-btmp", 1, _MOST_WAITING)

    def record(self, event: AuditEvent) -> None:
        """Have it recorded, if it is such an event; more than the thread can keep up with are left out."""
        if event.kind == "login-failed" and event.details.get("method") in _METHODS:
            self._thread.submit(lambda: self._write(event))

    def _write(self, event: AuditEvent) -> None:
        from dunnart.plugins import login_records

        login = login_records.Login(_LINE, os.getpid(), event.user, 0, event.peer.host)
        try:
            login_records.failed(login, BTMP)
        except OSError as error:
            self._log.warning("connection %d: a failed login cannot be recorded: %s", event.connection, error)
