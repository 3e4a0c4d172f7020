"""The operating system's users, as sessions need them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import field
from typing import TYPE_CHECKING

from dunnart.records import dataclass

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from socket import socket as Socket  # noqa: N812 - the class, not the module

    from dunnart.runtime.fork_server import ForkServer


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


class Forks:
    """What forks a login's processes: a process that has the limits, and whatever else was set up for the login.

    Args:
        sock: leads there.
    """

    def __init__(self, sock: Socket) -> None:
        self._sock: Socket | None = sock
        self._server: ForkServer | None = None
        self._loop: AbstractEventLoop | None = None

    def on(self, loop: AbstractEventLoop) -> ForkServer:
        """Give it orders on this loop, always the same.

        Raises:
            OSError: the login is over.
        """
        if self._server is None:
            from dunnart.runtime.fork_server import ForkServer

            if self._sock is None:
                raise OSError(0, "the login is over")
            self._server, self._loop = ForkServer(loop, control=self._sock), loop
        return self._server

    def end(self) -> None:
        """The login is over."""
        if self._server is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._server.hang_up)
        elif self._sock is not None:
            self._sock.close()
        self._sock = None


@dataclass(frozen=True, slots=True)
class Opened(Account):
    """An account with a session that was opened for the login: all of its programs belong to that.

    Attributes:
        forks: starts them.
        said: what its user is to read at the first shell on a terminal.
        change_password: the password has to be changed, and nothing else may be.
    """

    forks: Forks = field(kw_only=True, compare=False)
    said: str = field(default="", kw_only=True)
    change_password: bool = field(default=False, kw_only=True)


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
