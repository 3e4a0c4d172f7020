"""Listening sockets from addresses: IPv4, IPv6 and unix."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys

from dunnart.daemon.options import ListenAddress
from dunnart.errors import ConfigError

_BACKLOG = 1024


def listen(address: ListenAddress) -> list[socket.socket]:
    """Open the sockets of an address; one without a host gives IPv4 and IPv6, on the same port.

    Raises:
        ConfigError: it cannot be listened on; says why.
    """
    try:
        if address.path:
            return [_unix(address.path)]
        if address.host:
            return [_tcp(address.host, address.port)]
        return _everywhere(address.port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {error.strerror or error}", key="listen") from error


def _everywhere(port: int) -> list[socket.socket]:
    listeners = [_tcp("0.0.0.0", port)]  # noqa: S104 - asked for by leaving the host out
    with contextlib.suppress(OSError):  # a system without IPv6
        listeners.append(_tcp("::", listeners[0].getsockname()[1]))
    return listeners


def bound_address(listener: socket.socket) -> ListenAddress:
    """Where a socket listens, with the port that the system has chosen for port 0."""
    name = listener.getsockname()
    return ListenAddress(name[0], name[1]) if isinstance(name, tuple) else ListenAddress("", 0, name)


def _tcp(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, name = socket.getaddrinfo(
        host.encode(), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(name)
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _unix(path: str) -> socket.socket:
    # A socket file that nobody listens on is left from a run that was killed; anything else is not ours to remove.
    made = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
                os.unlink(path)
        before = os.umask(0o077)
        try:
            made.bind(path)
        finally:
            os.umask(before)
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # noqa: FBT003 - one whose backlog is full shall say so and not wait
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True
