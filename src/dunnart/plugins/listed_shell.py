"""The account check `listed-shell`: users whose shell /etc/shells does not list get in by no method, as in Dropbear.

sshd lets such users in, and their shell, such as `nologin`, says what it says; but they may have ports forwarded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunnart.plugins import os_account
from dunnart.server import Allow, Deny

if TYPE_CHECKING:
    from dunnart.server import Attempt
    from dunnart.server.plugins import Context

FILE = "/etc/shells"
_USUAL = {"/bin/sh", "/bin/csh"}  # where there is no such file; getusershell(3)


class ListedShell:
    """Keeps users out whose shell is not listed."""

    def __init__(self, _context: Context[None]) -> None:
        pass

    async def admit(self, attempt: Attempt, allowed: Allow) -> Allow | Deny:
        """Look the user's shell up, in a thread."""
        reply: Allow | Deny = await attempt.run(_decide, attempt.user, allowed)
        return reply


def _decide(user: str, allowed: Allow) -> Allow | Deny:
    account = os_account.find(user)
    if account is None:  # of no account of the system's; what serves the sessions says what that means
        return allowed
    try:
        with open(FILE, encoding="utf-8", errors="surrogateescape") as file:
            listed = {line.partition("#")[0].strip() for line in file}
    except FileNotFoundError:
        listed = _USUAL
    except OSError as error:
        return Deny(f"{FILE} cannot be read: {error.strerror}")
    return allowed if account.shell in listed else Deny(f"the shell {account.shell} is not in {FILE}")
