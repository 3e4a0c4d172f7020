"""Serves SFTP over a pair of descriptors, blocking: in a thread for a session's socket, in a program for its stdin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dunnart.sftp.server import SftpServer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dunnart.sftp.files import FileSystem

_READ_BYTES = 1 << 20
_PIECES = 64


def serve(
    files: FileSystem, source: int, target: int, *, requests: Collection[str] | None = None,
    refused: Callable[[str], None] | None = None,
) -> None:  # fmt: skip
    """Serve until the client ends its side.

    Args:
        files: what is served.
        source: where requests are read.
        target: where answers are written.
        requests: what a client may ask for, as `SftpServer` has it.
        refused: told the name of each request that it may not.

    Raises:
        DecodeError: the client sent what is no SFTP; so does LimitExceeded.
        OSError: the client is gone.
    """
    server = SftpServer(files, requests=requests, refused=refused)
    buffer = memoryview(bytearray(_READ_BYTES))
    try:
        while count := os.readv(source, [buffer]):
            server.receive(buffer[:count])
            _send(server, target)
            while server.go_on():
                _send(server, target)
            _send(server, target)
    finally:
        server.close()


def _send(server: SftpServer, target: int) -> None:
    answers = server.answers
    server.taken()
    at = 0
    while at < len(answers):
        sent = os.writev(target, answers[at : at + _PIECES])
        while at < len(answers) and sent >= len(answers[at]):
            sent -= len(answers[at])
            at += 1
        if sent:
            answers[at] = memoryview(answers[at])[sent:]
