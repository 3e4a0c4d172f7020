"""The descriptors between a channel and what runs behind it, and who holds their other ends."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol

from dunnart.records import dataclass

if TYPE_CHECKING:
    import socket

    from dunnart.protocol.requests import ChannelRequest
    from dunnart.runtime.terminal import Terminal


def is_scarce(fd: int) -> bool:
    """Tell by a new descriptor whether less than a quarter of those that this process may have is left.

    What is forwarded gets no more then: the rest is for logins and sessions.
    """
    if sys.platform == "win32":
        return False
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 < most - most // 4 <= fd


@dataclass(slots=True)
class Streams:
    """Our ends of a program's streams, non-blocking; whoever gets them closes them.

    Attributes:
        stdin: what the peer sends is written there.
        stdout: what is read there goes to the peer; the same descriptor as `stdin` for a pty and for a socket.
        stderr: likewise, to the peer's stderr; -1 if there is none.
        terminal: the pty that `stdin` and `stdout` are the master side of, or None.
        sock: the socket that `stdin` and `stdout` are, each of whose directions ends by itself, or None.
        typed: a person types what comes, so that the echo should not wait for transfers.
        joined: `sock` leads elsewhere: each direction ends by itself, and the channel with the last of them.
    """

    stdin: int
    stdout: int
    stderr: int = -1
    terminal: Terminal | None = None
    sock: socket.socket | None = None
    typed: bool = False
    joined: bool = False

    @classmethod
    def of_socket(cls, sock: socket.socket, *, typed: bool = False, joined: bool = False) -> Streams:
        """Both directions of one socket."""
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        return cls(sock.fileno(), sock.fileno(), sock=sock, typed=typed, joined=joined)

    @classmethod
    def of_terminal(cls, terminal: Terminal) -> Streams:
        """The master side of a pty."""
        os.set_blocking(terminal.master, False)
        return cls(terminal.master, terminal.master, terminal=terminal, typed=True)

    def detach(self) -> tuple[int, ...]:
        """Give the descriptors away: one of a socket or pty, or three."""
        if self.terminal is not None:
            master, self.terminal.master = self.terminal.master, -1
            return (master,)
        if self.sock is not None:
            return (self.sock.detach(),)
        return (self.stdin, self.stdout, self.stderr)

    def close(self) -> None:
        """Close all of them."""
        if self.terminal is not None:
            self.terminal.close()
        elif self.sock is not None:
            self.sock.close()
        else:
            for fd in {self.stdin, self.stdout} - {-1}:
                os.close(fd)
        if self.stderr >= 0:
            os.close(self.stderr)
        self.stdin = self.stdout = self.stderr = -1


class Counterpart(Protocol):
    """What stands at the other end of a channel's descriptors."""

    def requested(self, request: ChannelRequest) -> bool:
        """The peer sends a signal, a break or its window's new size; whether anything came of it."""

    def hung_up(self) -> None:
        """The channel is gone, or its user is: end. May be said more than once, and after the end."""
