"""The server's host keys: where they are kept, how they are made on the first start, and what files are refused."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

from dunnart.daemon.unmade import could_make_folder, is_missing
from dunnart.errors import ConfigError
from dunnart.keys.files import read_certificate, read_or_make_private_key, read_private_key
from dunnart.keys.private import PrivateKey
from dunnart.runtime.logs import clean

if TYPE_CHECKING:
    from dunnart.keys.certificate import Certificate

_LOG = logging.getLogger("dunnart.daemon")


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


def load_host_keys(
    files: Sequence[str], kinds: Sequence[str], state_folder: str = "", *, make: bool = True
) -> tuple[PrivateKey, ...]:
    """Read the host keys.

    Args:
        files: key files; each must exist.
        kinds: if there are no files: which keys of the state folder; a missing one is made.
        state_folder: "" for the platform's.
        make: make what is missing there. If not, a key that no file holds stands for it.

    Raises:
        ConfigError: a file or the folder is missing, damaged, open to others, or cannot be used.
    """
    if files:
        return tuple(read_private_key(file, key="host_key") for file in files)
    if not kinds:
        raise ConfigError("neither host_key nor host_key_types names a key", key="host_key_types")
    folder = state_folder or default_state_folder()
    prepare_folder(folder, make=make)
    return tuple(
        _host_key(
            os.path.join(folder, f"ssh_host_{kind}_key"), cast("Literal['ed25519', 'rsa', 'ecdsa']", kind), make=make
        )
        for kind in kinds
    )


def _host_key(path: str, kind: Literal["ed25519", "rsa", "ecdsa"], *, make: bool) -> PrivateKey:
    try:
        if not make and is_missing(path):
            could_make_folder(os.path.dirname(path))
            return PrivateKey.generate(kind)
    except OSError as error:
        raise ConfigError(f"the key cannot be made: {error.strerror}", path=path) from error
    return read_or_make_private_key(path, kind)


def load_host_certificates(files: Sequence[str], keys: Sequence[PrivateKey]) -> tuple[Certificate, ...]:
    """Read certificates of host keys. One that is not valid at this time is named in the log, and offered.

    Raises:
        ConfigError: a file holds none, or one of a user or of another key.
    """
    certificates = []
    for file in files:
        certificate = read_certificate(file, key="host_certificate")
        if certificate.kind != "host":
            raise ConfigError("is a user's certificate, not a host's", path=file, key="host_certificate")
        if all(certificate.key != key.public for key in keys):
            shown = certificate.fingerprint()
            raise ConfigError(f"is for the key {shown}, which is no host key", path=file, key="host_certificate")
        if not certificate.valid_after <= time.time() < certificate.valid_before:
            _LOG.warning("%s is not valid at this time: clients will not take it", clean(file))
        certificates.append(certificate)
    return tuple(certificates)


def prepare_folder(folder: str, *, make: bool = True) -> None:
    """Make the state folder with mode 700, or check one that exists: who can write there can exchange the host key.

    Args:
        folder: its path.
        make: else one that is missing is left so, but it is seen that it could be made.

    Raises:
        ConfigError: it cannot be made, or others can write to it.
    """
    try:
        if make:
            os.makedirs(os.path.dirname(os.path.abspath(folder)), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        elif is_missing(folder):
            could_make_folder(folder)
            return
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


def _quoted(path: str) -> str:
    from shlex import quote

    return quote(path)
