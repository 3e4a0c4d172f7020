"""The operating system's users, as sessions need them."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this system.

    Attributes:
        name: the login name.
        uid: the user's number; `gid` is the first group's.
        home: the home folder.
        shell: the login shell.
    """

    name: str
    uid: int
    gid: int
    home: str
    shell: str

    def groups(self) -> tuple[int, ...]:
        """All groups that the user is in."""
        return tuple(os.getgrouplist(self.name, self.gid))


def find(name: str) -> Account | None:
    """The user of that name whom this process can serve: any for root, else the one it runs as."""
    import pwd

    if not name or name[0] in "-." or "/" in name or "\0" in name:
        return None
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    own = os.geteuid()
    if own not in (0, entry.pw_uid):
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell or "/bin/sh")
