"""The operating system's users, as sessions need them."""

from __future__ import annotations

import os
from collections.abc import Iterable
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
    # A directory may know names in any case, or with a domain; rules for users are written for one of them.
    if entry.pw_name != name or own not in (0, entry.pw_uid):
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell or "/bin/sh")


def of_login(user: str, grants: Iterable[object]) -> Account:
    """Whose account a login stands for: what it granted, or else the user of that name.

    Raises:
        PermissionError: there is none.
    """
    granted = [grant for grant in grants if isinstance(grant, Account)]
    account = granted[-1] if granted else find(user)
    if account is None:
        raise PermissionError(f"{user!r} is no user that can be served")
    return account


def to_act_as(user: str, grants: Iterable[object]) -> Account | None:
    """Whose rights are to be taken on for what a login asks for; None: this process has no others than its own.

    Raises:
        PermissionError: root serves a user who has no account.
    """
    if os.name != "posix" or os.geteuid() != 0:
        return None
    account = of_login(user, grants)
    return None if account.uid == 0 else account
