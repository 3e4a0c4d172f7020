"""Pseudo terminals: opened, sized, and their modes set as the client asks (RFC 4254 §8)."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING

from dunnart.protocol.requests import clamp_side

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIZE = struct.Struct("HHHH")
_PIXELS_MAX = 0xFFFF
# RFC 4254 §8's opcodes to termios' names: control characters, then flags by their field.
_CHARACTERS = {
    1: "VINTR", 2: "VQUIT", 3: "VERASE", 4: "VKILL", 5: "VEOF", 6: "VEOL", 7: "VEOL2", 8: "VSTART", 9: "VSTOP",
    10: "VSUSP", 11: "VDSUSP", 12: "VREPRINT", 13: "VWERASE", 14: "VLNEXT", 18: "VDISCARD",
}  # fmt: skip
_FLAGS = {
    0: {
        30: "IGNPAR", 31: "PARMRK", 32: "INPCK", 33: "ISTRIP", 34: "INLCR", 35: "IGNCR", 36: "ICRNL", 37: "IUCLC",
        38: "IXON", 39: "IXANY", 40: "IXOFF", 41: "IMAXBEL", 42: "IUTF8",
    },
    1: {70: "OPOST", 71: "OLCUC", 72: "ONLCR", 73: "OCRNL", 74: "ONOCR", 75: "ONLRET"},
    2: {92: "PARENB", 93: "PARODD"},
    3: {
        50: "ISIG", 51: "ICANON", 52: "XCASE", 53: "ECHO", 54: "ECHOE", 55: "ECHOK", 56: "ECHONL", 57: "NOFLSH",
        58: "TOSTOP", 59: "IEXTEN", 60: "ECHOCTL", 61: "ECHOKE", 62: "PENDIN",
    },
}  # fmt: skip
_SIZES = {90: "CS7", 91: "CS8"}
_IUTF8 = 0x4000  # not named by Python's termios; Linux and macOS agree on it
_ISPEED, _OSPEED = 128, 129
_DISABLED = 255


class Terminal:
    """A pty: `master` is ours, `slave` the child's until it has started.

    Args:
        master: another process's, whose slave is in use already; -1: make a new pty.

    Raises:
        OSError: the system has none left.
    """

    __slots__ = ("master", "name", "slave")

    def __init__(self, master: int = -1) -> None:
        self.master, self.slave, self.name = master, -1, ""
        if master >= 0:
            return
        self.master, self.slave = os.openpty()
        try:
            self.name = os.ttyname(self.slave)
        except OSError:
            self.close()
            raise

    def resize(self, columns: int, rows: int, width_pixels: int = 0, height_pixels: int = 0) -> None:
        """Set the size; the kernel tells the foreground process by SIGWINCH. 0 says nothing (RFC 4254 §6.2)."""
        import fcntl
        import termios

        wanted = (rows and clamp_side(rows), columns and clamp_side(columns),
                  min(width_pixels, _PIXELS_MAX), min(height_pixels, _PIXELS_MAX))  # fmt: skip
        with contextlib.suppress(OSError):
            before = _SIZE.unpack(fcntl.ioctl(self.master, termios.TIOCGWINSZ, bytes(_SIZE.size)))
            size = _SIZE.pack(*(new or old for new, old in zip(wanted, before, strict=True)))
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def apply(self, modes: Mapping[int, int]) -> None:
        """Set the modes that this system knows; the others are skipped."""
        import termios

        settings = termios.tcgetattr(self.slave)
        for opcode, value in modes.items():
            if opcode in _CHARACTERS:
                index = getattr(termios, _CHARACTERS[opcode], None)
                if index is not None and value <= _DISABLED:
                    settings[6][index] = bytes((0 if value == _DISABLED else value,))
            elif opcode in _SIZES and value:
                settings[2] = settings[2] & ~termios.CSIZE | getattr(termios, _SIZES[opcode])
            elif opcode in (_ISPEED, _OSPEED):
                speed = getattr(termios, f"B{value}", None)
                if speed is not None:
                    settings[4 if opcode == _ISPEED else 5] = speed
            else:
                _set_flag(settings, opcode, value, termios)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self.slave, termios.TCSANOW, settings)

    def send_break(self) -> bool:
        """RFC 4335: break the line; whether the system could."""
        import termios

        try:
            termios.tcsendbreak(self.master, 0)
        except termios.error:
            return False
        return True

    def give_to(self, uid: int, gid: int) -> None:
        """Make the slave the user's."""
        give(self.name, uid, gid)

    def show(self, text: bytes) -> None:
        """Write what is to be read there before the child's output, as far as the system keeps it: some 8 KiB."""
        if not text:
            return
        fd = os.open(self.name, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with contextlib.suppress(BlockingIOError):
                while text := text[os.write(fd, text) :]:
                    pass
        finally:
            os.close(fd)

    def close_slave(self) -> None:
        """Close our copy of the child's side."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def close(self) -> None:
        """Close both sides."""
        self.close_slave()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


def _set_flag(settings: list[object], opcode: int, value: int, termios: object) -> None:
    for index, names in _FLAGS.items():
        if opcode in names:
            flag = _IUTF8 if names[opcode] == "IUTF8" else getattr(termios, names[opcode], None)
            current = settings[index]
            if isinstance(flag, int) and isinstance(current, int):
                settings[index] = current | flag if value else current & ~flag


def give(terminal: str | int, uid: int, gid: int) -> None:
    """Make a slave, by its path or descriptor, a user's: mode 620 when its group is tty's, as login does."""
    import grp

    try:
        group, mode = grp.getgrnam("tty").gr_gid, 0o620
    except KeyError:
        group, mode = gid, 0o600
    os.chown(terminal, uid, group)
    os.chmod(terminal, mode)


def take_terminal() -> None:
    """Make the terminal on descriptor 0 the controlling one. In a child that leads a session of its own."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Ownership:
    """Who a terminal belongs to until its session ends: then it is root's again, whatever still has it open.

    It is kept by a descriptor, for by then the name may be another session's. Linux only.

    Args:
        name: the slave's path.

    Raises:
        OSError: it cannot be opened.
    """

    __slots__ = ("_fd",)

    def __init__(self, name: str) -> None:
        self._fd = os.open(name, os.O_PATH | os.O_NOCTTY | os.O_CLOEXEC)

    def end(self) -> None:
        """Give it back."""
        path = f"/proc/self/fd/{self._fd}"
        try:
            with contextlib.suppress(OSError):  # it is gone, as usually
                os.chown(path, 0, 0)
                os.chmod(path, 0o600)
        finally:
            os.close(self._fd)


def modes_of(fd: int) -> dict[int, int]:
    """A terminal's modes, as a client sends them (RFC 4254 §8): opcode → value.

    Raises:
        OSError: it is no terminal.
    """
    import termios

    try:
        settings = termios.tcgetattr(fd)
    except termios.error as error:
        raise OSError(*error.args) from error
    modes: dict[int, int] = {}
    for opcode, name in _CHARACTERS.items():
        index = getattr(termios, name, None)
        if index is not None:
            value = settings[6][index]
            modes[opcode] = (value if isinstance(value, int) else value[0]) or _DISABLED
    for field, names in _FLAGS.items():
        for opcode, name in names.items():
            flag = _IUTF8 if name == "IUTF8" else getattr(termios, name, None)
            if flag is not None:
                modes[opcode] = int(bool(settings[field] & flag))
    for opcode, name in _SIZES.items():
        modes[opcode] = int(settings[2] & termios.CSIZE == getattr(termios, name))
    return modes
