"""What `dunnart sftp-server` logs: who did what with which files, in the words of OpenSSH's program of that name."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from dunnart.sftp.layers.base import Layer, LayerFile
from dunnart.sftp.messages import FAILURE, STATUS_OF_ERROR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dunnart.sftp.attributes import Attributes
    from dunnart.sftp.files import File, FileSystem, OpenMode

LEVELS = ("QUIET", "FATAL", "ERROR", "INFO", "VERBOSE", "DEBUG1", "DEBUG2", "DEBUG3")
FACILITIES = ("DAEMON", "USER", "AUTH", *(f"LOCAL{number}" for number in range(8)))
FATAL, ERROR, INFO, VERBOSE = 1, 2, 3, 4
_STATUS_TEXTS = {2: "No such file", 3: "Permission denied", 4: "Failure", 5: "Bad message", 8: "Operation unsupported"}


class Log:
    """Writes lines to standard error or to the system's log.

    Args:
        level: a number; what is above it is not written.
        facility: one of `FACILITIES`; "": standard error takes the lines.
    """

    def __init__(self, level: int, facility: str) -> None:
        self.level = level
        self._write = _to_stderr if not facility else _to_syslog(facility)

    def __call__(self, level: int, line: str) -> None:
        """Write a line, if its level is one that is wanted."""
        if level <= self.level:
            self._write(level, line)


def _to_stderr(_level: int, line: str) -> None:
    os.write(2, f"{line}\r\n".encode(errors="replace"))


def _to_syslog(facility: str) -> Callable[[int, str], None]:
    import syslog

    syslog.openlog("sftp-server", syslog.LOG_PID, getattr(syslog, f"LOG_{facility}"))
    priorities = {FATAL: syslog.LOG_CRIT, ERROR: syslog.LOG_ERR, INFO: syslog.LOG_INFO, VERBOSE: syslog.LOG_INFO}
    return lambda level, line: syslog.syslog(priorities.get(level, syslog.LOG_DEBUG), line)


def vis(path: bytes) -> str:
    """Give a path on one line and without anything that a terminal would obey, as C's `vis` does for OpenSSH."""
    text = path.decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else "".join(f"\\{byte:03o}" for byte in each.encode()) for each in text)


class LoggedFiles(Layer):
    """A file system that logs what is done with it.

    Args:
        files: what it is about.
        log: takes the lines.
    """

    def __init__(self, files: FileSystem, log: Log) -> None:
        super().__init__(files)
        self._log = log
        self._failures = _Failures(log)

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
        """Open a file."""
        names = ("READ", "WRITE", "APPEND", "CREATE", "TRUNCATE", "EXCL")
        bits = (mode.read, mode.write, mode.append, mode.create, mode.truncate, mode.exclusive)
        flags = ",".join(name for name, bit in zip(names, bits, strict=True) if bit)
        permissions = 0o666 if attributes.mode is None else attributes.mode
        self._log(INFO, f'open "{vis(path)}" flags {flags} mode 0{permissions:o}')
        with self._failures:
            return _LoggedFile(super().open(path, mode, attributes), path, self._log)

    def scan(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        """List a directory."""
        self._log(INFO, f'opendir "{vis(path)}"')
        with self._failures:
            return super().scan(path)

    def stat(self, path: bytes, *, follow: bool) -> os.stat_result:
        """Look at a file."""
        self._log(VERBOSE, f'{"" if follow else "l"}stat name "{vis(path)}"')
        with self._failures:
            return super().stat(path, follow=follow)

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Change what the attributes name."""
        _log_changes(self._log, path, attributes)
        with self._failures:
            super().set(path, attributes, follow=follow)

    def remove(self, path: bytes) -> None:
        """Remove a file."""
        self._log(INFO, f'remove name "{vis(path)}"')
        with self._failures:
            super().remove(path)

    def make_directory(self, path: bytes, attributes: Attributes) -> None:
        """Make a directory."""
        permissions = 0o777 if attributes.mode is None else attributes.mode & 0o777
        self._log(INFO, f'mkdir name "{vis(path)}" mode 0{permissions:o}')
        with self._failures:
            super().make_directory(path, attributes)

    def remove_directory(self, path: bytes) -> None:
        """Remove an empty directory."""
        self._log(INFO, f'rmdir name "{vis(path)}"')
        with self._failures:
            super().remove_directory(path)

    def real_path(self, path: bytes) -> bytes:
        """Find the path without links."""
        self._log(VERBOSE, f'realpath "{vis(path)}"')
        with self._failures:
            return super().real_path(path)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename a file or directory."""
        self._log(INFO, f'{"posix-" if replace else ""}rename old "{vis(old)}" new "{vis(new)}"')
        with self._failures:
            super().rename(old, new, replace=replace)

    def read_link(self, path: bytes) -> bytes:
        """Read a symbolic link."""
        self._log(VERBOSE, f'readlink "{vis(path)}"')
        with self._failures:
            return super().read_link(path)

    def make_link(self, target: bytes, path: bytes, *, symbolic: bool) -> None:
        """Make a link."""
        self._log(INFO, f'{"symlink" if symbolic else "hardlink"} old "{vis(target)}" new "{vis(path)}"')
        with self._failures:
            super().make_link(target, path, symbolic=symbolic)

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """Look at the file system that a file is on."""
        self._log(INFO, f'statvfs "{vis(path)}"')
        with self._failures:
            return super().statvfs(path)


class _LoggedFile(LayerFile):
    def __init__(self, file: File, path: bytes, log: Log) -> None:
        super().__init__(file)
        self._path = path
        self._log = log
        self._failures = _Failures(log)
        self._read = self._written = 0

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read, and count."""
        with self._failures:
            count = super().read_into(buffer, offset)
        self._read += count
        return count

    def write(self, data: memoryview, offset: int) -> None:
        """Write, and count."""
        with self._failures:
            super().write(data, offset)
        self._written += len(data)

    def set(self, attributes: Attributes) -> None:
        """Change what the attributes name."""
        _log_changes(self._log, self._path, attributes)
        with self._failures:
            super().set(attributes)

    def sync(self) -> None:
        """See that it is on the disk."""
        self._log(VERBOSE, f'fsync "{vis(self._path)}"')
        with self._failures:
            super().sync()

    def close(self) -> None:
        """Let go of it."""
        self._closed("")
        with self._failures:
            super().close()

    def abandon(self) -> None:
        """Let go of it unfinished."""
        self._closed("forced ")
        super().abandon()

    def _closed(self, how: str) -> None:
        self._log(INFO, f'{how}close "{vis(self._path)}" bytes read {self._read} written {self._written}')


class _Failures:
    """Logs how a request fails whose work is done within."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            self._log(INFO, f"sent status {_STATUS_TEXTS[STATUS_OF_ERROR.get(error.errno or 0, FAILURE)]}")


def _log_changes(log: Log, path: bytes, attributes: Attributes) -> None:
    name = f'set "{vis(path)}"'
    if attributes.size is not None:
        log(INFO, f"{name} size {attributes.size}")
    if attributes.mode is not None:
        log(INFO, f"{name} mode {attributes.mode & 0o7777:04o}")
    if attributes.mtime is not None:
        log(INFO, f"{name} modtime {time.strftime('%Y%m%d-%H:%M:%S', time.localtime(attributes.mtime))}")
    if attributes.uid is not None:
        log(INFO, f"{name} owner {attributes.uid} group {attributes.gid}")
