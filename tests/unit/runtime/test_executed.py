"""Processes with an interpreter of their own: `executed`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from dunnart.runtime.executed import executed
from dunnart.runtime.session_keys import _NUMBERS

PROGRAM = """
import json, os, socket, sys
from pathlib import Path

def tell(descriptor, *arguments):
    comm = Path("/proc/self/comm")
    told = {
        "arguments": arguments, "executable": sys.executable, "directory": os.getcwd(), "session": os.getsid(0),
        "known": os.environ.get("KNOWN"), "wave": sys.modules.get("wave", "free"),
        "name": comm.read_text().strip() if comm.exists() else None,
    }
    socket.socket(fileno=descriptor).sendall(json.dumps(told).encode())
"""


async def told(*arguments: object, alone: bool) -> dict[str, Any]:
    process, sock = executed("told-of-it", "executed_function:tell", *arguments, alone=alone, without=("wave",))
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    process.watch(loop, ended.set_result)
    with sock:
        assert await ended == 0
        return json.loads(sock.recv(1 << 16))  # type: ignore[no-any-return]


KEYRING = """
import ctypes, socket

def tell(descriptor, number):
    ring = ctypes.CDLL(None).syscall(ctypes.c_long(number), ctypes.c_long(0), ctypes.c_long(-3), ctypes.c_long(0))
    socket.socket(fileno=descriptor).sendall(str(ring).encode())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or os.uname().machine not in _NUMBERS,
    reason="only root starts programs for others, and only Linux has keyrings",
)
def test_root_gives_it_no_user_s_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has the keyring of who was served last: see `share_no_keys`."""
    (tmp_path / "executed_keyring.py").write_text(KEYRING)
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = []
    for _ in range(3):
        process, sock = executed("told-of-it", "executed_keyring:tell", _NUMBERS[os.uname().machine], alone=True)
        with sock:
            seen.append(int(sock.recv(100)))
            process._process.wait()
    if min(seen) < 0:
        pytest.skip("this system has no keyrings")
    assert len(set(seen)) == 3


@pytest.mark.parametrize("alone", [False, True])
def test_what_it_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    (tmp_path / "executed_function.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("KNOWN", "to us")
    found = asyncio.run(told("text", 5, {"of": ["all", None]}, alone=alone))
    assert found.pop("name") == ("told-of-it" if sys.platform == "linux" else None)
    assert (found.pop("session") == os.getsid(0)) is not alone
    assert found == {
        "arguments": ["text", 5, {"of": ["all", None]}],
        "executable": sys.executable,  # by which an interpreter finds its library, wherever it was moved to
        "directory": "/" if alone else os.getcwd(),
        "known": None if alone else "to us",
        "wave": None,
    }
