"""`dunnart serve`: how the server starts, in this order.

    sockets that were handed over, by inetd or systemd; the
    version line to one that is a connection                  dunnart.daemon.handed
    fork into the background                                  dunnart.daemon.background
    the log                                                   dunnart.runtime.logs
    as root: start what will meet the network                 dunnart.daemon.separation
    host keys, plug-ins, who may log in                       dunnart.daemon.preparing
    listen, serve, reload, end                                dunnart.daemon.running

Each is loaded when it is needed: what meets the network starts early, and the version line waits for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from dunnart.daemon.handed import VARIABLE, Handed, by_inetd, by_systemd
from dunnart.daemon.systemd import Notifier
from dunnart.errors import ConfigError
from dunnart.records import dataclass

if TYPE_CHECKING:
    from dunnart.daemon.background import Background
    from dunnart.daemon.config import ServeConfig
    from dunnart.daemon.upgrade import Predecessor

_WAIT_SECONDS = 60
"""For how long a server waits that inetd has given a listening socket, if the configuration does not say."""


@dataclass(frozen=True, slots=True)
class Start:
    """How the process was started.

    Attributes:
        handed: the sockets that were handed over, if any.
        again: reads the configuration again, as the command line has it.
        notifier: tells systemd.
        background: lets the process that was started go, once this one listens.
        predecessor: the running server that this one takes over from.
    """

    handed: Handed
    again: Callable[[], ServeConfig]
    notifier: Notifier
    background: Background | None = None
    predecessor: Predecessor | None = None


def run(config: ServeConfig, handed: Handed | None = None, again: Callable[[], ServeConfig] | None = None) -> int:
    """Serve until SIGTERM or SIGINT comes, or the connection that was handed over ends.

    Args:
        config: what to serve.
        handed: what inetd has handed over, if that was taken already.
        again: reads the configuration again for SIGHUP; None: only the files that it names are read again.

    Returns:
        The exit status, 0.

    Raises:
        ConfigError: something configured cannot be used. It is in the log too, if that is not standard error.
    """
    predecessor = None
    if VARIABLE in os.environ:
        from dunnart.daemon.upgrade import taken_over

        predecessor = taken_over()
    if predecessor is not None:
        handed = predecessor.handed
    elif handed is None:
        handed = by_inetd() if config.inetd else by_systemd() or Handed()
    config = fitting(config, handed)
    notifier = Notifier()
    background = None
    if config.background and predecessor is None:
        from dunnart.daemon.background import Background

        background = Background()
    start_log(config)
    start = Start(handed, again or (lambda: config), notifier, background, predecessor)
    separation = None
    try:
        from dunnart.daemon.separation import separate

        separation = separate(config)
        handed.relay()
        from dunnart.daemon.preparing import prepare
        from dunnart.daemon.running import serve

        return serve(prepare(config), start, separation)
    except ConfigError as error:
        if separation is not None:
            separation.close()
        log_failure(error, log_place(config))
        raise


def fitting(config: ServeConfig, handed: Handed) -> ServeConfig:
    """Give the configuration with what goes without saying where sockets were handed over."""
    if not handed.sockets:
        return config
    if config.background:
        message = "who hands sockets over waits for this process: it cannot go into the background"
        raise ConfigError(message, key="background")
    if handed.connection:
        control = "off" if config.control_socket == "auto" else config.control_socket
        password = "off" if config.password == "auto" else config.password  # noqa: S105 - nobody would see it
        config = replace(config, workers=1, control_socket=control, password=password)
    elif handed.by_inetd and not config.exit_on_idle:
        config = replace(config, exit_on_idle=_WAIT_SECONDS)
    return config


def log_place(config: ServeConfig) -> str:
    """Where the log of a configuration goes: stderr, syslog, journald, or a file."""
    if config.log_to != "auto":
        return config.log_to
    return "syslog" if config.inetd or config.background else "stderr"


def start_log(config: ServeConfig) -> None:
    """Have lines logged as the configuration says.

    Raises:
        ConfigError: there is no journal, or the file cannot be written.
    """
    from dunnart.runtime import logs

    form: Literal["text", "json"] = "json" if config.log_format == "json" else "text"
    logs.setup(config.log_level, config.log_levels, form, to=log_place(config))


def log_failure(error: ConfigError, place: str = "syslog") -> None:
    """Have the log say why there is no server, where perhaps nobody reads standard error."""
    if place == "stderr":
        return
    import logging

    from dunnart.runtime import logs

    if not logging.getLogger().handlers:
        logs.setup(to=place)
    logging.getLogger("dunnart.daemon").critical("%s", logs.clean(str(error), most=1000))
