"""Logins through PAM: keyboard-interactive with all that modules ask and say, or a password; account and session too.

    authenticator ◄── lines of JSON ──► a process of its own for each login: dunnart.plugins.pam_process

A module that hangs or crashes takes its process along and nothing else. The process stays as long as the connection,
forks its programs, and then closes the session.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError
from dunnart.plugins import os_account
from dunnart.plugins.os_account import Forks, Opened
from dunnart.plugins.pam_process import LINE_BYTES
from dunnart.records import dataclass
from dunnart.server import Allow, AuthReply, Call, Deny, InteractiveCredential, PasswordCredential, Prompt, Rights
from dunnart.server.plugins import plugin

if TYPE_CHECKING:
    from dunnart.runtime.fork_server import Forked, ForkServer
    from dunnart.server.authentication import Attempt
    from dunnart.server.plugins import Context

_TARGET = "dunnart.plugins.pam_process:main"
_PRELOAD = ("dunnart.plugins.login_process",)
_LONGEST = 9.0  # the server gives up after 10
_MOST_PROMPTS = 16
_MOST_TEXT = 16 * 1024
_FOLDER = "/etc/pam.d"


@dataclass(frozen=True, slots=True)
class Options:
    """The tables [plugin.pam] and [plugin.pam-password].

    Attributes:
        service: the file in /etc/pam.d that says what is to be done.
        seconds: how long PAM may take until it asks or decides, at most 9; then the login is refused.
        processes: how many logins may have a process at a time; those of users who are in count as well.
        empty_passwords: modules may take an empty password; permit_empty_passwords must allow it too.
        folder: where service files are looked for; another than /etc/pam.d wants Linux-PAM 1.4.
    """

    service: str = "sshd"
    seconds: float = 8.0
    processes: int = 500
    empty_passwords: bool = False
    folder: str = _FOLDER

    def __post_init__(self) -> None:
        if not self.service or "/" in self.service or not self.service.isprintable():
            raise ValueError(f"service must be the name of a file in /etc/pam.d, not {self.service!r}")
        if not 0 < self.seconds <= _LONGEST:
            raise ValueError(f"seconds must be more than 0, and {_LONGEST:g} at most")
        if self.processes < 1:
            raise ValueError("processes must be at least 1")


class _Helper:
    """The process of one login."""

    def __init__(self, child: Forked, sock: socket.socket, user: str, forks: Forks) -> None:
        self._child = child
        self.forks = forks
        self.user = user
        self._sock = sock
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.verdict: AuthReply | None = None

    async def write(self, **what: object) -> None:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_unix_connection(sock=self._sock, limit=LINE_BYTES)
        self._writer.write(json.dumps(what).encode() + b"\n")
        await self._writer.drain()

    async def read(self) -> dict[str, object]:
        """Read a line; EOFError if it has ended."""
        assert self._reader is not None
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the process has ended")
        found: dict[str, object] = json.loads(line)
        return found

    def close(self) -> None:
        """Have it close the session and end."""
        self.forks.end()
        if self._writer is not None:
            self._writer.close()
        else:
            self._sock.close()

    def kill(self) -> None:
        """End it at once."""
        self.close()
        self._child.signal(signal.SIGKILL)


class _PamBase:
    """What both methods share.

    Not `on_any_loop`: the processes are watched by one loop.
    """

    last = False
    """It has the last word on logins of any method."""

    def __init__(self, context: Context[Options]) -> None:
        if not sys.platform.startswith("linux"):
            raise ConfigError("PAM is spoken to on Linux only")
        self._options = context.options
        self._log = context.logger
        if not os.path.exists(f"{self._options.folder}/{self._options.service}"):
            raise ConfigError(f"there is no {self._options.folder}/{self._options.service}", key="service")
        self._forks: ForkServer | None = None
        self._helpers: dict[int, _Helper] = {}
        self._running = 0

    async def _begin(self, attempt: Attempt, password: str | None, *, proved: bool = False) -> AuthReply:
        """Start a process for a login, in the place of one that the same connection may have."""
        self.ended(attempt.connection)
        if self._running >= self._options.processes:
            return Deny("too many processes speak to PAM")
        helper = self._helpers[attempt.connection] = self._start(attempt.user)
        return await self._go_on(attempt, helper, {
            "service": self._options.service, "user": attempt.user, "address": attempt.address, "password": password,
            "empty": self._options.empty_passwords, "proved": proved,
            "folder": "" if self._options.folder == _FOLDER else self._options.folder,
            "ends": f"{attempt.address} {attempt.port} {attempt.local.host} {attempt.local.port}",
        })  # fmt: skip

    def _start(self, user: str) -> _Helper:
        loop = asyncio.get_running_loop()
        if self._forks is None:
            from dunnart.runtime.fork_server import ForkServer

            self._forks = ForkServer(loop)
        ours, theirs = socket.socketpair()
        orders, ordered = socket.socketpair()
        try:
            with theirs, ordered, open(os.devnull, "r+b") as nothing:
                number = nothing.fileno()
                passed = (theirs.fileno(), ordered.fileno())
                call = Call(_TARGET, (), {}, "/", None, passed, (_TARGET.partition(":")[0], *_PRELOAD))
                child = self._forks.start(call, (number, number, number))
        except BaseException:
            ours.close()
            orders.close()
            raise
        self._running += 1

        def over(_status: int) -> None:
            self._running -= 1

        child.watch(loop, over)
        ours.setblocking(False)  # noqa: FBT003 - the name says it
        return _Helper(child, ours, user, Forks(orders))

    async def _go_on(self, attempt: Attempt, helper: _Helper, said: dict[str, object]) -> AuthReply:
        """Tell the process something, and give what comes of it."""
        reply: AuthReply | None = None
        try:
            async with asyncio.timeout(self._options.seconds):
                await helper.write(**said)
                heard = await helper.read()
            reply = await self._understood(attempt, helper, heard)
        except TimeoutError:
            return Deny(f"PAM has not answered within {self._options.seconds:g} s")
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
            return Deny(f"PAM failed: {error!r}")
        finally:  # also if it is cancelled
            if reply is None:
                helper.kill()
                self._forget(attempt.connection, helper)
            elif isinstance(reply, Deny):
                helper.close()
                self._forget(attempt.connection, helper)
        return reply

    def _forget(self, connection: int, helper: _Helper) -> None:
        if self._helpers.get(connection) is helper:
            del self._helpers[connection]

    async def _understood(self, attempt: Attempt, helper: _Helper, heard: dict[str, object]) -> AuthReply:
        text = str(heard["text"])[:_MOST_TEXT]
        prompts = heard.get("prompts")
        if isinstance(prompts, list):
            return Prompt(tuple((str(prompt), echo is True) for prompt, echo in prompts[:_MOST_PROMPTS]), "", text)
        shown = isinstance(attempt.credential, InteractiveCredential) and not self.last
        verdict = await self._verdict(attempt, helper, heard, "" if shown else text)
        if not text or not shown:
            return verdict
        helper.verdict = verdict  # what modules have said is shown first
        return Prompt((), "", text)

    async def _verdict(self, attempt: Attempt, helper: _Helper, heard: dict[str, object], said: str) -> AuthReply:
        account = await attempt.run(os_account.find, attempt.user)
        if heard["allowed"] is not True:
            return Deny(str(heard["detail"]), unknown_user=account is None)
        if account is None:
            return Deny("no such user here", unknown_user=True)
        environment = heard["environment"]
        assert isinstance(environment, dict)
        change = heard["change"] is True
        rights = replace(Rights.nothing(), sessions=True, pty=True) if change else Rights()
        greeting = "\n".join(filter(None, (said, str(heard["welcome"])[:_MOST_TEXT])))
        variables = tuple((str(name), str(value)) for name, value in environment.items())
        opened = Opened(
            account.name, account.uid, account.gid, account.home, account.shell, forks=helper.forks, said=greeting,
            change_password=change,
        )  # fmt: skip
        return Allow(opened, replace(rights, environment=variables))

    def ended(self, connection: int) -> None:
        """A connection is gone, or begins anew: its session is closed."""
        helper = self._helpers.pop(connection, None)
        if helper is not None:
            helper.close()


@plugin(Options)
class Pam(_PamBase):
    """Lets in whom PAM lets in, by keyboard-interactive: whatever its modules ask and say reaches the user.

    Accounts that PAM has closed are refused; a password that has to be changed is changed. A session is opened, and
    closed when the connection ends; variables that modules set reach the user's programs.
    """

    method = "keyboard-interactive"

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Begin a conversation, or go on with it."""
        credential = attempt.credential
        if not isinstance(credential, InteractiveCredential):
            return Deny("not keyboard-interactive")
        if credential.responses is None:
            return await self._begin(attempt, None)
        helper = self._helpers.get(attempt.connection)
        if helper is None or helper.user != attempt.user:
            return Deny("PAM has not asked this user anything")
        if helper.verdict is not None:
            verdict, helper.verdict = helper.verdict, None
            if isinstance(verdict, Deny):
                self.ended(attempt.connection)
            return verdict
        return await self._go_on(attempt, helper, {"answers": list(credential.responses)})


@plugin(Options)
class PamPassword(_PamBase):
    """Lets in whom PAM lets in by one password and nothing else, by the method password; see pam."""

    method = "password"

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Give PAM the password."""
        if not isinstance(attempt.credential, PasswordCredential):
            return Deny("not a password")
        return await self._begin(attempt, attempt.credential.password)


@plugin(Options)
class PamAccounts(_PamBase):
    """Lets in only whom PAM's account modules let in, whatever the method, and opens PAM's session; see pam.

    Who is to change a password first can do that on a terminal, and nothing else.
    """

    last = True

    async def admit(self, attempt: Attempt, allowed: Allow) -> Allow | Deny:
        """Ask PAM, unless it is PAM that has allowed the login."""
        if isinstance(allowed.grant, Opened):
            return allowed
        reply = await self._begin(attempt, None, proved=True)
        if not isinstance(reply, Allow):
            return reply if isinstance(reply, Deny) else Deny("PAM has asked something")
        assert reply.rights is not None
        rights = reply.rights if allowed.rights is None else allowed.rights.both(reply.rights)
        return replace(allowed, grant=reply.grant, rights=rights)
