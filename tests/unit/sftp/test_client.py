"""SFTP's client side: any chunking of answers gives the same, and a hostile server gets nothing but an error."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import DecodeError, DunnartError, LimitExceeded, LocalProtocolError
from dunnart.sftp import Attributes, LocalFiles, OpenMode, SftpClient, SftpServer, messages
from dunnart.sftp.client import Request
from dunnart.wire.encoding import Reader, string, uint32, uint64

NOTHING = uint32(0)
VERSION = uint32(5) + bytes((messages.VERSION_ANSWER,)) + uint32(3)


def packet(kind: int, number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return uint32(5 + len(body)) + bytes((kind,)) + uint32(number) + body


def status(number: int, code: int, text: bytes = b"") -> bytes:
    return packet(messages.STATUS, number, uint32(code), string(text), string(b""))


def begun(*extensions: bytes) -> SftpClient:
    client = SftpClient()
    assert b"".join(client.to_send) == uint32(5) + b"\x01" + uint32(3)
    client.to_send = []
    said = b"".join(string(name) + string(dict(messages.EXTENSIONS)[name]) for name in extensions)
    assert client.receive(uint32(5 + len(said)) + bytes((messages.VERSION_ANSWER,)) + uint32(3) + said) == []
    assert client.begun
    return client


def answered(client: SftpClient, data: bytes, request: Request[object]) -> object:
    ((found, result),) = client.receive(data)
    assert found is request
    return result


def exchange(client: SftpClient, server: SftpServer) -> bytes:
    said = b"".join(client.to_send)
    client.to_send = []
    server.room()[: len(said)] = said
    server.received(len(said))
    data = bytes(server.answers)
    server.taken()
    return data


def talk(client: SftpClient, server: SftpServer, request: Request[object]) -> object:
    return answered(client, exchange(client, server), request)


def test_with_our_server(tmp_path: Path) -> None:
    client, server = SftpClient(), SftpServer(LocalFiles(start=str(tmp_path)))
    assert client.receive(exchange(client, server)) == []
    assert client.extensions == {name for name, _ in messages.EXTENSIONS}
    mode = OpenMode(read=True, write=True, create=True)
    handle = talk(client, server, client.open(b"f\xff", mode, Attributes(mode=0o640)))
    assert isinstance(handle, bytes)
    assert talk(client, server, client.write(handle, 5 << 30, b"far")) is None
    assert talk(client, server, client.read(handle, (5 << 30) - 1, 100)) == b"\0far"
    assert talk(client, server, client.read(handle, (5 << 30) + 3, 100)) == b""
    found = talk(client, server, client.stat_handle(handle))
    assert isinstance(found, Attributes)
    assert (found.size, found.is_file, (found.mode or 0) & 0o777) == ((5 << 30) + 3, True, 0o640)
    assert talk(client, server, client.close(handle)) is None
    assert talk(client, server, client.make_link(b"f\xff", b"link", symbolic=True)) is None
    assert os.readlink(os.fsencode(tmp_path) + b"/link") == b"f\xff"
    assert talk(client, server, client.read_link(b"link")) == b"f\xff"
    missing = talk(client, server, client.stat(b"no"))
    assert isinstance(missing, FileNotFoundError)
    assert (missing.filename, missing.strerror) == ("no", os.strerror(errno.ENOENT))
    assert isinstance(talk(client, server, client.make_directory(b"link")), FileExistsError)
    assert client.waiting == 0


@given(st.data())
def test_any_chunking_gives_the_same(data: st.DataObject) -> None:
    client = begun(messages.LIMITS)
    requests: list[Request[object]] = [
        client.read(b"h", 0, 1000), client.open_directory(b"d"), client.read_directory(b"d"), client.stat(b"p"),
        client.limits(), client.remove(b"p"), client.real_path(b"."), client.read(b"h", 9, 10),
    ]  # fmt: skip
    name = string(b"n\xff") + string(b"long") + uint32(4) + uint32(0o100644)
    answers = [
        packet(messages.DATA, 0, string(b"x" * 900)), packet(messages.HANDLE, 1, string(b"\0\1")),
        packet(messages.NAME, 2, uint32(2), name, name), packet(messages.ATTRS, 3, uint32(1) + uint64(7)),
        packet(messages.EXTENDED_ANSWER, 4, b"".join(map(uint64, (1 << 40, 5000, 0, 7)))),
        status(5, 3, b"no"), packet(messages.NAME, 6, uint32(1), string(b"/r"), string(b""), NOTHING),
        status(7, messages.EOF),
    ]  # fmt: skip
    order = data.draw(st.permutations(range(len(answers))))
    stream = b"".join(answers[number] for number in order)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=20)))
    results: dict[int, object] = {}
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for request, result in client.receive(stream[start:end]):
            results[request.number] = result
    assert [request.number for request in requests] == list(range(8))
    assert results[0] == b"x" * 900
    assert results[1] == b"\0\1"
    names = results[2]
    assert isinstance(names, tuple)
    assert [(each.name, each.attributes.mode) for each in names] == [(b"n\xff", 0o100644)] * 2
    assert results[3] == Attributes(size=7)
    limits = results[4]
    assert (getattr(limits, "packet_bytes", 0), getattr(limits, "read_bytes", 0)) == (messages.PACKET_BYTES, 5000)
    assert getattr(limits, "write_bytes", 0) == messages.DATA_BYTES
    assert isinstance(results[5], PermissionError)
    assert str(results[5]) == f"[Errno {errno.EACCES}] no: 'p'"
    assert results[6] == b"/r"
    assert results[7] == b""
    assert client.waiting == 0


@pytest.mark.parametrize(
    ("code", "text", "number"),
    [
        (2, b"gone", errno.ENOENT), (3, b"", errno.EACCES), (4, b"Failure", errno.EIO),
        (4, os.strerror(errno.ENOSPC).encode(), errno.ENOSPC), (4, b"Directory not empty", errno.ENOTEMPTY),
        (5, b"", errno.EINVAL), (8, b"", errno.EOPNOTSUPP), (11, b"", errno.EEXIST), (99, b"odd", errno.EIO),
        (1, b"", errno.EIO),
    ],
)  # fmt: skip
def test_a_status_is_an_error_with_the_servers_text(code: int, text: bytes, number: int) -> None:
    client = begun()
    error = answered(client, status(0, code, text), client.remove(b"p"))
    assert isinstance(error, OSError)
    assert type(error) is type(OSError(number, ""))
    assert (error.errno, error.strerror) == (number, text.decode() or os.strerror(number))


def test_a_status_without_text_is_understood() -> None:
    client = begun()
    assert isinstance(answered(client, packet(messages.STATUS, 0, uint32(2)), client.remove(b"p")), FileNotFoundError)


asked: dict[str, Callable[[SftpClient], Request[object]]] = {
    "read": lambda client: client.read(b"h", 0, 10),
    "open": lambda client: client.open(b"p", OpenMode(read=True)),
    "list": lambda client: client.read_directory(b"h"),
    "stat": lambda client: client.stat(b"p"),
    "remove": lambda client: client.remove(b"p"),
    "real_path": lambda client: client.real_path(b"p"),
    "limits": lambda client: client.limits(),
    "names": lambda client: client.names_of_numbers((1, 2), ()),
}


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("read", packet(messages.DATA, 1, string(b"x"))),  # to nobody
        ("read", packet(messages.DATA, 0, string(b"x" * 11))),  # more than was asked for
        ("read", packet(messages.DATA, 0, string(b""))),
        ("read", packet(messages.DATA, 0, uint32(9) + b"x")),
        ("read", packet(messages.DATA, 0, string(b"x"), b"rest")),
        ("read", packet(messages.HANDLE, 0, string(b"x"))),
        ("read", status(0, messages.OK)),
        ("open", status(0, messages.OK)),
        ("open", packet(messages.HANDLE, 0, string(b"x" * 257))),
        ("stat", packet(messages.ATTRS, 0, uint32(0x80000000), uint32(0xFFFFFFFF))),
        ("stat", packet(messages.NAME, 0, uint32(0))),
        ("remove", packet(messages.DATA, 0, string(b""))),
        ("remove", packet(messages.STATUS, 0)),
        ("remove", packet(77, 0)),
        ("list", packet(messages.NAME, 0, uint32(0xFFFFFFFF))),  # a count that lies
        ("real_path", packet(messages.NAME, 0, uint32(2), *[string(b"a"), string(b"a"), NOTHING] * 2)),
        ("real_path", packet(messages.NAME, 0, uint32(0))),
        ("real_path", packet(messages.NAME, 0, uint32(1), string(b"a\0"), string(b""), NOTHING)),
        ("limits", packet(messages.EXTENDED_ANSWER, 0, uint64(1))),
        ("names", packet(messages.EXTENDED_ANSWER, 0, string(string(b"a")), string(b""))),
        *(
            ("list", packet(messages.NAME, 0, uint32(1), string(name), string(b""), NOTHING))
            for name in (b"", b"/etc/passwd", b"../x", b"a/b", b"a\0b", b"x" * 5000)
        ),
    ],
)
def test_an_answer_that_cannot_be_ends_the_session(what: str, answer: bytes) -> None:
    client = begun(messages.LIMITS, messages.USERS_GROUPS_BY_ID)
    asked[what](client)
    with pytest.raises(DecodeError):
        client.receive(answer)
    with pytest.raises(DecodeError):
        client.receive(b"")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (uint32(0), LimitExceeded),
        (uint32(messages.PACKET_BYTES + 1), LimitExceeded),
        (uint32(0xFFFFFFFF), LimitExceeded),
        (uint32(5) + b"\x65" + uint32(3), DecodeError),
        (uint32(5) + b"\x02" + uint32(2), DecodeError),
        (uint32(5) + b"\x02" + uint32(6), DecodeError),
        (uint32(7) + b"\x02" + uint32(3) + b"\0\0", DecodeError),
        (b"Welcome to the server!\n", LimitExceeded),
    ],
)
def test_what_is_no_sftp_is_refused_at_once(said: bytes, error: type[DunnartError]) -> None:
    with pytest.raises(error):
        SftpClient().receive(said)


def test_extensions_count_only_in_the_version_that_is_known() -> None:
    client = SftpClient()
    said = b"".join(map(string, (b"posix-rename@openssh.com", b"1", b"statvfs@openssh.com", b"3", b"odd", b"1")))
    client.receive(uint32(5 + len(said)) + b"\x02" + uint32(3) + said)
    assert client.extensions == {b"posix-rename@openssh.com"}
    with pytest.raises(OSError, match=r"statvfs@openssh\.com") as failed:
        client.statvfs(b"/")
    assert failed.value.errno == errno.EOPNOTSUPP
    assert client.waiting == 0


def test_what_a_caller_may_not_do() -> None:
    with pytest.raises(LocalProtocolError):
        SftpClient().stat(b"p")
    client = begun()
    for wrong in (0, messages.DATA_BYTES + 1):
        with pytest.raises(LocalProtocolError):
            client.read(b"h", 0, wrong)
    with pytest.raises(LocalProtocolError):
        client.write(b"h", 0, bytes(messages.DATA_BYTES + 1))
    with pytest.raises(OSError, match="too long"):
        client.stat(b"x" * messages.PACKET_BYTES)
    assert client.waiting == 0
    assert client.to_send == []


def test_numbers_of_waiting_requests_are_not_given_twice() -> None:
    client = begun()
    first = client.remove(b"a")
    client._next = (1 << 32) - 1
    assert [client.remove(b"b").number, client.remove(b"c").number] == [(1 << 32) - 1, 1]
    assert first.number == 0


@given(st.binary(max_size=300))
def test_garbage_is_an_error_or_waits(data: bytes) -> None:
    client = begun()
    client.read(b"h", 0, 100)
    client.read_directory(b"h")
    for said in (data, packet(messages.NAME, 1, data), packet(messages.STATUS, 0, data)):
        try:
            client.receive(said)
        except (DecodeError, LimitExceeded):
            return


def test_packets_are_what_the_draft_says() -> None:
    client = begun(messages.POSIX_RENAME)
    client.rename(b"a", b"b", replace=True)
    client.open(b"f", OpenMode(write=True, create=True, truncate=True), Attributes(mode=0o600))
    client.make_link(b"target", b"link", symbolic=True)
    rename, opened, link = (Reader(sent, 4) for sent in client.to_send)
    assert (rename.byte(), rename.uint32(), rename.string()) == (messages.EXTENDED, 0, messages.POSIX_RENAME)
    assert (rename.string(), rename.string(), rename.remaining) == (b"a", b"b", 0)
    assert (opened.byte(), opened.uint32(), opened.string(), opened.uint32()) == (messages.OPEN, 1, b"f", 0x1A)
    assert (opened.uint32(), opened.uint32(), opened.remaining) == (4, 0o600, 0)
    assert (link.byte(), link.uint32(), link.string(), link.string()) == (messages.SYMLINK, 2, b"target", b"link")
