"""SFTP: both sides of version 3 without their I/O, and what a server can serve.

Names are loaded when they are first used: a process that serves one session starts with what that needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunnart.sftp.attributes import Attributes
    from dunnart.sftp.client import FileSystemStatus, Name, Request, ServerLimits, SftpClient
    from dunnart.sftp.files import File, FileSystem, OpenMode
    from dunnart.sftp.fsspec_files import FsspecFiles
    from dunnart.sftp.layers.atomic import Atomic
    from dunnart.sftp.layers.name_filter import NameFilter
    from dunnart.sftp.layers.observed import FileEvent, Observed
    from dunnart.sftp.layers.quota import Quota
    from dunnart.sftp.layers.read_only import ReadOnly
    from dunnart.sftp.local import LocalFiles
    from dunnart.sftp.memory import MemoryFiles
    from dunnart.sftp.server import SftpServer
    from dunnart.sftp.streams import serve

_HOMES = {
    "Atomic": "layers.atomic", "Attributes": "attributes", "File": "files", "FileEvent": "layers.observed",
    "FileSystem": "files", "FileSystemStatus": "client", "FsspecFiles": "fsspec_files", "LocalFiles": "local",
    "MemoryFiles": "memory", "Name": "client", "NameFilter": "layers.name_filter", "Observed": "layers.observed",
    "OpenMode": "files", "Quota": "layers.quota", "ReadOnly": "layers.read_only", "Request": "client",
    "ServerLimits": "client", "SftpClient": "client", "SftpServer": "server", "serve": "streams",
}  # fmt: skip

__all__ = [
    "Atomic",
    "Attributes",
    "File",
    "FileEvent",
    "FileSystem",
    "FileSystemStatus",
    "FsspecFiles",
    "LocalFiles",
    "MemoryFiles",
    "Name",
    "NameFilter",
    "Observed",
    "OpenMode",
    "Quota",
    "ReadOnly",
    "Request",
    "ServerLimits",
    "SftpClient",
    "SftpServer",
    "serve",
]


def __getattr__(name: str) -> object:
    """Load a name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dunnart.sftp' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"dunnart.sftp.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
