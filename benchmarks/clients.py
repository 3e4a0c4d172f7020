"""The clients, the same for every server: OpenSSH's for bulk data and wall time, libssh2 where logins make the load.

libssh2 logs in for about a millisecond of its own CPU time, a tenth of what OpenSSH's client takes, so that on few
cores it is the server that is measured. Its calls release Python's lock, so threads are enough.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ssh2.session import Session as LibSession

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT_SECONDS = 60


class ClientError(Exception):
    """A client could not do its work; the message holds what it said."""


@dataclass(frozen=True)
class Identity:
    """Throw-away keys of a run: `user_key` logs in, `host_key` is what every server has; OpenSSH files, Ed25519."""

    folder: str
    user: str
    user_key: str
    host_key: str
    authorized_keys: str


def make_identity(folder: str, ssh_keygen: str = "ssh-keygen") -> Identity:
    """Make the keys in `folder`, which must be private to this user."""
    paths = [os.path.join(folder, name) for name in ("user_key", "host_key")]
    for path in paths:
        subprocess.run([ssh_keygen, "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", path], check=True)
    authorized_keys = os.path.join(folder, "authorized_keys")
    shutil.copy(paths[0] + ".pub", authorized_keys)
    return Identity(folder, pwd.getpwuid(os.getuid()).pw_name, paths[0], paths[1], authorized_keys)


@dataclass(frozen=True)
class OpenSsh:
    """OpenSSH's client: `program` is its path."""

    program: str
    identity: Identity

    def arguments(self, port: int, command: str, *options: str) -> list[str]:
        """Make the command line that runs `command` on the server at `port`; the user's own set-up does not count."""
        fixed = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        fixed += ["IdentitiesOnly=yes", "IdentityAgent=none", "ControlMaster=no", "Compression=no"]
        # Other host keys, which a server would prove to the client after login, are no part of the work.
        fixed += ["UpdateHostKeys=no", f"User={self.identity.user}", f"Port={port}"]
        head = [self.program, "-F", "none", "-T", "-i", self.identity.user_key]
        return [*head, *(part for option in fixed for part in ("-o", option)), *options, "127.0.0.1", command]

    def run(self, port: int, command: str, *options: str, source: int = subprocess.DEVNULL) -> tuple[float, str]:
        """Run a command to its end, its output thrown away.

        Returns:
            the wall time in seconds, and what came on stderr.

        Raises:
            ClientError: the client or the command failed.
        """
        start = time.monotonic()
        done = subprocess.run(
            self.arguments(port, command, *options),
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
            timeout=600,
        )
        seconds = time.monotonic() - start
        if done.returncode:
            raise ClientError(f"ssh ended with {done.returncode}: {done.stderr.strip()}")
        return seconds, done.stderr


class Login:
    """A connection that is logged in, by libssh2 with its default algorithms."""

    def __init__(self, identity: Identity, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.session = LibSession()
        self.session.set_timeout(TIMEOUT_SECONDS * 1000)
        try:
            self.session.handshake(self._socket)
            self.session.userauth_publickey_fromfile(identity.user, identity.user_key)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Say good-bye and end the connection.

        The descriptor is left to whoever holds the session last: libssh2 writes to it when it frees a channel, and its
        number must not be somebody else's connection by then.
        """
        with contextlib.suppress(Exception):
            self.session.disconnect()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def run(self, command: str) -> int:
        """Run a command to its end and return its exit status."""
        channel = self.session.open_session()
        channel.execute(command)
        while channel.read()[0] > 0:
            pass
        channel.wait_eof()
        channel.close()
        channel.wait_closed()
        status: int = channel.get_exit_status()
        return status

    def open(self, command: str) -> object:
        """Start a command and leave its channel open; it lives as long as what is returned."""
        channel = self.session.open_session()
        channel.execute(command)
        return channel

    def typist(self, command: str = "stty raw -echo; echo ready; exec cat") -> Typist:
        """Start `cat` on a raw pty, or another command that says ready and gives back what it gets."""
        return Typist(self, command)


class Typist:
    """Types a key at a time into a command on a raw pty: each comes back through the server and the program."""

    def __init__(self, login: Login, command: str) -> None:
        self._channel = login.session.open_session()
        self._channel.pty("xterm")
        self._channel.execute(command)
        self._expect(b"ready")

    def _expect(self, wanted: bytes) -> None:
        seen = b""
        while wanted not in seen:
            size, data = self._channel.read()
            if size <= 0:
                raise ClientError(f"the session ended before {wanted!r} came: {seen!r}")
            seen += data

    def type(self, key: bytes) -> float:
        """Send one key and return the seconds until it is back."""
        start = time.perf_counter()
        self._channel.write(key)
        self._expect(key)
        return time.perf_counter() - start
