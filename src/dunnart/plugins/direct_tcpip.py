"""Local forwarding, `ssh -L` and `-W`: channels to TCP ports that the server connects to (RFC 4254 §7.2)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import Any

from dunnart.errors import DecodeError
from dunnart.plugins.owned_sockets import owned
from dunnart.records import dataclass
from dunnart.runtime.logs import clean
from dunnart.runtime.pool import ThreadPool
from dunnart.server.interfaces import ChannelOpening, Forward, Refusal, Tunnel
from dunnart.server.plugins import Context, plugin
from dunnart.wire.encoding import Reader

LONGEST_HOST = 255
"""The characters of a host's name, or address (RFC 1035 §2.3.4)."""
_LARGEST_PORT = 65535
_THREADS, _QUEUE = 8, 100
_SocketAddress = tuple[int, tuple[Any, ...]]


@dataclass(frozen=True)
class Options:
    """How it connects.

    Attributes:
        connect_seconds: how long it may take to find a host's addresses and to connect to one of them.
    """

    connect_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.connect_seconds <= 0:
            raise ValueError("connect_seconds must be more than 0")


class _Forbidden(OSError):
    """A policy is against it."""


@plugin(Options)
class DirectTcpip:
    """The channel type "direct-tcpip". What it may connect to is for the forwarding policies to say."""

    def __init__(self, context: Context[Options]) -> None:
        self._seconds = context.options.connect_seconds
        self._log = context.logger
        self._names = ThreadPool("dunnart-names", _THREADS, _QUEUE)  # its own: logins need the loop's threads

    async def open(self, opening: ChannelOpening) -> Tunnel | Refusal:
        """Connect, and join the channel with the connection."""
        try:
            host, port = read_destination(opening.data)
        except DecodeError as error:
            return Refusal(Refusal.ADMINISTRATIVELY_PROHIBITED, str(error))
        number = opening.connection.id
        try:
            sock = await self._connect(opening, host, port)
        except _Forbidden:
            return Refusal(Refusal.ADMINISTRATIVELY_PROHIBITED, "forwarding there is not allowed")
        except (OSError, TimeoutError, UnicodeError, BufferError) as error:
            self._log.info("connection %d cannot be forwarded to '%s' port %d: %s", number, clean(host), port, error)
            return Refusal(Refusal.CONNECT_FAILED, "connect failed")
        return Tunnel(sock, f"{host}:{port}" if ":" not in host else f"[{host}]:{port}")

    async def _connect(self, opening: ChannelOpening, host: str, port: int) -> socket.socket:
        """Try the host's addresses, as far as they are allowed, one after the other."""
        forward = Forward(opening.connection, "connect", host, port)
        # Before anybody is asked for the name. Who asks for all that must allow it has the refusal recorded.
        if not opening.connection.rights.permits(forward) and not await opening.client.allows(forward):
            raise _Forbidden("not allowed")
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._seconds
        failure: OSError | TimeoutError = OSError("no such host")
        addresses = _written(host, port) or await self._found(host, port)
        for number, (family, address) in enumerate(addresses):
            if not await opening.client.allows(Forward(opening.connection, "connect", host, port, "", str(address[0]))):
                failure = _Forbidden("not allowed")
                continue
            with owned(opening.connection):
                sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)  # noqa: FBT003 - the name says it
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if not _connects_at_once(sock, address):
                    # What is left is shared by the addresses that are left, so that each has its turn.
                    async with asyncio.timeout((ends - loop.time()) / (len(addresses) - number)):
                        await loop.sock_connect(sock, address)
            except (OSError, TimeoutError) as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure

    async def _found(self, host: str, port: int) -> list[_SocketAddress]:
        """Look a name up."""
        async with asyncio.timeout(self._seconds):
            found = await self._names.run(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        return [(entry[0], entry[4]) for entry in found]


def _written(host: str, port: int) -> list[_SocketAddress]:
    """Take a host that is an address as it is: it waits for nobody's name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, (host, port))]
    return []


def _connects_at_once(sock: socket.socket, address: tuple[Any, ...]) -> bool:
    """Begin to connect; to a port of this machine that is done by then, or refused, as the second question shows."""
    failure = 0
    for _ in range(2):
        failure = sock.connect_ex(address)
        if failure in (0, errno.EISCONN):
            return True
    if failure in (errno.EALREADY, errno.EINPROGRESS):
        return False
    raise OSError(failure, os.strerror(failure))


def read_destination(data: bytes) -> tuple[str, int]:
    """Read the host and port to connect to; whom the client calls the originator counts for nothing."""
    reader = Reader(data)
    host, port = reader.text(), reader.uint32()
    reader.text()
    reader.uint32()
    reader.end()
    if not host or "\0" in host or len(host) > LONGEST_HOST or not 1 <= port <= _LARGEST_PORT:
        raise DecodeError("no host and port to connect to")
    return host, port
