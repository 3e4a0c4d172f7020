"""The control socket: who may open this unix socket may operate the server, with the commands of the status shell.

The file's mode, 600, is the guard, and so nobody else may be able to write to the folder that it is in.

A request is a line of JSON, and so is the answer, as many as wanted on one connection:

    {"command": ["session", "3"], "columns": 100, "rows": 30}     columns and rows may be missing
    {"lines": ["connection  3, since 12 s", …], "data": {"id": 3, …}}
    {"error": "there is no connection 3; sessions lists them", "status": 1}

Until somebody connects this costs one descriptor, and no more than this module is loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from dunnart.daemon.host_keys import default_state_folder, prepare_folder
from dunnart.errors import ConfigError, DunnartError
from dunnart.runtime.listeners import ListenAddress, listen, listen_address, own_sockets

if TYPE_CHECKING:
    from dunnart.daemon.config import ServeConfig
    from dunnart.plugins.status_commands import Console, Operated
    from dunnart.server import Server

AUTO = "auto"
OFF = "off"
_LOG = logging.getLogger("dunnart.daemon")
_NAME = "control.sock"
_OPTION = "control_socket"
_MOST_CONNECTIONS = 16
_REST_SECONDS = 0.1
_LARGEST_REQUEST = 64 * 1024
_READ_BYTES = 4096


def socket_path(config: ServeConfig) -> str:
    """Give the path that a configuration means; "" for none."""
    if config.control_socket != AUTO:
        return "" if config.control_socket == OFF else config.control_socket
    return os.path.join(config.state_folder or default_state_folder(), _NAME) if hasattr(socket, "AF_UNIX") else ""


def open_control(
    config: ServeConfig, server: Server, daemon: Operated | None = None, listener: socket.socket | None = None
) -> ControlSocket | None:
    """Open the socket as the configuration says, on the running event loop; None: there is none.

    Args:
        config: the configuration.
        server: is operated.
        daemon: likewise.
        listener: the socket, if another process has handed it over; closed if it is not the one that is wanted.

    Raises:
        ConfigError: the one that the configuration names cannot be opened. Without the one in the state folder the
            server runs all the same, and a line in the log says why.
    """
    path = socket_path(config)
    if listener is not None and not (listener.getsockname() == path and os.path.exists(path)):
        listener.close()  # nobody is to come there any more, or nobody can
        listener = None
    if not path:
        return None
    try:
        if config.control_socket == AUTO:
            prepare_folder(os.path.dirname(path))
        return ControlSocket(server, path, daemon, listener)
    except ConfigError as error:
        if config.control_socket != AUTO:
            raise
        _LOG.warning("there is no control socket: %s", error)
        return None


class ControlSocket:
    """The socket, listened on until it is closed.

    Args:
        server: is operated.
        path: of the socket.
        daemon: is operated too.
        listener: listens there already.

    Attributes:
        path: of the socket.

    Raises:
        ConfigError: it cannot be made there, others can write to its folder, or another server has it.
    """

    def __init__(
        self, server: Server, path: str, daemon: Operated | None = None, listener: socket.socket | None = None
    ) -> None:
        self._server = server
        self._daemon = daemon
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = _listen(path) if listener is None else listener
        self._listener.setblocking(False)  # noqa: FBT003 - the name says it
        self._file = os.stat(path)
        own_sockets.add((self._file.st_dev, self._file.st_ino))
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is left: rest, or this would be all that the loop does
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_REST_SECONDS, self._listen_again)
            return
        if len(self._tasks) >= _MOST_CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        task = self._loop.create_task(self._serve(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _listen_again(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    async def _serve(self, sock: socket.socket) -> None:
        from json import dumps

        from dunnart.plugins.status_commands import Console

        console = Console(self._server, may_change=True, daemon=self._daemon)
        buffer = bytearray()
        with sock, contextlib.suppress(OSError):
            while True:
                while (end := buffer.find(b"\n")) < 0:
                    data = await self._loop.sock_recv(sock, _READ_BYTES)
                    if not data or len(buffer) > _LARGEST_REQUEST:
                        return
                    buffer += data
                request = bytes(buffer[:end])
                del buffer[: end + 1]
                answer = await _answer(console, request)
                await self._loop.sock_sendall(sock, dumps(answer).encode() + b"\n")

    @property
    def listener(self) -> socket.socket:
        """What it listens on."""
        return self._listener

    async def close(self, *, handed_over: bool = False) -> None:
        """Answer nobody any more, and remove the file unless it is another's by now.

        Args:
            handed_over: another process listens on the socket: the file stays, and who is connected goes on.
        """
        if self._listener.fileno() < 0:
            return
        self._loop.remove_reader(self._listener)
        self._listener.close()
        if handed_over:
            return
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), self._file):
                os.unlink(self.path)
                own_sockets.discard((self._file.st_dev, self._file.st_ino))
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(console: Console, line: bytes) -> dict[str, Any]:
    from dunnart.plugins.status_commands import CommandError

    try:
        words = _understood(console, line)
        reply = await console.run(words)
    except CommandError as error:
        return {"error": str(error), "status": error.status}
    except DunnartError as error:  # the server is about to end
        return {"error": str(error), "status": 1}
    return {"lines": list(reply.lines), "data": reply.data}


def _understood(console: Console, line: bytes) -> list[str]:
    from json import loads

    from dunnart.plugins.status_commands import CommandError

    try:
        request = loads(line)
        words = request["command"]
        columns, rows = request.get("columns"), request.get("rows", console.rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError('a request is a line of JSON such as {"command": ["status"]}', 2) from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CommandError("command is a list of strings", 2)
    if not (columns is None or type(columns) is int) or type(rows) is not int:
        raise CommandError("columns and rows are whole numbers", 2)
    console.columns = None if columns is None else max(1, columns)
    console.rows = max(1, rows)
    return words


def check_path(path: str) -> None:
    """See that the socket can be where a configuration has it, but for another server that is there.

    Raises:
        ConfigError: the path is too long, or others can write to its folder.
    """
    try:
        listen_address(f"unix:{path}")
    except ValueError as error:
        raise ConfigError(str(error), key=_OPTION) from error
    _check_folder(os.path.dirname(path))


def _listen(path: str) -> socket.socket:
    check_path(path)
    try:
        listener = listen(ListenAddress("", 0, path))[0]
    except ConfigError as error:
        said = str(error).removeprefix("listen: ")
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE:
            said += (
                f"; another server has it: give this one a state_folder or {_OPTION} of its own, or {_OPTION} = {OFF!r}"
            )
        raise ConfigError(said, key=_OPTION) from error
    os.chmod(path, 0o600)
    return listener


def _check_folder(folder: str) -> None:
    """Refuse a folder in which others could put a socket of their own."""
    try:
        found = os.stat(folder)
    except OSError as error:
        raise ConfigError(f"cannot be used: {error.strerror}", path=folder, key=_OPTION) from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError("is no folder", path=folder, key=_OPTION)
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o022:
        raise ConfigError("belongs to another user, or others can write to it", path=folder, key=_OPTION)
