"""Speaks to an `SftpServer` without a connection."""

from __future__ import annotations

from dunnart.sftp import SftpServer


def feed(server: SftpServer, data: bytes) -> None:
    """Hand bytes over, as many at a time as there is room for."""
    while data:
        room = server.room()
        taken = min(len(room), len(data))
        room[:taken] = data[:taken]
        server.received(taken)
        data = data[taken:]


def taken(server: SftpServer) -> list[bytes]:
    """Take the answers: whole packets, given without their lengths."""
    data, answers = bytes(server.answers), []
    server.taken()
    while data:
        size = int.from_bytes(data[:4], "big")
        assert len(data) >= 4 + size
        answers.append(data[4 : 4 + size])
        data = data[4 + size :]
    return answers
