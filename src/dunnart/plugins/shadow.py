"""Passwords of this system's users, from its shadow file: for root alone, without PAM.

The hashes are made by the system's own libcrypt, so whatever it knows may stand there: yescrypt, SHA-512, bcrypt. What
PAM's other modules would want, such as a second factor or a closed machine, is not asked for.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from dunnart.errors import ConfigError
from dunnart.plugins import os_account
from dunnart.plugins.hashing import HASHING
from dunnart.records import dataclass
from dunnart.server import Allow, AuthReply, Deny, PasswordCredential
from dunnart.server.plugins import plugin

if TYPE_CHECKING:
    from dunnart.plugins.os_account import Account
    from dunnart.server.authentication import Attempt
    from dunnart.server.plugins import Context

_LIBCRYPT = ("libcrypt.so.1", "libcrypt.so.2", "libcrypt.so")
_UNUSABLE = frozenset((1, 2))  # CRYPT_SALT_INVALID, CRYPT_SALT_METHOD_DISABLED: crypt_checksalt(3)
_DATA_BYTES = 256 * 1024  # more than any libcrypt's crypt_data
_BUFFER_BYTES = 16 * 1024
_LONGEST = 511  # bytes; CRYPT_MAX_PASSPHRASE_SIZE - 1
_NOBODY = "$y$j9T$" + "." * 22  # yescrypt as Debian and others have it
_DAY_SECONDS = 86400
_BCRYPT_SALT = 22
_HASH = re.compile(r"[!*]?(\$[\w=,]+\$(?:[^$:]*\$)*)([^$:]+)")


@dataclass(frozen=True, slots=True)
class Options:
    """The table [plugin.shadow].

    Attributes:
        file: where the hashes of most users stand; of one of them, unknown users get the cost.
    """

    file: str = "/etc/shadow"


class Entry(NamedTuple):
    """What the system knows of a user's password.

    Attributes:
        hashed: the hash; empty: no password is wanted.
        changed: the day since 1970 on which it was changed; 0: it has to be changed now; -1: unknown.
        most_days: how long it may be used; -1: for ever.
        expires: the day from which the account is closed; -1: none.
    """

    hashed: str
    changed: int = -1
    most_days: int = -1
    expires: int = -1

    def fault(self, today: int) -> str:
        """Say why nobody may log in by it; "" if nothing is against it."""
        if 0 <= self.expires <= today:
            return "the account has expired"
        if self.changed == 0:
            return "the password has to be changed first"
        if self.changed > 0 and self.most_days >= 0 and today - self.changed > self.most_days:
            return "the password has expired"
        return ""


class _Spwd(ctypes.Structure):
    """`struct spwd` of shadow.h."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("hashed", ctypes.c_char_p), ("changed", ctypes.c_long),
        ("least_days", ctypes.c_long), ("most_days", ctypes.c_long), ("warning_days", ctypes.c_long),
        ("inactive_days", ctypes.c_long), ("expires", ctypes.c_long), ("flag", ctypes.c_ulong),
    )  # fmt: skip


@plugin(Options)
class Shadow:
    """Lets this system's users in by the passwords in its shadow file, where the server runs as root.

    Locked and expired accounts are refused. A user who does not exist costs as much as most of those who do.
    """

    method = "password"
    on_any_loop = True

    def __init__(self, context: Context[Options]) -> None:
        if sys.platform != "linux":
            raise ConfigError("the plug-in shadow is for Linux")
        if os.geteuid() != 0:
            raise ConfigError("only root can read the hashes of passwords; run the server as root, or use pam")
        self._libcrypt = _libcrypt()
        self._libcrypt.crypt_r.restype = ctypes.c_char_p
        self._libcrypt.crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        self._nobody = _typical(context.options.file)
        if not self._knows(self._nobody):
            raise ConfigError(f"the system's libcrypt cannot make hashes as most of {context.options.file}", key="file")

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Compare the password with the user's hash, in a thread."""
        if not isinstance(attempt.credential, PasswordCredential):
            return Deny("not a password")
        data = attempt.credential.password.encode(errors="surrogateescape")
        account, entry = await attempt.run(_look_up, attempt.user)
        usable = entry is not None and entry.hashed[:1] not in {"", "!", "*"}
        right = await HASHING.run(lambda: self._matches(data, entry.hashed if usable else None))
        if account is None:
            return Deny("no such user here", unknown_user=True)
        if entry is None:
            return Deny("has no entry in the shadow file")
        if entry.hashed == "":
            right = not data
        elif not usable:
            return Deny("the password is locked")
        if not right:
            return Deny()
        fault = entry.fault(int(time.time()) // _DAY_SECONDS)
        return Deny(fault) if fault else Allow(account)

    def _matches(self, password: bytes, found: str | None) -> bool:
        from cryptography.hazmat.primitives.constant_time import bytes_eq

        possible = len(password) <= _LONGEST and b"\0" not in password
        made = self.hashed(password if possible else b"", found or self._nobody)
        if made is None:  # one that this libcrypt does not know; the time is to be the same
            self.hashed(b"", self._nobody)
        return found is not None and made is not None and bytes_eq(made, found.encode()) and possible

    def _knows(self, setting: str) -> bool:
        """Tell whether libcrypt can make such hashes; libxcrypt, which most systems have, says so at once."""
        try:
            asked = self._libcrypt.crypt_checksalt
        except AttributeError:
            return self.hashed(b"", setting) is not None
        return asked(setting.encode()) not in _UNUSABLE

    def hashed(self, password: bytes, setting: str) -> bytes | None:
        """Hash a password as crypt(3) does; None if the setting is none that libcrypt knows."""
        data = ctypes.create_string_buffer(_DATA_BYTES)
        try:
            made: bytes | None = self._libcrypt.crypt_r(password, setting.encode(), data)
            return None if made is None or made.startswith(b"*") else bytes(made)
        finally:
            ctypes.memset(data, 0, _DATA_BYTES)  # parts of the password may stand there


def _look_up(user: str) -> tuple[Account | None, Entry | None]:
    account = os_account.find(user)
    return account, None if account is None else entry_of(account.name)


class ShadowAccounts:
    """Lets in only whom the shadow file has neither locked, by a ! before the hash, nor closed, whatever the method.

    So does sshd without PAM. Where PAM decides, a locked password keeps nobody out who has a key.
    """

    def __init__(self, _context: Context[None]) -> None:
        if sys.platform != "linux":
            raise ConfigError("the plug-in shadow is for Linux")
        if os.geteuid() != 0:
            raise ConfigError("only root can read the shadow file; run the server as root")

    async def admit(self, attempt: Attempt, allowed: Allow) -> Allow | Deny:
        """Look at the user's entry, in a thread."""
        fault: str = await attempt.run(self._fault, attempt.user)
        return Deny(fault) if fault else allowed

    def _fault(self, user: str) -> str:
        entry = entry_of(user)
        if entry is None:
            return ""
        if entry.hashed.startswith("!"):
            return "the account is locked"
        return "the account has expired" if 0 <= entry.expires <= int(time.time()) // _DAY_SECONDS else ""


def entry_of(name: str) -> Entry | None:
    """Ask the system for a user's entry; only root can see it."""
    found, pointer = _Spwd(), ctypes.POINTER(_Spwd)()
    buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
    status = ctypes.CDLL(None).getspnam_r(
        name.encode(), ctypes.byref(found), buffer, ctypes.c_size_t(_BUFFER_BYTES), ctypes.byref(pointer)
    )
    if status != 0 or ctypes.cast(pointer, ctypes.c_void_p).value is None:
        return None
    hashed = (found.hashed or b"*").decode(errors="replace")
    return Entry(hashed, found.changed, found.most_days, found.expires)


def _libcrypt() -> ctypes.CDLL:
    for name in _LIBCRYPT:
        with suppress(OSError):
            return ctypes.CDLL(name)
    from ctypes.util import find_library  # starts ldconfig, compilers and linkers until one of them finds it

    try:
        return ctypes.CDLL(find_library("crypt") or _LIBCRYPT[0])
    except OSError as error:
        raise ConfigError(f"libcrypt cannot be loaded: {error}") from error


def _typical(path: str) -> str:
    """Give a setting as most users' hashes in a shadow file have it."""
    kinds: Counter[str] = Counter()
    examples: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                match = _HASH.fullmatch(line.split(":")[1]) if ":" in line else None
                if match is not None:
                    setting = match[1]
                    kind = re.sub(r"[^$]*\$$", "", setting) if setting.count("$") > 2 else setting
                    if setting.startswith("$2"):  # bcrypt, whose salt is no field of its own
                        kind, setting = setting, setting + match[2][:_BCRYPT_SALT]
                    kinds[kind] += 1
                    examples[kind] = setting
    except OSError:
        return _NOBODY
    return examples[kinds.most_common(1)[0][0]] if kinds else _NOBODY
