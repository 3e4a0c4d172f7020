"""Sockets that whoever starts the server hands over: inetd, systemd, or the program that this one takes over from.

A socket says itself what it is: connections come to a listening one, and a connected one is the only one to be served,
so that inetd's `nowait` and `wait`, and systemd's `Accept=yes` and `Accept=no`, need no options.

This is loaded before anything else, and sends a connection the server's version line at once: it is the same whatever
the configuration says, clients wait for it, and the rest takes a while to load.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Sequence

from dunnart.errors import ConfigError
from dunnart.protocol.identification import SOFTWARE_VERSION

VARIABLE = "DUNNART_TAKES_OVER"
"""In the environment of a program that takes over from a running one; see `dunnart.daemon.upgrade`."""
_FIRST = 3  # sd_listen_fds(3)
_READ_BYTES = 64 * 1024


class Handed:
    """What was handed over; a connection has been sent the version line.

    Args:
        sockets: listening ones, or one that is connected.
        by_inetd: they came as standard input.
        relay: moves the bytes to and from them, in threads; to be called once the process forks no more.

    Raises:
        ConfigError: something cannot be served.
    """

    def __init__(
        self, sockets: Sequence[socket.socket] = (), *, by_inetd: bool = False,
        relay: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.sockets = tuple(sockets)
        self.by_inetd = by_inetd
        self.relay = relay
        listening = [_listens(each) for each in sockets]
        self.connection = bool(sockets) and not any(listening)
        """It is a connection, and ends with it."""
        if any(each.type != socket.SOCK_STREAM for each in sockets) or (any(listening) and not all(listening)):
            raise ConfigError("only stream sockets can be served: listening ones, or one that is connected")
        if self.connection and len(sockets) > 1:
            raise ConfigError("only one connection can be served at a time")
        if self.connection:
            with contextlib.suppress(OSError):  # it has gone already, as will be seen
                self.sockets[0].sendall(SOFTWARE_VERSION + b"\r\n")


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def by_systemd() -> Handed | None:
    """Take the sockets that systemd has passed to this process (sd_listen_fds(3)), if any.

    Raises:
        ConfigError: something cannot be served.
    """
    count, process = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isdecimal() or not int(count):
        return None
    return Handed([_socket(number) for number in range(_FIRST, _FIRST + int(count))])


def _socket(number: int) -> socket.socket:
    os.set_inheritable(number, False)  # noqa: FBT003 - the name says it
    try:
        return socket.socket(fileno=number)
    except OSError as error:
        raise ConfigError(f"descriptor {number}, which was passed, is no socket: {error.strerror}") from error


def by_inetd() -> Handed:
    """Take what is served from standard input and output, whose places /dev/null takes.

    Nothing but the protocol may be written to it. Standard error stays, unless it is the same socket. A pair of pipes,
    as OpenSSH's client makes it for a ProxyCommand, is served too.

    Raises:
        ConfigError: it is neither a socket nor a pipe.
    """
    found = os.fstat(0)
    if not (stat.S_ISSOCK(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
        raise ConfigError("standard input is no socket: this is for inetd, xinetd or a ProxyCommand", key="--inetd")
    kept, output = _aside(0), _aside(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if os.path.samestat(found, os.fstat(2)):
        os.dup2(null, 2)
    os.close(null)
    if stat.S_ISFIFO(found.st_mode):
        ours, theirs = socket.socketpair()
        return Handed([theirs], by_inetd=True, relay=lambda: _relay(ours, kept, output))
    os.close(output)
    return Handed([socket.socket(fileno=kept)], by_inetd=True)


def _aside(number: int) -> int:
    import fcntl

    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)  # `dup` might give 1 or 2, if they were closed


def _relay(ours: socket.socket, source: int, sink: int) -> None:
    """Have a socket's bytes come from one pipe and go to another."""
    import threading

    def inwards() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(source, _READ_BYTES):
                ours.sendall(data)
            ours.shutdown(socket.SHUT_WR)

    def outwards() -> None:
        with contextlib.suppress(OSError):
            while view := memoryview(ours.recv(_READ_BYTES)):
                while view:
                    view = view[os.write(sink, view) :]
        os.close(sink)

    threading.Thread(target=inwards, daemon=True).start()
    threading.Thread(target=outwards).start()  # no daemon: what was sent last must arrive
