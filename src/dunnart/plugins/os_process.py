"""The operating system's shell and commands, with the environment that sshd gives a login."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from dunnart.plugins import os_account
from dunnart.plugins.os_account import Account
from dunnart.server import Call, Command, clean, report

if TYPE_CHECKING:
    from dunnart.server import RawSession
    from dunnart.server.plugins import Context

_LOG = logging.getLogger("dunnart.session")
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/games"
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class OsShell:
    """Serves sessions by the user's login shell: its name begins with a dash."""

    def begin(self, session: RawSession) -> bool:
        """Start it."""
        account = account_of(session)
        return run(session, account, ("-" + os.path.basename(account.shell),), account.shell)


class OsExec:
    """Serves sessions by a command, which the user's shell interprets."""

    def begin(self, session: RawSession) -> bool:
        """Start it."""
        account = account_of(session)
        assert session.facts.command is not None
        return run(session, account, (os.path.basename(account.shell), "-c", session.facts.command), account.shell)


def shell(_context: Context[None]) -> OsShell:
    """Serves sessions by the user's login shell."""
    return OsShell()


def commands(_context: Context[None]) -> OsExec:
    """Serves sessions by the command, which the user's shell interprets."""
    return OsExec()


def account_of(session: RawSession) -> Account:
    """Whose session it is: what the login granted, or else the user of that name.

    Raises:
        PermissionError: there is no such user.
    """
    return os_account.of_login(session.user, session.grants)


def run(session: RawSession, account: Account, argv: tuple[str | bytes, ...], executable: str) -> bool:
    """Serve a session by a program with the user's rights, in the user's home, or in "/" if that is not there.

    Args:
        session: the session.
        account: whose rights the program has.
        argv: the arguments; the first is the name that the program sees.
        executable: the program's path.

    Returns:
        Whether it could be started; if not, the log says why.
    """
    directory = account.home if os.path.isdir(account.home) else "/"
    return _start(session, Command(argv, executable, environment(session, account), directory, _other(account)))


def call(
    session: RawSession, account: Account, target: str, arguments: tuple[str, ...], passed: tuple[int, ...] = (),
    preload: tuple[str, ...] = (),
) -> bool:  # fmt: skip
    """Serve a session by a function of Python, which sees nothing of the environment that the client may set.

    Args:
        session: the session.
        account: whose rights the function's process has.
        target: the function, as `Call` has it; so are `arguments`, `passed` and `preload`.
        arguments: what the function is called with.
        passed: descriptors that its process gets beside the streams.
        preload: modules that are loaded before.

    Returns:
        Whether it could be started; if not, the log says why.
    """
    variables = {"USER": account.name, "LOGNAME": account.name, "HOME": account.home}
    if zone := os.environ.get("TZ"):
        variables["TZ"] = zone
    return _start(session, Call(target, arguments, variables, account.home, _other(account), passed, preload))


def _other(account: Account) -> tuple[int, int, tuple[int, ...]] | None:
    """Who to become; None to stay who we are."""
    return None if os.geteuid() == account.uid else (account.uid, account.gid, account.groups())


def _start(session: RawSession, program: Command | Call) -> bool:
    try:
        session.run(program)
    except OSError as error:  # a command that is too long, a shell that does not exist: nobody's fault here
        what = program.executable if isinstance(program, Command) else program.target
        report(_LOG, logging.WARNING, session.facts.connection, "session %d: %s cannot be started: %s", session.channel,
               clean(what), error.strerror)  # fmt: skip
        return False
    return True


def environment(session: RawSession, account: Account) -> dict[str, str]:
    """The variables of a login, as sshd sets them; what the client may set comes first and cannot replace them.

    What the login's rights set can, but for those that say where the login comes from and what it has asked for.
    """
    variables = dict(session.environment)
    variables |= {
        "USER": account.name,
        "LOGNAME": account.name,
        "HOME": account.home,
        "SHELL": account.shell,
        "PATH": _ROOT_PATH if account.uid == 0 else _PATH,
        "MAIL": f"/var/mail/{account.name}",
    }
    if zone := os.environ.get("TZ"):
        variables["TZ"] = zone
    if session.terminal is not None:
        variables["TERM"] = session.terminal.term
    variables |= dict(session.rights.environment)
    if (original := session.environment.get("SSH_ORIGINAL_COMMAND")) is not None:
        variables["SSH_ORIGINAL_COMMAND"] = original
    address, port = session.peer
    local_address, local_port = session.local
    if address:
        variables["SSH_CLIENT"] = f"{address} {port} {local_port}"
        variables["SSH_CONNECTION"] = f"{address} {port} {local_address} {local_port}"
    else:
        variables["SSH_CLIENT"] = "UNKNOWN 65535 65535"
        variables["SSH_CONNECTION"] = "UNKNOWN 65535 UNKNOWN 65535"
    return variables
