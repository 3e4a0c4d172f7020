"""Private keys in files: read only if nobody else can read them, made whole and once."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import TYPE_CHECKING, Literal

from dunnart.errors import ConfigError, KeyFormatError
from dunnart.keys.private import PrivateKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.keys.certificate import Certificate

_LARGEST = 1 << 20


def read_private_key(path: str, *, key: str | None = None, passphrase: str | None = None) -> PrivateKey:
    """Read a private key file.

    Args:
        path: the file.
        key: the option that named it, for errors.
        passphrase: what unlocks it.

    Raises:
        ConfigError: it is missing, open to others, locked (then a KeyLocked is its cause), or no private key.
    """
    try:
        found, data = read_regular(path)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=path, key=key) from error
    if sys.platform != "win32":
        # A group may be let in by another owner, as containers do with secrets; all others never.
        closed_to = 0o077 if found.st_uid == os.geteuid() else 0o007
        if found.st_mode & closed_to:
            raise ConfigError(
                f"can be read by others (mode {found.st_mode & 0o777:o}); run: chmod 600 {_quoted(path)}",
                path=path,
                key=key,
            )
    try:
        return PrivateKey.load(data, passphrase)
    except KeyFormatError as error:
        raise ConfigError(str(error), path=path, key=key) from error


def read_certificate(path: str, *, key: str | None = None) -> Certificate:
    """Read a -cert.pub file.

    Args:
        path: the file.
        key: the option that named it, for errors.

    Raises:
        ConfigError: it cannot be read, or holds no certificate.
    """
    from dunnart.keys.certificate import Certificate

    try:
        return Certificate.parse_line(read_regular(path)[1].decode(errors="replace"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=path, key=key) from error
    except KeyFormatError as error:
        raise ConfigError(str(error), path=path, key=key) from error


def read_or_make_private_key(
    path: str, kind: Literal["ed25519", "rsa", "ecdsa"], make: Callable[[], bytes] | None = None
) -> PrivateKey:
    """Read a private key file, made first if it is missing.

    Args:
        path: the file.
        kind: what kind of key to make.
        make: gives the content of the file; None: a key of that kind in OpenSSH's format.

    The file appears whole and under its name at once or not at all, so that two first starts at the same time end up
    with the same key: who comes second finds the first one's.

    Raises:
        ConfigError: the file cannot be made, or not be used.
    """
    if not os.path.lexists(path):
        data = PrivateKey.generate(kind).openssh("dunnart") if make is None else make()
        folder, name = os.path.split(path)
        aside = os.path.join(folder, f".{name}.{os.urandom(8).hex()}")
        try:
            _write_new(aside, data)
            try:
                _publish(aside, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside)
        except OSError as error:
            raise ConfigError(f"the key cannot be made: {error.strerror}", path=path) from error
    return read_private_key(path)


def read_regular(path: str, largest: int = _LARGEST) -> tuple[os.stat_result, bytes]:
    """Read a regular file of at most `largest` bytes (1 MiB); a FIFO does not block.

    Returns:
        What the system says of the very file that was read, and its content.

    Raises:
        OSError: it cannot be read, is something else, or is larger; `strerror` says which.
    """
    # O_BINARY is Windows', the others are not.
    flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    try:
        descriptor = os.open(path, os.O_RDONLY | sum(flags))
    except ValueError as error:  # a NUL in the name
        raise FileNotFoundError(0, str(error), path) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is no regular file", path)
        too_large = OSError(0, f"it is larger than {_size(largest)}", path)
        if found.st_size > largest:
            raise too_large
        parts = []
        left = largest
        while part := os.read(descriptor, _LARGEST):
            parts.append(part)
            left -= len(part)
            if left < 0:  # it is growing
                raise too_large
    finally:
        os.close(descriptor)
    return found, b"".join(parts)


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def _write_new(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _publish(aside: str, path: str) -> None:
    """Give a file its name, unless another file has it by now."""
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links: as good as it gets there
        if not os.path.lexists(path):
            os.rename(aside, path)


def _quoted(path: str) -> str:
    from shlex import quote

    return quote(path)
