"""Serves SFTP over a pair of descriptors, blocking: in a thread for a session's socket, in a program for its stdin."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from dunnart.sftp.server import SftpServer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dunnart.sftp.files import FileSystem


def serve(
    files: FileSystem, source: int, target: int, *, requests: Collection[str] | None = None,
    refused: Callable[[str], None] | None = None, link_first: bool = False, crowded: Callable[[], bool] = lambda: False,
) -> None:  # fmt: skip
    """Serve until the client ends its side.

    Args:
        files: what is served.
        source: where requests are read.
        target: where answers are written.
        requests: what a client may ask for, as `SftpServer` has it.
        refused: told the name of each request that it may not.
        link_first: the order of SYMLINK's arguments, as `SftpServer` has it.
        crowded: whether no more may be opened now, as `SftpServer` has it.

    Raises:
        DecodeError: the client sent what is no SFTP; so does LimitExceeded.
        OSError: the client is gone.
    """
    poll = select.poll()
    poll.register(target, 0)  # errors and the end of whoever reads are told unasked

    def gone() -> bool:
        return bool(poll.poll(0))

    server = SftpServer(files, requests=requests, refused=refused, link_first=link_first, gone=gone,
                        crowded=crowded)  # fmt: skip
    try:
        while count := os.readv(source, [server.room()]):
            more = server.received(count)
            _send(server, target)
            while more:
                more = server.go_on()
                _send(server, target)
    finally:
        server.close()


def _send(server: SftpServer, target: int) -> None:
    answers = server.answers
    while answers:
        answers = answers[os.write(target, answers) :]
    server.taken()
