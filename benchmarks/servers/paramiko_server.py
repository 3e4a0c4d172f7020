"""A server on paramiko: `python -m benchmarks.servers.paramiko_server PORT HOST_KEY AUTHORIZED_KEYS`.

A thread for each connection, which is paramiko's own, and three for each command.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading

import paramiko

from benchmarks.processes import login_shell, session_environment

CHUNK_BYTES = 256 * 1024
WINDOW_BYTES = 2 * 1024 * 1024


def _copy_to_program(channel: paramiko.Channel, sink: int) -> None:
    with contextlib.suppress(OSError):
        while data := channel.recv(CHUNK_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(sink, view) :]
    os.close(sink)


def _copy_from_program(source: int, channel: paramiko.Channel, *, stderr: bool) -> None:
    send = channel.sendall_stderr if stderr else channel.sendall
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := os.read(source, CHUNK_BYTES):
            send(data)
    os.close(source)  # if it was the client that went, the program is told so when it writes


def _finish(channel: paramiko.Channel, status: int) -> None:
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        channel.send_exit_status(status)
        channel.close()


class Server(paramiko.ServerInterface):
    """One connection: lets the key in, runs commands."""

    def __init__(self, authorized: frozenset[bytes]) -> None:
        self._authorized = authorized
        self._with_pty: set[int] = set()

    def get_allowed_auths(self, username: str) -> str:
        """Name the methods."""
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        """Let the one key in."""
        return paramiko.AUTH_SUCCESSFUL if key.asbytes() in self._authorized else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        """Allow sessions."""
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_pty_request(self, channel: paramiko.Channel, *_: object) -> bool:
        """Remember that this channel wants a pty."""
        self._with_pty.add(channel.get_id())
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        """Run the command in threads of its own."""
        run = self._on_pty if channel.get_id() in self._with_pty else self._on_pipes
        threading.Thread(target=run, args=(channel, [login_shell(), "-c", command]), daemon=True).start()
        return True

    def _on_pipes(self, channel: paramiko.Channel, arguments: list[str | bytes]) -> None:
        (stdin_read, stdin_write), (stdout_read, stdout_write), (stderr_read, stderr_write) = (os.pipe() for _ in "123")
        program = subprocess.Popen(
            arguments, stdin=stdin_read, stdout=stdout_write, stderr=stderr_write, env=session_environment()
        )
        for end in (stdin_read, stdout_write, stderr_write):
            os.close(end)
        threading.Thread(target=_copy_to_program, args=(channel, stdin_write), daemon=True).start()
        errors = threading.Thread(
            target=_copy_from_program, args=(stderr_read, channel), kwargs={"stderr": True}, daemon=True
        )
        errors.start()
        _copy_from_program(stdout_read, channel, stderr=False)
        errors.join()
        _finish(channel, program.wait())

    def _on_pty(self, channel: paramiko.Channel, arguments: list[str | bytes]) -> None:
        master, slave = os.openpty()
        program = subprocess.Popen(
            arguments, stdin=slave, stdout=slave, stderr=slave, env=session_environment(), start_new_session=True
        )
        os.close(slave)

        def feed() -> None:
            _copy_to_program(channel, os.dup(master))
            program.terminate()  # the client went

        threading.Thread(target=feed, daemon=True).start()
        _copy_from_program(master, channel, stderr=False)
        _finish(channel, program.wait())


def _serve(connection: socket.socket, host_key: paramiko.PKey, authorized: frozenset[bytes]) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(connection, default_window_size=WINDOW_BYTES)
    transport.add_server_key(host_key)
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        transport.start_server(event=threading.Event(), server=Server(authorized))


def _main(port: int, host_key: str, authorized_keys: str) -> None:
    key = paramiko.Ed25519Key.from_private_key_file(host_key)
    with open(authorized_keys, encoding="ascii") as file:
        authorized = frozenset(paramiko.PublicBlob.from_string(line).key_blob for line in file)
    with socket.create_server(("127.0.0.1", port), backlog=1000) as listener:
        print("listening", flush=True)
        while True:
            connection, _ = listener.accept()
            _serve(connection, key, authorized)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
