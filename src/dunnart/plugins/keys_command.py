"""A program that knows more keys, as sshd's AuthorizedKeysCommand: run for each login, without a shell, bounded.

It is asked only about users who exist. So that nobody learns from the time an answer takes who does, one about a user
who does not takes as long as the last run did.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dunnart.errors import ConfigError
from dunnart.keys import strict_modes_reason
from dunnart.plugins import os_account

if TYPE_CHECKING:
    from dunnart.keys import Certificate, PublicKey
    from dunnart.plugins.os_account import Account
    from dunnart.server import Attempt

_MOST_BYTES = 1 << 20
_READ_BYTES = 64 * 1024
TOKENS = "%CDfhktUu"
_NO_MORE: Mapping[str, str] = MappingProxyType({})
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class KeysCommand:
    """Runs the program.

    Args:
        command: the program's absolute path and its arguments, quoted as for a shell. In the arguments %u is the user's
            name, %U the number, %h the home, %k the key in base64, %t its type, %f its fingerprint, %C the connection's
            addresses and ports (ours, then the peer's), %D nothing, as in an sshd without routing domains, %% a percent
            sign. Without arguments it gets the user's name.
        user: as whom it runs; %u stands for the user who logs in.
        seconds: how long it may take.
        tokens: what may stand after a % in the arguments.

    Raises:
        ConfigError: the command, or the user, cannot be used.
    """

    def __init__(self, command: str, user: str, seconds: float = 8.0, *, tokens: str = TOKENS) -> None:
        self._argv = parse_command(command, tokens)
        self._user = user
        self._seconds = seconds
        self._took = 0.0
        if not user:
            raise ConfigError("must be given with authorized_keys_command", key="command_user")
        if "%" not in user:
            self._account(user)

    async def lines(
        self, attempt: Attempt, account: Account, key: PublicKey | Certificate, more: Mapping[str, str] = _NO_MORE
    ) -> bytes:
        """Give what it says of a key; `more` is what further tokens stand for.

        Raises:
            PermissionError: the program is not safe to run, or its user does not exist.
            OSError: it cannot be run, fails, takes too long, or says too much.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            return await self._run(attempt, account, key, {"C": _endpoints(attempt), "D": "", **more})
        finally:
            self._took = min(loop.time() - began, self._seconds)

    async def pretend(self) -> None:
        """Take as long as the last run has."""
        await asyncio.sleep(self._took)

    async def _run(
        self, attempt: Attempt, account: Account, key: PublicKey | Certificate, more: Mapping[str, str]
    ) -> bytes:
        runner, options = await attempt.run(self._prepare, account)
        line_type, blob = key.line().split(" ")[:2]
        tokens = {
            "h": account.home, "u": account.name, "U": str(account.uid), "k": blob, "t": line_type,
            "f": key.fingerprint(), "%": "%", **more,
        }  # fmt: skip
        program, *arguments = self._argv
        filled = [filled_in(each, tokens) for each in arguments] or [account.name]
        environment = {"PATH": _PATH, "USER": runner.name, "LOGNAME": runner.name, "HOME": runner.home}
        process = await asyncio.create_subprocess_exec(
            program, *filled, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, cwd="/", start_new_session=True, **options,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._seconds):
                said = await _read(process.stdout)
                status = await process.wait()
        except TimeoutError:
            raise TimeoutError(f"{program} has not ended within {self._seconds:g} s") from None
        finally:
            running = process.returncode is None
            if running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            if running or not process.stdout.at_eof():  # what it has started may hold the pipe for ever
                # wait() waits for the pipe's end, too, which never comes to one that is full and not read.
                process._transport.close()  # type: ignore[attr-defined] # noqa: SLF001 - asyncio has no other name for it
                await asyncio.shield(process.wait())
        if status:
            raise OSError(f"{program} has ended with {'status' if status > 0 else 'signal'} {abs(status)}")
        return said

    def _prepare(self, account: Account) -> tuple[Account, dict[str, Any]]:
        reason = strict_modes_reason(self._argv[0], os.geteuid())
        if reason is not None:
            raise PermissionError(reason)
        runner = self._account(filled_in(self._user, {"u": account.name, "%": "%"}))
        if runner.uid == os.geteuid():
            return runner, {}
        return runner, {"user": runner.uid, "group": runner.gid, "extra_groups": runner.groups()}

    @staticmethod
    def _account(name: str) -> Account:
        account = os_account.find(name)
        if account is None:
            raise ConfigError(f"{name!r} is no user as whom this server can run programs", key="command_user")
        return account


def _endpoints(attempt: Attempt) -> str:
    """Give both ends of the connection in the order that sshd has."""
    ends = (attempt.local, (attempt.address, attempt.port))
    return " ".join(f"{host or 'UNKNOWN'} {port or 65535}" for host, port in ends)


def parse_command(command: str, tokens: str = TOKENS) -> tuple[str, ...]:
    """Split a command into its parts.

    Raises:
        ConfigError: it is none, its path is not absolute, or there is a % before something that is no token.
    """
    try:
        argv = tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigError(f"{command!r}: {error}", key="command") from error
    if not argv or not argv[0].startswith("/"):
        raise ConfigError(f"{command!r} does not begin with the absolute path of a program", key="command")
    for argument in argv[1:]:
        rest = argument
        while "%" in rest:
            _, _, rest = rest.partition("%")
            if rest[:1] not in tokens or not rest:
                raise ConfigError(
                    f"{argument!r} holds a % before something else than {', '.join(tokens)}", key="command"
                )
            rest = rest[1:]
    return argv


def filled_in(text: str, tokens: Mapping[str, str]) -> str:
    """Put what tokens stand for in their places; others stay."""
    pieces = text.split("%")
    filled = [pieces.pop(0)]
    while pieces:
        piece = pieces.pop(0)
        if not piece and pieces:  # %%
            filled += ["%", pieces.pop(0)]
        elif piece[:1] in tokens:
            filled += [tokens[piece[0]], piece[1:]]
        else:
            filled += ["%", piece]
    return "".join(filled)


async def _read(stream: asyncio.StreamReader) -> bytes:
    said = bytearray()
    while chunk := await stream.read(_READ_BYTES):
        said += chunk
        if len(said) > _MOST_BYTES:
            raise OSError("it says more than 1 MiB")
    return bytes(said)
