"""The subsystem "sftp": the user's files, served by a process of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunnart.plugins.file_process import FileProcesses
from dunnart.records import dataclass
from dunnart.server.plugins import Context, plugin
from dunnart.sftp.messages import REQUESTS
from dunnart.sftp.options import FileOptions

if TYPE_CHECKING:
    from dunnart.server import RawSession


@dataclass(frozen=True)
class Options(FileOptions):
    """Which files are served, and how.

    Attributes:
        allow_requests: what clients may ask for, by the names that dunnart sftp-server -Q requests lists; none: all.
        deny_requests: what they may not, by the same names.
    """

    allow_requests: tuple[str, ...] = ()
    deny_requests: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("allow_requests", "deny_requests"):
            for name in getattr(self, option):
                if name not in REQUESTS:
                    raise ValueError(f"{option} holds {name!r}, and SFTP has no such request")


@plugin(Options)
class Sftp:
    """Serves SFTP by a process of the user's own."""

    def __init__(self, context: Context[Options]) -> None:
        options = context.options
        self._processes = FileProcesses(context, "sftp")
        self._requests: list[str] | None = None
        if options.allow_requests or options.deny_requests:
            self._requests = sorted(set(options.allow_requests or REQUESTS) - set(options.deny_requests))

    def begin(self, session: RawSession) -> bool:
        """Start it."""
        return self._processes.start(session, requests=self._requests)
