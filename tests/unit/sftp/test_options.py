"""What an operator may say about files, and the layers that come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dunnart.sftp import Attributes, FileSystem, LocalFiles, OpenMode
from dunnart.sftp.layers.atomic import Atomic
from dunnart.sftp.layers.name_filter import NameFilter
from dunnart.sftp.layers.observed import FileEvent, Observed
from dunnart.sftp.layers.quota import Quota
from dunnart.sftp.layers.read_only import ReadOnly
from dunnart.sftp.options import FileOptions, filled_in

ALICE = {"h": "/home/alice", "u": "alice", "U": "1000"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "srv"}, "root is 'srv', and no absolute path or URL"),
        ({"root": "/srv/%x"}, "root holds %x"),
        ({"root": "/srv/%"}, "root holds %,"),
        ({"root": "file:///srv"}, "root is 'file:///srv': write the folder itself"),
        ({"root": "local:///srv"}, "root is 'local:///srv': write the folder itself"),
        ({"root": "/srv", "start": "s3://b"}, "start is 's3://b', and no absolute path"),
        ({"root": "/srv", "storage": {"key": "x"}}, "storage is for a root that is a URL"),
        ({"umask": "8"}, "umask is '8'"),
        ({"umask": "1000"}, "umask is '1000'"),
        ({"umask": "-22"}, "umask is '-22'"),
        ({"quota_bytes": 1}, "quota_bytes is for what is below a root"),
        ({"quota_files": 1}, "quota_files is for what is below a root"),
        ({"root": "/srv", "quota_bytes": -1}, "quota_bytes is less than 0"),
        ({"largest_file_bytes": -1}, "largest_file_bytes is less than 0"),
        ({"events": "some"}, "events is 'some', and none of off, changes, all"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_its_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("%", "[%]")):
        FileOptions(**options)


def test_tokens_are_filled_in_once() -> None:
    options = FileOptions(root="%h/%u/%U/%%u", start="/%u").filled(ALICE)
    assert (options.root, options.start) == ("/home/alice/alice/1000/%u", "/alice")
    assert filled_in("/%u", {**ALICE, "u": "%h"}) == "/%h"
    assert FileOptions(root="s3://bucket/%u").filled(ALICE).root == "s3://bucket/alice"


def test_percent_signs_of_a_user_are_no_tokens(tmp_path: Path) -> None:
    options = FileOptions(root="/srv/%u/%%", start="%h").filled({"h": "/home/100%", "u": "a%b", "U": "1"})
    assert (options.root, options.start) == ("/srv/a%b/%", "/home/100%")
    assert FileOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    (tmp_path / "%x").mkdir()
    served = FileOptions(root=f"{tmp_path}/%%x").filled(ALICE).files(print)
    assert served.real_path(b".") == b"/"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\0b", "/"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    for root in ("/srv/%u", "/srv/%u/files", "memory://%u"):
        with pytest.raises(PermissionError):
            FileOptions(root=root).filled({**ALICE, "u": name})
    assert FileOptions(root="/srv/%%u").filled({**ALICE, "u": name}).root == "/srv/%u"


@pytest.mark.parametrize("home", ["", "home"])
def test_a_home_that_is_none_is_refused(home: str) -> None:
    for options in (FileOptions(root="%h"), FileOptions(root="/srv", start="%h")):
        with pytest.raises(PermissionError, match="no absolute path"):
            options.filled({**ALICE, "h": home})


@pytest.mark.parametrize("name", ["x::file:", "x?y", "x#y", "x y", "x*", "x%2e", "x\\y", "x:y"])
def test_signs_that_mean_something_in_a_url_are_refused_there(name: str) -> None:
    with pytest.raises(PermissionError):
        FileOptions(root="s3://bucket/%u").filled({**ALICE, "u": name})
    assert filled_in("/srv/%u", {**ALICE, "u": name}) == f"/srv/{name}"


def test_everything_travels_as_json(tmp_path: Path) -> None:
    options = FileOptions(root=str(tmp_path), umask="022", allow_names=("*.csv", "x"), quota_bytes=5, digest=True)
    assert FileOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    remote = FileOptions(root="s3://b", storage={"key": "x"})
    assert FileOptions.from_json(json.loads(json.dumps(remote.to_json()))) == remote


def stack(files: Any) -> list[type]:
    found = [type(files)]
    while not isinstance(files, LocalFiles):
        files = files._files
        found.append(type(files))
    return found


def test_the_layers_stand_in_their_order(tmp_path: Path) -> None:
    everything = FileOptions(
        root=str(tmp_path), read_only=True, atomic=True, quota_files=3, deny_names=("x",), events="changes"
    )
    assert stack(everything.files(print)) == [Observed, ReadOnly, NameFilter, Atomic, Quota, LocalFiles]
    assert stack(FileOptions(events="off").files(print)) == [LocalFiles]


@pytest.mark.parametrize("bound", [{"largest_file_bytes": 5}, {"quota_bytes": 5}])
def test_an_upload_that_became_too_large_leaves_nothing(tmp_path: Path, bound: dict[str, int]) -> None:
    files = FileOptions(root=str(tmp_path), atomic=True, deny_names=("x",), **bound).files(print)  # type: ignore[arg-type]
    too_large(files)
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_became_too_large_reaches_no_store() -> None:
    files = FileOptions(root="memory://test-options", largest_file_bytes=5).files(print)
    too_large(files)
    with pytest.raises(FileNotFoundError):
        files.stat(b"/f", follow=True)


def too_large(files: FileSystem) -> None:
    file = files.open(b"/f", OpenMode(write=True, create=True, truncate=True), Attributes())
    file.write(memoryview(b"01234"), 0)
    with pytest.raises(OSError, match="5 bytes"):
        file.write(memoryview(b"5"), 5)
    with pytest.raises(OSError, match="5 bytes"):  # clients close it all the same
        file.close()


@pytest.mark.parametrize(
    ("wanted", "kinds"), [("off", []), ("changes", ["uploaded"]), ("all", ["uploaded", "downloaded"])]
)
def test_events_are_told_as_wanted(tmp_path: Path, wanted: str, kinds: list[str]) -> None:
    told: list[FileEvent] = []
    files = FileOptions(root=str(tmp_path), events=wanted).files(told.append)
    file = files.open(b"f", OpenMode(write=True, create=True), Attributes())
    file.write(memoryview(b"x"), 0)
    file.close()
    file = files.open(b"f", OpenMode(read=True), Attributes())
    file.read_into(memoryview(bytearray(1)), 0)
    file.close()
    assert [event.kind for event in told] == kinds


def test_without_a_root_relative_paths_begin_where_the_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert FileOptions(events="off").files(print).real_path(b".") == str(tmp_path).encode()
    assert FileOptions(events="off", root=str(tmp_path)).files(print).real_path(b".") == b"/"
    assert FileOptions(events="off", root=str(tmp_path), start="/in").files(print).real_path(b".") == b"/"
    (tmp_path / "in").mkdir()
    assert FileOptions(events="off", root=str(tmp_path), start="/in").files(print).real_path(b".") == b"/in"


def test_a_start_that_a_store_does_not_have_is_not_taken() -> None:
    def start() -> bytes:
        options = FileOptions(events="off", root="memory://test-options-start", start="/in")
        return options.files(print).real_path(b".")

    files = FileOptions(events="off", root="memory://test-options-start").files(print)
    assert start() == b"/"
    files.make_directory(b"/in", Attributes())
    assert start() == b"/in"
