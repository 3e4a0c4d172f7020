"""Unix sockets with the rights of the user who logged in (THREATS R25).

Where the server is root and the user is not, a process of the user's own connects or binds, and hands the socket over:
so the peer's credentials, the file's owner and every permission on the path are the user's. The process that has bound
stays until the listener is closed, and then removes the file.

    server ── call ──► process of the user: connect or bind ── the socket, or an error ──► server
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, TypeVar

from dunnart.errors import DecodeError
from dunnart.plugins import os_account, unix_process
from dunnart.runtime.listeners import own_sockets
from dunnart.server import Call
from dunnart.wire.encoding import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.plugins.os_account import Account
    from dunnart.server.interfaces import ClientLink

T = TypeVar("T")
_ANSWER_SECONDS = 8.0
_RETRY_SECONDS = 0.05


def read_path(reader: Reader) -> str:
    """Read a socket's path.

    Raises:
        DecodeError: it is none that can be used.
    """
    path = os.fsdecode(reader.string())
    if not path.startswith("/") or "\0" in path:
        raise DecodeError("not an absolute path")
    if any(part in {"", ".", ".."} for part in path.split("/")[1:]):  # rules are compared with the text
        raise DecodeError("a path with empty parts, . or ..")
    return path


async def connect(client: ClientLink, path: str, seconds: float) -> socket.socket:
    """Connect to a socket.

    Raises:
        OSError: that cannot be done, or would take longer.
    """
    account = os_account.to_act_as(client.facts.user, client.facts.grants)
    if account is not None:
        _, sock = await _as(account, client, "connect", path, str(seconds))
        return sock
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(BlockingIOError):  # its backlog is full
                return await _in_thread(lambda: _connect(path), socket.socket.close)
            await asyncio.sleep(_RETRY_SECONDS)


def _connect(path: str) -> socket.socket:
    found = os.stat(path)
    if (found.st_dev, found.st_ino) in own_sockets:
        raise PermissionError(errno.EACCES, "it is the server's own")
    return unix_process.connect(path, 0.0)


async def listen(
    client: ClientLink, path: str, mask: int, *, replace: bool
) -> tuple[socket.socket, Callable[[], None]]:
    """Bind a socket and listen on it.

    Args:
        client: whose rights count.
        path: the file, which must not exist.
        mask: the permissions that nobody gets.
        replace: remove a socket that is there already.

    Returns:
        The socket, and what removes the file.

    Raises:
        OSError: that cannot be done.
    """
    account = os_account.to_act_as(client.facts.user, client.facts.grants)
    if account is not None:
        control, sock = await _as(account, client, "listen", path, str(mask), str(int(replace)))
        return sock, control.close

    def abandon(found: tuple[socket.socket, tuple[int, int]]) -> None:
        found[0].close()
        unix_process.remove(path, found[1])

    sock, made = await _in_thread(lambda: unix_process.listen(path, mask, replace), abandon)
    return sock, lambda: unix_process.remove(path, made)


async def _in_thread(work: Callable[[], T], abandon: Callable[[T], None]) -> T:
    """Do what may block; who is cancelled meanwhile leaves nothing behind."""
    future = asyncio.get_running_loop().run_in_executor(None, work)

    def done(future: asyncio.Future[T]) -> None:
        if not future.cancelled() and future.exception() is None:
            abandon(future.result())

    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(done)
        raise


async def _as(account: Account, client: ClientLink, *arguments: str) -> tuple[socket.socket, socket.socket]:
    """Have a process of the user do something; gives its control socket, and the socket that it was for."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            user = (account.uid, account.gid, account.groups())
            environment = {"USER": account.name, "HOME": account.home}
            await client.start(
                Call(f"{unix_process.__name__}:main", arguments, environment, "/", user, (theirs.fileno(),))
            )
        ours.setblocking(False)  # noqa: FBT003 - the name says it
        async with asyncio.timeout(_ANSWER_SECONDS):
            await _readable(ours)
        sock = _taken(ours)
    except BaseException:
        ours.close()
        raise
    sock.setblocking(False)  # noqa: FBT003 - the name says it
    if arguments[0] == "connect":
        ours.close()
    return ours, sock


def _taken(control: socket.socket) -> socket.socket:
    data, descriptors, _, _ = socket.recv_fds(control, 4, 1)
    if not descriptors:
        number = int.from_bytes(data, "big")
        raise OSError(number, os.strerror(number) if number else "no answer")
    return socket.socket(fileno=descriptors[0])


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, tell)
    try:
        await ready
    finally:
        loop.remove_reader(sock)
