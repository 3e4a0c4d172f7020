"""Subsystems that are commands of the system, as sshd's Subsystem names them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from dunnart.plugins import os_login
from dunnart.plugins.os_process import OsLogin
from dunnart.records import dataclass
from dunnart.server.plugins import Context, plugin

if TYPE_CHECKING:
    from dunnart.server import RawSession


@dataclass(frozen=True, slots=True)
class Options(os_login.Options):
    """The options of the plug-in os, and which subsystem is which command.

    Attributes:
        commands: what the user's shell runs, by the subsystem's name.
    """

    commands: Mapping[str, str] = field(default_factory=dict)


@plugin(Options)
class SubsystemCommand:
    """Serves subsystems by commands, which the user's shell interprets."""

    def __init__(self, context: Context[Options]) -> None:
        self._commands = context.options.commands
        self._login = OsLogin(context.options)

    def begin(self, session: RawSession) -> bool:
        """Start the one of that name."""
        command = self._commands.get(session.facts.subsystem or "")
        if command is None:
            return False
        session.facts.command = os.fsencode(command)
        return self._login.begin(session)
