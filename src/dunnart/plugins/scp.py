"""The exec processor that does SCP and nothing else: every other command is refused (MISSION P5)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from dunnart.plugins.file_process import FileProcesses
from dunnart.records import dataclass
from dunnart.scp.command import ScpCommand
from dunnart.server import clean
from dunnart.server.plugins import Context, plugin
from dunnart.sftp.options import FileOptions, check_folder

if TYPE_CHECKING:
    from dunnart.server import RawSession


@dataclass(frozen=True)
class Options(FileOptions):
    """Which files are served, and how.

    Attributes:
        drives: folders by the letter that a Windows-style path names them with, {"C": "/srv/c"}; with drives and no
            root there is nothing but them.
    """

    drives: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for letter, folder in self.drives.items():
            if not re.fullmatch(r"[A-Za-z]", letter):
                raise ValueError(f"drives holds {letter!r}, which is no letter")
            if not folder:
                raise ValueError(f"drives holds no folder for {letter}")
            check_folder("drives", folder)


@plugin(Options)
class Scp:
    """Serves `scp -t` and `scp -f` by a process of the user's own. With the log level debug it logs every record."""

    def __init__(self, context: Context[Options]) -> None:
        self._log = context.logger
        self._processes = FileProcesses(context, "scp", context.options.drives)

    def begin(self, session: RawSession) -> bool:
        """Start it, or tell the user what is wrong with the command."""
        try:
            ScpCommand.parse(session.facts.command or b"")
        except ValueError as error:
            self._log.info(
                "%s of connection %d refused: %s", clean(session.command or ""), session.connection_id, error
            )
            session.refuse(f"scp: {error}", 1)
            return True
        return self._processes.start(session, os.fsdecode(session.facts.command or b""))
