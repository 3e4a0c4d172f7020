"""What would stop the start, told without a start: for `dunnart config --check` and `sshd -t`.

Everything is looked at in the order of the start, see `dunnart.daemon.serve`, and refused with the same errors.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from dunnart.daemon.serve import log_place
from dunnart.daemon.unmade import could_make_in
from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from dunnart.daemon.config import ServeConfig


def check(config: ServeConfig) -> None:
    """Find what is wrong with a configuration before it is served: make its plug-ins, and read the keys it names.

    No file or folder is made and no address listened on. Only an audit log that is not there is made, as the server
    would.

    Raises:
        ConfigError: something configured cannot be used.
    """
    from dunnart.daemon import control
    from dunnart.daemon.preparing import prepare
    from dunnart.daemon.running import described
    from dunnart.daemon.separation import confinement
    from dunnart.server import ServerConfig

    _check_log(log_place(config))
    if sys.platform != "win32" and os.geteuid() == 0:
        confinement(config, make=False)
    ServerConfig(**described(prepare(config, make=False), config.listen))
    if config.control_socket not in {control.AUTO, control.OFF}:
        control.check_path(config.control_socket)
    if config.pid_file:
        _check_pid_file(os.path.abspath(config.pid_file))


def _check_log(place: str) -> None:
    if place == "journald":
        from dunnart.runtime.log_places import JournalHandler

        JournalHandler().close()
    elif place.startswith("/"):
        try:
            if os.path.exists(place):  # a FIFO that nobody reads must not wait for a reader
                os.close(os.open(place, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)))
            else:
                could_make_in(os.path.dirname(os.path.realpath(place)))
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", path=place, key="log_to") from error


def _check_pid_file(path: str) -> None:
    """It is made beside the one that is there, and takes its place."""
    try:
        could_make_in(os.path.dirname(path))
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", path=path, key="pid_file") from error
