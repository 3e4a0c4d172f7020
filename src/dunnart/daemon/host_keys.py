"""The server's host keys: where they are kept, how they are made on the first start, and what files are refused."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Sequence
from typing import Literal, cast

from dunnart.errors import ConfigError, KeyFormatError
from dunnart.keys.private import PrivateKey

_LARGEST = 1 << 20


def default_state_folder() -> str:
    """Give the platform's folder for what the server keeps between its runs."""
    if sys.platform == "win32":
        return os.path.join(os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local"), "dunnart")
    elif os.geteuid() == 0:  # noqa: RET505 - mypy knows which platform has which branch
        return "/var/lib/dunnart"
    elif sys.platform == "darwin":
        return os.path.expanduser("~/Library/Application Support/dunnart")
    else:
        # A relative path in the variable is to be ignored (XDG Base Directory Specification).
        configured = os.environ.get("XDG_STATE_HOME", "")
        base = configured if os.path.isabs(configured) else os.path.expanduser("~/.local/state")
        return os.path.join(base, "dunnart")


def load_host_keys(files: Sequence[str], kinds: Sequence[str], state_folder: str = "") -> tuple[PrivateKey, ...]:
    """Read the host keys.

    Args:
        files: key files; each must exist.
        kinds: if there are no files: which keys of the state folder; a missing one is made.
        state_folder: "" for the platform's.

    Raises:
        ConfigError: a file or the folder is missing, damaged, open to others, or cannot be used.
    """
    if files:
        return tuple(read_host_key(file) for file in files)
    if not kinds:
        raise ConfigError("neither host_key nor host_key_types names a key", key="host_key_types")
    folder = state_folder or default_state_folder()
    prepare_folder(folder)
    return tuple(read_or_make(folder, cast("Literal['ed25519', 'rsa', 'ecdsa']", kind)) for kind in kinds)


def prepare_folder(folder: str) -> None:
    """Make the state folder with mode 700, or check one that exists: who can write there can exchange the host key.

    Raises:
        ConfigError: it cannot be made, or others can write to it.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(folder)), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.stat(folder)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", path=folder, key="state_folder") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError("is no folder", path=folder, key="state_folder")
    if sys.platform != "win32":
        if found.st_uid not in {0, os.geteuid()}:
            raise ConfigError("belongs to another user", path=folder, key="state_folder")
        if found.st_mode & 0o022:
            advice = f"run: chmod 700 {_quoted(folder)}"
            raise ConfigError(f"can be written by others; {advice}", path=folder, key="state_folder")


def read_or_make(folder: str, kind: Literal["ed25519", "rsa", "ecdsa"]) -> PrivateKey:
    """Read a host key of the state folder, made first if it is missing.

    The file appears whole and under its name at once or not at all, so that two first starts at the same time end up
    with the same key: who comes second finds the first one's.

    Raises:
        ConfigError: the file cannot be made, or not be used.
    """
    path = os.path.join(folder, f"ssh_host_{kind}_key")
    if not os.path.lexists(path):
        data = PrivateKey.generate(kind).openssh("dunnart")
        aside = os.path.join(folder, f".{os.path.basename(path)}.{os.urandom(8).hex()}")
        try:
            _write_new(aside, data)
            try:
                _publish(aside, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside)
        except OSError as error:
            raise ConfigError(f"the host key cannot be made: {error.strerror}", path=path) from error
    return read_host_key(path)


def read_host_key(path: str) -> PrivateKey:
    """Read a private key file.

    Raises:
        ConfigError: it is missing, open to others, encrypted, or no private key.
    """
    try:
        found, data = _read_regular(path)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=path, key="host_key") from error
    if sys.platform != "win32":
        # A group may be let in by another owner, as containers do with secrets; all others never.
        closed_to = 0o077 if found.st_uid == os.geteuid() else 0o007
        if found.st_mode & closed_to:
            raise ConfigError(
                f"can be read by others (mode {found.st_mode & 0o777:o}); run: chmod 600 {_quoted(path)}",
                path=path,
                key="host_key",
            )
    try:
        return PrivateKey.load(data)
    except KeyFormatError as error:
        raise ConfigError(str(error), path=path, key="host_key") from error


def _read_regular(path: str) -> tuple[os.stat_result, bytes]:
    """Read a regular file of at most 1 MiB; a FIFO does not block.

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
        if found.st_size > _LARGEST:
            raise OSError(0, "it is larger than 1 MiB", path)
        parts = []
        while part := os.read(descriptor, _LARGEST):
            parts.append(part)
            if sum(map(len, parts)) > _LARGEST:  # it is growing
                raise OSError(0, "it is larger than 1 MiB", path)
    finally:
        os.close(descriptor)
    return found, b"".join(parts)


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
