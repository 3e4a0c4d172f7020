"""`dunnart sftp-server`: SFTP on standard input and output, in the place of OpenSSH's program of that name.

Flags, exit statuses and log are those of sftp-server(8), so that a line `Subsystem sftp …` of sshd_config can name this
program instead. What is wrong with a flag ends it; OpenSSH's goes on without an unknown request or log level.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from dunnart.tools.sftp_log import ERROR, FACILITIES, FATAL, INFO, LEVELS, VERBOSE, Log, LoggedFiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pwd import struct_passwd

    from dunnart.sftp.files import FileSystem

USAGE = """\
usage: dunnart sftp-server [-ehR] [-d FOLDER] [-f FACILITY] [-l LEVEL] [-P REQUESTS] [-p REQUESTS] [-u UMASK]
       dunnart sftp-server -Q requests

  -d FOLDER    where relative paths begin; ~ and %d are the home, %u is the user, %U the number; default: the home
  -e           log to standard error and not to the system's log
  -f FACILITY  of the system's log: DAEMON, USER, AUTH, LOCAL0 to LOCAL7; default: AUTH
  -l LEVEL     QUIET, FATAL, ERROR, INFO, VERBOSE, DEBUG, DEBUG1 to DEBUG3; default: ERROR
  -P REQUESTS  refuse these, "remove,rename"
  -p REQUESTS  refuse all but these
  -Q requests  list what there is to refuse
  -R           refuse everything that changes something
  -u UMASK     of the files that are made, octal
"""
_VALUED = frozenset("dflPpQu")
_TOO_LARGE = 11


class _Ended(Exception):
    """The program ends: `status` says how, and the text why."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def run(arguments: Sequence[str]) -> int:
    """Serve until the client is done: 0; 1 for wrong flags, 255 for wrong values and clients, 11 for giant packets."""
    import pwd

    try:
        try:
            account = pwd.getpwuid(os.getuid())
        except KeyError:
            raise _Ended(f"there is no user with the number {os.getuid()}", 1) from None
        return _serve(_Settings(arguments, account), account)
    except _Ended as end:
        print(end, end="" if str(end).endswith("\n") else "\n", file=sys.stdout if not end.status else sys.stderr)
        return end.status


class _Settings:
    """What the flags say."""

    def __init__(self, arguments: Sequence[str], account: struct_passwd) -> None:
        self.start = ""
        self.read_only = False
        self.requests: frozenset[str] | None = None
        level, facility = ERROR, "AUTH"
        allowed: frozenset[str] | None = None
        denied: frozenset[str] | None = None
        for flag, value in _flags(arguments):
            if flag == "d":
                self.start = _expanded(value, account)
            elif flag == "e":
                facility = ""
            elif flag == "f":
                if value.upper() not in FACILITIES:
                    _wrong(f"-f: {value!r} is none of {', '.join(FACILITIES)}")
                facility = facility and value.upper()
            elif flag == "l":
                name = "DEBUG1" if value.upper() == "DEBUG" else value.upper()
                if name not in LEVELS:
                    _wrong(f"-l: {value!r} is none of {', '.join(LEVELS)}")
                level = LEVELS.index(name)
            elif flag == "P":
                denied = _requests(flag, value, denied)
            elif flag == "p":
                allowed = _requests(flag, value, allowed)
            elif flag == "Q":
                _query(value)
            elif flag == "R":
                self.read_only = True
            elif flag == "u":
                os.umask(umask(value))
        self.log = Log(level, facility)
        if self.read_only or denied is not None or allowed is not None:
            self.requests = _permitted(allowed, denied or frozenset(), read_only=self.read_only)


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Take flags as getopt(3) does: those without values may share a dash, and a value may stand in the same word."""
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            return
        if word == "--help":
            raise _Ended(USAGE, 0)
        for at, flag in enumerate(word[1:], 2):
            if flag == "c":  # started as a login shell, as `sftp-server -c command`
                return
            if flag in _VALUED:
                if not word[at:] and not rest:
                    raise _Ended(f"dunnart sftp-server: -{flag} wants a value\n{USAGE}", 1)
                yield flag, word[at:] or rest.pop(0)
                break
            if flag not in "eR":
                raise _Ended(USAGE if flag == "h" else f"dunnart sftp-server: there is no flag -{flag}\n{USAGE}", 1)
            yield flag, ""


def _wrong(text: str) -> NoReturn:
    raise _Ended(f"dunnart sftp-server: {text}", 255)


def umask(value: str) -> int:
    """Read an octal number up to 777."""
    if not value or not set(value) <= set("01234567") or int(value, 8) > 0o777:
        _wrong(f"-u: {value!r} is no umask, which are octal numbers to 777")
    return int(value, 8)


def _requests(flag: str, value: str, before: frozenset[str] | None) -> frozenset[str]:
    from dunnart.sftp.messages import REQUESTS

    if before is not None:
        _wrong(f"-{flag} is given twice")
    names = frozenset(value.split(","))
    if unknown := names - REQUESTS.keys():
        _wrong(f"-{flag}: {min(unknown)!r} is no request; -Q requests lists them")
    return names


def _permitted(allowed: frozenset[str] | None, denied: frozenset[str], *, read_only: bool) -> frozenset[str]:
    from dunnart.sftp.messages import REQUESTS, WRITING

    return (frozenset(REQUESTS) if allowed is None else allowed) - denied - (WRITING if read_only else frozenset())


def _query(value: str) -> NoReturn:
    from dunnart.sftp.messages import REQUESTS

    if value.lower() != "requests":
        raise _Ended("dunnart sftp-server: -Q knows nothing but requests", 1)
    raise _Ended("".join(f"{name}\n" for name in REQUESTS), 0)


def _expanded(value: str, account: struct_passwd) -> str:
    if value == "~" or value.startswith("~/"):
        value = account.pw_dir + value[1:]
    known = {"%": "%", "d": account.pw_dir, "u": account.pw_name, "U": str(account.pw_uid)}
    first, *parts = value.split("%")
    made = [first]
    while parts:
        part = parts.pop(0)
        if part[:1] not in known and (part or not parts):
            _wrong(f"-d: {value!r} holds a % before something else than d, u, U or %")
        if part:
            made += [known[part[0]], part[1:]]
        else:  # %%: what follows is text
            made += ["%", parts.pop(0)]
    return "".join(made)


def _serve(settings: _Settings, account: struct_passwd) -> int:
    from dunnart.errors import DecodeError, LimitExceeded
    from dunnart.sftp.local import LocalFiles
    from dunnart.sftp.streams import serve

    log = settings.log
    peer = os.environ.get("SSH_CONNECTION", "UNKNOWN").partition(" ")[0]
    log(INFO, f"session opened for local user {account.pw_name} from [{peer}]")
    start = settings.start or os.getcwd()
    if not os.path.isdir(start):
        log(ERROR, f'chdir to "{start}" failed: No such file or directory')
        start = os.getcwd()
    files: FileSystem = LocalFiles(start=os.path.abspath(start))
    if settings.read_only:
        from dunnart.sftp.layers.read_only import ReadOnly

        files = ReadOnly(files)

    def refused(name: str) -> None:
        log(VERBOSE, f"Refusing {name} request")
        log(INFO, "sent status Permission denied")

    if log.level >= INFO:
        files = LoggedFiles(files, log)
    try:
        serve(files, 0, 1, requests=settings.requests, refused=refused)
    except LimitExceeded as error:
        log(ERROR, f"bad message from {peer} local user {account.pw_name}: {error}")
        return _TOO_LARGE
    except DecodeError as error:
        log(FATAL, f"bad message from {peer} local user {account.pw_name}: {error}")
        return 255
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        log(INFO, f"session closed for local user {account.pw_name} from [{peer}]")
    return 0
