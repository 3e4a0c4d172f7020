"""SCP's server side: what it says to a client's records, and what a hostile client gets out of it."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

import pytest

from dunnart.scp import Places, ScpCommand, serve
from dunnart.sftp import Atomic, Attributes, File, FileEvent, FileSystem, LocalFiles, MemoryFiles, Observed, OpenMode
from dunnart.sftp.layers.base import Layer, LayerFile


def run(
    folder: Path, command: str, said: bytes, *, chunk: int = 1 << 20, drives: dict[str, Path] | None = None,
    root: bool = True,
) -> tuple[int, bytes]:  # fmt: skip
    """Serve a client that says all of this without waiting for answers; gives the status and what it was answered."""
    given, answered = io.BytesIO(said), io.BytesIO()
    served = {letter: LocalFiles(str(path)) for letter, path in (drives or {}).items()}
    places = Places(LocalFiles(str(folder)) if root else None, served)

    def write(data: bytes | memoryview) -> None:
        answered.write(data)

    status = serve(ScpCommand.parse(command.encode()), places, lambda limit: given.read(min(limit, chunk)), write)
    return status, answered.getvalue()


@pytest.mark.parametrize(
    ("command", "parsed"),
    [
        ("scp -t /a", ScpCommand((b"/a",), sink=True)),
        ("/usr/bin/scp -r -p -d -v -t -- -x", ScpCommand((b"-x",), sink=True, recursive=True, preserve=True,
                                                         directory=True)),
        ("scp -prqf 'a b' c\\'d", ScpCommand((b"a b", b"c'd"), sink=False, recursive=True, preserve=True)),
        ('scp -f "x\ny"', ScpCommand((b"x\ny",), sink=False)),
    ],
)  # fmt: skip
def test_commands_are_read(command: str, parsed: ScpCommand) -> None:
    assert ScpCommand.parse(command.encode()) == parsed


def test_names_need_not_be_utf8() -> None:
    assert ScpCommand.parse(b"scp -t '\xff \xfe'").paths == (b"\xff \xfe",)


@pytest.mark.parametrize(
    "command",
    ["", "ls", "scp", "scp -t", "scp -f", "scp /a /b", "scp -t a b", "scp -tf a", "scp -S sh -t a", "scp -t 'a",
     "sh -c 'scp -t a'", "scpx -t a", "-scp -t a"],
)  # fmt: skip
def test_everything_else_is_refused(command: str) -> None:
    with pytest.raises(ValueError, match=r"scp|quotation"):
        ScpCommand.parse(command.encode())


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_a_tree_is_taken_with_times_and_modes(tmp_path: Path, chunk: int) -> None:
    said = (
        b"T1000000000 0 1000000001 0\nD0750 0 top\nT1000000002 0 1000000003 0\nC0640 5 a b\nhello\0"
        b"C4755 0 empty\n\0E\nC0600 3 last\nxyz\0"
    )
    status, answered = run(tmp_path, "scp -r -p -t /", said, chunk=chunk)
    assert (status, answered) == (0, b"\0" * 11)
    assert (tmp_path / "top/a b").read_bytes() == b"hello"
    assert (tmp_path / "last").read_bytes() == b"xyz"
    assert stat.S_IMODE((tmp_path / "top").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "top/a b").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "top/empty").stat().st_mode) == 0o755  # no setuid from a client
    assert int((tmp_path / "top/a b").stat().st_mtime) == 1000000002
    assert int((tmp_path / "top").stat().st_mtime) == 1000000000


def test_a_file_takes_the_targets_name_or_stands_in_the_target(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert run(tmp_path, "scp -t /new", b"C0644 1 x\n1\0")[0] == 0
    assert run(tmp_path, "scp -t /there", b"C0644 1 x\n2\0")[0] == 0
    assert ((tmp_path / "new").read_bytes(), (tmp_path / "there/x").read_bytes()) == (b"1", b"2")
    assert run(tmp_path, "scp -t /new", b"C0644 0 x\n\0")[0] == 0
    assert (tmp_path / "new").read_bytes() == b""  # shorter than before


def test_a_tree_is_sent(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir(mode=0o750)
    (tmp_path / "top/a\nb").write_bytes(b"hello")
    (tmp_path / "top/a\nb").chmod(0o640)
    for path in (tmp_path / "top/a\nb", tmp_path / "top"):
        os.utime(path, (2, 1))
    status, answered = run(tmp_path, "scp -r -p -f /top", b"\0" * 20)
    assert status == 0
    assert answered == b"T1 0 2 0\nD0750 0 top\nT1 0 2 0\nC0640 5 a\\^Jb\nhello\0E\n"


def test_wildcards_are_expanded_as_a_shell_would(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", ".c.txt", "d.bin", "[x]"):
        (tmp_path / name).write_bytes(name.encode())
    assert run(tmp_path, "scp -f '/*.txt'", b"\0" * 20)[1] == b"C0644 5 a.txt\na.txt\0C0644 5 b.txt\nb.txt\0"
    assert run(tmp_path, "scp -f '/[x]'", b"\0" * 20)[1] == b"C0644 3 [x]\n[x]\0"
    status, answered = run(tmp_path, "scp -f '/*.no'", b"\0" * 20)
    assert (status, answered) == (1, b"\1scp: /*.no: No such file or directory\n")


def test_what_cannot_be_sent_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "fifo")
    status, answered = run(tmp_path, "scp -f /no /folder /fifo /file", b"\0" * 20)
    assert status == 1
    assert answered == (
        b"\1scp: /no: No such file or directory\n\1scp: /folder: not a regular file; -r copies directories\n"
        b"\1scp: /fifo: not a regular file\nC0644 1 file\nx\0"
    )


def test_a_client_may_refuse_a_file_and_take_the_next(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    status, answered = run(tmp_path, "scp -f /a /b", b"\0\1no room\n\0\0")
    assert (status, answered) == (1, b"C0644 1 a\nC0644 1 b\nb\0")
    status, answered = run(tmp_path, "scp -f /a /b", b"\0\2enough\n\0\0")
    assert (status, answered) == (1, b"C0644 1 a\n")


@pytest.mark.parametrize(
    "record",
    [
        b"C0644 1 ../evil\n", b"C0644 1 ..\n", b"C0644 1 .\n", b"C0644 1 \n", b"C0644 1 /evil\n", b"C0644 1 a\0b\n",
        b"C0644 1 sub/evil\n", b"D0755 0 ..\n", b"C644 1 a\n", b"C0648 1 a\n", b"C0644 -1 a\n", b"C0644 x a\n",
        b"C0644 99999999999999999999 a\n", b"C0644 9223372036854775808 a\n", b"C0644\n", b"E\n", b"X\n", b"\n",
        b"T1 0 1\n", b"T1 0 x 0\n", b"T-1 0 1 0\n", b"C0644 1 " + b"a" * 9000, b"EE\n",
    ],
)  # fmt: skip
def test_impossible_records_end_the_transfer(tmp_path: Path, record: bytes) -> None:
    (tmp_path / "in").mkdir()
    status, answered = run(tmp_path, "scp -r -t /in", record + b"x\0")
    assert status == 1
    assert answered.startswith((b"\0\2scp: a record", b"\0\2scp: no record"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "in"]


def test_directories_are_only_taken_where_they_were_asked_for(tmp_path: Path) -> None:
    assert run(tmp_path, "scp -t /", b"D0755 0 d\n") == (1, b"\0\2scp: a directory, which was not asked for\n")
    deep = b"D0755 0 d\n" * 200
    status, answered = run(tmp_path, "scp -r -t /", deep)
    assert (status, answered) == (1, b"\0" * 101 + b"\2scp: too many levels of directories\n")


def test_links_do_not_lead_out_of_the_root(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "file").symlink_to(outside / "file")
    (outside / "secret").write_bytes(b"secret")
    run(inside, "scp -r -t /", b"D0755 0 link\nC0644 1 evil\nx\0E\nC0644 1 file\nx\0")
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert b"C0644" not in run(inside, "scp -f /link/secret /../out/secret", b"\0" * 9)[1]


def test_a_client_that_leaves_ends_it(tmp_path: Path) -> None:
    assert run(tmp_path, "scp -t /new", b"C0644 10 x\nhalf")[0] == 1
    assert run(tmp_path, "scp -f /new", b"")[0] == 1


def test_a_target_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert run(tmp_path, "scp -d -t /file", b"C0644 1 x\nx\0") == (1, b"\2scp: /file: Not a directory\n")
    status, answered = run(tmp_path, "scp -t /no/such", b"C0644 1 x\n")
    assert (status, answered) == (1, b"\0\1scp: /no/such: No such file or directory\n")


def test_drives_are_places_of_their_own(tmp_path: Path) -> None:
    c, e = tmp_path / "c", tmp_path / "e"
    (c / "dir").mkdir(parents=True)
    e.mkdir()
    drives = {"C": c, "e": e}
    for path, place in (("C:\\dir\\f1", c / "dir/f1"), ("c:/dir/f2", c / "dir/f2"), ("E:f3", e / "f3"),
                        ("C:/../../f4", c / "f4"), ("./C:", tmp_path / "C:")):  # fmt: skip
        assert run(tmp_path, f"scp -t '{path}'", b"C0644 1 x\n1\0", drives=drives)[0] == 0, path
        assert place.read_bytes() == b"1"
    assert run(tmp_path, "scp -f 'C:\\dir\\f1' 'e:f3' 'C:/dir/f2'", b"\0" * 20, drives=drives)[1] == (
        b"C0644 1 f1\n1\0C0644 1 e:f3\n1\0C0644 1 f2\n1\0"
    )
    assert run(tmp_path, "scp -f x:f", b"\0\0", drives=drives) == (1, b"\1scp: x:f: No such drive\n")
    assert run(tmp_path, "scp -f /C:", b"\0\0", drives=drives, root=False)[0] == 1
    assert run(tmp_path, "scp -t 'C:'", b"C0644 1 x\n2\0")[0] == 0  # without drives it is a name
    assert (tmp_path / "C:").read_bytes() == b"2"


def observed(command: str, said: bytes, files: FileSystem) -> list[FileEvent]:
    events: list[FileEvent] = []
    given = io.BytesIO(said)
    places = Places(Observed(files, events.append))
    serve(ScpCommand.parse(command.encode()), places, given.read, lambda _: None)
    return events


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"C0644 10 f\nhalf", "not complete: the client has gone"),
        (b"C0644 10 f\n0123456789", "not complete: the client has gone"),
        (b"C0644 10 f\n0123456789\1could not read all of it\n", "not complete: the client has gone"),
        (b"C0644 20000 f\n" + bytes(20_001), "No space left on device"),
    ],
)
def test_what_did_not_come_whole_is_abandoned(said: bytes, error: str) -> None:
    memory = MemoryFiles({"/f": b"before"}, largest_bytes=10_000)
    (event,) = observed("scp -t /f", said, Atomic(memory))
    assert (event.kind, event.error) == ("uploaded", error)
    assert memory.contents() == {"/f": b"before"}


def test_what_came_whole_is_closed_when_the_client_says_so() -> None:
    memory = MemoryFiles({"/f": b"before"})
    (event,) = observed("scp -p -t /f", b"T1 0 2 0\nC0600 5 f\nafter\0", Atomic(memory))
    assert (event.kind, event.size, event.error) == ("uploaded", 5, "")
    assert memory.contents() == {"/f": b"after"}
    status = memory.stat(b"/f", follow=True)
    assert (status.st_mtime, stat.S_IMODE(status.st_mode)) == (1, 0o600)


def test_a_download_that_breaks_off_is_told_as_such() -> None:
    memory = MemoryFiles({"/f": b"content"})
    (event,) = observed("scp -f /f", b"\0\0\0", memory)
    assert (event.kind, event.size, event.error) == ("downloaded", 7, "")
    given = io.BytesIO(b"\0\0")
    events: list[FileEvent] = []
    sent: list[bytes] = []

    def gone(data: bytes | memoryview) -> None:
        sent.append(bytes(data))
        if b"content" in sent:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        serve(ScpCommand.parse(b"scp -f /f"), Places(Observed(memory, events.append)), given.read, gone)
    assert [event.error for event in events] == ["not complete: the client has gone"]


def test_a_file_whose_closing_fails_is_answered_once(tmp_path: Path) -> None:
    class Failing(LayerFile):
        def close(self) -> None:
            super().close()
            raise OSError(errno.EIO, "no close")

    class Files(Layer):
        def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
            file = super().open(path, mode, attributes)
            return Failing(file) if path == b"/a" else file

    given, answered = io.BytesIO(b"\0" * 5), io.BytesIO()
    files = Files(MemoryFiles({"/a": b"12", "/b": b"34"}))
    assert serve(ScpCommand.parse(b"scp -f /a /b"), Places(files), given.read, answered.write) == 1  # type: ignore[arg-type]
    assert answered.getvalue() == b"C0644 2 a\n12\1scp: a: no close\nC0644 2 b\n34\0"
    assert given.read() == b""  # each announcement and each file has had its answer
