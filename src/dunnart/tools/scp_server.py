"""SCP on standard input and output: what the plug-in `scp` runs as the user who logged in."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from dunnart.scp.command import ScpCommand
from dunnart.scp.places import Places
from dunnart.scp.server import serve
from dunnart.sftp.local import LocalFiles

if TYPE_CHECKING:
    from collections.abc import Callable


def main(arguments: list[str]) -> int:
    """Serve one transfer; the arguments are the settings as JSON, and the command, bytes as `os.fsencode` has them."""
    settings = json.loads(arguments[0])
    command = ScpCommand.parse(os.fsencode(arguments[1]))
    root, read_only = settings["root"], settings["read_only"]
    drives = {letter: LocalFiles(folder, read_only=read_only) for letter, folder in settings["drives"].items()}
    files = None if drives and not root else LocalFiles(root or None, start="/" if root else os.getcwd(),
                                                        read_only=read_only)  # fmt: skip
    try:
        return serve(command, Places(files, drives), lambda limit: os.read(0, limit), _write, _log(settings["log"]))
    except (BrokenPipeError, ConnectionResetError):
        return 1


def _write(data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _log(descriptor: int) -> Callable[[str], None]:
    """Give what writes lines to the server's log, through a pipe; -1: nothing does."""
    if descriptor < 0:
        return lambda _: None

    def log(line: str) -> None:
        with contextlib.suppress(OSError):  # the server is gone
            os.write(descriptor, line.encode(errors="replace")[:1000].replace(b"\n", b"?") + b"\n")

    return log
