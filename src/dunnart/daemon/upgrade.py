"""A new program takes over from a running one: it gets the listening sockets, and the old one ends with its sessions.

    old   starts the new program, with the sockets, and waits
    new   reads its configuration, serves, and says that it is ready
    old   stops listening, and goes on until its last connection ends

If the new one ends instead, or takes too long, the old one goes on as if nothing had been. What is passed is told in an
environment variable, which the new program takes out before anything else looks at it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dunnart.daemon.handed import VARIABLE, Handed
from dunnart.errors import ConfigError, DunnartError
from dunnart.runtime.listeners import ListenAddress, listen_address

if TYPE_CHECKING:
    from dunnart.server import Server

_READY = b"\n"
_START_SECONDS = 60.0


class UpgradeError(DunnartError):
    """The new program did not start; the old one goes on."""


class Predecessor:
    """What the old program has passed to this one.

    Attributes:
        handed: the sockets that others had handed to it.
        listening: those that it had opened itself, by their address in the configuration.
        control: the control socket's listener, if it had one.
    """

    def __init__(self, text: str) -> None:
        told = json.loads(text)
        self.handed = Handed([_socket(number) for number in told["handed"]])
        self.listening: list[tuple[ListenAddress, list[socket.socket]]] = [
            (listen_address(place), [_socket(number) for number in numbers]) for place, numbers in told["listening"]
        ]
        self.control = None if told["control"] is None else _socket(told["control"])
        self._ready: int = told["ready"]
        os.set_inheritable(self._ready, False)  # noqa: FBT003 - the name says it

    def ready(self) -> None:
        """Say that this program serves now."""
        os.write(self._ready, _READY)
        os.close(self._ready)


def _socket(number: int) -> socket.socket:
    os.set_inheritable(number, False)  # noqa: FBT003 - the name says it
    return socket.socket(fileno=number)


async def start_successor(server: Server, control: socket.socket | None, variables: Mapping[str, str]) -> int:
    """Start the program anew as this one was started, and wait until it serves.

    Args:
        server: whose listening sockets it gets.
        control: the control socket's listener.
        variables: further ones for its environment.

    Returns:
        Its process's number.

    Raises:
        UpgradeError: it does not serve; it has said why on standard error or in its log.
    """
    handed: list[int] = []
    listening: list[tuple[str, list[int]]] = []
    for place, sockets in server.listening:
        numbers = [each.fileno() for each in sockets]
        if isinstance(place, ListenAddress):
            listening.append((str(place), numbers))
        else:
            handed += numbers
    reader, writer = os.pipe()
    try:
        number = None if control is None else control.fileno()
        passed = [*handed, *(each for _, numbers in listening for each in numbers), writer]
        told = json.dumps({"handed": handed, "listening": listening, "control": number, "ready": writer})
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - vfork and exec take a millisecond
                _command(),
                env={**os.environ, **variables, VARIABLE: told},
                pass_fds=passed if number is None else [*passed, number],
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            raise UpgradeError(f"the new program cannot be started: {error.strerror}") from error
        os.close(writer)
        writer = -1
        if not await _says_ready(reader):
            process.kill()
            status = await asyncio.to_thread(process.wait)
            raise UpgradeError(f"the new program did not start (status {status}); this one goes on")
        return process.pid
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def _command() -> Sequence[str]:
    return [sys.executable, *sys.orig_argv[1:]]


async def _says_ready(reader: int) -> bool:
    loop = asyncio.get_running_loop()
    said: asyncio.Future[bool] = loop.create_future()

    def read() -> None:
        loop.remove_reader(reader)
        said.set_result(os.read(reader, 1) == _READY)

    loop.add_reader(reader, read)
    try:
        async with asyncio.timeout(_START_SECONDS):
            return await said
    except TimeoutError:
        loop.remove_reader(reader)
        return False


def taken_over() -> Predecessor | None:
    """Take what an old program has passed; None: there is none.

    Raises:
        ConfigError: the variable was set by somebody else.
    """
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    try:
        return Predecessor(text)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(f"{VARIABLE} is for a running server to set: {error}") from error
