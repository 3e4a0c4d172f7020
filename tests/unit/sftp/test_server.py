"""SFTP's server side over real folders: what goes wrong is a status, and nothing leads outside a root."""

from __future__ import annotations

import errno
import gc
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dunnart.errors import DecodeError, LimitExceeded
from dunnart.sftp import Atomic, FileSystem, LocalFiles, MemoryFiles, Quota, ReadOnly, SftpServer, serve
from dunnart.sftp.messages import (
    BAD_MESSAGE,
    EOF,
    FAILURE,
    NO_SUCH_FILE,
    OK,
    OP_UNSUPPORTED,
    PERMISSION_DENIED,
    sends_link_first,
)  # fmt: skip
from dunnart.sftp.server import HANDLES
from dunnart.wire.encoding import Reader, string, uint32, uint64
from tests.unit.sftp.driver import feed, taken

OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK, EXTENDED = 13, 14, 15, 16, 17, 18, 19, 20, 200
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201
FOR_READING, FOR_WRITING, CREATING = 1, 2, 8
NOTHING = uint32(0)
HUGE = (1 << 64) - 1


def size(count: int) -> bytes:
    return uint32(1) + uint64(count)


class Client:
    """Speaks to a server without a connection."""

    def __init__(self, files: FileSystem, *, link_first: bool = False) -> None:
        self.server = SftpServer(files, link_first=link_first)
        assert self.send(1, uint32(3))[0][0] == 2
        self.requests = 0

    def send(self, kind: int, body: bytes) -> list[bytes]:
        feed(self.server, uint32(1 + len(body)) + bytes((kind,)) + body)
        return self.taken()

    def taken(self) -> list[bytes]:
        return taken(self.server)

    def ask(self, kind: int, *parts: bytes) -> tuple[int, Reader]:
        self.requests += 1
        (answer,) = self.send(kind, uint32(self.requests) + b"".join(parts))
        reader = Reader(answer[1:])
        assert reader.uint32() == self.requests
        return answer[0], reader

    def status(self, kind: int, *parts: bytes) -> int:
        answered, reader = self.ask(kind, *parts)
        return reader.uint32() if answered == STATUS else -answered

    def handle(self, kind: int, *parts: bytes) -> bytes:
        answered, reader = self.ask(kind, *parts)
        assert answered == HANDLE
        return string(reader.string())

    def open(self, path: bytes, flags: int) -> bytes:
        return self.handle(OPEN, string(path), uint32(flags), NOTHING)

    def name(self, kind: int, *parts: bytes) -> bytes:
        answered, reader = self.ask(kind, *parts)
        assert answered == NAME
        assert reader.uint32() == 1
        return reader.string()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    return made


@pytest.fixture
def client(folder: Path) -> Client:
    return Client(LocalFiles(str(folder)))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_is_written_is_read(client: Client, folder: Path) -> None:
    handle = client.open(b"/f\xff\n", FOR_READING | FOR_WRITING | CREATING)
    assert client.status(WRITE, handle, uint64(5 << 30), string(b"far")) == OK
    answered, reader = client.ask(READ, handle, uint64((5 << 30) - 1), uint32(100))
    assert (answered, reader.string()) == (DATA, b"\0far")
    assert client.status(READ, handle, uint64((5 << 30) + 3), uint32(100)) == EOF
    assert client.status(CLOSE, handle) == OK
    assert client.status(CLOSE, handle) == NO_SUCH_FILE
    assert os.listdir(os.fsencode(folder)) == [b"f\xff\n"]


def test_what_comes_after_written_data_is_skipped(client: Client, folder: Path) -> None:
    """Go's sftp, and with it rclone, sends all of its buffer with a last piece that does not fill it."""
    handle = client.open(b"/f", FOR_WRITING | CREATING)
    assert client.status(WRITE, handle, uint64(0), string(b"data"), bytes(100)) == OK
    assert (folder / "f").read_bytes() == b"data"
    assert client.status(CLOSE, handle, b"more") == BAD_MESSAGE


@pytest.mark.parametrize(
    ("version", "link_first"),
    [("AsyncSSH_2.24.1", True), ("libssh_0.11.1", True), ("libssh-0.5.2", True), ("WinSCP_release_6.5.1", True),
     ("OpenSSH_10.0", False), ("libssh2_1.11.1", False), ("paramiko_4.0.0", False)],
)  # fmt: skip
def test_some_clients_name_the_link_before_its_target(folder: Path, version: str, link_first: bool) -> None:
    """Those that look for OpenSSH in the server's version, and do not find it."""
    client = Client(LocalFiles(str(folder)), link_first=sends_link_first(f"SSH-2.0-{version}"))
    paths = [b"/link", b"target"] if link_first else [b"target", b"/link"]
    assert client.status(SYMLINK, *map(string, paths)) == OK
    assert os.readlink(folder / "link") == "target"


@pytest.mark.parametrize("kind", [*range(2, 21), EXTENDED, 99, 255])
def test_a_short_request_is_a_status(client: Client, kind: int) -> None:
    answers = client.send(kind, uint32(7) + b"\xff\xff")
    wanted = BAD_MESSAGE if kind in {*range(3, 21), EXTENDED} else OP_UNSUPPORTED
    assert [(answer[0], struct.unpack(">II", answer[1:9])) for answer in answers] == [(STATUS, (7, wanted))]
    assert client.name(REALPATH, string(b".")) == b"/"


def test_what_is_no_sftp_ends_the_session(folder: Path) -> None:
    for said, error in (
        (uint32(5) + b"\x03" + uint32(1), DecodeError),  # no INIT first
        (uint32(5) + b"\x01" + uint32(2), DecodeError),
        (uint32(0), LimitExceeded),
        (uint32(1 << 31), LimitExceeded),
        (uint32(5) + b"\x01" + uint32(3) + uint32(2) + b"\x03\0", DecodeError),  # no number to answer to
    ):
        with pytest.raises(error):
            feed(SftpServer(LocalFiles(str(folder))), said)


def test_absurd_numbers_are_a_status(client: Client, folder: Path) -> None:
    (folder / "f").write_bytes(b"x")
    (folder / "g").write_bytes(b"y")
    one, other = client.open(b"/f", FOR_READING), client.open(b"/g", FOR_WRITING)
    assert client.status(SETSTAT, string(b"/f"), size(HUGE)) == FAILURE
    assert client.status(FSETSTAT, other, size(HUGE)) == FAILURE
    assert client.status(READ, one, uint64(HUGE), uint32(1)) == BAD_MESSAGE
    assert client.status(WRITE, other, uint64(HUGE), string(b"x")) == FAILURE
    copy = string(b"copy-data")
    assert client.status(EXTENDED, copy, one, uint64(HUGE), uint64(1), other, uint64(0)) == FAILURE
    assert client.status(EXTENDED, copy, one, uint64(0), uint64(1), other, uint64(HUGE)) == FAILURE
    assert client.status(SETSTAT, string(b"/f"), uint32(0x80000000) + uint32(0xFFFFFFFF)) == BAD_MESSAGE
    assert (folder / "f").read_bytes() == b"x"


def test_names_that_cannot_be(client: Client) -> None:
    for kind in (LSTAT, OPENDIR, REMOVE, RMDIR, REALPATH, STAT, READLINK):
        assert client.status(kind, string(b"/a\0b")) == BAD_MESSAGE
        assert client.status(kind, string(b"a/" * 100_000)) == BAD_MESSAGE
    assert client.status(SYMLINK, string(b"a\0b"), string(b"/l")) == BAD_MESSAGE


def test_homes_of_nobody(folder: Path) -> None:
    client = Client(LocalFiles(start=str(folder)))
    for name in (b"no\0body", b"\xff", b"no such user"):
        assert client.status(EXTENDED, string(b"home-directory"), string(name)) == NO_SUCH_FILE
        assert client.status(EXTENDED, string(b"expand-path@openssh.com"), string(b"~" + name)) == NO_SUCH_FILE
    assert client.name(EXTENDED, string(b"expand-path@openssh.com"), string(b"~/x")) == os.fsencode(folder / "x")


def test_fifos_do_not_hang(client: Client, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    handle = client.open(b"/fifo", FOR_READING)
    assert client.status(READ, handle, uint64(0), uint32(10)) == FAILURE
    assert client.status(CLOSE, handle) == OK
    assert client.status(OPEN, string(b"/fifo"), uint32(FOR_WRITING), NOTHING) == FAILURE
    assert client.status(SETSTAT, string(b"/fifo"), size(0)) == FAILURE


def test_handles_end_and_come_back(client: Client, folder: Path) -> None:
    (folder / "f").write_bytes(b"")
    gc.collect()  # what other tests have left closes its descriptors now
    before = descriptors()
    handles = [client.open(b"/f", FOR_READING) for _ in range(HANDLES - 1)]
    handles.append(client.handle(OPENDIR, string(b"/")))
    assert len(set(handles)) == HANDLES
    assert client.status(OPEN, string(b"/f"), uint32(FOR_READING), NOTHING) == FAILURE
    assert client.status(OPENDIR, string(b"/")) == FAILURE
    for handle in handles[-10:]:
        assert client.status(CLOSE, handle) == OK
    assert descriptors() == before + HANDLES - 10
    client.server.close()
    assert descriptors() <= before


def test_listings(client: Client, folder: Path) -> None:
    names = {f"{number}{'x' * 50}".encode() for number in range(2000)}
    for name in names:
        (folder / os.fsdecode(name)).touch()
    handle = client.handle(OPENDIR, string(b"/"))
    found: list[bytes] = []
    while (answer := client.ask(READDIR, handle))[0] == NAME:
        for _ in range(answer[1].uint32()):
            found.append(answer[1].string())
            answer[1].string()
            assert answer[1].uint32() == 15
            for _ in range(7):
                answer[1].uint32()
    assert answer[1].uint32() == EOF
    assert sorted(found) == sorted(names | {b".", b".."})
    assert client.status(READ, handle, uint64(0), uint32(1)) == NO_SUCH_FILE


def test_read_only_changes_nothing(folder: Path) -> None:
    (folder / "f").write_bytes(b"x")
    os.chmod(folder / "f", 0o640)
    client = Client(ReadOnly(LocalFiles(str(folder))))
    path, other = string(b"/f"), string(b"/g")
    handle = client.open(b"/f", FOR_READING)
    mode = uint32(4) + uint32(0o777)
    denied = (
        client.status(FSETSTAT, handle, mode), client.status(SETSTAT, path, mode), client.status(REMOVE, path),
        client.status(MKDIR, other, NOTHING), client.status(RMDIR, other), client.status(RENAME, path, other),
        client.status(SYMLINK, path, other), client.status(EXTENDED, string(b"hardlink@openssh.com"), path, other),
        client.status(EXTENDED, string(b"posix-rename@openssh.com"), path, other),
        client.status(EXTENDED, string(b"lsetstat@openssh.com"), path, mode),
        *(client.status(OPEN, path, uint32(flags), NOTHING) for flags in (2, 3, 5, 9, 17)),
    )  # fmt: skip
    assert set(denied) == {PERMISSION_DENIED}
    assert client.status(WRITE, handle, uint64(0), string(b"y")) == NO_SUCH_FILE
    assert os.listdir(folder) == ["f"]
    assert (folder / "f").read_bytes() == b"x"
    assert stat.S_IMODE((folder / "f").stat().st_mode) == 0o640


@pytest.mark.parametrize("rooted", [True, False])
def test_attributes_of_a_link_are_its_own(folder: Path, rooted: bool) -> None:
    (folder / "f").write_bytes(b"x")
    os.chmod(folder / "f", 0o640)
    (folder / "link").symlink_to("f")
    client = Client(LocalFiles(str(folder)) if rooted else LocalFiles(start=str(folder)))
    change = string(b"lsetstat@openssh.com"), string(b"link")
    assert client.status(EXTENDED, *change, uint32(4) + uint32(0o777)) == OP_UNSUPPORTED
    assert client.status(EXTENDED, *change, size(0)) == BAD_MESSAGE
    assert client.status(EXTENDED, *change, uint32(8) + uint32(1) + uint32(2)) == OK
    assert (folder / "link").lstat().st_mtime == 2
    assert (folder / "f").stat().st_mtime != 2
    assert stat.S_IMODE((folder / "f").stat().st_mode) == 0o640
    assert (folder / "f").read_bytes() == b"x"


def test_renaming_and_links(client: Client, folder: Path) -> None:
    (folder / "a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    assert client.status(RENAME, string(b"/a"), string(b"/b")) == FAILURE
    assert client.status(RENAME, string(b"/no"), string(b"/c")) == NO_SUCH_FILE
    assert client.status(EXTENDED, string(b"posix-rename@openssh.com"), string(b"/a"), string(b"/b")) == OK
    assert (folder / "b").read_bytes() == b"a"
    assert client.status(SYMLINK, string(b"/b"), string(b"/link")) == OK  # the target first, as OpenSSH has it
    assert os.readlink(folder / "link") == "/b"
    assert client.name(READLINK, string(b"/link")) == b"/b"
    assert client.name(REALPATH, string(b"link")) == b"/b"


ways_out: list[Callable[[Path], bytes]] = [
    lambda _: b"/../secret",
    lambda _: b"../../../../secret",
    lambda _: b"/up/secret",
    lambda _: b"/deep/up/secret",
    lambda _: b"/out",
    lambda root: b"/absolute" + os.fsencode(root.parent) + b"/secret",
    lambda root: os.fsencode(root.parent / "secret"),
]


@pytest.mark.parametrize("way", ways_out)
def test_no_path_leads_outside(client: Client, folder: Path, way: Callable[[Path], bytes]) -> None:
    (folder / "deep").mkdir()
    (folder / "deep/up").symlink_to("../..")
    (folder / "up").symlink_to("..")
    (folder / "out").symlink_to(folder.parent / "secret")
    (folder / "absolute").symlink_to("/")
    path = string(way(folder))
    for kind in (STAT, OPENDIR):
        assert client.status(kind, path) == NO_SUCH_FILE
    assert client.status(OPEN, path, uint32(FOR_READING), NOTHING) == NO_SUCH_FILE
    client.status(OPEN, path, uint32(FOR_WRITING | CREATING | 16), NOTHING)
    client.status(SETSTAT, path, uint32(4) + uint32(0))
    client.status(EXTENDED, string(b"hardlink@openssh.com"), path, string(b"/stolen"))
    client.status(RENAME, path, string(b"/moved"))
    client.status(REMOVE, path)
    assert (folder.parent / "secret").read_bytes() == b"secret"
    assert {entry.name for entry in folder.parent.iterdir()} == {"root", "secret"}


def test_a_root_is_let_go_of(folder: Path) -> None:
    before = descriptors()
    files = LocalFiles(str(folder))
    assert descriptors() == before + 1
    del files
    assert descriptors() <= before


def test_loops_end(client: Client, folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    before = descriptors()
    assert client.status(STAT, string(b"/a")) == NO_SUCH_FILE
    assert client.status(STAT, string(b"/a/x")) == NO_SUCH_FILE
    assert descriptors() <= before


def test_swapping_a_folder_for_a_link_leads_nowhere(client: Client, folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"outside")
    (folder / "d").mkdir()
    (folder / "d/f").write_bytes(b"inside")
    (folder / "link").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for one, other in (("d", "kept"), ("link", "d"), ("d", "link"), ("kept", "d")):
                os.rename(folder / one, folder / other)

    swapping = threading.Thread(target=swap)
    swapping.start()
    read = set()
    try:
        for _ in range(3000):
            answered, reader = client.ask(OPEN, string(b"/d/f"), uint32(FOR_READING | FOR_WRITING), NOTHING)
            if answered == HANDLE:
                handle = string(reader.string())
                read.add(client.ask(READ, handle, uint64(0), uint32(10))[1].string())
                assert client.status(CLOSE, handle) == OK
            client.status(OPEN, string(b"/d/new"), uint32(FOR_WRITING | CREATING), NOTHING)
            client.status(SETSTAT, string(b"/d/f"), uint32(4) + uint32(0o600))
            client.server.close()
    finally:
        done.set()
        swapping.join()
    assert read == {b"inside"}
    assert [entry.name for entry in outside.iterdir()] == ["f"]


def test_a_client_that_does_not_read_is_not_answered_without_end(client: Client, folder: Path) -> None:
    (folder / "f").write_bytes(bytes(1 << 20))
    handle = client.open(b"/f", FOR_READING)
    body = handle + uint64(0) + uint32(32768)
    packets = b"".join(uint32(5 + len(body)) + bytes((READ,)) + uint32(each) + body for each in range(64))
    feed(client.server, packets)
    answers = client.taken()
    assert 0 < len(answers) < 64
    while client.server.go_on():
        answers += client.taken()
    answers += client.taken()
    assert [int.from_bytes(answer[1:5], "big") for answer in answers] == list(range(64))


def test_serving_a_socket(folder: Path) -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(LocalFiles(str(folder)), theirs.fileno(), theirs.fileno()))
    thread.start()
    with ours, theirs:
        path = string(b"/")
        requests = b"".join(uint32(5 + len(path)) + bytes((LSTAT,)) + uint32(each) + path for each in range(20_000))
        sending = threading.Thread(target=ours.sendall, args=(uint32(5) + b"\x01" + uint32(3) + requests,))
        sending.start()
        with ours.makefile("rb") as answers:
            answers.read(int.from_bytes(answers.read(4), "big"))
            for each in range(20_000):
                answer = answers.read(int.from_bytes(answers.read(4), "big"))
                assert (answer[0], int.from_bytes(answer[1:5], "big")) == (ATTRS, each)
        sending.join()
        ours.shutdown(socket.SHUT_WR)
        thread.join()


def test_reading_nothing_gives_nothing(client: Client, folder: Path) -> None:
    """As OpenSSH has it: no end of the file, even there."""
    (folder / "f").write_bytes(b"x")
    handle = client.open(b"/f", FOR_READING)
    for offset in (0, 1, 1000):
        answered, reader = client.ask(READ, handle, uint64(offset), uint32(0))
        assert (answered, reader.string()) == (DATA, b"")


def test_names_of_numbers_are_bounded(client: Client) -> None:
    asked = string(b"users-groups-by-id@openssh.com")
    root, nobody = uint32(0), uint32(0xFFFFFFF0)
    answered, reader = client.ask(EXTENDED, asked, string(root + nobody), string(root))
    assert answered == EXTENDED_REPLY
    assert [reader.string(), reader.string()] == [string(b"root") + string(b""), string(b"root")]
    most = string(nobody * 2048)
    assert client.ask(EXTENDED, asked, most, most)[0] == EXTENDED_REPLY
    assert client.status(EXTENDED, asked, most, string(nobody * 2049)) == FAILURE


def test_of_100_000_entries_only_those_are_taken_that_are_answered(folder: Path) -> None:
    status = os.stat(folder)
    pulled = 0

    class Many(LocalFiles):
        def scan(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
            nonlocal pulled
            for pulled in range(1, 100_001):
                yield b"%060d" % pulled, status

    client = Client(Many(str(folder)))
    handle = client.handle(OPENDIR, string(b"/"))
    count = 0
    while (answer := client.ask(READDIR, handle))[0] == NAME:
        assert answer[1].remaining < 64 * 1024
        count += answer[1].uint32()
        assert pulled == count
    assert (answer[1].uint32(), count) == (EOF, 100_000)


def test_errors_are_told_briefly() -> None:
    class Wordy(MemoryFiles):
        def remove(self, path: bytes) -> None:
            raise PermissionError(13, "\ufffd" * 300_000)

    answered, reader = Client(Wordy()).ask(REMOVE, string(b"/f"))
    assert (answered, reader.uint32()) == (STATUS, PERMISSION_DENIED)
    assert 0 < len(reader.string()) < 5000


def test_a_copy_ends_when_nobody_waits_for_it(folder: Path) -> None:
    with (folder / "holes").open("wb") as file:
        file.truncate(1 << 42)  # reading it all takes many minutes
    requests, answers = os.pipe(), os.pipe()
    ended: list[type[BaseException]] = []

    def work() -> None:
        try:
            serve(LocalFiles(), requests[0], answers[1])
        except OSError as error:
            ended.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    opened = [
        uint32(1) + string(os.fsencode(folder / "holes")) + uint32(FOR_READING) + NOTHING,
        uint32(2) + string(b"/dev/null") + uint32(FOR_WRITING) + NOTHING,
    ]
    copy = string(b"copy-data") + string(uint32(1)) + uint64(0) + uint64(0) + string(uint32(2)) + uint64(0)
    packets = [b"\1" + uint32(3), *(bytes((OPEN,)) + body for body in opened), bytes((EXTENDED,)) + uint32(3) + copy]
    os.write(requests[1], b"".join(uint32(len(packet)) + packet for packet in packets))
    os.close(answers[0])
    thread.join(30)
    try:
        assert not thread.is_alive()
        assert ended == [BrokenPipeError]
    finally:
        os.truncate(folder / "holes", 0)
        os.close(requests[1])
        thread.join()
        os.close(requests[0])
        os.close(answers[1])


def test_a_file_is_not_copied_into_itself(client: Client, folder: Path) -> None:
    """By two handles it would grow for ever: what is read was written just before."""
    (folder / "f").write_bytes(b"data")
    read, write = client.open(b"/f", FOR_READING), client.open(b"/f", FOR_WRITING)
    where = (read, uint64(0), uint64(4), write, uint64(4))
    assert client.status(EXTENDED, string(b"copy-data"), *where) == BAD_MESSAGE
    assert (folder / "f").read_bytes() == b"data"


def test_a_rename_that_fails_leaves_one_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "f").write_bytes(b"data")
    unlink = os.unlink

    def refusing(name: bytes, *, dir_fd: int | None = None) -> None:
        if name == b"f":  # as in a folder where one may not write
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refusing)
    with pytest.raises(PermissionError):
        LocalFiles(str(folder)).rename(b"/f", b"/g", replace=False)
    assert os.listdir(folder) == ["f"]


@pytest.mark.parametrize("request_kind", [WRITE, EXTENDED])
def test_a_file_that_a_write_failed_for_gets_no_name(folder: Path, request_kind: int) -> None:
    """What refuses the write may stand before what stages the file, and so need not know of it."""
    (folder / "more").write_bytes(bytes(100))
    client = Client(Quota(Atomic(LocalFiles(str(folder))), largest_bytes=105))
    handle = client.open(b"/new", FOR_WRITING | CREATING)
    assert client.status(WRITE, handle, uint64(0), string(b"12345")) == OK
    if request_kind == WRITE:
        assert client.status(WRITE, handle, uint64(5), string(b"6")) == FAILURE
    else:
        copied = client.open(b"/more", FOR_READING)
        where = (copied, uint64(0), uint64(0), handle, uint64(5))
        assert client.status(EXTENDED, string(b"copy-data"), *where) == FAILURE
        assert client.status(CLOSE, copied) == OK
    assert client.status(CLOSE, handle) == FAILURE
    assert client.status(CLOSE, handle) == NO_SUCH_FILE
    assert os.listdir(folder) == ["more"]
