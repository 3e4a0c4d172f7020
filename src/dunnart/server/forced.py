"""What a login's rights make of a session: a forced command, variables, or nothing at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunnart.server.facts import SessionFacts

ORIGINAL = "SSH_ORIGINAL_COMMAND"
INTERNAL_SFTP = b"internal-sftp"
_SFTP = "sftp"
_KINDS = ("shell", "exec", "subsystem")


class NotAllowed(Exception):
    """The session may not be; `told` says whether its user may read why."""

    def __init__(self, reason: str, *, told: bool) -> None:
        super().__init__(reason)
        self.told = told


def apply(facts: SessionFacts) -> None:
    """Make what was asked for what the login's rights allow.

    Raises:
        NotAllowed: that is nothing.
    """
    rights = facts.connection.rights
    if facts.kind not in _KINDS or facts.opening:
        return
    if not rights.sessions:
        raise NotAllowed("this login may not have sessions", told=False)
    if facts.terminal is not None and not rights.pty:
        raise NotAllowed("this login may not have a terminal", told=False)
    if rights.environment:
        facts.environment = {**facts.environment, **dict(rights.environment)}
    if rights.command is not None:
        _force(facts, rights.command)


def _force(facts: SessionFacts, command: bytes) -> None:
    name, _, arguments = command.strip().replace(b"\t", b" ").partition(b" ")
    if name == INTERNAL_SFTP or command == _SFTP.encode():
        if arguments:
            raise NotAllowed("the forced command internal-sftp has arguments, which are not supported", told=True)
        if facts.kind != "subsystem":
            raise NotAllowed("this login is for SFTP only", told=True)
        facts.subsystem = _SFTP
        return
    variables = dict(facts.environment)
    variables.pop(ORIGINAL, None)  # the client may not say so itself
    if facts.kind == "exec" and facts.command is not None:
        variables[ORIGINAL] = facts.command.decode(errors="surrogateescape")
    elif facts.subsystem is not None:
        variables[ORIGINAL] = INTERNAL_SFTP.decode() if facts.subsystem == _SFTP else facts.subsystem
    facts.environment = variables
    facts.kind, facts.command, facts.subsystem = "exec", command, None
