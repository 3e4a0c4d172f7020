"""Connected sockets: to a host's port, one address after the other, or to a unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from dunnart.errors import ConnectionClosed


async def dial(
    host: str, port: int, seconds: float, *, family: int = socket.AF_UNSPEC, bind: tuple[str, int] | None = None
) -> socket.socket:
    """Connect to a host; its addresses are tried one after the other.

    Args:
        host: its name or address.
        port: its port.
        seconds: how long that may take.
        family: AF_INET or AF_INET6 for addresses of that kind only.
        bind: the address, or "", and the port, or 0, to come from.

    Raises:
        ConnectionClosed: it cannot be reached; says why.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    failure: Exception = OSError("it has no address")
    try:
        async with asyncio.timeout(seconds):
            found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
            for number, (kind, type_, protocol, _, address) in enumerate(found):
                # One that swallows everything must leave time for the others.
                share = (loop.time() - deadline) / (number - len(found))
                try:
                    async with asyncio.timeout(share):
                        return await _connected(socket.socket(kind, type_, protocol), address, bind)
                except TimeoutError:
                    failure = TimeoutError(f"no answer within {share:.3g} s")
                except OSError as error:
                    failure = error
    except TimeoutError:
        failure = TimeoutError(f"no answer within {seconds:g} s")
    except (OSError, UnicodeError) as error:
        failure = error
    raise ConnectionClosed(f"{host} port {port} cannot be reached: {_reason(failure)}") from failure


async def dial_unix(path: str) -> socket.socket:
    """Connect to a unix socket.

    Raises:
        ConnectionClosed: it cannot be reached; says why.
    """
    try:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)  # noqa: FBT003 - the name says it
            await asyncio.get_running_loop().sock_connect(sock, path)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise ConnectionClosed(f"{path} cannot be reached: {_reason(error)}") from error
    return sock


def _reason(failure: Exception) -> str:
    """Say it in the system's words; those of asyncio are "Connect call failed"."""
    if isinstance(failure, OSError) and failure.errno is not None:
        return os.strerror(failure.errno) if failure.errno > 0 else failure.strerror or str(failure)
    return str(failure)


async def _connected(sock: socket.socket, address: tuple[Any, ...], bind: tuple[str, int] | None) -> socket.socket:
    try:
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if bind is not None:
            await _bind(sock, *bind)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _bind(sock: socket.socket, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or None, port, family=sock.family, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sock.bind(found[0][4])
