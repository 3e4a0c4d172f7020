"""The subsystem "sftp": the user's files, served by a process of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dunnart.plugins import os_process
from dunnart.server.plugins import Context, plugin

if TYPE_CHECKING:
    from dunnart.server import RawSession


@dataclass(frozen=True)
class Options:
    """What may be done.

    Attributes:
        read_only: refuse everything that changes something.
    """

    read_only: bool = False


@plugin(Options)
class Sftp:
    """Serves sessions by `dunnart sftp-server`, as the user who logged in."""

    def __init__(self, context: Context[Options]) -> None:
        self._arguments = ("-R",) if context.options.read_only else ()

    def begin(self, session: RawSession) -> bool:
        """Start it."""
        account = os_process.account_of(session)
        return os_process.call(session, account, "dunnart.tools.sftp_server:main", self._arguments)
