"""How users prove who they are: one-method objects, tried by the name of their method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from dunnart.errors import ConfigError
from dunnart.keys.authorized_keys import parse
from dunnart.keys.public import PublicKey
from dunnart.protocol.questions import Allow, AuthReply, Credential, Deny, PasswordCredential, PublicKeyCredential


async def _run_here(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - what the function gives
    result = function(*arguments)
    return await result if isinstance(result, Awaitable) else result


@dataclass(frozen=True, slots=True)
class Attempt:
    """One authentication request.

    Attributes:
        user: the name given; nothing is known of it yet.
        credential: what came with it; a public key's signature is verified after the key was allowed.
        address: the peer's IP address, "" for a unix socket; `port` is the peer's.
        rounds: for keyboard-interactive, how many answers came before this one.
        connection: the connection's number.
        run: `await run(function, *arguments)` calls a function of the application where it belongs: a coroutine
            function on the application's event loop, a plain one in a thread.
    """

    user: str
    credential: Credential
    address: str
    rounds: int = 0
    connection: int = 0
    port: int = 0
    run: Callable[..., Awaitable[Any]] = field(default=_run_here, repr=False, compare=False)


class Authenticator(Protocol):
    """Decides on requests of one method.

    `authenticate` returns `Allow`, `Deny` or (keyboard-interactive) `Prompt`. An exception denies, and is logged; so
    does no answer within the server's `callback_seconds`. A user who does not exist must cost as much as one who does
    (THREATS R15); the answer's time has a floor anyway.

    It runs on the application's event loop. One with a true attribute `on_any_loop` promises that it needs no loop of
    its own and never blocks; then a busy application does not delay logins. One with a true attribute `travels` can be
    pickled, changes nothing and grants nothing: where the protocol has processes of its own a copy decides there.
    """

    @property
    def method(self) -> str:
        """The method's name in RFC 4252: "publickey", "password", "keyboard-interactive", "none"."""

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Decide on one request."""


class AllowAnyone:
    """Lets everybody in without any proof. To be named explicitly, never by default."""

    method = "none"
    on_any_loop = True
    travels = True

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Say yes."""
        return Allow()


class PasswordCallback:
    """Passwords, decided by `check(user, password)`.

    Args:
        check: whether the password is right: a coroutine function, which runs on the application's event loop, or a
            plain function, which runs in a thread.
    """

    method = "password"
    on_any_loop = True

    def __init__(self, check: Callable[[str, str], Awaitable[bool]] | Callable[[str, str], bool]) -> None:
        if not callable(check):
            raise ConfigError("is no function check(user, password)", key="check")
        self._check = check

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask the callback."""
        if not isinstance(attempt.credential, PasswordCredential):
            return Deny("not a password")
        allowed = await attempt.run(self._check, attempt.user, attempt.credential.password)
        return Allow() if allowed is True else Deny()


class KeyCallback:
    """Public keys, found by `find(user, address)`.

    Args:
        find: gives the keys that may log in as `user` from `address`, an IP address: `PublicKey`s or their lines as
            in an `id_ed25519.pub`. A coroutine function, which runs on the application's event loop, or a plain
            function, which runs in a thread.
    """

    method = "publickey"
    on_any_loop = True

    def __init__(
        self,
        find: Callable[[str, str], Awaitable[Iterable[PublicKey | str]]]
        | Callable[[str, str], Iterable[PublicKey | str]],
    ) -> None:
        if not callable(find):
            raise ConfigError("is no function find(user, address)", key="find")
        self._find = find

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask the callback, and look for the key among what it gives."""
        if not isinstance(attempt.credential, PublicKeyCredential):
            return Deny("not a public key")
        wanted = attempt.credential.key
        for found in await attempt.run(self._find, attempt.user, attempt.address):
            key = PublicKey.parse_line(found)[0] if isinstance(found, str) else found
            if key == wanted:
                return Allow()
        return Deny()


class PublicKeys:
    """Public keys that may log in, the same for every user, as the lines of an authorized_keys file.

    Args:
        text: the lines.
        users: who may log in with them; None: any name.

    Raises:
        ConfigError: a line lets nobody in; says which and why.
    """

    method = "publickey"
    on_any_loop = True
    travels = True

    def __init__(self, text: str, *, users: Iterable[str] | None = None) -> None:
        self._keys = parse(text, "text")
        self._users = None if users is None else frozenset(users)
        for line, reason in self._keys.refused:
            raise ConfigError(f"line {line} lets nobody in: {reason}", key="text")
        if not self._keys.entries:
            raise ConfigError("holds no key", key="text")

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Look for the key."""
        if not isinstance(attempt.credential, PublicKeyCredential):
            return Deny("not a public key")
        if self._users is not None and attempt.user not in self._users:
            return Deny("no such user here", unknown_user=True)
        return Allow() if self._keys.find(attempt.credential.key) else Deny()
