"""How users prove who they are: one-method objects, tried by the name of their method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dunnart.protocol.questions import Allow, AuthReply, Credential, Deny, PasswordCredential

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True, slots=True)
class Attempt:
    """One authentication request.

    Attributes:
        user: the name given; nothing is known of it yet.
        credential: what came with it; a public key's signature is verified after the key was allowed.
        address: the peer's IP address, "" for a unix socket.
        rounds: for keyboard-interactive, how many answers came before this one.
    """

    user: str
    credential: Credential
    address: str
    rounds: int = 0


class Authenticator(Protocol):
    """Decides on requests of one method.

    `authenticate` returns `Allow`, `Deny` or (keyboard-interactive) `Prompt`. An exception denies, and is logged. A
    user who does not exist must cost as much as one who does (THREATS R15); the answer's time has a floor anyway.
    """

    @property
    def method(self) -> str:
        """The method's name in RFC 4252: "publickey", "password", "keyboard-interactive", "none"."""

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Decide on one request."""


class PasswordCallback:
    """Passwords, decided by a coroutine function `check(user, password)`.

    Args:
        check: whether the password is right; hashing belongs into a thread (`asyncio.to_thread`).
    """

    method = "password"

    def __init__(self, check: Callable[[str, str], Awaitable[bool]]) -> None:
        self._check = check

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask the callback."""
        if not isinstance(attempt.credential, PasswordCredential):
            return Deny("not a password")
        return Allow() if await self._check(attempt.user, attempt.credential.password) else Deny()


class AllowAnyone:
    """Lets everybody in without any proof. To be named explicitly, never by default."""

    method = "none"

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Say yes."""
        return Allow()
