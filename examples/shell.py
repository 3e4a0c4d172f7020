"""A small command line of the program's own, with a thread for each session.

    python examples/shell.py --keys ~/.ssh/id_ed25519.pub
    ssh -p 2222 127.0.0.1
    ssh -p 2222 127.0.0.1 uptime

Lines can be edited, completed and called back; errors go to stderr; `exit 3` ends with that status.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator

from dunnart import PrivateKey
from dunnart.ecos import DropbearData, Handle, init
from dunnart.line_editor import EndOfInput, Line, LineEditor

_STARTED = time.monotonic()
_WRONG, _NOT_FOUND = 2, 127


class Shell:
    """One session: reads lines, runs commands, writes what they say."""

    def __init__(self, sock: socket.socket, stderr: socket.socket, handle: Handle) -> None:
        self._sock, self._stderr, self._handle = sock, stderr, handle
        self._commands: dict[str, Callable[[list[str]], int]] = {
            "echo": self._echo, "exit": self._exit, "help": self._help, "uptime": self._uptime, "whoami": self._whoami,
        }  # fmt: skip
        self._ended = False

    def serve(self) -> int:
        """Run the session to its end; gives the last command's status."""
        status = 0
        for line in self._lines():
            name, *arguments = line.split() or [""]
            if name in self._commands:
                status = self._commands[name](arguments)
            elif name:
                status = self._complain(f"{name}: no such command; try help", _NOT_FOUND)
            if self._ended:
                break
        return status

    def _lines(self) -> Iterator[str]:
        if self._handle.command is not None:
            yield self._handle.command
        elif self._handle.terminal is None:
            with self._sock.makefile("r", encoding="utf-8", errors="replace") as file:
                yield from file
        else:
            yield from self._edited_lines(LineEditor(term=self._handle.terminal.term, complete=self._complete))

    def _edited_lines(self, editor: LineEditor) -> Iterator[str]:
        """The terminal is raw: it is the editor that echoes what is typed, and knows what the keys mean."""
        event = None
        while not isinstance(event, EndOfInput):
            if self._handle.terminal is not None:
                editor.resize(self._handle.terminal.columns, self._handle.terminal.rows)
            event = editor.prompt(f"{self._handle.username}> ")
            while event is None:
                self._sock.sendall(editor.output())
                data = self._sock.recv(4096)
                event = editor.feed(data) if data else editor.feed_eof()
            self._sock.sendall(editor.output())
            if isinstance(event, Line):
                yield event.text

    def _complete(self, line: str, cursor: int) -> list[str]:
        return [name for name in self._commands if name.startswith(line[:cursor])]

    def _say(self, text: str) -> int:
        self._write(self._sock, text)
        return 0

    def _complain(self, text: str, status: int) -> int:
        self._write(self._stderr, text)
        return status

    def _write(self, sock: socket.socket, text: str) -> None:
        end = "\n" if self._handle.terminal is None else "\r\n"
        sock.sendall((text + end).encode(errors="replace"))

    # Commands: they get their arguments, and give an exit status.

    def _echo(self, arguments: list[str]) -> int:
        return self._say(" ".join(arguments))

    def _exit(self, arguments: list[str]) -> int:
        status = arguments[0] if arguments else "0"
        if not (status.isascii() and status.isdecimal() and int(status) <= 255):
            return self._complain(f"exit: {status} is no status of 0 to 255", _WRONG)
        self._ended = True
        return int(status)

    def _help(self, _: list[str]) -> int:
        return self._say(" ".join(self._commands))

    def _uptime(self, _: list[str]) -> int:
        return self._say(f"up {time.monotonic() - _STARTED:.0f} s")

    def _whoami(self, _: list[str]) -> int:
        return self._say(f"{self._handle.username} from {self._handle.addr}")


def connected(sock: socket.socket, handle: Handle) -> None:
    """Serve a session: every one has a thread of its own, in which this is called."""
    status = 1
    with contextlib.ExitStack() as closing, contextlib.suppress(OSError):  # the client may leave at any time
        closing.enter_context(sock)
        # To a terminal all goes one way: between two sockets there is no order.
        stderr = sock if handle.terminal is not None else closing.enter_context(handle.get_stderr())
        status = Shell(sock, stderr, handle).serve()
    handle.done(status)


def main() -> None:
    """Serve the owners of some keys, until control-C."""
    parser = argparse.ArgumentParser(description="A small command line over SSH.")
    parser.add_argument("--port", type=int, default=2222)
    parser.add_argument("--keys", default="~/.ssh/id_ed25519.pub", help="who may come in: public keys, one a line")
    arguments = parser.parse_args()
    try:
        with open(os.path.expanduser(arguments.keys), encoding="utf-8") as file:
            keys = file.read().splitlines()
    except OSError as error:
        parser.error(f"no public keys: {error}; name a file of them with --keys")
    data = DropbearData(
        private_host_keys=[PrivateKey.load_or_generate("example_host_key")],
        get_public_keys=lambda _algorithm, _user, _address: keys,
        connected=connected,
        support_stderr=True,
        address="127.0.0.1",
        port=arguments.port,
    )
    with init(data) as daemon, contextlib.suppress(KeyboardInterrupt):
        print(f"ssh -p {daemon.port} 127.0.0.1")
        while True:
            time.sleep(3600)  # the program goes about its business


if __name__ == "__main__":
    main()
