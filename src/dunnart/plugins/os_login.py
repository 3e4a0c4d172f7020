"""What belongs to a login beside its program: what is shown, what may not be, and which files have a say.

All of it looks into files, some of them in the user's home, which may be on a network: it is for threads.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import NamedTuple

from dunnart.plugins.os_account import Account, Opened
from dunnart.records import dataclass

NOLOGIN = "/etc/nologin"
MOTD = "/etc/motd"
SYSTEM_RC = "/etc/ssh/sshrc"
RECORDS = ("/var/run/utmp", "/var/log/wtmp", "/var/log/lastlog")
USER_RC = ".ssh/rc"
USER_ENVIRONMENT = ".ssh/environment"
NOLOGIN_STATUS = 254
PASSWD = "/usr/bin/passwd"  # noqa: S105 - a program
MUST_CHANGE = "WARNING: Your password has expired.\nYou must change your password now and log in again!\n"
NO_TERMINAL = "Your password has expired, and can be changed on a terminal only."
_HUSH = ".hushlogin"
_SHOWN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """The table [plugin.os].

    Attributes:
        print_motd: shells on terminals begin with /etc/motd, unless the user has a file ~/.hushlogin.
        print_last_log: they also say when and from where the user was here last.
        record_logins: root's server keeps record of sessions on terminals in utmp, wtmp and lastlog.
        permit_user_rc: ~/.ssh/rc is run before the user's programs; else, and if it is not there, /etc/ssh/sshrc.
        user_environment: patterns of the variables that ~/.ssh/environment may set; the server gives it those of
            permit_user_environment.
    """

    print_motd: bool = True
    print_last_log: bool = True
    record_logins: bool = True
    permit_user_rc: bool = True
    user_environment: tuple[str, ...] = ()


class Found(NamedTuple):
    """What a look at the files has shown.

    Attributes:
        refused: why nobody but root may have sessions now, "" if all may.
        directory: where programs start.
        groups: all groups that the user is in.
        greeting: what a shell on a terminal shows first.
        prelude: something has to be done as the user before his program starts.
    """

    refused: str
    directory: str
    groups: tuple[int, ...]
    greeting: str
    prelude: bool


def nologin(account: Account) -> str:
    """Say what keeps everybody but root out, in the words of /etc/nologin; "" if nothing does."""
    if account.uid == 0:
        return ""
    try:
        return _text(NOLOGIN) or "logins are not possible now"
    except FileNotFoundError:
        return ""
    except OSError:
        return "logins are not possible now" if os.path.exists(NOLOGIN) else ""


def look(account: Account, options: Options, *, interactive: bool, user_rc: bool) -> Found:
    """Look at the files.

    Args:
        account: whose login it is.
        options: the plug-in's.
        interactive: it is for a shell on a terminal.
        user_rc: the user's own rc file may be run.
    """
    said = account.said if isinstance(account, Opened) else ""
    refused = "" if isinstance(account, Opened) else nologin(account)  # which pam_nologin looks for
    if refused:
        return Found(refused, "/", (), "", prelude=False)
    directory, out_of_reach = _home(account.home)
    files = [SYSTEM_RC]
    if user_rc:
        files.append(f"{account.home}/{USER_RC}")
    if options.user_environment:
        files.append(f"{account.home}/{USER_ENVIRONMENT}")
    prelude = out_of_reach or any(os.path.lexists(each) for each in files)
    text = greeting(account, options, said) if interactive else ""
    return Found("", directory, account.groups(), text, prelude)


def _home(path: str) -> tuple[str, bool]:
    """Give where to start, and whether only its owner can tell: homes on a network may be closed to root."""
    try:
        os.stat(f"{path}/.")
    except PermissionError:
        return "/", True
    except OSError:
        return "/", False
    return path, False


def greeting(account: Account, options: Options, said: str = "") -> str:
    """Give what a shell on a terminal shows first, unless the user wants it quiet."""
    # A link there is not followed: what root finds behind it, its user may not be able to see.
    if os.path.lexists(f"{account.home}/{_HUSH}"):
        return ""
    text = f"{said}\n" if said else ""
    text += _last_login(account.uid) if options.print_last_log else ""
    if options.print_motd:
        with contextlib.suppress(OSError):
            text += _text(MOTD)
    return text


def _last_login(uid: int) -> str:
    from dunnart.plugins import login_records

    last = login_records.last_login(uid, RECORDS[-1])
    return "" if last is None else f"Last login: {time.ctime(last.time)}{' from ' if last.host else ''}{last.host}\n"


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(_SHOWN_BYTES)


def read_environment(path: str, patterns: tuple[str, ...]) -> Mapping[str, str]:
    """Read lines NAME=VALUE, of the names that fit; # begins a comment. {} if there is no such file.

    To be called with the rights of the user whose file it is.
    """
    from dunnart.keys.patterns import matches

    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in _text(path).splitlines():
            name, equals, value = line.lstrip(" \t").partition("=")
            if (
                equals
                and name
                and name[0] != "#"
                and "\0" not in line
                and any(matches(pattern, name) for pattern in patterns)
            ):
                found[name] = value
    return found
