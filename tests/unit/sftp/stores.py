"""Stores to serve, each empty: fsspec's own, and S3 from a server in this process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from dunnart.sftp import FsspecFiles


class Stored:
    """A store, and what serves it.

    Attributes:
        filesystem: fsspec's object, to look at the store from the other side.
        base: where the root is there.
        files: what serves it.
    """

    def __init__(self, filesystem: AbstractFileSystem, base: str, wrapped: AbstractFileSystem | None = None) -> None:
        self.filesystem = filesystem
        self.base = base
        self.served = (filesystem, base) if wrapped is None else (wrapped, "")
        self.files = self.again()

    def content(self, name: str) -> bytes:
        self.filesystem.invalidate_cache()
        data: bytes = self.filesystem.cat_file(f"{self.base}/{name}")
        return data

    def has(self, name: str) -> bool:
        self.filesystem.invalidate_cache()
        return bool(self.filesystem.exists(f"{self.base}/{name}"))

    def put(self, name: str, data: bytes) -> None:
        path = f"{self.base}/{name}"
        if not isinstance(self.filesystem, MemoryFileSystem):  # which takes a made directory for an empty one
            self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.filesystem.pipe_file(path, data)

    def again(self, **options: Any) -> FsspecFiles:
        """Give the files as another session would have them."""
        return FsspecFiles(*self.served, **options)


@dataclass
class S3:
    """A server of S3.

    Attributes:
        options: what s3fs takes to reach it.
        filesystem: s3fs's object; one takes seconds to get ready.
    """

    options: dict[str, Any]
    filesystem: AbstractFileSystem

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self.options["endpoint_url"])


@contextmanager
def s3_server() -> Iterator[S3]:
    """Start a server of S3, with empty memory."""
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"key": "key", "secret": "secret", "endpoint_url": f"http://{host}:{port}"}
        yield S3(options, S3FileSystem(**options, skip_instance_cache=True))
    finally:
        server.stop()


def in_memory() -> Stored:
    filesystem = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    filesystem.mkdir("/share")
    return Stored(filesystem, "/share")


def in_a_directory() -> Stored:
    """`dir` of fsspec, which prefixes paths."""
    inner = in_memory().filesystem
    return Stored(inner, "/share", DirFileSystem("/share", inner, skip_instance_cache=True))


def on_disk(folder: Path) -> Stored:
    folder.mkdir()
    return Stored(LocalFileSystem(skip_instance_cache=True), str(folder))


def in_s3(server: S3, prefix: str = "/some/prefix") -> Stored:
    bucket = f"bucket-{uuid.uuid4()}"
    server.filesystem.mkdir(bucket)
    return Stored(server.filesystem, bucket + prefix)
