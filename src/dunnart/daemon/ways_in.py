"""Is there a way in? And if not, a password for this run, as a notebook server prints its token."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dunnart.runtime.logs import clean

_LOG = logging.getLogger("dunnart.daemon")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # 32, none to be taken for another
_LETTERS = 20


class User(NamedTuple):
    """What a file's pattern is filled in with."""

    name: str
    number: int
    home: str


def this_user() -> User:
    """Give the user that this process runs as."""
    if sys.platform != "win32":
        import pwd

        number = os.geteuid()
        try:
            entry = pwd.getpwuid(number)
        except KeyError:  # a container that runs as a number without a name
            return User(os.environ.get("USER") or str(number), number, os.environ.get("HOME") or "/")
        return User(entry.pw_name, number, entry.pw_dir)
    else:  # noqa: RET505 - mypy knows this form
        return User(os.environ.get("USERNAME", "user"), 0, os.path.expanduser("~"))


def served_users() -> Iterator[User]:
    """Give the users who can log in: all of them for root, else the one who started the server."""
    yield this_user()
    if sys.platform != "win32" and os.geteuid() == 0:
        import pwd

        for entry in pwd.getpwall():
            if entry.pw_uid != 0:
                yield User(entry.pw_name, entry.pw_uid, entry.pw_dir)


def anyone_has_key(patterns: Sequence[str], *, strict_modes: bool, variables: Sequence[str] = ()) -> bool:
    """Tell whether one of the served users has a file with a line that lets a key in; the log says what is in its way.

    Args:
        patterns: the files, as the option `authorized_keys` has them.
        strict_modes: files that others can write do not count.
        variables: patterns of the names that the option environment of a line may set.
    """
    from dunnart.keys.authorized_keys import AuthorizedKeysCache
    from dunnart.plugins.authorized_keys import fill_in

    read = AuthorizedKeysCache(variables).load
    told = set()  # files without the user's name or home in them are one for all
    for user in served_users():
        for pattern in patterns:
            path = fill_in(pattern, user.name, user.number, user.home)
            found = read(path, owner_uid=user.number if strict_modes else None, home=user.home)
            if found.entries:
                return True
            for line, reason in found.refused:
                where = f"{path}:{line}" if line else path
                if (where, reason) not in told:
                    told.add((where, reason))
                    _LOG.warning("%s lets nobody in: %s", clean(where), clean(reason))
    return False


def new_password() -> str:
    """Make a password of 20 letters and digits, 100 random bits."""
    return "".join(_ALPHABET[byte & 31] for byte in os.urandom(_LETTERS))
