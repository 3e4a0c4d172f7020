"""Seven SSH clients behind one small interface: run a command, with a pty or without, by key or by password."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import os
import pty
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.interop.support import SECONDS, Served, environment, missing, program, settings

TYPE, COLUMNS, ROWS = "vt220", 101, 33
"""The terminal that clients show."""


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    status: int
    out: bytes
    err: bytes = b""


class Client(Protocol):
    """A real client. `key` is the kind of a user key; None logs in by password."""

    sends_size: bool
    """Whether it can tell the size of its terminal."""
    sends_type: bool
    """Whether it can tell its type."""

    def run(self, server: Served, command: str, stdin: bytes = b"", *, key: str | None = "ed25519") -> Done:
        """Run a command to its end."""

    def run_on_terminal(self, server: Served, command: str) -> Done:
        """Run a command on a pty; what it writes is in `out`."""


class _Client:
    sends_size = True
    sends_type = True


class _Program(_Client):
    """A client that is a program: subclasses make its command line."""

    def command(
        self, server: Served, *options: str, key: str | None = "ed25519", terminal: bool = False
    ) -> tuple[list[str], dict[str, str]]:
        """Give the command line up to the remote command, and the environment."""
        raise NotImplementedError

    def run(self, server: Served, command: str, stdin: bytes = b"", *, key: str | None = "ed25519") -> Done:
        line, env = self.command(server, key=key)
        done = subprocess.run([*line, command], input=stdin, env=env, capture_output=True, timeout=SECONDS, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def run_on_terminal(self, server: Served, command: str) -> Done:
        line, env = self.command(server, terminal=True)
        return on_terminal([*line, command], env | {"TERM": TYPE})


def on_terminal(command: Sequence[str], env: dict[str, str]) -> Done:
    """Run a local program on a pty of its own."""
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True)
        os.close(slave)
        out = b""
        deadline = time.monotonic() + SECONDS
        with contextlib.suppress(OSError):  # EIO: the program is gone
            while select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                data = os.read(master, 4096)
                if not data:
                    break
                out += data
        try:
            return Done(process.wait(max(0.1, deadline - time.monotonic())), out)
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(master)


class OpenSsh(_Program):
    """OpenSSH's ssh. Nothing of /etc/ssh and ~/.ssh counts; host keys are checked."""

    def command(
        self, server: Served, *options: str, key: str | None = "ed25519", terminal: bool = False
    ) -> tuple[list[str], dict[str, str]]:
        fixed = {"UserKnownHostsFile": server.known_hosts, "User": server.user, "Port": str(server.port)}
        env = environment(server.folder)
        if key is None:
            fixed |= {"PreferredAuthentications": "password", "PubkeyAuthentication": "no", "BatchMode": "no",
                      "NumberOfPasswordPrompts": "1"}  # fmt: skip
            asker = server.folder / "askpass"
            if not asker.exists():
                asker.touch(0o700)
                asker.write_text('#!/bin/sh\necho "$SSH_TEST_PASSWORD"\n')
            # DISPLAY is for versions before 8.4.
            env |= {"SSH_ASKPASS": str(asker), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":9"}
            env |= {"SSH_TEST_PASSWORD": server.password}
        else:
            fixed["IdentityFile"] = server.keys.path(key)
        # Of an option that is given twice the first counts.
        line = [program("ssh"), *options, *settings(LogLevel="ERROR", **fixed)]
        return [*line, "-tt" if terminal else "-T", "127.0.0.1"], env


class Dropbear(_Program):
    """Dropbear's dbclient."""

    def command(
        self, server: Served, *options: str, key: str | None = "ed25519", terminal: bool = False
    ) -> tuple[list[str], dict[str, str]]:
        env = environment(server.folder)
        line = [program("dbclient"), "-y", "-l", server.user, "-p", str(server.port), *options]
        if key is None:
            env["DROPBEAR_PASSWORD"] = server.password
        else:
            line += ["-i", server.keys.dropbear(key)]
        return [*line, *(["-t"] if terminal else []), "127.0.0.1"], env


class Putty(_Program):
    """PuTTY's plink; it knows the host key by its fingerprint."""

    sends_type = False  # it is "xterm" if no saved session says otherwise

    def command(
        self, server: Served, *options: str, key: str | None = "ed25519", terminal: bool = False
    ) -> tuple[list[str], dict[str, str]]:
        line = [program("plink"), "-ssh", "-batch", "-noagent", "-noshare", "-l", server.user, "-P", str(server.port)]
        for fingerprint in server.host_keys.values():
            line += ["-hostkey", fingerprint]
        line += ["-pw", server.password] if key is None else ["-i", server.keys.putty(key)]
        return [*line, *options, "-t" if terminal else "-T", "127.0.0.1"], environment(server.folder)


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"the package {package}")


class Paramiko(_Client):
    """paramiko's Transport, without its agent and host key files."""

    @contextlib.contextmanager
    def login(self, server: Served, *, key: str | None = "ed25519", **options: Any) -> Iterator[Any]:
        """Log in; the transport is closed at the end."""
        paramiko = _library("paramiko", "paramiko")
        transport = paramiko.Transport(("127.0.0.1", server.port), **options)
        try:
            transport.start_client(timeout=SECONDS)
            # paramiko's name for the fingerprint that the server printed
            assert transport.get_remote_server_key().fingerprint in server.host_keys.values()
            if key is None:
                transport.auth_password(server.user, server.password)
            else:
                transport.auth_publickey(server.user, paramiko.PKey.from_path(server.keys.path(key)))
            yield transport
        finally:
            transport.close()

    def run(self, server: Served, command: str, stdin: bytes = b"", *, key: str | None = "ed25519") -> Done:
        with self.login(server, key=key) as transport:
            return self._finish(transport.open_session(), command, stdin)

    def run_on_terminal(self, server: Served, command: str) -> Done:
        with self.login(server) as transport:
            channel = transport.open_session()
            channel.get_pty(TYPE, COLUMNS, ROWS)
            return self._finish(channel, command, None)

    @staticmethod
    def _finish(channel: Any, command: str, stdin: bytes | None) -> Done:
        channel.settimeout(SECONDS)
        channel.exec_command(command)
        if stdin is not None:
            for start in range(0, len(stdin), 1 << 18):  # sendall copies the rest for each packet
                channel.sendall(stdin[start : start + (1 << 18)])
            channel.shutdown_write()
        out = channel.makefile("rb").read()
        err = channel.makefile_stderr("rb").read()
        return Done(channel.recv_exit_status(), out, err)


class AsyncSsh(_Client):
    """asyncssh's client."""

    def run(self, server: Served, command: str, stdin: bytes = b"", *, key: str | None = "ed25519") -> Done:
        return self._run(server, key, command, input=stdin, encoding=None)

    def run_on_terminal(self, server: Served, command: str) -> Done:
        return self._run(server, "ed25519", command, term_type=TYPE, term_size=(COLUMNS, ROWS), encoding=None)

    def _run(self, server: Served, key: str | None, command: str, **options: Any) -> Done:
        async def work() -> Done:
            async with self.connect(server, key=key) as connection:
                done = await connection.run(command, timeout=SECONDS, **options)
                return Done(done.returncode, done.stdout, done.stderr)

        return asyncio.run(work())

    def connect(self, server: Served, *, key: str | None = "ed25519", **options: Any) -> Any:
        """Give what is to be awaited for a connection, or entered as a context."""
        asyncssh = _library("asyncssh", "asyncssh")
        if key is None:
            options |= {"password": server.password, "client_keys": None, "preferred_auth": "password"}
        else:
            options |= {"client_keys": [server.keys.path(key)]}
        return asyncssh.connect(
            "127.0.0.1", server.port, username=server.user, known_hosts=server.known_hosts, config=None,
            agent_path=None, login_timeout=SECONDS, **options,
        )  # fmt: skip


class LibSsh2(_Client):
    """libssh2 by ssh2-python."""

    sends_size = False  # the binding has no argument for it: 80 columns, 24 rows

    def run(self, server: Served, command: str, stdin: bytes = b"", *, key: str | None = "ed25519") -> Done:
        with self._login(server, key) as session:
            return self._finish(session.open_session(), command, stdin)

    def run_on_terminal(self, server: Served, command: str) -> Done:
        with self._login(server, "ed25519") as session:
            channel = session.open_session()
            channel.pty(TYPE)
            return self._finish(channel, command, None)

    @staticmethod
    @contextlib.contextmanager
    def _login(server: Served, key: str | None) -> Iterator[Any]:
        library = _library("ssh2.session", "ssh2-python")
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            session = library.Session()
            session.set_timeout(int(SECONDS * 1000))
            session.handshake(sock)
            if key is None:
                session.userauth_password(server.user, server.password)
            else:
                session.userauth_publickey_fromfile(server.user, server.keys.path(key))
            yield session
            session.disconnect()

    @staticmethod
    def _finish(channel: Any, command: str, stdin: bytes | None) -> Done:
        channel.execute(command)
        if stdin is not None:
            channel.write(stdin)
            channel.send_eof()
        out, err = (b"".join(_pieces(read)) for read in (channel.read, channel.read_stderr))
        channel.wait_eof()
        channel.close()
        channel.wait_closed()
        return Done(channel.get_exit_status(), out, err)


def _pieces(read: Any) -> Iterator[bytes]:
    while True:
        size, data = read(1 << 16)
        if size <= 0:
            assert size == 0, f"libssh2's error {size}"
            return
        yield data


class LibSsh(_Client):
    """libssh by ssh-python."""

    def run(self, server: Served, command: str, stdin: bytes = b"", *, key: str | None = "ed25519") -> Done:
        with self._channel(server, key) as channel:
            return self._finish(channel, command, stdin)

    def run_on_terminal(self, server: Served, command: str) -> Done:
        with self._channel(server, "ed25519") as channel:
            channel.request_pty_size(TYPE, COLUMNS, ROWS)
            return self._finish(channel, command, None)

    @staticmethod
    @contextlib.contextmanager
    def login(server: Served, key: str | None = "ed25519") -> Iterator[Any]:
        """Log in; the session is closed at the end."""
        library, options = _library("ssh.session", "ssh-python"), _library("ssh.options", "ssh-python")
        session = library.Session()
        for name, value in (("HOST", "127.0.0.1"), ("USER", server.user), ("SSH_DIR", str(server.folder))):
            session.options_set(getattr(options, name), value)
        session.options_set_port(server.port)
        session.options_set_int_val(options.PROCESS_CONFIG, 0)
        session.options_set(options.KNOWNHOSTS, server.known_hosts)
        session.connect()
        try:
            assert session.is_server_known() == 1  # SSH_SERVER_KNOWN_OK
            if key is None:
                session.userauth_password(server.user, server.password)
            else:
                session.userauth_publickey(_library("ssh.key", "ssh-python").import_privkey_file(server.keys.path(key)))
            yield session
        finally:
            session.disconnect()

    @contextlib.contextmanager
    def _channel(self, server: Served, key: str | None) -> Iterator[Any]:
        with self.login(server, key) as session:
            channel = session.channel_new()
            channel.open_session()
            yield channel
            channel.close()

    @staticmethod
    def _finish(channel: Any, command: str, stdin: bytes | None) -> Done:
        channel.request_exec(command)
        if stdin is not None:
            for start in range(0, len(stdin), 1 << 20):
                channel.write(stdin[start : start + (1 << 20)])
            channel.send_eof()
        out, err = (b"".join(_pieces(lambda size, err=err: channel.read(size, err))) for err in (False, True))
        return Done(channel.get_exit_status(), out, err)


CLIENTS: dict[str, Client] = {
    "openssh": OpenSsh(),
    "dropbear": Dropbear(),
    "putty": Putty(),
    "paramiko": Paramiko(),
    "asyncssh": AsyncSsh(),
    "libssh2": LibSsh2(),
    "libssh": LibSsh(),
}
