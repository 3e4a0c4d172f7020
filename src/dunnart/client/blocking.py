"""The client for programs without an event loop: the same calls, which return when they are done.

    from dunnart.client.blocking import connect

    with connect("example.org", user="alice") as connection:
        print(connection.run("uname -a").stdout.decode())

Each connection has an event loop in a thread of its own; a call hands its work to that loop and waits. Calls may come
from several threads. What a call of `dunnart.client` takes, gives and raises, the one here does too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from dunnart import client
from dunnart.client.delegation import Facade, blocking
from dunnart.runtime.loop_thread import LoopThread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dunnart.client.blocking_sftp import Sftp
    from dunnart.client.channel import StderrUse

__all__ = ["Channel", "Connection", "Incoming", "Listener", "Session", "connect"]

P = ParamSpec("P")
C = TypeVar("C", bound=client.Channel)


class Incoming(Facade[client.Incoming]):
    """A program's stderr."""

    read = blocking(client.Incoming.read)
    read_exactly = blocking(client.Incoming.read_exactly)
    read_all = blocking(client.Incoming.read_all)

    def close(self) -> None:
        """Nothing is to be done."""


class Listener(Facade[client.Listener]):
    """Listens for connections to forward, here or at the server."""

    close = blocking(client.Listener.close)

    @property
    def address(self) -> client.Endpoint:
        """Where it listens, with the port that was chosen for port 0; or the path of a unix socket."""
        return self._target.address


class _Stream(Facade[C]):
    read = blocking(client.Channel.read)
    read_exactly = blocking(client.Channel.read_exactly)
    read_all = blocking(client.Channel.read_all)
    write = blocking(client.Channel.write)
    write_eof = blocking(client.Channel.write_eof)
    close = blocking(client.Channel.close)
    wait_closed = blocking(client.Channel.wait_closed)


class Channel(_Stream[client.Channel]):
    """A channel to the server: reads, writes, and their ends."""


class Session(_Stream[client.Session]):
    """A program at the server."""

    wait = blocking(client.Session.wait)
    send_signal = blocking(client.Session.send_signal)
    send_break = blocking(client.Session.send_break)
    resize = blocking(client.Session.resize)

    @property
    def stderr(self) -> Incoming:
        """The program's stderr."""
        return Incoming(self._thread, self._target.stderr)

    @property
    def exit(self) -> client.Exit:
        """How the program ended, as far as the server has said by now."""
        return self._target.exit


class Connection(Facade[client.Connection]):
    """A connection to a server, logged in."""

    run = blocking(client.Connection.run)

    def session(
        self,
        command: str | bytes | None = None,
        *,
        subsystem: str | None = None,
        terminal: client.Terminal | None = None,
        environment: Mapping[str, str] | None = None,
        stderr: StderrUse | None = None,
        forward_agent: bool | str = False,
    ) -> Session:
        """Start a program at the server: a command, a subsystem, or the user's shell if neither is named."""
        begun = self._target.session(
            command, subsystem=subsystem, terminal=terminal, environment=environment, stderr=stderr,
            forward_agent=forward_agent,
        )  # fmt: skip
        return Session(self._thread, self.wait_for(begun))

    def sftp(self, *, requests: int = 64, chunk_bytes: int = 0) -> Sftp:
        """Begin an SFTP session."""
        from dunnart.client.blocking_sftp import Sftp

        begun = self._target.sftp(requests=requests, chunk_bytes=chunk_bytes)
        return Sftp(self._thread, self._thread.call(begun))

    def open_direct(self, host: str, port: int) -> Channel:
        """Have the server connect to a TCP port, and give the bytes both ways."""
        return Channel(self._thread, self.wait_for(self._target.open_direct(host, port)))

    def open_unix(self, path: str) -> Channel:
        """Have the server connect to a unix socket, and give the bytes both ways."""
        return Channel(self._thread, self.wait_for(self._target.open_unix(path)))

    def forward_local(self, listen: client.Endpoint, to: client.Endpoint) -> Listener:
        """Listen here; the server connects for whoever connects."""
        return Listener(self._thread, self.wait_for(self._target.forward_local(listen, to)))

    def forward_remote(self, listen: client.Endpoint, to: client.Endpoint) -> Listener:
        """Have the server listen; what connects there is connected from here."""
        return Listener(self._thread, self.wait_for(self._target.forward_remote(listen, to)))

    def forward_dynamic(self, listen: client.Endpoint) -> Listener:
        """Be a SOCKS server: the server connects to where each client wants."""
        return Listener(self._thread, self.wait_for(self._target.forward_dynamic(listen)))

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self._target.closed

    def close(self) -> None:
        """End it in order, and its thread."""
        if self._thread.running:
            try:
                self.wait_for(self._target.close())
            finally:
                self._thread.end()


def _blocking_connect(make: Callable[P, client.Connecting]) -> Callable[P, Connection]:
    def connect(*args: P.args, **kwargs: P.kwargs) -> Connection:
        """Connect to a server and log in.

        The arguments are those of `dunnart.client.connect`. Callbacks are coroutine functions here too; they run on the
        connection's own loop, where they may block.
        """
        connecting = make(*args, **kwargs)
        thread = LoopThread("dunnart-client")
        thread.start()
        try:
            return Connection(thread, thread.call(connecting.connect()))
        except BaseException:
            thread.end()
            raise

    return connect


connect = _blocking_connect(client.connect)
