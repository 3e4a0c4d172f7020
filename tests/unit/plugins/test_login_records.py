"""utmp, wtmp and lastlog: read back by the system's own programs where they are there, and by the records' layout."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the files are Linux's", allow_module_level=True)

from dunnart.plugins import failed_logins, login_records
from dunnart.plugins.login_records import Files, Login
from dunnart.server import Address, AuditEvent, Context

SIZE = 400 if os.uname().machine == "aarch64" else 384
LOGIN = Login("/dev/pts/71", os.getpid(), "alice", 1234, "2001:db8::7")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Empty files, but for lastlog, which is made."""
    made = Files(*(str(tmp_path / name) for name in ("utmp", "wtmp", "lastlog")))
    Path(made.utmp).touch()
    Path(made.wtmp).touch()
    return made


def records(path: str) -> list[tuple[int, int, bytes, bytes, bytes]]:
    """Give type, pid, line, id and user of each record."""
    data = Path(path).read_bytes()
    assert len(data) % SIZE == 0
    found = [struct.unpack_from("hi32s4s32s", data, at) for at in range(0, len(data), SIZE)]
    return [(kind, pid, line.rstrip(b"\0"), name, user.rstrip(b"\0")) for kind, pid, line, name, user in found]


def test_a_login_and_its_end(files: Files) -> None:
    login_records.begin(LOGIN, files)
    begun = (7, os.getpid(), b"pts/71", b"s/71", b"alice")
    assert records(files.utmp) == records(files.wtmp) == [begun]
    login_records.begin(LOGIN._replace(line="/dev/pts/72", host="192.0.2.7"), files)
    login_records.end(LOGIN, files)
    ended = (8, os.getpid(), b"pts/71", b"s/71", b"")
    other = (7, os.getpid(), b"pts/72", b"s/72", b"alice")
    assert records(files.utmp) == [ended, other]  # the first record's place is taken again
    assert records(files.wtmp) == [begun, other, ended]
    last = login_records.last_login(1234, files.lastlog)
    assert last is not None
    assert last.host == "192.0.2.7"
    assert abs(last.time - time.time()) < 60
    assert login_records.last_login(1233, files.lastlog) is None


def test_what_the_systems_programs_read(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("who", "last", "utmpdump"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is missing")
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 120 * 10**9)
    login_records.begin(LOGIN._replace(user="root"), files)
    login_records.begin(LOGIN._replace(line="/dev/pts/72", user="bob", host="::ffff:192.0.2.7"), files)
    monkeypatch.setattr(time, "time_ns", lambda: now - 60 * 10**9)
    login_records.end(LOGIN._replace(line="/dev/pts/72"), files)

    def run(*command: str) -> str:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
        ).stdout

    assert re.fullmatch(r"root +pts/71 .*:\d\d +\S+ +\d+ \(2001:db8::7\)\n", run("who", "-u", files.utmp))
    lines = run("last", "-f", files.wtmp, "-w").splitlines()
    assert re.match(r"bob +pts/72 +::ffff:192\.0\.2\.7 .* - .*\(00:01\)", lines[0])
    assert re.match(r"root +pts/71 +2001:db8::7 +", lines[1])
    dumped = run("utmpdump", files.wtmp).splitlines()
    assert [re.findall(r"\[(.*?)\]", line)[6].strip() for line in dumped] == ["2001:db8::7", "192.0.2.7", "0.0.0.0"]


def test_files_that_are_not_there_are_not_made(tmp_path: Path) -> None:
    files = Files(*(str(tmp_path / name) for name in ("no/utmp", "no/wtmp", "no/lastlog")))
    login_records.begin(LOGIN, files)
    login_records.end(LOGIN, files)
    assert not list(tmp_path.iterdir())


def test_half_a_record_is_written_over(files: Files) -> None:
    Path(files.wtmp).write_bytes(b"x" * (SIZE // 2))
    login_records.begin(LOGIN, files)
    assert len(records(files.wtmp)) == 1


def test_a_file_that_somebody_keeps_locked(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_records, "_LOCK_SECONDS", 0.1)
    # Another process's lock: this process's own would not be in its way.
    program = (
        "import fcntl,sys\nf=open(sys.argv[1],'r+b')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint(flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", program, files.utmp]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(TimeoutError, match="keeps it locked"):
            login_records.begin(LOGIN, files)
    finally:
        holder.communicate()
    assert len(records(files.wtmp)) == 1  # the other files have their records


def test_threads_do_not_disturb_each_other(files: Files) -> None:
    many = [LOGIN._replace(line=f"/dev/pts/{number}") for number in range(40)]
    threads = [threading.Thread(target=login_records.begin, args=(each, files)) for each in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {line for _, _, line, _, _ in records(files.utmp)} == {each.line[5:].encode() for each in many}
    assert len(records(files.wtmp)) == len(many)
    with Path(files.utmp).open("rb") as file:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # nothing is left locked


def test_failed_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    if os.geteuid() != 0:
        pytest.skip("btmp is root's")
    btmp = tmp_path / "btmp"
    monkeypatch.setattr(failed_logins, "BTMP", str(btmp))
    sink = failed_logins.FailedLogins(Context("btmp", None, logging.getLogger("dunnart.plugin.btmp")))
    made = AuditEvent(0.0, "login-failed", 7, "hunter2" * 10, Address("192.0.2.7", 9), {"method": "password"})
    others = (replace(made, kind="login"), replace(made, details={"method": "publickey"}))

    def tell(*events: AuditEvent) -> None:
        for each in events:
            sink.record(each)
        done = threading.Event()
        sink._thread.submit(done.set)
        assert done.wait(20)

    tell(made)
    assert not btmp.exists()
    btmp.touch(0o600)
    tell(*others, made)
    assert records(str(btmp)) == [(6, os.getpid(), b"ssh:notty", b"\0\0\0\0", (b"hunter2" * 10)[:32])]
    btmp.chmod(0o644)
    tell(made)
    assert len(records(str(btmp))) == 1
    assert "connection 7: a failed login cannot be recorded: " in caplog.text
