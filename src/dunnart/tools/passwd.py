"""`dunnart passwd`: makes, changes and removes lines of a password file."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence

from dunnart.errors import ConfigError

_DESCRIPTION = (
    "Set a user's password in a file that the plug-in password-file reads; it is made if it is not there. The password "
    "is asked for twice on a terminal, else it is the first line of standard input."
)
_COST = 12
_BCRYPT_BYTES = 72


def run(arguments: Sequence[str]) -> int:
    """Set a password.

    Raises:
        ConfigError: the user's name, the password or the file cannot be used.
    """
    from dunnart.daemon.flags import Parser

    parser = Parser(prog="dunnart passwd", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("user", metavar="USER")
    parser.add_argument("--argon2id", action="store_true", help="Hash by Argon2id (dunnart[argon2]) and not bcrypt.")
    parser.add_argument("--delete", action="store_true", help="Remove the user's line.")
    flags = parser.parse_args(arguments)
    user: str = flags.user
    if not user or not user.isprintable() or ":" in user or user.startswith("#") or user.strip() != user:
        raise ConfigError(f"{user!r} is no name that such a file can hold", key="USER")
    line = None if flags.delete else f"{user}:{_hashed(_asked(user), argon2=flags.argon2id)}"
    if not change(flags.file, user, line):
        raise ConfigError(f"there is no line for {user!r}", path=flags.file)
    return 0


def _asked(user: str) -> str:
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        from getpass import getpass

        password = getpass(f"Password of {user}: ")
        if getpass("Again: ") != password:
            raise ConfigError("the two are not the same")
    if not password:
        raise ConfigError("a password is not empty")
    return password


def _hashed(password: str, *, argon2: bool) -> str:
    data = password.encode(errors="surrogateescape")
    if argon2:
        from dunnart.plugins.argon2id import hashed

        try:
            return hashed(data)
        except ImportError as error:
            raise ConfigError(str(error), key="--argon2id") from error
    if len(data) > _BCRYPT_BYTES or b"\0" in data:
        raise ConfigError(f"bcrypt takes no more than {_BCRYPT_BYTES} bytes, none of them 0; Argon2id does")
    from bcrypt import gensalt, hashpw

    return hashpw(data, gensalt(_COST)).decode()


def change(path: str, user: str, line: str | None) -> bool:
    """Put a line in the place of a user's, or remove that; whether there was anything to be done.

    Another file takes the old one's place at once, with its owner and mode, so that no reader finds half of it.

    Raises:
        ConfigError: that cannot be done.
    """
    made = f"{path}.new"
    try:
        lines, mode, owner = _lines(path)
        at = [number for number, each in enumerate(lines) if each.strip().partition(":")[0] == user]
        if line is None and not at:
            return False
        kept = [each for number, each in enumerate(lines) if number not in at[1:]]
        if at:
            kept[at[0] : at[0] + 1] = [] if line is None else [line]
        elif line is not None:
            kept.append(line)
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write("".join(f"{each}\n" for each in kept))
                file.flush()
                os.fchmod(descriptor, mode)
                if os.geteuid() == 0:
                    os.fchown(descriptor, *owner)
                os.fsync(descriptor)
            os.replace(made, path)
        except BaseException:
            os.unlink(made)
            raise
    except FileExistsError as error:
        raise ConfigError("is there: somebody else changes the file, or was interrupted", path=made) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8", path=path) from error
    except OSError as error:
        raise ConfigError(f"cannot be changed: {error.strerror}", path=path) from error
    return True


def _lines(path: str) -> tuple[list[str], int, tuple[int, int]]:
    try:
        with open(path, encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            return file.read().splitlines(), stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
    except FileNotFoundError:
        return [], 0o600, (os.geteuid(), os.getegid())
