"""Passwords from a file of `user:hash` lines, as `dunnart passwd` and `htpasswd -B` write them: bcrypt or Argon2id."""

from __future__ import annotations

import os
import re
import stat
import threading
from dataclasses import field
from typing import TYPE_CHECKING

from dunnart.plugins import argon2id
from dunnart.plugins.hashing import HASHING
from dunnart.records import dataclass
from dunnart.server import Allow, AuthReply, Deny, PasswordCredential, clean
from dunnart.server.plugins import plugin

if TYPE_CHECKING:
    from dunnart.server.authentication import Attempt
    from dunnart.server.plugins import Context

_LARGEST_FILE = 4 << 20
_USED_BYTES = 72  # bcrypt takes no more; every other program cuts a longer password there
_COSTS = range(4, 16)  # 15: two seconds; what takes longer than the server waits lets nobody in
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_NOBODY = "." * 53  # a salt and a hash that no password has
_MOST_COSTS = 4
_ARGON2ID = "$argon2"


@dataclass(frozen=True, slots=True)
class Options:
    """The table [plugin.password-file].

    Attributes:
        file: the file's name. Lines are USER:HASH, empty, or begin with #.
    """

    file: str

    def __post_init__(self) -> None:
        if not os.path.isabs(self.file):
            raise ValueError(f"file must be an absolute path, not {self.file!r}")


@dataclass(frozen=True, slots=True)
class _Passwords:
    signature: tuple[int, ...] = ()
    hashes: dict[str, str] = field(default_factory=dict, repr=False)
    cost: int | None = 12  # bcrypt's highest in the file; None: it holds Argon2id only
    costs: tuple[argon2id.Cost, ...] = ()  # all that are in the file


class _Unusable(Exception):
    """The file cannot be used; says why."""


@plugin(Options)
class PasswordFile:
    """Lets in by the passwords of a file, hashed with bcrypt or Argon2id (`dunnart[argon2]`).

    The file is read again when it changes. One that others may read or write, or that cannot be read, lets nobody in.
    Whether a user exists cannot be told from the time that an answer takes (THREATS R15): a user who does not is
    hashed as well. For every user a hash of each kind and cost in the file is computed; of bcrypt's costs as much as
    the highest takes.
    """

    method = "password"
    on_any_loop = True

    def __init__(self, context: Context[Options]) -> None:
        self._file = context.options.file
        self._log = context.logger
        self._lock = threading.Lock()
        self._told = ""
        try:
            self._passwords = self._read(self._signature())
        except _Unusable as error:
            raise _option_error(str(error)) from error

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Compare the password with the user's hash, in a thread."""
        if not isinstance(attempt.credential, PasswordCredential):
            return Deny("not a password")
        password = attempt.credential.password
        return await HASHING.run(lambda: self._decide(attempt.user, password))

    def _decide(self, user: str, password: str) -> AuthReply:
        known = self._current()
        found = known.hashes.get(user)
        right = _is_right(password, found or "", known)
        if found is None:
            return Deny("no such user here", unknown_user=True)
        return Allow() if right else Deny()

    def _current(self) -> _Passwords:
        """Give the passwords as the file has them now."""
        with self._lock:
            try:
                signature = self._signature()
                if signature != self._passwords.signature:
                    self._passwords = self._read(signature)
                self._told = ""
            except _Unusable as error:
                self._passwords = _Passwords(cost=self._passwords.cost, costs=self._passwords.costs)
                if self._told != str(error):
                    self._told = str(error)
                    self._log.error("nobody can log in by password: %s %s", self._file, error)
            return self._passwords

    def _signature(self) -> tuple[int, ...]:
        """Give what changes whenever the file does."""
        try:
            found = os.stat(self._file)
        except OSError as error:
            raise _Unusable(f"cannot be read: {error.strerror}") from error
        return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)

    def _read(self, signature: tuple[int, ...]) -> _Passwords:
        hashes: dict[str, str] = {}
        costs: set[argon2id.Cost] = set()
        for number, line in enumerate(_content(self._file).splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            user, _, found = line.strip().partition(":")
            reason = _fault(user, found, costs)
            if reason is None and user in hashes:
                reason = "the user stands further up already"
            if reason is not None:
                self._log.warning("%s:%d: this line lets nobody in: %s", clean(self._file), number, reason)
            else:
                hashes[user] = found
                if found.startswith(_ARGON2ID):
                    costs.add(argon2id.cost(found))
        bcrypt_costs = [_cost(each) for each in hashes.values() if not each.startswith(_ARGON2ID)]
        return _Passwords(signature, hashes, max(bcrypt_costs, default=None if costs else 12), tuple(sorted(costs)))


def _content(path: str) -> str:
    """Read the file, if it is one that only its owner can have written and read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _Unusable("is no file")
            if found.st_uid not in (0, os.geteuid()):
                raise _Unusable("belongs neither to root nor to who runs the server")
            if found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
                raise _Unusable("can be read or written by others; chmod 600 mends that")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(_LARGEST_FILE + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _Unusable(f"cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST_FILE:
        raise _Unusable("has more than 4 MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _Unusable("is not UTF-8") from error


def _fault(user: str, found: str, costs: set[argon2id.Cost]) -> str | None:
    """Say what is wrong with a line; without a word of the hash."""
    if not user or not user.isprintable():
        return "there is no user's name before a colon"
    if found.startswith(_ARGON2ID):
        try:
            cost = argon2id.cost(found)
        except (ValueError, ImportError) as error:
            return str(error)
        return None if len({*costs, cost}) <= _MOST_COSTS else f"it is of a fifth cost; {_MOST_COSTS} are enough"
    if not _HASH.fullmatch(found):
        return "what stands after the user's name is no hash by bcrypt ($2b$) or Argon2id ($argon2id$)"
    if _cost(found) not in _COSTS:
        return f"the hash's cost is not between {_COSTS[0]} and {_COSTS[-1]}"
    return None


def _cost(found: str) -> int:
    return int(found[4:6])


def _is_right(password: str, found: str, known: _Passwords) -> bool:
    """Compare with a hash, or "" for a user who does not exist; the work is the same for all of a file."""
    data = password.encode(errors="surrogateescape")
    argon2 = found.startswith(_ARGON2ID)
    own = argon2id.cost(found) if argon2 else None
    right = False
    if known.cost is not None:
        nobody = f"$2b${known.cost:02d}${_NOBODY}"
        right = _matches(data, nobody if argon2 or not found else found, known.cost)
    for cost in known.costs:
        fits = argon2id.matches(data, found if cost == own else cost.nobody())
        right = right or fits
    return right and bool(found)


def _matches(data: bytes, found: str, cost: int) -> bool:
    """Compare; the work is that of a hash with this cost, which is no lower than the hash's own."""
    # Each cost takes twice the time of the one below: 2^c + (2^c + 2^(c+1) + ... + 2^(cost-1)) = 2^cost.
    from bcrypt import checkpw

    right = checkpw(data[:_USED_BYTES], found.encode())
    for rest in range(_cost(found), cost):
        checkpw(data[:_USED_BYTES], f"$2b${rest:02d}${_NOBODY}".encode())
    return right and b"\0" not in data


def _option_error(message: str) -> Exception:
    from dunnart.errors import ConfigError

    return ConfigError(message, key="file")
