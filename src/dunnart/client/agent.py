"""An SSH agent over its socket."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from dunnart.errors import AgentError
from dunnart.keys import agent as messages

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from dunnart.keys.certificate import Certificate
    from dunnart.keys.public import PublicKey

_SECONDS = 5.0
_READ_BYTES = 64 * 1024


class Agent:
    """A connection to an SSH agent, such as ssh-agent; made by `connect`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._answers = messages.AgentAnswers()
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(cls, path: str | os.PathLike[str] | None = None) -> Agent:
        """Connect to the agent at a socket.

        Args:
            path: the socket's; None for $SSH_AUTH_SOCK.

        Raises:
            AgentError: there is none.
        """
        where = agent_place(path)
        if not where:
            raise AgentError("there is no agent: SSH_AUTH_SOCK is not set")
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)  # noqa: FBT003 - the name says it
            async with asyncio.timeout(_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, where)
        except (OSError, TimeoutError) as error:
            sock.close()
            raise AgentError(f"the agent at {where} cannot be reached: {error}") from error
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def identities(self) -> tuple[messages.AgentIdentity, ...]:
        """The keys that it holds.

        Raises:
            AgentError: it did not say.
        """
        return messages.read_identities(await self._ask(messages.identities_request()))

    async def sign(self, key: PublicKey | Certificate, algorithm: str, data: bytes) -> bytes:
        """Have it sign; it may ask its user first.

        Args:
            key: one of its keys.
            algorithm: one of the key's signature algorithms.
            data: what to sign.

        Returns:
            The signature blob.

        Raises:
            AgentError: it refused.
        """
        return messages.read_signature(await self._ask(messages.sign_request(key, algorithm, data)), algorithm)

    async def _ask(self, request: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._turn:
            try:
                await loop.sock_sendall(self._sock, request)
                found: list[bytes] = []
                while not found:
                    found = self._answers.receive(await loop.sock_recv(self._sock, _READ_BYTES))
            except OSError as error:
                self._sock.close()
                raise AgentError(f"the agent is gone: {error}") from error
            except BaseException:
                self._sock.close()  # an answer that comes later must not be taken for another's
                raise
        return found[0]

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def agent_place(path: str | os.PathLike[str] | None) -> str:
    """Give the path of an agent's socket, that in $SSH_AUTH_SOCK for None; "" if there is none."""
    return os.environ.get("SSH_AUTH_SOCK", "") if path is None else os.path.expanduser(path)
