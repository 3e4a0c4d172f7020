"""What runs in the fork server: a small process with modules loaded, which forks a child for each order it reads.

    length │ order as JSON       with the descriptors that the order speaks of
    child's number, then how it ended, each 4 bytes, through the order's own pipe

It has one thread and holds no secret: it was executed, not forked. What its owner sends it believes, and nobody else
can send. It ends when its owner does, or when nothing is wanted of it for a while; its children go on.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time

LENGTH_BYTES = 4
ORDER_BYTES = 256 * 1024
"""The longest order."""
MOST_DESCRIPTORS = 16
_STATUS = 0  # which of the descriptors tells of the end; the rest are the child's
_FAILED = 1


def main(descriptor: int, idle_seconds: int, until: int = -1) -> None:
    """Serve a socket until it ends, or until nothing was wanted and no child ran for so long.

    Args:
        descriptor: the socket's.
        idle_seconds: how long; 0: it serves on.
        until: another descriptor, whose end is the end as well; -1: none.
    """
    control = socket.socket(fileno=descriptor)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children = _Children()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake, select.POLLIN)
    if until >= 0:
        poll.register(until, select.POLLIN)
    ending = False
    while children or not ending:
        ready = dict(poll.poll(idle_seconds * 1000 or None))
        if not ready and not children:
            # Whoever orders now is refused, and starts another; what was ordered just before is done still.
            control.shutdown(socket.SHUT_RD)
            poll.unregister(control)
            while _obey(control, children):
                pass
            ending = True
        if wake in ready:
            os.read(wake, 512)
            children.reap()
        if descriptor in ready and not _obey(control, children):
            return
        if until in ready and descriptor not in ready:  # what was ordered before is done
            return


def _obey(control: socket.socket, children: _Children) -> bool:
    """Read an order and do it; False at the end."""
    head, found = _receive(control)
    size = int.from_bytes(head, "big")
    if len(head) < LENGTH_BYTES or not 0 < size <= ORDER_BYTES:
        return False
    text = _rest(control, size)
    if len(text) < size:
        return False
    order = json.loads(text)
    if "signal" in order:
        children.signal(order["number"], order["signal"])
        return True
    children.start(order, found, control)
    for each in found[_STATUS + 1 :]:
        os.close(each)
    return True


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Read an order's length and take its descriptors."""
    numbers = array.array("i")
    space = socket.CMSG_SPACE(MOST_DESCRIPTORS * numbers.itemsize)
    head, ancillary, _, _ = control.recvmsg(LENGTH_BYTES, space)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return head + _rest(control, LENGTH_BYTES - len(head)) if head else head, list(numbers)


def _rest(control: socket.socket, size: int) -> bytes:
    """Read so many bytes, fewer at the end: MSG_WAITALL would not, when a child ends meanwhile."""
    data = b""
    while len(data) < size and (some := control.recv(size - len(data))):
        data += some
    return data


class _Children:
    """Who runs: their process numbers and the pipes that want to know of their ends, by the orders' numbers."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, order: dict[str, object], found: list[int], control: socket.socket) -> None:
        """Fork a child."""
        preload = order["preload"]
        assert isinstance(preload, list)
        target = _loaded(str(order["target"]), preload)
        gc.freeze()  # the collector would touch, and so copy, what the child shares with us
        try:
            pid = os.fork()
        except OSError:  # there is no room for more processes: the end of the order's pipe tells
            os.close(found[_STATUS])
            return
        if pid == 0:
            status = _FAILED
            try:
                control.close()
                status = _child(order, target, found)
            except BaseException:  # noqa: BLE001 - nothing of the child may return into the fork server's loop
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        number = order["number"]
        assert isinstance(number, int)
        self._running[number] = (pid, found[_STATUS])
        _tell(found[_STATUS], pid)

    def signal(self, number: int, which: int) -> None:
        """Send a signal to a child and those in its group, if it still runs."""
        if number in self._running:
            try:
                os.killpg(self._running[number][0], which)
            except OSError:  # not yet in a group of its own, or all of them gone
                return

    def reap(self) -> None:
        """Tell of those that have ended."""
        for number, (pid, pipe) in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._running[number]
                _tell(pipe, os.waitstatus_to_exitcode(status))
                os.close(pipe)


def _tell(pipe: int, number: int) -> None:
    try:
        os.write(pipe, number.to_bytes(4, "big", signed=True))
    except OSError:  # nobody wants to know
        return


def _loaded(target: str, preload: list[str]) -> object:
    """Give a function by its name, or the exception that it cannot be loaded for."""
    from importlib import import_module

    new = [each for each in preload if each not in sys.modules]
    for each in new:
        with contextlib.suppress(Exception):  # whoever needs it will see why
            import_module(each)
    if new and "ctypes" in sys.modules:  # which would weigh as much as it gives back
        from dunnart.runtime.footprint import release_files

        release_files()
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except Exception as error:  # noqa: BLE001 - the child tells of it
        return error


def _child(order: dict[str, object], target: object, found: list[int]) -> int:
    """Become what the order wants, and do it; gives the exit status."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    _take(found)
    user, environment, arguments = order["user"], order["environment"], order["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    if isinstance(user, list):
        uid, gid, groups = user
        if isinstance(groups, str):  # whose look-up may take its time
            os.initgroups(groups, gid)
        elif groups is not None:
            os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    try:
        os.chdir(str(order["directory"]))
    except OSError:  # the user may not, or it is gone: as sshd, we go on
        os.chdir("/")
    if isinstance(target, Exception):
        raise target
    assert callable(target)
    try:
        return int(target(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else _FAILED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _take(found: list[int]) -> None:
    """Make the order's descriptors 0, 1, 2 and, those that it passes on, 3 and so on; nothing else stays open."""
    import fcntl

    wanted = found[_STATUS + 1 :]
    above = [fcntl.fcntl(each, fcntl.F_DUPFD, len(wanted)) for each in wanted]
    for number, each in enumerate(above):
        os.dup2(each, number)
    os.closerange(len(wanted), os.sysconf("SC_OPEN_MAX"))
