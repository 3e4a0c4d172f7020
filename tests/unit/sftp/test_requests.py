"""What a client may ask for: the rest is refused with the right status, and is not advertised."""

from __future__ import annotations

from pathlib import Path

import pytest

from dunnart.sftp import LocalFiles, SftpServer
from dunnart.sftp.messages import EXTENDED, EXTENSIONS, INIT, PERMISSION_DENIED, READ, REQUESTS
from dunnart.wire.encoding import Reader, string, uint32
from tests.unit.sftp.driver import feed, taken


def ask(server: SftpServer, kind: int, body: bytes) -> Reader:
    feed(server, uint32(1 + len(body)) + bytes((kind,)) + body)
    (answer,) = taken(server)
    return Reader(answer[1:])


def advertised(server: SftpServer) -> list[bytes]:
    answer = ask(server, INIT, uint32(3))
    answer.uint32()
    found = []
    while answer.remaining:
        found.append(answer.string())
        answer.string()
    return found


@pytest.mark.parametrize("name", REQUESTS)
def test_each_can_be_denied_alone(tmp_path: Path, name: str) -> None:
    refused: list[str] = []
    server = SftpServer(LocalFiles(str(tmp_path)), requests=REQUESTS.keys() - {name}, refused=refused.append)
    kind = REQUESTS[name]
    assert advertised(server) == [extension for extension, _ in EXTENSIONS if extension != kind]
    for other in REQUESTS.values():
        body = uint32(7) + (string(other) if isinstance(other, bytes) else b"")
        answer = ask(server, EXTENDED if isinstance(other, bytes) else other, body)
        answer.uint32()
        assert (answer.uint32() == PERMISSION_DENIED) is (other == kind), other
    assert refused == [name]


def test_reading_is_as_ever_without_a_list(tmp_path: Path) -> None:
    server = SftpServer(LocalFiles(str(tmp_path)))
    assert len(advertised(server)) == len(EXTENSIONS)
    answer = ask(server, READ, uint32(7))
    answer.uint32()
    assert answer.uint32() != PERMISSION_DENIED


def test_a_name_that_is_none_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'renam' is no request"):
        SftpServer(LocalFiles(str(tmp_path)), requests=["open", "renam"])
