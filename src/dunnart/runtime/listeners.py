"""Listening sockets from addresses: IPv4, IPv6 and unix."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import sys
from typing import NamedTuple

from dunnart.errors import ConfigError

BACKLOG = 1024
_SOCKET_PATH_BYTES = 107  # sockaddr_un on Linux, without the final NUL; 103 on the BSDs
own_sockets: set[tuple[int, int]] = set()
"""Unix sockets of this process that no client is led to, by device and inode: they would take it for its owner."""


class ListenAddress(NamedTuple):
    """Where to listen: a host (an IP address, a name, or "" for every address) and port, or a unix socket's path.

    Behind a % in the host stands a network interface; only what comes in there is taken then (Linux).
    """

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"*{self.host}" if self.host[:1] in {"", "%"} else self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def remove(self) -> None:
        """Remove the file of a unix socket that is listened on no more."""
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def listen_address(value: str) -> ListenAddress:
    """Read `ADDR:PORT`, `[IPV6]:PORT`, `*:PORT` or `unix:/path`; port 0 lets the system choose.

    `%INTERFACE` may follow an address: `*%eth0:22`.

    Raises:
        ValueError: it is none of these.
    """
    if value.startswith("unix:"):
        socket_path = value.removeprefix("unix:")
        if not socket_path.startswith("/"):
            raise ValueError(f"{value!r} needs an absolute path, such as unix:/run/dunnart.sock")
        if len(socket_path.encode()) > _SOCKET_PATH_BYTES:
            raise ValueError(f"the path in {value!r} is longer than {_SOCKET_PATH_BYTES} bytes")
        return ListenAddress("", 0, socket_path)
    host, colon, port = value.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(f"{value!r} does not end in a port of 0 to 65535; write ADDR:PORT, [IPV6]:PORT or unix:/path")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        _check_ipv6(host, value)
    elif ":" in host:
        raise ValueError(f"an IPv6 address stands in brackets: [{host}]:{port}")
    elif not re.fullmatch(r"(\*|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)(%[^\s%/]{1,15})?", host):
        raise ValueError(f"{value!r} has no address or host name before the port; * means every address")
    return ListenAddress(host.removeprefix("*"), int(port))


def _check_ipv6(host: str, value: str) -> None:
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError as error:
        raise ValueError(f"{value!r} has no IPv6 address in its brackets") from error


def listen(address: ListenAddress) -> list[socket.socket]:
    """Open the sockets of an address; one without a host gives IPv4 and IPv6, on the same port.

    Raises:
        ConfigError: it cannot be listened on; says why.
    """
    try:
        if address.path:
            return [_unix(address.path)]
        host, _, interface = address.host.partition("%")
        if host:
            return [_tcp(host, address.port, interface)]
        return _everywhere(address.port, interface)
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {error.strerror or error}", key="listen") from error


def _everywhere(port: int, interface: str) -> list[socket.socket]:
    listeners = [_tcp("0.0.0.0", port, interface)]  # noqa: S104 - asked for by leaving the host out
    try:
        listeners.append(_tcp("::", listeners[0].getsockname()[1], interface))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return listeners  # a system without IPv6
        listeners[0].close()
        if port:  # clients would meet somebody else there
            raise
        return _everywhere(port, interface)
    return listeners


def bound_address(listener: socket.socket) -> ListenAddress:
    """Where a socket listens, with the port that the system has chosen for port 0."""
    name = listener.getsockname()
    return ListenAddress(name[0], name[1]) if isinstance(name, tuple) else ListenAddress("", 0, name)


def listens(sock: socket.socket) -> bool:
    """Tell whether connections come to a socket; else it is one itself."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _tcp(host: str, port: int, interface: str = "") -> socket.socket:
    if interface and host.lower().startswith("fe80:"):  # the interface is a part of what the address means
        host, interface = f"{host}%{interface}", ""
    family, kind, protocol, _, name = socket.getaddrinfo(
        host.encode(), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if interface:
            _bind_to_device(made, interface)
        made.bind(name)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _bind_to_device(made: socket.socket, interface: str) -> None:
    if sys.platform != "linux":
        raise OSError(0, "only Linux can listen on one interface")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())


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
        made.listen(BACKLOG)
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
