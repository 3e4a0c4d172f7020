"""A folder in /tmp that is one user's own: for the sockets and cookies of his sessions."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunnart.plugins.os_account import Account

_PARENT = "/tmp"  # noqa: S108 - what is made there has a name that nobody can guess, and lets nobody else in
_NAME_BYTES = 8


class PrivateFolder:
    """Makes the folder, mode 0700; it belongs to the server until it is given to its user.

    Args:
        account: the user's; None: the server's own user.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, account: Account | None) -> None:
        self._account = account
        self.path = f"{_PARENT}/ssh-{os.urandom(_NAME_BYTES).hex()}"
        os.mkdir(self.path, 0o700)
        self._folder = -1
        try:
            self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            os.rmdir(self.path)
            raise
        self._names: list[str] = []

    def add(self, name: str) -> str:
        """Say that a file of that name will be there, to be removed with the folder; gives its path."""
        self._names.append(name)
        return f"{self.path}/{name}"

    def give(self) -> None:
        """Give the files, mode 0600, and then the folder, to the user. Nobody else could get at them before.

        Raises:
            OSError: that cannot be done.
        """
        for name in self._names:
            os.chmod(name, 0o600, dir_fd=self._folder)
            if self._account is not None:
                os.chown(name, self._account.uid, self._account.gid, dir_fd=self._folder, follow_symlinks=False)
        if self._account is not None:
            os.fchown(self._folder, self._account.uid, self._account.gid)

    def remove(self) -> None:
        """Remove the files and the folder. The user may have put something else there: no link is followed."""
        if self._folder < 0:
            return
        for name in self._names:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._folder)
        os.close(self._folder)
        self._folder = -1
        with contextlib.suppress(OSError):
            os.rmdir(self.path)
