"""The subsystem "sftp": the user's files, served by a process of the user's own."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dunnart.plugins import os_process
from dunnart.server.plugins import Context, plugin

if TYPE_CHECKING:
    from dunnart.server import RawSession

_BOOT = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from dunnart.tools.sftp_server import main
sys.exit(main(sys.argv[2:]))
"""


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
        flags = ["-R"] if context.options.read_only else []
        path = json.dumps([os.path.abspath(entry) for entry in sys.path])
        self._argv = ("dunnart-sftp-server", "-I", "-S", "-c", _BOOT, path, *flags)

    def begin(self, session: RawSession) -> bool:
        """Start it."""
        return os_process.run(session, os_process.account_of(session), self._argv, sys.executable)
