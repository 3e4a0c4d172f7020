"""Remote forwarding, `ssh -R`: the server listens, and the client serves what connects (RFC 4254 §7.1, §7.2)."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from dunnart.errors import DecodeError, LimitExceeded
from dunnart.plugins import os_account
from dunnart.plugins.direct_tcpip import LONGEST_HOST
from dunnart.plugins.owned_sockets import owned
from dunnart.records import dataclass
from dunnart.runtime.logs import clean
from dunnart.runtime.pool import ThreadPool
from dunnart.server.interfaces import ConnectionRequest, Forward, Listener
from dunnart.server.plugins import Context, plugin
from dunnart.wire.encoding import Reader, text, uint32

_SocketAddress = tuple[int, tuple[Any, ...]]
_LARGEST_PORT = 65535
_THREADS, _QUEUE = 8, 100
_FIRST_FREE_PORT = 1024
_BACKLOG = 128
_TRIES = 5  # to find a port that is free in both families
_NOT_HERE = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_LOOPBACK = ("127.0.0.1", "::1")
_EVERY = ("0.0.0.0", "::")  # noqa: S104 - where the operator and the client want it so
_CANCEL = "cancel-tcpip-forward"


@dataclass(frozen=True)
class Options:
    """Where it listens.

    Attributes:
        gateway_ports: "no": on the loopback addresses only, whatever the client asks for; "yes": on all addresses;
            "client": where the client wants it.
    """

    gateway_ports: str = "no"

    def __post_init__(self) -> None:
        if self.gateway_ports not in {"no", "yes", "client"}:
            raise ValueError(f"gateway_ports is {self.gateway_ports!r}, which is none of no, yes, client")


class _Listening(NamedTuple):
    """What a client has the server listen for: `host` and `asked` as it wrote them, `port` as it knows it."""

    host: str
    asked: int
    port: int
    listener: Listener


@plugin(Options)
class TcpipForward:
    """The requests "tcpip-forward" and "cancel-tcpip-forward". What may be listened on is for the policies to say."""

    def __init__(self, context: Context[Options]) -> None:
        self._gateway_ports = context.options.gateway_ports
        self._log = context.logger
        self._names = ThreadPool("dunnart-names", _THREADS, _QUEUE)  # its own: logins need the loop's threads
        self._listening: dict[int, list[_Listening]] = {}

    async def answer(self, request: ConnectionRequest) -> bool | bytes:
        """Listen, or listen no more."""
        try:
            host, port = read_address(request.data)
        except DecodeError:
            return False
        if request.name == _CANCEL:
            return self._cancel(request, host, port)
        return await self._listen(request, host, port)

    async def _listen(self, request: ConnectionRequest, host: str, port: int) -> bool | bytes:
        connection, client = request.connection, request.client
        forward = Forward(connection, "listen", host, port)
        try:
            # Before a name is looked up. Who asks for all that must allow it has the refusal recorded.
            if not connection.rights.permits(forward) and not await client.allows(forward):
                return False
            addresses = await self._addresses(host)
            # Where the client chooses, policies are asked about what it really means.
            chosen = sorted({str(name[0]) for _, name in addresses}) if self._gateway_ports == "client" else [""]
            for each in chosen:
                if not await client.allows(replace(forward, address=each)):
                    return False
            sockets = self._bind(request, addresses, port)
        except (OSError, UnicodeError, BufferError) as error:
            self._log.info("connection %d cannot listen on '%s' port %d: %s", connection.id, clean(host), port, error)
            return False
        bound: int = sockets[0].getsockname()[1]
        try:
            where = f"{host or '*'} port {bound}"
            listener = client.listen(sockets, "forwarded-tcpip", partial(_describe, host, bound), where)
        except LimitExceeded as error:
            self._log.info("connection %d cannot listen on '%s' port %d: %s", connection.id, clean(host), port, error)
            return False
        if connection.id not in self._listening:
            self._listening[connection.id] = []
            client.on_end(lambda: self._forget(connection.id))
        self._listening[connection.id].append(_Listening(host, port, bound, listener))
        return True if port else uint32(bound)

    def _forget(self, connection: int) -> None:
        del self._listening[connection]

    def _cancel(self, request: ConnectionRequest, host: str, port: int) -> bool:
        """Close the listener that the client means: by the port that it was told, or by the one that it asked for."""
        listening = self._listening.get(request.connection.id, [])
        meant = [each for each in listening if each.host == host and each.port == port]
        meant = meant or [each for each in listening if each.host == host and each.asked == port]
        if not meant:
            return False
        listening.remove(meant[0])
        meant[0].listener.close()
        return True

    def _bind(self, request: ConnectionRequest, addresses: list[_SocketAddress], port: int) -> list[socket.socket]:
        """Bind all addresses that are meant, as far as this system has them, to one port.

        Raises:
            OSError: one is taken, there is none, or it is not the user's to bind.
        """
        if 0 < port < _FIRST_FREE_PORT:
            account = os_account.to_act_as(request.connection.user, request.connection.grants)
            if account is not None:
                raise PermissionError(f"ports below {_FIRST_FREE_PORT} are root's")
        failure = OSError(errno.EADDRNOTAVAIL, "no such address")
        for _ in range(1 if port else _TRIES):
            try:
                with owned(request.connection):
                    return _listeners(addresses, port)
            except OSError as error:
                failure = error
        raise failure

    async def _addresses(self, host: str) -> list[_SocketAddress]:
        """Look up what is meant."""
        found: list[_SocketAddress] = []
        for each in self._meant(host):
            look_up = partial(socket.getaddrinfo, each, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            found += [(entry[0], entry[4]) for entry in await self._names.run(look_up)]
        return found

    def _meant(self, host: str) -> tuple[str, ...]:
        if self._gateway_ports == "yes":
            return _EVERY
        if self._gateway_ports == "no":
            return (host,) if host in _LOOPBACK else _LOOPBACK
        if host in {"", "*"}:
            return _EVERY
        return _LOOPBACK if host == "localhost" else (host,)


def read_address(data: bytes) -> tuple[str, int]:
    """Read where to listen, or raise DecodeError."""
    reader = Reader(data)
    host, port = reader.text(), reader.uint32()
    reader.end()
    if "\0" in host or len(host) > LONGEST_HOST or port > _LARGEST_PORT:
        raise DecodeError("no address and port to listen on")
    return host, port


def _listeners(addresses: list[_SocketAddress], port: int) -> list[socket.socket]:
    """Listen on all of them; who could listen on one of two would get what is meant for the client."""
    sockets: list[socket.socket] = []
    failure = OSError(errno.EADDRNOTAVAIL, "no such address")
    try:
        for family, name in addresses:
            try:
                sockets.append(_listener(family, (name[0], port, *name[2:])))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                failure = error
            else:
                port = port or sockets[0].getsockname()[1]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise failure
    return sockets


def _listener(family: int, name: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        if socket.has_dualstack_ipv6() and family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(name)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _describe(host: str, port: int, peer: tuple[Any, ...]) -> tuple[bytes, str]:
    """What the client is told of a connection: where it came, as the client named it, and where it comes from."""
    data = text(host) + uint32(port) + text(peer[0]) + uint32(peer[1])
    return data, f"{host or '*'}:{port} from {peer[0]} port {peer[1]}"
