"""A process that becomes a user's program, after what has to be done before: it is forked, and not yet anybody.

With root's rights: the terminal is given to the user, and the login recorded. With the user's: what greets him is
shown, ~/.ssh/environment read, and ~/.ssh/rc or /etc/ssh/sshrc run by /bin/sh, which find the protocol and the cookie
of a forwarded display on stdin (sshd(8), "LOGIN PROCESS" and "SSHRC").
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import asdict

from dunnart.plugins import login_records, os_login
from dunnart.plugins.login_records import Files, Login
from dunnart.records import dataclass
from dunnart.runtime.session_keys import share_no_keys
from dunnart.runtime.terminal import give, take_terminal

_FAILED = 1
_KEEP = -1
_SH = "/bin/sh"
_FIELDS = 4
_IGNORED = [signal.SIGPIPE, signal.SIGXFSZ]
"""Python ignores these, and programs would."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What such a process is to do.

    Attributes:
        argv: the program's arguments, from its name on.
        executable: its path.
        variables: its environment.
        last_variables: those that nothing else may replace.
        patterns: of the names that ~/.ssh/environment may set.
        home: where it starts.
        umask: for what it makes; -1: the one that is there.
        user: the login name.
        uid: who to become; `gid` likewise.
        keep_groups: the groups that are there are the user's; else they are looked up.
        greeting: what is shown first.
        host: where the login comes from.
        records: the files where it is recorded; none: it is not.
        rc: the user's own rc file may be run.
        system_rc: the system's.
    """

    argv: tuple[str, ...]
    executable: str
    variables: dict[str, str]
    last_variables: dict[str, str]
    patterns: tuple[str, ...]
    home: str
    umask: int
    user: str
    uid: int
    gid: int
    keep_groups: bool
    greeting: str
    host: str
    records: tuple[str, ...]
    rc: bool
    system_rc: str

    def arguments(self) -> tuple[str, ...]:
        """Give the arguments of `main`."""
        return (json.dumps(asdict(self)),)


def main(arguments: list[str]) -> int:
    """Do what is wanted; returns only if the program cannot be executed."""
    wanted = Wanted(**json.loads(arguments[0]))
    tty = os.ttyname(0) if os.isatty(0) else ""
    if tty:
        take_terminal()
    if tty and os.geteuid() == 0:
        give(0, wanted.uid, wanted.gid)
        if wanted.records:
            # The server records the end; what goes wrong here is no reason to keep the user out.
            login = Login(tty, os.getpid(), wanted.user, wanted.uid, wanted.host)
            with contextlib.suppress(OSError):
                login_records.begin(login, Files(*wanted.records))
    if wanted.uid != os.geteuid():
        if not wanted.keep_groups:
            os.initgroups(wanted.user, wanted.gid)
            share_no_keys()
        os.setgid(wanted.gid)
        os.setuid(wanted.uid)
    if wanted.umask != _KEEP:
        os.umask(wanted.umask)
    variables = dict(wanted.variables)
    if wanted.patterns:
        path = f"{wanted.home}/{os_login.USER_ENVIRONMENT}"
        variables |= os_login.read_environment(path, tuple(wanted.patterns))
    variables |= wanted.last_variables
    if tty:
        variables["SSH_TTY"] = tty
    _write(1, wanted.greeting)
    try:
        os.chdir(wanted.home)
    except OSError as error:
        os.chdir("/")
        _write(2, f"Could not chdir to home directory {wanted.home}: {error.strerror}\n")
    _run_rc(wanted, variables)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(wanted.executable, wanted.argv, variables)  # noqa: S606 - the user's own program
    except OSError as error:
        _write(2, f"{wanted.executable}: {error.strerror}\n")
    return _FAILED


def _write(fd: int, text: str) -> None:
    """Write all of a text; the client may be gone."""
    data = text.encode(errors="surrogateescape")
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]


def _run_rc(wanted: Wanted, variables: dict[str, str]) -> None:
    path = f"{wanted.home}/{os_login.USER_RC}"
    if wanted.rc and os.path.exists(path):
        # Through the user's shell, as sshd does it: one that lets nobody in runs no rc file either.
        argv = [wanted.executable, "-c", f"{_SH} {os_login.USER_RC}"]
    elif os.path.exists(wanted.system_rc):
        argv = [_SH, wanted.system_rc]
    else:
        return
    reader, writer = os.pipe()
    try:
        pid = os.posix_spawn(argv[0], argv, variables, file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)],
                             setsigdef=_IGNORED)  # fmt: skip
        os.close(reader)
        _write(writer, _cookie(variables["XAUTHORITY"]) if {"DISPLAY", "XAUTHORITY"} <= variables.keys() else "")
        os.close(writer)
        os.waitpid(pid, 0)
    except OSError as error:
        _write(2, f"Could not run {argv[-1]}: {error.strerror}\n")


def _cookie(path: str) -> str:
    """Give the protocol and the cookie that stand in an Xauthority file of the session's own, as rc files read them."""
    try:
        with open(path, "rb") as file:
            data = file.read(4096)
    except OSError:
        return ""
    at = 2  # behind the family
    fields: list[bytes] = []
    while len(fields) < _FIELDS:  # address, number, protocol, cookie
        length = int.from_bytes(data[at : at + 2], "big")
        fields.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return f"{fields[2].decode(errors='replace')} {fields[3].hex()}\n"
