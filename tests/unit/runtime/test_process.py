"""Child processes, as far as no server is needed to see it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from dunnart.runtime import process
from dunnart.runtime.fork_server import ForkServer
from dunnart.runtime.process import Call, Command
from dunnart.runtime.session_keys import _NUMBERS


@pytest.fixture
def sparing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for a file of the system's, by which this process is spared when memory is short."""
    path = tmp_path / "oom_score_adj"
    path.write_text("-500\n")
    monkeypatch.setattr(process, "_SPARING", str(path))
    process._spared.cache_clear()
    yield path
    process._spared.cache_clear()


class Started(subprocess.Popen[bytes]):
    """Notes by how much a process is spared that is started."""

    began: ClassVar[list[str]] = []

    def _execute_child(self, *arguments: object) -> None:
        self.began.append(Path(process._SPARING).read_text())
        super()._execute_child(*arguments)  # type: ignore[misc]


@pytest.mark.parametrize("forked", [False, True])
def test_a_user_s_programs_are_not_spared_when_memory_is_short(
    sparing: Path, monkeypatch: pytest.MonkeyPatch, forked: bool
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Started)
    monkeypatch.setattr(Started, "began", [])

    async def run() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        server = ForkServer(loop)
        if forked:
            child, streams = process.on_pipes(lambda each: server.start(Call("gc:isenabled", (), {}, "/"), each))
        else:
            child, streams = process.spawn(Command(("true",), "/bin/true", {}, "/"), None)
        child.watch(loop, lambda _: ended.set())
        await ended.wait()
        streams.close()
        await server.close()

    asyncio.run(run())
    assert (Started.began, sparing.read_text()) == (["0"], "-500")


_KEYRING = """\
import ctypes, sys
print(ctypes.CDLL(None).syscall(ctypes.c_long(int(sys.argv[1])), ctypes.c_long(0), ctypes.c_long(-3), ctypes.c_long(0)))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or os.uname().machine not in _NUMBERS,
    reason="only root starts programs for others, and only Linux has keyrings",
)
def test_users_have_keyrings_of_their_own() -> None:
    """As in sshd's session by pam_keyinit: else they could read what is in the server's, and in each other's."""
    command = (sys.executable, "-I", "-S", "-c", _KEYRING, str(_NUMBERS[os.uname().machine]))

    async def keyring() -> bytes:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        child, streams = process.spawn(Command(command, sys.executable, {}, "/", (0, 0, ())), None)
        child.watch(loop, lambda _: ended.set())
        await ended.wait()
        found = os.read(streams.stdout, 100)
        streams.close()
        return found

    seen = {asyncio.run(keyring()) for _ in range(3)}
    if any(int(each) < 0 for each in seen):
        pytest.skip("this system has no keyrings")
    assert len(seen) == 3
