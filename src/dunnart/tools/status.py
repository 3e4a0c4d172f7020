"""`dunnart status`: asks the server on this machine through its control socket, or has it do something."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Self

from dunnart.daemon.control import socket_path
from dunnart.daemon.flags import Parser
from dunnart.errors import ConfigError, ConnectionClosed

_DESCRIPTION = """\
Ask the server that runs on this machine, or have it do something. Without a command, how it is doing;
`dunnart status help` lists the commands.
"""
_TOP = "Show the busiest connections of the server that runs on this machine, anew each second; q ends it."
_TOP_SECONDS = 1.0
_READ_BYTES = 64 * 1024
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # another screen, without a cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_QUIT = frozenset(b"qQ\x03\x04")


class _Control:
    """A connection to a control socket."""

    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        try:
            self._sock.connect(path)
        except OSError as error:
            self._sock.close()
            advice = "run this as the server's user" if isinstance(error, PermissionError) else "is the server running?"
            reason = error.strerror or str(error)
            raise ConnectionClosed(f"no server answers at {path}: {reason}; {advice}") from error
        self._answers = self._sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._sock.close()

    def ask(self, words: Sequence[str], size: os.terminal_size | None = None) -> dict[str, Any]:
        """Give the answer to a command."""
        request: dict[str, Any] = {"command": list(words)}
        if size is not None:
            request |= {"columns": size.columns, "rows": size.lines}
        line = b""
        with contextlib.suppress(OSError):
            self._sock.sendall(json.dumps(request).encode() + b"\n")
            line = self._answers.readline()
        if not line:
            raise ConnectionClosed("the server has gone")
        answer: dict[str, Any] = json.loads(line)
        return answer


def run(arguments: Sequence[str], command: str = "") -> int:
    """Run a command; gives the exit status: 0, 1 if it could not be done, 2 if it was not understood.

    Args:
        arguments: flags, and the command with its arguments.
        command: the command, if that is known already.

    Raises:
        ConfigError: the command line cannot be understood, or there is no control socket.
    """
    name, description = (f"dunnart {command}", _TOP) if command else ("dunnart status", _DESCRIPTION)
    parser = Parser(prog=name, description=description, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="the configuration file that the server was started with")
    parser.add_argument("--state-folder", metavar="FOLDER", help="its state folder, where its control socket is")
    parser.add_argument("--control-socket", metavar="FILE", help="its control socket itself")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--once", action="store_true", help="show `top` once, also in a terminal")
    if not command:
        parser.add_argument("command", nargs="*", help="what to do, with its arguments")
    given = parser.parse_intermixed_args(arguments)
    path = _path(given.config, given.state_folder, given.control_socket)
    try:
        words = [command] if command else given.command or ["status"]
        return _run(path, words, as_json=given.json, once=given.once)
    except ConnectionClosed as error:
        print(f"dunnart status: {error}", file=sys.stderr)
        return 1


def _run(path: str, words: Sequence[str], *, as_json: bool, once: bool) -> int:
    with _Control(path) as control:
        if words == ["top"] and not as_json and not once and sys.stdin.isatty() and sys.stdout.isatty():
            return _top(control)
        size = os.get_terminal_size() if sys.stdout.isatty() else None
        answer = control.ask(words, size)
    if "error" in answer:
        print(f"dunnart status: {answer['error']}", file=sys.stderr)
        return int(answer["status"])
    if as_json:
        print(json.dumps(answer["data"], indent=2))
    else:
        print(*answer["lines"], sep="\n")
    return 0


def _path(config: str | None, state_folder: str | None, control_socket: str | None) -> str:
    from dunnart.daemon.loading import load

    flags = {"state_folder": state_folder, "control_socket": control_socket}
    path = socket_path(load(config, {name: value for name, value in flags.items() if value is not None}))
    if not path:
        raise ConfigError("the server has no control socket", key="control_socket")
    return path


def _top(control: _Control) -> int:
    """Show the busiest connections anew each second, until q is pressed."""
    with _keys():
        sys.stdout.write(_ENTER)
        try:
            while True:
                size = os.get_terminal_size()
                answer = control.ask(["top"], os.terminal_size((size.columns - 1, size.lines)))
                lines = answer.get("lines") or [str(answer.get("error"))]
                sys.stdout.write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")
                sys.stdout.flush()
                if select.select([sys.stdin], [], [], _TOP_SECONDS)[0] and _QUIT.intersection(os.read(0, _READ_BYTES)):
                    return 0
        finally:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Have the terminal give each key at once, and show none."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
