"""Files that appear whole, and never in the place of another."""

from __future__ import annotations

import os


def write_new(path: str, data: bytes, mode: int) -> None:
    """Write a file that is not there yet; it appears with all its content.

    Raises:
        OSError: there is one of the name, or it cannot be written.
    """
    aside = f"{path}.{os.urandom(8).hex()}"
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(aside, path)
        except FileExistsError as error:
            raise FileExistsError(error.errno, error.strerror, path) from None
        except PermissionError:  # a file system without hard links
            if os.path.lexists(path):
                raise FileExistsError(17, "File exists", path) from None
            os.rename(aside, path)
            return
        os.unlink(aside)
    except BaseException:
        if os.path.lexists(aside):
            os.unlink(aside)
        raise
