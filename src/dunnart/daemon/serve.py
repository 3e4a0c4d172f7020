"""`dunnart serve`: everything made ready from the configuration, the server started, and ended by a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

from dunnart.daemon import plugins
from dunnart.daemon.control import open_control
from dunnart.daemon.host_keys import load_host_certificates, load_host_keys
from dunnart.daemon.uses import ONE_TIME_PASSWORD
from dunnart.daemon.values import OFF
from dunnart.daemon.ways_in import anyone_has_key, new_password, this_user
from dunnart.errors import ConfigError
from dunnart.runtime import logs
from dunnart.runtime.admission import Admission
from dunnart.runtime.process import default_signals
from dunnart.server import Server

if TYPE_CHECKING:
    from dunnart.crypto.profiles import Algorithms
    from dunnart.daemon.config import ServeConfig
    from dunnart.daemon.control import ControlSocket
    from dunnart.daemon.plugins import Plugins
    from dunnart.keys.certificate import Certificate
    from dunnart.keys.private import PrivateKey
    from dunnart.runtime.listeners import ListenAddress

_LOG = logging.getLogger("dunnart.daemon")
_LARGEST_BANNER = 16 << 10  # one message, before any login
_EVERY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - shown as what reaches them from here


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the server is started with: the configuration, and all that had to be read or made for it."""

    config: ServeConfig
    algorithms: Algorithms
    host_keys: tuple[PrivateKey, ...]
    host_certificates: tuple[Certificate, ...]
    admission: Admission
    user: str
    """Who runs this process; the only one who can log in, unless it is root."""
    one_time_password: str | None = field(repr=False)
    """Lets `user`, and nobody else, in as long as this process runs; None: there is no such password."""
    way_in: bool
    """Somebody can log in."""
    plugins: Plugins = field(repr=False)
    banner: str = ""


class Running(Protocol):
    """A server that listens."""

    @property
    def addresses(self) -> Sequence[ListenAddress]:
        """Where, with the ports that the system has chosen for port 0."""

    async def close(self) -> None:
        """Stop listening, and end every connection and its programs."""

    async def wait_closed(self) -> None:
        """Wait until it was closed, or has ended by being drained."""


async def start(prepared: Prepared) -> Running:
    """Start the server: the one place where the daemon meets it.

    Raises:
        ConfigError: it cannot listen where it should.
    """
    config = prepared.config
    server = Server(
        host_keys=prepared.host_keys,
        host_certificates=prepared.host_certificates,
        authenticators=prepared.plugins.authenticators,
        listen=config.listen,
        shell=prepared.plugins.shell,
        exec=prepared.plugins.exec,
        subsystems=prepared.plugins.subsystems,
        middleware=prepared.plugins.middleware,
        channel_types=prepared.plugins.channel_types,
        global_requests=prepared.plugins.global_requests,
        session_requests=prepared.plugins.session_requests,
        forwarding=prepared.plugins.forwarding,
        audit=prepared.plugins.audit,
        methods=prepared.plugins.methods,
        methods_for=prepared.plugins.methods_for,
        accept_env=prepared.plugins.accept_env,
        algorithms=prepared.algorithms,
        limits=config.limits,
        banner=prepared.banner,
        admission=prepared.admission,
        placement="loop" if config.workers == 1 else "process",
        workers=config.workers,
    )
    await server.start()
    try:
        return _Served(server, open_control(config, server))
    except BaseException:
        await server.close()
        raise


class _Served:
    """The server and its control socket, if it has one."""

    def __init__(self, server: Server, control: ControlSocket | None) -> None:
        self._server = server
        self._control = control
        self.wait_closed = server.wait_closed

    @property
    def addresses(self) -> Sequence[ListenAddress]:
        """Where it listens."""
        return self._server.addresses

    async def close(self) -> None:
        """Close both."""
        if self._control is not None:
            await self._control.close()
        await self._server.close()


def run(config: ServeConfig) -> int:
    """Serve until SIGTERM or SIGINT comes.

    Returns:
        The exit status, 0.

    Raises:
        ConfigError: something configured cannot be used.
    """
    logs.setup(config.log_level, config.log_levels, "json" if config.log_format == "json" else "text")
    prepared = prepare(config)
    # What is there now stays: the collector need not look at it again and again, and connections, which hold cycles,
    # can wait a little for it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    asyncio.run(_serve(prepared))
    return 0


def prepare(config: ServeConfig) -> Prepared:
    """Read and make everything that the server needs before it listens.

    Raises:
        ConfigError: something configured cannot be used.
    """
    if not config.listen:
        raise ConfigError("there is no address to listen on", key="listen")
    algorithms = config.algorithms()
    host_keys = load_host_keys(config.host_key, config.host_key_types, config.state_folder)
    certificates = load_host_certificates(config.host_certificate, host_keys)
    usable = {name for key in host_keys for name in key.signature_algorithms} & set(algorithms.host_key)
    if not usable:
        raise ConfigError(
            f"no host key can make one of the signatures that are offered: {', '.join(algorithms.host_key)}",
            key="host_key" if config.host_key else "host_key_types",
        )
    user = this_user()
    password, way_in = _way_in(config, root=sys.platform != "win32" and os.geteuid() == 0)
    admission = Admission(
        startups=config.max_startups,
        per_source=config.max_startups_per_source,
        source_bits=config.source_bits,
        penalties=config.penalties,
        exempt=config.penalty_exempt,
        random=_random,
    )
    made = plugins.make(config, user.name, password)
    banner = read_banner(config)
    return Prepared(config, algorithms, host_keys, certificates, admission, user.name, password, way_in, made, banner)


def read_banner(config: ServeConfig) -> str:
    """Read the text that clients are shown before they log in; "" for none.

    Raises:
        ConfigError: the file cannot be read, or is too large.
    """
    if not config.banner:
        return ""
    from dunnart.keys.files import read_regular

    try:
        return read_regular(config.banner, _LARGEST_BANNER)[1].decode(errors="replace")
    except OSError as error:
        raise config.source.error(f"cannot be read: {error.strerror}", "banner") from error


def check(config: ServeConfig) -> None:
    """Find what is wrong with a configuration before it is served: make its plug-ins, and read the keys it names.

    No key is made and no address listened on. An audit log that is not there is made, as the server would.

    Raises:
        ConfigError: something configured cannot be used.
    """
    if config.host_key:
        load_host_certificates(config.host_certificate, load_host_keys(config.host_key, ()))
    read_banner(config)
    password, _ = _way_in(config, root=sys.platform != "win32" and os.geteuid() == 0)
    plugins.make(config, this_user().name, password)


def _way_in(config: ServeConfig, *, root: bool) -> tuple[str | None, bool]:
    """Make the password for this run, if it is wanted and would let its user in; tell whether anybody can log in."""
    methods = {method for chain in config.methods for method in chain.split(",")}
    # "no" is for every method. "prohibit-password" is against passwords that can be guessed; this one cannot.
    usable = (not methods or "password" in methods) and not (root and config.permit_root_login == "no")
    if ONE_TIME_PASSWORD in config.authenticators and config.password == "off":  # noqa: S105 - the option's value
        raise ConfigError(f"authenticators names {ONE_TIME_PASSWORD}", key="password")
    if ONE_TIME_PASSWORD in config.authenticators or config.password == "one-time":  # noqa: S105 - the option's value
        if not usable:
            raise ConfigError("methods or permit_root_login rules out the one-time password", key="password")
        return new_password(), True
    if config.authenticators:  # what they are good for they know themselves
        return None, True
    by_key = (not methods or "publickey" in methods) and (
        bool(config.key_sources or config.authorized_keys_command or config.trusted_user_ca_keys)
        or anyone_has_key(
            config.authorized_keys, strict_modes=config.strict_modes, variables=config.permit_user_environment
        )
    )
    asked_for = "password" in methods  # a chain that names it cannot do without
    if config.password == "auto" and usable and (asked_for or not by_key):  # noqa: S105 - the option's value
        return new_password(), True
    if asked_for:
        raise ConfigError('a chain wants a password, but password = "off" allows none', key="methods")
    if not by_key:
        _LOG.warning("nobody can log in yet: there are no authorized keys, and no password is allowed")
    return None, by_key


def _random() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32


async def _serve(prepared: Prepared) -> None:
    ended = asyncio.Event()
    _on_end(ended.set)
    default_signals()
    running = await start(prepared)
    try:
        announce(prepared, running.addresses)
        waiting = [asyncio.ensure_future(each) for each in (ended.wait(), running.wait_closed())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
    finally:
        await running.close()


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


def announce(prepared: Prepared, addresses: Sequence[ListenAddress], stream: TextIO | None = None) -> None:
    """Print, on standard output, what a person needs for the first login. The password is in no log."""
    lines = [f"listening on {address}" for address in addresses]
    lines += [
        f"host key {key.public.key_type} {key.public.fingerprint()}" for key in prepared.host_keys
    ]  # fmt: skip
    if prepared.way_in:
        config = prepared.config
        known = not config.authenticators or {"authorized-keys", ONE_TIME_PASSWORD} & {*config.authenticators}
        user = prepared.user if known else "USER"  # other plug-ins need not know who runs the server
        files = config.shell == OFF and config.subsystem.get("sftp") != OFF
        lines += [f"log in with: {login_command(user, address, files=files)}" for address in addresses]
    else:
        lines += ["nobody can log in yet: put a key into ~/.ssh/authorized_keys, or allow a password"]
    if prepared.one_time_password is not None:
        lines += [
            f"password of {prepared.user} for this run: {prepared.one_time_password}",
            "(no authorized key was found)" if prepared.config.password == "auto" else "",  # noqa: S105
        ]
    print(*filter(None, lines), sep="\n", file=stream, flush=True)
    for address in addresses:
        # Messages as sshd's, which log readers know.
        _LOG.info("Server listening on %s", address)


def login_command(user: str, address: ListenAddress, *, files: bool = False) -> str:
    """Give the command that reaches an address from this machine: ssh, or sftp where there is no shell."""
    from shlex import quote

    program = "sftp" if files else "ssh"
    if address.path:
        return f"{program} -o {quote(f'ProxyCommand=nc -U {quote(address.path)}')} {quote(user)}@localhost"
    port = "" if address.port == 22 else f"-{'P' if files else 'p'} {address.port} "
    host = _EVERY.get(address.host, address.host)
    target = quote(f"{user}@[{host}]") if files and ":" in host else f"{quote(user)}@{host}"
    return f"{program} {port}{target}"
