"""A session of files in a process of the user's own: what the plug-ins `sftp` and `scp` run, with stdin and stdout.

Through descriptor 3 it reports to the server, a line of JSON each: {"event": "uploaded", "path": …}, {"debug": text}
and {"error": text}.
"""

from __future__ import annotations

import contextlib
import grp  # noqa: F401 - loaded, not used: listings name groups
import json
import os
import signal
from typing import TYPE_CHECKING, Any

# All that most sessions need is loaded here, once for all of them: in the fork server.
import dunnart.sftp.layers.observed
import dunnart.sftp.local  # noqa: F401 - loaded, not used
from dunnart.errors import DunnartError
from dunnart.scp.command import ScpCommand
from dunnart.scp.places import Places
from dunnart.scp.protocol import serve as serve_scp
from dunnart.sftp.options import FileOptions
from dunnart.sftp.streams import serve as serve_sftp

if TYPE_CHECKING:
    from dunnart.sftp.files import FileSystem
    from dunnart.sftp.layers.observed import FileEvent

_REPORTS = 3  # the first descriptor that a call passes on
_TEXT_CHARACTERS = 4096


def sftp(arguments: list[str]) -> int:
    """Serve SFTP until the client is done; the arguments are the settings as JSON, and nothing.

    Returns:
        The exit status: 0, or 1 for files that are not there and for a client that speaks no SFTP.
    """
    settings = _begin(arguments[0])
    files = _files("sftp", settings)
    if files is None:
        return 1
    try:
        serve_sftp(files, 0, 1, requests=settings["requests"], link_first=settings["link_first"])
    except DunnartError as error:
        return _failed("sftp", error)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return 0


def scp(arguments: list[str]) -> int:
    """Serve one transfer of SCP; the arguments are the settings as JSON, and the command as `os.fsdecode` gives it."""
    settings = _begin(arguments[0])
    folders: dict[str, str] = settings["drives"]
    drives = {letter: _files("scp", settings, folder) for letter, folder in folders.items()}
    files = None if drives and not settings["options"]["root"] else _files("scp", settings)
    if None in drives.values() or (files is None and not drives):
        return 1
    places = Places(files, {letter: each for letter, each in drives.items() if each is not None})
    command = ScpCommand.parse(os.fsencode(arguments[1]))
    log = _debug if settings["debug"] else _ignore
    try:
        return serve_scp(command, places, lambda limit: os.read(0, limit), _write, log)
    except (BrokenPipeError, ConnectionResetError):
        return 1


def _begin(settings: str) -> dict[str, Any]:
    # The client's leaving is the end of input, upon which unfinished uploads are discarded and reported.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    found: dict[str, Any] = json.loads(settings)
    if umask := found["options"]["umask"]:
        os.umask(int(umask, 8))
    return found


def _files(name: str, settings: dict[str, Any], root: str | None = None) -> FileSystem | None:
    """Make the file system; None: there is none, which the user was told."""
    options = FileOptions.from_json(settings["options"])
    try:
        return options.files(_tell, root)
    except Exception as error:  # noqa: BLE001 - whatever a store raises, the user and the log are told
        text = error.strerror if isinstance(error, OSError) and error.strerror else error
        _failed(name, f"{options.root if root is None else root} cannot be served: {text}")
        return None


def _failed(name: str, error: object) -> int:
    os.write(2, f"{name}: {error}\n".encode(errors="backslashreplace"))
    _report({"error": str(error)})
    return 1


def _tell(event: FileEvent) -> None:
    _report({
        "event": event.kind, "path": _text(event.path), "target": _text(event.target), "size": event.size,
        "seconds": round(event.seconds, 6), "sha256": event.sha256, "error": event.error,
    })  # fmt: skip


def _text(path: bytes) -> str:
    return path[:_TEXT_CHARACTERS].decode(errors="surrogateescape")


def _debug(line: str) -> None:
    _report({"debug": line[:_TEXT_CHARACTERS]})


def _ignore(_line: str) -> None:
    pass


def _report(what: dict[str, object]) -> None:
    line = memoryview(json.dumps(what).encode() + b"\n")
    with contextlib.suppress(OSError):  # the server is gone, or has heard enough
        while line:
            line = line[os.write(_REPORTS, line) :]


def _write(data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
