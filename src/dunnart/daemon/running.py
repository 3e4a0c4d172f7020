"""The daemon while it runs: the server, its control socket and pid file, and the signals that it heeds."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from typing import TYPE_CHECKING, Any

from dunnart.daemon.announcing import announce
from dunnart.daemon.background import remove_pid_file, write_pid_file
from dunnart.daemon.control import open_control
from dunnart.daemon.listening import Listening
from dunnart.runtime.process import default_signals
from dunnart.server import Server

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from dunnart.daemon.background import Background
    from dunnart.daemon.control import ControlSocket
    from dunnart.daemon.handed import Handed
    from dunnart.daemon.preparing import Prepared

_LOG = logging.getLogger("dunnart.daemon")


def serve(prepared: Prepared, handed: Handed, background: Background | None = None) -> int:
    """Serve what was prepared until the end; gives the exit status."""
    # What is there now stays: the collector need not look at it again and again, and connections, which hold cycles,
    # can wait a little for it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    asyncio.run(Daemon(prepared, handed, background).run())
    return 0


def described(prepared: Prepared, sockets: Sequence[socket.socket], *, identified: bool = False) -> dict[str, Any]:
    """Give the server's arguments: the one place where the daemon describes it."""
    config, plugins = prepared.config, prepared.plugins
    return {
        "host_keys": prepared.host_keys,
        "host_certificates": prepared.host_certificates,
        "authenticators": plugins.authenticators,
        "listen": sockets,
        "shell": plugins.shell,
        "exec": plugins.exec,
        "subsystems": plugins.subsystems,
        "middleware": plugins.middleware,
        "channel_types": plugins.channel_types,
        "global_requests": plugins.global_requests,
        "session_requests": plugins.session_requests,
        "forwarding": plugins.forwarding,
        "audit": plugins.audit,
        "methods": plugins.methods,
        "methods_for": plugins.methods_for,
        "accept_env": plugins.accept_env,
        "algorithms": prepared.algorithms,
        "limits": config.limits,
        "banner": prepared.banner,
        "identified": identified,
        "admission": prepared.admission,
        "placement": "loop" if config.workers == 1 else "process",
        "workers": config.workers,
    }


class Daemon:
    """One run of the daemon.

    Args:
        prepared: what it begins with.
        handed: the sockets that were handed over, if any.
        background: lets the process that was started go, once this one listens.
    """

    def __init__(self, prepared: Prepared, handed: Handed, background: Background | None) -> None:
        self._prepared = prepared
        self._handed = handed
        self._background = background
        self._listening = Listening(handed)
        self._server: Server | None = None
        self._control: ControlSocket | None = None

    async def run(self) -> None:
        """Serve until the end.

        Raises:
            ConfigError: it cannot listen where it should, or one of its files cannot be made.
        """
        ended = asyncio.Event()
        _on_end(ended.set)
        default_signals()
        try:
            server = await self._start()
            waiting = [asyncio.ensure_future(each) for each in (ended.wait(), server.wait_closed(), self._idle(server))]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in waiting:
                each.cancel()
        finally:
            await self._close()

    async def _start(self) -> Server:
        config = self._prepared.config
        sockets = self._listening.open(config.listen)
        server = Server(**described(self._prepared, sockets, identified=self._handed.connection))
        await server.start()
        self._server = server
        self._control = open_control(config, server)
        if config.pid_file:
            write_pid_file(config.pid_file)
        if self._handed.sockets:
            for address in server.addresses:
                _LOG.info("Server listening on %s", address)
        else:
            announce(self._prepared, server.addresses)
        if self._background is not None:
            self._background.ready(keep_errors=config.log_to == "stderr")
        return server

    async def _idle(self, server: Server) -> None:
        """Return when nobody needs the server any more."""
        seconds = self._prepared.config.exit_on_idle
        if self._handed.connection:
            await server.emptied()
            return
        if not seconds:
            await asyncio.Event().wait()
        while True:
            await server.emptied()
            before = await self._connections_so_far(server)
            await asyncio.sleep(seconds)
            if await self._connections_so_far(server) == before and not server.connections:
                _LOG.info("there has been no connection for %d seconds", seconds)
                return

    async def _connections_so_far(self, server: Server) -> int:
        return (await server.status()).counters.get("connections", 0)

    async def _close(self) -> None:
        if self._control is not None:
            await self._control.close()
        if self._server is not None:
            await self._server.close()
        self._listening.close()
        if self._prepared.config.pid_file:
            remove_pid_file(self._prepared.config.pid_file)


def _on_end(stop: Callable[[], None]) -> None:
    """Have `stop` called when the process shall end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Started with `&` by a shell without job control, we are to ignore the ^C that is meant for others.
        if number == signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
            continue
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
