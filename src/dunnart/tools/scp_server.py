"""SCP on standard input and output: what the plug-in `scp` runs as the user who logged in."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from dunnart.scp.command import ScpCommand
from dunnart.scp.places import Places
from dunnart.scp.server import serve
from dunnart.sftp.layers.read_only import ReadOnly
from dunnart.sftp.local import LocalFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.sftp.files import FileSystem

_LOG = 3  # the first descriptor that a call passes on


def main(arguments: list[str]) -> int:
    """Serve one transfer; the arguments are the settings as JSON, and the command, bytes as `os.fsencode` has them."""
    settings = json.loads(arguments[0])
    command = ScpCommand.parse(os.fsencode(arguments[1]))
    root, read_only = settings["root"], settings["read_only"]

    def served(folder: str | None, start: str = "/") -> FileSystem:
        files = LocalFiles(folder, start=start)
        return ReadOnly(files) if read_only else files

    drives = {letter: served(folder) for letter, folder in settings["drives"].items()}
    files = None if drives and not root else served(root or None, "/" if root else os.getcwd())
    log = _log(logs=settings["logs"])
    try:
        return serve(command, Places(files, drives), lambda limit: os.read(0, limit), _write, log)
    except (BrokenPipeError, ConnectionResetError):
        return 1


def _write(data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _log(*, logs: bool) -> Callable[[str], None]:
    """Give what writes lines to the server's log, through a pipe, if there is one."""
    if not logs:
        return lambda _: None

    def log(line: str) -> None:
        with contextlib.suppress(OSError):  # the server is gone
            os.write(_LOG, line.encode(errors="replace")[:1000].replace(b"\n", b"?") + b"\n")

    return log
