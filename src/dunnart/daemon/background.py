"""Going into the background, and the file with the process's number."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from dunnart.errors import ConfigError

_READY = b"\n"


class Background:
    """The process's other half: it forks when this is made, and only the child returns.

    The parent stays until the child says that it listens, and then ends with status 0; if the child ends instead, the
    parent does so with the child's status. The child keeps the terminal for messages until then.
    """

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            raise ConfigError("this system starts services otherwise", key="background")
        sys.stdout.flush()
        sys.stderr.flush()
        reader, self._writer = os.pipe()
        child = os.fork()
        if child:
            os.close(self._writer)
            _wait(reader, child)
        os.close(reader)
        os.setsid()

    def ready(self, *, keep_errors: bool = False) -> None:
        """Let the parent go, and the terminal; standard error stays if it is where the log goes."""
        sys.stdout.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1) if keep_errors else (0, 1, 2):
            os.dup2(null, number)
        os.close(null)
        os.write(self._writer, _READY)
        os.close(self._writer)


def _wait(reader: int, child: int) -> NoReturn:
    if os.read(reader, 1) == _READY:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    os._exit(abs(os.waitstatus_to_exitcode(status)) or 1)


def write_pid_file(path: str) -> None:
    """Write this process's number to a file, in one step.

    Raises:
        ConfigError: that cannot be done.
    """
    temporary = f"{path}.{os.getpid()}"
    try:
        # A name that is there already may be another user's trap, in a folder that all can write to.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise ConfigError(f"cannot be written: {error.strerror}", path=path, key="pid_file") from error


def remove_pid_file(path: str) -> None:
    """Remove it, if it is still ours."""
    with contextlib.suppress(OSError, ValueError):
        with open(path, encoding="ascii") as file:
            number = int(file.read(32))
        if number == os.getpid():
            os.unlink(path)
