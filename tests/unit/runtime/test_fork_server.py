"""Functions in processes of their own, forked where they are loaded: `ForkServer`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dunnart.runtime import process
from dunnart.runtime.fork_server import Forked, ForkServer
from dunnart.runtime.process import Call
from dunnart.runtime.streams import Streams

SECONDS = 45.0
PROGRAM = """
import os, sys, time

def say(arguments):
    print(*arguments)
    return len(arguments)

def look(arguments):
    print(sorted(os.environ), os.getcwd(), sorted(map(int, os.listdir("/proc/self/fd"))), os.getsid(0) == os.getpid())
    return 0

def count(arguments):
    return len(arguments)

def write_passed(arguments):
    os.write(3, b"passed")
    return 0

def who(arguments):
    print(os.getresuid(), os.getresgid(), os.getgroups())
    return 0

def leave(arguments):
    sys.exit(9)

def stay(arguments):
    print("here", flush=True)
    time.sleep(60)

def fail(arguments):
    raise RuntimeError("on purpose")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "called_functions.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "called_functions"


class Started:
    """A child, and what came of it."""

    def __init__(self, child: Forked, streams: Streams) -> None:
        self.child = child
        self.streams = streams
        self.end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        child.watch(asyncio.get_running_loop(), self.end.set_result)

    async def output(self, stream: str = "stdout") -> str:
        """Read all that it writes to one of its streams."""
        fd = getattr(self.streams, stream)
        os.set_blocking(fd, True)
        data = b""
        while piece := await asyncio.to_thread(os.read, fd, 4096):
            data += piece
        return os.fsdecode(data)


def start(server: ForkServer, call: Call) -> Started:
    child, streams = process.on_pipes(lambda ends: server.start(call, ends))
    assert isinstance(child, Forked)
    return Started(child, streams)


def with_server(work: Callable[[ForkServer], Awaitable[None]], idle_seconds: int = 60) -> None:
    async def run() -> None:
        server = ForkServer(asyncio.get_running_loop(), idle_seconds)
        try:
            await asyncio.wait_for(work(server), SECONDS)
        finally:
            await server.close()

    asyncio.run(run())


def call(target: str, *arguments: str, passed: tuple[int, ...] = (), directory: str = "/") -> Call:
    return Call(target, arguments, {"HOME": "/"}, directory, passed=passed)


def test_a_function_is_run_and_its_status_told(module: str) -> None:
    async def work(server: ForkServer) -> None:
        for words in (("a",), ("b", "ü", "\udcff")):
            started = start(server, call(f"{module}:say", *words))
            assert await started.output() == " ".join(words) + "\n"
            assert await started.end == len(words)
            assert started.child.pid > 0
            assert not started.child.signal(signal.SIGTERM)
            started.streams.close()

    with_server(work)


def test_nothing_but_what_was_ordered_is_there(module: str, tmp_path: Path) -> None:
    async def work(server: ForkServer) -> None:
        started = start(server, call(f"{module}:look", directory=str(tmp_path)))
        assert await started.output() == f"['HOME'] {tmp_path} [0, 1, 2, 3] True\n"  # 3 is the listing's own
        started.streams.close()
        started = start(server, call(f"{module}:look", directory="/nowhere"))
        assert await started.output() == "['HOME'] / [0, 1, 2, 3] True\n"
        started.streams.close()

    with_server(work)


def test_descriptors_are_passed_on_from_3(module: str) -> None:
    async def work(server: ForkServer) -> None:
        reader, writer = os.pipe()
        started = start(server, call(f"{module}:write_passed", passed=(writer,)))
        os.close(writer)
        assert await started.end == 0
        assert os.read(reader, 100) == b"passed"
        os.close(reader)
        started.streams.close()

    with_server(work)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_becomes_the_user_for_good(module: str) -> None:
    async def work(server: ForkServer) -> None:
        wanted = Call(f"{module}:who", (), {}, "/", (65534, 65533, (65533, 65532)))
        started = start(server, wanted)
        assert await started.output() == "(65534, 65534, 65534) (65533, 65533, 65533) [65532, 65533]\n"
        started.streams.close()

    with_server(work)


@pytest.mark.parametrize(
    ("function", "status", "said"),
    [("leave", 9, ""), ("fail", 1, "on purpose"), ("nothing", 1, "has no attribute 'nothing'")],
)
def test_its_faults_are_its_own(module: str, function: str, status: int, said: str) -> None:
    async def work(server: ForkServer) -> None:
        started = start(server, call(f"{module}:{function}"))
        assert said in await started.output("stderr")
        assert await started.end == status
        started.streams.close()
        again = start(server, call(f"{module}:say"))
        assert await again.end == 0
        again.streams.close()

    with_server(work)


def test_modules_are_loaded_once_for_all_calls(module: str, tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text("import os\nloaded_by = os.getpid()\n")
    (tmp_path / "called_functions.py").write_text(
        PROGRAM + "def loaded(arguments):\n    print(sys.modules['slow_module'].loaded_by)\n    return 0\n"
    )

    async def work(server: ForkServer) -> None:
        said = []
        for _ in range(2):
            wanted = Call(f"{module}:loaded", (), {}, "/", preload=("slow_module", "no_such_module"))
            started = start(server, wanted)
            said.append(await started.output())
            started.streams.close()
        assert server._process is not None
        assert said == [f"{server._process.pid}\n"] * 2

    with_server(work)


async def staying(server: ForkServer, module: str) -> Started:
    """Start one that stays, and wait until it runs."""
    started = start(server, call(f"{module}:stay"))
    os.set_blocking(started.streams.stdout, True)
    assert await asyncio.to_thread(os.read, started.streams.stdout, 10) == b"here\n"
    return started


def test_signals_reach_it(module: str) -> None:
    async def work(server: ForkServer) -> None:
        started = await staying(server, module)
        assert started.child.signal(signal.SIGTERM)
        assert await started.end == -signal.SIGTERM
        started.streams.close()

    with_server(work)


def test_a_killed_fork_server_is_started_anew(module: str) -> None:
    async def work(server: ForkServer) -> None:
        started = await staying(server, module)
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)
        assert await started.end == 255
        os.kill(started.child.pid, signal.SIGKILL)  # an orphan now
        started.streams.close()
        await server._ended.wait()
        again = start(server, call(f"{module}:say", "again"))
        assert await again.output() == "again\n"
        again.streams.close()

    with_server(work)


def test_it_ends_when_idle_and_comes_back(module: str) -> None:
    async def work(server: ForkServer) -> None:
        for word in ("one", "two"):
            started = start(server, call(f"{module}:say", word))
            assert await started.output() == word + "\n"
            started.streams.close()
            await started.end
            await server._ended.wait()

    with_server(work, idle_seconds=1)


def test_what_cannot_be_ordered_is_an_error(module: str) -> None:
    async def work(server: ForkServer) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for bad in (call(f"{module}:say", "x" * 300_000), call(f"{module}:say", passed=(0,) * 13)):
            with pytest.raises(OSError, match=r"Argument list too long|too many descriptors"):
                start(server, bad)
        await server.close()
        assert len(os.listdir("/proc/self/fd")) <= before

    with_server(work)


def test_a_fork_server_that_does_not_keep_up_loses_nothing(module: str) -> None:
    async def work(server: ForkServer) -> None:
        first = await staying(server, module)
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGSTOP)
        ordered: list[Started] = []
        with pytest.raises(BlockingIOError, match=r"does not keep up|unavailable"):  # noqa: PT012 - as many as it takes
            while True:
                ordered.append(start(server, call(f"{module}:count", "x" * 60_000)))
        os.kill(server._process.pid, signal.SIGCONT)
        assert [await each.end for each in ordered] == [1] * len(ordered)
        assert len(ordered) > 1
        assert first.child.signal(signal.SIGTERM)
        assert await first.end == -signal.SIGTERM
        for each in (first, *ordered):
            each.streams.close()

    with_server(work)


@pytest.mark.parametrize("ends", [False, True])
def test_a_long_order_is_in_nobodys_way(module: str, ends: bool) -> None:
    """Orders and signals wait behind it; if there is nobody to obey any more, nobody waits."""

    async def work(server: ForkServer) -> None:
        first = await staying(server, module)
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGSTOP)
        long = [start(server, call(f"{module}:count", *["x" * 60_000] * 4)) for _ in range(3)]
        short = start(server, call(f"{module}:say", "short"))
        assert first.child.signal(signal.SIGTERM)
        if ends:
            os.kill(server._process.pid, signal.SIGKILL)
            os.kill(first.child.pid, signal.SIGKILL)
        else:
            os.kill(server._process.pid, signal.SIGCONT)
        assert [await each.end for each in long] == [255 if ends else 4] * 3
        assert await short.output() == ("" if ends else "short\n")
        assert await short.end == (255 if ends else 1)
        assert await first.end == (255 if ends else -signal.SIGTERM)
        for each in (first, *long, short):
            each.streams.close()

    with_server(work)


NO_FORK = """
real, errors = os.fork, [OSError(11, "none left")]

def fork():
    if errors:
        raise errors.pop()
    return real()

os.fork = fork
"""


def test_without_room_for_a_process_one_call_fails(module: str, tmp_path: Path) -> None:
    (tmp_path / "called_functions.py").write_text(PROGRAM + NO_FORK)

    async def work(server: ForkServer) -> None:
        refused = start(server, call(f"{module}:say"))
        assert await refused.end == 255
        refused.streams.close()
        process_ = server._process
        again = start(server, call(f"{module}:say", "again"))
        assert await again.output() == "again\n"
        assert await again.end == 1
        assert server._process is process_
        again.streams.close()

    with_server(work)


ORDERED_AT_THE_END = """
import json, os, select, socket
from dunnart.runtime import forked

class Poll:
    def __init__(self):
        self.real, self.first = real(), True
    def __getattr__(self, name):
        return getattr(self.real, name)
    def poll(self, timeout):
        if self.first:
            self.first = False
            order = json.dumps({"number": 1, "target": "called_functions:say", "arguments": [], "user": None,
                                "environment": {}, "directory": "/", "preload": []}).encode()
            null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
            socket.send_fds(ours, [len(order).to_bytes(4, "big") + order], [writer, *null])
            os.close(writer)
            return []
        return self.real.poll(timeout)

real, select.poll = select.poll, Poll
ours, theirs = socket.socketpair()
reader, writer = os.pipe()
forked.main(theirs.detach(), 5)
told = os.read(reader, 8)
print(len(told), told[4:])
try:
    ours.send(b"x")
except BrokenPipeError:
    print("refused")
"""


def test_what_is_ordered_when_it_ends_is_done(module: str, tmp_path: Path) -> None:
    assert module
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run([sys.executable, "-c", ORDERED_AT_THE_END], capture_output=True, text=True, timeout=SECONDS,
                          check=False, env={**os.environ, "PYTHONPATH": path})  # fmt: skip
    assert (done.stdout, done.stderr) == ("8 b'\\x00\\x00\\x00\\x00'\nrefused\n", "")
