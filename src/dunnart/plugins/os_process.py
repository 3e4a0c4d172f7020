"""The operating system's shell and commands, with the environment that sshd gives a login."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, TypeVar

from dunnart.errors import ConnectionClosed
from dunnart.plugins import os_account, os_login
from dunnart.plugins.os_account import Account, Opened
from dunnart.plugins.os_login import Found, Options
from dunnart.runtime.pool import ThreadPool
from dunnart.server import Call, Command, clean, plugin, report
from dunnart.server.raw import TEMPORARY_FAILURE

if TYPE_CHECKING:
    from dunnart.server import RawSession
    from dunnart.server.plugins import Context

_LOG = logging.getLogger("dunnart.session")
_Groups = TypeVar("_Groups")
_UMASK = 0o022
# One of its own: whoever can read the records can keep them locked, and so the threads that logins need.
_RECORDING = ThreadPool("dunnart-records", 1, 1000)
_PRELUDE = "dunnart.plugins.login_process:main"
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/games"
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class OsShell:
    """Serves sessions by the user's login shell: its name begins with a dash."""

    def __init__(self, options: Options | None = None) -> None:
        self._login = OsLogin(options or Options())

    def begin(self, session: RawSession) -> bool:
        """Start it."""
        return self._login.begin(session)


class OsExec(OsShell):
    """Serves sessions by a command, which the user's shell interprets."""


@plugin(Options)
def shell(context: Context[Options]) -> OsShell:
    """Serves sessions by the user's login shell."""
    return OsShell(context.options)


@plugin(Options)
def commands(context: Context[Options]) -> OsExec:
    """Serves sessions by the command, which the user's shell interprets."""
    return OsExec(context.options)


def account_of(session: RawSession) -> Account:
    """Whose session it is: what the login granted, or else the user of that name.

    Raises:
        PermissionError: there is no such user.
    """
    return os_account.of_login(session.user, session.grants)


class OsLogin:
    """Serves sessions by programs with the user's rights, and does what a login wants beside.

    Args:
        options: the plug-in's.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        umask = os.umask(_UMASK)  # there is no other way to see it
        os.umask(umask)
        self._umask = umask | _UMASK

    def begin(self, session: RawSession) -> bool:
        """Begin; what is in the way is told to the user, as sshd does it."""
        session.spawn(self._serve(session))
        return True

    async def _serve(self, session: RawSession) -> None:
        try:
            account, found = await session.in_thread(self._look, session)
        except PermissionError as error:
            _refuse(session, str(error), 1)
            return
        except TimeoutError:
            _refuse(session, "the user's folder does not answer", TEMPORARY_FAILURE)
            return
        if found.refused:
            _refuse(session, found.refused, os_login.NOLOGIN_STATUS)
            return
        opened = account if isinstance(account, Opened) else None
        if opened is not None and opened.change_password and session.terminal is None:
            _refuse(session, os_login.NO_TERMINAL, 1)
            return
        recorded = self._options.record_logins and session.terminal is not None and os.geteuid() == 0
        program = self._program(session, account, found, recorded=recorded)
        try:
            session.run(program, None if opened is None else opened.forks.on(asyncio.get_running_loop()))
        except ConnectionClosed:
            return
        except OSError as error:  # a command that is too long, a shell that does not exist: nobody's fault here
            _refuse(session, f"{account.shell} cannot be started: {error.strerror}", 1)
            return
        if recorded:
            await _record(session, account, begun=isinstance(program, Call))

    def _look(self, session: RawSession) -> tuple[Account, Found]:
        """Look at what may be slow; in a thread."""
        account = account_of(session)
        interactive = session.terminal is not None and session.facts.command is None
        user_rc = self._may_run_rc(session)
        return account, os_login.look(account, self._options, interactive=interactive, user_rc=user_rc)

    def _may_run_rc(self, session: RawSession) -> bool:
        return self._options.permit_user_rc and session.rights.user_rc and session.kind != "subsystem"

    def _program(self, session: RawSession, account: Account, found: Found, *, recorded: bool) -> Command | Call:
        name, command = os.path.basename(account.shell), session.facts.command
        argv: tuple[str | bytes, ...] = (f"-{name}",) if command is None else (name, "-c", command)
        executable, text = account.shell, found.greeting
        variables, last = _variables(session, account)
        if isinstance(account, Opened) and account.change_password:
            argv, executable, text = ("passwd",), os_login.PASSWD, os_login.MUST_CHANGE
        elif not found.prelude and not isinstance(account, Opened):
            greeting = found.greeting.encode(errors="surrogateescape")
            user = _other(account, found.groups)
            return Command(argv, account.shell, variables | last, found.directory, user, self._umask, greeting=greeting)
        from dunnart.plugins.login_process import Wanted

        opened = isinstance(account, Opened)
        wanted = Wanted(
            tuple(map(os.fsdecode, argv)), executable, variables, last, self._options.user_environment, account.home,
            -1 if opened else self._umask, account.name, account.uid, account.gid, keep_groups=opened, greeting=text,
            host=session.peer.host, records=os_login.RECORDS if recorded else (), rc=self._may_run_rc(session),
            system_rc=os_login.SYSTEM_RC,
        )  # fmt: skip
        return Call(_PRELUDE, wanted.arguments(), {}, "/", preload=(_PRELUDE.partition(":")[0],), terminal=True)


async def _record(session: RawSession, account: Account, *, begun: bool) -> None:
    """Keep record of a login on a terminal, from its beginning to its end."""
    from dunnart.plugins import login_records

    files = login_records.Files(*os_login.RECORDS)
    login = login_records.Login(session.tty, session.process, account.name, account.uid, session.peer.host)
    try:
        if not begun:
            await _RECORDING.run(lambda: login_records.begin(login, files))
        await session.over()
        ended = login._replace(pid=session.process)
        await _RECORDING.run(lambda: login_records.end(ended, files))
    except (OSError, BufferError) as error:
        _warn(session, f"the login cannot be recorded: {error}")


def _refuse(session: RawSession, reason: str, status: int) -> None:
    _warn(session, reason)
    text = reason.rstrip("\n")
    session.refuse(text if session.terminal is None else text.replace("\n", "\r\n"), status)


def _warn(session: RawSession, text: str) -> None:
    report(_LOG, logging.WARNING, session.facts.connection, "session %d: %s", session.channel, clean(text))


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
    opened = account if isinstance(account, Opened) else None
    if opened is None and (reason := os_login.nologin(account)):
        _refuse(session, reason, os_login.NOLOGIN_STATUS)
        return True
    if opened is not None and opened.change_password:
        _refuse(session, os_login.NO_TERMINAL, 1)
        return True
    variables = {"USER": account.name, "LOGNAME": account.name, "HOME": account.home}
    if zone := os.environ.get("TZ"):
        variables["TZ"] = zone
    user = _other(account, account.name if opened is None else None)
    try:
        forks = None if opened is None else opened.forks.on(asyncio.get_running_loop())
        session.run(Call(target, arguments, variables, account.home, user, passed, preload), forks)
    except OSError as error:
        _warn(session, f"{target} cannot be started: {error.strerror}")
        return False
    return True


def _other(account: Account, groups: _Groups) -> tuple[int, int, _Groups] | None:
    """Who to become; None to stay who we are."""
    return None if os.geteuid() == account.uid else (account.uid, account.gid, groups)


def environment(session: RawSession, account: Account) -> dict[str, str]:
    """The variables of a login, as sshd sets them; what the client may set comes first and cannot replace them.

    What the login's rights set can, but for those that say where the login comes from and what it has asked for.
    """
    variables, last = _variables(session, account)
    return variables | last


def _variables(session: RawSession, account: Account) -> tuple[dict[str, str], dict[str, str]]:
    """Give those that the user's own file may replace, and those that nothing may."""
    variables = dict(session.environment)
    variables |= {
        "USER": account.name,
        "LOGNAME": account.name,
        "HOME": account.home,
        "SHELL": account.shell,
        "PATH": _ROOT_PATH if account.uid == 0 else _PATH,
    }
    if not isinstance(account, Opened):  # pam_mail sets it
        variables["MAIL"] = f"/var/mail/{account.name}"
    if zone := os.environ.get("TZ"):
        variables["TZ"] = zone
    if session.terminal is not None:
        variables["TERM"] = session.terminal.term
    last = dict(session.rights.environment)
    if (original := session.environment.get("SSH_ORIGINAL_COMMAND")) is not None:
        last["SSH_ORIGINAL_COMMAND"] = original
    address, port = session.peer
    local_address, local_port = session.local
    if address:
        last["SSH_CLIENT"] = f"{address} {port} {local_port}"
        last["SSH_CONNECTION"] = f"{address} {port} {local_address} {local_port}"
    else:
        last["SSH_CLIENT"] = "UNKNOWN 65535 65535"
        last["SSH_CONNECTION"] = "UNKNOWN 65535 UNKNOWN 65535"
    return variables, last
