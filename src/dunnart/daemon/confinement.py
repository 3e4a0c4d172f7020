"""What a process that meets the network gives up for good, before it serves anybody (Linux).

    uid, gid, groups      those of a user who owns nothing
    chroot                an empty folder
    no_new_privs, dumpable, pdeathsig, rlimits
    Landlock              no file, no TCP port, no signal to and no abstract socket of others (landlock(7))
    seccomp               the system calls below and no others: none that opens, executes, forks, traces (seccomp(2))

What it serves comes to it as descriptors. Whatever is not loaded by then is not to be had any more.

No kept library has all of this and is small; so `prctl`, Landlock and seccomp, for which the standard library has no
functions, are called through ctypes. Each of them that the kernel does not have is left out, and the log says which
are in force.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
from dataclasses import asdict
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

from dunnart.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_NO_NEW_PRIVS = 1, 4, 38  # prctl(2)
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_ABI_OF_NET, _ABI_OF_SCOPES = 4, 6
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""Since which version of Landlock there are how many rights to files."""
_NET_RIGHTS, _SCOPES = 0b11, 0b11


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a process is confined.

    Attributes:
        user: the name of the user that it becomes.
        uid: that one's number; `gid` is its group's.
        folder: an empty folder to be its root; "": it keeps the root that it has, and more than the user is not
            given up.
    """

    user: str
    uid: int
    gid: int
    folder: str

    def arguments(self) -> dict[str, object]:
        """Give what makes the same again."""
        return asdict(self)

    def enter(self, start_threads: Callable[[], None] = lambda: None) -> list[str]:
        """Give it all up; says what is in force.

        Args:
            start_threads: called where threads can be started for the last time.

        Raises:
            OSError: something that this system should have was refused.
        """
        if not self.folder:
            self._become()
            start_threads()
            return [f"user {self.user}"]
        try:
            return self._give_up(start_threads)
        except OSError as error:
            raise OSError(error.errno, f"{error}; sandbox = false does without what a system refuses") from error

    def _give_up(self, start_threads: Callable[[], None]) -> list[str]:
        libc = _Libc()
        os.chroot(self.folder)
        os.chdir("/")
        self._become()
        libc.prctl(_SET_DUMPABLE, 0)
        libc.prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL))
        libc.prctl(_SET_NO_NEW_PRIVS, 1)
        in_force = [f"user {self.user}", f"root {self.folder}", "no_new_privs", "rlimits"]
        version = _landlock(libc)
        if version:
            in_force.append(f"landlock {version}")
        start_threads()
        for limit in (resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            resource.setrlimit(limit, (0, 0))
        sys.meta_path[:] = [_NothingMore]
        if _seccomp(libc):
            in_force.append("seccomp")
        return in_force

    def _become(self) -> None:
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


class _NothingMore:
    """Finds no module, and says so to whoever mends it."""

    @staticmethod
    def find_spec(name: str, _path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec:
        raise ImportError(f"{name} was not loaded before this process was confined", name=name)


class _Libc:
    """System calls that the standard library has no functions for."""

    def __init__(self) -> None:
        import ctypes

        self.ctypes = ctypes
        self._libc = ctypes.CDLL(None, use_errno=True)

    def prctl(self, option: int, value: int) -> None:
        """Set something of this process (prctl(2))."""
        if self._libc.prctl(option, self.ctypes.c_ulong(value), 0, 0, 0) != 0:
            self._fail(f"prctl {option}")

    def call(self, number: int, *arguments: object) -> int:
        """Make a system call; -1 and `errno` if it fails."""
        made = [self.ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
        return int(self._libc.syscall(self.ctypes.c_long(number), *made))

    def _fail(self, what: str) -> None:
        number = self.ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")

    def must(self, what: str, number: int, *arguments: object) -> int:
        """Make a system call that must succeed."""
        result = self.call(number, *arguments)
        if result < 0:
            self._fail(what)
        return result


def _landlock(libc: _Libc) -> int:
    """Deny files, TCP ports, and others' sockets and signals; gives the version of Landlock, 0 without one."""
    version = libc.call(_LANDLOCK_CREATE, None, 0, 1)
    if version <= 0:
        return 0
    rights = (1 << max(count for since, count in _FILE_RIGHTS.items() if since <= version)) - 1
    denied = [rights]
    if version >= _ABI_OF_NET:
        denied.append(_NET_RIGHTS)
    if version >= _ABI_OF_SCOPES:
        denied.append(_SCOPES)
    packed = struct.pack(f"={len(denied)}Q", *denied)
    rules = libc.must("Landlock's rules", _LANDLOCK_CREATE, packed, len(packed), 0)
    libc.must("Landlock", _LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)
    return version


# seccomp. The names are the kernel's; numbers of x86-64 and of what has the generic ones, such as arm64.

_CALLS: dict[str, tuple[int, int]] = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66),
    "recvfrom": (45, 207), "recvmsg": (47, 212), "epoll_wait": (232, -1),
    "epoll_pwait": (281, 22), "epoll_ctl": (233, 21), "futex": (202, 98), "clock_gettime": (228, 113),
    "accept4": (288, 242), "accept": (43, 202), "close": (3, 57), "shutdown": (48, 210), "getsockname": (51, 204),
    "getpeername": (52, 205), "getsockopt": (55, 209), "poll": (7, -1), "ppoll": (271, 73),
    "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214), "getrandom": (318, 278),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "fstat": (5, 80), "newfstatat": (262, 79), "lseek": (8, 62), "dup": (32, 23), "dup3": (292, 24),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getrusage": (98, 165), "times": (100, 153),
    "gettimeofday": (96, 169), "time": (201, -1), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "sched_yield": (24, 124), "restart_syscall": (219, 128), "membarrier": (324, 283),
    "rseq": (334, 293), "set_robust_list": (273, 99), "uname": (63, 160), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
"""What may be called with any arguments. Code that runs in workers and calls more must have it here, or gets EPERM."""
_PROT_EXEC, _FAST_OPEN = 4, 0x20000000
_WITHOUT: dict[str, tuple[tuple[int, int], int, int]] = {
    "mmap": ((9, 222), 2, _PROT_EXEC), "mprotect": ((10, 226), 2, _PROT_EXEC),
    # MSG_FASTOPEN connects a socket that is not yet, such as a listening one that was shut down; so Landlock lets it
    "sendto": ((44, 206), 3, _FAST_OPEN), "sendmsg": ((46, 211), 2, _FAST_OPEN),
}  # fmt: skip
"""What may be called, but not with this bit in the argument of that number, from 0."""
_CHOSEN: dict[str, tuple[tuple[int, int], int, tuple[int, ...]]] = {
    # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ
    "fcntl": ((72, 25), 1, (0, 1, 2, 3, 4, 1030, 1031, 1032)),
    # TCGETS, TIOCGWINSZ, TIOCSWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
    "ioctl": ((16, 29), 1, (0x5401, 0x5413, 0x5414, 0x541B, 0x5421, 0x5450, 0x5451)),
    # TCP_NODELAY, SO_KEEPALIVE, TCP_QUICKACK: a filter would stay at a listening socket when its process is gone
    "setsockopt": ((54, 208), 2, (1, 9, 12)),
}
"""What may be called with one of these values as the argument of that number, from 0."""
_TO_THREAD = (234, 131)  # tgkill, of this process alone: abort() calls it
_LIMITS = (302, 261)  # prlimit64, of this process and to read them: the first argument is 0, and the third
_MACHINES = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}
"""AUDIT_ARCH_…, the column of numbers, and the number of seccomp(2), by machine."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # EPERM
_X32 = 0x40000000


def program(machine: str, process: int) -> list[tuple[int, int, int, int]]:
    """Assemble the filter for a machine and a process: instructions of BPF as in `struct sock_filter`."""
    architecture, column, _ = _MACHINES[machine]
    made = [
        (_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE),
    ]  # fmt: skip
    for numbers in _CALLS.values():
        if numbers[column] >= 0:
            made += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]

    def when(number: int, block: list[tuple[int, int, int, int]]) -> None:
        made.append((_EQUAL, 0, len(block), number))
        made.extend(block)

    def chosen(argument: int, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
        block = [(_LOAD, 0, 0, 16 + 8 * argument)]
        for value in values:
            block += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
        return [*block, (_RETURN, 0, 0, _REFUSE)]

    for numbers, argument, bit in _WITHOUT.values():
        when(numbers[column], [
            (_LOAD, 0, 0, 16 + 8 * argument), (_ANY_BIT, 0, 1, bit), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW),
        ])  # fmt: skip
    when(_LIMITS[column], [
        *(step for word in (16, 16 + 8 * 2, 20 + 8 * 2)
          for step in ((_LOAD, 0, 0, word), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _REFUSE))),
        (_RETURN, 0, 0, _ALLOW),
    ])  # fmt: skip
    for numbers, argument, values in _CHOSEN.values():
        when(numbers[column], chosen(argument, values))
    when(_TO_THREAD[column], chosen(0, (process,)))
    return [*made, (_RETURN, 0, 0, _REFUSE)]


def _seccomp(libc: _Libc) -> bool:
    """Refuse all other system calls, in all threads; False if this cannot be done here."""
    machine = os.uname().machine
    if machine not in _MACHINES or sys.maxsize <= 1 << 32:
        return False
    instructions = b"".join(struct.pack("=HBBI", *each) for each in program(machine, os.getpid()))
    ctypes = libc.ctypes
    filter_ = ctypes.create_string_buffer(instructions, len(instructions))
    described = struct.pack("@HP", len(instructions) // 8, ctypes.addressof(filter_))
    refused = libc.call(_MACHINES[machine][2], 1, 1, described)  # SECCOMP_SET_MODE_FILTER for all threads
    if refused > 0:
        raise OSError(f"seccomp: thread {refused} has another filter")
    return refused == 0


def run_worker(control: int, confinement: dict[str, Any]) -> None:
    """Run a protocol process whose link is that descriptor; `confinement` is what `Confinement.arguments` gave."""
    from dunnart.server.processes.worker import main

    os.dup2(1, 2)  # that it has come so far is all that it had to say; standard output leads nowhere already
    main(control, Confinement(**confinement).enter)
