"""The exec processor that does SCP and nothing else: every other command is refused (MISSION P5)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dunnart.plugins import os_process
from dunnart.runtime.logs import clean
from dunnart.scp.command import ScpCommand
from dunnart.server.plugins import Context, plugin

if TYPE_CHECKING:
    from dunnart.server import RawSession

_LOG_BYTES = 64 * 1024


@dataclass(frozen=True)
class Options:
    """What is served.

    Attributes:
        root: the folder that the client sees as "/"; empty: the system's own. %h is the user's home, %u the name.
        drives: folders by the letter that a Windows-style path names them with, {"C": "/srv/c"}; with drives and no
            root there is nothing but them.
        read_only: refuse uploads.
    """

    root: str = ""
    drives: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False

    def __post_init__(self) -> None:
        for letter, folder in self.drives.items():
            if not re.fullmatch(r"[A-Za-z]", letter):
                raise ValueError(f"drives holds {letter!r}, which is no letter")
            if not folder.startswith(("/", "%h")):
                raise ValueError(f"drives holds the folder {folder!r}, which is no absolute path")


@plugin(Options)
class Scp:
    """Serves `scp -t` and `scp -f` by a process of the user's own. With the log level debug it logs every record."""

    def __init__(self, context: Context[Options]) -> None:
        self._options = context.options
        self._log = context.logger

    def begin(self, session: RawSession) -> bool:
        """Start it, or tell the user what is wrong with the command."""
        command = session.facts.command or b""
        try:
            ScpCommand.parse(command)
        except ValueError as error:
            self._log.info("%s of connection %d refused: %s", clean(command), session.connection_id, error)
            asyncio.get_running_loop().call_soon(session.refuse, f"scp: {error}", 1)
            return True
        account = os_process.account_of(session)
        options = self._options

        def place(folder: str) -> str:
            return folder.replace("%h", account.home).replace("%u", account.name)

        reader, writer = os.pipe() if self._log.isEnabledFor(logging.DEBUG) else (-1, -1)
        settings = {
            "root": place(options.root), "drives": {letter: place(folder) for letter, folder in options.drives.items()},
            "read_only": options.read_only, "logs": writer >= 0,
        }  # fmt: skip
        arguments = (json.dumps(settings), os.fsdecode(command))
        passed = () if writer < 0 else (writer,)
        try:
            return os_process.call(session, account, "dunnart.tools.scp_server:main", arguments, passed)
        finally:
            if writer >= 0:
                os.close(writer)
                self._follow(reader, session.connection_id)

    def _follow(self, reader: int, connection: int) -> None:
        """Log what the process says of its records, until it ends."""
        loop = asyncio.get_running_loop()
        os.set_blocking(reader, False)
        rest = bytearray()

        def readable() -> None:
            try:
                data = os.read(reader, _LOG_BYTES)
            except BlockingIOError:
                return
            if not data:
                loop.remove_reader(reader)
                os.close(reader)
                return
            rest.extend(data)
            *lines, tail = rest.split(b"\n")
            rest[:] = tail[-_LOG_BYTES:]
            for line in lines:
                self._log.debug("connection %d: %s", connection, clean(bytes(line)))

        loop.add_reader(reader, readable)
