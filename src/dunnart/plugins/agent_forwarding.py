"""Agent forwarding, `ssh -A`: a socket in $SSH_AUTH_SOCK that leads to the client's agent.

A connection has one socket, in a folder that only its user can enter, from the first session that asks to the
connection's end. What passes is the agent's protocol, which the server does not look at.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dunnart.errors import LimitExceeded
from dunnart.plugins import os_account
from dunnart.plugins.private_folder import PrivateFolder
from dunnart.server.interfaces import Forward, SessionRequest

if TYPE_CHECKING:
    from dunnart.plugins.os_account import Account
    from dunnart.server.plugins import Context

_CHANNEL_TYPE = "auth-agent@openssh.com"
_BACKLOG = 128


class AgentForwarding:
    """The session request "auth-agent-req@openssh.com". Who may have it is for the policies to say."""

    def __init__(self, context: Context[None]) -> None:
        self._log = context.logger
        self._sockets: dict[int, str] = {}

    async def prepare(self, request: SessionRequest) -> Mapping[str, str] | None:
        """Give the session the socket's path."""
        number = request.connection.id
        if request.data or not await request.client.allows(Forward(request.connection, "agent")):
            return None
        if number not in self._sockets:
            try:
                self._sockets[number] = self._listen(request)
            except (OSError, LimitExceeded) as error:
                self._log.warning("connection %d cannot forward its agent: %s", number, error)
                return None
            request.client.on_end(lambda: self._forget(number))
        return {"SSH_AUTH_SOCK": self._sockets[number]}

    def _forget(self, connection: int) -> None:
        del self._sockets[connection]

    def _listen(self, request: SessionRequest) -> str:
        account = os_account.to_act_as(request.connection.user, request.connection.grants)
        path, sock, folder = _socket_of(account)
        try:
            listener = request.client.listen((sock,), _CHANNEL_TYPE, lambda _peer: (b"", "the client's agent"), path)
        except LimitExceeded:
            folder.remove()
            raise
        listener.on_close = folder.remove
        return path


def _socket_of(account: Account | None) -> tuple[str, socket.socket, PrivateFolder]:
    """Make a socket that only this user can connect to."""
    folder = PrivateFolder(account)
    path = folder.add(f"agent.{os.getpid()}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        sock.bind(path)
        folder.give()
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        folder.remove()
        raise
    return path, sock, folder
