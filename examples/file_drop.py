"""A drop box: anybody may upload, nobody sees what is there, and the program learns of each file that is complete.

    python examples/file_drop.py --folder inbox
    scp -P 2222 report.csv 127.0.0.1:

Each visitor gets a new folder below `inbox`, where files appear when they are complete and not before.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import dunnart
from dunnart.sftp import Atomic, FileEvent, FileSystem, LocalFiles, NameFilter, Observed, Quota

_REQUESTS = ("open", "write", "close", "fstat", "fsetstat", "stat", "lstat", "realpath", "mkdir", "setstat", "limits")
_MEBIBYTE = 1 << 20


def drop_box(inbox: Path) -> Callable[[dunnart.RawSession], FileSystem]:
    """Make the function that gives each session its files.

    Args:
        inbox: where they are kept.
    """

    def files(session: dunnart.RawSession) -> FileSystem:
        folder = Path(tempfile.mkdtemp(prefix=f"{session.connection_id}-", dir=inbox))

        def tell(event: FileEvent) -> None:
            name = event.path.decode(errors="backslashreplace")
            if event.error:
                print(f"{session.peer}: {event.kind} {name!r} failed: {event.error}", flush=True)
            elif event.kind == "uploaded":
                print(f"{session.peer}: {folder.name}{name} {event.size} bytes {event.sha256}", flush=True)

        kept = Quota(LocalFiles(str(folder)), largest_bytes=100 * _MEBIBYTE, most_files=100)
        return Observed(NameFilter(Atomic(kept), deny=[".*", "*.exe"]), tell, digest=True)

    return files


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="Take files from anybody.")
    parser.add_argument("--port", type=int, default=2222)
    parser.add_argument("--folder", default="inbox", help="where the files are kept")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    inbox = Path(options.folder)
    inbox.mkdir(exist_ok=True)
    server = dunnart.Server(
        subsystems={"sftp": dunnart.SftpHandler(drop_box(inbox), requests=_REQUESTS)},
        host_keys=[dunnart.PrivateKey.load_or_generate("example_host_key")],
        authenticators=[dunnart.AllowAnyone()],  # it is a letter box
        listen=f"127.0.0.1:{options.port}",
    )
    print(f"scp -P {options.port} FILE 127.0.0.1:")
    server.run()


if __name__ == "__main__":
    main()
