"""SFTP for programs without an event loop: what `dunnart.client.sftp` has, in calls that return when they are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunnart.client import sftp, sftp_file
from dunnart.client.delegation import Facade, blocking

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from dunnart.client.paths import Path
    from dunnart.sftp.client import ServerLimits
    from dunnart.sftp.files import OpenMode

__all__ = ["Sftp", "SftpFile"]


class SftpFile(Facade[sftp_file.SftpFile]):
    """An open file."""

    read = blocking(sftp_file.SftpFile.read)
    read_at = blocking(sftp_file.SftpFile.read_at)
    write = blocking(sftp_file.SftpFile.write)
    write_at = blocking(sftp_file.SftpFile.write_at)
    seek = blocking(sftp_file.SftpFile.seek)
    stat = blocking(sftp_file.SftpFile.stat)
    set = blocking(sftp_file.SftpFile.set)
    truncate = blocking(sftp_file.SftpFile.truncate)
    sync = blocking(sftp_file.SftpFile.sync)
    close = blocking(sftp_file.SftpFile.close)

    def tell(self) -> int:
        """The position."""
        return self._target.tell()


class Sftp(Facade[sftp.Sftp]):
    """An SFTP session."""

    read_file = blocking(sftp.Sftp.read_file)
    write_file = blocking(sftp.Sftp.write_file)
    stat = blocking(sftp.Sftp.stat)
    lstat = blocking(sftp.Sftp.lstat)
    exists = blocking(sftp.Sftp.exists)
    set = blocking(sftp.Sftp.set)
    chmod = blocking(sftp.Sftp.chmod)
    chown = blocking(sftp.Sftp.chown)
    utime = blocking(sftp.Sftp.utime)
    truncate = blocking(sftp.Sftp.truncate)
    remove = blocking(sftp.Sftp.remove)
    rename = blocking(sftp.Sftp.rename)
    posix_rename = blocking(sftp.Sftp.posix_rename)
    symlink = blocking(sftp.Sftp.symlink)
    link = blocking(sftp.Sftp.link)
    readlink = blocking(sftp.Sftp.readlink)
    realpath = blocking(sftp.Sftp.realpath)
    expand = blocking(sftp.Sftp.expand)
    statvfs = blocking(sftp.Sftp.statvfs)
    copy = blocking(sftp.Sftp.copy)
    mkdir = blocking(sftp.Sftp.mkdir)
    rmdir = blocking(sftp.Sftp.rmdir)
    entries = blocking(sftp.Sftp.entries)
    listdir = blocking(sftp.Sftp.listdir)
    glob = blocking(sftp.Sftp.glob)
    get = blocking(sftp.Sftp.get)
    put = blocking(sftp.Sftp.put)
    close = blocking(sftp.Sftp.close)

    def open(self, path: Path, mode: str | OpenMode = "r", *, permissions: int | None = None) -> SftpFile:
        """Open a file."""
        return SftpFile(self._thread, self._thread.call(self._target.open(path, mode, permissions=permissions)))

    def scandir(self, path: Path = ".") -> Iterator[sftp.Entry]:
        """List a directory without "." and "..", as the names come."""
        return self._each(self._target.scandir(path))

    def walk(self, top: Path = ".") -> Iterator[tuple[str, list[sftp.Entry], list[sftp.Entry]]]:
        """Visit a directory and those below it: path, directories, all else."""
        return self._each(self._target.walk(top))

    def _each(self, found: AsyncGenerator[sftp.T, None]) -> Iterator[sftp.T]:
        async def following() -> tuple[sftp.T, ...]:
            async for each in found:
                return (each,)
            return ()

        try:
            while following_one := self._thread.call(following()):
                yield following_one[0]
        finally:
            self._thread.call(found.aclose())

    @property
    def extensions(self) -> frozenset[str]:
        """OpenSSH's extensions that the server has."""
        return self._target.extensions

    @property
    def limits(self) -> ServerLimits:
        """What the server takes."""
        return self._target.limits
