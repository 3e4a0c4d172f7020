"""The daemon while it runs: the server, its control socket and pid file, and the signals that it heeds.

    SIGTERM, SIGINT   end at once; clients are told, programs are hung up
    SIGHUP            read the configuration, and all files that it names, again
    SIGUSR2           have the program that is installed now take over

With a new configuration the server goes on listening on what has not changed. New connections are served by what is
made from the new one, and those that there are by what they began with, protocol processes included, until they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dunnart.daemon.announcing import announce
from dunnart.daemon.background import remove_pid_file, write_pid_file
from dunnart.daemon.control import open_control, socket_path
from dunnart.daemon.preparing import prepare
from dunnart.daemon.serve import fitting, start_log
from dunnart.errors import ConfigError, DunnartError
from dunnart.runtime.event_loop import new_event_loop
from dunnart.runtime.footprint import release_files
from dunnart.runtime.logs import clean
from dunnart.runtime.process import default_signals
from dunnart.server import Server, ServerConfig

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Sequence

    from dunnart.daemon.config import ServeConfig
    from dunnart.daemon.control import ControlSocket
    from dunnart.daemon.preparing import Prepared
    from dunnart.daemon.serve import Start
    from dunnart.runtime.listeners import ListenAddress
    from dunnart.server.processes.separation import Separation

_LOG = logging.getLogger("dunnart.daemon")


def serve(prepared: Prepared, start: Start, separation: Separation | None = None) -> int:
    """Serve what was prepared until the end; gives the exit status."""
    # What is there now stays: the collector need not look at it again and again, and connections, which hold cycles,
    # can wait a little for it.
    gc.collect(1)  # what is old is hardly ever garbage, and takes long
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:  # with one process and no separation it serves, too
        runner.run(Daemon(prepared, start, separation).run())
    return 0


def described(
    prepared: Prepared, listen: Sequence[ListenAddress | socket.socket], *, identified: bool = False,
    separation: Separation | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Give the server's arguments: the one place where the daemon describes it."""
    config, plugins = prepared.config, prepared.plugins
    return {
        "host_keys": prepared.host_keys,
        "host_certificates": prepared.host_certificates,
        "authenticators": plugins.authenticators,
        "listen": listen,
        "shell": plugins.shell,
        "exec": plugins.exec,
        "subsystems": plugins.subsystems,
        "middleware": plugins.middleware,
        "channel_types": plugins.channel_types,
        "global_requests": plugins.global_requests,
        "session_requests": plugins.session_requests,
        "forwarding": plugins.forwarding,
        "audit": plugins.audit,
        "account": plugins.account,
        "methods": plugins.methods,
        "terms_for": plugins.terms_for,
        "accept_env": plugins.accept_env,
        "algorithms": prepared.algorithms,
        "limits": config.limits,
        "banner": prepared.banner,
        "identified": identified,
        "admission": prepared.admission,
        "placement": "loop" if config.workers == 1 and separation is None else "process",
        "workers": config.workers,
        "separation": separation and replace(separation, idle_seconds=config.rest_on_idle),
    }


class Daemon:
    """One run of the daemon.

    Args:
        prepared: what it begins with.
        start: how it was started.
        separation: has those executed and confined that meet the network; None: this process does it.
    """

    def __init__(self, prepared: Prepared, start: Start, separation: Separation | None = None) -> None:
        self._prepared = prepared
        self._start = start
        self._separation = separation
        self._pid_file = prepared.config.pid_file and os.path.abspath(prepared.config.pid_file)
        self._server = Server(**self._described(prepared))
        self._control: ControlSocket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = asyncio.Lock()
        self._serves = False
        self._replaced = False
        self._changed = asyncio.Event()

    def _described(self, prepared: Prepared) -> dict[str, Any]:
        handed = self._start.handed
        return described(
            prepared, handed.sockets or prepared.config.listen, identified=handed.connection,
            separation=self._separation,
        )  # fmt: skip

    async def run(self) -> None:
        """Serve until the end.

        Raises:
            ConfigError: it cannot listen where it should, or one of its files cannot be made.
        """
        ended = asyncio.Event()
        _on_end(ended.set, alone=self._start.handed.connection)
        default_signals()
        try:
            await self._begin()
            ends = (ended.wait(), self._server.wait_closed(), self._idle())
            waiting = [asyncio.ensure_future(each) for each in ends]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if ended.is_set():
                _LOG.info("Received a signal; terminating.")
            for each in waiting:
                each.cancel()
        finally:
            await self._end()

    async def _begin(self) -> None:
        config, start, server = self._prepared.config, self._start, self._server
        predecessor = start.predecessor
        if predecessor is not None:
            for address, sockets in predecessor.listening:
                server.adopt(address, sockets)
        await server.start()
        control = None if predecessor is None else predecessor.control
        self._control = open_control(config, server, self, control)
        if not start.handed.connection:
            self._heed("SIGHUP", self.reload)
            self._heed("SIGUSR2", self.upgrade)
        if self._pid_file:
            write_pid_file(self._pid_file)
        if start.handed.sockets or predecessor is not None:
            for address in server.addresses:
                _LOG.info("Server listening on %s", address)
        else:
            announce(self._prepared, server.addresses)
        if start.background is not None:
            start.background.ready(keep_errors=config.log_to == "stderr")
        if predecessor is not None:
            predecessor.ready()
        self._serves = True
        start.notifier.tell("READY=1", f"MAINPID={os.getpid()}", "STATUS=Serving")
        self._keep(start.notifier.keep_alive())
        if not start.handed.connection:  # which needs them at once
            release_files()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _heed(self, name: str, what: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have a signal do something, whose failure the log tells."""
        if not hasattr(signal, name):  # Windows
            return

        async def do() -> None:
            try:
                await what()
            except DunnartError as error:
                _LOG.error("%s", clean(str(error), most=1000))

        asyncio.get_running_loop().add_signal_handler(getattr(signal, name), lambda: self._keep(do()))

    # Operating it.

    async def reload(self) -> None:
        """Read the configuration, keys and files again, for new connections.

        Raises:
            DunnartError: something cannot be used; says what and where. Nothing has changed then.
        """
        async with self._busy:
            if self._separation is not None and self._separation.outdated():
                raise ConfigError(
                    "the program was changed on disk; `dunnart status upgrade` has it read the configuration"
                )
            before, notifier = self._prepared, self._start.notifier
            notifier.reloading()
            try:
                config = fitting(self._start.again(), self._start.handed)
                prepared = prepare(config, before)
                start_log(config)
                control = self._control
                try:
                    control = self._control_of(config)
                    await self._server.replace(ServerConfig(**self._described(prepared)))
                except BaseException:
                    start_log(before.config)
                    if control is not None and control is not self._control:
                        await control.close()
                    raise
            except OSError as error:  # no process, no descriptor
                raise ConfigError(f"it cannot be served now: {error}") from error
            finally:
                notifier.tell("READY=1")
            self._prepared = prepared
            self._changed.set()
            if self._control is not None and self._control is not control:
                self._keep(self._control.close())  # who has asked for this still gets an answer
            self._control = control
            _LOG.info("the configuration was read again")
            if prepared.one_time_password != before.one_time_password:
                announce(prepared, self._server.addresses)

    def _control_of(self, config: ServeConfig) -> ControlSocket | None:
        if self._control is not None and self._control.path == socket_path(config):
            return self._control
        return open_control(config, self._server, self)

    async def upgrade(self) -> int:
        """Have the program that is installed now take over; this one ends with its last connection.

        Returns:
            The new process's number.

        Raises:
            DunnartError: that does not start; this one goes on.
        """
        from dunnart.daemon.upgrade import UpgradeError, start_successor

        async with self._busy:
            start = self._start
            if self._replaced or self._server.draining:
                raise UpgradeError("the server is about to end")
            if start.handed.by_inetd or start.handed.connection:
                raise UpgradeError("inetd starts the new program by itself, once this one has ended")
            _LOG.info("the program is started anew, to take over")
            listener = None if self._control is None else self._control.listener
            number = await start_successor(self._server, listener, start.notifier.variables)
            self._replaced = True
            start.notifier.tell(f"MAINPID={number}")
            if self._control is not None:
                await self._control.close(handed_over=True)
            self._server.begin_end(handed_over=True)
            _LOG.info("process %d has taken over; this one ends with its last connection", number)
            return number

    async def _idle(self) -> None:
        """Return when nobody needs the server any more."""
        server = self._server
        if self._start.handed.connection:
            await server.emptied()
            return
        while True:
            self._changed.clear()
            seconds = self._prepared.config.exit_on_idle
            if not seconds:
                await self._changed.wait()
                continue
            await server.emptied()
            before = await self._connections_so_far()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
                    continue
            if server.connections or await self._connections_so_far() != before:
                continue
            # Who comes now is not to be lost: first nobody is let in, and then it is looked whether somebody was.
            await server.pause()
            if not await server.sessions():
                _LOG.info("there has been no connection for %d seconds", seconds)
                return
            await server.replace(ServerConfig(**self._described(self._prepared)))

    async def _connections_so_far(self) -> int:
        return (await self._server.status()).counters.get("connections", 0)

    async def _end(self) -> None:
        if not self._replaced:
            self._start.notifier.tell("STOPPING=1")
        for task in tuple(self._tasks):
            task.cancel()
        failed = self._start.predecessor is not None and not self._serves
        if failed:  # who was to be taken over from goes on, with its files
            self._server.disown()
        if self._control is not None:
            await self._control.close(handed_over=failed)
        await self._server.close()
        if self._pid_file and not failed:
            remove_pid_file(self._pid_file)


def _on_end(stop: Callable[[], None], *, alone: bool) -> None:
    """Have `stop` called when the process shall end; one that serves a connection `alone` reads nothing again."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if alone else [])):
        # Started with `&` by a shell without job control, we are to ignore the ^C that is meant for others.
        if number == signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
            continue
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
