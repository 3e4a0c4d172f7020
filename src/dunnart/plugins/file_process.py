"""What the plug-ins `sftp` and `scp` share: a process for each session, and what it reports.

The process runs `dunnart.plugins.file_session` with the rights of the user whom it serves, and writes lines of JSON to
a pipe: events for the audit sinks, and text for the log. It is believed no more than its user is: its lines are
bounded, and say what happens in its own session and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from dunnart.errors import ConfigError
from dunnart.plugins import os_account, os_process
from dunnart.server import clean, report
from dunnart.sftp.messages import sends_link_first
from dunnart.sftp.options import FileOptions, filled_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dunnart.server import Context, RawSession

_LINE_BYTES = 64 * 1024
_TEXT_CHARACTERS = 4096
_KINDS = frozenset((
    "uploaded", "downloaded", "removed", "renamed", "made-directory", "removed-directory", "linked", "changed",
))  # fmt: skip
_DETAILS: dict[str, tuple[type, ...]] = {
    "path": (str,), "target": (str,), "size": (int,), "seconds": (int, float), "sha256": (str,), "error": (str,),
}  # fmt: skip


class FileProcesses:
    """Serves sessions by processes of the users' own.

    Args:
        context: the plug-in's.
        target: the function of `dunnart.plugins.file_session` that serves one.
        drives: further folders, by their letters.

    Raises:
        ConfigError: an option names what is not there.
    """

    def __init__(self, context: Context[Any], target: str, drives: Mapping[str, str] | None = None) -> None:
        self._options: FileOptions = context.options
        self._drives = drives or {}
        self._name = context.name
        self._log = context.logger
        self._preload = self._options.modules
        self._target = f"dunnart.plugins.file_session:{target}"
        account = self._options.account
        if account and os_account.find(account) is None:
            raise ConfigError(f"{account!r} is no user of the system whom this server can serve", key="account")
        if self._options.remote:
            from importlib.util import find_spec

            if find_spec("fsspec") is None:
                raise ConfigError("a URL needs fsspec: pip install 'dunnart[fsspec]'", key="root")
            self._preload += _modules_of(self._options.root)

    def start(self, session: RawSession, argument: str = "", *, requests: Sequence[str] | None = None) -> bool:
        """Start a process for a session.

        Args:
            session: the session.
            argument: the function's second argument; the first are the settings.
            requests: what a client may ask for; None: everything.

        Returns:
            Whether it could be started, or the user was told why not.

        Raises:
            PermissionError: there is no such user of the system.
        """
        options = self._options
        if options.account:
            account, name = os_account.find(options.account), session.user
        else:
            account = os_process.account_of(session)
            name = account.name
        if account is None:
            raise PermissionError(f"{options.account!r} is no user of the system any more")
        tokens = {"h": account.home, "u": name, "U": str(account.uid)}
        try:
            filled = options.filled(tokens)
            drives = {letter: filled_in(folder, tokens) for letter, folder in self._drives.items()}
        except PermissionError as error:
            report(self._log, logging.WARNING, session.facts.connection, "session %d: %s", session.channel, error)
            session.refuse(f"{self._name}: {error}", 1)
            return True
        settings: dict[str, Any] = {
            "options": filled.to_json(), "drives": drives, "requests": requests,
            "debug": self._log.isEnabledFor(logging.DEBUG),
            "link_first": sends_link_first(session.facts.connection.client_version),
        }  # fmt: skip
        if not session.server.config.audit:
            settings["options"]["events"] = "off"
        reader, writer = os.pipe()
        try:
            arguments = (json.dumps(settings), argument)
            started = os_process.call(session, account, self._target, arguments, (writer,), self._preload)
        finally:
            os.close(writer)
            _Reports(session, reader, self._log)
        return started


class _Reports:
    """Takes what a process reports, until it ends."""

    def __init__(self, session: RawSession, reader: int, log: logging.Logger) -> None:
        self._session = session
        self._reader = reader
        self._log = log
        self._rest = bytearray()
        self._loop = asyncio.get_running_loop()
        os.set_blocking(reader, False)
        self._loop.add_reader(reader, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._reader, _LINE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._end()
            return
        self._rest += data
        *lines, tail = self._rest.split(b"\n")
        self._rest[:] = tail if len(tail) <= _LINE_BYTES else b"\n"  # what is too long is no line
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
                self._say(logging.WARNING, "its process reports nonsense, and is not listened to any more")
                self._end()
                return

    def _end(self) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)

    def _take(self, reported: dict[str, object]) -> None:
        kind = reported.get("event")
        if kind in _KINDS:
            details = {
                name: _cut(value) for name, types in _DETAILS.items()
                if isinstance(value := reported.get(name), types) and not isinstance(value, bool) and value != ""
            }  # fmt: skip
            self._session.record(str(kind), **details)
        elif "debug" in reported:
            self._say(logging.DEBUG, str(reported["debug"]))
        else:
            self._say(logging.WARNING, str(reported["error"]))

    def _say(self, level: int, text: str) -> None:
        report(self._log, level, self._session.facts.connection, "session %d: %s", self._session.channel,
               clean(text[:_TEXT_CHARACTERS]))  # fmt: skip


def _modules_of(url: str) -> tuple[str, ...]:
    """Name what a store needs; some of it takes a second to load."""
    from fsspec.registry import known_implementations

    known = known_implementations.get(url.partition("://")[0], {"class": ""})
    module: str = known["class"].rpartition(".")[0]
    return (module,) if module else ()


def _cut(value: Any) -> Any:  # noqa: ANN401 - of a detail's types
    return value[:_TEXT_CHARACTERS] if isinstance(value, str) else value
