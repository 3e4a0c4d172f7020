"""What is done to unix sockets: in a thread, or in a process of the user, which little is imported for."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time

_CONTROL = 3
_BACKLOG = 128
_MODE = 0o777
_RETRY_SECONDS = 0.05
UNIX: int = getattr(socket, "AF_UNIX", -1)


def connect(path: str, seconds: float) -> socket.socket:
    """Connect, or raise OSError: a BlockingIOError if the backlog is full for so long."""
    sock = socket.socket(UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        ends = time.monotonic() + seconds
        while True:
            try:
                sock.connect(path)
                break
            except BlockingIOError:  # for which no socket's timeout waits
                if time.monotonic() >= ends:
                    raise
                time.sleep(_RETRY_SECONDS)
        sock.setblocking(False)  # noqa: FBT003 - the name says it
    except BaseException:
        sock.close()
        raise
    return sock


def listen(path: str, mask: int, replace: bool) -> tuple[socket.socket, tuple[int, int]]:  # noqa: FBT001
    """Bind and listen, or raise OSError; gives the socket, and the file's device and number."""
    if replace:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
    sock = socket.socket(UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        with contextlib.suppress(OSError):  # where the file takes its mode from the socket (Linux)
            os.fchmod(sock.fileno(), _MODE & ~mask)
        sock.bind(path)
        os.chmod(path, _MODE & ~mask)  # nobody can connect before we listen
        made = os.lstat(path)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock, (made.st_dev, made.st_ino)


def remove(path: str, made: tuple[int, int]) -> None:
    """Remove a socket if it is still the one that was made."""
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == made:
            os.unlink(path)


def main(arguments: list[str]) -> int:
    """Be the process of the user: do as the arguments say, and send the socket through descriptor 3."""
    control = socket.socket(fileno=_CONTROL)
    made: tuple[int, int] | None = None
    try:
        if arguments[0] == "connect":
            sock = connect(arguments[1], float(arguments[2]))
        else:
            sock, made = listen(arguments[1], int(arguments[2]), arguments[3] == "1")
    except OSError as error:
        with contextlib.suppress(OSError):
            control.send((error.errno or 0).to_bytes(4, "big"))
        control.close()
        return 1
    with contextlib.suppress(OSError):  # who has asked is gone
        socket.send_fds(control, [bytes(4)], [sock.fileno()])
        sock.close()
        if made is not None:
            control.recv(1)  # gives nothing, once the listener is closed
    sock.close()
    control.close()
    if made is not None:
        remove(arguments[1], made)
    return 0
