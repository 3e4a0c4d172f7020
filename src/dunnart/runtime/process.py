"""Child processes for channels: spawned with pipes or a pty, and seen to their end.

Children start with default signals: a server that was started in the background of a shell ignores SIGINT and SIGQUIT,
and so would every session. Without a pty the child is made by vfork, which costs a fraction of what fork does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from dunnart.protocol.requests import ExitSignal, ExitStatus, SignalRequest
from dunnart.records import dataclass
from dunnart.runtime.session_keys import share_no_keys
from dunnart.runtime.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dunnart.protocol.requests import ChannelRequest
    from dunnart.runtime.terminal import Terminal

SIGNALS = frozenset(
    ("ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2")
)
"""RFC 4254 §6.10."""
_SIGNAL_NUMBERS = frozenset(map(int, signal.Signals))
_WIDE_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031  # Linux
_SPARING = "/proc/self/oom_score_adj"


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and as whom.

    Attributes:
        argv: the arguments; the first is what the program sees as its name.
        executable: the program's path.
        environment: all of it.
        directory: where it starts.
        user: (uid, gid, groups), or None to stay what we are.
        umask: for what it makes; -1: ours.
        passed: descriptors that it gets beside its streams, by the same numbers.
        greeting: what its terminal shows before; nothing without a terminal.
    """

    argv: tuple[str | bytes, ...]
    executable: str
    environment: Mapping[str, str]
    directory: str
    user: tuple[int, int, tuple[int, ...]] | None = None
    umask: int = -1
    passed: tuple[int, ...] = ()
    greeting: bytes = b""

    def with_variable(self, name: str, value: str) -> Command:
        """The same with one more variable."""
        return replace(self, environment={**self.environment, name: value})


@dataclass(frozen=True, slots=True)
class Call:
    """A function of Python to run in a process of its own, and as whom; see `dunnart.runtime.fork_server`.

    Attributes:
        target: "module:function"; the function takes `arguments` as a list and gives the exit status.
        arguments: bytes that are no UTF-8 as `os.fsdecode` gives them.
        environment: all of it.
        directory: where it starts.
        user: (uid, gid, groups), or None to stay what we are; a name in the place of the groups: that user's, looked
            up in the new process; None there: those of the process that forks it.
        passed: descriptors that it gets beside its streams, as 3, 4, …
        preload: modules to be loaded before, once for all calls that name them.
        terminal: it is served on a terminal where the client asked for one; without this never.
    """

    target: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    user: tuple[int, int, tuple[int, ...] | str | None] | None = None
    passed: tuple[int, ...] = ()
    preload: tuple[str, ...] = ()
    terminal: bool = False


class Child(Protocol):
    """A child process."""

    @property
    def pid(self) -> int:
        """Its number; 0 as long as it is not known."""

    def watch(self, loop: asyncio.AbstractEventLoop, then: Callable[[int], None]) -> None:
        """Call `then(returncode)` on the loop once it has ended, and reap it."""

    def signal(self, number: int) -> bool:
        """Send a signal to it and those it started in its group; whether it still runs."""


class Program:
    """A running child process, as the counterpart of its streams. Lives on one event loop.

    Args:
        child: the process.
        loop: watches it.
        ended: called once the process has ended and was reaped.
    """

    __slots__ = ("_child", "_ended")

    def __init__(
        self, child: Child, loop: asyncio.AbstractEventLoop, ended: Callable[[ExitStatus | ExitSignal], None]
    ) -> None:
        self._child = child
        self._ended = ended
        child.watch(loop, self._reaped)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._child.pid

    def _reaped(self, returncode: int) -> None:
        self._ended(how_ended(returncode))

    def requested(self, request: ChannelRequest) -> bool:
        """Send a signal to the process and those it started. A pty's new size the kernel tells it."""
        if not isinstance(request, SignalRequest):
            return True
        return request.signal in SIGNALS and self._child.signal(getattr(signal, f"SIG{request.signal}"))

    def hung_up(self) -> None:
        """Its user is gone; it is reaped when it ends."""
        self._child.signal(signal.SIGHUP)


def how_ended(returncode: int) -> ExitStatus | ExitSignal:
    """Say as the protocol does how a process ended (RFC 4254 §6.10); signals have negative codes."""
    if returncode >= 0:
        return ExitStatus(returncode)
    name = signal.Signals(-returncode).name.removeprefix("SIG") if -returncode in _SIGNAL_NUMBERS else ""
    return ExitSignal(name if name in SIGNALS else "SIG@openssh.com", core_dumped=False, message="")


async def wait_or_kill(child: Child, ended: asyncio.Event, seconds: float) -> None:
    """See a process to its end: by itself, or after so long by force."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ended.wait()
    if not ended.is_set():
        child.signal(signal.SIGKILL)
        await ended.wait()


def spawn(command: Command, terminal: Terminal | None) -> tuple[Child, Streams]:
    """Start a process in a session of its own, on pipes or on a terminal, and give our ends of its streams.

    Raises:
        OSError: it could not be started; nothing is left open but the terminal.
    """
    if terminal is not None:
        from dunnart.runtime.terminal import take_terminal

        terminal.show(command.greeting)
        return on_terminal(terminal, lambda streams: Spawned(_popen(command, *streams, take_terminal)))
    return on_pipes(lambda streams: Spawned(_popen(command, *streams)))


def on_pipes(start: Callable[[tuple[int, int, int]], Child]) -> tuple[Child, Streams]:
    """Start a process on three pipes; `start` gets its ends of them, and may raise."""
    parent: list[int] = []
    child: list[int] = []
    try:
        for writes in (True, False, False):
            reader, writer = os.pipe()
            parent.append(writer if writes else reader)
            child.append(reader if writes else writer)
        process = start((child[0], child[1], child[2]))
    except BaseException:
        _close(parent)
        raise
    finally:
        _close(child)
    for fd in parent:
        os.set_blocking(fd, False)
    return process, Streams(parent[0], parent[1], parent[2])


def on_terminal(terminal: Terminal, start: Callable[[tuple[int, int, int]], Child]) -> tuple[Child, Streams]:
    """Start a process on a terminal; `start` gets the descriptors of the child's side, and may raise."""
    try:
        process = start((terminal.slave, terminal.slave, terminal.slave))
    finally:
        terminal.close_slave()
    return process, Streams.of_terminal(terminal)


def _popen(
    command: Command, stdin: int, stdout: int, stderr: int, in_child: Callable[[], None] | None = None
) -> subprocess.Popen[bytes]:
    uid, gid, groups = command.user if command.user is not None else (None, None, None)
    if command.user is not None:
        share_no_keys()
    with unspared():
        return subprocess.Popen(
            command.argv,
            executable=command.executable,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=command.directory,
            env=command.environment,
            start_new_session=True,
            restore_signals=True,
            user=uid,
            group=gid,
            extra_groups=groups,
            umask=command.umask,
            pass_fds=command.passed,
            preexec_fn=in_child,  # noqa: PLW1509 - one ioctl
        )


@contextlib.contextmanager
def unspared() -> Iterator[None]:
    """Start processes that the system ends as any other when memory is short, where this one is spared.

    They inherit that, and so would every user's program, as proc_pid_oom_score_adj(5) has it.
    """
    spared = _spared()
    if spared:
        _spare(b"0")
    try:
        yield
    finally:
        if spared:
            _spare(spared)


@functools.cache
def _spared() -> bytes:
    """Give by how much this process is spared; nothing if it is not."""
    with contextlib.suppress(OSError), open(_SPARING, "rb") as file:
        found = file.read().strip()
        return found if found.startswith(b"-") else b""
    return b""


def _spare(score: bytes) -> None:
    with contextlib.suppress(OSError), open(_SPARING, "wb", buffering=0) as file:
        file.write(score)


def default_signals() -> None:
    """See that children begin with default signals even where we ignore some. To be called once, in the main thread.

    An ignored signal stays ignored through exec, a caught one does not: so what we inherited as ignored is caught and
    nothing done, which is the same for us. With SIGCHLD ignored there would be no exit statuses.
    """
    for name in ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTERM", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGCHLD"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _nothing)


def _nothing(_number: int, _frame: object) -> None:
    pass


def widen(fd: int) -> None:
    """Give a pipe that carries bulk a megabyte, where the system lets us."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, _F_SETPIPE_SZ, _WIDE_PIPE_BYTES)


class Spawned:
    """A child of this process."""

    __slots__ = ("_process",)

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def watch(self, loop: asyncio.AbstractEventLoop, then: Callable[[int], None]) -> None:
        """Call `then(returncode)` on the loop once it has ended, and reap it."""
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # no descriptor left, or no pidfds in a sandbox: a thread will do
                self._watch_pidfd(os.pidfd_open(self.pid), loop, then)
                return
        import threading

        def wait() -> None:
            returncode = self._process.wait()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(then, returncode)

        threading.Thread(target=wait, daemon=True, name="dunnart-wait").start()

    def _watch_pidfd(self, fd: int, loop: asyncio.AbstractEventLoop, then: Callable[[int], None]) -> None:
        def ended() -> None:
            loop.remove_reader(fd)
            os.close(fd)
            then(self._process.wait())

        loop.add_reader(fd, ended)

    def signal(self, number: int) -> bool:
        """Send a signal to it and those it started in its group; whether it still runs."""
        if self._process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        return True


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
