"""Uploads that appear when they are complete: written beside the final name, renamed over it at the end.

    open, to truncate or create ──► .dunnart-upload-<random> ──┬── close ──► renamed over the final name
                                                               └── abandoned, or a write failed ──► removed

What is staged stands in the folder of its final name, so that a rename is all it takes. Whoever made the upload
reaches it by the final name until then: clients set times by path before they close.
"""

# ruff: noqa: SLF001 - an open file is a part of its file system

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from dunnart.sftp.attributes import Attributes
from dunnart.sftp.files import OpenMode
from dunnart.sftp.layers.base import Layer, LayerFile, last_part
from dunnart.sftp.paths import oserror

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dunnart.sftp.files import File, FileSystem

PREFIX = b".dunnart-upload-"
"""How the names begin under which uploads are staged."""
_RANDOM_BYTES = 8
_CHUNK_BYTES = 256 * 1024
_PERMISSIONS = 0o777


class Atomic(Layer):
    """Files that are replaced as a whole: no half file has its final name, and an unfinished upload leaves nothing.

    A file that is opened to be truncated or created is staged; if it exists and is not to be truncated, which is how
    OpenSSH's scp overwrites files, what it holds is copied first. One that is opened to be changed or appended to is
    changed in place. A replaced file keeps its mode, and its owner where that is permitted; other hard links to it keep
    the old content. An error while it is written is told again when it is closed, and the upload is discarded.

    Staged files are left out of the listings of whoever makes them; all others see hidden files. If the process itself
    is killed, such a file stays. Each session needs an `Atomic` of its own, or it sees what others have not finished.

    Args:
        files: what it wraps.
    """

    def __init__(self, files: FileSystem) -> None:
        super().__init__(files)
        self._uploads: dict[bytes, _Upload] = {}
        self._open: set[_Upload] = set()  # with those whose names were removed, or given to something else

    # Which upload a path means.

    def _final(self, path: bytes, *, follow: bool) -> bytes:
        """A path in its one spelling: absolute, without links on the way."""
        directory, _, name = path.rstrip(b"/").rpartition(b"/")
        if follow or name in {b"", b".", b".."} or path.endswith(b"/"):
            return super().real_path(path)
        above = super().real_path(directory or (b"/" if path.startswith(b"/") else b"."))
        return above.rstrip(b"/") + b"/" + name

    def _upload(self, path: bytes, *, follow: bool) -> _Upload | None:
        if not self._uploads:
            return None
        try:
            return self._uploads.get(self._final(path, follow=follow))
        except OSError:  # what is asked for will say so itself
            return None

    # Opening.

    def open(self, path: bytes, mode: OpenMode, attributes: Attributes) -> File:
        """Open a file; it is staged if its content is new."""
        exclusive = mode.create and mode.exclusive
        upload = self._upload(path, follow=not exclusive)
        fresh = mode.truncate or exclusive
        if upload is not None and exclusive:
            raise oserror(errno.EEXIST, path)
        if upload is not None and not fresh:
            return super().open(upload.staged, OpenMode(mode.read, mode.write, mode.append), Attributes())
        if not mode.write or not (fresh or mode.create) or path.endswith(b"/"):
            return super().open(path, mode, attributes)
        try:
            status = super().stat(path, follow=not exclusive)
        except FileNotFoundError:
            status = None
        if status is None:
            if upload is None and not mode.create:
                raise oserror(errno.ENOENT, path)
        elif exclusive:
            raise oserror(errno.EEXIST, path)
        elif not stat.S_ISREG(status.st_mode) or (mode.append and not fresh):
            return super().open(path, mode, attributes)
        return self._stage(self._final(path, follow=not exclusive), mode, attributes, status, keep=not fresh)

    def _stage(
        self, final: bytes, mode: OpenMode, attributes: Attributes, old: os.stat_result | None, *, keep: bool
    ) -> File:
        if old is not None:
            super().open(final, OpenMode(write=True), Attributes()).close()  # who may not write it may not replace it
            attributes = Attributes(mode=old.st_mode & _PERMISSIONS)
        staged = final.rpartition(b"/")[0] + b"/" + PREFIX + os.urandom(_RANDOM_BYTES).hex().encode()
        how = OpenMode(mode.read, write=True, append=mode.append, create=True, exclusive=True)
        file = super().open(staged, how, attributes)
        if old is not None:
            try:
                _resemble(file, old)
                if keep:
                    self._copy(final, file)
            except BaseException:
                file.abandon()
                self._discard(staged)
                raise
        upload = _Upload(self, file, final, staged, replace=not (mode.create and mode.exclusive))
        self._uploads[final] = upload
        self._open.add(upload)
        return upload

    def _copy(self, final: bytes, staged: File) -> None:
        buffer, offset = memoryview(bytearray(_CHUNK_BYTES)), 0
        file = super().open(final, OpenMode(read=True), Attributes())
        try:
            while count := file.read_into(buffer, offset):
                staged.write(buffer[:count], offset)
                offset += count
        finally:
            file.close()

    def _discard(self, staged: bytes) -> None:
        with contextlib.suppress(OSError):  # the error that led here counts
            super().remove(staged)

    def _publish(self, upload: _Upload) -> None:
        super().rename(upload.staged, upload.final, replace=upload.replace)

    def _ended(self, upload: _Upload) -> None:
        if self._uploads.get(upload.final) is upload:
            del self._uploads[upload.final]

    # What reaches an upload by its final name.

    def scan(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        """List a directory, without what is staged from here."""
        entries = super().scan(path)
        return self._without_staged(entries) if self._uploads else entries

    def _without_staged(
        self, entries: Iterator[tuple[bytes, os.stat_result]]
    ) -> Iterator[tuple[bytes, os.stat_result]]:
        for name, status in entries:
            if not name.startswith(PREFIX) or name not in {last_part(each.staged) for each in self._uploads.values()}:
                yield name, status

    def stat(self, path: bytes, *, follow: bool) -> os.stat_result:
        """What is known of a file."""
        upload = self._upload(path, follow=follow)
        return super().stat(path, follow=follow) if upload is None else upload.stat()

    def set(self, path: bytes, attributes: Attributes, *, follow: bool) -> None:
        """Change what the attributes name."""
        upload = self._upload(path, follow=follow)
        if upload is None:
            super().set(path, attributes, follow=follow)
        else:
            upload.set(attributes)

    def remove(self, path: bytes) -> None:
        """Remove a file; an upload to that name will be discarded."""
        upload = self._upload(path, follow=False)
        if upload is None:
            super().remove(path)
            return
        with contextlib.suppress(FileNotFoundError):
            super().remove(path)
        upload.forget()

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename a file or directory, and with it what is being uploaded there."""
        if not self._open:
            super().rename(old, new, replace=replace)
            return
        source, target = self._upload(old, follow=False), self._upload(new, follow=False)
        if target is not None and not replace:
            raise oserror(errno.EEXIST, new)
        before = self._final(old, follow=False)
        if source is None or self._exists(old):
            super().rename(old, new, replace=replace)
        elif self._exists(new):
            if not replace:
                raise oserror(errno.EEXIST, new)
            super().remove(new)
        after = self._final(new, follow=False)
        if target is not None and target is not source:
            target.forget()
        for final, upload in list(self._uploads.items()):
            if final == before or final.startswith(before + b"/"):
                upload.move(after + final[len(before) :])
        for upload in self._open.difference(self._uploads.values()):  # or it would not be found to be discarded
            if upload.staged.startswith(before + b"/"):
                upload.staged = after + upload.staged[len(before) :]
                upload.final = after + upload.final[len(before) :]

    def _exists(self, path: bytes) -> bool:
        try:
            super().stat(path, follow=False)
        except FileNotFoundError:
            return False
        return True


class _Upload(LayerFile):
    """An upload that is not complete yet."""

    def __init__(self, files: Atomic, file: File, final: bytes, staged: bytes, *, replace: bool) -> None:
        super().__init__(file)
        self._files = files
        self.final = final
        self.staged = staged
        self.replace = replace
        self._forgotten = False
        self._error: OSError | None = None

    def forget(self) -> None:
        """Its name was removed, or given to something else."""
        self._files._ended(self)
        self._forgotten = True

    def move(self, final: bytes) -> None:
        """Its final name is another now; what is staged moved if its folder was renamed."""
        folder, old = final.rpartition(b"/")[0], self.final.rpartition(b"/")[0]
        staged = folder + b"/" + last_part(self.staged)
        files = self._files
        if folder != old and not files._exists(staged):
            files._files.rename(self.staged, staged, replace=False)
        files._ended(self)
        self.final, self.staged = final, staged
        files._uploads[final] = self

    def write(self, data: memoryview, offset: int) -> None:
        self._noting(lambda: self._file.write(data, offset))

    def set(self, attributes: Attributes) -> None:
        if attributes.size is None:
            self._file.set(attributes)
        else:
            self._noting(lambda: self._file.set(attributes))

    def sync(self) -> None:
        self._noting(self._file.sync)

    def _noting(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            self._error = self._error or error
            raise

    def close(self) -> None:
        files = self._files
        try:
            self._file.close()
            self._finish()
        except BaseException:
            files._discard(self.staged)
            raise
        finally:
            files._ended(self)
            files._open.discard(self)

    def _finish(self) -> None:
        if self._error is not None:
            raise OSError(self._error.errno, f"it was discarded, as writing it failed: {self._error.strerror}")
        if self._forgotten:
            self._files._discard(self.staged)
        else:
            self._files._publish(self)

    def abandon(self) -> None:
        try:
            self._file.abandon()
        finally:
            self._files._discard(self.staged)
            self._files._ended(self)
            self._files._open.discard(self)


def _resemble(file: File, old: os.stat_result) -> None:
    """Give what replaces a file its owner, where that is permitted, and its mode."""
    status = file.stat()
    if (status.st_uid, status.st_gid) != (old.st_uid, old.st_gid):
        with contextlib.suppress(OSError):
            file.set(Attributes(uid=old.st_uid, gid=old.st_gid))
    if (file.stat().st_mode ^ old.st_mode) & _PERMISSIONS:
        file.set(Attributes(mode=old.st_mode & _PERMISSIONS))
