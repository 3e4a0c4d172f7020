"""Child processes, as far as no server is needed to see it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dunnart.runtime import process
from dunnart.runtime.fork_server import ForkServer
from dunnart.runtime.process import Call, Command


@pytest.fixture
def sparing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for a file of the system's, by which this process is spared when memory is short."""
    path = tmp_path / "oom_score_adj"
    path.write_text("-500\n")
    monkeypatch.setattr(process, "_SPARING", str(path))
    process._spared.cache_clear()
    yield path
    process._spared.cache_clear()


def test_a_user_s_programs_are_not_spared_when_memory_is_short(sparing: Path) -> None:
    async def said() -> bytes:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        child, streams = process.spawn(Command(("cat", str(sparing)), "/bin/cat", {}, "/"), None)
        child.watch(loop, lambda _: ended.set())
        await ended.wait()
        found = os.read(streams.stdout, 100)
        streams.close()
        return found

    assert asyncio.run(said()) == b"0"
    assert sparing.read_text() == "-500"


def test_nor_is_what_forks_their_processes(sparing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[str] = []

    class Started(subprocess.Popen[bytes]):
        def _execute_child(self, *arguments: object) -> None:
            began.append(sparing.read_text())
            super()._execute_child(*arguments)  # type: ignore[misc]

    monkeypatch.setattr("dunnart.runtime.fork_server.subprocess.Popen", Started)

    async def fork() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        server = ForkServer(loop)
        child, streams = process.on_pipes(lambda each: server.start(Call("gc:isenabled", (), {}, "/"), each))
        child.watch(loop, lambda _: ended.set())
        await ended.wait()
        streams.close()
        await server.close()

    asyncio.run(fork())
    assert (began, sparing.read_text()) == (["0"], "-500")
