"""The way to a connection: an address, a socket, a host key that is right, a login."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dunnart.client.connection import Connection
from dunnart.client.dialing import dial
from dunnart.client.host_keys import HostKeyCheck, KnownHostsSource, UnknownHostCallback
from dunnart.client.login import METHODS, KeySource, Login, PassphraseCallback, PasswordCallback, PromptCallback
from dunnart.crypto.profiles import PROFILES, Algorithms
from dunnart.errors import ConfigError, ConnectionClosed
from dunnart.protocol.core import EngineConfig
from dunnart.protocol.limits import Limits
from dunnart.protocol.phases import Role

if TYPE_CHECKING:
    from types import TracebackType

CLIENT_LIMITS = Limits(identification_seconds=30.0, login_grace_seconds=120.0, keepalive_seconds=30.0)
"""Two minutes for the login, with all that a person has to type; a server that is silent for two is given up."""


class Connecting:
    """A connection in the making: `await` it, or use it as an asynchronous context manager."""

    def __init__(
        self,
        dialing: Callable[[], Awaitable[socket.socket]],
        config: EngineConfig,
        host_key: HostKeyCheck,
        login: Login,
    ) -> None:
        self._dial = dialing
        self._config = config
        self._host_key = host_key
        self._login = login
        self._connection: Connection | None = None

    def __await__(self) -> Generator[object, None, Connection]:
        return self.connect().__await__()

    async def __aenter__(self) -> Connection:
        self._connection = await self.connect()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._connection is not None
        await self._connection.close()

    async def connect(self) -> Connection:
        """Connect and log in, once."""
        sock = await self._dial()
        try:
            sock.setblocking(False)  # noqa: FBT003 - the name says it
            with contextlib.suppress(OSError):  # no TCP
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, self._config, self._host_key, self._login)
        except BaseException:
            sock.close()
            raise
        await connection.start()
        return connection


def connect(
    host: str,
    port: int = 22,
    *,
    user: str | None = None,
    keys: Sequence[KeySource] | None = None,
    agent: bool | str | os.PathLike[str] = True,
    password: str | PasswordCallback | None = None,
    passphrase: str | PassphraseCallback | None = None,
    prompt: PromptCallback | None = None,
    methods: Sequence[str] = METHODS,
    asks: int = 3,
    identities_only: bool = False,
    banner: Callable[[str], None] | None = None,
    known_hosts: KnownHostsSource | None = None,
    unknown_host: UnknownHostCallback | None = None,
    host_key_alias: str | None = None,
    algorithms: Algorithms | str = "default",
    limits: Limits = CLIENT_LIMITS,
    connect_seconds: float = 30.0,
    family: int = socket.AF_UNSPEC,
    bind: tuple[str, int] | None = None,
    sock: socket.socket | None = None,
    through: Connection | None = None,
) -> Connecting:
    """Connect to a server and log in. The server's key is always checked before anything secret is sent.

        async with connect("example.org", user="alice") as connection:
            done = await connection.run("uname -a")

    The way in is, in this order: the agent's keys, `keys`, the server's questions, the password; or as `methods` says.

    Args:
        host: the server's name or address. It is also the name under which its key is known.
        port: its port.
        user: who to log in as; None for the user who runs this.
        keys: private keys, or the names of their files; None for `~/.ssh/id_ed25519`, `id_ecdsa` and `id_rsa`,
            as far as they are there. A certificate among them is shown in the place of its key, the agent's too.
        agent: True for the agent at $SSH_AUTH_SOCK if there is one, False for none, or the path of an agent's socket.
        password: the password, or a coroutine function that gives it, or None to give up. It also answers a server
            that asks one question with hidden answer.
        passphrase: the passphrase of locked key files, or a coroutine function of the file's name that gives it.
        prompt: a coroutine function that answers the server's questions (keyboard-interactive), or None to give up.
        methods: what is tried, in this order, of "publickey", "keyboard-interactive" and "password".
        asks: how often the functions for `password`, `prompt` and a `passphrase` are asked, if their answer is wrong.
        identities_only: of the agent's keys only those that `keys` names, by the public half beside each file.
        banner: a function that is told what the server says before the login.
        known_hosts: where the servers' keys are known from: a file, files, or a `KnownHosts`; None for those that ssh
            reads. `TrustAnyHostKey()` switches the check off.
        unknown_host: a coroutine function that is asked whether to trust a server that is not known; None: it is not.
        host_key_alias: the name under which the server's key is known, if it is not `host` and `port`.
        algorithms: the name of a profile, or the names themselves.
        limits: bounds put on the server; `login_grace_seconds` and `keepalive_seconds` are those for time.
        connect_seconds: how long the TCP connection may take.
        family: AF_INET or AF_INET6 for addresses of that kind only.
        bind: the address, or "", and the port, or 0, to come from.
        sock: a connected socket to use, which now belongs to the connection.
        through: a connection to a server that is to connect to the host (ssh's jump host).

    Raises:
        HostKeyError: the server's key is not known, has changed, or is revoked; says where and what to do.
        AuthenticationFailed: nothing of what was tried lets the user in.
        NegotiationError: both sides have no algorithm in common.
        ConnectionClosed: the server cannot be reached, or went away.
        ChannelError: the server that is to connect to it cannot, or does not want to.
        ConfigError: a file or an option cannot be used.
        AgentError: an agent that was named cannot be used.
    """
    if isinstance(algorithms, str):
        if algorithms not in PROFILES:
            raise ConfigError(f"there is no profile {algorithms!r}; there are {', '.join(PROFILES)}", key="algorithms")
        algorithms = PROFILES[algorithms]
    user = this_user() if user is None else user
    host_key = HostKeyCheck(host, port, known_hosts, unknown_host, alias=host_key_alias)
    offered = replace(algorithms, host_key=host_key.preferred(algorithms.host_key))
    config = EngineConfig(Role.CLIENT, offered, limits, user=user)
    login = Login(
        user, host, keys=keys, agent=agent, algorithms=algorithms.user_key, password=password, passphrase=passphrase,
        prompt=prompt, order=tuple(methods), asks=asks, identities_only=identities_only, tell=banner,
    )  # fmt: skip

    async def dialing() -> socket.socket:
        if sock is not None:
            return sock
        if through is not None:
            return await _tunnel(through, host, port)
        return await dial(host, port, connect_seconds, family=family, bind=bind)

    return Connecting(dialing, config, host_key, login)


def this_user() -> str:
    """The name of the user who runs this.

    Raises:
        ConfigError: there is none.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # a process without an account
        raise ConfigError("say who to log in as: this process's user has no name", key="user") from error


async def _tunnel(through: Connection, host: str, port: int) -> socket.socket:
    """Have another server connect there."""
    channel = await through.open_direct(host, port)
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        channel.abandon()
        raise ConnectionClosed(f"{host} port {port} cannot be reached: {error.strerror}") from error
    try:
        channel.join(theirs)
    except BaseException:
        ours.close()
        raise
    return ours
